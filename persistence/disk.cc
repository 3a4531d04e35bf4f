#include "persistence/disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>

namespace crab::wal {
namespace {

Status SystemError(std::string_view what, std::string_view path, int error) {
  std::string text = "cannot ";
  text.append(what).append(" ").append(path).append(": ").append(std::strerror(error));
  return Status::Error(std::move(text), error);
}

class RealMapping final : public Mapping {
 public:
  RealMapping(const char* address, uint64_t size, std::string path) : path_(std::move(path)) {
    bytes_ = {address, size};
  }
  ~RealMapping() override {
    if (!bytes_.empty()) munmap(const_cast<char*>(bytes_.data()), bytes_.size());
  }

  Status Load(uint64_t offset, uint64_t count) override {
    if (offset >= bytes_.size()) return Status::Ok();
    count = std::min<uint64_t>(count, bytes_.size() - offset);
    const uint64_t first = offset & ~(kPageBytes - 1);
    char* const start = const_cast<char*>(bytes_.data()) + first;
    if (madvise(start, offset + count - first, MADV_POPULATE_READ) == 0) return Status::Ok();
    // A kernel before 5.14 does not know the advice; then a page that cannot be read is a SIGBUS.
    if (errno == EINVAL) return Status::Ok();
    return SystemError("read", path_, errno == EFAULT ? EIO : errno);
  }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  const std::string path_;
};

class RealFile final : public File {
 public:
  RealFile(int fd, std::string path, bool direct)
      : fd_(fd), path_(std::move(path)), may_be_direct_(direct), direct_(direct) {}
  ~RealFile() override { close(fd_); }

  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    while (!bytes.empty()) {
      TRY(SetDirect(may_be_direct_ && IsAligned(offset, bytes)));
      const ssize_t done = pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0 && errno == EINVAL && direct_) {
        may_be_direct_ =
            false;  // it wants larger multiples, or cannot do it for this file after all
        continue;
      }
      if (done < 0) return SystemError("write", path_, errno);
      if (done == 0) return SystemError("write", path_, EIO);
      offset += static_cast<uint64_t>(done);
      bytes.remove_prefix(static_cast<size_t>(done));
    }
    return Status::Ok();
  }

  Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) override {
    TRY(SetDirect(false));
    size_t total = 0;
    while (total < bytes.size()) {
      const ssize_t done = pread(fd_, bytes.data() + total, bytes.size() - total,
                                 static_cast<off_t>(offset + total));
      if (done < 0 && errno == EINTR) continue;
      if (done < 0) return SystemError("read", path_, errno);
      if (done == 0) break;
      total += static_cast<size_t>(done);
    }
    return total;
  }

  Status SyncData() override {
    // Not retried on EINTR: what a failed sync left behind is unknown, whatever the reason.
    if (fdatasync(fd_) != 0) return SystemError("sync", path_, errno);
    return Status::Ok();
  }

  Result<uint64_t> Size() override {
    struct stat info;
    if (fstat(fd_, &info) != 0) return SystemError("stat", path_, errno);
    return static_cast<uint64_t>(info.st_size);
  }

  Status Truncate(uint64_t bytes) override {
    if (ftruncate(fd_, static_cast<off_t>(bytes)) != 0) {
      return SystemError("truncate", path_, errno);
    }
    return Status::Ok();
  }

  Result<std::unique_ptr<Mapping>> Map() override {
    const uint64_t size = TRY(Size());
    void* address = nullptr;
    if (size > 0) {
      address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd_, 0);
      if (address == MAP_FAILED) return SystemError("map", path_, errno);
    }
    return std::unique_ptr<Mapping>(
        std::make_unique<RealMapping>(static_cast<const char*>(address), size, path_));
  }

 private:
  static bool IsAligned(uint64_t offset, std::string_view bytes) {
    const auto address = reinterpret_cast<uintptr_t>(bytes.data());
    return (address | offset | bytes.size()) % kDirectBytes == 0;
  }

  Status SetDirect(bool direct) {
    if (direct == direct_) return Status::Ok();
    if (fcntl(fd_, F_SETFL, direct ? O_DIRECT : 0) != 0) return SystemError("change", path_, errno);
    direct_ = direct;
    return Status::Ok();
  }

  const int fd_;
  const std::string path_;
  bool may_be_direct_;  // some writes go past the page cache:
  bool direct_;         // those that are made now
};

class RealLock final : public DirectoryLock {
 public:
  // Takes both descriptors. The directory's keeps its inode from being used for another one.
  RealLock(std::string directory, int directory_fd, int fd)
      : directory_(std::move(directory)), directory_fd_(directory_fd), fd_(fd) {}
  ~RealLock() override {
    close(fd_);
    close(directory_fd_);
  }

  Place place() const override {
    struct stat held, found;
    if (stat(directory_.c_str(), &found) != 0 || !S_ISDIR(found.st_mode)) return Place::kGone;
    if (fstat(directory_fd_, &held) != 0) return Place::kGone;
    if (held.st_dev != found.st_dev) return Place::kOtherDevice;
    return held.st_ino == found.st_ino ? Place::kSame : Place::kOther;
  }

 private:
  const std::string directory_;
  const int directory_fd_;
  const int fd_;
};

class MachineDisk final : public Disk {
 public:
  Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC;
    switch (mode) {
      case OpenMode::kRead:
        flags |= O_RDONLY;
        break;
      case OpenMode::kReadWrite:
        flags |= O_RDWR;
        break;
      case OpenMode::kCreate:
      case OpenMode::kCreateDirect:
        flags |= O_RDWR | O_CREAT | O_EXCL;
        break;
    }
    const int fd = open(path.c_str(), flags, 0600);
    if (fd < 0) return SystemError((flags & O_CREAT) != 0 ? "create" : "open", path, errno);
    // Not every file system knows it.
    const bool direct = mode == OpenMode::kCreateDirect && fcntl(fd, F_SETFL, O_DIRECT) == 0;
    return std::unique_ptr<File>(std::make_unique<RealFile>(fd, path, direct));
  }

  Result<std::vector<std::string>> List(const std::string& directory) override {
    DIR* handle = opendir(directory.c_str());
    if (handle == nullptr) return SystemError("list", directory, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(handle)) {
      struct stat info;
      if (fstatat(dirfd(handle), entry->d_name, &info, AT_SYMLINK_NOFOLLOW) == 0 &&
          S_ISREG(info.st_mode)) {
        names.emplace_back(entry->d_name);
      }
      errno = 0;
    }
    const int error = errno;
    closedir(handle);
    if (error != 0) return SystemError("list", directory, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  Status CreateDirectories(const std::string& directory) override {
    for (size_t end = 1; end <= directory.size(); ++end) {
      if (end < directory.size() && directory[end] != '/') continue;
      const std::string part = directory.substr(0, end);
      if (mkdir(part.c_str(), 0700) == 0) {
        // The new name has to survive a power cut like everything that will stand below it.
        const size_t slash = part.find_last_of('/');
        const std::string parent =
            slash == std::string::npos ? "." : (slash == 0 ? "/" : part.substr(0, slash));
        TRY(SyncDirectory(parent));
      } else if (errno != EEXIST && !IsDirectory(part)) {
        return SystemError("create directory", part, errno);
      }
    }
    if (!IsDirectory(directory)) return SystemError("create directory", directory, ENOTDIR);
    return Status::Ok();
  }

  Status Rename(const std::string& from, const std::string& to) override {
    if (rename(from.c_str(), to.c_str()) != 0) return SystemError("rename", from, errno);
    return Status::Ok();
  }

  Status Remove(const std::string& path) override {
    if (unlink(path.c_str()) != 0) return SystemError("remove", path, errno);
    return Status::Ok();
  }

  Status Link(const std::string& from, const std::string& to) override {
    if (link(from.c_str(), to.c_str()) != 0) return SystemError("link", from, errno);
    return Status::Ok();
  }

  Status SyncDirectory(const std::string& directory) override {
    const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return SystemError("open", directory, errno);
    const int error = fsync(fd) == 0 ? 0 : errno;
    close(fd);
    if (error != 0) return SystemError("sync directory", directory, error);
    return Status::Ok();
  }

  Result<uint64_t> LinkCount(const std::string& path) override {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return SystemError("stat", path, errno);
    return static_cast<uint64_t>(info.st_nlink);
  }

  Result<uint64_t> FreeBytes(const std::string& directory) override {
    struct statvfs info;
    if (statvfs(directory.c_str(), &info) != 0) return SystemError("stat", directory, errno);
    return static_cast<uint64_t>(info.f_bavail) * info.f_frsize;
  }

  Result<std::unique_ptr<DirectoryLock>> Lock(const std::string& directory) override {
    const int directory_fd = open(directory.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory_fd < 0) return SystemError("open", directory, errno);
    const std::string path = directory + "/lock";
    const int fd = openat(directory_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
      const int error = errno;
      if (fd >= 0) close(fd);
      close(directory_fd);
      return SystemError(fd < 0 ? "open" : "lock", path, error);
    }
    return std::unique_ptr<DirectoryLock>(std::make_unique<RealLock>(directory, directory_fd, fd));
  }

 private:
  static bool IsDirectory(const std::string& path) {
    struct stat info;
    return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
  }
};

}  // namespace

bool IsDamage(int error) { return error == EBADMSG || error == EIO || error == ENOENT; }

Disk& RealDisk() {
  static MachineDisk disk;
  return disk;
}

}  // namespace crab::wal

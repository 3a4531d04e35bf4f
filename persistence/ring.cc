#include "persistence/ring.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <new>
#include <system_error>

#include "utils/check.h"

namespace crab::wal {
namespace {

constexpr char kMagic[8] = {'C', 'R', 'A', 'B', 'R', 'I', 'N', 'G'};
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 4096;
constexpr uint64_t kDataBytesMin = uint64_t{1} << 20;
// One slot for this many bytes of data: a short SET with its key fills both at about the same pace.
constexpr uint64_t kDataBytesPerSlot = 128;

Status SystemError(std::string_view what, const std::string& path, int error) {
  std::string text = "cannot ";
  text.append(what).append(" the ring ").append(path).append(": ").append(std::strerror(error));
  return Status::Error(std::move(text), error);
}

std::string NamePrefix(uint64_t log_id) {
  char name[40];
  std::snprintf(name, sizeof(name), "crabcache-%016llx-", static_cast<unsigned long long>(log_id));
  return name;
}

constexpr uint64_t FileBytes(uint64_t slot_count, uint64_t data_bytes) {
  return kHeaderBytes + slot_count * sizeof(Slot) + data_bytes;
}

}  // namespace

std::string Ring::Path(const std::string& directory, const RingStamp& stamp) {
  char place[48];
  std::snprintf(place, sizeof(place), "%llx-%llx.ring",
                static_cast<unsigned long long>(stamp.directory_device),
                static_cast<unsigned long long>(stamp.directory_inode));
  return directory + "/" + NamePrefix(stamp.log_id) + place;
}

RingStamp Ring::StampFor(uint64_t log_id, const std::string& log_directory) {
  RingStamp stamp;
  stamp.log_id = log_id;
  const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    const ssize_t got = read(fd, stamp.boot_id, 36);  // a UUID; what cannot be read stays empty
    if (got < 36) std::memset(stamp.boot_id, 0, sizeof(stamp.boot_id));
    close(fd);
  }
  struct stat info;
  if (stat(log_directory.c_str(), &info) == 0) {
    stamp.directory_device = info.st_dev;
    stamp.directory_inode = info.st_ino;
  }
  return stamp;
}

Status Ring::Map(int fd, uint64_t slot_count, uint64_t data_bytes) {
  fd_ = fd;
  slot_count_ = slot_count;
  data_bytes_ = data_bytes;
  const uint64_t file_bytes = FileBytes(slot_count, data_bytes);
  const uint64_t data_offset = file_bytes - data_bytes;
  // One range of addresses for the file and the data's second image behind it.
  void* range = mmap(nullptr, file_bytes + data_bytes, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return SystemError("map", path_, errno);
  memory_ = static_cast<char*>(range);
  mapped_bytes_ = file_bytes + data_bytes;
  constexpr int kAccess = PROT_READ | PROT_WRITE;
  if (mmap(memory_, file_bytes, kAccess, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED ||
      mmap(memory_ + file_bytes, data_bytes, kAccess, MAP_SHARED | MAP_FIXED, fd,
           static_cast<off_t>(data_offset)) == MAP_FAILED) {
    return SystemError("map", path_, errno);
  }
  slots_ = reinterpret_cast<Slot*>(memory_ + kHeaderBytes);
  data_ = memory_ + data_offset;
  return Status::Ok();
}

Ring::~Ring() {
  if (memory_ != nullptr) munmap(memory_, mapped_bytes_);
  if (fd_ >= 0) close(fd_);
}

Result<std::unique_ptr<Ring>> Ring::Create(const std::string& directory, const RingStamp& stamp,
                                           const Sharding& sharding, uint64_t bytes) {
  const uint64_t data_bytes = std::bit_ceil(std::max(bytes, kDataBytesMin));
  const uint64_t slot_count = data_bytes / kDataBytesPerSlot;
  auto ring = std::unique_ptr<Ring>(new Ring());
  const std::string path = Path(directory, stamp);
  const std::string unfinished = path + ".new";
  unlink(unfinished.c_str());
  const int fd = open(unfinished.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0) return SystemError("create", path, errno);
  ring->fd_ = fd;
  // Allocated now, so that a full memory file system refuses here and does not kill us later.
  int error = posix_fallocate(fd, 0, static_cast<off_t>(FileBytes(slot_count, data_bytes)));
  if (error == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) error = errno;
  if (error != 0) {
    unlink(unfinished.c_str());
    return SystemError("allocate", path, error);
  }
  Status mapped = ring->Map(fd, slot_count, data_bytes);
  if (!mapped.ok()) {
    unlink(unfinished.c_str());
    return mapped;
  }
  RingHeader* header = new (ring->memory_) RingHeader();
  std::memcpy(header->magic, kMagic, sizeof(kMagic));
  header->version = kVersion;
  header->slot_bytes = sizeof(Slot);
  header->slot_count = slot_count;
  header->data_bytes = data_bytes;
  header->stamp = stamp;
  header->hash_seed = sharding.hash_seed;
  header->shard_count = sharding.shard_count;
  header->shard_by_hashtag = sharding.by_hashtag ? 1 : 0;
  if (rename(unfinished.c_str(), path.c_str()) != 0) {
    error = errno;
    unlink(unfinished.c_str());
    return SystemError("create", path, error);
  }
  ring->path_ = path;
  ring->shared_ = true;
  return ring;
}

Result<std::unique_ptr<Ring>> Ring::CreatePrivate(uint64_t bytes) {
  const uint64_t data_bytes = std::bit_ceil(std::max(bytes, kDataBytesMin));
  const uint64_t slot_count = data_bytes / kDataBytesPerSlot;
  auto ring = std::unique_ptr<Ring>(new Ring());
  const int fd = memfd_create("crabcache-ring", MFD_CLOEXEC);
  if (fd < 0) return SystemError("create", "in memory", errno);
  ring->fd_ = fd;
  if (ftruncate(fd, static_cast<off_t>(FileBytes(slot_count, data_bytes))) != 0) {
    return SystemError("allocate", "in memory", errno);
  }
  TRY(ring->Map(fd, slot_count, data_bytes));
  new (ring->memory_) RingHeader();
  return ring;
}

std::vector<std::string> Ring::OfCopies(const std::string& directory, const RingStamp& stamp) {
  std::vector<std::string> paths;
  const std::string prefix = NamePrefix(stamp.log_id);
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = file.path().filename();
    if (!name.starts_with(prefix) || !name.ends_with(".ring")) continue;
    if (file.path() != Path(directory, stamp)) paths.push_back(file.path());
  }
  return paths;
}

Result<std::unique_ptr<Ring>> Ring::OpenLeft(const std::string& directory, const RingStamp& stamp) {
  auto ring = std::unique_ptr<Ring>(new Ring());
  ring->path_ = Path(directory, stamp);
  ring->shared_ = true;
  const int fd = open(ring->path_.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return SystemError("open", ring->path_, errno);
  ring->fd_ = fd;
  if (flock(fd, LOCK_EX | LOCK_NB) != 0) return SystemError("lock", ring->path_, errno);
  struct stat info;
  if (fstat(fd, &info) != 0) return SystemError("stat", ring->path_, errno);
  RingHeader header;
  const ssize_t got = pread(fd, static_cast<void*>(&header), sizeof(header), 0);
  if (got < 0) return SystemError("read", ring->path_, errno);
  if (static_cast<uint64_t>(info.st_size) < kHeaderBytes ||
      got != static_cast<ssize_t>(sizeof(header)) ||
      std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0 || header.version != kVersion ||
      header.slot_bytes != sizeof(Slot) || !std::has_single_bit(header.data_bytes) ||
      header.data_bytes < kDataBytesMin || header.data_bytes > (uint64_t{1} << 40) ||
      header.slot_count != header.data_bytes / kDataBytesPerSlot ||
      FileBytes(header.slot_count, header.data_bytes) != static_cast<uint64_t>(info.st_size)) {
    return Status::Error("what stands at " + ring->path_ + " is no ring of this program", EBADMSG);
  }
  TRY(ring->Map(fd, header.slot_count, header.data_bytes));
  return ring;
}

Status Ring::Remove() {
  if (path_.empty()) return Status::Ok();
  if (unlink(path_.c_str()) != 0 && errno != ENOENT) return SystemError("remove", path_, errno);
  return Status::Ok();
}

Status Ring::MoveTo(const RingStamp& stamp) {
  if (!shared_) return Status::Ok();
  const std::string path = Path(std::filesystem::path(path_).parent_path(), stamp);
  if (rename(path_.c_str(), path.c_str()) != 0 && errno != ENOENT) {
    return SystemError("rename", path_, errno);
  }
  header().stamp = stamp;
  path_ = path;
  return Status::Ok();
}

Result<std::string> Ring::SetAside(const std::string& path) {
  struct stat info;
  if (stat(path.c_str(), &info) != 0) return SystemError("stat", path, errno);
  // Named by its inode: two that are set aside never collide.
  const std::string aside = path + ".aside-" + std::to_string(info.st_ino);
  if (rename(path.c_str(), aside.c_str()) != 0) return SystemError("rename", path, errno);
  return aside;
}

}  // namespace crab::wal

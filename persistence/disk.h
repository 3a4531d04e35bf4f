// The disk as the log sees it: the few system calls it needs, behind an interface, so that a test
// can lose, tear, flip and refuse. RealDisk is the machine's; tests/support/sim_disk.h the other.
// Every error is a Status that says what was tried on which path, with the errno behind it
// (Status::system_errno): the log decides by errno (ENOSPC, EIO, EACCES ...), people read the text.
// Synchronized by use: a File belongs to one thread at a time; a Disk may be called by any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "utils/status.h"

namespace crab::wal {

// Bytes of a file as they are when it is mapped; of a file that nobody changes any more.
// Synchronized: constant.
class Mapping {
 public:
  virtual ~Mapping() = default;
  std::string_view bytes() const { return bytes_; }
  // Brings the bytes [offset, offset + count) into memory before they are touched, so that reading
  // them does not wait for the disk, and an error of the disk is a Status here. A page that the
  // kernel drops after that and cannot read again is still a SIGBUS. Any thread.
  virtual Status Load(uint64_t offset, uint64_t count) = 0;

 protected:
  std::string_view bytes_;
};

class File {
 public:
  virtual ~File() = default;  // closes; what was not synced is as durable as the disk pleases

  // Writes all of `bytes` at `offset`. On an error any prefix of them may have been written.
  virtual Status WriteAt(uint64_t offset, std::string_view bytes) = 0;
  // Reads up to `bytes.size()` bytes; fewer only at the end of the file.
  virtual Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) = 0;
  // Makes everything written so far, and the file's size, survive a power cut (fdatasync). After an
  // error nothing is known of what was written since the last success, and this file is not to be
  // written again.
  virtual Status SyncData() = 0;
  virtual Result<uint64_t> Size() = 0;
  virtual Status Truncate(uint64_t bytes) = 0;
  // The whole file, of the size it has now, to be read. Outlives the File.
  virtual Result<std::unique_ptr<Mapping>> Map() = 0;
};

// Holds a directory against a second server until destroyed.
class DirectoryLock {
 public:
  enum class Place {
    kSame,
    kGone,         // there is none, or it cannot be looked at
    kOther,        // another one has taken its place, which nobody holds by this
    kOtherDevice,  // so, and on another file system: a mount went away, or came
  };
  virtual ~DirectoryLock() = default;
  // What stands where the directory stood when it was locked.
  virtual Place place() const = 0;
};

enum class OpenMode {
  kRead,       // the file must exist
  kReadWrite,  // the file must exist
  kCreate,     // the file must not exist; read and write, mode 0600
  // As kCreate, for bytes that nobody reads soon: writes whose memory, offset and size are
  // multiples of kDirectBytes go past the page cache where the file system can do that. So they
  // cost next to no time of the processor, and the kernel has none to write back when it pleases.
  kCreateDirect,
};
constexpr size_t kDirectBytes = 4096;

class Disk {
 public:
  virtual ~Disk() = default;

  virtual Result<std::unique_ptr<File>> Open(const std::string& path, OpenMode mode) = 0;
  // Names (not paths) of the plain files in a directory, sorted.
  virtual Result<std::vector<std::string>> List(const std::string& directory) = 0;
  virtual Status CreateDirectories(const std::string& directory) = 0;         // OK when it exists
  virtual Status Rename(const std::string& from, const std::string& to) = 0;  // replaces `to`
  virtual Status Remove(const std::string& path) = 0;
  // A second name for a file's bytes; fails with EEXIST where the name is taken.
  virtual Status Link(const std::string& from, const std::string& to) = 0;
  // Makes creations, renames and removals in the directory survive a power cut.
  virtual Status SyncDirectory(const std::string& directory) = 0;
  // Hard links of the file: above 1, a backup shares its bytes and it must not be recycled.
  virtual Result<uint64_t> LinkCount(const std::string& path) = 0;
  virtual Result<uint64_t> FreeBytes(const std::string& directory) = 0;
  // Fails with EWOULDBLOCK where another process (or another lock of this one) holds it.
  virtual Result<std::unique_ptr<DirectoryLock>> Lock(const std::string& directory) = 0;
};

// What a disk does not give once it may give the next time; damage stays. `call` may run twice.
template <typename Call>
auto TryTwice(const Call& call) {
  auto got = call();
  return got.ok() ? std::move(got) : call();
}

// Whether an errno tells of the bytes of a file: that they are damaged, cannot be read or are gone.
// Any other (no permission, no descriptor left, no memory) says nothing of them, and to go on
// without them would be to throw them away.
bool IsDamage(int error);

// The machine's own file systems. The object is stateless and may outlive or be shared by anything.
Disk& RealDisk();

}  // namespace crab::wal

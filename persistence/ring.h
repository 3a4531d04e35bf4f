// The ring: the place in shared memory where records wait to be written. It is a file on a memory
// file system, mapped MAP_SHARED, so that it outlives a killed process: the next start finds in it
// what had been promised and not yet written.
//
// Layout: a page of header, the slots, the data. A record takes the slot `lsn % slots` and as many
// bytes of data as its payload, at an ever-growing position whose place is `position % data_bytes`.
// The data is mapped twice in a row, so a payload is contiguous wherever it falls.
//
// A slot is reserved (state, facts, LSN last) before a byte is copied, and published after; x86 and
// release stores keep that order for whoever looks later, in this process or the next.
// Synchronized by use: Log's reservation lock orders those who reserve; each slot belongs to its
// appender until published and to the writer until freed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

enum class SlotState : uint32_t {
  kFree = 0,
  kReserved = 1,      // the payload is being copied into the ring
  kPublished = 2,     // whole, and `crc` is right
  kHeapReserved = 3,  // the payload lives in the process' own memory, and dies with it
  kHeapPublished = 4,
};

struct Slot {
  std::atomic<Lsn> lsn;
  uint64_t position;  // of the payload; unused for heap payloads
  uint32_t length;
  std::atomic<SlotState> state;
  uint32_t crc;  // the body's part: see record.h
  uint8_t type;
  uint8_t flags;
  uint16_t shard;
};
static_assert(sizeof(Slot) == 32);
static_assert(std::atomic<Lsn>::is_always_lock_free);

// What must agree for a ring to be the one that a log left behind.
struct RingStamp {
  char boot_id[40] = {};  // of the kernel: memory does not survive a restart of the machine
  uint64_t log_id = 0;
  uint64_t directory_device = 0;  // of the log directory
  uint64_t directory_inode = 0;

  bool operator==(const RingStamp&) const = default;
};

// How keys found the shards whose numbers stand in records.
struct Sharding {
  uint64_t hash_seed = 0;
  uint32_t shard_count = 0;  // 0 = not known
  bool by_hashtag = false;

  bool operator==(const Sharding&) const = default;
};

struct RingHeader {
  char magic[8];
  uint32_t version;
  uint32_t slot_bytes;
  uint64_t slot_count;
  uint64_t data_bytes;
  RingStamp stamp;
  alignas(64) std::atomic<uint64_t> epoch;
  // Slots up to this LSN are free; above it each may hold a record.
  std::atomic<Lsn> freed_lsn;
  std::atomic<Lsn> durable_lsn;
  std::atomic<uint64_t> given_up;  // 1: the server carries on without the log, nothing more comes
  // Of its records; all zero in a ring from before these fields.
  uint64_t hash_seed;
  uint32_t shard_count;
  uint32_t shard_by_hashtag;
};
static_assert(sizeof(RingHeader) <= 4096);
static_assert(offsetof(RingHeader, given_up) == 152);
static_assert(offsetof(RingHeader, hash_seed) == 160);

class Ring {
 public:
  // Makes "<directory>/crabcache-<log id>-<device>-<inode>.ring", replacing an older one of that
  // name: the log directory is named too, so that a copy of it, which has the same log id, never
  // takes the place of the original's ring. `bytes` is rounded up to a power of two; the slots come
  // on top (a quarter of it).
  static Result<std::unique_ptr<Ring>> Create(const std::string& directory, const RingStamp& stamp,
                                              const Sharding& sharding, uint64_t bytes);
  // One that dies with the process.
  static Result<std::unique_ptr<Ring>> CreatePrivate(uint64_t bytes);
  // The one an earlier process left; an error with ENOENT where there is none, with EBADMSG where
  // what stands in its place is none of this program's.
  static Result<std::unique_ptr<Ring>> OpenLeft(const std::string& directory,
                                                const RingStamp& stamp);
  // Where that one stands.
  static std::string Path(const std::string& directory, const RingStamp& stamp);
  // Keeps a file under another name for somebody to look at; yields that name.
  static Result<std::string> SetAside(const std::string& path);
  // Rings of the same log in another directory: this one is a copy of it, or was moved.
  static std::vector<std::string> OfCopies(const std::string& directory, const RingStamp& stamp);
  ~Ring();

  // The machine's boot id and the directory's inode, under this log id.
  static RingStamp StampFor(uint64_t log_id, const std::string& log_directory);

  RingHeader& header() { return *reinterpret_cast<RingHeader*>(memory_); }
  Sharding sharding() {
    return {header().hash_seed, header().shard_count, header().shard_by_hashtag != 0};
  }
  uint64_t data_bytes() const { return data_bytes_; }
  uint64_t slot_count() const { return slot_count_; }
  bool shared() const { return shared_; }
  const std::string& path() const { return path_; }

  Slot& slot(Lsn lsn) { return slots_[lsn & (slot_count_ - 1)]; }
  char* data(uint64_t position) { return data_ + (position & (data_bytes_ - 1)); }

  // The file's name goes; the memory stays until the object does.
  Status Remove();
  // The log goes on in another directory: the next start looks for the ring under this stamp. A
  // file whose name somebody has taken away is no error, for nothing finds it under any.
  Status MoveTo(const RingStamp& stamp);

 private:
  Ring() = default;
  Status Map(int fd, uint64_t slot_count, uint64_t data_bytes);

  int fd_ = -1;
  bool shared_ = false;  // a file that outlives the process
  std::string path_;     // "" = private
  char* memory_ = nullptr;
  uint64_t mapped_bytes_ = 0;
  Slot* slots_ = nullptr;
  uint64_t slot_count_ = 0;
  char* data_ = nullptr;
  uint64_t data_bytes_ = 0;
};

}  // namespace crab::wal

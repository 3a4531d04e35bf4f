// Shard: the part of the keyspace owned as one unit: its lock, a table per database with the
// deadlines and the memory it holds, and the records that changed it last. Shard-bound but for the
// lock itself and the time of the next deadline.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "src/keyspace/recent_writes.h"
#include "src/keyspace/table.h"

namespace crab {

class alignas(64) Shard {
 public:
  // --- the lock: taken by src/execution only, in ascending order of shards ---
  // 0 free, 1 held, 2 held with sleepers. Acquire pairs with the release of Unlock.
  std::atomic<uint32_t> lock{0};

  // The table of a database; null when it was never used. Database 0 always has one.
  Table* FindTable(uint32_t db) const {
    if (__builtin_expect(db == 0, 1)) return const_cast<Table*>(&first_);
    return db <= others_.size() ? others_[db - 1].get() : nullptr;
  }
  // The same, made when it is not there.
  Table& TableOf(uint32_t db);
  // Databases at and above this have no table.
  uint32_t table_count() const { return static_cast<uint32_t>(others_.size()) + 1; }

  // Bytes of all tables with their entries, as the allocator rounds them.
  size_t MemoryBytes() const;

  // No deadline here passes before this; INT64_MAX: none at all. A hint that whoever does not hold
  // the shard may read to see whether it is worth holding: it may be early, and late only by what
  // the holder is just changing. Relaxed: nothing is published through it.
  int64_t next_deadline_ms() const { return next_deadline_ms_.load(std::memory_order_relaxed); }
  void NoteDeadline(int64_t deadline_ms) {
    if (deadline_ms < next_deadline_ms()) {
      next_deadline_ms_.store(deadline_ms, std::memory_order_relaxed);
    }
  }
  // After deadlines were taken away: looks at all tables.
  void RefreshNextDeadline();

  // The gates of replies that have read something here.
  RecentWrites& writes() { return writes_; }

 private:
  Table first_;  // database 0's, which most servers use alone
  std::atomic<int64_t> next_deadline_ms_{INT64_MAX};
  std::vector<std::unique_ptr<Table>> others_;  // by database - 1
  // A cache line of its own, which a command needs last: it asks the memory for it first. In front
  // of the others it was measured to cost 4 % of a SET.
  alignas(64) RecentWrites writes_;
};

}  // namespace crab

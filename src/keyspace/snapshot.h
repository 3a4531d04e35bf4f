// Snapshot: the keyspace as of one moment, the cut, written out while it goes on changing
// (DESIGN §6). The cut gives all entries an older epoch; the walk writes each entry of an older
// epoch as effects and stamps it; whoever changes or removes an entry of an older epoch saves it
// first. So each entry as of the cut is written exactly once, and no copy of the process is made.
//
// Order of events: Begin (world held) · Step, any number of times, each holding one shard · done().
// One snapshot at a time; the keyspace points to it while it lives. Its parts are shard-bound, but
// for what the world guards (Begin, tables being detached and swapped).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/keyspace/detached_tables.h"
#include "src/keyspace/entry.h"
#include "src/keyspace/keyspace.h"
#include "src/values/string.h"

namespace crab {

// Takes what a snapshot yields. Called by whoever holds the shard, from any loop: synchronized,
// quick, without I/O.
class SnapshotSink {
 public:
  virtual ~SnapshotSink() = default;
  // Effects (SET with their deadlines) end to end, of `entries` keys of one shard.
  virtual void Take(uint16_t shard, std::string effects, uint64_t entries) = 0;
  // A value too large to copy while a shard is held: shared, see LargeString::Share. The sink gives
  // its share back (LargeString::Destroy) when it is written. One entry.
  virtual void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                         LargeString* value) = 0;
};

class Snapshot {
 public:
  // Values from here on are shared with the sink instead of copied.
  static constexpr size_t kLargeBytes = 64 * 1024;
  // Effects of a shard are gathered up to this and then given to the sink.
  static constexpr size_t kChunkBytes = 16 * 1024;

  // The cut: the caller holds the world, and no other snapshot of this keyspace lives. The sink
  // outlives this.
  Snapshot(Keyspace& keyspace, SnapshotSink& sink);
  // World held. A snapshot that is not done must not be destroyed: Abandon it and walk on.
  ~Snapshot();

  // Walks about `entries` more entries of a shard, which the caller holds. True: the shard is done.
  bool Step(uint32_t shard, size_t entries);
  bool done(uint32_t shard) const;
  bool done() const { return shards_left_.load(std::memory_order_acquire) == 0; }
  // From here on nothing is given to the sink; the walk goes on, for the next cut needs every entry
  // stamped. Any thread.
  void Abandon() { abandoned_.store(true, std::memory_order_relaxed); }

  // --- for the keyspace ---
  // Saves an entry of an older epoch before it is changed or removed, and stamps it. `db` as of
  // now: the snapshot knows what it was called at the cut.
  void Save(uint32_t shard, uint32_t db, Entry* entry);
  uint32_t epoch() const { return epoch_; }
  // World held: SWAPDB; tables that FLUSHALL takes away are walked before they are freed.
  void Swap(uint32_t a, uint32_t b);
  void Keep(uint32_t shard, uint32_t db, std::unique_ptr<Table> table);

  // Gauges for INFO; any thread, consistent enough.
  uint64_t entries_total() const { return entries_total_; }  // at the cut
  uint64_t entries_done() const { return entries_done_.load(std::memory_order_relaxed); }
  uint64_t entries_saved() const { return entries_saved_.load(std::memory_order_relaxed); }
  uint64_t bytes_saved() const { return bytes_saved_.load(std::memory_order_relaxed); }

 private:
  Keyspace& keyspace_;
  SnapshotSink& sink_;
  uint32_t epoch_;
  uint64_t entries_total_ = 0;
  std::atomic<bool> abandoned_{false};
  std::atomic<uint32_t> shards_left_;
  std::atomic<uint64_t> entries_done_{0}, entries_saved_{0}, bytes_saved_{0};
};

}  // namespace crab

// Snapshot: the keyspace as of one moment, the cut, written out while it goes on changing
// (DESIGN §6). The cut gives all entries an older epoch; the walk writes each entry of an older
// epoch as effects and stamps it; whoever changes or removes an entry of an older epoch saves it
// first. So each entry as of the cut is written exactly once, and no copy of the process is made.
//
// Order of events: the constructor (world held) · Step, any number of times, each holding one
// shard · done(). One snapshot at a time; the keyspace points to it while it lives. Its parts are
// shard-bound, but for what the world guards (the cut, tables being detached and swapped).
// Holds, besides the tables it keeps, at most kChunkBytes of effects for each shard between calls,
// and less where there are more than 1024 shards, so that all of them hold no more.
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
  // its share back (LargeString::Destroy) when it is written. One entry. `stays`: it is in the
  // keyspace, too, so that until it is changed there the share costs no memory.
  virtual void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                         LargeString* value, bool stays) = 0;
  // Whether a walk is to rest: the Step under way ends behind what it has just given. What is saved
  // comes nevertheless.
  virtual bool IsFull() const { return false; }
};

class Snapshot {
 public:
  // Values from here on are shared with the sink instead of copied by the walk. What is saved is
  // shared wherever it can be, because one command may change any number of keys, and mostly it is
  // about to replace or remove them.
  static constexpr size_t kLargeBytes = 64 * 1024;
  // Effects of a shard are gathered up to this and then given to the sink; with many shards up to
  // their share of kChunkBytesOfAll.
  static constexpr size_t kChunkBytes = 16 * 1024;
  static constexpr size_t kChunkBytesOfAll = 16 * 1024 * 1024;

  // The cut: the caller holds the world, and no other snapshot of this keyspace lives. The sink
  // outlives this. Costs a look at every table, none at an entry.
  Snapshot(Keyspace& keyspace, SnapshotSink& sink);
  // World held. One that is not done is abandoned and walked to its end here, which takes its time:
  // better Abandon it and walk on, or SetLast.
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;

  // Walks about `entries` more entries of a shard, which the caller holds, or fewer where the sink
  // is full. True: the shard is done.
  bool Step(uint32_t shard, size_t entries);
  // Whether all of the shard is written, and given to the sink. Never untrue again. Any thread.
  // Acquire pairs with the release of who finished it.
  bool done(uint32_t shard) const { return walks_[shard].done.load(std::memory_order_acquire); }
  bool done() const { return shards_left_.load(std::memory_order_acquire) == 0; }
  // From here on nothing is given to the sink, but by a call that is under way; the walk goes on,
  // for the next cut needs every entry stamped. Any thread.
  void Abandon() { abandoned_.store(true, std::memory_order_relaxed); }
  // World held, and no cut of this keyspace follows: the destructor walks to no end then. All that
  // is left to do with the keyspace is to destroy it.
  void SetLast() { last_ = true; }

  // --- for the keyspace ---
  // Saves an entry of an older epoch before it is changed or removed, and stamps it. `db` as of
  // now: the snapshot knows what it was called at the cut. The shard is held.
  void Save(uint32_t shard, uint32_t db, Entry* entry);
  uint32_t epoch() const { return epoch_; }
  // Whether no entry of this table is still to be written. The shard is held.
  bool HasWalked(uint32_t shard, uint32_t db) const;
  // World held: SWAPDB; tables that FLUSHALL takes away before they are walked. They are walked
  // first from now on, each freed by LazyFree when that is done.
  void Swap(uint32_t a, uint32_t b);
  void Keep(uint32_t shard, uint32_t db, std::unique_ptr<Table> table);

  // What the tables take that are kept. Any thread.
  uint64_t kept_bytes() const { return kept_bytes_.load(std::memory_order_relaxed); }

  // Gauges for INFO; any thread, consistent enough: they come up to date with every chunk and Step.
  uint64_t entries_total() const { return entries_total_; }  // at the cut
  uint64_t entries_done() const { return entries_done_.load(std::memory_order_relaxed); }
  // Those of them that were saved because they were about to change, and their bytes.
  uint64_t entries_saved() const { return entries_saved_.load(std::memory_order_relaxed); }
  uint64_t bytes_saved() const { return bytes_saved_.load(std::memory_order_relaxed); }

 private:
  // A table that was taken out of the keyspace, and what its database was called at the cut.
  struct Kept {
    std::unique_ptr<Table> table;
    uint32_t name;
    uint64_t bytes;  // its memory
    uint64_t cursor = 0;
  };

  // One shard's part; on cache lines of its own, since any loop may step or save.
  struct alignas(64) Walk {
    uint64_t left = 0;       // entries at the cut that are not stamped yet
    uint32_t name = 0;       // the database that is being walked, as it was called at the cut
    uint32_t names_end = 0;  // of the databases that had a table at the cut
    uint64_t cursor = 0;     // Table::Scan's, in that database
    std::atomic<bool> done{false};
    std::vector<Kept> kept;
    std::string effects;
    uint64_t effects_entries = 0;
    // Not yet in the gauges.
    uint64_t stamped = 0;
    uint64_t saved = 0;
    uint64_t saved_bytes = 0;
  };

  uint32_t NameOf(uint32_t db) const { return db < name_of_.size() ? name_of_[db] : db; }
  uint32_t DbOf(uint32_t name) const { return name < db_of_.size() ? db_of_[name] : name; }
  bool WalkTable(uint32_t shard, const Table& table, uint32_t name, bool stays, uint64_t* cursor,
                 size_t* entries);
  bool IsSinkFull() const;
  size_t Write(uint32_t shard, uint32_t name, Entry* entry, size_t large_bytes, bool stays);
  void Free(Walk* walk, std::vector<Kept>::iterator first);
  void Flush(uint32_t shard);
  void Report(Walk* walk);
  void FinishIfDone(uint32_t shard);

  Keyspace& keyspace_;
  SnapshotSink& sink_;
  uint32_t epoch_;
  const size_t chunk_bytes_;
  uint64_t entries_total_ = 0;
  bool last_ = false;
  std::unique_ptr<Walk[]> walks_;  // by shard
  // Since the cut databases may have changed places: where each was then, and where it is now.
  // Changed by Swap only; a database behind their end is where it was.
  std::vector<uint32_t> name_of_;  // by database as of now
  std::vector<uint32_t> db_of_;    // by name at the cut
  std::atomic<bool> abandoned_{false};
  // Release: what a done shard gave to the sink comes before its count.
  std::atomic<uint32_t> shards_left_{0};
  std::atomic<uint64_t> entries_done_{0}, entries_saved_{0}, bytes_saved_{0}, kept_bytes_{0};
};

}  // namespace crab

// Keyspace: all keys of all databases, cut into shards by the hash of the key; every database of a
// key shares its shard. KeyspaceView: one database of it as one command sees it, at one time.
// A shard is touched only by whoever holds it (its lock, or the world); see src/execution.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "src/keyspace/detached_tables.h"
#include "src/keyspace/effects.h"
#include "src/keyspace/entry.h"
#include "src/keyspace/lazy_free.h"
#include "src/keyspace/shard.h"
#include "utils/hash.h"
#include "utils/random.h"
#include "utils/status.h"

namespace crab {

class Snapshot;

enum class EvictionPolicy : uint8_t {
  kNoEviction,
  kAllkeysLru,
  kVolatileLru,
  kAllkeysLfu,
  kVolatileLfu,
  kAllkeysRandom,
  kVolatileRandom,
  kVolatileTtl,
  kAllkeysSieve,
  kVolatileSieve
};
inline bool IsLfu(EvictionPolicy policy) {
  return policy == EvictionPolicy::kAllkeysLfu || policy == EvictionPolicy::kVolatileLfu;
}

inline bool IsSieve(EvictionPolicy policy) {
  return policy == EvictionPolicy::kAllkeysSieve || policy == EvictionPolicy::kVolatileSieve;
}

// What every keyspace needs to know of the configuration. Changed only world-exclusively.
struct KeyspaceOptions {
  uint32_t shard_count = 1024;  // power of two
  uint32_t databases = 16;
  uint64_t hash_seed = 0;
  bool shard_by_hashtag = false;
  bool lazy_flush = false;  // lazyfree-lazy-user-flush: FLUSHALL without a word is ASYNC
  EvictionPolicy policy = EvictionPolicy::kNoEviction;  // decides LRU or LFU access data
  int lfu_log_factor = 10;
  int lfu_decay_minutes = 1;
  // No APPEND or SETRANGE makes a string longer than this (proto-max-bulk-len).
  uint64_t string_bytes_max = 512u << 20;
  // One command changes no more than this, in bytes of its effects: they are one record of the log.
  // What may be more is refused before anything has changed, also where there is no log just now.
  uint64_t record_bytes_max = uint64_t{3} << 30;
};

// Counters of one loop: written by it, summed up for INFO.
struct KeyspaceStats {
  uint64_t hits = 0, misses = 0, expired = 0, evicted = 0;
};

// What every command reads of it lies in its first cache line.
class alignas(64) Keyspace {
 public:
  explicit Keyspace(const KeyspaceOptions& options);
  ~Keyspace();

  KeyspaceOptions& options() { return options_; }
  const KeyspaceOptions& options() const { return options_; }
  uint32_t shard_count() const { return options_.shard_count; }
  uint64_t Hash(std::string_view key) const { return HashKey(key, options_.hash_seed); }
  // Of a Hash(key) (shard_by_hashtag: of the tag's hash; ShardOf(key) does that).
  uint32_t ShardOfHash(uint64_t hash) const {
    return static_cast<uint32_t>((hash >> 1) >> shard_shift_);
  }
  uint32_t ShardOf(std::string_view key) const { return ShardOf(key, Hash(key)); }
  // The same where Hash(key) is known.
  uint32_t ShardOf(std::string_view key, uint64_t hash) const {
    if (__builtin_expect(options_.shard_by_hashtag, 0)) return ShardOfTag(key, hash);
    return ShardOfHash(hash);
  }
  Shard& shard(uint32_t index) { return shards_[index]; }

  // --- whoever calls these holds the whole world ---
  uint64_t Size(uint32_t db) const;
  uint64_t SizeWithDeadline(uint32_t db) const;  // keys that have a deadline
  // Empties a database, or all of them. When and where the memory is given back is the caller's
  // business (FLUSHALL ASYNC); it is no longer counted from now on. What a snapshot still has to
  // write goes there instead.
  DetachedTables Detach(uint32_t db);
  DetachedTables DetachAll();
  LazyFree& lazy_free() { return lazy_free_; }
  const LazyFree& lazy_free() const { return lazy_free_; }
  void Swap(uint32_t a, uint32_t b);
  // Every entry of a database; the callback must not change the keyspace. False ends the walk.
  void ForEach(uint32_t db, const std::function<bool(const Entry&)>& visit) const;
  // One step of SCAN: visits the entries of some buckets from `cursor` on and returns the next one,
  // 0 when all shards are done. A key present from the first to the last call is visited at least
  // once, however the table grows and shrinks between.
  uint64_t Scan(uint32_t db, uint64_t cursor, const std::function<void(const Entry&)>& visit) const;
  const Entry* RandomEntry(uint32_t db) const;  // null when empty
  uint64_t MemoryBytes() const;                 // entries, values and tables of all shards
  // The average time to live in INFO keyspace, from a sample of each shard; 0 without deadlines.
  int64_t AverageTtlMs(uint32_t db, int64_t now_ms) const;

  // --- end of what needs the whole world ---

  // Detach, DetachAll and Swap of one shard, for whoever holds it: replay's. No snapshot runs but
  // where the world is held and all shards are emptied first (DEBUG RELOAD).
  DetachedTables DetachOf(uint32_t shard, uint32_t db);
  DetachedTables DetachAllOf(uint32_t shard);
  void SwapOf(uint32_t shard, uint32_t a, uint32_t b);

  // The snapshot that runs, null when none does; it comes and goes with the world held.
  Snapshot* snapshot() const { return snapshot_; }
  // What entries are stamped with. Every cut counts it up, modulo 4; those of another epoch are
  // the ones that the snapshot has yet to write, so that without one all have the same.
  uint32_t epoch() const { return epoch_; }

  // The second at which it was made: the access time of what a replay writes.
  int64_t start_ms() const { return start_ms_; }

 private:
  friend class Snapshot;

  uint32_t ShardOfTag(std::string_view key, uint64_t hash) const;
  // The tables of databases first_db ... end_db - 1.
  void DetachFrom(uint32_t shard, uint32_t first_db, uint32_t end_db, DetachedTables* detached);

  KeyspaceOptions options_;
  int shard_shift_;  // after a shift by one, so that one shard needs no shift by 64
  uint32_t epoch_ = 0;
  std::unique_ptr<Shard[]> shards_;
  Snapshot* snapshot_ = nullptr;
  int64_t start_ms_;
  mutable Random random_;  // RandomEntry
  LazyFree lazy_free_;
};

// Loop-bound, reused command after command; its shards are held while it is used.
class KeyspaceView {
 public:
  KeyspaceView(Keyspace& keyspace, Effects& effects, KeyspaceStats& stats)
      : keyspace_(keyspace), effects_(effects), stats_(stats) {}

  // Asked when a read meets a key whose deadline has passed: whether it may be removed now, with
  // its deletion logged. Where not, it reads as absent and stays. Without one, always.
  void SetMayRemove(std::function<bool()> may_remove) { may_remove_ = std::move(may_remove); }

  // Before each command. now_ms 0: replay, where nothing is ever in the past.
  void Begin(uint32_t db, int64_t now_ms, bool no_touch) {
    db_ = db;
    now_ms_ = now_ms;
    touches_ = no_touch ? Touches::kNothing : touches_with_policy();
    access_clock_ = Entry::LruAccess(now_ms > 0 ? now_ms : keyspace_.start_ms());
    request_size_ = kNoRequest;
    last_.entry = nullptr;
  }
  uint32_t db() const { return db_; }
  int64_t now_ms() const { return now_ms_; }
  Keyspace& keyspace() { return keyspace_; }
  // The same moment, another database (COPY ... DB, MOVE, effects of replay).
  void SelectDb(uint32_t db) { db_ = db; }
  // The shard of a key, for the effects.
  uint16_t ShardOf(std::string_view key) const {
    return static_cast<uint16_t>(keyspace_.ShardOf(key, HashFor(key)));
  }
  // For dispatch, which needs the hash of a request's key for its shard: remembers the last one, so
  // that the handler does not hash it again. The bytes must stay as they are until the next Begin.
  uint64_t HashOf(std::string_view key) {
    request_hash_ = HashFor(key);
    request_data_ = key.data();
    request_size_ = key.size();
    return request_hash_;
  }

  // All of these: null when absent. A key whose deadline has passed is removed, its DEL joins the
  // effects, and it reads as absent. The entry lives until the next change through this view.
  const Entry* Find(std::string_view key);  // to read: counts a hit or miss, touches access data
  // To change: touches, no hit or miss. A snapshot that has yet to write the entry does so now, so
  // that the caller may change it as it likes.
  Entry* FindForWrite(std::string_view key);
  const Entry* Peek(std::string_view key);  // neither: MEMORY USAGE, and what looks twice
  // To look at: counts a hit or miss, touches nothing (TYPE, EXISTS, TTL, OBJECT).
  const Entry* Look(std::string_view key) {
    const Touches touches = std::exchange(touches_, Touches::kNothing);
    const Entry* entry = Find(key);
    touches_ = touches;
    return entry;
  }

  // Makes the key a string. `deadline_ms`: absolute, kNoDeadline or kKeepDeadline. Integers in
  // canonical form are kept as integers, up to kEmbstrBytesMax embstr, above raw. Returns the
  // entry. Without `as_integer` even an integer's text is embstr: INCRBYFLOAT.
  Entry* SetString(std::string_view key, std::string_view value, int64_t deadline_ms,
                   bool as_integer = true);
  // Changes a string's value in place, keeping its deadline: INCR.
  Entry* SetInteger(Entry* entry, int64_t value);
  // Appends to a string (which becomes raw).
  Entry* AppendString(Entry* entry, std::string_view bytes);
  // Overwrites from `offset` on, growing with zero bytes: SETRANGE, SETBIT. Becomes raw.
  Entry* OverwriteString(Entry* entry, size_t offset, std::string_view bytes);

  Entry* SetDeadline(Entry* entry, int64_t deadline_ms);  // kNoDeadline removes it
  // Removes it without logging anything.
  void Remove(Entry* entry);
  bool Remove(std::string_view key);  // whether it was there (a passed deadline: it was not)
  // A deep copy of an entry (of any database or shard that is held) under `key` in database `db`,
  // replacing what is there; type, encoding and deadline are kept.
  Entry* CopyTo(const Entry& source, uint32_t db, std::string_view key);

  // Lets active expiry do its work: removes up to `limit` keys of `shard` whose deadline has
  // passed, each with its DEL effect. Returns how many. The shard is held.
  size_t ExpireSome(uint32_t shard, size_t limit);

 private:
  // What an access writes into the entry.
  enum class Touches : uint8_t { kNothing, kTime, kMore };

  // Where a key is or would be: what Lookup found last. Without an entry the rest may be old.
  struct Found {
    Entry* entry = nullptr;  // null: absent
    Table* table = nullptr;  // null: its database was never used in this shard
    Table::Place place;
    uint64_t hash = 0;
    uint32_t shard = 0;
  };

  uint64_t HashFor(std::string_view key) const {
    if (key.size() == request_size_ && key.data() == request_data_) {
      DCHECK(keyspace_.Hash(key) == request_hash_);
      return request_hash_;
    }
    return keyspace_.Hash(key);
  }
  bool HasPassed(int64_t deadline_ms) const { return deadline_ms < now_ms_; }
  uint64_t seed() const { return keyspace_.options().hash_seed; }

  Touches touches_with_policy() const {
    const EvictionPolicy policy = keyspace_.options().policy;
    return IsLfu(policy) || IsSieve(policy) ? Touches::kMore : Touches::kTime;
  }

  Entry* Lookup(std::string_view key);
  // Points last_ at an entry of this database.
  void Locate(const Entry* entry);
  void Touch(Entry* entry) {
    if (__builtin_expect(touches_ == Touches::kTime, 1)) {
      entry->set_access(access_clock_);
    } else {
      TouchMore(entry);
    }
  }
  void TouchMore(Entry* entry);
  void InitAccess(Entry* entry);
  // Before what last_ points at is changed or removed.
  void SaveLast() {
    if (__builtin_expect(keyspace_.snapshot() != nullptr, 0)) SaveForSnapshot();
  }
  void SaveForSnapshot();
  // These three change the entry or the place that last_ points at, which SaveLast has seen.
  Entry* Store(const Content& content, int64_t deadline_ms);
  Entry* Move(const Content& content, int64_t deadline_ms);
  Entry* Insert(std::string_view key, const Content& content, int64_t deadline_ms);
  void RemoveLast();
  void MeetExpired();  // of the last look: removes it, or reads it as absent
  void RemoveExpired();
  bool AssignLarge(Entry* entry, std::string_view value, int64_t deadline_ms);

  Keyspace& keyspace_;
  Effects& effects_;
  KeyspaceStats& stats_;
  std::function<bool()> may_remove_;
  uint32_t db_ = 0;
  int64_t now_ms_ = 0;
  Touches touches_ = Touches::kNothing;
  uint32_t access_clock_ = 0;
  // The key that HashOf remembers.
  static constexpr size_t kNoRequest = SIZE_MAX;
  const char* request_data_ = nullptr;
  size_t request_size_ = kNoRequest;
  uint64_t request_hash_ = 0;
  Found last_;
  Random random_;  // LFU
};

}  // namespace crab

#include "src/keyspace/snapshot.h"

#include <algorithm>
#include <utility>

#include "src/keyspace/effects.h"
#include "utils/check.h"
#include "utils/touch.h"

namespace crab {

namespace {

// These bring on what will be read soon: the entries of a chain, the values of its entries. What
// they read themselves on the way was brought on before, or they wait for it.
void FetchEntries(Bucket* chain) {
  Table::ForEachOfChain(chain, [](Table::Place place) {
    Touch(place.entry());
    return true;
  });
}

void FetchValues(Bucket* chain) {
  // The processor guesses the lines behind these.
  constexpr size_t kBytes = 256;
  static_assert(kBytes <= kInlineBytesMax + 1);  // a large one has at least so many
  Table::ForEachOfChain(chain, [](Table::Place place) {
    if (!place.entry()->is_large()) return true;
    const auto* value = reinterpret_cast<const char*>(place.entry()->large());
    for (size_t i = 0; i < kBytes; i += kCacheLineBytes) Touch(value + i);
    return true;
  });
}

}  // namespace

// Why every entry of the cut is written once: its epoch is older until it is written, and whoever
// removes it or takes its table away writes it, or hands it over, first. The walk meets all the
// others: Table::Scan shows an entry that stays at least once, and a table that comes back under
// another number keeps its cursor, for the walk follows the name that it had at the cut. `left`
// counts them down, so that a walk that missed one would show.

Snapshot::Snapshot(Keyspace& keyspace, SnapshotSink& sink)
    : keyspace_(keyspace),
      sink_(sink),
      epoch_((keyspace.epoch_ + 1) & 3),
      chunk_bytes_(std::min(kChunkBytes, kChunkBytesOfAll / keyspace.shard_count())),
      walks_(std::make_unique<Walk[]>(keyspace.shard_count())) {
  CHECK(keyspace.snapshot_ == nullptr);
  uint32_t shards_left = 0;
  for (uint32_t i = 0; i < keyspace.shard_count(); ++i) {
    const Shard& shard = keyspace.shard(i);
    Walk& walk = walks_[i];
    walk.names_end = shard.table_count();
    for (uint32_t db = 0; db < walk.names_end; ++db) {
      if (const Table* table = shard.FindTable(db)) walk.left += table->size();
    }
    entries_total_ += walk.left;
    if (walk.left == 0) {
      walk.done.store(true, std::memory_order_relaxed);
    } else {
      ++shards_left;
    }
  }
  shards_left_.store(shards_left, std::memory_order_relaxed);
  keyspace.epoch_ = epoch_;
  keyspace.snapshot_ = this;
}

Snapshot::~Snapshot() {
  keyspace_.snapshot_ = nullptr;
  if (last_) return;
  Abandon();
  for (uint32_t i = 0; i < keyspace_.shard_count(); ++i) {
    while (!Step(i, SIZE_MAX)) {
    }
  }
  CHECK(done());
}

bool Snapshot::Step(uint32_t shard, size_t entries) {
  Walk& walk = walks_[shard];
  for (; entries > 0 && !done(shard); FinishIfDone(shard)) {
    if (!walk.kept.empty()) {
      // First, for they hold memory.
      Kept& kept = walk.kept.back();
      if (WalkTable(shard, *kept.table, kept.name, /*stays=*/false, &kept.cursor, &entries)) {
        Free(&walk, walk.kept.end() - 1);
      }
    } else {
      CHECK_LT(walk.name, walk.names_end);
      const Table* table = keyspace_.shard(shard).FindTable(DbOf(walk.name));
      if (table == nullptr ||
          WalkTable(shard, *table, walk.name, /*stays=*/true, &walk.cursor, &entries)) {
        walk.cursor = 0;
        ++walk.name;
      }
    }
  }
  Report(&walk);
  return done(shard);
}

// Writes what is to be written of a table from the cursor on, about `entries` of them, and moves
// the cursor on. Takes the work it was, counted in entries, off `entries`, and all of them where
// the sink is full. True: the table is walked to its end.
//
// Buckets, entries and values lie anywhere in memory, so their way into the cache is what takes the
// time. While a chain is written, the values of the one after it, the entries of the next and the
// bucket of the one after that are under way.
bool Snapshot::WalkTable(uint32_t shard, const Table& table, uint32_t name, bool stays,
                         uint64_t* cursor, size_t* entries) {
  struct Chain {
    Bucket* bucket = nullptr;  // null: behind the end
    uint64_t next = 0;         // the cursor behind it
  };
  uint64_t ahead = *cursor;
  bool pulled_all = false;
  const auto pull = [&] {
    Chain chain;
    if (pulled_all) return chain;
    chain.next = ahead = table.Scan(ahead, &chain.bucket);
    pulled_all = ahead == 0;
    return chain;
  };

  Chain now = pull(), second = pull(), third = pull();
  FetchEntries(now.bucket);
  FetchEntries(second.bucket);
  for (size_t work = 1;; ++work) {
    const Chain fourth = pull();
    if (fourth.bucket != nullptr) Touch(fourth.bucket);
    FetchEntries(third.bucket);
    FetchValues(second.bucket);
    // A value that is shared is quickly given, whatever its size, so that the time a step takes
    // does not bound what it gives.
    const bool whole = Table::ForEachOfChain(now.bucket, [&](Table::Place place) {
      Entry* entry = place.entry();
      ++work;
      if (entry->epoch() == epoch_) return true;
      return Write(shard, name, entry, kLargeBytes, stays) < kLargeBytes || !IsSinkFull();
    });
    if (whole) *cursor = now.next;  // or the next step passes over what it finds stamped
    const bool ended = whole && *cursor == 0;
    const bool full = !whole || IsSinkFull();
    if (ended || full || work >= *entries || walks_[shard].left == 0) {
      *entries = full ? 0 : *entries - std::min(*entries, work);
      return ended;
    }
    now = std::exchange(second, std::exchange(third, fourth));
  }
}

bool Snapshot::IsSinkFull() const {
  return !abandoned_.load(std::memory_order_relaxed) && sink_.IsFull();
}

void Snapshot::Save(uint32_t shard, uint32_t db, Entry* entry) {
  Walk& walk = walks_[shard];
  walk.saved_bytes += Write(shard, NameOf(db), entry, /*large_bytes=*/0, /*stays=*/false);
  ++walk.saved;
  FinishIfDone(shard);
}

// A value of `large_bytes` and more is shared where it can be. Returns the bytes that the sink gets
// for it.
size_t Snapshot::Write(uint32_t shard, uint32_t name, Entry* entry, size_t large_bytes,
                       bool stays) {
  Walk& walk = walks_[shard];
  DCHECK(entry->epoch() != epoch_);
  CHECK_GT(walk.left, 0u);
  entry->set_epoch(epoch_);
  --walk.left;
  ++walk.stamped;
  if (abandoned_.load(std::memory_order_relaxed)) return 0;

  if (entry->is_large() && entry->large()->size() >= large_bytes) {
    const size_t bytes = entry->large()->size();
    sink_.TakeLarge(static_cast<uint16_t>(shard), name, std::string(entry->key()),
                    entry->deadline_ms(), entry->large()->Share(), stays);
    return bytes;
  }
  char scratch[24];
  const size_t before = walk.effects.size();
  AppendSetEffect(&walk.effects, name, entry->key(), entry->StringBytes(scratch),
                  entry->deadline_ms());
  const size_t bytes = walk.effects.size() - before;
  ++walk.effects_entries;
  if (walk.effects.size() >= chunk_bytes_) Flush(shard);
  return bytes;
}

void Snapshot::Flush(uint32_t shard) {
  Walk& walk = walks_[shard];
  Report(&walk);
  std::string effects = std::exchange(walk.effects, {});
  const uint64_t entries = std::exchange(walk.effects_entries, 0);
  if (entries == 0 || abandoned_.load(std::memory_order_relaxed)) return;
  sink_.Take(static_cast<uint16_t>(shard), std::move(effects), entries);
}

void Snapshot::Report(Walk* walk) {
  const auto add = [](std::atomic<uint64_t>& gauge, uint64_t& count) {
    if (count > 0) gauge.fetch_add(std::exchange(count, 0), std::memory_order_relaxed);
  };
  add(entries_done_, walk->stamped);
  add(entries_saved_, walk->saved);
  add(bytes_saved_, walk->saved_bytes);
}

// After the last entry nothing is left to walk: what follows in the tables is new.
void Snapshot::FinishIfDone(uint32_t shard) {
  Walk& walk = walks_[shard];
  if (walk.left > 0 || done(shard)) return;
  Flush(shard);
  if (!walk.kept.empty()) Free(&walk, walk.kept.begin());
  walk.done.store(true, std::memory_order_release);
  shards_left_.fetch_sub(1, std::memory_order_acq_rel);
}

// The kept tables from `first` on.
void Snapshot::Free(Walk* walk, std::vector<Kept>::iterator first) {
  DetachedTables detached;
  for (auto kept = first; kept != walk->kept.end(); ++kept) {
    kept_bytes_.fetch_sub(kept->bytes, std::memory_order_relaxed);
    detached.Add(std::move(kept->table));
  }
  walk->kept.erase(first, walk->kept.end());
  keyspace_.lazy_free_.Add(std::move(detached));
}

bool Snapshot::HasWalked(uint32_t shard, uint32_t db) const {
  const Walk& walk = walks_[shard];
  const uint32_t name = NameOf(db);
  return done(shard) || name < walk.name || name >= walk.names_end;
}

void Snapshot::Swap(uint32_t a, uint32_t b) {
  while (name_of_.size() <= std::max(a, b)) {
    name_of_.push_back(static_cast<uint32_t>(name_of_.size()));
    db_of_.push_back(static_cast<uint32_t>(db_of_.size()));
  }
  std::swap(name_of_[a], name_of_[b]);
  db_of_[name_of_[a]] = a;
  db_of_[name_of_[b]] = b;
}

void Snapshot::Keep(uint32_t shard, uint32_t db, std::unique_ptr<Table> table) {
  const uint64_t bytes = table->MemoryBytes();
  kept_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  walks_[shard].kept.push_back({std::move(table), NameOf(db), bytes});
}

}  // namespace crab

#include "src/keyspace/keyspace.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "src/keyspace/snapshot.h"
#include "utils/check.h"
#include "utils/clock.h"

namespace crab {

namespace {

// Records looked at per removal that ExpireSome was asked for, out-of-date ones included.
constexpr size_t kRecordsPerRemoval = 4;
constexpr size_t kRecordsMin = 16;
// Of keys that ExpireSome removes in one go: their deletions are one record of the log.
constexpr size_t kExpireBytes = 16 << 20;
// Keys of each shard and database looked at for the average time to live.
constexpr size_t kTtlSamples = 4;

}  // namespace

// --- Keyspace ---

Keyspace::Keyspace(const KeyspaceOptions& options)
    : options_(options), start_ms_(RealClock().WallMs()) {
  CHECK(std::has_single_bit(options.shard_count));
  CHECK_LE(options.shard_count, 0x8000u);
  CHECK_GE(options.databases, 1u);
  shard_shift_ = 63 - std::countr_zero(options.shard_count);
  shards_ = std::make_unique<Shard[]>(options.shard_count);
}

Keyspace::~Keyspace() { CHECK(snapshot_ == nullptr); }

// As in a Redis cluster: what stands between the first { and the next }, unless that is nothing.
uint32_t Keyspace::ShardOfTag(std::string_view key, uint64_t hash) const {
  const size_t open = key.find('{');
  if (open == std::string_view::npos) return ShardOfHash(hash);
  const size_t close = key.find('}', open + 1);
  if (close == std::string_view::npos || close == open + 1) return ShardOfHash(hash);
  return ShardOfHash(Hash(key.substr(open + 1, close - open - 1)));
}

uint64_t Keyspace::Size(uint32_t db) const {
  uint64_t size = 0;
  for (uint32_t i = 0; i < shard_count(); ++i) {
    if (const Table* table = shards_[i].FindTable(db)) size += table->size();
  }
  return size;
}

uint64_t Keyspace::SizeWithDeadline(uint32_t db) const {
  uint64_t size = 0;
  for (uint32_t i = 0; i < shard_count(); ++i) {
    if (const Table* table = shards_[i].FindTable(db)) size += table->size_with_deadline();
  }
  return size;
}

uint64_t Keyspace::MemoryBytes() const {
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < shard_count(); ++i) bytes += shards_[i].MemoryBytes();
  return bytes;
}

void Keyspace::DetachFrom(uint32_t shard_index, uint32_t first_db, uint32_t end_db,
                          DetachedTables* detached) {
  Shard& shard = shards_[shard_index];
  for (uint32_t db = first_db; db < end_db; ++db) {
    Table* table = shard.FindTable(db);
    if (table == nullptr || table->size() == 0) continue;
    auto taken = std::make_unique<Table>();
    taken->Swap(*table);
    if (snapshot_ != nullptr && !snapshot_->HasWalked(shard_index, db)) {
      snapshot_->Keep(shard_index, db, std::move(taken));
    } else {
      detached->Add(std::move(taken));
    }
  }
  shard.RefreshNextDeadline();
}

DetachedTables Keyspace::Detach(uint32_t db) {
  DetachedTables detached;
  for (uint32_t i = 0; i < shard_count(); ++i) DetachFrom(i, db, db + 1, &detached);
  return detached;
}

DetachedTables Keyspace::DetachAll() {
  DetachedTables detached;
  for (uint32_t i = 0; i < shard_count(); ++i) {
    DetachFrom(i, 0, shards_[i].table_count(), &detached);
  }
  return detached;
}

DetachedTables Keyspace::DetachOf(uint32_t shard, uint32_t db) {
  DetachedTables detached;
  DetachFrom(shard, db, db + 1, &detached);
  return detached;
}

DetachedTables Keyspace::DetachAllOf(uint32_t shard) {
  DetachedTables detached;
  DetachFrom(shard, 0, shards_[shard].table_count(), &detached);
  return detached;
}

void Keyspace::Swap(uint32_t a, uint32_t b) {
  if (snapshot_ != nullptr) snapshot_->Swap(a, b);
  for (uint32_t i = 0; i < shard_count(); ++i) SwapOf(i, a, b);
}

void Keyspace::SwapOf(uint32_t shard_index, uint32_t a, uint32_t b) {
  Shard& shard = shards_[shard_index];
  if (a == b || (shard.FindTable(a) == nullptr && shard.FindTable(b) == nullptr)) return;
  shard.TableOf(a).Swap(shard.TableOf(b));
}

void Keyspace::ForEach(uint32_t db, const std::function<bool(const Entry&)>& visit) const {
  for (uint32_t i = 0; i < shard_count(); ++i) {
    const Table* table = shards_[i].FindTable(db);
    if (table == nullptr) continue;
    for (size_t bucket = 0; bucket < table->bucket_count(); ++bucket) {
      const bool more = Table::ForEachOfChain(
          table->bucket(bucket), [&](Table::Place place) { return visit(*place.entry()); });
      if (!more) return;
    }
  }
}

// The cursor's low bits are the shard, the others the cursor within it; 0 begins and ends.
uint64_t Keyspace::Scan(uint32_t db, uint64_t cursor,
                        const std::function<void(const Entry&)>& visit) const {
  const int shard_bits = std::countr_zero(shard_count());
  uint64_t inner = cursor >> shard_bits;
  for (auto i = static_cast<uint32_t>(cursor & (shard_count() - 1)); i < shard_count(); ++i) {
    const Table* table = shards_[i].FindTable(db);
    if (table != nullptr && table->size() > 0) {
      Bucket* chain;
      inner = table->Scan(inner, &chain);
      Table::ForEachOfChain(chain, [&](Table::Place place) {
        visit(*place.entry());
        return true;
      });
      if (inner != 0) return inner << shard_bits | i;
      return i + 1 < shard_count() ? i + 1 : 0;
    }
    inner = 0;
  }
  return 0;
}

const Entry* Keyspace::RandomEntry(uint32_t db) const {
  const uint64_t size = Size(db);
  if (size == 0) return nullptr;
  uint64_t skip = random_.Below(size);
  for (uint32_t i = 0; i < shard_count(); ++i) {
    const Table* table = shards_[i].FindTable(db);
    if (table == nullptr) continue;
    if (skip < table->size()) {
      auto next = [this] { return random_.Next(); };
      return table->RandomPlace(next).entry();
    }
    skip -= table->size();
  }
  return nullptr;
}

int64_t Keyspace::AverageTtlMs(uint32_t db, int64_t now_ms) const {
  int64_t sum_ms = 0;
  int64_t count = 0;
  for (uint32_t i = 0; i < shard_count(); ++i) {
    const Table* table = shards_[i].FindTable(db);
    if (table == nullptr) continue;
    const size_t records = table->deadlines().size();
    for (size_t sample = 0; sample < std::min(records, kTtlSamples); ++sample) {
      const size_t record = records * sample / std::min(records, kTtlSamples);
      const Table::Place place = table->PlaceOfRecord(record, options_.hash_seed);
      if (!place) continue;
      // Far deadlines must not overflow the sum.
      constexpr int64_t kTtlMaxMs = int64_t{1} << 46;
      sum_ms += std::clamp(place.entry()->deadline_ms() - now_ms, int64_t{0}, kTtlMaxMs);
      ++count;
    }
  }
  return count == 0 ? 0 : sum_ms / count;
}

// --- KeyspaceView: finding ---

// The way of every command: inlined into each of its callers here.
[[gnu::always_inline]] inline Entry* KeyspaceView::Lookup(std::string_view key) {
  last_.hash = HashFor(key);
  last_.shard = keyspace_.ShardOf(key, last_.hash);
  last_.table = keyspace_.shard(last_.shard).FindTable(db_);
  last_.entry = nullptr;
  if (__builtin_expect(last_.table == nullptr, 0)) return nullptr;
  last_.place = last_.table->Find(last_.hash, key);
  if (!last_.place) return nullptr;
  last_.entry = last_.place.entry();
  if (last_.place.has_deadline() && HasPassed(last_.entry->deadline_ms())) MeetExpired();
  return last_.entry;
}

const Entry* KeyspaceView::Find(std::string_view key) {
  Entry* entry = Lookup(key);
  if (entry == nullptr) {
    ++stats_.misses;
    return nullptr;
  }
  ++stats_.hits;
  Touch(entry);
  return entry;
}

Entry* KeyspaceView::FindForWrite(std::string_view key) {
  Entry* entry = Lookup(key);
  if (entry != nullptr) {
    Touch(entry);
    SaveLast();
  }
  return entry;
}

const Entry* KeyspaceView::Peek(std::string_view key) { return Lookup(key); }

void KeyspaceView::Locate(const Entry* entry) {
  if (last_.entry == entry) return;
  const std::string_view key = entry->key();
  last_.hash = HashFor(key);
  last_.shard = keyspace_.ShardOf(key, last_.hash);
  last_.table = keyspace_.shard(last_.shard).FindTable(db_);
  CHECK(last_.table != nullptr);
  last_.place = last_.table->Locate(last_.hash, entry);
  last_.entry = last_.place.entry();
}

void KeyspaceView::TouchMore(Entry* entry) {
  if (touches_ == Touches::kNothing) return;
  const KeyspaceOptions& options = keyspace_.options();
  if (IsSieve(options.policy)) {
    entry->set_access(access_clock_);
    entry->set_visited(true);
    return;
  }
  // Redis' logarithmic counter: the more it has counted, the rarer it counts.
  const int64_t now_ms = now_ms_ > 0 ? now_ms_ : keyspace_.start_ms();
  uint8_t counter = entry->LfuCounter(now_ms, options.lfu_decay_minutes);
  if (counter < 255) {
    const double above = std::max(0, counter - kLfuInitialCounter);
    if (random_.Fraction() < 1.0 / (above * options.lfu_log_factor + 1)) ++counter;
  }
  entry->set_access(Entry::LfuAccess(now_ms, counter));
}

void KeyspaceView::InitAccess(Entry* entry) {
  if (IsLfu(keyspace_.options().policy)) {
    const int64_t now_ms = now_ms_ > 0 ? now_ms_ : keyspace_.start_ms();
    entry->set_access(Entry::LfuAccess(now_ms, kLfuInitialCounter));
  } else {
    entry->set_access(access_clock_);
  }
}

// --- KeyspaceView: changing ---

[[gnu::noinline]] void KeyspaceView::SaveForSnapshot() {
  if (last_.entry->epoch() == keyspace_.epoch()) return;
  keyspace_.snapshot()->Save(last_.shard, db_, last_.entry);
}

[[gnu::always_inline]] inline Entry* KeyspaceView::Store(const Content& content,
                                                         int64_t deadline_ms) {
  Entry* entry = last_.entry;
  DCHECK(entry->epoch() == keyspace_.epoch());
  const int64_t old_deadline_ms = entry->deadline_ms();
  if (__builtin_expect(entry->Suits(content, deadline_ms >= 0), 1)) {
    entry->Overwrite(content, deadline_ms);
    if (deadline_ms < old_deadline_ms) {
      last_.table->DeadlineMoved(last_.hash, old_deadline_ms, deadline_ms, seed());
      keyspace_.shard(last_.shard).NoteDeadline(last_.table->deadlines().next_ms());
    }
    return entry;
  }
  return Move(content, deadline_ms);
}

[[gnu::noinline]] Entry* KeyspaceView::Move(const Content& content, int64_t deadline_ms) {
  Entry* entry = last_.entry;
  const int64_t old_deadline_ms = entry->deadline_ms();
  const size_t old_bytes = entry->MemoryBytes();
  last_.entry = Entry::Rebuild(entry, content, deadline_ms);
  last_.table->Replace(last_.hash, last_.place, last_.entry, old_bytes, old_deadline_ms, seed());
  if (deadline_ms >= 0) {
    keyspace_.shard(last_.shard).NoteDeadline(last_.table->deadlines().next_ms());
  }
  return last_.entry;
}

[[gnu::noinline]] Entry* KeyspaceView::Insert(std::string_view key, const Content& content,
                                              int64_t deadline_ms) {
  Shard& shard = keyspace_.shard(last_.shard);
  if (last_.table == nullptr) last_.table = &shard.TableOf(db_);
  Entry* entry = Entry::Create(key, content, deadline_ms);
  InitAccess(entry);
  entry->set_epoch(keyspace_.epoch());
  last_.table->Insert(last_.hash, entry, seed());
  if (deadline_ms >= 0) shard.NoteDeadline(last_.table->deadlines().next_ms());
  last_.entry = nullptr;  // its place is not known
  return entry;
}

void KeyspaceView::RemoveLast() {
  SaveLast();
  last_.table->Remove(last_.hash, last_.place, seed());
  last_.entry = nullptr;
}

[[gnu::noinline]] void KeyspaceView::MeetExpired() {
  if (may_remove_ && !may_remove_()) {
    last_.entry = nullptr;
  } else {
    RemoveExpired();
  }
}

[[gnu::noinline]] void KeyspaceView::RemoveExpired() {
  effects_.Del(static_cast<uint16_t>(last_.shard), db_, last_.entry->key());
  ++stats_.expired;
  RemoveLast();
}

Entry* KeyspaceView::SetString(std::string_view key, std::string_view value, int64_t deadline_ms,
                               bool as_integer) {
  Entry* entry = Lookup(key);
  if (deadline_ms == kKeepDeadline) {
    deadline_ms = entry != nullptr ? entry->deadline_ms() : kNoDeadline;
  }
  if (entry != nullptr) {
    Touch(entry);
    SaveLast();
  }

  // Written out for each form, so that what is known of a form is known where it is stored.
  const auto put = [&](const Content& content) __attribute__((always_inline)) {
    return entry != nullptr ? Store(content, deadline_ms) : Insert(key, content, deadline_ms);
  };
  int64_t integer;
  if (as_integer && IsCanonicalInteger(value, &integer)) return put(Content::Integer(integer));
  if (value.size() <= kInlineBytesMax) {
    const auto encoding = value.size() <= kEmbstrBytesMax ? Encoding::kEmbstr : Encoding::kRaw;
    return put(Content::Inline(encoding, value));
  }
  if (entry != nullptr && AssignLarge(entry, value, deadline_ms)) return entry;
  return put(Content::Large(LargeString::Create(value, value.size())));
}

// Overwrites a large value by one that takes the same room.
bool KeyspaceView::AssignLarge(Entry* entry, std::string_view value, int64_t deadline_ms) {
  if (entry->type() != Type::kString || !entry->is_large()) return false;
  if (entry->has_deadline() != (deadline_ms >= 0)) return false;
  DCHECK(entry->epoch() == keyspace_.epoch());
  LargeString* large = entry->large();
  if (!large->Suits(value.size())) return false;
  large->Assign(value);
  if (deadline_ms >= 0) SetDeadline(entry, deadline_ms);
  return true;
}

Entry* KeyspaceView::SetInteger(Entry* entry, int64_t value) {
  Locate(entry);
  return Store(Content::Integer(value), entry->deadline_ms());
}

Entry* KeyspaceView::AppendString(Entry* entry, std::string_view bytes) {
  return OverwriteString(entry, entry->StringSize(), bytes);
}

Entry* KeyspaceView::OverwriteString(Entry* entry, size_t offset, std::string_view bytes) {
  Locate(entry);
  if (entry->is_large()) {
    DCHECK(entry->epoch() == keyspace_.epoch());
    const size_t old_bytes = entry->large()->MemoryBytes();
    LargeString* large = LargeString::Write(entry->large(), offset, bytes);
    entry->set_large(large);
    last_.table->AddMemory(static_cast<int64_t>(large->MemoryBytes()) -
                           static_cast<int64_t>(old_bytes));
    return entry;
  }
  char scratch[24];
  const std::string_view old = entry->StringBytes(scratch);
  const size_t size = std::max(old.size(), offset + bytes.size());
  if (size > kInlineBytesMax) {
    LargeString* large = LargeString::Create(old, GrownCapacity(size));
    large = LargeString::Write(large, offset, bytes);
    return Store(Content::Large(large), entry->deadline_ms());
  }
  char whole[kInlineBytesMax] = {};
  std::memcpy(whole, old.data(), old.size());
  if (!bytes.empty()) std::memcpy(whole + offset, bytes.data(), bytes.size());
  return Store(Content::Inline(Encoding::kRaw, {whole, size}), entry->deadline_ms());
}

Entry* KeyspaceView::SetDeadline(Entry* entry, int64_t deadline_ms) {
  const bool wanted = deadline_ms >= 0;
  if (!wanted && !entry->has_deadline()) return entry;
  Locate(entry);
  if (wanted != entry->has_deadline()) return Store(entry->ReuseContent(), deadline_ms);
  DCHECK(entry->epoch() == keyspace_.epoch());
  const int64_t old_deadline_ms = entry->deadline_ms();
  entry->set_deadline_ms(deadline_ms);
  last_.table->DeadlineMoved(last_.hash, old_deadline_ms, deadline_ms, seed());
  keyspace_.shard(last_.shard).NoteDeadline(last_.table->deadlines().next_ms());
  return entry;
}

void KeyspaceView::Remove(Entry* entry) {
  Locate(entry);
  RemoveLast();
}

bool KeyspaceView::Remove(std::string_view key) {
  if (Lookup(key) == nullptr) return false;
  RemoveLast();
  return true;
}

Entry* KeyspaceView::CopyTo(const Entry& source, uint32_t db, std::string_view key) {
  const uint32_t own_db = db_;
  db_ = db;
  if (Entry* target = Lookup(key)) {
    CHECK(target != &source);
    RemoveLast();
  }
  Entry* copy = Insert(key, source.CopyContent(), source.deadline_ms());
  copy->set_access(source.access());
  db_ = own_db;
  return copy;
}

size_t KeyspaceView::ExpireSome(uint32_t shard_index, size_t limit) {
  Shard& shard = keyspace_.shard(shard_index);
  if (now_ms_ == 0 || shard.next_deadline_ms() > now_ms_) return 0;
  const uint32_t own_db = db_;
  size_t removed = 0, bytes = 0;
  size_t work = limit * kRecordsPerRemoval + kRecordsMin;
  for (db_ = 0; db_ < shard.table_count(); ++db_) {
    last_.table = shard.FindTable(db_);
    if (last_.table == nullptr) continue;
    last_.shard = shard_index;
    while (removed < limit && bytes < kExpireBytes) {
      last_.place = last_.table->EarliestDeadline(now_ms_, seed(), &work, &last_.hash);
      if (!last_.place) break;
      last_.entry = last_.place.entry();
      if (!HasPassed(last_.entry->deadline_ms())) break;  // beyond what a record can tell
      bytes += last_.entry->key().size();
      RemoveExpired();
      ++removed;
    }
  }
  db_ = own_db;
  last_.entry = nullptr;
  shard.RefreshNextDeadline();
  return removed;
}

}  // namespace crab

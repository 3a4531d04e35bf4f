#include "src/keyspace/eviction.h"

#include <algorithm>
#include <utility>

namespace crab {

namespace {

// A sample may meet an out-of-date record instead of a key; so many tries are made for each.
constexpr size_t kTriesPerSample = 4;
// Records looked at, and dropped when out of date, to find the earliest deadline.
constexpr size_t kRecordsMax = 4096;
// Buckets that the sieve's hand passes in one call before it takes what is there. A loop holds the
// shard meanwhile: some microseconds.
constexpr size_t kSieveBucketsMax = 256;

// One search in one shard: keeps the best of what it is offered.
class Search {
 public:
  Search(const Keyspace& keyspace, EvictionPolicy policy, size_t samples, int64_t now_ms,
         Random& random)
      : options_(keyspace.options()),
        policy_(policy),
        samples_(samples),
        now_ms_(now_ms),
        random_(random) {}

  void Look(Table& table, uint32_t db) {
    const size_t eligible = IsVolatile(policy_) ? table.size_with_deadline() : table.size();
    if (eligible == 0) return;
    if (IsSieve(policy_)) {
      TurnHand(table, db);
    } else if (IsVolatile(policy_)) {
      SampleDeadlines(table, db);
    } else {
      auto next = [this] { return random_.Next(); };
      const size_t count = policy_ == EvictionPolicy::kAllkeysRandom ? 1 : samples_;
      for (size_t i = 0; i < count; ++i) Offer(*table.RandomPlace(next).entry(), db);
    }
  }
  const Entry* best() const { return best_; }
  uint32_t db() const { return db_; }
  uint64_t score() const { return score_; }

 private:
  uint64_t Score(const Entry& entry) const {
    switch (policy_) {
      case EvictionPolicy::kAllkeysLru:
      case EvictionPolicy::kVolatileLru:
        return entry.IdleSeconds(now_ms_);
      case EvictionPolicy::kAllkeysLfu:
      case EvictionPolicy::kVolatileLfu:
        return 255 - entry.LfuCounter(now_ms_, options_.lfu_decay_minutes);
      case EvictionPolicy::kVolatileTtl:
        return UINT64_MAX - static_cast<uint64_t>(entry.deadline_ms());
      default:
        return random_.Next();
    }
  }
  void Offer(const Entry& entry, uint32_t db) {
    const uint64_t score = Score(entry);
    if (best_ != nullptr && score <= score_) return;
    best_ = &entry;
    db_ = db;
    score_ = score;
  }

  // Among the keys with a deadline, by chance; the one with the earliest where that is asked for,
  // or where chance met nothing but records of keys that are gone.
  void SampleDeadlines(Table& table, uint32_t db) {
    size_t count = samples_;
    if (policy_ == EvictionPolicy::kVolatileRandom) count = 1;
    if (policy_ == EvictionPolicy::kVolatileTtl) count = 0;
    size_t found = 0;
    for (size_t i = 0; i < count * kTriesPerSample && found < count; ++i) {
      const size_t record = random_.Below(table.deadlines().size());
      const Table::Place place = table.PlaceOfRecord(record, options_.hash_seed);
      if (!place) continue;
      Offer(*place.entry(), db);
      ++found;
    }
    if (found > 0) return;
    size_t work = kRecordsMax;
    uint64_t hash;
    const Table::Place place = table.EarliestDeadline(INT64_MAX, options_.hash_seed, &work, &hash);
    if (place) Offer(*place.entry(), db);
  }

  // The hand goes round the buckets. It stays at one as long as there are keys that were not used
  // since it last came by, its victims; then it takes the mark from the others and moves on.
  void TurnHand(Table& table, uint32_t db) {
    const bool only_volatile = IsVolatile(policy_);
    const Entry* spared = nullptr;
    // Twice round finds a victim for certain; a hand that must stop earlier takes a spared one.
    for (size_t passed = 0; passed <= 2 * table.bucket_count(); ++passed) {
      if (passed >= kSieveBucketsMax && spared != nullptr) break;
      if (table.sieve_hand >= table.bucket_count()) table.sieve_hand = 0;
      Bucket* chain = table.bucket(table.sieve_hand);
      const Entry* victim = nullptr;
      Table::ForEachOfChain(chain, [&](Table::Place place) {
        if (only_volatile && !place.has_deadline()) return true;
        (place.entry()->visited() ? spared : victim) = place.entry();
        return victim == nullptr;
      });
      if (victim != nullptr) return Offer(*victim, db);
      Table::ForEachOfChain(chain, [&](Table::Place place) {
        place.entry()->set_visited(false);
        return true;
      });
      ++table.sieve_hand;
    }
    if (spared != nullptr) Offer(*spared, db);
  }

  const KeyspaceOptions& options_;
  EvictionPolicy policy_;
  size_t samples_;
  int64_t now_ms_;
  Random& random_;
  const Entry* best_ = nullptr;
  uint32_t db_ = 0;
  uint64_t score_ = 0;
};

}  // namespace

bool IsVolatile(EvictionPolicy policy) {
  switch (policy) {
    case EvictionPolicy::kVolatileLru:
    case EvictionPolicy::kVolatileLfu:
    case EvictionPolicy::kVolatileRandom:
    case EvictionPolicy::kVolatileTtl:
    case EvictionPolicy::kVolatileSieve:
      return true;
    default:
      return false;
  }
}

bool EvictOne(Keyspace& keyspace, uint32_t shard, EvictionPolicy policy, size_t samples,
              int64_t now_ms, Random& random, Victim* victim) {
  if (policy == EvictionPolicy::kNoEviction) return false;
  Search search(keyspace, policy, std::max(samples, size_t{1}), now_ms, random);
  const Shard& held = keyspace.shard(shard);
  for (uint32_t db = 0; db < held.table_count(); ++db) {
    if (Table* table = held.FindTable(db)) search.Look(*table, db);
  }
  if (search.best() == nullptr) return false;
  victim->key = search.best()->key();
  victim->db = search.db();
  victim->score = search.score();
  return true;
}

}  // namespace crab

// Eviction: each policy chooses among the keys that it may choose from, and the better ones.

#include "src/keyspace/eviction.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "tests/support/seed.h"

namespace crab {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;
constexpr EvictionPolicy kAll[] = {
    EvictionPolicy::kAllkeysLru,  EvictionPolicy::kVolatileLru,   EvictionPolicy::kAllkeysLfu,
    EvictionPolicy::kVolatileLfu, EvictionPolicy::kAllkeysRandom, EvictionPolicy::kVolatileRandom,
    EvictionPolicy::kVolatileTtl, EvictionPolicy::kAllkeysSieve,  EvictionPolicy::kVolatileSieve};

class EvictionTest : public testing::Test {
 protected:
  void Start(EvictionPolicy policy) { keyspace_.options().policy = policy; }
  void Set(const std::string& key, int64_t now_ms, int64_t deadline_ms, uint32_t db = 0) {
    view_.Begin(db, now_ms, false);
    view_.SetString(key, "value", deadline_ms);
  }
  // The next victim, which is removed; "" for none.
  std::string Evict(size_t samples = 5) {
    Victim victim;
    if (!EvictOne(keyspace_, 0, keyspace_.options().policy, samples, kNowMs, random_, &victim)) {
      return "";
    }
    view_.Begin(victim.db, kNowMs, false);
    EXPECT_TRUE(view_.Remove(victim.key));
    return victim.key;
  }

  Keyspace keyspace_{{.shard_count = 1, .databases = 4}};
  Effects effects_;
  KeyspaceStats stats_;
  KeyspaceView view_{keyspace_, effects_, stats_};
  Random random_{test::TestSeed()};
};

TEST_F(EvictionTest, EmptiesWhatAPolicyMayTakeAndNothingElse) {
  for (EvictionPolicy policy : kAll) {
    SCOPED_TRACE(static_cast<int>(policy));
    keyspace_.DetachAll();
    Start(policy);
    for (int i = 0; i < 400; ++i) {
      const std::string number = std::to_string(i);
      Set("lasting" + number, kNowMs, kNoDeadline, i % 3);
      Set("passing" + number, kNowMs, kNowMs + 1000 + i, i % 3);
    }
    const bool only_volatile =
        policy == EvictionPolicy::kVolatileLru || policy == EvictionPolicy::kVolatileLfu ||
        policy == EvictionPolicy::kVolatileRandom || policy == EvictionPolicy::kVolatileTtl ||
        policy == EvictionPolicy::kVolatileSieve;
    int evicted = 0;
    for (std::string key = Evict(); !key.empty(); key = Evict()) {
      ++evicted;
      if (only_volatile) {
        ASSERT_EQ(key.substr(0, 7), "passing");
      }
    }
    EXPECT_EQ(evicted, only_volatile ? 400 : 800);
  }
  Start(EvictionPolicy::kNoEviction);
  Set("key", kNowMs, kNoDeadline);
  EXPECT_EQ(Evict(), "");
}

TEST_F(EvictionTest, PrefersWhatWasNotUsedForLong) {
  for (EvictionPolicy policy : {EvictionPolicy::kAllkeysLru, EvictionPolicy::kVolatileLru}) {
    keyspace_.DetachAll();
    Start(policy);
    // Each key one second older than the one before.
    constexpr int kKeys = 1000;
    for (int i = 0; i < kKeys; ++i) {
      Set("key" + std::to_string(i), kNowMs - i * 1000, kNowMs + 1000000);
    }
    // Of ten chosen at random, the best is among the older half nearly always.
    int from_older_half = 0;
    for (int i = 0; i < 100; ++i) from_older_half += std::stoi(Evict(10).substr(3)) >= kKeys / 2;
    EXPECT_GT(from_older_half, 95);
  }
}

TEST_F(EvictionTest, PrefersWhatIsSeldomUsed) {
  Start(EvictionPolicy::kAllkeysLfu);
  for (int i = 0; i < 200; ++i) Set("key" + std::to_string(i), kNowMs, kNoDeadline);
  for (int i = 0; i < 100; ++i) {
    // The counter counts by chance: 64 uses on the average for four steps. With so many more, less
    // than four happen once in 10^13.
    for (int times = 0; times < 1000; ++times) view_.Find("key" + std::to_string(i));
  }
  EXPECT_GT(view_.Peek("key0")->LfuCounter(kNowMs, 1), kLfuInitialCounter + 3);
  int seldom_used = 0;
  for (int i = 0; i < 50; ++i) seldom_used += std::stoi(Evict(10).substr(3)) >= 100;
  EXPECT_GT(seldom_used, 45);
}

TEST_F(EvictionTest, TakesTheEarliestDeadlineFirst) {
  Start(EvictionPolicy::kVolatileTtl);
  for (int i = 0; i < 100; ++i) Set("key" + std::to_string(i), kNowMs, kNowMs + 100000 - i * 100);
  for (int i = 99; i > 50; --i) {
    EXPECT_EQ(Evict(), "key" + std::to_string(i));
  }
}

TEST_F(EvictionTest, SparesWhatWasUsedSinceTheHandCameBy) {
  for (EvictionPolicy policy : {EvictionPolicy::kAllkeysSieve, EvictionPolicy::kVolatileSieve}) {
    keyspace_.DetachAll();
    Start(policy);
    for (int i = 0; i < 100; ++i) Set("key" + std::to_string(i), kNowMs, kNowMs + 100000);
    for (int i = 0; i < 50; ++i) view_.Find("key" + std::to_string(i));
    // The used half stays until the hand has gone round; it is round a little earlier than all are
    // seen, because the table shrinks and moves some behind it.
    int unused = 0;
    for (int i = 0; i < 50; ++i) unused += std::stoi(Evict().substr(3)) >= 50;
    EXPECT_GE(unused, 40);
    for (int i = 0; i < 50; ++i) EXPECT_NE(Evict(), "");
    EXPECT_EQ(Evict(), "");
  }
}

}  // namespace
}  // namespace crab

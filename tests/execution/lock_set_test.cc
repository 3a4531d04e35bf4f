#include "src/execution/lock_set.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Mix;
using test::TestSeed;

constexpr uint32_t kShards = 128;

std::vector<uint16_t> Shards(const LockSet& locks) {
  return {locks.shards().begin(), locks.shards().end()};
}

class LockSetTest : public testing::Test {
 protected:
  bool Held(uint32_t shard) { return keyspace_.shard(shard).lock.load() != 0; }

  Keyspace keyspace_{{.shard_count = kShards, .hash_seed = 1}};
  LockSet locks_;
};

TEST_F(LockSetTest, HoldsExactlyWhatWasAddedOnceEachInAscendingOrder) {
  for (uint32_t shard : {9, 3, 9, 120, 3, 3, 0}) EXPECT_TRUE(locks_.Add(shard));
  locks_.Lock(keyspace_);
  EXPECT_EQ(Shards(locks_), (std::vector<uint16_t>{0, 3, 9, 120}));
  for (uint32_t shard = 0; shard < kShards; ++shard) {
    EXPECT_EQ(Held(shard), shard == 0 || shard == 3 || shard == 9 || shard == 120) << shard;
  }
  locks_.Unlock(keyspace_);
  for (uint32_t shard = 0; shard < kShards; ++shard) EXPECT_FALSE(Held(shard)) << shard;
}

TEST_F(LockSetTest, IsEmptyAfterClear) {
  EXPECT_TRUE(locks_.Add(5));
  locks_.Clear();
  locks_.Lock(keyspace_);
  EXPECT_FALSE(Held(5));
  EXPECT_TRUE(locks_.shards().empty());
}

TEST_F(LockSetTest, TakesSixtyFourShardsAndRefusesOneMore) {
  for (uint32_t shard = LockSet::kShardsMax; shard-- > 0;) EXPECT_TRUE(locks_.Add(shard)) << shard;
  EXPECT_FALSE(locks_.Add(100));
}

TEST_F(LockSetTest, DuplicatesTakeNoRoomFromOthers) {
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(locks_.Add(i % 2 == 0 ? 7 : 8)) << i;
  for (uint32_t shard = 20; shard < 20 + LockSet::kShardsMax - 2; ++shard) {
    EXPECT_TRUE(locks_.Add(shard)) << shard;
  }
  EXPECT_FALSE(locks_.Add(100));
}

TEST_F(LockSetTest, WaitsForTheHolder) {
  LockShard(keyspace_.shard(1));
  std::atomic<bool> tries{false};
  int guarded = 0;
  int seen = 0;
  std::thread waiter([&] {
    tries = true;
    LockShard(keyspace_.shard(1));
    seen = guarded;
    UnlockShard(keyspace_.shard(1));
  });
  while (!tries) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) std::this_thread::yield();  // past the spinning, into the sleep
  guarded = 1;
  UnlockShard(keyspace_.shard(1));
  waiter.join();
  EXPECT_EQ(seen, 1);
  EXPECT_FALSE(Held(1));
}

// Threads take overlapping sets in any order of adding. Ascending locking means that they never
// wait in a circle, and plain counters show that a shard has one holder at a time.
TEST_F(LockSetTest, OverlappingSetsNeitherDeadlockNorShare) {
  constexpr int kThreads = 4;
  constexpr int kSteps = 5000;
  constexpr uint32_t kFew = 8;
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  int64_t counters[kFew] = {};
  std::atomic<int64_t> added{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      Random random(Mix(TestSeed(), static_cast<uint64_t>(thread)));
      LockSet locks;
      int64_t own = 0;
      for (int step = 0; step < kSteps; ++step) {
        locks.Clear();
        for (uint64_t keys = 1 + random.Below(5); keys > 0; --keys) {
          EXPECT_TRUE(locks.Add(static_cast<uint32_t>(random.Below(kFew))));
        }
        locks.Lock(keyspace_);
        for (uint16_t shard : locks.shards()) {
          ++counters[shard];
          ++own;
        }
        locks.Unlock(keyspace_);
      }
      added += own;
    });
  }
  for (std::thread& thread : threads) thread.join();
  int64_t sum = 0;
  for (int64_t counter : counters) sum += counter;
  EXPECT_EQ(sum, added);
}

}  // namespace
}  // namespace crab

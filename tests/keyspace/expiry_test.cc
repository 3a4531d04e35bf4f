// Deadlines: the queue of records, and active expiry through it.

#include "src/keyspace/expiry.h"

#include <gtest/gtest.h>

#include <queue>
#include <string>
#include <vector>

#include "src/keyspace/keyspace.h"
#include "tests/support/seed.h"

namespace crab {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;

TEST(DeadlineQueueTest, GivesTheEarliestAsAPriorityQueueWould) {
  for (uint64_t run = 0; run < 20; ++run) {
    const uint64_t seed = test::Mix(test::TestSeed(), run);
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    DeadlineQueue queue;
    std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> model;
    for (uint64_t step = 0; step < 5000; ++step) {
      const uint64_t number = test::Mix(seed, step);
      if (number % 5 < (step < 3000 ? 4u : 1u)) {
        const uint64_t record =
            DeadlineQueue::Record(kNowMs + static_cast<int64_t>(number >> 40), number);
        queue.Push(record);
        model.push(record);
      } else if (!model.empty()) {
        queue.Pop();
        model.pop();
      }
      ASSERT_EQ(queue.size(), model.size());
      if (!model.empty()) {
        ASSERT_EQ(queue.top(), model.top());
      }
    }
    queue.Clear();
    EXPECT_EQ(queue.MemoryBytes(), 0u);
  }
}

TEST(DeadlineQueueTest, RoundsUpSoThatNothingIsDueTooEarly) {
  for (int64_t deadline_ms : {int64_t{0}, int64_t{1}, int64_t{15}, int64_t{16}, kNowMs}) {
    const int64_t time_ms = DeadlineQueue::TimeMs(DeadlineQueue::Record(deadline_ms, 0));
    EXPECT_GT(time_ms, deadline_ms);
    EXPECT_LE(time_ms, deadline_ms + 16);
  }
  EXPECT_GT(DeadlineQueue::TimeMs(DeadlineQueue::Record(INT64_MAX, 0)), kNowMs * 10);
}

class ExpiryTest : public testing::Test {
 protected:
  void At(int64_t now_ms, uint32_t db = 0) { view_.Begin(db, now_ms, false); }
  size_t ExpireAll(int64_t now_ms) {
    At(now_ms);
    size_t removed = 0;
    // Until nothing is due any more: a call looks at a bounded number of records.
    while (keyspace_.shard(0).next_deadline_ms() <= now_ms) removed += view_.ExpireSome(0, 20);
    return removed;
  }

  Keyspace keyspace_{{.shard_count = 1, .databases = 4, .hash_seed = 3}};
  Effects effects_;
  KeyspaceStats stats_;
  KeyspaceView view_{keyspace_, effects_, stats_};
};

TEST_F(ExpiryTest, RemovesWhatIsDueInEveryDatabaseAndLogsIt) {
  for (int i = 0; i < 300; ++i) {
    At(kNowMs, i % 3);
    view_.SetString("passing" + std::to_string(i), "v", kNowMs + i);
    view_.SetString("lasting" + std::to_string(i), "v", kNoDeadline);
  }
  EXPECT_GT(keyspace_.shard(0).next_deadline_ms(), kNowMs);
  EXPECT_LE(keyspace_.shard(0).next_deadline_ms(), kNowMs + 16);
  At(kNowMs);
  EXPECT_EQ(view_.ExpireSome(0, 100), 0u);
  At(kNowMs + 1000, 2);
  EXPECT_EQ(view_.ExpireSome(0, 7), 7u);
  EXPECT_EQ(view_.db(), 2u);
  EXPECT_EQ(effects_.count(), 7u);
  EXPECT_EQ(ExpireAll(kNowMs + 1000), 293u);
  EXPECT_EQ(stats_.expired, 300u);
  EXPECT_EQ(keyspace_.shard(0).next_deadline_ms(), INT64_MAX);
  for (uint32_t db = 0; db < 3; ++db) {
    EXPECT_EQ(keyspace_.Size(db), 100u);
    EXPECT_EQ(keyspace_.SizeWithDeadline(db), 0u);
  }
}

TEST_F(ExpiryTest, FindsAKeyWhoseDeadlineWasMovedEitherWay) {
  At(kNowMs);
  view_.SetString("later", "v", kNowMs + 100);
  view_.SetString("sooner", "v", kNowMs + 100000);
  view_.SetString("never", "v", kNowMs + 100);
  view_.SetDeadline(view_.FindForWrite("later"), kNowMs + 5000);
  view_.SetDeadline(view_.FindForWrite("sooner"), kNowMs + 50);
  view_.SetDeadline(view_.FindForWrite("never"), kNoDeadline);
  EXPECT_EQ(ExpireAll(kNowMs + 1000), 1u);
  EXPECT_EQ(view_.Peek("sooner"), nullptr);
  EXPECT_EQ(ExpireAll(kNowMs + 6000), 1u);
  EXPECT_EQ(view_.Peek("later"), nullptr);
  EXPECT_EQ(ExpireAll(kNowMs + 1000000), 0u);
  EXPECT_NE(view_.Peek("never"), nullptr);
}

TEST_F(ExpiryTest, AddsNoRecordForADeadlineThatMovesForward) {
  for (int i = 0; i < 1000; ++i) {
    At(kNowMs + i);
    view_.SetString("key", "value", kNowMs + 1000 + i);
  }
  EXPECT_EQ(keyspace_.shard(0).FindTable(0)->deadlines().size(), 1u);
  EXPECT_EQ(ExpireAll(kNowMs + 1500), 0u);
  EXPECT_EQ(ExpireAll(kNowMs + 3000), 1u);
}

TEST_F(ExpiryTest, BoundsTheRecordsOfKeysThatComeAndGo) {
  At(kNowMs);
  view_.SetString("stays", "value", kNowMs + 1000000);
  for (int i = 0; i < 20000; ++i) {
    // A lock: taken, freed, taken; and one that lasts shorter each time.
    view_.SetString("lock", "owner", kNowMs + 30000 + i);
    view_.Remove("lock");
    view_.SetDeadline(view_.FindForWrite("stays"), kNowMs + 900000 - i * 20);
    ASSERT_LE(keyspace_.shard(0).FindTable(0)->deadlines().size(), 80u);
  }
  view_.Remove("stays");
  EXPECT_EQ(keyspace_.MemoryBytes(), 0u);
}

TEST_F(ExpiryTest, ReachesDeadlinesFarAheadOnlyWhenTheyCome) {
  At(kNowMs);
  view_.SetString("far", "value", INT64_MAX);
  view_.SetString("year 5000", "value", 95'617'584'000'000);
  EXPECT_EQ(ExpireAll(kNowMs * 2), 0u);
  EXPECT_EQ(keyspace_.Size(0), 2u);
}

TEST_F(ExpiryTest, DoesNothingInReplay) {
  At(0);
  view_.SetString("key", "value", 5);
  EXPECT_EQ(view_.ExpireSome(0, 10), 0u);
  EXPECT_NE(view_.Find("key"), nullptr);
  EXPECT_EQ(ExpireAll(kNowMs), 1u);
}

}  // namespace
}  // namespace crab

#include "src/keyspace/recent_writes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::TestSeed;

// Hashes of keys that can be told apart; that of key 0 looks like a place that is not used yet.
uint64_t HashNumber(uint64_t key) { return key * 0x01010101; }

TEST(RecentWritesTest, KnowsOfNothingWhereNothingWasWritten) {
  const RecentWrites writes;
  EXPECT_EQ(writes.Last(HashNumber(0)), 0u);
  EXPECT_EQ(writes.Last(HashNumber(5)), 0u);
}

TEST(RecentWritesTest, NeighboursDoNotWaitForEachOther) {
  RecentWrites writes;
  for (uint64_t key = 0; key < 4; ++key) writes.Note(HashNumber(key), 100 + key);
  for (uint64_t round = 0; round < 1000; ++round) writes.Note(HashNumber(3), 200 + round);
  for (uint64_t key = 0; key < 4; ++key) {
    EXPECT_EQ(writes.Last(HashNumber(key)), key == 3 ? 1199 : 100 + key);
  }
  EXPECT_EQ(writes.Last(HashNumber(4)), 0u);
  // The fifth takes the place of the one that was written the longest time ago.
  writes.Note(HashNumber(9), 2000);
  EXPECT_EQ(writes.Last(HashNumber(9)), 2000u);
  EXPECT_EQ(writes.Last(HashNumber(1)), 101u);
  EXPECT_EQ(writes.Last(HashNumber(4)), 100u);
}

TEST(RecentWritesTest, NeverForgetsARecordAndKnowsTheLastFourKeysExactly) {
  Random random(TestSeed());
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  for (int run = 0; run < 50; ++run) {
    RecentWrites writes;
    std::map<uint64_t, uint64_t> last;  // by key
    const uint64_t keys = 1 + random.Below(12);
    uint64_t lsn = 0;
    for (int step = 0; step < 500; ++step) {
      lsn += 1 + random.Below(3);
      const uint64_t key = random.Below(keys);
      writes.Note(HashNumber(key), lsn);
      last[key] = lsn;
      std::vector<uint64_t> newest;
      for (const auto& [each, of_it] : last) newest.push_back(of_it);
      std::sort(newest.rbegin(), newest.rend());
      const uint64_t floor = newest.size() > 4 ? newest[4] : 0;
      for (uint64_t each = 0; each < keys + 2; ++each) {
        const uint64_t known = writes.Last(HashNumber(each));
        const auto found = last.find(each);
        ASSERT_EQ(known, std::max(floor, found == last.end() ? 0 : found->second))
            << "key " << each << " at step " << step;
      }
    }
  }
}

}  // namespace
}  // namespace crab

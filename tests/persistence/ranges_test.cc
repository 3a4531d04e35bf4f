#include "persistence/ranges.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

using crab::test::Mix;
using crab::test::TestSeed;

TEST(RangesTest, JoinsWhatTouches) {
  Ranges ranges;
  ranges.Add(5, 4);
  EXPECT_EQ(ranges.size(), 0u);
  ranges.Add(10, 19);
  ranges.Add(30, 39);
  EXPECT_EQ(ranges.size(), 2u);
  EXPECT_EQ(ranges.Without(0, 50), (std::vector<Ranges::Range>{{0, 9}, {20, 29}, {40, 50}}));
  ranges.Add(20, 29);
  EXPECT_EQ(ranges.size(), 1u);
  EXPECT_TRUE(ranges.Without(12, 38).empty());
  EXPECT_TRUE(ranges.Contains(10));
  EXPECT_TRUE(ranges.Contains(39));
  EXPECT_FALSE(ranges.Contains(9));
  EXPECT_FALSE(ranges.Contains(40));
}

TEST(RangesTest, ReachesToTheLargestNumber) {
  constexpr uint64_t kLast = ~uint64_t{0};
  Ranges ranges;
  ranges.Add(7, kLast);
  ranges.Add(kLast, kLast);
  ranges.Add(0, 3);
  EXPECT_EQ(ranges.size(), 2u);
  EXPECT_TRUE(ranges.Contains(kLast));
  EXPECT_EQ(ranges.Without(0, kLast), (std::vector<Ranges::Range>{{4, 6}}));
  ranges.Add(2, 9);
  EXPECT_EQ(ranges.size(), 1u);
  EXPECT_TRUE(ranges.Without(0, kLast).empty());
}

// Full, it holds more than was added and never less.
TEST(RangesTest, KeepsNoMoreRangesThanItMay) {
  Ranges ranges(3);
  for (uint64_t i = 1; i <= 1000; ++i) {
    ranges.Add(i * 10, i * 10 + 1);
    ASSERT_LE(ranges.size(), 3u);
    ASSERT_TRUE(ranges.Contains(i * 10 + 1));
  }
  EXPECT_EQ(ranges.Without(0, 10002),
            (std::vector<Ranges::Range>{{0, 9}, {12, 19}, {22, 29}, {10002, 10002}}));
  ranges.Add(1, 2);  // before all others
  EXPECT_EQ(ranges.size(), 3u);
  EXPECT_EQ(ranges.Without(0, 20), (std::vector<Ranges::Range>{{0, 0}, {12, 19}}));
  Ranges one(1);
  one.Add(5, 6);
  one.Add(1, 2);
  one.Add(9, 9);
  EXPECT_EQ(one.Without(0, 10), (std::vector<Ranges::Range>{{0, 0}, {10, 10}}));

  Random random(Mix(TestSeed(), 2));
  Ranges few(5);
  std::set<uint64_t> added;
  for (int i = 0; i < 300; ++i) {
    const uint64_t first = random.Below(5000), last = first + random.Below(9);
    few.Add(first, last);
    for (uint64_t number = first; number <= last; ++number) added.insert(number);
    ASSERT_LE(few.size(), 5u);
    for (const uint64_t number : added) ASSERT_TRUE(few.Contains(number)) << TestSeed();
  }
}

TEST(RangesTest, IsTheSetOfItsNumbers) {
  Random random(Mix(TestSeed(), 1));
  for (int round = 0; round < 200; ++round) {
    Ranges ranges;
    std::set<uint64_t> numbers;
    for (int i = 0; i < 30; ++i) {
      const uint64_t first = random.Below(100), last = first + random.Below(12);
      std::set<uint64_t> missing;
      for (uint64_t number = first; number <= last; ++number) {
        ASSERT_EQ(ranges.Contains(number), numbers.count(number) != 0);
        if (numbers.insert(number).second) missing.insert(number);
      }
      std::set<uint64_t> without;
      for (const auto& [from, to] : ranges.Without(first, last)) {
        for (uint64_t number = from; number <= to; ++number) without.insert(number);
      }
      ASSERT_EQ(without, missing) << "seed " << TestSeed();
      ranges.Add(first, last);
    }
  }
}

}  // namespace
}  // namespace crab::wal

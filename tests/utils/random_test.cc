#include "utils/random.h"

#include <gtest/gtest.h>

#include <array>

namespace crab {
namespace {

TEST(RandomTest, RepeatsItselfFromTheSameSeed) {
  Random a(7), b(7), c(8);
  for (int i = 0; i < 100; ++i) {
    const uint64_t value = a.Next();
    EXPECT_EQ(value, b.Next());
    EXPECT_NE(value, c.Next());
  }
}

// The first numbers of xoshiro256** whose state is splitmix64's first four from 0.
TEST(RandomTest, IsTheGeneratorItSays) {
  Random random(0);
  EXPECT_EQ(random.Next(), 0x99ec5f36cb75f2b4u);
  EXPECT_EQ(random.Next(), 0xbf6e1f784956452au);
}

TEST(RandomTest, StaysBelowItsBoundAndReachesAll) {
  Random random(1);
  std::array<int, 10> hits{};
  for (int i = 0; i < 10000; ++i) {
    const uint64_t value = random.Below(hits.size());
    ASSERT_LT(value, hits.size());
    ++hits[value];
    const double fraction = random.Fraction();
    ASSERT_GE(fraction, 0.0);
    ASSERT_LT(fraction, 1.0);
  }
  for (const int count : hits) EXPECT_NEAR(count, 1000, 200);
  EXPECT_EQ(random.Below(1), 0u);
}

TEST(RandomTest, MakesIdsOfTheLengthAsked) {
  EXPECT_EQ(RandomHex(0), "");
  const std::string id = RandomHex(40);
  EXPECT_EQ(id.size(), 40u);
  EXPECT_EQ(id.find_first_not_of("0123456789abcdef"), id.npos);
  EXPECT_NE(id, RandomHex(40));
  EXPECT_NE(RandomUint64(), RandomUint64());
}

}  // namespace
}  // namespace crab

#include "src/commands/lcs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "tests/support/seed.h"

namespace crab {
namespace {

// The definition, written down: exponential in time, so for short strings only.
size_t SizeByDefinition(std::string_view a, std::string_view b) {
  if (a.empty() || b.empty()) return 0;
  if (a.back() == b.back()) {
    return 1 + SizeByDefinition(a.substr(0, a.size() - 1), b.substr(0, b.size() - 1));
  }
  return std::max(SizeByDefinition(a.substr(0, a.size() - 1), b),
                  SizeByDefinition(a, b.substr(0, b.size() - 1)));
}

TEST(LcsTest, FindsACommonSequenceAndNoneIsLonger) {
  std::mt19937_64 random(test::TestSeed());
  for (int round = 0; round < 2000; ++round) {
    std::string strings[2];
    for (std::string& text : strings) {
      text.resize(random() % 9);
      for (char& c : text) c = static_cast<char>('a' + random() % 3);
    }
    const auto& [a, b] = strings;
    SCOPED_TRACE(a + " and " + b);
    const CommonSequence found = FindCommonSequence(a, b);
    EXPECT_EQ(found.size, SizeByDefinition(a, b));
    EXPECT_EQ(found.size, CommonSequenceSize(a, b));
    size_t sum = 0;
    size_t a_end = a.size();
    size_t b_end = b.size();
    for (const CommonSequence::Run& run : found.runs) {
      ASSERT_GT(run.size, 0u);
      ASSERT_LE(run.a + run.size, a_end);
      ASSERT_LE(run.b + run.size, b_end);
      EXPECT_EQ(a.substr(run.a, run.size), b.substr(run.b, run.size));
      a_end = run.a;
      b_end = run.b;
      sum += run.size;
    }
    EXPECT_EQ(sum, found.size);
  }
}

TEST(LcsTest, TakesEmptyAndEqualStrings) {
  EXPECT_EQ(FindCommonSequence("", "abc").size, 0u);
  EXPECT_TRUE(FindCommonSequence("abc", "xyz").runs.empty());
  const std::string text(300, 'x');
  const CommonSequence found = FindCommonSequence(text, text);
  EXPECT_EQ(found.size, 300u);
  EXPECT_EQ(found.runs.size(), 1u);
}

}  // namespace
}  // namespace crab

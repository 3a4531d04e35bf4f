#include "utils/glob.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/seed.h"

namespace crab {
namespace {

TEST(GlobTest, MatchesAsRedisDoes) {
  const struct {
    std::string_view pattern, text;
    bool matches;
  } rows[] = {
      {"", "", true},
      {"", "a", false},
      {"*", "a", true},
      {"*", "", false},
      {"**", "abc", true},
      {"a*", "a", true},
      {"a*c", "abc", true},
      {"a*c", "abcd", false},
      {"*b*", "abc", true},
      {"a?c", "abc", true},
      {"a?c", "ac", false},
      {"?", "", false},
      {"[abc]", "b", true},
      {"[abc]", "d", false},
      {"[^abc]", "d", true},
      {"[^abc]", "a", false},
      {"[a-c]x", "bx", true},
      {"[c-a]x", "bx", true},
      {"[a-c", "b", true},
      {"[a-c", "d", false},
      {"[", "[", false},
      {"[^", "x", true},
      {"[]", "]", false},
      {"[]]", "]", false},
      {"[\\]]", "]", true},
      {"[a\\-c]", "-", true},
      {"[a\\-c]", "b", false},
      {"[a-]", "-", false},
      {"[-a]", "-", true},
      {"\\*", "*", true},
      {"\\*", "a", false},
      {"\\", "\\", true},
      {"a\\", "a\\", true},
      {"\\\\", "\\", true},
      {"h[ae]llo", "hallo", true},
      {"*a*b*c", "xaxbxc", true},
      {"*a*b*c", "xaxbxcx", false},
      {"abc*", "ab", false},
      {"ab**", "ab", true},
      {"A", "a", false},
      {"[\x7f-\x80]", "a", true},  // as signed bytes, the other way round
  };
  for (const auto& row : rows) {
    EXPECT_EQ(GlobMatch(row.pattern, row.text), row.matches)
        << "'" << row.pattern << "' on '" << row.text << "'";
  }
}

TEST(GlobTest, IgnoresCaseWhereAskedTo) {
  EXPECT_TRUE(GlobMatch("MaxMemory*", "maxmemory-policy", true));
  EXPECT_TRUE(GlobMatch("[A-C]", "b", true));
  EXPECT_TRUE(GlobMatch("[ABC]", "b", true));
  EXPECT_FALSE(GlobMatch("[\\B]", "b", true));  // Redis compares an escaped byte as it is
  EXPECT_FALSE(GlobMatch("[Z-a]", "z", true));  // the range is ordered before it is lowered
  EXPECT_FALSE(GlobMatch("@", "`", true));
}

TEST(GlobTest, EndsSoonWithManyStars) {
  std::string pattern;
  for (int i = 0; i < 1000; ++i) pattern += "a*";
  EXPECT_FALSE(GlobMatch(pattern + "b", std::string(20000, 'a')));
  EXPECT_TRUE(GlobMatch(pattern, std::string(20000, 'a')));
}

// The definition, word by word, in exponential time.
bool Reference(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    for (size_t taken = 0; taken <= text.size(); ++taken) {
      if (Reference(pattern.substr(1), text.substr(taken))) return true;
    }
    return false;
  }
  if (text.empty() || (pattern[0] != '?' && pattern[0] != text[0])) return false;
  return Reference(pattern.substr(1), text.substr(1));
}

TEST(GlobTest, AgreesWithItsDefinition) {
  const uint64_t seed = test::TestSeed();
  for (uint64_t i = 0; i < 50000; ++i) {
    uint64_t chance = test::Mix(seed, i);
    std::string pattern(chance % 8, ' ');
    std::string text(1 + (chance >> 8) % 7, ' ');
    chance = test::Mix(chance, 0);
    for (char& c : pattern) {
      c = "*?ab"[chance & 3];
      chance >>= 2;
    }
    for (char& c : text) {
      c = "ab"[chance & 1];
      chance >>= 1;
    }
    ASSERT_EQ(GlobMatch(pattern, text), Reference(pattern, text)) << pattern << " on " << text;
  }
}

}  // namespace
}  // namespace crab

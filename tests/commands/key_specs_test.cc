#include "src/commands/key_specs.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "src/commands/registry.h"
#include "tests/commands/call_fixture.h"

namespace crab {
namespace {

class KeySpecsTest : public testing::Test {
 protected:
  std::string KeysOf(std::string_view line) {
    const std::vector<std::string> words = SplitLine(line);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    const Command* container = nullptr;
    const Command* command = runner_.registry.Find(Args(argv), &container);
    std::string keys;
    ForEachKey(*command, Args(argv), [&](std::string_view key) { keys.append(key).append(" "); });
    return keys;
  }
  const Command& Row(std::string_view name) { return *runner_.registry.FindName(name); }

  CommandRunner runner_;
};

TEST_F(KeySpecsTest, FindTheKeysOfARequest) {
  const std::pair<const char*, const char*> kCases[] = {
      {"GET a", "a "},        {"DEL a b c", "a b c "},   {"MSET a 1 b 2", "a b "},
      {"MSET a 1 b", "a b "},  // the handler refuses it, yet its keys can be told
      {"RENAME a b", "a b "}, {"COPY a b DB 1", "a b "}, {"OBJECT ENCODING a", "a "},
      {"DBSIZE", ""},
  };
  for (const auto& [line, keys] : kCases) {
    EXPECT_EQ(KeysOf(line), keys) << line;
  }
}

TEST_F(KeySpecsTest, ARequestTooShortHasNoKeysBeyondItsEnd) {
  EXPECT_EQ(KeysOf("GET"), "");
  EXPECT_EQ(KeysOf("RENAME a"), "a ");
  EXPECT_EQ(KeysOf("DEL"), "");
}

TEST_F(KeySpecsTest, TellOneKeyFromSeveral) {
  EXPECT_TRUE(HasOneKey(Row("get")));
  EXPECT_TRUE(HasOneKey(Row("object|freq")));
  EXPECT_FALSE(HasOneKey(Row("del")));
  EXPECT_FALSE(HasOneKey(Row("rename")));
  EXPECT_FALSE(HasOneKey(Row("dbsize")));
}

TEST_F(KeySpecsTest, EveryRowWithKeysNamesThemWithinItsLeastArity) {
  for (const Command* command : runner_.registry.commands()) {
    const int least = command->arity < 0 ? -command->arity : command->arity;
    for (const KeySpec& spec : command->keys) {
      EXPECT_LT(spec.first, least) << command->name;
      EXPECT_LT(spec.last, least) << command->name;
      EXPECT_EQ(spec.first == 0, spec.step == 0) << command->name;
    }
  }
}

TEST_F(KeySpecsTest, OneRangeHoldsBothSpecs) {
  EXPECT_EQ(KeyRangeOf(Row("rename")).first, 1);
  EXPECT_EQ(KeyRangeOf(Row("rename")).last, 2);
  EXPECT_EQ(KeyRangeOf(Row("del")).last, -1);
  EXPECT_EQ(KeyRangeOf(Row("dbsize")).first, 0);
}

}  // namespace
}  // namespace crab

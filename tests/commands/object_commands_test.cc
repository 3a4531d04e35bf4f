#include <string>

#include "tests/commands/call_fixture.h"

namespace crab {
namespace {

class ObjectCommandsTest : public CallFixture {};

TEST_F(ObjectCommandsTest, EncodingFollowsTheValue) {
  const std::pair<std::string, const char*> kCases[] = {
      {"SET k 9223372036854775807", "$3 int"},
      {"SET k 007", "$6 embstr"},
      {"SET k " + std::string(44, 'x'), "$6 embstr"},
      {"SET k " + std::string(45, 'x'), "$3 raw"},
      {"APPEND k y", "$3 raw"},
  };
  for (const auto& [line, encoding] : kCases) {
    Run(line);
    EXPECT_EQ(Run("OBJECT ENCODING k"), encoding) << line;
  }
}

TEST_F(ObjectCommandsTest, SmallIntegersSayThatTheyAreShared) {
  Run("MSET small 9999 large 10000 negative -1 text x");
  EXPECT_EQ(Run("OBJECT REFCOUNT small"), ":2147483647");
  EXPECT_EQ(Run("OBJECT REFCOUNT large"), ":1");
  EXPECT_EQ(Run("OBJECT REFCOUNT negative"), ":1");
  EXPECT_EQ(Run("OBJECT REFCOUNT text"), ":1");
}

TEST_F(ObjectCommandsTest, IdletimeOrFreqByThePolicy) {
  Run("SET k v");
  runner_.now_ms += 7000;
  EXPECT_EQ(Run("OBJECT IDLETIME k"), ":7");
  EXPECT_TRUE(Run("OBJECT FREQ k").starts_with("-ERR An LFU maxmemory policy is not selected"));
  runner_.keyspace.options().policy = EvictionPolicy::kVolatileLfu;
  Run("SET fresh v");
  EXPECT_EQ(Run("OBJECT FREQ fresh"), ":5");
  EXPECT_TRUE(Run("OBJECT IDLETIME k").starts_with("-ERR An LFU maxmemory policy is selected"));
}

TEST_F(ObjectCommandsTest, AMissingKeyIsNullWhateverThePolicy) {
  for (const char* name : {"ENCODING", "FREQ", "IDLETIME", "REFCOUNT"}) {
    EXPECT_EQ(Run("OBJECT " + std::string(name) + " nosuch"), "$-1") << name;
  }
  runner_.client.protocol = 3;
  EXPECT_EQ(Run("OBJECT ENCODING nosuch"), "_");
}

TEST_F(ObjectCommandsTest, HelpListsTheSubcommandsAndItselfLast) {
  const std::string help = Run("OBJECT HELP");
  EXPECT_TRUE(help.starts_with(
      "*11 +OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are: +ENCODING <key> +    "))
      << help;
  EXPECT_NE(help.find("+IDLETIME <key>"), std::string::npos);
  EXPECT_LT(help.find("+REFCOUNT <key>"), help.find(" +HELP +    "));
}

}  // namespace
}  // namespace crab

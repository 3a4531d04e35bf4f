#include <string>
#include <utility>

#include "tests/commands/call_fixture.h"

namespace crab {
namespace {

// The runner's clock stands at 1700000000000 ms.
class ExpireCommandsTest : public CallFixture {};

TEST_F(ExpireCommandsTest, EveryFormLogsTheAbsoluteTime) {
  const std::pair<const char*, const char*> kCases[] = {
      {"EXPIRE a 10", "PEXPIREAT a 1700000010000"},
      {"PEXPIRE a 10", "PEXPIREAT a 1700000000010"},
      {"EXPIREAT a 1700000020", "PEXPIREAT a 1700000020000"},
      {"PEXPIREAT a 1700000020005", "PEXPIREAT a 1700000020005"},
  };
  Run("SET a 1");
  for (const auto& [line, logged] : kCases) {
    EXPECT_EQ(Run(line), ":1") << line;
    EXPECT_EQ(effects(), logged);
  }
  EXPECT_EQ(Run("EXPIRE nosuch 10"), ":0");
  EXPECT_EQ(effects(), "");
}

TEST_F(ExpireCommandsTest, ATimeThatHasPassedRemovesTheKey) {
  const char* kLines[] = {"EXPIRE a 0",
                          "EXPIRE a -1",
                          "PEXPIRE a 0",
                          "EXPIREAT a 1700000000",
                          "PEXPIREAT a 1700000000000",
                          "PEXPIREAT a -9223372036854775808",
                          "EXPIRE a -9223372036854775"};
  for (const char* line : kLines) {
    Run("SET a 1");
    EXPECT_EQ(Run(line), ":1") << line;
    EXPECT_EQ(effects(), "DEL a") << line;
    EXPECT_EQ(Run("EXISTS a"), ":0") << line;
  }
}

TEST_F(ExpireCommandsTest, ATimeBeyondMillisecondsIsRefused) {
  const std::pair<const char*, const char*> kCases[] = {
      {"EXPIRE a 9223372036854775807", "expire"},  {"EXPIRE a 9223372036854775", "expire"},
      {"EXPIRE a -9223372036854776", "expire"},    {"PEXPIRE a 9223372036854775807", "pexpire"},
      {"EXPIREAT a 9223372036854776", "expireat"},
  };
  Run("SET a 1");
  for (const auto& [line, name] : kCases) {
    EXPECT_EQ(Run(line), "-ERR invalid expire time in '" + std::string(name) + "' command") << line;
  }
  EXPECT_EQ(Run("EXPIRE nosuch 9223372036854775807"),
            "-ERR invalid expire time in 'expire' command");
  EXPECT_EQ(Run("PEXPIREAT a 9223372036854775807"), ":1");
  EXPECT_EQ(Run("PEXPIRETIME a"), ":9223372036854775807");
}

TEST_F(ExpireCommandsTest, ConditionsCompareWithTheDeadlineThereIs) {
  struct Case {
    const char* prepare;
    const char* line;
    const char* reply;
  };
  const Case kCases[] = {
      {"SET a 1", "EXPIRE a 10 NX", ":1"},       {"SET a 1 EX 50", "EXPIRE a 10 NX", ":0"},
      {"SET a 1", "EXPIRE a 10 XX", ":0"},       {"SET a 1 EX 50", "EXPIRE a 10 XX", ":1"},
      {"SET a 1", "EXPIRE a 10 GT", ":0"},       {"SET a 1 EX 50", "EXPIRE a 10 GT", ":0"},
      {"SET a 1 EX 50", "EXPIRE a 50 GT", ":0"}, {"SET a 1 EX 50", "EXPIRE a 51 gt", ":1"},
      {"SET a 1", "EXPIRE a 10 LT", ":1"},       {"SET a 1 EX 50", "EXPIRE a 10 LT", ":1"},
      {"SET a 1 EX 50", "EXPIRE a 50 LT", ":0"}, {"SET a 1", "EXPIRE a 10 XX LT", ":0"},
      {"SET a 1", "EXPIRE a 10 NX NX", ":1"},    {"SET a 1 EX 50", "EXPIRE a -1 LT", ":1"},
      {"SET a 1 EX 50", "EXPIRE a -1 GT", ":0"}, {"SET a 1 EX 50", "EXPIRE a 51 XX GT", ":1"},
  };
  for (const Case& c : kCases) {
    Run(c.prepare);
    EXPECT_EQ(Run(c.line), c.reply) << c.prepare << ", " << c.line;
    EXPECT_EQ(effects().empty(), std::string_view(c.reply) == ":0") << c.prepare << ", " << c.line;
  }
}

TEST_F(ExpireCommandsTest, OptionsAreReadBeforeTheTimeAndTheTimeBeforeTheKey) {
  const std::pair<const char*, const char*> kCases[] = {
      {"EXPIRE a x FOO", "-ERR Unsupported option FOO"},
      {"EXPIRE a 9223372036854775807 NX FOO", "-ERR Unsupported option FOO"},
      {"EXPIRE a x NX XX", "-ERR NX and XX, GT or LT options at the same time are not compatible"},
      {"EXPIRE a 10 NX GT", "-ERR NX and XX, GT or LT options at the same time are not compatible"},
      {"EXPIRE a 10 LT NX", "-ERR NX and XX, GT or LT options at the same time are not compatible"},
      {"EXPIRE a 10 GT LT", "-ERR GT and LT options at the same time are not compatible"},
      {"EXPIRE nosuch x", "-ERR value is not an integer or out of range"},
      {"EXPIRE a 1.5", "-ERR value is not an integer or out of range"},
      {"EXPIRE a", "-ERR wrong number of arguments for 'expire' command"},
  };
  Run("SET a 1");
  for (const auto& [line, reply] : kCases) EXPECT_EQ(Run(line), reply) << line;
}

TEST_F(ExpireCommandsTest, TtlRoundsToTheNearestSecond) {
  Run("SET a 1 PX 1499");
  EXPECT_EQ(Run("TTL a"), ":1");
  EXPECT_EQ(Run("PTTL a"), ":1499");
  EXPECT_EQ(Run("EXPIRETIME a"), ":1700000001");
  EXPECT_EQ(Run("PEXPIRETIME a"), ":1700000001499");
  Run("PEXPIRE a 1500");
  EXPECT_EQ(Run("TTL a"), ":2");
  EXPECT_EQ(Run("EXPIRETIME a"), ":1700000002");
}

TEST_F(ExpireCommandsTest, NoKeyIsMinusTwoAndNoDeadlineMinusOne) {
  Run("SET a 1");
  for (const char* name : {"TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"}) {
    EXPECT_EQ(Run(std::string(name) + " a"), ":-1") << name;
    EXPECT_EQ(Run(std::string(name) + " nosuch"), ":-2") << name;
  }
}

TEST_F(ExpireCommandsTest, AKeyLivesToTheEndOfTheMillisecondOfItsDeadline) {
  Run("SET a 1 PX 10");
  runner_.now_ms += 10;
  EXPECT_EQ(Run("PTTL a"), ":0");
  runner_.now_ms += 1;
  EXPECT_EQ(Run("PTTL a"), ":-2");
  EXPECT_EQ(effects(), "DEL a");
}

TEST_F(ExpireCommandsTest, PersistTakesTheDeadlineAway) {
  Run("SET a 1 EX 10");
  EXPECT_EQ(Run("PERSIST a"), ":1");
  EXPECT_EQ(effects(), "PERSIST a");
  EXPECT_EQ(Run("TTL a"), ":-1");
  EXPECT_EQ(Run("PERSIST a"), ":0");
  EXPECT_EQ(effects(), "");
  EXPECT_EQ(Run("PERSIST nosuch"), ":0");
}

TEST_F(ExpireCommandsTest, WhatIsLoggedRepeatsWhatWasDone) {
  const ReplaySample kSamples[] = {
      {{"SET a 1"}, "EXPIRE a 10"},
      {{"SET a 1"}, "EXPIRE a -10"},
      {{"SET a 1 EX 5"}, "PEXPIRE a 10 LT"},
      {{"SET a 1"}, "EXPIREAT a 1800000000"},
      {{"SET a 1"}, "PEXPIREAT a 1800000000000"},
      {{"SET a 1 EX 5"}, "PERSIST a"},
  };
  ExpectReplayEqualsLife(ExpireCommands(), kSamples);
}

// What was logged between a deadline and its passing must find the key, however late the replay.
TEST_F(ExpireCommandsTest, ReplayRefusesNoDeadlineThatHasPassed) {
  CommandRunner life;
  life.now_ms = 1000;  // 1970: long past for any replay
  life.Run("SET a 1");
  life.Run("PEXPIRE a 10");
  life.Run("APPEND a 2");
  CommandRunner replay;
  replay.Replay(life);
  EXPECT_EQ(replay.Contents(), life.Contents());
  EXPECT_EQ(replay.Contents().at("0/a"), "string 1010 12");
}

}  // namespace
}  // namespace crab

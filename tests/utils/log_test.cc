#include "utils/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace crab {
namespace {

// The log of this process goes to a file of the test's own and back to standard output.
class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = testing::TempDir() + "crab_log_test." + std::to_string(getpid());
    unlink(path_.c_str());
    ASSERT_TRUE(SetLogFile(path_).ok());
  }
  void TearDown() override {
    EXPECT_TRUE(SetLogFile("").ok());
    SetLogLevel(LogLevel::kNotice);
    unlink(path_.c_str());
  }
  // The lines so far without their 24 bytes of date and time.
  std::vector<std::string> Lines() const {
    std::vector<std::string> lines;
    std::ifstream file(path_);
    for (std::string line; std::getline(file, line);) {
      lines.push_back(line.size() > 24 ? line.substr(24) : line);
    }
    return lines;
  }

  std::string path_;
};

TEST_F(LogTest, WritesAPhraseAndItsFields) {
  LogInfo("recovered", {{"records", 12},
                        {"ms", uint64_t{3}},
                        {"rate", 0.5},
                        {"clean", true},
                        {"file", "wal-1.log"}});
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], "info  recovered records=12 ms=3 rate=0.5 clean=yes file=wal-1.log");
}

TEST_F(LogTest, KeepsALineALine) {
  LogWarn("odd\nphrase",
          {{"a", ""}, {"b", "x y"}, {"c", "q\"\\\n\x01"}, {"d", std::string("{}%")}});
  const std::vector<std::string> lines = Lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0], "warn  odd phrase a=\"\" b=\"x y\" c=\"q\\\"\\\\\\x0a\\x01\" d={}%");
}

TEST_F(LogTest, ShowsALevelAndAllAboveIt) {
  const struct {
    LogLevel level;
    size_t lines;
  } rows[] = {{LogLevel::kDebug, 5},
              {LogLevel::kVerbose, 4},
              {LogLevel::kNotice, 3},
              {LogLevel::kWarning, 2},
              {LogLevel::kNothing, 0}};
  size_t expected = 0;
  for (const auto& row : rows) {
    SetLogLevel(row.level);
    EXPECT_EQ(GetLogLevel(), row.level);
    LogDebug("d");
    LogVerbose("v");
    LogInfo("i");
    LogWarn("w");
    LogError("e");
    expected += row.lines;
    EXPECT_EQ(Lines().size(), expected);
  }
}

TEST_F(LogTest, KnowsTheNamesOfItsLevels) {
  LogLevel level = LogLevel::kNotice;
  for (const LogLevel each : {LogLevel::kDebug, LogLevel::kVerbose, LogLevel::kNotice,
                              LogLevel::kWarning, LogLevel::kNothing}) {
    EXPECT_TRUE(ParseLogLevel(LogLevelName(each), &level));
    EXPECT_EQ(level, each);
  }
  EXPECT_TRUE(ParseLogLevel("WARNING", &level));
  EXPECT_FALSE(ParseLogLevel("", &level));
  EXPECT_FALSE(ParseLogLevel("warn", &level));
}

TEST_F(LogTest, GoesOnWhereItWentWhenAFileCannotBeOpened) {
  const Status status = SetLogFile("/dev/null/no/such.log");
  EXPECT_FALSE(status.ok());
  EXPECT_NE(status.message().find("/dev/null/no/such.log"), std::string_view::npos);
  LogInfo("still here");
  EXPECT_EQ(Lines().size(), 1u);
}

TEST_F(LogTest, TakesLinesOfManyThreadsWhileItsFileIsExchanged) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 200; ++i) LogInfo("line", {{"number", i}});
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(SetLogFile(path_).ok());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Lines().size(), 800u);
}

}  // namespace
}  // namespace crab

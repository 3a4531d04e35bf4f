// crabcache-wal dump --resp, and which records a dump begins with.
#include <gtest/gtest.h>

#include "src/wal_tool/text.h"
#include "tests/persistence/log_story.h"

namespace crab::test {
namespace {

using Words = std::vector<std::string>;

// Whole requests of RESP; anything else fails the test.
std::vector<Words> ParseRequests(std::string_view bytes) {
  std::vector<Words> requests;
  const auto number = [&](char mark) {
    const size_t end = bytes.find("\r\n");
    if (bytes.empty() || bytes[0] != mark || end == std::string_view::npos) {
      ADD_FAILURE() << "expected " << mark << " at " << bytes.substr(0, 20);
      bytes = {};
      return 0ul;
    }
    const auto value = std::stoul(std::string(bytes.substr(1, end - 1)));
    bytes.remove_prefix(end + 2);
    return value;
  };
  while (!bytes.empty()) {
    Words words(number('*'));
    for (std::string& word : words) {
      const size_t size = number('$');
      word = bytes.substr(0, size);
      EXPECT_EQ(bytes.substr(size, 2), "\r\n");
      bytes.remove_prefix(size + 2);
    }
    requests.push_back(std::move(words));
  }
  return requests;
}

// As a server would run them on a new connection.
Data RunRequests(const std::vector<Words>& requests) {
  Data data;
  uint32_t db = 0;
  bool in_multi = false;
  for (const Words& words : requests) {
    if (words[0] == "SELECT") {
      db = static_cast<uint32_t>(std::stoul(words[1]));
    } else if (words[0] == "MULTI" || words[0] == "EXEC") {
      EXPECT_EQ(in_multi, words[0] == "EXEC");
      in_multi = !in_multi;
    } else {
      RunWords(db, std::vector<std::string_view>(words.begin(), words.end()), &data);
    }
  }
  EXPECT_FALSE(in_multi);
  return data;
}

class WalToolDumpTest : public testing::Test {
 protected:
  WalToolDumpTest() { TellAStory(story_); }
  SimDisk disk_;
  LogStory story_{disk_};
};

TEST_F(WalToolDumpTest, GivesCommandsThatMakeTheSameData) {
  const ToolAnswer all = RunTool(disk_, {"dump", "wal", "--resp"});
  EXPECT_EQ(all.status, 0) << all.errors;
  EXPECT_EQ(RunRequests(ParseRequests(all.out)), story_.now());
  // From the first record, without the checkpoint.
  const ToolAnswer records = RunTool(disk_, {"dump", "wal", "--resp", "--from", "1"});
  EXPECT_EQ(RunRequests(ParseRequests(records.out)), story_.now());
  EXPECT_NE(records.out, all.out);
}

TEST_F(WalToolDumpTest, GivesTheDataOfEveryPoint) {
  for (const auto& [lsn, data] : story_.after()) {
    const ToolAnswer answer =
        RunTool(disk_, {"dump", "wal", "--resp", "--to", std::to_string(lsn)});
    EXPECT_EQ(answer.status, 0) << answer.errors;
    EXPECT_EQ(RunRequests(ParseRequests(answer.out)), data) << lsn;
  }
}

TEST_F(WalToolDumpTest, BeginsWithTheCheckpoint) {
  const std::string checkpoint = std::to_string(story_.checkpoints()[0]);
  const ToolAnswer text = RunTool(disk_, {"dump", "wal"});
  EXPECT_TRUE(text.out.starts_with(checkpoint + " checkpoint ")) << text.out.substr(0, 80);
  const ToolAnswer json = RunTool(disk_, {"dump", "wal", "--json"});
  EXPECT_TRUE(
      json.out.starts_with("{\"lsn\":" + checkpoint + ",\"type\":\"checkpoint\",\"shard\":"))
      << json.out.substr(0, 80);
  const ToolAnswer before =
      RunTool(disk_, {"dump", "wal", "--to", std::to_string(story_.checkpoints()[0] - 1)});
  EXPECT_TRUE(before.out.starts_with("1 ")) << before.out.substr(0, 80);
}

TEST(WalToolDumpRespTest, WrapsWhatWasAtomicAndNothingElse) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.SetBoth(3, "a", "b", "x");
  story.Set(3, "large", std::string(3 << 20, 'y'));
  story.FlushDb(0);
  story.Stop();
  std::string names;
  const auto requests = ParseRequests(RunTool(disk, {"dump", "wal", "--resp"}).out);
  for (const Words& words : requests) names += words[0] + " ";
  EXPECT_EQ(names, "MULTI SELECT SET SET EXEC SET APPEND APPEND SELECT FLUSHDB ");
  EXPECT_EQ(RunRequests(requests), story.now());
}

TEST(WalToolDumpTimeTest, TakesRecordsOfATime) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(5, 1);
  story.Stop();
  const std::string now = std::to_string(RealClock().WallMs() + 1000);
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--from-time", now}).out, "");
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--to-time", "2020-01-01T00:00:00Z"}).out, "");
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--from-time", "2020-01-01", "--to-time", now}).out,
            RunTool(disk, {"dump", "wal"}).out);
}

TEST(WalToolTextTest, ReadsTimes) {
  for (const auto& [text, ms] : std::vector<std::pair<const char*, int64_t>>{
           {"1795377564", 1795377564000},
           {"1795377564398", 1795377564398},
           {"1970-01-01", 0},
           {"1970-01-02T00:00", 86400000},
           {"2026-11-22T21:13:40Z", 1795382020000},
           {"2026-11-22T21:13:40.25Z", 1795382020250},
           {"2026-11-22 21:13:40.2509", 1795382020250},
           {"2024-02-29", 1709164800000},
       }) {
    EXPECT_EQ(wal::ParseTime(text), ms) << text;
  }
  for (const char* text : {"", "now", "2026", "2026-13-01", "2026-02-30", "2026-11-22T", "-1",
                           "2026-11-22T24:00", "2026-11-22T21:13:40.Z", "2026-11-22T21:13+01"}) {
    EXPECT_EQ(wal::ParseTime(text), std::nullopt) << text;
  }
  EXPECT_EQ(wal::FormatTime(1795382020250), "2026-11-22T21:13:40.250Z");
  EXPECT_EQ(wal::ParseTime(wal::FormatTime(1709164800001)), 1709164800001);
}

}  // namespace
}  // namespace crab::test

// crabcache-wal restore: a directory from which a server starts with the data of one point in time.
#include <gtest/gtest.h>

#include "tests/persistence/log_story.h"
#include "tests/persistence/retiring_disk.h"

namespace crab::test {
namespace {

class WalToolRestoreTest : public testing::Test {
 protected:
  WalToolRestoreTest() { TellAStory(story_); }

  // Every file of the source, to see that nothing touches it.
  std::map<std::string, std::string> Files() const {
    std::map<std::string, std::string> files;
    for (const std::string& path : disk_.Paths()) {
      if (path.starts_with("wal/")) files[path] = disk_.Contents(path);
    }
    return files;
  }

  SimDisk disk_;
  LogStory story_{disk_};
};

TEST_F(WalToolRestoreTest, GivesTheDataOfEveryPoint) {
  const auto before = Files();
  for (const auto& [lsn, data] : story_.after()) {
    if (lsn == 0) continue;
    SCOPED_TRACE("until LSN " + std::to_string(lsn));
    const std::string to = "at-" + std::to_string(lsn);
    const ToolAnswer answer =
        RunTool(disk_, {"restore", "wal", "--until-lsn", std::to_string(lsn), "--to", to});
    ASSERT_EQ(answer.status, 0) << answer.errors;
    EXPECT_NE(answer.out.find("restored up to LSN " + std::to_string(lsn)), std::string::npos)
        << answer.out;
    EXPECT_EQ(RunTool(disk_, {"verify", to}).status, 0);
    const FoundData found = StartFrom(disk_, story_.options(), to);
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.data, data);
    EXPECT_GE(found.last_lsn, lsn);
    // And it goes on from there.
    EXPECT_EQ(RunTool(disk_, {"verify", to}).status, 0);
  }
  EXPECT_EQ(Files(), before);
}

TEST_F(WalToolRestoreTest, TakesEverythingWithoutAPoint) {
  const ToolAnswer answer = RunTool(disk_, {"restore", "wal", "--to", "all", "--json"});
  ASSERT_EQ(answer.status, 0) << answer.errors;
  EXPECT_NE(answer.out.find("\"checkpoint_lsn\":" + std::to_string(story_.checkpoints()[0]) + ","),
            std::string::npos)
      << answer.out;
  EXPECT_EQ(StartFrom(disk_, story_.options(), "all").data, story_.now());
}

TEST_F(WalToolRestoreTest, GivesTheRestoredLogAHistoryOfItsOwn) {
  ASSERT_EQ(RunTool(disk_, {"restore", "wal", "--until-lsn", "30", "--to", "new"}).status, 0);
  wal::Identity before, after;
  for (const auto& [directory, identity] : {std::pair{"wal", &before}, {"new", &after}}) {
    wal::Options options = story_.options();
    options.directory = directory;
    const Boot boot = BootLog(disk_, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    *identity = boot.identity;
  }
  EXPECT_EQ(after.log_id, before.log_id);
  EXPECT_EQ(after.hash_seed, before.hash_seed);
  EXPECT_NE(std::string(after.replication_id, 40), std::string(before.replication_id, 40));
}

TEST_F(WalToolRestoreTest, FindsTheRecordsOfATime) {
  // Of each record, when it was written.
  const ToolAnswer dump = RunTool(disk_, {"dump", "wal", "--json", "--from", "1"});
  std::map<int64_t, wal::Lsn> last_at;
  std::istringstream lines(dump.out);
  for (std::string line; std::getline(lines, line);) {
    const wal::Lsn lsn = std::stoull(line.substr(line.find(':') + 1));
    const size_t time = line.find("\"time_ms\":");
    ASSERT_NE(time, std::string::npos) << line;
    last_at[std::stoll(line.substr(time + 10))] = lsn;
  }
  int number = 0;
  for (const auto& [ms, lsn] : last_at) {
    const std::string to = "time-" + std::to_string(++number);
    const ToolAnswer answer =
        RunTool(disk_, {"restore", "wal", "--until-time", std::to_string(ms), "--to", to});
    ASSERT_EQ(answer.status, 0) << answer.errors;
    EXPECT_EQ(StartFrom(disk_, story_.options(), to).data, story_.At(lsn)) << ms;
  }
}

TEST_F(WalToolRestoreTest, RefusesWhatItCannotDo) {
  disk_.PutFile("wal-2/something", "here");
  struct Case {
    std::vector<std::string_view> arguments;
    const char* why;
  };
  for (const Case& c : std::vector<Case>{
           {{"restore", "wal"}, "--to"},
           {{"restore", "wal", "--until-lsn", "100000", "--to", "x"}, "the log ends with LSN"},
           {{"restore", "wal", "--until-time", "yesterday", "--to", "x"}, "--until-time"},
           {{"restore", "wal", "--until-lsn", "1", "--until-time", "2026-01-01", "--to", "x"},
            "not both"},
           {{"restore", "nowhere", "--to", "x"}, "nowhere"},
       }) {
    const ToolAnswer answer = RunTool(disk_, c.arguments);
    EXPECT_EQ(answer.status, 2);
    EXPECT_NE(answer.errors.find(c.why), std::string::npos) << answer.errors;
  }
  ASSERT_TRUE(disk_.CreateDirectories("full").ok());
  disk_.PutFile("full/something", "here");
  const ToolAnswer full = RunTool(disk_, {"restore", "wal", "--to", "full"});
  EXPECT_EQ(full.status, 2);
  EXPECT_NE(full.errors.find("not empty"), std::string::npos) << full.errors;
}

TEST_F(WalToolRestoreTest, EndsBeforeDamageAndSaysWhere) {
  const std::string path = SegmentPaths(disk_).back();
  disk_.FlipBit(path, (wal::kSegmentHeaderBytes + 300) * 8);
  const ToolAnswer all = RunTool(disk_, {"restore", "wal", "--to", "all"});
  ASSERT_EQ(all.status, 2) << all.out;
  const size_t at = all.errors.find("--until-lsn ");
  ASSERT_NE(at, std::string::npos) << all.errors;
  const std::string lsn = std::to_string(std::stoull(all.errors.substr(at + 12)));
  ASSERT_EQ(RunTool(disk_, {"restore", "wal", "--until-lsn", lsn, "--to", "some"}).status, 0);
  EXPECT_EQ(StartFrom(disk_, story_.options(), "some").data, story_.At(std::stoull(lsn)));
}

TEST_F(WalToolRestoreTest, LeavesNothingBehindAfterAFailure) {
  for (uint64_t nth = 1; nth < 12; ++nth) {
    disk_.AddFault({.calls = kWrite | kSync, .nth = nth, .error = ENOSPC});
    const std::string to = "try-" + std::to_string(nth);
    const ToolAnswer answer = RunTool(disk_, {"restore", "wal", "--to", to});
    disk_.ClearFaults();
    if (answer.status == 0) break;
    EXPECT_NE(answer.errors.find("No space left"), std::string::npos) << answer.errors;
    const auto left = disk_.List(to);
    ASSERT_TRUE(left.ok());
    EXPECT_TRUE((*left).empty());
  }
}

// The oldest segments are gone, so the oldest point is the checkpoint's.
TEST(WalToolRestoreOldTest, KnowsHowFarBackItReaches) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  disk.RemoveFile(SegmentPaths(disk).front());
  const wal::Lsn checkpoint = story.checkpoints()[0];
  for (const auto& [lsn, data] : story.after()) {
    const std::string to = "at-" + std::to_string(lsn);
    const ToolAnswer answer =
        RunTool(disk, {"restore", "wal", "--until-lsn", std::to_string(lsn), "--to", to});
    EXPECT_EQ(answer.status, lsn < checkpoint ? 2 : 0) << lsn << answer.errors;
    if (answer.status == 0) {
      EXPECT_EQ(StartFrom(disk, story.options(), to).data, data);
    } else {
      EXPECT_NE(answer.errors.find("the oldest point is LSN " + std::to_string(checkpoint)),
                std::string::npos)
          << answer.errors;
    }
  }
}

TEST(WalToolRestoreRaceTest, BeginsAnewWhenSegmentsAreRetiredUnderIt) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("before read " + std::to_string(nth));
    RetiringDisk disk;
    const Data before = disk.story().now();
    disk.RetireAt(nth);
    const ToolAnswer answer = RunTool(disk, {"restore", "wal", "--to", "all"});
    const bool retired = disk.retired();
    disk.RetireAt(0);
    ASSERT_EQ(answer.status, 0) << answer.errors;
    const FoundData found = StartFrom(disk, disk.story().options(), "all");
    ASSERT_EQ(found.error, "");
    // As it was at the beginning, or at the end.
    EXPECT_TRUE(found.data == before || found.data == disk.story().now());
    if (!retired || HasFailure()) break;
  }
}

TEST(WalToolRestorePackedTest, CutsWithinACompressedBatch) {
  SimDisk disk;
  wal::Options options = LogOptions(wal::SyncPolicy::kSync);
  options.compression = wal::Compression::kLz4;
  LogStory story(disk, options);
  TellAStory(story);
  for (const auto& [lsn, data] : story.after()) {
    if (lsn == 0) continue;
    const std::string to = "at-" + std::to_string(lsn);
    const ToolAnswer answer =
        RunTool(disk, {"restore", "wal", "--until-lsn", std::to_string(lsn), "--to", to});
    ASSERT_EQ(answer.status, 0) << answer.errors;
    const FoundData found = StartFrom(disk, options, to);
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.data, data) << lsn;
  }
}

}  // namespace
}  // namespace crab::test

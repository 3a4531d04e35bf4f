#include "persistence/backup.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <thread>

#include "tests/persistence/log_story.h"

namespace crab::test {
namespace {

class BackupTest : public testing::Test {
 protected:
  void Expect(const std::string& directory, wal::Lsn lsn, const Data& data) {
    EXPECT_EQ(RunTool(disk_, {"verify", directory}).status, 0);
    const FoundData found = StartFrom(disk_, story_.options(), directory);
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.last_lsn, lsn);
    EXPECT_EQ(found.data, data);
  }

  SimDisk disk_;
  LogStory story_{disk_};
};

TEST_F(BackupTest, LinksWhatIsWholeAndCopiesWhatGrows) {
  TellAStory(story_);
  story_.Boot();
  const wal::Lsn last = story_.Set(0, "last", "one");
  // One more frame states that the record is durable.
  story_.Rotate();
  auto report = wal::BackUp(disk_, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_EQ(report->lsn, last);
  EXPECT_EQ(report->checkpoints, 1u);
  EXPECT_EQ(report->segments, SegmentPaths(disk_).size() / 2);
  EXPECT_EQ(report->copied_files, 1u);
  EXPECT_LE(report->copied_bytes, 8192u);
  EXPECT_EQ(report->tries, 1u);
  const Data then = story_.now();
  // What happens afterwards is not in it.
  story_.Change(10, 11);
  story_.Stop();
  Expect("backup", last, then);
}

TEST_F(BackupTest, TakesWhatIsDurableAndNoMore) {
  story_.Boot();
  story_.Change(20, 1);
  auto report = wal::BackUp(disk_, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_LE(report->lsn, story_.log().last_lsn());
  EXPECT_GE(report->lsn + 1, story_.log().last_lsn());  // the last statement is a batch behind
  Expect("backup", report->lsn, story_.At(report->lsn));
  story_.Stop();
}

TEST_F(BackupTest, CopiesAcrossFileSystems) {
  TellAStory(story_);
  disk_.AddFault({.calls = kLink, .nth = 1, .error = EXDEV, .for_ever = true});
  auto report = wal::BackUp(disk_, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_EQ(report->linked_files, 0u);
  EXPECT_EQ(report->copied_files, report->segments + report->checkpoints);
  disk_.ClearFaults();
  const wal::Lsn last = story_.after().rbegin()->first;
  EXPECT_GE(report->lsn, last);
  const FoundData found = StartFrom(disk_, story_.options(), "backup");
  EXPECT_EQ(found.error, "");
  EXPECT_EQ(found.data, story_.now());
}

TEST_F(BackupTest, WantsANewDirectory) {
  TellAStory(story_);
  ASSERT_TRUE(disk_.CreateDirectories("full").ok());
  disk_.PutFile("full/dump.rdb", "something else");
  EXPECT_EQ(wal::BackUp(disk_, "wal", "full").system_errno(), ENOTEMPTY);
  EXPECT_EQ(disk_.Contents("full/dump.rdb"), "something else");
  EXPECT_EQ(wal::BackUp(disk_, "nowhere", "new").system_errno(), ENOENT);
  ASSERT_TRUE(disk_.CreateDirectories("empty").ok());
  EXPECT_EQ(wal::BackUp(disk_, "empty", "new").system_errno(), ENOENT);
}

TEST_F(BackupTest, TellsOfDamageWhereverItFindsIt) {
  TellAStory(story_);
  EXPECT_EQ(RunTool(disk_, {"backup", "wal", "good"}).status, 0);
  const std::string checkpoint = "wal/" + wal::CheckpointName(story_.checkpoints()[0]);
  for (const std::string& path : {checkpoint, SegmentPaths(disk_).back()}) {
    const auto disk = disk_.PowerCut();
    disk->FlipBit(path, 100 * 8);  // of its header
    const ToolAnswer answer = RunTool(*disk, {"backup", "wal", "damaged"});
    EXPECT_EQ(answer.status, 1) << path << answer.errors;
    EXPECT_NE(answer.out.find("some of it is damaged"), std::string::npos) << answer.out;
  }
}

TEST_F(BackupTest, LeavesNothingBehindWhateverFails) {
  TellAStory(story_);
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    const std::string target = "backup-" + std::to_string(nth);
    const uint64_t failed = disk_.failed_calls();
    disk_.AddFault(
        {.calls = kLink | kCreate | kWrite | kSync | kSyncDirectory, .nth = nth, .error = EIO});
    const auto report = wal::BackUp(disk_, "wal", target);
    disk_.ClearFaults();
    if (disk_.failed_calls() == failed) {
      EXPECT_TRUE(report.ok());
      break;
    }
    EXPECT_FALSE(report.ok());
    const auto left = disk_.List(target);
    EXPECT_TRUE(!left.ok() || (*left).empty());
  }
}

// Until the checkpoint that goes with a gap is there, a backup holds what was before the gap: also
// where the segments behind it have been sealed meanwhile.
TEST_F(BackupTest, EndsBeforeAGapWithoutItsCheckpoint) {
  TellAStory(story_);
  const wal::Lsn before = story_.after().rbegin()->first;
  wal::Options options = story_.options();
  options.after_gap = true;
  wal::RecoveryReport report;
  auto log = wal::Log::Open(
      disk_, options, [](const wal::Identity&) {},
      [](const wal::RecordView&) { return Status::Ok(); }, &report);
  ASSERT_TRUE(log.ok()) << log.message();
  for (int segment = 0; segment < 3; ++segment) {
    SCOPED_TRACE(segment);
    Effects effects;
    effects.Set(0, 0, "behind", std::to_string(segment), kNoDeadline);
    const wal::Lsn last = (*log)->Append(wal::RecordType::kEffect, 0, effects.bytes());
    (*log)->Kick();
    for (int i = 0; i < 5000 && (*log)->metrics().synced_lsn < last; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    const std::string target = "backup-" + std::to_string(segment);
    auto backup = wal::BackUp(disk_, "wal", target);
    ASSERT_TRUE(backup.ok()) << backup.message();
    EXPECT_EQ(backup->lsn, before);
    const FoundData found = StartFrom(disk_, story_.options(), target);
    EXPECT_EQ(found.error, "");
    EXPECT_EQ(found.data, story_.now());
    const uint64_t number = (*log)->metrics().segment_number;
    (*log)->RequestRotate();
    (*log)->Kick();
    for (int i = 0; i < 5000 && (*log)->metrics().segment_number == number; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

// Files of another log in the directory: they are left out, and what they say counts for nothing.
TEST_F(BackupTest, LeavesFilesOfAnotherLogOut) {
  SimDisk other_disk;
  LogStory other(other_disk);
  other.Boot();
  other.Change(100, 7);
  other.Checkpoint();
  other.Stop();
  TellAStory(story_);
  story_.Boot();
  PutForeignSegment(disk_, other_disk, 90);
  const std::string checkpoint = wal::CheckpointName(other.checkpoints().front());
  disk_.PutFile("wal/" + checkpoint, other_disk.Contents("wal/" + checkpoint));
  // The server goes on, and what grows is still copied, not linked.
  const wal::Lsn last = story_.Set(0, "last", "one");
  auto report = wal::BackUp(disk_, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_EQ(report->foreign, 2u);
  EXPECT_EQ(report->checkpoints, 1u);
  EXPECT_EQ(report->copied_files, 1u);
  EXPECT_LE(report->lsn, last);
  EXPECT_GE(report->lsn + 1, last);
  story_.Change(10, 11);
  story_.Stop();
  for (const std::string& path : disk_.Paths()) {
    if (!path.starts_with("backup/")) continue;
    EXPECT_EQ(path.find(wal::SegmentName(90)), std::string::npos);
    EXPECT_EQ(path.find(checkpoint), std::string::npos);
  }
  Expect("backup", report->lsn, story_.At(report->lsn));
}

// Damage in the segment that grows: what stands behind it is durable too, and goes along.
TEST_F(BackupTest, TakesWhatIsBehindDamageInTheLastSegment) {
  TellAStory(story_);
  story_.Boot();
  const wal::Lsn bad = story_.Set(0, "bad", "place");
  story_.Change(20, 12);
  const std::string path = SegmentPaths(disk_).back();
  const size_t at = disk_.Contents(path).find("place");
  ASSERT_NE(at, std::string::npos);
  disk_.FlipBit(path, at * 8);
  auto report = wal::BackUp(disk_, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_TRUE(report->damaged);
  story_.Stop();
  const FoundData found = StartFrom(disk_, story_.options(), "backup", wal::RecoveryMode::kSalvage);
  EXPECT_EQ(found.error, "");
  ASSERT_EQ(found.report.lost.size(), 1u);
  EXPECT_EQ(found.report.lost[0].first, bad);
  EXPECT_EQ(found.report.lost[0].last, bad);
  EXPECT_GE(found.last_lsn + 1, story_.after().rbegin()->first);
}

// Compressed and encrypted records stand in PACKs, which a backup takes without the key.
TEST(BackupPackTest, TakesPacksAsFarAsTheyAreDurable) {
  const std::string path = testing::TempDir() + "backup_test.keys";
  FILE* const file = std::fopen(path.c_str(), "w");
  ASSERT_NE(file, nullptr);
  std::fprintf(file, "%064d\n", 7);
  std::fclose(file);
  ASSERT_EQ(chmod(path.c_str(), 0600), 0);
  auto keys = wal::KeyRing::Load(path);
  ASSERT_TRUE(keys.ok()) << keys.message();
  for (const bool encrypted : {false, true}) {
    SCOPED_TRACE(encrypted);
    SimDisk disk;
    wal::Options options = LogOptions(wal::SyncPolicy::kSync);
    options.compression = wal::Compression::kZstd;
    if (encrypted) options.keys = *keys;
    LogStory story(disk, options);
    TellAStory(story);
    story.Boot();
    story.Change(20, 9);
    auto report = wal::BackUp(disk, "wal", "backup");
    ASSERT_TRUE(report.ok()) << report.message();
    EXPECT_FALSE(report->damaged);
    const wal::Lsn last = story.after().rbegin()->first;
    EXPECT_GE(report->lsn + 1, last);
    story.Change(5, 10);
    story.Stop();
    const FoundData found = StartFrom(disk, options, "backup");
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.last_lsn, report->lsn);
    EXPECT_EQ(found.data, story.At(report->lsn));
  }
}

// A server that appends, rotates, writes checkpoints and retires segments, all at once; during one
// backup not so often that it has to give up.
TEST_F(BackupTest, IsConsistentWhateverTheServerDoesMeanwhile) {
  constexpr int kBackups = 30;
  // Every second one retires, a segment or two: fewer times than a backup begins anew (20).
  constexpr uint64_t kRoundsOfBackup = 10;
  story_.Boot();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rounds{0};
  std::atomic<uint64_t> rounds_max{0};
  std::thread server([&] {
    while (!stop) {
      const uint64_t round = rounds;
      if (round == rounds_max) {
        std::this_thread::yield();
        continue;
      }
      story_.Change(10, Mix(TestSeed(), round));
      story_.Rotate();
      if (round % 2 == 0) story_.Checkpoint(/*tell=*/true);
      if (testing::Test::HasFailure()) break;
      ++rounds;
    }
  });
  std::vector<wal::BackupReport> reports;
  for (int i = 0; i < kBackups; ++i) {
    rounds_max = rounds + kRoundsOfBackup;
    auto report = wal::BackUp(disk_, "wal", "backup-" + std::to_string(i));
    EXPECT_TRUE(report.ok()) << report.message();
    if (!report.ok()) break;
    reports.push_back(*report);
  }
  stop = true;
  server.join();
  story_.Stop();
  uint64_t tries = 0;
  for (size_t i = 0; i < reports.size(); ++i) {
    SCOPED_TRACE("seed " + std::to_string(TestSeed()) + " backup " + std::to_string(i));
    tries += reports[i].tries;
    Expect("backup-" + std::to_string(i), reports[i].lsn, story_.At(reports[i].lsn));
    EXPECT_GE(reports[i].lsn, i == 0 ? 0 : reports[i - 1].lsn);
  }
  RecordProperty("tries", static_cast<int>(tries));
}

// Does something in the middle of a backup.
class InterruptingDisk : public SimDisk {
 public:
  std::function<void()> before_link;  // of a segment
  std::function<void(const std::string& from, const std::string& to)> after_link;
  std::function<void()> before_copy;  // of the segment that grows, when it has been looked at

  Status Link(const std::string& from, const std::string& to) override {
    if (!IsSegment(from)) return SimDisk::Link(from, to);
    if (before_link) std::exchange(before_link, {})();
    Status linked = SimDisk::Link(from, to);
    if (after_link) std::exchange(after_link, {})(from, to);
    return linked;
  }
  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    // Twice for its header, twice for its frames, once for the copy.
    const bool backup = std::this_thread::get_id() == thread_ && path.starts_with("wal/");
    if (backup && before_copy && IsSegment(path) && ++opened_[path] == 5) {
      std::exchange(before_copy, {})();
    }
    return SimDisk::Open(path, mode);
  }

 private:
  static bool IsSegment(const std::string& path) {
    return wal::SegmentNumber(path.substr(path.rfind('/') + 1)).has_value();
  }
  const std::thread::id thread_ = std::this_thread::get_id();
  std::map<std::string, int> opened_;
};

// Two segments, the second one growing, and a checkpoint between them.
void TellAShortStory(LogStory& story) {
  story.Boot();
  story.Change(10, 1);
  story.Rotate();
  story.Checkpoint(/*tell=*/true);
  story.Change(10, 2);
  story.Rotate();
  story.Set(0, "a", "b");
}

// The segments there are go away.
void RetireAll(LogStory& story) {
  const uint64_t retired = story.log().metrics().segments_retired;
  story.Rotate();
  story.Checkpoint(/*tell=*/true);
  for (int i = 0; i < 5000 && story.log().metrics().segments_retired == retired; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

TEST(BackupRaceTest, BeginsAnewWhenSegmentsAreRetiredUnderIt) {
  for (const bool while_copying : {false, true}) {
    SCOPED_TRACE(while_copying);
    InterruptingDisk disk;
    LogStory story(disk);
    TellAShortStory(story);
    (while_copying ? disk.before_copy : disk.before_link) = [&] { RetireAll(story); };
    auto report = wal::BackUp(disk, "wal", "backup");
    ASSERT_TRUE(report.ok()) << report.message();
    EXPECT_EQ(report->tries, 2u);
    story.Stop();
    const FoundData found = StartFrom(disk, story.options(), "backup");
    EXPECT_EQ(found.error, "");
    EXPECT_EQ(found.data, story.now());
  }
}

// A server that has counted the links of a file fills it with zeroes, whatever becomes of it.
TEST(BackupRaceTest, LeavesAFileAloneWhoseNameIsGone) {
  InterruptingDisk disk;
  LogStory story(disk);
  TellAStory(story);
  disk.after_link = [&](const std::string& from, const std::string& to) {
    disk.PutFile(to, std::string(disk.Contents(from).size(), '\0'));
    disk.RemoveFile(from);
  };
  auto report = wal::BackUp(disk, "wal", "backup");
  ASSERT_TRUE(report.ok()) << report.message();
  EXPECT_EQ(report->tries, 2u);
  const FoundData found = StartFrom(disk, story.options(), "backup");
  EXPECT_EQ(found.error, "");
  EXPECT_EQ(found.data, story.now());
}

}  // namespace
}  // namespace crab::test

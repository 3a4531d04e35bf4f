// crabcache-wal on checkpoints, and on logs that are encrypted.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "persistence/record.h"
#include "tests/persistence/log_story.h"
#include "tests/persistence/retiring_disk.h"

namespace crab::test {
namespace {

TEST(WalToolCheckpointTest, ListShowsThem) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  const std::string lsn = std::to_string(story.checkpoints()[0]);
  const ToolAnswer table = RunTool(disk, {"list", "wal"});
  EXPECT_EQ(table.status, 0) << table.errors;
  EXPECT_NE(table.out.find("\ncheckpoint  "), std::string::npos) << table.out;
  EXPECT_NE(table.out.find("  good\n"), std::string::npos) << table.out;
  const ToolAnswer json = RunTool(disk, {"list", "wal", "--json"});
  EXPECT_NE(json.out.find("{\"checkpoint\":" + lsn + ","), std::string::npos) << json.out;
}

TEST(WalToolCheckpointTest, VerifyReadsEveryByteOfThem) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  const std::string path = "wal/" + wal::CheckpointName(story.checkpoints()[0]);
  const std::string whole = disk.Contents(path);
  for (uint64_t at = 0; at < whole.size(); at += at < wal::kSegmentHeaderBytes ? 61 : 1) {
    disk.FlipBit(path, at * 8 + at % 8);
    const ToolAnswer answer = RunTool(disk, {"verify", "wal"});
    ASSERT_EQ(answer.status, 1) << "byte " << at << answer.out;
    ASSERT_NE(answer.out.find("damaged checkpoint: "), std::string::npos);
    disk.PutFile(path, whole);
  }
  for (uint64_t size = 0; size < whole.size(); size += 97) {
    disk.Cut(path, size);
    ASSERT_EQ(RunTool(disk, {"verify", "wal"}).status, 1) << "cut to " << size;
    disk.PutFile(path, whole);
  }
  EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
}

TEST(WalToolCheckpointTest, WhatIsRetiredIsNotLost) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  disk.RemoveFile(SegmentPaths(disk).front());
  const ToolAnswer with = RunTool(disk, {"verify", "wal"});
  EXPECT_EQ(with.status, 0) << with.out;
  disk.RemoveFile("wal/" + wal::CheckpointName(story.checkpoints()[0]));
  const ToolAnswer without = RunTool(disk, {"verify", "wal"});
  EXPECT_EQ(without.status, 1) << without.out;
  EXPECT_NE(without.out.find("lost LSN 1.."), std::string::npos) << without.out;
}

// The newest one is damaged, so what was retired because of it is lost; and of each end before it a
// dump tells what it cannot have.
TEST(WalToolCheckpointTest, WhatOnlyANewerOneHasIsToldOf) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(20, 1);
  story.Checkpoint();
  story.Rotate();
  story.Change(20, 2);
  const wal::Lsn between = story.log().last_lsn();
  story.Rotate();
  story.Checkpoint();
  story.Change(20, 3);
  story.Stop();
  disk.RemoveFile(SegmentPaths(disk).at(1));
  EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
  EXPECT_EQ(RunTool(disk, {"dump", "wal"}).status, 0);
  const ToolAnswer older = RunTool(disk, {"dump", "wal", "--to", std::to_string(between - 1)});
  EXPECT_EQ(older.status, 2) << older.errors;
  EXPECT_NE(older.errors.find("are in a newer checkpoint alone"), std::string::npos)
      << older.errors;
  const ToolAnswer before =
      RunTool(disk, {"dump", "wal", "--to", std::to_string(story.checkpoints()[0])});
  EXPECT_EQ(before.status, 0) << before.errors;
  disk.FlipBit("wal/" + wal::CheckpointName(story.checkpoints()[1]),
               (wal::kCheckpointHeaderBytes + 40) * 8);
  const ToolAnswer verify = RunTool(disk, {"verify", "wal"});
  EXPECT_EQ(verify.status, 1);
  EXPECT_NE(verify.out.find("lost LSN " + std::to_string(story.checkpoints()[0] + 1) + ".." +
                            std::to_string(between)),
            std::string::npos)
      << verify.out;
  EXPECT_EQ(RunTool(disk, {"list", "wal"}).status, 0) << "it reads no chunk";
  disk.Cut("wal/" + wal::CheckpointName(story.checkpoints()[1]), 5000);
  EXPECT_EQ(RunTool(disk, {"list", "wal"}).status, 1);
}

// Somebody's hand has put it there.
TEST(WalToolCheckpointTest, OneOfAnotherLogCountsForNothing) {
  SimDisk other;
  LogStory strange(other);
  strange.Boot();
  strange.Change(30, 5);
  strange.Checkpoint();
  strange.Stop();
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(20, 1);
  story.Rotate();
  story.Change(60, 2);
  story.Stop();
  const std::string name = wal::CheckpointName(strange.checkpoints()[0]);
  disk.PutFile("wal/" + name, other.Contents("wal/" + name));
  for (const auto& verb : std::vector<std::vector<std::string_view>>{
           {"dump", "wal"}, {"verify", "wal"}, {"list", "wal"}, {"repair", "wal"}}) {
    const ToolAnswer answer = RunTool(disk, verb);
    EXPECT_EQ(answer.status, 0) << verb[0] << answer.errors;
    EXPECT_NE(answer.errors.find(name + " is of another log"), std::string::npos) << verb[0];
    EXPECT_EQ(answer.out.find("checkpoint "), std::string::npos) << answer.out;
  }
  ASSERT_EQ(RunTool(disk, {"restore", "wal", "--to", "with"}).status, 0);
  EXPECT_EQ(StartFrom(disk, story.options(), "with").data, story.now());
  disk.RemoveFile("wal/" + wal::SegmentName(1));
  const ToolAnswer verify = RunTool(disk, {"verify", "wal"});
  EXPECT_EQ(verify.status, 1);
  EXPECT_NE(verify.out.find("lost LSN 1.."), std::string::npos) << verify.out;
}

TEST(WalToolCheckpointTest, WhatIsRetiredMeanwhileIsNotLost) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("before read " + std::to_string(nth));
    RetiringDisk disk;
    disk.RetireAt(nth);
    const ToolAnswer answer = RunTool(disk, {"verify", "wal"});
    EXPECT_EQ(answer.status, 0) << answer.out << answer.errors;
    EXPECT_EQ(answer.out.find("lost "), std::string::npos) << answer.out;
    if (!disk.retired() || HasFailure()) break;
  }
}

// A dump is whole, or says that it is not.
TEST(WalToolCheckpointTest, DumpTellsWhatIsRetiredMeanwhile) {
  int failed = 0;
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("before read " + std::to_string(nth));
    RetiringDisk disk;
    const std::string whole = RunTool(disk, {"dump", "wal"}).out;
    disk.RetireAt(nth);
    const ToolAnswer answer = RunTool(disk, {"dump", "wal"});
    if (answer.status == 2) {
      EXPECT_NE(answer.errors.find("meanwhile; dump again"), std::string::npos) << answer.errors;
      ++failed;
    } else {
      EXPECT_EQ(answer.status, 0) << answer.errors;
      // Or more than was there at the beginning.
      EXPECT_TRUE(answer.out.starts_with(whole) || answer.out.find("behind") != std::string::npos)
          << answer.out;
    }
    if (!disk.retired() || HasFailure()) break;
  }
  EXPECT_GT(failed, 0);
}

// The beginning is gone and so is every checkpoint: an empty one takes their place.
TEST(WalToolCheckpointTest, RepairPutsAnEmptyOneBeforeALogWithoutABeginning) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  disk.RemoveFile(SegmentPaths(disk).front());
  disk.RemoveFile("wal/" + wal::CheckpointName(story.checkpoints()[0]));
  ASSERT_NE(StartFrom(*disk.PowerCut(), story.options(), "wal").error, "");
  const ToolAnswer repair = RunTool(disk, {"repair", "wal"});
  EXPECT_EQ(repair.status, 0) << repair.errors;
  EXPECT_NE(repair.out.find("nothing is left of the data before"), std::string::npos) << repair.out;
  EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
  EXPECT_EQ(StartFrom(disk, story.options(), "wal").error, "");
}

// What was appended behind a gap counts only with the checkpoint at its beginning.
class WalToolGapTest : public testing::Test {
 protected:
  WalToolGapTest() {
    wal::Options options = LogOptions(wal::SyncPolicy::kSync);
    options.keep_segments = 100;
    story_ = std::make_unique<LogStory>(disk_, options);
    story_->Boot();
    story_->Change(15, 1);
    story_->Stop();
    before_ = story_->after().rbegin()->first;
    story_->BootBehindGap("unlogged");
    story_->Change(15, 2);
    story_->Stop();
  }

  SimDisk disk_;
  std::unique_ptr<LogStory> story_;
  wal::Lsn before_ = 0;  // the last record before the gap
};

TEST_F(WalToolGapTest, IsNoDamageAndRestoresOnBothSides) {
  EXPECT_EQ(RunTool(disk_, {"verify", "wal"}).status, 0);
  EXPECT_EQ(RunTool(disk_, {"repair", "wal"}).out, "nothing is to be repaired\n");
  for (const auto& [lsn, data] : story_->after()) {
    if (lsn == 0) continue;
    const std::string to = "at-" + std::to_string(lsn);
    const ToolAnswer answer =
        RunTool(disk_, {"restore", "wal", "--until-lsn", std::to_string(lsn), "--to", to});
    ASSERT_EQ(answer.status, 0) << lsn << answer.errors;
    const FoundData found = StartFrom(disk_, story_->options(), to);
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.data, data) << lsn;
  }
}

TEST_F(WalToolGapTest, RepairKeepsWhatItCanOfTheGapsCheckpoint) {
  const std::string path = "wal/" + wal::CheckpointName(story_->checkpoints()[0]);
  disk_.FlipBit(path, (wal::kSegmentHeaderBytes + 40) * 8);
  ASSERT_EQ(RunTool(disk_, {"verify", "wal"}).status, 1);
  const ToolAnswer repair = RunTool(disk_, {"repair", "wal"});
  ASSERT_EQ(repair.status, 0) << repair.out << repair.errors;
  EXPECT_EQ(RunTool(disk_, {"verify", "wal"}).status, 0) << repair.out;
  const FoundData found = StartFrom(disk_, story_->options(), "wal");
  ASSERT_EQ(found.error, "");
  EXPECT_GE(found.last_lsn, story_->after().rbegin()->first);
}

TEST_F(WalToolGapTest, EndsBeforeTheGapWithoutItsCheckpoint) {
  disk_.RemoveFile("wal/" + wal::CheckpointName(story_->checkpoints()[0]));
  EXPECT_EQ(RunTool(disk_, {"verify", "wal"}).status, 0);
  ASSERT_EQ(RunTool(disk_, {"restore", "wal", "--to", "end"}).status, 0);
  EXPECT_EQ(StartFrom(disk_, story_->options(), "end").data, story_->At(before_));
  const std::string behind = std::to_string(story_->after().rbegin()->first);
  EXPECT_EQ(RunTool(disk_, {"restore", "wal", "--until-lsn", behind, "--to", "x"}).status, 2);
}

// A dump to a moment before a gap begins with an older checkpoint, and is none behind the gap.
TEST(WalToolOldGapTest, DumpsBeforeTheGapAndRefusesBehindIt) {
  SimDisk disk;
  wal::Options options = LogOptions(wal::SyncPolicy::kSync);
  options.keep_segments = 100;
  LogStory story(disk, options);
  story.Boot();
  story.Change(15, 1);
  story.Checkpoint();
  story.Change(5, 2);
  const wal::Lsn before = story.log().last_lsn();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const std::string then = std::to_string(RealClock().WallMs());
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  story.Stop();
  story.BootBehindGap("unlogged");
  story.Change(15, 3);
  const wal::Lsn behind = story.log().last_lsn();
  story.Checkpoint();
  story.Change(5, 4);
  story.Stop();
  const ToolAnswer by_time = RunTool(disk, {"dump", "wal", "--to-time", then});
  EXPECT_EQ(by_time.status, 0) << by_time.errors;
  const ToolAnswer by_lsn = RunTool(disk, {"dump", "wal", "--to", std::to_string(before)});
  EXPECT_EQ(by_lsn.status, 0) << by_lsn.errors;
  EXPECT_EQ(by_time.out, by_lsn.out);
  // The gap's own checkpoint goes in time.
  disk.RemoveFile("wal/" + wal::CheckpointName(story.checkpoints()[1]));
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--to-time", then}).status, 0);
  EXPECT_EQ(RunTool(disk, {"dump", "wal"}).status, 0);
  const ToolAnswer refused = RunTool(disk, {"dump", "wal", "--to", std::to_string(behind - 1)});
  EXPECT_EQ(refused.status, 2);
  EXPECT_EQ(refused.out, "");
  EXPECT_NE(refused.errors.find("logging had been off"), std::string::npos) << refused.errors;
}

class WalToolKeyTest : public testing::Test {
 protected:
  WalToolKeyTest() {
    folder_ =
        std::filesystem::temp_directory_path() / ("crab-wal-tool-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder_);
    keys_ = WriteKeys("keys", {'1'});
    options_.keys = Load(keys_);
    story_ = std::make_unique<LogStory>(disk_, options_);
    TellAStory(*story_);
  }
  ~WalToolKeyTest() override { std::filesystem::remove_all(folder_); }

  std::string WriteKeys(const std::string& name, const std::vector<char>& digits) {
    const std::string path = folder_ / name;
    std::ofstream file(path);
    for (const char digit : digits) file << std::string(64, digit) << "\n";
    file.close();
    std::filesystem::permissions(path, std::filesystem::perms::owner_read);
    return path;
  }
  static std::shared_ptr<const wal::KeyRing> Load(const std::string& path) {
    auto keys = wal::KeyRing::Load(path);
    EXPECT_TRUE(keys.ok()) << keys.message();
    return *keys;
  }

  std::filesystem::path folder_;
  std::string keys_;
  SimDisk disk_;
  wal::Options options_ = LogOptions(wal::SyncPolicy::kSync);
  std::unique_ptr<LogStory> story_;
};

TEST_F(WalToolKeyTest, ReadsWithTheKeyAndNotWithout) {
  const std::string other = WriteKeys("other", {'2'});
  for (const std::string_view verb : {"list", "verify", "dump", "stats", "tail"}) {
    EXPECT_EQ(RunTool(disk_, {verb, "wal", "--key-file", keys_}).status, 0) << verb;
    const ToolAnswer without = RunTool(disk_, {verb, "wal"});
    EXPECT_EQ(without.status, verb == "verify" ? without.status : 2) << verb << without.out;
    EXPECT_NE(without.status, 0) << verb;
    EXPECT_EQ(without.out.find("user:"), std::string::npos) << verb;
    EXPECT_NE(RunTool(disk_, {verb, "wal", "--key-file", other}).status, 0) << verb;
  }
  const std::string missing = folder_ / "missing";
  EXPECT_EQ(RunTool(disk_, {"list", "wal", "--key-file", missing}).status, 2);
}

// Anybody can make a checksum: a record that is not encrypted is none here, and is not shown.
TEST_F(WalToolKeyTest, TailShowsNoRecordThatIsNotEncrypted) {
  const std::string path = SegmentPaths(disk_).back();
  wal::SegmentInfo info;
  info.number = *wal::SegmentNumber(path.substr(path.rfind('/') + 1));
  std::string bytes = disk_.Contents(path);
  wal::DecodeSegmentHeader(bytes, &info);
  ASSERT_NE(info.key_id, 0u);
  wal::FrameHeader header = {};
  header.lsn = info.first_lsn;
  header.type = static_cast<uint8_t>(wal::RecordType::kEffect);
  Effects effects;
  effects.Set(0, 0, "forged", "value", kNoDeadline);
  header.length = static_cast<uint32_t>(effects.bytes().size());
  header.crc = wal::BodyCrc(header, effects.bytes());
  std::string forged;
  wal::AppendFrame(forged, header, effects.bytes(), info.salt, wal::kSegmentHeaderBytes);
  ASSERT_GT(bytes.size(), wal::kSegmentHeaderBytes + forged.size());
  disk_.PutFile(path, bytes.replace(wal::kSegmentHeaderBytes, forged.size(), forged));
  for (const std::string_view from : {"1", "30"}) {
    const ToolAnswer tail = RunTool(disk_, {"tail", "wal", "--from", from, "--key-file", keys_});
    EXPECT_EQ(tail.out.find("forged"), std::string::npos);
    EXPECT_NE(tail.out.find("user:"), std::string::npos) << tail.out << tail.errors;
  }
}

// A PACK whose checksum holds and whose records do not: named, and what follows is shown.
TEST_F(WalToolKeyTest, TailGoesOnBehindAPackThatIsDamaged) {
  const std::string path = SegmentPaths(disk_).front();
  wal::SegmentInfo info;
  info.number = 1;
  std::string bytes = disk_.Contents(path);
  wal::DecodeSegmentHeader(bytes, &info);
  uint64_t at = wal::kSegmentHeaderBytes;
  wal::FrameHeader header;
  for (;; at += wal::FrameBytes(header.length)) {
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.type == static_cast<uint8_t>(wal::FrameType::kPack)) break;
  }
  bytes[at + sizeof(header) + header.length - 1] ^= 1;
  header.crc = 0;
  const std::string payload = bytes.substr(at + sizeof(header), header.length);
  header.crc = wal::BodyCrc(header, payload);
  std::string frame;
  wal::AppendFrame(frame, header, payload, info.salt, at);
  disk_.PutFile(path, bytes.replace(at, frame.size(), frame));
  const ToolAnswer tail = RunTool(disk_, {"tail", "wal", "--from", "1", "--key-file", keys_});
  EXPECT_EQ(tail.status, 0) << tail.errors;
  const size_t damaged = tail.out.find("\n{\"event\":\"damaged\",");
  const size_t skipped =
      tail.out.find("\n{\"event\":\"skipped\",\"first_lsn\":1,\"last_lsn\":1}\n");
  EXPECT_LT(damaged, skipped) << tail.out.substr(0, 300);
  EXPECT_NE(skipped, std::string::npos) << tail.out.substr(0, 300);
  EXPECT_EQ(tail.out.find("{\"lsn\":1,"), std::string::npos);
  EXPECT_NE(tail.out.find("{\"lsn\":2,"), std::string::npos);
}

TEST_F(WalToolKeyTest, RestoresAndBacksUp) {
  for (const auto& [lsn, data] : story_->after()) {
    if (lsn % 5 != 1) continue;
    const std::string to = "at-" + std::to_string(lsn);
    const ToolAnswer answer = RunTool(disk_, {"restore", "wal", "--until-lsn", std::to_string(lsn),
                                              "--to", to, "--key-file", keys_});
    ASSERT_EQ(answer.status, 0) << answer.errors;
    const FoundData found = StartFrom(disk_, options_, to);
    ASSERT_EQ(found.error, "");
    EXPECT_EQ(found.data, data) << lsn;
  }
  EXPECT_EQ(RunTool(disk_, {"restore", "wal", "--to", "x"}).status, 2);
  // A copy needs no key.
  EXPECT_EQ(RunTool(disk_, {"backup", "wal", "backup"}).status, 0);
  EXPECT_EQ(StartFrom(disk_, options_, "backup").data, story_->now());
}

TEST_F(WalToolKeyTest, RepairsAndStaysEncrypted) {
  // The key is another one by now; the old one still reads.
  const std::string rotated = WriteKeys("rotated", {'3', '1'});
  wal::Options options = options_;
  options.keys = Load(rotated);
  for (const std::string& path : SegmentPaths(disk_)) {
    for (uint64_t at = wal::kSegmentHeaderBytes; at < disk_.Contents(path).size(); at += 131) {
      SCOPED_TRACE(path + " byte " + std::to_string(at));
      const auto disk = disk_.PowerCut();
      disk->FlipBit(path, at * 8);
      const auto dump = [&] {
        return RunTool(*disk, {"dump", "wal", "--from", "1", "--key-file", rotated}).out;
      };
      const auto lines = [&](std::string text) {  // VOIDs are what repair puts in
        std::string kept;
        std::istringstream in(text);
        for (std::string line; std::getline(in, line);) {
          if (line.find(" void ") == std::string::npos) kept += line + "\n";
        }
        return kept;
      };
      const std::string before = lines(dump());
      const auto paths = disk->Paths();
      EXPECT_EQ(RunTool(*disk, {"repair", "wal"}).status, 2) << "without the key";
      EXPECT_EQ(disk->Paths(), paths);
      const ToolAnswer repair = RunTool(*disk, {"repair", "wal", "--key-file", rotated});
      ASSERT_EQ(repair.status, 0) << repair.errors;
      EXPECT_EQ(RunTool(*disk, {"verify", "wal", "--key-file", rotated}).status, 0);
      EXPECT_EQ(lines(dump()), before);
      EXPECT_EQ(disk->Contents(path).find("user:"), std::string::npos);
      EXPECT_EQ(StartFrom(*disk, options, "wal").error, "");
    }
  }
}

}  // namespace
}  // namespace crab::test

// crabcache-wal repair: whatever is damaged, the directory starts under strict afterwards, and all
// that verify called good is still there.
#include <gtest/gtest.h>

#include <cerrno>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "persistence/reader.h"
#include "persistence/record.h"
#include "tests/persistence/log_story.h"
#include "tests/support/eventually.h"
#include "tests/support/seed.h"

namespace crab::test {
namespace {

// The lines of `dump`, by LSN: what can be read.
std::map<std::string, std::string> Readable(SimDisk& disk, const std::string& directory) {
  std::map<std::string, std::string> records;
  const ToolAnswer dump = RunTool(disk, {"dump", directory, "--from", "1"});
  std::istringstream lines(dump.out);
  for (std::string line; std::getline(lines, line);) {
    const size_t space = line.find(' ');
    if (line.compare(space + 1, 4, "void") == 0) continue;
    records[line.substr(0, space)] = line;
  }
  return records;
}

void RepairAndCheck(SimDisk& disk, const wal::Options& options) {
  const auto readable = Readable(disk, "wal");
  const ToolAnswer dry = RunTool(disk, {"repair", "wal", "--dry-run"});
  const ToolAnswer repair = RunTool(disk, {"repair", "wal"});
  ASSERT_EQ(repair.status, 0) << repair.out << repair.errors;
  EXPECT_EQ(dry.status, repair.out.starts_with("nothing is to be repaired") ? 0 : 1)
      << dry.out << repair.out;
  const ToolAnswer verify = RunTool(disk, {"verify", "wal"});
  EXPECT_EQ(verify.status, 0) << repair.out << verify.out << verify.errors;
  EXPECT_EQ(Readable(disk, "wal"), readable) << repair.out;
  const FoundData found = StartFrom(disk, options, "wal");
  EXPECT_EQ(found.error, "") << repair.out;
  EXPECT_TRUE(found.report.lost.empty());
}

void WaitRetired(LogStory& story) {
  ASSERT_TRUE(Eventually([&] { return story.log().metrics().segments_retired > 0; }));
}

class WalToolRepairTest : public testing::TestWithParam<wal::Compression> {
 protected:
  wal::Options options() const {
    wal::Options options = LogOptions(wal::SyncPolicy::kSync);
    options.compression = GetParam();
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Forms, WalToolRepairTest,
                         testing::Values(wal::Compression::kNone, wal::Compression::kLz4),
                         [](const auto& form) { return wal::CompressionName(form.param); });

TEST_P(WalToolRepairTest, LeavesAWholeLogAlone) {
  SimDisk disk;
  LogStory story(disk, options());
  TellAStory(story);
  const auto paths = disk.Paths();
  const ToolAnswer answer = RunTool(disk, {"repair", "wal"});
  EXPECT_EQ(answer.status, 0) << answer.errors;
  EXPECT_EQ(answer.out, "nothing is to be repaired\n");
  EXPECT_EQ(disk.Paths(), paths);
}

TEST_P(WalToolRepairTest, MendsABitFlippedAnywhere) {
  SimDisk whole;
  LogStory story(whole, options());
  TellAStory(story);
  for (const std::string& path : SegmentPaths(whole)) {
    const uint64_t bytes = whole.Contents(path).size();
    // Headers, and places all over the frames.
    for (uint64_t at = 40; at < bytes; at += at < wal::kSegmentHeaderBytes ? 1600 : 97) {
      SCOPED_TRACE(path + " byte " + std::to_string(at));
      const auto disk = whole.PowerCut();
      disk->FlipBit(path, at * 8 + at % 8);
      RepairAndCheck(*disk, options());
      if (HasFailure()) return;
    }
  }
}

TEST_P(WalToolRepairTest, MendsMissingSegmentsAndHoles) {
  SimDisk whole;
  LogStory story(whole, options());
  TellAStory(story);
  const auto paths = SegmentPaths(whole);
  for (size_t i = 0; i < paths.size(); ++i) {
    for (const bool and_the_next : {false, true}) {
      SCOPED_TRACE(paths[i] + (and_the_next ? " and the next" : ""));
      const auto disk = whole.PowerCut();
      disk->RemoveFile(paths[i]);
      if (and_the_next && i + 1 < paths.size()) disk->RemoveFile(paths[i + 1]);
      if (SegmentPaths(*disk).empty()) continue;
      RepairAndCheck(*disk, options());
    }
    for (uint64_t sector = 8; sector * 512 < whole.Contents(paths[i]).size(); ++sector) {
      SCOPED_TRACE(paths[i] + " sector " + std::to_string(sector));
      const auto disk = whole.PowerCut();
      disk->ZeroSector(paths[i], sector);
      RepairAndCheck(*disk, options());
    }
    for (uint64_t size = 0; size < whole.Contents(paths[i]).size(); size += 301) {
      SCOPED_TRACE(paths[i] + " cut to " + std::to_string(size));
      const auto disk = whole.PowerCut();
      disk->Cut(paths[i], size);
      RepairAndCheck(*disk, options());
    }
    if (HasFailure()) return;
  }
}

// The segments alone would do.
TEST_P(WalToolRepairTest, SetsADamagedCheckpointAsideThatIsNotNeeded) {
  SimDisk disk;
  LogStory story(disk, options());
  TellAStory(story);
  const std::string path = "wal/" + wal::CheckpointName(story.checkpoints()[0]);
  disk.FlipBit(path, (wal::kSegmentHeaderBytes + 40) * 8);
  EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 1);
  RepairAndCheck(disk, options());
  EXPECT_FALSE(disk.Exists(path));
  EXPECT_EQ(StartFrom(disk, options(), "wal").data, story.now());
}

// The segments below it are gone.
TEST_P(WalToolRepairTest, KeepsTheShardsOfADamagedCheckpointThatIsNeeded) {
  SimDisk disk;
  LogStory story(disk, options());
  story.Boot();
  story.Change(40, 7);
  story.Rotate();
  story.Checkpoint(/*tell=*/true);
  const Data at_checkpoint = story.now();
  const wal::Lsn last = story.Set(0, "after", "the checkpoint");
  WaitRetired(story);
  story.Stop();
  ASSERT_EQ(SegmentPaths(disk).size(), 1u);
  const std::string path = "wal/" + wal::CheckpointName(story.checkpoints()[0]);
  disk.FlipBit(path, (wal::kSegmentHeaderBytes + 40) * 8);  // in the first chunk
  ASSERT_EQ(RunTool(disk, {"verify", "wal"}).status, 1);
  const ToolAnswer repair = RunTool(disk, {"repair", "wal"});
  ASSERT_EQ(repair.status, 0) << repair.errors;
  EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
  const FoundData found = StartFrom(disk, options(), "wal");
  ASSERT_EQ(found.error, "");
  EXPECT_GE(found.last_lsn, last);
  // All of it but one shard.
  uint16_t lost_shard = 0xffff;
  for (const auto& [key, value] : story.now()) {
    const auto there = found.data.find(key);
    if (there != found.data.end()) {
      EXPECT_EQ(there->second, value);
      continue;
    }
    const uint16_t shard = LogStory::ShardOf(key.second);
    EXPECT_TRUE(lost_shard == 0xffff || lost_shard == shard) << key.second;
    lost_shard = shard;
  }
  EXPECT_NE(lost_shard, 0xffff);
  EXPECT_TRUE(found.data.contains({0, "after"}));
}

TEST_P(WalToolRepairTest, IsDoneAgainAfterACrash) {
  SimDisk whole;
  LogStory story(whole, options());
  TellAStory(story);
  const std::string damaged = SegmentPaths(whole)[1];
  whole.FlipBit(damaged, (wal::kSegmentHeaderBytes + 200) * 8);
  const auto readable = Readable(whole, "wal");
  for (uint64_t crash_at = 1;; ++crash_at) {
    SCOPED_TRACE("crash at " + std::to_string(crash_at));
    const auto disk = whole.PowerCut({.crash_at = crash_at});
    const ToolAnswer answer = RunTool(*disk, {"repair", "wal"});
    if (!disk->crashed()) {
      EXPECT_EQ(answer.status, 0);
      break;
    }
    const auto next = disk->PowerCut();
    const ToolAnswer again = RunTool(*next, {"repair", "wal"});
    ASSERT_EQ(again.status, 0) << again.out << again.errors;
    EXPECT_EQ(Readable(*next, "wal"), readable);
    EXPECT_EQ(StartFrom(*next, options(), "wal").error, "");
  }
}

// A log that begins with a checkpoint, which is damaged: in the first of its chunks.
class WalToolRepairBaseTest : public WalToolRepairTest {
 protected:
  WalToolRepairBaseTest() {
    LogStory story(whole_, options());
    story.Boot();
    story.Change(40, 7);
    story.Rotate();
    story.Checkpoint(/*tell=*/true);
    story.Set(0, "after", "the checkpoint");
    WaitRetired(story);
    story.Stop();
    EXPECT_EQ(SegmentPaths(whole_).size(), 1u);
    whole_.FlipBit("wal/" + wal::CheckpointName(story.checkpoints()[0]),
                   (wal::kSegmentHeaderBytes + 40) * 8);
    const auto disk = whole_.PowerCut();
    EXPECT_EQ(RunTool(*disk, {"repair", "wal"}).status, 0);
    repaired_ = StartFrom(*disk, options(), "wal").data;
    EXPECT_GT(repaired_.size(), 5u);
  }
  // What an interrupted repair has left is repaired by the next one, as if it were the first.
  void ExpectTheSameFrom(SimDisk& disk) {
    const ToolAnswer again = RunTool(disk, {"repair", "wal"});
    ASSERT_EQ(again.status, 0) << again.out << again.errors;
    EXPECT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
    const FoundData found = StartFrom(disk, options(), "wal");
    EXPECT_EQ(found.error, "") << again.out;
    EXPECT_EQ(found.data, repaired_) << again.out;
  }

  SimDisk whole_;
  Data repaired_;
};

INSTANTIATE_TEST_SUITE_P(Forms, WalToolRepairBaseTest,
                         testing::Values(wal::Compression::kNone, wal::Compression::kLz4),
                         [](const auto& form) { return wal::CompressionName(form.param); });

TEST_P(WalToolRepairBaseTest, IsDoneAgainAfterACrash) {
  for (const Survivors survivors : kEverySurvivors) {
    for (uint64_t crash_at = 1;; ++crash_at) {
      SCOPED_TRACE(std::string(SurvivorsName(survivors)) + ", crash at " +
                   std::to_string(crash_at));
      const auto disk = whole_.PowerCut({.crash_at = crash_at, .survivors = survivors});
      (void)RunTool(*disk, {"repair", "wal"});
      if (!disk->crashed()) break;
      ExpectTheSameFrom(*disk->PowerCut());
      if (HasFailure()) return;
    }
  }
}

TEST_P(WalToolRepairBaseTest, IsDoneAgainAfterAFullDisk) {
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE("call " + std::to_string(nth));
    const auto disk = whole_.PowerCut();
    disk->AddFault({.calls = kChangingCalls, .nth = nth, .error = ENOSPC, .for_ever = true});
    const ToolAnswer answer = RunTool(*disk, {"repair", "wal"});
    const bool failed = disk->failed_calls() > 0;
    disk->ClearFaults();
    if (!failed) break;
    if (answer.status != 0) {
      EXPECT_NE(answer.errors.find("; run it again\n"), std::string::npos) << answer.errors;
    }
    ExpectTheSameFrom(*disk);
    if (HasFailure()) return;
  }
}

// A damaged checkpoint that is needed, and beside it what else there is of the shards that it has
// lost: an older checkpoint, and records.
class WalToolRepairShardsTest : public WalToolRepairTest {
 protected:
  static std::string PathOf(wal::Lsn checkpoint) {
    return "wal/" + wal::CheckpointName(checkpoint);
  }
  // The places of a checkpoint's chunks, some of them.
  static std::vector<uint64_t> Places(const SimDisk& disk, wal::Lsn checkpoint) {
    const uint64_t bytes = disk.Contents(PathOf(checkpoint)).size();
    std::vector<uint64_t> places;
    // Not the index and the end: without them nothing of the file is to be had.
    for (uint64_t at = wal::kCheckpointHeaderBytes + 20; at + 300 < bytes; at += 53) {
      places.push_back(at);
    }
    return places;
  }
  static bool Has(SimDisk& disk, wal::Lsn checkpoint, uint16_t shard) {
    auto reader = wal::CheckpointReader::Open(disk, PathOf(checkpoint), nullptr);
    if (!reader.ok()) return false;
    const auto take = [](uint16_t, std::string_view) { return Status::Ok(); };
    return (*reader)->ForEachChunk(shard, shard + 1u, take).ok();
  }
  // Each shard from the newest of the checkpoints that has it, and the records since.
  static Data Expected(SimDisk& disk, const LogStory& story) {
    std::vector<wal::Lsn> bases = story.checkpoints();
    bases.insert(bases.begin(), 0);
    struct Record {
      wal::Lsn lsn;
      wal::RecordType type;
      std::string payload;
    };
    std::vector<Record> records;
    auto reader = wal::Reader::Open(disk, "wal", {.checkpoint_lsn = bases.back()});
    wal::Frame frame;
    for (auto more = (*reader)->Next(&frame); more.ok() && *more; more = (*reader)->Next(&frame)) {
      if (frame.verdict != wal::Verdict::kGood || !wal::IsRecord(frame.type)) continue;
      const auto type = static_cast<wal::RecordType>(frame.type);
      records.push_back({frame.lsn, type, std::string(frame.payload)});
    }
    Data expected;
    for (uint16_t shard = 0; shard < 16; ++shard) {
      wal::Lsn base = 0;
      for (const wal::Lsn each : bases) {
        if (each > 0 && Has(disk, each, shard)) base = each;
      }
      Data data = story.At(base);
      for (const Record& record : records) {
        if (record.lsn <= base) continue;
        EXPECT_TRUE(RunEffects(record.type, record.payload, &data).ok());
      }
      for (const auto& [key, value] : data) {
        if (LogStory::ShardOf(key.second) == shard) expected[key] = value;
      }
    }
    return expected;
  }
  // A bit of each of these bytes is another one.
  void ExpectRepairs(SimDisk& whole, const LogStory& story,
                     const std::vector<std::pair<std::string, uint64_t>>& damaged) {
    SCOPED_TRACE(testing::PrintToString(damaged));
    const auto copy = whole.PowerCut();
    for (const auto& [path, byte] : damaged) copy->FlipBit(path, byte * 8);
    SimDisk& disk = *copy;
    const Data expected = Expected(disk, story);
    ASSERT_EQ(RunTool(disk, {"verify", "wal"}).status, 1);
    const ToolAnswer repair = RunTool(disk, {"repair", "wal"});
    ASSERT_EQ(repair.status, 0) << repair.out << repair.errors;
    const ToolAnswer verify = RunTool(disk, {"verify", "wal"});
    EXPECT_EQ(verify.status, 0) << repair.out << verify.out << verify.errors;
    const FoundData found = StartFrom(disk, options(), "wal");
    ASSERT_EQ(found.error, "") << repair.out;
    EXPECT_TRUE(found.data == expected)
        << repair.out << found.data.size() << " keys, wanted " << expected.size();
  }
};

INSTANTIATE_TEST_SUITE_P(Forms, WalToolRepairShardsTest,
                         testing::Values(wal::Compression::kNone, wal::Compression::kLz4),
                         [](const auto& form) { return wal::CompressionName(form.param); });

TEST_P(WalToolRepairShardsTest, TakesTheRecordsInTheCheckpointsOwnSegment) {
  SimDisk whole;
  LogStory story(whole, options());
  story.Boot();
  story.Change(40, 7);
  story.Rotate();
  story.Change(40, 8);
  story.Checkpoint(/*tell=*/true);
  story.Change(5, 9);
  WaitRetired(story);
  story.Stop();
  const wal::Lsn checkpoint = story.checkpoints()[0];
  ASSERT_EQ(SegmentPaths(whole).size(), 1u);
  for (const uint64_t at : Places(whole, checkpoint)) {
    ExpectRepairs(whole, story, {{PathOf(checkpoint), at}});
    if (HasFailure()) return;
  }
}

TEST_P(WalToolRepairShardsTest, TakesAnOlderCheckpointThatIsDamagedElsewhere) {
  SimDisk whole;
  LogStory story(whole, options());
  story.Boot();
  story.Change(60, 7);
  story.Rotate();
  story.Checkpoint(/*tell=*/true);
  WaitRetired(story);
  story.Change(40, 8);
  story.Checkpoint();
  story.Change(5, 9);
  story.Stop();
  const wal::Lsn older = story.checkpoints()[0];
  const wal::Lsn newer = story.checkpoints()[1];
  const std::vector<uint64_t> firsts = Places(whole, older);
  const std::vector<uint64_t> seconds = Places(whole, newer);
  for (size_t i = 0; i < firsts.size(); ++i) {
    for (size_t k = 0; k < seconds.size(); ++k) {
      // Every place of each of them, if not with every place of the other.
      if (!LongTests() && (i + k) % 3 != 0) continue;
      ExpectRepairs(whole, story, {{PathOf(older), firsts[i]}, {PathOf(newer), seconds[k]}});
      if (HasFailure()) return;
    }
  }
}

// Which of the records are the lost shard's, only a server can tell then.
TEST_P(WalToolRepairShardsTest, LeavesRecordsThatNumberShardsInAnotherWayToTheServer) {
  SimDisk disk;
  {
    LogStory story(disk, options());
    story.Boot();
    story.Change(20, 7);
    story.Rotate();
    story.Change(20, 8);
    story.Stop();
  }
  wal::Options more_shards = options();
  more_shards.shard_count = 32;
  LogStory story(disk, more_shards);
  story.Boot();
  story.Change(20, 9);
  story.Checkpoint();
  story.Stop();
  disk.RemoveFile("wal/" + wal::SegmentName(1));
  ASSERT_EQ(RunTool(disk, {"verify", "wal"}).status, 0);
  disk.FlipBit(PathOf(story.checkpoints()[0]), (wal::kCheckpointHeaderBytes + 40) * 8);
  const ToolAnswer repair = RunTool(disk, {"repair", "wal"});
  EXPECT_EQ(repair.status, 2);
  EXPECT_NE(repair.errors.find("start a server with wal-recovery salvage"), std::string::npos)
      << repair.errors;
  EXPECT_EQ(repair.errors.find("run it again"), std::string::npos) << repair.errors;
  EXPECT_TRUE(disk.Exists(PathOf(story.checkpoints()[0])));
  EXPECT_EQ(StartFrom(disk, more_shards, "wal", wal::RecoveryMode::kSalvage).error, "");
}

// What stands behind a gap counts again with its checkpoint, and so does the damage there.
TEST_P(WalToolRepairShardsTest, TakesWhatStandsBeforeAGap) {
  SimDisk whole;
  wal::Options kept = options();
  kept.keep_segments = 100;
  LogStory story(whole, kept);
  story.Boot();
  story.Change(40, 7);
  story.Stop();
  story.BootBehindGap("unlogged");
  story.Change(20, 8);
  story.Stop();
  const wal::Lsn checkpoint = story.checkpoints()[0];
  const std::string behind = SegmentPaths(whole).back();
  for (const uint64_t at : Places(whole, checkpoint)) {
    ExpectRepairs(whole, story, {{PathOf(checkpoint), at}});
    ExpectRepairs(whole, story,
                  {{PathOf(checkpoint), at}, {behind, wal::kSegmentHeaderBytes + 700}});
    if (HasFailure()) return;
  }
}

TEST(WalToolRepairRefusalTest, RefusesWhileAServerHoldsTheDirectory) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  story.Boot();
  const ToolAnswer answer = RunTool(disk, {"repair", "wal"});
  EXPECT_EQ(answer.status, 2);
  EXPECT_NE(answer.errors.find("a server holds wal"), std::string::npos) << answer.errors;
  story.Stop();
}

TEST(WalToolRepairRefusalTest, KeepsTheOriginalsAside) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  const std::string path = SegmentPaths(disk)[0];
  disk.FlipBit(path, (wal::kSegmentHeaderBytes + 200) * 8);
  const std::string original = disk.Contents(path);
  const ToolAnswer answer = RunTool(disk, {"repair", "wal", "--json"});
  ASSERT_EQ(answer.status, 0);
  const size_t at = answer.out.find("\"originals\":\"") + 13;
  const std::string aside = answer.out.substr(at, answer.out.find('"', at) - at);
  EXPECT_TRUE(aside.starts_with("wal/repair-")) << answer.out;
  EXPECT_EQ(disk.Contents(aside + path.substr(3)), original);
}

}  // namespace
}  // namespace crab::test

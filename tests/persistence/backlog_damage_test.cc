// What logs that are damaged give back: see backlog_story.h.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/checkpoint.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/persistence/backlog_story.h"

namespace crab::test {
namespace {

// Of a log of 8 shards, in windows of a few records.
class PackedOptions {
 public:
  PackedOptions()
      : path_(testing::TempDir() + "/crab-damage-keys-" + std::to_string(getpid())),
        keys_(KeyRingOf(path_, 'd')) {}
  ~PackedOptions() { std::filesystem::remove(path_); }

  wal::Options compressed() const {
    wal::Options options = OptionsFor(8);
    options.compression = wal::Compression::kLz4;
    options.unpacked_bytes_max = 1 << 10;
    return options;
  }
  wal::Options encrypted() const {
    wal::Options options = compressed();
    options.compression = wal::Compression::kZstd;
    options.keys = keys_;
    return options;
  }

 private:
  const std::string path_;
  const std::shared_ptr<const wal::KeyRing> keys_;
};

// The PACK frames of a segment, without their bytes.
std::vector<wal::Frame> PacksOf(SimDisk& disk, const std::string& path) {
  std::vector<wal::Frame> packs;
  auto log = wal::Reader::Open(disk, kLogDirectory, {.whole_packs = true});
  EXPECT_TRUE(log.ok()) << log.message();
  for (wal::Frame frame; *(*log)->Next(&frame);) {
    if (frame.type != static_cast<uint8_t>(wal::FrameType::kPack)) continue;
    if (frame.segment->path != path) continue;
    packs.push_back(frame);
    packs.back().payload = {};
  }
  return packs;
}

// The segment with the last byte of that pack changed, and a checksum to match.
std::string WithBadPack(std::string segment, const wal::Frame& pack) {
  wal::SegmentHeader info;
  std::memcpy(&info, segment.data(), sizeof(info));
  wal::FrameHeader header;
  std::memcpy(&header, segment.data() + pack.offset, sizeof(header));
  std::string payload = segment.substr(pack.offset + sizeof(header), header.length);
  payload.back() = static_cast<char>(payload.back() ^ 1);
  header.crc = wal::BodyCrc(header, payload);
  std::string frame;
  wal::AppendFrame(frame, header, payload, info.salt, pack.offset);
  return segment.replace(pack.offset, frame.size(), frame);
}

void TryDamage(const Made& made, const std::function<void(SimDisk&)>& damage, bool costs_data,
               uint64_t seed) {
  auto copy = made.disk->Kill();
  damage(*copy);
  const wal::Options& options = made.options;
  auto second = copy->Kill();
  auto third = copy->Kill();
  const Found by_units = FindByUnits(*copy, options, seed, 2);
  ASSERT_EQ(by_units.error, "");
  ASSERT_NO_FATAL_FAILURE(ExpectHonest(made.data, by_units));
  const Found ordered = FindInOrder(*second, options);
  ASSERT_EQ(ordered.error, "");
  ASSERT_NO_FATAL_FAILURE(ExpectHonest(made.data, ordered));
  ASSERT_TRUE(ordered.data == by_units.data);
  if (!costs_data) {
    ASSERT_TRUE(by_units.data == made.data);
    ASSERT_TRUE(by_units.report.lost.empty());
  }
  // What strict starts from is whole.
  wal::Options strict = options;
  strict.recovery = RecoveryMode::kStrict;
  const Found whole = FindByUnits(*third, strict, seed, 1);
  ASSERT_TRUE(whole.error != "" || whole.data == made.data);
}

std::vector<std::string> CheckpointPaths(const SimDisk& disk) {
  std::vector<std::string> paths;
  for (const std::string& path : disk.Paths()) {
    if (wal::CheckpointLsn(path.substr(path.rfind('/') + 1))) paths.push_back(path);
  }
  return paths;
}

void TryDamageInCheckpoints(const Made& made) {
  const std::vector<std::string> paths = CheckpointPaths(*made.disk);
  ASSERT_GE(paths.size(), 2u);
  uint64_t cases = 0;
  const std::string& newest = paths.back();
  const std::string bytes = made.disk->Contents(newest);
  for (uint64_t sector = 0; sector * 512 < bytes.size(); ++sector) {
    SCOPED_TRACE(testing::Message() << newest << " sector " << sector);
    ++cases;
    TryDamage(
        made, [&](SimDisk& disk) { disk.ZeroSector(newest, sector); }, false, sector);
    if (testing::Test::HasFatalFailure()) return;
  }
  for (uint64_t size = 0; size < bytes.size(); size += LongTests() ? 1 : 97) {
    SCOPED_TRACE(testing::Message() << newest << " cut at " << size);
    ++cases;
    TryDamage(
        made, [&](SimDisk& disk) { disk.Cut(newest, size); }, false, size);
    if (testing::Test::HasFatalFailure()) return;
  }
  for (const std::string& path : paths) {
    SCOPED_TRACE("without " + path);
    ++cases;
    TryDamage(
        made, [&](SimDisk& disk) { disk.RemoveFile(path); }, false, 1);
    if (testing::Test::HasFatalFailure()) return;
  }
  TryDamage(
      made,
      [&](SimDisk& disk) {
        for (const std::string& path : paths) disk.FlipBit(path, disk.Contents(path).size() * 4);
      },
      false, 1);
  testing::Test::RecordProperty("cases", static_cast<int>(cases));
}

TEST(BacklogDamageTest, ADamagedCheckpointCostsNoData) {
  TryDamageInCheckpoints(SmallLog(TestSeed(), true));
}

// Units begin with different checkpoints then.
TEST(BacklogDamageTest, ADamagedCheckpointCostsNoDataAmongPacks) {
  const PackedOptions packed;
  TryDamageInCheckpoints(SmallLog(TestSeed(), true, packed.encrypted()));
}

// What one checkpoint has begun no other one finishes: where the chunks of a unit are too large to
// be kept from the check on, and are not there the second time.
TEST(BacklogDamageTest, ACheckpointThatIsGoneWhileItIsAppliedEndsTheReplay) {
  const Made made = SmallLog(TestSeed(), true);
  wal::Options options = OptionsFor(8);
  {
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(*made.disk, options, &backlog);
    ASSERT_TRUE(log.ok()) << log.message();
    wal::CheckpointInfo info;
    info.lsn = (*log)->last_lsn();
    info.identity = (*log)->identity();
    auto writer = wal::CheckpointWriter::Create(*made.disk, options.directory, info,
                                                wal::Compression::kZstd, nullptr);
    ASSERT_TRUE(writer.ok()) << writer.message();
    const std::string effects = "#" + std::string(1 << 20, 'x') + "\n";
    for (int i = 0; i < 10; ++i) ASSERT_TRUE((*writer)->Add(0, effects, 1).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
    ASSERT_TRUE((*writer)->Publish().ok());
    ASSERT_TRUE((*log)->Stop().ok());
  }
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(*made.disk, options, &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  int parts = 0;
  const auto replayed = backlog->Replay({0}, [&](const Backlog::Part& part) {
    EXPECT_TRUE(part.of_checkpoint);
    if (parts++ == 0) made.disk->AddFault({.calls = kMap, .error = EIO, .for_ever = true});
    return Status::Ok();
  });
  EXPECT_FALSE(replayed.ok());
  EXPECT_NE(replayed.message().find("has been applied"), std::string::npos) << replayed.message();
  EXPECT_LT(parts, 10);
}

// `every`: one of so many cases.
void TryDamageInSegments(const Made& made, int every) {
  std::mt19937_64 random(TestSeed());
  for (const std::string& path : SegmentPaths(*made.disk)) {
    const uint64_t size = made.disk->Contents(path).size();
    for (int i = 0; i < ((LongTests() ? 5000 : 30) / every); ++i) {
      const uint64_t bit =
          random() % 8 +
          8 * (i % 4 == 0
                   ? random() % size
                   : std::min(size - 1, 4096 + random() % std::max<uint64_t>(size - 4096, 1)));
      SCOPED_TRACE(testing::Message() << path << " bit " << bit);
      TryDamage(
          made, [&](SimDisk& disk) { disk.FlipBit(path, bit); }, true, bit);
      if (testing::Test::HasFatalFailure()) return;
    }
    for (uint64_t sector = 0; sector * 512 < size;
         sector += LongTests() ? 1 : 1 + random() % (6 * static_cast<uint64_t>(every))) {
      SCOPED_TRACE(testing::Message() << path << " sector " << sector);
      TryDamage(
          made, [&](SimDisk& disk) { disk.ZeroSector(path, sector); }, true, sector);
      if (testing::Test::HasFatalFailure()) return;
    }
    constexpr uint64_t kSectorsOfBlock = SimDisk::kBlockBytes / SimDisk::kSectorBytes;
    for (uint64_t block = 0; block * SimDisk::kBlockBytes < size;
         block += LongTests() ? 1 : 1 + random() % (4 * static_cast<uint64_t>(every))) {
      SCOPED_TRACE(testing::Message() << path << " unreadable block " << block);
      const auto damage = [&](SimDisk& disk) {
        for (uint64_t sector = block * kSectorsOfBlock;
             sector < (block + 1) * kSectorsOfBlock && sector * SimDisk::kSectorBytes < size;
             ++sector) {
          disk.BreakSector(path, sector);
        }
      };
      TryDamage(made, damage, true, block);
      if (testing::Test::HasFatalFailure()) return;
    }
    for (int i = 0; i < ((LongTests() ? 2000 : 8) / every); ++i) {
      const uint64_t cut = random() % size;
      SCOPED_TRACE(testing::Message() << path << " cut at " << cut);
      TryDamage(
          made, [&](SimDisk& disk) { disk.Cut(path, cut); }, true, cut);
      if (testing::Test::HasFatalFailure()) return;
    }
    SCOPED_TRACE("without " + path);
    TryDamage(
        made, [&](SimDisk& disk) { disk.RemoveFile(path); }, true, 1);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(BacklogDamageTest, TellsOfEveryDamageInASegment) {
  for (const bool checkpoints : {false, true}) {
    TryDamageInSegments(SmallLog(TestSeed(), checkpoints), /*every=*/1);
    if (HasFatalFailure()) return;
  }
}

// Records of all sizes: what is read at once, in two steps, and what is taken from the mapping.
Made MixedLog(uint64_t seed) {
  Maker maker(seed);
  maker.Run(OptionsFor(8), 60, false, 40'000);
  maker.Run(OptionsFor(8), 60, false, 40'000);
  maker.Run(OptionsFor(8), 0, false, 20);
  return maker.Take();
}

// Each unit whole, one after the other; `between` runs behind each of them.
void ReplayUnits(
    Backlog& backlog, Data* data, const std::function<void()>& between = [] {}) {
  for (uint32_t unit = 0; unit < backlog.units(); ++unit) {
    const auto mine = [&](int key) { return ShardOf(key, backlog.units()) == unit; };
    const auto replayed = backlog.Replay({unit}, [&](const Backlog::Part& part) {
      ApplyEffects(part.payload, mine, data);
      return Status::Ok();
    });
    ASSERT_TRUE(replayed.ok()) << replayed.message();
    between();
  }
}

TEST(BacklogDamageTest, AnErrorOfTheDiskThatPassesCostsNothing) {
  const Made made = MixedLog(TestSeed());
  for (const DiskCall call : {kRead, kMap}) {
    bool failed = true;
    for (uint64_t nth = 1; failed; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << call << " number " << nth);
      auto disk = made.disk->Kill();
      std::unique_ptr<Backlog> backlog;
      auto log = wal::Log::Open(*disk, made.options, &backlog);
      ASSERT_TRUE(log.ok()) << log.message();
      disk->AddFault({.calls = static_cast<uint32_t>(call), .nth = nth, .error = EIO});
      Data data;
      ASSERT_NO_FATAL_FAILURE(ReplayUnits(*backlog, &data));
      failed = disk->failed_calls() > 0;
      ASSERT_TRUE(backlog->report().lost.empty());
      ASSERT_TRUE(data == made.data);
    }
  }
}

// Clients may have taken them all since the segments were mapped.
TEST(BacklogDamageTest, UnitsAreWholeWithoutFileDescriptors) {
  const Made made = MixedLog(TestSeed());
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(*made.disk, made.options, &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  ASSERT_GT(backlog->units(), 1u);
  Data data;
  ASSERT_NO_FATAL_FAILURE(ReplayUnits(*backlog, &data, [&] {
    made.disk->AddFault({.calls = kOpen, .error = EMFILE, .for_ever = true});
  }));
  EXPECT_GT(made.disk->failed_calls(), 0u);
  EXPECT_TRUE(backlog->report().lost.empty());
  EXPECT_TRUE(data == made.data);
  made.disk->ClearFaults();
}

// One piece after the other, as long as there are any.
Status ReplayPieces(Backlog& backlog, Data* data) {
  Backlog::Piece piece;
  while (TRY(backlog.NextPiece(&piece))) {
    const auto mine = [&](int key) { return ShardOf(key, backlog.units()) == piece.unit; };
    TRY(backlog.Replay(piece, [&](const Backlog::Part& part) {
      ApplyEffects(part.payload, mine, data);
      return Status::Ok();
    }));
  }
  return Status::Ok();
}

// Nor is a part of the log lost that cannot be opened for want of them: the replay ends, and the
// next start has it all.
TEST(BacklogDamageTest, WhatCannotBeOpenedForWantOfFileDescriptorsIsNotLost) {
  const PackedOptions packed;
  const Made made = SmallLog(TestSeed(), /*checkpoints=*/false, packed.compressed());
  int refused = 0;
  bool failed = true;
  for (uint64_t nth = 1; failed; ++nth) {
    SCOPED_TRACE(testing::Message() << "open number " << nth);
    auto disk = made.disk->Kill();
    disk->AddFault({.calls = kOpen, .nth = nth, .error = EMFILE, .for_ever = true});
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(*disk, made.options, &backlog);
    failed = disk->failed_calls() > 0;
    if (log.ok()) {
      Data data;
      (void)ReplayPieces(*backlog, &data);
      failed = disk->failed_calls() > 0;
      EXPECT_TRUE(backlog->report().lost.empty());
    }
    refused += failed;
    disk->ClearFaults();
    log = Status::Error("closed");
    std::unique_ptr<Backlog> again;
    auto next = wal::Log::Open(*disk, made.options, &again);
    ASSERT_TRUE(next.ok()) << next.message();
    Data data;
    const Status replayed = ReplayPieces(*again, &data);
    ASSERT_TRUE(replayed.ok()) << replayed.message();
    ASSERT_TRUE(again->report().lost.empty());
    ASSERT_TRUE(data == made.data);
  }
  EXPECT_GT(refused, 3);
}

// No memory for a checkpoint's pages is no damage: nothing is begun without it.
TEST(BacklogDamageTest, ACheckpointThatCannotBeReadForWantOfMemoryIsNotDamaged) {
  const Made made = SmallLog(TestSeed(), /*checkpoints=*/true);
  for (const int error : {ENOMEM, EIO}) {
    SCOPED_TRACE(error);
    auto disk = made.disk->Kill();
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(*disk, made.options, &backlog);
    ASSERT_TRUE(log.ok()) << log.message();
    disk->AddFault({.calls = kMap, .error = error, .for_ever = true});
    const auto replayed =
        backlog->Replay({.unit = 0}, [](const Backlog::Part&) { return Status::Ok(); });
    disk->ClearFaults();
    const wal::RecoveryReport report = backlog->report();
    if (error == ENOMEM) {
      EXPECT_EQ(replayed.system_errno(), ENOMEM);
      EXPECT_EQ(report.checkpoint_problem, "");
      EXPECT_TRUE(report.damaged_checkpoints.empty());
    } else {
      EXPECT_NE(report.checkpoint_problem, "");
      EXPECT_FALSE(report.damaged_checkpoints.empty());
    }
  }
}

// Those who judge the whole log first read the checkpoint before they begin.
TEST(BacklogDamageTest, NorIsItWhereAllIsReadFirst) {
  const Made made = SmallLog(TestSeed(), /*checkpoints=*/true);
  wal::Options options = made.options;
  options.recovery = RecoveryMode::kPrefix;
  int refused = 0;
  bool failed = true;
  for (uint64_t nth = 1; failed; ++nth) {
    SCOPED_TRACE(testing::Message() << "map number " << nth);
    auto disk = made.disk->Kill();
    disk->AddFault({.calls = kMap, .nth = nth, .error = ENOMEM, .for_ever = true});
    {
      std::unique_ptr<Backlog> backlog;
      auto log = wal::Log::Open(*disk, options, &backlog);
      failed = disk->failed_calls() > 0;
      refused += !log.ok();
      if (log.ok()) {
        EXPECT_EQ(backlog->report().checkpoint_problem, "");
      } else {
        EXPECT_EQ(log.system_errno(), ENOMEM) << log.message();
      }
      disk->ClearFaults();
    }
    std::unique_ptr<Backlog> again;
    auto next = wal::Log::Open(*disk, options, &again);
    ASSERT_TRUE(next.ok()) << next.message();
    EXPECT_EQ(again->report().checkpoint_problem, "");
  }
  EXPECT_GT(refused, 1);
}

TEST(BacklogDamageTest, TellsOfEveryDamageInASegmentOfPacks) {
  const PackedOptions packed;
  for (const bool checkpoints : {false, true}) {
    for (const wal::Options& options : {packed.compressed(), packed.encrypted()}) {
      TryDamageInSegments(SmallLog(TestSeed(), checkpoints, options), /*every=*/2);
      if (HasFatalFailure()) return;
    }
  }
}

// A pack whose frame checks and whose bytes do not: each of the log in turn.
TEST(BacklogDamageTest, APackThatDoesNotUnpackIsLostAsAWhole) {
  const PackedOptions packed;
  for (const wal::Options& options : {packed.compressed(), packed.encrypted()}) {
    Maker maker(TestSeed());
    maker.Run(options, 150, /*checkpoints=*/false, 20);
    wal::Options plain = options;  // but for the key
    plain.compression = wal::Compression::kNone;
    maker.Run(plain, 30, /*checkpoints=*/false, 20);
    maker.Run(options, 60, /*checkpoints=*/false, 20);
    maker.Run(options, 0, /*checkpoints=*/false, 20);
    const Made made = maker.Take();
    int packs = 0;
    for (const std::string& path : SegmentPaths(*made.disk)) {
      const std::string bytes = made.disk->Contents(path);
      for (const wal::Frame& pack : PacksOf(*made.disk, path)) {
        SCOPED_TRACE(testing::Message() << path << " offset " << pack.offset);
        ++packs;
        const std::string bad = WithBadPack(bytes, pack);
        for (const RecoveryMode mode :
             {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
          wal::Options read = made.options;
          read.recovery = mode;
          auto disk = made.disk->Kill();
          disk->PutFile(path, bad);
          auto second = disk->Kill();
          const Found by_units = FindByUnits(*disk, read, TestSeed(), 3);
          const Found ordered = FindInOrder(*second, read);
          ASSERT_EQ(by_units.error, ordered.error);
          ASSERT_TRUE(by_units.data == ordered.data);
          if (mode == RecoveryMode::kStrict) {
            ASSERT_NE(by_units.error, "");
            continue;
          }
          ASSERT_EQ(by_units.report.corrupted_entries, ordered.report.corrupted_entries);
          ASSERT_EQ(by_units.report.entries_recovered, ordered.report.entries_recovered);
          ASSERT_EQ(by_units.report.warnings, ordered.report.warnings);
          if (mode == RecoveryMode::kPrefix) continue;
          ExpectHonest(made.data, by_units);
          if (HasFatalFailure()) return;
          ASSERT_EQ(by_units.report.lost.size(), 1u);
          ASSERT_EQ(by_units.report.lost[0].first, pack.lost_first);
          ASSERT_EQ(by_units.report.lost[0].last, pack.lost_last);
        }
      }
    }
    ASSERT_GT(packs, 5);
  }
}

// Where the INDEX frames of a segment stand.
std::vector<uint64_t> IndexesOf(const std::string& segment) {
  std::vector<uint64_t> indexes;
  for (uint64_t at = wal::kSegmentHeaderBytes; at + sizeof(wal::FrameHeader) <= segment.size();) {
    wal::FrameHeader header;
    std::memcpy(&header, segment.data() + at, sizeof(header));
    if (header.type == 0) break;
    if (header.type == static_cast<uint8_t>(wal::FrameType::kIndex)) indexes.push_back(at);
    at += wal::FrameBytes(header.length);
  }
  return indexes;
}

// The segment with a list in that INDEX frame which is none of offsets, and a checksum to match.
std::string WithBadList(std::string segment, uint64_t offset) {
  wal::SegmentHeader info;
  std::memcpy(&info, segment.data(), sizeof(info));
  wal::FrameHeader header;
  std::memcpy(&header, segment.data() + offset, sizeof(header));
  std::string payload = segment.substr(offset + sizeof(header), header.length);
  payload.back() = '\xff';  // of a number whose end does not come
  header.crc = wal::BodyCrc(header, payload);
  std::string frame;
  wal::AppendFrame(frame, header, payload, info.salt, offset);
  return segment.replace(offset, frame.size(), frame);
}

TEST(BacklogDamageTest, AMalformedListInAnIndexCostsNoData) {
  const Made made = SmallLog(TestSeed(), false);
  int lists = 0;
  for (const std::string& path : SegmentPaths(*made.disk)) {
    const std::string bytes = made.disk->Contents(path);
    for (const uint64_t offset : IndexesOf(bytes)) {
      SCOPED_TRACE(testing::Message() << path << " offset " << offset);
      ++lists;
      const std::string bad = WithBadList(bytes, offset);
      TryDamage(
          made, [&](SimDisk& disk) { disk.PutFile(path, bad); }, false, offset);
      if (HasFatalFailure()) return;
    }
  }
  ASSERT_GT(lists, 0);
}

void TrySwaps(const Made& made) {
  const std::vector<std::string> segments = SegmentPaths(*made.disk);
  for (const std::string& one : segments) {
    for (const std::string& other : segments) {
      if (one == other) continue;
      SCOPED_TRACE(one + " and " + other);
      const std::string bytes = made.disk->Contents(one);
      TryDamage(
          made,
          [&](SimDisk& disk) {
            disk.PutFile(one, disk.Contents(other));
            disk.PutFile(other, bytes);
          },
          true, 1);
      TryDamage(
          made, [&](SimDisk& disk) { disk.PutFile(other, bytes); }, true, 2);
      if (testing::Test::HasFatalFailure()) return;
    }
    SCOPED_TRACE("a second " + one);
    TryDamage(
        made,
        [&](SimDisk& disk) {
          disk.PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(0), disk.Contents(one));
        },
        false, 3);
    if (testing::Test::HasFatalFailure()) return;
  }
  // A checkpoint under another's name, or under a name of its own that is not true.
  const std::vector<std::string> checkpoints = CheckpointPaths(*made.disk);
  for (const std::string& one : checkpoints) {
    SCOPED_TRACE(one);
    const std::string bytes = made.disk->Contents(one);
    const Lsn lsn = *wal::CheckpointLsn(one.substr(one.rfind('/') + 1));
    for (const Lsn wrong : {lsn - 3, lsn + 1, lsn + 1000}) {
      TryDamage(
          made,
          [&](SimDisk& disk) {
            disk.PutFile(std::string(kLogDirectory) + "/" + wal::CheckpointName(wrong), bytes);
          },
          false, wrong);
    }
    TryDamage(
        made, [&](SimDisk& disk) { disk.PutFile(checkpoints.back(), bytes); }, false, 4);
    if (testing::Test::HasFatalFailure()) return;
  }
}

TEST(BacklogDamageTest, TellsOfFilesThatAreSwappedOrThereTwice) {
  TrySwaps(SmallLog(TestSeed(), true));
}

TEST(BacklogDamageTest, TellsOfFilesOfPacksThatAreSwappedOrThereTwice) {
  const PackedOptions packed;
  TrySwaps(SmallLog(TestSeed(), true, packed.compressed()));
}

// --- checkpoints that do not fit the segments

TEST(BacklogDamageTest, BeginsAnewBehindACheckpointWhoseSegmentsAreGone) {
  const Made made = SmallLog(TestSeed(), true);
  Maker maker(TestSeed());
  auto disk = made.disk->Kill();
  const wal::Options options = OptionsFor(8);
  for (const std::string& path : SegmentPaths(*disk)) disk->RemoveFile(path);
  const Lsn checkpoint = *wal::CheckpointLsn(CheckpointPaths(*disk).back().substr(4));
  Lsn appended = 0;
  for (int start = 0; start < 2; ++start) {
    SCOPED_TRACE(start);
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(*disk, options, &backlog);
    ASSERT_TRUE(log.ok()) << log.message();
    EXPECT_EQ((*log)->last_lsn(), start == 0 ? checkpoint : appended);
    EXPECT_EQ(backlog->report().checkpoint_lsn, checkpoint);
    EXPECT_TRUE(backlog->report().lost.empty());
    EXPECT_FALSE(start == 0 && backlog->report().warnings.empty());
    uint64_t chunks = 0, records = 0;
    for (uint32_t unit = 0; unit < backlog->units(); ++unit) {
      const auto replayed = backlog->Replay({unit}, [&](const Backlog::Part& part) {
        ++(part.of_checkpoint ? chunks : records);
        return Status::Ok();
      });
      ASSERT_TRUE(replayed.ok()) << replayed.message();
    }
    EXPECT_GT(chunks, 0u);
    EXPECT_EQ(records, static_cast<uint64_t>(start));
    if (start > 0) break;
    appended = (*log)->Append(RecordType::kEffect, 1, "behind it");
    EXPECT_EQ(appended, checkpoint + 1);
  }
}

TEST(BacklogDamageTest, UsesNoCheckpointOfAnotherLog) {
  const Made one = SmallLog(TestSeed(), true);
  const Made other = SmallLog(TestSeed() + 1, true);
  auto disk = one.disk->Kill();
  for (const std::string& path : CheckpointPaths(*disk)) disk->RemoveFile(path);
  for (const std::string& path : CheckpointPaths(*other.disk)) {
    disk->PutFile(path, other.disk->Contents(path));
  }
  const Found found = FindByUnits(*disk, OptionsFor(8), 1, 1);
  EXPECT_EQ(found.error, "");
  EXPECT_TRUE(found.data == one.data);
  EXPECT_NE(found.report.checkpoint_problem.find("another log"), std::string::npos);
  EXPECT_TRUE(found.report.lost.empty());
}

TEST(BacklogDamageTest, SegmentsBelowTheCheckpointAreNotMissed) {
  const Made made = SmallLog(TestSeed(), true);
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    auto disk = made.disk->Kill();
    const std::vector<std::string> paths = SegmentPaths(*disk);
    // All but the one that ends with the checkpoint's last record and those behind it.
    const Lsn checkpoint = *wal::CheckpointLsn(CheckpointPaths(*disk).back().substr(4));
    auto reader = wal::Reader::Open(*disk, kLogDirectory);
    ASSERT_TRUE(reader.ok());
    size_t removed = 0;
    const auto& segments = (*reader)->segments();
    for (size_t i = 0; i + 1 < segments.size() && segments[i + 1].first_lsn <= checkpoint + 1;
         ++i) {
      disk->RemoveFile(segments[i].path);
      ++removed;
    }
    ASSERT_GT(removed, 0u);
    wal::Options options = OptionsFor(8);
    options.recovery = mode;
    const Found found = FindByUnits(*disk, options, 1, 2);
    EXPECT_EQ(found.error, "");
    EXPECT_TRUE(found.data == made.data);
    EXPECT_TRUE(found.report.lost.empty());
  }
}

// --- a disk that fails

// One call of each kind fails, once or from then on: what is brought back is honest, or the start
// or the unit says that it cannot be done.
void TryFailingCalls(const Made& made) {
  uint64_t cases = 0;
  for (const bool for_ever : {false, true}) {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << nth << (for_ever ? " and all after it" : ""));
      auto disk = made.disk->Kill();
      disk->AddFault({.calls = kAnyCall, .nth = nth, .error = EIO, .for_ever = for_ever});
      const Found found = FindByUnits(*disk, made.options, nth, 1);
      ++cases;
      if (found.error == "") ExpectHonest(made.data, found);
      if (testing::Test::HasFatalFailure()) return;
      if (disk->failed_calls() == 0) break;
    }
  }
  testing::Test::RecordProperty("cases", static_cast<int>(cases));
}

TEST(BacklogDamageTest, IsHonestWhicheverCallOfTheDiskFails) {
  TryFailingCalls(SmallLog(TestSeed(), true));
}

TEST(BacklogDamageTest, IsHonestWhicheverCallOfTheDiskFailsAmongPacks) {
  const PackedOptions packed;
  TryFailingCalls(SmallLog(TestSeed(), true, packed.encrypted()));
}

// --- forged

// Who may write to the directory can make a checksum, but no record: all that counts in a segment
// with a key is encrypted.
TEST(BacklogDamageTest, BelievesNoPlainRecordInASegmentWithAKey) {
  const std::string path = testing::TempDir() + "/crab-forged-keys-" + std::to_string(getpid());
  wal::Options options = OptionsFor(16);
  options.keys = KeyRingOf(path, 'a');
  Maker maker(TestSeed());
  maker.Run(options, 20, /*checkpoints=*/false);
  const Made made = maker.Take();
  const std::string segment = SegmentPaths(*made.disk).front();
  const std::string bytes = made.disk->Contents(segment);
  wal::SegmentHeader header;
  std::memcpy(&header, bytes.data(), sizeof(header));

  wal::FrameHeader record = {};
  const std::string forged = Add(1, 1);
  record.length = static_cast<uint32_t>(forged.size());
  record.lsn = 1;
  record.type = static_cast<uint8_t>(wal::FrameType::kEffect);
  record.shard = static_cast<uint16_t>(ShardOf(1, 16));
  record.crc = wal::BodyCrc(record, forged);
  std::string plain;
  wal::AppendFrame(plain, record, forged, header.salt, wal::kSegmentHeaderBytes);

  std::string inner, payload, pack;
  wal::AppendPackedFrame(inner, record, forged);
  const wal::PackPayload head = {static_cast<uint32_t>(inner.size()), 1, 1};
  payload.assign(reinterpret_cast<const char*>(&head), sizeof(head)).append(inner);
  wal::FrameHeader frame = {};
  frame.length = static_cast<uint32_t>(payload.size());
  frame.type = static_cast<uint8_t>(wal::FrameType::kPack);
  frame.shard = wal::kBroadcastShard;
  frame.crc = wal::BodyCrc(frame, payload);
  wal::AppendFrame(pack, frame, payload, header.salt, wal::kSegmentHeaderBytes);

  for (const std::string& frames : {plain, pack}) {
    auto disk = made.disk->Kill();
    for (const std::string& other : SegmentPaths(*disk)) disk->RemoveFile(other);
    disk->PutFile(segment, bytes.substr(0, wal::kSegmentHeaderBytes) + frames);
    const Found found = FindByUnits(*disk, options, 1, 1);
    EXPECT_EQ(found.error, "");
    EXPECT_TRUE(found.data == Data());
    EXPECT_EQ(found.report.entries_recovered, 0u);
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace crab::test

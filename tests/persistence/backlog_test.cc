// What logs that are whole give back: see backlog_story.h.
#include "persistence/backlog.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "persistence/checkpoint.h"
#include "tests/persistence/backlog_story.h"

namespace crab::test {
namespace {

TEST(BacklogTest, IsEmptyInANewDirectory) {
  SimDisk disk;
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(disk, OptionsFor(16), &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  EXPECT_TRUE(backlog->empty());
  EXPECT_EQ(backlog->units(), 16u);
  EXPECT_EQ(backlog->total_bytes(), 0u);
}

TEST(BacklogTest, UnitsInAnyOrderAreTheLogInOrder) {
  for (int round = 0; round < (LongTests() ? 200 : 12); ++round) {
    const uint64_t seed = Mix(TestSeed(), static_cast<uint64_t>(round));
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    Maker maker(seed);
    const uint32_t counts[] = {4, 16, 64, 1024};
    uint32_t fewest = 1024;
    for (uint64_t boot = 0; boot < 1 + random() % 4; ++boot) {
      const uint32_t count = counts[random() % 4];
      fewest = std::min(fewest, count);
      maker.Run(OptionsFor(count), static_cast<int>(random() % 300), round % 3 != 0);
      if (testing::Test::HasFatalFailure()) return;
    }
    const Made made = maker.Take();
    ExpectWhole(made, OptionsFor(1024), seed);
    ExpectWhole(made, OptionsFor(8), seed);
    if (testing::Test::HasFatalFailure()) return;
    auto copy = made.disk->Kill();
    const Found found = FindByUnits(*copy, OptionsFor(1024), seed, 1);
    ASSERT_GE(found.units, fewest);
  }
}

TEST(BacklogTest, IsOneUnitWhereTheShardsCannotBeCompared) {
  Maker maker(TestSeed());
  maker.Run(OptionsFor(16), 200, true);
  wal::Options other = OptionsFor(16);
  other.hash_seed = 77;
  maker.Run(other, 100, false);
  const Made made = maker.Take();
  auto copy = made.disk->Kill();
  EXPECT_EQ(FindByUnits(*copy, other, 1, 1).units, 1u);
  ExpectWhole(made, other, TestSeed());
}

TEST(BacklogTest, ReadsPacks) {
  for (const wal::Compression compression : {wal::Compression::kLz4, wal::Compression::kZstd}) {
    Maker maker(TestSeed());
    wal::Options options = OptionsFor(16);
    maker.Run(options, 100, false);
    options.compression = compression;
    maker.Run(options, 300, true);
    maker.Run(options, 100, false);
    const Made made = maker.Take();
    ExpectWhole(made, options, TestSeed());
    if (HasFatalFailure()) return;
  }
}

// Packed, encrypted and plain boots in any mixture, in windows of a record to all of the log.
TEST(BacklogTest, PacksByManyThreadsAreTheLogInOrder) {
  const std::string path = testing::TempDir() + "/crab-packs-keys-" + std::to_string(getpid());
  const auto keys = KeyRingOf(path, 'c');
  for (int round = 0; round < (LongTests() ? 200 : 12); ++round) {
    const uint64_t seed = Mix(TestSeed(), static_cast<uint64_t>(round));
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937_64 random(seed);
    Maker maker(seed);
    const uint32_t counts[] = {4, 16, 64, 1024};
    bool packs = false;
    wal::Options options;
    for (uint64_t boot = 0; boot < 1 + random() % 4; ++boot) {
      const bool encrypts = options.keys != nullptr || random() % 4 == 0;
      options = OptionsFor(counts[random() % 4]);
      options.compression = static_cast<wal::Compression>(random() % 3);
      if (encrypts) options.keys = keys;
      packs |= encrypts || options.compression != wal::Compression::kNone;
      maker.Run(options, static_cast<int>(random() % 300), random() % 3 != 0);
      if (HasFatalFailure()) return;
    }
    const Made made = maker.Take();
    const uint64_t sizes[] = {2, 4 << 10, 64 << 10, 64 << 20};
    options.unpacked_bytes_max = sizes[random() % 4];
    for (const uint32_t shard_count : {1024, 8}) {
      options.shard_count = shard_count;
      ExpectWhole(made, options, seed);
      if (HasFatalFailure()) return;
      auto copy = made.disk->Kill();
      const Found alone = FindByUnits(*copy, options, seed, 1);
      ASSERT_TRUE(alone.data == made.data);
      // Segments that a checkpoint covers may be gone by then.
      ASSERT_TRUE(packs || alone.any_order);
      ASSERT_GE(alone.units, 4u);
    }
  }
  std::filesystem::remove(path);
}

// The records of a stage are those that its INDEX frames tell of, and most stand in the one before.
TEST(BacklogTest, EveryRecordOfAStageHasBeenReadAhead) {
  constexpr int kRecords = 5000;
  wal::Options options = OptionsFor(16);
  for (const uint64_t stage_bytes : {1 << 20, 5 << 20, 0}) {
    SCOPED_TRACE(stage_bytes);
    options.stage_bytes = stage_bytes;
    SimDisk disk;
    // Of two boots: one segment that is sealed, and a last one.
    for (int boot = 0; boot < 2; ++boot) {
      std::unique_ptr<Backlog> backlog;
      auto log = wal::Log::Open(disk, options, &backlog);
      ASSERT_TRUE(log.ok()) << log.message();
      for (int i = 0; i < kRecords / 2; ++i) {
        const int key = i % kKeys;
        const std::string effect =
            Add(key, (*log)->last_lsn() + 1) + "#" + std::string(5000, 'x') + "\n";
        (*log)->Append(RecordType::kEffect, static_cast<uint16_t>(ShardOf(key, 16)), effect);
        if (i % 500 == 0) {
          ASSERT_TRUE(WaitDurable(**log, (*log)->last_lsn()));
        }
      }
      ASSERT_TRUE((*log)->Stop().ok());
    }
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(disk, options, &backlog);
    ASSERT_TRUE(log.ok()) << log.message();
    int applied = 0, read = 0;
    for (Backlog::Piece piece;;) {
      const auto given = backlog->NextPiece(&piece);
      ASSERT_TRUE(given.ok()) << given.message();
      if (!*given) break;
      const auto replayed = backlog->Replay(
          piece, [&](const Backlog::Part&) { return ++applied, Status::Ok(); },
          [&](std::span<const std::string_view> payloads) {
            read += static_cast<int>(payloads.size());
          });
      ASSERT_TRUE(replayed.ok()) << replayed.message();
    }
    EXPECT_EQ(applied, kRecords);
    EXPECT_EQ(read, kRecords);
  }
}

// What concerns all units is met by each of them, counted and told once.
TEST(BacklogTest, WhatSuitsNoUnitIsToldOnce) {
  SimDisk disk;
  const wal::Options options = OptionsFor(64);
  Lsn lsn = 0;
  {
    std::unique_ptr<Backlog> nothing;
    auto log = wal::Log::Open(disk, options, &nothing);
    ASSERT_TRUE(log.ok()) << log.message();
    lsn = (*log)->Append(RecordType::kBroadcast, wal::kBroadcastShard, AddToAll(1));
    ASSERT_TRUE((*log)->Stop().ok());
  }
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(disk, options, &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  ASSERT_EQ(backlog->units(), 64u);
  for (uint32_t unit = 0; unit < backlog->units(); ++unit) {
    const auto replayed =
        backlog->Replay({unit}, [](const Backlog::Part&) { return Status::Error("unheard of"); });
    ASSERT_TRUE(replayed.ok()) << replayed.message();
  }
  const RecoveryReport report = backlog->report();
  ASSERT_EQ(report.warnings.size(), 1u);
  EXPECT_EQ(report.warnings.front(), "LSN " + std::to_string(lsn) + ": unheard of");
  EXPECT_EQ(report.entries_skipped, 1u);
}

TEST(BacklogTest, PacksAreReplayedByUnitsInWindows) {
  wal::Options options = OptionsFor(16);
  options.compression = wal::Compression::kLz4;
  options.unpacked_bytes_max = 16 << 10;
  Maker maker(TestSeed());
  maker.Run(options, 500, /*checkpoints=*/false);
  const Made made = maker.Take();
  std::unique_ptr<Backlog> backlog;
  auto copy = made.disk->Kill();
  auto log = wal::Log::Open(*copy, options, &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  ASSERT_EQ(backlog->units(), 16u);
  ASSERT_FALSE(backlog->any_order());
  Data data;
  std::vector<int> turns(16, 0);
  uint64_t done = 0;
  for (Backlog::Piece piece;;) {
    const auto given = backlog->NextPiece(&piece);
    ASSERT_TRUE(given.ok()) << given.message();
    if (!*given) break;
    ++turns[piece.unit];
    const auto mine = [&](int key) { return ShardOf(key, 16) == piece.unit; };
    const auto replayed = backlog->Replay(piece, [&](const Backlog::Part& part) {
      ApplyEffects(part.payload, mine, &data);
      return Status::Ok();
    });
    ASSERT_TRUE(replayed.ok()) << replayed.message();
    ASSERT_GE(backlog->done_bytes(), done);
    ASSERT_LE(backlog->done_bytes(), backlog->total_bytes());
    done = backlog->done_bytes();
  }
  EXPECT_GT(done, backlog->total_bytes() / 2) << "it was told of on the way";
  EXPECT_EQ(backlog->done_bytes(), backlog->total_bytes());
  EXPECT_TRUE(data == made.data);
  EXPECT_GT(turns[0], 5);
  for (const int each : turns) EXPECT_EQ(each, turns[0]);
}

// A child that dies leaves records in the ring that are in no file.
TEST(BacklogTest, GivesWhatAKilledProcessLeftInTheRing) {
  std::string pattern = testing::TempDir() + "/crab-backlog-XXXXXX";
  const std::string root = mkdtemp(pattern.data());
  wal::Options options = OptionsFor(16);
  options.directory = root + "/wal";
  options.ring_directory = root;
  options.sync_policy = wal::SyncPolicy::kNone;
  options.flush_interval_ms = 60000;
  options.buffer_bytes = 1 << 20;
  const pid_t child = fork();
  if (child == 0) {
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(wal::RealDisk(), options, &backlog);
    if (!log.ok()) _exit(1);
    for (Lsn lsn = 1; lsn <= 500; ++lsn) {
      const int key = static_cast<int>(lsn) % kKeys;
      (*log)->Append(RecordType::kEffect, static_cast<uint16_t>(ShardOf(key, 16)), Add(key, lsn));
      if (lsn != 200) continue;
      (*log)->RequestSync();
      // So that the writer does not find the rest in the ring too and takes it along.
      while ((*log)->durable_lsn() < lsn) std::this_thread::yield();
    }
    _exit(0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(wal::RealDisk(), options, &backlog);
  ASSERT_TRUE(log.ok()) << log.message();
  ASSERT_EQ(backlog->units(), 16u);
  Data data;
  for (uint32_t unit = 0; unit < 16; ++unit) {
    const auto mine = [&](int key) { return ShardOf(key, 16) == unit; };
    ASSERT_TRUE(backlog
                    ->Replay({unit},
                             [&](const Backlog::Part& part) {
                               ApplyEffects(part.payload, mine, &data);
                               return Status::Ok();
                             })
                    .ok());
  }
  for (size_t key = 0; key < data.size(); ++key) {
    std::vector<Lsn> expected;
    for (Lsn lsn = key == 0 ? kKeys : key; lsn <= 500; lsn += kKeys) expected.push_back(lsn);
    ASSERT_EQ(data[key], expected) << key;
  }
  EXPECT_EQ(backlog->report().entries_recovered, 500u);
  EXPECT_GT(backlog->report().ring_entries_recovered, 0u);
  log->reset();
  std::filesystem::remove_all(root);
}

// --- a gap

// 60 records, then a start behind a gap and 20 records more, with or without the checkpoint that
// goes with them; killed.
struct GapLog {
  Made before;
  std::unique_ptr<SimDisk> disk;
  std::string checkpoint;  // its path
  Lsn first = 0;           // behind the gap
};

GapLog MakeGapLog(bool checkpoint) {
  GapLog gap;
  Maker maker(TestSeed());
  maker.Run(OptionsFor(8), 60, true, 20);
  gap.before = maker.Take();
  gap.disk = gap.before.disk->Kill();
  wal::Options options = OptionsFor(8);
  options.after_gap = true;
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(*gap.disk, options, &backlog);
  EXPECT_TRUE(log.ok()) << log.message();
  EXPECT_TRUE(backlog->empty());
  const Lsn before = (*log)->last_lsn();
  gap.first = before + 1;
  if (checkpoint) {
    wal::CheckpointInfo info;
    info.lsn = before;
    info.identity = (*log)->identity();
    auto writer = wal::CheckpointWriter::Create(*gap.disk, kLogDirectory, info,
                                                wal::Compression::kNone, nullptr);
    EXPECT_TRUE((*writer)->Add(static_cast<uint16_t>(ShardOf(5, 8)), "=5 1 2 3\n", 1).ok());
    EXPECT_TRUE((*writer)->Finish().ok());
    EXPECT_TRUE((*writer)->Publish().ok());
    (*log)->SetCheckpoint(before, 0);
    gap.checkpoint = std::string(kLogDirectory) + "/" + wal::CheckpointName(before);
  }
  for (int i = 0; i < 20; ++i) {
    const Lsn lsn = (*log)->last_lsn() + 1;
    (*log)->Append(RecordType::kEffect, static_cast<uint16_t>(ShardOf(7, 8)), Add(7, lsn));
  }
  (*log)->Kick();
  if (checkpoint) {
    EXPECT_TRUE(WaitHealed(**log));
  } else {
    (*log)->RequestSync();
    for (int i = 0; i < 5000 && (*log)->written_lsn() < (*log)->last_lsn(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  auto killed = gap.disk->Kill();
  log->reset();
  gap.disk = std::move(killed);
  return gap;
}

TEST(BacklogTest, WithoutItsCheckpointTheLogEndsBeforeAGap) {
  const GapLog gap = MakeGapLog(/*checkpoint=*/false);
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    SCOPED_TRACE(static_cast<int>(mode));
    auto disk = gap.disk->Kill();
    wal::Options options = OptionsFor(8);
    options.recovery = mode;
    Data expected = gap.before.data;
    for (int start = 0; start < 3; ++start) {
      SCOPED_TRACE(start);
      const Found found = FindByUnits(*disk, options, 1, 1);
      ASSERT_EQ(found.error, "");
      ASSERT_TRUE(found.data == expected);
      ASSERT_TRUE(found.report.lost.empty()) << found.report.warnings.back();
      // The gap's LSNs are given out again, and what gets them counts.
      std::unique_ptr<Backlog> backlog;
      auto log = wal::Log::Open(*disk, options, &backlog);
      ASSERT_TRUE(log.ok()) << log.message();
      const Lsn lsn = (*log)->last_lsn() + 1;
      ASSERT_EQ(lsn, gap.first + static_cast<Lsn>(start));
      (*log)->Append(RecordType::kEffect, static_cast<uint16_t>(ShardOf(9, 8)), Add(9, lsn));
      expected[9].push_back(lsn);
      ASSERT_TRUE((*log)->Stop().ok());
    }
  }
}

TEST(BacklogTest, BehindAGapTheCheckpointIsTheBeginning) {
  const GapLog gap = MakeGapLog(/*checkpoint=*/true);
  Data expected;
  expected[5] = {1, 2, 3};
  for (int i = 0; i < 20; ++i) expected[7].push_back(gap.first + static_cast<Lsn>(i));
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    wal::Options options = OptionsFor(8);
    options.recovery = mode;
    auto disk = gap.disk->Kill();
    const Found found = FindByUnits(*disk, options, 1, 2);
    ASSERT_EQ(found.error, "");
    ASSERT_TRUE(found.data == expected);
    ASSERT_TRUE(found.report.lost.empty());
  }
}

TEST(BacklogTest, TheModeDecidesWhatADamagedCheckpointBehindAGapMeans) {
  const GapLog gap = MakeGapLog(/*checkpoint=*/true);
  for (const uint64_t sector : {uint64_t{0}, uint64_t{8}}) {  // the header, the chunk
    SCOPED_TRACE(sector);
    wal::Options options = OptionsFor(8);
    auto disk = gap.disk->Kill();
    disk->ZeroSector(gap.checkpoint, sector);
    auto kept = disk->Kill();
    Data expected = gap.before.data;
    for (int i = 0; i < 20; ++i) expected[7].push_back(gap.first + static_cast<Lsn>(i));
    const Found salvaged = FindInOrder(*disk, options);
    EXPECT_EQ(salvaged.error, "");
    EXPECT_TRUE(salvaged.data == expected);
    EXPECT_NE(salvaged.report.checkpoint_problem, "");
    EXPECT_FALSE(salvaged.report.warnings.empty());

    options.recovery = RecoveryMode::kStrict;
    disk = kept->Kill();
    EXPECT_NE(FindByUnits(*disk, options, 1, 1).error, "");

    options.recovery = RecoveryMode::kPrefix;
    for (int start = 0; start < 2; ++start) {
      SCOPED_TRACE(start);
      const Found prefix = FindByUnits(*kept, options, 1, 1);
      EXPECT_EQ(prefix.error, "");
      EXPECT_TRUE(prefix.data == gap.before.data);
      EXPECT_FALSE(kept->Exists(gap.checkpoint)) << "it would be taken for one of the time to come";
    }
  }
}

// --- keys

TEST(BacklogTest, RefusesToStartWithoutTheKeyAndChangesNothing) {
  const std::string path = testing::TempDir() + "/crab-backlog-keys-" + std::to_string(getpid());
  wal::Options options = OptionsFor(16);
  options.keys = KeyRingOf(path, 'a');
  for (const bool checkpoints : {false, true}) {
    Maker maker(TestSeed());
    maker.Run(options, 200, checkpoints);
    const Made made = maker.Take();
    ExpectWhole(made, options, TestSeed());
    if (HasFatalFailure()) return;
    for (const bool other_key : {false, true}) {
      for (const RecoveryMode mode :
           {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
        wal::Options wrong = options;
        wrong.recovery = mode;
        wrong.keys = other_key ? KeyRingOf(path, 'b') : nullptr;
        auto copy = made.disk->Kill();
        std::unique_ptr<Backlog> backlog;
        auto log = wal::Log::Open(*copy, wrong, &backlog);
        ASSERT_FALSE(log.ok());
        EXPECT_EQ(log.system_errno(), ENOKEY);
        EXPECT_NE(log.message().find("key"), std::string::npos);
        for (const std::string& file : made.disk->Paths()) {
          ASSERT_EQ(copy->Contents(file), made.disk->Contents(file)) << file;
        }
      }
    }
  }
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace crab::test

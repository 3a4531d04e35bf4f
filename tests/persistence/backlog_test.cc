// A log of random effects, atomic groups and broadcasts, over epochs of different shard counts,
// with checkpoints, indexes and packs. Whatever the order of the units and the number of threads,
// what they bring back is what the whole log in order brings back, and both are what the model
// holds.
//
// The data: each of a fixed number of keys holds the LSNs of the effects it has seen, in order, so
// a record that is applied twice, out of order, not at all or to the wrong key shows.
#include "persistence/backlog.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/index.h"
#include "persistence/log.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

using wal::Backlog;
using wal::Lsn;
using wal::RecordType;
using wal::RecoveryMode;
using wal::RecoveryReport;

constexpr int kKeys = 96;
using Data = std::array<std::vector<Lsn>, kKeys>;

uint32_t ShardOf(int key, uint32_t shard_count) {
  const uint64_t hash = Mix(1234567, static_cast<uint64_t>(key));
  return static_cast<uint32_t>((hash >> 32) * shard_count >> 32);
}

// --- effects: "+<key> <lsn>\n" for one key, "*<lsn>\n" for all, "=<key> <lsn> <lsn> ...\n" sets
// one.

std::string Add(int key, Lsn lsn) {
  return "+" + std::to_string(key) + " " + std::to_string(lsn) + "\n";
}
std::string AddToAll(Lsn lsn) { return "*" + std::to_string(lsn) + "\n"; }

uint64_t TakeNumber(std::string_view* text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  EXPECT_EQ(error, std::errc());
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return number;
}

// Applies effects; those for all only to the keys of which `mine` is true.
void ApplyEffects(std::string_view effects, const std::function<bool(int)>& mine, Data* data) {
  while (!effects.empty()) {
    std::string_view line = effects.substr(0, effects.find('\n'));
    effects.remove_prefix(line.size() + 1);
    const char kind = line.front();
    line.remove_prefix(1);
    if (kind == '#') continue;  // what only takes room
    if (kind == '*') {
      const Lsn lsn = TakeNumber(&line);
      for (int key = 0; key < kKeys; ++key) {
        if (mine(key)) (*data)[key].push_back(lsn);
      }
      continue;
    }
    const auto key = static_cast<size_t>(TakeNumber(&line));
    ASSERT_LT(key, data->size());
    ASSERT_TRUE(mine(static_cast<int>(key))) << "a key of another unit";
    if (kind == '=') (*data)[key].clear();
    while (!line.empty()) {
      line.remove_prefix(1);
      (*data)[key].push_back(TakeNumber(&line));
    }
  }
}

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// --- making a log

struct Made {
  std::unique_ptr<SimDisk> disk;
  Data data;
  Lsn last = 0;
  wal::Options options;
};

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) { made_.disk = std::make_unique<SimDisk>(); }

  // One boot: `records` of all kinds, now and then a new segment.
  void Run(wal::Options options, int records, bool checkpoints, size_t padding_max = 200) {
    std::unique_ptr<Backlog> backlog;
    auto log = wal::Log::Open(*made_.disk, options, &backlog);
    ASSERT_TRUE(log.ok()) << log.message();
    made_.options = options;
    for (int i = 0; i < records; ++i) {
      AppendOne(**log, options.shard_count, padding_max);
      if (random_() % 40 == 0) (*log)->RequestRotate();
      if (random_() % 20 == 0) WaitDurable(**log, (*log)->last_lsn());
      if (checkpoints && random_() % 60 == 0) Checkpoint(**log, options);
    }
    if (checkpoints) Checkpoint(**log, options);
    ASSERT_TRUE((*log)->Stop().ok());
    made_.last = (*log)->last_lsn();
  }

  void Checkpoint(wal::Log& log, const wal::Options& options) {
    const Lsn lsn = log.last_lsn();
    ASSERT_TRUE(WaitDurable(log, lsn));
    wal::CheckpointInfo info;
    info.lsn = lsn;
    info.identity = log.identity();
    auto writer = wal::CheckpointWriter::Create(*made_.disk, options.directory, info,
                                                options.compression, options.keys);
    ASSERT_TRUE(writer.ok()) << writer.message();
    for (uint32_t shard = 0; shard < options.shard_count; ++shard) {
      for (int key = 0; key < kKeys; ++key) {
        if (ShardOf(key, options.shard_count) != shard || made_.data[key].empty()) continue;
        std::string effect = "=" + std::to_string(key);
        for (const Lsn each : made_.data[key]) effect += " " + std::to_string(each);
        ASSERT_TRUE((*writer)->Add(static_cast<uint16_t>(shard), effect + "\n", 1).ok());
      }
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    ASSERT_TRUE((*writer)->Publish().ok());
  }

  Made Take() { return std::move(made_); }

 private:
  void AppendOne(wal::Log& log, uint32_t shard_count, size_t padding_max) {
    const Lsn lsn = log.last_lsn() + 1;
    const std::string padding = "#" + std::string(random_() % padding_max, 'x') + "\n";
    const auto all = [](int) { return true; };
    const uint64_t kind = random_() % 20;
    if (kind == 0) {
      ApplyEffects(AddToAll(lsn), all, &made_.data);
      log.Append(RecordType::kBroadcast, wal::kBroadcastShard, AddToAll(lsn));
    } else if (kind < 4) {
      std::string directory, effects;
      const uint64_t count = 2 + random_() % 6;
      AppendVarint(count, &directory);
      for (uint64_t i = 0; i < count; ++i) {
        const int key = static_cast<int>(random_() % kKeys);
        const bool broadcast = random_() % 30 == 0;
        const std::string effect = broadcast ? AddToAll(lsn) : Add(key, lsn) + padding;
        const auto shard =
            broadcast ? wal::kBroadcastShard : static_cast<uint16_t>(ShardOf(key, shard_count));
        directory.append(reinterpret_cast<const char*>(&shard), sizeof(shard));
        AppendVarint(effect.size(), &directory);
        effects += effect;
      }
      ApplyEffects(effects, all, &made_.data);
      log.Append(RecordType::kTxn, wal::kBroadcastShard, directory + effects);
    } else if (kind == 4) {
      log.SetSyncPolicy(wal::SyncPolicy::kSync);  // a record of its own
    } else {
      const int key = static_cast<int>(random_() % kKeys);
      const std::string effect = padding + Add(key, lsn);
      ApplyEffects(effect, all, &made_.data);
      log.Append(RecordType::kEffect, static_cast<uint16_t>(ShardOf(key, shard_count)), effect);
    }
  }

  std::mt19937_64 random_;
  Made made_;
};

// --- bringing it back

struct Found {
  Data data;
  RecoveryReport report;
  uint32_t units = 0;
  std::string error;
};

Found FindByUnits(SimDisk& disk, const wal::Options& options, uint64_t seed, int threads) {
  Found found;
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(disk, options, &backlog);
  if (!log.ok()) {
    found.error = log.message();
    return found;
  }
  found.units = backlog->units();
  std::vector<uint32_t> order(found.units);
  for (uint32_t unit = 0; unit < found.units; ++unit) order[unit] = unit;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&] {
    for (size_t i = next++; i < order.size(); i = next++) {
      const uint32_t unit = order[i];
      const auto mine = [&](int key) { return ShardOf(key, found.units) == unit; };
      const Status replayed = backlog->Replay(unit, [&](const Backlog::Part& part) {
        ApplyEffects(part.payload, mine, &found.data);
        return Status::Ok();
      });
      if (!replayed.ok()) failed = true;
    }
  };
  std::vector<std::thread> workers;
  for (int i = 1; i < threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) worker.join();
  if (failed) found.error = "a unit cannot be replayed";
  found.report = backlog->report();
  EXPECT_EQ(backlog->done_bytes(), failed ? backlog->done_bytes() : backlog->total_bytes());
  return found;
}

Found FindInOrder(SimDisk& disk, const wal::Options& options) {
  Found found;
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(disk, options, &backlog);
  if (!log.ok()) {
    found.error = log.message();
    return found;
  }
  const Status replayed = backlog->ReplayInOrder([&](const wal::RecordView& record) {
    std::string_view effects = record.payload;
    std::vector<wal::TxnPart> parts;
    if (record.type == RecordType::kTxn) {
      EXPECT_TRUE(wal::ReadTxnDirectory(effects, &parts));
      effects.remove_prefix(parts.front().offset);
    }
    ApplyEffects(
        effects, [](int) { return true; }, &found.data);
    return Status::Ok();
  });
  found.error = replayed.message();
  found.report = backlog->report();
  return found;
}

// Both roads find all of it.
void ExpectWhole(const Made& made, wal::Options options, uint64_t seed) {
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    SCOPED_TRACE(static_cast<int>(mode));
    options.recovery = mode;
    auto copy = made.disk->Kill();
    const Found ordered = FindInOrder(*copy, options);
    ASSERT_EQ(ordered.error, "");
    ASSERT_TRUE(ordered.report.lost.empty());
    ASSERT_TRUE(ordered.data == made.data);
    copy = made.disk->Kill();
    const Found by_units = FindByUnits(*copy, options, seed, 3);
    ASSERT_EQ(by_units.error, "");
    ASSERT_TRUE(by_units.report.lost.empty()) << by_units.report.warnings.front();
    ASSERT_TRUE(by_units.data == made.data) << by_units.units << " units";
    ASSERT_EQ(by_units.report.entries_recovered, ordered.report.entries_recovered);
    ASSERT_EQ(by_units.report.entries_skipped, ordered.report.entries_skipped);
  }
}

wal::Options OptionsFor(uint32_t shard_count) {
  wal::Options options = LogOptions(wal::SyncPolicy::kSync);
  options.shard_count = shard_count;
  return options;
}

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
      if (lsn == 200) (*log)->RequestSync();
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
                    ->Replay(unit,
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

// --- damage

// Nothing but what was appended, in its order, and each LSN that is missing is among the lost.
void ExpectHonest(const Data& model, const Found& found) {
  const auto is_lost = [&](Lsn lsn) {
    return std::any_of(found.report.lost.begin(), found.report.lost.end(),
                       [&](const auto& range) { return range.first <= lsn && lsn <= range.last; });
  };
  for (size_t key = 0; key < model.size(); ++key) {
    size_t at = 0;
    for (const Lsn lsn : model[key]) {
      if (at < found.data[key].size() && found.data[key][at] == lsn) {
        ++at;
      } else {
        ASSERT_TRUE(is_lost(lsn)) << "key " << key << " lacks LSN " << lsn << " without a word";
      }
    }
    ASSERT_EQ(at, found.data[key].size()) << "key " << key << " holds what it never held";
  }
}

Made SmallLog(uint64_t seed, bool checkpoints) {
  Maker maker(seed);
  maker.Run(OptionsFor(8), 60, false, 20);
  if (checkpoints) {
    maker.Run(OptionsFor(8), 40, true, 20);
    maker.Run(OptionsFor(8), 40, true, 20);
  }
  maker.Run(OptionsFor(8), 40, false, 20);
  // Its header states that all before it was durable.
  maker.Run(OptionsFor(8), 0, false, 20);
  return maker.Take();
}

void TryDamage(const Made& made, const std::function<void(SimDisk&)>& damage, bool costs_data,
               uint64_t seed) {
  auto copy = made.disk->Kill();
  damage(*copy);
  const wal::Options options = OptionsFor(8);
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

TEST(BacklogTest, ADamagedCheckpointCostsNoData) {
  const Made made = SmallLog(TestSeed(), true);
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
    if (HasFatalFailure()) return;
  }
  for (uint64_t size = 0; size < bytes.size(); size += LongTests() ? 1 : 97) {
    SCOPED_TRACE(testing::Message() << newest << " cut at " << size);
    ++cases;
    TryDamage(
        made, [&](SimDisk& disk) { disk.Cut(newest, size); }, false, size);
    if (HasFatalFailure()) return;
  }
  for (const std::string& path : paths) {
    SCOPED_TRACE("without " + path);
    ++cases;
    TryDamage(
        made, [&](SimDisk& disk) { disk.RemoveFile(path); }, false, 1);
    if (HasFatalFailure()) return;
  }
  TryDamage(
      made,
      [&](SimDisk& disk) {
        for (const std::string& path : paths) disk.FlipBit(path, disk.Contents(path).size() * 4);
      },
      false, 1);
  RecordProperty("cases", static_cast<int>(cases));
}

// What one checkpoint has begun no other one finishes: where the chunks of a unit are too large to
// be kept from the check on, and are not there the second time.
TEST(BacklogTest, ACheckpointThatIsGoneWhileItIsAppliedEndsTheReplay) {
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
  const Status replayed = backlog->Replay(0, [&](const Backlog::Part& part) {
    EXPECT_TRUE(part.of_checkpoint);
    if (parts++ == 0) made.disk->AddFault({.calls = kMap, .nth = 1, .error = EIO});
    return Status::Ok();
  });
  EXPECT_FALSE(replayed.ok());
  EXPECT_NE(replayed.message().find("has been applied"), std::string::npos) << replayed.message();
  EXPECT_LT(parts, 10);
}

TEST(BacklogTest, TellsOfEveryDamageInASegment) {
  for (const bool checkpoints : {false, true}) {
    const Made made = SmallLog(TestSeed(), checkpoints);
    std::mt19937_64 random(TestSeed());
    for (const std::string& path : SegmentPaths(*made.disk)) {
      const uint64_t size = made.disk->Contents(path).size();
      for (int i = 0; i < (LongTests() ? 5000 : 30); ++i) {
        const uint64_t bit =
            random() % 8 +
            8 * (i % 4 == 0
                     ? random() % size
                     : std::min(size - 1, 4096 + random() % std::max<uint64_t>(size - 4096, 1)));
        SCOPED_TRACE(testing::Message() << path << " bit " << bit);
        TryDamage(
            made, [&](SimDisk& disk) { disk.FlipBit(path, bit); }, true, bit);
        if (HasFatalFailure()) return;
      }
      for (uint64_t sector = 0; sector * 512 < size; sector += LongTests() ? 1 : 1 + random() % 6) {
        SCOPED_TRACE(testing::Message() << path << " sector " << sector);
        TryDamage(
            made, [&](SimDisk& disk) { disk.ZeroSector(path, sector); }, true, sector);
        if (HasFatalFailure()) return;
      }
      for (int i = 0; i < (LongTests() ? 2000 : 8); ++i) {
        const uint64_t cut = random() % size;
        SCOPED_TRACE(testing::Message() << path << " cut at " << cut);
        TryDamage(
            made, [&](SimDisk& disk) { disk.Cut(path, cut); }, true, cut);
        if (HasFatalFailure()) return;
      }
      SCOPED_TRACE("without " + path);
      TryDamage(
          made, [&](SimDisk& disk) { disk.RemoveFile(path); }, true, 1);
      if (HasFatalFailure()) return;
    }
  }
}

TEST(BacklogTest, TellsOfFilesThatAreSwappedOrThereTwice) {
  const Made made = SmallLog(TestSeed(), true);
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
      if (HasFatalFailure()) return;
    }
    SCOPED_TRACE("a second " + one);
    TryDamage(
        made,
        [&](SimDisk& disk) {
          disk.PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(0), disk.Contents(one));
        },
        false, 3);
    if (HasFatalFailure()) return;
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
    if (HasFatalFailure()) return;
  }
}

// --- checkpoints that do not fit the segments

TEST(BacklogTest, BeginsAnewBehindACheckpointWhoseSegmentsAreGone) {
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
      const Status replayed = backlog->Replay(unit, [&](const Backlog::Part& part) {
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

TEST(BacklogTest, UsesNoCheckpointOfAnotherLog) {
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

TEST(BacklogTest, SegmentsBelowTheCheckpointAreNotMissed) {
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
TEST(BacklogTest, IsHonestWhicheverCallOfTheDiskFails) {
  const Made made = SmallLog(TestSeed(), true);
  uint64_t cases = 0;
  for (const bool for_ever : {false, true}) {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << nth << (for_ever ? " and all after it" : ""));
      auto disk = made.disk->Kill();
      disk->AddFault({.calls = kAnyCall, .nth = nth, .error = EIO, .for_ever = for_ever});
      const Found found = FindByUnits(*disk, OptionsFor(8), nth, 1);
      ++cases;
      if (found.error == "") ExpectHonest(made.data, found);
      if (HasFatalFailure()) return;
      if (disk->failed_calls() == 0) break;
    }
  }
  RecordProperty("cases", static_cast<int>(cases));
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

std::shared_ptr<const wal::KeyRing> KeyRingOf(const std::string& path, char digit) {
  std::ofstream(path) << std::string(64, digit) << "\n";
  auto keys = wal::KeyRing::Load(path);
  EXPECT_TRUE(keys.ok()) << keys.message();
  return std::move(*keys);
}

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

// Who may write to the directory can make a checksum, but no record: all that counts in a segment
// with a key is encrypted.
TEST(BacklogTest, BelievesNoPlainRecordInASegmentWithAKey) {
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

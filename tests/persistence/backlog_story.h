// A log of random effects, atomic groups and broadcasts, over epochs of different shard counts,
// with checkpoints, indexes and packs. Whatever the order of the units and the number of threads,
// what they bring back is what the whole log in order brings back, and both are what the model
// holds.
//
// The data: each of a fixed number of keys holds the LSNs of the effects it has seen, in order, so
// a record that is applied twice, out of order, not at all or to the wrong key shows.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/checkpoint.h"
#include "persistence/codec.h"
#include "persistence/index.h"
#include "persistence/log.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {

using wal::Backlog;
using wal::Lsn;
using wal::RecordType;
using wal::RecoveryMode;
using wal::RecoveryReport;

constexpr int kKeys = 96;
using Data = std::array<std::vector<Lsn>, kKeys>;

inline uint32_t ShardOf(int key, uint32_t shard_count) {
  const uint64_t hash = Mix(1234567, static_cast<uint64_t>(key));
  return static_cast<uint32_t>((hash >> 32) * shard_count >> 32);
}

// --- effects: "+<key> <lsn>\n" for one key, "*<lsn>\n" for all, "=<key> <lsn> <lsn> ...\n" sets
// one.

inline std::string Add(int key, Lsn lsn) {
  return "+" + std::to_string(key) + " " + std::to_string(lsn) + "\n";
}
inline std::string AddToAll(Lsn lsn) { return "*" + std::to_string(lsn) + "\n"; }

inline uint64_t TakeNumber(std::string_view* text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), number);
  EXPECT_EQ(error, std::errc());
  text->remove_prefix(static_cast<size_t>(end - text->data()));
  return number;
}

// Applies effects; those for all only to the keys of which `mine` is true.
inline void ApplyEffects(std::string_view effects, const std::function<bool(int)>& mine,
                         Data* data) {
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

inline void AppendVarint(uint64_t value, std::string* out) {
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
  bool any_order = false;
  std::string error;
};

inline Found FindByUnits(SimDisk& disk, const wal::Options& options, uint64_t seed, int threads) {
  Found found;
  std::unique_ptr<Backlog> backlog;
  auto log = wal::Log::Open(disk, options, &backlog);
  if (!log.ok()) {
    found.error = log.message();
    return found;
  }
  found.units = backlog->units();
  found.any_order = backlog->any_order();
  // Some are asked for whole, in a random order; the workers go through them all meanwhile, a stage
  // at a time. As by the server, a unit is replayed by one at a time.
  std::vector<std::mutex> held(found.units);
  std::vector<std::atomic<bool>> whole(found.units);
  std::atomic<bool> failed{false};
  const auto replay = [&](const Backlog::Piece& piece) {
    const std::lock_guard lock(held[piece.unit]);
    if (whole[piece.unit]) return;
    const auto mine = [&](int key) { return ShardOf(key, found.units) == piece.unit; };
    const auto replayed = backlog->Replay(piece, [&](const Backlog::Part& part) {
      ApplyEffects(part.payload, mine, &found.data);
      return Status::Ok();
    });
    if (replayed.ok()) whole[piece.unit] = *replayed;
    if (!replayed.ok()) failed = true;
  };
  const auto work = [&] {
    for (Backlog::Piece piece; !failed;) {
      const auto given = backlog->NextPiece(&piece);
      if (!given.ok()) failed = true;
      if (!given.ok() || !*given) return;
      replay(piece);
    }
  };
  std::vector<std::thread> workers;
  if (found.any_order) {
    std::vector<uint32_t> order(found.units);
    for (uint32_t unit = 0; unit < found.units; ++unit) order[unit] = unit;
    std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    order.resize(seed % (found.units + 1));
    const size_t before = order.size() / 2;
    for (size_t i = 0; i < before; ++i) replay({order[i]});
    workers.emplace_back([&, before, order = std::move(order)] {
      for (size_t i = before; i < order.size() && !failed; ++i) replay({order[i]});
    });
    if (threads == 1) workers.front().join();
  }
  for (int i = 1; i < threads; ++i) workers.emplace_back(work);
  work();
  for (std::thread& worker : workers) {
    if (worker.joinable()) worker.join();
  }
  if (failed) found.error = "a unit cannot be replayed";
  found.report = backlog->report();
  EXPECT_EQ(backlog->done_bytes(), failed ? backlog->done_bytes() : backlog->total_bytes());
  return found;
}

inline Found FindInOrder(SimDisk& disk, const wal::Options& options) {
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
inline void ExpectWhole(const Made& made, wal::Options options, uint64_t seed) {
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

inline wal::Options OptionsFor(uint32_t shard_count) {
  wal::Options options = LogOptions(wal::SyncPolicy::kSync);
  options.shard_count = shard_count;
  options.stage_bytes = 3000;  // a log of these tests has several
  return options;
}

// With `options` in some boots (the last ones, too) and plain ones in others.
inline Made SmallLog(uint64_t seed, bool checkpoints, const wal::Options& options = OptionsFor(8)) {
  Maker maker(seed);
  maker.Run(OptionsFor(8), 60, false, 20);
  if (checkpoints) {
    maker.Run(options, 40, true, 20);
    wal::Options plain = options;
    plain.compression = wal::Compression::kNone;
    maker.Run(plain, 40, true, 20);
  }
  maker.Run(options, 40, false, 20);
  // Its header states that all before it was durable.
  maker.Run(options, 0, false, 20);
  return maker.Take();
}

// Nothing but what was appended, in its order, and each LSN that is missing is among the lost.
inline void ExpectHonest(const Data& model, const Found& found) {
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

inline std::shared_ptr<const wal::KeyRing> KeyRingOf(const std::string& path, char digit) {
  std::ofstream(path) << std::string(64, digit) << "\n";
  auto keys = wal::KeyRing::Load(path);
  EXPECT_TRUE(keys.ok()) << keys.message();
  return std::move(*keys);
}

}  // namespace crab::test

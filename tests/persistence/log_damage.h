// Logs, what is known to be durable in them, and the judgement of what is found of a damaged one:
// nothing that was not appended, every durable record that is gone reported, `prefix` stopped
// before the first of them, `strict` refused.
//
// What counts as known to be durable is worked out here from the undamaged log: every statement
// (header, BATCH, SEAL, STOP) that the damage has left in place.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <random>
#include <thread>

#include "persistence/log.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/segment.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/stated_durable.h"

namespace crab::test {

using wal::Lsn;
using wal::RecoveryMode;
using wal::SyncPolicy;

struct Original {
  std::map<std::string, std::string> files;
  Records records;
  std::vector<Statement> statements;

  std::unique_ptr<SimDisk> Disk() const {
    auto disk = std::make_unique<SimDisk>();
    for (const auto& [path, bytes] : files) disk->PutFile(path, bytes);
    return disk;
  }
};

// Where frames end and zeroed space begins.
inline uint64_t UsedBytes(const std::string& bytes) { return bytes.find_last_not_of('\0') + 1; }

// Of the megabyte of zeroes ahead of the records a little is kept: searching all of it a hundred
// thousand times proves no more.
inline void ShortenZeroes(SimDisk& disk) {
  for (const std::string& path : SegmentPaths(disk)) {
    const std::string bytes = disk.Contents(path);
    disk.Cut(path, std::min<uint64_t>(bytes.size(), (UsedBytes(bytes) + 1024) / 512 * 512));
  }
}

inline Original TakeOriginal(SimDisk& disk, const Records& records) {
  ShortenZeroes(disk);
  Original original;
  original.records = records;
  for (const std::string& path : SegmentPaths(disk)) original.files[path] = disk.Contents(path);
  auto reader = wal::Reader::Open(disk, kLogDirectory);
  EXPECT_TRUE(reader.ok()) << reader.message();
  if (reader.ok()) original.statements = StatementsOf(**reader);
  return original;
}

// Three boots, each cleanly stopped: three epochs, three segments.
inline Original StoppedLog(wal::Compression compression = wal::Compression::kNone) {
  SimDisk disk;
  Promise promise;
  wal::Options options = LogOptions(SyncPolicy::kSync);
  options.compression = compression;
  for (int boot = 0; boot < 3; ++boot) {
    Boot run = BootLog(disk, options);
    EXPECT_NE(run.log, nullptr) << run.error;
    for (int i = 0; i < 8; ++i) {
      const Lsn lsn = promise.Append(*run.log, static_cast<size_t>(i * 11));
      EXPECT_TRUE(i % 3 != 0 || WaitDurable(*run.log, lsn));
    }
    EXPECT_TRUE(run.log->Stop().ok());
  }
  return TakeOriginal(disk, promise.appended());
}

// The power failed under it, and every written byte survived.
inline Original KilledLog() {
  SimDisk disk({.survivors = Survivors::kAll});
  Promise promise;
  std::unique_ptr<SimDisk> after;
  for (int boot = 0; boot < 2; ++boot) {
    Boot run = BootLog(disk, LogOptions(SyncPolicy::kSync));
    EXPECT_NE(run.log, nullptr) << run.error;
    for (int i = 0; i < 8; ++i) {
      EXPECT_TRUE(WaitDurable(*run.log, promise.Append(*run.log, static_cast<size_t>(i * 11))));
    }
    if (boot == 1) after = disk.PowerCut();
  }
  return TakeOriginal(*after, promise.appended());
}

struct LostRange {
  Lsn first, last;
};

inline std::string Judge(const Original& original, Lsn stated, const Records& found,
                         const std::vector<LostRange>& lost) {
  const auto is_lost = [&](Lsn lsn) {
    return std::any_of(lost.begin(), lost.end(), [&](const LostRange& range) {
      return range.first <= lsn && lsn <= range.last;
    });
  };
  for (const auto& [lsn, record] : found) {
    const auto appended = original.records.find(lsn);
    if (appended == original.records.end()) return "invented LSN " + std::to_string(lsn);
    if (!(appended->second == record)) return "changed LSN " + std::to_string(lsn);
    if (is_lost(lsn)) return "found LSN " + std::to_string(lsn) + " and reported it as lost";
  }
  for (const auto& [lsn, record] : original.records) {
    if (found.count(lsn) == 0 && lsn <= stated && !is_lost(lsn)) {
      return "LSN " + std::to_string(lsn) + " is gone without a word";
    }
  }
  return "";
}

// Only reads: fast enough for every bit.
inline void ExpectReaderHonest(const Original& original, SimDisk& disk,
                               const std::vector<Damage>& damages) {
  auto reader = wal::Reader::Open(disk, kLogDirectory);
  ASSERT_TRUE(reader.ok()) << reader.message();
  Records found;
  std::vector<LostRange> lost;
  wal::Frame frame;
  for (;;) {
    auto more = (*reader)->Next(&frame);
    ASSERT_TRUE(more.ok()) << more.message();
    if (!*more) break;
    if (frame.verdict == wal::Verdict::kGood) {
      if (frame.type >= 1 && frame.type <= 3) {
        ASSERT_EQ(found.count(frame.lsn), 0u) << "twice";
        found[frame.lsn] = {static_cast<wal::RecordType>(frame.type), frame.shard,
                            std::string(frame.payload)};
      }
      continue;
    }
    ASSERT_NE(frame.reason, "");
    if (frame.verdict == wal::Verdict::kCorrupt || frame.verdict == wal::Verdict::kMissing) {
      lost.push_back({frame.lost_first, frame.lost_last});
    }
  }
  ASSERT_EQ(Judge(original, StatedDurable(original.statements, damages), found, lost), "");
}

// The whole start of a server, in all three modes.
inline void ExpectLogHonest(const Original& original,
                            const std::function<std::unique_ptr<SimDisk>()>& make,
                            const std::vector<Damage>& damages) {
  wal::Options options = LogOptions(SyncPolicy::kSync);
  options.recovery = RecoveryMode::kSalvage;
  auto disk = make();
  Boot salvage = BootLog(*disk, options);
  ASSERT_NE(salvage.log, nullptr) << salvage.error;
  ASSERT_TRUE(salvage.in_order);
  std::vector<LostRange> lost;
  Lsn first_lost = ~Lsn{0};
  for (const auto& range : salvage.report.lost) {
    lost.push_back({range.first, range.last});
    ASSERT_NE(range.where, "");
    if (range.first <= range.last) first_lost = std::min(first_lost, range.first);
  }
  ASSERT_EQ(Judge(original, StatedDurable(original.statements, damages), salvage.records, lost),
            "");
  ASSERT_EQ(salvage.report.entries_recovered, salvage.records.size());
  // What was salvaged stays, also when the next start happens before anything was written.
  salvage.log.reset();
  Boot again = BootLog(*disk, options);
  ASSERT_NE(again.log, nullptr) << again.error;
  ASSERT_TRUE(again.records == salvage.records) << "the second start finds something else";
  again.log.reset();

  options.recovery = RecoveryMode::kStrict;
  disk = make();
  const std::vector<std::string> paths = disk->Paths();
  Boot strict = BootLog(*disk, options);
  if (first_lost != ~Lsn{0}) {
    ASSERT_EQ(strict.log, nullptr) << "strict started on a log that lost records";
    ASSERT_NE(strict.error, "");
    for (const std::string& path : paths) {
      ASSERT_EQ(disk->Contents(path), make()->Contents(path)) << "refused, and changed " << path;
    }
  }
  ASSERT_TRUE(strict.log == nullptr || strict.records == salvage.records);
  strict.log.reset();

  options.recovery = RecoveryMode::kPrefix;
  disk = make();
  Boot prefix = BootLog(*disk, options);
  if (prefix.log == nullptr) {
    // Without one good header nothing is a prefix of anything.
    ASSERT_TRUE(salvage.records.empty()) << prefix.error;
    ASSERT_NE(prefix.error, "");
    return;
  }
  for (const auto& [lsn, record] : salvage.records) {
    ASSERT_EQ(prefix.records.count(lsn) != 0, lsn < first_lost) << "LSN " << lsn;
  }
  for (const auto& [lsn, record] : prefix.records) {
    ASSERT_TRUE(original.records.at(lsn) == record);
  }
  ASSERT_TRUE(first_lost == ~Lsn{0} || !prefix.report.warnings.empty());
  // The prefix is the log from now on: what is appended now follows it and is found behind it.
  const Lsn lsn = prefix.log->Append(wal::RecordType::kEffect, 1, "after the prefix");
  ASSERT_TRUE(WaitDurable(*prefix.log, lsn));
  prefix.log.reset();
  prefix.records[lsn] = {wal::RecordType::kEffect, 1, "after the prefix"};
  again = BootLog(*disk, options);
  ASSERT_NE(again.log, nullptr) << again.error;
  ASSERT_TRUE(again.records == prefix.records) << "the start after a prefix finds something else";
}

// `damage` is done to a fresh copy. Every `log_every`-th case takes the whole start as well.
class Damager {
 public:
  Damager(const Original& original, uint64_t log_every)
      : original_(original), log_every_(LongTests() ? 1 : log_every), scratch_(original.Disk()) {}
  ~Damager() { std::cout << "cases: " << cases_ << ", of them booted: " << boots_ << "\n"; }

  // `damage` changes at most the files named in `damages`.
  void Try(const std::vector<Damage>& damages, const std::function<void(SimDisk&)>& damage) {
    if (testing::Test::HasFatalFailure()) return;
    ++cases_;
    damage(*scratch_);
    ExpectReaderHonest(original_, *scratch_, damages);
    if (scratch_->Paths().size() != original_.files.size()) {
      scratch_ = original_.Disk();
    } else {
      for (const Damage& damaged : damages) {
        scratch_->PutFile(damaged.path, original_.files.at(damaged.path));
      }
    }
    if (cases_ % log_every_ != 0) return;
    ++boots_;
    ExpectLogHonest(
        original_,
        [&] {
          auto disk = original_.Disk();
          damage(*disk);
          return disk;
        },
        damages);
  }

 private:
  const Original& original_;
  const uint64_t log_every_;
  std::unique_ptr<SimDisk> scratch_;
  uint64_t cases_ = 0;
  uint64_t boots_ = 0;
};

inline void ForEachLog(const std::function<void(const Original&)>& test) {
  {
    SCOPED_TRACE("a log that was stopped");
    test(StoppedLog());
  }
  {
    SCOPED_TRACE("a log of packs");
    test(StoppedLog(wal::Compression::kLz4));
  }
  SCOPED_TRACE("a log whose machine died");
  test(KilledLog());
}

}  // namespace crab::test

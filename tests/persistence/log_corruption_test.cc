// Durable bytes go bad: bits, sectors, ends, whole segments. Whatever the damage, nothing is
// applied that was not appended, every durable record that is gone is reported, `prefix` stops
// before the first of them and `strict` refuses.
//
// What counts as known to be durable is worked out here from the undamaged log: every statement
// (header, BATCH, SEAL, STOP) that the damage has left in place.
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

namespace crab::test {
namespace {

using wal::Lsn;
using wal::RecoveryMode;
using wal::SyncPolicy;

// Says that everything up to `durable` was durable; stands in these bytes of the file.
struct Statement {
  std::string path;
  uint64_t begin, end;
  Lsn durable;
};

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
uint64_t UsedBytes(const std::string& bytes) { return bytes.find_last_not_of('\0') + 1; }

// Of the megabyte of zeroes ahead of the records a little is kept: searching all of it a hundred
// thousand times proves no more.
void ShortenZeroes(SimDisk& disk) {
  for (const std::string& path : SegmentPaths(disk)) {
    const std::string bytes = disk.Contents(path);
    disk.Cut(path, std::min<uint64_t>(bytes.size(), (UsedBytes(bytes) + 1024) / 512 * 512));
  }
}

Original TakeOriginal(SimDisk& disk, const Records& records) {
  ShortenZeroes(disk);
  Original original;
  original.records = records;
  for (const std::string& path : SegmentPaths(disk)) original.files[path] = disk.Contents(path);
  auto reader = wal::Reader::Open(disk, kLogDirectory);
  EXPECT_TRUE(reader.ok()) << reader.message();
  for (const wal::SegmentInfo& segment : (*reader)->segments()) {
    original.statements.push_back({segment.path, 0, wal::kSegmentHeaderBytes,
                                   std::max(segment.durable_lsn, segment.first_lsn - 1)});
  }
  wal::Frame frame;
  for (;;) {
    auto more = (*reader)->Next(&frame);
    EXPECT_TRUE(more.ok()) << more.message();
    if (!more.ok() || !*more) break;
    EXPECT_EQ(frame.verdict, wal::Verdict::kGood) << frame.reason;
    const auto type = static_cast<wal::FrameType>(frame.type);
    Lsn durable = 0;
    if (type == wal::FrameType::kBatch) {
      wal::BatchPayload batch;
      std::memcpy(&batch, frame.payload.data(), sizeof(batch));
      durable = batch.durable_lsn;
    } else if (type == wal::FrameType::kSeal || type == wal::FrameType::kStop) {
      durable = frame.lsn;
    }
    if (durable > 0) {
      original.statements.push_back(
          {frame.segment->path, frame.offset, frame.offset + frame.bytes, durable});
    }
  }
  return original;
}

// Three boots, each cleanly stopped: three epochs, three segments.
Original StoppedLog(wal::Compression compression = wal::Compression::kNone) {
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
Original KilledLog() {
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

struct Damage {
  std::string path;
  uint64_t begin = 0, end = ~uint64_t{0};  // bytes that are no longer what they were
};

// The largest LSN that an undamaged statement calls durable. Without its header a segment's other
// statements cannot be checked, so they count for nothing.
Lsn StatedDurable(const Original& original, const std::vector<Damage>& damages) {
  Lsn stated = 0;
  for (const Statement& statement : original.statements) {
    const bool hit = std::any_of(damages.begin(), damages.end(), [&](const Damage& damage) {
      return damage.path == statement.path && damage.begin < damage.end &&
             (damage.begin < wal::kSegmentHeaderBytes ||
              (damage.begin < statement.end && statement.begin < damage.end));
    });
    if (!hit) stated = std::max(stated, statement.durable);
  }
  return stated;
}

struct LostRange {
  Lsn first, last;
};

std::string Judge(const Original& original, Lsn stated, const Records& found,
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
void ExpectReaderHonest(const Original& original, SimDisk& disk,
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
  ASSERT_EQ(Judge(original, StatedDurable(original, damages), found, lost), "");
}

// The whole start of a server, in all three modes.
void ExpectLogHonest(const Original& original,
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
  ASSERT_EQ(Judge(original, StatedDurable(original, damages), salvage.records, lost), "");
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

void ForEachLog(const std::function<void(const Original&)>& test) {
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

TEST(LogCorruptionTest, FindsEverythingInAnUndamagedLog) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    damager.Try({}, [](SimDisk&) {});
    auto disk = original.Disk();
    Boot boot = BootLog(*disk, LogOptions(SyncPolicy::kSync));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    ASSERT_TRUE(boot.records == original.records);
    ASSERT_EQ(boot.report.corrupted_entries, 0u);
  });
}

TEST(LogCorruptionTest, TellsOfEveryFlippedBit) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 211);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t at = 0; at < UsedBytes(bytes) + 64 && at < bytes.size(); ++at) {
        // The reserved part of the header is the same zero thousands of times.
        const bool sample = at >= 192 && at < wal::kSegmentHeaderBytes - 4;
        if (sample && at % 8 != 0 && !LongTests()) continue;
        for (uint64_t bit = 0; bit < 8; ++bit) {
          if (sample && bit != at / 8 % 8) continue;
          SCOPED_TRACE(testing::Message() << path << " bit " << at * 8 + bit);
          damager.Try({{path, at, at + 1}},
                      [&, file = path](SimDisk& disk) { disk.FlipBit(file, at * 8 + bit); });
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfEveryZeroedSector) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t sector = 0; sector * 512 < UsedBytes(bytes); ++sector) {
        SCOPED_TRACE(testing::Message() << path << " sector " << sector);
        // In the reserved part of the header it changes nothing.
        const std::string before = bytes.substr(sector * 512, 512);
        if (before == std::string(before.size(), '\0')) continue;
        damager.Try({{path, sector * 512, sector * 512 + 512}},
                    [&, file = path](SimDisk& disk) { disk.ZeroSector(file, sector); });
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfEveryMissingEnd) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 23);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t size = 0; size < UsedBytes(bytes); size += LongTests() ? 1 : 7) {
        SCOPED_TRACE(testing::Message() << path << " cut at " << size);
        damager.Try({{path, size, ~uint64_t{0}}},
                    [&, file = path](SimDisk& disk) { disk.Cut(file, size); });
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfSegmentsThatAreGoneOrInAnothersPlace) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    for (const auto& [one, one_bytes] : original.files) {
      SCOPED_TRACE(one);
      damager.Try({{one}}, [file = one](SimDisk& disk) { disk.RemoveFile(file); });
      damager.Try({{one}}, [file = one](SimDisk& disk) { disk.PutFile(file, ""); });
      for (const auto& [other, other_bytes] : original.files) {
        if (one == other) continue;
        SCOPED_TRACE(other);
        damager.Try({{one}, {other}}, [&, a = one, b = other](SimDisk& disk) {  // swapped
          disk.PutFile(a, original.files.at(b));
          disk.PutFile(b, original.files.at(a));
        });
        damager.Try({{one}}, [&, a = one, b = other](SimDisk& disk) {  // a second copy over it
          disk.PutFile(a, original.files.at(b));
        });
      }
      for (const uint64_t number : {uint64_t{0}, uint64_t{90}, ~uint64_t{0}}) {
        SCOPED_TRACE(number);  // a second copy beside it
        damager.Try({}, [&, a = one](SimDisk& disk) {
          disk.PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(number),
                       original.files.at(a));
        });
      }
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(LogCorruptionTest, NeverBelievesGarbageNorBytesThatMoved) {
  std::mt19937_64 random(TestSeed());
  ForEachLog([&](const Original& original) {
    Damager damager(original, 20);
    for (int i = 0; i < (LongTests() ? 20000 : 1500); ++i) {
      auto file = original.files.begin();
      std::advance(file, random() % original.files.size());
      const auto& [path, bytes] = *file;
      const uint64_t used = UsedBytes(bytes);
      const uint64_t align = random() % 2 == 0 ? 8 : 1;
      const uint64_t begin = random() % used / align * align;
      const uint64_t size = std::min<uint64_t>(1 + random() % 600, bytes.size() - begin);
      std::string damaged = bytes;
      if (random() % 2 == 0) {  // garbage
        for (uint64_t k = 0; k < size; ++k) damaged[begin + k] = static_cast<char>(random());
      } else {  // good bytes from elsewhere in this segment or another one
        auto source = original.files.begin();
        std::advance(source, random() % original.files.size());
        const uint64_t from = random() % UsedBytes(source->second) / align * align;
        const std::string moved = source->second.substr(from, size);
        damaged.replace(begin, moved.size(), moved);
      }
      if (damaged == bytes) continue;
      SCOPED_TRACE(testing::Message()
                   << "case " << i << ": " << path << " bytes " << begin << ".." << begin + size);
      damager.Try({{path, begin, begin + size}},
                  [&, name = path](SimDisk& disk) { disk.PutFile(name, damaged); });
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

// A value may hold a copy of the log itself. With its record's own frame damaged, the search for
// the next good frame runs through that value and must not take the copy for the log.
TEST(LogCorruptionTest, DoesNotResynchroniseInsideAPayload) {
  const Original inner = StoppedLog();
  std::string embedded;
  for (const auto& [path, bytes] : inner.files) embedded += bytes.substr(wal::kSegmentHeaderBytes);
  SimDisk disk;
  Records records;
  {
    Boot boot = BootLog(disk, LogOptions(SyncPolicy::kSync));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (const std::string& payload : {std::string("before"), embedded, std::string("after")}) {
      const Lsn lsn = boot.log->Append(wal::RecordType::kTxn, wal::kBroadcastShard, payload);
      records[lsn] = {wal::RecordType::kTxn, wal::kBroadcastShard, payload};
    }
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  const Original original = TakeOriginal(disk, records);
  Damager damager(original, 1);
  const auto& [path, bytes] = *original.files.begin();
  const uint64_t record = bytes.find(embedded) - sizeof(wal::FrameHeader);
  for (uint64_t at = record; at < record + sizeof(wal::FrameHeader); ++at) {
    SCOPED_TRACE(at);
    damager.Try({{path, at, at + 1}},
                [&, file = path](SimDisk& copy) { copy.FlipBit(file, at * 8 + at % 8); });
    if (HasFatalFailure()) return;
  }
}

// A segment whose header cannot be read, behind numbers that nobody has: what comes now goes behind
// it, and is not cut off by it where it can be read again one day.
TEST(LogCorruptionTest, GoesOnBehindTheLastSegmentThatCannotBeRead) {
  const Original original = StoppedLog();
  const std::string& last_bytes = original.files.rbegin()->second;
  wal::SegmentInfo unreadable;
  unreadable.number = 3;
  wal::DecodeSegmentHeader(last_bytes, &unreadable);
  ASSERT_EQ(unreadable.problem, "");
  unreadable.number = 6;
  unreadable.epoch += 3;
  unreadable.first_lsn = original.records.rbegin()->first + 1;
  unreadable.predecessor_number = 3;
  const std::string header = wal::EncodeSegmentHeader(unreadable);
  const std::string path = std::string(kLogDirectory) + "/" + wal::SegmentName(6);

  auto disk = original.Disk();
  disk->PutFile(path, header);
  disk->ZeroSector(path, 0);
  wal::Options options = LogOptions(SyncPolicy::kSync);
  Records records = original.records;
  {
    Boot boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.log->metrics().segment_number, 7u);
    EXPECT_GT(boot.log->metrics().epoch, unreadable.epoch);
    const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 3, "new");
    ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    records[lsn] = {wal::RecordType::kEffect, 3, "new"};
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  options.recovery = RecoveryMode::kStrict;
  auto still = disk->PowerCut();
  auto again = disk->PowerCut();
  again->PutFile(path, header);
  for (SimDisk* const one : {still.get(), again.get()}) {
    Boot boot = BootLog(*one, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, records);
    EXPECT_TRUE(boot.report.lost.empty());
  }
}

wal::SegmentInfo HeaderOf(const SimDisk& disk, const std::string& path) {
  wal::SegmentInfo info;
  info.path = path;
  info.name = path.substr(path.rfind('/') + 1);
  info.number = *wal::SegmentNumber(info.name);
  wal::DecodeSegmentHeader(disk.Contents(path), &info);
  EXPECT_EQ(info.problem, "") << path;
  return info;
}

// As a segment of another number; frames stay where they are, so their checksums hold.
std::string Renumbered(const SimDisk& disk, const std::string& path, uint64_t number) {
  wal::SegmentInfo info = HeaderOf(disk, path);
  info.number = number;
  std::string bytes = disk.Contents(path);
  return bytes.replace(0, wal::kSegmentHeaderBytes, wal::EncodeSegmentHeader(info));
}

std::string PathOf(uint64_t number) {
  return std::string(kLogDirectory) + "/" + wal::SegmentName(number);
}

// A file that was copied into the wrong directory costs nothing, whatever its number: its records
// are not applied, those of the log are all found, and it stays where it is.
TEST(LogCorruptionTest, ASegmentOfAnotherLogTakesNothingWithIt) {
  const Original original = StoppedLog();
  const Original other = KilledLog();
  wal::Options options = LogOptions(SyncPolicy::kSync);
  for (const uint64_t number : {2, 4, 9}) {
    SCOPED_TRACE(number);
    auto disk = original.Disk();
    std::string foreign;
    {
      auto from = other.Disk();
      foreign = Renumbered(*from, SegmentPaths(*from).back(), number);
    }
    disk->PutFile(PathOf(number), foreign);
    const uint64_t log_id = HeaderOf(*disk, PathOf(1)).identity.log_id;
    Boot boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.identity.log_id, log_id);
    Records expected = original.records;
    if (number == 2) {  // it stands in the place of one
      const Lsn first = 9, last = 16;
      for (Lsn lsn = first; lsn <= last; ++lsn) expected.erase(lsn);
      ASSERT_EQ(boot.report.lost.size(), 1u);
      EXPECT_EQ(boot.report.lost[0].first, first);
      EXPECT_EQ(boot.report.lost[0].last, last);
    }
    EXPECT_EQ(boot.records, expected);
    const bool told =
        std::any_of(boot.report.warnings.begin(), boot.report.warnings.end(),
                    [](const auto& text) { return text.find("another log") != text.npos; });
    EXPECT_TRUE(told);
    // New segments go behind it, and retiring does not take it for one of the log's.
    const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 3, "new");
    ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    expected[lsn] = {wal::RecordType::kEffect, 3, "new"};
    ASSERT_TRUE(boot.log->Stop().ok());
    boot.log.reset();
    boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, expected);
    const Lsn checkpoint = boot.log->last_lsn();
    ASSERT_TRUE(PutCheckpoint(*disk, *boot.log, kLogDirectory, checkpoint).ok());
    boot.log->SetCheckpoint(checkpoint, checkpoint);
    for (int ms = 0; ms < 5000 && SegmentPaths(*disk).size() > 2; ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    EXPECT_EQ(SegmentPaths(*disk).size(), 2u);
    EXPECT_EQ(disk->Contents(PathOf(number)), foreign);
    // The log's own checkpoint outweighs it too, where one segment is left.
    ASSERT_TRUE(boot.log->Stop().ok());
    boot.log.reset();
    disk->RemoveFile(PathOf(number));
    disk->PutFile(PathOf(20), Renumbered(*other.Disk(), other.files.rbegin()->first, 20));
    boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.report.checkpoint_lsn, checkpoint);
    EXPECT_EQ(boot.identity.log_id, log_id);
  }
}

// Nor does it decide how the log ends: what only the ring has follows, in every mode.
TEST(LogCorruptionTest, ASegmentOfAnotherLogIsNotTheEndOfThisOne) {
  const Original other = KilledLog();
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    SCOPED_TRACE(static_cast<int>(mode));
    TemporaryDirectory rings;
    wal::Options options = LogOptions(SyncPolicy::kAsync);
    options.flush_interval_ms = 600000;
    options.ring_directory = rings.path() + "/live";
    std::filesystem::create_directories(options.ring_directory);
    SimDisk disk;
    Promise promise;
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    promise.Append(*boot.log, 100);
    ASSERT_TRUE(boot.log->Stop().ok());
    boot.log.reset();
    boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const Lsn durable = promise.Append(*boot.log, 100);
    boot.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot.log, durable));
    for (int i = 0; i < 5; ++i) promise.Append(*boot.log, 100);
    std::filesystem::copy(options.ring_directory, rings.path() + "/left");
    const auto left = disk.PowerCut();
    boot.log.reset();
    left->PutFile(PathOf(9), Renumbered(*other.Disk(), other.files.rbegin()->first, 9));

    options.ring_directory = rings.path() + "/left";
    options.recovery = mode;
    boot = BootLog(*left, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, promise.appended());
    EXPECT_EQ(boot.report.ring_entries_recovered, 5u);
    EXPECT_TRUE(boot.report.lost.empty());
    const bool told =
        std::any_of(boot.report.warnings.begin(), boot.report.warnings.end(),
                    [](const auto& text) { return text.find("another log") != text.npos; });
    EXPECT_TRUE(told);
    const auto cut = left->PowerCut();
    boot.log.reset();
    options.ring_directory = "";
    boot = BootLog(*cut, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, promise.appended());
    EXPECT_TRUE(boot.report.lost.empty());
    boot.log.reset();
  }
}

// Two lives of one log share its id and its LSNs. A file of the one in the other
// is found by what its successor says of it.
TEST(LogCorruptionTest, TellsOfASegmentFromAnotherLifeOfTheLog) {
  const Original original = StoppedLog();
  const auto live = [&](char letter) {
    auto disk = original.Disk();
    Boot boot = BootLog(*disk, LogOptions(SyncPolicy::kSync));
    EXPECT_NE(boot.log, nullptr) << boot.error;
    for (int segment = 0; segment < 2; ++segment) {
      const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 1, std::string(20, letter));
      EXPECT_TRUE(WaitDurable(*boot.log, lsn));
      boot.log->RequestRotate();
      boot.log->Kick();
      for (int ms = 0; ms < 5000 && boot.log->metrics().sealed_lsn < lsn; ++ms) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    EXPECT_TRUE(boot.log->Stop().ok());
    return disk;
  };
  const auto one = live('1');
  const auto two = live('2');
  for (const RecoveryMode mode : {RecoveryMode::kSalvage, RecoveryMode::kStrict}) {
    wal::Options options = LogOptions(SyncPolicy::kSync);
    options.recovery = mode;
    const auto whole = one->PowerCut();
    Boot boot = BootLog(*whole, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_TRUE(boot.report.warnings.empty() ||
                boot.report.warnings[0].find("behind another") == std::string::npos);
    boot.log.reset();
    const auto mixed = one->PowerCut();
    mixed->PutFile(PathOf(4), two->Contents(PathOf(4)));
    boot = BootLog(*mixed, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const bool told = std::any_of(
        boot.report.warnings.begin(), boot.report.warnings.end(), [](const std::string& text) {
          return text.find(wal::SegmentName(5) + " was written behind another") == 0;
        });
    EXPECT_TRUE(told);
    boot.log.reset();
  }
}

// Without its checkpoint nothing behind a gap counts: also where the GAP frame is damaged.
TEST(LogCorruptionTest, KnowsAGapWhoseFrameIsDamaged) {
  const Original original = StoppedLog();
  auto disk = original.Disk();
  wal::Options options = LogOptions(SyncPolicy::kSync);
  options.after_gap = true;
  {
    Boot boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 1, "behind the gap");
    boot.log->RequestSync();
    for (int ms = 0; ms < 5000 && boot.log->metrics().synced_lsn < lsn; ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  options.after_gap = false;
  const std::string path = SegmentPaths(*disk).back();
  ASSERT_TRUE(HeaderOf(*disk, path).after_gap);
  for (uint64_t at = 0; at < wal::FrameBytes(0); ++at) {
    SCOPED_TRACE(at);
    auto hurt = disk->PowerCut();
    hurt->FlipBit(path, (wal::kSegmentHeaderBytes + at) * 8 + at % 8);
    Boot boot = BootLog(*hurt, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, original.records);
    EXPECT_TRUE(boot.report.lost.empty());
  }
}

// A start that writes anew what was not synced before a gap undoes the gap: what it gave up counts
// again, and damage to it is told, also where later segments begin below the gap's end.
TEST(LogCorruptionTest, TellsOfDamageToWhatAGapHadGivenUpAndAStartTookBack) {
  SimDisk disk;
  Promise promise;
  wal::Options options = LogOptions(SyncPolicy::kAsync);
  options.flush_interval_ms = 600000;
  options.on_error = wal::OnError::kDegrade;
  options.retry_ms = 1;
  const auto wait = [](const auto& condition) {
    for (int ms = 0; ms < 5000 && !condition(); ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(condition());
  };
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  Lsn durable = 0, last = 0;
  for (int i = 0; i < 20; ++i) durable = promise.Append(*boot.log, 500);
  boot.log->RequestSync();
  ASSERT_TRUE(WaitDurable(*boot.log, durable));
  for (int i = 0; i < 20; ++i) last = promise.Append(*boot.log, 500);
  boot.log->Kick();
  wait([&] { return boot.log->written_lsn() >= last; });
  // These reach no file: so the gap ends well above what there is.
  disk.AddFault({.calls = kWrite | kCreate, .error = ENOSPC, .for_ever = true});
  for (int i = 0; i < 20; ++i) boot.log->Append(wal::RecordType::kEffect, 1, "given up");
  boot.log->RequestSync();
  wait([&] { return boot.log->state() == wal::State::kDegraded; });
  disk.ClearFaults();
  wait([&] { return boot.log->resumable(); });
  const auto killed = disk.Kill();
  boot.log.reset();

  // It takes them back; and its segments pass the gap's end, one beginning right there.
  options.recovery = RecoveryMode::kStrict;
  boot = BootLog(*killed, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  ASSERT_EQ(boot.records, promise.appended());
  const std::vector<std::string> paths = SegmentPaths(*killed);
  ASSERT_EQ(paths.size(), 4u);
  const wal::SegmentInfo gap = HeaderOf(*killed, paths[1]);
  ASSERT_TRUE(gap.after_gap);
  ASSERT_EQ(gap.durable_lsn, durable);
  ASSERT_LE(HeaderOf(*killed, paths[2]).first_lsn, durable + 1);
  ASSERT_EQ(HeaderOf(*killed, paths[3]).first_lsn, last + 1);
  ASSERT_LT(last + 1, gap.first_lsn);
  for (const Lsn until : {last + 3, gap.first_lsn - 1, gap.first_lsn + 2}) {
    while (boot.log->last_lsn() < until) promise.Append(*boot.log, 50);
    boot.log->RequestRotate();
    boot.log->Kick();
    wait([&] { return boot.log->metrics().sealed_lsn >= until; });
  }
  ASSERT_EQ(HeaderOf(*killed, SegmentPaths(*killed)[5]).first_lsn, gap.first_lsn);
  ASSERT_TRUE(boot.log->Stop().ok());
  boot.log.reset();

  for (const Lsn bad : {durable + 5, last, last + 2, last + 5}) {
    SCOPED_TRACE(bad);
    Records salvaged = promise.appended(), before = promise.appended();
    salvaged.erase(bad);
    before.erase(before.find(bad), before.end());
    for (const RecoveryMode mode :
         {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
      SCOPED_TRACE(static_cast<int>(mode));
      options.recovery = mode;
      auto whole = killed->PowerCut();
      boot = BootLog(*whole, options);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      EXPECT_EQ(boot.records, promise.appended());
      EXPECT_TRUE(boot.report.lost.empty());
      boot.log.reset();

      auto hurt = killed->PowerCut();
      const std::vector<std::string> all = SegmentPaths(*hurt);
      for (size_t i = 2; i < all.size(); ++i) {
        const size_t at = hurt->Contents(all[i]).find(promise.appended().at(bad).payload);
        if (at != std::string::npos) hurt->FlipBit(all[i], at * 8);
      }
      boot = BootLog(*hurt, options);
      ASSERT_EQ(boot.log == nullptr, mode == RecoveryMode::kStrict) << boot.error;
      if (boot.log == nullptr) continue;
      EXPECT_EQ(boot.records, mode == RecoveryMode::kPrefix ? before : salvaged);
      ASSERT_EQ(boot.report.lost.size(), 1u);
      EXPECT_EQ(boot.report.lost[0].first, bad);
      EXPECT_EQ(boot.report.lost[0].last, bad);
      boot.log.reset();
    }
  }
}

// Nothing says any more that the end of a segment was durable, but that another file follows it.
TEST(LogCorruptionTest, GoesOnInASegmentThatAnUnreadableOneFollows) {
  SimDisk disk;
  Promise promise;
  wal::Options options = LogOptions(SyncPolicy::kAsync);
  {
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    Lsn last = 0;
    for (int i = 0; i < 10; ++i) last = promise.Append(*boot.log, 100);
    boot.log->RequestRotate();
    boot.log->Kick();
    for (int ms = 0; ms < 5000 && boot.log->metrics().sealed_lsn < last; ++ms) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_TRUE(WaitDurable(*boot.log, promise.Append(*boot.log, 100)));
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  // A record in the middle, the SEAL behind all, and the next segment's header.
  const std::string sealed = disk.Contents(PathOf(1));
  disk.FlipBit(PathOf(1), sealed.find(promise.appended().at(4).payload) * 8);
  disk.FlipBit(PathOf(1), (sealed.size() - 20) * 8);
  disk.ZeroSector(PathOf(2), 0);
  Records expected = promise.appended();
  expected.erase(4);
  expected.erase(11);
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(boot.records, expected);
  ASSERT_EQ(boot.report.lost.size(), 2u);
  EXPECT_EQ(boot.report.lost[0].first, 4u);
  EXPECT_EQ(boot.report.lost[0].last, 4u);
  EXPECT_EQ(boot.report.lost[1].first, 11u);
  EXPECT_EQ(boot.report.lost[1].last, wal::kUnknownLsn);
  EXPECT_EQ(boot.log->last_lsn(), 10u);
}

// Bad places without number: what is kept of them has a bound, what is counted has none, and the
// rest of the last segment is searched once, not once for each of them.
TEST(LogCorruptionTest, CountsMoreLossesThanItKeeps) {
  constexpr uint64_t kRecords = 5000;
  SimDisk disk;
  wal::Options options = LogOptions(SyncPolicy::kNone);
  options.max_segment_bytes = 64 << 20;
  Records records;
  {
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (uint64_t i = 0; i < kRecords; ++i) {
      const std::string payload = "record " + std::to_string(i) + std::string(400, '.');
      const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 1, payload);
      records[lsn] = {wal::RecordType::kEffect, 1, payload};
      // A statement that all so far is durable comes with the next write.
      if (i + 2 < kRecords) continue;
      boot.log->RequestSync();
      ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    }
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  ASSERT_EQ(SegmentPaths(disk).size(), 1u);
  const std::string path = SegmentPaths(disk).front();
  std::string bytes = disk.Contents(path);
  uint64_t bad = 0;
  for (Lsn lsn = 2; lsn < kRecords; lsn += 2) {
    const size_t at = bytes.find(records.at(lsn).payload);
    ASSERT_NE(at, std::string::npos);
    bytes[at + 5] ^= 1;
    records.erase(lsn);
    ++bad;
  }
  disk.PutFile(path, bytes);
  ASSERT_GT(bad, 2 * wal::kLostRangesMax);
  for (const bool sealed : {true, false}) {
    SCOPED_TRACE(sealed);
    // Without its end the file is read through before anything is replayed.
    if (!sealed) bytes.resize(bytes.size() - wal::FrameBytes(sizeof(wal::EndPayload)));
    disk.PutFile(path, bytes);
    const uint64_t calls = disk.all_calls();
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_LT(disk.all_calls() - calls, 500u);
    EXPECT_EQ(boot.records, records);
    EXPECT_EQ(boot.report.corrupted_entries, bad);
    EXPECT_EQ(boot.report.lost.size(), wal::kLostRangesMax);
    EXPECT_EQ(boot.report.lost_more, bad - wal::kLostRangesMax);
    EXPECT_LE(boot.report.warnings.size(), wal::kWarningsMax + 1);
    EXPECT_EQ(boot.report.warnings.back().starts_with("and "), !sealed);
    boot.log.reset();
    for (const std::string& other : disk.Paths()) disk.RemoveFile(other);
  }
}

// Where a part of the log is not to be read for the time of a start, `salvage` goes on without it.
// Its bytes stay for the day on which they can be read again.
TEST(LogCorruptionTest, AStartKeepsTheBytesThatItCannotRead) {
  SimDisk disk({.survivors = Survivors::kAll});
  Promise promise;
  wal::Options options = LogOptions(SyncPolicy::kSync);
  options.max_segment_bytes = 4 << 20;
  std::unique_ptr<SimDisk> killed;
  {
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (int i = 0; i < 30; ++i) {
      ASSERT_TRUE(WaitDurable(*boot.log, promise.Append(*boot.log, 100000)));
    }
    killed = disk.PowerCut();
  }
  uint64_t losses = 0;
  bool failed = true;
  for (uint64_t nth = 1; failed; ++nth) {
    SCOPED_TRACE(testing::Message() << "read " << nth << " and the next three fail");
    auto hurt = killed->PowerCut();
    // Of a window and of its first block, twice each.
    for (int i = 0; i < 4; ++i) hurt->AddFault({.calls = kRead, .nth = nth, .error = EIO});
    Boot boot = BootLog(*hurt, options);
    failed = hurt->failed_calls() > 0;
    if (boot.log == nullptr) continue;
    losses += boot.report.lost.empty() ? 0 : 1;
    ASSERT_TRUE(boot.log->Stop().ok());
    boot.log.reset();
    std::string all;
    for (const std::string& path : hurt->Paths()) all += hurt->Contents(path);
    for (const auto& [lsn, record] : promise.appended()) {
      ASSERT_NE(all.find(record.payload), std::string::npos) << "LSN " << lsn << " is destroyed";
    }
  }
  EXPECT_GT(losses, 0u);
}

}  // namespace
}  // namespace crab::test

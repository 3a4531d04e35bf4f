// Segments that are not what they seem: of another log, of another life of this one, around a gap,
// unreadable ones in the middle. See log_damage.h for what holds whatever the damage.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/persistence/log_damage.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

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
TEST(LogStrangersTest, ASegmentOfAnotherLogTakesNothingWithIt) {
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
TEST(LogStrangersTest, ASegmentOfAnotherLogIsNotTheEndOfThisOne) {
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
TEST(LogStrangersTest, TellsOfASegmentFromAnotherLifeOfTheLog) {
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
TEST(LogStrangersTest, KnowsAGapWhoseFrameIsDamaged) {
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
TEST(LogStrangersTest, TellsOfDamageToWhatAGapHadGivenUpAndAStartTookBack) {
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
TEST(LogStrangersTest, GoesOnInASegmentThatAnUnreadableOneFollows) {
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
TEST(LogStrangersTest, CountsMoreLossesThanItKeeps) {
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

// Under a sanitizer a search for a long text looks at all of it wherever its first byte stands.
bool Holds(std::string_view bytes, std::string_view text) {
  const std::string_view start = text.substr(0, 32);
  size_t at = bytes.find(start);
  while (at != bytes.npos && bytes.substr(at, text.size()) != text) at = bytes.find(start, at + 1);
  return at != bytes.npos;
}

// Where a part of the log is not to be read for the time of a start, `salvage` goes on without it.
// Its bytes stay for the day on which they can be read again.
TEST(LogStrangersTest, AStartKeepsTheBytesThatItCannotRead) {
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
      ASSERT_TRUE(Holds(all, record.payload)) << "LSN " << lsn << " is destroyed";
    }
  }
  EXPECT_GT(losses, 0u);
}

}  // namespace
}  // namespace crab::test

// Starts on what no successful sync covered: damage in it and behind it, and a start that did not
// get to its end before the next one.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "persistence/backlog.h"
#include "persistence/log.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::RecoveryMode;
using wal::State;
using wal::SyncPolicy;

bool IsTold(const wal::RecoveryReport& report, Lsn lsn) {
  for (const auto& range : report.lost) {
    if (range.first <= lsn && lsn <= range.last) return true;
  }
  return false;
}

struct Place {
  uint64_t offset, bytes;
};

// Where the records of one segment stand.
std::map<Lsn, Place> PlacesIn(SimDisk& disk, const std::string& path) {
  std::map<Lsn, Place> places;
  auto reader = wal::Reader::Open(disk, kLogDirectory);
  EXPECT_TRUE(reader.ok()) << reader.message();
  wal::Frame frame;
  Place pack = {};
  for (;;) {
    auto more = (*reader)->Next(&frame);
    if (!more.ok() || !*more) return places;
    if (frame.verdict != wal::Verdict::kGood || frame.segment->path != path) continue;
    if (frame.bytes > 0) pack = {frame.offset, frame.bytes};
    if (wal::IsRecord(frame.type)) places[frame.lsn] = pack;
  }
}

void Damage(SimDisk& disk, const std::string& path, const Place& place) {
  disk.FlipBit(path, (place.offset + place.bytes / 2) * 8);
}

std::string Noise(size_t bytes) {
  std::string noise(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) noise[i] = static_cast<char>(Mix(bytes, i));
  return noise;
}

// All frames in it, also those of the writer.
void Overwrite(SimDisk& disk, const std::string& path, uint64_t begin, uint64_t end) {
  std::string bytes = disk.Contents(path);
  disk.PutFile(path, bytes.replace(begin, end - begin, end - begin, '?'));
}

// What a boot found no power cut takes.
void ExpectDurable(const SimDisk& disk, const Records& records, wal::Options options) {
  const auto cut = disk.PowerCut();
  options.recovery = RecoveryMode::kSalvage;
  options.ring_directory = "";
  Boot again = BootLog(*cut, options);
  ASSERT_NE(again.log, nullptr) << again.error;
  EXPECT_EQ(again.records, records) << testing::PrintToString(again.report.warnings);
}

class StartTest : public testing::Test {
 protected:
  StartTest() {
    char name[] = "/tmp/crabcache-start-XXXXXX";
    rings_ = mkdtemp(name);
    std::filesystem::create_directories(live());
  }
  ~StartTest() override { std::filesystem::remove_all(rings_); }
  std::string live() const { return rings_ + "/live"; }
  std::string left() const { return rings_ + "/left"; }

  Lsn Append(wal::Log& log, int count, const std::string& payload) {
    Lsn last = 0;
    for (int i = 0; i < count; ++i) {
      last = log.Append(wal::RecordType::kEffect, static_cast<uint16_t>(i % 16), payload);
      log.Kick();
      EXPECT_TRUE(
          Eventually([&] { return log.written_lsn() >= last || log.state() != State::kRunning; }));
    }
    return last;
  }
  Lsn AppendDurable(wal::Log& log, int count, const std::string& payload) {
    const Lsn last = Append(log, count, payload);
    log.RequestSync();
    EXPECT_TRUE(WaitDurable(log, last));
    return last;
  }
  // As the process' death leaves it; its ring goes to left().
  std::unique_ptr<SimDisk> Kill(const SimDisk& disk) {
    std::filesystem::remove_all(left());
    std::filesystem::copy(live(), left());
    return disk.Kill();
  }
  wal::Options WithRing(wal::Options options) {
    const std::string rings = rings_ + "/restart";
    std::filesystem::remove_all(rings);
    std::filesystem::copy(left(), rings);
    options.ring_directory = rings;
    return options;
  }

  std::string rings_;
};
using LogStartDoubtTest = StartTest;

// The kernel reads blocks: what stands in the one of the bad sector is lost, and nothing else.
TEST_F(LogStartDoubtTest, LosesOnlyTheRecordsInTheBlockOfABadSector) {
  for (const auto compression : {wal::Compression::kNone, wal::Compression::kLz4}) {
    for (const bool stopped : {false, true}) {
      wal::Options options = LogOptions(SyncPolicy::kNone);
      options.max_segment_bytes = 8 << 20;
      options.compression = compression;
      SimDisk disk;
      Boot live = BootLog(disk, options);
      ASSERT_NE(live.log, nullptr) << live.error;
      Append(*live.log, 60, Noise(700));
      const Lsn large = Append(*live.log, 1, Noise(1500000));
      const Lsn middle = Append(*live.log, 60, Noise(300));
      Append(*live.log, 4, Noise(200000));
      const Lsn last = AppendDurable(*live.log, 60, Noise(500));
      if (stopped) {
        ASSERT_TRUE(live.log->Stop().ok());
      }
      const std::string path = SegmentPaths(disk).back();
      const auto places = PlacesIn(disk, path);
      ASSERT_EQ(places.size(), last);
      const uint64_t sectors[] = {
          wal::kSegmentHeaderBytes / SimDisk::kSectorBytes,  // the first records
          places.at(30).offset / SimDisk::kSectorBytes,
          places.at(large).offset / SimDisk::kSectorBytes,
          (places.at(large).offset + 777777) / SimDisk::kSectorBytes,
          places.at(middle - 20).offset / SimDisk::kSectorBytes,
          (places.at(last).offset + places.at(last).bytes - 1) / SimDisk::kSectorBytes,
      };
      for (const uint64_t sector : sectors) {
        SCOPED_TRACE(testing::Message() << wal::CompressionName(compression) << " sector " << sector
                                        << (stopped ? ", stopped" : ""));
        const uint64_t begin = sector * SimDisk::kSectorBytes & ~(SimDisk::kBlockBytes - 1);
        std::set<Lsn> touched;
        for (const auto& [lsn, place] : places) {
          if (place.offset < begin + SimDisk::kBlockBytes && begin < place.offset + place.bytes) {
            touched.insert(lsn);
          }
        }
        ASSERT_FALSE(touched.empty());
        for (const auto mode :
             {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
          SCOPED_TRACE(static_cast<int>(mode));
          auto killed = disk.Kill();
          killed->BreakSector(path, sector);
          options.recovery = mode;
          Boot boot = BootLog(*killed, options);
          ASSERT_EQ(boot.log == nullptr, mode == RecoveryMode::kStrict) << boot.error;
          for (Lsn lsn = 1; lsn <= last; ++lsn) {
            const bool is_there = mode == RecoveryMode::kSalvage  ? touched.count(lsn) == 0
                                  : mode == RecoveryMode::kPrefix ? lsn < *touched.begin()
                                                                  : false;
            EXPECT_EQ(boot.records.count(lsn), is_there ? 1u : 0u) << lsn;
            if (mode != RecoveryMode::kSalvage) continue;
            EXPECT_EQ(IsTold(boot.report, lsn), !is_there) << lsn;
          }
          if (mode == RecoveryMode::kSalvage) ExpectDurable(*killed, boot.records, options);
          if (HasFailure()) return;
        }
      }
    }
  }
}

// Behind the last records nothing tells how many there were.
TEST_F(LogStartDoubtTest, CannotTellWhatABadSectorAtTheEndHeld) {
  wal::Options options = LogOptions(SyncPolicy::kNone);
  SimDisk disk;
  Boot live = BootLog(disk, options);
  ASSERT_NE(live.log, nullptr) << live.error;
  const Lsn last = AppendDurable(*live.log, 30, Noise(900));
  auto killed = disk.Kill();
  const std::string path = SegmentPaths(*killed).back();
  const Place end = PlacesIn(*killed, path).at(last);
  killed->BreakSector(path, (end.offset + end.bytes - 1) / SimDisk::kSectorBytes);
  Boot boot = BootLog(*killed, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  ASSERT_FALSE(boot.report.lost.empty());
  EXPECT_EQ(boot.report.lost.back().last, wal::kUnknownLsn);
  EXPECT_EQ(boot.report.lost.back().first, boot.records.rbegin()->first + 1);
}

// Also where the second try fails: the blocks can be read one by one.
TEST_F(LogStartDoubtTest, LosesNothingByReadsThatFailTwice) {
  wal::Options options = LogOptions(SyncPolicy::kNone);
  options.recovery = RecoveryMode::kStrict;
  SimDisk disk;
  Boot live = BootLog(disk, options);
  ASSERT_NE(live.log, nullptr) << live.error;
  const Lsn last = AppendDurable(*live.log, 30, Noise(900));
  bool reached = true;
  for (uint64_t nth = 1; reached; ++nth) {
    SCOPED_TRACE(nth);
    auto killed = disk.Kill();
    killed->AddFault({.calls = kRead, .nth = nth, .error = EIO});
    killed->AddFault(
        {.calls = kRead, .nth = nth, .error = EIO});  // it does not see the call before
    Boot boot = BootLog(*killed, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records.size(), last);
    EXPECT_TRUE(boot.report.lost.empty());
    reached = killed->failed_calls() > 0;
  }
}

TEST_F(LogStartDoubtTest, SalvagesBehindDamageThatReachesBeyondWhatWasDurable) {
  for (const auto compression : {wal::Compression::kNone, wal::Compression::kLz4}) {
    SCOPED_TRACE(wal::CompressionName(compression));
    wal::Options options = LogOptions(SyncPolicy::kNone);
    options.recovery = RecoveryMode::kSalvage;
    options.compression = compression;
    SimDisk disk;
    Boot live = BootLog(disk, options);
    ASSERT_NE(live.log, nullptr) << live.error;
    const Lsn durable = AppendDurable(*live.log, 10, std::string(700, 'd'));
    const Lsn last = Append(*live.log, 30, std::string(600, 'u'));
    auto killed = disk.Kill();
    const std::string path = SegmentPaths(*killed).back();
    auto places = PlacesIn(*killed, path);
    ASSERT_EQ(places.size(), last);
    Overwrite(*killed, path, places[durable - 2].offset,
              places[durable + 3].offset + places[durable + 3].bytes);
    Boot boot = BootLog(*killed, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (Lsn lsn = 1; lsn <= last; ++lsn) {
      const bool damaged = lsn >= durable - 2 && lsn <= durable + 3;
      EXPECT_EQ(boot.records.count(lsn), damaged ? 0u : 1u) << lsn;
      EXPECT_EQ(IsTold(boot.report, lsn), damaged) << lsn;
    }
    ExpectDurable(*killed, boot.records, options);
  }
}

// The first look at a sealed segment is at its end alone. All that is damaged in it is told, though
// it is copied, and though no replay unit by unit would miss it.
TEST_F(LogStartDoubtTest, TellsOfDamageInASealedSegment) {
  wal::Options options = LogOptions(SyncPolicy::kNone);
  options.recovery = RecoveryMode::kSalvage;
  options.ring_directory = live();
  SimDisk disk;
  Boot live_boot = BootLog(disk, options);
  ASSERT_NE(live_boot.log, nullptr) << live_boot.error;
  AppendDurable(*live_boot.log, 10, std::string(700, 'd'));
  const Lsn last = Append(*live_boot.log, 20, std::string(700, 'u'));
  auto killed = Kill(disk);
  // The copy gets its name, what should follow does not.
  wal::Options restart = WithRing(options);
  killed->AddFault({.calls = kRename, .nth = 2, .error = EIO});
  ASSERT_EQ(BootLog(*killed, restart).log, nullptr);
  killed = killed->Kill();
  const std::string path = SegmentPaths(*killed).back();
  const auto places = PlacesIn(*killed, path);
  ASSERT_GT(places.size(), 15u);
  const Lsn first = places.begin()->first;
  const std::set<Lsn> cases[] = {{first},    {first + 5, first + 6},   {last},
                                 {last - 1}, {first, first + 3, last}, {last - 1, last}};
  for (size_t i = 0; i <= std::size(cases); ++i) {
    std::set<Lsn> damaged;
    if (i < std::size(cases)) {
      damaged = cases[i];
    } else {
      for (const auto& [lsn, place] : places) damaged.insert(lsn);
    }
    SCOPED_TRACE(testing::PrintToString(damaged));
    auto hurt = killed->Kill();
    for (const Lsn lsn : damaged) Damage(*hurt, path, places.at(lsn));
    restart = WithRing(options);
    std::set<Lsn> found;
    Lsn end = 0;
    {
      std::unique_ptr<wal::Backlog> backlog;
      auto log = wal::Log::Open(*hurt, restart, &backlog);
      ASSERT_TRUE(log.ok()) << log.message();
      ASSERT_GT(backlog->units(), 1u);
      for (uint32_t unit = 0; unit < backlog->units(); ++unit) {
        const auto replayed = backlog->Replay({unit}, [&](const wal::Backlog::Part& part) {
          found.insert(part.lsn);
          return Status::Ok();
        });
        ASSERT_TRUE(replayed.ok()) << replayed.message();
      }
      for (Lsn lsn = 1; lsn <= last; ++lsn) {
        EXPECT_EQ(found.count(lsn), damaged.count(lsn) == 0 ? 1u : 0u) << lsn;
        EXPECT_EQ(IsTold(backlog->report(), lsn), damaged.count(lsn) != 0) << lsn;
      }
      EXPECT_EQ(backlog->report().corrupted_entries, damaged.size());
      end = (*log)->last_lsn();
      EXPECT_GE(end, last);
    }
    const auto cut = hurt->PowerCut();
    options.ring_directory = "";
    Boot again = BootLog(*cut, options);
    ASSERT_NE(again.log, nullptr) << again.error;
    for (Lsn lsn = 1; lsn <= last; ++lsn) {
      EXPECT_EQ(again.records.count(lsn), damaged.count(lsn) == 0 ? 1u : 0u) << lsn;
      EXPECT_EQ(IsTold(again.report, lsn), damaged.count(lsn) != 0) << lsn;
    }
  }
}

// What stands behind a gap needs the checkpoint from then, in the ring too: however many starts
// find neither, and at whatever call the first one ends.
TEST_F(LogStartDoubtTest, NeverReplaysARingFromBehindAVoidGap) {
  wal::Options options = LogOptions(SyncPolicy::kNone);
  options.on_error = OnError::kDegrade;
  options.retry_ms = 1;
  options.ring_directory = live();
  SimDisk disk;
  Boot live_boot = BootLog(disk, options);
  ASSERT_NE(live_boot.log, nullptr) << live_boot.error;
  wal::Log& log = *live_boot.log;
  AppendDurable(log, 5, "before");
  Append(log, 20, std::string(700, 'u'));
  disk.AddFault({.calls = kSync, .error = EIO, .for_ever = true});
  log.RequestSync();
  ASSERT_TRUE(Eventually([&] { return log.state() == State::kDegraded; }));
  log.Append(wal::RecordType::kEffect, 3, "dropped");
  disk.ClearFaults();
  ASSERT_TRUE(Eventually([&] { return log.resumable(); }));
  ASSERT_TRUE(log.Resume().ok());
  Lsn behind = log.Append(wal::RecordType::kEffect, 3, "behind");
  log.RequestSync();
  ASSERT_TRUE(Eventually([&] { return log.metrics().synced_lsn >= behind; }));
  // In the ring alone, or both there and in the page cache.
  for (int i = 0; i < 10; ++i) behind = log.Append(wal::RecordType::kEffect, 3, "behind");
  const auto left_disk = Kill(disk);

  bool failed = true;
  for (uint64_t nth = 1; failed; ++nth) {
    SCOPED_TRACE(testing::Message() << "call " << nth << " of the start fails");
    const auto first = left_disk->Kill();
    std::unique_ptr<SimDisk> second;
    const wal::Options restart = WithRing(options);
    first->AddFault({.calls = kChangingCalls, .nth = nth, .error = EIO});
    {
      const Boot boot = BootLog(*first, restart);
      failed = first->failed_calls() > 0;
      second = first->Kill();
    }
    Boot boot = BootLog(*second, restart);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_GE(boot.records.size(), 5u);
    for (const auto& [lsn, record] : boot.records) ASSERT_NE(record.payload, "behind") << lsn;
    EXPECT_TRUE(boot.report.lost.empty()) << boot.report.lost.front().where;
  }
}

// The last segment that holds records is the one in doubt, whatever ends the reading: a ring that
// is damaged, or a file behind it that is of another log or unreadable.
TEST_F(LogStartDoubtTest, MakesDurableWhatItKeepsBeforeDamage) {
  wal::Options options = LogOptions(SyncPolicy::kNone);
  options.on_error = OnError::kRefuse;
  options.retry_ms = 1;
  options.ring_directory = live();
  SimDisk disk;
  Boot live_boot = BootLog(disk, options);
  ASSERT_NE(live_boot.log, nullptr) << live_boot.error;
  wal::Log& log = *live_boot.log;
  const Lsn durable = AppendDurable(log, 5, std::string(700, 'd'));
  const Lsn written = Append(log, 20, std::string(700, 'u'));
  disk.AddFault({.calls = kSync, .error = EIO, .for_ever = true});
  log.RequestSync();
  ASSERT_TRUE(Eventually([&] { return log.state() == State::kRefusing; }));
  const std::string marked(100, 'R');
  log.Append(wal::RecordType::kEffect, 3, marked);
  const auto killed = Kill(disk);

  enum class Ends { kRing, kForeign, kUnreadable };
  for (const Ends ends : {Ends::kRing, Ends::kForeign, Ends::kUnreadable}) {
    SCOPED_TRACE(static_cast<int>(ends));
    auto hurt = killed->Kill();
    wal::Options restart = WithRing(options);
    if (ends == Ends::kRing) {
      restart.recovery = RecoveryMode::kPrefix;
      for (const auto& file : std::filesystem::directory_iterator(restart.ring_directory)) {
        std::ifstream in(file.path(), std::ios::binary);
        std::string bytes((std::istreambuf_iterator<char>(in)), {});
        in.close();
        for (size_t at = 0; (at = bytes.find(marked, at)) != std::string::npos; ++at) {
          std::fstream out(file.path(), std::ios::binary | std::ios::in | std::ios::out);
          out.seekp(static_cast<std::streamoff>(at));
          out.put('!');
        }
      }
    } else {
      restart.recovery = RecoveryMode::kSalvage;
      restart.ring_directory = "";
      wal::SegmentInfo stray;
      stray.format_version = stray.min_reader_version = 1;
      stray.number = 90;
      stray.epoch = 1;
      stray.first_lsn = 1;
      stray.identity.log_id = 4711;
      stray.identity.shard_count = 16;
      std::string bytes = wal::EncodeSegmentHeader(stray);
      if (ends == Ends::kUnreadable) bytes.assign(bytes.size(), '?');
      hurt->PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(90), bytes);
      // Which of two logs a directory is of, most files say.
      ASSERT_TRUE(PutCheckpoint(*hurt, log, kLogDirectory, 1).ok());
    }
    Boot boot = BootLog(*hurt, restart);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_GT(boot.records.size(), durable);
    EXPECT_GE(boot.records.rbegin()->first, written);
    ExpectDurable(*hurt, boot.records, restart);
  }
}

}  // namespace
}  // namespace crab::test

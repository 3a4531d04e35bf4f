// The life of a segment: begun, indexed, sealed, retired when a checkpoint covers it, and
// recycled where nobody else has it. What is needed is never removed, wherever the power fails and
// whichever call of the disk does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <iostream>
#include <thread>

#include "persistence/checkpoint.h"
#include "persistence/index.h"
#include "persistence/log.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/remove_old_checkpoints.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/stalling_disk.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::RecordType;
using wal::State;
using wal::SyncPolicy;

constexpr uint64_t kSegmentBytes = 64 << 10;
constexpr size_t kRecordBytes = 3000;

wal::Options SmallSegments(SyncPolicy policy) {
  wal::Options options = LogOptions(policy);
  options.max_segment_bytes = kSegmentBytes;
  options.retry_ms = 1;
  return options;
}

// Appends records of kRecordBytes until there are `segments` more of them than before.
void Fill(wal::Log& log, Promise& promise, uint64_t segments) {
  const uint64_t until = log.metrics().segments_created + segments;
  while (log.metrics().segments_created < until) {
    const Lsn lsn = promise.Append(log, kRecordBytes);
    log.RequestSync();
    ASSERT_TRUE(WaitDurable(log, lsn));
  }
}

Boot BootAndFill(SimDisk& disk, const wal::Options& options, Promise& promise, uint64_t segments) {
  Boot boot = BootLog(disk, options);
  Fill(*boot.log, promise, segments);
  return boot;
}

bool HasAllBehind(const Boot& boot, const Promise& promise) {
  for (const auto& [lsn, record] : promise.appended()) {
    if (lsn <= boot.report.checkpoint_lsn) continue;
    const auto found = boot.records.find(lsn);
    if (found == boot.records.end() || !(found->second == record)) return false;
  }
  return true;
}

class LogLifecycleTest : public testing::TestWithParam<SyncPolicy> {};

TEST_P(LogLifecycleTest, RetiresWhatACheckpointCovers) {
  SimDisk disk;
  const wal::Options options = SmallSegments(GetParam());
  Promise promise;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  Fill(*boot.log, promise, 4);
  ASSERT_GE(boot.log->metrics().segments, 5u);
  const Lsn kept = boot.log->metrics().sealed_lsn - 30;
  ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, kept).ok());
  boot.log->SetCheckpoint(kept, kept);
  // The segment with the record behind the checkpoint stays, and all after it.
  ASSERT_TRUE(Eventually([&] { return boot.log->metrics().segments_retired >= 2; }));
  ASSERT_TRUE(boot.log->Stop().ok());
  boot.log.reset();
  boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(boot.report.checkpoint_lsn, kept);
  EXPECT_TRUE(boot.report.lost.empty());
  EXPECT_TRUE(HasAllBehind(boot, promise));
  // Those that an earlier life left are known too.
  Fill(*boot.log, promise, 1);
  const Lsn last = boot.log->metrics().sealed_lsn;
  ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, last).ok());
  boot.log->SetCheckpoint(last, last);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 1; }));
  EXPECT_TRUE(Eventually([&] { return SegmentPaths(disk).size() == 1; }));
}

std::vector<uint32_t> MinReaderVersions(const SimDisk& disk) {
  std::vector<uint32_t> versions;
  for (const std::string& path : SegmentPaths(disk)) {
    wal::SegmentInfo info;
    info.number = *wal::SegmentNumber(path.substr(path.rfind('/') + 1));
    wal::DecodeSegmentHeader(disk.Contents(path), &info);
    EXPECT_EQ(info.problem, "");
    versions.push_back(info.min_reader_version);
  }
  return versions;
}

// A reader of version 1 knows no checkpoints: what is left behind retired segments, or stands
// behind a gap, it would take for the whole log.
TEST_P(LogLifecycleTest, StatesWhoMayReadASegment) {
  SimDisk disk;
  wal::Options options = SmallSegments(GetParam());
  Promise promise;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(MinReaderVersions(disk), std::vector<uint32_t>{1});
  Fill(*boot.log, promise, 2);
  EXPECT_EQ(MinReaderVersions(disk), (std::vector<uint32_t>{1, 2, 2}));
  const Lsn last = boot.log->metrics().sealed_lsn;
  ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, last).ok());
  boot.log->SetCheckpoint(last, last);
  ASSERT_TRUE(Eventually([&] { return SegmentPaths(disk).size() == 1; }));
  EXPECT_EQ(MinReaderVersions(disk), std::vector<uint32_t>{2});
  ASSERT_TRUE(boot.log->Stop().ok());
  boot.log.reset();

  SimDisk fresh;
  options.after_gap = true;
  boot = BootLog(fresh, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(MinReaderVersions(fresh), std::vector<uint32_t>{2});
  boot.log.reset();
  wal::SegmentInfo behind_gap;
  behind_gap.after_gap = true;
  behind_gap.first_lsn = 1;
  EXPECT_EQ(wal::MinReaderVersion(behind_gap), 2u);
}

TEST_P(LogLifecycleTest, RetainsAsManySegmentsAsItIsTold) {
  SimDisk disk;
  wal::Options options = SmallSegments(GetParam());
  options.keep_segments = 2;
  Promise promise;
  Boot boot = BootAndFill(disk, options, promise, 6);
  const Lsn last = boot.log->metrics().sealed_lsn;
  boot.log->SetCheckpoint(last, last);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 3; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(boot.log->metrics().segments, 3u);
  boot.log->SetRetention(0, 3600 * 1000);  // none is that old
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(boot.log->metrics().segments, 3u);
  boot.log->RequestCleanup(2);  // by hand, whatever is retained
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 2; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_EQ(boot.log->metrics().segments, 2u);
  boot.log->SetRetention(0, 1);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 1; }));
}

// What is asked for before anybody has said what may go is done when somebody does.
TEST_P(LogLifecycleTest, CleansUpBehindTheFirstCheckpointOfALife) {
  SimDisk disk;
  wal::Options options = SmallSegments(GetParam());
  options.keep_segments = 100;
  Promise promise;
  Boot boot = BootAndFill(disk, options, promise, 4);
  boot.log->RequestCleanup(2);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_GE(boot.log->metrics().segments, 5u);
  const Lsn last = boot.log->metrics().sealed_lsn;
  boot.log->SetCheckpoint(last, last);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 2; }));
}

// Segments that are retained are of use behind a checkpoint alone, and with all that follow it.
TEST_P(LogLifecycleTest, RetainsWhatStandsBehindACheckpointForRestores) {
  SimDisk disk;
  wal::Options options = SmallSegments(GetParam());
  Promise promise;
  Boot boot = BootLog(disk, options);
  EXPECT_EQ(boot.log->retained_from(), wal::kUnknownLsn);
  boot.log->SetRetention(2, 0);
  EXPECT_EQ(boot.log->retained_from(), 0u);  // nobody has said what a restart needs
  Fill(*boot.log, promise, 8);
  const Lsn last = boot.log->metrics().sealed_lsn;
  boot.log->SetRestorable(1);
  boot.log->SetCheckpoint(last, last);
  const auto retained = [&] {
    const Lsn from = boot.log->retained_from();
    return from > 1 && from < last;
  };
  EXPECT_TRUE(Eventually(retained)) << boot.log->retained_from();
  const uint64_t segments = boot.log->metrics().segments;
  EXPECT_GE(segments, 8u);  // all behind LSN 1 but the first, if at all
  boot.log->SetRestorable(last);
  boot.log->SetCheckpoint(last, last);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 3; }));
  EXPECT_TRUE(Eventually(retained));
  boot.log->SetRetention(0, 1);  // all are older: the beginning is where a restart's is
  EXPECT_TRUE(Eventually([&] { return boot.log->retained_from() == last + 1; }));
  boot.log->SetRetention(0, 0);
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().segments == 1; }));
  EXPECT_EQ(boot.log->retained_from(), wal::kUnknownLsn);
}

TEST_P(LogLifecycleTest, EndsASegmentOnRequest) {
  SimDisk disk;
  Boot boot = BootLog(disk, LogOptions(GetParam()));
  Promise promise;
  boot.log->RequestRotate();
  for (int i = 0; i < 3; ++i) {
    const Lsn last = promise.Append(*boot.log, 100);
    const uint64_t number = boot.log->metrics().segment_number;
    boot.log->RequestRotate();
    ASSERT_TRUE(Eventually([&] { return boot.log->metrics().sealed_lsn >= last; }));
    EXPECT_EQ(boot.log->metrics().segment_number, number + 1);
    boot.log->RequestRotate();  // of an empty one: nothing
    boot.log->RequestSync();
    std::this_thread::sleep_for(std::chrono::milliseconds(3));
    EXPECT_EQ(boot.log->metrics().segment_number, number + 1);
  }
}

// The last frame of a sealed file is its SEAL, and the INDEX frames before it tell of every record.
TEST_P(LogLifecycleTest, IndexesEveryRecordOfASegment) {
  SimDisk disk;
  wal::Options options = LogOptions(GetParam());
  options.max_segment_bytes = 16 << 20;
  Promise promise;
  Boot boot = BootLog(disk, options);
  for (int i = 0; i < 1300; ++i) {
    const Lsn lsn = promise.Append(*boot.log, i % 100 == 7 ? 300 << 10 : 10000);
    boot.log->RequestSync();
    if (i % 50 == 0) {
      ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    }
    ASSERT_TRUE(Eventually([&] { return boot.log->SecureRoom(300 << 10); }));
  }
  boot.log->RequestRotate();
  const Lsn last = boot.log->last_lsn();
  ASSERT_TRUE(Eventually([&] { return boot.log->metrics().sealed_lsn >= last; }));
  boot.log.reset();
  const std::vector<std::string> paths = SegmentPaths(disk);
  const std::string path = *std::max_element(
      paths.begin(), paths.end(), [&](const std::string& a, const std::string& b) {
        return disk.Contents(a).size() < disk.Contents(b).size();
      });
  ASSERT_GT(disk.Contents(path).size(), wal::kIndexedBytes * 2);
  // What the reader finds, frame by frame.
  std::map<uint64_t, wal::Frame> frames;
  auto reader = wal::Reader::Open(disk, kLogDirectory).value();
  wal::Frame frame;
  std::map<uint64_t, std::string> indexes;
  uint64_t records = 0;
  wal::EndPayload end = {};
  uint64_t end_offset = 0;
  while (reader->Next(&frame).value()) {
    if (frame.segment->path != path) continue;
    ASSERT_EQ(frame.verdict, wal::Verdict::kGood);
    if (wal::IsRecord(frame.type)) ++records;
    if (frame.type == static_cast<uint8_t>(wal::FrameType::kIndex)) {
      indexes[frame.offset] = frame.payload;
    }
    if (frame.type == static_cast<uint8_t>(wal::FrameType::kSeal)) {
      ASSERT_EQ(frame.payload.size(), sizeof(end));
      std::memcpy(&end, frame.payload.data(), sizeof(end));
      end_offset = frame.offset;
    }
    frames[frame.offset] = frame;
  }
  EXPECT_EQ(end_offset, disk.Contents(path).size() - wal::FrameBytes(sizeof(end)));
  EXPECT_GE(indexes.size(), 3u);
  uint64_t indexed = 0;
  for (uint64_t at = end.last_index; at != 0;) {
    ASSERT_EQ(indexes.count(at), 1u) << at;
    const auto view = wal::IndexView::Parse(indexes[at]).value();
    indexed += view.records();
    std::vector<uint16_t> shards;
    view.Shards(&shards);
    for (const uint16_t shard : shards) {
      std::vector<uint64_t> offsets;
      ASSERT_TRUE(view.Offsets(shard, &offsets).ok());
      for (const uint64_t offset : offsets) {
        ASSERT_EQ(frames.count(offset), 1u);
        ASSERT_TRUE(wal::IsRecord(frames[offset].type));
        ASSERT_EQ(frames[offset].shard, shard);
      }
    }
    at = view.previous();
  }
  EXPECT_EQ(indexed, records);
  EXPECT_EQ(end.records, records);
}

// --- recycling -----------------------------------------------------------------------------------

TEST(LogRecyclingTest, KeepsTwoSparesAndWritesIntoThem) {
  SimDisk disk;
  Promise promise;
  Boot boot = BootLog(disk, SmallSegments(SyncPolicy::kSync));
  Lsn checkpoint = 0;
  while (boot.log->metrics().segments_recycled < 5) {
    ASSERT_NO_FATAL_FAILURE(Fill(*boot.log, promise, 2));
    checkpoint = boot.log->metrics().sealed_lsn;
    ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, checkpoint).ok());
    boot.log->SetCheckpoint(checkpoint, checkpoint);
    ASSERT_TRUE(Eventually([&] { return boot.log->metrics().segments == 1; }));
    ASSERT_LT(boot.log->metrics().segments_created, 1000u);
  }
  ASSERT_TRUE(Eventually([&] { return boot.log->metrics().spare_segments == 2; }));
  boot.log.reset();
  int spares = 0;
  for (const std::string& path : disk.Paths()) {
    if (path.find("spare-") == std::string::npos) continue;
    ++spares;
    EXPECT_EQ(disk.Contents(path), std::string(kSegmentBytes, '\0')) << path;
  }
  EXPECT_EQ(spares, 2);
  boot = BootLog(disk, SmallSegments(SyncPolicy::kSync));
  EXPECT_EQ(boot.log->metrics().spare_segments, 1u);  // the new segment took one
  EXPECT_TRUE(HasAllBehind(boot, promise));
  EXPECT_TRUE(boot.report.lost.empty());
}

TEST(LogRecyclingTest, NeverOverwritesWhatABackupHas) {
  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories("/backup").ok());
  Promise promise;
  Boot boot = BootLog(disk, SmallSegments(SyncPolicy::kSync));
  std::map<std::string, std::string> backup;
  for (int round = 0; round < 4; ++round) {
    ASSERT_NO_FATAL_FAILURE(Fill(*boot.log, promise, 3));
    const std::vector<std::string> paths = SegmentPaths(disk);
    for (size_t i = 0; i + 1 < paths.size(); i += 2) {
      const std::string name = "/backup/" + std::to_string(backup.size());
      ASSERT_TRUE(disk.Link(paths[i], name).ok());
      backup[name] = disk.Contents(name);
    }
    const Lsn lsn = boot.log->metrics().sealed_lsn;
    boot.log->SetCheckpoint(lsn, lsn);
    ASSERT_TRUE(Eventually([&] { return boot.log->metrics().segments == 1; }));
  }
  ASSERT_NO_FATAL_FAILURE(Fill(*boot.log, promise, 3));
  boot.log.reset();
  ASSERT_GE(backup.size(), 4u);
  for (const auto& [name, bytes] : backup) EXPECT_EQ(disk.Contents(name), bytes) << name;
}

// --- faults --------------------------------------------------------------------------------------

// A life with segments of a few records, a checkpoint at every twelfth, two of them kept.
class Life {
 public:
  Life(SimDisk& disk, const wal::Options& options) : disk_(disk), options_(options) {}

  void Run() {
    boot_ = BootLog(disk_, options_);
    if (boot_.log == nullptr) return;
    wal::Log& log = *boot_.log;
    Lsn older = 0, newest = 0;
    for (int i = 1; i <= 60 && !disk_.crashed() && log.state() == State::kRunning; ++i) {
      const Lsn lsn = promise_.Append(log, kRecordBytes);
      log.RequestSync();
      if (WaitDurable(log, lsn, &disk_)) promise_.NoteDurable(lsn);
      if (i % 12 != 0 || promise_.durable() != lsn) continue;
      if (!PutCheckpoint(disk_, log, kLogDirectory, lsn).ok()) continue;
      older = newest == 0 ? lsn : newest;
      newest = lsn;
      log.SetCheckpoint(newest, older);
      (void)RemoveOldCheckpoints(disk_, kLogDirectory, log.identity().log_id, 2);
    }
    const auto& metrics = log.metrics();
    retired_ = metrics.segments_retired;
    recycled_ = metrics.segments_recycled;
  }
  void End() { boot_.log.reset(); }

  wal::Log* log() { return boot_.log.get(); }
  uint64_t retired() const { return retired_; }
  uint64_t recycled() const { return recycled_; }

  // "" where a boot finds every durable record behind a checkpoint that it has.
  std::string Judge(wal::Disk& disk) {
    wal::Options strict = options_;
    strict.recovery = wal::RecoveryMode::kStrict;
    const Boot boot = BootLog(disk, strict);
    if (boot.log == nullptr) return boot.error;
    Lsn missing = 0;
    for (const auto& [lsn, record] : promise_.appended()) {
      if (lsn <= boot.report.checkpoint_lsn) continue;
      const auto found = boot.records.find(lsn);
      if (found == boot.records.end()) {
        if (lsn <= promise_.durable()) return "lost durable LSN " + std::to_string(lsn);
        missing = lsn;
      } else if (!(found->second == record)) {
        return "changed LSN " + std::to_string(lsn);
      } else if (missing != 0) {
        return "LSN " + std::to_string(missing) + " is missing before a later one";
      }
    }
    return "";
  }

 private:
  SimDisk& disk_;
  const wal::Options options_;
  Promise promise_;
  Boot boot_;
  uint64_t retired_ = 0, recycled_ = 0;
};

wal::Options LifeOptions(SyncPolicy policy) {
  wal::Options options = SmallSegments(policy);
  options.max_segment_bytes = 16 << 10;
  return options;
}

TEST_P(LogLifecycleTest, KeepsWhatIsNeededWhereverThePowerFails) {
  uint64_t cases = 0, retired = 0, recycled = 0;
  const uint64_t step = LongTests() ? 1 : 5;
  bool crashed = true;
  for (uint64_t crash_at = 1; crashed; crash_at += step) {
    for (const Survivors survivors : kEverySurvivors) {
      if (!LongTests() && survivors != kEverySurvivors[crash_at / step % 4]) continue;
      SCOPED_TRACE(testing::Message() << "crash at change " << crash_at << ", survivors "
                                      << SurvivorsName(survivors) << ", seed " << TestSeed());
      SimDisk disk(
          {.seed = Mix(TestSeed(), crash_at), .crash_at = crash_at, .survivors = survivors});
      Life life(disk, LifeOptions(GetParam()));
      life.Run();
      life.End();
      crashed = disk.crashed();
      const auto after = disk.PowerCut();
      ASSERT_EQ(life.Judge(*after), "");
      retired += life.retired();
      recycled += life.recycled();
      ++cases;
    }
  }
  std::cout << "cases: " << cases << ", segments retired: " << retired
            << ", of them recycled: " << recycled << "\n";
  EXPECT_GT(retired, 0u);
  EXPECT_EQ(recycled > 0, GetParam() == SyncPolicy::kSync);
}

TEST_P(LogLifecycleTest, KeepsWhatIsNeededWhicheverCallFails) {
  uint64_t cases = 0;
  const uint64_t step = LongTests() ? 1 : 11;
  for (const bool for_ever : {false, true}) {
    bool reached = true;
    for (uint64_t nth = 1; reached; nth += step) {
      SCOPED_TRACE(testing::Message() << "call " << nth << " fails, for ever: " << for_ever);
      SimDisk disk({.seed = Mix(TestSeed(), nth)});
      disk.AddFault({.nth = nth, .error = nth % 2 == 0 ? EIO : ENOSPC, .for_ever = for_ever});
      wal::Options options = LifeOptions(GetParam());
      options.on_error = wal::OnError::kRefuse;
      Life life(disk, options);
      life.Run();
      reached = disk.failed_calls() > 0;
      disk.ClearFaults();
      if (life.log() != nullptr) {
        ASSERT_TRUE(Eventually([&] { return life.log()->state() == State::kRunning; }));
      }
      const auto after = disk.PowerCut();
      life.End();
      ASSERT_EQ(life.Judge(*after), "");
      ++cases;
    }
  }
  std::cout << "cases: " << cases << "\n";
}

INSTANTIATE_TEST_SUITE_P(Policies, LogLifecycleTest,
                         testing::Values(SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync),
                         [](const auto& param) { return PolicyName(param.param); });

// A full disk takes what may be retired, at once.
TEST(LogFullDiskTest, RemovesWhatMayGoBeforeItGivesUp) {
  SimDisk disk;
  Promise promise;
  wal::Options options = SmallSegments(SyncPolicy::kAsync);
  options.on_error = wal::OnError::kRefuse;
  Boot boot = BootLog(disk, options);
  Fill(*boot.log, promise, 5);
  // Nothing can be removed while removing fails; then the disk fills up.
  disk.AddFault({.calls = kRemove, .error = EIO});
  const Lsn lsn = boot.log->metrics().sealed_lsn;
  boot.log->SetCheckpoint(lsn, lsn);
  ASSERT_TRUE(Eventually([&] { return disk.failed_calls() > 0; }));
  ASSERT_EQ(boot.log->metrics().segments_retired, 0u);
  disk.SetCapacity(disk.used_bytes());
  for (int i = 0; i < 20; ++i) {
    const Lsn next = promise.Append(*boot.log, kRecordBytes);
    boot.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot.log, next)) << boot.log->metrics().last_error;
  }
  EXPECT_EQ(boot.log->state(), State::kRunning);
  EXPECT_GE(boot.log->metrics().segments_retired, 4u);
}

// --- a disk that stops answering -----------------------------------------------------------------

TEST(LogStallTest, TakesRecordsUntilTheRingIsFullAndTellsOfTheStall) {
  StallingDisk disk;
  Promise promise;
  Boot boot = BootLog(disk, LogOptions(SyncPolicy::kAsync));
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(boot.log->metrics().sync_stalled_ms, 0u);
  disk.Stall();
  Lsn last = 0;
  uint64_t taken = 0;
  while (boot.log->SecureRoom(1000)) {
    last = promise.Append(*boot.log, 1000);
    boot.log->RequestSync();
    ++taken;
  }
  EXPECT_GE(taken, (1u << 20) / 1000 / 2);
  EXPECT_EQ(boot.log->state(), State::kRunning);
  ASSERT_TRUE(Eventually([&] { return boot.log->metrics().sync_stalled_ms >= 20; }));
  EXPECT_LT(boot.log->durable_lsn(), last);
  disk.Release();
  EXPECT_TRUE(WaitDurable(*boot.log, last));
  EXPECT_TRUE(Eventually([&] { return boot.log->metrics().sync_stalled_ms == 0; }));
  EXPECT_TRUE(boot.log->SecureRoom(1000));
}

// --- a start behind a gap ------------------------------------------------------------------------

TEST(LogAfterGapTest, BeginsBehindAGapAndCountsWithACheckpoint) {
  for (const bool bridged : {false, true}) {
    SimDisk disk;
    wal::Options options = LogOptions(SyncPolicy::kSync);
    Promise promise;
    Boot boot = BootLog(disk, options);
    ASSERT_TRUE(WaitDurable(*boot.log, promise.Append(*boot.log, 100)));
    boot.log.reset();
    options.after_gap = true;
    boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_TRUE(boot.records.empty());
    EXPECT_TRUE(boot.log->metrics().awaits_checkpoint);
    EXPECT_EQ(boot.log->state(), State::kDegraded);
    const Lsn bridge = boot.log->last_lsn();
    EXPECT_LT(boot.log->durable_lsn(), bridge);
    const Lsn behind = promise.Append(*boot.log, 100);
    boot.log->RequestSync();
    ASSERT_TRUE(Eventually([&] { return boot.log->metrics().synced_lsn >= behind; }));
    if (bridged) {
      ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, bridge).ok());
      boot.log->SetCheckpoint(bridge, bridge);
      ASSERT_TRUE(WaitDurable(*boot.log, behind) ||
                  Eventually([&] { return boot.log->durable_lsn() >= behind; }));
    }
    boot.log.reset();
    options.after_gap = false;
    options.recovery = wal::RecoveryMode::kStrict;
    boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records.count(behind), bridged ? 1u : 0u);
    EXPECT_EQ(boot.records.count(1), bridged ? 0u : 1u);
  }
}

// However the life behind it ends, and through whatever starts: without its checkpoint something
// is missing before the first record behind a gap, and every later start knows that.
TEST(LogAfterGapTest, StandsWhereNothingWasAppendedBehindIt) {
  enum class End { kStop, kKill, kPowerCut };
  for (const End end : {End::kStop, End::kKill, End::kPowerCut}) {
    SCOPED_TRACE(static_cast<int>(end));
    auto disk = std::make_unique<SimDisk>();
    wal::Options options = LogOptions(SyncPolicy::kSync);
    Promise promise;
    Boot boot = BootLog(*disk, options);
    ASSERT_TRUE(WaitDurable(*boot.log, promise.Append(*boot.log, 100)));
    const Records before = promise.appended();
    boot.log.reset();
    options.after_gap = true;
    boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const Lsn bridge = boot.log->last_lsn();
    ASSERT_TRUE(PutCheckpoint(*disk, *boot.log, kLogDirectory, bridge).ok());
    boot.log->SetCheckpoint(bridge, 0);
    ASSERT_TRUE(WaitHealed(*boot.log));
    options.after_gap = false;
    options.recovery = wal::RecoveryMode::kStrict;
    const auto leave = [&] {
      if (end == End::kStop) {
        ASSERT_TRUE(boot.log->Stop().ok());
      } else {
        auto left = end == End::kKill ? disk->Kill() : disk->PowerCut();
        boot.log.reset();
        disk = std::move(left);
      }
      boot.log.reset();
    };
    for (int start = 0; start < 2; ++start) {
      leave();
      boot = BootLog(*disk, options);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      EXPECT_EQ(boot.report.checkpoint_lsn, bridge);
      EXPECT_EQ(boot.log->last_lsn(), bridge);
      EXPECT_EQ(boot.log->durable_lsn(), bridge);
      EXPECT_EQ(boot.log->state(), State::kRunning);
    }
    const Lsn behind = promise.Append(*boot.log, 100);
    EXPECT_EQ(behind, bridge + 1);
    ASSERT_TRUE(WaitDurable(*boot.log, behind));
    leave();
    disk->ZeroSector(std::string(kLogDirectory) + "/" + wal::CheckpointName(bridge), 0);
    EXPECT_NE(BootLog(*disk->Kill(), options).error, "");
    options.recovery = wal::RecoveryMode::kPrefix;
    EXPECT_TRUE(BootLog(*disk->Kill(), options).records == before);
    options.recovery = wal::RecoveryMode::kSalvage;
    boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records.count(behind), 1u);
    const std::string warnings = testing::PrintToString(boot.report.warnings);
    EXPECT_NE(warnings.find("what changed during that time is lost"), std::string::npos)
        << warnings;
  }
}

}  // namespace
}  // namespace crab::test

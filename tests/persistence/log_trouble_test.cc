// What a log in trouble with its disk leaves to the next start, wherever the trouble goes on.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "persistence/log.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/stalling_disk.h"
#include "utils/log.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::RecordType;
using wal::State;
using wal::SyncPolicy;

// Records of an unsynced log of which replies may tell: a kill takes none of them.
struct Acknowledged {
  const char* name;
  bool shared_ring;
  wal::Compression compression;
  SyncPolicy policy;
};

constexpr Acknowledged kAcknowledged[] = {
    {"SharedRing", true, wal::Compression::kNone, SyncPolicy::kAsync},
    {"PrivateRing", false, wal::Compression::kNone, SyncPolicy::kAsync},
    {"SharedRingPacked", true, wal::Compression::kLz4, SyncPolicy::kAsync},
    {"PrivateRingPacked", false, wal::Compression::kLz4, SyncPolicy::kAsync},
    {"SharedRingNone", true, wal::Compression::kNone, SyncPolicy::kNone},
    {"PrivateRingNone", false, wal::Compression::kNone, SyncPolicy::kNone},
};

class LogTroubleTest : public testing::TestWithParam<Acknowledged> {
 protected:
  LogTroubleTest() {
    options_ = LogOptions(GetParam().policy);
    options_.on_error = OnError::kRefuse;
    options_.retry_ms = 1;
    options_.max_segment_bytes = 16 << 20;
    options_.flush_interval_ms = 1u << 30;  // nothing is synced unless it is asked for
    options_.buffer_bytes = 1;
    options_.compression = GetParam().compression;
    if (GetParam().shared_ring) options_.ring_directory = rings_.path();
  }

  Lsn Append(wal::Log& log, size_t bytes) {
    const Lsn lsn = promise_.Append(log, bytes);
    log.Kick();
    return lsn;
  }
  Lsn AppendWritten(wal::Log& log, size_t bytes) {
    const Lsn lsn = Append(log, bytes);
    EXPECT_TRUE(Eventually([&] { return log.written_lsn() >= lsn; }));
    return lsn;
  }

  // As the process' death leaves both, with the disk in order again.
  Boot BootKilled(const SimDisk& disk, std::unique_ptr<SimDisk>* killed) {
    wal::Options options = options_;
    std::filesystem::remove_all(left_.path());
    if (GetParam().shared_ring) {
      std::filesystem::copy(rings_.path(), left_.path());
      options.ring_directory = left_.path();
    }
    *killed = disk.Kill();
    return BootLog(**killed, options);
  }

  TemporaryDirectory rings_, left_;
  wal::Options options_;
  Promise promise_;
};

// A write fails, and then a later call for ever. Until the new segment has all that was written it
// must not end the old one: of what a heap held, and of all where no ring is left, that has the
// only copy.
TEST_P(LogTroubleTest, LosesNothingWrittenWhicheverCallOfTheNextSegmentFails) {
  uint64_t cases = 0;
  for (const bool stops : {false, true}) {
    // Each call with one of the two ends, or in the long run with both.
    for (uint64_t nth = 1 + (stops && !LongTests());; nth += LongTests() ? 1 : 2) {
      SCOPED_TRACE(testing::Message() << "call " << nth << (stops ? ", then a stop" : ""));
      promise_ = {};
      SimDisk disk({.seed = Mix(TestSeed(), nth)});
      Boot boot = BootLog(disk, options_);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      wal::Log& log = *boot.log;
      const Lsn durable = AppendWritten(log, 100);
      log.RequestSync();
      ASSERT_TRUE(WaitDurable(log, durable));
      for (int i = 0; i < 3; ++i) AppendWritten(log, 3000);
      AppendWritten(log, 200 << 10);  // above an eighth of the ring
      AppendWritten(log, 700 << 10);
      const Lsn acknowledged = AppendWritten(log, 500);
      ASSERT_TRUE(Eventually([&] { return log.release_lsn() >= acknowledged; }));
      const uint64_t failed_before = disk.failed_calls();
      disk.AddFault({.calls = kWrite, .error = ENOSPC, .written = 0.5});
      disk.AddFault({.nth = nth + 1, .error = ENOSPC, .for_ever = true, .written = 0.3});
      const Lsn last = Append(log, 300 << 10);
      ASSERT_TRUE(
          Eventually([&] { return log.state() != State::kRunning || log.written_lsn() >= last; }));
      if (stops) (void)log.Stop();
      std::unique_ptr<SimDisk> killed;
      const bool reached = disk.failed_calls() > failed_before + 1;
      Boot again = BootKilled(disk, &killed);
      ASSERT_NE(again.log, nullptr) << again.error;
      for (Lsn lsn = 1; lsn <= acknowledged; ++lsn) {
        ASSERT_EQ(again.records.count(lsn), 1u)
            << "LSN " << lsn << " is gone" << testing::PrintToString(again.report.warnings);
      }
      ASSERT_EQ(promise_.Judge(again.records), "");
      ASSERT_TRUE(again.log->Stop().ok());
      disk.ClearFaults();
      boot.log.reset();
      ++cases;
      if (!reached) break;
    }
  }
  std::cout << "cases: " << cases << "\n";
}

wal::Options BehindGap(OnError on_error) {
  wal::Options options = LogOptions(SyncPolicy::kAsync);
  options.after_gap = true;
  options.on_error = on_error;
  options.flush_interval_ms = 1u << 30;
  options.retry_ms = 1;
  return options;
}

bool Sleeps(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string stat;
  std::getline(file, stat);
  return stat.find(") S ") != std::string::npos;
}

// Behind a gap, while a sync does not return, the checkpoint is published and the log told to stop;
// then the sync fails.
TEST(LogTroubleGapTest, EndsWellWhenASyncFailsAtAStopThatBringsTheCheckpoint) {
  const wal::Options options = BehindGap(OnError::kDegrade);
  StallingDisk disk;
  Promise promise;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  wal::Log& log = *boot.log;
  const Lsn bridge = log.last_lsn();
  promise.Append(log, 100);
  const Lsn last = promise.Append(log, 5000);
  ASSERT_TRUE(PutCheckpoint(disk, log, kLogDirectory, bridge).ok());
  disk.Stall();
  log.RequestSync();
  ASSERT_TRUE(Eventually([&] { return disk.stalled(); }));
  log.SetCheckpoint(bridge, 0);
  std::atomic<pid_t> stopper{0};
  Status stopped = Status::Ok();
  std::thread stop([&] {
    stopper = gettid();
    stopped = log.Stop();
  });
  // Where it waits for the writer.
  ASSERT_TRUE(Eventually([&] { return stopper != 0 && Sleeps(stopper); }));
  disk.Release(EIO);
  stop.join();
  EXPECT_TRUE(stopped.ok()) << stopped.message();
  boot.log.reset();
  wal::Options strict = LogOptions(SyncPolicy::kAsync);
  strict.recovery = wal::RecoveryMode::kStrict;
  const auto after = disk.PowerCut();
  Boot again = BootLog(*after, strict);
  ASSERT_NE(again.log, nullptr) << again.error;
  EXPECT_EQ(again.report.checkpoint_lsn, bridge);
  EXPECT_EQ(again.records.count(last), 1u);
}

// Whoever is told to exit may take its time.
TEST(LogTroubleGapTest, DegradesBehindAGapWhereTheProcessDoesNotExit) {
  wal::Options options = BehindGap(OnError::kExit);
  std::atomic<int> told{0};
  options.on_fatal = [&](std::string_view) { ++told; };
  StallingDisk disk;
  Promise promise;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  wal::Log& log = *boot.log;
  const Lsn bridge = log.last_lsn();
  promise.Append(log, 100);
  ASSERT_TRUE(PutCheckpoint(disk, log, kLogDirectory, bridge).ok());
  disk.Stall();
  log.RequestSync();
  ASSERT_TRUE(Eventually([&] { return disk.stalled(); }));
  log.SetCheckpoint(bridge, 0);
  disk.Release(EIO);
  ASSERT_TRUE(Eventually([&] { return log.resumable(); }));
  EXPECT_EQ(told, 1);
  EXPECT_EQ(log.state(), State::kDegraded);
  const auto resumed = log.Resume();
  ASSERT_TRUE(resumed.ok());
  ASSERT_TRUE(PutCheckpoint(disk, log, kLogDirectory, *resumed).ok());
  log.SetCheckpoint(*resumed, 0);
  EXPECT_TRUE(Eventually([&] { return log.state() == State::kRunning; }));
  EXPECT_TRUE(log.Stop().ok());
}

TEST(LogStopTest, SaysWhatIsNotOnTheDisk) {
  for (const bool one_more : {false, true}) {
    wal::Options options = LogOptions(SyncPolicy::kAsync);
    options.on_error = OnError::kRefuse;
    options.flush_interval_ms = 1u << 30;
    SimDisk disk;
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const Lsn last = boot.log->Append(RecordType::kEffect, 3, "a record");
    boot.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot.log, last));
    disk.AddFault({.calls = kWrite | kCreate, .error = ENOSPC, .for_ever = true});
    if (one_more) (void)boot.log->Append(RecordType::kEffect, 3, "another");
    const Status stopped = boot.log->Stop();
    ASSERT_FALSE(stopped.ok());
    const std::string expected = one_more
                                     ? "LSN " + std::to_string(last + 1) + " not on disk"
                                     : "all records are on disk, only the mark of a clean stop";
    EXPECT_NE(stopped.message().find(expected), std::string::npos) << stopped.message();
    disk.ClearFaults();
  }
}

// What starts the server reads its standard error, an operator its log file.
TEST(LogTroubleDeathTest, SaysBothInTheLogAndOnStandardErrorWhyItExits) {
  TemporaryDirectory directory;
  const std::string file = directory.path() + "/log";
  const auto fail = [&] {
    if (!SetLogFile(file).ok()) _exit(9);
    SetLogLevel(LogLevel::kWarning);
    wal::Options options = LogOptions(SyncPolicy::kSync);
    options.on_error = OnError::kExit;
    SimDisk disk;
    Boot boot = BootLog(disk, options);
    disk.AddFault({.calls = kWrite | kCreate, .error = ENOSPC, .for_ever = true});
    (void)boot.log->Append(RecordType::kEffect, 3, "a record");
    boot.log->Kick();
    for (;;) pause();
  };
  EXPECT_EXIT(fail(), testing::ExitedWithCode(EXIT_FAILURE),
              "No space left on device; exiting \\(wal-on-error exit\\)");
  std::ifstream written(file);
  const std::string text{std::istreambuf_iterator<char>(written), {}};
  EXPECT_NE(text.find(" error "), std::string::npos) << text;
  EXPECT_NE(text.find("No space left on device; exiting wal-on-error=exit"), std::string::npos)
      << text;
}

// A new segment is filled before it has its name. Until then a spare has its old one, and a power
// cut may keep any part of what was not synced.
TEST(LogTroubleSpareTest, IsNoSpareAnyMoreOnceMoreThanAHeaderIsWritten) {
  uint64_t written_spares = 0;
  bool crashed = true;
  for (uint64_t crash_at = 1; crashed; ++crash_at) {
    SCOPED_TRACE(crash_at);
    SimDisk disk({.seed = Mix(TestSeed(), crash_at)});
    Boot boot = BootLog(disk, LogOptions(SyncPolicy::kSync));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    wal::Log& log = *boot.log;
    Lsn first = 0;
    for (uint64_t spares = 1; spares <= 2; ++spares) {  // each write asks for one
      first = log.Append(RecordType::kEffect, 3, std::string(spares == 1 ? 600 << 10 : 100, 'x'));
      log.Kick();
      ASSERT_TRUE(WaitDurable(log, first));
      ASSERT_TRUE(Eventually([&] { return log.metrics().spare_segments == spares; }));
    }
    log.RequestRotate();  // makes the name of the second one durable
    ASSERT_TRUE(Eventually([&] { return log.metrics().sealed_lsn >= first; }));
    ASSERT_EQ(log.metrics().spare_segments, 1u);
    disk.AddFault({.calls = kSync, .error = EIO});
    disk.CrashAt(crash_at, Survivors::kNone);
    const Lsn last = log.Append(RecordType::kEffect, 3, std::string(300 << 10, 'y'));
    log.Kick();
    ASSERT_TRUE(Eventually([&] { return log.durable_lsn() >= last || disk.crashed(); }));
    crashed = disk.crashed();
    boot.log.reset();
    const auto written = disk.Kill();
    const auto durable = disk.PowerCut();
    constexpr size_t kLookedAt = 8192;  // by those who find a spare
    for (const std::string& path : written->Paths()) {
      if (!crashed || !path.ends_with(".zero")) continue;
      if (written->Contents(path).find_first_not_of('\0', kLookedAt) == std::string::npos) continue;
      ++written_spares;
      ASSERT_TRUE(durable->Exists(path));
      EXPECT_LT(durable->Contents(path).find_first_not_of('\0'), kLookedAt);
    }
  }
  EXPECT_GT(written_spares, 0u);
}

INSTANTIATE_TEST_SUITE_P(Cases, LogTroubleTest, testing::ValuesIn(kAcknowledged),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace crab::test

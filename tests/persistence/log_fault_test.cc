// Each single call of the disk fails, once or for ever from then on, while a log with a past
// starts, works and stops. Whatever fails: nothing that was called durable is lost, the log refuses
// or degrades as wal.on_error says, and it works again once the disk does.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <iostream>
#include <set>
#include <thread>

#include "persistence/checkpoint.h"
#include "persistence/log.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "utils/crc32c.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::State;
using wal::SyncPolicy;

struct Scenario {
  SyncPolicy policy;
  OnError on_error;
  State in_trouble;  // where on_error leads under this policy
};

wal::Options FaultOptions(const Scenario& scenario) {
  wal::Options options = LogOptions(scenario.policy);
  options.on_error = scenario.on_error;
  options.retry_ms = 1;
  return options;
}

// One log on one disk, over its boots.
class FaultyRun {
 public:
  FaultyRun(const Scenario& scenario, uint64_t seed)
      : scenario_(scenario), options_(FaultOptions(scenario)), disk_({.seed = seed}) {}

  SimDisk& disk() { return disk_; }

  // Two epochs without any trouble, the first one cleanly stopped.
  void Past() {
    for (int i = 0; i < 2; ++i) {
      Boot boot = BootLog(disk_, options_);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      for (int k = 0; k < 4; ++k) AppendAndWait(*boot.log, 100);
      ASSERT_TRUE(i != 0 || boot.log->Stop().ok());
    }
  }

  // The life that the fault falls into. False where the log would not start.
  bool Live() {
    boot_ = BootLog(disk_, options_);
    if (boot_.log == nullptr) {
      EXPECT_NE(boot_.error, "");
      return false;
    }
    // What could not be read is reported as lost; its LSNs may be used again.
    for (const auto& range : boot_.report.lost) {
      std::erase_if(acknowledged_,
                    [&](Lsn lsn) { return range.first <= lsn && lsn <= range.last; });
    }
    for (const Lsn lsn : acknowledged_) {
      EXPECT_EQ(boot_.records.count(lsn), 1u) << "LSN " << lsn << " is gone without a word";
    }
    wal::Log& log = *boot_.log;
    for (int i = 0; i < 5; ++i) AppendAndWait(log, static_cast<size_t>(i) * 300);
    for (int i = 0; i < 20; ++i) Append(log, 700);
    AppendAndWait(log, 10);
    for (int i = 0; i < 3; ++i) AppendAndWait(log, 400 << 10);  // into the next segment
    return true;
  }

  // With the disk in order again the log is too, on its own or with Resume().
  void Heal() {
    disk_.ClearFaults();
    wal::Log& log = *boot_.log;
    if (log.state() == State::kDegraded) {
      gap_ = true;
      ASSERT_TRUE(Eventually([&] { return log.resumable(); })) << log.metrics().last_error;
      const auto resumed = log.Resume();
      ASSERT_TRUE(resumed.ok());
      ASSERT_TRUE(PutCheckpoint(disk_, log, kLogDirectory, *resumed).ok());
      log.SetCheckpoint(*resumed, 0);
      bridge_ = *resumed;
    }
    ASSERT_TRUE(Eventually([&] { return log.state() == State::kRunning; }))
        << log.metrics().last_error;
    for (int i = 0; i < 3; ++i) {
      const Lsn lsn = AppendAndWait(log, 200);
      ASSERT_EQ(acknowledged_.count(lsn), 1u) << log.metrics().last_error;
    }
  }

  void StopAndForget() {
    (void)boot_.log->Stop();
    boot_.log.reset();
  }

  // The power fails, and the next boot has everything acknowledged. Where the log never dropped
  // anything, what it has is a beginning of what was appended.
  void PowerCutAndJudge(bool one_failure = false) {
    auto after = disk_.PowerCut();
    Boot boot = BootLog(*after, options_);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    ASSERT_TRUE(boot.in_order);
    ASSERT_EQ(boot.report.checkpoint_lsn, bridge_);
    for (const Lsn lsn : acknowledged_) {
      if (lsn <= bridge_) continue;  // in the checkpoint
      ASSERT_EQ(boot.records.count(lsn), 1u)
          << "lost acknowledged LSN " << lsn << testing::PrintToString(boot.report.warnings);
    }
    for (const auto& [lsn, record] : boot.records) {
      if (lsn == bridge_) continue;
      const auto appended = promise_.appended().find(lsn);
      ASSERT_NE(appended, promise_.appended().end()) << "invented LSN " << lsn;
      ASSERT_TRUE(appended->second == record) << "changed LSN " << lsn;
    }
    if (gap_) return;
    if (scenario_.policy != SyncPolicy::kNone || one_failure) {
      ASSERT_EQ(promise_.Judge(boot.records), "");
      return;
    }
    // Under `none` the ring forgets a record once it is written. If the file then fails, and its
    // rescue does, the record is gone, and the next boot says so.
    for (const auto& [lsn, record] : promise_.appended()) {
      if (boot.records.count(lsn) != 0 || boot.records.rbegin()->first < lsn) continue;
      ASSERT_TRUE(std::any_of(
          boot.report.lost.begin(), boot.report.lost.end(),
          [&, l = lsn](const auto& range) { return range.first <= l && l <= range.last; }))
          << "LSN " << lsn << " is gone without a word";
    }
  }

  const wal::Log& log() const { return *boot_.log; }

 private:
  Lsn Append(wal::Log& log, size_t bytes) {
    if (log.state() == State::kDegraded) gap_ = true;
    return promise_.Append(log, bytes);
  }

  Lsn AppendAndWait(wal::Log& log, size_t bytes) {
    const Lsn lsn = Append(log, bytes);
    if (lsn == wal::kNoGate) return lsn;
    if (scenario_.policy != SyncPolicy::kSync) log.RequestSync();
    if (WaitDurable(log, lsn, &disk_)) acknowledged_.insert(lsn);
    return lsn;
  }

  const Scenario scenario_;
  const wal::Options options_;
  SimDisk disk_;
  Promise promise_;
  Boot boot_;
  std::set<Lsn> acknowledged_;
  Lsn bridge_ = 0;    // the checkpoint behind a gap
  bool gap_ = false;  // it degraded: what was not durable then is dropped
};

constexpr Scenario kScenarios[] = {
    {SyncPolicy::kSync, OnError::kAuto, State::kRefusing},
    {SyncPolicy::kAsync, OnError::kAuto, State::kDegraded},
    {SyncPolicy::kSync, OnError::kDegrade, State::kDegraded},
    {SyncPolicy::kNone, OnError::kRefuse, State::kRefusing},
};

class LogFaultTest : public testing::TestWithParam<Scenario> {};

TEST_P(LogFaultTest, KeepsItsWordWhicheverCallFails) {
  struct Kind {
    int error;
    double written;
  };
  const Kind kinds[] = {{EIO, 0}, {ENOSPC, 0.5}, {EROFS, 0}, {EIO, 0.9}};
  uint64_t cases = 0, refused_to_start = 0, in_trouble = 0, passed_over = 0;
  for (const bool for_ever : {false, true}) {
    for (uint64_t nth = 1;; ++nth) {
      // Every kind in the long run; otherwise they take turns.
      bool reached = true;
      for (size_t k = 0; k < std::size(kinds); ++k) {
        if (!LongTests() && k != (nth + for_ever) % std::size(kinds)) continue;
        SCOPED_TRACE(testing::Message()
                     << "call " << nth << " fails " << (for_ever ? "for ever" : "once") << " with "
                     << std::strerror(kinds[k].error));
        FaultyRun run(GetParam(), Mix(TestSeed(), nth));
        ASSERT_NO_FATAL_FAILURE(run.Past());
        run.disk().AddFault({.nth = nth,
                             .error = kinds[k].error,
                             .for_ever = for_ever,
                             .written = kinds[k].written});
        ++cases;
        if (!run.Live()) {
          ++refused_to_start;
          run.disk().ClearFaults();
          ASSERT_TRUE(run.Live());
        }
        const State state = run.log().state();
        ASSERT_TRUE(state == State::kRunning || state == GetParam().in_trouble)
            << static_cast<int>(state);
        ++(state == State::kRunning ? passed_over : in_trouble);
        reached = run.disk().failed_calls() > 0 && reached;
        ASSERT_NO_FATAL_FAILURE(run.Heal());
        if (nth % 2 == 0) run.StopAndForget();
        ASSERT_NO_FATAL_FAILURE(run.PowerCutAndJudge(/*one_failure=*/!for_ever));
        if (HasFailure()) return;
      }
      if (!reached && nth > 20) break;
    }
  }
  std::cout << "cases: " << cases << ", would not start: " << refused_to_start
            << ", in trouble: " << in_trouble << ", carried on: " << passed_over << "\n";
}

// The same while it stops: an error says so, and what was acknowledged stays.
TEST_P(LogFaultTest, KeepsItsWordWhicheverCallOfItsEndFails) {
  uint64_t cases = 0;
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(nth);
    FaultyRun run(GetParam(), Mix(TestSeed(), nth));
    ASSERT_NO_FATAL_FAILURE(run.Past());
    ASSERT_TRUE(run.Live());
    const uint64_t failed_before = run.disk().failed_calls();
    run.disk().AddFault({.nth = nth, .error = EIO, .for_ever = nth % 2 == 0});
    run.StopAndForget();
    ++cases;
    const bool reached = run.disk().failed_calls() > failed_before;
    run.disk().ClearFaults();
    ASSERT_NO_FATAL_FAILURE(run.PowerCutAndJudge());
    if (!reached) break;
  }
  std::cout << "cases: " << cases << "\n";
}

// Nothing writable at all for a while, then space again: the disk is full, record by record.
TEST_P(LogFaultTest, OutlivesAFullDisk) {
  uint64_t cases = 0;
  for (uint64_t blocks = 0; blocks < 600; blocks += LongTests() ? 1 : 23) {
    SCOPED_TRACE(testing::Message() << blocks << " blocks free");
    FaultyRun run(GetParam(), TestSeed());
    ASSERT_NO_FATAL_FAILURE(run.Past());
    run.disk().SetCapacity(run.disk().used_bytes() + blocks * SimDisk::kBlockBytes);
    ++cases;
    if (!run.Live()) {
      run.disk().SetCapacity(1ull << 40);
      ASSERT_TRUE(run.Live());
    }
    run.disk().SetCapacity(1ull << 40);
    ASSERT_NO_FATAL_FAILURE(run.Heal());
    ASSERT_NO_FATAL_FAILURE(run.PowerCutAndJudge());
  }
  std::cout << "cases: " << cases << "\n";
}

TEST(LogStartTest, TellsOfADirectoryThatItMayNotUse) {
  for (const DiskCall call : {kCreateDirectories, kLock, kList, kCreate, kSyncDirectory}) {
    for (const int error : {EACCES, EROFS}) {
      SCOPED_TRACE(testing::Message() << call << " " << std::strerror(error));
      SimDisk disk({.faults = {{.calls = call, .error = error, .for_ever = true}}});
      Boot boot = BootLog(disk, LogOptions(SyncPolicy::kSync));
      ASSERT_EQ(boot.log, nullptr);
      EXPECT_EQ(boot.error_number, error);
      EXPECT_NE(boot.error.find("wal"), std::string::npos) << boot.error;
      EXPECT_NE(boot.error.find(std::strerror(error)), std::string::npos) << boot.error;
    }
  }
}

// To go on without a checkpoint that may be whole would be to throw away what it holds.
TEST(LogStartTest, RefusesToBeginWithoutACheckpointThatItCannotOpen) {
  SimDisk disk;
  const wal::Options options = LogOptions(SyncPolicy::kSync);
  {
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const wal::Lsn last = boot.log->Append(wal::RecordType::kEffect, 3, "before it");
    boot.log->Kick();
    ASSERT_TRUE(WaitDurable(*boot.log, last));
    ASSERT_TRUE(PutCheckpoint(disk, *boot.log, kLogDirectory, last).ok());
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  const std::vector<std::string> paths = disk.Paths();
  for (const int error : {EACCES, EMFILE, ENOMEM}) {
    disk.AddFault({.calls = kMap, .error = error, .for_ever = true});
    Boot refused = BootLog(disk, options);
    EXPECT_EQ(refused.log, nullptr);
    EXPECT_EQ(refused.error_number, error) << refused.error;
    EXPECT_EQ(disk.Paths(), paths);
    disk.ClearFaults();
  }
  const std::string path = std::string(kLogDirectory) + "/" + wal::CheckpointName(1);
  const std::string whole = disk.Contents(path);
  std::string newer = whole;
  constexpr uint32_t kNewerVersion = 3;
  std::memcpy(newer.data() + offsetof(wal::CheckpointHeader, min_reader_version), &kNewerVersion,
              sizeof(kNewerVersion));
  constexpr size_t kCrcAt = offsetof(wal::CheckpointHeader, crc);
  const uint32_t crc = Crc32c(std::string_view(newer).substr(0, kCrcAt));
  std::memcpy(newer.data() + kCrcAt, &crc, sizeof(crc));
  disk.PutFile(path, newer);
  Boot refused = BootLog(disk, options);
  EXPECT_EQ(refused.log, nullptr);
  EXPECT_EQ(refused.error_number, ENOTSUP) << refused.error;
  EXPECT_EQ(disk.Paths(), paths);

  // A hiccup passes.
  disk.PutFile(path, whole);
  disk.AddFault({.calls = kMap, .error = EMFILE});
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  EXPECT_EQ(boot.report.checkpoint_lsn, 1u);
}

TEST(LogStartTest, RefusesADirectoryThatAnotherServerUses) {
  SimDisk disk;
  Boot first = BootLog(disk, LogOptions(SyncPolicy::kSync));
  ASSERT_NE(first.log, nullptr);
  Boot second = BootLog(disk, LogOptions(SyncPolicy::kSync));
  EXPECT_EQ(second.log, nullptr);
  EXPECT_EQ(second.error_number, EWOULDBLOCK);
}

INSTANTIATE_TEST_SUITE_P(Scenarios, LogFaultTest, testing::ValuesIn(kScenarios),
                         [](const auto& param) {
                           return std::string(PolicyName(param.param.policy)) +
                                  (param.param.in_trouble == State::kDegraded ? "Degrades"
                                                                              : "Refuses");
                         });

}  // namespace
}  // namespace crab::test

// A log that had to be given up and goes on: the disk fills up at every place, the log degrades or
// refuses, space returns, and the life after it ends by a stop, a power cut or a kill at every
// phase. The files that are left are whole in the eyes of `verify` and of a strict start.
#include <gtest/gtest.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <iostream>
#include <set>
#include <thread>

#include "persistence/log.h"
#include "persistence/reader.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::RecordType;
using wal::State;
using wal::SyncPolicy;

constexpr uint64_t kUnlimited = 1ull << 40;

// What `crabcache-wal verify` would call corrupt; "" for a whole log.
std::string Damage(wal::Disk& disk) {
  auto reader = wal::Reader::Open(disk, kLogDirectory);
  if (!reader.ok()) return std::string(reader.message());
  wal::Frame frame;
  for (;;) {
    auto more = (*reader)->Next(&frame);
    if (!more.ok()) return std::string(more.message());
    if (!*more) return "";
    if (frame.verdict == wal::Verdict::kCorrupt || frame.verdict == wal::Verdict::kMissing) {
      return (frame.segment == nullptr ? "" : frame.segment->name + ": ") + frame.reason +
             "; LSNs " + std::to_string(frame.lost_first) + " to " +
             std::to_string(frame.lost_last);
    }
  }
}

struct HealCase {
  SyncPolicy policy;
  OnError on_error;
};

constexpr HealCase kHealCases[] = {
    {SyncPolicy::kNone, OnError::kAuto},  {SyncPolicy::kNone, OnError::kRefuse},
    {SyncPolicy::kAsync, OnError::kAuto}, {SyncPolicy::kAsync, OnError::kRefuse},
    {SyncPolicy::kSync, OnError::kAuto},  {SyncPolicy::kSync, OnError::kDegrade},
    {SyncPolicy::kAsync, OnError::kExit},
};

// Where the life ends.
enum class Phase { kInTrouble, kDiskIsBack, kResumed, kPublished, kBridged, kRelapsed, kLongAfter };
constexpr Phase kPhases[] = {Phase::kInTrouble, Phase::kDiskIsBack, Phase::kResumed,
                             Phase::kPublished, Phase::kBridged,    Phase::kRelapsed,
                             Phase::kLongAfter};
enum class End { kStop, kPowerCut, kKill };
constexpr End kEnds[] = {End::kStop, End::kPowerCut, End::kKill};

class LogHealTest : public testing::TestWithParam<HealCase> {
 protected:
  LogHealTest() {
    options_ = LogOptions(GetParam().policy);
    options_.on_error = GetParam().on_error;
    options_.on_fatal = [](std::string_view) {};
    options_.retry_ms = 1;
    options_.heartbeat_ms = 1;
  }

  // Fills the disk with `blocks` free ones, heals it, and ends it; then boots three times.
  void Run(uint64_t blocks, Phase phase, End end) {
    SimDisk disk({.seed = TestSeed(), .survivors = kEverySurvivors[blocks % 4]});
    Lsn kept = 0;    // durable before the trouble
    Lsn bridge = 0;  // the checkpoint behind the gap, once it is published
    Lsn last = 0;    // durable after it
    {
      Boot boot = BootLog(disk, options_);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      wal::Log& log = *boot.log;
      kept = AppendDurable(log, 300);
      disk.SetCapacity(disk.used_bytes() + blocks * SimDisk::kBlockBytes);
      for (int i = 0; i < 400 && log.state() == State::kRunning; ++i) {
        while (!log.SecureRoom(1500) && log.state() == State::kRunning) std::this_thread::yield();
        Append(log, 1500);
      }
      ASSERT_TRUE(Eventually(
          [&] { return log.state() != State::kRunning || log.written_lsn() == log.last_lsn(); }));
      kept = std::max(kept, log.durable_lsn());
      if (phase == Phase::kInTrouble) return EndAndJudge(disk, boot, end, kept, bridge, last);
      if (phase == Phase::kRelapsed && log.state() == State::kDegraded) {
        // Room for a new file, and not for what comes behind the gap.
        disk.SetCapacity(disk.used_bytes() + 20 * SimDisk::kBlockBytes);
        if (Eventually([&] { return log.resumable(); }) && log.Resume().ok()) {
          Append(log, 200 << 10);
          log.RequestSync();
          ASSERT_TRUE(Eventually([&] { return !log.metrics().awaits_checkpoint; }));
          ASSERT_EQ(log.state(), State::kDegraded);
        }
      }
      disk.SetCapacity(kUnlimited);
      if (log.state() == State::kDegraded) {
        ASSERT_TRUE(Eventually([&] { return log.resumable(); })) << log.metrics().last_error;
        if (phase == Phase::kDiskIsBack) return EndAndJudge(disk, boot, end, kept, bridge, last);
        const auto resumed = log.Resume();
        ASSERT_TRUE(resumed.ok());
        const Lsn behind = Append(log, 300);
        log.RequestSync();
        ASSERT_TRUE(Eventually([&] { return log.metrics().synced_lsn >= behind; }));
        ASSERT_LT(log.durable_lsn(), *resumed);
        if (phase == Phase::kResumed) return EndAndJudge(disk, boot, end, kept, bridge, last);
        ASSERT_TRUE(PutCheckpoint(disk, log, kLogDirectory, *resumed).ok());
        bridge = *resumed;
        last = behind;
        if (phase == Phase::kPublished) return EndAndJudge(disk, boot, end, kept, bridge, last);
        log.SetCheckpoint(bridge, 0);
        ASSERT_TRUE(Eventually([&] { return log.state() == State::kRunning; }));
        ASSERT_GE(log.durable_lsn(), behind);
      } else {
        ASSERT_TRUE(Eventually([&] { return log.state() == State::kRunning; }));
        last = AppendDurable(log, 100);
      }
      if (phase == Phase::kLongAfter) {
        for (int i = 0; i < 20; ++i) Append(log, 90000);  // into the next segment
        last = AppendDurable(log, 100);
      }
      EndAndJudge(disk, boot, end, kept, bridge, last);
    }
  }

  Lsn Append(wal::Log& log, size_t bytes) {
    return log.Append(RecordType::kEffect, 3, std::string(bytes, 'x'));
  }
  bool WaitDurableNow(wal::Log& log, Lsn lsn) {
    log.RequestSync();
    return WaitDurable(log, lsn);
  }
  Lsn AppendDurable(wal::Log& log, size_t bytes) {
    const Lsn lsn = Append(log, bytes);
    EXPECT_TRUE(WaitDurableNow(log, lsn));
    return lsn;
  }

  bool WaitDurableOrCrash(wal::Log& log, Lsn lsn, const SimDisk& disk) {
    log.RequestSync();
    return Eventually([&] { return log.durable_lsn() >= lsn || disk.crashed(); }) &&
           log.durable_lsn() >= lsn;
  }

  // `bridge` 0: no checkpoint; then what was durable before the trouble is what must be there.
  void EndAndJudge(SimDisk& disk, Boot& boot, End end, Lsn kept, Lsn bridge, Lsn last) {
    std::unique_ptr<SimDisk> after;
    if (end == End::kStop) (void)boot.log->Stop();
    if (end == End::kKill) {
      after = disk.Kill();
      boot.log.reset();
    } else {
      after = disk.PowerCut();
      boot.log.reset();
    }
    ASSERT_EQ(Damage(*after), "");
    wal::Options strict = options_;
    strict.recovery = wal::RecoveryMode::kStrict;
    std::set<Lsn> found;
    for (int i = 0; i < 3; ++i) {
      SCOPED_TRACE(testing::Message() << "boot " << i);
      Boot again = BootLog(*after, strict);
      ASSERT_NE(again.log, nullptr) << again.error;
      ASSERT_TRUE(again.in_order);
      ASSERT_EQ(again.report.corrupted_entries, 0u);
      for (Lsn lsn = 1; bridge == 0 && lsn <= kept; ++lsn) {
        ASSERT_EQ(again.records.count(lsn), 1u) << lsn;
      }
      for (Lsn lsn = bridge; bridge != 0 && lsn <= last; ++lsn) {
        ASSERT_EQ(again.records.count(lsn), 1u) << lsn << " after the checkpoint " << bridge;
      }
      ASSERT_EQ(again.report.checkpoint_lsn, bridge);
      for (const Lsn lsn : found) {
        ASSERT_EQ(again.records.count(lsn), 1u) << lsn << " had been applied";
      }
      // The second life ends by a power cut without a word of its own, the third in order.
      if (i == 0) {
        for (const auto& [lsn, record] : again.records) found.insert(lsn);
        auto cut = after->PowerCut();
        again.log.reset();
        after = std::move(cut);
      } else {
        found.insert(AppendDurable(*again.log, 50));
        ASSERT_TRUE(again.log->Stop().ok());
      }
      again.log.reset();
      ASSERT_EQ(Damage(*after), "");
    }
  }

  wal::Options options_;
};

TEST_P(LogHealTest, LeavesAWholeLogHoweverFullTheDiskWas) {
  uint64_t cases = 0;
  const uint64_t step = LongTests() ? 1 : 41;
  for (uint64_t blocks = 0; blocks < 170; blocks += step) {
    for (const Phase phase : kPhases) {
      for (const End end : kEnds) {
        SCOPED_TRACE(testing::Message() << blocks << " blocks, phase " << static_cast<int>(phase)
                                        << ", end " << static_cast<int>(end));
        Run(blocks, phase, end);
        if (HasFailure()) return;
        ++cases;
      }
    }
  }
  std::cout << "cases: " << cases << "\n";
}

// Wherever the power fails, a restart finds the checkpoint and what is behind the gap, or what was
// before the gap and nothing else.
TEST_P(LogHealTest, RecoversWhatABridgedGapHasOrWhatWasBeforeIt) {
  uint64_t bridged = 0, without = 0;
  const uint64_t step = LongTests() ? 1 : 3;
  bool crashed = true;
  for (uint64_t crash_at = 1; crashed; crash_at += step) {
    const Survivors survivors = kEverySurvivors[crash_at / step % 4];
    SCOPED_TRACE(testing::Message()
                 << "crash at change " << crash_at << ", survivors " << SurvivorsName(survivors));
    SimDisk disk({.seed = TestSeed() + crash_at, .crash_at = crash_at, .survivors = survivors});
    Lsn kept = 0, given_up = 0, bridge = 0, acknowledged = 0;
    bool degraded = false;
    Boot boot = BootLog(disk, options_);
    if (boot.log != nullptr) {
      wal::Log& log = *boot.log;
      const Lsn first = Append(log, 300);
      if (WaitDurableOrCrash(log, first, disk)) kept = first;
      if (!disk.crashed()) {
        disk.AddFault({.calls = kWrite | kCreate, .error = ENOSPC, .for_ever = true});
        given_up = Append(log, 300);
        log.RequestSync();
        Eventually([&] { return log.state() != State::kRunning || disk.crashed(); });
      }
      disk.ClearFaults();
      degraded = log.state() == State::kDegraded;
      if (degraded) Eventually([&] { return log.resumable() || disk.crashed(); });
      if (degraded && log.resumable()) {
        bridge = log.Resume().value();
        const Lsn behind = Append(log, 10);
        if (PutCheckpoint(disk, log, kLogDirectory, bridge).ok()) log.SetCheckpoint(bridge, bridge);
        if (WaitDurableOrCrash(log, behind, disk)) acknowledged = behind;
        const Lsn last = Append(log, 5000);
        if (WaitDurableOrCrash(log, last, disk)) acknowledged = last;
      }
    }
    boot.log.reset();
    crashed = disk.crashed();
    auto after = disk.PowerCut();
    wal::Options strict = options_;
    strict.recovery = wal::RecoveryMode::kStrict;
    Boot again = BootLog(*after, strict);
    ASSERT_NE(again.log, nullptr) << again.error;
    if (bridge != 0 && again.report.checkpoint_lsn == bridge) {
      for (Lsn lsn = bridge; lsn <= acknowledged; ++lsn) ASSERT_EQ(again.records.count(lsn), 1u);
      ++bridged;
    } else {
      ASSERT_EQ(acknowledged, 0u);
      ASSERT_TRUE(kept == 0 || again.records.count(kept) == 1);
      ASSERT_TRUE(!degraded || again.records.empty() || again.records.rbegin()->first <= given_up);
      ++without;
    }
    again.log.reset();
    ASSERT_EQ(Damage(*after), "");
  }
  EXPECT_GT(without, 0u);
  if (options_.on_error == OnError::kDegrade ||
      (options_.on_error == OnError::kAuto && options_.sync_policy != SyncPolicy::kSync)) {
    EXPECT_GT(bridged, 0u);
  }
}

std::string CaseName(const testing::TestParamInfo<HealCase>& info) {
  static constexpr const char* kActions[] = {"Auto", "Degrade", "Refuse", "Exit"};
  return std::string(PolicyName(info.param.policy)) +
         kActions[static_cast<int>(info.param.on_error)];
}

INSTANTIATE_TEST_SUITE_P(Cases, LogHealTest, testing::ValuesIn(kHealCases), CaseName);

}  // namespace
}  // namespace crab::test

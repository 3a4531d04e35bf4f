// The power fails after every single change of the disk, and every kind of remains is booted from.
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>

#include "persistence/log.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

using wal::SyncPolicy;

// Appends until the end of the story or of the disk. What the log called durable at any moment is
// in the promise, even if it said so only after the crash.
void Live(wal::Log& log, SimDisk& disk, Promise* promise) {
  const auto settle = [&](wal::Lsn lsn) {
    WaitDurable(log, lsn, &disk);
    promise->NoteDurable(log);
    return !disk.crashed();
  };
  const SyncPolicy policy = log.metrics().sync_policy;
  for (int i = 0; i < 6; ++i) {  // one at a time: every write is one record
    const wal::Lsn lsn = promise->Append(log, static_cast<size_t>(i * 37));
    if (policy == SyncPolicy::kNone) log.RequestSync();
    if (!settle(lsn)) return;
  }
  for (int burst = 0; burst < 3; ++burst) {  // gathered: writes that span sectors and blocks
    wal::Lsn lsn = 0;
    for (int i = 0; i < 10; ++i) lsn = promise->Append(log, static_cast<size_t>(i * burst * 150));
    if (policy == SyncPolicy::kNone) log.RequestSync();
    if (!settle(lsn)) return;
  }
  // Above an eighth of the ring, and together more than a segment holds.
  for (int i = 0; i < 3; ++i) {
    const wal::Lsn lsn = promise->Append(log, 400 << 10);
    if (policy == SyncPolicy::kNone) log.RequestSync();
    if (!settle(lsn)) return;
  }
  // A policy of its own for what follows, then the other way round.
  const SyncPolicy other = policy == SyncPolicy::kSync ? SyncPolicy::kNone : SyncPolicy::kSync;
  for (const SyncPolicy next : {other, policy}) {
    log.SetSyncPolicy(next);
    const wal::Lsn lsn = promise->Append(log, 100);
    log.RequestSync();
    if (!settle(lsn)) return;
  }
  for (int i = 0; i < 3; ++i) promise->Append(log, 10);  // and nobody waits for these
  promise->NoteDurable(log);
}

// Boots from what a power cut left and checks it against the promise; the promise is then what this
// boot found. Returns the disk of the boot, for a further cut.
std::unique_ptr<SimDisk> BootAndJudge(const SimDisk& before, SimDiskOptions next,
                                      const wal::Options& options, Promise* promise) {
  auto disk = before.PowerCut(std::move(next));
  Boot boot = BootLog(*disk, options);
  if (disk->crashed()) {
    // It died while it recovered. What it had applied by then nobody saw.
    boot.log.reset();
    return disk;
  }
  EXPECT_NE(boot.log, nullptr) << boot.error;
  EXPECT_TRUE(boot.in_order);
  EXPECT_EQ(promise->Judge(boot.records), "");
  EXPECT_EQ(boot.report.corrupted_entries, 0u) << "a power cut is no corruption";
  EXPECT_TRUE(boot.report.lost.empty());
  if (boot.log == nullptr) return disk;
  promise->Adopt(boot);
  for (int i = 0; i < 2; ++i) promise->Append(*boot.log, 50);
  boot.log->RequestSync();
  WaitDurable(*boot.log, boot.log->last_lsn(), disk.get());
  promise->NoteDurable(*boot.log);
  boot.log.reset();
  return disk;
}

struct Tally {
  uint64_t crash_points = 0;
  uint64_t boots = 0;
};

void CrashEverywhere(SyncPolicy policy, Tally* tally) {
  const wal::Options options = LogOptions(policy);
  for (const Survivors survivors : kEverySurvivors) {
    for (uint64_t crash_at = 1;; ++crash_at) {
      SCOPED_TRACE(testing::Message()
                   << "crash at change " << crash_at << ", survivors " << SurvivorsName(survivors));
      const uint64_t seed = Mix(TestSeed(), crash_at);
      SimDisk disk({.seed = seed, .crash_at = crash_at, .survivors = survivors});
      Promise promise;
      {
        Boot boot = BootLog(disk, options);
        if (boot.log != nullptr) {
          Live(*boot.log, disk, &promise);
          boot.log.reset();
        }
      }
      ++tally->crash_points;
      ++tally->boots;
      auto after = BootAndJudge(disk, {}, options, &promise);
      ++tally->boots;
      BootAndJudge(*after, {}, options, &promise);
      if (testing::Test::HasFailure()) return;
      if (!disk.crashed()) break;
    }
  }
}

class LogCrashTest : public testing::TestWithParam<SyncPolicy> {};

TEST_P(LogCrashTest, LosesNoDurableRecordWhereverTheCrashFalls) {
  Tally tally;
  CrashEverywhere(GetParam(), &tally);
  std::cout << "crash points: " << tally.crash_points << ", boots: " << tally.boots << "\n";
}

// A boot that dies changes nothing that the next one would miss.
TEST_P(LogCrashTest, LosesNoDurableRecordWhereverTheCrashInRecoveryFalls) {
  const wal::Options options = LogOptions(GetParam());
  Tally tally;
  const uint64_t stride = LongTests() ? 1 : 17;
  for (uint64_t first = 1;; first += stride) {
    bool first_crashed = false;
    for (uint64_t second = 1;; ++second) {
      const uint64_t seed = Mix(TestSeed(), first * 1000 + second);
      const Survivors survivors = kEverySurvivors[seed % 4];
      SCOPED_TRACE(testing::Message() << "crash at change " << first << ", then at " << second
                                      << ", survivors " << SurvivorsName(survivors));
      SimDisk disk({.seed = seed, .crash_at = first, .survivors = survivors});
      Promise promise;
      {
        Boot boot = BootLog(disk, options);
        if (boot.log != nullptr) {
          Live(*boot.log, disk, &promise);
          boot.log.reset();
        }
      }
      first_crashed = disk.crashed();
      const SimDiskOptions next = {
          .seed = seed + 1, .crash_at = second, .survivors = kEverySurvivors[seed / 4 % 4]};
      auto middle = BootAndJudge(disk, next, options, &promise);
      ++tally.crash_points;
      tally.boots += 2;
      BootAndJudge(*middle, {}, options, &promise);
      if (HasFailure()) return;
      if (!middle->crashed()) break;
    }
    if (!first_crashed) break;
  }
  std::cout << "pairs of crash points: " << tally.crash_points << ", boots: " << tally.boots
            << "\n";
}

// What was never synced may come back as anything; a checksum stands before every byte of it.
TEST_P(LogCrashTest, AppliesNothingThatWasFlippedOnItsWayToTheDisk) {
  const wal::Options options = LogOptions(GetParam());
  const uint64_t cases = LongTests() ? 5000 : 150;
  for (uint64_t i = 0; i < cases; ++i) {
    const uint64_t seed = Mix(TestSeed(), i);
    SCOPED_TRACE(testing::Message() << "case " << i);
    SimDisk disk({.seed = seed,
                  .crash_at = 1 + seed % 120,
                  .survivors = seed / 1000 % 2 == 0 ? Survivors::kAll : Survivors::kRandom,
                  .flipped_bits = 1 + static_cast<uint32_t>(seed / 2000 % 3)});
    Promise promise;
    {
      Boot boot = BootLog(disk, options);
      if (boot.log != nullptr) {
        Live(*boot.log, disk, &promise);
        boot.log.reset();
      }
    }
    auto after = BootAndJudge(disk, {}, options, &promise);
    BootAndJudge(*after, {}, options, &promise);
    if (HasFailure()) return;
  }
  std::cout << "cases: " << cases << "\n";
}

// Open's answer is a promise too: what a boot applied, a client may have read.
TEST_P(LogCrashTest, WhatABootAppliedIsDurable) {
  const wal::Options options = LogOptions(GetParam());
  for (uint64_t crash_at = 1;; crash_at += LongTests() ? 1 : 3) {
    SCOPED_TRACE(testing::Message() << "crash at change " << crash_at);
    SimDisk disk({.crash_at = crash_at, .survivors = Survivors::kAll});
    Promise promise;
    {
      Boot boot = BootLog(disk, options);
      if (boot.log != nullptr) {
        Live(*boot.log, disk, &promise);
        boot.log.reset();
      }
    }
    auto second = disk.PowerCut();
    Boot boot = BootLog(*second, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    promise.Adopt(boot);
    auto third = second->PowerCut();  // at once: not even Stop has run
    boot.log.reset();
    Boot again = BootLog(*third, options);
    ASSERT_EQ(promise.Judge(again.records), "");
    again.log.reset();
    if (!disk.crashed()) break;
  }
}

INSTANTIATE_TEST_SUITE_P(Policies, LogCrashTest,
                         testing::Values(SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync),
                         [](const auto& param) { return PolicyName(param.param); });

}  // namespace
}  // namespace crab::test

// The power fails after every single change of the disk, whoever makes it: the log, a checkpoint,
// what removes and recycles old files, a recovery. Every kind of remains is recovered.
#include <gtest/gtest.h>

#include <iostream>

#include "tests/engine/life.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"

namespace crab::test {
namespace {

using wal::SyncPolicy;

TEST(EngineCrashTest, ALifeWithoutACrashIsFoundAgain) {
  for (uint64_t i = 0; i < 20; ++i) {
    SCOPED_TRACE(testing::Message() << "life " << i);
    SimDisk disk;
    Life life({.seed = Mix(TestSeed(), i)});
    ASSERT_TRUE(life.Start(disk)) << life.error();
    life.Story();
    life.Settle();
    ASSERT_EQ(Difference(life.engine().Read(), Abridged(life.history().data())), "");
    const wal::Metrics metrics = life.engine().log().metrics();
    EXPECT_GT(metrics.segments_retired, 0u);
    EXPECT_GT(metrics.checkpoint_lsn, 0u);
    life.End();
    RecoverAndJudge(disk, &life, i);
    if (HasFailure()) return;
  }
}

struct Tally {
  uint64_t crash_points = 0, boots = 0;
};

// Every `stride`-th point, beginning with one that the seed decides.
// `flipped_bits`: in what was not synced, on its way to the disk.
Tally CrashEverywhere(const wal::Options& options, uint64_t stride, const std::string& what,
                      uint32_t flipped_bits = 0) {
  Tally tally;
  uint64_t points = 0;
  for (const Survivors survivors : kEverySurvivors) {
    for (uint64_t crash_at = 1 + TestSeed() % stride;; crash_at += stride) {
      SCOPED_TRACE(testing::Message() << what << ": crash at change " << crash_at << ", survivors "
                                      << SurvivorsName(survivors));
      SimDisk disk({.seed = Mix(TestSeed(), crash_at),
                    .crash_at = crash_at,
                    .survivors = survivors,
                    .flipped_bits = flipped_bits});
      Life life({.log = options, .seed = TestSeed()});
      if (life.Start(disk)) life.Story();
      life.End();
      ++tally.crash_points;
      tally.boots += 1 + RecoverAndJudge(disk, &life, crash_at).boots;
      if (testing::Test::HasFailure()) return tally;
      if (!disk.crashed()) break;
      points = std::max(points, crash_at);
    }
  }
  std::cout << "engine: " << tally.crash_points << " crash points (" << what << ", "
            << (stride == 1 ? "all" : "every " + std::to_string(stride) + "th") << " of "
            << points * std::size(kEverySurvivors) << "), " << tally.boots << " recoveries\n";
  return tally;
}

TEST(EngineCrashTest, FindsAStateThatWasWhereverTheCrashFalls) {
  for (const SyncPolicy policy : {SyncPolicy::kSync, SyncPolicy::kAsync, SyncPolicy::kNone}) {
    wal::Options options = EngineOptions(policy);
    if (policy == SyncPolicy::kSync) options.on_error = wal::OnError::kRefuse;
    const uint64_t stride = LongTests() || policy == SyncPolicy::kSync ? 1 : 5;
    CrashEverywhere(options, stride, PolicyName(policy));
    if (HasFailure()) return;
  }
}

TEST(EngineCrashTest, AppliesNothingThatWasFlippedOnItsWayToTheDisk) {
  for (const SyncPolicy policy : {SyncPolicy::kSync, SyncPolicy::kAsync}) {
    CrashEverywhere(EngineOptions(policy), LongTests() ? 1 : 11,
                    std::string(PolicyName(policy)) + ", bits flipped", /*flipped_bits=*/2);
    if (HasFailure()) return;
  }
}

TEST(EngineCrashTest, FindsAStateThatWasInACompressedAndEncryptedLog) {
  const struct {
    wal::Compression compression;
    bool encrypts;
  } rows[] = {{wal::Compression::kLz4, false},
              {wal::Compression::kNone, true},
              {wal::Compression::kZstd, true}};
  const TestKeys keys;
  for (const auto& row : rows) {
    wal::Options options = EngineOptions();
    options.compression = row.compression;
    if (row.encrypts) options.keys = keys.ring();
    CrashEverywhere(
        options, LongTests() ? 1 : 11,
        std::string(wal::CompressionName(row.compression)) + (row.encrypts ? ", encrypted" : ""));
    if (HasFailure()) return;
  }
}

// A recovery that dies changes nothing that the next one would miss.
TEST(EngineCrashTest, FindsAStateThatWasWhereverTheCrashInRecoveryFalls) {
  uint64_t crash_points = 0;
  const uint64_t stride = LongTests() ? 3 : 23;
  for (uint64_t first = 1 + TestSeed() % stride;; first += stride) {
    bool first_crashed = false;
    for (uint64_t second = 1;; ++second) {
      const uint64_t seed = Mix(TestSeed(), first * 1000 + second);
      SCOPED_TRACE(testing::Message() << "crash at change " << first << ", then at " << second);
      // The process died, or the machine: after the former more is there than what was synced.
      const bool killed = seed / 16 % 2 == 0;
      SimDisk disk({.seed = seed, .crash_at = first, .survivors = kEverySurvivors[seed % 4]});
      Life life({.log = EngineOptions(killed ? SyncPolicy::kAsync : SyncPolicy::kSync),
                 .seed = TestSeed()});
      if (life.Start(disk)) life.Story();
      life.End();
      first_crashed = disk.crashed();
      const SimDiskOptions next = {
          .seed = seed + 1, .crash_at = second, .survivors = kEverySurvivors[seed / 4 % 4]};
      auto middle = killed ? disk.Kill(next) : disk.PowerCut(next);
      if (life.Start(*middle)) {
        // What it applied was read, unless the power failed before.
        if (!middle->crashed()) {
          ASSERT_EQ(life.history().Judge(life.engine().Read()), "");
          life.Adopt();
        }
        life.RunCommands(1);
        (void)life.Checkpoint();
      }
      life.End();
      ++crash_points;
      RecoverAndJudge(*middle, &life, seed);
      if (HasFailure()) return;
      if (!middle->crashed()) break;
    }
    if (!first_crashed) break;
  }
  std::cout << "engine: " << crash_points << " crash points (in the recovery after every " << stride
            << "th)\n";
}

}  // namespace
}  // namespace crab::test

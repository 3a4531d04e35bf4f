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
Tally CrashEverywhere(const wal::Options& options, uint64_t stride, const std::string& what) {
  Tally tally;
  uint64_t points = 0;
  for (const Survivors survivors : kEverySurvivors) {
    for (uint64_t crash_at = 1 + TestSeed() % stride;; crash_at += stride) {
      SCOPED_TRACE(testing::Message() << what << ": crash at change " << crash_at << ", survivors "
                                      << SurvivorsName(survivors));
      SimDisk disk(
          {.seed = Mix(TestSeed(), crash_at), .crash_at = crash_at, .survivors = survivors});
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
    const uint64_t stride = LongTests() || policy == SyncPolicy::kSync ? 1 : 5;
    CrashEverywhere(EngineOptions(policy), stride, PolicyName(policy));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace crab::test

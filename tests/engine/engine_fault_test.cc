// Each call of the disk fails, once or for ever from then on, whoever makes it. Whatever fails: the
// log refuses or degrades as wal.on_error says, all works again once the disk does, nothing that
// was acknowledged is lost, and what is recovered is a state that was; also where the power fails
// while it heals.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <iostream>

#include "tests/engine/life.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"

namespace crab::test {
namespace {

using wal::OnError;
using wal::State;
using wal::SyncPolicy;

struct Scenario {
  const char* name;
  SyncPolicy policy;
  OnError on_error;
  State in_trouble;  // where on_error leads under this policy
};

constexpr Scenario kScenarios[] = {
    {"SyncRefuses", SyncPolicy::kSync, OnError::kRefuse, State::kRefusing},
    {"AsyncDegrades", SyncPolicy::kAsync, OnError::kAuto, State::kDegraded},
    {"SyncDegrades", SyncPolicy::kSync, OnError::kDegrade, State::kDegraded},
};

struct Kind {
  int error;
  double written;  // of a write that fails
};
constexpr Kind kKinds[] = {{EIO, 0},   {ENOSPC, 0.5}, {EDQUOT, 0},
                           {EROFS, 0}, {EACCES, 0},   {EIO, 0.9}};

wal::Options FaultOptions(const Scenario& scenario) {
  wal::Options options = EngineOptions(scenario.policy);
  options.on_error = scenario.on_error;
  return options;
}

class EngineFaultTest : public testing::TestWithParam<Scenario> {
 protected:
  // Two engines with a checkpoint each, and no trouble.
  static void Past(SimDisk& disk, Life* life) {
    for (int i = 0; i < 2; ++i) {
      ASSERT_TRUE(life->Start(disk)) << life->error();
      life->RunCommands(4);
      ASSERT_EQ(life->Checkpoint().message(), "");
      life->RunCommands(2);
      if (i == 0) {
        ASSERT_EQ(life->engine().log().Stop().message(), "");
      }
      life->End();
    }
  }

  // The disk works again, and so does all that depends on it.
  static void ExpectHealed(SimDisk& disk, Life* life) {
    disk.ClearFaults();
    ASSERT_TRUE(life->Heal()) << life->engine().log().metrics().last_error;
    ASSERT_EQ(Difference(life->engine().Read(), Abridged(life->history().data())), "");
    life->RunCommands(3);
    wal::Log& log = life->engine().log();
    life->Settle();
    ASSERT_EQ(log.durable_lsn(), log.last_lsn()) << log.metrics().last_error;
    // As long as the log was degraded changes got no place in it. They have one now.
    ASSERT_EQ(life->history().promised(), log.last_lsn());
    ASSERT_EQ(Difference(life->history().At(log.last_lsn()), Abridged(life->history().data())), "");
  }
};

TEST_P(EngineFaultTest, KeepsItsWordWhicheverCallFails) {
  uint64_t cases = 0, of = 0, refused_to_start = 0, in_trouble = 0, losses = 0;
  for (const bool for_ever : {false, true}) {
    // Every kind of failure of every call in the long run; otherwise they take turns.
    const uint64_t stride = LongTests() ? 1 : 5;
    for (uint64_t nth = 1 + TestSeed() % stride;; nth += stride) {
      bool reached = false;
      for (size_t k = 0; k < std::size(kKinds); ++k) {
        if (!LongTests() && k != (nth / stride + for_ever) % std::size(kKinds)) continue;
        SCOPED_TRACE(testing::Message()
                     << "call " << nth << " fails " << (for_ever ? "for ever" : "once") << " with "
                     << std::strerror(kKinds[k].error));
        const uint64_t seed = Mix(TestSeed(), nth);
        SimDisk disk({.seed = seed, .survivors = kEverySurvivors[seed % 4]});
        Life life({.log = FaultOptions(GetParam()), .seed = TestSeed()});
        ASSERT_NO_FATAL_FAILURE(Past(disk, &life));
        disk.AddFault({.nth = nth,
                       .error = kKinds[k].error,
                       .for_ever = for_ever,
                       .written = kKinds[k].written});
        ++cases;
        if (!life.Start(disk)) {
          ASSERT_NE(life.error(), "");
          ++refused_to_start;
          disk.ClearFaults();
          ASSERT_TRUE(life.Start(disk)) << life.error();
        }
        if (life.salvage_due()) {
          ++losses;  // it could not be read, and it said so
        } else {
          ASSERT_EQ(life.history().Judge(life.engine().Read()), "");
        }
        life.Adopt();
        life.Story();
        const State state = life.engine().log().state();
        ASSERT_TRUE(state == State::kRunning || state == GetParam().in_trouble)
            << static_cast<int>(state);
        if (state != State::kRunning) ++in_trouble;
        reached = reached || disk.failed_calls() > 0;
        ASSERT_NO_FATAL_FAILURE(ExpectHealed(disk, &life));
        life.End();
        RecoverAndJudge(disk, &life, seed);
        if (HasFailure()) return;
      }
      of = nth;
      if (!reached) break;
    }
  }
  std::cout << "engine: " << cases << " cases of " << of * 2 * std::size(kKinds) << " ("
            << GetParam().name << "; calls that fail): " << refused_to_start << " would not start, "
            << in_trouble << " in trouble, " << losses << " reported losses\n";
}

// The disk fails altogether, works again, and fails once more while all heals or soon after.
TEST_P(EngineFaultTest, KeepsItsWordWhicheverCallOfHealingFails) {
  uint64_t cases = 0;
  for (uint64_t nth = 1;; nth += LongTests() ? 1 : 2) {
    SCOPED_TRACE(testing::Message() << "call " << nth << " of healing fails");
    const uint64_t seed = Mix(TestSeed(), nth);
    SimDisk disk({.seed = seed, .survivors = kEverySurvivors[seed % 4]});
    Life life({.log = FaultOptions(GetParam()), .seed = seed});
    ASSERT_NO_FATAL_FAILURE(Past(disk, &life));
    ASSERT_TRUE(life.Start(disk)) << life.error();
    life.Adopt();
    life.RunCommands(2);
    disk.AddFault({.calls = kChangingCalls, .error = EIO, .for_ever = true});
    life.RunCommands(4);
    ASSERT_EQ(life.engine().log().state(), GetParam().in_trouble);
    disk.ClearFaults();
    disk.AddFault({.nth = nth, .error = kKinds[nth % std::size(kKinds)].error});
    const uint64_t failed_before = disk.failed_calls();
    ASSERT_TRUE(life.Heal());
    life.RunCommands(4);
    ++cases;
    const bool reached = disk.failed_calls() > failed_before;
    ASSERT_NO_FATAL_FAILURE(ExpectHealed(disk, &life));
    life.End();
    RecoverAndJudge(disk, &life, seed);
    if (HasFailure()) return;
    if (!reached) break;
  }
  std::cout << "engine: " << cases << " cases (" << GetParam().name
            << "; calls of healing that fail)\n";
}

// The disk fails altogether, works again, and then the power goes: before the gap, between it and
// its checkpoint, and after.
TEST_P(EngineFaultTest, FindsAStateThatWasWhereverTheCrashInHealingFalls) {
  uint64_t crash_points = 0, troubles = 0;
  const uint64_t stride = LongTests() ? 7 : 61;
  for (uint64_t nth = 1 + TestSeed() % stride; nth < 200; nth += stride) {
    for (uint64_t crash_at = 1;; ++crash_at) {
      bool crashed = false;
      for (size_t s = 0; s < std::size(kEverySurvivors); ++s) {
        if (!LongTests() && s != (crash_at + nth) % std::size(kEverySurvivors)) continue;
        SCOPED_TRACE(testing::Message()
                     << "change " << nth << " fails, and the power at change " << crash_at
                     << " of healing, survivors " << SurvivorsName(kEverySurvivors[s]));
        SimDisk disk({.seed = Mix(TestSeed(), nth * 1000 + crash_at)});
        Life life({.log = FaultOptions(GetParam()), .seed = TestSeed() + nth});
        ASSERT_NO_FATAL_FAILURE(Past(disk, &life));
        ASSERT_TRUE(life.Start(disk)) << life.error();
        life.Adopt();
        disk.AddFault({.calls = kChangingCalls, .nth = nth, .error = EIO, .for_ever = true});
        life.Story();
        if (life.engine().log().state() != State::kRunning) ++troubles;
        disk.ClearFaults();
        disk.CrashAt(crash_at, kEverySurvivors[s]);
        (void)life.Heal();
        life.RunCommands(2);
        if (!disk.crashed()) life.Settle();
        crashed = crashed || disk.crashed();
        life.End();
        ++crash_points;
        RecoverAndJudge(disk, &life, crash_at);
        if (HasFailure()) return;
      }
      if (!crashed) break;
    }
  }
  EXPECT_GT(troubles, 0u);
  std::cout << "engine: " << crash_points << " crash points (" << GetParam().name
            << "; while it heals, after every " << stride << "th change failed)\n";
}

INSTANTIATE_TEST_SUITE_P(Scenarios, EngineFaultTest, testing::ValuesIn(kScenarios),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace crab::test

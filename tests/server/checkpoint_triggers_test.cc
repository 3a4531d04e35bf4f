// When a checkpoint is due: each rule on both sides of its borders, and which of two goes first.
#include "src/server/checkpoint_triggers.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace crab {
namespace {

using Reason = CheckpointReason;

constexpr uint64_t kMiB = 1 << 20;
constexpr uint64_t kSegment = 64 * kMiB;

// A server at rest: a checkpoint of 1 GiB, room on the disk, and a log that is not worth another.
CheckpointFacts AtRest() {
  static const std::vector<SavePoint> points{{3600, 1}, {60, 10000}};
  CheckpointFacts facts;
  facts.checkpoint_bytes = 1024 * kMiB;
  facts.max_recovery_ms = 1000;
  facts.disk_free_bytes = 100 * 1024 * kMiB;
  facts.segment_bytes_max = kSegment;
  facts.save_points = points;
  return facts;
}

struct Case {
  const char* name;
  std::function<void(CheckpointFacts&)> change;  // of what would be due by the rule
  std::optional<Reason> due;
};

// Each case is one change of `facts`.
void ExpectDue(const CheckpointFacts& facts, const std::vector<Case>& cases) {
  for (const Case& row : cases) {
    SCOPED_TRACE(row.name);
    CheckpointFacts changed = facts;
    row.change(changed);
    const std::optional<Reason> due = DueCheckpoint(changed);
    EXPECT_EQ(due, row.due) << (due ? ReasonName(*due) : "none");
  }
}

TEST(CheckpointTriggersTest, NoneIsDueAtRest) {
  EXPECT_EQ(DueCheckpoint(AtRest()), std::nullopt);
  EXPECT_EQ(DueCheckpoint(CheckpointFacts{}), std::nullopt);
}

TEST(CheckpointTriggersTest, ReplayTimeCountsOnceTheLogIsWorthACheckpoint) {
  CheckpointFacts facts = AtRest();
  facts.log_bytes_since = 512 * kMiB;  // half of the last one
  facts.replay_ms = 1000.5;
  ExpectDue(facts, {
                       {"over the bound", [](auto&) {}, Reason::kReplay},
                       {"at the bound", [](auto& f) { f.replay_ms = 1000; }, std::nullopt},
                       {"a higher bound", [](auto& f) { f.max_recovery_ms = 1001; }, std::nullopt},
                       {"less than half the checkpoint",
                        [](auto& f) { f.log_bytes_since = 512 * kMiB - 1; }, std::nullopt},
                   });
  // Beside small data, or none saved yet, 64 MiB are worth it.
  facts.checkpoint_bytes = 0;
  facts.log_bytes_since = 64 * kMiB;
  ExpectDue(facts, {
                       {"64 MiB", [](auto&) {}, Reason::kReplay},
                       {"less", [](auto& f) { f.log_bytes_since -= 1; }, std::nullopt},
                   });
}

TEST(CheckpointTriggersTest, SpaceCountsWhereACheckpointFreesSome) {
  CheckpointFacts facts = AtRest();
  facts.disk_free_bytes = 4 * kSegment + 1024 * kMiB - 1;
  facts.log_bytes = 2 * kSegment + 1;
  facts.log_bytes_since = kSegment;
  ExpectDue(
      facts,
      {
          {"less than four segments and a checkpoint", [](auto&) {}, Reason::kSpace},
          {"as much", [](auto& f) { f.disk_free_bytes += 1; }, std::nullopt},
          {"a smaller checkpoint", [](auto& f) { f.checkpoint_bytes -= 1; }, std::nullopt},
          {"smaller segments", [](auto& f) { f.segment_bytes_max -= 1; }, std::nullopt},
          {"not known", [](auto& f) { f.disk_free_bytes = 0; }, std::nullopt},
          {"two segments have nothing to free", [](auto& f) { f.log_bytes -= 1; }, std::nullopt},
          {"a checkpoint freed it just now", [](auto& f) { f.log_bytes_since -= 1; }, std::nullopt},
      });
}

TEST(CheckpointTriggersTest, GrowthIsOfTheCheckpointAndAboveTheLeastLength) {
  CheckpointFacts facts = AtRest();
  facts.growth_percent = 100;
  facts.growth_bytes_min = 64 * kMiB;
  facts.log_bytes_since = 1024 * kMiB;  // as much as the last one
  ExpectDue(
      facts,
      {
          {"as large as the checkpoint", [](auto&) {}, Reason::kGrowth},
          {"smaller", [](auto& f) { f.log_bytes_since -= 1; }, std::nullopt},
          {"a larger part", [](auto& f) { f.growth_percent = 101; }, std::nullopt},
          {"a smaller part", [](auto& f) { f.growth_percent = 50, f.log_bytes_since = 512 * kMiB; },
           Reason::kGrowth},
          {"off", [](auto& f) { f.growth_percent = 0; }, std::nullopt},
          {"at the least length", [](auto& f) { f.growth_bytes_min = 1024 * kMiB; },
           Reason::kGrowth},
          {"below it", [](auto& f) { f.growth_bytes_min = 1024 * kMiB + 1; }, std::nullopt},
          {"a part beyond 64 bits",
           [](auto& f) { f.growth_percent = INT32_MAX, f.checkpoint_bytes = 1ULL << 40; },
           std::nullopt},
      });
  // None saved yet: the least length decides, but an empty log is never worth one.
  facts.checkpoint_bytes = 0;
  facts.log_bytes_since = 64 * kMiB;
  ExpectDue(facts,
            {
                {"the least length", [](auto&) {}, Reason::kGrowth},
                {"less", [](auto& f) { f.log_bytes_since -= 1; }, std::nullopt},
                {"no least length", [](auto& f) { f.growth_bytes_min = 0, f.log_bytes_since = 1; },
                 Reason::kGrowth},
                {"nothing logged", [](auto& f) { f.growth_bytes_min = 0, f.log_bytes_since = 0; },
                 std::nullopt},
            });
}

TEST(CheckpointTriggersTest, SavePointsCountChangesAndSecondsAndALogWorthIt) {
  CheckpointFacts facts = AtRest();
  facts.log_bytes_since = 512 * kMiB;
  facts.changes = 10000;
  facts.seconds = 61;
  ExpectDue(
      facts,
      {
          {"both passed", [](auto&) {}, Reason::kSavePoint},
          {"too few changes", [](auto& f) { f.changes = 9999; }, std::nullopt},
          {"too early", [](auto& f) { f.seconds = 60; }, std::nullopt},
          {"few changes, but long ago", [](auto& f) { f.changes = 1, f.seconds = 3601; },
           Reason::kSavePoint},
          {"no change", [](auto& f) { f.changes = 0, f.seconds = 3601; }, std::nullopt},
          {"save \"\"", [](auto& f) { f.save_points = {}; }, std::nullopt},
          {"less than half the checkpoint", [](auto& f) { f.log_bytes_since -= 1; }, std::nullopt},
      });
  // `save 1 0` is no order to write the same data again and again.
  const std::vector<SavePoint> always{{1, 0}};
  facts.save_points = always;
  facts.changes = 0;
  EXPECT_EQ(DueCheckpoint(facts), std::nullopt);
}

TEST(CheckpointTriggersTest, TheMostPressingReasonIsTheOne) {
  CheckpointFacts facts = AtRest();
  facts.log_awaits_one = true;
  facts.start_found_damage = true;
  facts.disk_free_bytes = 1;
  facts.log_bytes = 4 * kSegment;
  facts.log_bytes_since = 512 * kMiB;
  facts.replay_ms = 5000;
  facts.changes = 10000;
  facts.seconds = 61;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kGap);
  facts.log_awaits_one = false;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kSalvage);
  facts.start_found_damage = false;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kSpace);
  facts.disk_free_bytes = 0;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kReplay);
  facts.replay_ms = 0;
  facts.growth_percent = 50;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kGrowth);
  facts.growth_percent = 0;
  EXPECT_EQ(DueCheckpoint(facts), Reason::kSavePoint);
}

TEST(CheckpointTriggersTest, ReplaySpeedIsAssumedPerCoreUpToEight) {
  // As option wal-max-recovery-ms states it: 300 MB and 2 million records a second and core.
  EXPECT_DOUBLE_EQ(ReplaySpeed::Assumed(1).ReplayMs(300'000'000, 0), 1000);
  EXPECT_DOUBLE_EQ(ReplaySpeed::Assumed(1).ReplayMs(0, 2'000'000), 1000);
  EXPECT_DOUBLE_EQ(ReplaySpeed::Assumed(4).ReplayMs(300'000'000, 4'000'000), 500);  // the slower
  EXPECT_DOUBLE_EQ(ReplaySpeed::Assumed(8).ReplayMs(300'000'000, 0), 125);
  EXPECT_DOUBLE_EQ(ReplaySpeed::Assumed(64).ReplayMs(300'000'000, 0), 125);
}

TEST(CheckpointTriggersTest, ReplaySpeedIsWhatALongStartTook) {
  wal::RecoveryReport report;
  report.bytes_processed = 64 * kMiB;
  report.entries_recovered = 1000;
  report.recovery_time_ms = 100;
  std::optional<ReplaySpeed> speed = ReplaySpeed::Measured(report);
  ASSERT_TRUE(speed.has_value());
  EXPECT_DOUBLE_EQ(speed->ReplayMs(128 * kMiB, 0), 200);
  EXPECT_DOUBLE_EQ(speed->ReplayMs(0, 5000), 500);
  // Three quarters of it went into a checkpoint.
  report.checkpoint_bytes = 192 * kMiB;
  report.recovery_time_ms = 400;
  speed = ReplaySpeed::Measured(report);
  ASSERT_TRUE(speed.has_value());
  EXPECT_DOUBLE_EQ(speed->ReplayMs(64 * kMiB, 0), 100);
  report.bytes_processed -= 1;
  EXPECT_FALSE(ReplaySpeed::Measured(report).has_value());
  report.bytes_processed += 1;
  report.recovery_time_ms = 99;
  EXPECT_FALSE(ReplaySpeed::Measured(report).has_value());
}

}  // namespace
}  // namespace crab

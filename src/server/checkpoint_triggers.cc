#include "src/server/checkpoint_triggers.h"

#include <algorithm>

#include "utils/check.h"

namespace crab {

namespace {

// What a core replays: below what was measured with values of 100 bytes, so that
// wal-max-recovery-ms holds on slower machines.
constexpr double kReplayBytesPerMs = 300'000;
constexpr double kReplayRecordsPerMs = 2'000;
constexpr size_t kReplayCoresMax = 8;  // from there on memory is the bound
// A start that took less than this is no measure.
constexpr uint64_t kMeasuredBytesMin = 64 << 20;
constexpr int64_t kMeasuredMsMin = 100;

// A log shorter than this is replayed before anybody notices.
constexpr uint64_t kLogBytesMin = 64 << 20;

// Where less than so many segments fit on the disk beside the next checkpoint, it is short of
// space: the log keeps two spare ones, and syncs a third while it fills a fourth.
constexpr uint64_t kSpareSegments = 4;

bool DueBySpace(const CheckpointFacts& facts) {
  if (facts.disk_free_bytes == 0) return false;
  const uint64_t wanted_bytes = kSpareSegments * facts.segment_bytes_max + facts.checkpoint_bytes;
  if (facts.disk_free_bytes >= wanted_bytes) return false;
  // Is there something that it would free?
  return facts.log_bytes > 2 * facts.segment_bytes_max &&
         facts.log_bytes_since >= facts.segment_bytes_max;
}

bool DueByReplay(const CheckpointFacts& facts) {
  // A log that is shorter than half the checkpoint is not worth writing all data again.
  const uint64_t worth_bytes = std::max(kLogBytesMin, facts.checkpoint_bytes / 2);
  return facts.log_bytes_since >= worth_bytes &&
         facts.replay_ms > static_cast<double>(facts.max_recovery_ms);
}

bool DueByGrowth(const CheckpointFacts& facts) {
  // Without a record since there is nothing to write, whatever the least length.
  if (facts.growth_percent == 0 || facts.log_bytes_since == 0) return false;
  // As doubles: the product may be beyond 64 bits.
  return facts.log_bytes_since >= facts.growth_bytes_min &&
         100.0 * static_cast<double>(facts.log_bytes_since) >=
             static_cast<double>(facts.growth_percent) *
                 static_cast<double>(facts.checkpoint_bytes);
}

bool DueBySavePoint(const CheckpointFacts& facts) {
  // The log has every change already: so all data is not written again for a few of them.
  if (facts.changes == 0 || facts.log_bytes_since < facts.checkpoint_bytes / 2) return false;
  const auto changes = static_cast<int64_t>(facts.changes);
  return std::any_of(facts.save_points.begin(), facts.save_points.end(),
                     [&](const SavePoint& point) {
                       return changes >= point.changes && facts.seconds > point.seconds;
                     });
}

}  // namespace

const char* ReasonName(CheckpointReason reason) {
  switch (reason) {
    case CheckpointReason::kSave:
      return "save";
    case CheckpointReason::kSavePoint:
      return "save-point";
    case CheckpointReason::kRewrite:
      return "rewrite";
    case CheckpointReason::kReplay:
      return "recovery-time";
    case CheckpointReason::kGrowth:
      return "log-growth";
    case CheckpointReason::kSpace:
      return "disk-space";
    case CheckpointReason::kGap:
      return "gap";
    case CheckpointReason::kSalvage:
      return "salvage";
  }
  CHECK(false);
}

ReplaySpeed ReplaySpeed::Assumed(size_t threads) {
  const auto cores = static_cast<double>(std::min(threads, kReplayCoresMax));
  return {1 / (kReplayBytesPerMs * cores), 1 / (kReplayRecordsPerMs * cores)};
}

std::optional<ReplaySpeed> ReplaySpeed::Measured(const wal::RecoveryReport& report) {
  if (report.bytes_processed < kMeasuredBytesMin || report.recovery_time_ms < kMeasuredMsMin) {
    return std::nullopt;
  }
  // The checkpoint was loaded in the same time, at about the same speed.
  const auto bytes = static_cast<double>(report.bytes_processed);
  const double share =
      bytes / static_cast<double>(report.bytes_processed + report.checkpoint_bytes);
  const double ms = static_cast<double>(report.recovery_time_ms) * share;
  const auto records = static_cast<double>(std::max<uint64_t>(1, report.entries_recovered));
  return ReplaySpeed{ms / bytes, ms / records};
}

double ReplaySpeed::ReplayMs(uint64_t bytes, uint64_t records) const {
  return std::max(static_cast<double>(bytes) * ms_per_byte,
                  static_cast<double>(records) * ms_per_record);
}

std::optional<CheckpointReason> DueCheckpoint(const CheckpointFacts& facts) {
  if (facts.log_awaits_one) return CheckpointReason::kGap;
  if (facts.start_found_damage) return CheckpointReason::kSalvage;
  if (DueBySpace(facts)) return CheckpointReason::kSpace;
  if (DueByReplay(facts)) return CheckpointReason::kReplay;
  if (DueByGrowth(facts)) return CheckpointReason::kGrowth;
  if (DueBySavePoint(facts)) return CheckpointReason::kSavePoint;
  return std::nullopt;
}

}  // namespace crab

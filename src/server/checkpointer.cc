#include "src/server/checkpointer.h"

#include <algorithm>
#include <utility>

#include "src/server/config_words.h"
#include "src/server/server.h"
#include "utils/check.h"
#include "utils/clock.h"

namespace crab {

namespace {

// After a failure automatic ones wait for this long, doubled with each further failure.
constexpr int64_t kRetryMs = 1000;
constexpr uint64_t kRetryDoublingsMax = 6;

// Between two that are written for want of space: where they do not help, they do not repeat.
constexpr int64_t kSpaceRetryMs = 60'000;

constexpr size_t kCheckpointsKept = 2;

int64_t MonotonicMs() { return RealClock().MonotonicUs() / 1000; }

}  // namespace

Checkpointer::Checkpointer(Server& server)
    : server_(server),
      replay_speed_(ReplaySpeed::Assumed(static_cast<size_t>(Loader::Workers()))),
      job_(server, [this] { SettleSoon(); }) {
  facts_.last_save_ms = RealClock().WallMs();
}

Status Checkpointer::CanBegin() const {
  const wal::Log* const log = server_.log();
  if (log == nullptr) {
    return Status::Error(
        "ERR there is nowhere to save to: the write-ahead log is off. CONFIG SET wal-enabled yes "
        "begins with a save");
  }
  if (server_.recovering()) {
    return Status::Error("ERR the data is still being recovered");
  }
  // From one copy: the log's writer may end the gap at any moment.
  const wal::Metrics metrics = log->metrics();
  if (metrics.state == wal::State::kDegraded && !metrics.awaits_checkpoint) {
    return Status::Error(
        "ERR the write-ahead log cannot be written at the moment; it goes on by itself, with a "
        "save, when it can");
  }
  return Status::Ok();
}

Status Checkpointer::Begin(Reason reason) {
  TRY(CanBegin());
  Cut(reason, server_.log()->last_lsn(), server_.config());
  return Status::Ok();
}

void Checkpointer::BeginBehindGap(wal::Lsn lsn, const Config& config) {
  gap_lsn_ = lsn;
  Cut(Reason::kGap, lsn, config);
}

void Checkpointer::Cut(Reason reason, wal::Lsn lsn, const Config& config) {
  wal::Log* const log = server_.log();
  CHECK(log != nullptr);
  CHECK(!server_.recovering());  // it would take what is loaded so far for all there is
  LookAtStart();                 // before the books tell of this one
  CheckpointJob::Order order;
  order.log = log;
  order.lsn = lsn;
  order.gap_lsn = gap_lsn_;
  order.reason = ReasonName(reason);
  order.kept = reason == Reason::kSpace ? 1 : kCheckpointsKept;
  order.damaged = damaged_at_start_;
  order.directory = server_.PathAtStart(config.wal_dir);
  order.compression = CompressionOf(config.wal_compression);
  order.keys = server_.wal_keys();
  reason_ = reason;
  changes_at_cut_ = Changes();
  log_bytes_at_cut_ = log->metrics().bytes_appended;
  job_.Begin(std::move(order));
}

void Checkpointer::Schedule(Reason reason) {
  if (IsSave(reason)) {
    scheduled_save_ = true;
  } else {
    scheduled_rewrite_ = true;
    scheduled_rewrite_reason_ = reason;
  }
  BeginScheduled();
}

Status Checkpointer::SaveNow(Reason reason) {
  if (save_running()) return Status::Error("ERR Background save already in progress");
  TRY(CanBegin());
  if (const wal::Metrics metrics = server_.log()->metrics();
      metrics.state == wal::State::kRefusing) {
    // Everybody would wait for a disk that does not work.
    return Status::Error("ERR the write-ahead log cannot be written at the moment: " +
                         metrics.last_error);
  }
  if (running()) Record(job_.Finish());
  job_.Drain();
  Cut(reason, server_.log()->last_lsn(), server_.config());
  Record(job_.Finish());
  if (facts_.last_ok) return Status::Ok();
  return Status::Error("ERR the data could not be saved: " + facts_.last_error);
}

Status Checkpointer::CloseGap() {
  const wal::Log* const log = server_.log();
  if (log == nullptr || !log->metrics().awaits_checkpoint) return Status::Ok();
  if (running()) {
    // Whatever it was begun for, it was cut behind the gap.
    const CheckpointJob::Outcome outcome = job_.Finish();
    Record(outcome);
    if (outcome.status.ok()) return Status::Ok();
  }
  return SaveNow(Reason::kGap);
}

void Checkpointer::Cancel() {
  scheduled_save_ = scheduled_rewrite_ = false;
  if (running()) Record(job_.Cancel());
}

void Checkpointer::Record(const CheckpointJob::Outcome& outcome) {
  if (outcome.given_up) return;  // nobody's failure
  Facts::Kind& kind = IsSave(reason_) ? facts_.save : facts_.rewrite;
  kind.last_ok = facts_.last_ok = outcome.status.ok();
  kind.last_ms = outcome.took_ms;
  kind.last_peak_bytes = outcome.queue_peak_bytes;
  facts_.last_error = outcome.status.message();
  if (!outcome.status.ok()) {
    const uint64_t doublings = std::min(kind.failed_in_a_row++, kRetryDoublingsMax);
    not_before_ms_ = MonotonicMs() + (kRetryMs << doublings);
    return;
  }
  ++kind.done;
  kind.failed_in_a_row = 0;
  not_before_ms_ = reason_ == Reason::kSpace ? MonotonicMs() + kSpaceRetryMs : 0;
  facts_.lsn = outcome.lsn;
  facts_.entries = outcome.entries;
  facts_.bytes = outcome.bytes;
  facts_.duration_ms = outcome.took_ms;
  facts_.at_ms = facts_.last_save_ms = outcome.published_ms;
  facts_.changes_at_save = changes_at_cut_;
  log_bytes_at_save_ = log_bytes_at_cut_;
  salvage_due_ = false;
  std::erase(damaged_at_start_, outcome.lsn);  // another file has that name now
}

void Checkpointer::Settle() {
  if (const auto outcome = job_.Settle()) Record(*outcome);
  BeginScheduled();
}

void Checkpointer::SettleSoon() {
  server_.loops().front()->Post(
      [this](Loop& loop) { loop.dispatcher().Exclusively([this] { Settle(); }); });
}

void Checkpointer::BeginScheduled() {
  if (!free()) return;
  // Where it cannot begin now it stays scheduled.
  if (scheduled_rewrite_) {
    scheduled_rewrite_ = !Begin(scheduled_rewrite_reason_).ok();
  } else if (scheduled_save_) {
    scheduled_save_ = !Begin(Reason::kSave).ok();
  }
}

void Checkpointer::EverySecond() {
  Settle();
  const wal::Log* const log = server_.log();
  const bool logs = log != nullptr && !server_.recovering();
  job_.WatchDisk(logs ? server_.PathAtStart(server_.config().wal_dir) : "");
  if (!logs) return;
  LookAtStart();
  if (!free() || MonotonicMs() < not_before_ms_) return;
  if (const auto reason = DueCheckpoint(FactsOf(log->metrics()))) (void)Begin(*reason);
}

void Checkpointer::LookAtStart() {
  if (start_looked_at_ || server_.recovering()) return;
  start_looked_at_ = true;
  const wal::RecoveryReport report = server_.recovery();
  salvage_due_ = !report.lost.empty() || !report.checkpoint_problem.empty();
  damaged_at_start_ = report.damaged_checkpoints;
  facts_.lsn = report.checkpoint_lsn;
  facts_.entries = facts_.loaded_entries = report.checkpoint_entries;
  facts_.bytes = report.checkpoint_bytes;
  start_log_bytes_ = report.bytes_processed;
  replay_speed_ = ReplaySpeed::Measured(report).value_or(replay_speed_);
}

uint64_t Checkpointer::Changes() const {
  uint64_t changes = 0;
  for (const auto& loop : server_.loops()) changes += loop->dispatcher().stats().changes;
  return changes;
}

uint64_t Checkpointer::LogBytesSince(const wal::Metrics& metrics) const {
  const uint64_t bytes =
      metrics.bytes_appended - std::min(metrics.bytes_appended, log_bytes_at_save_);
  return facts_.at_ms == 0 ? bytes + start_log_bytes_ : bytes;
}

uint64_t Checkpointer::LogRecordsSince(const wal::Metrics& metrics) const {
  return metrics.last_lsn - std::min(metrics.last_lsn, facts_.lsn);
}

double Checkpointer::EstimatedReplayMs(const wal::Metrics& metrics) const {
  return replay_speed_.ReplayMs(LogBytesSince(metrics), LogRecordsSince(metrics));
}

CheckpointFacts Checkpointer::FactsOf(const wal::Metrics& metrics) const {
  const Config& config = server_.config();
  CheckpointFacts facts;
  facts.log_awaits_one = metrics.awaits_checkpoint;
  facts.start_found_damage = salvage_due_;
  facts.log_bytes_since = LogBytesSince(metrics);
  facts.checkpoint_bytes = facts_.bytes;
  facts.replay_ms = EstimatedReplayMs(metrics);
  facts.max_recovery_ms = config.wal_max_recovery_ms;
  facts.growth_percent = config.auto_aof_rewrite_percentage;
  facts.growth_bytes_min = static_cast<uint64_t>(config.auto_aof_rewrite_min_size);
  facts.disk_free_bytes = job_.disk_free_bytes();
  facts.log_bytes = metrics.total_bytes;
  facts.segment_bytes_max = static_cast<uint64_t>(config.wal_max_segment_size);
  facts.changes = Changes() - facts_.changes_at_save;
  facts.seconds = (RealClock().WallMs() - facts_.last_save_ms) / 1000;
  facts.save_points = config.save;
  return facts;
}

Checkpointer::Facts Checkpointer::facts() {
  LookAtStart();
  Facts facts = facts_;
  facts.job = job_.gauges();
  facts.disk_free_bytes = job_.disk_free_bytes();
  facts.changes_since_save = Changes() - facts.changes_at_save;
  if (const wal::Log* const log = server_.log(); log != nullptr) {
    const wal::Metrics metrics = log->metrics();
    facts.log_bytes_since = LogBytesSince(metrics);
    facts.log_records_since = LogRecordsSince(metrics);
    facts.replay_ms = static_cast<uint64_t>(EstimatedReplayMs(metrics));
  }
  return facts;
}

}  // namespace crab

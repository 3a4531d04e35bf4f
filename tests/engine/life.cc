#include "tests/engine/life.h"

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <thread>
#include <utility>

#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "utils/check.h"

namespace crab::test {

bool Life::Start(SimDisk& disk, Replay replay, const wal::Options& options) {
  disk_ = &disk;
  engine_ = Engine::Start(disk, options, replay, options_.seed, &error_);
  if (!running()) return false;
  const wal::RecoveryReport& report = engine_->report();
  salvage_due_ = !report.lost.empty() || !report.checkpoint_problem.empty();
  return true;
}

void Life::Adopt() {
  history_.Adopt(engine_->ReadInFull(), engine_->recovered_lsn());
  history_.Note(engine_->log().last_lsn());
}

void Life::NoteDurable() { history_.Promise(engine_->log().durable_lsn()); }

void Life::Run(const MadeCommand& command, bool await) {
  if (over()) return;
  LookAfterLog();
  wal::Log& log = engine_->log();
  const std::string reply = engine_->Run(command.db, command.words);
  // A command that is refused for the log's sake changes nothing. Others fail, too, in their own
  // right: RENAME of no key.
  if (reply.empty() || reply.starts_with("-MISCONF")) return;
  if (!reply.starts_with("-")) RunOnModel(command.db, command.words, history_.mutable_data());
  // Not the log's last: it may have given the record up by now, with a last LSN behind it that
  // belongs to no record.
  const wal::Lsn own = engine_->own_lsn();
  if (own == wal::kNoGate) return;  // nothing changed, or nobody keeps it
  history_.Note(own);
  if (!await) return;
  if (log.metrics().sync_policy != wal::SyncPolicy::kSync) log.RequestSync();
  WaitDurable(log, own, disk_);
  NoteDurable();
}

void Life::RunCommands(int count) {
  for (int i = 0; i < count && !over(); ++i) Run(maker_.Next(), /*await=*/true);
}

void Life::RunTogether(int count) {
  for (int i = 0; i < count && !over(); ++i) Run(maker_.Next(), /*await=*/i == count - 1);
}

void Life::RunUnawaited(int count) {
  for (int i = 0; i < count && !over(); ++i) Run(maker_.Next(), /*await=*/false);
  if (!over()) NoteDurable();
}

Status Life::Checkpoint() {
  if (over()) return Status::Ok();
  const wal::Log& log = engine_->log();
  if (log.state() == wal::State::kDegraded && !log.metrics().awaits_checkpoint) {
    return Status::Error("there is no log that it could belong to");
  }
  return CheckpointAt(log.last_lsn());
}

Status Life::CheckpointAt(wal::Lsn lsn) {
  if (over()) return Status::Ok();
  engine_->BeginCheckpoint(lsn);
  while (engine_->StepCheckpoint()) {
    if (maker_.random().Below(2) == 0) Run(maker_.Next(), /*await=*/true);
  }
  engine_->Settle();
  NoteDurable();
  Status status = engine_->TakeCheckpointStatus();
  if (status.ok()) salvage_due_ = false;
  return status;
}

void Life::LookAfterLog() {
  if (over() || engine_->checkpoint_runs()) return;
  wal::Log& log = engine_->log();
  if (log.resumable()) {
    const Result<wal::Lsn> lsn = log.Resume();
    if (!lsn.ok()) return;
    history_.Note(*lsn);
    (void)CheckpointAt(*lsn);
  } else if (log.metrics().awaits_checkpoint || salvage_due_) {
    (void)Checkpoint();
  }
}

bool Life::Heal() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!over() && (engine_->log().state() != wal::State::kRunning || salvage_due_)) {
    if (std::chrono::steady_clock::now() > end) return false;
    LookAfterLog();
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
  return true;
}

void Life::Settle() {
  if (over()) return;
  wal::Log& log = engine_->log();
  log.RequestSync();
  WaitDurable(log, log.last_lsn(), disk_);
  NoteDurable();
  engine_->Settle();
}

void Life::Story() {
  if (over()) return;
  const std::string large(70'000, 'L');    // shared with the checkpoint instead of copied
  const std::string larger(150'000, 'M');  // more than the ring takes
  RunCommands(8);
  Run({0, {"SET", "large", large}}, true);
  (void)Checkpoint();
  RunCommands(6);
  if (over()) return;
  engine_->log().RequestRotate();
  RunTogether(6);
  (void)Checkpoint();
  Run({1, {"SET", "larger", larger}}, true);
  RunTogether(5);
  if (over()) return;
  const wal::SyncPolicy policy = engine_->log().metrics().sync_policy;
  engine_->log().SetSyncPolicy(wal::SyncPolicy::kNone);
  RunCommands(4);
  RunUnawaited(2);
  if (over()) return;
  engine_->log().RequestRotate();
  RunUnawaited(2);  // so the checkpoint knows more than what is durable
  (void)Checkpoint();
  if (over()) return;
  engine_->log().SetSyncPolicy(policy);
  Run({0, {"APPEND", "large", "and more"}}, true);
  RunCommands(5);
  RunUnawaited(3);
}

Judgement RecoverAndJudge(const SimDisk& disk, Life* life, uint64_t seed) {
  Judgement judgement;
  Life in_order(life->options());
  wal::Options options = life->options().log;
  options.recovery = seed % 2 == 0 ? wal::RecoveryMode::kStrict : wal::RecoveryMode::kPrefix;
  auto disk_in_order = disk.PowerCut();
  EXPECT_TRUE(in_order.Start(*disk_in_order, Replay::kInOrder, options)) << in_order.error();
  auto by_units = disk.PowerCut();
  EXPECT_TRUE(life->Start(*by_units)) << life->error();
  judgement.boots = 2;
  if (!in_order.running() || !life->running()) {
    life->End();
    return judgement;
  }
  const Data found = life->engine().Read();
  EXPECT_EQ(Difference(in_order.engine().Read(), found), "") << "in order, and by units";
  // A log that never drops a record gives each state its LSN.
  std::optional<wal::Lsn> exact;
  if (life->options().log.on_error == wal::OnError::kRefuse) {
    exact = life->engine().recovered_lsn();
  }
  EXPECT_EQ(life->history().Judge(found, exact), "");
  const wal::RecoveryReport& report = life->engine().report();
  EXPECT_TRUE(report.lost.empty()) << report.lost.front().where;
  EXPECT_EQ(report.corrupted_entries, 0u) << "a power cut is no corruption";
  EXPECT_EQ(report.entries_skipped, in_order.engine().report().entries_skipped);
  EXPECT_EQ(report.checkpoint_problem, "");
  judgement.report = report;
  in_order.End();
  if (testing::Test::HasFailure()) {
    life->End();
    return judgement;
  }

  // Once more, with nothing in between; then with some.
  life->Adopt();
  auto again = by_units->PowerCut();
  life->End();
  options = life->options().log;
  options.shard_count = seed / 2 % 2 == 0 ? kEngineShards / 4 : kEngineShards * 2;
  life->Start(*again, Replay::kByUnits, options);
  ++judgement.boots;
  EXPECT_TRUE(life->running()) << life->error();
  if (!life->running()) return judgement;
  EXPECT_EQ(Difference(life->engine().Read(), found), "") << "the second recovery";
  life->Adopt();
  life->RunCommands(2);
  (void)life->Checkpoint();
  life->RunCommands(1);
  auto last = again->PowerCut();
  life->End();
  life->Start(*last, Replay::kInOrder);
  ++judgement.boots;
  EXPECT_TRUE(life->running()) << life->error();
  if (!life->running()) return judgement;
  EXPECT_EQ(life->history().Judge(life->engine().Read(), life->engine().recovered_lsn()), "");
  life->End();
  return judgement;
}

}  // namespace crab::test

// Checkpointer: sees to it that there is a checkpoint when one is asked for (SAVE, BGSAVE,
// BGREWRITEAOF, WAL CHECKPOINT), when the log needs one to begin or to go on, and when one is due:
// to keep the next restart short and the disk from filling up. Keeps the books for INFO. How one is
// made is CheckpointJob's business, when one is due that of checkpoint_triggers. One per server.
//
// World-guarded, but for what a loop calls while IN (Walk).
#pragma once

#include <cstdint>
#include <string>

#include "persistence/log.h"
#include "src/config.h"
#include "src/server/checkpoint_job.h"
#include "src/server/checkpoint_triggers.h"
#include "utils/status.h"

namespace crab {

class Server;

class Checkpointer {
 public:
  using Reason = CheckpointReason;

  explicit Checkpointer(Server& server);

  // Why none can be had, whenever: a client's error, or OK.
  Status CanBegin() const;
  // Whether one could begin now: none runs, and what was given up is walked to its end.
  bool free() const { return job_.free(); }
  // Begins as soon as it can: after the one that runs.
  void Schedule(Reason reason);
  // Begins now, and returns when the file is published (or why it is not), everybody else waiting.
  // One that runs for another reason is ended first.
  Status SaveNow(Reason reason);
  // Begins one for a log that keeps records behind a gap from `lsn` on, in the moment in which it
  // begins to; only when free(). `config`: what the log is under, which may not be in force yet.
  void BeginBehindGap(wal::Lsn lsn, const Config& config);
  // Before a clean stop of the log: what waits behind a gap has its checkpoint when this returns,
  // everybody else waiting. OK where nothing does.
  Status CloseGap();
  // Ends the one under way without a file, and forgets what is scheduled. Afterwards the log may go
  // away. Waits for the disk.
  void Cancel();
  // Sees to it that the one under way ends without a file, soon; the log stays until then.
  void GiveUp() {
    if (running()) job_.GiveUp();
  }
  // Walks one that was given up to its end here and now, so that the next can begin.
  void Drain() { job_.Drain(); }
  // Once a second: begins what is due.
  void EverySecond();

  // A loop, IN: see CheckpointJob.
  bool Walk(int loop) { return job_.Walk(loop); }
  uint64_t MemoryBytes() const { return job_.MemoryBytes(); }

  // When the data was last saved, wall clock; before that, when the server started.
  int64_t last_save_ms() const { return facts_.last_save_ms; }
  bool running() const { return job_.running(); }
  Reason reason() const { return reason_; }  // of the running or the last one
  bool save_running() const { return running() && IsSave(reason_); }
  bool rewrite_running() const { return running() && !IsSave(reason_); }
  bool save_scheduled() const { return scheduled_save_; }
  bool rewrite_scheduled() const { return scheduled_rewrite_; }
  // For INFO.
  struct Facts {
    CheckpointJob::Gauges job;
    // The last that was published, by this process or before it.
    wal::Lsn lsn = 0;
    uint64_t entries = 0, bytes = 0;
    uint64_t loaded_entries = 0;  // from a checkpoint, by the start
    int64_t duration_ms = -1;
    int64_t at_ms = 0;  // wall clock, 0 = none by this process
    // The last that ended.
    bool last_ok = true;
    std::string last_error;  // "" after a success
    // By kind: saves (SAVE ...) and rewrites (all others).
    struct Kind {
      uint64_t done = 0, failed_in_a_row = 0;
      bool last_ok = true;
      int64_t last_ms = -1;          // how long it took
      uint64_t last_peak_bytes = 0;  // of the queue
    } save, rewrite;
    int64_t last_save_ms = 0;      // when the data was last saved, wall clock; else the start
    uint64_t changes_at_save = 0;  // of all loops, when that one was cut
    uint64_t changes_since_save = 0;
    uint64_t log_bytes_since = 0, log_records_since = 0;  // since the last checkpoint's cut
    uint64_t replay_ms = 0;        // how long the next start is estimated to replay
    uint64_t disk_free_bytes = 0;  // sampled each second while there is a log; 0 = not known
  };
  Facts facts();

 private:
  static bool IsSave(Reason reason) {
    return reason == Reason::kSave || reason == Reason::kSavePoint;
  }

  // The cut, now; only when free(). The data is what the log's records up to its last one made.
  Status Begin(Reason reason);
  void Cut(Reason reason, wal::Lsn lsn, const Config& config);
  // Takes over what has ended and begins what is scheduled.
  void Settle();
  void SettleSoon();  // any thread
  void BeginScheduled();
  // Enters an outcome into the books, and decides when the next may begin by itself.
  void Record(const CheckpointJob::Outcome& outcome);
  void LookAtStart();
  CheckpointFacts FactsOf(const wal::Metrics& metrics) const;
  uint64_t LogBytesSince(const wal::Metrics& metrics) const;
  uint64_t LogRecordsSince(const wal::Metrics& metrics) const;
  double EstimatedReplayMs(const wal::Metrics& metrics) const;
  uint64_t Changes() const;

  Server& server_;
  Reason reason_ = Reason::kSave;
  bool scheduled_save_ = false, scheduled_rewrite_ = false;
  Reason scheduled_rewrite_reason_ = Reason::kRewrite;
  // What the start found, once it is all recovered.
  bool start_looked_at_ = false;
  bool salvage_due_ = false;  // it calls for a checkpoint, and none is published yet
  uint64_t start_log_bytes_ = 0;
  ReplaySpeed replay_speed_;
  int64_t not_before_ms_ = 0;  // monotonic: automatic ones, after a failure
  std::vector<wal::Lsn> damaged_at_start_;
  wal::Lsn gap_lsn_ = 0;  // the last one before the gap that the log is or was behind
  uint64_t changes_at_cut_ = 0;
  uint64_t log_bytes_at_cut_ = 0;   // metrics().bytes_appended
  uint64_t log_bytes_at_save_ = 0;  // the same of the last published one
  Facts facts_;                     // but for what facts() adds
  CheckpointJob job_;               // last: it ends first, and until then it may tell of its end
};

}  // namespace crab

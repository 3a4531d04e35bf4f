// Checkpointer: writes everything as of one LSN into a file while the server goes on (DESIGN §6):
// BGSAVE, SAVE, BGREWRITEAOF, what a start or a heal of the log needs, and what keeps the next
// restart short and the disk from filling up. One per server, one checkpoint at a time.
//
// Its parts: the cut, made by whoever holds the world; the walk, by every loop over the shards
// whose index is its own modulo the loops, a quantum at a time between rounds of events; the file,
// written by a thread of its own from a bounded queue, which loops fill and never wait for.
//
// World-guarded, but for what a loop calls while IN (Walk), what the snapshot calls (Take), and the
// gauges, which say so. Memory beyond the data: kQueueBytesMax and a chunk per shard.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "src/keyspace/effects.h"
#include "src/keyspace/snapshot.h"
#include "utils/status.h"

namespace crab {

class Server;

class Checkpointer : public SnapshotSink {
 public:
  // What one is written for.
  enum class Reason : uint8_t {
    kSave,       // SAVE, BGSAVE, SHUTDOWN SAVE
    kSavePoint,  // option save
    kRewrite,    // BGREWRITEAOF, WAL commands
    kReplay,     // the next restart would take longer than wal-max-recovery-ms
    kSpace,      // the disk runs full; an older checkpoint is not kept then
    kGap,        // the log has begun, or goes on, behind a gap: without it, it holds nothing
    kSalvage,    // the start found damage: what was saved is to be whole again
  };
  static const char* ReasonName(Reason reason);

  // The walk waits for the queue at this size; the file's thread has work for some 60 ms then.
  static constexpr uint64_t kQueueBytes = 16 << 20;
  // At this size whoever writes waits before the command runs, because it may have to save what it
  // changes. With the snapshot's chunks (16 KiB for each of 1024 shards) and the writer's buffers
  // this stays below 64 MiB.
  static constexpr uint64_t kQueueBytesMax = 40 << 20;
  // A loop walks so long at a time: what a request may be late by, and no more, is a fraction of
  // what it waits on a busy loop anyway.
  static constexpr uint64_t kQuantumUs = 20;
  // After a quantum a loop that has requests serves them for this many times as long.
  static constexpr uint64_t kRestQuanta = 7;

  explicit Checkpointer(Server& server);
  // Ends what is under way, without a file. No loop runs any more.
  ~Checkpointer() override;

  // --- the holder of the world ---
  // Why none can be had, whenever: a client's error, or OK.
  Status CanBegin() const;
  // Whether one could begin now: none runs, and what was given up is walked to its end.
  bool free() const { return !running_ && snapshot_ == nullptr; }
  // The cut, now; only when free(). The rest follows by itself. The data is what the log's records
  // up to its last one made.
  Status Begin(Reason reason);
  // The same for a log that keeps records behind a gap from `lsn` on, in the moment in which it
  // begins to.
  void BeginBehindGap(wal::Lsn lsn);
  // Begins as soon as it can: after the one that runs.
  void Schedule(Reason reason);
  // The same, and returns when the file is published (or why it is not), everybody else waiting.
  // One that runs for another reason is ended first.
  Status SaveNow(Reason reason);
  // Before a clean stop of the log: what waits behind a gap has its checkpoint when this returns,
  // everybody else waiting. OK where nothing does.
  Status CloseGap();
  // Ends the one under way without a file. Afterwards the log may go away.
  void Cancel();
  // Walks one that was given up to its end here and now, so that the next can begin.
  void Drain();
  // Once a second: begins what is due.
  void EverySecond();
  // Ends what is finished and begins what is scheduled. EverySecond does it, too.
  void Settle();

  // When the data was last saved, wall clock; before that, when the server started. Any loop.
  int64_t last_save_ms() const { return facts_.last_save_ms; }
  bool running() const { return running_; }
  Reason reason() const { return reason_; }  // of the running or the last one
  bool save_running() const { return running_ && IsSave(reason_); }
  bool rewrite_running() const { return running_ && !IsSave(reason_); }
  bool save_scheduled() const { return scheduled_save_; }
  bool rewrite_scheduled() const { return scheduled_rewrite_; }
  // For INFO; the holder of the world.
  struct Facts {
    // The one that runs, or 0.
    wal::Lsn running_lsn = 0;
    uint64_t keys_total = 0, keys_done = 0;
    uint64_t saved_entries = 0, saved_bytes = 0;  // pre-images; of the last one where none runs
    uint64_t queue_bytes = 0, queue_peak_bytes = 0;
    uint64_t file_bytes = 0;
    int64_t running_ms = -1;
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

  // --- a loop, IN ---
  // Walks for one quantum. False: nothing to walk now; the loop is woken (WakeForWalk) when there
  // is again.
  bool Walk(int loop);

 private:
  // What the file's thread writes next.
  struct Item {
    uint16_t shard;
    uint64_t entries;
    std::string effects;  // or:
    LargeString* value = nullptr;
    uint32_t db = 0;
    std::string key;
    int64_t deadline_ms = 0;
    bool walked = false;  // the value is still the keyspace's, too: it costs no memory of its own
    uint64_t bytes() const;
    uint64_t own_bytes() const { return walked ? 0 : bytes(); }
  };
  // Where a loop's walk stands.
  struct alignas(64) Cursor {
    uint32_t next_shard = 0;
    size_t entries = 0;  // per step, so that a step takes a part of a quantum
    bool done = true;
    // The shard that is held and walked just now. So whoever holds a shard knows whether what the
    // snapshot gives comes from the walk. Relaxed: only the shard's holder asks for it.
    std::atomic<uint32_t> walks{kNoShard};
  };
  static constexpr uint32_t kNoShard = UINT32_MAX;
  enum class Phase : uint8_t { kIdle, kWriting, kEnded };

  static bool IsSave(Reason reason) {
    return reason == Reason::kSave || reason == Reason::kSavePoint;
  }

  // SnapshotSink.
  void Take(uint16_t shard, std::string effects, uint64_t entries) override;
  void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                 LargeString* value) override;
  void Push(Item item);
  static void Free(Item& item);

  // World held.
  void Cut(Reason reason, wal::Lsn lsn);
  void WalkToTheEnd();
  bool Step(Cursor& cursor, uint32_t shard, size_t entries);  // the shard is held
  void AwaitEnd();
  void Record();
  void BeginScheduled();
  void StartThread();
  void LookAtStart();
  bool DueByReplay(const wal::Metrics& metrics) const;
  bool DueBySpace(const wal::Metrics& metrics) const;
  bool DueBySavePoint(const wal::Metrics& metrics) const;
  uint64_t LogBytesSince(const wal::Metrics& metrics) const;
  double EstimatedReplayMs(const wal::Metrics& metrics) const;
  uint64_t Changes() const;

  void NoteWalked();  // whoever walked the last shard

  // The file's thread.
  void Work();
  Status Write();
  Status WriteItem(wal::CheckpointWriter& writer, Item& item);
  Status WaitUntilDurable();
  Status Publish(wal::CheckpointWriter& writer);
  void Pace(uint64_t bytes);
  void WakeLoops();
  void SettleSoon();  // any thread

  Server& server_;

  // World-guarded.
  std::unique_ptr<Snapshot> snapshot_;  // also the loops', while they walk
  std::vector<Cursor> cursors_;         // by loop; each its loop's while it walks
  bool running_ = false;
  Reason reason_ = Reason::kSave;
  bool scheduled_save_ = false, scheduled_rewrite_ = false;
  Reason scheduled_rewrite_reason_ = Reason::kRewrite;
  // What the start found, once it is all recovered.
  bool start_looked_at_ = false;
  bool salvage_due_ = false;  // it calls for a checkpoint, and none is published yet
  uint64_t start_log_bytes_ = 0;
  double start_ms_per_byte_ = 0, start_ms_per_record_ = 0;  // 0 = too little to measure
  int64_t not_before_ms_ = 0;  // monotonic: automatic ones, after a failure
  wal::Lsn gap_lsn_ = 0;       // the last one before the gap that the log is or was behind
  uint64_t changes_at_cut_ = 0;
  uint64_t log_bytes_at_cut_ = 0;   // metrics().bytes_appended
  uint64_t log_bytes_at_save_ = 0;  // the same of the last published one
  Facts facts_;                     // but for the gauges, which facts() adds
  uint64_t quantum_cycles_ = 0;

  // What the file's thread is told before a cut and tells when it has ended; it changes none of it
  // while kWriting. Handed over by phase_ under mutex_.
  struct Job {
    wal::Log* log = nullptr;
    wal::Lsn lsn = 0;
    wal::Lsn gap_lsn = 0;
    Reason reason = Reason::kSave;
    wal::CheckpointInfo info;
    std::string directory;
    wal::Compression compression = wal::Compression::kNone;
    std::shared_ptr<const wal::KeyRing> keys;
    int64_t begun_us = 0;  // monotonic
    uint64_t keys_total = 0;
    // Results.
    Status status;
    uint64_t entries = 0, bytes = 0;
    int64_t ended_us = 0;
    int64_t published_ms = 0;
  } job_;

  mutable std::mutex mutex_;
  std::condition_variable work_;   // for the file's thread
  std::condition_variable moved_;  // for SaveNow and Cancel: the queue is shorter, or it has ended
  // Guarded by mutex_.
  Phase phase_ = Phase::kIdle;
  std::deque<Item> queue_;
  bool walked_ = false;    // nothing comes into the queue any more
  bool given_up_ = false;  // Cancel: to end without a file
  bool stopping_ = false;
  std::string disk_directory_;  // looked at each second; "" = no log

  uint64_t own_bytes_ = 0;  // of the queue, what is in memory for its sake only

  // Any thread; gauges and flags that loops look at, relaxed unless a wake-up depends on it.
  std::atomic<uint64_t> queue_bytes_{0}, queue_peak_bytes_{0}, file_bytes_{0};
  std::atomic<uint64_t> disk_free_bytes_{0};
  // Set by a loop that found the queue full before it looks for the last time, taken by the file's
  // thread when there is room: sequentially consistent against queue_bytes_.
  std::atomic<bool> walkers_wait_{false};
  std::atomic<bool> hurried_{false};  // somebody waits for the file: no pacing
  int64_t pace_us_ = 0;               // the file's thread: when what it wrote is paid for

  std::thread thread_;  // begins with the first checkpoint
};

}  // namespace crab

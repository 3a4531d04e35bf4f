// CheckpointJob: writes everything as of one LSN into a file while the server goes on (DESIGN §6),
// one checkpoint at a time. When and why is the Checkpointer's business, which alone gives orders.
//
// Its parts: the cut, made by whoever holds the world; the walk, by every loop over the shards
// whose index is its own modulo the loops, a quantum at a time between rounds of events; the file,
// written by a thread of its own from a bounded queue, which loops fill and never wait for.
//
// World-guarded, but for what a loop calls while IN (Walk), what the snapshot calls (Take), and the
// gauges, which say so. Memory beyond the data: kQueueBytesMax and what each loop's last command
// saved beyond it; kQueueBytes, and a value for each loop, of shares whose values were replaced
// after the walk had shared them; a chunk per shard.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/log.h"
#include "src/keyspace/snapshot.h"
#include "utils/status.h"

namespace crab {

class Server;

class CheckpointJob : public SnapshotSink {
 public:
  // The walk waits for the queue at this size; the file's thread has work for some 60 ms then.
  static constexpr uint64_t kQueueBytes = 16 << 20;
  // At this size whoever writes waits before the command runs, because it may have to save what it
  // changes. With the snapshot's chunks (16 KiB for each of 1024 shards) and the writer's buffers
  // this stays below 64 MiB, but for the shares of values that are replaced.
  static constexpr uint64_t kQueueBytesMax = 40 << 20;
  // The file is written no faster than this, so that the log's syncs on the same disk do not queue
  // up behind it: a quarter of what one NVMe drive writes, and more than most network disks do.
  static constexpr uint64_t kFileBytesPerSecond = 256 << 20;
  // A loop walks so long at a time: what a request may be late by, and no more, is a fraction of
  // what it waits on a busy loop anyway.
  static constexpr uint64_t kQuantumUs = 50;
  // After a quantum a loop that has requests serves them for this many times as long.
  static constexpr uint64_t kRestQuanta = 3;

  // What is to be written.
  struct Order {
    wal::Log* log = nullptr;  // stays until the job has ended
    wal::Lsn lsn = 0;         // the data is what the records up to this one made
    wal::Lsn gap_lsn = 0;     // the last one before the gap that the log is or was behind
    const char* reason = "";  // for the operator
    size_t kept = 0;          // checkpoints that stay in the directory, this one among them
    // Those that the start has found damaged, and that do not count among these.
    std::vector<wal::Lsn> damaged;
    std::string directory;
    wal::Compression compression = wal::Compression::kNone;
    std::shared_ptr<const wal::KeyRing> keys;
  };
  // What became of it.
  struct Outcome {
    wal::Lsn lsn = 0;
    Status status;  // OK: it is published
    bool given_up = false;
    uint64_t entries = 0, bytes = 0;
    int64_t took_ms = 0;
    int64_t published_ms = 0;  // wall clock
    uint64_t queue_peak_bytes = 0;
  };

  // `on_end` is called by any thread when there is something to settle: the job has ended, or one
  // that was given up is walked to its end.
  CheckpointJob(Server& server, std::function<void()> on_end);
  // Ends what is under way, without a file. No loop runs any more, and none will.
  ~CheckpointJob() override;

  // --- the holder of the world ---
  bool running() const { return running_; }
  // Whether one could begin now: none runs, and what was given up is walked to its end.
  bool free() const { return !running_ && snapshot_ == nullptr; }
  // The cut, now; only when free(). The rest follows by itself.
  void Begin(Order order);
  // The outcome of the one that has ended since, once. Makes it free(), if its walk is over.
  std::optional<Outcome> Settle();
  // Brings the one that runs to its end, with its file, everybody else waiting. Then it is free().
  Outcome Finish();
  // Tells the one that runs to end without a file, which it does when the disk lets it: Settle then
  // has its outcome. The queue is empty from here on, and no writer waits for it. Its walk still
  // goes on: the next cut needs every entry stamped.
  void GiveUp();
  // The same, and waits for the end.
  Outcome Cancel();
  // Walks one that was given up to its end here and now, so that the next can begin.
  void Drain();
  // From now on looks once a second, when nothing else is to do, how much room the disk has; "": no
  // more.
  void WatchDisk(std::string directory);

  struct Gauges {
    // Of the one that runs.
    wal::Lsn lsn = 0;  // 0 = none
    int64_t running_ms = -1;
    uint64_t keys_total = 0, keys_done = 0;
    uint64_t queue_bytes = 0;
    // Of the last one where none runs.
    uint64_t saved_entries = 0, saved_bytes = 0;  // pre-images
    uint64_t queue_peak_bytes = 0;
    uint64_t file_bytes = 0;
  };
  Gauges gauges() const;
  // What is in memory for its sake: the queue, and tables that are no more in the keyspace. World
  // held, or a loop that is IN.
  uint64_t MemoryBytes() const;
  // As it was sampled last; 0 = not known. Any thread.
  uint64_t disk_free_bytes() const { return disk_free_bytes_.load(std::memory_order_relaxed); }

  // --- a loop, IN ---
  // Walks for one quantum. False: nothing to walk now; the loop is woken (WakeForCheckpoint) when
  // there is again.
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
    bool stays = false;  // the value is the keyspace's, too: it costs no memory of its own
    uint64_t bytes() const;
    uint64_t own_bytes() const { return stays ? 0 : bytes(); }
  };
  // Where a loop's walk stands.
  struct alignas(64) Cursor {
    uint32_t next_shard = 0;
    size_t entries = 0;  // per step, so that a step takes a part of a quantum
    bool done = true;
  };
  enum class Phase : uint8_t { kIdle, kWriting, kEnded };

  // SnapshotSink.
  void Take(uint16_t shard, std::string effects, uint64_t entries) override;
  void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                 LargeString* value, bool stays) override;
  bool IsFull() const override {
    return queue_bytes_.load(std::memory_order_relaxed) >= kQueueBytes;
  }
  void Push(Item item);
  static void Free(Item& item);

  // World held.
  void WalkToTheEnd();
  void AwaitEnd();
  Outcome TakeOutcome();
  void StartThread();

  void NoteWalked();  // whoever walked the last shard

  // The file's thread.
  void Work();
  void SampleDisk(const std::string& directory);
  Status Write();
  Status WriteItem(wal::CheckpointWriter& writer, Item& item);
  Status WaitUntilDurable();
  Status Publish(wal::CheckpointWriter& writer);
  void Pace(const wal::CheckpointWriter& writer);
  void WakeLoops();

  Server& server_;
  const std::function<void()> on_end_;

  // World-guarded.
  std::unique_ptr<Snapshot> snapshot_;  // also the loops', while they walk
  std::vector<Cursor> cursors_;         // by loop; each its loop's while it walks
  bool running_ = false;
  uint64_t quantum_cycles_ = 0;
  uint64_t saved_entries_ = 0, saved_bytes_ = 0;  // by the last one

  // What the file's thread is told before a cut, and what it tells when it has ended. Neither
  // changes under it while kWriting; handed over by phase_ under mutex_.
  Order order_;
  wal::CheckpointInfo info_;
  int64_t begun_us_ = 0;  // monotonic
  uint64_t keys_total_ = 0;
  Outcome outcome_;

  mutable std::mutex mutex_;
  std::condition_variable work_;   // for the file's thread
  std::condition_variable pace_;   // likewise, where it waits for its pace
  std::condition_variable moved_;  // for Finish and Cancel: the queue is shorter, or it has ended
  // Guarded by mutex_.
  Phase phase_ = Phase::kIdle;
  std::deque<Item> queue_;
  bool walked_ = false;    // nothing comes into the queue any more
  bool given_up_ = false;  // to end without a file
  bool stopping_ = false;
  std::string watched_directory_;
  // Of the queue and of what is being written, what is in memory for its sake only.
  uint64_t own_bytes_ = 0;

  // Any thread; gauges and flags that loops look at, relaxed unless a wake-up depends on it.
  std::atomic<uint64_t> queue_bytes_{0}, queue_peak_bytes_{0}, file_bytes_{0};
  std::atomic<uint64_t> disk_free_bytes_{0};
  // Set by a loop that found the queue full before it looks for the last time, taken by the file's
  // thread when there is room: sequentially consistent against queue_bytes_.
  std::atomic<bool> walkers_wait_{false};
  // Somebody waits for the file: no pacing. Set under mutex_, on which pace_ waits.
  std::atomic<bool> hurried_{false};
  // The file's thread: how much of the file is paid for, or will be at that time.
  uint64_t paced_bytes_ = 0;
  int64_t pace_us_ = 0;

  std::thread thread_;  // begins with the first order
};

}  // namespace crab

// The log itself, behind log.h. Two sides meet in the ring: appenders (log.cc) reserve, copy and
// publish; the writer's thread drains, writes, syncs and frees (log_writer.cc), keeps the files
// (log_segments.cc) and meets the disk's failures (log_trouble.cc).
//
// Locks: `reservation` orders appenders, and the writer where it gives the ring up (an uncontended
// one costs a few ns, so it is taken with one loop too); `release_mutex_` guards what decides
// release_lsn and the heap records, and is taken inside the reservation where both are;
// `control_mutex_` guards the figures. None is held over I/O.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/ring.h"
#include "persistence/segment.h"
#include "persistence/spare.h"
#include "utils/clock.h"
#include "utils/status.h"

namespace crab::wal {

class LogImpl final : public Log {
 public:
  LogImpl(Disk& disk, const Options& options);
  ~LogImpl() override;

  // Locks, recovers, opens a new epoch and starts the writer.
  // `*backlog` is what is to be replayed.
  Status Start(std::unique_ptr<Backlog>* backlog);

  bool SecureRoom(size_t payload_bytes) override;
  Lsn Append(RecordType type, uint16_t shard, std::string_view payload) override;
  void Kick() override;
  void SetListener(std::function<void()> listener) override;
  Lsn SetSyncPolicy(SyncPolicy policy) override;
  void SetFlushIntervalMs(uint32_t ms) override;
  void SetBufferBytes(uint64_t bytes) override;
  void SetMaxSegmentBytes(uint64_t bytes) override;
  void SetOnError(OnError on_error) override;
  void RequestSync() override;
  void RequestRotate() override;
  void SetCheckpoint(Lsn newest, Lsn oldest_kept) override;
  Lsn retained_from() const override;
  void SetRestorable(Lsn oldest) override;
  void RequestCleanup(uint64_t keep_segments) override;
  void SetRetention(uint64_t keep_segments, uint64_t keep_ms) override;
  void SetCompression(Compression compression) override;
  Status Stop() override;
  Result<Lsn> Resume() override;
  void RetryDisk() override;
  bool resumable() const override { return resumable_.load(std::memory_order_acquire); }
  bool GateFailed(Lsn gate) const override;
  bool GateGivenUp(Lsn gate) const override;
  Metrics metrics() const override;
  const Identity& identity() const override { return identity_; }

 private:
  static constexpr uint64_t kNoCleanup = ~uint64_t{0};
  static constexpr size_t kStageBytes = size_t{1} << 20;        // of one write
  static constexpr uint64_t kLargeBytes = uint64_t{256} << 10;  // payloads written without a copy

  // A record whose payload found no place in the ring, or whose LSN found no slot.
  struct HeapRecord {
    FrameHeader header = {};
    std::string payload;
    std::atomic<bool> published{false};
  };
  // A record as the writer sees it.
  struct Published {
    FrameHeader header;
    std::string_view payload;
    uint64_t position_after = 0;  // in the ring; 0 = it takes none
  };
  // A file of the log that is not written any more.
  struct OldSegment {
    std::string path;
    Lsn last;  // no record above it counts here; kUnknownLsn until a later segment has its name
    int64_t ended_at_ms;
    uint64_t bytes;
    bool certain = true;  // its name was synced
  };
  // While it lives, segments are begun for records that number shards in another way than those to
  // come: their headers say so.
  class NumberedAs {
   public:
    NumberedAs(LogImpl& log, const Sharding& sharding) : log_(log), own_(log.sharding()) {
      log_.SetSharding(sharding);
    }
    ~NumberedAs() { log_.SetSharding(own_); }
    NumberedAs(const NumberedAs&) = delete;
    NumberedAs& operator=(const NumberedAs&) = delete;

   private:
    LogImpl& log_;
    const Sharding own_;
  };
  // A point of the log up to which something holds.
  struct Mark {
    Lsn lsn = 0;
    uint64_t position = 0;
  };

  // --- appenders (log.cc)
  void LockReservation();
  void UnlockReservation();
  bool FitsLocked(Lsn lsn, uint64_t position, uint64_t room);
  Lsn AppendRecord(uint8_t type, uint16_t shard, std::string_view payload);
  Lsn AppendHeap(uint8_t type, uint16_t shard, std::string payload);
  void WakeWriter();
  void UpdateReleaseLocked();  // release_mutex_ held
  bool prompt() const { return prompt_.load(std::memory_order_relaxed); }

  // --- starting (log.cc)
  Status ReplaceRing(Recovered& recovered, RecoveryReport* report);
  Status KeepTornBytes(const Recovered& recovered, RecoveryReport* report);
  Status CopyTail(File& file, uint64_t begin, uint64_t end, const std::string& path);
  Status SetAsideCheckpoints(const Recovered& recovered);
  Status SyncRecovered(const Recovered& recovered);
  Status RewriteDoubtful(Recovered& recovered, RecoveryReport* report);
  Result<Lsn> FindSafe(const Recovered::Doubtful& doubtful);
  Status CopyDoubtful(Recovered& recovered, Lsn safe, RecoveryReport* report);
  Status NoteLost(Recovered& recovered, const Frame& frame, RecoveryReport* report);
  Status BeginEpoch(const Recovered& recovered);
  Status WriteRecovered(const Recovered& recovered);
  Sharding sharding() const {
    return {identity_.hash_seed, identity_.shard_count, options_.shard_by_hashtag};
  }
  void SetSharding(const Sharding& sharding) {
    identity_.hash_seed = sharding.hash_seed;
    identity_.shard_count = sharding.shard_count;
    options_.shard_by_hashtag = sharding.by_hashtag;
  }

  // --- the writer (log_writer.cc)
  void RunWriter();
  bool Round(int64_t now_us);
  void Sleep(bool worked, int64_t now_us);
  void Park(bool until_kicked, uint64_t wake_position, int64_t timeout_us);
  bool FindPublished(Lsn lsn, Published* record);
  bool HalfFull() const;
  int64_t SyncDueUs() const;
  Status Drain(Lsn last);
  Status WriteBatch(Lsn last);
  Status WritePack(Lsn last);
  Status WriteLarge(const Published& record);
  void Stage(const FrameHeader& header, std::string_view payload);
  size_t staged_bytes() const { return stage_.size() + plain_.size(); }
  Status StagePack();
  Status WriteStaged();
  void FillBlock();
  Status WriteBlockEnd();
  void AddBatch(Lsn lsn, uint64_t padding_bytes = 0);
  Status WriteHeartbeat();
  void NoteStaged(const Published& record);
  void NoteBlocks(Mark before, uint64_t start, uint64_t end);
  void NoteWritten(size_t bytes);
  Status SyncSegment();
  Status SyncFile();
  Status SyncDirectory();
  // A call that a disk may take seconds for: metrics() tells how long it has taken so far.
  template <typename Call>
  Status TimeCall(Call call) {
    disk_call_since_us_.store(clock_.MonotonicUs(), std::memory_order_relaxed);
    Status status = call();
    disk_call_since_us_.store(0, std::memory_order_relaxed);
    return status;
  }
  bool Working() const;
  void Free(Mark mark);
  void FreeHeap(Lsn last);
  bool ZeroesAhead() const;
  bool SegmentIsFull(uint64_t frame_bytes) const;
  Status Rotate();
  Status OpenSegment(uint64_t epoch, Lsn first_lsn, bool gap);
  Result<std::string> PrepareSegment(uint64_t epoch, Lsn first_lsn, bool gap);
  void ChoosePacking(SegmentInfo* info);
  Status NameSegment(const std::string& made_at);
  void LeaveSegment();
  Status FindOldSegments();
  void BoundOldSegments(Lsn first_lsn);
  size_t Retirable() const;
  bool Retains() const {
    return keep_segments_.load(std::memory_order_relaxed) != 0 ||
           keep_ms_.load(std::memory_order_relaxed) != 0;
  }
  size_t Unneeded(Lsn oldest_kept) const;
  size_t UnneededAndUnwanted(size_t unneeded) const;
  void NoteRetainedFrom(Lsn oldest_kept);
  bool RetireOne(int64_t now_us);
  Status RemoveOldest();
  Status RecycleOldest();
  void RemoveRetirable();
  void NoteRetired(bool recycled);
  void MeetDiskError(const Status& error, bool sync);
  Status BeginAfterFailure();
  Status CopyBack(Lsn first, Lsn last);
  Status WriteAgain(Lsn last);
  Status WriteFirst();
  void EnterTrouble(const Status& error);
  OnError ActionInTrouble() const;
  void ActInTrouble(const Status& error, OnError action);
  void RetryTrouble(int64_t now_us);
  void GiveUpRing();
  Status LookForSegment();
  Status CheckDirectory() const;
  Status TakeDirectory();
  bool PastIsLost();
  void EndGap();
  int64_t RetryDelayUs() const {
    return int64_t{options_.retry_ms} * 1000 << (relapses_ > 0 ? relapses_ - 1 : 0);
  }
  Status FinishLog();
  void SetState(State state);
  void Notify();
  std::string Path(const std::string& name) const { return options_.directory + "/" + name; }

  Disk& disk_;
  Options options_;  // as given; what can change at run time is below
  Clock& clock_ = RealClock();
  Identity identity_;
  std::unique_ptr<DirectoryLock> directory_lock_;
  std::unique_ptr<Ring> ring_;
  uint64_t inline_bytes_max_ = 0;  // larger payloads stay on the heap

  // Appenders' own, guarded by the reservation.
  alignas(64) std::atomic<bool> reservation_{false};
  std::atomic<uint64_t> head_{0};  // position of the next payload
  uint64_t tail_seen_ = 0;         // a lower bound of tail_
  Lsn freed_seen_ = 0;
  bool dropping_ = false;  // degraded
  std::atomic<uint64_t> dropped_{0};

  // Read by every append, written by the writer when it goes to sleep.
  alignas(64) std::atomic<uint64_t> wake_position_{~uint64_t{0}};
  std::atomic<bool> prompt_{false};  // replies wait for the writer: sync, or no shared ring
  // The writer's, read by appenders that run out of what they last saw.
  alignas(64) std::atomic<uint64_t> tail_{0};
  std::atomic<bool> room_wanted_{false};
  std::atomic<uint64_t> heap_bytes_{0};
  std::atomic<uint64_t> heap_appended_{0};  // since the start; what went through the ring is head_

  // How the writer sleeps and is woken. Records up to `kicked_lsn_` are waited for.
  alignas(64) std::atomic<uint32_t> wake_word_{0};
  std::atomic<Lsn> kicked_lsn_{0};
  std::atomic<bool> parked_{false};
  std::atomic<bool> urgent_{false};  // a heap record holds replies back
  std::atomic<bool> sync_requested_{false};
  std::atomic<bool> rotate_requested_{false};
  std::atomic<bool> retire_requested_{false};  // what may be retired has changed
  std::atomic<bool> retry_requested_{false};   // until the disk has been tried
  std::atomic<bool> stopping_{false};

  std::atomic<SyncPolicy> policy_;
  std::atomic<uint32_t> flush_interval_ms_;
  std::atomic<uint64_t> buffer_bytes_;
  std::atomic<uint64_t> max_segment_bytes_;
  std::atomic<OnError> on_error_;
  std::atomic<Compression> compression_;
  std::atomic<uint64_t> keep_segments_;
  std::atomic<uint64_t> keep_ms_;
  std::atomic<uint64_t> cleanup_keep_{kNoCleanup};  // segments to be left by the one asked for
  std::atomic<Lsn> checkpoint_lsn_{0};              // of the newest one
  std::atomic<Lsn> oldest_kept_{0};                 // nothing at or below it is needed
  std::atomic<Lsn> oldest_restorable_{kUnknownLsn};
  std::atomic<Lsn> retained_from_{0};  // as the writer saw it last
  // Records are kept behind a gap, and count when a checkpoint at or above `gap_lsn_` is there.
  std::atomic<bool> awaits_checkpoint_{false};
  std::atomic<Lsn> gap_lsn_{0};                 // the last LSN before the gap's first record
  std::atomic<int64_t> disk_call_since_us_{0};  // 0 = the writer is not waiting for the disk
  std::atomic<bool> resumable_{false};
  // Gates that can never be kept: of the last time that the log degraded, under `sync` and at all.
  std::atomic<Lsn> failed_first_{1}, failed_last_{0};
  std::atomic<Lsn> given_up_first_{1}, given_up_last_{0};

  mutable std::mutex release_mutex_;
  std::deque<HeapRecord> heap_;  // by LSN; references stay good while others come and go
  Lsn heap_last_ = 0;

  mutable std::mutex control_mutex_;
  Metrics metrics_;
  std::function<void()> listener_;

  // The writer's own; Start() uses them before the thread exists.
  std::unique_ptr<SpareMaker> spares_;
  std::unique_ptr<SegmentWriter> segment_;
  bool named_ = false;                   // segment_ is part of the log
  bool passes_as_spare_ = false;         // it was one, and its header has not been synced yet
  std::deque<OldSegment> old_segments_;  // oldest first
  Lsn old_first_lsn_ = 1;                // of the first of them
  bool directory_changed_ = false;       // a file was retired, and the directory not synced since
  int64_t retire_at_us_ = 0;             // when to look again; 0 = when something changes
  bool retire_failure_told_ = false;
  bool rotating_ = false;  // the segment ends when `rotate_upto_` is in it
  Lsn rotate_upto_ = 0;
  int64_t looked_at_us_ = 0;  // whether the file still has its name
  uint64_t epoch_ = 0;
  uint64_t number_ = 0;
  uint64_t ring_epoch_ = 0;  // for headers while an old ring is being emptied
  uint64_t predecessor_number_ = 0;
  uint32_t predecessor_crc_ = 0;
  Lsn next_lsn_ = 1;         // to be written
  Lsn synced_lsn_ = 0;       // durable_lsn_, but for the time after a gap
  Lsn gap_first_lsn_ = 0;    // of the last gap's epoch, 0 = there was none
  Lsn gap_durable_lsn_ = 0;  // what came between that and the gap was given up
  Mark staged_;              // the last record given to the file
  Mark block_staged_;  // the last one that lies wholly below the file's last started 4 KiB block
  Lsn safe_lsn_ = 0;   // what no failure of the file at hand can take back
  std::optional<SegmentInfo> failed_;  // the last file that was given up
  std::string stage_;
  std::string plain_;  // frames of records that become the next PACK
  uint32_t plain_records_ = 0;
  Lsn plain_first_ = 0;
  std::unique_ptr<Codec> codec_;  // of the current segment, where it packs
  Compression codec_compression_ = Compression::kNone;
  int64_t clean_at_us_ = 0;  // everything appended before this is where the policy wants it
  int64_t last_sync_us_ = 0;
  int64_t synced_at_us_ = 0;
  Lsn stated_lsn_ = 0;  // the highest durable LSN that a file states
  int64_t retry_at_us_ = 0;
  int failures_ = 0;  // since the last success
  int relapses_ = 0;  // times in trouble since records were last durable
  bool notify_ = false;
  Status stop_status_;
  std::thread thread_;
  bool stopped_ = false;
};

}  // namespace crab::wal

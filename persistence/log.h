// The write-ahead log: records in LSN order, cut into segment files in one directory.
// The bytes on disk are specified in persistence/FORMAT.md.
// Synchronized: any loop appends, one writer thread drains. Holds at most Options::ring_bytes that
// are not yet durable, and larger payloads by reference; room is secured before a command runs.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "utils/status.h"

namespace crab::wal {

// A record's place in the log, from 1, dense; 0 = before every record.
using Lsn = uint64_t;
constexpr Lsn kNoGate = 0;
constexpr Lsn kUnknownLsn = ~Lsn{0};  // the end of what is lost with the last, unreadable segment
// Of one record. The format could hold 4 GiB; the rest is left for what may join it one day.
constexpr uint64_t kRecordBytesMax = uint64_t{3} << 30;

enum class SyncPolicy : uint8_t { kNone, kAsync, kSync };
enum class RecoveryMode : uint8_t { kSalvage, kPrefix, kStrict };
enum class OnError : uint8_t { kAuto, kDegrade, kRefuse, kExit };

// Types of records that carry somebody's payload. The writer's own frames (BATCH, SEAL, STOP ...)
// are the format's business and never reach a caller.
enum class RecordType : uint8_t {
  kEffect = 1,     // one effect on one shard
  kTxn = 2,        // several effects that ran atomically
  kBroadcast = 3,  // an effect every shard applies at this LSN
};
constexpr uint16_t kBroadcastShard = 0xffff;  // of kTxn and kBroadcast records

// The identity a log keeps over restarts. Written into every segment header.
struct Identity {
  uint64_t log_id = 0;     // random, made with the log
  uint64_t hash_seed = 0;  // of the key hash, so that records keep their shard
  uint32_t shard_count = 0;
  char replication_id[40] = {};
};

struct Options {
  std::string directory;                  // created where it is missing
  uint64_t max_segment_bytes = 64 << 20;  // >= 1 MiB
  uint64_t buffer_bytes = 4096;           // gathered before the writer is woken early
  uint32_t flush_interval_ms = 1000;      // bound of the async policy
  SyncPolicy sync_policy = SyncPolicy::kAsync;
  RecoveryMode recovery = RecoveryMode::kSalvage;
  OnError on_error = OnError::kAuto;
  uint64_t ring_bytes = 16 << 20;           // >= 1 MiB
  std::string ring_directory = "/dev/shm";  // empty: no shared ring, replies wait for written_lsn
  uint32_t shard_count = 1024;              // of the records from now on
  uint64_t hash_seed = 0;         // likewise; 0: the log's own, a random one for a new log
  bool shard_by_hashtag = false;  // how the caller finds a key's shard: stated in the headers
  Compression compression = Compression::kNone;
  std::shared_ptr<const KeyRing> keys;  // null or empty: nothing is encrypted
  // Of a log with PACKs: what a replay holds unpacked, about. One half is replayed while the other
  // is unpacked.
  uint64_t unpacked_bytes_max = 64 << 20;
  // Of any other: how much of it all units replay before they go on; 0: as suits its records.
  uint64_t stage_bytes = 0;
  uint64_t keep_segments = 0;  // segments retained that no checkpoint needs
  uint64_t keep_ms = 0;        // likewise, those sealed within this time
  // Begins behind a gap, as after a time without the log: what is in the directory is not recovered
  // and is void once a checkpoint at or above the first LSN is published.
  bool after_gap = false;
  uint32_t retry_ms = 2000;  // between tries of a disk that failed; doubled, up to 32-fold, while
                             // each recovery ends in the next failure
  uint32_t heartbeat_ms = 1000;  // a log that is quiet for so long states what is durable
  // Called on the writer's thread where `on_error` is kExit, and expected not to return. Empty:
  // prints the error and ends the process.
  std::function<void(std::string_view)> on_fatal;
};

constexpr size_t kLostRangesMax = 1000;  // kept: a damaged log can have millions of bad places

// What a restart found. Names as the specification gives them.
struct RecoveryReport {
  uint64_t segments_processed = 0;
  uint64_t entries_recovered = 0;
  uint64_t entries_skipped = 0;    // records passed over (VOID, cut-off epochs, unknown type)
  uint64_t corrupted_entries = 0;  // bad records at or below the durable LSN
  uint64_t bytes_processed = 0;
  uint64_t ring_entries_recovered = 0;  // of entries_recovered: appended from the shared ring
  uint64_t torn_bytes = 0;              // cut off behind the last good record
  int64_t recovery_time_ms = 0;
  struct LostRange {
    Lsn first, last;    // kUnknownLsn: nobody knows how many
    std::string where;  // segment and byte range
  };
  std::vector<LostRange> lost;  // the first lost_max of them
  size_t lost_max = kLostRangesMax;
  uint64_t lost_more = 0;             // ranges beyond those
  std::vector<std::string> warnings;  // whole sentences for the operator
  Lsn checkpoint_lsn = 0;             // 0 = none was used
  uint64_t checkpoint_entries = 0;    // keys in it
  uint64_t checkpoint_bytes = 0;
  std::string checkpoint_problem;  // why a newer one was not used
  // Those that turned out to be damaged while they were read, which their outlines do not show.
  std::vector<Lsn> damaged_checkpoints;

  // Counts what is lost, and keeps where as long as there is room. `last` may be kUnknownLsn.
  void NoteLost(Lsn first, Lsn last, std::string_view where) {
    corrupted_entries += last == kUnknownLsn ? 1 : last - first + 1;
    if (lost.size() < lost_max) {
      lost.push_back({first, last, std::string(where)});
    } else {
      ++lost_more;
    }
  }
};

struct RecordView {
  Lsn lsn;
  RecordType type;
  uint16_t shard;
  std::string_view payload;  // lives until the callback returns
};

enum class State : uint8_t {
  kRunning,   // every append will be written
  kDegraded,  // carrying on without the log: appends are dropped until it heals
  kRefusing,  // writes are to be refused with -MISCONF
  kStopped,
};

// Counters and gauges for INFO persistence; a consistent-enough copy.
struct Metrics {
  State state = State::kRunning;
  SyncPolicy sync_policy = SyncPolicy::kAsync;
  Lsn last_lsn = 0, written_lsn = 0, durable_lsn = 0;
  uint64_t epoch = 0;
  uint64_t segment_number = 0, segment_offset = 0, segments = 0;  // current file; files in all
  uint64_t total_bytes = 0;                                       // of all segments' used parts
  uint64_t entries_appended = 0, bytes_appended = 0;              // since start
  uint64_t writes = 0, bytes_written = 0, syncs = 0;
  uint64_t write_errors = 0, sync_errors = 0, segments_created = 0, heals = 0;
  uint64_t sync_last_us = 0, sync_total_us = 0, sync_max_us = 0;
  uint64_t ring_used_bytes = 0, ring_bytes = 0;
  uint64_t appends_dropped = 0;  // while degraded
  Lsn sealed_lsn = 0;            // all records up to here are in sealed segments
  Lsn checkpoint_lsn = 0;        // as SetCheckpoint told, or found at the start
  uint64_t segments_retired = 0, segments_recycled = 0, spare_segments = 0;
  uint64_t packed_bytes = 0, plain_bytes = 0;  // of compressed or encrypted batches
  bool awaits_checkpoint =
      false;  // records are kept behind a gap whose checkpoint is not there yet
  Lsn synced_lsn =
      0;  // kept and synced up to here: durable_lsn, and beyond while awaits_checkpoint
  uint64_t sync_stalled_ms = 0;  // how long the sync under way has taken so far; 0 = none is
  bool resumable = false;        // degraded, and the disk works again: Resume() will succeed
  bool ring_shared = false;      // survives kill -9
  std::string last_error;        // "" while all is well
};

class Backlog;

class Log {
 public:
  // Locks the directory, reads what is there, calls `apply` for each whole record in LSN order
  // (also those a killed process left in the ring), and opens a new epoch for writing. An error is
  // for the operator; then nothing was changed that a second try would miss. `apply` returning an
  // error counts the record as skipped and puts the error's text among the warnings.
  // `identify` is called once, before the first apply, with the identity the log has (or, for a
  // new log, was given): the caller takes its hash seed and shard count from it.
  static Result<std::unique_ptr<Log>> Open(Disk& disk, const Options& options,
                                           const std::function<void(const Identity&)>& identify,
                                           const std::function<Status(const RecordView&)>& apply,
                                           RecoveryReport* report);
  // The same without replaying anything: `*backlog` is what is to be replayed. Under `salvage` only
  // what decides where the log ends has been read by then, so that a server may serve while it
  // replays; prefix and strict judge the whole log first. identity() tells the hash seed.
  static Result<std::unique_ptr<Log>> Open(Disk& disk, const Options& options,
                                           std::unique_ptr<Backlog>* backlog);
  // Writes a STOP frame and syncs, unless Stop() did.
  virtual ~Log() = default;

  // Asks for room for records of about `payload_bytes` in all (one command's, or a batch's); false
  // = no room now: the connection waits for the listener. Never blocks. Nothing
  // is set aside by it: each loop is inside one command at a time, and what overshoots goes to the
  // heap.
  virtual bool SecureRoom(size_t payload_bytes) = 0;

  // Copies `payload` (above ring/8: onto the heap) and returns the record's LSN. Call it while the
  // shards that the payload changed are held: that makes log order apply order. The record is
  // durable once durable_lsn() reaches it. Never fails: trouble with the disk shows in state(),
  // and the bytes stay here until they are durable. It does not need room secured before it (a
  // payload that finds none goes to the heap), but then its reply waits for the writer.
  virtual Lsn Append(RecordType type, uint16_t shard, std::string_view payload) = 0;

  // Appended records are about to be waited for: a loop calls it once after the last Append of a
  // batch, when no shard is held. It wakes a sleeping writer at once where replies wait for it
  // (`sync`, or no shared ring) and costs a few loads otherwise. Without it the writer finds the
  // records by itself, within 20 ms.
  virtual void Kick() = 0;

  // The highest LSN that a reply may have seen and still leave now, under the policy in force:
  // `sync`: durable_lsn; otherwise everything, unless a payload lives on the heap only or there is
  // no shared ring (then written_lsn). Acquire: pairs with the writer's or appender's release.
  Lsn release_lsn() const { return release_lsn_.load(std::memory_order_acquire); }
  // The same for a reply that has a policy of its own. kSync: durable_lsn, also while degraded, so
  // that the caller must see to it that nothing waits for ever. kNone and kAsync: what release_lsn
  // is under these.
  Lsn release_lsn(SyncPolicy policy) const {
    if (policy == SyncPolicy::kSync) return durable_lsn();
    return unsynced_release_lsn_.load(std::memory_order_acquire);
  }
  Lsn durable_lsn() const { return durable_lsn_.load(std::memory_order_acquire); }
  Lsn written_lsn() const { return written_lsn_.load(std::memory_order_acquire); }
  Lsn last_lsn() const { return last_lsn_.load(std::memory_order_acquire); }
  State state() const { return state_.load(std::memory_order_acquire); }

  // Called on the writer's thread whenever release_lsn, durable_lsn, state or the room moved in a
  // direction somebody may wait for. Must be quick and must not call back into the log.
  virtual void SetListener(std::function<void()> listener) = 0;

  // A new policy takes effect with the next record. Raising it: the caller answers its client when
  // durable_lsn() has reached the LSN returned here.
  virtual Lsn SetSyncPolicy(SyncPolicy policy) = 0;
  virtual void SetFlushIntervalMs(uint32_t ms) = 0;
  virtual void SetBufferBytes(uint64_t bytes) = 0;
  virtual void SetMaxSegmentBytes(uint64_t bytes) = 0;
  // While the log refuses this and SetSyncPolicy make it try the disk now, and decide anew if that
  // fails.
  virtual void SetOnError(OnError on_error) = 0;
  // Asks for a sync now, whatever the policy (WAITAOF, SHUTDOWN, WAL FLUSH); watch durable_lsn.
  virtual void RequestSync() = 0;
  // Asks for a new segment before the next record (WAL ROTATE, backup): everything appended before
  // this call is in sealed segments once metrics().sealed_lsn reaches it. Nothing happens where the
  // current segment is empty.
  virtual void RequestRotate() = 0;
  // A checkpoint at `newest` is published, and nothing at or below `oldest_kept` will be read any
  // more: segments that hold no later record are retired, beyond what keep_segments and keep_ms
  // retain. Ends the time after a gap when `newest` is not below the gap's first LSN - 1. The
  // retiring happens on the writer's thread, soon: not to be called while a Backlog still replays.
  virtual void SetCheckpoint(Lsn newest, Lsn oldest_kept) = 0;
  // From here on keep_segments and keep_ms want the records, or a restart needs them, which makes
  // restores of that time possible where there is a checkpoint below it; kUnknownLsn: nothing is
  // retained, 0: not known yet. It moves on as segments are retired.
  virtual Lsn retained_from() const = 0;
  // The oldest checkpoint that is kept for restores: while keep_segments or keep_ms want anything,
  // all segments with records above it stay, too. kUnknownLsn: there is none. Before
  // SetCheckpoint, which retires.
  virtual void SetRestorable(Lsn oldest) = 0;
  // Retires now what SetCheckpoint allows and retention would keep, down to `keep_segments` in all,
  // the current one among them (WAL CLEANUP keep); before a SetCheckpoint that lets any
  // go, behind the first that does.
  // Watch metrics().segments.
  virtual void RequestCleanup(uint64_t keep_segments) = 0;
  virtual void SetRetention(uint64_t keep_segments, uint64_t keep_ms) = 0;
  virtual void SetCompression(Compression compression) = 0;  // from the next segment on

  // Drains, writes STOP, syncs, ends the writer thread and removes the ring. An error says what is
  // not on disk; the ring then stays for the next start.
  virtual Status Stop() = 0;

  // Begins to end kDegraded once metrics().resumable says that the disk works again (the listener
  // is called then). Called world-exclusive: from here on records are kept again, in a new epoch
  // that begins with a GAP frame, and no file is touched. The state stays kDegraded (nothing is
  // promised) until SetCheckpoint tells of a checkpoint at or above the LSN returned here, the last
  // before the gap's first record: the caller takes it now, in the same exclusive moment. A restart
  // before that finds what was before the gap.
  virtual Result<Lsn> Resume() = 0;
  virtual bool resumable() const = 0;
  // Tries a disk in trouble now, not when the time has come, and returns when it has been tried:
  // before a stop, which is the last chance. Blocks for as long as the disk does; not beside
  // Stop().
  virtual void RetryDisk() = 0;
  // True for a gate whose records were given up when the log degraded under `sync`: a held reply
  // that acknowledges one must never leave, its connection is closed; one that has only read what
  // one wrote waits no longer. Ask after release_lsn(), which opens all
  // gates then, because what runs without the log is not held: whoever sees one opened so sees this
  // and the state, too.
  virtual bool GateFailed(Lsn gate) const = 0;
  // The same whatever the policy was, for a reply that waits for the disk because its own says so.
  virtual bool GateGivenUp(Lsn gate) const = 0;

  virtual Metrics metrics() const = 0;
  virtual const Identity& identity() const = 0;

 protected:
  // Moved by appenders with every record; the others are the writer's.
  alignas(64) std::atomic<Lsn> last_lsn_{0};     // highest handed out
  alignas(64) std::atomic<Lsn> written_lsn_{0};  // all up to here are in the page cache
  std::atomic<Lsn> durable_lsn_{0};              // all up to here survive a power cut
  std::atomic<Lsn> release_lsn_{0};
  std::atomic<Lsn> unsynced_release_lsn_{0};  // release_lsn as it is where nobody waits for a sync
  std::atomic<State> state_{State::kRunning};
};

}  // namespace crab::wal

// Backlog: what a restart has to apply before the data is what it was: the newest good checkpoint
// and the records behind it, findable by shard, so that any part can be recovered first and many
// at once. Log::Open makes one; it lives until everything has been replayed.
//
// A unit is a range of the key's hash (its top bits): all shards of all shard counts in use are
// unions or parts of units, so units can be replayed in any order and by several threads; within a
// unit records come in LSN order. A unit need not be replayed in one go: the log is cut into
// stages, windows that follow each other, so that those who replay all of it go through it once
// from its beginning to its end, and not once for every unit. Where records stand in PACKs, each of
// which holds those of many units, all units must go through it so. Synchronized: different units
// may be replayed at once, each by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>

#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

struct ReadAhead;  // persistence/backlog_impl.h

class Backlog {
 public:
  // The effects of one record (or of one chunk of a checkpoint, lsn = the checkpoint's) that
  // concern the unit, in order. `type` kTxn: `payload` is only this unit's part of what ran
  // atomically, effects end to end. `whole` is then the record's whole payload, for who wants to
  // know whether all of it suits before a part is applied; otherwise empty.
  struct Part {
    Lsn lsn;
    RecordType type;
    bool of_checkpoint;
    std::string_view payload;
    std::string_view whole;
  };
  // An error means that the record could not be applied: counted as skipped, its text a warning.
  using Apply = std::function<Status(const Part&)>;

  // Told of the beginnings of payloads that will be applied soon, some at a time and the next ones
  // before those are applied, so that what they are about can be on its way from memory by then.
  // Possibly none. Nothing there has been checked yet.
  using Ahead = std::function<void(std::span<const std::string_view> payloads)>;
  static constexpr size_t kToldMax = 16;  // at a time

  // A unit, up to the end of a stage.
  struct Piece {
    uint32_t unit = 0;
    uint32_t stage = kLastStage;
    // What has been read of the stage, where NextPiece gave it; lives as long as pieces have it.
    std::shared_ptr<const ReadAhead> read = nullptr;
  };
  static constexpr uint32_t kLastStage = ~uint32_t{0};  // of however many: all of the log

  virtual ~Backlog() = default;

  // A power of two, at most Options::shard_count, so that the caller's shards are parts of units; 1
  // where the log can only be replayed as a whole, in order.
  virtual uint32_t units() const = 0;
  // Each unit may be replayed at any time, as far as is wanted. Otherwise only as NextPiece says.
  virtual bool any_order() const = 0;
  // Nothing is to be replayed: a new log.
  virtual bool empty() const = 0;
  // Bytes to be read in all, about; and of it what has been.
  virtual uint64_t total_bytes() const = 0;
  virtual uint64_t done_bytes() const = 0;

  // What the calling thread is to replay next; false: nothing is left. Each unit comes once in
  // every stage, also where somebody has replayed more of it already. Not in any order: the call
  // takes part in unpacking the next window, or waits for those who are replaying this one; so
  // whoever has been given a piece replays it, and when none is left all is replayed. An error is
  // one of Replay, on whatever thread. `*piece` is the one that the same thread was given before,
  // or a new one.
  virtual Result<bool> NextPiece(Piece* piece) = 0;

  // Replays what is left of the unit up to the end of the stage (not in any order: what the window
  // has of it). True: the unit is whole; only in any order. What does not check is never applied;
  // the report names it. An error is for the operator: the data cannot be had at all (a disk that
  // does not read, and no older copy), and the unit is not to be replayed further.
  virtual Result<bool> Replay(const Piece& piece, const Apply& apply, const Ahead& ahead = {}) = 0;

  // Every record in LSN order, whole, as a RecordView: for Log::Open with `apply`, which is for
  // tests and tools. Instead of Replay, not beside it. Checkpoint chunks come first, as kEffect
  // records of LSN X.
  virtual Status ReplayInOrder(const std::function<Status(const RecordView&)>& apply) = 0;

  // What has been found so far; final once all units have been replayed. A copy. Any thread.
  virtual RecoveryReport report() const = 0;
};

}  // namespace crab::wal

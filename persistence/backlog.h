// Backlog: what a restart has to apply before the data is what it was: the newest good checkpoint
// and the records behind it, findable by shard, so that any part can be recovered first and many
// at once. Log::Open makes one; it lives until everything has been replayed.
//
// A unit is a range of the key's hash (its top bits): all shards of all shard counts in use are
// unions or parts of units, so units can be replayed in any order and by several threads; within a
// unit records come in LSN order. Where records stand in PACKs, each of which holds those of many
// units, the order is not free: the log is replayed window by window, and in each of them unit by
// unit.
// Synchronized: different units may be replayed at once, each only once (a window).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

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

  virtual ~Backlog() = default;

  // A power of two, at most Options::shard_count, so that the caller's shards are parts of units; 1
  // where the log can only be replayed as a whole, in order.
  virtual uint32_t units() const = 0;
  // Each unit may be replayed at any time, all of it at once. Otherwise only as NextUnit says.
  virtual bool any_order() const = 0;
  // Nothing is to be replayed: a new log.
  virtual bool empty() const = 0;
  // Bytes to be read in all, about; and of it what has been.
  virtual uint64_t total_bytes() const = 0;
  virtual uint64_t done_bytes() const = 0;

  // The unit that the calling thread is to replay next; false: none is left. In any order each
  // comes once, and it may be replayed already for those who asked for it. Otherwise each comes
  // once in every window: the call takes part in unpacking the next one, or waits for those who are
  // replaying this one. So whoever has been given a unit replays it; and when none is left all are
  // replayed. An error is one of Replay, on whatever thread.
  virtual Result<bool> NextUnit(uint32_t* unit) = 0;

  // Replays one unit (in any order), or what the window has of it. What does not check is never
  // applied; the report names it. An error is for the operator: the data cannot be had at all (a
  // disk that does not read, and no older copy).
  virtual Status Replay(uint32_t unit, const Apply& apply) = 0;

  // Every record in LSN order, whole, as a RecordView: for prefix and strict, for tests and tools.
  // Instead of Replay, not beside it. Checkpoint chunks come first, as kEffect records of LSN X.
  virtual Status ReplayInOrder(const std::function<Status(const RecordView&)>& apply) = 0;

  // What has been found so far; final once all units have been replayed. A copy. Any thread.
  virtual RecoveryReport report() const = 0;
};

}  // namespace crab::wal

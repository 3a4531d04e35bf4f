// When a checkpoint is due, and what for: facts in, a reason out, and neither a clock nor a log
// between. The Checkpointer gathers the facts and acts on the reason. Frozen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "persistence/log.h"
#include "src/config.h"

namespace crab {

// What a checkpoint is written for.
enum class CheckpointReason : uint8_t {
  kSave,       // SAVE, BGSAVE, SHUTDOWN SAVE
  kSavePoint,  // option save
  kRewrite,    // BGREWRITEAOF, WAL commands
  kReplay,     // the next restart would take longer than wal-max-recovery-ms
  kGrowth,     // options auto-aof-rewrite-...
  kSpace,      // the disk runs full; an older checkpoint is not kept then
  kGap,        // the log has begun, or goes on, behind a gap: without it, it holds nothing
  kSalvage,    // the start found damage: what was saved is to be whole again
};
const char* ReasonName(CheckpointReason reason);

// How fast a start replays the log.
struct ReplaySpeed {
  double ms_per_byte = 0;
  double ms_per_record = 0;

  // Where this server has not measured it. `threads` replay.
  static ReplaySpeed Assumed(size_t threads);
  // As the last start was; nullopt where that was too short to be a measure.
  static std::optional<ReplaySpeed> Measured(const wal::RecoveryReport& report);

  double ReplayMs(uint64_t bytes, uint64_t records) const;
};

struct CheckpointFacts {
  bool log_awaits_one = false;      // it keeps records behind a gap
  bool start_found_damage = false;  // and none was published since
  // The log since the cut of the last checkpoint, and how large that is: 0 = there is none.
  uint64_t log_bytes_since = 0;
  uint64_t checkpoint_bytes = 0;

  double replay_ms = 0;  // of the log since: loading the checkpoint is shortened by none
  int64_t max_recovery_ms = 0;

  // How long the log since may get, in percent of the checkpoint (0 = as it likes) and at least.
  int64_t growth_percent = 0;
  uint64_t growth_bytes_min = 0;

  uint64_t disk_free_bytes = 0;  // 0 = not known, or nothing is left to write a checkpoint with
  uint64_t log_bytes = 0;        // of all segments
  uint64_t segment_bytes_max = 0;

  // Since the data was last saved, or the server started.
  uint64_t changes = 0;
  int64_t seconds = 0;
  std::span<const SavePoint> save_points;
};

// The most pressing reason to begin a checkpoint now; nullopt: none is due.
std::optional<CheckpointReason> DueCheckpoint(const CheckpointFacts& facts);

}  // namespace crab

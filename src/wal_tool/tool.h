// What the verbs of crabcache-wal share: the request, where answers go, and walking a log.
#pragma once

#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "src/keyspace/effects.h"
#include "src/wal_tool/arguments.h"
#include "src/wal_tool/text.h"
#include "src/wal_tool/wal_tool.h"

namespace crab::wal {

struct Tool {
  Disk& disk;
  const Request& request;
  std::ostream& out;
  std::ostream& errors;
  bool interactive;
  const std::atomic<bool>* stop;
  std::shared_ptr<const KeyRing> keys = nullptr;

  bool stopped() const { return stop != nullptr && stop->load(std::memory_order_relaxed); }
  // Says why the work could not be done; returns the exit status.
  int Fail(std::string_view why) const {
    errors << "crabcache-wal: " << why << "\n";
    return kToolUnusable;
  }
};

// The verbs, each in the file of its name.
int RunList(Tool& tool);
int RunVerify(Tool& tool);
int RunDump(Tool& tool);
int RunTail(Tool& tool);
int RunStats(Tool& tool);
int RunRestore(Tool& tool);
int RunRepair(Tool& tool);
int RunBackup(Tool& tool);

// A directory with a log in it: its segments and checkpoints.
struct OpenLog {
  std::unique_ptr<Reader> reader;
  std::vector<CheckpointInfo> checkpoints;  // newest first, damaged ones too

  // The LSN of the newest checkpoint that looks good, 0 = none: a restart needs nothing at or below
  // it.
  Lsn base() const;
  uint64_t total_bytes() const;  // of the segments
};
Result<OpenLog> OpenTheLog(Tool& tool);

// Whether a file has lost its name since it was listed: a server has retired it. It does that
// before it fills the file with zeroes, and no name is used twice; so what was read of a file whose
// name is there afterwards is what the name says.
bool IsRetired(Tool& tool, const std::string& path);

// What a walk over the log tells of each frame beside the frame itself.
struct Walk {
  int64_t wall_ms = 0;  // when the batch around the frame was written, 0 = nobody says
  bool lost = false;    // durable records are missing here, and no checkpoint has them
  // These were there when the walk began. A server has retired them, as a checkpoint has them.
  Lsn retired_first = 0, retired_last = 0;  // 0 = none
};
// Calls `visit(frame, walk)` for every frame until it returns false or somebody stops the tool.
// Returns the errors of the disk, one for each segment that had to be given up.
std::vector<std::string> WalkLog(Tool& tool, OpenLog& log, std::string_view progress_title,
                                 const std::function<bool(const Frame&, const Walk&)>& visit);

// Follows the clock of the log: BATCH, SEAL and STOP frames say when they were written.
void NoteWallTime(uint8_t type, std::string_view payload, int64_t* wall_ms);

// The effects of a record's payload; an error where it is not what its type says.
Result<std::vector<EffectView>> ReadEffects(uint8_t type, std::string_view payload);

std::string Place(const Frame& frame);
std::string ProblemText(const Frame& frame);
std::string ProblemJson(const Frame& frame);
// A record as a line of JSON; with `wall_ms` 0 without its time.
std::string RecordJson(const Frame& frame, int64_t wall_ms);

// Tells the operator and picks the exit status.
int Finish(Tool& tool, const Reader& reader, const std::vector<std::string>& disk_errors,
           bool lost);

}  // namespace crab::wal

// crabcache-wal: shows what a log directory holds, offline or beside a running server, and makes
// new directories of it: restored to a point in time, or backed up. Only `repair` changes the
// directory it is given, and only where no server holds its lock. wal_main.cc hands it the command
// line; `crabcache-wal --help` is its manual.
// Holds one record in memory, whatever the size of the log; `dump --resp` also each key that has a
// deadline, and `repair` the data of shards that it makes of records.
#pragma once

#include <atomic>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/disk.h"

namespace crab::wal {

// The exit status of the program.
enum ToolStatus : int {
  kToolGood = 0,        // also a log whose last write is torn: nothing durable is missing
  kToolCorruption = 1,  // durable records are missing or do not check
  kToolUnusable = 2,    // wrong usage, the directory cannot be read, or the work could not be done
};

struct ToolSurroundings {
  bool interactive = false;                 // `errors` is a terminal: long work shows how far it is
  const std::atomic<bool>* stop = nullptr;  // true: end soon (an interrupt). null: never
};

// Runs `crabcache-wal ARGUMENTS...` (without the program's name): answers on `out`, complaints on
// `errors`.
int RunWalTool(Disk& disk, std::span<const std::string_view> arguments, std::ostream& out,
               std::ostream& errors, const ToolSurroundings& surroundings = {});

// What --help prints; with a verb, what VERB --help prints. "" for an unknown verb.
std::string WalToolHelp(std::string_view verb = {});
std::vector<std::string_view> WalToolVerbs();

}  // namespace crab::wal

// crabcache-wal: shows what a log directory holds, offline or beside a running server: it takes no
// lock and changes nothing. wal_main.cc hands it the command line.
// Holds one record in memory, whatever the size of the log.
#pragma once

#include <iosfwd>
#include <span>
#include <string_view>

#include "persistence/disk.h"

namespace crab::wal {

// The exit status of the program.
enum ToolStatus : int {
  kToolGood = 0,        // also a log whose last write is torn: nothing durable is missing
  kToolCorruption = 1,  // durable records are missing or do not check
  kToolUnusable = 2,    // wrong usage, or the directory cannot be read
};

// Runs `crabcache-wal ARGUMENTS...` (without the program's name): answers on `out`, complaints on
// `errors`.
int RunWalTool(Disk& disk, std::span<const std::string_view> arguments, std::ostream& out,
               std::ostream& errors);

}  // namespace crab::wal

// Backup: a copy of a log that a server may be writing to at this moment, consistent at one LSN.
// Checkpoints and segments that nobody writes to any more get a second name (a hard link: no bytes
// are copied, and the server does not recycle a file with two names); the segment that grows is
// copied up to the last frame that is stated to be durable. Where the target is on another file
// system everything is copied.
//
// The race with a server that retires files meanwhile: checkpoints are taken before segments, and a
// name that has vanished in between means that the set would not be whole, so it begins anew. The
// server renames what it retires before it reuses it, so a link or copy of a name that is still
// there is what the name says.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "persistence/disk.h"
#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

struct BackupReport {
  Lsn lsn = 0;  // the backup holds the data as of here
  uint64_t checkpoints = 0, segments = 0;
  uint64_t linked_files = 0, linked_bytes = 0;
  uint64_t copied_files = 0, copied_bytes = 0;
  uint64_t foreign = 0;  // files of another log that were left out
  bool damaged = false;  // a header, an end, or the segment that grows: it was taken as it is
  uint64_t tries = 1;    // begun anew because files were retired meanwhile
};

struct BackupOptions {
  // Told the bytes that are done and those there are, from the caller's thread. May be empty.
  std::function<void(uint64_t done, uint64_t total)> progress = {};
  const std::atomic<bool>* stop = nullptr;  // true: end soon, with ECANCELED
};

// Backs the log in `source` up into `target`, which is made, or is empty. On an error nothing is
// left in it but the directory.
Result<BackupReport> BackUp(Disk& disk, const std::string& source, const std::string& target,
                            const BackupOptions& options = {});

// OK when `directory` holds no file; makes it where it is missing.
Status MakeEmptyDirectory(Disk& disk, const std::string& directory);

// Copies the first `bytes` bytes of a file (fewer where it ends) into a new one and syncs that.
// `progress` (may be empty) is told the bytes of each step. Returns how many bytes it copied.
Result<uint64_t> CopyFile(Disk& disk, const std::string& from, const std::string& to,
                          uint64_t bytes, const std::function<Status(uint64_t)>& progress);

}  // namespace crab::wal

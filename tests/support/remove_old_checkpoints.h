// What a server does with its checkpoints once it has published one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "persistence/checkpoint.h"
#include "utils/status.h"

namespace crab::test {

// Removes those that a restart does not need. Returns their names, newest first.
inline Result<std::vector<std::string>> RemoveOldCheckpoints(wal::Disk& disk,
                                                             const std::string& directory,
                                                             uint64_t log_id, size_t keep) {
  const auto found = TRY(wal::ListCheckpoints(disk, directory));
  const auto kept = wal::ChooseCheckpoints(found, log_id, keep, wal::kUnknownLsn);
  TRY(wal::RemoveCheckpoints(disk, directory, kept.gone));
  std::vector<std::string> names;
  for (const wal::CheckpointInfo& info : kept.gone) names.push_back(info.name);
  return names;
}

}  // namespace crab::test

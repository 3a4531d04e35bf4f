// What a restart reads: the segments in LSN order, then what a killed process left in the ring.
// Changes nothing; Log::Open acts on what it returns. DESIGN: torn, corrupt, epochs, the ring.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "persistence/disk.h"
#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/ring.h"
#include "utils/status.h"

namespace crab::wal {

struct Recovered {
  bool empty = true;  // no log here yet: `identity` is the caller's to make
  Identity identity;
  uint64_t last_epoch = 0;
  uint64_t last_number = 0;    // of the segments whose header is good
  std::set<uint64_t> numbers;  // of all of them: names that are taken
  Lsn next_lsn = 1;            // the new epoch's first
  Lsn last_in_files = 0;
  uint64_t segments = 0;
  uint64_t total_bytes = 0;

  // What the ring held behind the files, to be written first. Payloads live in `ring`.
  struct RingRecord {
    FrameHeader header;
    std::string_view payload;
  };
  std::unique_ptr<Ring> ring;  // null = none, or not to be used
  uint64_t ring_epoch = 0;
  std::vector<RingRecord> ring_records;

  std::vector<std::string>
      unsealed_paths;  // of segments that do not say that all in them is durable

  // The last segment: where its good part ends, and bytes behind that to be kept aside.
  std::string last_path;
  uint64_t last_good_bytes = 0;
  uint64_t torn_bytes = 0;
};

Result<Recovered> Recover(Disk& disk, const Options& options,
                          const std::function<Identity()>& make_identity,
                          const std::function<void(const Identity&)>& identify,
                          const std::function<Status(const RecordView&)>& apply,
                          RecoveryReport* report);

}  // namespace crab::wal

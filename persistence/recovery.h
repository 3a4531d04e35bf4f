// What a restart finds out before it replays anything: which checkpoint to begin with, which
// segments hold what comes behind it, where the log ends, and what a killed process left in the
// ring. Changes nothing; Log::Open acts on what it returns, the backlog replays it.
// DESIGN: torn, corrupt, epochs, the ring.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/checkpoint.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "persistence/places.h"
#include "persistence/ranges.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/ring.h"
#include "utils/status.h"

namespace crab::wal {

// Ranges of lost LSNs that are remembered apart, so that none is told twice: a few MiB.
constexpr size_t kToldRangesMax = 50000;

template <typename Info>  // of a segment or a checkpoint
Sharding ShardingOf(const Info& info) {
  return {info.identity.hash_seed, info.identity.shard_count, info.shard_by_hashtag};
}

// What is to be replayed, beginning behind one checkpoint or at the log's first record.
struct Plan {
  struct Segment {
    SegmentInfo info;
    Lsn last = 0;             // of the records that count
    uint64_t end = 0;         // of the bytes that count
    uint64_t records = 0;     // of a sealed one, as its end states
    uint64_t last_index = 0;  // likewise
    bool read_through = false;
    // Of one that has been read through: where its records stand. Null: to be found by its INDEX,
    // or it holds PACKs.
    std::unique_ptr<Places> places;
  };
  struct RingRecord {
    FrameHeader header;
    std::string payload;
  };

  std::optional<CheckpointInfo> checkpoint;
  std::vector<Segment> segments;
  std::vector<RingRecord> ring;
  uint32_t ring_shard_count = 0;
  std::vector<std::string> gap_losses;  // sentences: gaps whose checkpoint is damaged
  Lsn last = 0;                         // of the segments
  uint64_t last_number = 0;             // likewise

  Lsn checkpoint_lsn() const { return checkpoint ? checkpoint->lsn : 0; }
};

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
  // A file in the ring's place that may hold the only copy of something: to be kept under another
  // name, once nothing else can fail. "" = none.
  std::string aside_path;
  std::string aside_reason;  // the sentence's beginning
  uint64_t aside_epoch = 0;  // this log's: not to be given out again
  uint64_t ring_epoch = 0;
  Sharding ring_sharding;
  std::vector<RingRecord> ring_records;

  std::vector<std::string>
      unsealed_paths;  // of segments that do not say that all in them is durable

  // The last segment, of which a failed sync may have left more in memory than on the disk: its
  // records above `durable`, and those that share a block with what came behind that, are to be
  // written anew before anything is said to be durable.
  struct Doubtful {
    SegmentInfo info;
    Lsn last = 0;               // of its records that count
    Lsn durable = 0;            // the largest LSN that anything states to be durable
    Lsn next = 0;               // what follows once they are: a gap that was void is undone by that
    bool read_through = false;  // otherwise only its end has been looked at
  };
  std::optional<Doubtful> doubtful;

  // A gap that is bridged and has no record behind it: a segment that goes on there says it again.
  struct Gap {
    Lsn first_lsn = 0;    // behind it
    Lsn durable_lsn = 0;  // before it
  };
  std::optional<Gap> gap;

  // The last segment: where its good part ends, and bytes behind that to be kept aside.
  std::string last_path;  // "" = none, or not to be touched
  uint64_t last_good_bytes = 0;
  uint64_t torn_bytes = 0;

  // Checkpoints of a time that `prefix` leaves out: their LSNs will be given out again.
  std::vector<std::string> void_checkpoints;

  Ranges lost{kToldRangesMax};  // LSNs that have been told as lost

  Lsn checkpoint_lsn = 0;  // of the one in `plan`
  Plan plan;
  uint32_t units = 1;
  bool packs = false;  // some segments hold PACK frames, maybe only ones that the checkpoint covers
  // Older checkpoints to fall back to, newest first.
  std::vector<CheckpointInfo> fallbacks;
};

// `report` gets what has been found; the backlog goes on from there.
Result<Recovered> Recover(Disk& disk, const Options& options,
                          const std::function<Identity()>& make_identity, RecoveryReport* report);

// Another plan for the same records: behind `checkpoint`, or from the first record on. Segments up
// to the last one of `plan`. What is found missing on the way goes into `report`.
Result<Plan> ReadPlanFrom(Disk& disk, const Options& options, const Plan& plan, uint32_t units,
                          const std::optional<CheckpointInfo>& checkpoint, RecoveryReport* report);

std::unique_ptr<Backlog> MakeBacklog(Disk& disk, const Options& options, Recovered& recovered,
                                     RecoveryReport report, int64_t started_us);

// A sentence for the operator on LSNs that are gone; `last` may be kUnknownLsn.
std::string LostText(Lsn first, Lsn last);
constexpr size_t kWarningsMax = 100;  // a damaged log can have a reason per record

}  // namespace crab::wal

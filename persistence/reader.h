// Reads a log directory without changing it: its segments in order, and every frame in them with a
// verdict. Recovery and crabcache-wal see a log only through this, so both believe the same bytes.
// Thread-bound: one reader belongs to one thread. Holds one window of a segment in memory (1 MiB,
// more where a single record is larger) and one PACK's records. The log may be growing meanwhile:
// what is half written looks like a torn tail.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "persistence/segment_info.h"
#include "utils/status.h"

namespace crab::wal {

enum class Verdict : uint8_t {
  kGood,     // checksum, place and LSN are right: the only verdict whose payload may be applied
  kCut,      // right in itself, but cut off: by a later epoch, or behind a torn record
  kTorn,     // does not check, and nothing says that it was ever durable: the end of the log
  kCorrupt,  // does not check, or is missing, although it was durable
  kMissing,  // no bytes at all for LSNs that were durable: a segment is gone, or records are
};

// One frame, or one run of bytes in which no frame could be made out.
struct Frame {
  const SegmentInfo* segment = nullptr;  // null: between segments (kMissing)
  uint64_t offset = 0;                   // in the file
  uint64_t bytes = 0;  // framing and padding included; of a PACK's records the first has all
  uint64_t end = 0;    // in the file, of the bytes that hold it; 0 unless kGood or kCut
  Verdict verdict = Verdict::kGood;
  Lsn lsn = 0;       // a record: its own; a frame of the writer: of the record before it
  uint8_t type = 0;  // FrameType of record.h; of a run of bad bytes 0
  uint8_t flags = 0;
  uint16_t shard = 0;
  // A SEAL or STOP that was found at the end of its file and stands for all the frames before it,
  // which were not looked at.
  bool skipped = false;
  std::string_view payload;  // lives until the next call; empty unless kGood or kCut
  // kCorrupt, kMissing: the records that are gone (may be none: last < first, or nobody knows how
  // many: last = kUnknownLsn); kTorn: the first that is not there; a whole PACK: those that it
  // holds and that count, gone where it does not unpack.
  Lsn lost_first = 0, lost_last = 0;
  std::string reason;  // a sentence, unless kGood
};

struct ReaderOptions {
  Lsn durable_lsn = 0;  // what is known to be durable from elsewhere (the ring), 0 for nothing
  std::shared_ptr<const KeyRing> keys = {};  // for PACK frames; null = none
  // Of the checkpoint that will be used: what is missing up to here is no loss. Without a value the
  // reader takes the newest good one of the directory.
  std::optional<Lsn> checkpoint_lsn = {};
  Lsn damaged_checkpoint_lsn = 0;  // the highest that a checkpoint's name states, good or not
  // For a restart: segments that hold nothing above the checkpoint, or nothing that counts, are
  // left out, and a segment whose key is not in `keys` is an error (ENOKEY) of Open.
  bool for_restart = false;
  bool skip_sealed = false;             // see Frame::skipped
  bool whole_packs = false;             // PACK frames are given as they are, not their records
  uint64_t last_number = ~uint64_t{0};  // segments above it are not looked at
};

class Reader {
 public:
  // Lists the directory and reads the headers. Fails only where that cannot be done (no such
  // directory, no permission), or a segment needs a newer reader.
  static Result<std::unique_ptr<Reader>> Open(Disk& disk, const std::string& directory,
                                              ReaderOptions options = {});
  // One segment by itself, of which it is known already that records up to `last` count.
  static std::unique_ptr<Reader> OpenSegment(Disk& disk, const SegmentInfo& segment, Lsn last,
                                             std::shared_ptr<const KeyRing> keys,
                                             bool whole_packs = false);
  virtual ~Reader() = default;

  // Sorted by number. Lives as long as the reader.
  virtual const std::vector<SegmentInfo>& segments() const = 0;
  virtual uint64_t log_id() const = 0;  // of the directory's log; 0: no segment can be read
  virtual const std::vector<std::string>& warnings() const = 0;  // whole sentences; may grow

  // The next frame of the log in order of LSN; false at the end. Zeroed space is not reported.
  // After a corrupt run it goes on behind it (salvage); a caller that wants only the good
  // beginning stops there. What the disk fails to read, twice, is a corrupt run as well.
  virtual Result<bool> Next(Frame* frame) = 0;

  // As far as has been read: the largest LSN that something states to be durable; a checkpoint
  // states its own.
  virtual Lsn durable_lsn() const = 0;
};

}  // namespace crab::wal

// The segments of a log directory and how they relate: their order, which of them belong to the
// log, where a later epoch cuts one off, and which gaps count. Reads headers and no frame but a
// GAP. Belongs to one reader, on its thread.
#pragma once

#include <cstddef>
#include <cstdint>
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

class Chain {
 public:
  struct Options {
    uint64_t last_number = ~uint64_t{0};     // segments above it are not looked at
    std::optional<Lsn> checkpoint_lsn = {};  // as in ReaderOptions
    Lsn damaged_checkpoint_lsn = 0;          // likewise
  };

  // Fails only where the directory or a header cannot be read for another reason than damage, or a
  // segment needs a newer reader.
  static Result<Chain> Read(Disk& disk, const std::string& directory, const Options& options);
  // One segment by itself.
  explicit Chain(const SegmentInfo& segment) : segments_{segment} {}

  const std::vector<SegmentInfo>& segments() const { return segments_; }  // sorted by number
  uint64_t log_id() const { return log_id_; }  // 0: no segment can be read
  std::vector<std::string> TakeWarnings() { return std::move(warnings_); }
  Lsn checkpoint_lsn() const { return checkpoint_lsn_; }  // of the one that will be used, 0 = none
  Lsn void_first() const {
    return void_first_;
  }  // records from here on stand behind a void gap ...
  Lsn void_durable() const { return void_durable_; }  // ... before which this was durable

  // It turned out that this one cannot be read.
  void Drop(size_t index, std::string_view problem) { segments_[index].problem = problem; }
  // The next segment that says where this one's records end: a good one, not wholly cut off itself.
  const SegmentInfo* Successor(size_t index) const;
  // A segment of this log follows whose header cannot be read: where this one ends it does not
  // tell, but this one was complete when it was made.
  bool UnreadableBehind(size_t index) const;
  // Records below this were complete when the segment was made. Those that a gap gave up, at this
  // segment or at one wholly cut off right before it, need not be there; but they do where the
  // segment begins below the gap's end, for then they had been read and the gap is undone.
  Lsn FirstNeeded(const SegmentInfo& segment) const;
  // Index of the last segment that holds the checkpoint's last record or the one behind it; without
  // such a one that of the first.
  size_t FirstBehindCheckpoint() const;
  // ENOKEY: one of the segments from here on counts and is encrypted with a key that is not there.
  Status NeedKeys(size_t from, const KeyRing* keys) const;

 private:
  Chain() = default;
  Status List(Disk& disk, const std::string& directory, uint64_t last_number);
  Status ReadHeader(Disk& disk, SegmentInfo* segment);
  Status FindCheckpoint(Disk& disk, const std::string& directory);
  Status DropForeign(Disk& disk, const std::string& directory);
  void RelateSegments();
  void JudgeGaps();

  std::vector<SegmentInfo> segments_;
  std::vector<std::string> warnings_;
  uint64_t log_id_ = 0;
  Lsn checkpoint_lsn_ = 0;
  Lsn damaged_checkpoint_lsn_ = 0;
  Lsn void_first_ = ~Lsn{0};
  Lsn void_durable_ = 0;
};

}  // namespace crab::wal

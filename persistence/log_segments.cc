// The files of the log: opening, sealing and naming them. The writer's thread only.
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "persistence/log_impl.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

constexpr uint64_t kFirstZeroedBytes = uint64_t{1} << 20;  // where no spare is ready
constexpr uint64_t kEndBytes = FrameBytes(sizeof(EndPayload));

}  // namespace

// Only under `sync` does zeroed space pay: there a sync of it takes half as long. The other
// policies sync so seldom that writing everything twice costs more than it saves.
bool LogImpl::ZeroesAhead() const {
  return policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
}

// A record larger than a segment goes into one of its own, whatever its size.
bool LogImpl::SegmentIsFull(uint64_t frame_bytes) const {
  if (segment_->records() == 0) return false;
  const uint64_t end = segment_->offset() + frame_bytes + kEndBytes;
  if (end > max_segment_bytes_.load(std::memory_order_relaxed)) return true;
  return ZeroesAhead() && end > segment_->zeroed_bytes() && spares_->ready();
}

Status LogImpl::Rotate() {
  // Synced before as well as after: a SEAL that is there says that all before it is.
  TRY(segment_->Sync());
  stage_.clear();
  segment_->AddEnd(stage_, FrameType::kSeal, next_lsn_ - 1, clock_.WallMs());
  TRY(segment_->Write(stage_));
  NoteWritten(stage_.size());
  stage_.clear();
  block_staged_ = staged_;  // its last block is never written again
  if (ring_ != nullptr) {
    TRY(SyncSegment());
  } else {
    TRY(segment_->Sync());  // while the log is being opened
  }
  predecessor_crc_ = segment_->running_crc();
  return OpenSegment(epoch_, next_lsn_, /*gap=*/false);
}

// Makes the next file of the log current. Its header is on disk before its name is, and its name
// before any record in it counts.
Status LogImpl::OpenSegment(uint64_t epoch, Lsn first_lsn, bool gap) {
  const std::string made_at = TRY(PrepareSegment(epoch, first_lsn, gap));
  return NameSegment(made_at);
}

// Puts a new file with its header where it has no meaning yet; yields its path.
Result<std::string> LogImpl::PrepareSegment(uint64_t epoch, Lsn first_lsn, bool gap) {
  SegmentInfo info;
  do {
    ++number_;  // past damaged files: they are evidence, not to be replaced
  } while (taken_numbers_.count(number_) != 0);
  info.number = number_;
  info.name = SegmentName(info.number);
  info.path = Path(info.name);
  info.format_version = kFormatVersion;
  info.min_reader_version = kMinReaderVersion;
  info.identity = identity_;
  info.epoch = epoch_ = epoch;
  info.created_at_ms = clock_.WallMs();
  info.first_lsn = first_lsn;
  info.durable_lsn = std::min(durable_lsn_.load(std::memory_order_relaxed), first_lsn - 1);
  CHECK(getrandom(&info.salt, sizeof(info.salt), 0) == sizeof(info.salt));
  info.after_gap = gap;
  stated_lsn_ = info.durable_lsn;
  info.predecessor_number = predecessor_number_;
  info.predecessor_last_lsn = first_lsn - 1;
  info.predecessor_crc = std::exchange(predecessor_crc_, 0);
  info.ring_epoch = ring_epoch_;

  segment_ = nullptr;
  std::string made_at = spares_->path();
  std::optional<SpareMaker::Spare> spare = spares_->Take();
  if (!spare) {
    made_at = Path("segment.tmp");
    uint64_t bytes = ZeroesAhead() ? std::min(kFirstZeroedBytes,
                                              max_segment_bytes_.load(std::memory_order_relaxed))
                                   : kSegmentHeaderBytes;
    auto file = MakeZeroedFile(disk_, made_at, bytes);
    if (!file.ok() && file.system_errno() == ENOSPC && bytes > kSegmentHeaderBytes) {
      bytes = kSegmentHeaderBytes;  // zeroes are a comfort that the disk has no room for
      file = MakeZeroedFile(disk_, made_at, bytes);
    }
    spare = SpareMaker::Spare{TRY(std::move(file)), bytes};
  }
  TRY(spare->file->WriteAt(0, EncodeSegmentHeader(info)));
  auto segment = std::make_unique<SegmentWriter>(info, std::move(spare->file), spare->bytes);
  if (gap) {
    std::string frame;
    segment->AddFrame(frame, FrameType::kGap, first_lsn - 1, {});
    TRY(segment->Write(frame));
  }
  segment_ = std::move(segment);
  return made_at;
}

// The moment from which the new file ends its predecessor.
Status LogImpl::NameSegment(const std::string& made_at) {
  const SegmentInfo& info = segment_->info();
  Status named = [&]() -> Status {
    TRY(segment_->Sync());
    TRY(disk_.Rename(made_at, info.path));
    return disk_.SyncDirectory(options_.directory);
  }();
  if (!named.ok()) {
    segment_ = nullptr;
    return named;
  }
  predecessor_number_ = info.number;
  if (ring_ != nullptr) ring_->header().epoch.store(info.epoch, std::memory_order_release);
  std::lock_guard guard(control_mutex_);
  metrics_.epoch = info.epoch;
  metrics_.segment_number = info.number;
  metrics_.segment_offset = segment_->offset();
  metrics_.total_bytes += segment_->offset();
  ++metrics_.segments;
  ++metrics_.segments_created;
  return Status::Ok();
}

}  // namespace crab::wal

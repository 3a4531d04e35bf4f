// The files of the log: opening, sealing, naming and retiring them. The writer's thread only.
//
// Retiring. A segment may go when no record above `oldest_kept_` counts in it. The first LSN of
// each later segment bounds what counts in it, and a bound never rises from an older segment to a
// newer one: so the oldest may always go first, and what is cut off or unreadable goes by the same
// rule. Under `sync` a file becomes a spare, for its blocks are there already. Not one with a
// second name: a backup has it. Its name is taken away first, and durably, so that nobody can link
// it any more and no restart finds a segment's name on zeroes; then the links are counted.
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "persistence/log_impl.h"
#include "persistence/reader.h"
#include "utils/check.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

constexpr uint64_t kFirstZeroedBytes = uint64_t{1} << 20;  // where no spare is ready
constexpr uint64_t kEndBytes = FrameBytes(sizeof(EndPayload));
constexpr int64_t kRetireAgainUs = 1000000;

}  // namespace

// Only under `sync` does zeroed space pay: there a sync of it takes half as long. The other
// policies sync so seldom that writing everything twice costs more than it saves.
bool LogImpl::ZeroesAhead() const {
  return policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
}

// A record larger than a segment goes into one of its own, whatever its size.
bool LogImpl::SegmentIsFull(uint64_t frame_bytes) const {
  if (segment_->records() == 0) return false;
  const uint64_t end = segment_->offset() + frame_bytes + segment_->index_bytes() + kEndBytes;
  if (end > max_segment_bytes_.load(std::memory_order_relaxed)) return true;
  return ZeroesAhead() && end > segment_->zeroed_bytes() && spares_->ready() > 0;
}

Status LogImpl::Rotate() {
  // Synced before as well as after: a SEAL that is there says that all before it is.
  TRY(SyncFile());
  stage_.clear();
  segment_->AddEnd(stage_, FrameType::kSeal, next_lsn_ - 1, clock_.WallMs());
  TRY(WriteStaged());
  block_staged_ = staged_;  // its last block is never written again
  if (ring_ != nullptr) {
    TRY(SyncSegment());
  } else {
    TRY(SyncFile());  // while the log is being opened
  }
  predecessor_crc_ = segment_->running_crc();
  // So that the SEAL is found at the file's end. Where that fails the file is only read through.
  (void)segment_->Trim();
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
  TRY(CheckDirectory());
  SegmentInfo info;
  info.number = ++number_;
  info.name = SegmentName(info.number);
  info.path = Path(info.name);
  info.format_version = kFormatVersion;
  info.identity = identity_;
  info.shard_by_hashtag = options_.shard_by_hashtag;
  ChoosePacking(&info);
  info.epoch = epoch_ = epoch;
  info.created_at_ms = clock_.WallMs();
  info.first_lsn = first_lsn;
  info.durable_lsn = gap && first_lsn == gap_first_lsn_
                         ? gap_durable_lsn_
                         : std::min(durable_lsn_.load(std::memory_order_relaxed), first_lsn - 1);
  CHECK(getrandom(&info.salt, sizeof(info.salt), 0) == sizeof(info.salt));
  info.after_gap = gap;
  info.min_reader_version = MinReaderVersion(info);
  stated_lsn_ = info.durable_lsn;
  info.predecessor_number = predecessor_number_;
  info.predecessor_last_lsn = first_lsn - 1;
  info.predecessor_crc = std::exchange(predecessor_crc_, 0);
  // The ring gets the new epoch behind the name; whoever dies between the two is still to be taken
  // for the one whose ring it is, however many attempts that takes.
  info.ring_epoch =
      ring_ != nullptr ? ring_->header().epoch.load(std::memory_order_relaxed) : ring_epoch_;

  LeaveSegment();
  stage_.clear();
  plain_.clear();
  plain_records_ = 0;
  std::optional<SpareMaker::Spare> spare = spares_->Take();
  const bool from_spare = spare.has_value();
  if (!from_spare) {
    const std::string path = Path("segment.tmp");
    uint64_t bytes = ZeroesAhead() ? std::min(kFirstZeroedBytes,
                                              max_segment_bytes_.load(std::memory_order_relaxed))
                                   : kSegmentHeaderBytes;
    auto file = MakeZeroedFile(disk_, path, bytes);
    if (!file.ok() && IsOutOfSpace(file.system_errno()) && bytes > kSegmentHeaderBytes) {
      bytes = kSegmentHeaderBytes;  // zeroes are a comfort that the disk has no room for
      file = MakeZeroedFile(disk_, path, bytes);
    }
    if (!file.ok()) return file.TakeStatus();
    spare = SpareMaker::Spare{path, std::move(file).value(), bytes};
  }
  std::string made_at = std::move(spare->path);
  std::unique_ptr<SegmentWriter> segment;
  Status written = spare->file->WriteAt(0, EncodeSegmentHeader(info));
  if (written.ok()) {
    segment = std::make_unique<SegmentWriter>(info, std::move(spare->file), spare->bytes);
  }
  if (written.ok() && gap) {
    std::string frame;
    segment->AddFrame(frame, FrameType::kGap, first_lsn - 1, {});
    written = segment->Write(frame);
  }
  if (!written.ok()) {
    (void)disk_.Remove(made_at);  // a spare is all zeroes, and this one no longer is
    return written;
  }
  segment_ = std::move(segment);
  named_ = false;
  passes_as_spare_ = from_spare;
  return made_at;
}

// How this segment's records are written: as the options say at this moment.
void LogImpl::ChoosePacking(SegmentInfo* info) {
  const Compression compression = compression_.load(std::memory_order_relaxed);
  const bool encrypts = options_.keys != nullptr && !options_.keys->empty();
  if (compression == Compression::kNone && !encrypts) return;
  info->compression = compression;
  if (compression != Compression::kNone) info->flags |= kFlagCompressed;
  if (encrypts) {
    info->flags |= kFlagEncrypted;
    info->key_id = options_.keys->current_id();
  }
  if (codec_ == nullptr || codec_compression_ != compression) {
    codec_ = std::make_unique<Codec>(compression, options_.keys);
    codec_compression_ = compression;
  }
}

// The moment from which the new file ends its predecessor.
Status LogImpl::NameSegment(const std::string& made_at) {
  const SegmentInfo& info = segment_->info();
  Status named = [&]() -> Status {
    TRY(SyncFile());
    TRY(disk_.Rename(made_at, info.path));
    return SyncDirectory();
  }();
  if (!named.ok()) {
    // Where only the directory could not be synced, the file is there under its name.
    named_ = disk_.LinkCount(info.path).ok();
    if (!named_) (void)disk_.Remove(made_at);
    LeaveSegment();
    if (named_) old_segments_.back().certain = false;
    return named;
  }
  named_ = true;
  passes_as_spare_ = false;
  BoundOldSegments(info.first_lsn);
  retire_requested_.store(true, std::memory_order_relaxed);
  predecessor_number_ = info.number;
  if (ring_ != nullptr) ring_->header().epoch.store(info.epoch, std::memory_order_release);
  std::lock_guard guard(control_mutex_);
  metrics_.epoch = info.epoch;
  metrics_.segment_number = info.number;
  metrics_.segment_offset = segment_->offset();
  metrics_.total_bytes += segment_->offset();
  metrics_.sealed_lsn = info.first_lsn - 1;  // what is before it is never written to again
  ++metrics_.segments;
  ++metrics_.segments_created;
  return Status::Ok();
}

Status LogImpl::SyncDirectory() {
  return TimeCall([this] { return disk_.SyncDirectory(options_.directory); });
}

// --- retiring ------------------------------------------------------------------------------------

// The file at hand is written no more.
void LogImpl::LeaveSegment() {
  if (segment_ == nullptr) return;
  if (named_) {
    const uint64_t bytes = std::max(segment_->offset(), kSegmentHeaderBytes);
    old_segments_.push_back({segment_->info().path, kUnknownLsn, clock_.WallMs(), bytes});
  }
  segment_ = nullptr;
}

// A segment that begins with this LSN is part of the log now.
void LogImpl::BoundOldSegments(Lsn first_lsn) {
  for (auto old = old_segments_.rbegin(); old != old_segments_.rend(); ++old) {
    if (old->last < first_lsn) break;
    old->last = first_lsn - 1;
  }
}

// At the start: what is there before this run's first segment.
Status LogImpl::FindOldSegments() {
  auto reader = TRY(Reader::Open(disk_, options_.directory));
  const std::vector<SegmentInfo>& found = reader->segments();
  int64_t ended_at_ms = clock_.WallMs();
  Lsn last = kUnknownLsn;
  for (auto info = found.rbegin(); info != found.rend(); ++info) {
    if (info->problem == kForeignProblem) continue;  // not ours to remove
    old_segments_.push_front({info->path, last, ended_at_ms, info->file_bytes});
    if (!info->problem.empty()) continue;
    last = std::min(last, info->first_lsn - 1);
    old_first_lsn_ = info->first_lsn;
    ended_at_ms = std::min(ended_at_ms, info->created_at_ms);
  }
  return Status::Ok();
}

// How many of the oldest segments no checkpoint needs that a restart may go on with.
size_t LogImpl::Unneeded(Lsn oldest_kept) const {
  size_t count = 0;
  while (count < old_segments_.size() && old_segments_[count].last <= oldest_kept) ++count;
  return count;
}

// Of those, how many keep_segments and keep_ms do not want either.
size_t LogImpl::UnneededAndUnwanted(size_t unneeded) const {
  const uint64_t keep = keep_segments_.load(std::memory_order_relaxed);
  const size_t count = unneeded > keep ? unneeded - keep : 0;
  const uint64_t keep_ms = keep_ms_.load(std::memory_order_relaxed);
  if (keep_ms == 0) return count;
  const int64_t now_ms = clock_.WallMs();
  const auto wanted = [&](const OldSegment& old) {
    return now_ms - old.ended_at_ms < static_cast<int64_t>(keep_ms);
  };
  const auto begin = old_segments_.begin();
  return static_cast<size_t>(std::find_if(begin, begin + static_cast<ptrdiff_t>(count), wanted) -
                             begin);
}

// How many of the oldest segments are to be retired now.
size_t LogImpl::Retirable() const {
  const size_t unneeded = Unneeded(oldest_kept_.load(std::memory_order_acquire));
  // Asked for by hand: whatever is retained, but so many files in all.
  size_t by_hand = 0;
  const uint64_t left = cleanup_keep_.load(std::memory_order_acquire);
  const size_t total = old_segments_.size() + (segment_ != nullptr && named_ ? 1 : 0);
  if (left < total) by_hand = std::min<size_t>(unneeded, total - left);
  size_t by_rule = UnneededAndUnwanted(unneeded);
  if (Retains()) {
    // What is wanted can be restored from this checkpoint only together with what is in between.
    const Lsn oldest = oldest_restorable_.load(std::memory_order_acquire);
    while (by_rule > 0 && old_segments_[by_rule - 1].last > oldest) --by_rule;
  }
  return std::max(by_hand, by_rule);
}

// A restart needs what is above `oldest_kept`; 0: nobody has said so yet.
void LogImpl::NoteRetainedFrom(Lsn oldest_kept) {
  if (oldest_kept == 0) return;
  const size_t unwanted = UnneededAndUnwanted(Unneeded(oldest_kept));
  retained_from_.store(unwanted == 0 ? old_first_lsn_ : old_segments_[unwanted - 1].last + 1,
                       std::memory_order_release);
}

// One file at a time, so that appenders do not wait for a disk that is busy with old files. True:
// there is more to do.
bool LogImpl::RetireOne(int64_t now_us) {
  const bool asked = retire_requested_.exchange(false, std::memory_order_seq_cst);
  if (!asked && (retire_at_us_ == 0 || now_us < retire_at_us_)) return false;
  retire_at_us_ = 0;
  Status retired = Status::Ok();
  uint64_t cleanup_keep = cleanup_keep_.load(std::memory_order_acquire);
  const Lsn oldest_kept = oldest_kept_.load(std::memory_order_acquire);
  if (Retirable() > 0) {
    retired = ZeroesAhead() && spares_->StartRecycling() ? RecycleOldest() : RemoveOldest();
    if (retired.ok()) retire_requested_.store(true, std::memory_order_relaxed);
  } else {
    // It is done, unless nobody has said yet what may go, or it has been asked for anew.
    if (oldest_kept != 0) {
      cleanup_keep_.compare_exchange_strong(cleanup_keep, kNoCleanup, std::memory_order_relaxed);
    }
    NoteRetainedFrom(oldest_kept);
    if (directory_changed_) {
      retired = SyncDirectory();
      if (retired.ok()) directory_changed_ = false;
    }
    // What is retained for a time goes by the clock.
    if (keep_ms_.load(std::memory_order_relaxed) != 0 && !old_segments_.empty()) {
      retire_at_us_ = now_us + kRetireAgainUs;
    }
  }
  if (!retired.ok()) {
    retire_at_us_ = now_us + kRetireAgainUs;
    if (!std::exchange(retire_failure_told_, true)) {
      LogWarn("an old segment of the log cannot be removed; tried again later",
              {{"error", retired.message()}});
    }
    return false;
  }
  if (directory_changed_ || Retirable() > 0) return true;
  retire_failure_told_ = false;
  return false;
}

Status LogImpl::RemoveOldest() {
  Status removed = disk_.Remove(old_segments_.front().path);
  if (!removed.ok() && removed.system_errno() != ENOENT) return removed;
  directory_changed_ = true;
  NoteRetired(/*recycled=*/false);
  return Status::Ok();
}

// Makes a spare of the oldest segment, or removes it where a backup has it too.
Status LogImpl::RecycleOldest() {
  const std::string& path = spares_->unfinished_path();
  Status renamed = disk_.Rename(old_segments_.front().path, path);
  if (!renamed.ok()) {
    spares_->CancelRecycling();
    return RemoveOldest();
  }
  directory_changed_ = true;
  Status synced = SyncDirectory();
  const auto links = disk_.LinkCount(path);
  const bool recycled = synced.ok() && links.ok() && *links == 1;
  if (recycled) {
    directory_changed_ = false;
    spares_->Recycle(max_segment_bytes_.load(std::memory_order_relaxed));
  } else {
    (void)disk_.Remove(path);
    spares_->CancelRecycling();
  }
  NoteRetired(recycled);
  return synced;
}

// The disk is full: what may go goes at once.
void LogImpl::RemoveRetirable() {
  while (Retirable() > 0) {
    if (!RemoveOldest().ok()) break;
  }
  retire_requested_.store(true, std::memory_order_relaxed);  // the directory is to be synced
}

void LogImpl::NoteRetired(bool recycled) {
  const OldSegment old = std::move(old_segments_.front());
  old_segments_.pop_front();
  old_first_lsn_ = old.last + 1;
  std::lock_guard guard(control_mutex_);
  metrics_.segments -= std::min<uint64_t>(metrics_.segments, 1);
  metrics_.total_bytes -= std::min(metrics_.total_bytes, old.bytes);
  ++metrics_.segments_retired;
  if (recycled) ++metrics_.segments_recycled;
}

}  // namespace crab::wal

#include "persistence/chain.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <utility>

#include "persistence/checkpoint.h"
#include "persistence/record.h"
#include "persistence/segment.h"

namespace crab::wal {

Result<Chain> Chain::Read(Disk& disk, const std::string& directory, const Options& options) {
  Chain chain;
  TRY(chain.List(disk, directory, options.last_number));
  TRY(chain.DropForeign(disk, directory));
  chain.RelateSegments();
  chain.checkpoint_lsn_ = options.checkpoint_lsn.value_or(0);
  chain.damaged_checkpoint_lsn_ = options.damaged_checkpoint_lsn;
  if (!options.checkpoint_lsn) TRY(chain.FindCheckpoint(disk, directory));
  chain.JudgeGaps();
  return chain;
}

Status Chain::List(Disk& disk, const std::string& directory, uint64_t last_number) {
  for (const std::string& name : TRY(disk.List(directory))) {
    const std::optional<uint64_t> number = SegmentNumber(name);
    if (!number || *number > last_number) continue;
    SegmentInfo segment;
    segment.name = name;
    segment.path = directory + "/" + name;
    segment.number = *number;
    segments_.push_back(std::move(segment));
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const SegmentInfo& a, const SegmentInfo& b) { return a.number < b.number; });
  for (SegmentInfo& segment : segments_) TRY(ReadHeader(disk, &segment));
  return Status::Ok();
}

Status Chain::FindCheckpoint(Disk& disk, const std::string& directory) {
  for (const CheckpointInfo& checkpoint : TRY(ListCheckpoints(disk, directory))) {
    const bool good = checkpoint.problem.empty();
    if (good && log_id_ != 0 && checkpoint.identity.log_id != log_id_) continue;
    const Lsn stated = CheckpointLsn(checkpoint.name).value_or(0);
    damaged_checkpoint_lsn_ = std::max(damaged_checkpoint_lsn_, stated);
    if (!good) continue;
    checkpoint_lsn_ = std::max(checkpoint_lsn_, checkpoint.lsn);
  }
  return Status::Ok();
}

// What was appended behind a gap belongs to a state that only a checkpoint knows. Without one the
// log ends before the gap.
void Chain::JudgeGaps() {
  Lsn end = ~Lsn{0};
  for (SegmentInfo& segment : segments_) {
    if (!segment.problem.empty()) continue;
    // Version 1 wrote an image of all data behind the gap instead.
    if (segment.after_gap && segment.format_version > 1 && segment.first_lsn < segment.end_lsn &&
        segment.first_lsn - 1 > checkpoint_lsn_ && end == ~Lsn{0}) {
      if (segment.first_lsn - 1 <= damaged_checkpoint_lsn_) {
        segment.gap_damaged = true;
      } else {
        segment.gap_void = true;
        end = segment.first_lsn;
        void_durable_ = std::min(segment.durable_lsn, end - 1);
      }
    }
    segment.end_lsn = std::min(segment.end_lsn, end);
  }
  void_first_ = end;
}

size_t Chain::FirstBehindCheckpoint() const {
  size_t first = 0;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentInfo& segment = segments_[i];
    if (!segment.problem.empty() || segment.first_lsn >= segment.end_lsn) continue;
    if (segment.first_lsn > checkpoint_lsn_ + 1) break;
    first = i;
  }
  return first;
}

Status Chain::NeedKeys(size_t from, const KeyRing* keys) const {
  for (size_t i = from; i < segments_.size(); ++i) {
    const SegmentInfo& segment = segments_[i];
    if (!segment.problem.empty() || segment.first_lsn >= segment.end_lsn) continue;
    if (segment.key_id == 0 || (keys != nullptr && keys->Has(segment.key_id))) continue;
    return Status::Error("cannot read " + segment.path +
                             ": it is encrypted, and its key is not in the file of " +
                             "wal.encryption_key_file; nothing was changed",
                         ENOKEY);
  }
  return Status::Ok();
}

Status Chain::ReadHeader(Disk& disk, SegmentInfo* segment) {
  std::vector<char> bytes(kSegmentHeaderBytes + sizeof(FrameHeader));
  const auto read = [&](size_t wanted) -> Result<size_t> {
    auto file = TRY(disk.Open(segment->path, OpenMode::kRead));
    segment->file_bytes = TRY(file->Size());
    return file->ReadAt(0, {bytes.data(), wanted});
  };
  auto size = TryTwice([&] { return read(bytes.size()); });
  if (!size.ok()) size = read(kSegmentHeaderBytes);  // it may be the first frame that is damaged
  if (!size.ok()) {
    if (!IsDamage(size.system_errno())) return size.TakeStatus();
    segment->problem = size.message();
    return Status::Ok();
  }
  DecodeSegmentHeader({bytes.data(), *size}, segment);
  if (!segment->problem.empty()) return Status::Ok();
  if (*size == bytes.size()) {
    FrameHeader first;
    std::memcpy(&first, bytes.data() + kSegmentHeaderBytes, sizeof(first));
    // Without the flag: written before there was one.
    segment->after_gap |=
        first.type == static_cast<uint8_t>(FrameType::kGap) && first.length == 0 &&
        (first.crc ^ PlaceMix(segment->salt, kSegmentHeaderBytes)) == BodyCrc(first, {});
  }
  if (segment->min_reader_version > kFormatVersion) {
    return Status::Error("cannot read " + segment->path + ": it needs a reader of format version " +
                         std::to_string(segment->min_reader_version) + " and this program has " +
                         std::to_string(kFormatVersion) + "; start a newer crabcache");
  }
  if (segment->format_version > kFormatVersion) {
    warnings_.push_back(segment->name + " has the newer format version " +
                        std::to_string(segment->format_version) + "; reading what is known of it");
  }
  return Status::Ok();
}

// Files of another log get here by somebody's hand. Whose directory it is say most of the segments
// and checkpoints in it, and where as many are of each log, the newest segment: so a single file
// that was copied here by mistake cannot make everything else foreign.
Status Chain::DropForeign(Disk& disk, const std::string& directory) {
  std::map<uint64_t, uint64_t> files;  // by log id
  for (const SegmentInfo& segment : segments_) {
    if (!segment.problem.empty()) continue;
    log_id_ = segment.identity.log_id;
    ++files[log_id_];
  }
  if (files.size() < 2) return Status::Ok();
  for (const CheckpointInfo& checkpoint : TRY(ListCheckpoints(disk, directory))) {
    if (checkpoint.problem.empty()) ++files[checkpoint.identity.log_id];
  }
  uint64_t most = files[log_id_];
  for (const SegmentInfo& segment : segments_) {
    if (!segment.problem.empty() || files[segment.identity.log_id] <= most) continue;
    log_id_ = segment.identity.log_id;
    most = files[log_id_];
  }
  for (SegmentInfo& segment : segments_) {
    if (segment.problem.empty() && segment.identity.log_id != log_id_) {
      segment.problem = kForeignProblem;
    }
  }
  return Status::Ok();
}

// Finds segments that do not belong, and where each one is cut off by a later epoch.
void Chain::RelateSegments() {
  const SegmentInfo* newest = nullptr;
  for (const SegmentInfo& segment : segments_) {
    if (segment.problem.empty()) newest = &segment;
  }
  if (newest == nullptr) return;
  uint64_t epoch = newest->epoch;
  Lsn epoch_first = newest->first_lsn;
  Lsn cut = ~Lsn{0};
  for (auto segment = segments_.rbegin(); segment != segments_.rend(); ++segment) {
    if (!segment->problem.empty()) continue;
    if (segment->epoch > epoch) {
      segment->problem = "its epoch is above that of a later segment";
      continue;
    }
    if (segment->epoch < epoch) {
      cut = std::min(cut, epoch_first);
      epoch = segment->epoch;
    }
    segment->end_lsn = cut;
    epoch_first = segment->first_lsn;
  }
}

const SegmentInfo* Chain::Successor(size_t index) const {
  for (size_t i = index + 1; i < segments_.size(); ++i) {
    const SegmentInfo& later = segments_[i];
    if (later.problem.empty() && later.first_lsn < later.end_lsn) return &later;
  }
  return nullptr;
}

bool Chain::UnreadableBehind(size_t index) const {
  return std::any_of(segments_.begin() + static_cast<std::ptrdiff_t>(index) + 1, segments_.end(),
                     [](const SegmentInfo& later) {
                       return !later.problem.empty() && later.problem != kForeignProblem;
                     });
}

Lsn Chain::FirstNeeded(const SegmentInfo& segment) const {
  Lsn needed = segment.first_lsn;
  for (auto before = segments_.rbegin(); before != segments_.rend(); ++before) {
    if (!before->problem.empty() || before->number > segment.number) continue;
    // What stands before one that counts is that one's matter.
    if (before->number < segment.number && before->first_lsn < before->end_lsn) break;
    // Who begins below the end of a gap had read what it gave up.
    const bool undone = before->first_lsn > segment.first_lsn;
    if (!before->after_gap || undone || before->first_lsn < needed) continue;
    needed = std::min(needed, before->durable_lsn + 1);
  }
  return needed;
}

}  // namespace crab::wal

// How a bad place is judged. The reader knows the LSN that must come next. Where a frame does not
// check it looks for the next one that does, at every multiple of 8, and only where the LSN found
// there is possible (each record between takes at least 24 bytes). Then:
// - Another good segment follows this one: whatever stands below that one's first LSN was complete
//   when it was created, so records missing below it are corruption; from it on the bytes are the
//   cut-off tail of an older epoch.
// - None follows: the rest of the segment is searched for statements of what was durable. Records
//   missing at or below that are corruption; above it this is the torn tail, and the log ends.
// What a checkpoint holds is neither missing nor lost, whatever the segments say.
#include "persistence/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "persistence/checkpoint.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "utils/check.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

constexpr size_t kWindowBytes = size_t{1} << 20;
constexpr uint64_t kSmallestFrame = FrameBytes(0);
constexpr uint64_t kScanBytes = 4096;  // looked at in one go when searching

bool IsZero(std::string_view bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

bool KnownType(uint8_t type) {
  return IsRecord(type) || (type >= static_cast<uint8_t>(FrameType::kBatch) &&
                            type <= static_cast<uint8_t>(FrameType::kPack));
}

bool IsEnd(uint8_t type) {
  return type == static_cast<uint8_t>(FrameType::kSeal) ||
         type == static_cast<uint8_t>(FrameType::kStop);
}

// A file seen through a window that moves forward, and now and then back.
class Window {
 public:
  void Reset(std::unique_ptr<File> file, uint64_t file_bytes) {
    file_ = std::move(file);
    file_bytes_ = file_bytes;
    filled_ = 0;
    start_ = 0;
  }
  uint64_t file_bytes() const { return file_bytes_; }

  // `bytes` bytes at `offset`, or fewer where the file ends. Lives until the next call.
  Result<std::string_view> At(uint64_t offset, uint64_t bytes) {
    if (offset >= file_bytes_) return std::string_view();
    bytes = std::min(bytes, file_bytes_ - offset);
    if (offset < start_ || offset + bytes > start_ + filled_) {
      const uint64_t wanted =
          std::min(std::max<uint64_t>(bytes, kWindowBytes), file_bytes_ - offset);
      if (buffer_.size() < wanted) buffer_.resize(wanted);
      start_ = offset;
      filled_ = 0;
      auto filled = file_->ReadAt(offset, {buffer_.data(), wanted});
      if (!filled.ok()) filled = file_->ReadAt(offset, {buffer_.data(), wanted});  // a hiccup?
      filled_ = TRY(std::move(filled));
      bytes = std::min<uint64_t>(bytes, filled_);
    }
    return std::string_view(buffer_.data() + (offset - start_), bytes);
  }

 private:
  std::unique_ptr<File> file_;
  uint64_t file_bytes_ = 0;
  std::vector<char> buffer_;
  uint64_t start_ = 0;
  uint64_t filled_ = 0;
};

class DirectoryReader final : public Reader {
 public:
  DirectoryReader(Disk& disk, ReaderOptions options) : disk_(disk), options_(std::move(options)) {}

  Status Start(const std::string& directory);
  void StartWith(const SegmentInfo& segment) {
    segments_.push_back(segment);
    expected_ = segment.first_lsn;
    alone_ = true;
  }
  const std::vector<SegmentInfo>& segments() const override { return segments_; }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  Result<bool> Next(Frame* frame) override;
  Lsn durable_lsn() const override {
    return std::max({durable_, checkpoint_lsn(), alone_ ? options_.durable_lsn : 0});
  }

 private:
  // The frame at an offset, as far as it checks.
  struct Candidate {
    bool good = false;
    bool never_written = false;  // an all-zero header
    FrameHeader header = {};
    std::string_view payload;
    uint64_t bytes = 0;
    const char* why = "";
  };

  Lsn checkpoint_lsn() const { return options_.checkpoint_lsn.value_or(0); }
  Status ReadHeader(SegmentInfo* segment);
  void RelateSegments();
  Status FindCheckpoint(const std::string& directory);
  void JudgeGaps();
  Status BeginBehindCheckpoint();
  bool SkipSealed(Frame* frame);
  Result<bool> OpenPack(const Candidate& candidate, Frame* frame);
  void TakePacked(Frame* frame);
  void Judge(const SegmentInfo& segment, Frame* frame);
  void SpareCheckpointed(Frame* frame) const;
  bool EnterSegment(Frame* frame);
  void LeaveSegment();
  void GiveUp(const std::string& reason, Frame* frame);
  Result<Candidate> TryFrame(uint64_t offset);
  Result<uint64_t> FindFrame(uint64_t from, Candidate* found);
  Result<uint64_t> LastWrittenByte(uint64_t from);
  Result<bool> JudgeBadPlace(const Candidate& bad, Frame* frame);
  void TakeGood(const Candidate& candidate, Frame* frame);
  void NoteStatement(const FrameHeader& header, std::string_view payload);
  void NoteDurable(Lsn stated);
  bool Missing(Lsn first, Lsn last, std::string reason, Frame* frame);
  const SegmentInfo* Successor() const;
  Lsn FirstNeeded(const SegmentInfo& segment) const;
  SegmentInfo& current() { return segments_[index_]; }

  Disk& disk_;
  ReaderOptions options_;
  std::vector<SegmentInfo> segments_;
  std::vector<std::string> warnings_;

  size_t index_ = 0;
  bool in_segment_ = false;
  bool ended_ = false;       // behind a torn tail
  bool alone_ = false;       // one segment whose last LSN is known
  bool open_ended_ = false;  // the last segment cannot be read
  Window window_;
  uint64_t offset_ = 0;
  Lsn expected_ = 1;  // the next record's
  Lsn durable_ = 0;
  Lsn void_first_ = ~Lsn{0};  // records from here on stand behind a void gap ...
  Lsn void_durable_ = 0;      // ... before which this was durable
  uint64_t epoch_ = 0;
  uint32_t running_crc_ = 0;
  bool running_crc_known_ = true;  // every frame of the segment so far was good
  bool skip_tried_ = false;

  // The records of the PACK before offset_ that have not been given out yet.
  std::unique_ptr<Codec> codec_;
  std::string pack_scratch_;
  std::string_view pack_left_;
  uint64_t pack_offset_ = 0;
  uint64_t pack_bytes_ = 0;  // for the first of them to state
  uint64_t pack_end_ = 0;
};

Status DirectoryReader::Start(const std::string& directory) {
  for (const std::string& name : TRY(disk_.List(directory))) {
    const std::optional<uint64_t> number = SegmentNumber(name);
    if (!number || *number > options_.last_number) continue;
    SegmentInfo segment;
    segment.name = name;
    segment.path = directory + "/" + name;
    segment.number = *number;
    segments_.push_back(std::move(segment));
  }
  std::sort(segments_.begin(), segments_.end(),
            [](const SegmentInfo& a, const SegmentInfo& b) { return a.number < b.number; });
  for (SegmentInfo& segment : segments_) TRY(ReadHeader(&segment));
  RelateSegments();
  if (!options_.checkpoint_lsn) TRY(FindCheckpoint(directory));
  JudgeGaps();
  return options_.for_restart ? BeginBehindCheckpoint() : Status::Ok();
}

Status DirectoryReader::FindCheckpoint(const std::string& directory) {
  uint64_t log_id = 0;
  for (const SegmentInfo& segment : segments_) {
    if (segment.problem.empty()) log_id = segment.identity.log_id;
  }
  options_.checkpoint_lsn = 0;
  for (const CheckpointInfo& checkpoint : TRY(ListCheckpoints(disk_, directory))) {
    const Lsn stated = CheckpointLsn(checkpoint.name).value_or(0);
    options_.damaged_checkpoint_lsn = std::max(options_.damaged_checkpoint_lsn, stated);
    if (!checkpoint.problem.empty()) continue;
    if (log_id != 0 && checkpoint.identity.log_id != log_id) continue;
    options_.checkpoint_lsn = std::max(*options_.checkpoint_lsn, checkpoint.lsn);
  }
  return Status::Ok();
}

// What was appended behind a gap belongs to a state that only a checkpoint knows. Without one the
// log ends before the gap.
void DirectoryReader::JudgeGaps() {
  Lsn end = ~Lsn{0};
  for (SegmentInfo& segment : segments_) {
    if (!segment.problem.empty()) continue;
    // Version 1 wrote an image of all data behind the gap instead.
    if (segment.after_gap && segment.format_version > 1 && segment.first_lsn < segment.end_lsn &&
        segment.first_lsn - 1 > checkpoint_lsn() && end == ~Lsn{0}) {
      if (segment.first_lsn - 1 <= options_.damaged_checkpoint_lsn) {
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

// Begins with the last segment that holds the checkpoint's last record or the one behind it.
Status DirectoryReader::BeginBehindCheckpoint() {
  if (checkpoint_lsn() > 0) expected_ = checkpoint_lsn() + 1;
  for (size_t i = 0; i < segments_.size(); ++i) {
    const SegmentInfo& segment = segments_[i];
    if (!segment.problem.empty() || segment.first_lsn >= segment.end_lsn) continue;
    if (segment.first_lsn > checkpoint_lsn() + 1) break;
    index_ = i;
    expected_ = segment.first_lsn;
  }
  for (size_t i = index_; i < segments_.size(); ++i) {
    const SegmentInfo& segment = segments_[i];
    if (!segment.problem.empty() || segment.first_lsn >= segment.end_lsn) continue;
    if (segment.key_id == 0) continue;
    if (options_.keys != nullptr && options_.keys->Has(segment.key_id)) continue;
    return Status::Error("cannot read " + segment.path +
                             ": it is encrypted, and its key is not in the file of " +
                             "wal.encryption_key_file; nothing was changed",
                         ENOKEY);
  }
  return Status::Ok();
}

Status DirectoryReader::ReadHeader(SegmentInfo* segment) {
  std::vector<char> bytes(kSegmentHeaderBytes + sizeof(FrameHeader));
  const auto read = [&]() -> Result<size_t> {
    auto file = TRY(disk_.Open(segment->path, OpenMode::kRead));
    segment->file_bytes = TRY(file->Size());
    return file->ReadAt(0, bytes);
  };
  auto size = read();
  if (!size.ok()) size = read();  // a hiccup passes, damage stays
  if (!size.ok()) {
    // A broken place of the disk is damage. Anything else (no permission, no descriptor left) says
    // nothing of the log, and to go on without the segment would be to throw it away.
    if (size.system_errno() != EIO && size.system_errno() != ENOENT) return size.TakeStatus();
    segment->problem = size.message();
    return Status::Ok();
  }
  DecodeSegmentHeader({bytes.data(), *size}, segment);
  if (!segment->problem.empty()) return Status::Ok();
  if (*size == bytes.size()) {
    FrameHeader first;
    std::memcpy(&first, bytes.data() + kSegmentHeaderBytes, sizeof(first));
    segment->after_gap =
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

// Finds segments that do not belong, and where each one is cut off by a later epoch.
void DirectoryReader::RelateSegments() {
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
    if (segment->identity.log_id != newest->identity.log_id) {
      segment->problem = "it belongs to another log";
      continue;
    }
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

// The next segment that says where this one's records end: a good one, not wholly cut off itself.
const SegmentInfo* DirectoryReader::Successor() const {
  for (size_t i = index_ + 1; i < segments_.size(); ++i) {
    const SegmentInfo& later = segments_[i];
    if (later.problem.empty() && later.first_lsn < later.end_lsn) return &later;
  }
  return nullptr;
}

// Records below this were complete when the segment was made. Those that a gap gave up, at this
// segment or at one that it follows or cuts off, need not be there.
Lsn DirectoryReader::FirstNeeded(const SegmentInfo& segment) const {
  Lsn needed = segment.first_lsn;
  for (auto gap = segments_.rbegin(); gap != segments_.rend(); ++gap) {
    if (!gap->after_gap || !gap->problem.empty() || gap->number > segment.number) continue;
    if (gap->first_lsn >= needed) needed = std::min(needed, gap->durable_lsn + 1);
  }
  return needed;
}

Result<bool> DirectoryReader::Next(Frame* frame) {
  *frame = Frame();
  if (!pack_left_.empty()) {
    TakePacked(frame);
    return true;
  }
  while (!ended_ && index_ < segments_.size()) {
    *frame = Frame();  // what a place that turned out to be empty has left
    if (!in_segment_) {
      const SegmentInfo& next = current();
      if (options_.for_restart && next.problem.empty() && next.first_lsn >= next.end_lsn) {
        ++index_;
        continue;
      }
      if (EnterSegment(frame)) return true;
      continue;
    }
    if (options_.skip_sealed && !std::exchange(skip_tried_, true) && SkipSealed(frame)) return true;
    auto candidate = TryFrame(offset_);
    if (!candidate.ok()) {
      GiveUp(std::string(candidate.message()), frame);
      return true;
    }
    if (candidate->good) {
      const FrameHeader& header = candidate->header;
      const bool pack = header.type == static_cast<uint8_t>(FrameType::kPack);
      const Lsn first = header.lsn + (pack ? 1 : 0);
      if ((pack || IsRecord(header.type)) && first < current().end_lsn && first > expected_) {
        frame->segment = &current();
        if (Missing(expected_, first - 1, "records are missing between two good ones", frame)) {
          return true;
        }
      }
      if (!pack) {
        TakeGood(*candidate, frame);
        return true;
      }
      if (TRY(OpenPack(*candidate, frame))) return true;
      continue;
    }
    auto judged = JudgeBadPlace(*candidate, frame);
    if (!judged.ok()) {
      GiveUp(std::string(judged.message()), frame);
      return true;
    }
    if (*judged) return true;
  }
  // The last segments could not be read at all, and something says that there was more.
  const Lsn durable = std::max(durable_, void_durable_);
  if (!ended_ && !open_ended_ && expected_ <= durable) {
    return Missing(expected_, durable, "the end is missing", frame);
  }
  return false;
}

// A file that ends with a good SEAL or STOP holds the records from its first to that one's LSN, and
// all of them were durable. Whether they still check is for whoever applies them.
bool DirectoryReader::SkipSealed(Frame* frame) {
  const SegmentInfo& segment = current();
  for (const size_t payload_bytes : {sizeof(EndPayload), kOldEndPayloadBytes}) {
    if (segment.file_bytes < kSegmentHeaderBytes + FrameBytes(payload_bytes)) continue;
    const uint64_t offset = segment.file_bytes - FrameBytes(payload_bytes);
    if (offset % kFrameAlignment != 0) continue;
    auto candidate = TryFrame(offset);
    if (!candidate.ok() || !candidate->good || !IsEnd(candidate->header.type) ||
        candidate->payload.size() != payload_bytes) {
      continue;
    }
    EndPayload end = {};
    std::memcpy(&end, candidate->payload.data(), payload_bytes);
    const Lsn last = candidate->header.lsn;
    if (segment.first_lsn != expected_ || last >= segment.end_lsn ||
        last + 1 - segment.first_lsn != end.records) {
      return false;
    }
    offset_ = offset;
    expected_ = last + 1;
    running_crc_known_ = false;
    TakeGood(*candidate, frame);
    frame->skipped = true;
    return true;
  }
  return false;
}

// Unpacks a PACK and begins to give out its records. False: there is nothing in it.
Result<bool> DirectoryReader::OpenPack(const Candidate& candidate, Frame* frame) {
  const SegmentInfo& segment = current();
  PackPayload pack = {};
  std::string_view plain;
  const Status unpacked = [&]() -> Status {
    if (candidate.payload.size() < sizeof(pack)) return Status::Error("a PACK is too short");
    std::memcpy(&pack, candidate.payload.data(), sizeof(pack));
    const PackContext context = {segment.identity.log_id, segment.number, segment.salt, offset_,
                                 pack};
    if (codec_ == nullptr) codec_ = std::make_unique<Codec>(Compression::kNone, options_.keys);
    plain = TRY(codec_->Unpack(candidate.payload.substr(sizeof(pack)), context.bytes(),
                               candidate.header.flags, pack.plain_bytes, &pack_scratch_));
    // It counts as a whole: every record must be there.
    Lsn lsn = pack.first_lsn;
    std::string_view left = plain;
    for (; !left.empty(); ++lsn) {
      FrameHeader record;
      if (left.size() < sizeof(record)) return Status::Error("a record in a PACK is cut short");
      std::memcpy(&record, left.data(), sizeof(record));
      if (FrameBytes(record.length) > left.size() || record.lsn != lsn || !IsRecord(record.type) ||
          record.crc != Crc32c(left.substr(sizeof(record.crc),
                                           FrameBytes(record.length) - sizeof(record.crc)))) {
        return Status::Error("a record in a PACK does not check");
      }
      left.remove_prefix(FrameBytes(record.length));
    }
    if (lsn - pack.first_lsn != pack.records) return Status::Error("a PACK lacks records");
    return Status::Ok();
  }();
  if (unpacked.system_errno() == ENOKEY) {
    LeaveSegment();
    return Status::Error(segment.name + ": " + std::string(unpacked.message()), ENOKEY);
  }
  const uint32_t body = candidate.header.crc;
  running_crc_ = Crc32c({reinterpret_cast<const char*>(&body), sizeof(body)}, running_crc_);
  const uint64_t offset = std::exchange(offset_, offset_ + candidate.bytes);
  if (unpacked.ok()) {
    // Codec gives back the packed bytes where nothing was done to them: those live in the window.
    if (plain.data() != pack_scratch_.data()) pack_scratch_.assign(plain);
    pack_left_ = std::string_view(pack_scratch_).substr(0, plain.size());
    pack_offset_ = offset;
    pack_bytes_ = candidate.bytes;
    pack_end_ = offset + candidate.bytes;
    if (pack_left_.empty()) return false;
    TakePacked(frame);
    return true;
  }
  // Its checksum is right, so it says truly which records were in it.
  frame->segment = &segment;
  frame->offset = offset;
  frame->bytes = candidate.bytes;
  frame->verdict = Verdict::kCorrupt;
  frame->lsn = frame->lost_first = expected_;
  frame->lost_last = std::max(expected_, pack.first_lsn + pack.records) - 1;
  frame->lost_last = std::min(frame->lost_last, segment.end_lsn - 1);
  frame->reason = unpacked.message();
  expected_ = frame->lost_last + 1;
  SpareCheckpointed(frame);
  return true;
}

void DirectoryReader::TakePacked(Frame* frame) {
  FrameHeader record;
  std::memcpy(&record, pack_left_.data(), sizeof(record));
  frame->offset = pack_offset_;
  frame->bytes = std::exchange(pack_bytes_, 0);
  frame->end = pack_end_;
  frame->lsn = record.lsn;
  frame->type = record.type;
  frame->flags = record.flags;
  frame->shard = record.shard;
  frame->payload = pack_left_.substr(sizeof(record), record.length);
  pack_left_.remove_prefix(FrameBytes(record.length));
  Judge(current(), frame);
}

// A frame that checks may still be one that does not count.
void DirectoryReader::Judge(const SegmentInfo& segment, Frame* frame) {
  frame->segment = &segment;
  if (frame->lsn >= segment.end_lsn) {
    frame->verdict = Verdict::kCut;
    frame->reason = segment.first_lsn >= segment.end_lsn && segment.after_gap
                        ? "no checkpoint goes with the gap before it"
                        : "a later epoch begins before it";
  } else if (IsRecord(frame->type)) {
    if (frame->lsn < expected_) {
      frame->verdict = Verdict::kCut;
      frame->reason = "its LSN has been seen before";
    } else {
      expected_ = frame->lsn + 1;
    }
  }
}

// What the checkpoint holds is not lost.
void DirectoryReader::SpareCheckpointed(Frame* frame) const {
  if (frame->lost_first > checkpoint_lsn() || frame->lost_last < frame->lost_first) return;
  frame->lost_first = checkpoint_lsn() + 1;
  frame->lost_last = std::max(frame->lost_last, checkpoint_lsn());
}

// Opens the segment at index_. True when there is something to report before its first frame.
bool DirectoryReader::EnterSegment(Frame* frame) {
  SegmentInfo& segment = current();
  if (segment.problem.empty()) {
    auto file = disk_.Open(segment.path, OpenMode::kRead);
    if (file.ok()) {
      window_.Reset(std::move(file).value(), segment.file_bytes);
    } else {
      segment.problem = file.message();
    }
  }
  if (!segment.problem.empty()) {
    GiveUp(segment.problem, frame);
    return true;
  }
  if (segment.epoch != epoch_) {
    // What an older epoch had promised beyond this one's beginning was given up then.
    durable_ = std::min(durable_, segment.first_lsn - 1);
    epoch_ = segment.epoch;
  }
  NoteDurable(segment.durable_lsn);
  if (segment.epoch == segments_.back().epoch || Successor() == nullptr) {
    durable_ = std::max(durable_, options_.durable_lsn);
  }
  if (Successor() == nullptr && segment.first_lsn < void_first_) {
    durable_ = std::max(durable_, void_durable_);
  }
  in_segment_ = true;
  skip_tried_ = false;
  offset_ = kSegmentHeaderBytes;
  running_crc_ = 0;
  running_crc_known_ = true;
  if (segment.first_lsn >= segment.end_lsn) return false;
  const Lsn needed = FirstNeeded(segment) - 1;
  if (needed < expected_) {
    expected_ = std::max(expected_, segment.first_lsn);
    return false;
  }
  const bool lost =
      Missing(expected_, needed,
              "nothing holds the records before the first one of " + segment.name, frame);
  expected_ = std::max(expected_, segment.first_lsn);
  return lost;
}

// The segment, or the rest of it, cannot be read. What it held is counted by whoever comes next, by
// the LSN its records go on with; behind the last segment nobody can.
void DirectoryReader::GiveUp(const std::string& reason, Frame* frame) {
  SegmentInfo& segment = current();
  *frame = Frame();
  frame->segment = &segment;
  frame->offset = in_segment_ ? offset_ : 0;
  frame->bytes = segment.file_bytes - std::min(segment.file_bytes, frame->offset);
  frame->verdict = Verdict::kCorrupt;
  frame->reason = segment.name + " cannot be read: " + reason;
  frame->lost_first = expected_;
  frame->lost_last = expected_ - 1;
  const SegmentInfo* successor = Successor();
  if (alone_) {
    frame->lost_last = std::max(frame->lost_last, durable_lsn());
    expected_ = frame->lost_last + 1;
  } else if (successor == nullptr) {
    if (!std::exchange(open_ended_, true)) frame->lost_last = kUnknownLsn;
  } else if (successor->first_lsn <= expected_) {
    frame->verdict = Verdict::kCut;
  }
  SpareCheckpointed(frame);
  LeaveSegment();
}

void DirectoryReader::LeaveSegment() {
  in_segment_ = false;
  ++index_;
}

// False: the checkpoint holds all of it.
bool DirectoryReader::Missing(Lsn first, Lsn last, std::string reason, Frame* frame) {
  expected_ = last + 1;
  if (last <= checkpoint_lsn()) return false;
  frame->verdict = Verdict::kMissing;
  frame->offset = frame->segment == nullptr ? 0 : offset_;
  frame->lsn = first;
  frame->lost_first = first;
  frame->lost_last = last;
  frame->reason = std::move(reason);
  SpareCheckpointed(frame);
  return true;
}

Result<DirectoryReader::Candidate> DirectoryReader::TryFrame(uint64_t offset) {
  Candidate candidate;
  const std::string_view start = TRY(window_.At(offset, sizeof(FrameHeader)));
  if (start.size() < sizeof(FrameHeader)) {
    candidate.never_written = true;
    candidate.why = "the file ends";
    return candidate;
  }
  FrameHeader& header = candidate.header;
  std::memcpy(&header, start.data(), sizeof(header));
  static constexpr FrameHeader kZero = {};
  if (std::memcmp(&header, &kZero, sizeof(header)) == 0) {
    candidate.never_written = true;
    candidate.why = "zeroes where a frame was expected";
    return candidate;
  }
  candidate.bytes = FrameBytes(header.length);
  if (header.type == 0 || header.length > kPayloadBytesMax ||
      candidate.bytes > window_.file_bytes() - offset) {
    candidate.why = "no frame begins like this";
    return candidate;
  }
  const std::string_view whole = TRY(window_.At(offset, candidate.bytes));
  if (whole.size() < candidate.bytes) {
    candidate.why = "the file ends within a frame";
    return candidate;
  }
  const uint32_t body = Crc32c(whole.substr(sizeof(header.crc)));
  if ((body ^ PlaceMix(current().salt, offset)) != header.crc) {
    candidate.why = "the checksum does not match";
    return candidate;
  }
  const bool pack = header.type == static_cast<uint8_t>(FrameType::kPack);
  const bool encrypted = pack && (header.flags & kFlagEncrypted) != 0;
  if (current().key_id != 0 && (pack || IsRecord(header.type)) && !encrypted) {
    // Anybody can make a checksum.
    candidate.why = "a record that is not encrypted stands where all are";
    return candidate;
  }
  header.crc = body;
  candidate.payload = whole.substr(sizeof(header), header.length);
  candidate.good = true;
  return candidate;
}

void DirectoryReader::NoteStatement(const FrameHeader& header, std::string_view payload) {
  // Behind a gap that no checkpoint bridges nothing counts, and what is before it had been given
  // up.
  if (current().first_lsn >= current().end_lsn) return;
  Lsn stated = 0;
  if (header.type == static_cast<uint8_t>(FrameType::kBatch) &&
      payload.size() >= sizeof(BatchPayload)) {
    BatchPayload batch;
    std::memcpy(&batch, payload.data(), sizeof(batch));
    stated = batch.durable_lsn;
  } else if (IsEnd(header.type)) {
    stated = header.lsn;  // written only when all before it was synced
  }
  NoteDurable(stated);
}

// What is said behind a void gap includes what the gap gave up.
void DirectoryReader::NoteDurable(Lsn stated) {
  const SegmentInfo& segment = current();
  const Lsn most = segment.first_lsn >= void_first_ ? void_durable_ : segment.end_lsn - 1;
  durable_ = std::max(durable_, std::min(stated, most));
}

void DirectoryReader::TakeGood(const Candidate& candidate, Frame* frame) {
  const FrameHeader& header = candidate.header;
  SegmentInfo& segment = current();
  frame->offset = offset_;
  frame->bytes = candidate.bytes;
  frame->lsn = header.lsn;
  frame->type = header.type;
  frame->flags = header.flags;
  frame->shard = header.shard;
  frame->payload = candidate.payload;
  offset_ += candidate.bytes;
  frame->end = offset_;
  NoteStatement(header, candidate.payload);
  Judge(segment, frame);
  if (IsEnd(header.type) && running_crc_known_ && candidate.payload.size() >= kOldEndPayloadBytes) {
    EndPayload end = {};
    std::memcpy(&end, candidate.payload.data(), std::min(candidate.payload.size(), sizeof(end)));
    if (end.running_crc != running_crc_) {
      warnings_.push_back(segment.name + " holds good frames, but not those it was sealed with");
    }
  }
  const uint32_t body = header.crc;
  running_crc_ = Crc32c({reinterpret_cast<const char*>(&body), sizeof(body)}, running_crc_);
  // Both are followed by nothing: what stands there is older than the file.
  if (IsEnd(header.type)) LeaveSegment();
}

// The next frame at or behind `from` that checks and whose LSN is possible, or the file's end.
Result<uint64_t> DirectoryReader::FindFrame(uint64_t from, Candidate* found) {
  found->good = false;
  const bool packed = (current().flags & (kFlagCompressed | kFlagEncrypted)) != 0;
  uint64_t at = from;
  while (at + kSmallestFrame <= window_.file_bytes()) {
    std::string_view block = TRY(window_.At(at, kScanBytes + sizeof(FrameHeader)));
    if (block.size() < sizeof(FrameHeader)) break;
    // Segments end in megabytes of zeroes, where no frame begins.
    if (IsZero(block)) {
      at += kScanBytes;
      continue;
    }
    const uint64_t end =
        at + std::min<uint64_t>(block.size() - sizeof(FrameHeader) + 1, kScanBytes);
    const uint64_t start = at;
    for (; at < end; at += kFrameAlignment) {
      FrameHeader header;
      std::memcpy(&header, block.data() + (at - start), sizeof(header));
      if (!KnownType(header.type)) continue;
      // Packed, any number of records takes little space.
      const Lsn highest = expected_ + (at - offset_) / kSmallestFrame + 1;
      if (header.lsn + 1 < expected_ || (header.lsn > highest && !packed)) continue;
      *found = TRY(TryFrame(at));
      if (found->good) return at;
      block = TRY(window_.At(start, kScanBytes + sizeof(FrameHeader)));
    }
  }
  return window_.file_bytes();
}

Result<uint64_t> DirectoryReader::LastWrittenByte(uint64_t from) {
  uint64_t last = from;
  for (uint64_t at = from; at < window_.file_bytes(); at += kScanBytes) {
    const std::string_view bytes = TRY(window_.At(at, kScanBytes));
    if (!IsZero(bytes)) last = at + bytes.find_last_not_of('\0') + 1;
  }
  return last;
}

// See the top of the file. False: there is nothing to report here, and the segment is over.
Result<bool> DirectoryReader::JudgeBadPlace(const Candidate& bad, Frame* frame) {
  running_crc_known_ = false;
  SegmentInfo& segment = current();
  frame->segment = &segment;
  frame->offset = offset_;
  frame->lsn = expected_;
  frame->reason = bad.why;
  const SegmentInfo* successor = Successor();
  const Lsn below = successor == nullptr ? ~Lsn{0} : FirstNeeded(*successor);
  if (successor != nullptr && expected_ >= below) {
    const uint64_t end = TRY(LastWrittenByte(offset_));
    frame->bytes = end - offset_;
    frame->verdict = Verdict::kCut;
    frame->reason = "the unfinished end of an older epoch";
    LeaveSegment();
    return frame->bytes > 0;
  }
  Candidate next;
  const uint64_t resume = TRY(FindFrame(offset_, &next));
  if (successor == nullptr) {
    // Later statements count as much as earlier ones.
    uint64_t at = resume;
    for (Candidate later = next; later.good;) {
      NoteStatement(later.header, later.payload);
      at = TRY(FindFrame(at + later.bytes, &later));
    }
    if (expected_ > durable_lsn()) {
      const uint64_t end = TRY(LastWrittenByte(offset_));
      frame->bytes = end - offset_;
      frame->verdict = Verdict::kTorn;
      frame->lost_first = expected_;
      frame->lost_last = expected_ - 1;
      LeaveSegment();
      ended_ = index_ == segments_.size();
      return frame->bytes > 0;
    }
  }
  frame->verdict = Verdict::kCorrupt;
  frame->lost_first = expected_;
  if (resume == window_.file_bytes()) {
    frame->bytes = TRY(LastWrittenByte(offset_)) - offset_;
    frame->lost_last = successor == nullptr ? durable_lsn() : below - 1;
    // A missing segment between here and the successor is told as such, not as damage here.
    if (successor != nullptr && successor->predecessor_number != segment.number &&
        index_ + 1 < segments_.size()) {
      frame->lost_last = std::min(frame->lost_last, expected_ - 1);
    }
    LeaveSegment();
  } else {
    frame->bytes = resume - offset_;
    frame->lost_last = IsRecord(next.header.type) ? next.header.lsn - 1 : next.header.lsn;
    frame->lost_last = std::min(frame->lost_last, below - 1);
    offset_ = resume;
  }
  expected_ = std::max(expected_, frame->lost_last + 1);
  SpareCheckpointed(frame);
  return true;
}

}  // namespace

Result<std::unique_ptr<Reader>> Reader::Open(Disk& disk, const std::string& directory,
                                             ReaderOptions options) {
  auto reader = std::make_unique<DirectoryReader>(disk, std::move(options));
  TRY(reader->Start(directory));
  return std::unique_ptr<Reader>(std::move(reader));
}

std::unique_ptr<Reader> Reader::OpenSegment(Disk& disk, const SegmentInfo& segment, Lsn last,
                                            std::shared_ptr<const KeyRing> keys) {
  auto reader = std::make_unique<DirectoryReader>(
      disk, ReaderOptions{.durable_lsn = last, .keys = std::move(keys), .checkpoint_lsn = 0});
  SegmentInfo known = segment;
  known.end_lsn = std::min(known.end_lsn, last + 1);
  reader->StartWith(known);
  return reader;
}

}  // namespace crab::wal

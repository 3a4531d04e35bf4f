// How a bad place is judged. The reader knows the LSN that must come next. Where a frame does not
// check it looks for the next one that does, at every multiple of 8, and only where the LSN found
// there is possible (each record between takes at least 24 bytes). Then:
// - Another good segment follows this one: whatever stands below that one's first LSN was complete
//   when it was created, so records missing below it are corruption; from it on the bytes are the
//   cut-off tail of an older epoch.
// - One follows whose header cannot be read: its place tells that this one was complete, so what
//   checks behind the bad place counts; how much is missing at the end nobody knows.
// - None follows: the rest of the segment is searched for statements of what was durable. Records
//   missing at or below that are corruption; above it this is the torn tail, and the log ends.
// - A place that the disk cannot read is no torn tail, for no crash makes one. What checks behind
// it
//   counts, and where nothing does nobody knows how much there was.
// What a checkpoint holds is neither missing nor lost, whatever the segments say.
#include "persistence/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "persistence/chain.h"
#include "persistence/frames.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

bool IsEnd(uint8_t type) {
  return type == static_cast<uint8_t>(FrameType::kSeal) ||
         type == static_cast<uint8_t>(FrameType::kStop);
}

class DirectoryReader final : public Reader {
 public:
  DirectoryReader(Disk& disk, ReaderOptions options, Chain chain)
      : disk_(disk),
        options_(std::move(options)),
        chain_(std::move(chain)),
        warnings_(chain_.TakeWarnings()) {}

  Status BeginBehindCheckpoint();
  void BeginAlone() {
    expected_ = current().first_lsn;
    alone_ = true;
  }
  const std::vector<SegmentInfo>& segments() const override { return chain_.segments(); }
  uint64_t log_id() const override { return chain_.log_id(); }
  const std::vector<std::string>& warnings() const override { return warnings_; }
  Result<bool> Next(Frame* frame) override;
  Lsn durable_lsn() const override {
    return std::max({durable_, checkpoint_lsn(), alone_ ? options_.durable_lsn : 0});
  }

 private:
  using Candidate = Frames::Candidate;

  Lsn checkpoint_lsn() const { return chain_.checkpoint_lsn(); }
  bool SkipSealed(Frame* frame);
  Result<bool> OpenPack(const Candidate& candidate, Frame* frame);
  void TakePacked(Frame* frame);
  void Judge(const SegmentInfo& segment, Frame* frame);
  void SpareCheckpointed(Frame* frame) const;
  Result<bool> EnterSegment(Frame* frame);
  void LeaveSegment();
  void GiveUp(const std::string& reason, Frame* frame);
  Result<bool> JudgeBadPlace(const Candidate& bad, Frame* frame);
  void TakeGood(const Candidate& candidate, Frame* frame);
  void NoteStatement(const FrameHeader& header, std::string_view payload);
  void NoteDurable(Lsn stated);
  bool Missing(Lsn first, Lsn last, std::string reason, Frame* frame);
  const SegmentInfo* Successor() const { return chain_.Successor(index_); }
  const SegmentInfo& current() const { return segments()[index_]; }

  Disk& disk_;
  ReaderOptions options_;
  Chain chain_;
  std::vector<std::string> warnings_;

  size_t index_ = 0;
  bool in_segment_ = false;
  bool ended_ = false;       // behind a torn tail
  bool alone_ = false;       // one segment whose last LSN is known
  bool open_ended_ = false;  // the last segment cannot be read
  Frames frames_;
  uint64_t offset_ = 0;
  Lsn expected_ = 1;  // the next record's
  Lsn durable_ = 0;
  uint64_t epoch_ = 0;
  uint32_t running_crc_ = 0;
  bool running_crc_known_ = true;  // every frame of the segment so far was good
  uint64_t sealed_number_ = 0;     // of the last segment whose running CRC is known to its end ...
  uint32_t sealed_crc_ = 0;        // ... and that CRC
  bool skip_tried_ = false;
  bool searched_ = false;  // the rest of the segment, for statements of what was durable

  // The records of the PACK before offset_ that have not been given out yet.
  std::unique_ptr<Codec> codec_;
  std::string pack_scratch_;
  std::string_view pack_left_;
  uint64_t pack_offset_ = 0;
  uint64_t pack_bytes_ = 0;  // for the first of them to state
  uint64_t pack_end_ = 0;
};

// The last segment that holds the checkpoint's last record or the one behind it is the first read.
Status DirectoryReader::BeginBehindCheckpoint() {
  if (checkpoint_lsn() > 0) expected_ = checkpoint_lsn() + 1;
  index_ = chain_.FirstBehindCheckpoint();
  if (index_ < segments().size()) {
    const SegmentInfo& first = current();
    const bool counts = first.problem.empty() && first.first_lsn < first.end_lsn;
    if (counts && first.first_lsn <= checkpoint_lsn() + 1) expected_ = first.first_lsn;
  }
  return chain_.NeedKeys(index_, options_.keys.get());
}

Result<bool> DirectoryReader::Next(Frame* frame) {
  *frame = Frame();
  if (!pack_left_.empty()) {
    TakePacked(frame);
    return true;
  }
  while (!ended_ && index_ < segments().size()) {
    *frame = Frame();  // what a place that turned out to be empty has left
    if (!in_segment_) {
      const SegmentInfo& next = current();
      if (options_.for_restart && next.problem.empty() && next.first_lsn >= next.end_lsn) {
        ++index_;
        continue;
      }
      if (next.problem == kForeignProblem) {
        warnings_.push_back(next.name + " was left out: " + next.problem);
        ++index_;
        continue;
      }
      if (TRY(EnterSegment(frame))) return true;
      continue;
    }
    if (options_.skip_sealed && !std::exchange(skip_tried_, true) && SkipSealed(frame)) return true;
    auto candidate = frames_.Try(offset_);
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
        searched_ = false;  // higher LSNs are possible now
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
  const Lsn durable = std::max(durable_, chain_.void_durable());
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
    auto candidate = frames_.Try(offset);
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
    running_crc_ = end.running_crc;  // as it is stated
    TakeGood(*candidate, frame);
    frame->skipped = true;
    return true;
  }
  return false;
}

// Unpacks a PACK and begins to give out its records. False: there is nothing in it.
Result<bool> DirectoryReader::OpenPack(const Candidate& candidate, Frame* frame) {
  const SegmentInfo& segment = current();
  PackPayload pack = PackHead(candidate.payload);
  Result<std::string_view> unpacked = std::string_view();
  if (!options_.whole_packs) {
    if (codec_ == nullptr) codec_ = std::make_unique<Codec>(Compression::kNone, options_.keys);
    unpacked = UnpackRecords(*codec_, segment, offset_, candidate.header.flags, candidate.payload,
                             &pack, &pack_scratch_);
  }
  if (unpacked.system_errno() == ENOKEY) {
    LeaveSegment();
    return Status::Error(segment.name + ": " + std::string(unpacked.message()), ENOKEY);
  }
  const uint32_t body = candidate.header.crc;
  running_crc_ = Crc32c({reinterpret_cast<const char*>(&body), sizeof(body)}, running_crc_);
  const uint64_t offset = std::exchange(offset_, offset_ + candidate.bytes);
  if (unpacked.ok() && !options_.whole_packs) {
    // Codec gives back the packed bytes where nothing was done to them: those live in the window.
    if (unpacked->data() != pack_scratch_.data()) pack_scratch_.assign(*unpacked);
    pack_left_ = std::string_view(pack_scratch_).substr(0, unpacked->size());
    pack_offset_ = offset;
    pack_bytes_ = candidate.bytes;
    pack_end_ = offset + candidate.bytes;
    if (pack_left_.empty()) return false;
    TakePacked(frame);
    return true;
  }
  // Its checksum is right, so it says truly which records are in it.
  frame->segment = &segment;
  frame->offset = offset;
  frame->bytes = candidate.bytes;
  frame->lost_first = expected_;
  frame->lost_last = std::max(expected_, pack.first_lsn + pack.records) - 1;
  frame->lost_last = std::min(frame->lost_last, segment.end_lsn - 1);
  expected_ = frame->lost_last + 1;
  if (options_.whole_packs) {
    frame->end = offset_;
    frame->lsn = candidate.header.lsn;
    frame->type = candidate.header.type;
    frame->flags = candidate.header.flags;
    frame->shard = candidate.header.shard;
    frame->payload = candidate.payload;
    return true;
  }
  frame->verdict = Verdict::kCorrupt;
  frame->lsn = frame->lost_first;
  frame->reason = unpacked.message();
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

// Opens the segment at index_. True when there is something to report before its first frame. An
// error says nothing of the log; nothing is left out then, and the next call tries again.
Result<bool> DirectoryReader::EnterSegment(Frame* frame) {
  const SegmentInfo& segment = current();
  if (segment.problem.empty()) {
    auto file = TryTwice([&] { return disk_.Open(segment.path, OpenMode::kRead); });
    if (file.ok()) {
      frames_.Reset(std::move(file).value(), segment);
    } else if (IsDamage(file.system_errno())) {
      chain_.Drop(index_, file.message());
    } else {
      return file.TakeStatus();
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
  if (segment.epoch == segments().back().epoch || Successor() == nullptr) {
    durable_ = std::max(durable_, options_.durable_lsn);
  }
  if (Successor() == nullptr && segment.first_lsn < chain_.void_first()) {
    durable_ = std::max(durable_, chain_.void_durable());
  }
  if (segment.predecessor_crc != 0 && segment.predecessor_number == sealed_number_ &&
      segment.predecessor_crc != sealed_crc_) {
    warnings_.push_back(segment.name + " was written behind another " +
                        SegmentName(sealed_number_) + " than the one that is there");
  }
  in_segment_ = true;
  skip_tried_ = searched_ = false;
  offset_ = kSegmentHeaderBytes;
  running_crc_ = 0;
  running_crc_known_ = true;
  if (segment.first_lsn >= segment.end_lsn) return false;
  const Lsn needed = chain_.FirstNeeded(segment) - 1;
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
  const SegmentInfo& segment = current();
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
  const Lsn most =
      segment.first_lsn >= chain_.void_first() ? chain_.void_durable() : segment.end_lsn - 1;
  durable_ = std::max(durable_, std::min(stated, most));
}

void DirectoryReader::TakeGood(const Candidate& candidate, Frame* frame) {
  const FrameHeader& header = candidate.header;
  const SegmentInfo& segment = current();
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
  if (IsEnd(header.type) && running_crc_known_) {
    sealed_number_ = segment.number;
    sealed_crc_ = running_crc_;
  }
  // Both are followed by nothing: what stands there is older than the file.
  if (IsEnd(header.type)) LeaveSegment();
}

// See the top of the file. False: there is nothing to report here, and the segment is over.
Result<bool> DirectoryReader::JudgeBadPlace(const Candidate& bad, Frame* frame) {
  running_crc_known_ = false;
  const SegmentInfo& segment = current();
  frame->segment = &segment;
  frame->offset = offset_;
  frame->lsn = expected_;
  frame->reason = bad.unreadable ? frames_.read_error() : bad.why;
  const SegmentInfo* successor = Successor();
  const Lsn below = successor == nullptr ? ~Lsn{0} : chain_.FirstNeeded(*successor);
  // Where a later epoch begins at or before this segment's first LSN, nothing can be lost here.
  const bool cut_off = segment.first_lsn >= segment.end_lsn;
  if (successor != nullptr && (cut_off || expected_ >= below)) {
    const uint64_t end = TRY(frames_.LastWrittenByte(offset_));
    frame->bytes = end - offset_;
    frame->verdict = Verdict::kCut;
    frame->reason = "the unfinished end of an older epoch";
    LeaveSegment();
    return frame->bytes > 0;
  }
  Candidate next;
  const uint64_t resume = TRY(frames_.Find(offset_, {expected_, offset_}, &next));
  if (successor == nullptr) {
    // Later statements count as much as earlier ones. Once is enough: what is possible behind a
    // later place was possible behind this one.
    uint64_t at = resume;
    for (Candidate later = next; later.good && !searched_;) {
      NoteStatement(later.header, later.payload);
      at = TRY(frames_.Find(at + later.bytes, {expected_, offset_}, &later));
    }
    searched_ = true;
    const bool goes_on = bad.unreadable || (next.good && chain_.UnreadableBehind(index_));
    if (expected_ > durable_lsn() && !goes_on) {
      const uint64_t end = TRY(frames_.LastWrittenByte(offset_));
      frame->bytes = end - offset_;
      frame->verdict = Verdict::kTorn;
      frame->lost_first = expected_;
      frame->lost_last = expected_ - 1;
      LeaveSegment();
      ended_ = index_ == segments().size();
      return frame->bytes > 0;
    }
  }
  frame->verdict = Verdict::kCorrupt;
  frame->lost_first = expected_;
  if (resume == frames_.file_bytes()) {
    frame->bytes = TRY(frames_.LastWrittenByte(offset_)) - offset_;
    frame->lost_last = successor == nullptr ? durable_lsn() : below - 1;
    // A missing segment between here and the successor is told as such, not as damage here.
    if (successor != nullptr && successor->predecessor_number != segment.number &&
        index_ + 1 < segments().size()) {
      frame->lost_last = std::min(frame->lost_last, expected_ - 1);
    }
    if (bad.unreadable && successor == nullptr && !alone_) {
      frame->lost_last = expected_ - 1;
      if (!std::exchange(open_ended_, true)) frame->lost_last = kUnknownLsn;
    }
    LeaveSegment();
  } else {
    frame->bytes = resume - offset_;
    frame->lost_last = IsRecord(next.header.type) ? next.header.lsn - 1 : next.header.lsn;
    frame->lost_last = std::min(frame->lost_last, below - 1);
    offset_ = resume;
  }
  if (frame->lost_last != kUnknownLsn) expected_ = std::max(expected_, frame->lost_last + 1);
  SpareCheckpointed(frame);
  return true;
}

}  // namespace

Result<std::unique_ptr<Reader>> Reader::Open(Disk& disk, const std::string& directory,
                                             ReaderOptions options) {
  auto chain = TRY(Chain::Read(disk, directory,
                               {.last_number = options.last_number,
                                .checkpoint_lsn = options.checkpoint_lsn,
                                .damaged_checkpoint_lsn = options.damaged_checkpoint_lsn}));
  const bool for_restart = options.for_restart;
  auto reader = std::make_unique<DirectoryReader>(disk, std::move(options), std::move(chain));
  if (for_restart) TRY(reader->BeginBehindCheckpoint());
  return std::unique_ptr<Reader>(std::move(reader));
}

std::unique_ptr<Reader> Reader::OpenSegment(Disk& disk, const SegmentInfo& segment, Lsn last,
                                            std::shared_ptr<const KeyRing> keys, bool whole_packs) {
  SegmentInfo known = segment;
  known.end_lsn = std::min(known.end_lsn, last + 1);
  auto reader = std::make_unique<DirectoryReader>(
      disk, ReaderOptions{.durable_lsn = last, .keys = std::move(keys), .whole_packs = whole_packs},
      Chain(known));
  reader->BeginAlone();
  return reader;
}

}  // namespace crab::wal

#include "persistence/recovery.h"

#include <algorithm>
#include <cerrno>
#include <set>

#include "persistence/reader.h"
#include "persistence/segment.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

constexpr size_t kWarningsMax = 100;  // a damaged log can have a reason per record

std::string Range(Lsn first, Lsn last) {
  if (last == kUnknownLsn) return "LSNs from " + std::to_string(first) + " on";
  return first == last ? "LSN " + std::to_string(first)
                       : "LSNs " + std::to_string(first) + " to " + std::to_string(last);
}

class Recovery {
 public:
  Recovery(Disk& disk, const Options& options,
           const std::function<Status(const RecordView&)>& apply, RecoveryReport* report)
      : disk_(disk), options_(options), apply_(apply), report_(*report) {}

  Result<Recovered> Run(const std::function<Identity()>& make_identity,
                        const std::function<void(const Identity&)>& identify);

 private:
  void FindRing();
  Status ReadSegments();
  Status TakeFrame(const Frame& frame);
  Status ReadRing();
  Status TakeSlot(Lsn lsn, bool* stop);
  void Apply(const FrameHeader& header, std::string_view payload);
  Status Lost(Lsn first, Lsn last, const std::string& where, const std::string& reason);
  void Warn(std::string text) {
    if (report_.warnings.size() < kWarningsMax) report_.warnings.push_back(std::move(text));
  }

  Disk& disk_;
  const Options& options_;
  const std::function<Status(const RecordView&)>& apply_;
  RecoveryReport& report_;
  std::unique_ptr<Reader> reader_;
  Recovered found_;
  bool stopped_cleanly_ = false;
  bool stopped_early_ = false;  // kPrefix met something bad
  std::set<const SegmentInfo*> sealed_;
};

Result<Recovered> Recovery::Run(const std::function<Identity()>& make_identity,
                                const std::function<void(const Identity&)>& identify) {
  reader_ = TRY(Reader::Open(disk_, options_.directory));
  for (const SegmentInfo& segment : reader_->segments()) {
    found_.numbers.insert(segment.number);
    found_.total_bytes += segment.file_bytes;
    ++found_.segments;
    if (!segment.problem.empty()) continue;
    found_.empty = false;
    found_.last_number = segment.number;
    found_.identity = segment.identity;
    found_.last_epoch = std::max(found_.last_epoch, segment.epoch);
    found_.ring_epoch = segment.ring_epoch;
  }
  if (found_.empty) found_.identity = make_identity();
  identify(found_.identity);
  FindRing();
  TRY(ReadSegments());
  TRY(ReadRing());
  if (!found_.empty && !stopped_cleanly_ && found_.ring == nullptr) {
    Warn("the log was not stopped cleanly and there is no ring from then in " +
         (options_.ring_directory.empty() ? std::string("use") : options_.ring_directory) +
         ": what had not reached the disk is lost");
  }
  return std::move(found_);
}

// Finds the ring that belongs to the end of this log. One that does not is set aside: it may hold
// the only copy of something, for a person to look at.
void Recovery::FindRing() {
  const uint64_t interrupted_epoch = std::exchange(found_.ring_epoch, 0);
  if (found_.empty || options_.ring_directory.empty()) return;
  const RingStamp stamp = Ring::StampFor(found_.identity.log_id, options_.directory);
  auto left = Ring::OpenLeft(options_.ring_directory, stamp);
  if (!left.ok()) {
    if (left.system_errno() != ENOENT) Warn(std::string(left.message()));
    for (const std::string& path : Ring::OfCopies(options_.ring_directory, stamp)) {
      Warn("the ring " + path +
           " is of this log in another directory (this one is a copy, or was " +
           "moved from another file system); it was neither used nor touched");
    }
    return;
  }
  std::unique_ptr<Ring> ring = std::move(left).value();
  const uint64_t epoch = ring->header().epoch.load(std::memory_order_acquire);
  const bool stamped = ring->header().stamp == stamp;
  // A recovery that was itself interrupted has begun an epoch whose ring is the older one.
  if (stamped && (epoch == found_.last_epoch || (epoch != 0 && epoch == interrupted_epoch))) {
    found_.ring_epoch = epoch;
    found_.ring = std::move(ring);
    return;
  }
  auto aside = ring->SetAside();
  Warn("the ring in " + options_.ring_directory + " is of another " +
       (stamped ? "epoch" : "boot, log or directory") + " and was not used; " +
       (aside.ok() ? "kept as " + *aside : std::string(aside.message())));
}

Status Recovery::ReadSegments() {
  const Lsn durable = found_.ring == nullptr
                          ? 0
                          : found_.ring->header().durable_lsn.load(std::memory_order_acquire);
  reader_ = TRY(Reader::Open(disk_, options_.directory, durable));
  const SegmentInfo* segment = nullptr;
  while (!stopped_early_) {
    Frame frame;
    auto more = reader_->Next(&frame);
    if (!more.ok()) {
      // The reader goes on with the next segment and tells what is missing there.
      const std::string reason(more.message());
      TRY(Lost(found_.next_lsn, found_.next_lsn - 1, "the log directory", reason));
      continue;
    }
    if (!*more) break;
    if (frame.segment != nullptr && frame.segment != segment) {
      segment = frame.segment;
      found_.last_path = segment->path;
      found_.last_good_bytes = segment->problem.empty() ? kSegmentHeaderBytes : 0;
      found_.torn_bytes = 0;
    }
    TRY(TakeFrame(frame));
  }
  report_.segments_processed = reader_->segments().size();
  if (stopped_early_ && segment != nullptr) {
    report_.segments_processed = static_cast<uint64_t>(segment - reader_->segments().data()) + 1;
  }
  for (const SegmentInfo& each : reader_->segments()) {
    if (each.problem.empty() && sealed_.count(&each) == 0) {
      found_.unsealed_paths.push_back(each.path);
    }
  }
  found_.last_in_files = found_.next_lsn - 1;
  if (!stopped_early_) {
    // LSNs that were durable are not given out again, even where nothing is left of them.
    found_.next_lsn = std::max(found_.next_lsn, reader_->durable_lsn() + 1);
    found_.last_in_files = found_.next_lsn - 1;
  }
  for (const std::string& warning : reader_->warnings()) Warn(warning);
  return Status::Ok();
}

Status Recovery::TakeFrame(const Frame& frame) {
  report_.bytes_processed += frame.bytes;
  const std::string where = frame.segment == nullptr
                                ? std::string("between segments")
                                : frame.segment->name + " bytes " + std::to_string(frame.offset) +
                                      " to " + std::to_string(frame.offset + frame.bytes);
  switch (frame.verdict) {
    case Verdict::kGood:
      break;
    case Verdict::kCut:
      if (IsRecord(frame.type)) ++report_.entries_skipped;
      return Status::Ok();
    case Verdict::kTorn:
      report_.torn_bytes += frame.bytes;
      found_.torn_bytes = frame.bytes;
      Warn("the log ends with " + std::to_string(frame.bytes) + " bytes that were never durable (" +
           where + ": " + frame.reason + "); cut off and kept aside");
      return Status::Ok();
    case Verdict::kCorrupt:
    case Verdict::kMissing:
      return Lost(frame.lost_first, frame.lost_last, where, frame.reason);
  }
  found_.last_good_bytes = frame.offset + frame.bytes;
  stopped_cleanly_ = frame.type == static_cast<uint8_t>(FrameType::kStop);
  if (stopped_cleanly_ || frame.type == static_cast<uint8_t>(FrameType::kSeal)) {
    sealed_.insert(frame.segment);
  }
  if (frame.type == static_cast<uint8_t>(FrameType::kGap)) {
    Warn("logging was off for a while before " + frame.segment->name +
         "; the image that follows brings the log up to date");
    // The LSNs that were dropped then are announced, not lost.
    found_.next_lsn = std::max(found_.next_lsn, frame.segment->first_lsn);
  }
  if (!IsRecord(frame.type)) return Status::Ok();
  found_.next_lsn = frame.lsn + 1;
  FrameHeader header = {};
  header.lsn = frame.lsn;
  header.type = frame.type;
  header.flags = frame.flags;
  header.shard = frame.shard;
  Apply(header, frame.payload);
  return Status::Ok();
}

void Recovery::Apply(const FrameHeader& header, std::string_view payload) {
  switch (static_cast<FrameType>(header.type)) {
    case FrameType::kPolicy:
      return;
    case FrameType::kEffect:
    case FrameType::kTxn:
    case FrameType::kBroadcast:
      break;
    case FrameType::kVoid:
      ++report_.entries_skipped;
      return;
    default:
      ++report_.entries_skipped;
      Warn("LSN " + std::to_string(header.lsn) + " has the unknown type " +
           std::to_string(header.type) + " and was passed over");
      return;
  }
  if (header.flags != 0) {
    ++report_.entries_skipped;
    Warn("LSN " + std::to_string(header.lsn) + " is compressed or encrypted, which this program " +
         "cannot read; it was passed over");
    return;
  }
  Status applied =
      apply_({header.lsn, static_cast<RecordType>(header.type), header.shard, payload});
  if (applied.ok()) {
    ++report_.entries_recovered;
  } else {
    ++report_.entries_skipped;
    Warn("LSN " + std::to_string(header.lsn) + ": " + std::string(applied.message()));
  }
}

// What was durable is gone. Goes on, stops or refuses, as the operator chose.
Status Recovery::Lost(Lsn first, Lsn last, const std::string& where, const std::string& reason) {
  std::string text = where + ": " + reason;
  if (last >= first) {
    text += "; " + Range(first, last) + " lost";
    report_.corrupted_entries += last == kUnknownLsn ? 1 : last - first + 1;
    report_.lost.push_back({first, last, where});
  }
  switch (options_.recovery) {
    case RecoveryMode::kStrict:
      return Status::Error("the log in " + options_.directory + " is damaged: " + text +
                           "; wal-recovery strict starts only from a whole log");
    case RecoveryMode::kPrefix:
      if (last < first) {  // a frame of the writer: what follows is still what existed
        Warn(text + "; no record is lost by it");
        return Status::Ok();
      }
      stopped_early_ = true;
      Warn(text + "; everything from there on is left out (wal-recovery prefix)");
      return Status::Ok();
    case RecoveryMode::kSalvage:
      Warn(text + "; going on behind it (the result may be a state that never was)");
      if (last != kUnknownLsn) found_.next_lsn = std::max(found_.next_lsn, last + 1);
      return Status::Ok();
  }
  return Status::Ok();
}

Status Recovery::ReadRing() {
  if (found_.ring == nullptr) return Status::Ok();
  RingHeader& header = found_.ring->header();
  if (stopped_early_) {
    auto aside = found_.ring->SetAside();
    found_.ring = nullptr;
    Warn("the ring was left out too; " +
         (aside.ok() ? "kept as " + *aside : std::string(aside.message())));
    return Status::Ok();
  }
  if (header.given_up.load(std::memory_order_acquire) != 0) {
    Warn(
        "the server had been carrying on without the log, for want of a disk that works, when it " +
        std::string("ended: what it changed then is in no log"));
  }
  const Lsn freed = header.freed_lsn.load(std::memory_order_acquire);
  if (freed >= found_.next_lsn) {
    TRY(Lost(found_.next_lsn, freed, "the end of the log",
             "the ring says that these had been written"));
    if (stopped_early_) return Status::Ok();
    found_.next_lsn = freed + 1;
    found_.last_in_files = freed;
  }
  bool stop = false;
  while (!stop) TRY(TakeSlot(found_.next_lsn, &stop));
  // A slot that was reserved and has nothing behind it tells nobody anything.
  while (!found_.ring_records.empty() &&
         found_.ring_records.back().header.type == static_cast<uint8_t>(FrameType::kVoid)) {
    found_.ring_records.pop_back();
    --found_.next_lsn;
    --report_.entries_skipped;
  }
  return Status::Ok();
}

Status Recovery::TakeSlot(Lsn lsn, bool* stop) {
  Slot& slot = found_.ring->slot(lsn);
  const SlotState state = slot.state.load(std::memory_order_acquire);
  // A payload that lived in the process' memory is gone though its shards had been released: what
  // came after may have seen it, so nothing after it is taken. None of that had been promised.
  if (slot.lsn.load(std::memory_order_acquire) != lsn || state == SlotState::kHeapPublished) {
    *stop = true;
    return Status::Ok();
  }
  FrameHeader header = {};
  header.lsn = lsn;
  header.type = static_cast<uint8_t>(FrameType::kVoid);
  header.shard = kBroadcastShard;
  std::string_view payload;
  if (state == SlotState::kPublished) {
    FrameHeader stated = {};
    stated.length = slot.length;
    stated.lsn = lsn;
    stated.type = slot.type;
    stated.flags = slot.flags;
    stated.shard = slot.shard;
    std::string_view bytes;
    if (slot.length <= found_.ring->data_bytes()) {
      bytes = {found_.ring->data(slot.position), slot.length};
      stated.crc = BodyCrc(stated, bytes);
    }
    if (bytes.data() != nullptr && stated.crc == slot.crc) {
      header = stated;
      payload = bytes;
    } else {
      TRY(Lost(lsn, lsn, found_.ring->path(), "the checksum of a record in the ring is wrong"));
      if (stopped_early_) {
        *stop = true;
        return Status::Ok();
      }
    }
  }
  if (header.type == static_cast<uint8_t>(FrameType::kVoid)) header.crc = BodyCrc(header, {});
  found_.ring_records.push_back({header, payload});
  found_.next_lsn = lsn + 1;
  const uint64_t before = report_.entries_recovered;
  Apply(header, payload);
  report_.ring_entries_recovered += report_.entries_recovered - before;
  return Status::Ok();
}

}  // namespace

Result<Recovered> Recover(Disk& disk, const Options& options,
                          const std::function<Identity()>& make_identity,
                          const std::function<void(const Identity&)>& identify,
                          const std::function<Status(const RecordView&)>& apply,
                          RecoveryReport* report) {
  return Recovery(disk, options, apply, report).Run(make_identity, identify);
}

}  // namespace crab::wal

#include "persistence/recovery.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <set>

#include "persistence/reader.h"
#include "persistence/segment.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

std::string Where(const Frame& frame) {
  if (frame.segment == nullptr) return "between segments";
  return frame.segment->name + " bytes " + std::to_string(frame.offset) + " to " +
         std::to_string(frame.offset + frame.bytes);
}

class Recovery {
 public:
  Recovery(Disk& disk, const Options& options, RecoveryReport* report)
      : disk_(disk), options_(options), report_(*report) {}

  Result<Recovered> Run(const std::function<Identity()>& make_identity);
  Result<Plan> ReadPlan(const Plan& plan, uint32_t units,
                        const std::optional<CheckpointInfo>& checkpoint);

 private:
  Status ReadHeaders(const std::function<Identity()>& make_identity);
  Status ChooseCheckpoints(const std::vector<CheckpointInfo>& checkpoints);
  Result<std::string> CheckpointProblem(const CheckpointInfo& checkpoint);
  uint32_t CountUnits();
  Status OpenReader(Lsn durable);
  Status FindRing();
  bool MayHaveBegun(Ring& ring, uint64_t epoch) const;
  Sharding ShardingOfRing(Ring& ring, uint64_t epoch) const;
  bool HasVoidGap() const {
    const auto& segments = reader_->segments();
    return std::any_of(segments.begin(), segments.end(),
                       [](const SegmentInfo& segment) { return segment.gap_void; });
  }
  Status ReadSegments();
  Status EnterSegment(const SegmentInfo& segment);
  Status TakeFrame(const Frame& frame);
  void TakeRecord(const Frame& frame);
  void FinishPlaces();
  void FinishPlan();
  void FindDoubt();
  void FindGap();
  Status ReadRing();
  Status TakeSlot(Lsn lsn, bool* stop);
  // Of what is durable, the last LSN that the ring can have: it has slots for so many.
  Lsn DurableInRing() const {
    return std::min(reader_->durable_lsn(), freed_ + found_.ring->slot_count());
  }
  void LeaveRingOut() {
    found_.aside_path = found_.ring->path();
    found_.aside_reason = "the ring was left out too";
  }
  Status MeetDamage(const Frame& frame);
  Status TellOpenEnd(bool log_ends);
  Status Lost(Lsn first, Lsn last, const std::string& where, const std::string& reason);
  Status StopBefore(const std::string& text);
  void Warn(std::string text) {
    if (report_.warnings.size() < kWarningsMax) {
      report_.warnings.push_back(std::move(text));
    } else {
      ++unsaid_;
    }
  }
  Lsn checkpoint_lsn() const { return found_.plan.checkpoint_lsn(); }
  // What nobody is going to replay need not be whole.
  RecoveryMode mode() const {
    return options_.after_gap ? RecoveryMode::kSalvage : options_.recovery;
  }

  Disk& disk_;
  const Options& options_;
  RecoveryReport& report_;
  std::unique_ptr<Reader> reader_;
  Recovered found_;
  std::vector<Lsn> stated_checkpoints_;  // by their names
  Lsn damaged_checkpoint_lsn_ = 0;       // the highest of them
  uint64_t last_number_ = ~uint64_t{0};
  uint64_t unsaid_ = 0;        // warnings beyond kWarningsMax
  Lsn next_before_gap_ = 0;    // next_lsn as it would be without a void gap
  bool ring_left_ = false;     // and of this log's end
  bool ring_guessed_ = false;  // no readable segment is of its epoch
  bool ring_unfit_ = false;    // and they hold records that may not be of its life
  // Up to here the ring has given back what the files hold; what is above it is in the ring too.
  // kUnknownLsn: there is none to be used.
  Lsn freed_ = kUnknownLsn;
  // What is missing behind the last record so far, and in the ring unless one follows.
  struct Missing {
    Lsn first, last;
    std::string where, reason;
  };
  std::vector<Missing> open_end_;
  bool stopped_cleanly_ = false;
  bool stopped_early_ = false;            // kPrefix met something bad
  const SegmentInfo* segment_ = nullptr;  // the last one that a frame came from
  std::vector<const SegmentInfo*> seen_;
  std::set<const SegmentInfo*> sealed_;
};

Result<Recovered> Recovery::Run(const std::function<Identity()>& make_identity) {
  TRY(ReadHeaders(make_identity));
  TRY(OpenReader(/*durable=*/0));
  TRY(FindRing());
  found_.units = CountUnits();
  if (found_.ring != nullptr && !HasVoidGap()) {
    freed_ = found_.ring->header().freed_lsn.load(std::memory_order_acquire);
    const Lsn durable = found_.ring->header().durable_lsn.load(std::memory_order_acquire);
    // Of one whose files are not known it says nothing about others.
    if (!ring_guessed_) TRY(OpenReader(durable));
  }
  TRY(ReadSegments());
  TRY(ReadRing());
  FindDoubt();
  FindGap();
  FinishPlan();
  if (!found_.empty && !stopped_cleanly_ && found_.ring == nullptr) {
    Warn("the log was not stopped cleanly and there is no ring from then in " +
         (options_.ring_directory.empty() ? std::string("use") : options_.ring_directory) +
         ": what had not reached the disk is lost");
  }
  if (unsaid_ > 0) {
    report_.warnings.push_back("and " + std::to_string(unsaid_) + " more warnings like these");
  }
  return std::move(found_);
}

// Who the log is, and where its checkpoints stand.
Status Recovery::ReadHeaders(const std::function<Identity()>& make_identity) {
  reader_ = TRY(Reader::Open(disk_, options_.directory, {.checkpoint_lsn = 0}));
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
  const std::vector<CheckpointInfo> checkpoints = TRY(ListCheckpoints(disk_, options_.directory));
  if (found_.empty) {
    // All segments are gone: what a checkpoint holds is the log.
    const auto good = std::find_if(checkpoints.begin(), checkpoints.end(),
                                   [](const CheckpointInfo& each) { return each.problem.empty(); });
    found_.empty = good == checkpoints.end();
    found_.identity = found_.empty ? make_identity() : good->identity;
  }
  return ChooseCheckpoints(checkpoints);
}

// The newest good one, and the older ones for the case that a part of it turns out to be damaged.
Status Recovery::ChooseCheckpoints(const std::vector<CheckpointInfo>& checkpoints) {
  for (const CheckpointInfo& checkpoint : checkpoints) {
    const bool other_log =
        checkpoint.problem.empty() && checkpoint.identity.log_id != found_.identity.log_id;
    if (!other_log) {
      stated_checkpoints_.push_back(CheckpointLsn(checkpoint.name).value_or(0));
      damaged_checkpoint_lsn_ = std::max(damaged_checkpoint_lsn_, stated_checkpoints_.back());
    }
    const bool chosen = found_.plan.checkpoint.has_value();
    const bool has_key = checkpoint.key_id == 0 ||
                         (options_.keys != nullptr && options_.keys->Has(checkpoint.key_id));
    if (checkpoint.problem.empty() && !other_log && !has_key && !chosen) {
      return Status::Error("cannot read " + checkpoint.path +
                               ": it is encrypted, and its key is not in the file of " +
                               "wal.encryption_key_file; nothing was changed",
                           ENOKEY);
    }
    if (checkpoint.unopened_errno != 0 && !chosen) {
      // To begin without it would be to throw away what it holds.
      return Status::Error(
          "cannot read " + checkpoint.path + ": " + checkpoint.problem + "; nothing was changed",
          checkpoint.unopened_errno);
    }
    const std::string problem = other_log  ? kForeignProblem
                                : !has_key ? "its key is missing"
                                : chosen   ? checkpoint.problem
                                           : TRY(CheckpointProblem(checkpoint));
    if (!problem.empty()) {
      if (chosen) continue;
      if (report_.checkpoint_problem.empty()) {
        report_.checkpoint_problem = checkpoint.name + ": " + problem;
      }
      Warn(checkpoint.name + " was not used: " + problem);
      if (has_key && !other_log) report_.damaged_checkpoints.push_back(checkpoint.lsn);
    } else if (chosen) {
      found_.fallbacks.push_back(checkpoint);
    } else {
      found_.plan.checkpoint = checkpoint;
    }
  }
  if (!found_.plan.checkpoint) return Status::Ok();
  found_.checkpoint_lsn = report_.checkpoint_lsn = found_.plan.checkpoint->lsn;
  report_.checkpoint_entries = found_.plan.checkpoint->entries;
  report_.checkpoint_bytes = found_.plan.checkpoint->file_bytes;
  return Status::Ok();
}

// "" = as far as is known at this point; those who judge the whole log first read all of it. An
// error says nothing of what is in it.
Result<std::string> Recovery::CheckpointProblem(const CheckpointInfo& checkpoint) {
  if (!checkpoint.problem.empty()) return checkpoint.problem;
  if (mode() == RecoveryMode::kSalvage) return std::string();
  const Status verified = [&]() -> Status {
    auto reader = TRY(CheckpointReader::Open(disk_, checkpoint.path, options_.keys));
    return reader->Verify({});
  }();
  if (!verified.ok() && !IsDamage(verified.system_errno())) {
    return Status::Error("cannot read " + checkpoint.path + ": " + std::string(verified.message()) +
                             "; nothing was changed",
                         verified.system_errno());
  }
  return std::string(verified.message());
}

// Shards of all numbers in use must be unions of units, or parts of them. Also of segments that the
// checkpoint covers: should it turn out to be damaged, they are replayed in the same units.
uint32_t Recovery::CountUnits() {
  const uint64_t seed = options_.hash_seed != 0 ? options_.hash_seed : found_.identity.hash_seed;
  uint32_t units = std::has_single_bit(options_.shard_count) ? options_.shard_count : 1;
  const auto take = [&](const Sharding& sharding) {
    const bool alike = sharding.hash_seed == seed &&
                       sharding.by_hashtag == options_.shard_by_hashtag &&
                       std::has_single_bit(sharding.shard_count);
    units = alike ? std::min(units, sharding.shard_count) : 1;
  };
  for (const SegmentInfo& segment : reader_->segments()) {
    if (!segment.problem.empty() || segment.first_lsn >= segment.end_lsn) continue;
    take(ShardingOf(segment));
    found_.packs |= segment.packs();
  }
  const auto take_checkpoint = [&](const CheckpointInfo& checkpoint) {
    take(ShardingOf(checkpoint));
  };
  if (found_.plan.checkpoint) take_checkpoint(*found_.plan.checkpoint);
  for (const CheckpointInfo& checkpoint : found_.fallbacks) take_checkpoint(checkpoint);
  if (found_.ring != nullptr) take(found_.ring_sharding);
  return units;
}

Status Recovery::OpenReader(Lsn durable) {
  ReaderOptions options;
  options.durable_lsn = durable;
  options.keys = options_.keys;
  options.checkpoint_lsn = checkpoint_lsn();
  options.damaged_checkpoint_lsn = damaged_checkpoint_lsn_;
  options.for_restart = true;
  options.skip_sealed = mode() == RecoveryMode::kSalvage;
  options.last_number = last_number_;
  reader_ = TRY(Reader::Open(disk_, options_.directory, std::move(options)));
  return Status::Ok();
}

// Finds the ring that belongs to the end of this log. One that does not is to be set aside: it may
// hold the only copy of something, for a person to look at.
Status Recovery::FindRing() {
  const uint64_t interrupted_epoch = std::exchange(found_.ring_epoch, 0);
  if (found_.empty || options_.ring_directory.empty()) return Status::Ok();
  const RingStamp stamp = Ring::StampFor(found_.identity.log_id, options_.directory);
  auto left = Ring::OpenLeft(options_.ring_directory, stamp);
  if (!left.ok()) {
    const int error = left.system_errno();
    if (error == EBADMSG) {
      found_.aside_path = Ring::Path(options_.ring_directory, stamp);
      found_.aside_reason = left.message();
    }
    if (error != EBADMSG && error != ENOENT && error != ENOTDIR) {
      return Status::Error(
          std::string(left.message()) +
              "; it may hold acknowledged writes that are in no file, so nothing " +
              "was changed: make it readable and start again, or move it away " +
              "to start without them",
          error);
    }
    for (const std::string& path : Ring::OfCopies(options_.ring_directory, stamp)) {
      Warn("the ring " + path +
           " is of this log in another directory (this one is a copy, or was " +
           "moved from another file system); it was neither used nor touched");
    }
    return Status::Ok();
  }
  std::unique_ptr<Ring> ring = std::move(left).value();
  const uint64_t epoch = ring->header().epoch.load(std::memory_order_acquire);
  const bool stamped = ring->header().stamp == stamp;
  // A recovery that was itself interrupted has begun an epoch whose ring is the older one.
  ring_guessed_ = stamped && MayHaveBegun(*ring, epoch);
  if (stamped &&
      (epoch == found_.last_epoch || (epoch != 0 && epoch == interrupted_epoch) || ring_guessed_)) {
    found_.ring_epoch = epoch;
    found_.ring_sharding = ShardingOfRing(*ring, epoch);
    found_.ring = std::move(ring);
    ring_left_ = true;
    return Status::Ok();
  }
  // Where segments are missing it may be of an epoch to come.
  constexpr uint64_t kEpochsMax = uint64_t{1} << 32;
  if (stamped && epoch < found_.last_epoch + kEpochsMax) found_.aside_epoch = epoch;
  found_.aside_path = ring->path();
  found_.aside_reason = "the ring in " + options_.ring_directory + " is of another " +
                        (stamped ? "epoch" : "boot, log or directory") + " and was not used";
  return Status::Ok();
}

// In one of the last segments, whose headers cannot be read: no number begins more than one epoch.
// Not where the log had been given up: one of them may have been a gap without its checkpoint.
bool Recovery::MayHaveBegun(Ring& ring, uint64_t epoch) const {
  if (ring.header().given_up.load(std::memory_order_acquire) != 0) return false;
  const auto unreadable =
      std::find_if(reader_->segments().rbegin(), reader_->segments().rend(),
                   [](const SegmentInfo& each) { return each.problem != kForeignProblem; });
  return unreadable != reader_->segments().rend() && unreadable->number > found_.last_number &&
         epoch > found_.last_epoch &&
         epoch - found_.last_epoch <= unreadable->number - found_.last_number;
}

// One from before it was stamped with that is as the segments of its epoch. The newest segment of
// all may be of a start since then, with other options.
Sharding Recovery::ShardingOfRing(Ring& ring, uint64_t epoch) const {
  Sharding sharding = ring.sharding();
  if (sharding.shard_count != 0) return sharding;
  for (const SegmentInfo& segment : reader_->segments()) {
    if (segment.problem.empty() && segment.epoch == epoch) sharding = ShardingOf(segment);
  }
  return sharding;
}

Status Recovery::ReadSegments() {
  while (!stopped_early_) {
    Frame frame;
    if (!TRY(reader_->Next(&frame))) break;
    if (frame.segment != nullptr && frame.segment != segment_) {
      TRY(EnterSegment(*frame.segment));
      if (stopped_early_) break;
    }
    TRY(TakeFrame(frame));
  }
  if (!stopped_early_) TRY(TellOpenEnd(/*log_ends=*/true));
  report_.segments_processed = reader_->segments().size();
  if (stopped_early_ && segment_ != nullptr) {
    report_.segments_processed = static_cast<uint64_t>(segment_ - reader_->segments().data()) + 1;
    found_.last_path.clear();  // what is cut off stays where it is, for a person to look at
  }
  for (const SegmentInfo* segment : seen_) {
    if (sealed_.count(segment) == 0) found_.unsealed_paths.push_back(segment->path);
  }
  found_.plan.last = found_.next_lsn - 1;
  found_.next_lsn = std::max(found_.next_lsn, checkpoint_lsn() + 1);
  if (!stopped_early_) {
    if (found_.plan.last < checkpoint_lsn() && reader_->segments().empty()) {
      Warn("no segment of the log is left; it begins anew behind " + found_.plan.checkpoint->name);
    } else if (found_.plan.last < checkpoint_lsn() && found_.plan.last > 0) {
      Warn("the segments of the log end with LSN " + std::to_string(found_.plan.last) +
           ", before " + found_.plan.checkpoint->name + ", which holds what they lack; the log " +
           "begins anew behind it");
    }
    found_.plan.last = std::max(found_.plan.last, checkpoint_lsn());
    // LSNs that were durable are not given out again, even where nothing is left of them; ReadRing
    // sees to those that the ring has.
    found_.next_lsn = std::max(found_.next_lsn, std::min(reader_->durable_lsn(), freed_) + 1);
    next_before_gap_ = found_.next_lsn;
    for (const SegmentInfo& segment : reader_->segments()) {
      if (!segment.gap_void) continue;
      // Its first LSN ends everything from it on.
      found_.next_lsn = std::max(found_.next_lsn, segment.first_lsn);
      Warn("logging was off for a while before " + segment.name + ", and the checkpoint that " +
           "what was logged from then on needs had not been finished: it is left out");
    }
  }
  found_.last_in_files = found_.next_lsn - 1;
  for (const std::string& warning : reader_->warnings()) Warn(warning);
  return Status::Ok();
}

Status Recovery::EnterSegment(const SegmentInfo& segment) {
  if (segment.problem.empty()) {
    TRY(TellOpenEnd(/*log_ends=*/false));
    if (stopped_early_) return Status::Ok();
  }
  if (segment.problem.empty() && segment.after_gap && segment.gap_damaged) {
    const std::string text = "logging was off for a while before " + segment.name +
                             ", and the checkpoint from then is damaged";
    if (mode() != RecoveryMode::kSalvage) return StopBefore(text);
    found_.plan.gap_losses.push_back(
        text +
        ": what changed during that time is lost; going on behind it (the result may be a "
        "state that never was)");
    Warn(found_.plan.gap_losses.back());
  }
  segment_ = &segment;
  found_.last_path = segment.path;
  found_.last_good_bytes = segment.problem.empty() ? kSegmentHeaderBytes : 0;
  found_.torn_bytes = 0;
  if (!segment.problem.empty()) return Status::Ok();
  seen_.push_back(&segment);
  if (segment.after_gap) found_.next_lsn = std::max(found_.next_lsn, segment.first_lsn);
  FinishPlaces();
  Plan::Segment& planned = found_.plan.segments.emplace_back();
  planned.info = segment;
  planned.read_through = true;
  planned.end = kSegmentHeaderBytes;
  return Status::Ok();
}

Status Recovery::TakeFrame(const Frame& frame) {
  report_.bytes_processed += frame.skipped ? frame.offset - kSegmentHeaderBytes : frame.bytes;
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
           Where(frame) + ": " + frame.reason + "); cut off and kept aside");
      return Status::Ok();
    case Verdict::kCorrupt:
    case Verdict::kMissing:
      return MeetDamage(frame);
  }
  if (IsRecord(frame.type) || frame.skipped) {
    TRY(TellOpenEnd(/*log_ends=*/false));
    if (stopped_early_) return Status::Ok();
  }
  found_.last_good_bytes = std::max(found_.last_good_bytes, frame.end);
  stopped_cleanly_ = frame.type == static_cast<uint8_t>(FrameType::kStop);
  if (stopped_cleanly_ || frame.type == static_cast<uint8_t>(FrameType::kSeal)) {
    sealed_.insert(frame.segment);
  }
  TakeRecord(frame);
  return Status::Ok();
}

// What is missing at the log's end may be in the ring.
Status Recovery::MeetDamage(const Frame& frame) {
  if (ring_guessed_ && frame.segment != nullptr && !frame.segment->problem.empty()) {
    // Its epoch began at or below the first LSN that its ring kept: where the files go on above
    // that, they may show what it had replaced.
    if (frame.lost_first > freed_ + 1) {
      ring_unfit_ = true;
      freed_ = kUnknownLsn;
    }
    return Lost(frame.lost_first, frame.lost_last, Where(frame), frame.reason);
  }
  if (frame.lost_last >= frame.lost_first && frame.lost_last > freed_) {
    open_end_.push_back({frame.lost_first, frame.lost_last, Where(frame), frame.reason});
    return Status::Ok();
  }
  return Lost(frame.lost_first, frame.lost_last, Where(frame), frame.reason);
}

Status Recovery::TellOpenEnd(bool log_ends) {
  for (const Missing& missing : std::exchange(open_end_, {})) {
    const Lsn last = log_ends ? std::min(missing.last, freed_) : missing.last;
    if (last < missing.first) {
      Warn(missing.where + ": " + missing.reason + "; what stood there is taken from the ring");
      continue;
    }
    TRY(Lost(missing.first, last, missing.where, missing.reason));
    if (stopped_early_) break;
  }
  return Status::Ok();
}

// Into the plan.
void Recovery::TakeRecord(const Frame& frame) {
  Plan::Segment& planned = found_.plan.segments.back();
  planned.end = std::max(planned.end, frame.end);
  if (frame.skipped) {
    EndPayload end = {};
    std::memcpy(&end, frame.payload.data(), std::min(frame.payload.size(), sizeof(end)));
    planned.last = frame.lsn;
    planned.read_through = false;
    planned.records = end.records;
    planned.last_index = end.last_index;
    found_.next_lsn = std::max(found_.next_lsn, frame.lsn + 1);
    return;
  }
  if (!IsRecord(frame.type)) return;
  found_.next_lsn = frame.lsn + 1;
  planned.last = frame.lsn;
  if (found_.units == 1 || frame.lsn <= checkpoint_lsn()) return;
  if (planned.info.packs()) return;  // a place in the file says little there
  if (planned.places == nullptr) {
    planned.places = std::make_unique<Places>(planned.info.identity.shard_count, found_.units);
  }
  planned.places->Add(frame.type, frame.shard, frame.payload, frame.offset);
}

// Of the segment that has been read last; until then they take several times the memory.
void Recovery::FinishPlaces() {
  if (found_.plan.segments.empty()) return;
  const auto& places = found_.plan.segments.back().places;
  if (places != nullptr) places->Finish();
}

// Drops what the checkpoint holds.
void Recovery::FinishPlan() {
  Plan& plan = found_.plan;
  FinishPlaces();
  std::erase_if(plan.segments, [&](const Plan::Segment& segment) {
    return segment.last == 0 || segment.last <= checkpoint_lsn();
  });
  plan.ring_shard_count = found_.ring_sharding.shard_count;
  if (!found_.numbers.empty()) plan.last_number = *found_.numbers.rbegin();
  for (const Recovered::RingRecord& record : found_.ring_records) {
    plan.ring.push_back({record.header, std::string(record.payload)});
  }
  if (stopped_early_) {
    for (const Lsn lsn : stated_checkpoints_) {
      if (lsn < found_.next_lsn) continue;
      found_.void_checkpoints.push_back(options_.directory + "/" + CheckpointName(lsn));
    }
  }
  if (!options_.after_gap) return;
  plan = Plan();
  found_.fallbacks.clear();
}

// Only the last segment that anything is kept of: before another one gets its name, all that counts
// in the ones before it is durable. Where a ring is left nobody saw the sync behind a SEAL or STOP
// succeed.
void Recovery::FindDoubt() {
  if (seen_.empty() || (sealed_.count(seen_.back()) != 0 && !ring_left_)) return;
  const Plan::Segment& last = found_.plan.segments.back();
  if (last.last == 0 || last.last <= checkpoint_lsn()) return;
  const bool undoes_gap = HasVoidGap() && !stopped_early_;
  const Lsn next = undoes_gap ? next_before_gap_ : found_.last_in_files + 1;
  found_.doubtful = {last.info, last.last, reader_->durable_lsn(), next, last.read_through};
}

// Version 1 wrote an image of all data behind a gap, and no checkpoint goes with it.
void Recovery::FindGap() {
  for (const SegmentInfo* segment : seen_) {
    if (!segment->after_gap || segment->gap_void || segment->format_version < 2) continue;
    if (segment->first_lsn != found_.last_in_files + 1) continue;
    found_.gap = {segment->first_lsn, segment->durable_lsn};
  }
}

Result<Plan> Recovery::ReadPlan(const Plan& plan, uint32_t units,
                                const std::optional<CheckpointInfo>& checkpoint) {
  found_.units = units;
  found_.plan.checkpoint = checkpoint;
  damaged_checkpoint_lsn_ = plan.checkpoint_lsn();
  last_number_ = plan.last_number;
  TRY(OpenReader(/*durable=*/plan.last));
  TRY(ReadSegments());
  FinishPlan();
  for (Plan::Segment& segment : found_.plan.segments) {
    segment.last = std::min(segment.last, plan.last);
  }
  found_.plan.last = plan.last;
  found_.plan.last_number = plan.last_number;
  found_.plan.ring = plan.ring;
  found_.plan.ring_shard_count = plan.ring_shard_count;
  return std::move(found_.plan);
}

// What was durable is gone. Goes on, stops or refuses, as the operator chose.
Status Recovery::Lost(Lsn first, Lsn last, const std::string& where, const std::string& reason) {
  std::string text = where + ": " + reason;
  if (last >= first) {
    text += "; " + LostText(first, last) + " lost";
    report_.NoteLost(first, last, where);
    found_.lost.Add(first, last);
  }
  if (mode() == RecoveryMode::kSalvage) {
    Warn(text + "; going on behind it (the result may be a state that never was)");
    if (last != kUnknownLsn) found_.next_lsn = std::max(found_.next_lsn, last + 1);
    return Status::Ok();
  }
  if (mode() == RecoveryMode::kPrefix && last < first) {
    // A frame of the writer: what follows is still what existed.
    Warn(text + "; no record is lost by it");
    return Status::Ok();
  }
  return StopBefore(text);
}

Status Recovery::StopBefore(const std::string& text) {
  if (mode() == RecoveryMode::kStrict) {
    return Status::Error("the log in " + options_.directory + " is damaged: " + text +
                         "; wal-recovery strict starts only from a whole log");
  }
  stopped_early_ = true;
  Warn(text + "; everything from there on is left out (wal-recovery prefix)");
  return Status::Ok();
}

Status Recovery::ReadRing() {
  if (found_.ring == nullptr) return Status::Ok();
  RingHeader& header = found_.ring->header();
  if (stopped_early_ || ring_unfit_) {
    // Nor may the next start take it for one that goes on behind this one's segment.
    found_.ring_epoch = 0;
    LeaveRingOut();
    return Status::Ok();
  }
  if (header.given_up.load(std::memory_order_acquire) != 0) {
    Warn(
        "the server had been carrying on without the log, for want of a disk that works, when it " +
        std::string("ended: what it changed then is in no log"));
  }
  if (HasVoidGap()) {
    // What is in it stands behind the gap. The next start must know that too, where this one gets
    // no further than to a segment that ends the gap.
    found_.ring_epoch = 0;
    return Status::Ok();
  }
  if (freed_ >= found_.next_lsn) {
    TRY(Lost(found_.next_lsn, freed_, "the end of the log",
             "the ring says that these had been written"));
    if (stopped_early_) {
      LeaveRingOut();
      return Status::Ok();
    }
    found_.next_lsn = freed_ + 1;
    found_.last_in_files = freed_;
  }
  bool stop = false;
  while (!stop) TRY(TakeSlot(found_.next_lsn, &stop));
  // A slot that was reserved and has nothing behind it tells nobody anything.
  while (!found_.ring_records.empty() && found_.next_lsn - 1 > DurableInRing() &&
         found_.ring_records.back().header.type == static_cast<uint8_t>(FrameType::kVoid)) {
    found_.ring_records.pop_back();
    --found_.next_lsn;
  }
  return Status::Ok();
}

Status Recovery::TakeSlot(Lsn lsn, bool* stop) {
  Slot& slot = found_.ring->slot(lsn);
  const SlotState state = slot.state.load(std::memory_order_acquire);
  // A payload that lived in the process' memory is gone though its shards had been released: what
  // came after may have seen it, so nothing after it is taken. None of that had been promised,
  // unless it was durable.
  const bool gone =
      slot.lsn.load(std::memory_order_acquire) != lsn || state == SlotState::kHeapPublished;
  if (gone && lsn > DurableInRing()) {
    *stop = true;
    return Status::Ok();
  }
  FrameHeader header = {};
  header.lsn = lsn;
  header.type = static_cast<uint8_t>(FrameType::kVoid);
  header.shard = kBroadcastShard;
  std::string_view payload;
  std::string lost;
  if (gone) {
    lost = "a record that had been durable is neither in the files nor in the ring";
  } else if (state == SlotState::kPublished) {
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
      lost = "the checksum of a record in the ring is wrong";
    }
  }
  if (!lost.empty()) {
    TRY(Lost(lsn, lsn, found_.ring->path(), lost));
    if (stopped_early_) {
      LeaveRingOut();
      *stop = true;
      return Status::Ok();
    }
  }
  if (header.type == static_cast<uint8_t>(FrameType::kVoid)) header.crc = BodyCrc(header, {});
  found_.ring_records.push_back({header, payload});
  found_.next_lsn = lsn + 1;
  return Status::Ok();
}

}  // namespace

std::string LostText(Lsn first, Lsn last) {
  if (last == kUnknownLsn) return "LSNs from " + std::to_string(first) + " on";
  return first == last ? "LSN " + std::to_string(first)
                       : "LSNs " + std::to_string(first) + " to " + std::to_string(last);
}

Result<Recovered> Recover(Disk& disk, const Options& options,
                          const std::function<Identity()>& make_identity, RecoveryReport* report) {
  return Recovery(disk, options, report).Run(make_identity);
}

Result<Plan> ReadPlanFrom(Disk& disk, const Options& options, const Plan& plan, uint32_t units,
                          const std::optional<CheckpointInfo>& checkpoint, RecoveryReport* report) {
  return Recovery(disk, options, report).ReadPlan(plan, units, checkpoint);
}

}  // namespace crab::wal

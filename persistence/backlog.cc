// How a unit is replayed: the chunks of the checkpoint that belong to it, then its records of each
// segment in turn, then those of the ring. Where they stand is told by the segment's INDEX frames,
// or by a list from having read it through. Every record is checked right before it is applied.
// Logs with PACKs: backlog_turns.cc.
//
// Those who replay all of the log do it stage by stage: the records of one unit stand far apart,
// and in a log of a gigabyte each of them is a page that neither the TLB nor a cache knows. A stage
// is as small as a few megabytes, and its pages are visited by one unit after the other. A client
// that waits has its unit replayed to the end at once.
//
// What does not check: a chunk costs time, for the unit goes on with the older checkpoint and the
// records since; an INDEX frame likewise, for its segment is read through; a record is lost, and
// its segment is read through once to tell which one that was.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "persistence/backlog_impl.h"
#include "persistence/index.h"
#include "persistence/segment.h"
#include "utils/check.h"
#include "utils/clock.h"

namespace crab::wal {
namespace {

// Large transactions are checked once, not by every unit anew; so many are remembered.
constexpr size_t kCheckedTxnsMax = 4096;

}  // namespace

LogBacklog::LogBacklog(Disk& disk, const Options& options, Recovered& recovered,
                       RecoveryReport report, int64_t started_us)
    : disk_(disk),
      options_(options),
      started_us_(started_us),
      units_(recovered.units),
      by_turns_(recovered.packs && recovered.units > 1),
      empty_(!recovered.plan.checkpoint && recovered.plan.segments.empty() &&
             recovered.plan.ring.empty()),
      fallbacks_(std::move(recovered.fallbacks)),
      ring_places_(std::max(recovered.plan.ring_shard_count, 1u), recovered.units),
      report_(std::move(report)),
      lost_(std::move(recovered.lost)) {
  const Plan& plan = recovered.plan;
  if (plan.checkpoint) total_bytes_ += plan.checkpoint->file_bytes;
  for (const Plan::Segment& segment : plan.segments) {
    total_bytes_ += segment.end - kSegmentHeaderBytes;
  }
  for (size_t i = 0; i < plan.ring.size(); ++i) {
    const Plan::RingRecord& record = plan.ring[i];
    total_bytes_ += FrameBytes(record.payload.size());
    ring_places_.Add(record.header.type, record.header.shard, record.payload, i * kFrameAlignment);
  }
  ring_places_.Finish();
  unit_states_.resize(units_);
  CutStages(plan);
  levels_.push_back(MakeLevel(std::move(recovered.plan)));
}

void LogBacklog::CutStages(const Plan& plan) {
  uint64_t segment_bytes = 0, records = 0;
  for (const Plan::Segment& segment : plan.segments) {
    if (segment.read_through) continue;  // how many it has is not stated
    segment_bytes += segment.end - kSegmentHeaderBytes;
    records += segment.records;
  }
  const uint64_t record_bytes = records == 0 ? 0 : segment_bytes / records;
  const uint64_t window = options_.stage_bytes != 0
                              ? options_.stage_bytes
                              : std::clamp(kStageRecordsPerUnit * units_ * record_bytes,
                                           kStageBytesMin, kStageBytesMax);
  uint64_t bytes = plan.checkpoint ? plan.checkpoint->file_bytes : 0;
  uint64_t next = bytes + window;
  std::vector<SegmentPart> parts;
  for (const Plan::Segment& segment : plan.segments) {
    const uint64_t number = segment.info.number;
    const uint64_t end = bytes + segment.end - kSegmentHeaderBytes;
    uint64_t begin_offset = kSegmentHeaderBytes;
    for (; next < end && units_ > 1; next += window) {
      const uint64_t offset = kSegmentHeaderBytes + next - bytes;
      parts.push_back({number, begin_offset, offset});
      stages_.push_back({number, offset, next, std::exchange(parts, {})});
      begin_offset = offset;
    }
    if (begin_offset < segment.end) parts.push_back({number, begin_offset, segment.end});
    bytes = end;
  }
  stages_.push_back({~uint64_t{0}, ~uint64_t{0}, total_bytes_, std::move(parts)});
}

// Where the records stand that a part of a stage replays: those that its INDEX frames tell of begin
// behind the last INDEX frame before it.
Result<SegmentPart> LogBacklog::PartToRead(const SegmentPart& part, Source** source) {
  const Level& level = *TRY(LevelAt(0));
  const auto found = std::partition_point(
      level.sources.begin(), level.sources.end(),
      [&](const auto& each) { return each->segment.info.number < part.segment_number; });
  *source = found->get();
  TRY(Prepare(**source, level.plan.checkpoint_lsn()));
  if ((*source)->segment.places != nullptr) return part;
  SegmentPart told = {part.segment_number, kSegmentHeaderBytes, kSegmentHeaderBytes};
  for (const Source::Index& index : (*source)->indexes) {
    if (index.offset < part.begin) told.begin = index.offset;
    if (index.offset < part.end) told.end = index.offset;
  }
  return told;
}

// What cannot be read, or is too much, is read record by record.
Status LogBacklog::ReadStage(size_t number) {
  if (number >= stages_.size()) return Status::Ok();
  std::shared_ptr<ReadAhead>& read = reads_[number % kReadAheads];
  if (read != nullptr && read->stage >= number) return Status::Ok();
  if (read == nullptr || read.use_count() > 1)
    read = std::make_shared<ReadAhead>(ReadAhead{number});
  read->stage = number;
  read->parts.clear();
  struct Wanted {
    SegmentPart place;
    const Source* source;
  };
  std::vector<Wanted> wanted;
  uint64_t bytes = 0;
  for (const SegmentPart& part : stages_[number].parts) {
    Source* source = nullptr;
    SegmentPart place = TRY(PartToRead(part, &source));
    const uint64_t size = std::min(place.end - place.begin, kReadAheadBytesMax - bytes);
    place.begin = place.end - size;
    bytes += size;
    if (size > 0) wanted.push_back({place, source});
  }
  if (read->memory.size() < bytes) read->memory.resize(bytes);
  char* at = read->memory.data();
  for (const auto& [place, source] : wanted) {
    const size_t size = place.end - place.begin;
    auto file = disk_.Open(source->segment.info.path, OpenMode::kRead);
    if (!file.ok()) continue;
    const auto got = (*file)->ReadAt(place.begin, {at, size});
    if (!got.ok() || *got != size) continue;
    read->parts.push_back({place, at});
    at += size;
  }
  return Status::Ok();
}

std::unique_ptr<Level> LogBacklog::MakeLevel(Plan plan) {
  auto level = std::make_unique<Level>();
  level->plan = std::move(plan);
  for (Plan::Segment& segment : level->plan.segments) {
    auto source = std::make_unique<Source>();
    source->segment = std::move(segment);
    source->segment.info.file_bytes = source->segment.end;
    level->sources.push_back(std::move(source));
  }
  level->plan.segments.clear();
  if (level->plan.checkpoint) {
    const std::string& path = level->plan.checkpoint->path;
    auto opened = TryTwice([&] { return CheckpointReader::Open(disk_, path, options_.keys); });
    if (opened.ok()) {
      level->checkpoint = std::move(opened).value();
    } else {
      level->problem = opened.message();
      level->problem_errno = opened.system_errno();
    }
  }
  return level;
}

// 0: what the restart decided on; then each older checkpoint; then none at all.
Result<Level*> LogBacklog::LevelAt(size_t depth) {
  std::lock_guard guard(levels_mutex_);
  while (levels_.size() <= depth) {
    std::optional<CheckpointInfo> checkpoint;
    if (levels_.size() <= fallbacks_.size()) checkpoint = fallbacks_[levels_.size() - 1];
    const Level& newest = *levels_.front();
    Plan known;
    known.checkpoint = newest.plan.checkpoint;
    known.last = newest.plan.last;
    known.last_number = newest.plan.last_number;
    known.ring = newest.plan.ring;
    known.ring_shard_count = newest.plan.ring_shard_count;
    RecoveryReport found;
    found.lost_max = kToldRangesMax;  // what has been told already is picked out of them
    Plan plan = TRY(ReadPlanFrom(disk_, options_, known, units_, checkpoint, &found));
    for (const RecoveryReport::LostRange& lost : found.lost) {
      TRY(NoteLost(lost.first, lost.last, lost.where, "it is needed for want of a checkpoint"));
    }
    NoteMoreLost(found);
    for (const std::string& text : plan.gap_losses) NoteWarning(text);
    levels_.push_back(MakeLevel(std::move(plan)));
  }
  return levels_[depth].get();
}

Result<Level*> LogBacklog::ReplayChunks(uint64_t first_unit, uint64_t last_unit,
                                        const TakeChunk& take, Tally* tally) {
  for (size_t depth = 0;; ++depth) {
    Level* level = TRY(LevelAt(depth));
    if (!level->plan.checkpoint) return level;
    std::string problem = level->problem;
    int error = level->problem_errno;
    if (level->checkpoint != nullptr) {
      const uint64_t shards = level->checkpoint->info().identity.shard_count;
      bool begun = false;
      const auto one = [&](uint16_t shard, std::string_view effects) -> Status {
        begun = true;
        Status applied = take(level->plan.checkpoint->lsn, shard, effects);
        if (applied.ok()) return applied;
        ++tally->skipped;
        tally->Warn("a chunk of the checkpoint: " + std::string(applied.message()));
        return Status::Ok();
      };
      Status given =
          level->checkpoint->ForEachChunk(static_cast<uint32_t>(first_unit * shards / units_),
                                          static_cast<uint32_t>(last_unit * shards / units_), one);
      if (given.ok()) return level;
      problem = given.message();
      error = given.system_errno();
      // An older one would make of these shards what they never were.
      if (begun) {
        return Status::Error("the disk does not give twice what it has given once, and a part of " +
                                 level->plan.checkpoint->name + " has been applied: " + problem +
                                 "; start again",
                             EIO);
      }
    }
    const std::string& name = level->plan.checkpoint->name;
    // To go on without it would be to throw away what it holds.
    if (!IsDamage(error)) return Status::Error("cannot read " + name + ": " + problem, error);
    if (options_.recovery != RecoveryMode::kSalvage) {
      return Status::Error(name + " was good and is damaged now: " + problem +
                           "; start again, and an older one will be used");
    }
    NoteDamagedCheckpoint(depth, name, level->plan.checkpoint->lsn, problem);
  }
}

// --- one segment ---------------------------------------------------------------------------------

Status LogBacklog::Map(Source& source) {
  auto file = TRY(disk_.Open(source.segment.info.path, OpenMode::kRead));
  source.mapping = TRY(file->Map());
  return Status::Ok();
}

Status LogBacklog::Prepare(Source& source, Lsn checkpoint_lsn) {
  if (source.prepared.load(std::memory_order_acquire)) return Status::Ok();
  std::lock_guard guard(source.mutex);
  if (source.prepared.load(std::memory_order_relaxed)) return Status::Ok();
  const SegmentInfo& info = source.segment.info;
  Status mapped = TryTwice([&] { return Map(source); });
  if (!mapped.ok()) {
    if (!IsDamage(mapped.system_errno())) return mapped;
    TRY(NoteLost(std::max(info.first_lsn, checkpoint_lsn + 1), source.segment.last, info.name,
                 std::string(mapped.message())));
    source.segment.places = std::make_unique<Places>(1, units_);
    source.segment.places->Finish();
    source.prepared.store(true, std::memory_order_release);
    return Status::Ok();
  }
  source.bytes = std::min<uint64_t>(source.mapping->bytes().size(), source.segment.end);
  source.loaded = by_turns_ && source.mapping->Load(0, source.bytes).ok();
  if (source.segment.places == nullptr && !ReadIndexes(source)) {
    source.indexes.clear();
    source.segment.places = TRY(MakePlaces(source, checkpoint_lsn));
  }
  source.prepared.store(true, std::memory_order_release);
  return Status::Ok();
}

// False where they do not tell of every record in the segment.
bool LogBacklog::ReadIndexes(Source& source) {
  if (source.segment.info.identity.shard_count > kBroadcastShard) return false;  // not by us
  uint64_t records = 0;
  uint64_t before = source.bytes;
  for (uint64_t offset = source.segment.last_index; offset != 0;) {
    FrameHeader header;
    std::string_view frame;
    if (offset >= before || !MappedFrame(source, offset, &header, &frame) ||
        !source.Checks(offset, header, frame)) {
      return false;
    }
    if (header.type != static_cast<uint8_t>(FrameType::kIndex)) return false;
    auto view = IndexView::Parse(frame.substr(sizeof(header), header.length));
    if (!view.ok()) return false;
    std::vector<uint16_t> shards;
    view->Shards(&shards);
    for (const uint16_t shard : shards) {
      if (shard != kBroadcastShard && shard >= source.segment.info.identity.shard_count) {
        return false;
      }
    }
    records += view->records();
    before = offset;
    offset = view->previous();
    source.indexes.push_back({before, std::move(*view)});
  }
  std::reverse(source.indexes.begin(), source.indexes.end());
  return records == source.segment.records;
}

// Tells of all damage in the segment, and where its records stand. `places` may be null.
Status LogBacklog::ReadThrough(Source& source, Lsn checkpoint_lsn, Places* places) {
  auto reader = Reader::OpenSegment(disk_, source.segment.info, source.segment.last, options_.keys);
  for (;;) {
    Frame frame;
    if (!TRY(reader->Next(&frame))) return Status::Ok();
    if (frame.verdict != Verdict::kGood) {
      if (frame.bytes > 0) source.bad.Add(frame.offset, frame.offset + frame.bytes - 1);
      TRY(NoteFrame(source.segment, frame, checkpoint_lsn));
    } else if (places != nullptr && IsRecord(frame.type) && frame.lsn > checkpoint_lsn) {
      places->Add(frame.type, frame.shard, frame.payload, frame.offset);
    }
  }
}

Result<std::unique_ptr<Places>> LogBacklog::MakePlaces(Source& source, Lsn checkpoint_lsn) {
  const uint32_t shard_count = std::max(source.segment.info.identity.shard_count, 1u);
  auto places = std::make_unique<Places>(shard_count, units_);
  TRY(ReadThrough(source, checkpoint_lsn, places.get()));
  places->Finish();
  return places;
}

// A record that should stand at `offset`, behind the LSN `before`, does not check. Reading the
// whole segment tells which records are lost; it is done once for all that is bad in it.
Status LogBacklog::TellDamage(Source& source, Lsn checkpoint_lsn, uint64_t offset, Lsn before) {
  std::lock_guard guard(source.mutex);
  if (source.bad.Contains(offset)) return Status::Ok();
  TRY(ReadThrough(source, checkpoint_lsn, nullptr));
  if (source.bad.Contains(offset)) return Status::Ok();
  source.bad.Add(offset, offset);
  return NoteLost(std::max(before, checkpoint_lsn) + 1, source.segment.last,
                  source.segment.info.name + " from offset " + std::to_string(offset),
                  "a record that is there could not be read when it was its turn");
}

Status LogBacklog::FindOffsets(Source& source, Lsn checkpoint_lsn, uint64_t end, size_t* done,
                               Call& call) {
  call.offsets.clear();
  if (source.segment.places != nullptr) {
    source.segment.places->Offsets(call.unit, std::exchange(*done, end), end, &call.offsets);
    return Status::Ok();
  }
  for (; *done < source.indexes.size() && source.indexes[*done].offset < end; ++*done) {
    const Source::Index& index = source.indexes[*done];
    const size_t before = call.offsets.size();
    if (TakeIndex(source, index.view, call).ok()) [[likely]]
      continue;
    call.offsets.resize(before);
    std::lock_guard guard(source.mutex);
    if (source.read_places == nullptr) {
      source.read_places = TRY(MakePlaces(source, checkpoint_lsn));
    }
    source.read_places->Offsets(call.unit, *done == 0 ? 0 : source.indexes[*done - 1].offset,
                                index.offset, &call.offsets);
  }
  return Status::Ok();
}

Status LogBacklog::TakeIndex(const Source& source, const IndexView& index, Call& call) {
  const uint64_t shards = source.segment.info.identity.shard_count;
  const size_t begin = call.offsets.size();
  int lists = 0;
  const auto add = [&](uint16_t shard) -> Status {
    const size_t before = call.offsets.size();
    TRY(index.Offsets(shard, &call.offsets));
    if (call.offsets.size() > before) ++lists;
    return Status::Ok();
  };
  for (uint64_t shard = call.unit * shards / units_; shard < (call.unit + 1) * shards / units_;
       ++shard) {
    TRY(add(static_cast<uint16_t>(shard)));
  }
  TRY(add(kBroadcastShard));
  if (lists < 2) return Status::Ok();
  const auto first = call.offsets.begin() + static_cast<ptrdiff_t>(begin);
  std::sort(first, call.offsets.end());
  call.offsets.erase(std::unique(first, call.offsets.end()), call.offsets.end());
  return Status::Ok();
}

bool LogBacklog::IsChecked(const Checked& transaction) {
  std::lock_guard guard(checked_mutex_);
  return checked_.count(transaction) != 0;
}

void LogBacklog::RememberChecked(const Checked& transaction) {
  std::lock_guard guard(checked_mutex_);
  if (checked_.size() >= kCheckedTxnsMax) checked_.clear();
  checked_.insert(transaction);
}

// False where the record is not there, or does not check.
bool LogBacklog::ReadRecord(const Source& source, uint64_t offset, FrameReader& reader, bool anew,
                            FrameHeader* header, std::string_view* frame) {
  if (!reader.Read(offset, header, frame, anew)) return false;
  const bool large = header->type == static_cast<uint8_t>(FrameType::kTxn) &&
                     header->length > kLargeRecordBytes && units_ > 1;
  const Checked copy = {source.segment.info.number, offset, frame->data()};
  if (large && IsChecked(copy)) return true;
  if (!source.Checks(offset, *header, *frame)) return false;
  if (large) RememberChecked(copy);
  return true;
}

Status LogBacklog::ReplaySource(Source& source, Lsn checkpoint_lsn, uint64_t end, size_t* done,
                                Call& call) {
  TRY(Prepare(source, checkpoint_lsn));
  TRY(FindOffsets(source, checkpoint_lsn, end, done, call));
  const std::vector<uint64_t>& offsets = call.offsets;
  const uint32_t shard_count = std::max(source.segment.info.identity.shard_count, 1u);
  FrameReader reader(disk_, source, call.read);
  Approach approach(offsets, call.ahead);
  for (size_t i = 0; i < offsets.size(); ++i) {
    approach.To(i, [&](uint64_t offset) { return reader.Peek(offset); });
    const uint64_t offset = offsets[i];
    FrameHeader header = {};
    std::string_view frame;
    // What does not check is read once more: damage stays.
    const bool good = ReadRecord(source, offset, reader, /*anew=*/false, &header, &frame) ||
                      ReadRecord(source, offset, reader, /*anew=*/true, &header, &frame);
    if (!good || !IsRecord(header.type) || header.lsn <= call.last_lsn ||
        header.lsn > source.segment.last) {
      TRY(TellDamage(source, checkpoint_lsn, offset, call.last_lsn));
      continue;
    }
    call.last_lsn = header.lsn;
    if (header.lsn <= call.checkpoint_lsn) continue;
    ApplyRecordOf(header, frame.substr(sizeof(header), header.length), shard_count, call);
  }
  return Status::Ok();
}

void LogBacklog::ReplayRing(const Plan& plan, Call& call) {
  call.offsets.clear();
  ring_places_.Offsets(call.unit, &call.offsets);
  for (const uint64_t offset : call.offsets) {
    const Plan::RingRecord& record = plan.ring[offset / kFrameAlignment];
    const uint64_t before = call.tally.recovered;
    ApplyRecordOf(record.header, record.payload, std::max(plan.ring_shard_count, 1u), call);
    call.tally.of_ring += call.tally.recovered - before;
  }
}

// --- one record ----------------------------------------------------------------------------------

namespace {

bool IsApplied(const FrameHeader& header) {
  const auto type = static_cast<FrameType>(header.type);
  return type == FrameType::kEffect || type == FrameType::kTxn || type == FrameType::kBroadcast;
}

void CountPassedOver(const FrameHeader& header, Tally* tally) {
  const auto type = static_cast<FrameType>(header.type);
  if (type == FrameType::kPolicy) return;
  ++tally->skipped;
  if (type == FrameType::kVoid) return;
  tally->Warn("LSN " + std::to_string(header.lsn) + " has the unknown type " +
              std::to_string(header.type) + " and was passed over");
}

void CountApplied(Lsn lsn, const Status& applied, Tally* tally, bool counts = true) {
  if (applied.ok()) {
    tally->recovered += counts;
    return;
  }
  tally->skipped += counts;
  tally->Warn("LSN " + std::to_string(lsn) + ": " + std::string(applied.message()));
}

}  // namespace

// A record that concerns several units is counted by the first of them.
void LogBacklog::ApplyRecordOf(const FrameHeader& header, std::string_view payload,
                               uint32_t shard_count, Call& call) {
  if (header.type == static_cast<uint8_t>(FrameType::kTxn)) {
    ApplyTxn(header, payload, shard_count, call);
    return;
  }
  const bool counts = header.shard != kBroadcastShard || call.unit == 0;
  if (IsApplied(header)) {
    const Status applied = call.apply(
        {header.lsn, static_cast<RecordType>(header.type), /*of_checkpoint=*/false, payload, {}});
    CountApplied(header.lsn, applied, &call.tally, counts);
  } else if (counts) {
    CountPassedOver(header, &call.tally);
  }
}

void LogBacklog::ApplyTxn(const FrameHeader& header, std::string_view payload, uint32_t shard_count,
                          Call& call) {
  if (!ReadTxnDirectory(payload, &call.parts)) {
    if (call.unit != 0) return;
    ++call.tally.skipped;
    call.tally.Warn("LSN " + std::to_string(header.lsn) +
                    ": the directory of what ran atomically contradicts itself");
    return;
  }
  uint32_t first_unit = units_;
  std::string_view own;
  bool joined = false;
  for (const TxnPart& part : call.parts) {
    const bool of_all = part.shard == kBroadcastShard;
    const uint32_t unit = of_all ? 0 : UnitOfShard(part.shard, shard_count, units_);
    first_unit = std::min(first_unit, unit);
    if (!of_all && unit != call.unit) continue;
    const std::string_view effect = payload.substr(part.offset, part.size);
    if (own.empty()) {
      own = effect;
    } else if (!joined && own.data() + own.size() == effect.data()) {
      own = {own.data(), own.size() + effect.size()};
    } else {
      if (!std::exchange(joined, true)) call.joined.assign(own);
      call.joined.append(effect);
      own = call.joined;
    }
  }
  const bool counts = call.unit == std::min(first_unit, units_ - 1);
  Status applied = Status::Ok();
  if (!own.empty()) applied = call.apply({header.lsn, RecordType::kTxn, false, own, payload});
  CountApplied(header.lsn, applied, &call.tally, counts);
}

// --- replaying -----------------------------------------------------------------------------------

Result<bool> LogBacklog::Replay(const Piece& piece, const Apply& apply, const Ahead& ahead) {
  CHECK_LT(piece.unit, units_);
  Call call{.unit = piece.unit, .apply = apply, .ahead = ahead, .read = piece.read.get()};
  UnitState& state = unit_states_[piece.unit];
  if (by_turns_) {
    TRY(ReplayTurn(&state, call));
    return false;
  }
  const bool whole = piece.stage >= stages_.size() - 1;
  const Stage& stage = whole ? stages_.back() : stages_[piece.stage];
  if (stage.bytes < state.bytes) return false;  // further than that already
  if (state.level == nullptr) state.level = TRY(ReplayChunksOf(call));
  if (units_ == 1) {
    const auto take = [&](const FrameHeader& header, std::string_view payload, bool ring) {
      const uint64_t before = call.tally.recovered;
      ApplyRecordOf(header, payload, /*shard_count=*/1, call);
      if (ring) call.tally.of_ring += call.tally.recovered - before;
    };
    TRY(ForEachRecord(*state.level, take));
  } else {
    TRY(ReplayStage(stage, &state, call));
    if (whole) ReplayRing(state.level->plan, call);
    done_bytes_.fetch_add((stage.bytes - state.bytes) / units_, std::memory_order_relaxed);
    state.bytes = stage.bytes;
  }
  Finish(call.tally, whole ? 1 : 0);
  return whole;
}

// A unit for which an older checkpoint had to serve has more segments, all older than the others'.
Status LogBacklog::ReplayStage(const Stage& stage, UnitState* state, Call& call) {
  const Level& level = *state->level;
  call.checkpoint_lsn = level.plan.checkpoint_lsn();
  call.last_lsn = state->last_lsn;
  for (; state->source < level.sources.size(); ++state->source, state->done_of_source = 0) {
    Source& source = *level.sources[state->source];
    const uint64_t number = source.segment.info.number;
    if (number > stage.segment_number) break;
    const uint64_t end = number < stage.segment_number ? ~uint64_t{0} : stage.offset;
    TRY(ReplaySource(source, call.checkpoint_lsn, end, &state->done_of_source, call));
    if (number == stage.segment_number) break;
  }
  state->last_lsn = call.last_lsn;
  return Status::Ok();
}

// The unit's chunks of the newest checkpoint that has them all.
Result<Level*> LogBacklog::ReplayChunksOf(Call& call) {
  const auto take = [&](Lsn lsn, uint16_t, std::string_view effects) {
    return call.apply({lsn, RecordType::kEffect, /*of_checkpoint=*/true, effects, {}});
  };
  Level* level = TRY(ReplayChunks(call.unit, call.unit + 1, take, &call.tally));
  call.checkpoint_lsn = level->plan.checkpoint_lsn();
  return level;
}

Result<bool> LogBacklog::NextPiece(Piece* piece) {
  if (by_turns_) return NextPieceOfTurn(piece);
  const uint64_t number = next_piece_.fetch_add(1, std::memory_order_relaxed);
  const auto stage = static_cast<uint32_t>(number / units_);
  const bool begins = stage != piece->stage;
  piece->unit = static_cast<uint32_t>(number % units_);
  piece->stage = stage;
  const bool ended = stage >= stages_.size();
  if (units_ == 1) return !ended;
  // The next stage is read by one while the others are still at this one.
  if (begins || piece->unit == units_ / 2) {
    const std::lock_guard lock(reads_mutex_);
    if (begins) piece->read.reset();
    if (ended) return false;
    TRY(ReadStage(piece->unit == units_ / 2 ? stage + 1 : stage));
    const std::shared_ptr<ReadAhead>& read = reads_[stage % kReadAheads];
    if (begins && read != nullptr && read->stage == stage) piece->read = read;
  }
  return !ended;
}

Status LogBacklog::ReplayInOrder(const std::function<Status(const RecordView&)>& apply) {
  Tally tally;
  const auto take = [&](Lsn lsn, uint16_t shard, std::string_view effects) {
    return apply({lsn, RecordType::kEffect, shard, effects});
  };
  Level* level = TRY(ReplayChunks(0, units_, take, &tally));
  TRY(ForEachRecord(*level, [&](const FrameHeader& header, std::string_view payload, bool ring) {
    if (!IsApplied(header)) {
      CountPassedOver(header, &tally);
      return;
    }
    Status applied =
        apply({header.lsn, static_cast<RecordType>(header.type), header.shard, payload});
    CountApplied(header.lsn, applied, &tally);
    if (ring && applied.ok()) ++tally.of_ring;
  }));
  Finish(tally, units_);
  return Status::Ok();
}

// All records of a level in their order, the segments read from their beginning to their end.
Status LogBacklog::ForEachRecord(
    const Level& level,
    const std::function<void(const FrameHeader&, std::string_view, bool ring)>& take) {
  const Lsn checkpoint_lsn = level.plan.checkpoint_lsn();
  Lsn last = checkpoint_lsn;  // what has been seen does not count again, in whatever segment it is
  for (const auto& source : level.sources) {
    const Plan::Segment& segment = source->segment;
    auto reader = Reader::OpenSegment(disk_, segment.info, segment.last, options_.keys);
    for (;;) {
      Frame frame;
      if (!TRY(reader->Next(&frame))) break;
      done_bytes_.fetch_add(frame.bytes, std::memory_order_relaxed);
      if (frame.verdict != Verdict::kGood) {
        TRY(NoteFrame(segment, frame, checkpoint_lsn));
      } else if (IsRecord(frame.type) && frame.lsn > last) {
        last = frame.lsn;
        FrameHeader header = {};
        header.lsn = frame.lsn;
        header.type = frame.type;
        header.flags = frame.flags;
        header.shard = frame.shard;
        take(header, frame.payload, /*ring=*/false);
      }
    }
  }
  for (const Plan::RingRecord& record : level.plan.ring) {
    take(record.header, record.payload, /*ring=*/true);
  }
  return Status::Ok();
}

// --- what has been found -------------------------------------------------------------------------

Status LogBacklog::NoteFrame(const Plan::Segment& segment, const Frame& frame, Lsn checkpoint_lsn) {
  if (frame.verdict != Verdict::kCorrupt && frame.verdict != Verdict::kMissing) {
    return Status::Ok();
  }
  const Lsn first = std::max(frame.lost_first, checkpoint_lsn + 1);
  // What no record is lost by has been told where the segment has been read before.
  if (frame.lost_last < first && segment.read_through) return Status::Ok();
  return NoteLost(first, frame.lost_last,
                  segment.info.name + " bytes " + std::to_string(frame.offset) + " to " +
                      std::to_string(frame.offset + frame.bytes),
                  frame.reason);
}

// Tells of what has not been told before.
Status LogBacklog::NoteLost(Lsn first, Lsn last, const std::string& where,
                            const std::string& reason) {
  std::lock_guard guard(report_mutex_);
  const std::vector<Ranges::Range> ranges = lost_.Without(first, last);
  if (first <= last && ranges.empty()) return Status::Ok();
  lost_.Add(first, last);
  std::string text = where + ": " + reason;
  for (const auto& [from, to] : ranges) {
    report_.NoteLost(from, to, where);
    text += "; " + LostText(from, to) + " lost";
  }
  if (options_.recovery != RecoveryMode::kSalvage) {
    return Status::Error("the log in " + options_.directory +
                         " was whole and is damaged now: " + text);
  }
  text += ranges.empty() ? "; no record is lost by it"
                         : "; going on behind it (the result may be a state that never was)";
  if (report_.warnings.size() < kWarningsMax) report_.warnings.push_back(std::move(text));
  return Status::Ok();
}

// Counts what was found lost and not kept apart.
void LogBacklog::NoteMoreLost(const RecoveryReport& found) {
  if (found.lost_more == 0) return;
  RecoveryReport kept;
  for (const RecoveryReport::LostRange& lost : found.lost) kept.NoteLost(lost.first, lost.last, {});
  std::lock_guard guard(report_mutex_);
  report_.lost_more += found.lost_more;
  report_.corrupted_entries += found.corrupted_entries - kept.corrupted_entries;
}

void LogBacklog::NoteDamagedCheckpoint(size_t depth, const std::string& name, Lsn lsn,
                                       const std::string& problem) {
  const bool older = depth < fallbacks_.size();
  const std::string text =
      name + " is damaged (" + problem + "): what it lacks comes from " +
      (older ? fallbacks_[depth].name + " and the segments since" : "the segments alone");
  {
    std::lock_guard guard(report_mutex_);
    if (report_.checkpoint_problem.empty()) report_.checkpoint_problem = text;
    std::vector<Lsn>& damaged = report_.damaged_checkpoints;
    if (std::find(damaged.begin(), damaged.end(), lsn) == damaged.end()) damaged.push_back(lsn);
  }
  NoteWarning(text);
}

// Once, whoever meets it first.
void LogBacklog::NoteWarning(const std::string& text) {
  std::lock_guard guard(report_mutex_);
  AddWarning(text);
}

// report_mutex_ is held.
void LogBacklog::AddWarning(const std::string& text) {
  auto& warnings = report_.warnings;
  if (warnings.size() >= kWarningsMax) return;
  if (std::find(warnings.begin(), warnings.end(), text) == warnings.end()) warnings.push_back(text);
}

void LogBacklog::Finish(const Tally& tally, uint32_t units) {
  std::lock_guard guard(report_mutex_);
  report_.entries_recovered += tally.recovered;
  report_.entries_skipped += tally.skipped;
  report_.ring_entries_recovered += tally.of_ring;
  // What concerns several units is met by each of them.
  for (const std::string& warning : tally.warnings) AddWarning(warning);
  units_done_ += units;
  if (units_done_ < units_) return;
  done_bytes_.store(total_bytes_, std::memory_order_relaxed);
  report_.recovery_time_ms = (RealClock().MonotonicUs() - started_us_) / 1000;
}

RecoveryReport LogBacklog::report() const {
  std::lock_guard guard(report_mutex_);
  return report_;
}

std::unique_ptr<Backlog> MakeBacklog(Disk& disk, const Options& options, Recovered& recovered,
                                     RecoveryReport report, int64_t started_us) {
  return std::make_unique<LogBacklog>(disk, options, recovered, std::move(report), started_us);
}

}  // namespace crab::wal

// How a log with PACKs is replayed: the road of backlog.cc cut into turns, each of which all units
// take before the next one begins: the checkpoint, plain segments that follow each other, each
// window of packed ones, the ring. Whoever finds no unit left of a turn unpacks for the next one.
#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "persistence/backlog_impl.h"
#include "utils/check.h"

namespace crab::wal {

Result<bool> LogBacklog::NextPieceOfTurn(Piece* piece) {
  std::unique_lock lock(turn_mutex_);
  for (;;) {
    if (!turn_error_.empty()) return Status::Error(turn_error_, turn_errno_);
    if (ended_) return false;
    if (turn_next_ < units_ && turn_left_ > 0) {
      piece->unit = turn_next_++;
      return true;
    }
    Status status = Status::Ok();
    if (unpacker_ != nullptr && unpacker_->wanted()) {
      status = UnpackMore(lock);
    } else if (turn_left_ == 0 && (unpacker_ == nullptr || unpacker_->ready())) {
      status = BeginTurn();
    } else {
      turn_changed_.wait(lock);
      continue;
    }
    if (!status.ok()) Fail(status);
    turn_changed_.notify_all();
  }
}

// One bundle of the next window. The lock is held while it is read, which is for one at a time.
Status LogBacklog::UnpackMore(std::unique_lock<std::mutex>& lock) {
  std::unique_ptr<Unpacker::Job> job = TRY(unpacker_->Take());
  lock.unlock();
  Status unpacked = job->Unpack();
  lock.lock();
  unpacker_->Put(std::move(job));
  return unpacked;
}

// Nobody is replaying. Leaves no units where there is nothing for them yet.
Status LogBacklog::BeginTurn() {
  turn_ = Turn();
  if (!std::exchange(begun_, true)) {
    turn_.chunks = true;
    const auto& checkpoint = TRY(LevelAt(0))->plan.checkpoint;
    if (checkpoint) turn_.bytes = checkpoint->file_bytes;
  } else {
    if (deepest_ == nullptr) {
      deepest_ = unit_states_.front().level;
      for (const UnitState& state : unit_states_) {
        if (state.level->plan.checkpoint_lsn() < deepest_->plan.checkpoint_lsn()) {
          deepest_ = state.level;
        }
      }
    }
    if (unpacker_ != nullptr) TRY(BeginWindow());
    if (unpacker_ == nullptr) BeginSources();
    if (turn_.bundles.empty() && turn_.sources.empty() && !turn_.ring) {
      if (unpacker_ != nullptr) return Status::Ok();
      ended_ = true;
      Finish(Tally(), units_);
      return Status::Ok();
    }
  }
  turn_next_ = 0;
  turn_left_ = units_;
  return Status::Ok();
}

// What has been unpacked; without an unpacker once that is all.
Status LogBacklog::BeginWindow() {
  turn_.bundles = unpacker_->TakeWindow();
  if (turn_.bundles.empty()) unpacker_.reset();
  for (const Bundle& bundle : turn_.bundles) {
    turn_.bytes += bundle.file_bytes;
    for (const Frame& frame : bundle.bad) {
      TRY(NoteFrame(*bundle.segment, frame, deepest_->plan.checkpoint_lsn()));
    }
  }
  return Status::Ok();
}

// The plain segments that are next, and the ring behind the last one; or an unpacker of the packed
// ones.
void LogBacklog::BeginSources() {
  const auto& sources = deepest_->sources;
  std::vector<const Plan::Segment*> packed;
  for (; next_source_ < sources.size(); ++next_source_) {
    Source& source = *sources[next_source_];
    const bool packs = source.segment.info.packs();
    if (packs ? !turn_.sources.empty() : !packed.empty()) break;
    if (packs) {
      packed.push_back(&source.segment);
    } else {
      turn_.sources.push_back(&source);
      turn_.bytes += source.segment.end - kSegmentHeaderBytes;
    }
  }
  if (!packed.empty()) {
    unpacker_ =
        std::make_unique<Unpacker>(disk_, options_.keys, units_, deepest_->plan.checkpoint_lsn(),
                                   std::move(packed), options_.unpacked_bytes_max / 2);
  } else if (next_source_ == sources.size() && !std::exchange(ring_begun_, true)) {
    turn_.ring = true;
    for (const Plan::RingRecord& record : deepest_->plan.ring) {
      turn_.bytes += FrameBytes(record.payload.size());
    }
  }
}

// What the turn has of a unit.
Status LogBacklog::ReplayTurn(UnitState* state, Call& call) {
  Status status = [&]() -> Status {
    if (turn_.chunks) {
      state->level = TRY(ReplayChunksOf(call));
      return Status::Ok();
    }
    call.checkpoint_lsn = state->level->plan.checkpoint_lsn();
    call.last_lsn = state->last_lsn;
    for (Source* source : turn_.sources) {
      size_t done = 0;
      TRY(ReplaySource(*source, deepest_->plan.checkpoint_lsn(), ~uint64_t{0}, &done, call));
    }
    for (const Bundle& bundle : turn_.bundles) ReplayBundle(bundle, call);
    if (turn_.ring) ReplayRing(deepest_->plan, call);
    state->last_lsn = call.last_lsn;
    return Status::Ok();
  }();
  Finish(call.tally, 0);
  done_bytes_.fetch_add(turn_.bytes / units_, std::memory_order_relaxed);
  std::lock_guard lock(turn_mutex_);
  if (!status.ok()) Fail(status);
  if (--turn_left_ == 0 || !status.ok()) turn_changed_.notify_all();
  return status;
}

// turn_mutex_ is held.
void LogBacklog::Fail(const Status& status) {
  if (!turn_error_.empty()) return;
  turn_error_ = status.message();
  turn_errno_ = status.system_errno();
}

// What is in a bundle has been checked.
void LogBacklog::ReplayBundle(const Bundle& bundle, Call& call) {
  call.offsets.clear();
  bundle.places->Offsets(call.unit, &call.offsets);
  const uint32_t shard_count = std::max(bundle.segment->info.identity.shard_count, 1u);
  const std::string_view plain = bundle.plain;
  Approach approach(call.offsets, call.ahead);
  for (size_t i = 0; i < call.offsets.size(); ++i) {
    approach.To(i, [&](uint64_t offset) { return plain.substr(offset, Approach::kPeekedBytes); });
    const char* const record = plain.data() + call.offsets[i];
    FrameHeader header;
    std::memcpy(&header, record, sizeof(header));
    if (header.lsn <= call.last_lsn) continue;
    call.last_lsn = header.lsn;
    if (header.lsn <= call.checkpoint_lsn) continue;
    ApplyRecordOf(header, {record + sizeof(header), header.length}, shard_count, call);
  }
}

}  // namespace crab::wal

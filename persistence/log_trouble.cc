// When the disk fails. The file at hand is dead; the ring still has what is not durable, and a new
// segment of a new epoch gets it. When that fails too, `on_error` decides: refuse (the ring keeps
// everything and the disk is tried again, and while that fails it is decided anew), degrade (the
// ring is given up, and the log waits until the disk works and Resume() is called), or exit. The
// writer's thread only.
//
// After Resume() records are kept behind a gap, and nothing is promised of them until a checkpoint
// bridges it: replies are not held, durable_lsn stands still, and a failure of the disk just begins
// another gap. A new segment that begins where the gap's began (nothing behind it was durable) says
// GAP again, for without that it would be read as undoing the gap.
//
// A directory that vanished is not made anew: mostly it is a mount that went away, and what is
// written below its place would be hidden when it returns. Nor is an empty one on another file
// system taken for it. Once there is one again, the log locks it and goes on in it: in a new epoch
// where the old segments are there, behind a gap where they are not. No segment is begun before the
// directory at its place is known to be the locked one.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "persistence/log_impl.h"
#include "persistence/reader.h"
#include "utils/check.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

constexpr int kFailuresMax = 3;  // new segments tried before the disk counts as broken
constexpr int kRelapsesMax = 6;  // of which each doubles the time to the next try
constexpr int64_t kLookAgainUs = 1000000;

}  // namespace

// The file at hand is given up; a new one gets what the ring still holds.
void LogImpl::MeetDiskError(const Status& error, bool sync) {
  {
    std::lock_guard guard(control_mutex_);
    ++(sync ? metrics_.sync_errors : metrics_.write_errors);
    metrics_.last_error = error.message();
  }
  if (segment_ != nullptr && named_) {
    failed_ = segment_->info();
    failed_->file_bytes = segment_->offset();
    // All of it goes into the next file or is given up; what it takes may be what fills the disk.
    if (failed_->first_lsn > written_lsn_.load(std::memory_order_relaxed)) {
      (void)segment_->CutToStart();
    }
  }
  LeaveSegment();
  stage_.clear();
  plain_.clear();
  plain_records_ = 0;
  sync_requested_.store(true, std::memory_order_seq_cst);  // whoever asked still waits
  if (IsOutOfSpace(error.system_errno())) {
    spares_->GiveUp();
    RemoveRetirable();
  }
  // Nothing that waits for a checkpoint was promised.
  const bool awaits = awaits_checkpoint_.load(std::memory_order_relaxed);
  if (++failures_ > kFailuresMax || awaits || error.system_errno() == ENOENT) {
    EnterTrouble(error);
    return;
  }
  Status begun = BeginAfterFailure();
  if (!begun.ok()) {
    EnterTrouble(begun);
    return;
  }
  if (failures_ == 1) {
    LogWarn("a segment of the log failed; what was not durable goes into a new one",
            {{"error", error.message()}, {"new", segment_->info().name}});
  }
  std::lock_guard guard(control_mutex_);
  ++metrics_.heals;
}

// A new segment of a new epoch for everything that is not durable. Under `none` some of that has
// left the ring; the failed file can still be read, most likely, though not trusted to last.
// The new file ends the old one from the moment it has its name. So all that was written is in it
// by then, not only what is durable: of what a heap holds, and of everything where no ring is left,
// a restart finds the copy in a file alone, and a reply may have left that counts on it.
Status LogImpl::BeginAfterFailure() {
  const Lsn freed = ring_->header().freed_lsn.load(std::memory_order_relaxed);
  const Lsn durable = durable_lsn_.load(std::memory_order_relaxed);
  staged_ = block_staged_ = Mark{freed, tail_.load(std::memory_order_relaxed)};
  next_lsn_ = freed + 1;
  const bool copies = safe_lsn_ < freed && failed_;
  const Lsn first = copies ? safe_lsn_ + 1 : next_lsn_;
  const std::string made_at =
      TRY(PrepareSegment(epoch_ + 1, first, /*gap=*/first == gap_first_lsn_));
  Status begun = [&]() -> Status {
    if (copies) TRY(CopyBack(first, freed));
    return WriteAgain(std::max(durable, written_lsn_.load(std::memory_order_relaxed)));
  }();
  if (begun.ok()) return NameSegment(made_at);
  (void)disk_.Remove(made_at);
  LeaveSegment();
  // A write that failed may go better the next time; what cannot be read is lost, and the next
  // start reports it.
  if (begun.system_errno() != 0 || !copies) return begun;
  LogError(
      "a segment of the log failed and cannot be read back: what it held and no sync covered " +
          LostText(first, freed) + ", is lost",
      {{"segment", failed_->name}, {"error", begun.message()}});
  failed_.reset();
  return BeginAfterFailure();
}

// Copies the records from `first` to `last` out of the failed file into the new one. An error
// without an errno: they are not there.
Status LogImpl::CopyBack(Lsn first, Lsn last) {
  auto reader = Reader::OpenSegment(disk_, *failed_, last, options_.keys);
  Lsn wanted = first;
  for (Frame frame; wanted <= last;) {
    if (!TRY(reader->Next(&frame))) break;
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type) || frame.lsn < wanted) continue;
    if (frame.lsn > wanted) break;
    FrameHeader header = {};
    header.length = static_cast<uint32_t>(frame.payload.size());
    header.lsn = frame.lsn;
    header.type = frame.type;
    header.flags = frame.flags;
    header.shard = frame.shard;
    header.crc = BodyCrc(header, frame.payload);
    Stage(header, frame.payload);
    ++wanted;
    if (staged_bytes() >= kStageBytes) TRY(WriteFirst());
  }
  TRY(WriteFirst());
  if (wanted <= last) return Status::Error("the failed segment cannot be read back");
  return Status::Ok();
}

// Writes what the ring holds up to `last` into a segment that has no name yet.
Status LogImpl::WriteAgain(Lsn last) {
  Published record;
  while (next_lsn_ <= last && FindPublished(next_lsn_, &record)) {
    NoteStaged(record);
    if (record.header.length <= kLargeBytes) {
      Stage(record.header, record.payload);
    } else if (segment_->packs()) {
      TRY(StagePack());
      Stage(record.header, record.payload);
      TRY(StagePack());
    } else {
      TRY(WriteFirst());
      TRY(WriteLarge(record));
    }
    if (staged_bytes() >= kStageBytes) TRY(WriteFirst());
  }
  CHECK_GT(next_lsn_, last);  // nothing is freed before it is in a file that counts
  TRY(StagePack());
  if (segment_->records() == 0) return Status::Ok();
  // Whoever waits for the room that all of this takes may be the one whose record would be next.
  segment_->AddDueIndex(stage_);
  FillBlock();
  block_staged_ = staged_;
  return WriteFirst();
}

// Writes what a segment begins with before it has its name. A spare has its old one until then, and
// passes as all zeroes after a power cut that kept this and not the header.
Status LogImpl::WriteFirst() {
  TRY(StagePack());
  if (std::exchange(passes_as_spare_, false)) TRY(SyncFile());
  return segment_->Write(std::exchange(stage_, {}));
}

void LogImpl::EnterTrouble(const Status& error) {
  LeaveSegment();
  {
    std::lock_guard guard(control_mutex_);
    metrics_.last_error = error.message();
  }
  relapses_ = std::min(relapses_ + 1, kRelapsesMax);
  retry_at_us_ = clock_.MonotonicUs() + RetryDelayUs();
  notify_ = true;
  if (stopping_.load(std::memory_order_seq_cst)) {
    SetState(State::kRefusing);  // FinishLog() tries once more, and tells
    return;
  }
  ActInTrouble(error, ActionInTrouble());
}

// What the options say by now: degrade, refuse or exit.
OnError LogImpl::ActionInTrouble() const {
  const OnError action = on_error_.load(std::memory_order_relaxed);
  const bool sync = policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
  if (action == OnError::kExit) return action;
  // Nothing was promised behind the gap, so there is nothing to refuse for.
  if (awaits_checkpoint_.load(std::memory_order_relaxed)) return OnError::kDegrade;
  if (action == OnError::kAuto) return sync ? OnError::kRefuse : OnError::kDegrade;
  return action;
}

void LogImpl::ActInTrouble(const Status& error, OnError action) {
  if (action == OnError::kExit) {
    if (!options_.on_fatal) {
      LogError(std::string(error.message()) + "; exiting", {{"wal-on-error", "exit"}});
      // Also where the log is a file: what starts the server keeps what it says at its end.
      std::fprintf(stderr, "%s; exiting (wal-on-error exit)\n",
                   std::string(error.message()).c_str());
      std::_Exit(EXIT_FAILURE);
    }
    options_.on_fatal(error.message());
    if (awaits_checkpoint_.load(std::memory_order_relaxed)) action = OnError::kDegrade;
  }
  const int64_t retry_ms = RetryDelayUs() / 1000;
  if (action != OnError::kDegrade) {
    LogError(std::string(error.message()) + "; writes are refused until the disk works again",
             {{"next_try_ms", retry_ms}, {"wal-on-error", "refuse"}});
    SetState(State::kRefusing);
    return;
  }
  LogError(std::string(error.message()) + "; serving without the log: what changes from here on " +
               "is lost with the process, until the disk works again",
           {{"next_try_ms", retry_ms}, {"wal-on-error", "degrade"}});
  GiveUpRing();
}

// From here on nothing is kept: what is in the ring is given up with what comes.
void LogImpl::GiveUpRing() {
  const bool sync = policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
  LockReservation();
  dropping_ = true;
  ring_->header().given_up.store(1, std::memory_order_release);
  const Lsn last = last_lsn_.load(std::memory_order_relaxed);
  const Lsn durable = durable_lsn_.load(std::memory_order_relaxed);
  given_up_first_.store(durable + 1, std::memory_order_release);
  given_up_last_.store(last, std::memory_order_release);
  // Behind a gap no reply had been held.
  if (sync && !awaits_checkpoint_.exchange(false, std::memory_order_acq_rel)) {
    failed_first_.store(durable + 1, std::memory_order_release);
    failed_last_.store(last, std::memory_order_release);
  }
  awaits_checkpoint_.store(false, std::memory_order_release);
  dropped_.fetch_add(last - written_lsn_.load(std::memory_order_relaxed),
                     std::memory_order_relaxed);
  // What is dropped has no LSN, so it gets one together: a checkpoint from before it is not to be
  // taken for one that has it.
  last_lsn_.store(last + 1, std::memory_order_release);
  SetState(State::kDegraded);
  UnlockReservation();
}

void LogImpl::RetryTrouble(int64_t now_us) {
  retry_at_us_ = now_us + RetryDelayUs();
  // Resume() may have been called since it was found that the log does not work.
  if (resumable() || awaits_checkpoint_.load(std::memory_order_acquire)) return;
  Status opened = TakeDirectory();
  if (opened.ok() && state() != State::kDegraded && PastIsLost()) {
    LogError(
        "the segments of the log are gone from its directory; a checkpoint is to begin it "
        "anew, and what had not been answered is given up",
        {{"directory", options_.directory}});
    notify_ = true;
    GiveUpRing();
  }
  const bool degraded = state() == State::kDegraded;
  if (degraded) {
    // The appenders that had reserved before the log degraded must be through.
    const Lsn given_up = given_up_last_.load(std::memory_order_relaxed);
    Published record;
    for (Lsn lsn = next_lsn_; lsn <= given_up; ++lsn) {
      if (!FindPublished(lsn, &record)) return;
    }
    const Lsn last = last_lsn_.load(std::memory_order_acquire);
    FreeHeap(last);
    next_lsn_ = last + 1;
    staged_ = block_staged_ = Mark{last, head_.load(std::memory_order_relaxed)};
    safe_lsn_ = last;
    failed_.reset();
  }
  if (opened.ok()) {
    opened = degraded ? OpenSegment(epoch_ + 1, next_lsn_, /*gap=*/true) : BeginAfterFailure();
  }
  {
    std::lock_guard guard(control_mutex_);
    metrics_.last_error = opened.message();
    if (opened.ok()) ++metrics_.heals;
  }
  if (!opened.ok()) {
    // The options may have changed since it was decided to refuse.
    const OnError action = ActionInTrouble();
    if (state() == State::kRefusing && action != OnError::kRefuse) {
      notify_ = true;
      ActInTrouble(opened, action);
    }
    return;
  }
  LogWarn(degraded ? "the disk of the log works again; the log goes on once there is a checkpoint"
                   : "the disk of the log works again; writes are accepted",
          {{"segment", segment_->info().name}, {"epoch", segment_->info().epoch}});
  // All of the ring is free for what comes after Resume(). Not before the gap is on disk: until
  // then a restart finds in the ring what the files lack.
  if (degraded) {
    Free(staged_);
    synced_lsn_ = next_lsn_ - 1;
    gap_first_lsn_ = next_lsn_;
    gap_durable_lsn_ = durable_lsn_.load(std::memory_order_relaxed);
  }
  failures_ = 0;
  notify_ = true;
  clean_at_us_ = 0;  // all that waited is overdue
  if (degraded) {
    written_lsn_.store(next_lsn_ - 1, std::memory_order_release);
    resumable_.store(true, std::memory_order_release);
  } else {
    SetState(State::kRunning);
  }
}

// A checkpoint has bridged the gap: from here on promises are made again.
void LogImpl::EndGap() {
  if (!awaits_checkpoint_.load(std::memory_order_acquire)) return;
  const Lsn checkpoint = checkpoint_lsn_.load(std::memory_order_acquire);
  if (checkpoint < gap_lsn_.load(std::memory_order_relaxed)) return;
  durable_lsn_.store(synced_lsn_, std::memory_order_release);
  ring_->header().durable_lsn.store(synced_lsn_, std::memory_order_release);
  ring_->header().given_up.store(0, std::memory_order_release);
  notify_ = true;
  {
    std::lock_guard guard(control_mutex_);  // metrics() never sees half of it
    awaits_checkpoint_.store(false, std::memory_order_release);
    if (segment_ == nullptr) return;  // it failed while the log was told to stop: see FinishLog()
    SetState(State::kRunning);
  }
  LogWarn("the log goes on behind a checkpoint; all promises hold again",
          {{"checkpoint_lsn", checkpoint}, {"segment", segment_->info().name}});
}

// Looked for now and then: a file whose name is gone would take records that no restart finds.
Status LogImpl::LookForSegment() {
  const int64_t now_us = clock_.MonotonicUs();
  if (!named_ || now_us - looked_at_us_ < kLookAgainUs) return Status::Ok();
  looked_at_us_ = now_us;
  auto links = disk_.LinkCount(segment_->info().path);
  if (links.system_errno() == ENOENT) return links.TakeStatus();
  return CheckDirectory();
}

// Nothing is begun in a directory that this log does not hold.
Status LogImpl::CheckDirectory() const {
  using Place = DirectoryLock::Place;
  const Place place = directory_lock_ == nullptr ? Place::kSame : directory_lock_->place();
  if (place == Place::kSame) return Status::Ok();
  return Status::Error("the directory of the log " + options_.directory +
                           (place == Place::kGone ? " is gone" : " is not the one it was") +
                           ": No such file or directory",
                       ENOENT);
}

// What stands at the directory's place now becomes the log's: locked, and known to the ring.
Status LogImpl::TakeDirectory() {
  using Place = DirectoryLock::Place;
  const Place place = directory_lock_->place();
  if (place == Place::kSame) return Status::Ok();
  if (place == Place::kGone) return CheckDirectory();
  // Most likely the mount is away, and this is what lies below it.
  if (place == Place::kOtherDevice && PastIsLost()) {
    return Status::Error(
        "the directory of the log " + options_.directory +
            " is on another file system now and has none of its segments: mount what was there, "
            "or begin the log anew with CONFIG SET wal-enabled no and yes",
        ENOENT);
  }
  auto lock = TRY(disk_.Lock(options_.directory));
  TRY(ring_->MoveTo(Ring::StampFor(identity_.log_id, options_.directory)));
  directory_lock_ = std::move(lock);
  return Status::Ok();
}

// The directory is there, and the segment that was written last is not in it.
bool LogImpl::PastIsLost() {
  const auto last = std::find_if(old_segments_.rbegin(), old_segments_.rend(),
                                 [](const OldSegment& old) { return old.certain; });
  if (last == old_segments_.rend() || !disk_.List(options_.directory).ok()) return false;
  return disk_.LinkCount(last->path).system_errno() == ENOENT;
}

}  // namespace crab::wal

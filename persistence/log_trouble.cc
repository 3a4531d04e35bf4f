// When the disk fails. The file at hand is dead; the ring still has what is not durable, and a new
// segment of a new epoch gets it. When that fails too, `on_error` decides: refuse (the ring keeps
// everything and the disk is tried again), degrade (the ring is given up, and the log waits until
// the disk works and Resume() is called), or exit. The writer's thread only.
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "persistence/log_impl.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

constexpr int kFailuresMax = 3;  // new segments tried before the disk counts as broken
constexpr int kRelapsesMax = 6;  // of which each doubles the time to the next try

}  // namespace

// The file at hand is given up; a new one gets what the ring still holds.
void LogImpl::MeetDiskError(const Status& error, bool sync) {
  {
    std::lock_guard guard(control_mutex_);
    ++(sync ? metrics_.sync_errors : metrics_.write_errors);
    metrics_.last_error = error.message();
  }
  if (segment_ != nullptr) {
    failed_ = segment_->info();
    // All of it goes into the next file or is given up; what it takes may be what fills the disk.
    if (failed_->first_lsn > written_lsn_.load(std::memory_order_relaxed)) {
      (void)segment_->CutToStart();
    }
  }
  segment_ = nullptr;
  stage_.clear();
  sync_requested_.store(true, std::memory_order_seq_cst);  // whoever asked still waits
  if (error.system_errno() == ENOSPC) spares_->GiveUp();
  if (++failures_ > kFailuresMax) {
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
// The new file ends the old one from the moment it has its name: what of the old one is durable and
// above the new one's first LSN is copied before that.
Status LogImpl::BeginAfterFailure() {
  const Lsn freed = ring_->header().freed_lsn.load(std::memory_order_relaxed);
  const Lsn durable = durable_lsn_.load(std::memory_order_relaxed);
  staged_ = block_staged_ = Mark{freed, tail_.load(std::memory_order_relaxed)};
  next_lsn_ = freed + 1;
  const bool copies = safe_lsn_ < freed && failed_;
  const Lsn first = copies ? safe_lsn_ + 1 : next_lsn_;
  const std::string made_at = TRY(PrepareSegment(epoch_ + 1, first, /*gap=*/false));
  stage_.clear();
  Status begun = [&]() -> Status {
    if (copies) TRY(CopyBack(first, freed));
    Published record;
    while (next_lsn_ <= durable && FindPublished(next_lsn_, &record)) {
      const uint64_t start = segment_->offset();
      segment_->Add(stage_, record.header, record.payload);
      NoteStaged(record, start, segment_->offset());
    }
    TRY(segment_->Write(std::exchange(stage_, {})));
    return Status::Ok();
  }();
  if (begun.ok()) return NameSegment(made_at);
  segment_ = nullptr;
  // A write that failed may go better the next time; what cannot be read is lost, and the next
  // start reports it.
  if (begun.system_errno() != 0 || !copies) return begun;
  failed_.reset();
  return BeginAfterFailure();
}

// Copies the records from `first` to `last` out of the failed file into the new one. An error
// without an errno: they are not there.
Status LogImpl::CopyBack(Lsn first, Lsn last) {
  auto file = disk_.Open(failed_->path, OpenMode::kRead);
  if (!file.ok()) return file.TakeStatus();
  std::string bytes(TRY(file.value()->Size()), '\0');
  bytes.resize(TRY(file.value()->ReadAt(0, bytes)));
  Lsn wanted = first;
  for (uint64_t at = kSegmentHeaderBytes; wanted <= last;) {
    FrameHeader header;
    if (bytes.size() - at < sizeof(header)) break;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    const uint64_t frame_bytes = FrameBytes(header.length);
    if (header.type == 0 || frame_bytes > bytes.size() - at) break;
    const std::string_view payload(bytes.data() + at + sizeof(header), header.length);
    header.crc ^= PlaceMix(failed_->salt, at);
    if (header.crc != BodyCrc(header, payload)) break;
    if (IsRecord(header.type) && header.lsn == wanted) {
      segment_->Add(stage_, header, payload);
      ++wanted;
    }
    if (stage_.size() >= kStageBytes) TRY(segment_->Write(std::exchange(stage_, {})));
    at += frame_bytes;
  }
  TRY(segment_->Write(std::exchange(stage_, {})));
  if (wanted <= last) return Status::Error("the failed segment cannot be read back");
  return Status::Ok();
}

void LogImpl::EnterTrouble(const Status& error) {
  segment_ = nullptr;
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
  OnError action = on_error_.load(std::memory_order_relaxed);
  const bool sync = policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
  if (action == OnError::kAuto) action = sync ? OnError::kRefuse : OnError::kDegrade;
  if (action == OnError::kExit) {
    if (!options_.on_fatal) {
      std::fprintf(stderr, "%s; exiting (wal-on-error exit)\n",
                   std::string(error.message()).c_str());
      std::_Exit(EXIT_FAILURE);
    }
    options_.on_fatal(error.message());
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
  // From here on nothing is kept: what is in the ring is given up with what comes.
  LockReservation();
  dropping_ = true;
  ring_->header().given_up.store(1, std::memory_order_release);
  const Lsn last = last_lsn_.load(std::memory_order_relaxed);
  const Lsn durable = durable_lsn_.load(std::memory_order_relaxed);
  given_up_first_.store(durable + 1, std::memory_order_release);
  given_up_last_.store(last, std::memory_order_release);
  if (sync) {
    failed_first_.store(durable + 1, std::memory_order_release);
    failed_last_.store(last, std::memory_order_release);
  }
  dropped_.fetch_add(last - written_lsn_.load(std::memory_order_relaxed),
                     std::memory_order_relaxed);
  SetState(State::kDegraded);
  UnlockReservation();
}

void LogImpl::RetryTrouble(int64_t now_us) {
  retry_at_us_ = now_us + RetryDelayUs();
  const bool degraded = state() == State::kDegraded;
  if (degraded && resumable()) return;
  if (degraded) {
    // The appenders that had reserved before the log degraded must be through.
    const Lsn last = last_lsn_.load(std::memory_order_acquire);
    Published record;
    for (Lsn lsn = next_lsn_; lsn <= last; ++lsn) {
      if (!FindPublished(lsn, &record)) return;
    }
    FreeHeap(last);
    next_lsn_ = last + 1;
    staged_ = block_staged_ = Mark{last, head_.load(std::memory_order_relaxed)};
    safe_lsn_ = last;
    failed_.reset();
  }
  Status opened = degraded ? OpenSegment(epoch_ + 1, next_lsn_, /*gap=*/true) : BeginAfterFailure();
  {
    std::lock_guard guard(control_mutex_);
    metrics_.last_error = opened.message();
    if (opened.ok()) ++metrics_.heals;
  }
  if (!opened.ok()) return;
  LogWarn(degraded ? "the disk of the log works again; the log goes on once an image is in it"
                   : "the disk of the log works again; writes are accepted",
          {{"segment", segment_->info().name}, {"epoch", segment_->info().epoch}});
  // All of the ring is free for what comes after Resume(). Not before the gap is on disk: until
  // then a restart finds in the ring what the files lack.
  if (degraded) Free(staged_);
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

}  // namespace crab::wal

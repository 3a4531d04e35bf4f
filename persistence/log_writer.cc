// The writer's side of the log: one thread that drains the ring.
//
// When it works. Where replies wait for it (`sync`, or no shared ring) it sleeps until kicked and
// works at once; what gathers during one sync goes into the next. Otherwise it works as seldom as
// the promises allow, because on a shared core each round costs a switch of threads: when
// buffer_bytes have gathered, but after a round not before a nap of 2 ms, unless the ring is half
// full; and in time to keep flush_interval_ms.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <utility>

#include "persistence/log_impl.h"

namespace crab::wal {
namespace {

constexpr uint64_t kPackBytesMin = uint64_t{64} << 10;  // what a full segment may overshoot by
constexpr uint64_t kBlockBytes = 4096;                  // what a disk rewrites at least
constexpr int64_t kNapUs = 2000;
constexpr int64_t kLongestSleepUs = 1000000;
constexpr int64_t kCopyUs = 50;         // another loop's record is being copied at this moment
constexpr int64_t kKickLostUs = 20000;  // for callers that append and do not kick
constexpr uint64_t kBatchBytes = FrameBytes(sizeof(BatchPayload));

}  // namespace

void LogImpl::RunWriter() {
  clean_at_us_ = clock_.MonotonicUs();
  while (true) {
    const int64_t now_us = clock_.MonotonicUs();
    const bool stopping = stopping_.load(std::memory_order_seq_cst);
    const bool retry = retry_requested_.load(std::memory_order_seq_cst);
    bool worked = false;
    if (stopping) {
      // FinishLog() does it all, also where the last round left no segment to write to.
    } else if (Working()) {
      worked = Round(now_us);
      EndGap();
    } else if (retry || now_us >= retry_at_us_) {
      RetryTrouble(now_us);
    }
    if (retry) {
      retry_requested_.store(false, std::memory_order_release);
      retry_requested_.notify_all();
    }
    if (!stopping) worked = RetireOne(now_us) || worked;
    if (std::exchange(notify_, false)) Notify();
    if (stopping) break;
    Sleep(worked, now_us);
  }
  stop_status_ = FinishLog();
  SetState(State::kStopped);
  Notify();
}

// Records are kept: also behind a gap, though nothing is promised of them yet.
bool LogImpl::Working() const {
  return state() == State::kRunning || awaits_checkpoint_.load(std::memory_order_acquire);
}

// Writes and syncs what is due. True when there was something.
bool LogImpl::Round(int64_t now_us) {
  const SyncPolicy policy = policy_.load(std::memory_order_relaxed);
  const bool requested = sync_requested_.exchange(false, std::memory_order_seq_cst);
  const bool urgent = urgent_.exchange(false, std::memory_order_seq_cst);
  const bool asked_to_rotate = rotate_requested_.exchange(false, std::memory_order_seq_cst);
  const Lsn last = last_lsn_.load(std::memory_order_acquire);
  if (asked_to_rotate) {
    rotating_ = true;
    rotate_upto_ = last;
  }
  const bool unwritten = next_lsn_ <= last;
  const bool unsynced = policy != SyncPolicy::kNone && synced_lsn_ + 1 < next_lsn_;
  // All is written, and the room that is wanted is taken by what stands in the file's last block: a
  // PACK there may hold more than the ring does, and nothing would come any more to fill the block.
  const bool blocked = !unwritten && room_wanted_.load(std::memory_order_relaxed) &&
                       ring_->header().freed_lsn.load(std::memory_order_relaxed) < staged_.lsn;
  if (!unwritten && !unsynced && !requested && !rotating_ && !blocked) {
    clean_at_us_ = now_us;
    if (stated_lsn_ < durable_lsn_.load(std::memory_order_relaxed) &&
        now_us - synced_at_us_ >= int64_t{options_.heartbeat_ms} * 1000) {
      Status stated = WriteHeartbeat();
      if (!stated.ok()) MeetDiskError(stated, /*sync=*/true);
    }
    return false;
  }
  const bool due = now_us >= SyncDueUs();
  const bool pressed = HalfFull();
  const uint64_t gathered = head_.load(std::memory_order_relaxed) - staged_.position;
  bool worked = false;
  if (unwritten && (prompt() || urgent || requested || rotating_ || due || pressed ||
                    gathered >= buffer_bytes_.load(std::memory_order_relaxed))) {
    const Lsn before = next_lsn_;
    Status drained = Drain(last);
    worked = next_lsn_ != before;
    if (!drained.ok()) {
      MeetDiskError(drained, /*sync=*/false);
      return true;
    }
    // Another loop's record was being copied; who asked waits for what is behind it too.
    if (requested && next_lsn_ <= last) sync_requested_.store(true, std::memory_order_seq_cst);
    if (urgent && next_lsn_ <= last) urgent_.store(true, std::memory_order_seq_cst);
    // Under the other policies whoever syncs looks.
    Status named = policy == SyncPolicy::kNone ? LookForSegment() : Status::Ok();
    if (!named.ok()) {
      MeetDiskError(named, /*sync=*/false);
      return true;
    }
    if (policy == SyncPolicy::kNone) {
      Free(block_staged_);
      if (next_lsn_ > last) clean_at_us_ = now_us;
    }
  }
  if (blocked) {
    worked = true;
    Status filled = WriteBlockEnd();
    if (!filled.ok()) {
      MeetDiskError(filled, /*sync=*/false);
      return true;
    }
    if (policy == SyncPolicy::kNone) Free(block_staged_);
  }
  if (rotating_ && next_lsn_ > rotate_upto_) {
    worked = true;
    Status rotated = segment_->records() > 0 ? Rotate() : Status::Ok();
    if (!rotated.ok()) {
      MeetDiskError(rotated, /*sync=*/true);
      return true;
    }
    rotating_ = false;
  }
  const bool sync = policy == SyncPolicy::kSync || requested ||
                    (policy == SyncPolicy::kAsync && (due || pressed));
  if (sync && (synced_lsn_ + 1 < next_lsn_ || blocked)) {
    worked = true;
    Status synced = SyncSegment();
    if (!synced.ok()) {
      MeetDiskError(synced, /*sync=*/true);
      return true;
    }
  }
  if (sync && next_lsn_ > last) clean_at_us_ = now_us;
  if (worked) {
    std::lock_guard guard(release_mutex_);
    const Lsn before = release_lsn_.load(std::memory_order_relaxed);
    const Lsn unsynced_before = unsynced_release_lsn_.load(std::memory_order_relaxed);
    UpdateReleaseLocked();
    if (release_lsn_.load(std::memory_order_relaxed) > before) notify_ = true;
    if (unsynced_release_lsn_.load(std::memory_order_relaxed) > unsynced_before) notify_ = true;
  }
  return worked;
}

// When a write or sync must begin to be over within the flush interval.
int64_t LogImpl::SyncDueUs() const {
  const int64_t interval_us = int64_t{flush_interval_ms_.load(std::memory_order_relaxed)} * 1000;
  return clean_at_us_ + interval_us - std::min(interval_us / 2, 2 * last_sync_us_ + 2 * kNapUs);
}

bool LogImpl::HalfFull() const {
  const uint64_t used =
      head_.load(std::memory_order_relaxed) - tail_.load(std::memory_order_relaxed);
  const Lsn slots = last_lsn_.load(std::memory_order_relaxed) -
                    ring_->header().freed_lsn.load(std::memory_order_relaxed);
  return used >= ring_->data_bytes() / 2 || slots >= ring_->slot_count() / 2 ||
         room_wanted_.load(std::memory_order_relaxed);
}

void LogImpl::Sleep(bool worked, int64_t now_us) {
  if (!Working()) {
    Park(/*until_kicked=*/false, ~uint64_t{0},
         std::clamp<int64_t>(retry_at_us_ - now_us, 1000, kLongestSleepUs));
    return;
  }
  const uint64_t half = tail_.load(std::memory_order_relaxed) + ring_->data_bytes() / 2;
  if (prompt()) {
    // Kicks say when to write; without a shared ring the sync of `async` is due by the clock.
    const bool unsynced = policy_.load(std::memory_order_relaxed) == SyncPolicy::kAsync &&
                          synced_lsn_ + 1 < next_lsn_;
    const int64_t sync_due_us = unsynced ? SyncDueUs() - clock_.MonotonicUs() : kKickLostUs;
    Park(/*until_kicked=*/true, half, std::clamp<int64_t>(sync_due_us, 100, kKickLostUs));
    return;
  }
  if (worked) {
    Park(/*until_kicked=*/false, half, kNapUs);
    return;
  }
  const int64_t interval_us = int64_t{flush_interval_ms_.load(std::memory_order_relaxed)} * 1000;
  // Nothing is pending as far as is known; what comes now is met at the next look, in time for a
  // deadline that counts from this one.
  const bool idle = clean_at_us_ == now_us;
  const int64_t timeout_us = idle ? interval_us / 2 : SyncDueUs() - clock_.MonotonicUs();
  const uint64_t buffer = staged_.position + buffer_bytes_.load(std::memory_order_relaxed);
  Park(/*until_kicked=*/false, std::min(buffer, half),
       std::clamp<int64_t>(timeout_us, 1000, kLongestSleepUs));
}

// Sleeps until woken or the time is over. An appender that reads an older wake_position_ may miss
// its turn; the time-out is chosen so that no promise hangs on it. A kick is never missed: it
// raises kicked_lsn_ before it looks at parked_, and this does the two the other way round.
void LogImpl::Park(bool until_kicked, uint64_t wake_position, int64_t timeout_us) {
  const uint32_t word = wake_word_.load(std::memory_order_seq_cst);
  wake_position_.store(wake_position, std::memory_order_relaxed);
  if (until_kicked) {
    parked_.store(true, std::memory_order_seq_cst);
    // Records that no kick has announced belong to a round of a loop that goes on: they wait for
    // its end, so that one sync serves the whole round.
    if (kicked_lsn_.load(std::memory_order_seq_cst) >= next_lsn_) {
      Published next;
      timeout_us = FindPublished(next_lsn_, &next) ? 0 : kCopyUs;
    }
  }
  if (stopping_.load(std::memory_order_seq_cst) ||
      retry_requested_.load(std::memory_order_seq_cst) ||
      retire_requested_.load(std::memory_order_seq_cst)) {
    timeout_us = 0;
  }
  // While the disk is in trouble these wait for the next try.
  if (Working() && (sync_requested_.load(std::memory_order_seq_cst) ||
                    rotate_requested_.load(std::memory_order_seq_cst) ||
                    urgent_.load(std::memory_order_seq_cst))) {
    Published next;
    const bool copies =
        next_lsn_ <= last_lsn_.load(std::memory_order_relaxed) && !FindPublished(next_lsn_, &next);
    timeout_us = copies ? std::min(timeout_us, kCopyUs) : 0;
  }
  if (head_.load(std::memory_order_relaxed) >= wake_position) timeout_us = 0;
  if (timeout_us > 0) {
    const timespec timeout = {timeout_us / 1000000, (timeout_us % 1000000) * 1000};
    syscall(SYS_futex, &wake_word_, FUTEX_WAIT_PRIVATE, word, &timeout, nullptr, 0);
  }
  parked_.store(false, std::memory_order_relaxed);
  wake_position_.store(~uint64_t{0}, std::memory_order_relaxed);
}

bool LogImpl::FindPublished(Lsn lsn, Published* record) {
  if (lsn > last_lsn_.load(std::memory_order_acquire)) return false;
  Slot& slot = ring_->slot(lsn);
  if (slot.lsn.load(std::memory_order_acquire) == lsn) {
    const SlotState state = slot.state.load(std::memory_order_acquire);
    if (state == SlotState::kPublished) {
      record->header.crc = slot.crc;
      record->header.length = slot.length;
      record->header.lsn = lsn;
      record->header.type = slot.type;
      record->header.flags = slot.flags;
      record->header.shard = slot.shard;
      record->payload = {ring_->data(slot.position), slot.length};
      record->position_after = slot.position + ((uint64_t{slot.length} + 7) & ~uint64_t{7});
      return true;
    }
    if (state != SlotState::kHeapPublished) return false;
  }
  std::lock_guard guard(release_mutex_);
  const auto found = std::lower_bound(heap_.begin(), heap_.end(), lsn,
                                      [](const HeapRecord& a, Lsn b) { return a.header.lsn < b; });
  if (found == heap_.end() || found->header.lsn != lsn) return false;
  if (!found->published.load(std::memory_order_acquire)) return false;
  record->header = found->header;
  record->payload = found->payload;
  record->position_after = 0;
  return true;
}

// --- writing -------------------------------------------------------------------------------------

// Writes what is published, in order, up to `last`.
Status LogImpl::Drain(Lsn last) {
  Published first;
  while (next_lsn_ <= last && FindPublished(next_lsn_, &first)) {
    const uint64_t frame_bytes = FrameBytes(first.header.length);
    if (SegmentIsFull(kBatchBytes + frame_bytes)) TRY(Rotate());
    TRY(segment_->packs() ? WritePack(last) : WriteBatch(last));
  }
  return Status::Ok();
}

// One BATCH frame and the records behind it, as one write.
Status LogImpl::WriteBatch(Lsn last) {
  stage_.clear();
  AddBatch(next_lsn_ - 1);
  Published record;
  while (next_lsn_ <= last && stage_.size() < kStageBytes && FindPublished(next_lsn_, &record)) {
    const uint64_t frame_bytes = FrameBytes(record.header.length);
    if (segment_->records() > 0 && SegmentIsFull(frame_bytes)) break;
    const uint64_t start = segment_->offset();
    const Mark before = staged_;
    NoteStaged(record);
    if (record.header.length > kLargeBytes) {
      TRY(WriteLarge(record));
    } else {
      segment_->Add(stage_, record.header, record.payload);
    }
    NoteBlocks(before, start, segment_->offset());
  }
  return WriteStaged();
}

// The same where batches are packed: a BATCH frame and a PACK. What compression saves is not known
// before, so the last pack of a segment may stand across its bound by kPackBytesMin.
Status LogImpl::WritePack(Lsn last) {
  stage_.clear();
  AddBatch(next_lsn_ - 1);
  const Mark before = staged_;
  const uint64_t start = segment_->offset();
  const uint64_t bound = max_segment_bytes_.load(std::memory_order_relaxed);
  const uint64_t plain_max =
      std::clamp<uint64_t>(bound - std::min(bound, start), kPackBytesMin, kStageBytes);
  Published record;
  bool alone = false;
  while (!alone && next_lsn_ <= last && plain_.size() < plain_max &&
         FindPublished(next_lsn_, &record)) {
    alone = record.header.length > kLargeBytes;
    if (alone && plain_records_ > 0) {
      alone = false;
      break;
    }
    Stage(record.header, record.payload);
    NoteStaged(record);
  }
  TRY(StagePack());
  if (alone || HalfFull()) FillBlock();
  NoteBlocks(before, start, segment_->offset());
  return WriteStaged();
}

// Makes a record part of what the next WriteStaged() writes.
void LogImpl::Stage(const FrameHeader& header, std::string_view payload) {
  if (!segment_->packs()) {
    segment_->Add(stage_, header, payload);
    return;
  }
  if (plain_records_++ == 0) plain_first_ = header.lsn;
  AppendPackedFrame(plain_, header, payload);
}

Status LogImpl::StagePack() {
  if (plain_records_ == 0) return Status::Ok();
  const size_t staged = stage_.size();
  TRY(segment_->AddPack(stage_, *codec_, plain_, std::exchange(plain_records_, 0), plain_first_));
  {
    std::lock_guard guard(control_mutex_);
    metrics_.plain_bytes += plain_.size();
    metrics_.packed_bytes += stage_.size() - staged;
  }
  plain_.clear();
  if (plain_.capacity() > 2 * kStageBytes) std::string().swap(plain_);
  return Status::Ok();
}

Status LogImpl::WriteStaged() {
  TRY(StagePack());
  const size_t bytes = stage_.size();
  TRY(segment_->Write(stage_));
  stage_.clear();
  if (stage_.capacity() > 4 * kStageBytes) std::string().swap(stage_);
  NoteWritten(bytes);
  return Status::Ok();
}

// A payload of megabytes goes to the file from where it is.
Status LogImpl::WriteLarge(const Published& record) {
  TRY(segment_->Write(stage_));
  stage_.clear();
  TRY(segment_->WriteDirect(record.header, record.payload));
  segment_->AddDueIndex(stage_);
  FillBlock();
  return Status::Ok();
}

// A BATCH frame fills the last block, where much memory would wait for a record that comes later:
// behind a payload of megabytes, or a PACK of a great part of the ring.
void LogImpl::FillBlock() {
  const uint64_t end = segment_->offset() + kBatchBytes;
  AddBatch(next_lsn_ - 1, (kBlockBytes - end % kBlockBytes) % kBlockBytes);
}

// All that has been written can be freed once this is.
Status LogImpl::WriteBlockEnd() {
  stage_.clear();
  FillBlock();
  block_staged_ = staged_;
  return WriteStaged();
}

// A BATCH frame behind the record `lsn`, with zeroes at the end of its payload.
void LogImpl::AddBatch(Lsn lsn, uint64_t padding_bytes) {
  const BatchPayload batch = {durable_lsn_.load(std::memory_order_relaxed),
                              static_cast<uint64_t>(clock_.WallMs()), 0};
  std::string payload(reinterpret_cast<const char*>(&batch), sizeof(batch));
  payload.append(padding_bytes, '\0');
  segment_->AddFrame(stage_, FrameType::kBatch, lsn, payload);
  stated_lsn_ = batch.durable_lsn;
}

// For a log that has gone quiet: without it nothing would tell damage to its last records, which
// are durable, from a torn end.
Status LogImpl::WriteHeartbeat() {
  stage_.clear();
  if (SegmentIsFull(kBatchBytes)) return Rotate();
  AddBatch(next_lsn_ - 1);
  TRY(WriteStaged());
  return SyncSegment();
}

void LogImpl::NoteStaged(const Published& record) {
  staged_.lsn = record.header.lsn;
  if (record.position_after != 0) staged_.position = record.position_after;
  next_lsn_ = record.header.lsn + 1;
}

// What was staged since `before` stands at these places of the file.
void LogImpl::NoteBlocks(Mark before, uint64_t start, uint64_t end) {
  if (end % kBlockBytes == 0) {
    block_staged_ = staged_;
  } else if (start / kBlockBytes != end / kBlockBytes) {
    block_staged_ = before;
  }
}

void LogImpl::NoteWritten(size_t bytes) {
  if (staged_.lsn > written_lsn_.load(std::memory_order_relaxed)) {
    written_lsn_.store(staged_.lsn, std::memory_order_release);
  }
  if (policy_.load(std::memory_order_relaxed) == SyncPolicy::kNone) failures_ = relapses_ = 0;
  if (ZeroesAhead() && segment_->offset() * 2 > segment_->zeroed_bytes()) {
    // A log that has filled no spare yet may never need two.
    const uint64_t spare_bytes = max_segment_bytes_.load(std::memory_order_relaxed);
    spares_->Request(spare_bytes,
                     segment_->zeroed_bytes() < spare_bytes ? 1 : SpareMaker::kSparesMax);
  }
  std::lock_guard guard(control_mutex_);
  ++metrics_.writes;
  metrics_.bytes_written += bytes;
  metrics_.total_bytes += segment_->offset() - metrics_.segment_offset;
  metrics_.segment_offset = segment_->offset();
}

Status LogImpl::SyncFile() {
  return TimeCall([this] { return segment_->Sync(); });
}

Status LogImpl::SyncSegment() {
  const int64_t began_us = clock_.MonotonicUs();
  TRY(LookForSegment());
  TRY(SyncFile());
  synced_at_us_ = clock_.MonotonicUs();
  last_sync_us_ = synced_at_us_ - began_us;
  failures_ = 0;
  if (segment_->records() > 0) relapses_ = 0;
  if (staged_.lsn > synced_lsn_) {
    synced_lsn_ = staged_.lsn;
    if (!awaits_checkpoint_.load(std::memory_order_relaxed)) {
      durable_lsn_.store(synced_lsn_, std::memory_order_release);
      ring_->header().durable_lsn.store(synced_lsn_, std::memory_order_release);
    }
    notify_ = true;
  }
  safe_lsn_ = block_staged_.lsn;
  Free(block_staged_);
  std::lock_guard guard(control_mutex_);
  ++metrics_.syncs;
  metrics_.synced_lsn = synced_lsn_;
  metrics_.sync_last_us = static_cast<uint64_t>(last_sync_us_);
  metrics_.sync_total_us += static_cast<uint64_t>(last_sync_us_);
  metrics_.sync_max_us = std::max(metrics_.sync_max_us, metrics_.sync_last_us);
  metrics_.last_error.clear();
  return Status::Ok();
}

// Gives the ring's space up to the mark back to the appenders.
void LogImpl::Free(Mark mark) {
  std::atomic<Lsn>& freed = ring_->header().freed_lsn;
  if (mark.lsn <= freed.load(std::memory_order_relaxed)) return;
  FreeHeap(mark.lsn);
  tail_.store(mark.position, std::memory_order_release);
  freed.store(mark.lsn, std::memory_order_release);
  if (room_wanted_.exchange(false, std::memory_order_seq_cst)) notify_ = true;
}

void LogImpl::FreeHeap(Lsn last) {
  uint64_t heap_bytes = 0;
  std::lock_guard guard(release_mutex_);
  while (!heap_.empty() && heap_.front().header.lsn <= last) {
    heap_bytes += heap_.front().payload.size();
    heap_.pop_front();
  }
  heap_bytes_.fetch_sub(heap_bytes, std::memory_order_relaxed);
}

// --- states and the end --------------------------------------------------------------------------

void LogImpl::SetState(State state) {
  std::lock_guard guard(release_mutex_);
  state_.store(state, std::memory_order_release);
  UpdateReleaseLocked();
}

void LogImpl::Notify() {
  std::lock_guard guard(control_mutex_);
  if (listener_) listener_();
}

// The clean end: everything on disk, a STOP frame behind it.
Status LogImpl::FinishLog() {
  EndGap();
  const bool awaits = awaits_checkpoint_.load(std::memory_order_acquire);
  if (state() == State::kDegraded && !awaits) {
    return Status::Error(
        "stopped without the log: " + std::to_string(dropped_.load(std::memory_order_relaxed)) +
        " records are not on disk");
  }
  const Lsn last = last_lsn_.load(std::memory_order_acquire);
  Status finished = Status::Ok();
  // A second try in a new segment, as everywhere; the disk may only have lost one file.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (segment_ == nullptr) {
      finished = BeginAfterFailure();
      if (!finished.ok()) continue;
    }
    finished = [&]() -> Status {
      TRY(Drain(last));
      TRY(SyncSegment());  // a STOP that is there says that all before it is
      stage_.clear();
      segment_->AddEnd(stage_, FrameType::kStop, next_lsn_ - 1, clock_.WallMs());
      TRY(WriteStaged());
      block_staged_ = staged_;
      return SyncSegment();
    }();
    if (finished.ok()) break;
    MeetDiskError(finished, /*sync=*/true);
  }
  if (!finished.ok()) {
    const Lsn durable = durable_lsn();
    return std::move(finished).Annotate(
        durable < last ? LostText(durable + 1, last) + " not on disk"
                       : "all records are on disk, only the mark of a clean stop is not");
  }
  // The zeroes behind the STOP frame have no use; a file system that keeps them does no harm.
  (void)segment_->Trim();
  if (awaits) {
    return Status::Error(
        "stopped before there was a checkpoint behind a time without the log: the next start finds "
        "what was before that time");
  }
  return Status::Ok();
}

}  // namespace crab::wal

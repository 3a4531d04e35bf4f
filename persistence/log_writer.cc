// The writer's side of the log: one thread that drains the ring.
//
// When it works. Where replies wait for it (`sync`, or no shared ring) it sleeps until kicked and
// works at once; what gathers during one sync goes into the next. Otherwise it works as seldom as
// the promises allow, because on a shared core each round costs a switch of threads: when
// buffer_bytes have gathered, but after a round not before a nap of 2 ms, unless the ring is half
// full; and in time to keep flush_interval_ms.
//
// When the disk fails. The file at hand is dead; the ring still has what is not durable, and a new
// segment of a new epoch gets it. When that fails too, `on_error` decides: refuse (the ring keeps
// everything and the disk is tried again), degrade (the ring is given up, and the log waits until
// the disk works and Resume() is called), or exit.
#include <linux/futex.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <utility>

#include "persistence/log_impl.h"
#include "utils/check.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

constexpr size_t kStageBytes = size_t{1} << 20;            // of one write
constexpr uint64_t kLargeBytes = uint64_t{256} << 10;      // payloads written without a copy
constexpr uint64_t kBlockBytes = 4096;                     // what a disk rewrites at least
constexpr uint64_t kFirstZeroedBytes = uint64_t{1} << 20;  // where no spare is ready
constexpr int64_t kNapUs = 2000;
constexpr int64_t kLongestSleepUs = 1000000;
constexpr int64_t kKickLostUs = 20000;  // for callers that append and do not kick
constexpr int kFailuresMax = 3;         // new segments tried before the disk counts as broken
constexpr int kRelapsesMax = 6;         // of which each doubles the time to the next try
constexpr uint64_t kBatchBytes = FrameBytes(sizeof(BatchPayload));
constexpr uint64_t kEndBytes = FrameBytes(sizeof(EndPayload));

}  // namespace

void LogImpl::RunWriter() {
  clean_at_us_ = clock_.MonotonicUs();
  while (true) {
    const int64_t now_us = clock_.MonotonicUs();
    const bool stopping = stopping_.load(std::memory_order_seq_cst);
    bool worked = false;
    if (stopping) {
      // FinishLog() does it all, also where the last round left no segment to write to.
    } else if (state() == State::kRunning) {
      worked = Round(now_us);
    } else if (now_us >= retry_at_us_) {
      RetryTrouble(now_us);
    }
    if (std::exchange(notify_, false)) Notify();
    if (stopping) break;
    Sleep(worked, now_us);
  }
  stop_status_ = FinishLog();
  SetState(State::kStopped);
  Notify();
}

// Writes and syncs what is due. True when there was something.
bool LogImpl::Round(int64_t now_us) {
  const SyncPolicy policy = policy_.load(std::memory_order_relaxed);
  const bool requested = sync_requested_.exchange(false, std::memory_order_seq_cst);
  const bool urgent = urgent_.exchange(false, std::memory_order_seq_cst);
  const Lsn last = last_lsn_.load(std::memory_order_acquire);
  const bool unwritten = next_lsn_ <= last;
  const bool unsynced =
      policy != SyncPolicy::kNone && durable_lsn_.load(std::memory_order_relaxed) + 1 < next_lsn_;
  if (!unwritten && !unsynced && !requested) {
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
  if (unwritten && (prompt() || urgent || requested || due || pressed ||
                    gathered >= buffer_bytes_.load(std::memory_order_relaxed))) {
    const Lsn before = next_lsn_;
    Status drained = Drain(last);
    worked = next_lsn_ != before;
    if (!drained.ok()) {
      MeetDiskError(drained, /*sync=*/false);
      return true;
    }
    if (policy == SyncPolicy::kNone) {
      Free(block_staged_);
      if (next_lsn_ > last) clean_at_us_ = now_us;
    }
  }
  const bool sync = policy == SyncPolicy::kSync || requested ||
                    (policy == SyncPolicy::kAsync && (due || pressed));
  if (sync && durable_lsn_.load(std::memory_order_relaxed) + 1 < next_lsn_) {
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
    UpdateReleaseLocked();
    if (release_lsn_.load(std::memory_order_relaxed) > before) notify_ = true;
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
  if (state() != State::kRunning) {
    Park(/*until_kicked=*/false, ~uint64_t{0},
         std::clamp<int64_t>(retry_at_us_ - now_us, 1000, kLongestSleepUs));
    return;
  }
  const uint64_t half = tail_.load(std::memory_order_relaxed) + ring_->data_bytes() / 2;
  if (prompt()) {
    // Kicks say when to write; without a shared ring the sync of `async` is due by the clock.
    const bool unsynced = policy_.load(std::memory_order_relaxed) == SyncPolicy::kAsync &&
                          durable_lsn_.load(std::memory_order_relaxed) + 1 < next_lsn_;
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
      constexpr int64_t kCopyUs = 50;  // another loop's record is being copied at this moment
      Published next;
      timeout_us = FindPublished(next_lsn_, &next) ? 0 : kCopyUs;
    }
  }
  if (stopping_.load(std::memory_order_seq_cst) ||
      sync_requested_.load(std::memory_order_seq_cst) || urgent_.load(std::memory_order_seq_cst)) {
    timeout_us = 0;
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
    TRY(WriteBatch(last));
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
    if (record.header.length > kLargeBytes) {
      TRY(WriteLarge(record));
    } else {
      segment_->Add(stage_, record.header, record.payload);
    }
    NoteStaged(record, start, segment_->offset());
  }
  const size_t bytes = stage_.size();
  TRY(segment_->Write(stage_));
  NoteWritten(bytes);
  return Status::Ok();
}

// A payload of megabytes goes to the file from where it is. A BATCH frame fills its last block: the
// memory that it takes is not to wait for a record that comes later.
Status LogImpl::WriteLarge(const Published& record) {
  TRY(segment_->Write(stage_));
  stage_.clear();
  TRY(segment_->WriteDirect(record.header, record.payload));
  const uint64_t end = segment_->offset() + kBatchBytes;
  AddBatch(record.header.lsn, (kBlockBytes - end % kBlockBytes) % kBlockBytes);
  return Status::Ok();
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
  const size_t bytes = stage_.size();
  TRY(segment_->Write(stage_));
  NoteWritten(bytes);
  return SyncSegment();
}

void LogImpl::NoteStaged(const Published& record, uint64_t start, uint64_t end) {
  const Mark before = staged_;
  staged_.lsn = record.header.lsn;
  if (record.position_after != 0) staged_.position = record.position_after;
  if (end % kBlockBytes == 0) {
    block_staged_ = staged_;
  } else if (start / kBlockBytes != end / kBlockBytes) {
    block_staged_ = before;
  }
  next_lsn_ = record.header.lsn + 1;
}

void LogImpl::NoteWritten(size_t bytes) {
  if (staged_.lsn > written_lsn_.load(std::memory_order_relaxed)) {
    written_lsn_.store(staged_.lsn, std::memory_order_release);
  }
  if (policy_.load(std::memory_order_relaxed) == SyncPolicy::kNone) failures_ = relapses_ = 0;
  if (ZeroesAhead() && segment_->offset() * 2 > segment_->zeroed_bytes()) {
    spares_->Request(max_segment_bytes_.load(std::memory_order_relaxed));
  }
  std::lock_guard guard(control_mutex_);
  ++metrics_.writes;
  metrics_.bytes_written += bytes;
  metrics_.total_bytes += segment_->offset() - metrics_.segment_offset;
  metrics_.segment_offset = segment_->offset();
}

Status LogImpl::SyncSegment() {
  const int64_t began_us = clock_.MonotonicUs();
  TRY(segment_->Sync());
  synced_at_us_ = clock_.MonotonicUs();
  last_sync_us_ = synced_at_us_ - began_us;
  failures_ = 0;
  if (segment_->records() > 0) relapses_ = 0;
  if (staged_.lsn > durable_lsn_.load(std::memory_order_relaxed)) {
    durable_lsn_.store(staged_.lsn, std::memory_order_release);
    ring_->header().durable_lsn.store(staged_.lsn, std::memory_order_release);
    notify_ = true;
  }
  safe_lsn_ = block_staged_.lsn;
  Free(block_staged_);
  std::lock_guard guard(control_mutex_);
  ++metrics_.syncs;
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

// --- segments ------------------------------------------------------------------------------------

// Only under `sync` does zeroed space pay: there a sync of it takes half as long. The other
// policies sync so seldom that writing everything twice costs more than it saves.
bool LogImpl::ZeroesAhead() const {
  return policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
}

// A record larger than a segment goes into one of its own, whatever its size.
bool LogImpl::SegmentIsFull(uint64_t frame_bytes) const {
  if (segment_->records() == 0) return false;
  const uint64_t end = segment_->offset() + frame_bytes + kEndBytes;
  if (end > max_segment_bytes_.load(std::memory_order_relaxed)) return true;
  return ZeroesAhead() && end > segment_->zeroed_bytes() && spares_->ready();
}

Status LogImpl::Rotate() {
  // Synced before as well as after: a SEAL that is there says that all before it is.
  TRY(segment_->Sync());
  stage_.clear();
  segment_->AddEnd(stage_, FrameType::kSeal, next_lsn_ - 1, clock_.WallMs());
  TRY(segment_->Write(stage_));
  NoteWritten(stage_.size());
  stage_.clear();
  block_staged_ = staged_;  // its last block is never written again
  if (ring_ != nullptr) {
    TRY(SyncSegment());
  } else {
    TRY(segment_->Sync());  // while the log is being opened
  }
  predecessor_crc_ = segment_->running_crc();
  return OpenSegment(epoch_, next_lsn_, /*gap=*/false);
}

// Makes the next file of the log current. Its header is on disk before its name is, and its name
// before any record in it counts.
Status LogImpl::OpenSegment(uint64_t epoch, Lsn first_lsn, bool gap) {
  const std::string made_at = TRY(PrepareSegment(epoch, first_lsn, gap));
  return NameSegment(made_at);
}

// Puts a new file with its header where it has no meaning yet; yields its path.
Result<std::string> LogImpl::PrepareSegment(uint64_t epoch, Lsn first_lsn, bool gap) {
  SegmentInfo info;
  do {
    ++number_;  // past damaged files: they are evidence, not to be replaced
  } while (taken_numbers_.count(number_) != 0);
  info.number = number_;
  info.name = SegmentName(info.number);
  info.path = Path(info.name);
  info.format_version = kFormatVersion;
  info.min_reader_version = kMinReaderVersion;
  info.identity = identity_;
  info.epoch = epoch_ = epoch;
  info.created_at_ms = clock_.WallMs();
  info.first_lsn = first_lsn;
  info.durable_lsn = std::min(durable_lsn_.load(std::memory_order_relaxed), first_lsn - 1);
  CHECK(getrandom(&info.salt, sizeof(info.salt), 0) == sizeof(info.salt));
  info.after_gap = gap;
  stated_lsn_ = info.durable_lsn;
  info.predecessor_number = predecessor_number_;
  info.predecessor_last_lsn = first_lsn - 1;
  info.predecessor_crc = std::exchange(predecessor_crc_, 0);
  info.ring_epoch = ring_epoch_;

  segment_ = nullptr;
  std::string made_at = spares_->path();
  std::optional<SpareMaker::Spare> spare = spares_->Take();
  if (!spare) {
    made_at = Path("segment.tmp");
    uint64_t bytes = ZeroesAhead() ? std::min(kFirstZeroedBytes,
                                              max_segment_bytes_.load(std::memory_order_relaxed))
                                   : kSegmentHeaderBytes;
    auto file = MakeZeroedFile(disk_, made_at, bytes);
    if (!file.ok() && file.system_errno() == ENOSPC && bytes > kSegmentHeaderBytes) {
      bytes = kSegmentHeaderBytes;  // zeroes are a comfort that the disk has no room for
      file = MakeZeroedFile(disk_, made_at, bytes);
    }
    spare = SpareMaker::Spare{TRY(std::move(file)), bytes};
  }
  TRY(spare->file->WriteAt(0, EncodeSegmentHeader(info)));
  auto segment = std::make_unique<SegmentWriter>(info, std::move(spare->file), spare->bytes);
  if (gap) {
    std::string frame;
    segment->AddFrame(frame, FrameType::kGap, first_lsn - 1, {});
    TRY(segment->Write(frame));
  }
  segment_ = std::move(segment);
  return made_at;
}

// The moment from which the new file ends its predecessor.
Status LogImpl::NameSegment(const std::string& made_at) {
  const SegmentInfo& info = segment_->info();
  Status named = [&]() -> Status {
    TRY(segment_->Sync());
    TRY(disk_.Rename(made_at, info.path));
    return disk_.SyncDirectory(options_.directory);
  }();
  if (!named.ok()) {
    segment_ = nullptr;
    return named;
  }
  predecessor_number_ = info.number;
  if (ring_ != nullptr) ring_->header().epoch.store(info.epoch, std::memory_order_release);
  std::lock_guard guard(control_mutex_);
  metrics_.epoch = info.epoch;
  metrics_.segment_number = info.number;
  metrics_.segment_offset = segment_->offset();
  metrics_.total_bytes += segment_->offset();
  ++metrics_.segments;
  ++metrics_.segments_created;
  return Status::Ok();
}

// --- trouble -------------------------------------------------------------------------------------

void LogImpl::SetState(State state) {
  std::lock_guard guard(release_mutex_);
  state_.store(state, std::memory_order_release);
  UpdateReleaseLocked();
}

void LogImpl::Notify() {
  std::lock_guard guard(control_mutex_);
  if (listener_) listener_();
}

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
  if (sync) {
    failed_first_.store(durable_lsn_.load(std::memory_order_relaxed) + 1,
                        std::memory_order_release);
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

// The clean end: everything on disk, a STOP frame behind it.
Status LogImpl::FinishLog() {
  if (state() == State::kDegraded) {
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
      TRY(segment_->Write(stage_));
      block_staged_ = staged_;
      return SyncSegment();
    }();
    if (finished.ok()) break;
    MeetDiskError(finished, /*sync=*/true);
  }
  if (!finished.ok()) {
    return std::move(finished).Annotate("LSNs from " + std::to_string(durable_lsn() + 1) + " to " +
                                        std::to_string(last) + " are not on disk");
  }
  // The zeroes behind the STOP frame have no use; a file system that keeps them does no harm.
  (void)segment_->Trim();
  return Status::Ok();
}

}  // namespace crab::wal

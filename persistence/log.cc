// The appenders' side of the log, and its start.
#include "persistence/log.h"

#include <linux/futex.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>

#include "persistence/log_impl.h"
#include "persistence/places.h"
#include "persistence/reader.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

constexpr uint64_t kControlBytes = uint64_t{64} << 10;  // of the ring, kept for control records
constexpr uint64_t kControlSlots = 256;
// What heap payloads may hold together before commands are asked to wait. One larger than this is
// let in when it is alone.
constexpr uint64_t kHeapBytesMax = uint64_t{64} << 20;
constexpr Lsn kEverything = ~Lsn{0};
constexpr size_t kCopyBytes = size_t{1} << 20;

constexpr uint64_t Room(uint64_t payload_bytes) { return (payload_bytes + 7) & ~uint64_t{7}; }

uint64_t RandomNumber() {
  uint64_t number = 0;
  // Up to 256 bytes it cannot be interrupted or short.
  CHECK(getrandom(&number, sizeof(number), 0) == sizeof(number));
  return number;
}

Identity NewIdentity(const Options& options) {
  Identity identity;
  identity.log_id = RandomNumber();
  identity.hash_seed = RandomNumber();
  identity.shard_count = options.shard_count;
  constexpr char kHex[] = "0123456789abcdef";
  for (char& digit : identity.replication_id) digit = kHex[RandomNumber() & 15];
  return identity;
}

}  // namespace

Result<std::unique_ptr<Log>> Log::Open(Disk& disk, const Options& options,
                                       const std::function<void(const Identity&)>& identify,
                                       const std::function<Status(const RecordView&)>& apply,
                                       RecoveryReport* report) {
  std::unique_ptr<Backlog> backlog;
  auto log = TRY(Open(disk, options, &backlog));
  identify(log->identity());
  Status replayed = backlog->ReplayInOrder(apply);
  if (report != nullptr) *report = backlog->report();
  if (!replayed.ok()) return replayed;
  return Result<std::unique_ptr<Log>>(std::move(log));
}

Result<std::unique_ptr<Log>> Log::Open(Disk& disk, const Options& options,
                                       std::unique_ptr<Backlog>* backlog) {
  auto log = std::make_unique<LogImpl>(disk, options);
  TRY(log->Start(backlog));
  return std::unique_ptr<Log>(std::move(log));
}

LogImpl::LogImpl(Disk& disk, const Options& options)
    : disk_(disk),
      options_(options),
      policy_(options.sync_policy),
      flush_interval_ms_(std::max(options.flush_interval_ms, 1u)),
      buffer_bytes_(options.buffer_bytes),
      max_segment_bytes_(options.max_segment_bytes),
      on_error_(options.on_error),
      compression_(options.compression),
      keep_segments_(options.keep_segments),
      keep_ms_(options.keep_ms) {}

LogImpl::~LogImpl() {
  // An error here has nobody left to hear it; the ring stays for the next start.
  (void)Stop();
}

// --- start ---------------------------------------------------------------------------------------

Status LogImpl::Start(std::unique_ptr<Backlog>* backlog) {
  stopped_ = true;  // until the writer runs there is nothing to stop
  const int64_t started_us = clock_.MonotonicUs();
  TRY(disk_.CreateDirectories(options_.directory));
  auto lock = disk_.Lock(options_.directory);
  if (!lock.ok()) {
    if (lock.system_errno() != EWOULDBLOCK) return lock.TakeStatus();
    return Status::Error("another server is using the log directory " + options_.directory +
                             "; stop it, or give this one another wal_dir",
                         EWOULDBLOCK);
  }
  directory_lock_ = std::move(lock).value();

  RecoveryReport report;
  Recovered recovered = TRY(Recover(
      disk_, options_, [this] { return NewIdentity(options_); }, &report));
  identity_ = recovered.identity;
  // Of the records from here on; older segments' headers speak for theirs.
  identity_.shard_count = options_.shard_count;
  if (options_.hash_seed != 0) identity_.hash_seed = options_.hash_seed;
  epoch_ = recovered.last_epoch;
  // Past what cannot be read: it is evidence, not to be replaced; and where it can be read again
  // one day, it is older than what comes now. No number begins more than one epoch.
  number_ = recovered.numbers.empty() ? 0 : *recovered.numbers.rbegin();
  epoch_ += number_ - recovered.last_number;
  if (recovered.aside_epoch > epoch_) {
    number_ += recovered.aside_epoch - epoch_;
    epoch_ = recovered.aside_epoch;
  }
  predecessor_number_ = recovered.last_number;
  ring_epoch_ = recovered.ring_epoch;
  next_lsn_ = recovered.last_in_files + 1;
  staged_.lsn = block_staged_.lsn = recovered.last_in_files;
  metrics_.segments = recovered.segments;
  metrics_.total_bytes = recovered.total_bytes;

  spares_ = std::make_unique<SpareMaker>(disk_, options_.directory);
  TRY(FindOldSegments());
  TRY(SyncRecovered(recovered));
  TRY(SetAsideCheckpoints(recovered));
  TRY(RewriteDoubtful(recovered, &report));
  durable_lsn_.store(next_lsn_ - 1, std::memory_order_release);
  if (!options_.after_gap || !recovered.ring_records.empty()) TRY(BeginEpoch(recovered));
  if (options_.after_gap) {
    // One LSN is left out, so that no checkpoint that is there already can be the one that the gap
    // asks for.
    durable_lsn_.store(next_lsn_ - 1, std::memory_order_release);
    ++next_lsn_;
    TRY(OpenSegment(epoch_ + 1, next_lsn_, /*gap=*/true));
    gap_lsn_.store(next_lsn_ - 1, std::memory_order_relaxed);
    gap_first_lsn_ = next_lsn_;
    gap_durable_lsn_ = durable_lsn_.load(std::memory_order_relaxed);
    awaits_checkpoint_.store(true, std::memory_order_release);
    state_.store(State::kDegraded, std::memory_order_release);
  }
  TRY(KeepTornBytes(recovered, &report));
  TRY(ReplaceRing(recovered, &report));

  const Lsn last = next_lsn_ - 1;
  last_lsn_.store(last, std::memory_order_release);
  written_lsn_.store(last, std::memory_order_release);
  if (!options_.after_gap) durable_lsn_.store(last, std::memory_order_release);
  freed_seen_ = last;
  ring_->header().durable_lsn.store(last, std::memory_order_release);
  ring_->header().freed_lsn.store(last, std::memory_order_release);
  ring_->header().epoch.store(epoch_, std::memory_order_release);
  staged_ = block_staged_ = Mark{last, 0};
  synced_lsn_ = safe_lsn_ = stated_lsn_ = last;
  metrics_.entries_appended = last;  // metrics() subtracts what was there at the start
  prompt_.store(policy_ == SyncPolicy::kSync || !ring_->shared(), std::memory_order_relaxed);
  {
    std::lock_guard guard(release_mutex_);
    UpdateReleaseLocked();
  }
  checkpoint_lsn_.store(recovered.checkpoint_lsn, std::memory_order_release);
  if (!recovered.fallbacks.empty()) NoteRetainedFrom(recovered.fallbacks.front().lsn);
  report.recovery_time_ms = (clock_.MonotonicUs() - started_us) / 1000;
  *backlog = MakeBacklog(disk_, options_, recovered, std::move(report), started_us);
  stopped_ = false;
  thread_ = std::thread([this] { RunWriter(); });
  return Status::Ok();
}

// What counts as durable here may have been copied into the directory by somebody who did not sync.
Status LogImpl::SyncRecovered(const Recovered& recovered) {
  for (const std::string& path : recovered.unsealed_paths) {
    auto file = TRY(disk_.Open(path, OpenMode::kReadWrite));
    TRY(file->SyncData());
  }
  return Status::Ok();
}

// A process that ended leaves records in the page cache. They are applied, so no power cut may take
// them any more; and a sync of their file proves nothing: where one has failed before, Linux has
// told the process that is gone, and counts as written what never reached the disk. So what nothing
// states to be durable is written anew, into a sealed segment of its own, which is synced before it
// has its name. Until then nothing has changed, and the next start does it all again.
Status LogImpl::RewriteDoubtful(Recovered& recovered, RecoveryReport* report) {
  if (!recovered.doubtful) return Status::Ok();
  const Recovered::Doubtful& doubtful = *recovered.doubtful;
  const Lsn safe = TRY(FindSafe(doubtful));
  if (safe >= doubtful.last) return Status::Ok();
  // A segment that begins where a gap ended and did not say so would undo the gap.
  const bool gap = doubtful.info.after_gap && safe + 1 == doubtful.info.first_lsn;
  durable_lsn_.store(gap ? doubtful.info.durable_lsn : safe, std::memory_order_release);
  auto made_at = [&] {
    const NumberedAs scope(*this, ShardingOf(doubtful.info));
    return PrepareSegment(epoch_ + 1, safe + 1, gap);
  }();
  if (!made_at.ok()) return made_at.TakeStatus();
  Status copied = CopyDoubtful(recovered, safe, report);
  if (copied.ok()) {
    // It ends all later LSNs, those of a void gap's epoch too.
    next_lsn_ = doubtful.next;
    return NameSegment(*made_at);
  }
  (void)disk_.Remove(*made_at);
  LeaveSegment();
  return copied;
}

// The last record that no failed sync can have taken: of those that are durable all but the ones in
// the block where they end, for what came behind them was written over that block. The last of all
// where no other can be read.
Result<Lsn> LogImpl::FindSafe(const Recovered::Doubtful& doubtful) {
  constexpr uint64_t kBlockBytes = 4096;
  auto reader = Reader::OpenSegment(disk_, doubtful.info, doubtful.last, options_.keys);
  Lsn safe = doubtful.info.first_lsn - 1;
  std::deque<std::pair<Lsn, uint64_t>> in_block;  // and where they end
  for (Frame frame; TRY(reader->Next(&frame));) {
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type)) continue;
    if (frame.lsn > doubtful.durable) return safe;
    in_block.emplace_back(frame.lsn, frame.end);
    const uint64_t block = frame.end / kBlockBytes * kBlockBytes;
    for (; !in_block.empty() && in_block.front().second <= block; in_block.pop_front()) {
      safe = in_block.front().first;
    }
  }
  return in_block.empty() ? doubtful.last : safe;
}

// Into the segment that has been prepared; and the plan reads the copies, for the originals may
// leave the page cache at any time.
Status LogImpl::CopyDoubtful(Recovered& recovered, Lsn safe, RecoveryReport* report) {
  const Recovered::Doubtful& doubtful = *recovered.doubtful;
  recovered.packs |= segment_->packs();
  const auto places = [&] {
    return std::make_unique<Places>(std::max(doubtful.info.identity.shard_count, 1u),
                                    recovered.units);
  };
  auto kept_places = places();
  auto copied_places = places();
  Lsn last = safe;
  auto reader = Reader::OpenSegment(disk_, doubtful.info, doubtful.last, options_.keys);
  // What stands behind the last one that counts is not looked at again.
  for (Frame frame; last < doubtful.last && TRY(reader->Next(&frame));) {
    if (frame.verdict == Verdict::kCorrupt || frame.verdict == Verdict::kMissing) {
      TRY(NoteLost(recovered, frame, report));
      continue;
    }
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type)) continue;
    const bool counts = recovered.units > 1 && frame.lsn > recovered.checkpoint_lsn;
    if (frame.lsn <= safe) {
      if (counts && !doubtful.info.packs()) {
        kept_places->Add(frame.type, frame.shard, frame.payload, frame.offset);
      }
      continue;
    }
    if (frame.lsn > last + 1) TRY(StagePack());  // a PACK lacks none of its records
    FrameHeader header = {};
    header.length = static_cast<uint32_t>(frame.payload.size());
    header.lsn = last = frame.lsn;
    header.type = frame.type;
    header.flags = frame.flags;
    header.shard = frame.shard;
    header.crc = BodyCrc(header, frame.payload);
    if (counts && !segment_->packs()) {
      segment_->AddDueIndex(stage_);
      copied_places->Add(frame.type, frame.shard, frame.payload, segment_->offset());
    }
    Stage(header, frame.payload);
    if (staged_bytes() >= kCopyBytes) TRY(WriteFirst());
  }
  if (last == safe) {
    return Status::Error("cannot read " + doubtful.info.path + " a second time; start again", EIO);
  }
  TRY(StagePack());
  segment_->AddEnd(stage_, FrameType::kSeal, last, clock_.WallMs());
  TRY(WriteFirst());
  (void)segment_->Trim();
  predecessor_crc_ = segment_->running_crc();
  kept_places->Finish();
  copied_places->Finish();
  Plan& plan = recovered.plan;
  if (plan.segments.empty()) return Status::Ok();  // nothing is replayed
  Plan::Segment& kept = plan.segments.back();
  kept.last = safe;
  kept.read_through = true;
  kept.places = std::move(kept_places);
  if (safe < doubtful.info.first_lsn || safe <= recovered.checkpoint_lsn) plan.segments.pop_back();
  Plan::Segment& copy = plan.segments.emplace_back();
  copy.info = segment_->info();
  copy.info.file_bytes = copy.end = segment_->offset();
  copy.last = last;
  copy.records = segment_->records();
  copy.read_through = true;
  copy.places = std::move(copied_places);
  plan.last_number = copy.info.number;
  return Status::Ok();
}

// Of the doubtful segment. The first look at a sealed one is at its end alone, so that it may be
// only now that records turn out to be lost; any other one has been read through.
Status LogImpl::NoteLost(Recovered& recovered, const Frame& frame, RecoveryReport* report) {
  const Recovered::Doubtful& doubtful = *recovered.doubtful;
  const Lsn first = std::max(frame.lost_first, recovered.checkpoint_lsn + 1);
  const auto untold = recovered.lost.Without(first, std::min(frame.lost_last, doubtful.last));
  if (untold.empty()) return Status::Ok();
  if (doubtful.read_through) {
    return Status::Error(
        "cannot read " + doubtful.info.path + " a second time: " + frame.reason + "; start again",
        EIO);
  }
  const std::string where = doubtful.info.name + " bytes " + std::to_string(frame.offset) + " to " +
                            std::to_string(frame.offset + frame.bytes);
  for (const auto& [from, to] : untold) {
    recovered.lost.Add(from, to);
    report->NoteLost(from, to, where);
    if (report->warnings.size() >= kWarningsMax) continue;
    report->warnings.push_back(where + ": " + frame.reason + "; " + LostText(from, to) +
                               " lost; going on behind it (the result may be a state that " +
                               "never was)");
  }
  return Status::Ok();
}

// With what the ring had held. Where its records number shards in another way than those to come,
// they get segments of their own.
Status LogImpl::BeginEpoch(const Recovered& recovered) {
  const Sharding own = sharding();
  const Sharding first = recovered.ring_records.empty() ? own : recovered.ring_sharding;
  {
    const NumberedAs scope(*this, first);
    // A segment that begins where a gap ended and did not say so would end the gap's epoch, and the
    // log would no longer tell what the checkpoint from then is needed for.
    const bool gap = recovered.gap && recovered.gap->first_lsn == next_lsn_;
    if (gap) {
      gap_first_lsn_ = next_lsn_;
      gap_durable_lsn_ = recovered.gap->durable_lsn;
      durable_lsn_.store(recovered.gap->durable_lsn, std::memory_order_release);
    }
    TRY(OpenSegment(epoch_ + 1, next_lsn_, gap));
    durable_lsn_.store(next_lsn_ - 1, std::memory_order_release);
    TRY(WriteRecovered(recovered));
  }
  // A gap has a segment of its own anyway.
  return first == own || options_.after_gap ? Status::Ok() : Rotate();
}

// Puts what the ring had held into the new epoch's files, as durable as can be, and says so there.
Status LogImpl::WriteRecovered(const Recovered& recovered) {
  for (const Recovered::RingRecord& record : recovered.ring_records) {
    if (SegmentIsFull(plain_.size() + FrameBytes(record.header.length))) {
      TRY(WriteFirst());
      TRY(Rotate());
    }
    Stage(record.header, record.payload);
    next_lsn_ = record.header.lsn + 1;
    staged_.lsn = record.header.lsn;
    if (staged_bytes() >= kCopyBytes) TRY(WriteFirst());
  }
  TRY(WriteFirst());
  if (recovered.ring_records.empty()) return Status::Ok();
  TRY(segment_->Sync());
  durable_lsn_.store(staged_.lsn, std::memory_order_release);
  AddBatch(staged_.lsn);
  TRY(segment_->Write(std::exchange(stage_, {})));
  return segment_->Sync();
}

// The torn end of the last segment becomes a file of its own; its zeroed space is given back. What
// is corrupt there, or was not readable, is kept in the same way. Where that cannot be done the
// bytes stay where they are: the new epoch cuts them off.
Status LogImpl::KeepTornBytes(const Recovered& recovered, RecoveryReport* report) {
  const uint64_t end = recovered.last_good_bytes;
  if (recovered.last_path.empty() || end < kSegmentHeaderBytes) return Status::Ok();
  auto file = TRY(disk_.Open(recovered.last_path, OpenMode::kReadWrite));
  const uint64_t size = TRY(file->Size());
  if (size <= end) return Status::Ok();
  Status kept = CopyTail(*file, end, size, recovered.last_path + ".torn");
  if (!kept.ok()) {
    report->warnings.push_back("what stands behind the last good record of " + recovered.last_path +
                               " stays there: " + std::string(kept.message()));
    return Status::Ok();
  }
  TRY(file->Truncate(end));
  metrics_.total_bytes -= std::min(metrics_.total_bytes, size - end);
  return Status::Ok();
}

// Copies what is not zero between two places of a file into a new one; none is made for zeroes.
Status LogImpl::CopyTail(File& file, uint64_t begin, uint64_t end, const std::string& path) {
  std::unique_ptr<File> copy;
  std::string buffer(kCopyBytes, '\0');
  for (uint64_t at = begin; at < end;) {
    const size_t step = std::min<uint64_t>(buffer.size(), end - at);
    const size_t got = TRY(file.ReadAt(at, {buffer.data(), step}));
    if (got == 0) break;
    const size_t last = std::string_view(buffer).substr(0, got).find_last_not_of('\0');
    if (last != std::string::npos) {
      if (copy == nullptr) {
        Status removed = disk_.Remove(path);  // of an earlier try
        if (!removed.ok() && removed.system_errno() != ENOENT) return removed;
        copy = TRY(disk_.Open(path, OpenMode::kCreate));
      }
      TRY(copy->WriteAt(at - begin, std::string_view(buffer).substr(0, last + 1)));
    }
    at += got;
  }
  if (copy == nullptr) return Status::Ok();
  TRY(copy->SyncData());
  return disk_.SyncDirectory(options_.directory);
}

// Checkpoints of a time that is left out would one day be taken for one of the time to come.
Status LogImpl::SetAsideCheckpoints(const Recovered& recovered) {
  for (const std::string& path : recovered.void_checkpoints) {
    TRY(disk_.Rename(path, path + ".void"));
  }
  if (recovered.void_checkpoints.empty()) return Status::Ok();
  return disk_.SyncDirectory(options_.directory);
}

Status LogImpl::ReplaceRing(Recovered& recovered, RecoveryReport* report) {
  recovered.ring_records.clear();
  if (!recovered.aside_path.empty()) {
    const std::string aside = TRY(Ring::SetAside(recovered.aside_path));
    report->warnings.push_back(recovered.aside_reason + "; kept as " + aside);
  } else if (recovered.ring != nullptr) {
    TRY(recovered.ring->Remove());
  }
  recovered.ring = nullptr;
  ring_epoch_ = 0;
  if (!options_.ring_directory.empty()) {
    auto created =
        Ring::Create(options_.ring_directory, Ring::StampFor(identity_.log_id, options_.directory),
                     sharding(), options_.ring_bytes);
    if (created.ok()) {
      ring_ = std::move(created).value();
    } else {
      report->warnings.push_back(std::string(created.message()) +
                                 "; replies wait until their records are written");
    }
  }
  if (ring_ == nullptr) ring_ = TRY(Ring::CreatePrivate(options_.ring_bytes));
  inline_bytes_max_ = ring_->data_bytes() / 8;
  metrics_.ring_bytes = ring_->data_bytes();
  metrics_.ring_shared = ring_->shared();
  return Status::Ok();
}

// --- appending -----------------------------------------------------------------------------------

void LogImpl::LockReservation() {
  int tries = 0;
  while (reservation_.exchange(true, std::memory_order_acquire)) {
    while (reservation_.load(std::memory_order_relaxed)) {
      __builtin_ia32_pause();
      // The holder may have lost its core; giving ours away is the only help.
      if (++tries % 128 == 0) std::this_thread::yield();
    }
  }
}

void LogImpl::UnlockReservation() { reservation_.store(false, std::memory_order_release); }

bool LogImpl::SecureRoom(size_t payload_bytes) {
  const uint64_t used =
      head_.load(std::memory_order_relaxed) - tail_.load(std::memory_order_acquire);
  const Lsn freed = ring_->header().freed_lsn.load(std::memory_order_acquire);
  const Lsn pending = last_lsn_.load(std::memory_order_relaxed) - freed;
  const bool inlined = payload_bytes <= inline_bytes_max_;
  const uint64_t heap = heap_bytes_.load(std::memory_order_relaxed);
  if (used + (inlined ? Room(payload_bytes) : 0) + kControlBytes <= ring_->data_bytes() &&
      pending + kControlSlots <= ring_->slot_count() &&
      (heap == 0 || heap + (inlined ? 0 : payload_bytes) <= kHeapBytesMax)) {
    return true;
  }
  if (state() == State::kDegraded && !awaits_checkpoint_.load(std::memory_order_acquire))
    return true;
  room_wanted_.store(true, std::memory_order_seq_cst);
  WakeWriter();
  return false;
}

bool LogImpl::FitsLocked(Lsn lsn, uint64_t position, uint64_t room) {
  if (position + room - tail_seen_ <= ring_->data_bytes() &&
      lsn - freed_seen_ <= ring_->slot_count()) [[likely]] {
    return true;
  }
  tail_seen_ = tail_.load(std::memory_order_acquire);
  freed_seen_ = ring_->header().freed_lsn.load(std::memory_order_acquire);
  return position + room - tail_seen_ <= ring_->data_bytes() &&
         lsn - freed_seen_ <= ring_->slot_count();
}

Lsn LogImpl::Append(RecordType type, uint16_t shard, std::string_view payload) {
  return AppendRecord(static_cast<uint8_t>(type), shard, payload);
}

Lsn LogImpl::AppendRecord(uint8_t type, uint16_t shard, std::string_view payload) {
  if (payload.size() > inline_bytes_max_) [[unlikely]]
    return AppendHeap(type, shard, std::string(payload));
  const uint64_t room = Room(payload.size());
  LockReservation();
  const Lsn lsn = last_lsn_.load(std::memory_order_relaxed) + 1;
  const uint64_t position = head_.load(std::memory_order_relaxed);
  if (dropping_ || !FitsLocked(lsn, position, room)) [[unlikely]] {
    UnlockReservation();
    return AppendHeap(type, shard, std::string(payload));
  }
  Slot& slot = ring_->slot(lsn);
  slot.state.store(SlotState::kReserved, std::memory_order_relaxed);
  slot.position = position;
  slot.length = static_cast<uint32_t>(payload.size());
  slot.type = type;
  slot.flags = 0;
  slot.shard = shard;
  slot.lsn.store(lsn, std::memory_order_release);
  head_.store(position + room, std::memory_order_relaxed);
  last_lsn_.store(lsn, std::memory_order_release);
  UnlockReservation();

  std::memcpy(ring_->data(position), payload.data(), payload.size());
  FrameHeader header;
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = lsn;
  header.type = type;
  header.flags = 0;
  header.shard = shard;
  slot.crc = BodyCrc(header, payload);
  slot.state.store(SlotState::kPublished, std::memory_order_release);
  if (position + room >= wake_position_.load(std::memory_order_relaxed)) [[unlikely]]
    WakeWriter();
  return lsn;
}

// The slow road: payloads too large for the ring, appends that find no room, and dropped ones.
Lsn LogImpl::AppendHeap(uint8_t type, uint16_t shard, std::string payload) {
  CHECK_LE(payload.size(), kRecordBytesMax);
  const size_t payload_bytes = payload.size();
  LockReservation();
  if (dropping_) {
    UnlockReservation();
    dropped_.fetch_add(1, std::memory_order_relaxed);
    return kNoGate;
  }
  const Lsn lsn = last_lsn_.load(std::memory_order_relaxed) + 1;
  Slot* slot = nullptr;
  if (FitsLocked(lsn, head_.load(std::memory_order_relaxed), 0)) {
    slot = &ring_->slot(lsn);
    slot->state.store(SlotState::kHeapReserved, std::memory_order_relaxed);
    slot->position = 0;
    slot->length = static_cast<uint32_t>(payload_bytes);
    slot->type = type;
    slot->flags = 0;
    slot->shard = shard;
    slot->lsn.store(lsn, std::memory_order_release);
  }
  HeapRecord* record;
  {
    std::lock_guard guard(release_mutex_);
    record = &heap_.emplace_back();
    record->header.length = static_cast<uint32_t>(payload_bytes);
    record->header.lsn = lsn;
    record->header.type = type;
    record->header.shard = shard;
    record->payload = std::move(payload);
    heap_last_ = lsn;
    // Lowered before the next LSN can be handed out: a reply that could have seen this record
    // finds its gate shut.
    UpdateReleaseLocked();
  }
  last_lsn_.store(lsn, std::memory_order_release);
  UnlockReservation();
  heap_bytes_.fetch_add(payload_bytes, std::memory_order_relaxed);
  heap_appended_.fetch_add(payload_bytes, std::memory_order_relaxed);
  record->header.crc = BodyCrc(record->header, record->payload);
  if (slot != nullptr) slot->state.store(SlotState::kHeapPublished, std::memory_order_release);
  record->published.store(true, std::memory_order_release);
  urgent_.store(true, std::memory_order_seq_cst);
  WakeWriter();
  return lsn;
}

void LogImpl::UpdateReleaseLocked() {
  const bool degraded = state() == State::kDegraded;
  const bool sync = policy_.load(std::memory_order_relaxed) == SyncPolicy::kSync;
  const Lsn written = written_lsn_.load(std::memory_order_acquire);
  Lsn unsynced = kEverything;
  if (degraded) {
    // Nothing is kept, so nothing is waited for.
  } else if (!ring_->shared()) {
    unsynced = written;
  } else if (heap_last_ > written) {
    Lsn first = heap_last_;
    for (const HeapRecord& record : heap_) {
      if (record.header.lsn > written) {
        first = record.header.lsn;
        break;
      }
    }
    unsynced = first - 1;
  }
  unsynced_release_lsn_.store(unsynced, std::memory_order_release);
  release_lsn_.store(sync && !degraded ? durable_lsn_.load(std::memory_order_acquire) : unsynced,
                     std::memory_order_release);
}

void LogImpl::WakeWriter() {
  wake_position_.store(~uint64_t{0}, std::memory_order_relaxed);  // one waker is enough
  wake_word_.fetch_add(1, std::memory_order_seq_cst);
  syscall(SYS_futex, &wake_word_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

void LogImpl::Kick() {
  if (!prompt()) return;
  const Lsn last = last_lsn_.load(std::memory_order_relaxed);
  if (last <= written_lsn_.load(std::memory_order_relaxed)) return;
  // Partner: Park(). Raised before `parked_` is looked at, so one of the two sees the other.
  Lsn kicked = kicked_lsn_.load(std::memory_order_relaxed);
  while (kicked < last &&
         !kicked_lsn_.compare_exchange_weak(kicked, last, std::memory_order_seq_cst)) {
  }
  if (parked_.exchange(false, std::memory_order_seq_cst)) WakeWriter();
}

// --- control -------------------------------------------------------------------------------------

void LogImpl::SetListener(std::function<void()> listener) {
  std::lock_guard guard(control_mutex_);
  listener_ = std::move(listener);
}

Lsn LogImpl::SetSyncPolicy(SyncPolicy policy) {
  const char byte = static_cast<char>(policy);
  const Lsn lsn =
      AppendRecord(static_cast<uint8_t>(FrameType::kPolicy), kBroadcastShard, {&byte, 1});
  {
    std::lock_guard guard(release_mutex_);
    policy_.store(policy, std::memory_order_relaxed);
    prompt_.store(policy == SyncPolicy::kSync || !ring_->shared(), std::memory_order_relaxed);
    UpdateReleaseLocked();
  }
  if (policy == SyncPolicy::kSync) sync_requested_.store(true, std::memory_order_seq_cst);
  if (state() == State::kRefusing) retry_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
  return lsn;
}

void LogImpl::SetFlushIntervalMs(uint32_t ms) {
  flush_interval_ms_.store(std::max(ms, 1u), std::memory_order_relaxed);
  WakeWriter();
}

void LogImpl::SetBufferBytes(uint64_t bytes) {
  buffer_bytes_.store(bytes, std::memory_order_relaxed);
}

void LogImpl::SetMaxSegmentBytes(uint64_t bytes) {
  max_segment_bytes_.store(bytes, std::memory_order_relaxed);
}

void LogImpl::SetOnError(OnError on_error) {
  on_error_.store(on_error, std::memory_order_relaxed);
  if (state() != State::kRefusing) return;
  retry_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

void LogImpl::RequestSync() {
  sync_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

void LogImpl::RequestRotate() {
  rotate_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

void LogImpl::SetCheckpoint(Lsn newest, Lsn oldest_kept) {
  checkpoint_lsn_.store(newest, std::memory_order_release);
  oldest_kept_.store(oldest_kept, std::memory_order_release);
  retire_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

Lsn LogImpl::retained_from() const {
  if (!Retains()) return kUnknownLsn;
  return retained_from_.load(std::memory_order_acquire);
}

void LogImpl::SetRestorable(Lsn oldest) {
  oldest_restorable_.store(oldest, std::memory_order_release);
}

void LogImpl::RequestCleanup(uint64_t keep_segments) {
  cleanup_keep_.store(keep_segments, std::memory_order_release);
  retire_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

void LogImpl::SetRetention(uint64_t keep_segments, uint64_t keep_ms) {
  keep_segments_.store(keep_segments, std::memory_order_relaxed);
  keep_ms_.store(keep_ms, std::memory_order_relaxed);
  retire_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
}

void LogImpl::SetCompression(Compression compression) {
  compression_.store(compression, std::memory_order_relaxed);
}

Status LogImpl::Stop() {
  if (stopped_) return Status::Ok();
  stopped_ = true;
  stopping_.store(true, std::memory_order_seq_cst);
  WakeWriter();
  thread_.join();
  spares_->Stop();
  if (!stop_status_.ok()) return std::move(stop_status_);
  return ring_->Remove();
}

Result<Lsn> LogImpl::Resume() {
  const Lsn last = last_lsn();
  if (state() != State::kDegraded || awaits_checkpoint_.load(std::memory_order_acquire))
    return last;
  if (!resumable()) return Status::Error("the disk of the log does not work yet");
  LockReservation();
  dropping_ = false;
  gap_lsn_.store(last, std::memory_order_relaxed);
  // In this order: RetryTrouble() finds one of them set, or would begin another gap over this one.
  awaits_checkpoint_.store(true, std::memory_order_release);
  resumable_.store(false, std::memory_order_release);
  UnlockReservation();
  WakeWriter();
  return last;
}

void LogImpl::RetryDisk() {
  if (stopped_) return;
  retry_requested_.store(true, std::memory_order_seq_cst);
  WakeWriter();
  retry_requested_.wait(true, std::memory_order_acquire);
}

bool LogImpl::GateGivenUp(Lsn gate) const {
  return gate >= given_up_first_.load(std::memory_order_acquire) &&
         gate <= given_up_last_.load(std::memory_order_acquire);
}

bool LogImpl::GateFailed(Lsn gate) const {
  return gate >= failed_first_.load(std::memory_order_acquire) &&
         gate <= failed_last_.load(std::memory_order_acquire);
}

Metrics LogImpl::metrics() const {
  Metrics copy;
  {
    std::lock_guard guard(control_mutex_);
    copy = metrics_;
    copy.state = state();
    copy.awaits_checkpoint = awaits_checkpoint_.load(std::memory_order_acquire);
  }
  copy.sync_policy = policy_.load(std::memory_order_relaxed);
  copy.last_lsn = last_lsn();
  copy.written_lsn = written_lsn();
  copy.durable_lsn = durable_lsn();
  copy.entries_appended = copy.last_lsn - std::min(copy.last_lsn, copy.entries_appended);
  const uint64_t head = head_.load(std::memory_order_relaxed);
  copy.bytes_appended = head + heap_appended_.load(std::memory_order_relaxed);
  copy.ring_used_bytes = head - std::min(head, tail_.load(std::memory_order_relaxed));
  copy.appends_dropped = dropped_.load(std::memory_order_relaxed);
  copy.resumable = resumable();
  copy.checkpoint_lsn = checkpoint_lsn_.load(std::memory_order_acquire);
  copy.synced_lsn = std::max(copy.synced_lsn, copy.durable_lsn);
  copy.spare_segments = spares_->ready();
  const int64_t since_us = disk_call_since_us_.load(std::memory_order_relaxed);
  if (since_us != 0) {
    const int64_t stalled_us = clock_.MonotonicUs() - since_us;
    copy.sync_stalled_ms = static_cast<uint64_t>(std::max<int64_t>(stalled_us, 0)) / 1000;
  }
  return copy;
}

}  // namespace crab::wal

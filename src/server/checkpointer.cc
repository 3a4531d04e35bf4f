#include "src/server/checkpointer.h"

#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "src/execution/lock_set.h"
#include "src/server/config_words.h"
#include "src/server/server.h"
#include "utils/check.h"
#include "utils/clock.h"
#include "utils/log.h"
#include "utils/thread.h"

namespace crab {

namespace {

using namespace std::chrono_literals;

// The file is written no faster than this, so that the log's syncs on the same disk do not queue up
// behind it: a quarter of what one NVMe drive writes, and more than most network disks do.
constexpr uint64_t kFileBytesPerSecond = 256 << 20;
// After a wait for the queue it may go faster for so long.
constexpr int64_t kPaceSlackUs = 20'000;
constexpr int64_t kProgressUs = 5'000'000;  // between lines about a long one
// Writers that wait for the queue go on when a quarter of it is free, so that they are not woken
// for every chunk.
constexpr uint64_t kQueueRoomBytes = Checkpointer::kQueueBytesMax / 4 * 3;
// The walk goes on when the queue is half empty.
constexpr uint64_t kQueueLowBytes = Checkpointer::kQueueBytes / 2;
// Of one step of the walk by the holder of the world.
constexpr size_t kEntriesPerStep = 256;
constexpr size_t kEntriesPerStepMax = 4096;

// How long the log may take to become durable up to the cut, before the checkpoint is given up: a
// disk that takes longer needs an operator, and a later checkpoint is no worse.
constexpr int64_t kDurableWaitUs = 60'000'000;
constexpr int64_t kSyncAgainUs = 1'000'000;

// After a failure automatic ones wait for this long, doubled with each further failure.
constexpr int64_t kRetryMs = 1000;
constexpr uint64_t kRetryDoublingsMax = 6;

// A log shorter than this is replayed before anybody notices.
constexpr uint64_t kLogBytesMin = 64 << 20;
// What a core replays, where this server has not measured it with a start of its own: below what
// was measured with values of 100 bytes, so that wal-max-recovery-ms holds on slower machines.
constexpr double kReplayBytesPerMs = 300'000;
constexpr double kReplayRecordsPerMs = 2'000;
// A start that took less than this is no measure.
constexpr uint64_t kMeasuredBytesMin = 64 << 20;
constexpr int64_t kMeasuredMsMin = 100;
constexpr uint64_t kReplayCoresMax = 8;  // from there on memory is the bound

// Where less than so many segments fit on the disk beside the next checkpoint, it is short of
// space: the log keeps two spare ones, and syncs a third while it fills a fourth.
constexpr uint64_t kSpareSegments = 4;
// Between two that are written for want of space: where they do not help, they do not repeat.
constexpr int64_t kSpaceRetryMs = 60'000;

constexpr size_t kCheckpointsKept = 2;

int64_t MonotonicMs() { return RealClock().MonotonicUs() / 1000; }

constexpr char kGivenUp[] = "it was given up";

}  // namespace

const char* Checkpointer::ReasonName(Reason reason) {
  switch (reason) {
    case Reason::kSave:
      return "save";
    case Reason::kSavePoint:
      return "save-point";
    case Reason::kRewrite:
      return "rewrite";
    case Reason::kReplay:
      return "recovery-time";
    case Reason::kSpace:
      return "disk-space";
    case Reason::kGap:
      return "gap";
    case Reason::kSalvage:
      return "salvage";
  }
  CHECK(false);
}

uint64_t Checkpointer::Item::bytes() const {
  const uint64_t own = sizeof(Item) + effects.capacity() + key.capacity();
  return value == nullptr ? own : own + value->MemoryBytes();
}

Checkpointer::Checkpointer(Server& server) : server_(server), cursors_(server.loops().size()) {
  facts_.last_save_ms = RealClock().WallMs();
}

Checkpointer::~Checkpointer() {
  Cancel();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_one();
  if (thread_.joinable()) thread_.join();
  if (snapshot_ != nullptr) WalkToTheEnd();
}

// --- the holder of the world ---

Status Checkpointer::CanBegin() const {
  const wal::Log* const log = server_.log();
  if (log == nullptr) {
    return Status::Error(
        "ERR there is nowhere to save to: the write-ahead log is off. CONFIG SET wal-enabled yes "
        "begins with a save");
  }
  if (server_.recovering()) {
    return Status::Error("ERR the data is still being recovered");
  }
  if (log->state() == wal::State::kDegraded && !log->metrics().awaits_checkpoint) {
    return Status::Error(
        "ERR the write-ahead log cannot be written at the moment; it goes on by itself, with a "
        "save, when it can");
  }
  return Status::Ok();
}

Status Checkpointer::Begin(Reason reason) {
  TRY(CanBegin());
  Cut(reason, server_.log()->last_lsn());
  return Status::Ok();
}

void Checkpointer::BeginBehindGap(wal::Lsn lsn) {
  gap_lsn_ = lsn;
  Cut(Reason::kGap, lsn);
}

void Checkpointer::Cut(Reason reason, wal::Lsn lsn) {
  CHECK(free());
  wal::Log* const log = server_.log();
  CHECK(log != nullptr);
  StartThread();
  const Config& config = server_.config();
  Job job;
  job.log = log;
  job.lsn = lsn;
  job.gap_lsn = gap_lsn_;
  job.reason = reason;
  job.info.lsn = lsn;
  job.info.identity = log->identity();
  // The chunks are of the shards as they are now.
  job.info.identity.shard_count = server_.keyspace().shard_count();
  job.info.identity.hash_seed = server_.keyspace().options().hash_seed;
  job.info.shard_by_hashtag = server_.keyspace().options().shard_by_hashtag;
  job.info.created_at_ms = RealClock().WallMs();
  job.directory = config.wal_dir;
  job.compression = CompressionOf(config.wal_compression);
  job.keys = server_.wal_keys();
  job.begun_us = RealClock().MonotonicUs();
  snapshot_ = std::make_unique<Snapshot>(server_.keyspace(), *this);
  job.keys_total = snapshot_->entries_total();

  for (size_t i = 0; i < cursors_.size(); ++i) {
    cursors_[i].next_shard = static_cast<uint32_t>(i);
    cursors_[i].entries = 1;
    cursors_[i].done = i >= server_.keyspace().shard_count();
  }
  quantum_cycles_ = static_cast<uint64_t>(kQuantumUs / server_.MicrosecondsPerCycle());
  changes_at_cut_ = Changes();
  log_bytes_at_cut_ = log->metrics().bytes_appended;
  running_ = true;
  reason_ = reason;
  queue_peak_bytes_.store(0, std::memory_order_relaxed);
  file_bytes_.store(0, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    CHECK(phase_ == Phase::kIdle);
    CHECK(queue_.empty());
    job_ = std::move(job);
    phase_ = Phase::kWriting;
    walked_ = false;
    given_up_ = false;
  }
  work_.notify_one();
  WakeLoops();
}

void Checkpointer::Schedule(Reason reason) {
  if (IsSave(reason)) {
    scheduled_save_ = true;
  } else {
    scheduled_rewrite_ = true;
    scheduled_rewrite_reason_ = reason;
  }
  BeginScheduled();
}

Status Checkpointer::SaveNow(Reason reason) {
  if (save_running()) return Status::Error("ERR Background save already in progress");
  TRY(CanBegin());
  if (server_.log()->state() == wal::State::kRefusing) {
    // Everybody would wait for a disk that does not work.
    return Status::Error("ERR the write-ahead log cannot be written at the moment: " +
                         server_.log()->metrics().last_error);
  }
  hurried_.store(true, std::memory_order_relaxed);
  if (running_) {
    WalkToTheEnd();
    AwaitEnd();
    Record();
  }
  if (snapshot_ != nullptr) {  // one that was given up
    WalkToTheEnd();
    snapshot_.reset();
  }
  Cut(reason, server_.log()->last_lsn());
  WalkToTheEnd();
  AwaitEnd();
  Record();
  hurried_.store(false, std::memory_order_relaxed);
  snapshot_.reset();
  if (facts_.last_ok) return Status::Ok();
  return Status::Error("ERR the data could not be saved: " + facts_.last_error);
}

Status Checkpointer::CloseGap() {
  if (running_ && reason_ == Reason::kGap) {
    hurried_.store(true, std::memory_order_relaxed);
    WalkToTheEnd();
    AwaitEnd();
    Record();
    hurried_.store(false, std::memory_order_relaxed);
    snapshot_.reset();
    if (facts_.last_ok) return Status::Ok();
  }
  const wal::Log* const log = server_.log();
  if (log == nullptr || !log->metrics().awaits_checkpoint) return Status::Ok();
  return SaveNow(Reason::kGap);  // the one that ran has failed, or was not for the gap
}

void Checkpointer::Cancel() {
  scheduled_save_ = scheduled_rewrite_ = false;
  if (!running_) return;
  {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
  }
  work_.notify_one();
  AwaitEnd();
  Record();
  if (snapshot_->done()) snapshot_.reset();
}

void Checkpointer::Drain() {
  if (running_ || snapshot_ == nullptr) return;
  WalkToTheEnd();
  snapshot_.reset();
}

void Checkpointer::WalkToTheEnd() {
  Keyspace& keyspace = server_.keyspace();
  for (uint32_t shard = 0; shard < keyspace.shard_count(); ++shard) {
    while (!Step(cursors_[shard % cursors_.size()], shard, kEntriesPerStep)) {
      if (queue_bytes_.load(std::memory_order_relaxed) < kQueueBytes) continue;
      std::unique_lock lock(mutex_);
      // The file's thread takes it under the same mutex once the queue is short.
      walkers_wait_.store(true, std::memory_order_seq_cst);
      moved_.wait(lock, [this] {
        return phase_ != Phase::kWriting ||
               queue_bytes_.load(std::memory_order_relaxed) < kQueueLowBytes;
      });
    }
  }
  CHECK(snapshot_->done());
  for (Cursor& cursor : cursors_) cursor.done = true;
  NoteWalked();
}

bool Checkpointer::Step(Cursor& cursor, uint32_t shard, size_t entries) {
  cursor.walks.store(shard, std::memory_order_relaxed);
  const bool done = snapshot_->Step(shard, entries);
  cursor.walks.store(kNoShard, std::memory_order_relaxed);
  return done;
}

void Checkpointer::AwaitEnd() {
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [this] { return phase_ == Phase::kEnded; });
}

// Takes over what the file's thread left behind: it has ended.
void Checkpointer::Record() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(phase_ == Phase::kEnded);
    phase_ = Phase::kIdle;
  }
  running_ = false;
  const bool given_up = job_.status.message() == kGivenUp;
  const bool ok = job_.status.ok();
  const int64_t took_ms = (job_.ended_us - job_.begun_us) / 1000;
  const uint64_t peak = queue_peak_bytes_.load(std::memory_order_relaxed);
  facts_.saved_entries = snapshot_->entries_saved();
  facts_.saved_bytes = snapshot_->bytes_saved();
  if (given_up) return;  // nobody's failure
  Facts::Kind& kind = IsSave(reason_) ? facts_.save : facts_.rewrite;
  kind.last_ok = facts_.last_ok = ok;
  kind.last_ms = took_ms;
  kind.last_peak_bytes = peak;
  facts_.last_error = job_.status.message();
  if (!ok) {
    const uint64_t doublings = std::min(kind.failed_in_a_row++, kRetryDoublingsMax);
    not_before_ms_ = MonotonicMs() + (kRetryMs << doublings);
    return;
  }
  ++kind.done;
  kind.failed_in_a_row = 0;
  not_before_ms_ = reason_ == Reason::kSpace ? MonotonicMs() + kSpaceRetryMs : 0;
  facts_.lsn = job_.lsn;
  facts_.entries = job_.entries;
  facts_.bytes = job_.bytes;
  facts_.duration_ms = took_ms;
  facts_.at_ms = facts_.last_save_ms = job_.published_ms;
  facts_.changes_at_save = changes_at_cut_;
  log_bytes_at_save_ = log_bytes_at_cut_;
  salvage_due_ = false;
}

void Checkpointer::Settle() {
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    ended = phase_ == Phase::kEnded;
  }
  if (ended) Record();
  if (!running_ && snapshot_ != nullptr && snapshot_->done()) snapshot_.reset();
  BeginScheduled();
}

void Checkpointer::BeginScheduled() {
  if ((!scheduled_save_ && !scheduled_rewrite_) || !free() || !CanBegin().ok()) return;
  if (scheduled_rewrite_) {
    scheduled_rewrite_ = false;
    (void)Begin(scheduled_rewrite_reason_);
  } else {
    scheduled_save_ = false;
    (void)Begin(Reason::kSave);
  }
}

void Checkpointer::EverySecond() {
  Settle();
  wal::Log* const log = server_.log();
  {
    const std::lock_guard lock(mutex_);
    disk_directory_ = log == nullptr ? "" : server_.config().wal_dir;
  }
  if (log == nullptr || server_.recovering()) return;
  StartThread();
  LookAtStart();
  if (!free() || MonotonicMs() < not_before_ms_) return;
  const wal::Metrics metrics = log->metrics();
  if (metrics.awaits_checkpoint) {
    (void)Begin(Reason::kGap);
  } else if (!CanBegin().ok()) {
    return;
  } else if (salvage_due_) {
    (void)Begin(Reason::kSalvage);
  } else if (DueBySpace(metrics)) {
    (void)Begin(Reason::kSpace);
  } else if (DueByReplay(metrics)) {
    (void)Begin(Reason::kReplay);
  } else if (DueBySavePoint(metrics)) {
    (void)Begin(Reason::kSavePoint);
  }
}

void Checkpointer::LookAtStart() {
  if (start_looked_at_ || server_.recovering()) return;
  start_looked_at_ = true;
  const wal::RecoveryReport report = server_.recovery();
  salvage_due_ = !report.lost.empty() || !report.checkpoint_problem.empty();
  facts_.lsn = report.checkpoint_lsn;
  facts_.entries = facts_.loaded_entries = report.checkpoint_entries;
  facts_.bytes = report.checkpoint_bytes;
  start_log_bytes_ = report.bytes_processed;
  if (report.bytes_processed < kMeasuredBytesMin || report.recovery_time_ms < kMeasuredMsMin) {
    return;
  }
  // The checkpoint was loaded in the same time, at about the same speed.
  const double share = static_cast<double>(report.bytes_processed) /
                       static_cast<double>(report.bytes_processed + report.checkpoint_bytes);
  const double ms = static_cast<double>(report.recovery_time_ms) * share;
  start_ms_per_byte_ = ms / static_cast<double>(report.bytes_processed);
  start_ms_per_record_ = ms / static_cast<double>(std::max<uint64_t>(1, report.entries_recovered));
}

uint64_t Checkpointer::Changes() const {
  uint64_t changes = 0;
  for (const auto& loop : server_.loops()) changes += loop->dispatcher().stats().changes;
  return changes;
}

uint64_t Checkpointer::LogBytesSince(const wal::Metrics& metrics) const {
  const uint64_t bytes =
      metrics.bytes_appended - std::min(metrics.bytes_appended, log_bytes_at_save_);
  return facts_.at_ms == 0 ? bytes + start_log_bytes_ : bytes;
}

// How long the next start would replay, without the time to load the checkpoint, which no
// checkpoint makes shorter.
double Checkpointer::EstimatedReplayMs(const wal::Metrics& metrics) const {
  const auto records =
      static_cast<double>(metrics.last_lsn - std::min(metrics.last_lsn, facts_.lsn));
  const auto bytes = static_cast<double>(LogBytesSince(metrics));
  if (start_ms_per_byte_ > 0) {
    return std::max(bytes * start_ms_per_byte_, records * start_ms_per_record_);
  }
  const auto cores =
      static_cast<double>(std::min<uint64_t>(server_.loops().size(), kReplayCoresMax));
  return std::max(bytes / kReplayBytesPerMs, records / kReplayRecordsPerMs) / cores;
}

bool Checkpointer::DueByReplay(const wal::Metrics& metrics) const {
  // A log that is shorter than half the checkpoint is not worth writing all data again.
  const uint64_t worth = std::max(kLogBytesMin, facts_.bytes / 2);
  return LogBytesSince(metrics) >= worth &&
         EstimatedReplayMs(metrics) > static_cast<double>(server_.config().wal_max_recovery_ms);
}

bool Checkpointer::DueBySpace(const wal::Metrics& metrics) const {
  const uint64_t free_bytes = disk_free_bytes_.load(std::memory_order_relaxed);
  if (free_bytes == 0) return false;  // not known, or nothing is left to write a checkpoint with
  const auto segment = static_cast<uint64_t>(server_.config().wal_max_segment_size);
  if (free_bytes >= kSpareSegments * segment + facts_.bytes) return false;
  // Is there something that it would free?
  return metrics.total_bytes > 2 * segment && LogBytesSince(metrics) >= segment;
}

bool Checkpointer::DueBySavePoint(const wal::Metrics& metrics) const {
  // The log has every change already: so all data is not written again for a few of them.
  if (LogBytesSince(metrics) < facts_.bytes / 2) return false;
  const auto changes = static_cast<int64_t>(Changes() - facts_.changes_at_save);
  const int64_t seconds = (RealClock().WallMs() - facts_.last_save_ms) / 1000;
  const std::vector<SavePoint>& points = server_.config().save;
  return std::any_of(points.begin(), points.end(), [&](const SavePoint& point) {
    return changes > 0 && changes >= point.changes && seconds > point.seconds;
  });
}

Checkpointer::Facts Checkpointer::facts() {
  LookAtStart();
  Facts facts = facts_;
  {
    const std::lock_guard lock(mutex_);
    facts.queue_bytes = own_bytes_;
  }
  facts.queue_peak_bytes = queue_peak_bytes_.load(std::memory_order_relaxed);
  facts.file_bytes = file_bytes_.load(std::memory_order_relaxed);
  facts.disk_free_bytes = disk_free_bytes_.load(std::memory_order_relaxed);
  facts.changes_since_save = Changes() - facts.changes_at_save;
  if (running_) {
    facts.running_lsn = job_.lsn;
    facts.running_ms = (RealClock().MonotonicUs() - job_.begun_us) / 1000;
    facts.keys_total = snapshot_->entries_total();
    facts.keys_done = snapshot_->entries_done();
    facts.saved_entries = snapshot_->entries_saved();
    facts.saved_bytes = snapshot_->bytes_saved();
  }
  if (const wal::Log* const log = server_.log(); log != nullptr) {
    const wal::Metrics metrics = log->metrics();
    facts.log_bytes_since = LogBytesSince(metrics);
    facts.log_records_since = metrics.last_lsn - std::min(metrics.last_lsn, facts.lsn);
    facts.replay_ms = static_cast<uint64_t>(EstimatedReplayMs(metrics));
  }
  return facts;
}

// --- the walk ---

bool Checkpointer::Walk(int loop) {
  Snapshot* const snapshot = snapshot_.get();
  if (snapshot == nullptr) return false;
  Cursor& cursor = cursors_[static_cast<size_t>(loop)];
  if (cursor.done) return false;
  Keyspace& keyspace = server_.keyspace();
  const bool locking = server_.execution().world.shared();
  const uint64_t step_cycles_max = quantum_cycles_ / 4;
  const uint64_t end_cycles = __rdtsc() + quantum_cycles_;
  uint64_t now_cycles = 0;
  do {
    if (queue_bytes_.load(std::memory_order_relaxed) >= kQueueBytes) {
      walkers_wait_.store(true, std::memory_order_seq_cst);
      // The file's thread may have looked before the flag was there.
      if (queue_bytes_.load(std::memory_order_seq_cst) >= kQueueLowBytes) return false;
    }
    Shard& shard = keyspace.shard(cursor.next_shard);
    const uint64_t begin_cycles = __rdtsc();
    if (locking) LockShard(shard);
    const bool done = Step(cursor, cursor.next_shard, cursor.entries);
    if (locking) UnlockShard(shard);
    now_cycles = __rdtsc();
    const uint64_t spent = now_cycles - begin_cycles;
    if (spent > step_cycles_max) {
      cursor.entries = std::max<size_t>(1, cursor.entries / 2);
    } else if (spent < step_cycles_max / 2 && !done) {
      cursor.entries = std::min(kEntriesPerStepMax, cursor.entries * 2);
    }
    if (done) {
      cursor.next_shard += static_cast<uint32_t>(cursors_.size());
      cursor.done = cursor.next_shard >= keyspace.shard_count();
      if (cursor.done) {
        if (snapshot->done()) NoteWalked();
        return false;
      }
    }
  } while (now_cycles < end_cycles);
  return true;
}

void Checkpointer::NoteWalked() {
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    walked_ = true;
    ended = phase_ != Phase::kWriting;
  }
  work_.notify_one();
  // One that was given up holds the next back until it is walked to its end: now.
  if (ended) SettleSoon();
}

void Checkpointer::Take(uint16_t shard, std::string effects, uint64_t entries) {
  Item item;
  item.shard = shard;
  item.entries = entries;
  item.effects = std::move(effects);
  Push(std::move(item));
}

void Checkpointer::TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                             LargeString* value) {
  Item item;
  item.shard = shard;
  item.entries = 1;
  item.value = value;
  item.db = db;
  item.key = std::move(key);
  item.deadline_ms = deadline_ms;
  item.walked = cursors_[shard % cursors_.size()].walks.load(std::memory_order_relaxed) == shard;
  Push(std::move(item));
}

void Checkpointer::Push(Item item) {
  const uint64_t bytes = item.bytes();
  const uint64_t own_bytes = item.own_bytes();
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kWriting) {
      queue_.push_back(std::move(item));
      item.value = nullptr;
      const uint64_t sum = queue_bytes_.load(std::memory_order_relaxed) + bytes;
      queue_bytes_.store(sum, std::memory_order_relaxed);
      own_bytes_ += own_bytes;
      if (own_bytes_ > queue_peak_bytes_.load(std::memory_order_relaxed)) {
        queue_peak_bytes_.store(own_bytes_, std::memory_order_relaxed);
      }
      if (own_bytes_ >= kQueueBytesMax) {
        server_.execution().snapshot_full.store(true, std::memory_order_relaxed);
      }
    }
  }
  work_.notify_one();
  Free(item);
}

void Checkpointer::Free(Item& item) {
  if (item.value != nullptr) LargeString::Destroy(std::exchange(item.value, nullptr));
}

// --- the file's thread ---

void Checkpointer::StartThread() {
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
}

void Checkpointer::Work() {
  SetThreadName("checkpoint");
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    work_.wait_for(lock, 1s, [this] { return stopping_ || phase_ == Phase::kWriting; });
    if (phase_ != Phase::kWriting) {
      const std::string directory = disk_directory_;
      if (directory.empty() || stopping_) continue;
      lock.unlock();
      const Result<uint64_t> free_bytes = server_.disk().FreeBytes(directory);
      disk_free_bytes_.store(free_bytes.ok() ? *free_bytes : 0, std::memory_order_relaxed);
      lock.lock();
      continue;
    }
    lock.unlock();
    job_.status = Write();
    job_.ended_us = RealClock().MonotonicUs();
    if (!job_.status.ok() && job_.status.message() != kGivenUp) {
      LogError("cannot write a checkpoint; the log goes on as it is",
               {{"reason", ReasonName(job_.reason)}, {"error", job_.status.message()}});
    }
    // Until kEnded is told, the snapshot stays.
    if (!job_.status.ok()) snapshot_->Abandon();
    std::deque<Item> dropped;
    lock.lock();
    phase_ = Phase::kEnded;
    dropped.swap(queue_);
    queue_bytes_.store(0, std::memory_order_relaxed);
    own_bytes_ = 0;
    server_.execution().snapshot_full.store(false, std::memory_order_relaxed);
    lock.unlock();
    for (Item& item : dropped) Free(item);
    moved_.notify_all();
    WakeLoops();
    SettleSoon();
    lock.lock();
  }
}

Status Checkpointer::Write() {
  LogVerbose("checkpoint begins",
             {{"lsn", job_.lsn}, {"reason", ReasonName(job_.reason)}, {"keys", job_.keys_total}});
  std::unique_ptr<wal::CheckpointWriter> writer = TRY(wal::CheckpointWriter::Create(
      server_.disk(), job_.directory, job_.info, job_.compression, job_.keys));
  pace_us_ = RealClock().MonotonicUs();
  int64_t told_us = pace_us_;
  for (;;) {
    Item item;
    {
      std::unique_lock lock(mutex_);
      work_.wait(lock, [this] { return !queue_.empty() || walked_ || given_up_; });
      if (given_up_) return Status::Error(kGivenUp);
      if (queue_.empty()) break;
      item = std::move(queue_.front());
      queue_.pop_front();
    }
    const uint64_t bytes = item.bytes();
    const uint64_t own_bytes = item.own_bytes();
    const uint64_t file_bytes_before = writer->bytes();
    Status status = WriteItem(*writer, item);
    Free(item);
    job_.entries += item.entries;
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      const uint64_t left = queue_bytes_.load(std::memory_order_relaxed) - bytes;
      queue_bytes_.store(left, std::memory_order_seq_cst);
      own_bytes_ -= own_bytes;
      std::atomic<bool>& full = server_.execution().snapshot_full;
      if (own_bytes_ < kQueueRoomBytes && full.load(std::memory_order_relaxed)) {
        full.store(false, std::memory_order_relaxed);
        wake = true;
      }
      wake = (left < kQueueLowBytes && walkers_wait_.exchange(false, std::memory_order_seq_cst)) ||
             wake;
    }
    if (wake) {
      moved_.notify_all();
      WakeLoops();
    }
    TRY(std::move(status));
    file_bytes_.store(writer->bytes(), std::memory_order_relaxed);
    Pace(writer->bytes() - file_bytes_before);
    if (const int64_t now_us = RealClock().MonotonicUs(); now_us - told_us > kProgressUs) {
      told_us = now_us;
      LogInfo("checkpoint under way", {{"lsn", job_.lsn},
                                       {"keys", job_.entries},
                                       {"of", job_.keys_total},
                                       {"bytes", writer->bytes()}});
    }
  }
  TRY(writer->Finish());
  file_bytes_.store(writer->bytes(), std::memory_order_relaxed);
  TRY(WaitUntilDurable());
  TRY(Publish(*writer));
  LogInfo("checkpointed", {{"lsn", job_.lsn},
                           {"reason", ReasonName(job_.reason)},
                           {"keys", job_.entries},
                           {"bytes", job_.bytes},
                           {"ms", (RealClock().MonotonicUs() - job_.begun_us) / 1000}});
  return Status::Ok();
}

Status Checkpointer::WriteItem(wal::CheckpointWriter& writer, Item& item) {
  if (item.value == nullptr) return writer.Add(item.shard, item.effects, item.entries);
  // Straight from the value that is shared with the keyspace, a part at a time.
  std::string_view bytes = item.value->view();
  Effects effects;
  effects.Set(item.shard, item.db, item.key, bytes.substr(0, Effects::kPartBytes),
              item.deadline_ms);
  TRY(writer.Add(item.shard, effects.bytes(), item.entries));
  while (bytes.size() > Effects::kPartBytes) {
    bytes.remove_prefix(Effects::kPartBytes);
    Pace(Effects::kPartBytes);
    {
      const std::lock_guard lock(mutex_);
      if (given_up_) return Status::Error(kGivenUp);
    }
    effects.Clear();
    effects.Add(item.shard, item.db, EffectId::kAppend,
                {item.key, bytes.substr(0, Effects::kPartBytes)});
    TRY(writer.Add(item.shard, effects.bytes(), 0));
  }
  return Status::Ok();
}

void Checkpointer::Pace(uint64_t bytes) {
  const int64_t now_us = RealClock().MonotonicUs();
  pace_us_ = std::max(pace_us_, now_us - kPaceSlackUs) +
             static_cast<int64_t>(bytes * 1'000'000 / kFileBytesPerSecond);
  if (pace_us_ <= now_us || hurried_.load(std::memory_order_relaxed)) return;
  std::unique_lock lock(mutex_);
  work_.wait_for(lock, std::chrono::microseconds(pace_us_ - now_us),
                 [this] { return given_up_ || hurried_.load(std::memory_order_relaxed); });
}

// A checkpoint must not know more than the log: after a power cut the log would go on below it.
// Behind a gap nothing counts as durable before there is a checkpoint, this one: there it is what
// is on disk that matters, and of what was before the gap nothing is missed.
Status Checkpointer::WaitUntilDurable() {
  wal::Log& log = *job_.log;
  const int64_t begin_us = RealClock().MonotonicUs();
  int64_t asked_us = 0;
  const auto reached = [&] {
    if (log.durable_lsn() >= job_.lsn) return true;
    const wal::Metrics metrics = log.metrics();
    return metrics.awaits_checkpoint &&
           (job_.lsn <= job_.gap_lsn || metrics.synced_lsn >= job_.lsn);
  };
  while (!reached()) {
    const int64_t now_us = RealClock().MonotonicUs();
    if (now_us - asked_us > kSyncAgainUs) {
      log.RequestSync();
      asked_us = now_us;
    }
    const wal::State state = log.state();
    if (state == wal::State::kStopped ||
        (state == wal::State::kDegraded && !log.metrics().awaits_checkpoint)) {
      return Status::Error("the log stopped before what it had was durable");
    }
    if (state == wal::State::kRefusing && hurried_.load(std::memory_order_relaxed)) {
      return Status::Error("the log cannot be written at the moment");
    }
    if (now_us - begin_us > kDurableWaitUs) {
      return Status::Error("the log is not durable up to the checkpoint after " +
                           std::to_string(kDurableWaitUs / 1'000'000) + " s");
    }
    std::unique_lock lock(mutex_);
    work_.wait_for(lock, 2ms, [this] { return given_up_; });
    if (given_up_) return Status::Error(kGivenUp);
  }
  return Status::Ok();
}

Status Checkpointer::Publish(wal::CheckpointWriter& writer) {
  TRY(writer.Publish());
  job_.published_ms = RealClock().WallMs();
  job_.bytes = writer.bytes();
  // The older one must stay usable: with the log behind it. Short of space it is not kept.
  const size_t keep = job_.reason == Reason::kSpace ? 1 : kCheckpointsKept;
  const uint64_t log_id = job_.info.identity.log_id;
  wal::Lsn oldest = job_.lsn;
  const auto found = wal::ListCheckpoints(server_.disk(), job_.directory);
  if (found.ok()) {
    size_t good = 0;
    for (const wal::CheckpointInfo& info : *found) {
      if (!info.problem.empty() || info.lsn > job_.lsn || good == keep) continue;
      if (info.identity.log_id != log_id) continue;  // put here by somebody, and of no use
      oldest = std::min(oldest, info.lsn);
      ++good;
    }
  } else {
    oldest = 0;  // what cannot be read now may be there: everything stays
    LogWarn("cannot look for older checkpoints", {{"error", found.message()}});
  }
  job_.log->SetCheckpoint(job_.lsn, oldest);
  const auto removed = wal::RemoveOldCheckpoints(server_.disk(), job_.directory, log_id, keep);
  if (!removed.ok()) LogWarn("cannot remove older checkpoints", {{"error", removed.message()}});
  return Status::Ok();
}

void Checkpointer::WakeLoops() {
  for (const auto& loop : server_.loops()) loop->WakeForCheckpoint();
}

void Checkpointer::SettleSoon() {
  server_.loops().front()->Post(
      [this](Loop& loop) { loop.dispatcher().Exclusively([this] { Settle(); }); });
}

}  // namespace crab

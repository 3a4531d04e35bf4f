#include "src/server/checkpoint_job.h"

#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "src/execution/lock_set.h"
#include "src/keyspace/effects.h"
#include "src/server/server.h"
#include "utils/check.h"
#include "utils/clock.h"
#include "utils/log.h"
#include "utils/thread.h"

namespace crab {

namespace {

using namespace std::chrono_literals;

// After a wait for the queue the file may be written faster than its pace for so long.
constexpr int64_t kPaceSlackUs = 20'000;
constexpr int64_t kProgressUs = 5'000'000;  // between lines about a long one
// Writers that wait for the queue go on when a quarter of it is free, so that they are not woken
// for every chunk.
constexpr uint64_t kQueueRoomBytes = CheckpointJob::kQueueBytesMax / 4 * 3;
// The walk goes on when the queue is half empty.
constexpr uint64_t kQueueLowBytes = CheckpointJob::kQueueBytes / 2;
// Of one step of the walk by the holder of the world.
constexpr size_t kEntriesPerStep = 256;
constexpr size_t kEntriesPerStepMax = 4096;

// How long the log may take to become durable up to the cut, before the checkpoint is given up: a
// disk that takes longer needs an operator, and a later checkpoint is no worse.
constexpr int64_t kDurableWaitUs = 60'000'000;
constexpr int64_t kSyncAgainUs = 1'000'000;

constexpr char kGivenUp[] = "it was given up";

}  // namespace

uint64_t CheckpointJob::Item::bytes() const {
  const uint64_t own = sizeof(Item) + effects.capacity() + key.capacity();
  return value == nullptr ? own : own + value->MemoryBytes();
}

CheckpointJob::CheckpointJob(Server& server, std::function<void()> on_end)
    : server_(server), on_end_(std::move(on_end)), cursors_(server.loops().size()) {}

CheckpointJob::~CheckpointJob() {
  if (running_) (void)Cancel();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  work_.notify_one();
  if (thread_.joinable()) thread_.join();
  // The keyspace goes, too, and with it the entries that the walk would stamp for a next cut: a
  // stop does not wait for that.
  if (snapshot_ != nullptr) snapshot_->SetLast();
}

// --- the holder of the world ---

void CheckpointJob::Begin(Order order) {
  CHECK(free());
  CHECK(order.log != nullptr);
  CHECK_GT(order.kept, 0u);
  StartThread();
  Keyspace& keyspace = server_.keyspace();
  wal::CheckpointInfo info;
  info.lsn = order.lsn;
  info.identity = order.log->identity();
  // The chunks are of the shards as they are now.
  info.identity.shard_count = keyspace.shard_count();
  info.identity.hash_seed = keyspace.options().hash_seed;
  info.shard_by_hashtag = keyspace.options().shard_by_hashtag;
  info.created_at_ms = RealClock().WallMs();
  const int64_t begun_us = RealClock().MonotonicUs();
  snapshot_ = std::make_unique<Snapshot>(keyspace, *this);

  for (size_t i = 0; i < cursors_.size(); ++i) {
    cursors_[i].next_shard = static_cast<uint32_t>(i);
    cursors_[i].entries = 1;
    cursors_[i].done = i >= keyspace.shard_count();
  }
  quantum_cycles_ = static_cast<uint64_t>(kQuantumUs / server_.MicrosecondsPerCycle());
  running_ = true;
  queue_peak_bytes_.store(0, std::memory_order_relaxed);
  file_bytes_.store(0, std::memory_order_relaxed);
  {
    const std::lock_guard lock(mutex_);
    CHECK(phase_ == Phase::kIdle);
    CHECK(queue_.empty());
    order_ = std::move(order);
    info_ = std::move(info);
    begun_us_ = begun_us;
    keys_total_ = snapshot_->entries_total();
    outcome_ = {};
    outcome_.lsn = order_.lsn;
    phase_ = Phase::kWriting;
    walked_ = false;
    given_up_ = false;
  }
  work_.notify_one();
  WakeLoops();
}

std::optional<CheckpointJob::Outcome> CheckpointJob::Settle() {
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    ended = phase_ == Phase::kEnded;
  }
  std::optional<Outcome> outcome;
  if (ended) outcome = TakeOutcome();
  if (!running_ && snapshot_ != nullptr && snapshot_->done()) snapshot_.reset();
  return outcome;
}

CheckpointJob::Outcome CheckpointJob::Finish() {
  CHECK(running_);
  {
    // Under the mutex, or the file's thread, between its look and its sleep, would miss the call.
    const std::lock_guard lock(mutex_);
    hurried_.store(true, std::memory_order_relaxed);
  }
  pace_.notify_one();
  WalkToTheEnd();
  AwaitEnd();
  hurried_.store(false, std::memory_order_relaxed);
  Outcome outcome = TakeOutcome();
  snapshot_.reset();
  return outcome;
}

void CheckpointJob::GiveUp() {
  CHECK(running_);
  snapshot_->Abandon();
  // Not left to the file's thread: a disk that hangs keeps it, and nobody is to wait for that.
  std::deque<Item> dropped;
  {
    const std::lock_guard lock(mutex_);
    given_up_ = true;
    dropped.swap(queue_);
    for (const Item& item : dropped) own_bytes_ -= item.own_bytes();
    queue_bytes_.store(0, std::memory_order_relaxed);
    server_.execution().snapshot_full.store(false, std::memory_order_relaxed);
  }
  work_.notify_one();
  pace_.notify_one();
  for (Item& item : dropped) Free(item);
  WakeLoops();
}

CheckpointJob::Outcome CheckpointJob::Cancel() {
  GiveUp();
  AwaitEnd();
  Outcome outcome = TakeOutcome();
  if (snapshot_->done()) snapshot_.reset();
  return outcome;
}

void CheckpointJob::Drain() {
  if (running_ || snapshot_ == nullptr) return;
  WalkToTheEnd();
  snapshot_.reset();
}

void CheckpointJob::WatchDisk(std::string directory) {
  if (!directory.empty()) StartThread();
  const std::lock_guard lock(mutex_);
  watched_directory_ = std::move(directory);
}

void CheckpointJob::WalkToTheEnd() {
  Keyspace& keyspace = server_.keyspace();
  for (uint32_t shard = 0; shard < keyspace.shard_count(); ++shard) {
    while (!snapshot_->Step(shard, kEntriesPerStep)) {
      if (!IsFull()) continue;
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

void CheckpointJob::AwaitEnd() {
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [this] { return phase_ == Phase::kEnded; });
}

// Takes over what the file's thread left behind: it has ended.
CheckpointJob::Outcome CheckpointJob::TakeOutcome() {
  {
    const std::lock_guard lock(mutex_);
    CHECK(phase_ == Phase::kEnded);
    phase_ = Phase::kIdle;
  }
  running_ = false;
  saved_entries_ = snapshot_->entries_saved();
  saved_bytes_ = snapshot_->bytes_saved();
  outcome_.queue_peak_bytes = queue_peak_bytes_.load(std::memory_order_relaxed);
  return std::move(outcome_);
}

CheckpointJob::Gauges CheckpointJob::gauges() const {
  Gauges gauges;
  {
    const std::lock_guard lock(mutex_);
    gauges.queue_bytes = own_bytes_;
  }
  gauges.queue_peak_bytes = queue_peak_bytes_.load(std::memory_order_relaxed);
  gauges.file_bytes = file_bytes_.load(std::memory_order_relaxed);
  gauges.saved_entries = running_ ? snapshot_->entries_saved() : saved_entries_;
  gauges.saved_bytes = running_ ? snapshot_->bytes_saved() : saved_bytes_;
  if (!running_) return gauges;
  gauges.lsn = order_.lsn;
  gauges.running_ms = (RealClock().MonotonicUs() - begun_us_) / 1000;
  gauges.keys_total = snapshot_->entries_total();
  gauges.keys_done = snapshot_->entries_done();
  return gauges;
}

uint64_t CheckpointJob::MemoryBytes() const {
  const uint64_t kept_bytes = snapshot_ == nullptr ? 0 : snapshot_->kept_bytes();
  const std::lock_guard lock(mutex_);
  return own_bytes_ + kept_bytes;
}

// --- the walk ---

bool CheckpointJob::Walk(int loop) {
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
    if (IsFull()) {
      walkers_wait_.store(true, std::memory_order_seq_cst);
      // The file's thread may have looked before the flag was there.
      if (queue_bytes_.load(std::memory_order_seq_cst) >= kQueueLowBytes) return false;
    }
    Shard& shard = keyspace.shard(cursor.next_shard);
    const uint64_t begin_cycles = __rdtsc();
    if (locking) LockShard(shard);
    const bool done = snapshot->Step(cursor.next_shard, cursor.entries);
    if (locking) UnlockShard(shard);
    now_cycles = __rdtsc();
    const uint64_t spent = now_cycles - begin_cycles;
    if (spent > step_cycles_max) {
      cursor.entries = std::max<size_t>(1, cursor.entries / 2);
    } else if (spent < step_cycles_max / 2 && !done && !IsFull()) {
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

void CheckpointJob::NoteWalked() {
  bool ended = false;
  {
    const std::lock_guard lock(mutex_);
    walked_ = true;
    ended = phase_ != Phase::kWriting;
  }
  work_.notify_one();
  // One that was given up holds the next back until it is walked to its end: now.
  if (ended) on_end_();
}

void CheckpointJob::Take(uint16_t shard, std::string effects, uint64_t entries) {
  Item item;
  item.shard = shard;
  item.entries = entries;
  item.effects = std::move(effects);
  Push(std::move(item));
}

void CheckpointJob::TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                              LargeString* value, bool stays) {
  Item item;
  item.shard = shard;
  item.entries = 1;
  item.value = value;
  item.db = db;
  item.key = std::move(key);
  item.deadline_ms = deadline_ms;
  item.stays = stays;
  Push(std::move(item));
}

void CheckpointJob::Push(Item item) {
  const uint64_t bytes = item.bytes();
  const uint64_t own_bytes = item.own_bytes();
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kWriting && !given_up_) {
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

void CheckpointJob::Free(Item& item) {
  if (item.value != nullptr) LargeString::Destroy(std::exchange(item.value, nullptr));
}

// --- the file's thread ---

void CheckpointJob::StartThread() {
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
}

void CheckpointJob::Work() {
  SetThreadName("checkpoint");
  LowerThreadPriority();  // the loops come first
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    work_.wait_for(lock, 1s, [this] { return stopping_ || phase_ == Phase::kWriting; });
    if (phase_ != Phase::kWriting) {
      const std::string directory = watched_directory_;
      if (directory.empty() || stopping_) continue;
      lock.unlock();
      SampleDisk(directory);
      lock.lock();
      continue;
    }
    lock.unlock();
    outcome_.status = Write();
    outcome_.given_up = outcome_.status.message() == kGivenUp;
    outcome_.took_ms = (RealClock().MonotonicUs() - begun_us_) / 1000;
    if (!outcome_.status.ok() && !outcome_.given_up) {
      LogError("cannot write a checkpoint; the log goes on as it is",
               {{"reason", order_.reason}, {"error", outcome_.status.message()}});
    }
    // Until kEnded is told, the snapshot stays.
    if (!outcome_.status.ok()) snapshot_->Abandon();
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
    on_end_();
    lock.lock();
  }
}

void CheckpointJob::SampleDisk(const std::string& directory) {
  const Result<uint64_t> free_bytes = server_.disk().FreeBytes(directory);
  disk_free_bytes_.store(free_bytes.ok() ? *free_bytes : 0, std::memory_order_relaxed);
}

Status CheckpointJob::Write() {
  LogVerbose("checkpoint begins",
             {{"lsn", order_.lsn}, {"reason", order_.reason}, {"keys", keys_total_}});
  std::unique_ptr<wal::CheckpointWriter> writer = TRY(wal::CheckpointWriter::Create(
      server_.disk(), order_.directory, info_, order_.compression, order_.keys));
  pace_us_ = RealClock().MonotonicUs();
  paced_bytes_ = writer->bytes();
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
    Status status = WriteItem(*writer, item);
    Free(item);
    outcome_.entries += item.entries;
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      if (given_up_) return Status::Error(kGivenUp);  // nothing counts as queued any more
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
    Pace(*writer);
    if (const int64_t now_us = RealClock().MonotonicUs(); now_us - told_us > kProgressUs) {
      told_us = now_us;
      LogInfo("checkpoint under way", {{"lsn", order_.lsn},
                                       {"keys", outcome_.entries},
                                       {"of", keys_total_},
                                       {"bytes", writer->bytes()}});
    }
  }
  TRY(writer->Finish());
  file_bytes_.store(writer->bytes(), std::memory_order_relaxed);
  TRY(WaitUntilDurable());
  TRY(Publish(*writer));
  LogInfo("checkpointed", {{"lsn", order_.lsn},
                           {"reason", order_.reason},
                           {"keys", outcome_.entries},
                           {"bytes", outcome_.bytes},
                           {"ms", (RealClock().MonotonicUs() - begun_us_) / 1000}});
  return Status::Ok();
}

Status CheckpointJob::WriteItem(wal::CheckpointWriter& writer, Item& item) {
  if (item.value == nullptr) return writer.Add(item.shard, item.effects, item.entries);
  // Straight from the value that is shared with the keyspace, a part at a time.
  std::string_view bytes = item.value->view();
  Effects effects;
  const size_t part_bytes = Effects::PartBytes(item.key);
  effects.Set(item.shard, item.db, item.key, bytes.substr(0, part_bytes), item.deadline_ms);
  TRY(writer.Add(item.shard, effects.bytes(), item.entries));
  while (bytes.size() > part_bytes) {
    bytes.remove_prefix(part_bytes);
    Pace(writer);
    {
      const std::lock_guard lock(mutex_);
      if (given_up_) return Status::Error(kGivenUp);
    }
    effects.Clear();
    effects.Add(item.shard, item.db, EffectId::kAppend, {item.key, bytes.substr(0, part_bytes)});
    TRY(writer.Add(item.shard, effects.bytes(), 0));
  }
  return Status::Ok();
}

void CheckpointJob::Pace(const wal::CheckpointWriter& writer) {
  const uint64_t bytes = writer.bytes() - std::exchange(paced_bytes_, writer.bytes());
  const int64_t now_us = RealClock().MonotonicUs();
  pace_us_ = std::max(pace_us_, now_us - kPaceSlackUs) +
             static_cast<int64_t>(bytes * 1'000'000 / kFileBytesPerSecond);
  if (pace_us_ <= now_us || hurried_.load(std::memory_order_relaxed)) return;
  // Not to be woken by everything that comes into the queue meanwhile.
  std::unique_lock lock(mutex_);
  pace_.wait_for(lock, std::chrono::microseconds(pace_us_ - now_us),
                 [this] { return given_up_ || hurried_.load(std::memory_order_relaxed); });
}

// A checkpoint must not know more than the log: after a power cut the log would go on below it.
// Behind a gap nothing counts as durable before there is a checkpoint, this one: there it is what
// is on disk that matters, and of what was before the gap nothing is missed.
Status CheckpointJob::WaitUntilDurable() {
  wal::Log& log = *order_.log;
  const int64_t begin_us = RealClock().MonotonicUs();
  int64_t asked_us = 0;
  while (log.durable_lsn() < order_.lsn) {
    // All from one copy: the log's writer may end the gap at any moment.
    const wal::Metrics metrics = log.metrics();
    if (metrics.awaits_checkpoint &&
        (order_.lsn <= order_.gap_lsn || metrics.synced_lsn >= order_.lsn)) {
      break;
    }
    const int64_t now_us = RealClock().MonotonicUs();
    if (now_us - asked_us > kSyncAgainUs) {
      log.RequestSync();
      asked_us = now_us;
    }
    if (metrics.state == wal::State::kStopped ||
        (metrics.state == wal::State::kDegraded && !metrics.awaits_checkpoint)) {
      return Status::Error("the log stopped before what it had was durable");
    }
    if (metrics.state == wal::State::kRefusing && hurried_.load(std::memory_order_relaxed)) {
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

Status CheckpointJob::Publish(wal::CheckpointWriter& writer) {
  TRY(writer.Publish());
  outcome_.published_ms = RealClock().WallMs();
  outcome_.bytes = writer.bytes();
  // The older ones that are kept must stay usable: with the log behind them.
  wal::Log& log = *order_.log;
  const uint64_t log_id = info_.identity.log_id;
  const wal::Lsn retained_from = order_.kept > 1 ? log.retained_from() : wal::kUnknownLsn;
  auto found = wal::ListCheckpoints(server_.disk(), order_.directory);
  if (!found.ok()) {
    // What cannot be read now may be there: everything stays.
    log.SetCheckpoint(order_.lsn, 0);
    LogWarn("cannot look for older checkpoints", {{"error", found.message()}});
    return Status::Ok();
  }
  for (wal::CheckpointInfo& info : *found) {
    const bool damaged =
        std::find(order_.damaged.begin(), order_.damaged.end(), info.lsn) != order_.damaged.end();
    if (damaged && info.lsn != order_.lsn && info.problem.empty()) {
      info.problem = "a chunk of it is damaged";
    }
  }
  const wal::KeptCheckpoints kept =
      wal::ChooseCheckpoints(*found, log_id, order_.kept, retained_from);
  log.SetRestorable(kept.oldest_restorable);
  // One alone has the whole log beside it, in case it is damaged. Behind a gap that would be of no
  // use.
  const bool alone = kept.good < order_.kept && order_.gap_lsn == 0;
  log.SetCheckpoint(order_.lsn, alone ? 0 : std::min(kept.oldest_needed, order_.lsn));
  // The disk is nearly full: what is retained for restores has lost its checkpoint, and its room is
  // what is wanted.
  if (order_.kept == 1) log.RequestCleanup(0);
  const Status removed = wal::RemoveCheckpoints(server_.disk(), order_.directory, kept.gone);
  if (!removed.ok()) LogWarn("cannot remove older checkpoints", {{"error", removed.message()}});
  return Status::Ok();
}

void CheckpointJob::WakeLoops() {
  for (const auto& loop : server_.loops()) loop->WakeForCheckpoint();
}

}  // namespace crab

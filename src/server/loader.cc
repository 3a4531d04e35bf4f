#include "src/server/loader.h"

#include <chrono>
#include <utility>

#include "utils/check.h"
#include "utils/clock.h"
#include "utils/thread.h"

namespace crab {

namespace {

// Transactions from this size on are judged once, smaller ones by each unit that has a part: that
// costs less than asking the others.
constexpr size_t kVerdictKeptBytes = 16 * 1024;
// So many are remembered: the units of a stage meet the same ones one after the other.
constexpr size_t kVerdictsMax = 4096;

}  // namespace

uint64_t LoadProgress::bytes_per_second() const {
  return elapsed_ms <= 0 ? 0 : bytes_done * 1000 / static_cast<uint64_t>(elapsed_ms);
}

int64_t LoadProgress::remaining_ms() const {
  const uint64_t rate = bytes_per_second();
  if (rate == 0 || bytes_done >= bytes_total) return 0;
  return static_cast<int64_t>((bytes_total - bytes_done) * 1000 / rate);
}

Loader::Loader(Execution& execution, std::unique_ptr<wal::Backlog> backlog, int workers, Hook hook)
    : world_(execution.world),
      keyspace_(execution.keyspace),
      backlog_(std::move(backlog)),
      workers_(workers),
      hook_(std::move(hook)),
      units_(backlog_->units()),
      shards_per_unit_(keyspace_.shard_count() / units_),
      any_order_(backlog_->any_order()),
      start_us_(RealClock().MonotonicUs()),
      done_(std::make_unique<std::atomic<bool>[]>(units_)) {
  CHECK_GT(workers, 0);
  CHECK_GT(shards_per_unit_, 0u);
  for (int i = 0; i < world_.loops() + workers; ++i) {
    replayers_.push_back(std::make_unique<Replayer>(keyspace_, execution.registry));
  }
  world_.OpenToGuests(workers);
}

int Loader::Workers() { return UsableCores(); }

Loader::~Loader() { Stop(); }

void Loader::Start(std::function<void()> on_end) {
  on_end_ = std::move(on_end);
  working_ = workers_;
  for (int i = 0; i < workers_; ++i) threads_.emplace_back([this, i] { Work(i); });
}

bool Loader::WaitFor(int64_t timeout_ms) {
  std::unique_lock lock(mutex_);
  return ended_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [this] { return through_; });
}

void Loader::Stop() {
  stopping_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Status Loader::error() const {
  std::lock_guard lock(mutex_);
  return error_.empty() ? Status::Ok() : Status::Error(error_);
}

wal::RecoveryReport Loader::report() const {
  std::lock_guard lock(mutex_);
  return backlog_ == nullptr ? last_report_ : backlog_->report();
}

LoadProgress Loader::progress() const {
  std::lock_guard lock(mutex_);
  return backlog_ == nullptr ? last_progress_ : ProgressNow();
}

LoadProgress Loader::ProgressNow() const {
  LoadProgress progress;
  progress.bytes_total = backlog_->total_bytes();
  progress.bytes_done = backlog_->done_bytes();
  progress.units_total = units_;
  progress.units_done = units_done_.load(std::memory_order_relaxed);
  progress.elapsed_ms = (RealClock().MonotonicUs() - start_us_) / 1000;
  return progress;
}

void Loader::Work(int worker) {
  SetThreadName(("loader-" + std::to_string(worker)).c_str());
  const int guest = world_.loops() + worker;
  LowerThreadPriority();  // clients that ask meanwhile come first
  for (wal::Backlog::Piece piece; !stopping_ && !failed_ && NextPiece(&piece);) {
    if (done_[piece.unit]) continue;
    if (hook_) hook_(piece.unit);
    // OUT between two pieces: who wants the world waits for one at most.
    world_.Enter(guest);
    ReplayPiece(piece, *replayers_[guest]);
    world_.Exit(guest);
  }
  {
    std::lock_guard lock(mutex_);
    if (--working_ > 0) return;
  }
  // Every unit was seen done by the worker that drew it, be it that a loop replayed it.
  ReleaseBacklog();
  if (on_end_) on_end_();
  std::lock_guard lock(mutex_);
  through_ = true;
  ended_.notify_all();
}

void Loader::ReleaseBacklog() {
  if (units_done_.load(std::memory_order_relaxed) < units_) return;
  std::unique_ptr<wal::Backlog> backlog;  // goes when the lock has gone
  std::lock_guard lock(mutex_);
  last_progress_ = ProgressNow();
  last_report_ = backlog_->report();
  backlog = std::move(backlog_);
}

bool Loader::Load(uint32_t shard, int loop) {
  const uint32_t unit = shard / shards_per_unit_;
  if (done_[unit].load(std::memory_order_acquire)) return true;
  if (any_order_) return ReplayPiece({unit}, *replayers_[loop]);
  // Nobody is served before all is there; who asks nevertheless takes part in it.
  for (wal::Backlog::Piece next; NextPiece(&next);) ReplayPiece(next, *replayers_[loop]);
  return done_[unit];
}

bool Loader::NextPiece(wal::Backlog::Piece* piece) {
  auto next = backlog_->NextPiece(piece);
  if (!next.ok()) {
    Fail(next.TakeStatus());
    return false;
  }
  if (!*next && !any_order_) {
    std::lock_guard lock(mutex_);
    for (uint32_t i = 0; i < units_; ++i) {
      if (!done_[i]) SetDone(i);
    }
  }
  return *next;
}

void Loader::SetDone(uint32_t unit) {
  units_done_.fetch_add(1, std::memory_order_relaxed);
  done_[unit].store(true, std::memory_order_release);
}

void Loader::Fail(const Status& status) {
  failed_ = true;
  std::lock_guard lock(mutex_);
  if (error_.empty()) error_ = status.message();
}

bool Loader::ReplayPiece(const wal::Backlog::Piece& piece, Replayer& replayer) {
  const uint32_t unit = piece.unit;
  const ShardRange shards{unit * shards_per_unit_, (unit + 1) * shards_per_unit_};
  for (uint32_t i = shards.first; i < shards.end; ++i) LockShard(keyspace_.shard(i));
  if (!done_[unit] && !failed_) {
    static_assert(wal::Backlog::kToldMax <= Replayer::kExpectedMax);
    auto whole = backlog_->Replay(
        piece, [&](const wal::Backlog::Part& part) { return Apply(part, replayer, shards); },
        [&](std::span<const std::string_view> next) { replayer.Expect(next, shards); });
    if (!whole.ok()) {
      Fail(whole.TakeStatus());
    } else if (*whole) {
      SetDone(unit);
    }
  }
  const bool done = done_[unit];
  for (uint32_t i = shards.first; i < shards.end; ++i) UnlockShard(keyspace_.shard(i));
  return done;
}

Status Loader::Apply(const wal::Backlog::Part& part, Replayer& replayer, ShardRange shards) {
  // Whole or not at all: nothing is applied before all of it is known to suit.
  if (part.type == wal::RecordType::kTxn) TRY(CheckWhole(part, replayer));
  return replayer.Replay(part.payload, shards);
}

Status Loader::CheckWhole(const wal::Backlog::Part& part, Replayer& replayer) {
  const auto judge = [&]() -> Status {
    return replayer.Check(TRY(TransactionEffects(part.whole)));
  };
  if (part.whole.size() < kVerdictKeptBytes) return judge();
  {
    std::lock_guard lock(mutex_);
    const auto found = verdicts_.find(part.lsn);
    if (found != verdicts_.end()) {
      return found->second.empty() ? Status::Ok() : Status::Error(found->second);
    }
  }
  Status verdict = judge();
  std::lock_guard lock(mutex_);
  if (verdicts_.size() >= kVerdictsMax) verdicts_.clear();
  verdicts_[part.lsn] = verdict.message();
  return verdict;
}

}  // namespace crab

#include "src/server/loop.h"

#include <sys/timerfd.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <string>
#include <utility>

#include "src/server/server.h"
#include "utils/check.h"
#include "utils/log.h"
#include "utils/thread.h"

namespace crab {

namespace {

constexpr size_t kReadBufferBytes = 256 * 1024;
constexpr uint64_t kTimerMs = 100;  // what `hz 10` is in Redis
// Of each timer interval, at most this much goes to active expiry: a quarter, and 2 % more for each
// step of active-expire-effort above 1, as in Redis.
constexpr int64_t kExpireBudgetUs = 25'000;
constexpr int64_t kExpireBudgetStepUs = 2'000;
// So many quanta of a walk (1 ms in all) behind its last request a loop still counts as serving.
constexpr uint64_t kServingQuanta = 20;

}  // namespace

Loop::Loop(Server& server, int index)
    : server_(server),
      world_(server.execution().world),
      index_(index),
      dispatcher_(server.execution(), index),
      read_buffer_(kReadBufferBytes) {
  CHECK_EQ(uv_loop_init(&uv_), 0);
  uv_.data = this;
  CHECK_EQ(uv_async_init(&uv_, &wake_,
                         [](uv_async_t* handle) { static_cast<Loop*>(handle->data)->OnWake(); }),
           0);
  wake_.data = this;
  timer_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  CHECK_GE(timer_fd_, 0);
  CHECK_EQ(uv_poll_init(&uv_, &timer_, timer_fd_), 0);
  timer_.data = this;
  CHECK_EQ(uv_prepare_init(&uv_, &before_poll_), 0);
  before_poll_.data = this;
  CHECK_EQ(uv_idle_init(&uv_, &walk_), 0);
  rest_fd_ = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  CHECK_GE(rest_fd_, 0);
  CHECK_EQ(uv_poll_init(&uv_, &rest_, rest_fd_), 0);
  rest_.data = this;
}

Loop::~Loop() {
  Stop();  // a loop that never ran still has its handles
  uv_run(&uv_, UV_RUN_DEFAULT);
  CHECK_EQ(uv_loop_close(&uv_), 0);
}

void Loop::Run() {
  SetThreadName(("loop-" + std::to_string(index_)).c_str());
  constexpr timespec kInterval{0, kTimerMs * 1'000'000};
  constexpr itimerspec kTimes{kInterval, kInterval};
  CHECK_EQ(timerfd_settime(timer_fd_, 0, &kTimes, nullptr), 0);
  uv_poll_start(&timer_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    Loop& loop = *static_cast<Loop*>(handle->data);
    uint64_t expirations = 0;
    if (read(loop.timer_fd_, &expirations, sizeof(expirations)) > 0) loop.OnTimer();
  });
  uv_poll_start(&rest_, UV_READABLE, [](uv_poll_t* handle, int, int) {
    Loop& loop = *static_cast<Loop*>(handle->data);
    uint64_t expirations = 0;
    if (read(loop.rest_fd_, &expirations, sizeof(expirations)) > 0) loop.rest_is_set_ = false;
  });
  uv_prepare_start(&before_poll_, [](uv_prepare_t* handle) {
    Loop& loop = *static_cast<Loop*>(handle->data);
    const bool served_requests = loop.in_;
    loop.EndRound();
    if (__builtin_expect(loop.walking_, 0)) loop.Walk(served_requests);
  });
  uv_run(&uv_, UV_RUN_DEFAULT);
  EndRound();
}

void Loop::Post(Mailbox::Letter letter) {
  if (mailbox_.Post(std::move(letter))) uv_async_send(&wake_);
}

void Loop::WakeForLog() {
  if (awaits_log_.exchange(false, std::memory_order_seq_cst)) uv_async_send(&wake_);
}

void Loop::WakeForCheckpoint() {
  walk_wanted_.store(true, std::memory_order_release);
  uv_async_send(&wake_);
}

void Loop::WalkSoon() {
  if (walking_ || stopping_) return;
  walking_ = true;
  quantum_cycles_ = std::max<uint64_t>(
      1, static_cast<uint64_t>(CheckpointJob::kQuantumUs / server_.MicrosecondsPerCycle()));
  uv_idle_start(&walk_, [](uv_idle_t*) {});
}

// A loop with nothing else to do walks quantum after quantum and polls between them. One that
// serves requests rests for kRestQuanta after each: then the walk takes a quarter of its time. It
// rests asleep: the kernel takes a loop that is always busy off its core for milliseconds, when
// another thread wants that, and wakes one that sleeps at once.
void Loop::Walk(bool served_requests) {
  const uint64_t begin_cycles = __rdtsc();
  if (served_requests) serving_until_cycles_ = begin_cycles + kServingQuanta * quantum_cycles_;
  const bool serving = begin_cycles < serving_until_cycles_;
  if (serving && begin_cycles < walk_not_before_cycles_) return Rest(begin_cycles);
  world_.Enter(index_);
  const bool more = server_.checkpointer().Walk(index_);
  world_.Exit(index_);
  const uint64_t end_cycles = __rdtsc();
  // What a quantum took while the thread was off its core does not count.
  const uint64_t spent_cycles = std::min(end_cycles - begin_cycles, 2 * quantum_cycles_);
  walk_not_before_cycles_ = end_cycles + spent_cycles * CheckpointJob::kRestQuanta;
  if (!more) {
    walking_ = false;
    uv_idle_stop(&walk_);
  } else if (serving) {
    Rest(end_cycles);
  } else {
    uv_idle_start(&walk_, [](uv_idle_t*) {});
  }
}

// Sleeps until there is something to do, or it is time to walk on.
void Loop::Rest(uint64_t now_cycles) {
  uv_idle_stop(&walk_);
  if (std::exchange(rest_is_set_, true)) return;
  const double us = static_cast<double>(walk_not_before_cycles_ - now_cycles) /
                    static_cast<double>(quantum_cycles_) * CheckpointJob::kQuantumUs;
  const itimerspec time{{0, 0}, {0, static_cast<long>(us * 1000) + 1}};
  CHECK_EQ(timerfd_settime(rest_fd_, 0, &time, nullptr), 0);
}

void Loop::EnterRound() {
  world_.Enter(index_);
  in_ = true;
  round_begin_cycles_ = __rdtsc();
  dispatcher_.RefreshClock();
}

void Loop::EndRound() {
  if (!in_) return;
  // Before the replies: what this round appended is one group commit, and it may begin.
  if (wal::Log* log = server_.execution().log) log->Kick();
  for (size_t i = 0; i < dirty_.size(); ++i) {
    dirty_[i]->in_dirty_list_ = false;
    dirty_[i]->Flush();
  }
  dirty_.clear();
  if (__builtin_expect(std::exchange(sync_wanted_, false), 0)) {
    if (wal::Log* log = server_.execution().log) log->RequestSync();
  }
  ++stats_.rounds;
  stats_.round_cycles += __rdtsc() - round_begin_cycles_;
  in_ = false;
  world_.Exit(index_);
}

void Loop::FlushSoon(Connection& connection) {
  if (connection.in_dirty_list_) return;
  connection.in_dirty_list_ = true;
  dirty_.push_back(&connection);
}

void Loop::OnWake() {
  Enter();
  for (Mailbox::Letter& letter : mailbox_.TakeAll()) letter(*this);
  if (walk_wanted_.exchange(false, std::memory_order_acquire)) WalkSoon();
  OnLogMoved();
}

void Loop::OnLogMoved() {
  for (Connection* connection : std::exchange(held_, {})) {
    connection->in_held_list_ = false;
    connection->Flush();
  }
  for (Connection* connection : std::exchange(waiting_, {})) {
    connection->in_paused_list_ = false;
    connection->Resume();
  }
}

void Loop::AwaitLog(Connection& connection) {
  if (connection.in_held_list_) return;
  connection.in_held_list_ = true;
  held_.push_back(&connection);
  awaits_log_.store(true, std::memory_order_seq_cst);
  // The log may have moved between the look that held the reply and the flag.
  if (connection.session().HeldIsDecided()) WakeForLog();
}

void Loop::SyncSoon() {
  // Under `sync` the end of the round asks for it anyway.
  if (server_.config().wal_sync_policy != WalSyncPolicy::kSync) sync_wanted_ = true;
}

void Loop::SyncWithin(int64_t interval_ms) {
  constexpr int64_t kSyncMs = 2 * kTimerMs;  // the timer's step, and the sync itself
  const int64_t due_ms = dispatcher_.now_ms() + interval_ms - kSyncMs;
  if (interval_ms <= kSyncMs) {
    SyncSoon();
  } else if (sync_due_ms_ == 0 || due_ms < sync_due_ms_) {
    sync_due_ms_ = due_ms;
  }
}

void Loop::AwaitResume(Connection& connection) {
  if (connection.in_paused_list_) return;
  connection.in_paused_list_ = true;
  waiting_.push_back(&connection);
  // Room may have come meanwhile; the timer looks again too, so a lost wake-up costs 100 ms at
  // most.
  awaits_log_.store(true, std::memory_order_seq_cst);
}

void Loop::Forget(Connection& connection) {
  if (connection.in_dirty_list_) std::erase(dirty_, &connection);
  std::erase(held_, &connection);
  std::erase(waiting_, &connection);
  const auto found = connections_.find(connection.session().client().id);
  if (found == connections_.end()) return;
  closing_.push_back(std::move(found->second));
  connections_.erase(found);
  connection_count_.fetch_sub(1, std::memory_order_relaxed);
}

void Loop::Destroy(Connection* connection) {
  std::erase_if(closing_, [=](const auto& owned) { return owned.get() == connection; });
}

void Loop::Adopt(int fd, SessionOptions options) {
  if (stopping_) {
    close(fd);
    return;
  }
  const uint64_t id = server_.NextClientId();
  auto connection = std::make_unique<Connection>(
      *this, fd, std::make_unique<Session>(server_, *this, dispatcher_, id, std::move(options)));
  Connection* const started = connection.get();
  connections_.emplace(id, std::move(connection));
  ++stats_.connections_accepted;
  if (!started->Start()) {
    LogWarn("closing a connection that cannot be watched", {{"client", id}});
    connections_.erase(id);
    connection_count_.fetch_sub(1, std::memory_order_relaxed);
  }
}

void Loop::CloseKilled() {
  std::vector<Connection*> killed;
  for (const auto& [id, connection] : connections_) {
    if (connection->session().killed) killed.push_back(connection.get());
  }
  for (Connection* connection : killed) connection->Close();
}

void Loop::OnTimer() {
  Enter();
  ++timer_ticks_;
  dispatcher_.ExpireCycle(kExpireBudgetUs +
                          (server_.config().active_expire_effort - 1) * kExpireBudgetStepUs);
  if (!waiting_.empty() || !held_.empty()) OnLogMoved();
  WalkSoon();  // for a walk that was not woken: it costs a look
  if (sync_due_ms_ != 0 && dispatcher_.now_ms() >= sync_due_ms_) {
    sync_due_ms_ = 0;
    SyncSoon();
  }
  constexpr uint64_t kTicksPerSecond = 1000 / kTimerMs;
  if (timer_ticks_ % kTicksPerSecond == 0) {
    const int64_t now_ms = dispatcher_.now_ms();
    const int64_t timeout_ms = server_.config().timeout_seconds * 1000;
    std::vector<Connection*> idle;
    for (const auto& [id, connection] : connections_) {
      Session& session = connection->session();
      // A client that waits for us is not idle.
      if (timeout_ms > 0 && session.waiting() == Session::Wait::kNothing && !session.held() &&
          now_ms - session.last_active_ms > timeout_ms) {
        idle.push_back(connection.get());
      } else if (server_.OverOutputLimit(session)) {
        session.killed = true;
        idle.push_back(connection.get());
      } else if (now_ms - session.last_active_ms > 2000) {
        session.ShrinkBuffers();
      }
    }
    for (Connection* connection : idle) {
      if (!connection->session().killed) ++stats_.idle_closed;
      connection->Close();
    }
    if (index_ == 0) server_.EverySecond();
  }
}

void Loop::Stop() {
  if (stopping_) return;
  stopping_ = true;
  std::vector<Connection*> all;
  for (const auto& [id, connection] : connections_) all.push_back(connection.get());
  for (Connection* connection : all) {
    connection->Flush();
    connection->Close();
  }
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_),
           [](uv_handle_t* handle) { close(static_cast<Loop*>(handle->data)->timer_fd_); });
  uv_close(reinterpret_cast<uv_handle_t*>(&rest_),
           [](uv_handle_t* handle) { close(static_cast<Loop*>(handle->data)->rest_fd_); });
  uv_close(reinterpret_cast<uv_handle_t*>(&before_poll_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&walk_), nullptr);
  uv_close(reinterpret_cast<uv_handle_t*>(&wake_), nullptr);
}

}  // namespace crab

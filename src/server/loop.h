// Loop: one libuv loop on one thread, with its connections, its dispatcher and its mailbox. It is
// IN (nobody else may take the world) from the first event of a round to the moment before it polls
// again, and OUT while it polls. Replies leave together at the end of a round: the clients that
// they wake send their next requests together, too, which costs fewer wake-ups on both sides.
// Loop-bound, except Post, WakeForLog, WakeForCheckpoint and the counters, which say so.
#pragma once

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <unordered_map>
#include <vector>

#include "src/execution/dispatch.h"
#include "src/server/connection.h"
#include "src/server/mailbox.h"

namespace crab {

class Server;

// Written by the loop while IN, read by an exclusive command.
struct LoopStats {
  uint64_t bytes_in = 0, bytes_out = 0, reads = 0, writes = 0;
  uint64_t connections_accepted = 0;
  uint64_t rounds = 0, round_cycles = 0;  // of the event loop, and what they took
  uint64_t auth_denied = 0;
  uint64_t idle_closed = 0;          // by `timeout`
  uint64_t output_limit_closed = 0;  // client_output_buffer_limit_disconnections
  uint64_t query_limit_closed = 0;
};

class Loop {
 public:
  Loop(Server& server, int index);
  ~Loop();

  int index() const { return index_; }
  uv_loop_t* uv() { return &uv_; }
  Server& server() { return server_; }
  Dispatcher& dispatcher() { return dispatcher_; }
  LoopStats& stats() { return stats_; }
  // Connections alive on this loop or on their way to it. Any thread: the least loaded one gets the
  // next, also when many are accepted before a loop adopts the first of them.
  size_t connection_count() const { return connection_count_.load(std::memory_order_relaxed); }
  void ExpectConnection() { connection_count_.fetch_add(1, std::memory_order_relaxed); }
  // World-guarded: by client id.
  const std::unordered_map<uint64_t, std::unique_ptr<Connection>>& connections() const {
    return connections_;
  }

  // Runs until Stop; the caller's thread becomes the loop's.
  void Run();
  // Any thread: `letter` runs on this loop while it is IN.
  void Post(Mailbox::Letter letter);
  // The log's writer thread: wakes the loop when a connection of it waits for the log.
  void WakeForLog();
  // Any thread: there is a part of a checkpoint to walk, or its queue has room again for writers.
  void WakeForCheckpoint();

  // --- for its connections ---
  // Every callback of libuv begins with this: IN until the round ends.
  void Enter() {
    if (!in_) EnterRound();
  }
  void Breathe() { world_.Breathe(index_); }
  std::span<char> read_buffer() { return read_buffer_; }
  void FlushSoon(Connection& connection);     // at the end of this round
  void WakeSoon() { uv_async_send(&wake_); }  // those that wait for their turn have it
  void AwaitLog(Connection& connection);      // flushed again when the log moves
  // For connections whose durability is more than the policy of the log: asks it for a sync at the
  // end of this round, one for all of them; or so that it is over within `interval_ms`.
  void SyncSoon();
  void SyncWithin(int64_t interval_ms);
  void AwaitResume(Connection& connection);  // resumed when there may be room or the pause is over
  void Forget(Connection& connection);       // it is closing
  void Destroy(Connection* connection);      // libuv has let go of it

  // Takes over an accepted socket, an expected connection. The loop is IN.
  void Adopt(int fd, SessionOptions options);
  // Closes connections that an exclusive command marked as killed.
  void CloseKilled();
  // Sends what can be sent, closes every connection and ends Run.
  void Stop();

 private:
  void EnterRound();
  void EndRound();
  void OnWake();
  void OnTimer();
  void OnLogMoved();
  void WalkSoon();                  // until Walk finds nothing to do
  void Walk(bool served_requests);  // a quantum of the checkpoint, before the loop polls
  void Rest(uint64_t now_cycles);   // until walk_not_before_cycles_

  Server& server_;
  World& world_;
  const int index_;
  uv_loop_t uv_;
  uv_async_t wake_;
  // A timerfd that is polled, not a uv_timer: with one of those each poll has a timeout, and
  // setting up and taking down its timer in the kernel is 4 % of a request's cost.
  int timer_fd_;
  uv_poll_t timer_;
  uv_prepare_t before_poll_;
  uv_idle_t walk_;  // active while the loop has only a walk to do: then it polls without a wait
  int rest_fd_;     // a timerfd: wakes a loop that rests between two quanta of a walk
  uv_poll_t rest_;
  Mailbox mailbox_;
  Dispatcher dispatcher_;
  LoopStats stats_;
  std::vector<char> read_buffer_;
  std::unordered_map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> closing_;
  std::atomic<size_t> connection_count_{0};
  std::vector<Connection*> dirty_;    // replies leave at the end of the round
  std::vector<Connection*> held_;     // replies wait for the log
  std::vector<Connection*> waiting_;  // requests wait for room or the end of a pause
  // Set by the loop before it looks at release_lsn for the last time, taken by the log's listener:
  // sequentially consistent against the LSN, so that no wake-up is lost.
  std::atomic<bool> awaits_log_{false};
  bool sync_wanted_ = false;  // at the end of this round
  int64_t sync_due_ms_ = 0;   // when the timer asks for one; 0 = never
  uint64_t timer_ticks_ = 0;
  bool in_ = false;
  uint64_t round_begin_cycles_ = 0;
  std::atomic<bool> walk_wanted_{false};  // set before the loop is woken for it
  bool walking_ = false;
  uint64_t walk_not_before_cycles_ = 0;  // while there are requests
  uint64_t serving_until_cycles_ = 0;    // there were some a moment ago, and more may come
  uint64_t quantum_cycles_ = 1;
  bool rest_is_set_ = false;  // rest_fd_ has yet to fire
  bool stopping_ = false;
};

}  // namespace crab

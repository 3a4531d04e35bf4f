// World: the lock of all shards at once (DESIGN §3). Each loop is IN while it handles an event and
// OUT while it polls; whoever needs everything raises a flag and waits until all others are OUT.
// Plain data read while IN and changed only by the exclusive holder needs no other lock.
// While a log is replayed its threads take part as guests, IN while they replay.
// Synchronized. With one loop and no guests every call is a branch: nobody else touches a shard.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>

namespace crab {

class World {
 public:
  explicit World(int loops);

  int loops() const { return loops_; }
  // Whether several threads touch shards, so that each is locked by whoever uses it. While IN.
  bool shared() const { return shared_; }

  // Lets `guests` more threads take part, as loops() and up. Before any loop runs.
  void OpenToGuests(int guests);
  // Ends that: the guests have gone for good, and loop 0 calls this, IN.
  void CloseToGuests();

  // OUT -> IN; sleeps while somebody holds the world.
  void Enter(int loop) {
    if (shared_) EnterShared(loop);
  }
  // IN -> OUT. The caller holds no shard.
  void Exit(int loop) {
    if (shared_) ExitShared(loop);
  }
  // Between two commands of a batch: lets a waiting exclusive holder run.
  void Breathe(int loop) {
    // Relaxed: seeing the flag one command late only delays the one who raised it.
    if (shared_ && wanted_.load(std::memory_order_relaxed) != 0) {
      ExitShared(loop);
      EnterShared(loop);
    }
  }

  // The caller is IN and holds no shard. While it waits for the others it is OUT, so what it read
  // before may have changed.
  void AcquireExclusive(int loop);
  void ReleaseExclusive(int loop);  // leaves the caller IN

 private:
  struct alignas(64) LoopState {
    // 1 = IN. Stored by its loop and awaited by the exclusive holder; sequentially consistent
    // against `wanted_`, so that of a loop going IN and a holder raising the flag one sees the
    // other.
    std::atomic<uint32_t> in{0};
  };

  void EnterShared(int loop);
  void ExitShared(int loop);

  const int loops_;
  // World-guarded. What a loop that is the only one reads changes on its own thread only.
  int participants_;
  bool shared_;
  std::unique_ptr<LoopState[]> states_;          // of the loops, then of guests
  alignas(64) std::atomic<uint32_t> wanted_{0};  // 1 while somebody waits for or holds the world
  std::mutex exclusive_mutex_;                   // one holder at a time
};

}  // namespace crab

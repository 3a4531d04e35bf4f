#include "src/execution/world.h"

#include "utils/check.h"

namespace crab {

World::World(int loops) : loops_(loops), states_(std::make_unique<LoopState[]>(loops)) {
  CHECK_GT(loops, 0);
}

void World::EnterShared(int loop) {
  std::atomic<uint32_t>& in = states_[loop].in;
  for (;;) {
    in.store(1, std::memory_order_seq_cst);
    if (wanted_.load(std::memory_order_seq_cst) == 0) return;
    in.store(0, std::memory_order_seq_cst);
    in.notify_one();
    wanted_.wait(1, std::memory_order_seq_cst);
  }
}

void World::ExitShared(int loop) {
  std::atomic<uint32_t>& in = states_[loop].in;
  in.store(0, std::memory_order_seq_cst);
  if (wanted_.load(std::memory_order_seq_cst) != 0) in.notify_one();
}

void World::AcquireExclusive(int loop) {
  if (loops_ == 1) return;
  ExitShared(loop);  // two who want the world must not wait for each other
  exclusive_mutex_.lock();
  wanted_.store(1, std::memory_order_seq_cst);
  for (int i = 0; i < loops_; ++i) {
    while (states_[i].in.load(std::memory_order_seq_cst) != 0) {
      states_[i].in.wait(1, std::memory_order_seq_cst);
    }
  }
}

void World::ReleaseExclusive(int loop) {
  if (loops_ == 1) return;
  wanted_.store(0, std::memory_order_seq_cst);
  wanted_.notify_all();
  exclusive_mutex_.unlock();
  EnterShared(loop);
}

}  // namespace crab

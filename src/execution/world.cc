#include "src/execution/world.h"

#include "utils/check.h"

namespace crab {

World::World(int loops)
    : loops_(loops),
      participants_(loops),
      shared_(loops > 1),
      states_(std::make_unique<LoopState[]>(loops)) {
  CHECK_GT(loops, 0);
}

void World::OpenToGuests(int guests) {
  CHECK_GT(guests, 0);
  CHECK_EQ(participants_, loops_);
  participants_ = loops_ + guests;
  shared_ = true;
  states_ = std::make_unique<LoopState[]>(participants_);
}

void World::CloseToGuests() {
  AcquireExclusive(0);
  participants_ = loops_;
  ReleaseExclusive(0);
  if (loops_ == 1) shared_ = false;
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
  if (!shared_) return;
  ExitShared(loop);  // two who want the world must not wait for each other
  exclusive_mutex_.lock();
  wanted_.store(1, std::memory_order_seq_cst);
  for (int i = 0; i < participants_; ++i) {
    while (states_[i].in.load(std::memory_order_seq_cst) != 0) {
      states_[i].in.wait(1, std::memory_order_seq_cst);
    }
  }
}

void World::ReleaseExclusive(int loop) {
  if (!shared_) return;
  wanted_.store(0, std::memory_order_seq_cst);
  wanted_.notify_all();
  exclusive_mutex_.unlock();
  EnterShared(loop);
}

}  // namespace crab

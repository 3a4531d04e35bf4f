#include "src/execution/lock_set.h"

#include "utils/thread.h"

namespace crab {

namespace {

constexpr uint32_t kFree = 0;
constexpr uint32_t kHeld = 1;
constexpr uint32_t kHeldWithSleepers = 2;
// A command holds a shard for about a microsecond: 64 pauses wait that long without a system call.
constexpr int kSpins = 64;

}  // namespace

void LockShard(Shard& shard) {
  uint32_t state = kFree;
  if (shard.lock.compare_exchange_strong(state, kHeld, std::memory_order_acquire)) return;
  for (int i = 0; i < kSpins; ++i) {
    SpinPause();
    state = kFree;
    if (shard.lock.compare_exchange_weak(state, kHeld, std::memory_order_acquire)) return;
  }
  while (shard.lock.exchange(kHeldWithSleepers, std::memory_order_acquire) != kFree) {
    shard.lock.wait(kHeldWithSleepers, std::memory_order_relaxed);
  }
}

void UnlockShard(Shard& shard) {
  if (shard.lock.exchange(kFree, std::memory_order_release) == kHeldWithSleepers) {
    shard.lock.notify_one();
  }
}

}  // namespace crab

#include "src/keyspace/lazy_free.h"

#include <utility>

#include "utils/thread.h"

namespace crab {

LazyFree::~LazyFree() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ordered_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void LazyFree::Add(DetachedTables tables) {
  pending_.fetch_add(tables.keys(), std::memory_order_relaxed);
  {
    std::lock_guard lock(mutex_);
    orders_.push_back(std::move(tables));
    if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
  }
  ordered_.notify_one();
}

void LazyFree::Work() {
  SetThreadName("lazy-free");
  std::unique_lock lock(mutex_);
  for (;;) {
    ordered_.wait(lock, [this] { return stopping_ || !orders_.empty(); });
    if (orders_.empty()) return;
    std::vector<DetachedTables> orders = std::exchange(orders_, {});
    lock.unlock();
    for (DetachedTables& tables : orders) {
      const uint64_t keys = tables.keys();
      { const DetachedTables freed = std::move(tables); }
      pending_.fetch_sub(keys, std::memory_order_relaxed);
      freed_.fetch_add(keys, std::memory_order_relaxed);
    }
    lock.lock();
  }
}

}  // namespace crab

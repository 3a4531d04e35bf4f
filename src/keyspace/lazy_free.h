// LazyFree: gives detached tables back to the allocator on a thread of its own, so that FLUSHALL
// ASYNC of millions of keys holds nobody up. The thread begins with the first order and ends with
// this. Synchronized.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "src/keyspace/detached_tables.h"

namespace crab {

class LazyFree {
 public:
  LazyFree() = default;
  ~LazyFree();  // frees what is still waiting

  void Add(DetachedTables tables);

  // Keys whose memory waits to be given back, and those that had it given back so far.
  uint64_t pending() const { return pending_.load(std::memory_order_relaxed); }
  uint64_t freed() const { return freed_.load(std::memory_order_relaxed); }
  void ResetFreed() { freed_.store(0, std::memory_order_relaxed); }

 private:
  void Work();

  std::mutex mutex_;
  std::condition_variable ordered_;
  std::vector<DetachedTables> orders_;  // guarded by mutex_; bounded by memory: they were keys
  bool stopping_ = false;               // guarded by mutex_
  std::thread thread_;                  // guarded by mutex_
  // Counters for INFO, published through nothing.
  std::atomic<uint64_t> pending_{0};
  std::atomic<uint64_t> freed_{0};
};

}  // namespace crab

// Gate: where the workers of a Loader wait until a test lets them go on.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>

#include "src/server/loader.h"

namespace crab::test {

// Keeps workers waiting before the units that it is told of.
class Gate {
 public:
  Loader::Hook hook() {
    return [this](uint32_t) {
      std::unique_lock lock(mutex_);
      met_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return open_; });
    };
  }
  // Until a worker waits.
  void WaitUntilMet() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return met_; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false, open_ = false;
};

}  // namespace crab::test

// Mailbox: work that other threads ask of a loop. Many post, the loop takes all at once. The loop
// is woken by its uv_async_t only when the mailbox was empty. Synchronized.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace crab {

class Loop;

class Mailbox {
 public:
  using Letter = std::function<void(Loop&)>;

  // True when it was empty before: the loop is to be woken.
  bool Post(Letter letter) {
    std::lock_guard lock(mutex_);
    letters_.push_back(std::move(letter));
    return letters_.size() == 1;
  }
  std::vector<Letter> TakeAll() {
    std::lock_guard lock(mutex_);
    return std::exchange(letters_, {});
  }

 private:
  std::mutex mutex_;
  std::vector<Letter> letters_;  // guarded by mutex_; bounded by what loops do between two polls
};

}  // namespace crab

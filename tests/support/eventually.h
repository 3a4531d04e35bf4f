// Waits for what another thread brings about.
#pragma once

#include <chrono>
#include <thread>

namespace crab::test {

// Asks until `condition` holds; false when two minutes have not brought it about: a
// sanitizer takes its time.
template <typename Condition>
bool Eventually(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
  return true;
}

}  // namespace crab::test

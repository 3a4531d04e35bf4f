// Waits for what another thread brings about.
#pragma once

#include <chrono>
#include <thread>

namespace crab::test {

// Asks until `condition` holds; false when half a minute has not brought it about.
template <typename Condition>
bool Eventually(Condition&& condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
  return true;
}

}  // namespace crab::test

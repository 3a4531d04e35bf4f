#include "utils/clock.h"

#include <ctime>

namespace crab {
namespace {

class MachineClock final : public Clock {
 public:
  int64_t WallMs() override {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * int64_t{1000} + now.tv_nsec / 1000000;
  }
  int64_t MonotonicUs() override {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000000} + now.tv_nsec / 1000;
  }
};

}  // namespace

Clock& RealClock() {
  static MachineClock clock;
  return clock;
}

}  // namespace crab

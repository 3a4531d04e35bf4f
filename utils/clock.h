// The time, behind an interface, so that a test can set it. Synchronized: any thread may ask.
#pragma once

#include <cstdint>

namespace crab {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual int64_t WallMs() = 0;       // since 1970; jumps when somebody sets the machine's clock
  virtual int64_t MonotonicUs() = 0;  // since some moment in the past; never goes back
};

// The machine's. Lives for ever.
Clock& RealClock();

}  // namespace crab

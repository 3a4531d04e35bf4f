// Small things about threads: names for tools, a core of one's own, waiting for a moment.
#pragma once

#include <immintrin.h>

#include "utils/status.h"

namespace crab {

// Names the calling thread for top, gdb and perf; the kernel keeps 15 bytes.
void SetThreadName(const char* name);

// Keeps the calling thread on one core, counted from 0 among those the process may use. An error
// leaves it where it was.
Status PinThread(int core);

// For work that may take longer where others want the core: the calling thread gives way to those
// of the usual priority, and still gets a tenth or so of the time (setpriority(2), nice 10).
void LowerThreadPriority();

// How many cores this process may use: what a container was given, not what the machine has.
int UsableCores();

// Inside a loop that waits for another core: lets its sibling run and saves power.
inline void SpinPause() { _mm_pause(); }

}  // namespace crab

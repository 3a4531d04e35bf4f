// What the allocator and the system say of this process' memory. Any thread.
#pragma once

#include <cstdint>

namespace crab {

struct AllocatorStats {
  uint64_t allocated = 0;  // bytes handed out
  uint64_t active = 0;     // pages that hold them
  uint64_t resident = 0;
};

// Of jemalloc; where another allocator is linked (sanitizers), glibc's or the system's estimate.
AllocatorStats ReadAllocatorStats();
uint64_t AllocatedBytes();
uint64_t ResidentBytes();     // of the process, from /proc
const char* AllocatorName();  // "jemalloc-5.3.0", "libc"

}  // namespace crab

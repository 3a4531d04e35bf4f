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

// Whether memory that is touched for the first time comes in transparent huge pages, where the
// system gives them at all; the heap asks for them (malloc_conf in main.cc). What is touched
// already stays as it is. Of the whole process. False: the system does not let it be said, and all
// stays as the system has it (errno).
bool UseHugePages(bool use);

}  // namespace crab

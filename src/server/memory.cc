#include "src/server/memory.h"

#include <malloc.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <string>

// Weak: the same library is linked with jemalloc in the release and without it under a sanitizer.
extern "C" int mallctl(const char* name, void* old_value, size_t* old_size, void* new_value,
                       size_t new_size) __attribute__((weak));

namespace crab {

namespace {

template <typename T>
T Control(const char* name) {
  T value{};
  size_t size = sizeof(value);
  mallctl(name, &value, &size, nullptr, 0);
  return value;
}

}  // namespace

AllocatorStats ReadAllocatorStats() {
  AllocatorStats stats;
  if (mallctl == nullptr) {
    const struct mallinfo2 info = mallinfo2();
    stats.allocated = info.uordblks + info.hblkhd;
    stats.active = info.arena + info.hblkhd;
    stats.resident = ResidentBytes();
    return stats;
  }
  uint64_t epoch = 1;  // makes jemalloc sum its caches up now
  size_t size = sizeof(epoch);
  mallctl("epoch", &epoch, &size, &epoch, size);
  stats.allocated = Control<size_t>("stats.allocated");
  stats.active = Control<size_t>("stats.active");
  stats.resident = Control<size_t>("stats.resident");
  return stats;
}

uint64_t AllocatedBytes() { return ReadAllocatorStats().allocated; }

uint64_t ResidentBytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  if (file == nullptr) return 0;
  unsigned long total = 0;
  unsigned long resident = 0;
  const int read = std::fscanf(file, "%lu %lu", &total, &resident);
  std::fclose(file);
  return read == 2 ? resident * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) : 0;
}

const char* AllocatorName() {
  if (mallctl == nullptr) return "libc";
  static const std::string name = [] {
    const std::string version = Control<const char*>("version");
    return "jemalloc-" + version.substr(0, version.find('-'));
  }();
  return name.c_str();
}

bool UseHugePages(bool use) { return prctl(PR_SET_THP_DISABLE, use ? 0 : 1, 0, 0, 0) == 0; }

}  // namespace crab

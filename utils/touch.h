// Touch: asks for the cache line at an address without waiting for it. A load whose result nobody
// needs, where a prefetch instruction would do if it were kept: measured on virtual machines, those
// to pages that the TLB does not have are dropped (half of all time of a restart went into misses
// that had been prefetched). So the address must be readable.
#pragma once

#include <cstddef>

namespace crab {

constexpr size_t kCacheLineBytes = 64;

inline void Touch(const void* address) {
  static_cast<void>(*static_cast<const volatile char*>(address));
}

}  // namespace crab

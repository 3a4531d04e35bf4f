// Touch: asks for the cache line at an address without waiting for it, by a load whose result
// nobody needs; so the address must be readable. Prefetch instructions were measured to do nothing
// here on a virtual machine: half of a restart's user time went into misses that had been
// prefetched.
#pragma once

#include <cstddef>

namespace crab {

constexpr size_t kCacheLineBytes = 64;

inline void Touch(const void* address) {
  static_cast<void>(*static_cast<const volatile char*>(address));
}

}  // namespace crab

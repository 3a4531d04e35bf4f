// Allocation: memory asked for in the sizes that the allocator really hands out, so that what a
// part keeps can be counted without asking anybody. The sizes are jemalloc's classes: multiples of
// 16 up to 128, then four to each doubling. Other allocators serve them too, only less exactly.
// Thread-safe like the allocator below it; running out of memory ends the program.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "utils/check.h"

namespace crab {

// What `bytes` (above 0) really take.
constexpr size_t AllocatedBytes(size_t bytes) {
  if (bytes <= 128) return (bytes + 15) & ~size_t{15};
  const size_t step = size_t{1} << (std::bit_width(bytes - 1) - 3);
  return (bytes + step - 1) & ~(step - 1);
}

// `allocated` is a result of AllocatedBytes, the same for both calls of one piece.
inline void* Allocate(size_t allocated) { return ::operator new(allocated); }
inline void Release(void* memory, size_t allocated) { ::operator delete(memory, allocated); }

// The same, on a border of `alignment` bytes; `bytes` is a multiple of it.
inline void* AllocateAligned(size_t bytes, size_t alignment) {
  void* memory = std::aligned_alloc(alignment, bytes);
  CHECK(memory != nullptr);
  return memory;
}
inline void ReleaseAligned(void* memory) { std::free(memory); }

}  // namespace crab

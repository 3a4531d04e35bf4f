// RecentWrites: which records changed the keys of one shard last, so that a reply waits for those
// of the keys it has read and not for their neighbours'. Exact for the four keys changed last; of
// any other key it is known that no record above the floor changed it. Keys are told apart by 32
// bits of their hash: two that share them wait for each other. Shard-bound.
#pragma once

#include <emmintrin.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace crab {

class RecentWrites {
 public:
  // The record `lsn`, above all before it, changed the key with this hash.
  void Note(uint64_t hash, uint64_t lsn) {
    const uint32_t tag = TagOf(hash);
    const uint32_t matches = Matches(tag);
    size_t slot = 0;
    if (matches != 0) {
      slot = static_cast<size_t>(__builtin_ctz(matches));
    } else {
      // The oldest makes room: it is the likeliest to be durable.
      for (size_t i = 1; i < kSlots; ++i) slot = lsns_[i] < lsns_[slot] ? i : slot;
      floor_ = lsns_[slot];
      tags_[slot] = tag;
    }
    lsns_[slot] = lsn;
  }
  // No record above this one changed the key; 0: none at all has.
  uint64_t Last(uint64_t hash) const {
    const uint32_t matches = Matches(TagOf(hash));
    if (__builtin_expect(matches == 0, 1)) return floor_;
    return std::max(floor_, lsns_[static_cast<size_t>(__builtin_ctz(matches))]);
  }

 private:
  static constexpr size_t kSlots = 4;  // in one cache line

  // The shard is chosen by the upper bits.
  static uint32_t TagOf(uint64_t hash) { return static_cast<uint32_t>(hash); }
  // Bit i: slot i has the tag. That is one slot at most, and with 0 the unused ones behind it.
  uint32_t Matches(uint32_t tag) const {
    const __m128i all = _mm_load_si128(reinterpret_cast<const __m128i*>(tags_.data()));
    const __m128i equal = _mm_cmpeq_epi32(all, _mm_set1_epi32(static_cast<int32_t>(tag)));
    return static_cast<uint32_t>(_mm_movemask_ps(_mm_castsi128_ps(equal)));
  }

  alignas(16) std::array<uint32_t, kSlots> tags_{};
  uint64_t floor_ = 0;
  std::array<uint64_t, kSlots> lsns_{};
};
static_assert(sizeof(RecentWrites) == 64);

}  // namespace crab

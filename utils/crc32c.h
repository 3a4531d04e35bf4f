// CRC32C (Castagnoli), the checksum of everything the server writes to a disk. Pure functions.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

namespace crab {

// The checksum of what `crc` covers followed by `bytes`: Crc32c(b, Crc32c(a)) == Crc32c(a + b).
uint32_t Crc32cLong(std::string_view bytes, uint32_t crc);

inline uint32_t Crc32c(std::string_view bytes, uint32_t crc = 0) {
#ifdef __SSE4_2__
  // Up to here the call and the set-up of the interleaved version cost more than they save.
  if (bytes.size() <= 256) {
    const char* data = bytes.data();
    size_t left = bytes.size();
    uint64_t state = ~crc;
    for (; left >= 8; left -= 8, data += 8) {
      uint64_t word;
      std::memcpy(&word, data, 8);
      state = _mm_crc32_u64(state, word);
    }
    auto narrow = static_cast<uint32_t>(state);
    for (; left > 0; --left, ++data) narrow = _mm_crc32_u8(narrow, static_cast<uint8_t>(*data));
    return ~narrow;
  }
#endif
  return Crc32cLong(bytes, crc);
}

}  // namespace crab

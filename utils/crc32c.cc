#include "utils/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace crab {

uint32_t Crc32cLong(std::string_view bytes, uint32_t crc) {
  // The library takes its length as an int and, unlike the standard form, inverts nothing.
  constexpr size_t kStepBytes = size_t{1} << 30;
  uint32_t state = ~crc;
  while (!bytes.empty()) {
    const size_t step = std::min(bytes.size(), kStepBytes);
    auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    state = crc32_iscsi(data, static_cast<int>(step), state);
    bytes.remove_prefix(step);
  }
  return ~state;
}

}  // namespace crab

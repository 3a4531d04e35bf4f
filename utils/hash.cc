#include "utils/hash.h"

// The whole of XXH3 is compiled here, for the machine the build is for, and only here: a key of 16
// bytes costs one call and about twenty instructions. XXH3 is specified, so its values last.
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace crab {

uint64_t HashKey(std::string_view key, uint64_t seed) {
  return XXH3_64bits_withSeed(key.data(), key.size(), seed);
}

}  // namespace crab

// The hash of keys: fast, of 64 good bits, and keyed, so that which keys share a shard cannot be
// computed without the seed. The same bytes and seed give the same hash in every version and on
// every machine: the log keeps its records' shards by it.
#pragma once

#include <cstdint>
#include <string_view>

namespace crab {

uint64_t HashKey(std::string_view key, uint64_t seed);

}  // namespace crab

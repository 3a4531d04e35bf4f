// Eviction: which key to give up when memory is short, by maxmemory-policy. Only chooses: execution
// removes the key as a command would, so that the deletion is logged. Shard-bound: the caller holds
// the shard that it asks about, and asks several, taken by chance, to compare their best.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "src/keyspace/keyspace.h"

namespace crab {

// Whether the policy gives up only keys that have a deadline.
bool IsVolatile(EvictionPolicy policy);

struct Victim {
  std::string key;
  uint32_t db = 0;
  // The higher, the better a victim; comparable between shards under one policy.
  uint64_t score = 0;
};

// Looks at about `samples` keys (maxmemory-samples, 5 by default) of each database of the shard and
// names the best to evict. False when the policy has none to offer here: an empty shard, no key
// with a deadline under a volatile policy, kNoEviction. Under the sieve policies the hand moves on
// and visited keys lose their mark.
bool EvictOne(Keyspace& keyspace, uint32_t shard, EvictionPolicy policy, size_t samples,
              int64_t now_ms, Random& random, Victim* victim);

}  // namespace crab

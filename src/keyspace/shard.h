// Shard: the part of the keyspace owned as one unit: its lock, a table per database, the deadlines,
// the memory it holds and the last LSN that changed it. Shard-bound but for the lock itself.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace crab {

class Shard {
 public:
  // The highest LSN of a record that changed this shard: the gate of a reply that has read it.
  uint64_t last_lsn = 0;

  // --- the lock: taken by src/execution only, in ascending order of shards ---
  // 0 free, 1 held, 2 held with sleepers. Acquire pairs with the release of Unlock.
  std::atomic<uint32_t> lock{0};

  // (tables, deadlines, memory: private parts)
};

}  // namespace crab

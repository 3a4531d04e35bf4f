// ShardLoader: who brings the shards' data back from the log while commands already run. Dispatch
// asks it before a command takes its shards, as long as Execution names one.
#pragma once

#include <cstdint>

namespace crab {

class ShardLoader {
 public:
  virtual ~ShardLoader() = default;
  // Whether a shard's data is whole. Any thread; a false may be old.
  virtual bool Has(uint32_t shard) const = 0;
  // Makes it whole before it returns: brings it back on this thread, or waits for whoever is about
  // to. The loop is IN and holds no shard. False: it cannot be had; the server ends.
  virtual bool Load(uint32_t shard, int loop) = 0;
};

}  // namespace crab

// What effects have made of one shard, as effects that make it anew: for a checkpoint that is put
// together of what is left. Holds the shard's data. Thread-bound.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "utils/status.h"

namespace crab::wal {

class ShardImage {
 public:
  // Effects on keys of the shard, and broadcasts. An error says what is no effect; what stood
  // before it has been taken.
  Status Take(std::string_view effects);
  // What has been taken, in pieces of about `bytes`, each with the number of keys that begin in it.
  // None of them is a broadcast.
  using Chunk = std::function<Status(std::string_view effects, uint64_t keys)>;
  Status Give(size_t bytes, const Chunk& chunk) const;

 private:
  // By key: the effects since it came to be, each without the database that it begins with.
  using Keys = std::unordered_map<std::string, std::vector<std::string>>;

  std::map<uint32_t, Keys> databases_;
};

}  // namespace crab::wal

// What effects have made of one shard, as effects that make it anew: for a checkpoint that is put
// together of what is left. Holds the shard's values, and where a value is not known each change of it
// that cannot be made one with the one before. Thread-bound.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "src/keyspace/effects.h"
#include "utils/status.h"

namespace crab::wal {

class ShardImage {
 public:
  // Effects on keys of the shard, and broadcasts. An error says what is no effect; what stood
  // before it has been taken.
  Status Take(std::string_view effects);
  // What has been taken, in pieces of about `bytes`, each with the number of keys in it. None of
  // them holds a broadcast.
  using Chunk = std::function<Status(std::string_view effects, uint64_t keys)>;
  Status Give(size_t bytes, const Chunk& chunk) const;

 private:
  struct Change {
    EffectId id;
    std::string text;    // SET, APPEND, SETRANGE
    int64_t number = 0;  // INCRBY: by how much; SETRANGE: from where
  };
  struct Key {
    std::vector<Change> changes;  // since it came to be, as far as is known
    int64_t deadline_ms = kNoDeadline;
  };
  using Keys = std::unordered_map<std::string, Key>;

  Status TakeOne(const EffectView& effect);

  std::map<uint32_t, Keys> databases_;
};

}  // namespace crab::wal

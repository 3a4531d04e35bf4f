// LockSet: the shards of one command's keys, locked in ascending order and held until its effects
// are in the log. A thread holding one never takes another. Belongs to one loop.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "src/keyspace/keyspace.h"
#include "utils/check.h"

namespace crab {

// Sleeps until the shard is free and takes it: 64 pauses of spinning, then a futex.
void LockShard(Shard& shard);
void UnlockShard(Shard& shard);

class LockSet {
 public:
  // More than this and the world is taken instead: locking each would cost more.
  static constexpr size_t kShardsMax = 64;

  void Clear() { size_ = 0; }
  // False when the set is full of others.
  bool Add(uint32_t shard) {
    if (size_ > 0 && shards_[size_ - 1] == shard) return true;
    if (size_ == kShardsMax && !Compact()) return false;
    shards_[size_++] = static_cast<uint16_t>(shard);
    return true;
  }
  // Sorts and drops what stands twice; whether there is room for another.
  bool Compact() {
    std::sort(shards_.begin(), shards_.begin() + size_);
    size_ = std::unique(shards_.begin(), shards_.begin() + size_) - shards_.begin();
    return size_ < kShardsMax;
  }
  // In the order of adding, with duplicates, until Compact or Lock.
  std::span<const uint16_t> shards() const { return {shards_.data(), size_}; }

  void Lock(Keyspace& keyspace) {
    Compact();
    for (uint16_t shard : shards()) LockShard(keyspace.shard(shard));
  }
  void Unlock(Keyspace& keyspace) {
    for (uint16_t shard : shards()) UnlockShard(keyspace.shard(shard));
  }

 private:
  std::array<uint16_t, kShardsMax> shards_;
  size_t size_ = 0;
};

}  // namespace crab

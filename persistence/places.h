// Places: where the records of each unit stand in one segment that has been read through, for those
// segments whose INDEX frames cannot tell. Thread-bound until Finish, constant from then on.
// 32 bits a place reach to 32 GiB, which no segment does: wal.max_segment_size ends at 16 GiB.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "persistence/index.h"

namespace crab::wal {

// The unit of a key of this shard. Both numbers are powers of two, and a shard that does not exist
// belongs to the last unit.
inline uint32_t UnitOfShard(uint16_t shard, uint32_t shard_count, uint32_t units) {
  const uint64_t unit = uint64_t{shard} * units / shard_count;
  return static_cast<uint32_t>(unit < units ? unit : units - 1);
}

class Places {
 public:
  static constexpr uint64_t kOffsetMax = uint64_t{1} << 35;

  Places(uint32_t shard_count, uint32_t units) : shard_count_(shard_count), units_(units) {}

  // Offsets ascend and are below kOffsetMax.
  void Add(uint8_t type, uint16_t shard, std::string_view payload, uint64_t offset);
  void Finish();

  // Appends the offsets of the unit's records to `offsets`, ascending; or those in [begin, end).
  void Offsets(uint32_t unit, std::vector<uint64_t>* offsets) const {
    Offsets(unit, 0, kOffsetMax, offsets);
  }
  void Offsets(uint32_t unit, uint64_t begin, uint64_t end, std::vector<uint64_t>* offsets) const;

 private:
  const uint32_t shard_count_;
  const uint32_t units_;
  std::vector<std::pair<uint32_t, uint32_t>> added_;  // unit, offset / 8; gone after Finish
  std::vector<TxnPart> parts_;
  std::vector<uint32_t> starts_;  // of each unit in sorted_
  std::vector<uint32_t> sorted_;  // offset / 8
  std::vector<uint32_t> of_all_;  // of records that concern every unit
};

}  // namespace crab::wal

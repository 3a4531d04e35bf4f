// Where the records of each shard stand in a segment, so that one shard can be recovered without
// reading the others' records. The writer gathers it and puts it into INDEX frames, each for the
// records since the one before, and the SEAL says where the last one is. A checkpoint's index of
// its chunks has the same bytes, which are in FORMAT.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

// What ran atomically on several shards: the directory at the front of a TXN payload.
struct TxnPart {
  uint16_t shard;
  uint32_t offset, size;  // of its effect, in the payload
};
// False: the directory is not whole, or its sizes do not add up to what follows.
bool ReadTxnDirectory(std::string_view payload, std::vector<TxnPart>* parts);

// Gathers the places of records. Thread-bound.
class IndexBuilder {
 public:
  // A record at `offset` of the file. A TXN counts for each shard of its directory (one that cannot
  // be read, for kBroadcastShard), a record of all shards for kBroadcastShard.
  void Add(uint8_t type, uint16_t shard, std::string_view payload, uint64_t offset);
  bool empty() const { return records_ == 0; }
  // The payload of an INDEX frame for what was added since the last one; empties the builder.
  // `previous`: offset in the file of the INDEX frame before, 0 = none.
  std::string Take(uint64_t previous);

 private:
  static constexpr int kOffsetBits = 48;

  void AddPlace(uint16_t shard, uint64_t offset);
  void SortByShard();

  std::vector<uint64_t> places_;  // the shard above kOffsetBits of offset / 8
  uint32_t records_ = 0;
  uint32_t shards_ = 0;  // above all of places_, kBroadcastShard aside
  // Working memory, kept from one index to the next.
  std::vector<uint64_t> sorted_;
  std::vector<uint32_t> starts_;
  std::vector<TxnPart> parts_;
};

// Reads the payload of an INDEX frame, which must live as long.
class IndexView {
 public:
  // An error where the payload contradicts itself.
  static Result<IndexView> Parse(std::string_view payload);
  uint64_t previous() const { return previous_; }
  uint64_t records() const { return records_; }
  // Appends the offsets of the shard's records, ascending, to `offsets`.
  Status Offsets(uint16_t shard, std::vector<uint64_t>* offsets) const;
  // All shards that have records here, ascending.
  void Shards(std::vector<uint16_t>* shards) const;

 private:
  std::string_view lists_, deltas_;
  uint64_t previous_ = 0;
  uint64_t records_ = 0;
};

}  // namespace crab::wal

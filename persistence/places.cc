#include "persistence/places.h"

#include <algorithm>

#include "persistence/record.h"
#include "utils/check.h"

namespace crab::wal {

void Places::Add(uint8_t type, uint16_t shard, std::string_view payload, uint64_t offset) {
  DCHECK(offset < kOffsetMax);
  const auto place = static_cast<uint32_t>(offset / kFrameAlignment);
  if (type == static_cast<uint8_t>(FrameType::kTxn) && ReadTxnDirectory(payload, &parts_)) {
    const size_t before = added_.size();
    for (const TxnPart& part : parts_) {
      if (part.shard == kBroadcastShard) {
        added_.resize(before);
        of_all_.push_back(place);
        return;
      }
      added_.emplace_back(UnitOfShard(part.shard, shard_count_, units_), place);
    }
    return;
  }
  if (shard == kBroadcastShard) {
    of_all_.push_back(place);
  } else {
    added_.emplace_back(UnitOfShard(shard, shard_count_, units_), place);
  }
}

// Counting sorts by unit and keeps the order of offsets within each.
void Places::Finish() {
  starts_.assign(units_ + 1, 0);
  for (const auto& [unit, place] : added_) ++starts_[unit + 1];
  for (size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
  sorted_.resize(added_.size());
  std::vector<uint32_t> next = starts_;
  for (const auto& [unit, place] : added_) sorted_[next[unit]++] = place;
  added_ = {};
  parts_ = {};
}

void Places::Offsets(uint32_t unit, uint64_t begin, uint64_t end,
                     std::vector<uint64_t>* offsets) const {
  const auto find = [](const uint32_t* first, const uint32_t* last, uint64_t offset) {
    return std::partition_point(
        first, last, [&](uint32_t place) { return uint64_t{place} * kFrameAlignment < offset; });
  };
  const uint32_t* const own_last = sorted_.data() + starts_[unit + 1];
  const uint32_t* const all_last = of_all_.data() + of_all_.size();
  const uint32_t* own = find(sorted_.data() + starts_[unit], own_last, begin);
  const uint32_t* const own_end = find(own, own_last, end);
  const uint32_t* all = find(of_all_.data(), all_last, begin);
  const uint32_t* const all_end = find(all, all_last, end);
  const size_t before = offsets->size();
  while (own != own_end || all != all_end) {
    const bool take_own = all == all_end || (own != own_end && *own <= *all);
    const uint64_t offset = uint64_t{take_own ? *own++ : *all++} * kFrameAlignment;
    // What ran atomically may have touched one unit more than once.
    if (offsets->size() == before || offsets->back() != offset) offsets->push_back(offset);
  }
}

}  // namespace crab::wal

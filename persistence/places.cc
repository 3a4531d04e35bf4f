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

void Places::Offsets(uint32_t unit, std::vector<uint64_t>* offsets) const {
  const uint32_t* own = sorted_.data() + starts_[unit];
  const uint32_t* const own_end = sorted_.data() + starts_[unit + 1];
  auto all = of_all_.begin();
  const size_t before = offsets->size();
  while (own != own_end || all != of_all_.end()) {
    const bool take_own = all == of_all_.end() || (own != own_end && *own <= *all);
    const uint64_t offset = uint64_t{take_own ? *own++ : *all++} * kFrameAlignment;
    // What ran atomically may have touched one unit more than once.
    if (offsets->size() == before || offsets->back() != offset) offsets->push_back(offset);
  }
}

}  // namespace crab::wal

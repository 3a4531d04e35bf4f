// A set of numbers, kept as the ranges that it consists of: what is added next to a range or over
// it becomes a part of it. Beyond a number of ranges what is added is joined to its neighbour, with
// the numbers between them: memory is bounded, and what was added is always in. Not synchronized.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

namespace crab::wal {

class Ranges {
 public:
  using Range = std::pair<uint64_t, uint64_t>;  // first, last

  explicit Ranges(size_t max = SIZE_MAX) : max_(max) {}

  // Nothing where last < first.
  void Add(uint64_t first, uint64_t last) {
    if (last < first) return;
    auto next = ranges_.upper_bound(first);
    if (next != ranges_.begin()) {
      const auto before = std::prev(next);
      if (before->second >= first || before->second + 1 == first) {
        first = before->first;
        next = before;
      }
    }
    while (next != ranges_.end() && (next->first <= last || next->first - 1 == last)) {
      if (next->second > last) last = next->second;
      next = ranges_.erase(next);
    }
    const auto added = ranges_.emplace_hint(next, first, last);
    if (ranges_.size() > max_) Join(added);
  }

  bool Contains(uint64_t number) const {
    const auto next = ranges_.upper_bound(number);
    return next != ranges_.begin() && std::prev(next)->second >= number;
  }

  // The parts of [first, last] that are not in it.
  std::vector<Range> Without(uint64_t first, uint64_t last) const {
    std::vector<Range> left;
    if (last < first) return left;
    auto range = ranges_.upper_bound(first);
    if (range != ranges_.begin()) --range;
    for (; range != ranges_.end() && range->first <= last; ++range) {
      if (range->second < first) continue;
      if (first < range->first) left.emplace_back(first, range->first - 1);
      if (range->second >= last) return left;
      first = range->second + 1;
    }
    left.emplace_back(first, last);
    return left;
  }

  size_t size() const { return ranges_.size(); }  // ranges

 private:
  using Map = std::map<uint64_t, uint64_t>;  // last by first

  // With the range before it, or behind it where it is the first.
  void Join(Map::iterator range) {
    if (range == ranges_.begin()) ++range;
    if (range == ranges_.end()) return;
    std::prev(range)->second = range->second;
    ranges_.erase(range);
  }

  size_t max_;
  Map ranges_;
};

}  // namespace crab::wal

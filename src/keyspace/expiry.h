// DeadlineQueue: when which key of one table has to be looked at, as a heap of 8-byte records: the
// time in steps of 16 ms and the low bits of the key's hash, by which the table finds its bucket.
// A record is a hint: the key may be gone or have a later deadline by then. What the table keeps
// true is that every key with a deadline has a record of no later time, so a deadline that only
// moves forward (a cache that sets the same keys again and again) adds none.
// Shard-bound. Its table rebuilds it when too many records are out of date.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "utils/allocation.h"

namespace crab {

class DeadlineQueue {
 public:
  static constexpr int kHashBits = 24;
  static constexpr int kStepBits = 4;  // log2 of the milliseconds of one step
  static constexpr uint64_t kHashMask = (uint64_t{1} << kHashBits) - 1;

  DeadlineQueue() = default;
  DeadlineQueue(const DeadlineQueue&) = delete;
  DeadlineQueue& operator=(const DeadlineQueue&) = delete;
  ~DeadlineQueue() { Clear(); }
  void Swap(DeadlineQueue& other);

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  size_t MemoryBytes() const { return capacity_ * sizeof(uint64_t); }

  // The time from which on `deadline_ms` counts as passed, rounded up to a step. What lies beyond
  // the year 2500 is looked at then and queued anew.
  static uint64_t StepOf(int64_t deadline_ms) {
    return std::min((static_cast<uint64_t>(deadline_ms) >> kStepBits) + 1, kStepMax);
  }
  static uint64_t Record(int64_t deadline_ms, uint64_t hash) {
    return StepOf(deadline_ms) << kHashBits | (hash & kHashMask);
  }
  static uint64_t HashBits(uint64_t record) { return record & kHashMask; }
  static int64_t TimeMs(uint64_t record) {
    return static_cast<int64_t>(record >> kHashBits << kStepBits);
  }

  uint64_t top() const { return records_[0]; }
  uint64_t operator[](size_t i) const { return records_[i]; }  // in no order but for the first
  // The earliest time at which something may have to be done, INT64_MAX for never.
  int64_t next_ms() const { return empty() ? INT64_MAX : TimeMs(top()); }

  void Push(uint64_t record);
  void Pop();
  void Clear();
  // Fills it anew: room for `count`, Add for each, then Order.
  void Reset(size_t count);
  void Add(uint64_t record) { records_[size_++] = record; }
  void Order();

 private:
  // Four children to a node: half as many levels, and siblings share a cache line.
  static constexpr size_t kChildren = 4;
  static constexpr uint64_t kStepMax = (uint64_t{1} << (64 - kHashBits)) - 1;

  void Resize(size_t capacity);
  void SiftDown(size_t i);

  uint64_t* records_ = nullptr;
  size_t size_ = 0;
  size_t capacity_ = 0;
};

}  // namespace crab

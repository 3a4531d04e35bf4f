#include "src/keyspace/expiry.h"

#include <cstring>
#include <utility>

#include "utils/check.h"

namespace crab {

void DeadlineQueue::Swap(DeadlineQueue& other) {
  std::swap(records_, other.records_);
  std::swap(size_, other.size_);
  std::swap(capacity_, other.capacity_);
}

void DeadlineQueue::Push(uint64_t record) {
  if (size_ == capacity_) Resize(size_ + size_ / 4 + 2);
  size_t i = size_++;
  while (i > 0) {
    const size_t parent = (i - 1) / kChildren;
    if (records_[parent] <= record) break;
    records_[i] = records_[parent];
    i = parent;
  }
  records_[i] = record;
}

void DeadlineQueue::Pop() {
  DCHECK(!empty());
  records_[0] = records_[--size_];
  if (size_ > 1) SiftDown(0);
  if (size_ < capacity_ / 2) Resize(size_ + size_ / 4);
}

void DeadlineQueue::SiftDown(size_t i) {
  const uint64_t record = records_[i];
  while (true) {
    const size_t first = i * kChildren + 1;
    if (first >= size_) break;
    const size_t last = std::min(first + kChildren, size_);
    const size_t least =
        static_cast<size_t>(std::min_element(records_ + first, records_ + last) - records_);
    if (records_[least] >= record) break;
    records_[i] = records_[least];
    i = least;
  }
  records_[i] = record;
}

void DeadlineQueue::Clear() {
  size_ = 0;
  Resize(0);
}

void DeadlineQueue::Reset(size_t count) {
  size_ = 0;
  Resize(count);
}

void DeadlineQueue::Order() {
  if (size_ < 2) return;
  for (size_t i = (size_ - 2) / kChildren + 1; i-- > 0;) SiftDown(i);
}

void DeadlineQueue::Resize(size_t capacity) {
  if (capacity > 0) capacity = AllocatedBytes(capacity * sizeof(uint64_t)) / sizeof(uint64_t);
  if (capacity == capacity_) return;
  uint64_t* records = nullptr;
  if (capacity > 0) {
    records = static_cast<uint64_t*>(Allocate(capacity * sizeof(uint64_t)));
    if (size_ > 0) std::memcpy(records, records_, size_ * sizeof(uint64_t));
  }
  if (records_ != nullptr) Release(records_, capacity_ * sizeof(uint64_t));
  records_ = records;
  capacity_ = capacity;
}

}  // namespace crab

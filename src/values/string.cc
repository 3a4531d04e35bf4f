#include "src/values/string.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "utils/allocation.h"
#include "utils/check.h"

namespace crab {

LargeString* LargeString::Create(std::string_view bytes, size_t capacity) {
  DCHECK(capacity >= bytes.size());
  const size_t allocated = AllocatedBytes(sizeof(LargeString) + capacity);
  CHECK_EQ(allocated / kGranuleBytes >> 32, 0u);
  auto* string = new (Allocate(allocated)) LargeString;
  string->granules_ = static_cast<uint32_t>(allocated / kGranuleBytes);
  string->owners_.store(1, std::memory_order_relaxed);
  string->Assign(bytes);
  return string;
}

void LargeString::Destroy(LargeString* string) {
  // The only owner, as nearly always, needs no atomic subtraction.
  if (string->shared() && string->owners_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
  Release(string, string->MemoryBytes());
}

LargeString* LargeString::Write(LargeString* string, size_t offset, std::string_view bytes) {
  const size_t end = std::max(string->size_, offset + bytes.size());
  const bool fits = end <= string->capacity();
  if (!fits || string->shared()) {
    LargeString* other = Create(string->view(), fits ? string->capacity() : GrownCapacity(end));
    Destroy(string);
    string = other;
  }
  if (offset > string->size_) {
    std::memset(string->bytes() + string->size_, 0, offset - string->size_);
  }
  if (!bytes.empty()) std::memcpy(string->bytes() + offset, bytes.data(), bytes.size());
  string->size_ = end;
  return string;
}

bool LargeString::Suits(size_t bytes) const {
  return AllocatedBytes(sizeof(LargeString) + bytes) == MemoryBytes() && !shared();
}

void LargeString::Assign(std::string_view bytes) {
  DCHECK(bytes.size() <= capacity() && !shared());
  if (!bytes.empty()) std::memcpy(this->bytes(), bytes.data(), bytes.size());
  size_ = bytes.size();
}

}  // namespace crab

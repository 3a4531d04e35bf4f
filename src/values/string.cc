#include "src/values/string.h"

#include <algorithm>
#include <cstring>

#include "utils/allocation.h"
#include "utils/check.h"

namespace crab {

LargeString* LargeString::Create(std::string_view bytes, size_t capacity) {
  DCHECK(capacity >= bytes.size());
  const size_t allocated = AllocatedBytes(sizeof(LargeString) + capacity);
  auto* string = static_cast<LargeString*>(Allocate(allocated));
  string->capacity_ = allocated - sizeof(LargeString);
  string->Assign(bytes);
  return string;
}

void LargeString::Destroy(LargeString* string) { Release(string, string->MemoryBytes()); }

size_t LargeString::MemoryBytes() const { return sizeof(LargeString) + capacity_; }

LargeString* LargeString::Write(LargeString* string, size_t offset, std::string_view bytes) {
  const size_t end = std::max(string->size_, offset + bytes.size());
  if (end > string->capacity_) {
    LargeString* larger = Create(string->view(), GrownCapacity(end));
    Destroy(string);
    string = larger;
  }
  if (offset > string->size_) {
    std::memset(string->bytes() + string->size_, 0, offset - string->size_);
  }
  if (!bytes.empty()) std::memcpy(string->bytes() + offset, bytes.data(), bytes.size());
  string->size_ = end;
  return string;
}

bool LargeString::Suits(size_t bytes) const {
  return AllocatedBytes(sizeof(LargeString) + bytes) == MemoryBytes();
}

void LargeString::Assign(std::string_view bytes) {
  DCHECK(bytes.size() <= capacity_);
  if (!bytes.empty()) std::memcpy(this->bytes(), bytes.data(), bytes.size());
  size_ = bytes.size();
}

}  // namespace crab

// String: what a string value is made of, whoever holds it. Short strings and integers live inside
// their entry (src/keyspace/entry.h); LargeString is the block behind an entry for the others.
// Pure functions, and a block that belongs to whoever holds the entry, and to those it is shared
// with.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "utils/number.h"

namespace crab {

// Whether `text` is the one text of a 64-bit integer, so that the integer can be kept in its place
// (OBJECT ENCODING int) and printed back to the same bytes.
inline bool IsCanonicalInteger(std::string_view text, int64_t* value) {
  if (text.empty() || text.size() > kIntegerTextMax) return false;
  // Most values are no numbers and show it in their first or last byte.
  const auto is_digit = [](char c) { return static_cast<unsigned char>(c - '0') < 10; };
  if (!is_digit(text.back()) || !(is_digit(text.front()) || text.front() == '-')) return false;
  return ParseInt64(text, value);
}

// Room to take for a string that has outgrown its place and now needs `bytes`: twice as much, from
// kGrowthStepMax on that much more. So n appends copy O(n) bytes and waste at most half.
constexpr size_t kGrowthStepMax = 1 << 20;
constexpr size_t GrownCapacity(size_t bytes) {
  return bytes < kGrowthStepMax ? 2 * bytes : bytes + kGrowthStepMax;
}

// A string in an allocation of its own: this header, then `capacity()` bytes.
// It can have several owners, on any threads: all may read it, and none changes it any more, for a
// change of a shared one goes to a copy.
class LargeString {
 public:
  // With room for at least `capacity` >= bytes.size() bytes, which must be below 64 GiB.
  static LargeString* Create(std::string_view bytes, size_t capacity);
  // Gives up a share; the last one frees the string. Any thread.
  static void Destroy(LargeString* string);
  // One more owner, who gives it back by Destroy. Called by an owner; returns the string itself.
  LargeString* Share() {
    owners_.fetch_add(1, std::memory_order_relaxed);
    return this;
  }
  // Asked by an owner: only it could make "no" untrue. Acquire pairs with the release of Destroy:
  // what the other owners have read, they have read before this one changes it.
  bool shared() const { return owners_.load(std::memory_order_acquire) > 1; }

  std::string_view view() const { return {bytes(), size_}; }
  size_t size() const { return size_; }
  size_t capacity() const { return MemoryBytes() - sizeof(LargeString); }
  size_t MemoryBytes() const { return size_t{granules_} * kGranuleBytes; }

  // Overwrites `bytes` at `offset`, zero bytes between the old end and there. Returns this string
  // or the one that has taken its place because it was too small, or shared; `bytes` must not lie
  // in it.
  [[nodiscard]] static LargeString* Write(LargeString* string, size_t offset,
                                          std::string_view bytes);
  // Whether a value of `bytes` would take an allocation of just this size, and may be written here.
  bool Suits(size_t bytes) const;
  // Takes other content altogether, which must suit.
  void Assign(std::string_view bytes);

 private:
  const char* bytes() const { return reinterpret_cast<const char*>(this + 1); }
  char* bytes() { return reinterpret_cast<char*>(this + 1); }

  // Every size that the allocator hands out is a multiple of this.
  static constexpr size_t kGranuleBytes = 16;

  size_t size_;
  uint32_t granules_;  // of the allocation, this header included
  std::atomic<uint32_t> owners_;
};
static_assert(sizeof(LargeString) == 16);

}  // namespace crab

// Entry: one key with its value, deadline and access data in one allocation (DESIGN §4).
//
//   8 bytes   header: type and encoding, flags, key length, inline value length, 24 bits of LRU or
//             LFU as in Redis, snapshot epoch and visited bit
//   8 bytes   deadline in absolute ms, only with kHasDeadline
//   8 bytes   the integer (kInt) or the pointer to the value, only with kHasWord
//   4 bytes   key length, only with kLongKey (above 255)
//   n bytes   key, then the inline value (kEmbstr and short kRaw)
//
// A 16-byte key with a 32-byte value takes 56 bytes, 64 with a deadline: one allocation of 64.
//
// Shard-bound: whoever holds the shard. An Entry* lives until the next change of its shard; a
// change of length or deadline moves the entry, so the functions that do it return the new place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "src/values/string.h"
#include "utils/allocation.h"
#include "utils/check.h"

namespace crab {

// The order and names of TYPE; numbers are ours.
enum class Type : uint8_t { kString, kList, kSet, kZset, kHash, kStream };
enum class Encoding : uint8_t {
  kRaw,
  kInt,
  kEmbstr,
  kListpack,
  kQuicklist,
  kIntset,
  kHashtable,
  kSkiplist,
  kStream
};
std::string_view TypeName(Type type);              // "string"
std::string_view EncodingName(Encoding encoding);  // "embstr"

// A string value is embstr up to this (OBJECT ENCODING), as in Redis.
constexpr size_t kEmbstrBytesMax = 44;
// A string value up to this lies inside its entry, whatever its encoding is called.
constexpr size_t kInlineBytesMax = 255;

// A new key's LFU counter, so that it is not the first victim (Redis' LFU_INIT_VAL).
constexpr uint8_t kLfuInitialCounter = 5;

// What an entry is to hold as its value: an integer, bytes to copy inside, or a LargeString to own.
struct Content {
  static Content Integer(int64_t value) {
    return {Type::kString, Encoding::kInt, true, static_cast<uint64_t>(value), {}};
  }
  static Content Inline(Encoding encoding, std::string_view bytes) {
    return {Type::kString, encoding, false, 0, bytes};
  }
  static Content Large(LargeString* string) {
    return {Type::kString, Encoding::kRaw, true, reinterpret_cast<uint64_t>(string), {}};
  }
  uint8_t TypeAndEncoding() const {
    return static_cast<uint8_t>(static_cast<uint8_t>(encoding) << 4 | static_cast<uint8_t>(type));
  }

  bool is_large() const { return has_word && encoding != Encoding::kInt; }

  Type type;
  Encoding encoding;
  bool has_word;
  uint64_t word;
  std::string_view bytes;
};

class Entry {
 public:
  Type type() const { return static_cast<Type>(type_encoding_ & 15); }
  Encoding encoding() const { return static_cast<Encoding>(type_encoding_ >> 4); }
  std::string_view key() const { return {bytes() + KeyOffset(), KeySize()}; }
  bool KeyEquals(std::string_view key) const;

  bool has_deadline() const { return flags_ & kHasDeadline; }
  // kNoDeadline (-1) without one.
  int64_t deadline_ms() const {
    return has_deadline() ? static_cast<int64_t>(Load(kHeaderBytes)) : -1;
  }

  // A string's bytes; an integer is printed into `scratch`. The view lives as long as the entry
  // stays unchanged, or as `scratch`.
  std::string_view StringBytes(char (&scratch)[24]) const {
    if (__builtin_expect(!(flags_ & kHasWord), 1)) return InlineValue();
    if (is_integer()) return {scratch, FormatInt64(scratch, integer())};
    return large()->view();
  }
  size_t StringSize() const;
  bool is_integer() const { return encoding() == Encoding::kInt; }
  int64_t integer() const { return static_cast<int64_t>(word()); }  // only when is_integer()

  // Allocated bytes of the entry and its value, as the allocator rounds them.
  size_t MemoryBytes() const {
    return AllocatedBytes(UsedBytes()) + (is_large() ? large()->MemoryBytes() : 0);
  }

  // Access data, by maxmemory-policy: the time of the last access, or the logarithmic counter with
  // the minute of its last decay. Which of the two it is, only the policy knows.
  uint32_t IdleSeconds(int64_t now_ms) const {
    return (static_cast<uint32_t>(now_ms / 1000) - access_) & kAccessMask;
  }
  // The counter as it stands after the decay up to now.
  uint8_t LfuCounter(int64_t now_ms, int decay_minutes) const;
  // Sieve: whether it was used since the hand last came by.
  bool visited() const { return access_ & kVisited; }
  // The keyspace's at the time when it was inserted or when a snapshot has written it last.
  uint32_t epoch() const { return (access_ >> kEpochShift) & 3; }

  // --- for the keyspace only: whoever changes an entry keeps its table and memory in step ---

  static uint32_t LruAccess(int64_t now_ms) {
    return static_cast<uint32_t>(now_ms / 1000) & kAccessMask;
  }
  static uint32_t LfuAccess(int64_t now_ms, uint8_t counter) {
    return (static_cast<uint32_t>(now_ms / 60000) & 0xffff) << 8 | counter;
  }
  uint32_t access() const { return access_ & kAccessMask; }
  void set_access(uint32_t access) {
    // Read far more often than it changes: an unchanged line stays clean.
    const uint32_t word = (access_ & ~kAccessMask) | access;
    if (word != access_) access_ = word;
  }
  void set_visited(bool visited) {
    const uint32_t word = visited ? access_ | kVisited : access_ & ~kVisited;
    if (word != access_) access_ = word;
  }
  void set_epoch(uint32_t epoch) {
    access_ = (access_ & ~(3u << kEpochShift)) | (epoch & 3) << kEpochShift;
  }

  // deadline_ms -1: none. Owns the content's LargeString from now on.
  static Entry* Create(std::string_view key, const Content& content, int64_t deadline_ms);
  static void Destroy(Entry* entry);
  // The entry that takes the place of `old`, which is gone: its key and access data, and another
  // value or deadline. A large value of `old` dies with it unless it is the content.
  static Entry* Rebuild(Entry* old, const Content& content, int64_t deadline_ms);
  // Its value once more, a large one copied: for another entry.
  Content CopyContent() const;
  // Its value as it is: for the entry that replaces it.
  Content ReuseContent() const {
    return {type(), encoding(), has_word(), has_word() ? word() : 0, InlineValue()};
  }

  // Whether `content` with or without a deadline can be written over this one where it stands: the
  // same parts, and an allocation of the same size. Never from or to a large value.
  bool Suits(const Content& content, bool with_deadline) const {
    if (is_large() || content.is_large()) return false;
    if (has_deadline() != with_deadline || has_word() != content.has_word) return false;
    if (content.bytes.size() == InlineSize()) return true;
    const size_t fixed = KeyOffset() + KeySize();
    return AllocatedBytes(fixed + InlineSize()) == AllocatedBytes(fixed + content.bytes.size());
  }
  // After Suits: writes the value and, where there is one, the deadline.
  void Overwrite(const Content& content, int64_t deadline_ms);
  void set_deadline_ms(int64_t deadline_ms) {
    DCHECK(has_deadline());
    Store(kHeaderBytes, static_cast<uint64_t>(deadline_ms));
  }

  bool is_large() const { return has_word() && !is_integer(); }
  LargeString* large() const { return reinterpret_cast<LargeString*>(word()); }
  void set_large(LargeString* string) { Store(WordOffset(), reinterpret_cast<uint64_t>(string)); }

 private:
  static constexpr size_t kHeaderBytes = 8;
  // kLongKey and kExtraBytes are, as they stand, the bytes between header and key.
  enum Flags : uint8_t { kHasDeadline = 1, kHasWord = 2, kLongKey = 4, kExtraBytes = 8 | 16 };
  static uint8_t MakeFlags(bool has_deadline, bool has_word, bool long_key) {
    return static_cast<uint8_t>((has_deadline ? kHasDeadline : 0) | (has_word ? kHasWord : 0) |
                                (long_key ? kLongKey : 0) | (has_deadline + has_word) * 8);
  }
  static constexpr uint32_t kAccessMask = 0xffffff;
  static constexpr int kEpochShift = 24;
  static constexpr uint32_t kVisited = 1u << 26;

  const char* bytes() const { return reinterpret_cast<const char*>(this); }
  char* bytes() { return reinterpret_cast<char*>(this); }
  uint64_t Load(size_t offset) const {
    uint64_t value;
    std::memcpy(&value, bytes() + offset, sizeof value);
    return value;
  }
  void Store(size_t offset, uint64_t value) { std::memcpy(bytes() + offset, &value, sizeof value); }

  bool has_word() const { return flags_ & kHasWord; }
  size_t WordOffset() const { return kHeaderBytes + (flags_ & kHasDeadline) * 8; }
  uint64_t word() const {
    DCHECK(has_word());
    return Load(WordOffset());
  }
  size_t KeyOffset() const { return kHeaderBytes + (flags_ & (kLongKey | kExtraBytes)); }
  size_t KeySize() const {
    if (__builtin_expect(!(flags_ & kLongKey), 1)) return key_size_;
    uint32_t size;
    std::memcpy(&size, bytes() + KeyOffset() - sizeof size, sizeof size);
    return size;
  }
  size_t InlineSize() const { return value_size_; }
  std::string_view InlineValue() const { return {bytes() + KeyOffset() + KeySize(), value_size_}; }
  size_t UsedBytes() const { return KeyOffset() + KeySize() + value_size_; }

  uint8_t type_encoding_;
  uint8_t flags_;
  uint8_t key_size_;
  uint8_t value_size_;
  uint32_t access_;
};
static_assert(sizeof(Entry) == 8);

namespace internal {
// memcmp for keys: most are short, and a call would cost more than the comparison.
inline bool SameBytes(const char* a, const char* b, size_t size) {
  const auto difference = [&](auto word, size_t offset) {
    auto other = word;
    std::memcpy(&word, a + offset, sizeof word);
    std::memcpy(&other, b + offset, sizeof other);
    return word ^ other;
  };
  // Two words that may overlap, from either end.
  if (size >= 8) {
    if (size <= 16) return (difference(uint64_t{}, 0) | difference(uint64_t{}, size - 8)) == 0;
    return std::memcmp(a, b, size) == 0;
  }
  if (size >= 4) return (difference(uint32_t{}, 0) | difference(uint32_t{}, size - 4)) == 0;
  for (size_t i = 0; i < size; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}
}  // namespace internal

inline bool Entry::KeyEquals(std::string_view key) const {
  return KeySize() == key.size() &&
         internal::SameBytes(bytes() + KeyOffset(), key.data(), key.size());
}

inline void Entry::Overwrite(const Content& content, int64_t deadline_ms) {
  type_encoding_ = content.TypeAndEncoding();
  if (has_deadline()) set_deadline_ms(deadline_ms);
  if (content.has_word) {
    Store(WordOffset(), content.word);
  } else {
    value_size_ = static_cast<uint8_t>(content.bytes.size());
    std::memmove(bytes() + KeyOffset() + KeySize(), content.bytes.data(), content.bytes.size());
  }
}

}  // namespace crab

// Entry: one key with its value, deadline and access data in one allocation (DESIGN §4).
//
//   8 bytes   header: type, encoding, flags, snapshot epoch, 24 bits of LRU or LFU, as in Redis
//   8 bytes   deadline in absolute ms, only with kHasDeadline
//   8 bytes   the integer (kInt) or the pointer to the value (kRaw above kInlineBytesMax)
//   1 or 4    key length (4 with kLongKey), then the key
//   1 + n     inline value (kEmbstr and short kRaw): length, bytes
//
// Shard-bound: whoever holds the shard. An Entry* lives until the next change of its shard; a
// change of length or deadline moves the entry, so the functions that do it return the new place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace crab {

// The order and names of TYPE; numbers are ours.
enum class Type : uint8_t { kString, kList, kSet, kZset, kHash, kStream };
enum class Encoding : uint8_t {
  kRaw, kInt, kEmbstr, kListpack, kQuicklist, kIntset, kHashtable, kSkiplist, kStream
};
std::string_view TypeName(Type type);          // "string"
std::string_view EncodingName(Encoding encoding);  // "embstr"

// A string value is embstr up to this (OBJECT ENCODING), as in Redis.
constexpr size_t kEmbstrBytesMax = 44;
// A string value up to this lies inside its entry, whatever its encoding is called.
constexpr size_t kInlineBytesMax = 255;

class Entry {
 public:
  Type type() const;
  Encoding encoding() const;
  std::string_view key() const;

  bool has_deadline() const;
  int64_t deadline_ms() const;  // kNoDeadline (-1) without one

  // A string's bytes; an integer is printed into `scratch`. The view lives as long as the entry
  // stays unchanged, or as `scratch`.
  std::string_view StringBytes(char (&scratch)[24]) const;
  size_t StringSize() const;
  bool is_integer() const { return encoding() == Encoding::kInt; }
  int64_t integer() const;  // only when is_integer()

  // Allocated bytes of the entry and its value, as the allocator rounds them.
  size_t MemoryBytes() const;

  // Access data, by maxmemory-policy: seconds since last access, or the logarithmic counter.
  // ... (the keyspace touches; OBJECT IDLETIME and FREQ read)

 private:
  uint64_t header_;
};

}  // namespace crab

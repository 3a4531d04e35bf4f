#include "src/keyspace/entry.h"

#include <algorithm>

namespace crab {

std::string_view TypeName(Type type) {
  switch (type) {
    case Type::kString:
      return "string";
    case Type::kList:
      return "list";
    case Type::kSet:
      return "set";
    case Type::kZset:
      return "zset";
    case Type::kHash:
      return "hash";
    case Type::kStream:
      return "stream";
  }
  return "";
}

std::string_view EncodingName(Encoding encoding) {
  switch (encoding) {
    case Encoding::kRaw:
      return "raw";
    case Encoding::kInt:
      return "int";
    case Encoding::kEmbstr:
      return "embstr";
    case Encoding::kListpack:
      return "listpack";
    case Encoding::kQuicklist:
      return "quicklist";
    case Encoding::kIntset:
      return "intset";
    case Encoding::kHashtable:
      return "hashtable";
    case Encoding::kSkiplist:
      return "skiplist";
    case Encoding::kStream:
      return "stream";
  }
  return "";
}

size_t Entry::StringSize() const {
  if (!has_word()) return value_size_;
  if (!is_integer()) return large()->size();
  const int64_t value = integer();
  if (value >= 0) return DigitCount(static_cast<uint64_t>(value));
  return 1 + DigitCount(uint64_t{0} - static_cast<uint64_t>(value));
}

uint8_t Entry::LfuCounter(int64_t now_ms, int decay_minutes) const {
  const uint32_t counter = access_ & 0xff;
  if (decay_minutes <= 0) return static_cast<uint8_t>(counter);
  const uint32_t decayed_at = (access_ >> 8) & 0xffff;
  const uint32_t elapsed = (static_cast<uint32_t>(now_ms / 60000) - decayed_at) & 0xffff;
  const uint32_t periods = elapsed / static_cast<uint32_t>(decay_minutes);
  return static_cast<uint8_t>(counter - std::min(counter, periods));
}

Entry* Entry::Create(std::string_view key, const Content& content, int64_t deadline_ms) {
  CHECK_LE(content.bytes.size(), kInlineBytesMax);
  const uint8_t flags = MakeFlags(deadline_ms >= 0, content.has_word, key.size() > 0xff);
  const size_t key_offset = kHeaderBytes + (flags & (kLongKey | kExtraBytes));
  auto* entry =
      static_cast<Entry*>(Allocate(AllocatedBytes(key_offset + key.size() + content.bytes.size())));
  entry->type_encoding_ = content.TypeAndEncoding();
  entry->flags_ = flags;
  entry->key_size_ = static_cast<uint8_t>(key.size());
  entry->value_size_ = static_cast<uint8_t>(content.bytes.size());
  entry->access_ = 0;
  if (deadline_ms >= 0) entry->set_deadline_ms(deadline_ms);
  if (content.has_word) entry->Store(entry->WordOffset(), content.word);
  char* to = entry->bytes() + key_offset;
  if (flags & kLongKey) {
    const auto size = static_cast<uint32_t>(key.size());
    CHECK_EQ(size, key.size());
    std::memcpy(to - sizeof size, &size, sizeof size);
  }
  if (!key.empty()) std::memcpy(to, key.data(), key.size());
  if (!content.bytes.empty()) {
    std::memcpy(to + key.size(), content.bytes.data(), content.bytes.size());
  }
  return entry;
}

void Entry::Destroy(Entry* entry) {
  if (entry->is_large()) LargeString::Destroy(entry->large());
  Release(entry, AllocatedBytes(entry->UsedBytes()));
}

Entry* Entry::Rebuild(Entry* old, const Content& content, int64_t deadline_ms) {
  Entry* entry = Create(old->key(), content, deadline_ms);
  entry->access_ = old->access_;
  const bool takes_over = old->is_large() && entry->is_large() && old->word() == entry->word();
  if (old->is_large() && !takes_over) LargeString::Destroy(old->large());
  Release(old, AllocatedBytes(old->UsedBytes()));
  return entry;
}

Content Entry::CopyContent() const {
  if (!is_large()) return ReuseContent();
  return Content::Large(LargeString::Create(large()->view(), large()->size()));
}

}  // namespace crab

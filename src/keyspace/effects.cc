#include "src/keyspace/effects.h"

#include <cstring>
#include <string>

#include "utils/check.h"
#include "utils/number.h"

namespace crab {

namespace {

struct EffectRow {
  std::string_view name;
  size_t arguments_min;  // replay reads this many without asking
};

// By id; row 0 is no effect.
constexpr EffectRow kEffectRows[kEffectIdMax + 1] = {
    {"", 0},         {"SET", 2},    {"DEL", 1},  {"PEXPIREAT", 2}, {"PERSIST", 1},  {"APPEND", 2},
    {"SETRANGE", 3}, {"INCRBY", 2}, {"MOVE", 2}, {"FLUSHDB", 0},   {"FLUSHALL", 0}, {"SWAPDB", 2},
};

constexpr size_t kVarintMax = 10;  // bytes of 64 bits
constexpr size_t kShardBytes = 2;
// What a SET needs besides its key and value: five varints, "PXAT" and its time, or "KEEPTTL".
constexpr size_t kSetRoom = 5 * kVarintMax + 2 + 4 + kIntegerTextMax;

char* WriteVarint(char* p, uint64_t value) {
  while (__builtin_expect(value >= 0x80, 0)) {
    *p++ = static_cast<char>(value | 0x80);
    value >>= 7;
  }
  *p++ = static_cast<char>(value);
  return p;
}

char* CopyBytes(char* p, std::string_view bytes) {
  if (!bytes.empty()) std::memcpy(p, bytes.data(), bytes.size());
  return p + bytes.size();
}

char* WriteBytes(char* p, std::string_view bytes) {
  return CopyBytes(WriteVarint(p, bytes.size()), bytes);
}

char* WriteHead(char* p, uint32_t db, EffectId id, size_t arguments) {
  p = WriteVarint(p, db);
  p = WriteVarint(p, static_cast<uint8_t>(id));
  return WriteVarint(p, arguments);
}

// The commonest effect, so it is written straight down: with the usual sizes there is one branch
// for all varints. Takes at most kSetRoom and the bytes of key and value.
[[gnu::always_inline]] inline char* WriteSet(char* p, uint32_t db, std::string_view key,
                                             std::string_view value, int64_t deadline_ms) {
  DCHECK(deadline_ms >= kKeepDeadline);
  const bool has_ms = deadline_ms >= 0;
  const char arguments = has_ms ? 4 : deadline_ms == kKeepDeadline ? 3 : 2;
  if (__builtin_expect((db | key.size() | value.size()) < 0x80, 1)) {
    *p++ = static_cast<char>(db);
    *p++ = static_cast<char>(EffectId::kSet);
    *p++ = arguments;
    *p++ = static_cast<char>(key.size());
    p = CopyBytes(p, key);
    *p++ = static_cast<char>(value.size());
    p = CopyBytes(p, value);
  } else {
    p = WriteHead(p, db, EffectId::kSet, static_cast<size_t>(arguments));
    p = WriteBytes(p, key);
    p = WriteBytes(p, value);
  }
  if (has_ms) {
    p = WriteBytes(p, "PXAT");
    const size_t digits = FormatInt64(p + 1, deadline_ms);
    *p = static_cast<char>(digits);
    p += 1 + digits;
  } else if (deadline_ms == kKeepDeadline) {
    p = WriteBytes(p, "KEEPTTL");
  }
  return p;
}

// Takes a varint from the front of `bytes`. False when it is cut off or above 64 bits.
bool TakeVarint(std::string_view* bytes, uint64_t* value) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes->size() && i < kVarintMax; ++i) {
    const auto byte = static_cast<unsigned char>((*bytes)[i]);
    if (i == kVarintMax - 1 && byte > 1) return false;
    sum |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *value = sum;
      bytes->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

}  // namespace

std::string_view EffectName(int id) {
  return id > 0 && id <= kEffectIdMax ? kEffectRows[id].name : std::string_view();
}

void Effects::End(uint16_t shard, char* begin, char* end) {
  const auto size = static_cast<size_t>(end - begin);
  bytes_.Commit(size);
  parts_.push_back({shard, size});
  ++count_;
}

void Effects::Set(uint16_t shard, uint32_t db, std::string_view key, std::string_view value,
                  int64_t deadline_ms) {
  const size_t part_bytes = PartBytes(key);
  const std::string_view first = value.substr(0, part_bytes);
  char* const begin = bytes_.Reserve(kSetRoom + key.size() + first.size());
  End(shard, begin, WriteSet(begin, db, key, first, deadline_ms));
  if (value.size() > part_bytes) AddAppends(shard, db, key, value.substr(part_bytes));
}

void Effects::Expireat(uint16_t shard, uint32_t db, std::string_view key, int64_t deadline_ms) {
  char digits[kIntegerTextMax];
  Add(shard, db, EffectId::kPexpireat, {key, {digits, FormatInt64(digits, deadline_ms)}});
}

void Effects::Add(uint16_t shard, uint32_t db, EffectId id,
                  std::initializer_list<std::string_view> arguments) {
  if (id == EffectId::kAppend && arguments.size() == 2) {
    return AddAppends(shard, db, arguments.begin()[0], arguments.begin()[1]);
  }
  AddOne(shard, db, id, arguments.begin(), arguments.size());
}

void Effects::AddAppends(uint16_t shard, uint32_t db, std::string_view key,
                         std::string_view bytes) {
  do {
    const std::string_view arguments[2] = {key, bytes.substr(0, PartBytes(key))};
    AddOne(shard, db, EffectId::kAppend, arguments, 2);
    bytes.remove_prefix(arguments[1].size());
  } while (!bytes.empty());
}

void Effects::AddOne(uint16_t shard, uint32_t db, EffectId id, const std::string_view* arguments,
                     size_t count) {
  CHECK_GE(count, kEffectRows[static_cast<size_t>(id)].arguments_min);
  size_t room = (3 + count) * kVarintMax;
  for (size_t i = 0; i < count; ++i) room += arguments[i].size();
  char* const begin = bytes_.Reserve(room);
  char* p = WriteHead(begin, db, id, count);
  for (size_t i = 0; i < count; ++i) p = WriteBytes(p, arguments[i]);
  End(shard, begin, p);
}

std::string_view Effects::Transaction() {
  CHECK_EQ(parts_.size(), count_);
  transaction_.Clear();
  const size_t room = kVarintMax + count_ * (kShardBytes + kVarintMax) + bytes_.size();
  char* const begin = transaction_.Reserve(room);
  char* p = WriteVarint(begin, count_);
  for (const Part& part : parts_) {
    *p++ = static_cast<char>(part.shard & 0xff);
    *p++ = static_cast<char>(part.shard >> 8);
    p = WriteVarint(p, part.size);
  }
  p = CopyBytes(p, bytes_.view());
  transaction_.Commit(static_cast<size_t>(p - begin));
  return transaction_.view();
}

void AppendSetEffect(std::string* out, uint32_t db, std::string_view key, std::string_view value,
                     int64_t deadline_ms) {
  CHECK_LE(value.size(), Effects::kPartBytes);
  const size_t size = out->size();
  out->resize(size + kSetRoom + key.size() + value.size());
  const char* end = WriteSet(out->data() + size, db, key, value, deadline_ms);
  out->resize(static_cast<size_t>(end - out->data()));
}

Status ReadEffect(std::string_view* bytes, EffectView* effect) {
  uint64_t db = 0;
  uint64_t id = 0;
  uint64_t count = 0;
  if (!TakeVarint(bytes, &db) || !TakeVarint(bytes, &id) || !TakeVarint(bytes, &count)) {
    return Status::Error("effect is cut off in its head");
  }
  if (db > UINT32_MAX) return Status::Error("database of the effect is out of range");
  if (id == 0 || id > kEffectIdMax) {
    return Status::Error("unknown effect " + std::to_string(id));
  }
  // Each argument takes a byte for its length at least, which bounds what is reserved.
  if (count > bytes->size()) return Status::Error("effect has more arguments than bytes");
  if (count < kEffectRows[id].arguments_min) {
    return Status::Error("effect " + std::string(kEffectRows[id].name) + " has too few arguments");
  }
  effect->db = static_cast<uint32_t>(db);
  effect->id = static_cast<int>(id);
  effect->arguments.clear();
  for (uint64_t i = 0; i < count; ++i) {
    uint64_t size = 0;
    if (!TakeVarint(bytes, &size) || size > bytes->size()) {
      return Status::Error("effect is cut off in its arguments");
    }
    effect->arguments.push_back(bytes->substr(0, size));
    bytes->remove_prefix(size);
  }
  return Status::Ok();
}

Result<std::string_view> TransactionEffects(std::string_view payload) {
  uint64_t count = 0;
  if (!TakeVarint(&payload, &count)) {
    return Status::Error("transaction is cut off in its directory");
  }
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; ++i) {
    if (payload.size() < kShardBytes) {
      return Status::Error("transaction is cut off in its directory");
    }
    payload.remove_prefix(kShardBytes);
    uint64_t size = 0;
    if (!TakeVarint(&payload, &size)) {
      return Status::Error("transaction is cut off in its directory");
    }
    if (__builtin_add_overflow(sum, size, &sum)) {
      return Status::Error("sizes of the transaction overflow");
    }
  }
  if (sum != payload.size()) {
    return Status::Error("sizes of the transaction differ from its bytes");
  }
  return payload;
}

}  // namespace crab

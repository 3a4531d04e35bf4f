// Effects: what one command changed, in the form in which replay runs it again. Each effect is a
// command of Redis on one key of one shard, or a broadcast that every shard applies; relative times
// and choices never get here. The payload's bytes are specified in persistence/FORMAT.md.
// Belongs to one loop, reused command after command; holds at most what one command changes.
//
// An effect is: varint database, varint id, varint number of arguments, then each argument as a
// varint length and its bytes. A transaction is: varint number of effects, for each its shard (16
// bits, little-endian) and the varint size of its bytes, then the effects end to end. Varints hold
// seven bits a byte, the lowest first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "utils/bytes.h"
#include "utils/status.h"

namespace crab {

// Frozen: a number is never reused or changed, new ones are appended (FORMAT.md lists them).
enum class EffectId : uint8_t {
  kSet = 1,
  kDel = 2,
  kPexpireat = 3,
  kPersist = 4,
  kAppend = 5,
  kSetrange = 6,
  kIncrby = 7,
  kMove = 8,
  kFlushdb = 9,    // broadcast
  kFlushall = 10,  // broadcast
  kSwapdb = 11,    // broadcast
};
constexpr int kEffectIdMax = 11;

// The command's name, upper case, "" for an unknown id.
std::string_view EffectName(int id);

constexpr int64_t kNoDeadline = -1;    // the key lives for ever
constexpr int64_t kKeepDeadline = -2;  // the key keeps the deadline that it has

class Effects {
 public:
  // Values above this are cut into SET + APPENDs, so that no effect is larger than a replica takes.
  static constexpr size_t kPartBytes = 1 << 20;
  // The same under a key that is longer than that, because each part names it: so all of them
  // together are at most twice the value, and no part is longer than the longest argument.
  static constexpr size_t PartBytes(std::string_view key) {
    return key.size() < kPartBytes ? kPartBytes : key.size();
  }
  // What one effect takes beside its arguments, at most, its place in a TXN's directory included.
  static constexpr size_t kOwnBytesMax = 96;
  // What a Set of that much takes in a record, at most.
  static constexpr uint64_t SetBytesMax(std::string_view key, uint64_t value_bytes) {
    return value_bytes + (value_bytes / PartBytes(key) + 1) * (key.size() + kOwnBytesMax);
  }

  bool empty() const { return count_ == 0; }
  size_t count() const { return count_; }
  // All effects end to end, as the payload of a record holds them; with count() above 1 the TXN
  // payload with its directory is made by Transaction().
  std::string_view bytes() const { return bytes_.view(); }
  std::string_view Transaction();
  // Of a single effect: its shard, kBroadcast for a broadcast.
  uint16_t shard() const { return parts_.empty() ? kBroadcast : parts_.front().shard; }
  static constexpr uint16_t kBroadcast = 0xffff;

  void Clear() {
    bytes_.Clear();
    bytes_.ShrinkIfEmpty(kKeptBytes);
    if (count_ > 1) {
      transaction_.Clear();
      transaction_.ShrinkIfEmpty(kKeptBytes);
    }
    parts_.clear();
    count_ = 0;
  }

  // `shard` is the key's shard; deadline_ms absolute, kNoDeadline or kKeepDeadline.
  void Set(uint16_t shard, uint32_t db, std::string_view key, std::string_view value,
           int64_t deadline_ms);
  void Del(uint16_t shard, uint32_t db, std::string_view key) {
    Add(shard, db, EffectId::kDel, {key});
  }
  void Expireat(uint16_t shard, uint32_t db, std::string_view key, int64_t deadline_ms);
  void Persist(uint16_t shard, uint32_t db, std::string_view key) {
    Add(shard, db, EffectId::kPersist, {key});
  }
  // Any other: `arguments` without the command's name. An append is cut into parts like a Set.
  void Add(uint16_t shard, uint32_t db, EffectId id,
           std::initializer_list<std::string_view> arguments);
  void Broadcast(uint32_t db, EffectId id, std::initializer_list<std::string_view> arguments) {
    Add(kBroadcast, db, id, arguments);
  }

 private:
  // What one huge command needed is given back; what common ones need stays.
  static constexpr size_t kKeptBytes = 1 << 20;

  struct Part {
    uint16_t shard;
    size_t size;  // of the effect's bytes
  };

  void AddOne(uint16_t shard, uint32_t db, EffectId id, const std::string_view* arguments,
              size_t count);
  void AddAppends(uint16_t shard, uint32_t db, std::string_view key, std::string_view bytes);
  void End(uint16_t shard, char* begin, char* end);

  Buffer bytes_;
  Buffer transaction_;
  std::vector<Part> parts_;
  size_t count_ = 0;
};

// One effect at the end of `out`, as Effects::Set writes it: for who gathers bytes of its own. The
// value is at most Effects::kPartBytes.
void AppendSetEffect(std::string* out, uint32_t db, std::string_view key, std::string_view value,
                     int64_t deadline_ms);

// Reads effects back.
struct EffectView {
  uint32_t db = 0;
  int id = 0;
  std::vector<std::string_view> arguments;  // without the command's name; views into the payload
};

// Decodes one effect at the front of `bytes` and drops it. An error names what is wrong with it: a
// bound that does not hold, an unknown id, fewer arguments than the effect cannot do without. Then
// neither `bytes` nor `effect` is of use.
Status ReadEffect(std::string_view* bytes, EffectView* effect);
// The effects of a TXN payload, in order, one after the other, without its directory. OK says that
// the directory is whole and its sizes add up to what follows.
Result<std::string_view> TransactionEffects(std::string_view payload);

}  // namespace crab

#include "src/execution/replayer.h"

#include <string>

#include "utils/check.h"
#include "utils/number.h"

namespace crab {

namespace {

constexpr bool IsBroadcast(int id) {
  return id == static_cast<int>(EffectId::kFlushdb) ||
         id == static_cast<int>(EffectId::kFlushall) || id == static_cast<int>(EffectId::kSwapdb);
}

// A length, and as many bytes behind it. Lengths of up to three bytes only: longer ones take the
// other road.
bool TakeBytes(const char** at, const char* end, std::string_view* bytes) {
  const char* p = *at;
  uint64_t size = 0;
  for (int shift = 0;; shift += 7) {
    if (p == end || shift > 14) return false;
    const auto byte = static_cast<unsigned char>(*p++);
    size |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (__builtin_expect(byte < 0x80, 1)) break;
  }
  if (size > static_cast<uint64_t>(end - p)) return false;
  *bytes = {p, size};
  *at = p + size;
  return true;
}

}  // namespace

// SET key value, or SET key value PXAT ms, as Effects::Set writes them.
struct Replayer::PlainSet {
  uint32_t db;
  std::string_view key, value;
  int64_t deadline_ms;
};

bool Replayer::TakePlainSet(std::string_view* effects, PlainSet* set) {
  const char* p = effects->data();
  const char* const end = p + effects->size();
  if (end - p < 5 || p[0] < 0 || p[1] != static_cast<char>(EffectId::kSet)) return false;
  const char arguments = p[2];
  if (arguments != 2 && arguments != 4) return false;
  set->db = static_cast<uint32_t>(p[0]);
  set->deadline_ms = kNoDeadline;
  p += 3;
  if (!TakeBytes(&p, end, &set->key) || !TakeBytes(&p, end, &set->value)) return false;
  if (arguments == 4) {
    std::string_view word, time;
    if (!TakeBytes(&p, end, &word) || !TakeBytes(&p, end, &time) || word != "PXAT" ||
        !ParseInt64(time, &set->deadline_ms) || set->deadline_ms <= 0) {
      return false;
    }
  }
  effects->remove_prefix(static_cast<size_t>(p - effects->data()));
  return true;
}

Replayer::Replayer(Keyspace& keyspace, const Registry& registry)
    : keyspace_(keyspace),
      registry_(registry),
      view_(keyspace, effects_, stats_),
      reply_(discarded_, 2) {
  for (int id = 1; id <= kEffectIdMax; ++id) commands_[id] = registry.FindName(EffectName(id));
  client_.replay = true;
}

Status Replayer::CheckOne() const {
  const std::string_view name = EffectName(effect_.id);
  const Command* const command = name.empty() ? nullptr : commands_[effect_.id];
  if (__builtin_expect(command == nullptr, 0)) {
    return Status::Error("effect " + std::to_string(effect_.id) + " is not known to this version");
  }
  const size_t arguments = effect_.arguments.size();
  if (__builtin_expect(
          !command->AritySuits(arguments + 1) || effect_.db >= keyspace_.options().databases, 0)) {
    return Status::Error("effect " + std::string(name) + " with " + std::to_string(arguments) +
                         " arguments on database " + std::to_string(effect_.db) +
                         " does not suit this server");
  }
  return Status::Ok();
}

Status Replayer::CheckDatabase(const PlainSet& set) const {
  if (__builtin_expect(set.db < keyspace_.options().databases, 1)) return Status::Ok();
  return Status::Error("effect SET on database " + std::to_string(set.db) +
                       " does not suit this server");
}

Status Replayer::Check(std::string_view effects) {
  PlainSet set;
  while (!effects.empty()) {
    if (__builtin_expect(TakePlainSet(&effects, &set), 1)) {
      TRY(CheckDatabase(set));
      continue;
    }
    TRY(ReadEffect(&effects, &effect_));
    TRY(CheckOne());
  }
  return Status::Ok();
}

Status Replayer::Replay(std::string_view effects, ShardRange shards) {
  PlainSet set;
  while (!effects.empty()) {
    // By far the commonest. The way through the handler, which logs and replies, takes a quarter
    // longer.
    if (__builtin_expect(TakePlainSet(&effects, &set), 1)) {
      TRY(CheckDatabase(set));
      TRY(Begin(set.db, set.key, "SET", shards));
      view_.SetString(set.key, set.value, set.deadline_ms);
      continue;
    }
    TRY(ReadEffect(&effects, &effect_));
    TRY(CheckOne());
    TRY(IsBroadcast(effect_.id) ? ReplayBroadcast(shards) : ReplayOne(shards));
  }
  return Status::Ok();
}

void Replayer::Expect(std::span<const std::string_view> payloads, ShardRange shards) {
  constexpr size_t kHeadBytes = 3;  // database, effect and number of arguments, where all are small
  CHECK_LE(payloads.size(), kExpectedMax);
  // The tables of other shards are not held any more.
  if (shards != expected_shards_) expected_count_ = 0;
  expected_shards_ = shards;
  for (size_t i = 0; i < expected_count_; ++i)
    expected_[i].table->TouchBehindBucket(expected_[i].hash);
  expected_count_ = 0;
  for (const std::string_view payload : payloads) {
    if (payload.size() <= kHeadBytes || payload[0] < 0) continue;
    const char* at = payload.data() + kHeadBytes;
    std::string_view key;
    if (!TakeBytes(&at, payload.data() + payload.size(), &key)) continue;
    const uint64_t hash = keyspace_.Hash(key);
    const uint32_t shard = keyspace_.ShardOf(key, hash);
    if (shard < shards.first || shard >= shards.end) continue;
    const Table* const table = keyspace_.shard(shard).FindTable(static_cast<uint32_t>(payload[0]));
    if (table != nullptr) expected_[expected_count_++] = {table, hash};
  }
  // Close together: as many misses at once as the processor can have.
  for (size_t i = 0; i < expected_count_; ++i) expected_[i].table->TouchBucket(expected_[i].hash);
}

Status Replayer::Begin(uint32_t db, std::string_view key, std::string_view name,
                       ShardRange shards) {
  view_.Begin(db, /*now_ms=*/0, /*no_touch=*/true);
  const uint32_t shard = keyspace_.ShardOf(key, view_.HashOf(key));
  if (__builtin_expect(shard < shards.first || shard >= shards.end, 0)) {
    return Status::Error("effect " + std::string(name) + " on a key of shard " +
                         std::to_string(shard) + " in a record of others");
  }
  return Status::Ok();
}

Status Replayer::ReplayOne(ShardRange shards) {
  const Command& command = *commands_[effect_.id];
  TRY(Begin(effect_.db, effect_.arguments.front(), EffectName(effect_.id), shards));
  argv_.assign(1, command.name);
  argv_.insert(argv_.end(), effect_.arguments.begin(), effect_.arguments.end());
  client_.db = effect_.db;
  Call call{command, Args(argv_), view_, reply_, effects_, client_, registry_, 0};
  Status status = command.handler(call);
  effects_.Clear();
  discarded_.Clear();
  return status;
}

// The same as the handlers do, who hold the world, to the shards at hand.
Status Replayer::ReplayBroadcast(ShardRange shards) {
  uint32_t other_db = 0;
  if (effect_.id == static_cast<int>(EffectId::kSwapdb)) {
    int64_t indices[2];
    for (int i = 0; i < 2; ++i) {
      if (!ParseInt64(effect_.arguments[i], &indices[i]) || indices[i] < 0 ||
          indices[i] >= keyspace_.options().databases) {
        return Status::Error("effect SWAPDB names a database that this server has not");
      }
    }
    effect_.db = static_cast<uint32_t>(indices[0]);
    other_db = static_cast<uint32_t>(indices[1]);
  }
  for (uint32_t shard = shards.first; shard < shards.end; ++shard) {
    switch (static_cast<EffectId>(effect_.id)) {
      case EffectId::kFlushdb:
        keyspace_.DetachOf(shard, effect_.db);
        break;
      case EffectId::kFlushall:
        keyspace_.DetachAllOf(shard);
        break;
      default:
        keyspace_.SwapOf(shard, effect_.db, other_db);
    }
  }
  return Status::Ok();
}

}  // namespace crab

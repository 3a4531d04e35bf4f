#include "src/execution/replayer.h"

#include <string>

#include "utils/number.h"

namespace crab {

namespace {

constexpr bool IsBroadcast(int id) {
  return id == static_cast<int>(EffectId::kFlushdb) ||
         id == static_cast<int>(EffectId::kFlushall) || id == static_cast<int>(EffectId::kSwapdb);
}

}  // namespace

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

Status Replayer::Check(std::string_view effects) {
  while (!effects.empty()) {
    TRY(ReadEffect(&effects, &effect_));
    TRY(CheckOne());
  }
  return Status::Ok();
}

Status Replayer::Replay(std::string_view effects, ShardRange shards) {
  while (!effects.empty()) {
    TRY(ReadEffect(&effects, &effect_));
    TRY(CheckOne());
    TRY(IsBroadcast(effect_.id) ? ReplayBroadcast(shards) : ReplayOne(shards));
  }
  return Status::Ok();
}

Status Replayer::ReplayOne(ShardRange shards) {
  const Command& command = *commands_[effect_.id];
  view_.Begin(effect_.db, /*now_ms=*/0, /*no_touch=*/true);
  const std::string_view key = effect_.arguments.front();
  const uint32_t shard = keyspace_.ShardOf(key, view_.HashOf(key));
  if (__builtin_expect(shard < shards.first || shard >= shards.end, 0)) {
    return Status::Error("effect " + std::string(EffectName(effect_.id)) + " on a key of shard " +
                         std::to_string(shard) + " in a record of others");
  }
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

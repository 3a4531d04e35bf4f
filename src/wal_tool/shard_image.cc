#include "src/wal_tool/shard_image.h"

#include <utility>

#include "src/keyspace/effects.h"
#include "utils/number.h"

namespace crab::wal {
namespace {

constexpr uint8_t kVarintMore = 0x80;

Result<uint32_t> Database(std::string_view word) {
  int64_t db = 0;
  if (!ParseInt64(word, &db) || db < 0 || db > INT32_MAX) {
    return Status::Error("an effect names a database that is none");
  }
  return static_cast<uint32_t>(db);
}

std::string_view WithoutDatabase(std::string_view effect) {
  size_t varint = 1;
  while (static_cast<uint8_t>(effect[varint - 1]) & kVarintMore) ++varint;
  return effect.substr(varint);
}

void AppendDatabase(uint32_t db, std::string* out) {
  for (; db >= kVarintMore; db >>= 7) out->push_back(static_cast<char>(db | kVarintMore));
  out->push_back(static_cast<char>(db));
}

}  // namespace

Status ShardImage::Take(std::string_view effects) {
  while (!effects.empty()) {
    const std::string_view whole = effects;
    EffectView effect;
    TRY(ReadEffect(&effects, &effect));
    const std::string_view body = WithoutDatabase(whole.substr(0, whole.size() - effects.size()));
    const std::vector<std::string_view>& words = effect.arguments;
    Keys& keys = databases_[effect.db];
    switch (static_cast<EffectId>(effect.id)) {
      case EffectId::kSet: {
        std::vector<std::string>& since = keys[std::string(words[0])];
        const bool keeps_deadline = words.size() > 2 && words[2] == "KEEPTTL";
        if (!keeps_deadline) since.clear();
        since.emplace_back(body);
        break;
      }
      case EffectId::kPexpireat:
      case EffectId::kPersist:
      case EffectId::kAppend:
      case EffectId::kSetrange:
      case EffectId::kIncrby:
        keys[std::string(words[0])].emplace_back(body);
        break;
      case EffectId::kDel:
        for (const std::string_view key : words) keys.erase(std::string(key));
        break;
      case EffectId::kMove: {
        Keys& others = databases_[TRY(Database(words[1]))];
        others.erase(std::string(words[0]));
        if (auto moved = keys.extract(std::string(words[0])); !moved.empty()) {
          others.insert(std::move(moved));
        }
        break;
      }
      case EffectId::kFlushdb:
        keys.clear();
        break;
      case EffectId::kFlushall:
        databases_.clear();
        break;
      case EffectId::kSwapdb:
        std::swap(databases_[TRY(Database(words[0]))], databases_[TRY(Database(words[1]))]);
        break;
    }
  }
  return Status::Ok();
}

Status ShardImage::Give(size_t bytes, const Chunk& chunk) const {
  std::string gathered;
  uint64_t keys_begun = 0;
  for (const auto& [db, keys] : databases_) {
    for (const auto& [key, effects] : keys) {
      ++keys_begun;
      for (const std::string& body : effects) {
        AppendDatabase(db, &gathered);
        gathered.append(body);
        if (gathered.size() < bytes) continue;
        TRY(chunk(gathered, std::exchange(keys_begun, 0)));
        gathered.clear();
      }
    }
  }
  return gathered.empty() ? Status::Ok() : chunk(gathered, keys_begun);
}

}  // namespace crab::wal

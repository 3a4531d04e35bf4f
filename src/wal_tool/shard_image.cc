#include "src/wal_tool/shard_image.h"

#include <utility>

#include "utils/number.h"

namespace crab::wal {
namespace {

Result<int64_t> Number(std::string_view word) {
  int64_t number = 0;
  if (!ParseInt64(word, &number)) return Status::Error("an effect has no number where one belongs");
  return number;
}

Result<uint32_t> Database(std::string_view word) {
  const int64_t db = TRY(Number(word));
  if (db < 0 || db > INT32_MAX) return Status::Error("an effect names a database that is none");
  return static_cast<uint32_t>(db);
}

}  // namespace

Status ShardImage::Take(std::string_view effects) {
  EffectView effect;
  while (!effects.empty()) {
    TRY(ReadEffect(&effects, &effect));
    TRY(TakeOne(effect));
  }
  return Status::Ok();
}

Status ShardImage::TakeOne(const EffectView& effect) {
  const std::vector<std::string_view>& words = effect.arguments;
  const auto id = static_cast<EffectId>(effect.id);
  Keys& keys = databases_[effect.db];
  switch (id) {
    case EffectId::kSet: {
      Key& key = keys[std::string(words[0])];
      key.changes.clear();
      key.changes.push_back({id, std::string(words[1])});
      const bool keeps_deadline = words.size() > 2 && words[2] == "KEEPTTL";
      if (!keeps_deadline) key.deadline_ms = kNoDeadline;
      if (words.size() > 3 && words[2] == "PXAT") key.deadline_ms = TRY(Number(words[3]));
      break;
    }
    case EffectId::kAppend: {
      std::vector<Change>& changes = keys[std::string(words[0])].changes;
      const bool extends = !changes.empty() && (changes.back().id == EffectId::kSet ||
                                                changes.back().id == EffectId::kAppend);
      if (!extends) changes.push_back({id, ""});
      changes.back().text += words[1];
      break;
    }
    case EffectId::kIncrby: {
      std::vector<Change>& changes = keys[std::string(words[0])].changes;
      const int64_t by = TRY(Number(words[1]));
      int64_t sum = 0;
      if (!changes.empty() && changes.back().id == EffectId::kIncrby &&
          !__builtin_add_overflow(changes.back().number, by, &sum)) {
        changes.back().number = sum;
      } else {
        changes.push_back({id, "", by});
      }
      break;
    }
    case EffectId::kSetrange: {
      const int64_t from = TRY(Number(words[1]));
      std::vector<Change>& changes = keys[std::string(words[0])].changes;
      // A gap of zeroes is not written out: the record alone does not say that there is room for
      // it.
      const bool overwrites = !changes.empty() && changes.back().id == EffectId::kSet &&
                              from >= 0 &&
                              static_cast<uint64_t>(from) <= changes.back().text.size();
      if (overwrites) {
        changes.back().text.replace(static_cast<size_t>(from), words[2].size(), words[2]);
      } else {
        changes.push_back({id, std::string(words[2]), from});
      }
      break;
    }
    case EffectId::kPexpireat:
      keys[std::string(words[0])].deadline_ms = TRY(Number(words[1]));
      break;
    case EffectId::kPersist:
      keys[std::string(words[0])].deadline_ms = kNoDeadline;
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
  return Status::Ok();
}

Status ShardImage::Give(size_t bytes, const Chunk& chunk) const {
  constexpr uint16_t kNoMatter = 0;  // the shard is not part of an effect's bytes
  std::string gathered;
  uint64_t keys_gathered = 0;
  Effects effects;
  for (const auto& [db, keys] : databases_) {
    for (const auto& [name, key] : keys) {
      if (key.changes.empty()) continue;  // its value is not known
      effects.Clear();
      for (const Change& change : key.changes) {
        const std::string number = std::to_string(change.number);
        if (change.id == EffectId::kSet) {
          effects.Set(kNoMatter, db, name, change.text, kNoDeadline);
        } else if (change.id == EffectId::kAppend) {
          effects.Add(kNoMatter, db, change.id, {name, change.text});
        } else if (change.id == EffectId::kIncrby) {
          effects.Add(kNoMatter, db, change.id, {name, number});
        } else {
          effects.Add(kNoMatter, db, change.id, {name, number, change.text});
        }
      }
      if (key.deadline_ms != kNoDeadline) effects.Expireat(kNoMatter, db, name, key.deadline_ms);
      gathered.append(effects.bytes());
      ++keys_gathered;
      if (gathered.size() < bytes) continue;
      TRY(chunk(gathered, std::exchange(keys_gathered, 0)));
      gathered.clear();
    }
  }
  return gathered.empty() ? Status::Ok() : chunk(gathered, keys_gathered);
}

}  // namespace crab::wal

// A shard's image makes the shard anew, whatever effects it has taken.
#include "src/wal_tool/shard_image.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "src/keyspace/effects.h"
#include "tests/support/seed.h"

namespace crab::test {
namespace {

// What effects do, said in another way: each key's value and deadline.
struct Model {
  std::map<uint32_t, std::map<std::string, std::pair<std::string, std::string>>> databases;

  void Run(std::string_view effects) {
    while (!effects.empty()) {
      EffectView effect;
      const Status read = ReadEffect(&effects, &effect);
      ASSERT_TRUE(read.ok()) << read.message();
      const auto& words = effect.arguments;
      auto& keys = databases[effect.db];
      const std::string key(words.empty() ? "" : words[0]);
      switch (static_cast<EffectId>(effect.id)) {
        case EffectId::kSet: {
          const bool keeps = words.size() > 2 && words[2] == "KEEPTTL";
          auto& [value, deadline] = keys[key];
          value = words[1];
          if (!keeps) deadline = words.size() > 3 ? words[3] : "";
          break;
        }
        case EffectId::kAppend:
          keys[key].first += words[1];
          break;
        case EffectId::kIncrby: {
          std::string& value = keys[key].first;
          value = std::to_string((value.empty() ? 0 : std::stoll(value)) +
                                 std::stoll(std::string(words[1])));
          break;
        }
        case EffectId::kSetrange: {
          std::string& value = keys[key].first;
          const size_t from = std::stoull(std::string(words[1]));
          if (value.size() < from + words[2].size()) value.resize(from + words[2].size());
          value.replace(from, words[2].size(), words[2]);
          break;
        }
        case EffectId::kPexpireat:
          if (keys.contains(key)) keys[key].second = words[1];
          break;
        case EffectId::kPersist:
          if (keys.contains(key)) keys[key].second = "";
          break;
        case EffectId::kDel:
          keys.erase(key);
          break;
        case EffectId::kMove: {
          const uint32_t other = static_cast<uint32_t>(std::stoul(std::string(words[1])));
          if (auto moved = keys.extract(key); !moved.empty()) {
            databases[other].insert(std::move(moved));
          }
          break;
        }
        case EffectId::kFlushdb:
          keys.clear();
          break;
        case EffectId::kFlushall:
          databases.clear();
          break;
        case EffectId::kSwapdb:
          std::swap(databases[static_cast<uint32_t>(std::stoul(key))],
                    databases[static_cast<uint32_t>(std::stoul(std::string(words[1])))]);
          break;
        default:
          FAIL() << effect.id;
      }
    }
  }
  void Tidy() {
    std::erase_if(databases, [](const auto& each) { return each.second.empty(); });
  }
};

TEST(ShardImageTest, MakesTheShardAnew) {
  constexpr uint32_t kDatabases[] = {0, 3, 200};  // one of two varint bytes
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    Model life;
    wal::ShardImage image;
    const uint64_t count = Mix(seed, 0) % 400;
    for (uint64_t i = 1; i <= count; ++i) {
      const uint64_t chance = Mix(TestSeed() + seed, i);
      const uint32_t db = kDatabases[chance % 3];
      const uint32_t other = kDatabases[chance / 3 % 3];
      const std::string key = "key" + std::to_string(chance / 9 % 6);
      const std::string value = "value" + std::to_string(chance / 64 % 100);
      Effects effects;
      switch (chance / 4096 % 32) {
        case 0:
          effects.Broadcast(db, EffectId::kFlushdb, {});
          break;
        case 1:
          if (chance % 5 == 0) effects.Broadcast(db, EffectId::kFlushall, {});
          break;
        case 2:
        case 3:
          effects.Broadcast(db, EffectId::kSwapdb, {std::to_string(db), std::to_string(other)});
          break;
        case 4:
        case 5:
        case 6:
          // Only what was done is logged: the key was not there.
          if (other == db || !life.databases[db].contains(key)) break;
          if (life.databases[other].contains(key)) break;
          effects.Add(0, db, EffectId::kMove, {key, std::to_string(other)});
          break;
        case 7:
        case 8:
          effects.Del(0, db, key);
          break;
        case 9:
          if (life.databases[db].contains(key)) effects.Expireat(0, db, key, 5000 + 7 * db);
          break;
        case 10:
          if (life.databases[db].contains(key)) effects.Persist(0, db, key);
          break;
        case 11:
        case 12:
        case 13:
          effects.Add(0, db, EffectId::kAppend, {key, value});
          break;
        case 14:
          effects.Set(0, db, key, value, kKeepDeadline);
          break;
        case 15:
        case 16:
          effects.Set(0, db, key, value, 4000 + 3 * db);
          break;
        case 17:
        case 18:
        case 19:
        case 20:
        case 21:
          // Of a counter of its own: INCRBY on another value would not have been logged.
          effects.Add(0, db, EffectId::kIncrby, {"counter", std::to_string(chance % 1000)});
          break;
        case 22:
          effects.Add(0, db, EffectId::kSetrange, {key, std::to_string(chance % 9), "range"});
          break;
        case 23:
          effects.Set(0, db, "counter", "1", kNoDeadline);
          break;
        default:
          effects.Set(0, db, key, value, kNoDeadline);
      }
      life.Run(effects.bytes());
      ASSERT_TRUE(image.Take(effects.bytes()).ok());
    }
    Model again;
    uint64_t keys = 0;
    const Status given = image.Give(64, [&](std::string_view effects, uint64_t begun) {
      again.Run(effects);
      keys += begun;
      return Status::Ok();
    });
    ASSERT_TRUE(given.ok());
    life.Tidy();
    again.Tidy();
    ASSERT_EQ(again.databases, life.databases);
    uint64_t there = 0;
    for (const auto& [db, each] : life.databases) there += each.size();
    ASSERT_EQ(keys, there);
  }
}

// A counter's past does not pile up.
TEST(ShardImageTest, FoldsWhatCanBeOneChange) {
  wal::ShardImage image;
  Effects effects;
  for (int i = 0; i < 1000; ++i) {
    effects.Clear();
    effects.Add(0, 0, EffectId::kIncrby, {"counter", "7"});
    effects.Add(0, 0, EffectId::kAppend, {"text", "x"});
    effects.Set(0, 0, "kept", "value", kKeepDeadline);
    effects.Expireat(0, 0, "kept", 1000 + i);
    ASSERT_TRUE(image.Take(effects.bytes()).ok());
  }
  std::string given;
  const Status status = image.Give(1 << 20, [&](std::string_view chunk, uint64_t keys) {
    given = chunk;
    EXPECT_EQ(keys, 3u);
    return Status::Ok();
  });
  ASSERT_TRUE(status.ok());
  EXPECT_LT(given.size(), 1200u);
  Model model;
  model.Run(given);
  EXPECT_EQ(model.databases[0]["counter"].first, "7000");
  EXPECT_EQ(model.databases[0]["text"].first, std::string(1000, 'x'));
  EXPECT_EQ(model.databases[0]["kept"], std::make_pair(std::string("value"), std::string("1999")));
}

TEST(ShardImageTest, SaysWhatIsNoEffect) {
  wal::ShardImage image;
  EXPECT_FALSE(image.Take("no effect").ok());
}

}  // namespace
}  // namespace crab::test

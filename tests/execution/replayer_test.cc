#include "src/execution/replayer.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace crab {
namespace {

class ReplayerTest : public testing::Test {
 protected:
  ReplayerTest()
      : registry_({StringCommands(), KeyCommands(), ExpireCommands()}),
        keyspace_({.shard_count = 16, .databases = 4, .hash_seed = 1}),
        replayer_(keyspace_, registry_) {}

  // One effect on a key of whatever shard.
  static std::string Effect(EffectId id, std::initializer_list<std::string_view> arguments,
                            uint32_t db = 0) {
    Effects effects;
    effects.Add(0, db, id, arguments);
    return std::string(effects.bytes());
  }
  static std::string Set(std::string_view key, std::string_view value, int64_t deadline_ms,
                         uint32_t db = 0) {
    Effects effects;
    effects.Set(0, db, key, value, deadline_ms);
    return std::string(effects.bytes());
  }
  std::string Replay(const std::string& effects) {
    return std::string(replayer_.Replay(effects, {0, 16}).message());
  }
  // "value", "value@deadline", "(nil)".
  std::string Get(std::string_view key, uint32_t db = 0) const {
    std::string found = "(nil)";
    keyspace_.ForEach(db, [&](const Entry& entry) {
      if (entry.key() != key) return true;
      char scratch[24];
      found = entry.StringBytes(scratch);
      if (entry.has_deadline()) found += "@" + std::to_string(entry.deadline_ms());
      return false;
    });
    return found;
  }

  Registry registry_;
  Keyspace keyspace_;
  Replayer replayer_;
};

TEST_F(ReplayerTest, SetsStringsWithAndWithoutADeadline) {
  // 5 is long past: a replay knows no time.
  EXPECT_EQ(Replay(Set("a", "1", kNoDeadline) + Set("b", "x", 5) + Set("c", "y", 6, 3) +
                   Set("b", "z", kKeepDeadline)),
            "");
  EXPECT_EQ(Get("a"), "1");
  EXPECT_EQ(Get("b"), "z@5");
  EXPECT_EQ(Get("c", 3), "y@6");
  EXPECT_EQ(Replay(Set("b", "plain", kNoDeadline)), "");
  EXPECT_EQ(Get("b"), "plain");
  // 300000000000 and what else is no small value.
  const std::string large(100'000, 'v');
  EXPECT_EQ(Replay(Set("a", large, 7) + Set("b", "-12", 8)), "");
  EXPECT_EQ(Get("a"), large + "@7");
  EXPECT_EQ(Get("b"), "-12@8");
}

// What is asked for ahead may have moved, or be gone, when it is looked at again.
TEST_F(ReplayerTest, ExpectingChangesNothing) {
  Keyspace other({.shard_count = 16, .databases = 4, .hash_seed = 1});
  Replayer plain(other, registry_);
  std::mt19937_64 random(1);
  const auto next = [&] {
    const std::string key = "key:" + std::to_string(random() % 3000);
    const auto db = static_cast<uint32_t>(random() % 2);
    switch (random() % 400) {
      case 0:
        return Effect(EffectId::kFlushall, {});
      case 1:
        return Effect(EffectId::kSwapdb, {"0", "1"});
      case 2:
        return std::string("\0\x01\x02\x7f", 4);  // no effect at all
      default:
        break;
    }
    if (random() % 3 == 0) return Effect(EffectId::kDel, {key}, db);
    return Set(key, std::string(random() % 300, 'v'), kNoDeadline, db);
  };
  constexpr ShardRange kAll = {0, 16};
  std::vector<std::string> now, soon;
  for (int round = 0; round < 2000; ++round) {
    now = std::exchange(soon, {});
    for (size_t i = 0; i < random() % (Replayer::kExpectedMax + 1); ++i) soon.push_back(next());
    const std::vector<std::string_view> payloads(soon.begin(), soon.end());
    if (round % 50 == 0) replayer_.Expect(payloads, {4, 8});
    replayer_.Expect(payloads, kAll);
    for (const std::string& effect : now) {
      ASSERT_EQ(replayer_.Replay(effect, kAll).message(), plain.Replay(effect, kAll).message());
    }
  }
  for (uint32_t db = 0; db < 2; ++db) {
    ASSERT_EQ(keyspace_.Size(db), other.Size(db));
    std::map<std::string, std::string> contents[2];
    for (const Keyspace* each : {&keyspace_, &other}) {
      each->ForEach(db, [&](const Entry& entry) {
        char scratch[24];
        contents[each == &other][std::string(entry.key())] = entry.StringBytes(scratch);
        return true;
      });
    }
    ASSERT_EQ(contents[0], contents[1]);
  }
}

// The short way of the commonest effects and the handler's: what the writer never writes, words in
// lower case and GET, takes the handler's.
TEST_F(ReplayerTest, StoresASetAsTheHandlerDoes) {
  Keyspace other({.shard_count = 16, .databases = 4, .hash_seed = 1});
  Replayer by_handler(other, registry_);
  const std::string values[] = {"",
                                "1",
                                "-9223372036854775808",
                                "9223372036854775808",
                                "007",
                                "short",
                                std::string(44, 'e'),
                                std::string(45, 'r'),
                                std::string(127, 'a'),
                                std::string(128, 'b'),
                                std::string(256, 'i'),
                                std::string(257, 'l'),
                                std::string(100'000, 'x'),
                                std::string(Effects::kPartBytes, 'y')};
  const auto same = [&](std::string_view step) {
    std::map<std::string, std::string> contents[2];
    for (Keyspace* keyspace : {&keyspace_, &other}) {
      for (uint32_t db = 0; db < 4; ++db) {
        keyspace->ForEach(db, [&](const Entry& entry) {
          char scratch[24];
          contents[keyspace == &other][std::to_string(db) + std::string(entry.key())] =
              std::string(EncodingName(entry.encoding())) + std::to_string(entry.deadline_ms()) +
              " " + std::string(entry.StringBytes(scratch));
          return true;
        });
      }
    }
    ASSERT_EQ(contents[0], contents[1]) << step;
    ASSERT_EQ(contents[0].size(), 4 * std::size(values));
  };
  for (const bool with_deadline : {false, true, false}) {
    for (size_t shift = 0; shift < 3; ++shift) {
      for (uint32_t db = 0; db < 4; ++db) {
        for (size_t i = 0; i < std::size(values); ++i) {
          const std::string key = "key" + std::to_string(i);
          const std::string& value = values[(i + shift) % std::size(values)];
          const std::string time = std::to_string(1 + i * 1'000'000'007);
          ASSERT_EQ(Replay(Set(key, value, with_deadline ? std::stoll(time) : kNoDeadline, db)),
                    "");
          const std::string effect = with_deadline
                                         ? Effect(EffectId::kSet, {key, value, "pxat", time}, db)
                                         : Effect(EffectId::kSet, {key, value, "get"}, db);
          ASSERT_TRUE(by_handler.Replay(effect, {0, 16}).ok());
        }
      }
      same(with_deadline ? "with deadlines" : "without");
    }
  }
}

TEST_F(ReplayerTest, KnowsAllOtherEffects) {
  EXPECT_EQ(
      Replay(Set("k", "abc", kNoDeadline) + Effect(EffectId::kAppend, {"k", "def"}) +
             Effect(EffectId::kSetrange, {"k", "1", "XY"}) +
             Effect(EffectId::kPexpireat, {"k", "77"}) + Effect(EffectId::kIncrby, {"n", "42"}) +
             Set("gone", "v", 9) + Effect(EffectId::kPersist, {"gone"})),
      "");
  EXPECT_EQ(Get("k"), "aXYdef@77");
  EXPECT_EQ(Get("n"), "42");
  EXPECT_EQ(Get("gone"), "v");
  EXPECT_EQ(Replay(Effect(EffectId::kDel, {"gone"}) + Effect(EffectId::kMove, {"n", "2"})), "");
  EXPECT_EQ(Get("gone"), "(nil)");
  EXPECT_EQ(Get("n"), "(nil)");
  EXPECT_EQ(Get("n", 2), "42");
}

TEST_F(ReplayerTest, ABroadcastReachesTheShardsAtHand) {
  std::map<std::string, uint32_t> shards;
  std::string effects;
  for (int i = 0; i < 100; ++i) {
    const std::string key = "k" + std::to_string(i);
    shards[key] = keyspace_.ShardOf(key);
    effects += Set(key, "zero", kNoDeadline, 0) + Set(key, "one", kNoDeadline, 1);
  }
  ASSERT_EQ(Replay(effects), "");
  ASSERT_TRUE(replayer_.Replay(Effect(EffectId::kSwapdb, {"0", "1"}), {0, 4}).ok());
  ASSERT_TRUE(replayer_.Replay(Effect(EffectId::kFlushdb, {}, 1), {4, 8}).ok());
  ASSERT_TRUE(replayer_.Replay(Effect(EffectId::kFlushall, {}), {8, 12}).ok());
  for (const auto& [key, shard] : shards) {
    const std::string zero = shard < 4 ? "one" : shard >= 8 && shard < 12 ? "(nil)" : "zero";
    const std::string one = shard < 4 ? "zero" : shard < 12 ? "(nil)" : "one";
    EXPECT_EQ(Get(key, 0), zero) << key << " of shard " << shard;
    EXPECT_EQ(Get(key, 1), one) << key << " of shard " << shard;
  }
}

TEST_F(ReplayerTest, RefusesAKeyOfAShardThatIsNotHeld) {
  const uint32_t shard = keyspace_.ShardOf("k");
  const std::string effect = Set("k", "v", kNoDeadline);
  EXPECT_FALSE(replayer_.Replay(effect, {shard + 1, 16}).ok());
  EXPECT_FALSE(replayer_.Replay(effect, {0, shard}).ok());
  EXPECT_EQ(Get("k"), "(nil)");
  EXPECT_TRUE(replayer_.Replay(effect, {shard, shard + 1}).ok());
}

TEST_F(ReplayerTest, RefusesWhatItDoesNotKnow) {
  const std::string good = Set("k", "v", kNoDeadline);
  const std::vector<std::pair<std::string, std::string>> rows = {
      {std::string("\0\x64\0", 3), "unknown effect 100"},
      {Set("k", "v", kNoDeadline, 99), "database 99"},
      {Effect(EffectId::kPexpireat, {"k", "1", "2", "3", "4"}), "option"},
      {Effect(EffectId::kSetrange, {"k", "1", "v", "more"}), "with 4 arguments"},
      {Effect(EffectId::kSwapdb, {"0", "4"}), "SWAPDB"},
      {Effect(EffectId::kSwapdb, {"-1", "0"}), "SWAPDB"},
      {good.substr(0, good.size() - 1), "cut off"},
      {Effect(EffectId::kSet, {"k", "v", "PXAT", "0"}), "invalid expire time"},
      {Effect(EffectId::kSet, {"k", "v", "PXAT", "x"}), "not an integer"},
  };
  for (const auto& [effects, error] : rows) {
    EXPECT_NE(Replay(effects).find(error), std::string::npos) << error << ": " << Replay(effects);
  }
  EXPECT_EQ(Get("k"), "(nil)");
  EXPECT_TRUE(replayer_.Check(good).ok());
  for (size_t i : {size_t{0}, size_t{1}, size_t{3}, size_t{6}}) {
    EXPECT_FALSE(replayer_.Check(good + rows[i].first).ok()) << rows[i].second;
  }
  EXPECT_EQ(Get("k"), "(nil)") << "a check changes nothing";
}

}  // namespace
}  // namespace crab

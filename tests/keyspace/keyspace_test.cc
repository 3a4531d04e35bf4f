// The keyspace against a plain map: what a view finds, changes, expires and removes, in several
// databases and in tables that grow and shrink.

#include "src/keyspace/keyspace.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "tests/support/seed.h"

namespace crab {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;

std::string Text(const Entry& entry) {
  char scratch[24];
  return std::string(entry.StringBytes(scratch));
}

struct World {
  explicit World(const KeyspaceOptions& options = {.shard_count = 4, .hash_seed = 7})
      : keyspace(options) {
    view.Begin(0, kNowMs, false);
  }
  void At(int64_t now_ms) { view.Begin(view.db(), now_ms, false); }
  std::string_view EncodingOf(std::string_view key) {
    return EncodingName(view.Peek(key)->encoding());
  }

  Keyspace keyspace;
  Effects effects;
  KeyspaceStats stats;
  KeyspaceView view{keyspace, effects, stats};
};

TEST(KeyspaceTest, NamesEncodingsAsRedisDoes) {
  const std::string digits20 = "-9223372036854775808";
  const struct {
    std::string value;
    std::string_view encoding;
  } kRows[] = {
      {"", "embstr"},
      {"0", "int"},
      {"-1", "int"},
      {"-0", "embstr"},
      {"01", "embstr"},
      {"+1", "embstr"},
      {" 1", "embstr"},
      {"1 ", "embstr"},
      {"-", "embstr"},
      {"9223372036854775807", "int"},
      {digits20, "int"},
      {"9223372036854775808", "embstr"},
      {"-9223372036854775809", "embstr"},
      {"18446744073709551615", "embstr"},
      {std::string(44, 'x'), "embstr"},
      {std::string(45, 'x'), "raw"},
      {std::string(255, 'x'), "raw"},
      {std::string(256, 'x'), "raw"},
      {std::string(70000, 'x'), "raw"},
  };
  World world;
  for (const auto& row : kRows) {
    SCOPED_TRACE(row.value.substr(0, 50));
    world.view.SetString("key", row.value, kNoDeadline);
    EXPECT_EQ(world.EncodingOf("key"), row.encoding);
    EXPECT_EQ(Text(*world.view.Peek("key")), row.value);
    EXPECT_EQ(world.view.Peek("key")->StringSize(), row.value.size());
  }
  world.view.SetString("key", "3", kNoDeadline, /*as_integer=*/false);
  EXPECT_EQ(world.EncodingOf("key"), "embstr");
  world.view.SetString("key", "3", kNoDeadline);
  world.view.AppendString(world.view.FindForWrite("key"), "4");
  EXPECT_EQ(world.EncodingOf("key"), "raw");
  world.view.SetInteger(world.view.FindForWrite("key"), 35);
  EXPECT_EQ(world.EncodingOf("key"), "int");
  world.view.OverwriteString(world.view.FindForWrite("key"), 3, "x");
  EXPECT_EQ(world.EncodingOf("key"), "raw");
  EXPECT_EQ(Text(*world.view.Peek("key")), std::string_view("35\0x", 4));
}

TEST(KeyspaceTest, KeepsAnOverwrittenValueInItsPlace) {
  World world;
  Entry* entry = world.view.SetString("key", std::string(32, 'a'), kNoDeadline);
  EXPECT_EQ(world.view.SetString("key", std::string(30, 'b'), kNoDeadline), entry);
  EXPECT_EQ(Text(*entry), std::string(30, 'b'));
  entry = world.view.SetString("key", std::string(1000, 'a'), kNowMs + 5);
  EXPECT_EQ(world.view.SetString("key", std::string(999, 'b'), kNowMs + 9), entry);
  EXPECT_EQ(Text(*entry), std::string(999, 'b'));
  EXPECT_EQ(entry->deadline_ms(), kNowMs + 9);
}

TEST(KeyspaceTest, TakesAtMost64BytesForASmallEntry) {
  World world;
  const std::string key(16, 'k');
  const std::string value(32, 'v');
  EXPECT_EQ(world.view.SetString(key, value, kNoDeadline)->MemoryBytes(), 64u);
  EXPECT_EQ(world.view.SetString(key, value, kNowMs + 1)->MemoryBytes(), 64u);
}

TEST(KeyspaceTest, ReadsAPassedDeadlineAsAbsentAndLogsTheDeletion) {
  World world;
  world.view.SetString("key", "value", kNowMs + 10);
  world.At(kNowMs + 10);
  EXPECT_NE(world.view.Find("key"), nullptr);
  world.At(0);
  EXPECT_NE(world.view.Find("key"), nullptr) << "in replay nothing is in the past";
  world.At(kNowMs + 11);
  EXPECT_TRUE(world.effects.empty());
  EXPECT_EQ(world.view.Find("key"), nullptr);
  EXPECT_EQ(world.effects.count(), 1u);
  EXPECT_EQ(world.stats.expired, 1u);
  EXPECT_EQ(world.stats.hits, 2u);
  EXPECT_EQ(world.stats.misses, 1u);
  EXPECT_EQ(world.keyspace.Size(0), 0u);
  EXPECT_EQ(world.keyspace.MemoryBytes(), 0u);
}

TEST(KeyspaceTest, KeepsADeadlineOnlyWhenAskedAndNeverAPassedOne) {
  World world;
  world.view.SetString("key", "1", kNowMs + 10);
  world.view.SetString("key", std::string(300, 'x'), kKeepDeadline);
  EXPECT_EQ(world.view.Peek("key")->deadline_ms(), kNowMs + 10);
  world.view.SetString("key", "2", kNoDeadline);
  EXPECT_EQ(world.view.Peek("key")->deadline_ms(), kNoDeadline);
  world.view.SetString("key", "3", kNowMs + 10);
  world.At(kNowMs + 20);
  world.view.SetString("key", "4", kKeepDeadline);
  EXPECT_EQ(world.view.Peek("key")->deadline_ms(), kNoDeadline);
  EXPECT_EQ(world.keyspace.SizeWithDeadline(0), 0u);
}

TEST(KeyspaceTest, RoutesByTheTagInBracesWhenAsked) {
  KeyspaceOptions options{.shard_count = 64, .hash_seed = 1, .shard_by_hashtag = true};
  Keyspace keyspace(options);
  EXPECT_EQ(keyspace.ShardOf("{user1}.a"), keyspace.ShardOf("b{user1}{x}"));
  EXPECT_EQ(keyspace.ShardOf("{user1}.a"), keyspace.ShardOf("user1"));
  EXPECT_EQ(keyspace.ShardOf("a{}b"), keyspace.ShardOfHash(keyspace.Hash("a{}b")));
  EXPECT_EQ(keyspace.ShardOf("a{b"), keyspace.ShardOfHash(keyspace.Hash("a{b")));
}

TEST(KeyspaceTest, WorksWithAnyNumberOfShards) {
  for (uint32_t shards : {1u, 2u, 1024u}) {
    World world({.shard_count = shards});
    for (int i = 0; i < 2000; ++i) {
      world.view.SetString("key" + std::to_string(i), "value", kNoDeadline);
    }
    for (int i = 0; i < 2000; ++i) {
      ASSERT_NE(world.view.Find("key" + std::to_string(i)), nullptr);
    }
    EXPECT_EQ(world.keyspace.Size(0), 2000u);
  }
}

TEST(KeyspaceTest, FreesDetachedTablesLaterButCountsThemNoMore) {
  World world;
  for (int i = 0; i < 5000; ++i) {
    world.view.SetString("key" + std::to_string(i), std::string(i % 700, 'x'),
                         i % 2 ? kNoDeadline : kNowMs + 1000 + i);
  }
  world.view.CopyTo(*world.view.Peek("key7"), 3, "copy");
  DetachedTables detached = world.keyspace.DetachAll();
  EXPECT_EQ(detached.keys(), 5001u);
  EXPECT_EQ(world.keyspace.MemoryBytes(), 0u);
  EXPECT_EQ(world.keyspace.Size(0) + world.keyspace.Size(3), 0u);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(world.keyspace.shard(i).next_deadline_ms(), INT64_MAX);
  }
  world.At(kNowMs);
  world.view.SetString("key", "new", kNoDeadline);
  EXPECT_EQ(world.keyspace.Size(0), 1u);
}

TEST(KeyspaceTest, DrawsEveryKeyAboutAsOften) {
  World world({.shard_count = 8});
  std::map<std::string, int> drawn;
  for (int i = 0; i < 200; ++i) {
    drawn[std::to_string(i) + "k"] = 0;
    world.view.SetString(std::to_string(i) + "k", "value", kNoDeadline);
  }
  constexpr int kDraws = 40000;  // 200 of each key on average
  for (int i = 0; i < kDraws; ++i) {
    ++drawn[std::string(world.keyspace.RandomEntry(0)->key())];
  }
  EXPECT_EQ(drawn.size(), 200u);
  for (const auto& [key, times] : drawn) {
    EXPECT_GT(times, 100) << key;
    EXPECT_LT(times, 320) << key;
  }
  EXPECT_EQ(world.keyspace.RandomEntry(1), nullptr);
}

TEST(KeyspaceTest, AveragesTheTimeToLive) {
  World world;
  EXPECT_EQ(world.keyspace.AverageTtlMs(0, kNowMs), 0);
  for (int i = 0; i < 100; ++i) {
    world.view.SetString("key" + std::to_string(i), "value", kNowMs + 5000);
  }
  EXPECT_EQ(world.keyspace.AverageTtlMs(0, kNowMs), 5000);
}

// The model: database and key to value and deadline.
using Model = std::map<std::pair<uint32_t, std::string>, std::pair<std::string, int64_t>>;

class ModelRun {
 public:
  ModelRun(uint64_t seed, uint32_t shards)
      : seed_(seed), world_({.shard_count = shards, .databases = 4, .hash_seed = seed}) {}

  void Steps(int steps, int keys) {
    for (int step = 0; step < steps; ++step) {
      SCOPED_TRACE(testing::Message() << "seed " << seed_ << " step " << step);
      Step(keys);
      if (testing::Test::HasFatalFailure()) return;
      if (step % 1000 == 999) CheckAll();
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  void RemoveAll() {
    world_.view.Begin(0, now_ms_, false);
    for (const auto& [where, value] : model_) {
      world_.view.SelectDb(where.first);
      world_.view.Remove(where.second);
    }
    model_.clear();
    CheckAll();
    EXPECT_EQ(world_.keyspace.MemoryBytes(), 0u);
  }

 private:
  uint64_t Below(uint64_t bound) { return test::Mix(seed_, ++drawn_) % bound; }

  std::string Value() {
    static constexpr size_t kSizes[] = {0,   1,   7,   8,   15,  16,  20,  32,  43,   44,   45,
                                        100, 127, 128, 200, 254, 255, 256, 257, 1000, 4096, 5000};
    if (Below(3) == 0) return std::to_string(static_cast<int64_t>(test::Mix(seed_, ++drawn_)));
    return std::string(kSizes[Below(std::size(kSizes))], static_cast<char>('a' + Below(26)));
  }
  int64_t Deadline() {
    const uint64_t kind = Below(4);
    return kind < 2 ? kNoDeadline : now_ms_ + static_cast<int64_t>(Below(kind == 2 ? 300 : 100000));
  }
  std::string Key(int keys) {
    const uint64_t number = Below(static_cast<uint64_t>(keys));
    std::string key = "key:" + std::to_string(number);
    if (number % 50 == 0) key.append(300, 'k');
    return key;
  }
  // Drops what has expired, as a look at the key would.
  Model::iterator Alive(uint32_t db, const std::string& key) {
    auto it = model_.find({db, key});
    if (it != model_.end() && it->second.second >= 0 && it->second.second < now_ms_) {
      model_.erase(it);
      return model_.end();
    }
    return it;
  }

  void Step(int keys) {
    const auto db = static_cast<uint32_t>(Below(3));
    const std::string key = Key(keys);
    KeyspaceView& view = world_.view;
    now_ms_ += static_cast<int64_t>(Below(5));
    view.Begin(db, now_ms_, false);
    if (Below(2)) view.HashOf(key);
    auto it = Alive(db, key);
    switch (Below(12)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const std::string value = Value();
        const int64_t deadline_ms = Below(4) == 0 ? kKeepDeadline : Deadline();
        Entry* entry = view.SetString(key, value, deadline_ms);
        ASSERT_EQ(Text(*entry), value);
        auto& slot = model_[{db, key}];
        const int64_t old_ms = it == model_.end() ? kNoDeadline : slot.second;
        slot = {value, deadline_ms == kKeepDeadline ? old_ms : deadline_ms};
        break;
      }
      case 4: {
        ASSERT_EQ(view.Remove(key), it != model_.end());
        if (it != model_.end()) model_.erase(it);
        break;
      }
      case 5: {
        Entry* entry = view.FindForWrite(key);
        ASSERT_EQ(entry != nullptr, it != model_.end());
        if (entry == nullptr) break;
        const std::string value = Value();
        ASSERT_EQ(Text(*view.AppendString(entry, value)), it->second.first + value);
        it->second.first += value;
        break;
      }
      case 6: {
        Entry* entry = view.FindForWrite(key);
        if (entry == nullptr) break;
        const std::string value = Value() + "!";
        const size_t offset = Below(600);
        std::string& expected = it->second.first;
        if (expected.size() < offset + value.size()) expected.resize(offset + value.size());
        expected.replace(offset, value.size(), value);
        ASSERT_EQ(Text(*view.OverwriteString(entry, offset, value)), expected);
        break;
      }
      case 7: {
        Entry* entry = view.FindForWrite(key);
        if (entry == nullptr) break;
        const int64_t deadline_ms = Deadline();
        ASSERT_EQ(view.SetDeadline(entry, deadline_ms)->deadline_ms(), deadline_ms);
        it->second.second = deadline_ms;
        break;
      }
      case 8: {
        Entry* entry = view.FindForWrite(key);
        if (entry == nullptr) break;
        const auto integer = static_cast<int64_t>(test::Mix(seed_, ++drawn_));
        view.SetInteger(entry, integer);
        it->second.first = std::to_string(integer);
        break;
      }
      case 9: {
        // MOVE or RENAME: a copy, then the source goes.
        const auto to_db = static_cast<uint32_t>(Below(3));
        const std::string to = Key(keys);
        const Entry* source = view.Find(key);
        if (source == nullptr || (to_db == db && to == key)) break;
        view.CopyTo(*source, to_db, to);
        ASSERT_EQ(view.db(), db);
        model_[{to_db, to}] = it->second;
        if (Below(2)) {
          view.Remove(const_cast<Entry*>(source));
          model_.erase({db, key});
        }
        break;
      }
      case 10: {
        const Entry* entry = view.Find(key);
        ASSERT_EQ(entry != nullptr, it != model_.end());
        if (entry == nullptr) break;
        ASSERT_EQ(Text(*entry), it->second.first);
        ASSERT_EQ(entry->deadline_ms(), it->second.second);
        break;
      }
      case 11: {
        if (Below(200) == 0) {
          world_.keyspace.Swap(0, 2);
          Model swapped;
          for (auto& [where, value] : model_) {
            const uint32_t at = where.first == 1 ? 1 : 2 - where.first;
            swapped[{at, where.second}] = std::move(value);
          }
          model_ = std::move(swapped);
        } else {
          view.ExpireSome(static_cast<uint32_t>(Below(world_.keyspace.shard_count())), 5);
        }
        break;
      }
    }
  }

  // Lets everything expire that has to, then compares all.
  void CheckAll() {
    KeyspaceView& view = world_.view;
    // Records wait for the end of their step of 16 ms.
    now_ms_ += 16;
    view.Begin(0, now_ms_, false);
    std::erase_if(model_, [&](const auto& item) {
      return item.second.second >= 0 && item.second.second < now_ms_ - 16;
    });
    for (uint32_t shard = 0; shard < world_.keyspace.shard_count(); ++shard) {
      while (view.ExpireSome(shard, 100) > 0) {
      }
    }
    world_.effects.Clear();
    for (uint32_t db = 0; db < 4; ++db) {
      uint64_t count = 0;
      uint64_t with_deadline = 0;
      world_.keyspace.ForEach(db, [&](const Entry& entry) {
        auto it = model_.find({db, std::string(entry.key())});
        EXPECT_NE(it, model_.end());
        if (it == model_.end()) return false;
        EXPECT_EQ(Text(entry), it->second.first);
        EXPECT_EQ(entry.deadline_ms(), it->second.second);
        ++count;
        with_deadline += entry.has_deadline();
        return true;
      });
      ASSERT_EQ(world_.keyspace.Size(db), count);
      ASSERT_EQ(world_.keyspace.SizeWithDeadline(db), with_deadline);
      // What is in the last step may be gone or not.
      std::erase_if(model_, [&](const auto& item) {
        if (item.first.first != db || item.second.second < 0) return false;
        view.SelectDb(db);
        return item.second.second < now_ms_ && view.Peek(item.first.second) == nullptr;
      });
    }
    uint64_t size = 0;
    uint64_t bytes = 0;
    for (uint32_t db = 0; db < 4; ++db) {
      size += world_.keyspace.Size(db);
      world_.keyspace.ForEach(db, [&](const Entry& entry) {
        bytes += entry.MemoryBytes();
        return true;
      });
    }
    ASSERT_EQ(size, model_.size());
    ASSERT_GE(world_.keyspace.MemoryBytes(), bytes);
  }

  uint64_t seed_;
  uint64_t drawn_ = 0;
  int64_t now_ms_ = kNowMs;
  World world_;
  Model model_;
};

TEST(KeyspaceTest, DoesWhatAMapWouldDo) {
  for (uint64_t run = 0; run < 6; ++run) {
    ModelRun model(test::Mix(test::TestSeed(), run), run % 2 ? 1 : 8);
    model.Steps(8000, run < 3 ? 200 : 4000);
    if (HasFatalFailure()) return;
    model.RemoveAll();
    if (HasFatalFailure()) return;
  }
}

TEST(KeyspaceTest, ShowsEveryLastingKeyInAScanWhileTheTableGrowsAndShrinks) {
  for (uint64_t run = 0; run < 30; ++run) {
    const uint64_t seed = test::Mix(test::TestSeed(), run);
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world({.shard_count = run % 3 == 0 ? 1u : 4u, .hash_seed = seed});
    uint64_t drawn = 0;
    const auto below = [&](uint64_t bound) { return test::Mix(seed, ++drawn) % bound; };
    const int lasting = static_cast<int>(below(500));
    for (int i = 0; i < lasting; ++i) {
      world.view.SetString("lasting" + std::to_string(i), "v", kNoDeadline);
    }
    const bool grows = below(2);
    int passing = grows ? 0 : 3000;
    for (int i = 0; i < passing; ++i) {
      world.view.SetString("passing" + std::to_string(i), "v", kNoDeadline);
    }
    std::map<std::string, int> seen;
    uint64_t cursor = 0;
    int steps = 0;
    do {
      cursor = world.keyspace.Scan(0, cursor,
                                   [&](const Entry& entry) { ++seen[std::string(entry.key())]; });
      const auto changes = below(40);
      for (uint64_t i = 0; i < changes; ++i) {
        // Mostly one way, sometimes back.
        if (grows == (below(10) > 1)) {
          world.view.SetString("passing" + std::to_string(passing++), "v", kNoDeadline);
        } else if (passing > 0) {
          world.view.Remove("passing" + std::to_string(--passing));
        }
      }
      ASSERT_LT(++steps, 100000);
      if (grows && passing > 20000) break;
    } while (cursor != 0);
    if (cursor != 0) continue;
    for (int i = 0; i < lasting; ++i) ASSERT_EQ(seen.count("lasting" + std::to_string(i)), 1u) << i;
  }
}

TEST(KeyspaceTest, ShowsEachKeyOnceInAScanOfAnUnchangedTable) {
  World world({.shard_count = 16});
  for (int i = 0; i < 3000; ++i) {
    world.view.SetString("key" + std::to_string(i), "v", kNoDeadline);
  }
  std::map<std::string, int> seen;
  uint64_t cursor = 0;
  do {
    cursor = world.keyspace.Scan(0, cursor,
                                 [&](const Entry& entry) { ++seen[std::string(entry.key())]; });
  } while (cursor != 0);
  EXPECT_EQ(seen.size(), 3000u);
  for (const auto& [key, times] : seen) EXPECT_EQ(times, 1) << key;
  // Any number is a cursor.
  for (uint64_t number = 0; number < 1000; ++number) {
    world.keyspace.Scan(0, test::Mix(test::TestSeed(), number), [](const Entry&) {});
  }
}

}  // namespace
}  // namespace crab

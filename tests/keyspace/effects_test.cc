#include "src/keyspace/effects.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/seed.h"

namespace crab {
namespace {

struct Expected {
  uint32_t db;
  EffectId id;
  std::vector<std::string> arguments;

  bool operator==(const Expected& other) const {
    return db == other.db && id == other.id && arguments == other.arguments;
  }
};

// All effects of `bytes`; a failure when one cannot be read.
std::vector<Expected> ReadAll(std::string_view bytes) {
  std::vector<Expected> all;
  EffectView effect;
  while (!bytes.empty()) {
    const Status status = ReadEffect(&bytes, &effect);
    EXPECT_TRUE(status.ok()) << status.message();
    if (!status.ok()) break;
    all.push_back({effect.db,
                   static_cast<EffectId>(effect.id),
                   {effect.arguments.begin(), effect.arguments.end()}});
  }
  return all;
}

std::string Golden(std::initializer_list<int> bytes) {
  return std::string(bytes.begin(), bytes.end());
}

TEST(EffectsTest, WritesTheSpecifiedBytes) {
  Effects effects;
  EXPECT_TRUE(effects.empty());
  effects.Set(5, 3, "k", "val", kNoDeadline);
  const std::string set = Golden({3, 1, 2, 1, 'k', 3, 'v', 'a', 'l'});
  EXPECT_EQ(effects.bytes(), set);
  EXPECT_EQ(effects.count(), 1u);
  EXPECT_EQ(effects.shard(), 5);

  effects.Del(0x0203, 200, "k");
  const std::string del = Golden({0xc8, 1, 2, 1, 1, 'k'});
  EXPECT_EQ(effects.bytes(), set + del);
  EXPECT_EQ(effects.Transaction(), Golden({2, 5, 0, 9, 3, 2, 6}) + set + del);

  effects.Clear();
  EXPECT_TRUE(effects.empty());
  effects.Broadcast(0, EffectId::kFlushall, {});
  EXPECT_EQ(effects.bytes(), Golden({0, 10, 0}));
  EXPECT_EQ(effects.shard(), Effects::kBroadcast);
}

TEST(EffectsTest, SaysWhatEachCallMeans) {
  Effects effects;
  effects.Set(0, 0, "a", "", kNoDeadline);
  effects.Set(0, 1, "b", "v", 1700000000000);
  effects.Set(0, UINT32_MAX, "c", "v", kKeepDeadline);
  effects.Expireat(0, 0, "d", 5);
  effects.Persist(0, 0, "e");
  effects.Del(0, 0, std::string(300, 'f'));
  effects.Add(0, 0, EffectId::kSetrange, {"g", "10", "xyz"});
  const std::vector<Expected> expected = {
      {0, EffectId::kSet, {"a", ""}},
      {1, EffectId::kSet, {"b", "v", "PXAT", "1700000000000"}},
      {UINT32_MAX, EffectId::kSet, {"c", "v", "KEEPTTL"}},
      {0, EffectId::kPexpireat, {"d", "5"}},
      {0, EffectId::kPersist, {"e"}},
      {0, EffectId::kDel, {std::string(300, 'f')}},
      {0, EffectId::kSetrange, {"g", "10", "xyz"}},
  };
  EXPECT_TRUE(ReadAll(effects.bytes()) == expected);
  Result<std::string_view> inside = TransactionEffects(effects.Transaction());
  ASSERT_TRUE(inside.ok()) << inside.message();
  EXPECT_EQ(*inside, effects.bytes());
}

// A key that is longer than a part would be written once for each.
TEST(EffectsTest, TakesNoMoreThanItSaysHoweverLongTheKeyIs) {
  const size_t part = Effects::kPartBytes;
  for (const size_t key_bytes : {size_t{0}, part - 1, part, 2 * part + 1}) {
    for (const size_t value_bytes : {size_t{0}, part, part + 1, 5 * part + 3}) {
      SCOPED_TRACE(testing::Message() << key_bytes << " and " << value_bytes << " bytes");
      const std::string key(key_bytes, 'k');
      Effects effects;
      effects.Set(3, 0, key, std::string(value_bytes, 'v'), INT64_MAX);
      EXPECT_LE(effects.Transaction().size(), Effects::SetBytesMax(key, value_bytes));
      EXPECT_LE(effects.bytes().size(), 2 * value_bytes + 2 * key_bytes + 1000);
    }
  }
}

TEST(EffectsTest, CutsALongValueIntoParts) {
  const size_t part = Effects::kPartBytes;
  for (const size_t size : {part - 1, part, part + 1, 2 * part, 2 * part + 1}) {
    for (const int64_t deadline_ms : {kNoDeadline, kKeepDeadline, int64_t{77}}) {
      SCOPED_TRACE(testing::Message() << size << " bytes, deadline " << deadline_ms);
      std::string value(size, 'x');
      for (size_t i = 0; i < size; i += 1000) value[i] = static_cast<char>(i / 1000);
      Effects effects;
      effects.Set(3, 0, "k", value, deadline_ms);
      const std::vector<Expected> all = ReadAll(effects.bytes());
      ASSERT_EQ(all.size(), (size + part - 1) / part);
      ASSERT_EQ(effects.count(), all.size());
      std::string joined;
      for (size_t i = 0; i < all.size(); ++i) {
        EXPECT_TRUE(all[i].id == (i == 0 ? EffectId::kSet : EffectId::kAppend));
        EXPECT_EQ(all[i].arguments[0], "k");
        EXPECT_LE(all[i].arguments[1].size(), part);
        joined += all[i].arguments[1];
      }
      EXPECT_TRUE(joined == value);
      EXPECT_EQ(all[0].arguments.size(), deadline_ms == kNoDeadline     ? 2u
                                         : deadline_ms == kKeepDeadline ? 3u
                                                                        : 4u);
    }
  }
  Effects effects;
  effects.Add(3, 0, EffectId::kAppend, {"k", std::string(2 * part + 5, 'y')});
  EXPECT_EQ(effects.count(), 3u);
  effects.Clear();
  effects.Add(3, 0, EffectId::kAppend, {"k", ""});
  EXPECT_EQ(effects.count(), 1u);
}

TEST(EffectsTest, NamesEveryEffect) {
  for (int id = 1; id <= kEffectIdMax; ++id) EXPECT_NE(EffectName(id), "") << id;
  EXPECT_EQ(EffectName(0), "");
  EXPECT_EQ(EffectName(-1), "");
  EXPECT_EQ(EffectName(kEffectIdMax + 1), "");
  EXPECT_EQ(EffectName(static_cast<int>(EffectId::kSet)), "SET");
  EXPECT_EQ(EffectName(static_cast<int>(EffectId::kSwapdb)), "SWAPDB");
}

// FORMAT.md lists the ids, and they are frozen: a log that was written once is read for ever.
TEST(EffectsTest, AreThoseOfTheFormatsDocument) {
  const std::filesystem::path root =
      std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
  std::ifstream file(root / "persistence/FORMAT.md");
  ASSERT_TRUE(file.is_open());
  std::vector<std::string> listed;
  bool in_section = false;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("## ")) in_section = line == "## Effects";
    std::istringstream cells(line);
    std::string bar, id, name;
    if (!in_section || !(cells >> bar >> id >> bar >> name) ||
        id.find_first_not_of("0123456789") != id.npos) {
      continue;
    }
    EXPECT_EQ(id, std::to_string(listed.size() + 1));
    listed.push_back(name);
  }
  std::vector<std::string> known;
  for (int id = 1; id <= kEffectIdMax; ++id) known.emplace_back(EffectName(id));
  EXPECT_EQ(listed, known);
}

TEST(EffectsTest, NamesWhatIsWrongWithBytes) {
  const struct {
    std::string bytes;
    std::string_view error;
  } rows[] = {
      {"", "effect is cut off in its head"},
      {Golden({0}), "effect is cut off in its head"},
      {Golden({0, 1}), "effect is cut off in its head"},
      {Golden({0x80, 0x80}), "effect is cut off in its head"},
      {std::string(11, '\xff'), "effect is cut off in its head"},
      {Golden({0xff, 0xff, 0xff, 0xff, 0x10, 2, 1, 1, 'k'}),
       "database of the effect is out of range"},
      {Golden({0, 0, 1, 1, 'k'}), "unknown effect 0"},
      {Golden({0, kEffectIdMax + 1, 1, 1, 'k'}), "unknown effect 12"},
      {Golden({0, 1, 1, 1, 'k'}), "effect SET has too few arguments"},
      {Golden({0, 1, 0xff, 0xff, 0xff, 0x7f, 1, 'k'}), "effect has more arguments than bytes"},
      {Golden({0, 2, 1, 2, 'k'}), "effect is cut off in its arguments"},
      {Golden({0, 2, 1, 0x80}), "effect is cut off in its arguments"},
  };
  for (const auto& row : rows) {
    std::string_view bytes = row.bytes;
    EffectView effect;
    EXPECT_EQ(ReadEffect(&bytes, &effect).message(), row.error);
  }
  const struct {
    std::string payload;
    std::string_view error;
  } transactions[] = {
      {"", "transaction is cut off in its directory"},
      {Golden({1}), "transaction is cut off in its directory"},
      {Golden({1, 0}), "transaction is cut off in its directory"},
      {Golden({1, 0, 0}), "transaction is cut off in its directory"},
      {Golden({0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0, 0}), "transaction is cut off in its directory"},
      {Golden({1, 0, 0, 1}), "sizes of the transaction differ from its bytes"},
      {Golden({1, 0, 0, 1, 'a', 'b'}), "sizes of the transaction differ from its bytes"},
      {Golden({2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 1}),
       "sizes of the transaction overflow"},
  };
  for (const auto& row : transactions) {
    Result<std::string_view> inside = TransactionEffects(row.payload);
    EXPECT_FALSE(inside.ok());
    EXPECT_EQ(inside.message(), row.error);
  }
  Result<std::string_view> none = TransactionEffects(Golden({0}));
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

// Property: whatever bytes a disk gives, reading ends and stays inside of them.
TEST(EffectsTest, ReadsDamagedBytesWithoutLeavingThem) {
  Effects effects;
  effects.Set(1, 0, "key", "value", 1700000000000);
  effects.Del(2, 300, "key");
  effects.Add(3, 0, EffectId::kSetrange, {"g", "10", std::string(200, 'z')});
  const std::string good(effects.Transaction());
  const uint64_t seed = test::TestSeed();
  for (uint64_t i = 0; i < 20000; ++i) {
    const uint64_t chance = test::Mix(seed, i);
    // In memory of its own, so that a sanitizer sees a byte read behind the end.
    std::vector<char> bytes(good.begin(), good.end());
    bytes.resize(i < good.size() ? i : bytes.size() - chance % 3);
    for (uint64_t flips = chance >> 8 & 3; flips > 0 && !bytes.empty(); --flips) {
      const uint64_t where = test::Mix(chance, flips);
      bytes[where % bytes.size()] ^= static_cast<char>(1 << (where >> 32) % 8);
    }
    std::string_view rest(bytes.data(), bytes.size());
    Result<std::string_view> inside = TransactionEffects(rest);
    if (inside.ok()) rest = *inside;
    EffectView effect;
    while (!rest.empty()) {
      const size_t before = rest.size();
      if (!ReadEffect(&rest, &effect).ok()) break;
      ASSERT_LT(rest.size(), before);
      for (const std::string_view argument : effect.arguments) {
        ASSERT_GE(argument.data(), bytes.data());
        ASSERT_LE(argument.data() + argument.size(), bytes.data() + bytes.size());
      }
    }
  }
}

}  // namespace
}  // namespace crab

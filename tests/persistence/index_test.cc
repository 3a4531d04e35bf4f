#include "persistence/index.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "persistence/record.h"
#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

using test::Mix;
using test::TestSeed;

constexpr auto kEffectType = static_cast<uint8_t>(FrameType::kEffect);
constexpr auto kTxnType = static_cast<uint8_t>(FrameType::kTxn);
constexpr auto kBroadcastType = static_cast<uint8_t>(FrameType::kBroadcast);

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// A TXN payload: one effect of `size` bytes for each shard.
std::string Txn(const std::vector<uint16_t>& shards, size_t size) {
  std::string payload;
  AppendVarint(shards.size(), &payload);
  for (const uint16_t shard : shards) {
    payload.push_back(static_cast<char>(shard));
    payload.push_back(static_cast<char>(shard >> 8));
    AppendVarint(size, &payload);
  }
  return payload.append(shards.size() * size, 'x');
}

std::string Hex(std::string_view bytes) {
  std::string text;
  for (const char byte : bytes) {
    text += "0123456789abcdef"[static_cast<uint8_t>(byte) >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

std::vector<uint64_t> OffsetsOf(const IndexView& view, uint16_t shard) {
  std::vector<uint64_t> offsets;
  const Status status = view.Offsets(shard, &offsets);
  EXPECT_TRUE(status.ok()) << status.message();
  return offsets;
}

TEST(IndexTest, HasTheBytesOfTheSpecification) {
  IndexBuilder builder;
  builder.Add(kEffectType, 3, "", 4096);
  builder.Add(kTxnType, kBroadcastShard, Txn({3, 0x102}, 1), 4128);
  builder.Add(kBroadcastType, kBroadcastShard, "", 8192);
  EXPECT_EQ(Hex(builder.Take(64)),
            "4000000000000000"
            "03000000"
            "03000000"  // previous, records, lists
            "0300"
            "0000"
            "03000000"  // shard, zero, end
            "0201"
            "0000"
            "05000000"
            "ffff"
            "0000"
            "07000000"
            "800404"  // 512, then 4 more
            "8404"    // 516
            "8008");  // 1024
}

TEST(IndexTest, AnEmptyBuilderMakesAnEmptyIndex) {
  IndexBuilder builder;
  EXPECT_TRUE(builder.empty());
  const std::string payload = builder.Take(0);
  auto view = IndexView::Parse(payload);
  ASSERT_TRUE(view.ok()) << view.message();
  EXPECT_EQ(view->records(), 0u);
  std::vector<uint16_t> shards;
  view->Shards(&shards);
  EXPECT_TRUE(shards.empty());
  EXPECT_TRUE(OffsetsOf(*view, 0).empty());
}

TEST(IndexTest, ATransactionStandsOnceInTheListOfEachOfItsShards) {
  IndexBuilder builder;
  builder.Add(kTxnType, kBroadcastShard, Txn({9, 2, 9, 9}, 3), 4096);
  const std::string payload = builder.Take(0);
  const IndexView view = IndexView::Parse(payload).value();
  std::vector<uint16_t> shards;
  view.Shards(&shards);
  EXPECT_EQ(shards, (std::vector<uint16_t>{2, 9}));
  EXPECT_EQ(OffsetsOf(view, 9), std::vector<uint64_t>{4096});
  EXPECT_EQ(view.records(), 1u);
}

TEST(IndexTest, ATransactionThatCannotBeReadConcernsEveryShard) {
  IndexBuilder builder;
  builder.Add(kTxnType, kBroadcastShard, "\xff\xff", 4096);
  const std::string payload = builder.Take(0);
  EXPECT_EQ(OffsetsOf(IndexView::Parse(payload).value(), kBroadcastShard),
            std::vector<uint64_t>{4096});
}

TEST(IndexTest, TellsWhatAPlainModelTells) {
  for (uint64_t round = 0; round < 60; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << TestSeed() << " round " << round);
    Random random(Mix(TestSeed(), round));
    IndexBuilder builder;  // used twice: it forgets what it gave
    uint64_t offset = 4096;
    for (int index = 0; index < 2; ++index) {
      std::map<uint16_t, std::set<uint64_t>> model;
      const uint64_t records = random.Below(2000);
      const uint64_t shard_bound = uint64_t{1} << random.Below(17);
      const auto some_shard = [&] { return static_cast<uint16_t>(random.Below(shard_bound)); };
      for (uint64_t i = 0; i < records; ++i) {
        if (random.Below(10) == 0) {
          std::vector<uint16_t> shards(1 + random.Below(5));
          for (uint16_t& shard : shards) {
            shard = some_shard();
            model[shard].insert(offset);
          }
          builder.Add(kTxnType, kBroadcastShard, Txn(shards, random.Below(300)), offset);
        } else if (random.Below(100) == 0) {
          builder.Add(kBroadcastType, kBroadcastShard, "", offset);
          model[kBroadcastShard].insert(offset);
        } else {
          const uint16_t shard = some_shard();
          builder.Add(kEffectType, shard, "", offset);
          model[shard].insert(offset);
        }
        // Now and then far away: a segment of one huge record.
        offset += 8 * (1 + random.Below(random.Below(100) == 0 ? 1 << 28 : 100));
      }
      EXPECT_EQ(builder.empty(), records == 0);
      const std::string payload = builder.Take(offset);
      auto view = IndexView::Parse(payload);
      ASSERT_TRUE(view.ok()) << view.message();
      EXPECT_EQ(view->previous(), offset);
      EXPECT_EQ(view->records(), records);
      std::vector<uint16_t> shards, expected;
      view->Shards(&shards);
      for (const auto& [shard, offsets] : model) {
        expected.push_back(shard);
        ASSERT_EQ(OffsetsOf(*view, shard), std::vector<uint64_t>(offsets.begin(), offsets.end()));
      }
      ASSERT_EQ(shards, expected);
    }
  }
}

// Whatever stands there, an answer ascends and ends, or is an error.
void AskEverything(std::string_view payload) {
  auto view = IndexView::Parse(payload);
  if (!view.ok()) {
    EXPECT_EQ(view.system_errno(), EBADMSG);
    return;
  }
  std::vector<uint16_t> shards;
  view->Shards(&shards);
  ASSERT_LE(shards.size() * 8, payload.size());
  shards.push_back(12345);
  for (const uint16_t shard : shards) {
    std::vector<uint64_t> offsets = {1};
    const Status status = view->Offsets(shard, &offsets);
    ASSERT_LE(offsets.size(), payload.size());
    ASSERT_TRUE(status.ok() || offsets.size() == 1);
    for (size_t i = 1; i < offsets.size(); ++i) {
      ASSERT_GT(offsets[i], offsets[i - 1]);
      ASSERT_EQ(offsets[i] % 8, 0u);
    }
  }
}

TEST(IndexTest, DamagedPayloadsNeverLeadAstray) {
  IndexBuilder builder;
  Random random(TestSeed());
  for (uint64_t i = 0; i < 200; ++i) {
    builder.Add(kEffectType, static_cast<uint16_t>(random.Below(20)), "", 4096 + 48 * i * i);
  }
  const std::string good = builder.Take(0);
  for (size_t size = 0; size <= good.size(); ++size) {
    // A copy of its own, so that a sanitizer sees a step behind its end.
    AskEverything(std::string(good, 0, size));
    EXPECT_EQ(IndexView::Parse({good.data(), size}).ok(), size == good.size()) << size;
  }
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    AskEverything(flipped);
  }
  for (int i = 0; i < 20000; ++i) {
    std::string wild = good;
    for (int change = 0; change < 8; ++change) {
      wild[random.Below(wild.size())] = static_cast<char>(random.Next());
    }
    AskEverything(wild);
  }
}

TEST(IndexTest, ReadsTheDirectoryOfATransaction) {
  const std::string payload = Txn({5, 700}, 200);
  std::vector<TxnPart> parts;
  ASSERT_TRUE(ReadTxnDirectory(payload, &parts));
  ASSERT_EQ(parts.size(), 2u);
  EXPECT_EQ(parts[0].shard, 5);
  EXPECT_EQ(parts[1].shard, 700);
  EXPECT_EQ(parts[0].offset, 9u);  // behind the count, and 2 + 2 bytes for each
  EXPECT_EQ(parts[1].offset, 209u);
  EXPECT_EQ(parts[1].size, 200u);
}

TEST(IndexTest, RefusesDirectoriesThatDoNotAddUp) {
  const std::string good = Txn({5, 700, 5}, 200);
  std::vector<TxnPart> parts;
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(ReadTxnDirectory(std::string(good, 0, size), &parts)) << size;
  }
  EXPECT_FALSE(ReadTxnDirectory(good + "x", &parts));
  for (size_t bit = 0; bit < 13 * 8; ++bit) {
    std::string flipped = good;
    flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
    if (!ReadTxnDirectory(flipped, &parts)) continue;
    for (const TxnPart& part : parts) {
      EXPECT_LE(uint64_t{part.offset} + part.size, flipped.size()) << bit;
    }
  }
  // Counts and sizes near the end of their range.
  for (const char* wild : {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "\xff\xff\xff\xff\xff\xff",
                           "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"}) {
    EXPECT_FALSE(ReadTxnDirectory(wild, &parts));
  }
  std::string sizes("\x02\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01\x00\x01", 16);
  EXPECT_FALSE(ReadTxnDirectory(sizes, &parts));
}

}  // namespace
}  // namespace crab::wal

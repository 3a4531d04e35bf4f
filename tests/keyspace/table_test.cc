// The table alone: buckets that split and merge, chains, and the memory counted for them.

#include "src/keyspace/table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/support/seed.h"
#include "utils/hash.h"

namespace crab {
namespace {

constexpr uint64_t kSeed = 11;

std::string KeyOf(int number) { return "key" + std::to_string(number); }
uint64_t HashOf(int number) { return HashKey(KeyOf(number), kSeed); }

void Insert(Table& table, int number, uint64_t hash, int64_t deadline_ms = -1) {
  table.Insert(hash, Entry::Create(KeyOf(number), Content::Integer(number), deadline_ms), kSeed);
}

TEST(TableTest, FindsAllInATableWhoseSlotsHaveTooFewHashBits) {
  // More than 32768 buckets: further splits hash the keys again.
  constexpr int kKeys = 450'000;
  Table table;
  for (int i = 0; i < kKeys; ++i) Insert(table, i, HashOf(i));
  ASSERT_GT(table.bucket_count(), size_t{2} << 15);
  for (int i = 0; i < kKeys; ++i) {
    const Table::Place place = table.Find(HashOf(i), KeyOf(i));
    ASSERT_TRUE(place);
    ASSERT_EQ(place.entry()->integer(), i);
  }
  EXPECT_FALSE(table.Find(HashOf(kKeys), KeyOf(kKeys)));
  for (int i = 0; i < kKeys; ++i) {
    table.Remove(HashOf(i), table.Find(HashOf(i), KeyOf(i)), kSeed);
  }
  EXPECT_EQ(table.MemoryBytes(), 0u);
}

TEST(TableTest, TakesAbout14BytesPerKeyBesidesTheEntries) {
  for (int keys : {1000, 1500, 2000, 3000, 50'000}) {
    SCOPED_TRACE(keys);
    Table table;
    size_t entries = 0;
    for (int i = 0; i < keys; ++i) Insert(table, i, HashOf(i));
    for (size_t i = 0; i < table.bucket_count(); ++i) {
      Table::ForEachOfChain(table.bucket(i), [&](Table::Place place) {
        entries += place.entry()->MemoryBytes();
        return true;
      });
    }
    EXPECT_LE(table.MemoryBytes() - entries, static_cast<size_t>(keys) * 31 / 2);
  }
}

TEST(TableTest, SplitsAndMergesOneBucketAtATime) {
  Table table;
  size_t buckets = 0;
  for (int i = 0; i < 5000; ++i) {
    Insert(table, i, HashOf(i));
    ASSERT_LE(table.bucket_count(), buckets + 1);
    buckets = table.bucket_count();
  }
  for (int i = 0; i < 5000; ++i) {
    table.Remove(HashOf(i), table.Find(HashOf(i), KeyOf(i)), kSeed);
    if (table.size() > 0) {
      ASSERT_GE(table.bucket_count() + 1, buckets);
      ASSERT_LE(table.bucket_count(), table.size() + 1 + buckets / 2 + buckets / 3);
    }
    buckets = table.bucket_count();
  }
  EXPECT_EQ(table.bucket_count(), 0u);
}

// Hashes of which all fall into one bucket, and all with the same fingerprint: a chain that only
// the keys themselves tell apart.
TEST(TableTest, KeepsKeysApartWhoseHashesAreEqual) {
  constexpr int kKeys = 60;
  for (uint64_t run = 0; run < 50; ++run) {
    const uint64_t seed = test::Mix(test::TestSeed(), run);
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Table table;
    std::set<int> present;
    for (uint64_t step = 0; step < 600; ++step) {
      const uint64_t drawn = test::Mix(seed, step);
      const int number = static_cast<int>(drawn % kKeys);
      const Table::Place place = table.Find(42, KeyOf(number));
      ASSERT_EQ(static_cast<bool>(place), present.count(number) == 1);
      if (place) {
        ASSERT_EQ(place.entry()->integer(), number);
        table.Remove(42, place, kSeed);
        present.erase(number);
      } else {
        Insert(table, number, 42);
        present.insert(number);
      }
      ASSERT_EQ(table.size(), present.size());
    }
  }
}

TEST(TableTest, SwapsTablesOfAnySize) {
  const int kSizes[] = {0, 1, 50, 96, 97, 3000};
  for (int a_size : kSizes) {
    for (int b_size : kSizes) {
      Table a;
      Table b;
      for (int i = 0; i < a_size; ++i) Insert(a, i, HashOf(i), 1000 + i);
      for (int i = 0; i < b_size; ++i) Insert(b, i, HashOf(i));
      a.Swap(b);
      ASSERT_EQ(a.size(), static_cast<size_t>(b_size));
      ASSERT_EQ(b.size_with_deadline(), static_cast<size_t>(a_size));
      for (int i = 0; i < a_size; ++i) ASSERT_TRUE(b.Find(HashOf(i), KeyOf(i)));
      for (int i = 0; i < b_size; ++i) ASSERT_TRUE(a.Find(HashOf(i), KeyOf(i)));
      for (int i = 0; i < 200; ++i) Insert(a, i + 100'000, HashOf(i + 100'000));
    }
  }
}

}  // namespace
}  // namespace crab

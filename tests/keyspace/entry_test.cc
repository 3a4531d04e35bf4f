// The entry's layout: every combination of its parts is read back as it was made.

#include "src/keyspace/entry.h"

#include <gtest/gtest.h>

#include <string>

namespace crab {
namespace {

constexpr size_t kSizes[] = {0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 44, 45, 254, 255, 256, 257, 5000};

TEST(EntryTest, ReadsBackWhatItWasMadeOf) {
  for (size_t key_size : kSizes) {
    for (size_t value_size : kSizes) {
      for (int64_t deadline_ms : {int64_t{-1}, int64_t{0}, INT64_MAX}) {
        SCOPED_TRACE(testing::Message() << key_size << " " << value_size << " " << deadline_ms);
        const std::string key(key_size, 'k');
        const std::string value(value_size, 'v');
        const Content content = value_size <= kInlineBytesMax
                                    ? Content::Inline(Encoding::kEmbstr, value)
                                    : Content::Large(LargeString::Create(value, value_size));
        Entry* entry = Entry::Create(key, content, deadline_ms);
        char scratch[24];
        ASSERT_EQ(entry->key(), key);
        ASSERT_TRUE(entry->KeyEquals(key));
        ASSERT_EQ(entry->StringBytes(scratch), value);
        ASSERT_EQ(entry->StringSize(), value_size);
        ASSERT_EQ(entry->has_deadline(), deadline_ms >= 0);
        ASSERT_EQ(entry->deadline_ms(), deadline_ms);
        ASSERT_EQ(entry->type(), Type::kString);
        ASSERT_GE(entry->MemoryBytes(), key_size + value_size);
        entry = Entry::Rebuild(entry, Content::Integer(-7), 5);
        ASSERT_EQ(entry->key(), key);
        ASSERT_EQ(entry->StringBytes(scratch), "-7");
        ASSERT_EQ(entry->StringSize(), 2u);
        ASSERT_EQ(entry->deadline_ms(), 5);
        Entry::Destroy(entry);
      }
    }
  }
}

TEST(EntryTest, TellsKeysApartThatDifferInAnyOneByte) {
  for (size_t size : kSizes) {
    std::string key(size, 'k');
    Entry* entry = Entry::Create(key, Content::Integer(1), -1);
    for (size_t i = 0; i < size; ++i) {
      key[i] = 'x';
      ASSERT_FALSE(entry->KeyEquals(key)) << size << " " << i;
      key[i] = 'k';
    }
    ASSERT_TRUE(entry->KeyEquals(key));
    ASSERT_FALSE(entry->KeyEquals(key + "k"));
    Entry::Destroy(entry);
  }
}

TEST(EntryTest, CountsAccessesAsRedisDoes) {
  constexpr int64_t kNowMs = 1'700'000'000'000;
  Entry* entry = Entry::Create("key", Content::Integer(1), -1);
  entry->set_access(Entry::LruAccess(kNowMs));
  EXPECT_EQ(entry->IdleSeconds(kNowMs + 999), 0u);
  EXPECT_EQ(entry->IdleSeconds(kNowMs + 100'000), 100u);
  // The clock of 24 bits begins anew after 194 days.
  EXPECT_EQ(entry->IdleSeconds(kNowMs + (int64_t{1} << 24) * 1000 + 5000), 5u);

  entry->set_access(Entry::LfuAccess(kNowMs, 100));
  EXPECT_EQ(entry->LfuCounter(kNowMs, 1), 100);
  EXPECT_EQ(entry->LfuCounter(kNowMs + 30 * 60'000, 1), 70);
  EXPECT_EQ(entry->LfuCounter(kNowMs + 30 * 60'000, 10), 97);
  EXPECT_EQ(entry->LfuCounter(kNowMs + 30 * 60'000, 0), 100) << "0 minutes: no decay";
  EXPECT_EQ(entry->LfuCounter(kNowMs + 200 * 60'000, 1), 0);

  entry->set_visited(true);
  entry->set_epoch(3);
  entry->set_access(Entry::LruAccess(kNowMs));
  EXPECT_TRUE(entry->visited());
  EXPECT_EQ(entry->epoch(), 3u);
  EXPECT_EQ(entry->IdleSeconds(kNowMs), 0u);
  entry->set_visited(false);
  EXPECT_EQ(entry->epoch(), 3u);
  Entry::Destroy(entry);
}

}  // namespace
}  // namespace crab

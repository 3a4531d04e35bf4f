#include "src/values/string.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "tests/support/seed.h"

namespace crab {
namespace {

TEST(StringTest, TakesOnlyTheOneTextOfAnIntegerForIt) {
  const struct {
    std::string_view text;
    bool canonical;
    int64_t value;
  } kRows[] = {
      {"0", true, 0},
      {"7", true, 7},
      {"-7", true, -7},
      {"1234567890123456789", true, 1234567890123456789},
      {"9223372036854775807", true, INT64_MAX},
      {"-9223372036854775808", true, INT64_MIN},
      {"9223372036854775808", false, 0},
      {"-9223372036854775809", false, 0},
      {"99999999999999999999", false, 0},
      {"", false, 0},
      {"-", false, 0},
      {"-0", false, 0},
      {"00", false, 0},
      {"007", false, 0},
      {"+7", false, 0},
      {" 7", false, 0},
      {"7 ", false, 0},
      {"7a7", false, 0},
      {"0x10", false, 0},
      {"1e3", false, 0},
      {"1.0", false, 0},
      {"123456789012345678901", false, 0},
  };
  for (const auto& row : kRows) {
    SCOPED_TRACE(row.text);
    int64_t value = 0;
    EXPECT_EQ(IsCanonicalInteger(row.text, &value), row.canonical);
    EXPECT_EQ(value, row.value);
  }
}

TEST(StringTest, WritesAnywhereAsAStdStringWould) {
  for (uint64_t run = 0; run < 20; ++run) {
    const uint64_t seed = test::Mix(test::TestSeed(), run);
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::string model(300, 'a');
    LargeString* string = LargeString::Create(model, model.size());
    for (uint64_t step = 0; step < 200; ++step) {
      const uint64_t number = test::Mix(seed, step);
      const size_t offset = number % 2 ? model.size() : number / 2 % (model.size() + 500);
      const std::string bytes(number >> 32 & 1023, static_cast<char>('a' + step % 26));
      if (model.size() < offset + bytes.size()) model.resize(offset + bytes.size());
      model.replace(offset, bytes.size(), bytes);
      string = LargeString::Write(string, offset, bytes);
      if (bytes.empty()) model.resize(string->size());
      ASSERT_EQ(string->view(), model);
    }
    LargeString::Destroy(string);
  }
}

TEST(StringTest, GrowsBySharesSoThatAppendingIsCheap) {
  LargeString* string = LargeString::Create(std::string(256, 'x'), 256);
  size_t moves = 0;
  for (int i = 0; i < 4'000'000; ++i) {
    LargeString* next = LargeString::Write(string, string->size(), "y");
    moves += next != string;
    string = next;
  }
  EXPECT_LT(moves, 20u);
  EXPECT_LE(string->MemoryBytes(), string->size() * 3 / 2);
  LargeString::Destroy(string);
}

TEST(StringTest, ChangesACopyWhereTheStringIsShared) {
  const std::string before(1000, 'a');
  LargeString* string = LargeString::Create(before, before.size());
  LargeString* share = string->Share();
  EXPECT_EQ(share, string);
  EXPECT_TRUE(string->shared());
  EXPECT_FALSE(string->Suits(before.size())) << "no assignment where others read";
  const size_t bytes = string->MemoryBytes();

  string = LargeString::Write(string, 10, "bbb");
  ASSERT_NE(string, share);
  EXPECT_EQ(string->MemoryBytes(), bytes);
  EXPECT_EQ(string->view().substr(8, 7), "aabbbaa");
  EXPECT_EQ(share->view(), before);
  EXPECT_FALSE(string->shared());
  EXPECT_FALSE(share->shared());
  LargeString* same = LargeString::Write(string, 0, "c");
  EXPECT_EQ(same, string) << "alone it is changed in its place";
  EXPECT_TRUE(string->Suits(before.size()));

  LargeString* other = share->Share();
  share = LargeString::Write(share, share->size(), std::string(5000, 'd'));
  EXPECT_EQ(share->size(), 6000u);
  EXPECT_EQ(other->view(), before);
  LargeString::Destroy(string);
  LargeString::Destroy(share);
  LargeString::Destroy(other);
}

TEST(StringTest, IsFreedByTheLastOwnerOnWhicheverThread) {
  const std::string before(1000, 'a');
  for (int i = 0; i < 500; ++i) {
    LargeString* string = LargeString::Create(before, before.size());
    LargeString* share = string->Share();
    std::thread reader([&] {
      EXPECT_EQ(share->view(), before);
      LargeString::Destroy(share);
    });
    // In place or in a copy, whether the reader is through or not.
    string = LargeString::Write(string, 0, "b");
    EXPECT_EQ(string->view().substr(0, 2), "ba");
    LargeString::Destroy(string);
    reader.join();
  }
}

}  // namespace
}  // namespace crab

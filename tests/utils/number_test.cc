#include "utils/number.h"

#include <gtest/gtest.h>

#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>

#include "tests/support/seed.h"

namespace crab {
namespace {

std::string Text(int64_t value) {
  char text[kIntegerTextMax];
  return std::string(text, FormatInt64(text, value));
}
std::string Text(double value) {
  char text[kDoubleTextMax];
  return std::string(text, FormatDouble(text, value));
}

TEST(NumberTest, ReadsAnIntegerOnlyInItsOneText) {
  const struct {
    std::string_view text;
    int64_t value;
  } good[] = {{"0", 0},
              {"7", 7},
              {"-1", -1},
              {"10", 10},
              {"9223372036854775807", INT64_MAX},
              {"-9223372036854775808", INT64_MIN},
              {"-9223372036854775807", -INT64_MAX}};
  for (const auto& row : good) {
    int64_t value = -99;
    EXPECT_TRUE(ParseInt64(row.text, &value)) << row.text;
    EXPECT_EQ(value, row.value);
  }
  const std::string_view bad[] = {"",
                                  "-",
                                  "-0",
                                  "00",
                                  "01",
                                  "-01",
                                  "+1",
                                  " 1",
                                  "1 ",
                                  "1a",
                                  "a",
                                  "0x10",
                                  "1.0",
                                  "--1",
                                  "1-",
                                  "/",
                                  ":",
                                  "1/",
                                  "1:",
                                  "9223372036854775808",
                                  "-9223372036854775809",
                                  "10000000000000000000",
                                  "18446744073709551616",
                                  "99999999999999999999",
                                  "-10000000000000000000",
                                  "100000000000000000000000",
                                  std::string_view("1\0", 2)};
  for (const std::string_view text : bad) {
    int64_t value = -99;
    EXPECT_FALSE(ParseInt64(text, &value)) << text;
    EXPECT_EQ(value, -99) << text;
  }
}

TEST(NumberTest, PrintsIntegersAsPrintfDoesAndReadsThemBack) {
  const uint64_t seed = test::TestSeed();
  for (uint64_t i = 0; i < 20000; ++i) {
    const auto value = static_cast<int64_t>(test::Mix(seed, i)) >> (i % 64);
    char expected[32];
    std::snprintf(expected, sizeof(expected), "%" PRId64, value);
    ASSERT_EQ(Text(value), expected);
    int64_t read = 0;
    ASSERT_TRUE(ParseInt64(expected, &read));
    ASSERT_EQ(read, value);
    const uint64_t magnitude = test::Mix(seed, i) >> (i % 64);
    ASSERT_EQ(DigitCount(magnitude), std::to_string(magnitude).size());
  }
  for (uint64_t power = 1, i = 0; i < 20; ++i, power *= 10) {
    EXPECT_EQ(DigitCount(power), i + 1);
    EXPECT_EQ(DigitCount(power - 1), i == 0 ? 1 : i);
    EXPECT_EQ(Text(static_cast<int64_t>(power)), std::to_string(static_cast<int64_t>(power)));
  }
  EXPECT_EQ(Text(INT64_MIN), "-9223372036854775808");
  char text[kIntegerTextMax];
  EXPECT_EQ(std::string(text, FormatUint64(text, UINT64_MAX)), "18446744073709551615");
}

TEST(NumberTest, ReadsUnsignedIntegersAsLenientlyAsRedis) {
  const struct {
    std::string_view text;
    uint64_t value;
  } good[] = {{"0", 0},   {"18446744073709551615", UINT64_MAX},       {"007", 7},         {"+5", 5},
              {"  5", 5}, {"9223372036854775808", uint64_t{1} << 63}, {"-01", UINT64_MAX}};
  for (const auto& row : good) {
    uint64_t value = 99;
    EXPECT_TRUE(ParseUint64(row.text, &value)) << row.text;
    EXPECT_EQ(value, row.value) << row.text;
  }
  for (const std::string_view text :
       {"", " ", "+", "-", "-1", "5 ", "5a", "18446744073709551616", "99999999999999999999"}) {
    uint64_t value = 99;
    EXPECT_FALSE(ParseUint64(text, &value)) << text;
    EXPECT_EQ(value, 99u);
  }
}

// Each row was asked of redis-server 7.0.15 as a ZADD score.
TEST(NumberTest, ReadsDoublesAsRedisDoes) {
  const struct {
    std::string_view text;
    double value;
  } good[] = {{"1.5", 1.5},
              {"0x1p3", 8},
              {"+5", 5},
              {"007", 7},
              {".5", 0.5},
              {"5.", 5},
              {"1e3", 1000},
              {"inf", INFINITY},
              {"-inf", -INFINITY},
              {"+INFINITY", INFINITY},
              {"5e-324", 5e-324},
              {"123456789012345", 123456789012345.0},
              {"9007199254740993", 9007199254740992.0}};
  for (const auto& row : good) {
    double value = -99;
    EXPECT_TRUE(ParseDouble(row.text, &value)) << row.text;
    EXPECT_EQ(value, row.value) << row.text;
    long double wide = -99;
    EXPECT_TRUE(ParseLongDouble(row.text, &wide)) << row.text;
    EXPECT_EQ(static_cast<double>(wide), row.value) << row.text;
  }
  for (const std::string_view text :
       {std::string_view(""), std::string_view(" 5"), std::string_view("5 "),
        std::string_view("nan"), std::string_view("-nan"), std::string_view("1e"),
        std::string_view("a"), std::string_view("1\0", 2), std::string_view("1,5"),
        std::string_view("1e5000"), std::string_view("-1e5000"), std::string_view("1e-5000")}) {
    double value = -99;
    EXPECT_FALSE(ParseDouble(text, &value)) << text;
    EXPECT_EQ(value, -99);
    long double wide = -99;
    EXPECT_FALSE(ParseLongDouble(text, &wide)) << text;
  }
  double value = 0;
  EXPECT_FALSE(ParseDouble("1e400", &value));
  EXPECT_FALSE(ParseDouble("1e-400", &value));
  EXPECT_TRUE(ParseDouble("1" + std::string(300, '0'), &value));
  EXPECT_EQ(value, 1e300);
}

TEST(NumberTest, BoundsTheTextOfALongDouble) {
  long double value = 0;
  EXPECT_TRUE(ParseLongDouble("1." + std::string(5117, '0'), &value));
  EXPECT_FALSE(ParseLongDouble("1." + std::string(5118, '0'), &value));
}

TEST(NumberTest, PrintsDoublesAsPrintfWith17Digits) {
  EXPECT_EQ(Text(3.1), "3.1000000000000001");
  EXPECT_EQ(Text(0.00001), "1.0000000000000001e-05");
  EXPECT_EQ(Text(-0.0), "-0");
  EXPECT_EQ(Text(1e22), "1e+22");
  EXPECT_EQ(Text(INFINITY), "inf");
  EXPECT_EQ(Text(-INFINITY), "-inf");
  EXPECT_EQ(Text(std::nan("")), "nan");
  EXPECT_EQ(Text(-std::numeric_limits<double>::denorm_min()), "-4.9406564584124654e-324");
  const uint64_t seed = test::TestSeed();
  const double edges[] = {1e16, 1e17, -1e17, 99999999999999984.0, -1e16, 0.5, 1e15, 123456.0};
  for (uint64_t i = 0; i < 20000; ++i) {
    const uint64_t bits = test::Mix(seed, i);
    double value = 0;
    std::memcpy(&value, &bits, sizeof(value));
    if (i % 3 == 0) value = static_cast<double>(static_cast<int64_t>(bits) >> (i % 60));
    if (i % 3 == 1) value = static_cast<double>(static_cast<int64_t>(bits) >> 40) / 1000;
    if (i < std::size(edges)) value = edges[i];
    if (std::isnan(value)) continue;
    char expected[64];
    std::snprintf(expected, sizeof(expected), "%.17g", value);
    ASSERT_EQ(Text(value), expected);
    ASSERT_LE(std::strlen(expected), kDoubleTextMax);
  }
}

// Each row was asked of redis-server 7.0.15 with INCRBYFLOAT on an absent key.
TEST(NumberTest, PrintsLongDoublesForPeople) {
  const struct {
    std::string_view text;
    std::string_view printed;
  } rows[] = {{"0", "0"},        {"-0", "0"},    {"10.1", "10.1"}, {"3.0e3", "3000"},
              {"-1.50", "-1.5"}, {"0.1", "0.1"}, {"1e-18", "0"},   {"-1e-18", "0"},
              {"100", "100"},    {"inf", "inf"}, {"-inf", "-inf"}};
  for (const auto& row : rows) {
    long double value = 0;
    ASSERT_TRUE(ParseLongDouble(row.text, &value));
    EXPECT_EQ(FormatHumanLongDouble(value), row.printed) << row.text;
  }
}

TEST(NumberTest, ReadsSizesInEveryUnit) {
  const struct {
    std::string_view text;
    uint64_t bytes;
  } good[] = {{"0", 0},           {"100", 100},     {"1b", 1},       {"1k", 1000},
              {"1kb", 1024},      {"1KB", 1024},    {"1m", 1000000}, {"64mb", 64 << 20},
              {"1g", 1000000000}, {"1gB", 1 << 30}, {"", 0},         {"mb", 0}};
  for (const auto& row : good) {
    uint64_t bytes = 99;
    EXPECT_TRUE(ParseMemory(row.text, &bytes)) << row.text;
    EXPECT_EQ(bytes, row.bytes) << row.text;
  }
  for (const std::string_view text :
       {"-1", " 1", "1 ", "1.5gb", "1tb", "1 kb", "kb1", "18446744073709551616", "17179869184gb"}) {
    uint64_t bytes = 99;
    EXPECT_FALSE(ParseMemory(text, &bytes)) << text;
    EXPECT_EQ(bytes, 99u);
  }
}

TEST(NumberTest, PrintsSizesForPeople) {
  const struct {
    uint64_t bytes;
    std::string_view text;
  } rows[] = {{0, "0B"},
              {1023, "1023B"},
              {1024, "1.00K"},
              {1536, "1.50K"},
              {1 << 20, "1.00M"},
              {uint64_t{5} << 30, "5.00G"},
              {uint64_t{1} << 40, "1.00T"},
              {uint64_t{3} << 50, "3.00P"},
              {UINT64_MAX, "18446744073709551615B"}};
  for (const auto& row : rows) EXPECT_EQ(FormatMemoryHuman(row.bytes), row.text);
}

}  // namespace
}  // namespace crab

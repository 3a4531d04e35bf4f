#include "src/commands/args.h"

#include <gtest/gtest.h>

#include <string>

namespace crab {
namespace {

TEST(ArgsTest, ComparesWordsInAnyCaseAndNothingElse) {
  const std::string_view argv[] = {"KeepTTL", "na\x0d", "", "[", "get"};
  const Args args(argv);
  EXPECT_TRUE(args.Is(0, "KEEPTTL"));
  EXPECT_TRUE(args.Is(0, "keepttl"));
  EXPECT_FALSE(args.Is(0, "keepttls"));
  EXPECT_FALSE(args.Is(1, "na-"));  // differs by the bit that tells the cases of a letter apart
  EXPECT_TRUE(args.Is(2, ""));
  EXPECT_FALSE(args.Is(3, "{"));
  EXPECT_FALSE(args.Is(4, "ge"));
}

TEST(ArgsTest, ReadsIntegersAsRedisDoes) {
  const std::string_view argv[] = {
      "-9223372036854775808", "9223372036854775808", "01", " 1", "", "1.0"};
  const Args args(argv);
  Result<int64_t> least = args.Integer(0);
  ASSERT_TRUE(least.ok());
  EXPECT_EQ(*least, INT64_MIN);
  for (size_t i = 1; i < args.size(); ++i) {
    SCOPED_TRACE(argv[i]);
    EXPECT_EQ(args.Integer(i).message(), "ERR value is not an integer or out of range");
  }
}

TEST(ArgsTest, TellsAnIntegerOutsideItsRangeFromNoInteger) {
  const std::string_view argv[] = {"5", "6", "-1", "x"};
  const Args args(argv);
  constexpr char kError[] = "ERR DB index is out of range";
  EXPECT_EQ(*args.Integer(0, 0, 5, kError), 5);
  EXPECT_EQ(args.Integer(1, 0, 5, kError).message(), kError);
  EXPECT_EQ(args.Integer(2, 0, 5, kError).message(), kError);
  EXPECT_EQ(args.Integer(3, 0, 5, kError).message(), "ERR value is not an integer or out of range");
}

TEST(ArgsTest, ReadsFloatsAsRedisDoes) {
  const std::string_view argv[] = {"1.5", "-2e3", "0x10", "nan", " 1", "1x", ""};
  const Args args(argv);
  EXPECT_EQ(*args.Float(0), 1.5L);
  EXPECT_EQ(*args.Float(1), -2000.0L);
  EXPECT_EQ(*args.Float(2), 16.0L);
  for (size_t i = 3; i < args.size(); ++i) {
    SCOPED_TRACE(argv[i]);
    EXPECT_EQ(args.Float(i).message(), "ERR value is not a valid float");
  }
}

TEST(ArgsTest, ViewsTheRest) {
  const std::string_view argv[] = {"a", "b", "c"};
  const Args rest = Args(argv).From(1);
  ASSERT_EQ(rest.size(), 2u);
  EXPECT_EQ(rest[0], "b");
}

}  // namespace
}  // namespace crab

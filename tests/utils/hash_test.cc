#include "utils/hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <vector>

namespace crab {
namespace {

// Known values of XXH3. Were they to change, the records of every log would lose their shard.
TEST(HashTest, NeverChanges) {
  EXPECT_EQ(HashKey("", 0), 0x2d06800538d394c2u);
  EXPECT_EQ(HashKey("a", 0), 0xe6c632b61e964e1fu);
  EXPECT_EQ(HashKey("abc", 0), 0x78af5f94892f3950u);
  const std::string sixteen = "key:000000000001";
  const std::string long_key(1000, 'x');
  EXPECT_NE(HashKey(sixteen, 0), HashKey(sixteen, 1));
  EXPECT_NE(HashKey(long_key, 0), HashKey(long_key, 1));
}

TEST(HashTest, SpreadsNumberedKeysOverItsTopAndBottomBits) {
  constexpr size_t kKeys = 1 << 16;
  constexpr size_t kBins = 1024;
  std::vector<size_t> top(kBins), bottom(kBins);
  std::set<uint64_t> seen;
  for (size_t i = 0; i < kKeys; ++i) {
    const uint64_t hash = HashKey("key:" + std::to_string(i), 12345);
    ++top[hash >> 54];
    ++bottom[hash & (kBins - 1)];
    seen.insert(hash);
  }
  EXPECT_EQ(seen.size(), kKeys);
  for (size_t i = 0; i < kBins; ++i) {  // 64 expected; six standard deviations are 48
    EXPECT_NEAR(static_cast<double>(top[i]), 64, 48);
    EXPECT_NEAR(static_cast<double>(bottom[i]), 64, 48);
  }
}

}  // namespace
}  // namespace crab

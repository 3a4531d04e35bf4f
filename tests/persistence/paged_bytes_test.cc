#include "tests/support/paged_bytes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "tests/support/seed.h"

namespace crab::test {
namespace {

// Against strings: writes, cuts, growth and copies, across the borders of pages.
TEST(PagedBytesTest, IsWhatAStringIsAndSoIsEachCopy) {
  constexpr uint64_t kBytesMax = 5 * PagedBytes::kPageBytes;
  std::mt19937_64 random(TestSeed());
  std::vector<std::pair<PagedBytes, std::string>> pairs(4);
  const auto place = [&](uint64_t end) {  // often at a page's border or beside it
    const uint64_t at = random() % (kBytesMax + 1);
    const uint64_t border = at / PagedBytes::kPageBytes * PagedBytes::kPageBytes;
    return std::min(random() % 2 == 0 ? at : border + random() % 3, end);
  };
  for (int step = 0; step < 20000; ++step) {
    SCOPED_TRACE(testing::Message() << "seed " << TestSeed() << " step " << step);
    auto& [bytes, model] = pairs[random() % pairs.size()];
    switch (random() % 4) {
      case 0:
      case 1: {
        const uint64_t offset = place(kBytesMax);
        const uint64_t count = std::min(place(kBytesMax), kBytesMax - offset);
        const char byte = random() % 3 == 0 ? '\0' : static_cast<char>('a' + random() % 26);
        const std::string part(count, byte);
        bytes.Write(offset, part);
        if (model.size() < offset + count) model.resize(offset + count);
        model.replace(offset, count, part);
        break;
      }
      case 2: {
        const uint64_t size = place(kBytesMax);
        bytes.Resize(size);
        model.resize(size);
        break;
      }
      case 3:
        pairs[random() % pairs.size()] = std::pair(bytes, model);
        break;
    }
    for (const auto& [held, expected] : pairs) {
      ASSERT_EQ(held.size(), expected.size());
      ASSERT_TRUE(held.AsString() == expected);
    }
    const auto& [held, expected] = pairs[random() % pairs.size()];
    const uint64_t from = place(expected.size());
    const uint64_t count = std::min(place(kBytesMax), expected.size() - from);
    ASSERT_TRUE(held.Substring(from, count) == expected.substr(from, count));
  }
}

}  // namespace
}  // namespace crab::test

#include "tests/support/seed.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <iostream>

namespace crab::test {
namespace {

constexpr uint64_t kDefaultSeed = 20260101;

// gtest owns it and deletes it at the end.
class SeedPrinter : public testing::EmptyTestEventListener {
 public:
  explicit SeedPrinter(uint64_t seed) : seed_(seed) {}
  void OnTestEnd(const testing::TestInfo& info) override {
    if (info.result()->Failed()) {
      std::cout << "to run it again: CRAB_TEST_SEED=" << seed_ << "\n";
    }
  }

 private:
  uint64_t seed_;
};

uint64_t ReadSeedOnce() {
  const char* text = std::getenv("CRAB_TEST_SEED");
  const uint64_t seed = text == nullptr ? kDefaultSeed : std::strtoull(text, nullptr, 0);
  testing::UnitTest::GetInstance()->listeners().Append(new SeedPrinter(seed));
  return seed;
}

}  // namespace

uint64_t TestSeed() {
  static const uint64_t seed = ReadSeedOnce();
  return seed;
}

bool LongTests() {
  const char* text = std::getenv("CRAB_TEST_LONG");
  return text != nullptr && std::strcmp(text, "1") == 0;
}

uint64_t Mix(uint64_t seed, uint64_t number) {
  uint64_t z = seed + (number + 1) * 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

}  // namespace crab::test

#include "persistence/disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <string_view>

#include "tests/support/seed.h"

namespace crab::wal {
namespace {

TEST(DiskTest, WritesOfAnyPlaceAndSizeReachAFileThatIsWrittenDirectly) {
  char name[] = "/tmp/crab-direct-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string path = std::string(name) + "/file";
  const auto free_it = [](char* memory) { std::free(memory); };
  constexpr size_t kBytes = 1 << 20;
  const std::unique_ptr<char, decltype(free_it)> memory(
      static_cast<char*>(std::aligned_alloc(kDirectBytes, kBytes)), free_it);
  std::string expected(2 * kBytes, '\0');
  std::mt19937_64 random(test::TestSeed());
  auto file = RealDisk().Open(path, OpenMode::kCreateDirect).value();
  EXPECT_EQ(RealDisk().Open(path, OpenMode::kCreateDirect).system_errno(), EEXIST);
  ASSERT_TRUE(file->WriteAt(0, expected).ok());
  for (int i = 0; i < 200; ++i) {
    for (size_t at = 0; at < kBytes; at += 512) memory.get()[at] = static_cast<char>(random());
    const size_t unit = i % 3 == 0 ? 1 : kDirectBytes;
    const size_t begin = random() % (kBytes / 2 / unit) * unit;
    const size_t size = random() % (kBytes / 2 / unit) * unit;
    const size_t offset = random() % (kBytes / unit) * unit;
    const std::string_view bytes{memory.get() + begin, size};
    ASSERT_TRUE(file->WriteAt(offset, bytes).ok());
    expected.replace(offset, size, bytes);
  }
  ASSERT_TRUE(file->SyncData().ok());
  std::string found(expected.size() + 1, '\0');
  EXPECT_EQ(file->ReadAt(0, found).value(), expected.size());
  found.pop_back();
  EXPECT_TRUE(found == expected);
  std::filesystem::remove_all(name);
}

}  // namespace
}  // namespace crab::wal

#include "persistence/ring.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

namespace crab::wal {
namespace {

constexpr Sharding kSharding = {.hash_seed = 7, .shard_count = 1024, .by_hashtag = true};

class RingTest : public testing::Test {
 protected:
  RingTest() {
    std::string pattern = testing::TempDir() + "/crab-ring-XXXXXX";
    root_ = mkdtemp(pattern.data());
  }
  ~RingTest() override { std::filesystem::remove_all(root_); }

  std::unique_ptr<Ring> Create(uint64_t bytes = 1 << 20) {
    auto ring = Ring::Create(root_, Ring::StampFor(42, root_), kSharding, bytes);
    EXPECT_TRUE(ring.ok()) << ring.message();
    return ring.ok() ? std::move(ring).value() : nullptr;
  }

  std::string root_;
};

TEST_F(RingTest, OnlyItsOwnerMayReadIt) {
  const auto ring = Create();
  struct stat info;
  ASSERT_EQ(stat(ring->path().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(RingTest, OutlivesTheObjectThatMadeIt) {
  {
    const auto ring = Create();
    std::memcpy(ring->data(5), "hello", 5);
    ring->slot(9).length = 5;
    ring->header().freed_lsn.store(8);
  }
  auto left = Ring::OpenLeft(root_, Ring::StampFor(42, root_));
  ASSERT_TRUE(left.ok()) << left.message();
  Ring& ring = *left.value();
  EXPECT_EQ(std::string_view(ring.data(5), 5), "hello");
  EXPECT_EQ(ring.slot(9).length, 5u);
  EXPECT_EQ(ring.header().freed_lsn.load(), 8u);
  EXPECT_TRUE(ring.header().stamp == Ring::StampFor(42, root_));
  EXPECT_TRUE(ring.sharding() == kSharding);
}

TEST_F(RingTest, PayloadsAreContiguousAcrossTheEnd) {
  const auto ring = Create();
  const uint64_t position = 7 * ring->data_bytes() - 3;
  std::memcpy(ring->data(position), "abcdef", 6);
  EXPECT_EQ(std::string_view(ring->data(0), 3), "def");
  EXPECT_EQ(std::string_view(ring->data(position), 6), "abcdef");
}

TEST_F(RingTest, IsRoundedUpToAPowerOfTwoAndNeverBelowAMebibyte) {
  EXPECT_EQ(Create(1)->data_bytes(), uint64_t{1} << 20);
  EXPECT_EQ(Create((1 << 20) + 1)->data_bytes(), uint64_t{2} << 20);
}

TEST_F(RingTest, CannotBeOpenedWhileItIsInUse) {
  const auto ring = Create();
  auto second = Ring::OpenLeft(root_, Ring::StampFor(42, root_));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.system_errno(), EWOULDBLOCK);
}

TEST_F(RingTest, StampsTellLogsDirectoriesAndBootsApart) {
  const RingStamp stamp = Ring::StampFor(42, root_);
  EXPECT_TRUE(stamp == Ring::StampFor(42, root_));
  EXPECT_FALSE(stamp == Ring::StampFor(43, root_));
  EXPECT_FALSE(stamp == Ring::StampFor(42, "/"));
  RingStamp other_boot = stamp;
  other_boot.boot_id[0] ^= 1;
  EXPECT_FALSE(stamp == other_boot);
}

TEST_F(RingTest, OfACopyOfTheDirectoryNeverTakesThePlaceOfTheOriginals) {
  const auto ring = Create();
  const std::string copy = root_ + "/copy";
  std::filesystem::create_directory(copy);
  const RingStamp stamp = Ring::StampFor(42, copy);
  EXPECT_EQ(Ring::OpenLeft(root_, stamp).system_errno(), ENOENT);
  EXPECT_EQ(Ring::OfCopies(root_, stamp), std::vector<std::string>{ring->path()});
  auto other = Ring::Create(root_, stamp, kSharding, 1 << 20);
  ASSERT_TRUE(other.ok());
  EXPECT_NE(other.value()->path(), ring->path());
  EXPECT_TRUE(std::filesystem::exists(ring->path()));
}

TEST_F(RingTest, GarbageUnderItsNameCanBeSetAside) {
  const std::string path = Create()->path();
  ASSERT_EQ(path, Ring::Path(root_, Ring::StampFor(42, root_)));
  std::ofstream(path, std::ios::trunc) << "no ring at all";
  auto left = Ring::OpenLeft(root_, Ring::StampFor(42, root_));
  EXPECT_EQ(left.system_errno(), EBADMSG);
  EXPECT_TRUE(std::filesystem::exists(path));
  const auto aside = Ring::SetAside(path);
  ASSERT_TRUE(aside.ok()) << aside.message();
  EXPECT_TRUE(std::filesystem::exists(*aside));
  EXPECT_EQ(Ring::OpenLeft(root_, Ring::StampFor(42, root_)).system_errno(), ENOENT);
}

TEST_F(RingTest, GoesWhenItIsRemoved) {
  const auto ring = Create();
  ASSERT_TRUE(ring->Remove().ok());
  EXPECT_TRUE(std::filesystem::is_empty(root_));
}

}  // namespace
}  // namespace crab::wal

#include "tests/support/sim_disk.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>

#include "tests/support/seed.h"

namespace crab::test {
namespace {

using wal::OpenMode;

constexpr char kPath[] = "dir/file";

std::unique_ptr<wal::File> MustOpen(SimDisk& disk, const std::string& path, OpenMode mode) {
  auto file = disk.Open(path, mode);
  EXPECT_TRUE(file.ok()) << file.message();
  return file.ok() ? std::move(*file) : nullptr;
}

// A file whose name is durable and whose bytes are not.
std::unique_ptr<wal::File> MakeFile(SimDisk& disk, const std::string& path = kPath) {
  EXPECT_TRUE(disk.CreateDirectories("dir").ok());
  auto file = MustOpen(disk, path, OpenMode::kCreate);
  EXPECT_TRUE(disk.SyncDirectory("dir").ok());
  return file;
}

TEST(SimDiskTest, ReadsBackWhatWasWritten) {
  SimDisk disk;
  auto file = MakeFile(disk);
  ASSERT_TRUE(file->WriteAt(3, "abc").ok());
  char bytes[10];
  EXPECT_EQ(*file->ReadAt(0, bytes), 6u);
  EXPECT_EQ(std::string_view(bytes, 6), std::string_view("\0\0\0abc", 6));
  EXPECT_EQ(*file->ReadAt(6, bytes), 0u);
  EXPECT_EQ(*file->Size(), 6u);
  ASSERT_TRUE(file->Truncate(4).ok());
  EXPECT_EQ(disk.Contents(kPath), std::string_view("\0\0\0a", 4));
}

TEST(SimDiskTest, OpensOnlyWhatTheModeAllows) {
  SimDisk disk;
  EXPECT_EQ(disk.Open(kPath, OpenMode::kCreate).system_errno(), ENOENT);
  EXPECT_EQ(disk.List("dir").system_errno(), ENOENT);
  auto file = MakeFile(disk);
  EXPECT_EQ(disk.Open(kPath, OpenMode::kCreate).system_errno(), EEXIST);
  EXPECT_EQ(disk.Open("dir/other", OpenMode::kRead).system_errno(), ENOENT);
  EXPECT_EQ(disk.Open("dir/other", OpenMode::kReadWrite).system_errno(), ENOENT);
  EXPECT_TRUE(disk.Open(kPath, OpenMode::kRead).ok());
  EXPECT_EQ(*disk.List("dir/"), std::vector<std::string>{"file"});
}

TEST(SimDiskTest, LosesUnsyncedBytesInAPowerCut) {
  SimDisk disk;
  auto file = MakeFile(disk);
  ASSERT_TRUE(file->WriteAt(0, "durable").ok());
  ASSERT_TRUE(file->SyncData().ok());
  ASSERT_TRUE(file->WriteAt(0, "VOLATILE").ok());
  EXPECT_EQ(disk.Contents(kPath), "VOLATILE");
  EXPECT_EQ(disk.PowerCut()->Contents(kPath), "durable");
}

TEST(SimDiskTest, LosesNamesWithoutASyncedDirectory) {
  SimDisk disk;
  auto kept = MakeFile(disk, "dir/kept");
  auto removed = MakeFile(disk, "dir/removed");
  auto lost = MustOpen(disk, "dir/lost", OpenMode::kCreate);
  ASSERT_TRUE(lost->WriteAt(0, "x").ok());
  ASSERT_TRUE(lost->SyncData().ok());  // the bytes are durable, the name is not
  ASSERT_TRUE(disk.Rename("dir/kept", "dir/renamed").ok());
  ASSERT_TRUE(disk.Remove("dir/removed").ok());
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{"dir/lost", "dir/renamed"}));
  EXPECT_EQ(disk.PowerCut()->Paths(), (std::vector<std::string>{"dir/kept", "dir/removed"}));
  ASSERT_TRUE(disk.SyncDirectory("dir").ok());
  EXPECT_EQ(disk.PowerCut()->Paths(), (std::vector<std::string>{"dir/lost", "dir/renamed"}));
  EXPECT_EQ(disk.PowerCut()->Contents("dir/lost"), "x");
}

TEST(SimDiskTest, RenamesOverAnotherFile) {
  SimDisk disk;
  disk.PutFile("dir/a", "A");
  disk.PutFile("dir/b", "B");
  ASSERT_TRUE(disk.Rename("dir/a", "dir/b").ok());
  EXPECT_EQ(disk.Contents("dir/b"), "A");
  auto before = disk.PowerCut();
  EXPECT_EQ(before->Contents("dir/a") + before->Contents("dir/b"), "AB");
  ASSERT_TRUE(disk.SyncDirectory("dir").ok());
  EXPECT_EQ(disk.PowerCut()->Contents("dir/b"), "A");
}

TEST(SimDiskTest, CrashesAtTheCallItWasTold) {
  SimDisk disk({.crash_at = 4});
  auto file = MakeFile(disk);  // three changing calls
  EXPECT_EQ(disk.changing_calls(), 3u);
  EXPECT_TRUE(file->Size().ok());  // changes nothing, so it does not count
  EXPECT_FALSE(disk.crashed());
  EXPECT_TRUE(SimDisk::IsPowerCut(file->WriteAt(0, "x")));
  EXPECT_TRUE(disk.crashed());
  EXPECT_TRUE(SimDisk::IsPowerCut(file->SyncData()));
  EXPECT_TRUE(SimDisk::IsPowerCut(disk.SyncDirectory("dir")));
  EXPECT_TRUE(SimDisk::IsPowerCut(disk.List("dir").TakeStatus()));
  EXPECT_EQ(disk.PowerCut()->Contents(kPath), "");
}

TEST(SimDiskTest, TheCallCutShortMayStillSurvive) {
  SimDisk disk({.crash_at = 4, .survivors = Survivors::kAll});
  auto file = MakeFile(disk);
  EXPECT_FALSE(file->WriteAt(0, "x").ok());
  EXPECT_FALSE(file->WriteAt(1, "y").ok());  // after the crash: never
  EXPECT_EQ(disk.PowerCut()->Contents(kPath), "x");
}

TEST(SimDiskTest, RandomSurvivorsAreWholeSectorsOfUnsyncedWrites) {
  std::set<std::string> outcomes;
  for (uint64_t i = 0; i < 200; ++i) {
    SimDisk disk({.seed = Mix(TestSeed(), i), .survivors = Survivors::kRandom});
    auto file = MakeFile(disk);
    ASSERT_TRUE(file->WriteAt(0, std::string(1536, 'a')).ok());
    ASSERT_TRUE(file->SyncData().ok());
    ASSERT_TRUE(file->WriteAt(256, std::string(1024, 'b')).ok());
    const std::string found = disk.PowerCut()->Contents(kPath);
    EXPECT_EQ(found, disk.PowerCut()->Contents(kPath)) << "one disk, one outcome";
    ASSERT_EQ(found.size(), 1536u);
    for (const auto& [begin, end] :
         {std::pair{0, 256}, {256, 512}, {512, 1024}, {1024, 1280}, {1280, 1536}}) {
      const std::string part = found.substr(begin, end - begin);
      const bool written = part == std::string(part.size(), 'b');
      ASSERT_TRUE(written || part == std::string(part.size(), 'a'));
      ASSERT_TRUE(!written || (begin >= 256 && end <= 1280));
    }
    outcomes.insert(found);
  }
  EXPECT_EQ(outcomes.size(), 8u);  // any subset of three sectors
}

TEST(SimDiskTest, RandomSurvivorsOfNamesAreAnySubset) {
  std::set<std::vector<std::string>> outcomes;
  for (uint64_t i = 0; i < 200; ++i) {
    SimDisk disk({.seed = Mix(TestSeed(), i), .survivors = Survivors::kRandom});
    ASSERT_TRUE(disk.CreateDirectories("dir").ok());
    MustOpen(disk, "dir/a", OpenMode::kCreate);
    MustOpen(disk, "dir/b", OpenMode::kCreate);
    outcomes.insert(disk.PowerCut()->Paths());
  }
  EXPECT_EQ(outcomes.size(), 4u);
}

TEST(SimDiskTest, TearsOnlyTheLastWrite) {
  std::set<size_t> sizes;
  for (uint64_t i = 0; i < 200; ++i) {
    SimDisk disk({.seed = Mix(TestSeed(), i), .survivors = Survivors::kTorn});
    auto file = MakeFile(disk);
    ASSERT_TRUE(file->WriteAt(0, "first").ok());
    ASSERT_TRUE(file->WriteAt(5, "last").ok());
    const std::string found = disk.PowerCut()->Contents(kPath);
    ASSERT_EQ(found, std::string("firstlast").substr(0, found.size()));
    sizes.insert(found.size());
  }
  EXPECT_EQ(sizes, (std::set<size_t>{5, 6, 7, 8}));
}

TEST(SimDiskTest, FlipsBitsOnlyInWhatWasNotSynced) {
  for (uint64_t i = 0; i < 200; ++i) {
    SimDisk disk({.seed = Mix(TestSeed(), i), .survivors = Survivors::kAll, .flipped_bits = 1});
    auto file = MakeFile(disk);
    ASSERT_TRUE(file->WriteAt(0, "durable").ok());
    ASSERT_TRUE(file->SyncData().ok());
    ASSERT_TRUE(file->WriteAt(0, "durable and not").ok());
    const std::string found = disk.PowerCut()->Contents(kPath);
    ASSERT_EQ(found.substr(0, 7), "durable");
    ASSERT_NE(found, "durable and not");
  }
}

TEST(SimDiskTest, FailsTheCallItWasTold) {
  SimDisk disk({.faults = {{.calls = kWrite, .nth = 2, .error = EIO, .written = 0.5}}});
  auto file = MakeFile(disk);
  EXPECT_TRUE(file->WriteAt(0, "abcd").ok());
  const Status status = file->WriteAt(4, "efgh");
  EXPECT_EQ(status.system_errno(), EIO);
  EXPECT_EQ(status.message(), "cannot write dir/file: Input/output error");
  EXPECT_EQ(disk.Contents(kPath), "abcdef");
  EXPECT_TRUE(file->WriteAt(4, "efgh").ok());
  EXPECT_EQ(disk.failed_calls(), 1u);
}

TEST(SimDiskTest, FailsForEverInTheKindThatFailedFirst) {
  SimDisk disk({.faults = {{.nth = 4, .error = EROFS, .for_ever = true}}});
  auto file = MakeFile(disk);
  EXPECT_EQ(file->WriteAt(0, "x").system_errno(), EROFS);
  EXPECT_EQ(file->WriteAt(0, "x").system_errno(), EROFS);
  EXPECT_TRUE(file->SyncData().ok());
  disk.ClearFaults();
  EXPECT_TRUE(file->WriteAt(0, "x").ok());
}

TEST(SimDiskTest, ASyncAfterAFailedOneDoesNotSaveWhatTheFirstGaveUp) {
  SimDisk disk({.faults = {{.calls = kSync, .error = EIO}}});
  auto file = MakeFile(disk);
  ASSERT_TRUE(file->WriteAt(0, "aaaa").ok());
  ASSERT_FALSE(file->SyncData().ok());
  ASSERT_TRUE(file->WriteAt(4, "bbbb").ok());
  ASSERT_TRUE(file->SyncData().ok());
  EXPECT_EQ(disk.PowerCut()->Contents(kPath), std::string_view("\0\0\0\0bbbb", 8));
  ASSERT_TRUE(file->WriteAt(0, "cccc").ok());  // written again, it is saved
  ASSERT_TRUE(file->SyncData().ok());
  EXPECT_EQ(disk.PowerCut()->Contents(kPath), "ccccbbbb");
}

TEST(SimDiskTest, FillsUpAndGetsSpaceBack) {
  SimDisk disk({.capacity = 2 * SimDisk::kBlockBytes});
  auto file = MakeFile(disk);
  EXPECT_EQ(*disk.FreeBytes("dir"), 2 * SimDisk::kBlockBytes);
  EXPECT_EQ(file->WriteAt(100, std::string(3 * SimDisk::kBlockBytes, 'x')).system_errno(), ENOSPC);
  EXPECT_EQ(*file->Size(), 2 * SimDisk::kBlockBytes);  // a short write
  EXPECT_EQ(*disk.FreeBytes("dir"), 0u);
  EXPECT_TRUE(file->WriteAt(0, "rewriting needs no space").ok());
  auto other = MakeFile(disk, "dir/other");
  EXPECT_EQ(other->WriteAt(0, "x").system_errno(), ENOSPC);
  ASSERT_TRUE(disk.Remove(kPath).ok());
  EXPECT_EQ(other->WriteAt(0, "x").system_errno(), ENOSPC);  // still open
  file.reset();
  EXPECT_TRUE(other->WriteAt(0, "x").ok());
}

TEST(SimDiskTest, LocksADirectoryOnce) {
  SimDisk disk;
  auto lock = disk.Lock("dir");
  ASSERT_TRUE(lock.ok());
  EXPECT_EQ(disk.Lock("dir/").system_errno(), EWOULDBLOCK);
  lock = Status::Error("dropped");
  EXPECT_TRUE(disk.Lock("dir").ok());
}

TEST(SimDiskTest, DamagesAFileOnRequest) {
  SimDisk disk;
  disk.PutFile(kPath, std::string(1000, 'a'));
  disk.FlipBit(kPath, 8 * 3 + 1);
  EXPECT_EQ(disk.Contents(kPath)[3], 'c');
  disk.ZeroSector(kPath, 1);
  EXPECT_EQ(disk.Contents(kPath).substr(511, 2), std::string_view("a\0", 2));
  disk.Cut(kPath, 10);
  EXPECT_EQ(disk.PowerCut()->Contents(kPath).size(), 10u);
  disk.SetLinkCount(kPath, 2);
  EXPECT_EQ(*disk.LinkCount(kPath), 2u);
  disk.RemoveFile(kPath);
  EXPECT_FALSE(disk.Exists(kPath));
}

TEST(SimDiskTest, AMappingShowsWhatWasLoadedAndStaysAsItWas) {
  SimDisk disk;
  auto file = MakeFile(disk);
  const std::string bytes(3 * SimDisk::kBlockBytes + 10, 'x');
  ASSERT_TRUE(file->WriteAt(0, bytes).ok());
  auto mapping = file->Map();
  ASSERT_TRUE(mapping.ok());
  const std::string_view shown = (*mapping)->bytes();
  ASSERT_EQ(shown.size(), bytes.size());
  EXPECT_EQ(shown.find('x'), shown.npos);
  ASSERT_TRUE(file->WriteAt(0, std::string(bytes.size(), 'y')).ok());
  ASSERT_TRUE((*mapping)->Load(2 * SimDisk::kBlockBytes, bytes.size()).ok());
  EXPECT_EQ(shown.find_first_not_of('\0'), 2 * SimDisk::kBlockBytes);
  EXPECT_EQ(shown.substr(2 * SimDisk::kBlockBytes), bytes.substr(2 * SimDisk::kBlockBytes));
  ASSERT_TRUE((*mapping)->Load(0, 1).ok());
  EXPECT_EQ(shown.substr(0, 1), "x");
}

}  // namespace
}  // namespace crab::test

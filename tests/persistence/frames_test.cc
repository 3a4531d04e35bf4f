#include "persistence/frames.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

std::unique_ptr<wal::File> OpenBytes(SimDisk& disk, std::string bytes) {
  EXPECT_TRUE(disk.CreateDirectories("wal").ok());
  disk.PutFile("wal/segment", std::move(bytes));
  return disk.Open("wal/segment", wal::OpenMode::kRead).value();
}

// Among packed bytes a length is often possible. Were all that it spans checksummed each time, one
// damaged bit in a large value would take minutes.
TEST(FramesTest, ChecksumsLittleOfPackedBytesToFindWhatFollows) {
  constexpr size_t kNoiseBytes = 8 << 20;
  wal::SegmentInfo segment;
  segment.flags = wal::kFlagCompressed;
  segment.salt = 7;
  std::string bytes(wal::kSegmentHeaderBytes + kNoiseBytes, '\0');
  for (size_t at = wal::kSegmentHeaderBytes; at < bytes.size(); at += sizeof(uint64_t)) {
    const uint64_t word = Mix(1, at);
    std::memcpy(bytes.data() + at, &word, sizeof(word));
  }
  const uint64_t place = bytes.size();
  const std::string payload(sizeof(wal::PackPayload), 'x');
  wal::FrameHeader header = {};
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = 12;
  header.type = static_cast<uint8_t>(wal::FrameType::kPack);
  header.shard = wal::kBroadcastShard;
  header.crc = wal::BodyCrc(header, payload);
  std::string frame;
  wal::AppendFrame(frame, header, payload, segment.salt, place);
  bytes += frame;

  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories("wal").ok());
  disk.PutFile("wal/segment", bytes);
  auto file = disk.Open("wal/segment", wal::OpenMode::kRead);
  ASSERT_TRUE(file.ok());
  segment.file_bytes = bytes.size();
  wal::Frames frames;
  frames.Reset(std::move(*file), segment);
  wal::Frames::Candidate found;
  const auto at = frames.Find(wal::kSegmentHeaderBytes, {2, wal::kSegmentHeaderBytes}, &found);
  ASSERT_TRUE(at.ok()) << at.message();
  EXPECT_EQ(*at, place);
  EXPECT_TRUE(found.good);
  EXPECT_LT(frames.checked_bytes(), 4096u);
}

// What seems to be a large frame makes the window move, and once it is back the block is a hole.
TEST(FramesTest, LooksBehindABlockThatIsReadOnceAndFailsAfterwards) {
  constexpr uint64_t kBlock = wal::Window::kBlockBytes;
  constexpr uint64_t kPlace = wal::kSegmentHeaderBytes;
  wal::SegmentInfo segment;
  segment.salt = 7;
  std::string bytes(kPlace + (4 << 20), 'x');
  wal::FrameHeader header = {};
  header.length = 2 << 20;
  header.lsn = 2;
  header.type = static_cast<uint8_t>(wal::FrameType::kEffect);
  std::memcpy(bytes.data() + kPlace + 16, &header, sizeof(header));
  const uint64_t place = kPlace + 3 * kBlock;
  header.length = 5;
  header.crc = wal::BodyCrc(header, "bytes");
  std::string frame;
  wal::AppendFrame(frame, header, "bytes", segment.salt, place);
  bytes.replace(place, frame.size(), frame);

  // The first block of what is searched, or the second, of which the scan sees a part.
  for (const uint64_t broken : {kPlace, kPlace + kBlock}) {
    SCOPED_TRACE(broken);
    SimDisk disk;
    segment.file_bytes = bytes.size();
    wal::Frames frames;
    frames.Reset(OpenBytes(disk, bytes), segment);
    ASSERT_TRUE(frames.Try(kPlace).ok());  // what is searched has been read
    disk.BreakSector("wal/segment", broken / SimDisk::kSectorBytes + 1);
    wal::Frames::Candidate found;
    const auto at = frames.Find(kPlace, {2, kPlace}, &found);
    ASSERT_TRUE(at.ok()) << at.message();
    EXPECT_EQ(*at, place);
    EXPECT_TRUE(found.good);
  }
}

TEST(WindowTest, SeesAllAroundABlockThatCannotBeRead) {
  std::string bytes(3 << 20, '\0');
  for (size_t at = 0; at < bytes.size(); ++at) bytes[at] = static_cast<char>(Mix(1, at));
  for (const uint64_t hole : {0u, 1u, 100u, 255u, 256u, 767u}) {
    SCOPED_TRACE(hole);
    SimDisk disk;
    wal::Window window;
    window.Reset(OpenBytes(disk, bytes), bytes.size());
    constexpr uint64_t kBlock = wal::Window::kBlockBytes;
    disk.BreakSector("wal/segment", hole * kBlock / SimDisk::kSectorBytes + 3);
    std::string seen;
    while (seen.size() < bytes.size()) {
      const auto view = window.At(seen.size(), 1000);
      ASSERT_TRUE(view.ok()) << view.message();
      seen.append(*view);
      if (!window.IsUnreadable(seen.size())) continue;
      ASSERT_EQ(seen.size(), hole * kBlock);
      ASSERT_EQ(window.BehindUnreadable(seen.size()), (hole + 1) * kBlock);
      seen += bytes.substr(seen.size(), kBlock);
    }
    EXPECT_EQ(seen, bytes);
    // From before it and back again.
    const uint64_t before = hole * kBlock - std::min<uint64_t>(hole, 1) * 100;
    EXPECT_EQ(window.At(before, 5000).value(),
              std::string_view(bytes).substr(before, hole ? 100 : 0));
  }
}

TEST(WindowTest, GivesUpAFileOfWhichTooMuchCannotBeRead) {
  constexpr uint64_t kBlock = wal::Window::kBlockBytes;
  const std::string bytes((wal::Window::kUnreadableBlocksMax + 1) * kBlock, 'x');
  SimDisk disk;
  wal::Window window;
  window.Reset(OpenBytes(disk, bytes), bytes.size());
  disk.AddFault({.calls = kRead, .error = EIO, .for_ever = true});
  for (uint64_t block = 0; block < wal::Window::kUnreadableBlocksMax; ++block) {
    ASSERT_EQ(window.At(block * kBlock, 10).value(), "");
  }
  EXPECT_EQ(window.At(bytes.size() - 1, 1).system_errno(), EIO);
}

}  // namespace
}  // namespace crab::test

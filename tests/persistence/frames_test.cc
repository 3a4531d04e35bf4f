#include "persistence/frames.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

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

}  // namespace
}  // namespace crab::test

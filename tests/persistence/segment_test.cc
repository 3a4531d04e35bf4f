#include "persistence/segment.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "utils/crc32c.h"

namespace crab::wal {
namespace {

SegmentInfo Example() {
  SegmentInfo info;
  info.number = 0x0301;
  info.format_version = 1;
  info.min_reader_version = 1;
  info.identity.log_id = 0x1111111111111111;
  info.identity.hash_seed = 0x2222222222222222;
  info.identity.shard_count = 1024;
  std::memset(info.identity.replication_id, 'f', sizeof(info.identity.replication_id));
  info.epoch = 5;
  info.created_at_ms = 1700000000000;
  info.first_lsn = 77;
  info.durable_lsn = 70;
  info.salt = 0x3333333333333333;
  info.replication_offset = 6;
  info.predecessor_number = 0x0300;
  info.predecessor_last_lsn = 76;
  info.predecessor_crc = 0x44444444;
  info.ring_epoch = 4;
  return info;
}

template <typename T>
T At(const std::string& bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

TEST(SegmentTest, NamesSortLikeNumbers) {
  EXPECT_EQ(SegmentName(1), "wal-00000000000000000001.log");
  EXPECT_EQ(SegmentNumber("wal-00000000000000000010.log"), 10u);
  EXPECT_LT(SegmentName(9), SegmentName(10));
  for (const char* name : {"wal-1.log", "wal-0000000000000000001x.log", "spare.zero", "lock",
                           "wal-00000000000000000001.log.torn", "wal-00000000000000000001.tmp",
                           "wal-18446744073709551615.log", "wal-18446744073709551617.log"}) {
    EXPECT_FALSE(SegmentNumber(name)) << name;
  }
}

TEST(SegmentTest, HeaderHasTheBytesOfTheSpecification) {
  const std::string bytes = EncodeSegmentHeader(Example());
  ASSERT_EQ(bytes.size(), 4096u);
  EXPECT_EQ(bytes.substr(0, 8), "CRABWAL\n");
  EXPECT_EQ(At<uint32_t>(bytes, 8), 1u);
  EXPECT_EQ(At<uint32_t>(bytes, 12), 1u);
  EXPECT_EQ(At<uint32_t>(bytes, 16), 4096u);
  EXPECT_EQ(At<uint64_t>(bytes, 24), 0x1111111111111111u);
  EXPECT_EQ(At<uint64_t>(bytes, 32), 5u);
  EXPECT_EQ(At<uint64_t>(bytes, 40), 0x0301u);
  EXPECT_EQ(At<uint64_t>(bytes, 48), 1700000000000u);
  EXPECT_EQ(At<uint64_t>(bytes, 56), 77u);
  EXPECT_EQ(At<uint64_t>(bytes, 64), 70u);
  EXPECT_EQ(At<uint64_t>(bytes, 72), 0x3333333333333333u);
  EXPECT_EQ(At<uint64_t>(bytes, 80), 0x2222222222222222u);
  EXPECT_EQ(At<uint32_t>(bytes, 88), 1024u);
  EXPECT_EQ(At<uint32_t>(bytes, 92), 0x44444444u);
  EXPECT_EQ(At<uint64_t>(bytes, 96), 0x0300u);
  EXPECT_EQ(At<uint64_t>(bytes, 104), 76u);
  EXPECT_EQ(At<uint64_t>(bytes, 112), 6u);
  EXPECT_EQ(bytes.substr(120, 40), std::string(40, 'f'));
  EXPECT_EQ(At<uint64_t>(bytes, 160), 4u);
  EXPECT_EQ(bytes.substr(168, 3924), std::string(3924, '\0'));
  EXPECT_EQ(At<uint32_t>(bytes, 4092), Crc32c(bytes.substr(0, 4092)));
}

TEST(SegmentTest, HeaderComesBackAsItWas) {
  const SegmentInfo before = Example();
  SegmentInfo after;
  after.number = before.number;
  DecodeSegmentHeader(EncodeSegmentHeader(before), &after);
  EXPECT_EQ(after.problem, "");
  EXPECT_EQ(EncodeSegmentHeader(after), EncodeSegmentHeader(before));
}

TEST(SegmentTest, RefusesEveryFlippedBitAndEveryShorterHeader) {
  const std::string good = EncodeSegmentHeader(Example());
  for (size_t bit = 0; bit < good.size() * 8; bit += bit < 2048 ? 1 : 97) {
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << bit % 8));
    SegmentInfo info;
    info.number = 0x0301;
    DecodeSegmentHeader(bad, &info);
    ASSERT_NE(info.problem, "") << "bit " << bit;
  }
  for (size_t size = 0; size < good.size(); size += 13) {
    SegmentInfo info;
    info.number = 0x0301;
    DecodeSegmentHeader(good.substr(0, size), &info);
    ASSERT_NE(info.problem, "") << size << " bytes";
  }
}

TEST(SegmentTest, RefusesAHeaderUnderAnotherNumber) {
  SegmentInfo info;
  info.number = 9;
  DecodeSegmentHeader(EncodeSegmentHeader(Example()), &info);
  EXPECT_EQ(info.problem, "the header names segment 769");
}

}  // namespace
}  // namespace crab::wal

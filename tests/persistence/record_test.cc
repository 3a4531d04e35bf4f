#include "persistence/record.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <set>
#include <string>

#include "utils/crc32c.h"

namespace crab::wal {
namespace {

std::string Hex(std::string_view bytes) {
  std::string hex;
  for (const char byte : bytes) {
    char digits[3];
    std::snprintf(digits, sizeof(digits), "%02x", static_cast<unsigned char>(byte));
    hex += digits;
  }
  return hex;
}

std::string Frame(uint8_t type, Lsn lsn, uint16_t shard, std::string_view payload, uint64_t salt,
                  uint64_t offset) {
  FrameHeader header = {};
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = lsn;
  header.type = type;
  header.shard = shard;
  header.crc = BodyCrc(header, payload);
  std::string out;
  AppendFrame(out, header, payload, salt, offset);
  return out;
}

TEST(Crc32cTest, KnowsTheStandardsExample) {
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
}

TEST(Crc32cTest, ContinuesWhereTheBytesBeforeEnded) {
  std::string bytes;
  for (int i = 0; i < 2000; ++i) bytes += static_cast<char>(i * 37 + i / 251);
  const uint32_t whole = Crc32cLong(bytes, 0);
  for (size_t cut = 0; cut <= bytes.size(); ++cut) {
    ASSERT_EQ(Crc32c(bytes.substr(cut), Crc32c(bytes.substr(0, cut))), whole) << cut;
  }
}

TEST(RecordTest, HasTheBytesOfTheSpecification) {
  // FORMAT.md: checksum, length, LSN, type, flags, shard, payload, padding.
  const std::string frame = Frame(1, 0x0102030405060708, 0x0a0b, "payload", 0, 0);
  EXPECT_EQ(Hex(frame.substr(4)),
            "07000000"
            "0807060504030201"
            "01"
            "00"
            "0b0a"
            "7061796c6f6164"
            "0000000000");
  uint32_t crc = 0;
  std::memcpy(&crc, frame.data(), sizeof(crc));
  EXPECT_EQ(crc, Crc32c(frame.substr(4)) ^ PlaceMix(0, 0));
  EXPECT_EQ(PlaceMix(0, 0), 0u);
  EXPECT_EQ(Hex(frame.substr(0, 4)), "05c0072d");
  EXPECT_EQ(Hex(Frame(1, 1, 7, "x", 0x1122334455667788, 4096).substr(0, 4)), "636fb007");
  EXPECT_EQ(PlaceMix(0x1122334455667788, 4096), 0xd2ecdb23u);
}

TEST(RecordTest, PadsToTheNextMultipleOfEight) {
  for (size_t length = 0; length < 100; ++length) {
    const std::string frame = Frame(1, 1, 0, std::string(length, 'x'), 1, 8);
    ASSERT_EQ(frame.size(), FrameBytes(length));
    ASSERT_EQ(frame.size() % kFrameAlignment, 0u);
    ASSERT_LT(frame.size(), length + sizeof(FrameHeader) + kFrameAlignment);
    ASSERT_TRUE(frame.ends_with(std::string(frame.size() - sizeof(FrameHeader) - length, '\0')));
  }
}

TEST(RecordTest, ChecksumCoversEveryByteBehindItWhateverTheLength) {
  for (size_t length = 0; length < 300; ++length) {
    std::string payload;
    for (size_t i = 0; i < length; ++i) payload += static_cast<char>(i * 41 + length);
    const std::string frame = Frame(2, length + 9, 5, payload, 0, 0);
    uint32_t crc = 0;
    std::memcpy(&crc, frame.data(), sizeof(crc));
    ASSERT_EQ(crc, Crc32c(frame.substr(4))) << length;
  }
}

TEST(RecordTest, ChecksumsDifferInEveryPlace) {
  std::set<uint32_t> mixes;
  for (uint64_t salt = 0; salt < 50; ++salt) {
    for (uint64_t offset = 0; offset < 50; ++offset) mixes.insert(PlaceMix(salt, offset * 8));
  }
  EXPECT_GE(mixes.size(), 2499u);  // one accident in 2^32 is allowed
}

TEST(RecordTest, CostsAtMost36BytesOfFramingAt16RecordsABatch) {
  for (size_t length = 1; length < 64; ++length) {
    const uint64_t framing = FrameBytes(sizeof(BatchPayload)) + 16 * (FrameBytes(length) - length);
    EXPECT_LE(framing, 16 * 36u);
  }
}

TEST(RecordTest, NamesEveryType) {
  for (const uint8_t type : {1, 2, 3, 4, 5, 16, 17, 18, 19}) {
    EXPECT_STRNE(FrameTypeName(type), "unknown") << int{type};
    EXPECT_EQ(IsRecord(type), type < 16);
  }
  EXPECT_STREQ(FrameTypeName(200), "unknown");
}

}  // namespace
}  // namespace crab::wal

#include "persistence/codec.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <set>
#include <string>

#include "tests/support/seed.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

using test::Mix;
using test::TestSeed;

const std::string kKeyA = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const std::string kKeyB = std::string(64, 'b');

// A file of keys, gone with the object.
class KeyFile {
 public:
  explicit KeyFile(const std::string& text) {
    char name[] = "/tmp/crab-keys-XXXXXX";
    close(mkstemp(name));
    path_ = name;
    std::ofstream(path_) << text;
  }
  ~KeyFile() { unlink(path_.c_str()); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::shared_ptr<const KeyRing> Keys(const std::string& text) {
  const KeyFile file(text);
  return KeyRing::Load(file.path()).value();
}

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

// Text that every algorithm makes smaller.
std::string SomeText(Random& random, size_t size) {
  std::string text;
  while (text.size() < size) {
    text += "key:" + std::to_string(random.Below(1000)) + " value " + std::to_string(random.Next());
  }
  text.resize(size);
  return text;
}

std::string Noise(Random& random, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(random.Next());
  return bytes;
}

constexpr Compression kEveryCompression[] = {Compression::kNone, Compression::kLz4,
                                             Compression::kZstd};

TEST(CodecTest, WithoutCompressionAndKeysBytesStayWhereTheyAre) {
  Codec codec(Compression::kNone, nullptr);
  std::string packed = "before ";
  uint8_t flags = 99;
  ASSERT_TRUE(codec.Pack("plain", "context", &packed, &flags).ok());
  EXPECT_EQ(packed, "before plain");
  EXPECT_EQ(flags, 0);
  std::string scratch;
  auto plain = codec.Unpack(packed, "other", 0, 100, &scratch);
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->data(), packed.data());
}

TEST(CodecTest, WhatWasPackedComesBack) {
  for (const Compression compression : kEveryCompression) {
    for (const bool encrypted : {false, true}) {
      SCOPED_TRACE(testing::Message() << CompressionName(compression) << " encrypted " << encrypted
                                      << " seed " << TestSeed());
      const auto keys = encrypted ? Keys(kKeyA) : nullptr;
      Codec writer(compression, keys);
      Codec reader(Compression::kNone, keys);  // reads whatever was written
      Random random(TestSeed());
      std::string scratch;
      for (const size_t size : {0, 1, 2, 3, 10, 100, 4096, 70000, 6 << 20}) {
        for (const bool noise : {false, true}) {
          const std::string plain = noise ? Noise(random, size) : SomeText(random, size);
          std::string packed = "before";
          uint8_t flags;
          ASSERT_TRUE(writer.Pack(plain, "place", &packed, &flags).ok());
          ASSERT_TRUE(packed.starts_with("before"));
          packed.erase(0, 6);
          EXPECT_EQ((flags & kFlagEncrypted) != 0, encrypted);
          const bool compressible = compression != Compression::kNone && !noise && size >= 4096;
          EXPECT_TRUE(!compressible || packed.size() < size / 5 * 4) << packed.size();
          EXPECT_TRUE(!noise || (flags & kFlagCompressed) == 0);
          EXPECT_LE(packed.size(), size + 36);
          auto unpacked = reader.Unpack(packed, "place", flags, size, &scratch);
          ASSERT_TRUE(unpacked.ok()) << unpacked.message() << " at size " << size;
          ASSERT_TRUE(*unpacked == plain);
          if (size == 0) continue;
          auto refused = reader.Unpack(packed, "place", flags, size - 1, &scratch);
          EXPECT_EQ(refused.system_errno(), EBADMSG) << "at size " << size;
        }
      }
    }
  }
}

TEST(CodecTest, ReadsTheBytesOfTheSpecification) {
  Codec codec(Compression::kNone, Keys(kKeyA));
  std::string scratch;
  // LZ4: one literal, a match of 18, five literals. Zstandard: a frame of one RLE block.
  auto lz4 = codec.Unpack(FromHex("011e730100507373737373"), "", kFlagCompressed, 24, &scratch);
  ASSERT_TRUE(lz4.ok()) << lz4.message();
  EXPECT_EQ(*lz4, std::string(24, 's'));
  auto zstd = codec.Unpack(FromHex("0228b52ffd2018c3000073"), "", kFlagCompressed, 24, &scratch);
  ASSERT_TRUE(zstd.ok()) << zstd.message();
  EXPECT_EQ(*zstd, std::string(24, 's'));
  // Nonce, tag, key id, ciphertext; made by another implementation of AES-256-GCM.
  const std::string sealed = FromHex(
      "000102030405060708090a0b"
      "ac66298d74125aa3186440da7fb8688b"
      "b6ce12807df444c3"
      "2f67ba77aac9e278ff20f5");
  auto opened = codec.Unpack(sealed, "the place", kFlagEncrypted, 11, &scratch);
  ASSERT_TRUE(opened.ok()) << opened.message();
  EXPECT_EQ(*opened, "hello, crab");
}

TEST(CodecTest, NoTwoPiecesAreSealedWithTheSameNonce) {
  Codec codec(Compression::kNone, Keys(kKeyA));
  std::set<std::string> nonces;
  for (int i = 0; i < 1000; ++i) {
    std::string packed;
    uint8_t flags;
    ASSERT_TRUE(codec.Pack("the same bytes", "", &packed, &flags).ok());
    nonces.insert(packed.substr(0, 12));
  }
  EXPECT_EQ(nonces.size(), 1000u);
}

TEST(CodecTest, ASealedPieceIsGoodOnlyInItsPlace) {
  for (const Compression compression : {Compression::kNone, Compression::kZstd}) {
    Codec codec(compression, Keys(kKeyA));
    const std::string plain(100, 'p');
    std::string packed, scratch;
    uint8_t flags;
    ASSERT_TRUE(codec.Pack(plain, "here", &packed, &flags).ok());
    EXPECT_EQ(codec.Unpack(packed, "there", flags, 100, &scratch).system_errno(), EBADMSG);
    EXPECT_EQ(codec.Unpack(packed, "", flags, 100, &scratch).system_errno(), EBADMSG);
    // The flags are part of it: compressed bytes cannot be passed off as plain ones.
    EXPECT_EQ(codec.Unpack(packed, "here", flags ^ kFlagCompressed, 100, &scratch).system_errno(),
              EBADMSG);
    for (size_t bit = 0; bit < packed.size() * 8; ++bit) {
      std::string flipped = packed;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      auto unpacked = codec.Unpack(flipped, "here", flags, 100, &scratch);
      ASSERT_FALSE(unpacked.ok()) << "bit " << bit;
      const bool of_key_id = bit / 8 >= 28 && bit / 8 < 36;
      ASSERT_EQ(unpacked.system_errno(), of_key_id ? ENOKEY : EBADMSG) << "bit " << bit;
    }
    for (size_t size = 0; size < packed.size(); ++size) {
      ASSERT_EQ(
          codec.Unpack(std::string(packed, 0, size), "here", flags, 100, &scratch).system_errno(),
          EBADMSG);
    }
    auto good = codec.Unpack(packed, "here", flags, 100, &scratch);
    ASSERT_TRUE(good.ok());
    EXPECT_EQ(*good, plain);
  }
}

TEST(CodecTest, OldKeysReadAndTheFirstWrites) {
  Codec old_writer(Compression::kLz4, Keys(kKeyA));
  const auto both = Keys(kKeyB + "\n" + kKeyA + "\n");
  Codec codec(Compression::kLz4, both);
  std::string with_a, with_b, scratch;
  uint8_t flags_a, flags_b;
  const std::string plain(1000, 'p');
  ASSERT_TRUE(old_writer.Pack(plain, "", &with_a, &flags_a).ok());
  ASSERT_TRUE(codec.Pack(plain, "", &with_b, &flags_b).ok());
  for (int i = 0; i < 3; ++i) {  // in turns: the context changes its key each time
    EXPECT_EQ(codec.Unpack(with_a, "", flags_a, 1000, &scratch).value(), plain);
    EXPECT_EQ(codec.Unpack(with_b, "", flags_b, 1000, &scratch).value(), plain);
  }
  auto refused = old_writer.Unpack(with_b, "", flags_b, 1000, &scratch);
  EXPECT_EQ(refused.system_errno(), ENOKEY);
  EXPECT_NE(refused.message().find("wal.encryption_key_file does not hold"), std::string::npos);
  Codec without(Compression::kNone, nullptr);
  EXPECT_EQ(without.Unpack(with_a, "", flags_a, 1000, &scratch).system_errno(), ENOKEY);
  EXPECT_EQ(codec.Unpack(with_a, "", flags_a, 1000, &scratch).value(), plain);
}

TEST(CodecTest, DamagedCompressionIsRefusedOrWithinItsBounds) {
  for (const Compression compression : {Compression::kLz4, Compression::kZstd}) {
    SCOPED_TRACE(CompressionName(compression));
    Codec codec(compression, nullptr);
    Random random(Mix(TestSeed(), 7));
    const std::string plain = SomeText(random, 600);
    std::string packed, scratch;
    uint8_t flags;
    ASSERT_TRUE(codec.Pack(plain, "", &packed, &flags).ok());
    ASSERT_EQ(flags, kFlagCompressed);
    const auto unpack = [&](const std::string& bytes) {
      auto unpacked = codec.Unpack(bytes, "", flags, plain.size(), &scratch);
      if (unpacked.ok()) {
        EXPECT_LE(unpacked->size(), plain.size());
      } else {
        EXPECT_EQ(unpacked.system_errno(), EBADMSG);
      }
    };
    for (size_t size = 0; size < packed.size(); ++size) unpack(packed.substr(0, size));
    for (size_t bit = 0; bit < packed.size() * 8; ++bit) {
      std::string flipped = packed;
      flipped[bit / 8] = static_cast<char>(flipped[bit / 8] ^ (1 << bit % 8));
      unpack(flipped);
    }
    for (int i = 0; i < 2000; ++i) unpack(packed.substr(0, 1) + Noise(random, random.Below(100)));
  }
}

TEST(CodecTest, AStatedSizeTakesNoMemoryThatTheBytesCannotFill) {
  for (const char* packed : {"01"
                             "1e7301005073737373",
                             "02"
                             "28b52ffda0ffffffffc3000073"}) {
    Codec codec(Compression::kNone, nullptr);
    std::string scratch;
    auto unpacked = codec.Unpack(FromHex(packed), "", kFlagCompressed, uint64_t{3} << 30, &scratch);
    EXPECT_EQ(unpacked.system_errno(), EBADMSG);
    EXPECT_LT(scratch.capacity(), 1u << 20);
  }
}

TEST(CodecTest, RefusesWhatALaterVersionMayWrite) {
  Codec codec(Compression::kNone, nullptr);
  std::string scratch;
  EXPECT_EQ(codec.Unpack("bytes", "", 4, 100, &scratch).system_errno(), EBADMSG);
  EXPECT_EQ(codec.Unpack("\x03yes", "", kFlagCompressed, 100, &scratch).system_errno(), EBADMSG);
}

TEST(KeyRingTest, WithoutAFileThereIsNoKey) {
  auto ring = KeyRing::Load("");
  ASSERT_TRUE(ring.ok());
  EXPECT_TRUE((*ring)->empty());
  EXPECT_EQ((*ring)->current_id(), 0u);
}

TEST(KeyRingTest, ReadsKeysBetweenCommentsAndEmptyLines) {
  auto ring = Keys("# of this year\r\n  " + kKeyA + " \r\n\n\t# of the last\n" + kKeyB);
  // The first 8 bytes of the SHA-256 of "crabcache-key" and the key.
  EXPECT_EQ(ring->current_id(), 0xc344f47d8012ceb6u);
  EXPECT_TRUE(ring->Has(Keys(kKeyB)->current_id()));
  EXPECT_FALSE(ring->Has(Keys(std::string(64, 'c'))->current_id()));
  EXPECT_FALSE(ring->Has(0));
  EXPECT_EQ(Keys(std::string(64, 'B'))->current_id(), Keys(kKeyB)->current_id());
}

TEST(KeyRingTest, AnErrorNamesFileAndLineAndNeverAKey) {
  struct {
    std::string text, line, why;
  } const cases[] = {
      {"", "", "holds no key"},
      {"# none\n\n", "", "holds no key"},
      {kKeyA + "\n" + kKeyA.substr(1) + "\n", ":2: ", "this line has 63 characters"},
      {"\n\n" + kKeyB + "0\n", ":3: ", "this line has 65 characters"},
      {kKeyA.substr(0, 63) + "g", ":1: ", "character 64 of the key is no hexadecimal digit"},
      {std::string(64, ' ').replace(0, 1, "x").replace(63, 1, "x"), ":1: ", "character 1 of"},
      {std::string(300 << 10, '#'), "", "larger than a file of keys can be"},
  };
  for (const auto& row : cases) {
    SCOPED_TRACE(row.why);
    const KeyFile file(row.text);
    auto ring = KeyRing::Load(file.path());
    ASSERT_FALSE(ring.ok());
    EXPECT_EQ(ring.message().find(file.path() + row.line), 0u) << ring.message();
    EXPECT_NE(ring.message().find(row.why), std::string::npos) << ring.message();
    EXPECT_EQ(ring.message().find(kKeyA.substr(1, 8)), std::string::npos);
    EXPECT_EQ(ring.message().find("bbbb"), std::string::npos);
  }
  const auto missing = KeyRing::Load("/nowhere/keys");
  EXPECT_EQ(missing.system_errno(), ENOENT);
  EXPECT_NE(missing.message().find("/nowhere/keys"), std::string::npos);
  std::string many;
  for (int i = 0; i < 1025; ++i) many += kKeyA + "\n";
  const KeyFile file(many);
  EXPECT_NE(KeyRing::Load(file.path()).message().find(":1025: more than 1024 keys"),
            std::string::npos);
}

}  // namespace
}  // namespace crab::wal

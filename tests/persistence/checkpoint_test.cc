#include "persistence/checkpoint.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "persistence/record.h"
#include "tests/support/remove_old_checkpoints.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "utils/crc32c.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

using test::kEverySurvivors;
using test::Mix;
using test::RemoveOldCheckpoints;
using test::SimDisk;
using test::Survivors;
using test::SurvivorsName;
using test::TestSeed;

constexpr char kDirectory[] = "wal";
constexpr Lsn kLsn = 17;

struct TestChunk {
  uint16_t shard;
  std::string effects;
  uint64_t entries;
};
// What a reader finds: the chunks of each shard, in order.
using Contents = std::map<uint16_t, std::vector<std::string>>;

Contents ContentsOf(const std::vector<TestChunk>& chunks) {
  Contents contents;
  for (const TestChunk& chunk : chunks) contents[chunk.shard].push_back(chunk.effects);
  return contents;
}

std::vector<TestChunk> SmallChunks() {
  return {{3, "three", 2}, {700, std::string(24, 's'), 1}, {3, "more", 1}};
}

// Chunks of every kind of size: without bytes, small, larger than what is written at once.
std::vector<TestChunk> ManyChunks(uint64_t seed) {
  Random random(Mix(TestSeed(), seed));
  std::vector<TestChunk> chunks;
  for (uint32_t i = 0; i < 60; ++i) {
    const uint64_t size = i == 7 ? (3 << 20) + 1 : i == 9 ? 0 : random.Below(i % 2 ? 200 : 300000);
    std::string effects;
    while (effects.size() < size) {
      effects += "SET key:" + std::to_string(random.Below(1000)) + std::to_string(random.Next());
    }
    effects.resize(size);
    const auto shard = static_cast<uint16_t>(random.Below(12) * 93);
    chunks.push_back({shard, std::move(effects), random.Below(100)});
  }
  return chunks;
}

CheckpointInfo Example(Lsn lsn = kLsn) {
  CheckpointInfo info;
  info.lsn = lsn;
  info.identity.log_id = 0x1111;
  info.identity.hash_seed = 0x2222;
  info.identity.shard_count = 1024;
  std::memset(info.identity.replication_id, 'a', sizeof(info.identity.replication_id));
  info.replication_offset = 99;
  info.shard_by_hashtag = true;
  info.created_at_ms = 1700000000000;
  return info;
}

std::string PathOf(Lsn lsn) { return std::string(kDirectory) + "/" + CheckpointName(lsn); }

std::shared_ptr<const KeyRing> Keys(const std::string& text) {
  char name[] = "/tmp/crab-keys-XXXXXX";
  close(mkstemp(name));
  std::ofstream(name) << text;
  auto keys = KeyRing::Load(name);
  unlink(name);
  return std::move(keys).value();
}
std::shared_ptr<const KeyRing> SomeKeys() {
  static const auto keys = Keys(std::string(64, 'a'));
  return keys;
}

Status WriteCheckpoint(Disk& disk, Lsn lsn, const std::vector<TestChunk>& chunks,
                       Compression compression = Compression::kNone,
                       std::shared_ptr<const KeyRing> keys = nullptr) {
  TRY(disk.CreateDirectories(kDirectory));
  const auto writer =
      TRY(CheckpointWriter::Create(disk, kDirectory, Example(lsn), compression, std::move(keys)));
  for (const TestChunk& chunk : chunks) {
    TRY(writer->Add(chunk.shard, chunk.effects, chunk.entries));
  }
  TRY(writer->Finish());
  return writer->Publish();
}

// Everything in a checkpoint, or what is wrong with it.
Result<Contents> ReadCheckpoint(Disk& disk, const std::string& path,
                                std::shared_ptr<const KeyRing> keys = nullptr) {
  const auto reader = TRY(CheckpointReader::Open(disk, path, std::move(keys)));
  Contents contents;
  TRY(reader->ForEachChunk(0, 1 << 16, [&](uint16_t shard, std::string_view effects) {
    contents[shard].emplace_back(effects);
    return Status::Ok();
  }));
  TRY(reader->Verify({}));
  return contents;
}

std::string ErrorOf(Status status) { return std::string(status.message()); }

std::string FromHex(std::string_view hex) {
  std::string bytes;
  for (size_t i = 0; i < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  }
  return bytes;
}

template <typename T>
T At(std::string_view bytes, size_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(value));
  return value;
}

// A file made by hand from FORMAT.md alone, by another program: the header's bytes that are not
// zero, two chunks of shard 3 around a compressed one of shard 700, index, end.
std::string GoldenFile() {
  std::string file = FromHex(
                         "43524142434b500a"
                         "02000000"
                         "02000000"
                         "00100000"
                         "04000000"
                         "1111000000000000"
                         "1100000000000000"
                         "0068e5cf8b010000"
                         "efcdab8967452301"
                         "2222000000000000"
                         "00040000"
                         "00000000"
                         "0000000000000000"
                         "6300000000000000") +
                     std::string(40, 'a');
  file.resize(4092);
  file += FromHex("025d3aec");
  return file +
         FromHex(
             "2d296fdf0d0000001100000000000000200003000500000002000000746872656500000000000000"
             "42f60c641300000011000000000000002001bc021800000001000000011e73010050737373737300"
             "f4cebb460c00000011000000000000002000030004000000010000006d6f7265"
             "07cb7e732500000011000000000000002100ffff000000000000000003000000020000000300000003000"
             "000"
             "bc0200000500000080040a850400000000000000"
             "d01bcdf52800000011000000000000002200ffff040000000000000003000000000000002100000000000"
             "000"
             "7010000000000000d18e793b0000000000000000");
}

TEST(CheckpointTest, NamesSortLikeLsns) {
  EXPECT_EQ(CheckpointName(17), "checkpoint-00000000000000000017.ckpt");
  EXPECT_EQ(CheckpointLsn(CheckpointName(~Lsn{0})), ~Lsn{0});
  EXPECT_LT(CheckpointName(9), CheckpointName(10));
  for (const char* name :
       {"checkpoint.tmp", "checkpoint-17.ckpt", "checkpoint-0000000000000000001x.ckpt",
        "checkpoint-99999999999999999999.ckpt", "checkpoint-00000000000000000017.ckpt.torn",
        "wal-00000000000000000001.log", ""}) {
    EXPECT_FALSE(CheckpointLsn(name)) << name;
  }
}

TEST(CheckpointTest, ReadsTheBytesOfTheSpecification) {
  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories(kDirectory).ok());
  disk.PutFile(PathOf(kLsn), GoldenFile());
  auto contents = ReadCheckpoint(disk, PathOf(kLsn));
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_EQ(*contents, ContentsOf(SmallChunks()));

  const auto list = ListCheckpoints(disk, kDirectory).value();
  ASSERT_EQ(list.size(), 1u);
  const CheckpointInfo& info = list[0];
  EXPECT_EQ(info.problem, "");
  EXPECT_EQ(info.name, CheckpointName(kLsn));
  EXPECT_EQ(info.path, PathOf(kLsn));
  EXPECT_EQ(info.lsn, kLsn);
  EXPECT_EQ(info.identity.log_id, 0x1111u);
  EXPECT_EQ(info.identity.hash_seed, 0x2222u);
  EXPECT_EQ(info.identity.shard_count, 1024u);
  EXPECT_EQ(std::string(info.identity.replication_id, 40), std::string(40, 'a'));
  EXPECT_EQ(info.replication_offset, 99u);
  EXPECT_TRUE(info.shard_by_hashtag);
  EXPECT_EQ(info.created_at_ms, 1700000000000);
  EXPECT_EQ(info.key_id, 0u);
  EXPECT_EQ(info.compression, Compression::kNone);
  EXPECT_EQ(info.file_bytes, GoldenFile().size());
  EXPECT_EQ(info.chunks, 3u);
  EXPECT_EQ(info.entries, 4u);
  EXPECT_EQ(info.plain_bytes, 33u);
}

// The salt is chosen by chance and moves the checksums; all else is what the other program made,
// but for the chunk that it compressed.
TEST(CheckpointTest, WritesTheBytesOfTheSpecification) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks())), "");
  const std::string file = disk.Contents(PathOf(kLsn));
  const std::string golden = GoldenFile();
  EXPECT_EQ(file.substr(0, 48), golden.substr(0, 48));
  EXPECT_EQ(file.substr(56, 4092 - 56), golden.substr(56, 4092 - 56));
  EXPECT_EQ(At<uint32_t>(file, 4092), Crc32c(file.substr(0, 4092)));
  const auto salt = At<uint64_t>(file, 48);
  const auto golden_salt = At<uint64_t>(golden, 48);
  // The first chunk is the same but for the salt in its checksum.
  EXPECT_EQ(At<uint32_t>(file, 4096) ^ PlaceMix(salt, 4096),
            At<uint32_t>(golden, 4096) ^ PlaceMix(golden_salt, 4096));
  EXPECT_EQ(file.substr(4100, 36), golden.substr(4100, 36));
  // The last frame: behind the header of 20 bytes entries, chunks, plain bytes.
  EXPECT_EQ(file.substr(file.size() - 60, 40), golden.substr(golden.size() - 60, 40));
}

class CheckpointKindTest : public testing::TestWithParam<std::tuple<Compression, bool>> {
 protected:
  Compression compression() const { return std::get<0>(GetParam()); }
  std::shared_ptr<const KeyRing> keys() const {
    return std::get<1>(GetParam()) ? SomeKeys() : nullptr;
  }
};

INSTANTIATE_TEST_SUITE_P(All, CheckpointKindTest,
                         testing::Combine(testing::Values(Compression::kNone, Compression::kLz4,
                                                          Compression::kZstd),
                                          testing::Bool()),
                         [](const auto& kind) {
                           return std::string(CompressionName(std::get<0>(kind.param))) +
                                  (std::get<1>(kind.param) ? "Encrypted" : "");
                         });

TEST_P(CheckpointKindTest, EverythingComesBackByShard) {
  const std::vector<TestChunk> chunks = ManyChunks(1);
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, chunks, compression(), keys())), "");
  auto contents = ReadCheckpoint(disk, PathOf(kLsn), keys());
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_EQ(*contents, ContentsOf(chunks));

  const auto reader = CheckpointReader::Open(disk, PathOf(kLsn), keys()).value();
  EXPECT_EQ(reader->info().chunks, chunks.size());
  EXPECT_EQ(reader->info().compression, compression());
  EXPECT_EQ(reader->info().key_id, keys() == nullptr ? 0 : keys()->current_id());
  // Header, end and index are small beside the chunks, which have a head, lengths, padding and what
  // encryption adds.
  constexpr uint64_t kFixedBytes = 4096 + 64 + 600, kChunkBytesMax = 20 + 8 + 7 + 1 + 36;
  EXPECT_LT(reader->info().file_bytes,
            kFixedBytes + reader->info().plain_bytes + reader->info().chunks * kChunkBytesMax);
  for (uint32_t shard = 0; shard < 1200; ++shard) {
    Contents one;
    ASSERT_EQ(ErrorOf(reader->ForEachChunk(shard, shard + 1,
                                           [&](uint16_t found, std::string_view effects) {
                                             one[found].emplace_back(effects);
                                             return Status::Ok();
                                           })),
              "");
    const auto expected = contents->find(static_cast<uint16_t>(shard));
    ASSERT_EQ(one.size(), expected == contents->end() ? 0u : 1u);
    if (!one.empty()) {
      ASSERT_EQ(*one.begin(), *expected);
    }
  }
  uint64_t progress = 0;
  ASSERT_EQ(ErrorOf(reader->Verify([&](uint64_t done) {
              EXPECT_GE(done, progress);
              progress = done;
            })),
            "");
  EXPECT_EQ(progress, reader->info().file_bytes);
}

TEST_P(CheckpointKindTest, ShardsAreReadByManyThreadsAtOnce) {
  const std::vector<TestChunk> chunks = ManyChunks(2);
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, chunks, compression(), keys())), "");
  const auto reader = CheckpointReader::Open(disk, PathOf(kLsn), keys()).value();
  const Contents expected = ContentsOf(chunks);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      Contents found;
      const Status status =
          reader->ForEachChunk(0, 2000, [&](uint16_t shard, std::string_view effects) {
            found[shard].emplace_back(effects);
            return Status::Ok();
          });
      EXPECT_TRUE(status.ok()) << status.message();
      EXPECT_EQ(found, expected);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(CheckpointKindTest, AnEmptyKeyspaceIsACheckpointToo) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, 0, {}, compression(), keys())), "");
  auto contents = ReadCheckpoint(disk, PathOf(0), keys());
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_TRUE(contents->empty());
}

// Nothing of a file that is not as it was written reaches anybody without an error.
TEST_P(CheckpointKindTest, NoDamageGoesUnnoticed) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks(), compression(), keys())), "");
  const std::string path = PathOf(kLsn);
  const std::string good = disk.Contents(path);
  const Contents expected = ContentsOf(SmallChunks());
  const auto expect_error = [&](const std::string& what) {
    auto contents = ReadCheckpoint(disk, path, keys());
    ASSERT_FALSE(contents.ok()) << what;
    ASSERT_NE(contents.message().find(path), std::string_view::npos) << contents.message();
    ASSERT_TRUE(contents.system_errno() == EBADMSG) << what << ": " << contents.message();
    // What the chunks give before the rest is verified is right all the same.
    auto reader = CheckpointReader::Open(disk, path, keys());
    if (!reader.ok()) return;
    Contents given;
    (void)(*reader)
        ->ForEachChunk(0, 1 << 16,
                       [&](uint16_t shard, std::string_view effects) {
                         given[shard].emplace_back(effects);
                         return Status::Ok();
                       })
        .ok();
    ASSERT_TRUE(given.empty() || given == expected) << what;
  };
  for (uint64_t bit = 0; bit < good.size() * 8; ++bit) {
    disk.FlipBit(path, bit);
    expect_error("bit " + std::to_string(bit));
    disk.FlipBit(path, bit);
    if (HasFatalFailure()) return;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    disk.PutFile(path, good.substr(0, size));
    expect_error("cut to " + std::to_string(size));
    if (HasFatalFailure()) return;
  }
  for (const size_t more : {1, 8, 64, 4096}) {
    disk.PutFile(path, good + std::string(more, '\0'));
    expect_error("longer by " + std::to_string(more));
    disk.PutFile(path, good + good.substr(good.size() - std::min(more, good.size())));
    expect_error("its end repeated");
  }
  for (size_t sector = 0; sector * SimDisk::kSectorBytes < good.size(); ++sector) {
    disk.PutFile(path, good);
    disk.ZeroSector(path, sector);
    if (disk.Contents(path) == good) continue;  // it was zero before
    expect_error("sector " + std::to_string(sector));
  }
  disk.PutFile(path, good);
  EXPECT_TRUE(ReadCheckpoint(disk, path, keys()).ok());
}

TEST(CheckpointTest, AChunkOfAnotherCheckpointIsNone) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, 1, SmallChunks())), "");
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, 2, SmallChunks())), "");
  const std::string one = disk.Contents(PathOf(1));
  std::string two = disk.Contents(PathOf(2));
  two.replace(4096, 40, one, 4096, 40);
  disk.PutFile(PathOf(2), two);
  EXPECT_EQ(ReadCheckpoint(disk, PathOf(2)).system_errno(), EBADMSG);
  // Nor is a whole file under another name.
  disk.PutFile(PathOf(3), one);
  auto renamed = ReadCheckpoint(disk, PathOf(3));
  EXPECT_EQ(ErrorOf(renamed.TakeStatus()), PathOf(3) + ": the header names LSN 1");
}

TEST(CheckpointTest, ALaterVersionSaysSo) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks())), "");
  std::string file = disk.Contents(PathOf(kLsn));
  file[12] = 3;  // the minimum reader version
  const uint32_t crc = Crc32c(file.substr(0, 4092));
  file.replace(4092, 4, reinterpret_cast<const char*>(&crc), 4);
  disk.PutFile(PathOf(kLsn), file);
  EXPECT_EQ(ErrorOf(ReadCheckpoint(disk, PathOf(kLsn)).TakeStatus()),
            PathOf(kLsn) + ": it needs a reader of format version 3, this is one of 2");
}

TEST(CheckpointTest, WithoutTheKeyNothingIsRead) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks(), Compression::kNone, SomeKeys())),
            "");
  EXPECT_EQ(disk.Contents(PathOf(kLsn)).find("three"), std::string::npos);
  const std::string b(64, 'b'), c(64, 'c');
  for (const auto& keys : {std::shared_ptr<const KeyRing>(), Keys(b)}) {
    auto contents = ReadCheckpoint(disk, PathOf(kLsn), keys);
    EXPECT_EQ(contents.system_errno(), ENOKEY);
    EXPECT_NE(contents.message().find(PathOf(kLsn) + " is encrypted with key "),
              std::string_view::npos);
  }
  // The list needs no key.
  EXPECT_EQ(ListCheckpoints(disk, kDirectory).value()[0].problem, "");
  // An older key reads, wherever it stands.
  auto contents =
      ReadCheckpoint(disk, PathOf(kLsn), Keys(b + "\n" + c + "\n" + std::string(64, 'a')));
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_EQ(*contents, ContentsOf(SmallChunks()));
}

TEST(CheckpointTest, GivesAllOfAShardOrNothing) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks())), "");
  disk.FlipBit(PathOf(kLsn), 8 * (4096 + 40 + 48 + 30));  // in the second chunk of shard 3
  const auto reader = CheckpointReader::Open(disk, PathOf(kLsn), nullptr).value();
  uint64_t given = 0;
  const auto count = [&](uint16_t, std::string_view) {
    ++given;
    return Status::Ok();
  };
  EXPECT_EQ(reader->ForEachChunk(3, 4, count).system_errno(), EBADMSG);
  EXPECT_EQ(given, 0u);
  EXPECT_TRUE(reader->ForEachChunk(4, 1024, count).ok());
  EXPECT_EQ(given, 1u);
  EXPECT_EQ(reader->Verify({}).system_errno(), EBADMSG);
}

TEST(CheckpointTest, AnErrorOfWhoTakesEndsTheReading) {
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks())), "");
  const auto reader = CheckpointReader::Open(disk, PathOf(kLsn), nullptr).value();
  int calls = 0;
  EXPECT_EQ(ErrorOf(reader->ForEachChunk(0, 1024,
                                         [&](uint16_t, std::string_view) {
                                           ++calls;
                                           return Status::Error("cannot apply");
                                         })),
            "cannot apply");
  EXPECT_EQ(calls, 1);
}

// Compressed chunks larger than what is kept between the check and the handing out.
TEST(CheckpointTest, UnpacksASecondTimeWhatItCannotKeep) {
  std::vector<TestChunk> chunks;
  for (char letter = 'a'; letter < 'g'; ++letter) {
    chunks.push_back({1, std::string(3 << 20, letter), 1});
  }
  SimDisk disk;
  ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, chunks, Compression::kLz4, SomeKeys())), "");
  EXPECT_LT(disk.Contents(PathOf(kLsn)).size(), 200000u);
  auto contents = ReadCheckpoint(disk, PathOf(kLsn), SomeKeys());
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_EQ(*contents, ContentsOf(chunks));
}

TEST(CheckpointTest, WritesInLargePiecesAndSyncsAsItGoes) {
  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories(kDirectory).ok());
  const auto writer =
      CheckpointWriter::Create(disk, kDirectory, Example(), Compression::kNone, nullptr).value();
  const std::string effects(10000, 'e');
  uint64_t bytes = 4096;
  for (int i = 0; i < 5000; ++i) {
    ASSERT_EQ(ErrorOf(writer->Add(static_cast<uint16_t>(i % 1024), effects, 10)), "");
    bytes += FrameBytes(8 + effects.size());
    ASSERT_EQ(writer->bytes(), bytes);
  }
  ASSERT_EQ(ErrorOf(writer->Finish()), "");
  EXPECT_LE(disk.calls_of(test::kWrite), bytes / 1000000 + 1);
  EXPECT_EQ(disk.calls_of(test::kSync), bytes / (16 << 20) + 1);
  EXPECT_EQ(writer->info().file_bytes, writer->bytes());
  EXPECT_LT(writer->bytes() - bytes, 5000 * 4 + 1024 * 8 + 200u) << "the index is small";
  EXPECT_TRUE(ListCheckpoints(disk, kDirectory).value().empty()) << "it is not published";
  ASSERT_EQ(ErrorOf(writer->Publish()), "");
  EXPECT_EQ(ListCheckpoints(disk, kDirectory).value().at(0).entries, 50000u);
}

TEST(CheckpointTest, WhatIsNotPublishedIsRemoved) {
  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories(kDirectory).ok());
  for (const bool finished : {false, true}) {
    {
      const auto writer =
          CheckpointWriter::Create(disk, kDirectory, Example(), Compression::kNone, nullptr)
              .value();
      ASSERT_EQ(ErrorOf(writer->Add(1, "effects", 1)), "");
      if (finished) {
        ASSERT_EQ(ErrorOf(writer->Finish()), "");
      }
      EXPECT_EQ(disk.Paths(), std::vector<std::string>{"wal/checkpoint.tmp"});
    }
    EXPECT_TRUE(disk.Paths().empty());
  }
  // Nor is what a server that died left behind in the way.
  disk.PutFile("wal/checkpoint.tmp", std::string(100000, 'x'));
  EXPECT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, SmallChunks())), "");
  EXPECT_EQ(disk.Paths(), std::vector<std::string>{PathOf(kLsn)});
  EXPECT_TRUE(ReadCheckpoint(disk, PathOf(kLsn)).ok());
}

TEST(CheckpointTest, AnErrorOfTheDiskStays) {
  for (const test::DiskCall call : {test::kWrite, test::kSync, test::kRename}) {
    SimDisk disk;
    ASSERT_TRUE(disk.CreateDirectories(kDirectory).ok());
    const auto writer =
        CheckpointWriter::Create(disk, kDirectory, Example(), Compression::kNone, nullptr).value();
    disk.AddFault({.calls = call, .nth = 1, .error = ENOSPC});
    std::string first;
    const std::string effects(100000, 'e');
    for (int i = 0; i < 300 && first.empty(); ++i) first = ErrorOf(writer->Add(1, effects, 1));
    if (call == test::kRename) {
      ASSERT_EQ(ErrorOf(writer->Finish()), "");
      first = ErrorOf(writer->Publish());
      EXPECT_EQ(ErrorOf(writer->Publish()), first);
    } else {
      EXPECT_EQ(ErrorOf(writer->Add(1, effects, 1)), first);
      EXPECT_EQ(ErrorOf(writer->Finish()), first);
      EXPECT_EQ(writer->Finish().system_errno(), ENOSPC);
    }
    EXPECT_NE(first.find("wal/checkpoint.tmp"), std::string::npos) << first;
  }
}

TEST(CheckpointTest, AFullDiskLeavesNothingBehind) {
  SimDisk disk({.capacity = 1 << 20});
  std::vector<TestChunk> chunks(20, {1, std::string(100000, 'e'), 1});
  const Status status = WriteCheckpoint(disk, kLsn, chunks);
  EXPECT_EQ(status.system_errno(), ENOSPC);
  EXPECT_EQ(disk.used_bytes(), 0u);
}

TEST(CheckpointTest, AnyCallOfTheDiskMayFail) {
  std::vector<TestChunk> chunks = SmallChunks();
  chunks.push_back({5, std::string(2 << 20, 'l'), 1});
  for (const double written : {0.0, 0.7}) {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << nth << " of the writer fails");
      SimDisk disk;
      ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, 5, SmallChunks())), "");
      disk.AddFault({.calls = test::kAnyCall, .nth = nth, .error = EIO, .written = written});
      const Status status = WriteCheckpoint(disk, kLsn, chunks);
      const bool failed = disk.failed_calls() > 0;
      disk.ClearFaults();
      EXPECT_EQ(status.ok(), !failed);
      auto list = ListCheckpoints(disk, kDirectory).value();
      // Where only the sync of the directory failed it is there, and good.
      for (const CheckpointInfo& info : list) {
        EXPECT_EQ(info.problem, "");
        EXPECT_EQ(ReadCheckpoint(disk, info.path).value(),
                  ContentsOf(info.lsn == kLsn ? chunks : SmallChunks()));
      }
      EXPECT_FALSE(disk.Exists("wal/checkpoint.tmp"));
      if (!failed) {
        EXPECT_EQ(list.size(), 2u);
        break;
      }
      // The next one is not in its way.
      EXPECT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, chunks)), "");
      if (HasFailure()) return;
    }
  }
  for (uint64_t nth = 1;; ++nth) {
    SCOPED_TRACE(testing::Message() << "call " << nth << " of the reader fails");
    SimDisk disk;
    ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, kLsn, chunks)), "");
    disk.AddFault({.calls = test::kAnyCall, .nth = nth, .error = EIO});
    auto contents = ReadCheckpoint(disk, PathOf(kLsn));
    if (disk.failed_calls() == 0) {
      EXPECT_EQ(contents.value(), ContentsOf(chunks));
      break;
    }
    // To read a chunk is tried twice.
    if (contents.ok()) {
      EXPECT_EQ(contents.value(), ContentsOf(chunks));
    } else {
      EXPECT_EQ(contents.system_errno(), EIO);
      EXPECT_NE(contents.message().find(PathOf(kLsn)), std::string_view::npos);
    }
  }
}

TEST(CheckpointTest, OneBadFileDoesNotHideTheOthers) {
  SimDisk disk;
  for (const Lsn lsn : {10, 20, 30}) {
    ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, lsn, SmallChunks())), "");
  }
  disk.PutFile(PathOf(25), "");
  disk.FlipBit(PathOf(30), 8 * 100);
  disk.PutFile("wal/checkpoint-something.ckpt", "no checkpoint's name");
  auto list = ListCheckpoints(disk, kDirectory).value();
  ASSERT_EQ(list.size(), 4u);
  EXPECT_EQ(list[0].lsn, 30u);
  EXPECT_EQ(list[0].problem, "the header's checksum does not match");
  EXPECT_EQ(list[1].lsn, 25u);
  EXPECT_EQ(list[1].problem, "the file is shorter than a header");
  EXPECT_EQ(list[2].lsn, 20u);
  EXPECT_EQ(list[2].problem, "");
  EXPECT_EQ(list[3].problem, "");
  disk.AddFault({.calls = test::kMap, .nth = 1, .error = EIO, .for_ever = true});
  list = ListCheckpoints(disk, kDirectory).value();
  ASSERT_EQ(list.size(), 4u);
  EXPECT_NE(list[3].problem, "");
}

// Whatever its age: nobody knows whether it is whole.
TEST(CheckpointTest, RemovesNoneThatItCouldNotOpen) {
  SimDisk disk;
  for (const Lsn lsn : {10, 20, 30}) {
    ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, lsn, SmallChunks())), "");
  }
  const auto remove = [&] {
    return RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 1).value();
  };
  // Both tries of the oldest one, which is listed first.
  disk.AddFault({.calls = test::kMap, .error = EMFILE});
  disk.AddFault({.calls = test::kMap, .error = EMFILE});
  EXPECT_EQ(remove(), std::vector<std::string>{CheckpointName(20)});
  EXPECT_TRUE(disk.Exists(PathOf(10)));
  EXPECT_EQ(remove(), std::vector<std::string>{CheckpointName(10)});
}

TEST(CheckpointTest, KeepsTheNewestGoodOnes) {
  SimDisk disk;
  for (const Lsn lsn : {10, 20, 30, 40}) {
    ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, lsn, SmallChunks())), "");
  }
  disk.PutFile(PathOf(5), "bad");
  disk.PutFile(PathOf(25), "bad");
  disk.PutFile(PathOf(35), "bad");
  disk.PutFile("wal/wal-00000000000000000001.log", "not ours");
  EXPECT_EQ(RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 2).value(),
            (std::vector<std::string>{CheckpointName(25), CheckpointName(20), CheckpointName(10),
                                      CheckpointName(5)}));
  EXPECT_EQ(disk.PowerCut()->Paths(),
            (std::vector<std::string>{PathOf(30), PathOf(35), PathOf(40),
                                      "wal/wal-00000000000000000001.log"}));
  EXPECT_TRUE(RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 2).value().empty());
  // Fewer good ones than asked for: what is bad may be all that is left of something.
  disk.FlipBit(PathOf(40), 1);
  EXPECT_TRUE(RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 2).value().empty());
}

// One that somebody put there does not stand for one of this log.
TEST(CheckpointTest, DoesNotCountThoseOfAnotherLog) {
  SimDisk disk;
  for (const Lsn lsn : {10, 20, 30}) {
    ASSERT_EQ(ErrorOf(WriteCheckpoint(disk, lsn, SmallChunks())), "");
  }
  CheckpointInfo other = Example(40);
  other.identity.log_id = 0x9999;
  const auto writer =
      CheckpointWriter::Create(disk, kDirectory, other, Compression::kNone, nullptr).value();
  ASSERT_EQ(ErrorOf(writer->Finish()), "");
  ASSERT_EQ(ErrorOf(writer->Publish()), "");
  EXPECT_EQ(RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 2).value(),
            std::vector<std::string>{CheckpointName(10)});
  EXPECT_EQ(RemoveOldCheckpoints(disk, kDirectory, other.identity.log_id, 1).value(),
            std::vector<std::string>{});
  EXPECT_EQ(disk.Paths(), (std::vector<std::string>{PathOf(20), PathOf(30), PathOf(40)}));
}

// After a crash a checkpoint is whole or not there; the one before it is there until then.
TEST(CheckpointTest, IsWholeOrNotThereWhereverTheCrashFalls) {
  const std::vector<TestChunk> chunks = {
      {1, "one", 1}, {2, std::string(2500, '2'), 3}, {1, std::string(1500000, '1'), 7}};
  uint64_t crash_points = 0;
  for (const Survivors survivors : kEverySurvivors) {
    for (uint64_t crash_at = 1;; ++crash_at) {
      SCOPED_TRACE(testing::Message() << "seed " << TestSeed() << ", crash at change " << crash_at
                                      << ", survivors " << SurvivorsName(survivors));
      ++crash_points;
      SimDisk disk({.seed = Mix(TestSeed(), crash_at),
                    .crash_at = crash_at,
                    .survivors = survivors,
                    .flipped_bits = crash_at % 2 == 0 ? 3u : 0u});
      bool first = WriteCheckpoint(disk, 5, SmallChunks()).ok();
      bool second = false;
      bool removed = false;
      if (first) second = WriteCheckpoint(disk, kLsn, chunks).ok();
      if (second)
        removed = RemoveOldCheckpoints(disk, kDirectory, Example().identity.log_id, 1).ok();
      const auto after = disk.PowerCut();
      auto listed = ListCheckpoints(*after, kDirectory);
      if (!listed.ok()) {
        ASSERT_EQ(listed.system_errno(), ENOENT);  // the directory had not come to be
        ASSERT_FALSE(first);
        continue;
      }
      bool first_there = false;
      bool second_there = false;
      for (const CheckpointInfo& info : *listed) {
        EXPECT_EQ(info.problem, "") << info.name;
        auto contents = ReadCheckpoint(*after, info.path);
        ASSERT_TRUE(contents.ok()) << contents.message();
        ASSERT_EQ(*contents, ContentsOf(info.lsn == kLsn ? chunks : SmallChunks()));
        first_there = first_there || info.lsn == 5;
        second_there = second_there || info.lsn == kLsn;
      }
      EXPECT_TRUE(second_there || !second);
      EXPECT_TRUE(first_there || !first || second);
      EXPECT_FALSE(first_there && removed);
      // And the next one can be made.
      EXPECT_EQ(ErrorOf(WriteCheckpoint(*after, kLsn + 1, chunks)), "");
      if (HasFailure()) return;
      if (!disk.crashed()) break;
    }
  }
  std::cout << "crash points: " << crash_points << "\n";
}

// The body of a large one goes past the page cache, its end does not; on a file system that has
// nothing but memory all of it is the same.
TEST(CheckpointTest, WritesPastThePageCacheWhatItCan) {
  for (const char* parent : {"/tmp", "/dev/shm"}) {
    SCOPED_TRACE(parent);
    std::string name = std::string(parent) + "/crab-checkpoint-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    std::map<uint16_t, std::string> expected;
    std::string path;
    {
      const auto writer =
          CheckpointWriter::Create(RealDisk(), name, Example(), Compression::kNone, nullptr)
              .value();
      std::mt19937_64 random(TestSeed());
      for (uint16_t shard = 0; shard < 20; ++shard) {
        std::string effects(1 + random() % 500'000, static_cast<char>('a' + shard));
        ASSERT_EQ(ErrorOf(writer->Add(shard, effects, 1)), "");
        expected[shard] = std::move(effects);
      }
      ASSERT_EQ(ErrorOf(writer->Finish()), "");
      ASSERT_EQ(ErrorOf(writer->Publish()), "");
      path = writer->info().path;
      EXPECT_EQ(std::filesystem::file_size(path), writer->bytes());
    }
    const auto reader = CheckpointReader::Open(RealDisk(), path, nullptr).value();
    EXPECT_EQ(ErrorOf(reader->Verify({})), "");
    std::map<uint16_t, std::string> found;
    EXPECT_EQ(ErrorOf(reader->ForEachChunk(0, reader->info().identity.shard_count,
                                           [&](uint16_t shard, std::string_view effects) {
                                             found[shard] = effects;
                                             return Status::Ok();
                                           })),
              "");
    EXPECT_TRUE(found == expected);
    std::filesystem::remove_all(name);
  }
}

TEST(CheckpointTest, WorksOnTheMachinesDisk) {
  char name[] = "/tmp/crab-checkpoint-XXXXXX";
  ASSERT_NE(mkdtemp(name), nullptr);
  const std::string directory = name;
  Disk& disk = RealDisk();
  const std::vector<TestChunk> chunks = ManyChunks(3);
  std::string path;
  {
    const auto writer =
        CheckpointWriter::Create(disk, directory, Example(), Compression::kZstd, SomeKeys())
            .value();
    for (const TestChunk& chunk : chunks) {
      ASSERT_EQ(ErrorOf(writer->Add(chunk.shard, chunk.effects, chunk.entries)), "");
    }
    ASSERT_EQ(ErrorOf(writer->Finish()), "");
    ASSERT_EQ(ErrorOf(writer->Publish()), "");
    path = writer->info().path;
  }
  auto contents = ReadCheckpoint(disk, path, SomeKeys());
  ASSERT_TRUE(contents.ok()) << contents.message();
  EXPECT_EQ(*contents, ContentsOf(chunks));
  EXPECT_EQ(RemoveOldCheckpoints(disk, directory, Example().identity.log_id, 1).value().size(), 0u);
  EXPECT_EQ(RemoveOldCheckpoints(disk, directory, Example().identity.log_id, 0).value().size(), 1u);
  EXPECT_EQ(rmdir(name), 0);
}

}  // namespace
}  // namespace crab::wal

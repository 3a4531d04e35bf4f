// Durable bytes go bad: bits, sectors, ends, whole segments. See log_damage.h for what holds then.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>

#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/persistence/log_damage.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

TEST(LogCorruptionTest, FindsEverythingInAnUndamagedLog) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    damager.Try({}, [](SimDisk&) {});
    auto disk = original.Disk();
    Boot boot = BootLog(*disk, LogOptions(SyncPolicy::kSync));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    ASSERT_TRUE(boot.records == original.records);
    ASSERT_EQ(boot.report.corrupted_entries, 0u);
  });
}

TEST(LogCorruptionTest, TellsOfEveryFlippedBit) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 211);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t at = 0; at < UsedBytes(bytes) + 64 && at < bytes.size(); ++at) {
        // The reserved part of the header is the same zero thousands of times.
        const bool sample = at >= 192 && at < wal::kSegmentHeaderBytes - 4;
        if (sample && at % 8 != 0 && !LongTests()) continue;
        for (uint64_t bit = 0; bit < 8; ++bit) {
          if (sample && bit != at / 8 % 8) continue;
          SCOPED_TRACE(testing::Message() << path << " bit " << at * 8 + bit);
          damager.Try({{path, at, at + 1}},
                      [&, file = path](SimDisk& disk) { disk.FlipBit(file, at * 8 + bit); });
          if (testing::Test::HasFatalFailure()) return;
        }
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfEveryZeroedSector) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t sector = 0; sector * 512 < UsedBytes(bytes); ++sector) {
        SCOPED_TRACE(testing::Message() << path << " sector " << sector);
        // In the reserved part of the header it changes nothing.
        const std::string before = bytes.substr(sector * 512, 512);
        if (before == std::string(before.size(), '\0')) continue;
        damager.Try({{path, sector * 512, sector * 512 + 512}},
                    [&, file = path](SimDisk& disk) { disk.ZeroSector(file, sector); });
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfEveryMissingEnd) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 23);
    for (const auto& [path, bytes] : original.files) {
      for (uint64_t size = 0; size < UsedBytes(bytes); size += LongTests() ? 1 : 7) {
        SCOPED_TRACE(testing::Message() << path << " cut at " << size);
        damager.Try({{path, size, ~uint64_t{0}}},
                    [&, file = path](SimDisk& disk) { disk.Cut(file, size); });
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  });
}

TEST(LogCorruptionTest, TellsOfSegmentsThatAreGoneOrInAnothersPlace) {
  ForEachLog([](const Original& original) {
    Damager damager(original, 1);
    for (const auto& [one, one_bytes] : original.files) {
      SCOPED_TRACE(one);
      damager.Try({{one}}, [file = one](SimDisk& disk) { disk.RemoveFile(file); });
      damager.Try({{one}}, [file = one](SimDisk& disk) { disk.PutFile(file, ""); });
      for (const auto& [other, other_bytes] : original.files) {
        if (one == other) continue;
        SCOPED_TRACE(other);
        damager.Try({{one}, {other}}, [&, a = one, b = other](SimDisk& disk) {  // swapped
          disk.PutFile(a, original.files.at(b));
          disk.PutFile(b, original.files.at(a));
        });
        damager.Try({{one}}, [&, a = one, b = other](SimDisk& disk) {  // a second copy over it
          disk.PutFile(a, original.files.at(b));
        });
      }
      for (const uint64_t number : {uint64_t{0}, uint64_t{90}, ~uint64_t{0}}) {
        SCOPED_TRACE(number);  // a second copy beside it
        damager.Try({}, [&, a = one](SimDisk& disk) {
          disk.PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(number),
                       original.files.at(a));
        });
      }
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

TEST(LogCorruptionTest, NeverBelievesGarbageNorBytesThatMoved) {
  std::mt19937_64 random(TestSeed());
  ForEachLog([&](const Original& original) {
    Damager damager(original, 20);
    for (int i = 0; i < (LongTests() ? 20000 : 1500); ++i) {
      auto file = original.files.begin();
      std::advance(file, random() % original.files.size());
      const auto& [path, bytes] = *file;
      const uint64_t used = UsedBytes(bytes);
      const uint64_t align = random() % 2 == 0 ? 8 : 1;
      const uint64_t begin = random() % used / align * align;
      const uint64_t size = std::min<uint64_t>(1 + random() % 600, bytes.size() - begin);
      std::string damaged = bytes;
      if (random() % 2 == 0) {  // garbage
        for (uint64_t k = 0; k < size; ++k) damaged[begin + k] = static_cast<char>(random());
      } else {  // good bytes from elsewhere in this segment or another one
        auto source = original.files.begin();
        std::advance(source, random() % original.files.size());
        const uint64_t from = random() % UsedBytes(source->second) / align * align;
        const std::string moved = source->second.substr(from, size);
        damaged.replace(begin, moved.size(), moved);
      }
      if (damaged == bytes) continue;
      SCOPED_TRACE(testing::Message()
                   << "case " << i << ": " << path << " bytes " << begin << ".." << begin + size);
      damager.Try({{path, begin, begin + size}},
                  [&, name = path](SimDisk& disk) { disk.PutFile(name, damaged); });
      if (testing::Test::HasFatalFailure()) return;
    }
  });
}

// A value may hold a copy of the log itself. With its record's own frame damaged, the search for
// the next good frame runs through that value and must not take the copy for the log.
TEST(LogCorruptionTest, DoesNotResynchroniseInsideAPayload) {
  const Original inner = StoppedLog();
  std::string embedded;
  for (const auto& [path, bytes] : inner.files) embedded += bytes.substr(wal::kSegmentHeaderBytes);
  SimDisk disk;
  Records records;
  {
    Boot boot = BootLog(disk, LogOptions(SyncPolicy::kSync));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (const std::string& payload : {std::string("before"), embedded, std::string("after")}) {
      const Lsn lsn = boot.log->Append(wal::RecordType::kTxn, wal::kBroadcastShard, payload);
      records[lsn] = {wal::RecordType::kTxn, wal::kBroadcastShard, payload};
    }
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  const Original original = TakeOriginal(disk, records);
  Damager damager(original, 1);
  const auto& [path, bytes] = *original.files.begin();
  const uint64_t record = bytes.find(embedded) - sizeof(wal::FrameHeader);
  for (uint64_t at = record; at < record + sizeof(wal::FrameHeader); ++at) {
    SCOPED_TRACE(at);
    damager.Try({{path, at, at + 1}},
                [&, file = path](SimDisk& copy) { copy.FlipBit(file, at * 8 + at % 8); });
    if (HasFatalFailure()) return;
  }
}

// A segment whose header cannot be read, behind numbers that nobody has: what comes now goes behind
// it, and is not cut off by it where it can be read again one day.
TEST(LogCorruptionTest, GoesOnBehindTheLastSegmentThatCannotBeRead) {
  const Original original = StoppedLog();
  const std::string& last_bytes = original.files.rbegin()->second;
  wal::SegmentInfo unreadable;
  unreadable.number = 3;
  wal::DecodeSegmentHeader(last_bytes, &unreadable);
  ASSERT_EQ(unreadable.problem, "");
  unreadable.number = 6;
  unreadable.epoch += 3;
  unreadable.first_lsn = original.records.rbegin()->first + 1;
  unreadable.predecessor_number = 3;
  const std::string header = wal::EncodeSegmentHeader(unreadable);
  const std::string path = std::string(kLogDirectory) + "/" + wal::SegmentName(6);

  auto disk = original.Disk();
  disk->PutFile(path, header);
  disk->ZeroSector(path, 0);
  wal::Options options = LogOptions(SyncPolicy::kSync);
  Records records = original.records;
  {
    Boot boot = BootLog(*disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.log->metrics().segment_number, 7u);
    EXPECT_GT(boot.log->metrics().epoch, unreadable.epoch);
    const Lsn lsn = boot.log->Append(wal::RecordType::kEffect, 3, "new");
    ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    records[lsn] = {wal::RecordType::kEffect, 3, "new"};
    ASSERT_TRUE(boot.log->Stop().ok());
  }
  options.recovery = RecoveryMode::kStrict;
  auto still = disk->PowerCut();
  auto again = disk->PowerCut();
  again->PutFile(path, header);
  for (SimDisk* const one : {still.get(), again.get()}) {
    Boot boot = BootLog(*one, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    EXPECT_EQ(boot.records, records);
    EXPECT_TRUE(boot.report.lost.empty());
  }
}

}  // namespace
}  // namespace crab::test

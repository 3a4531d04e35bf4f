// A log whose batches are packed: compressed, encrypted, or both.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "persistence/codec.h"
#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/sim_disk.h"
#include "tests/support/stalling_disk.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::RecordType;
using wal::SyncPolicy;

struct Packing {
  wal::Compression compression;
  bool encrypted;
};

class LogPackTest : public testing::TestWithParam<Packing> {
 protected:
  LogPackTest() {
    if (!GetParam().encrypted) return;
    std::string path = testing::TempDir() + "/crab-key-XXXXXX";
    const int fd = mkstemp(path.data());
    const std::string key(64, 'a');
    EXPECT_EQ(write(fd, key.data(), key.size()), static_cast<ssize_t>(key.size()));
    close(fd);
    keys_ = wal::KeyRing::Load(path).value();
    std::filesystem::remove(path);
  }
  wal::Options PackOptions(SyncPolicy policy) const {
    wal::Options options = LogOptions(policy);
    options.compression = GetParam().compression;
    options.keys = keys_;
    return options;
  }
  std::shared_ptr<const wal::KeyRing> keys_;
};

TEST_P(LogPackTest, ReadsBackWhatItPacked) {
  for (const SyncPolicy policy : {SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync}) {
    SimDisk disk;
    Promise promise;
    Boot boot = BootLog(disk, PackOptions(policy));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const std::string secret(2000, 's');
    for (int i = 0; i < 200; ++i) {
      const size_t bytes = i == 60 ? 400 << 10 : i == 61 ? 5 << 20 : 20 * static_cast<size_t>(i);
      const Lsn lsn = promise.Append(*boot.log, bytes);
      if (i % 10 != 0) continue;
      boot.log->RequestSync();
      ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    }
    const Lsn last = boot.log->Append(RecordType::kEffect, 1, secret);
    boot.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot.log, last));
    EXPECT_GT(boot.log->metrics().plain_bytes, 0u);
    const auto cut = disk.PowerCut();
    ASSERT_TRUE(boot.log->Stop().ok());
    boot.log.reset();
    for (const std::string& path : SegmentPaths(disk)) {
      EXPECT_EQ(disk.Contents(path).find(secret), std::string::npos);
      wal::SegmentInfo info;
      info.number = *wal::SegmentNumber(path.substr(path.rfind('/') + 1));
      wal::DecodeSegmentHeader(disk.Contents(path), &info);
      EXPECT_EQ(info.min_reader_version, 2u);
      EXPECT_EQ(info.compression, GetParam().compression);
      EXPECT_EQ(info.key_id, keys_ == nullptr ? 0 : keys_->current_id());
    }
    for (SimDisk* each : {&disk, cut.get()}) {
      Boot again = BootLog(*each, PackOptions(policy));
      ASSERT_NE(again.log, nullptr) << again.error;
      EXPECT_EQ(again.records.size(), 201u);
      EXPECT_EQ(again.records[last].payload, secret);
      again.records.erase(last);
      EXPECT_EQ(promise.Judge(again.records), "");
      EXPECT_TRUE(again.report.lost.empty());
    }
  }
}

// More than the heap may hold: nothing that comes later gets room before its memory is free.
TEST_P(LogPackTest, GivesTheMemoryOfALargeRecordBackOnceItIsDurable) {
  SimDisk disk;
  Boot boot = BootLog(disk, PackOptions(SyncPolicy::kAsync));
  ASSERT_NE(boot.log, nullptr) << boot.error;
  const Lsn lsn = boot.log->Append(RecordType::kEffect, 1, std::string(size_t{65} << 20, 'x'));
  boot.log->RequestSync();
  ASSERT_TRUE(WaitDurable(*boot.log, lsn));
  // Durable is told a moment before the memory is free.
  EXPECT_TRUE(Eventually([&] { return boot.log->SecureRoom(100); }));
}

// Under `none` what had left the ring is read back from the file that failed, and packed anew.
TEST_P(LogPackTest, CopiesPacksOutOfAFailedFile) {
  SimDisk disk;
  Promise promise;
  wal::Options options = PackOptions(SyncPolicy::kNone);
  Boot boot = BootLog(disk, options);
  Lsn last = 0;
  for (int i = 0; i < 300; ++i) {
    last = promise.Append(*boot.log, 1000);
    if (i % 20 == 0) {
      ASSERT_TRUE(Eventually([&] { return boot.log->written_lsn() >= last; }));
    }
  }
  disk.AddFault({.calls = kSync, .error = EIO});
  boot.log->RequestSync();
  ASSERT_TRUE(WaitDurable(*boot.log, last));
  EXPECT_EQ(boot.log->metrics().sync_errors, 1u);
  const auto cut = disk.PowerCut();
  Boot again = BootLog(*cut, options);
  ASSERT_NE(again.log, nullptr) << again.error;
  EXPECT_EQ(again.records.size(), 300u);
  EXPECT_EQ(promise.Judge(again.records), "");
}

// What had left the ring and cannot be read back is lost, and told; the log goes on.
TEST_P(LogPackTest, HealsWhereTheFailedFileCannotBeRead) {
  SimDisk disk;
  Promise promise;
  wal::Options options = PackOptions(SyncPolicy::kNone);
  options.on_error = wal::OnError::kRefuse;
  Boot boot = BootLog(disk, options);
  for (int i = 0; i < 300; ++i) {
    const Lsn last = promise.Append(*boot.log, 1000);
    if (i % 20 == 0) {
      ASSERT_TRUE(Eventually([&] { return boot.log->written_lsn() >= last; }));
    }
  }
  disk.AddFault({.calls = kRead, .error = EIO, .for_ever = true});
  disk.AddFault({.calls = kSync, .error = EIO});
  boot.log->RequestSync();
  ASSERT_TRUE(WaitHealed(*boot.log)) << boot.log->metrics().last_error;
  EXPECT_EQ(boot.log->metrics().sync_errors, 1u);
}

// The last block of a file may hold packs of all that the ring has room for; nothing comes any more
// that would fill it.
TEST_P(LogPackTest, TheRingIsFreedWhateverTheLastBlockHolds) {
  for (const SyncPolicy policy : {SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync}) {
    SCOPED_TRACE(PolicyName(policy));
    StallingDisk disk;
    Boot boot = BootLog(disk, PackOptions(policy));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    wal::Log& log = *boot.log;
    const auto append = [&log](size_t bytes) {
      log.Append(wal::RecordType::kEffect, 3, std::string(bytes, 'x'));
      log.Kick();
    };
    for (int i = 0; i < 5; ++i) {
      append(50);
      log.RequestSync();
      ASSERT_TRUE(WaitDurable(log, log.last_lsn()));
      disk.Stall();
      append(50);
      log.RequestSync();
      ASSERT_TRUE(Eventually([&] { return disk.stalled(); }));
      while (log.SecureRoom(50)) append(50);
      disk.Release();
      ASSERT_TRUE(Eventually([&] { return log.SecureRoom(50); }));
      // As much again, in pieces.
      while (log.SecureRoom(50)) append(50);
      ASSERT_TRUE(Eventually([&] { return log.SecureRoom(50); }));
    }
    // Nor does a small record outside the ring keep a large one out for ever.
    append(200 << 10);
    ASSERT_TRUE(Eventually([&] { return log.SecureRoom(64 << 20); }));
  }
}

TEST_P(LogPackTest, PacksFromTheNextSegmentOn) {
  SimDisk disk;
  wal::Options options = LogOptions(SyncPolicy::kAsync);
  options.keys = keys_;
  Promise promise;
  Boot boot = BootLog(disk, options);
  promise.Append(*boot.log, 500);
  boot.log->SetCompression(GetParam().compression);
  boot.log->RequestRotate();
  ASSERT_TRUE(Eventually([&] { return boot.log->metrics().sealed_lsn >= 1; }));
  const Lsn last = promise.Append(*boot.log, 500);
  boot.log->RequestSync();
  ASSERT_TRUE(WaitDurable(*boot.log, last));
  boot.log.reset();
  const std::vector<std::string> paths = SegmentPaths(disk);
  wal::SegmentInfo info;
  info.number = 2;
  wal::DecodeSegmentHeader(disk.Contents(paths.at(1)), &info);
  EXPECT_EQ(info.compression, GetParam().compression);
  EXPECT_EQ(promise.Judge(BootLog(disk, options).records), "");
}

INSTANTIATE_TEST_SUITE_P(Ways, LogPackTest,
                         testing::Values(Packing{wal::Compression::kLz4, false},
                                         Packing{wal::Compression::kZstd, false},
                                         Packing{wal::Compression::kNone, true},
                                         Packing{wal::Compression::kZstd, true}),
                         [](const auto& param) {
                           return std::string(wal::CompressionName(param.param.compression)) +
                                  (param.param.encrypted ? "Encrypted" : "");
                         });

}  // namespace
}  // namespace crab::test

#include "persistence/spare.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "tests/support/eventually.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

// A disk that has any room and keeps no byte.
class EndlessDisk : public SimDisk {
 public:
  uint64_t writes() const { return writes_.load(); }
  uint64_t most_unsynced_bytes() const { return most_unsynced_bytes_.load(); }
  void Fail() { fails_ = true; }

  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    return std::unique_ptr<wal::File>(
        std::make_unique<EndlessFile>(*this, TRY(SimDisk::Open(path, mode))));
  }
  Result<uint64_t> FreeBytes(const std::string&) override { return uint64_t{1} << 62; }

 private:
  class EndlessFile : public ForwardingFile {
   public:
    EndlessFile(EndlessDisk& disk, std::unique_ptr<wal::File> file)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Status WriteAt(uint64_t, std::string_view bytes) override {
      if (disk_.fails_) return Status::Error("the test is over", EIO);
      unsynced_bytes_ += bytes.size();
      disk_.most_unsynced_bytes_ = std::max(disk_.most_unsynced_bytes_.load(), unsynced_bytes_);
      ++disk_.writes_;
      return Status::Ok();
    }
    Status SyncData() override {
      unsynced_bytes_ = 0;
      return ForwardingFile::SyncData();
    }

   private:
    EndlessDisk& disk_;
    uint64_t unsynced_bytes_ = 0;
  };

  std::atomic<uint64_t> writes_{0};
  std::atomic<uint64_t> most_unsynced_bytes_{0};
  std::atomic<bool> fails_{false};
};

TEST(SpareMakerTest, StopsInTheMiddleOfALargeSpare) {
  EndlessDisk disk;
  ASSERT_TRUE(disk.CreateDirectories("wal").ok());
  wal::SpareMaker spares(disk, "wal");
  spares.Request(uint64_t{1} << 60, 1);
  ASSERT_TRUE(Eventually([&] { return disk.writes() > 1000; }));
  std::atomic<bool> stopped{false};
  std::thread stop([&] {
    spares.Stop();
    stopped = true;
  });
  EXPECT_TRUE(Eventually([&] { return stopped.load(); }));
  disk.Fail();
  stop.join();
  EXPECT_LE(disk.most_unsynced_bytes(), uint64_t{32} << 20);
  EXPECT_TRUE(disk.Paths().empty()) << testing::PrintToString(disk.Paths());
}

}  // namespace
}  // namespace crab::test

// A disk in memory whose syncs stop returning until a test lets them. Synchronized.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "tests/support/forwarding_file.h"
#include "tests/support/sim_disk.h"

namespace crab::test {

class StallingDisk : public SimDisk {
 public:
  using SimDisk::SimDisk;

  // Syncs of files that begin from now on do not return.
  void Stall() {
    std::lock_guard lock(mutex_);
    stalls_ = true;
    error_ = 0;
  }
  // They do; with an error those that had begun fail with it.
  void Release(int error = 0) {
    std::lock_guard lock(mutex_);
    stalls_ = false;
    error_ = error;
    released_.notify_all();
  }
  // Somebody waits for one.
  bool stalled() const {
    std::lock_guard lock(mutex_);
    return waiting_ > 0;
  }

  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    return std::unique_ptr<wal::File>(
        std::make_unique<StallingFile>(*this, TRY(SimDisk::Open(path, mode))));
  }

 private:
  class StallingFile : public ForwardingFile {
   public:
    StallingFile(StallingDisk& disk, std::unique_ptr<wal::File> file)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Status SyncData() override {
      const int error = disk_.Wait();
      if (error != 0) return Status::Error("cannot sync a file: the test says so", error);
      return ForwardingFile::SyncData();
    }

   private:
    StallingDisk& disk_;
  };

  int Wait() {
    std::unique_lock lock(mutex_);
    if (!stalls_) return 0;
    ++waiting_;
    released_.wait(lock, [this] { return !stalls_; });
    --waiting_;
    return error_;
  }

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable released_;
  bool stalls_ = false;
  int error_ = 0;
  int waiting_ = 0;
};

}  // namespace crab::test

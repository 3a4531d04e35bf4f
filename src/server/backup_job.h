// BackupJob: one backup of the log's directory at a time (persistence/backup.h), on a thread of its
// own, so that no loop waits for the disk. Synchronized.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

#include "persistence/backup.h"
#include "persistence/disk.h"
#include "utils/status.h"

namespace crab {

class BackupJob {
 public:
  // `disk` outlives this.
  explicit BackupJob(wal::Disk& disk) : disk_(disk) {}
  ~BackupJob();  // ends one that runs, without a backup

  // Begins one and returns its number; a client's error where one runs.
  Result<uint64_t> Start(const std::string& source, const std::string& target);

  struct Facts {
    uint64_t number = 0;  // of the running or the last one; 0 = there was none
    bool running = false;
    std::string error;  // of the last one that ended; "" = it is whole
    std::string target;
    wal::BackupReport report;  // of the last whole one
  };
  Facts facts() const;

 private:
  void Run(std::string source, std::string target);

  wal::Disk& disk_;
  mutable std::mutex mutex_;
  Facts facts_;  // guarded by mutex_
  std::atomic<bool> stop_{false};
  std::thread thread_;  // guarded by mutex_; of the last one
};

}  // namespace crab

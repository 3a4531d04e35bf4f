// Makes the next segment's file ahead of its use: full of zeroes and synced, because syncing over
// space that is already written takes half as long as syncing appended space.
// Synchronized: the log's writer asks and takes, a thread of its own does the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "persistence/disk.h"
#include "utils/status.h"

namespace crab::wal {

// A new file of zeroes, synced. An older file of that name is replaced.
// On an error, or when `given_up` turns true, there is no such file.
Result<std::unique_ptr<File>> MakeZeroedFile(Disk& disk, const std::string& path, uint64_t bytes,
                                             const std::atomic<bool>* given_up = nullptr);

class SpareMaker {
 public:
  struct Spare {
    std::unique_ptr<File> file;
    uint64_t bytes = 0;
  };

  // Takes over the spare that an earlier run left and removes what was left unfinished.
  SpareMaker(Disk& disk, const std::string& directory);
  ~SpareMaker();  // ends the thread; a ready spare stays for the next run

  // Where a taken spare stands until its taker has renamed it.
  const std::string& path() const { return path_; }
  // One spare of this size is wanted. Does nothing while there is one, or one is being made, or
  // the last try failed less than a second ago. Never blocks on the disk. None is made that would
  // leave less than its own size free.
  void Request(uint64_t bytes);
  // The space is needed for the log itself: removes what is being made, and makes nothing for a
  // while. A spare that is ready stays: it is the log's own next space.
  void GiveUp();
  bool ready();
  // The spare, if it is ready.
  std::optional<Spare> Take();

 private:
  void Work();
  Status Make(uint64_t bytes, std::unique_ptr<File>* file);

  Disk& disk_;
  const std::string directory_;
  const std::string path_;
  const std::string unfinished_path_;
  std::mutex mutex_;  // guards everything below
  std::condition_variable wake_;
  std::condition_variable idle_;  // nothing is being made
  std::optional<Spare> ready_;
  uint64_t wanted_bytes_ = 0;          // 0 = nothing to do
  int64_t not_before_us_ = 0;          // after a failure
  std::atomic<bool> given_up_{false};  // read while a file is being made, without the lock
  bool failure_told_ = false;
  bool stopping_ = false;
  bool started_ = false;
  std::thread thread_;
};

}  // namespace crab::wal

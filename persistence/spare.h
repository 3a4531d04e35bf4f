// Makes the files of the next segments ahead of their use: full of zeroes and synced, because
// syncing over space that is already written takes half as long as syncing appended space. A
// segment that nobody needs any more serves as well as new space, and saves the disk from finding
// any. Synchronized: the log's writer asks and takes, a thread of its own does the work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "persistence/disk.h"
#include "utils/status.h"

namespace crab::wal {

// A new file of zeroes, synced. An older file of that name is replaced.
// On an error, or when `given_up` turns true, there is no such file.
Result<std::unique_ptr<File>> MakeZeroedFile(Disk& disk, const std::string& path, uint64_t bytes,
                                             const std::atomic<bool>* given_up = nullptr);

// ENOSPC and the like: space that is given back elsewhere would help.
bool IsOutOfSpace(int error);

class SpareMaker {
 public:
  static constexpr size_t kSparesMax = 2;  // one to be used while the next is made

  struct Spare {
    std::string path;  // where it stands until its taker has renamed it
    std::unique_ptr<File> file;
    uint64_t bytes = 0;
  };

  // Takes over the spares that an earlier run left and removes what was left unfinished.
  SpareMaker(Disk& disk, const std::string& directory);
  ~SpareMaker() { Stop(); }
  // Ends the thread, and gives up what it is making; ready spares stay for the next run.
  void Stop();

  // `count` spares of this size are wanted. Does nothing while there are as many, or one is being
  // made, or the last try failed less than a second ago. Never blocks on the disk. None is made
  // that would leave less than its own size free.
  void Request(uint64_t bytes, size_t count);
  // True: a file may be renamed to unfinished_path() to become a spare, and Recycle() or
  // CancelRecycling() follows; nothing else is made meanwhile.
  bool StartRecycling();
  // The file now at unfinished_path() has no other name and its own is durably gone.
  void Recycle(uint64_t bytes);
  void CancelRecycling();
  const std::string& unfinished_path() const { return unfinished_path_; }
  // The space is needed for the log itself: removes what is being made, and makes nothing for a
  // while. Spares that are ready stay: they are the log's own next space.
  void GiveUp();
  size_t ready();
  // A spare, if one is ready.
  std::optional<Spare> Take();

 private:
  void StartThreadLocked();
  void Work();
  Result<Spare> Make(uint64_t bytes, bool recycle);

  Disk& disk_;
  const std::string directory_;
  const std::string unfinished_path_;
  uint64_t next_number_ = 1;  // of a spare's name; the worker's own once it runs
  std::mutex mutex_;          // guards everything below
  std::condition_variable wake_;
  std::condition_variable idle_;  // nothing is being made
  std::vector<Spare> ready_;
  uint64_t wanted_bytes_ = 0;          // 0 = nothing to do
  bool recycles_ = false;              // from the file at unfinished_path_
  bool reserved_ = false;              // between StartRecycling and what follows
  int64_t not_before_us_ = 0;          // after a failure
  std::atomic<bool> given_up_{false};  // read while a file is being made, without the lock
  bool failure_told_ = false;
  bool stopping_ = false;
  bool started_ = false;
  std::thread thread_;
};

}  // namespace crab::wal

#include "persistence/spare.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "utils/clock.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

// Small enough that a stop does not wait for long and the disk's queue is not filled at once.
constexpr size_t kStepBytes = size_t{256} << 10;
constexpr int64_t kRetryUs = 1000000;

Status RemoveIfThere(Disk& disk, const std::string& path) {
  Status removed = disk.Remove(path);
  return removed.system_errno() == ENOENT ? Status::Ok() : std::move(removed);
}

}  // namespace

Result<std::unique_ptr<File>> MakeZeroedFile(Disk& disk, const std::string& path, uint64_t bytes,
                                             const std::atomic<bool>* given_up) {
  TRY(RemoveIfThere(disk, path));
  auto file = TRY(disk.Open(path, OpenMode::kCreate));
  Status made = [&]() -> Status {
    const std::string zeroes(std::min<uint64_t>(bytes, kStepBytes), '\0');
    for (uint64_t at = 0; at < bytes; at += zeroes.size()) {
      if (given_up != nullptr && given_up->load(std::memory_order_relaxed)) {
        return Status::Error("gave up " + path + ": the log needs its space", ENOSPC);
      }
      const size_t step = std::min<uint64_t>(zeroes.size(), bytes - at);
      TRY(file->WriteAt(at, std::string_view(zeroes).substr(0, step)));
    }
    return file->SyncData();
  }();
  if (made.ok()) return file;
  file = nullptr;
  (void)disk.Remove(path);  // may be what fills the disk
  return made;
}

SpareMaker::SpareMaker(Disk& disk, const std::string& directory)
    : disk_(disk),
      directory_(directory),
      path_(directory + "/spare.zero"),
      unfinished_path_(directory + "/spare.tmp") {
  // Its absence is the usual case, and without it a spare is only made anew.
  (void)disk_.Remove(unfinished_path_);
  auto file = disk_.Open(path_, OpenMode::kReadWrite);
  if (!file.ok()) return;
  auto bytes = file.value()->Size();
  if (!bytes.ok()) return;
  ready_ = Spare{std::move(file).value(), *bytes};
}

SpareMaker::~SpareMaker() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void SpareMaker::Request(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  if (ready_ || wanted_bytes_ != 0 || RealClock().MonotonicUs() < not_before_us_) return;
  wanted_bytes_ = bytes;
  if (!started_) {
    started_ = true;
    thread_ = std::thread([this] { Work(); });
  }
  wake_.notify_one();
}

bool SpareMaker::ready() {
  std::lock_guard lock(mutex_);
  return ready_.has_value();
}

std::optional<SpareMaker::Spare> SpareMaker::Take() {
  std::lock_guard lock(mutex_);
  return std::exchange(ready_, std::nullopt);
}

void SpareMaker::GiveUp() {
  std::unique_lock lock(mutex_);
  not_before_us_ = RealClock().MonotonicUs() + kRetryUs;
  if (wanted_bytes_ == 0) return;
  given_up_.store(true, std::memory_order_relaxed);
  idle_.wait(lock, [this] { return wanted_bytes_ == 0; });
}

Status SpareMaker::Make(uint64_t bytes, std::unique_ptr<File>* file) {
  const uint64_t free_bytes = TRY(disk_.FreeBytes(directory_));
  if (free_bytes < 2 * bytes) {
    return Status::Error("no spare segment of " + std::to_string(bytes) + " bytes in " +
                             directory_ + ": " + std::to_string(free_bytes) + " are free",
                         ENOSPC);
  }
  *file = TRY(MakeZeroedFile(disk_, unfinished_path_, bytes, &given_up_));
  return disk_.Rename(unfinished_path_, path_);
}

void SpareMaker::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || wanted_bytes_ != 0; });
    if (stopping_) return;
    const uint64_t bytes = wanted_bytes_;
    lock.unlock();
    std::unique_ptr<File> file;
    Status made = Make(bytes, &file);
    if (!made.ok()) {
      if (!std::exchange(failure_told_, true)) {
        LogWarn("no spare segment could be made; syncs take longer without, nothing is lost",
                {{"error", made.message()}});
      }
    } else {
      failure_told_ = false;
    }
    lock.lock();
    if (made.ok()) {
      ready_ = Spare{std::move(file), bytes};
    } else {
      not_before_us_ = RealClock().MonotonicUs() + kRetryUs;
    }
    wanted_bytes_ = 0;
    given_up_.store(false, std::memory_order_relaxed);
    idle_.notify_all();
  }
}

}  // namespace crab::wal

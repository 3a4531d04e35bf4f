#include "persistence/spare.h"

#include <algorithm>
#include <cerrno>
#include <vector>

#include "utils/clock.h"

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

Result<std::unique_ptr<File>> MakeZeroedFile(Disk& disk, const std::string& path, uint64_t bytes) {
  TRY(RemoveIfThere(disk, path));
  auto file = TRY(disk.Open(path, OpenMode::kCreate));
  const std::string zeroes(std::min<uint64_t>(bytes, kStepBytes), '\0');
  for (uint64_t at = 0; at < bytes; at += zeroes.size()) {
    const size_t step = std::min<uint64_t>(zeroes.size(), bytes - at);
    TRY(file->WriteAt(at, std::string_view(zeroes).substr(0, step)));
  }
  TRY(file->SyncData());
  return file;
}

SpareMaker::SpareMaker(Disk& disk, const std::string& directory)
    : disk_(disk), path_(directory + "/spare.zero"), unfinished_path_(directory + "/spare.tmp") {
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

void SpareMaker::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || wanted_bytes_ != 0; });
    if (stopping_) return;
    const uint64_t bytes = wanted_bytes_;
    lock.unlock();
    auto file = MakeZeroedFile(disk_, unfinished_path_, bytes);
    Status renamed = file.ok() ? disk_.Rename(unfinished_path_, path_) : file.TakeStatus();
    if (!renamed.ok()) (void)disk_.Remove(unfinished_path_);  // may be what fills the disk
    lock.lock();
    if (renamed.ok()) {
      ready_ = Spare{std::move(file).value(), bytes};
    } else {
      not_before_us_ = RealClock().MonotonicUs() + kRetryUs;
    }
    wanted_bytes_ = 0;
  }
}

}  // namespace crab::wal

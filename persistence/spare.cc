#include "persistence/spare.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "utils/clock.h"
#include "utils/log.h"
#include "utils/number.h"

namespace crab::wal {
namespace {

// Small enough that a stop does not wait for long and the disk's queue is not filled at once.
constexpr size_t kStepBytes = size_t{256} << 10;
// Synced so often that neither a stop nor the log's own syncs wait for more of it to be written.
constexpr uint64_t kSyncedBytes = uint64_t{32} << 20;
constexpr int64_t kRetryUs = 1000000;
constexpr std::string_view kPrefix = "spare-";
constexpr std::string_view kSuffix = ".zero";

Status RemoveIfThere(Disk& disk, const std::string& path) {
  Status removed = disk.Remove(path);
  return removed.system_errno() == ENOENT ? Status::Ok() : std::move(removed);
}

// False of a spare that was taken and written to when the process ended: its header came first.
bool BeginsWithZeroes(File& file) {
  char bytes[kStepBytes / 32];
  auto count = file.ReadAt(0, bytes);
  return count.ok() && std::all_of(bytes, bytes + *count, [](char byte) { return byte == 0; });
}

Status FillWithZeroes(File& file, const std::string& path, uint64_t bytes,
                      const std::atomic<bool>* given_up) {
  const std::string zeroes(std::min<uint64_t>(bytes, kStepBytes), '\0');
  for (uint64_t at = 0; at < bytes; at += zeroes.size()) {
    if (given_up != nullptr && given_up->load(std::memory_order_relaxed)) {
      return Status::Error("gave up " + path + ": the log needs its space, or ends", ENOSPC);
    }
    if (at > 0 && at % kSyncedBytes == 0) TRY(file.SyncData());
    const size_t step = std::min<uint64_t>(zeroes.size(), bytes - at);
    TRY(file.WriteAt(at, std::string_view(zeroes).substr(0, step)));
  }
  return file.SyncData();
}

}  // namespace

bool IsOutOfSpace(int error) { return error == ENOSPC || error == EDQUOT; }

Result<std::unique_ptr<File>> MakeZeroedFile(Disk& disk, const std::string& path, uint64_t bytes,
                                             const std::atomic<bool>* given_up) {
  TRY(RemoveIfThere(disk, path));
  auto file = TRY(disk.Open(path, OpenMode::kCreate));
  Status made = FillWithZeroes(*file, path, bytes, given_up);
  if (made.ok()) return file;
  file = nullptr;
  (void)disk.Remove(path);  // may be what fills the disk
  return made;
}

SpareMaker::SpareMaker(Disk& disk, const std::string& directory)
    : disk_(disk), directory_(directory), unfinished_path_(directory + "/spare.tmp") {
  // Its absence is the usual case, and without them spares are only made anew.
  (void)disk_.Remove(unfinished_path_);
  auto names = disk_.List(directory_);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) continue;
    std::string_view digits = name;
    digits.remove_prefix(kPrefix.size());
    digits.remove_suffix(kSuffix.size());
    uint64_t number;
    if (!ParseUint64(digits, &number)) continue;
    next_number_ = std::max(next_number_, number + 1);
    std::string path = directory_ + "/" + name;
    auto file = disk_.Open(path, OpenMode::kReadWrite);
    if (!file.ok()) continue;
    auto bytes = file.value()->Size();
    if (!bytes.ok()) continue;
    if (ready_.size() == kSparesMax || !BeginsWithZeroes(**file)) {
      (void)disk_.Remove(path);
      continue;
    }
    ready_.push_back({std::move(path), std::move(file).value(), *bytes});
  }
}

void SpareMaker::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
    given_up_.store(true, std::memory_order_relaxed);
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void SpareMaker::StartThreadLocked() {
  if (!started_) {
    started_ = true;
    thread_ = std::thread([this] { Work(); });
  }
  wake_.notify_one();
}

void SpareMaker::Request(uint64_t bytes, size_t count) {
  std::lock_guard lock(mutex_);
  if (ready_.size() >= std::min(count, kSparesMax) || wanted_bytes_ != 0 || reserved_) return;
  if (RealClock().MonotonicUs() < not_before_us_) return;
  wanted_bytes_ = bytes;
  recycles_ = false;
  StartThreadLocked();
}

bool SpareMaker::StartRecycling() {
  std::lock_guard lock(mutex_);
  if (ready_.size() >= kSparesMax || wanted_bytes_ != 0 || reserved_) return false;
  if (RealClock().MonotonicUs() < not_before_us_) return false;
  reserved_ = true;
  return true;
}

void SpareMaker::Recycle(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  reserved_ = false;
  wanted_bytes_ = bytes;
  recycles_ = true;
  StartThreadLocked();
}

void SpareMaker::CancelRecycling() {
  std::lock_guard lock(mutex_);
  reserved_ = false;
}

size_t SpareMaker::ready() {
  std::lock_guard lock(mutex_);
  return ready_.size();
}

std::optional<SpareMaker::Spare> SpareMaker::Take() {
  std::lock_guard lock(mutex_);
  if (ready_.empty()) return std::nullopt;
  Spare spare = std::move(ready_.front());
  ready_.erase(ready_.begin());
  return spare;
}

void SpareMaker::GiveUp() {
  std::unique_lock lock(mutex_);
  not_before_us_ = RealClock().MonotonicUs() + kRetryUs;
  if (wanted_bytes_ == 0) return;
  given_up_.store(true, std::memory_order_relaxed);
  idle_.wait(lock, [this] { return wanted_bytes_ == 0; });
}

Result<SpareMaker::Spare> SpareMaker::Make(uint64_t bytes, bool recycle) {
  std::unique_ptr<File> file;
  uint64_t has_bytes = 0;
  if (recycle) {
    file = TRY(disk_.Open(unfinished_path_, OpenMode::kReadWrite));
    has_bytes = TRY(file->Size());
    if (has_bytes > bytes) TRY(file->Truncate(bytes));
  }
  const uint64_t free_bytes = TRY(disk_.FreeBytes(directory_));
  if (free_bytes < bytes + (bytes - std::min(has_bytes, bytes))) {
    return Status::Error("no spare segment of " + std::to_string(bytes) + " bytes in " +
                             directory_ + ": " + std::to_string(free_bytes) + " are free",
                         ENOSPC);
  }
  if (recycle) {
    TRY(FillWithZeroes(*file, unfinished_path_, bytes, &given_up_));
  } else {
    file = TRY(MakeZeroedFile(disk_, unfinished_path_, bytes, &given_up_));
  }
  // A name that no spare has had before: one that was taken may still stand where it stood.
  std::string path = directory_ + "/" + std::string(kPrefix) + std::to_string(next_number_++) +
                     std::string(kSuffix);
  TRY(disk_.Rename(unfinished_path_, path));
  return Spare{std::move(path), std::move(file), bytes};
}

void SpareMaker::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || wanted_bytes_ != 0; });
    if (stopping_) return;
    const uint64_t bytes = wanted_bytes_;
    const bool recycle = recycles_;
    lock.unlock();
    auto made = Make(bytes, recycle);
    if (!made.ok()) {
      (void)disk_.Remove(unfinished_path_);
      if (!given_up_.load(std::memory_order_relaxed) && !std::exchange(failure_told_, true)) {
        LogWarn("no spare segment could be made; syncs take longer without, nothing is lost",
                {{"error", made.message()}});
      }
    } else {
      failure_told_ = false;
    }
    lock.lock();
    if (made.ok()) {
      ready_.push_back(std::move(*made));
    } else {
      not_before_us_ = RealClock().MonotonicUs() + kRetryUs;
    }
    wanted_bytes_ = 0;
    given_up_.store(false, std::memory_order_relaxed);
    idle_.notify_all();
  }
}

}  // namespace crab::wal

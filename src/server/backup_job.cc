#include "src/server/backup_job.h"

#include <utility>

#include "utils/log.h"

namespace crab {

BackupJob::~BackupJob() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

Result<uint64_t> BackupJob::Start(const std::string& source, const std::string& target) {
  std::lock_guard lock(mutex_);
  if (facts_.running) return Status::Error("ERR a backup is already in progress");
  if (thread_.joinable()) thread_.join();  // it has said that it is over
  facts_.running = true;
  facts_.target = target;
  facts_.error.clear();
  ++facts_.number;
  thread_ = std::thread([this, source, target] { Run(source, target); });
  return facts_.number;
}

BackupJob::Facts BackupJob::facts() const {
  std::lock_guard lock(mutex_);
  return facts_;
}

void BackupJob::Run(std::string source, std::string target) {
  wal::BackupOptions options;
  options.stop = &stop_;
  auto report = wal::BackUp(disk_, source, target, options);
  if (report.ok()) {
    LogInfo("the log was backed up",
            {{"directory", target}, {"lsn", report->lsn}, {"copied_bytes", report->copied_bytes}});
  } else {
    LogError("the log was not backed up", {{"directory", target}, {"error", report.message()}});
  }
  std::lock_guard lock(mutex_);
  facts_.running = false;
  facts_.error = report.message();
  if (report.ok()) facts_.report = *report;
}

}  // namespace crab

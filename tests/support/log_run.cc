#include "tests/support/log_run.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "persistence/checkpoint.h"
#include "persistence/segment.h"
#include "tests/support/eventually.h"
#include "tests/support/seed.h"
#include "utils/check.h"
#include "utils/clock.h"
#include "utils/log.h"

namespace crab::test {
namespace {

// Disks fail by the thousand here; what the log says of it has a test of its own.
[[maybe_unused]] const bool kQuiet = (SetLogLevel(LogLevel::kNothing), true);

std::string PayloadOf(uint64_t number, size_t bytes) {
  std::string payload = "record " + std::to_string(number) + " ";
  uint64_t noise = 0;
  while (payload.size() < bytes) {
    noise = Mix(number, payload.size());
    payload.append(reinterpret_cast<const char*>(&noise), sizeof(noise));
  }
  payload.resize(std::max<size_t>(bytes, 1));
  return payload;
}

}  // namespace

TemporaryDirectory::TemporaryDirectory() {
  char name[] = "/tmp/crabcache-log-XXXXXX";
  CHECK(mkdtemp(name) != nullptr);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

wal::Options LogOptions(wal::SyncPolicy policy) {
  wal::Options options;
  options.directory = kLogDirectory;
  options.max_segment_bytes = 1 << 20;
  options.ring_bytes = 1 << 20;
  options.ring_directory = "";
  options.flush_interval_ms = 1;
  options.sync_policy = policy;
  options.shard_count = 16;
  return options;
}

const char* PolicyName(wal::SyncPolicy policy) {
  switch (policy) {
    case wal::SyncPolicy::kNone:
      return "None";
    case wal::SyncPolicy::kAsync:
      return "Async";
    case wal::SyncPolicy::kSync:
      return "Sync";
  }
  return "?";
}

std::vector<std::string> SegmentPaths(const SimDisk& disk) {
  std::vector<std::string> paths;
  for (const std::string& path : disk.Paths()) {
    if (wal::SegmentNumber(path.substr(path.rfind('/') + 1))) paths.push_back(path);
  }
  return paths;
}

Boot BootLog(wal::Disk& disk, const wal::Options& options) {
  Boot boot;
  wal::Lsn last = 0;
  auto log = wal::Log::Open(
      disk, options, [&](const wal::Identity& identity) { boot.identity = identity; },
      [&](const wal::RecordView& record) {
        boot.in_order = boot.in_order && record.lsn > last;
        last = record.lsn;
        boot.records[record.lsn] = {record.type, record.shard, std::string(record.payload)};
        return Status::Ok();
      },
      &boot.report);
  if (log.ok()) {
    boot.log = std::move(*log);
  } else {
    boot.error = log.message();
    boot.error_number = log.system_errno();
  }
  return boot;
}

Status PutCheckpoint(wal::Disk& disk, const wal::Log& log, const std::string& directory,
                     wal::Lsn lsn) {
  wal::CheckpointInfo info;
  info.lsn = lsn;
  info.identity = log.identity();
  info.created_at_ms = RealClock().WallMs();
  auto writer = TRY(wal::CheckpointWriter::Create(disk, directory, info, wal::Compression::kNone,
                                                  /*keys=*/nullptr));
  TRY(writer->Add(0, "checkpoint", 1));
  TRY(writer->Finish());
  return writer->Publish();
}

wal::Lsn Promise::Append(wal::Log& log, size_t bytes) {
  const uint64_t number = ++count_;
  FoundRecord record;
  record.type = static_cast<wal::RecordType>(1 + number % 3);
  record.shard = record.type == wal::RecordType::kEffect ? static_cast<uint16_t>(number % 16)
                                                         : wal::kBroadcastShard;
  record.payload = PayloadOf(number, bytes);
  const wal::Lsn lsn = log.Append(record.type, record.shard, record.payload);
  if (lsn != wal::kNoGate) appended_[lsn] = std::move(record);  // dropped by a degraded log
  return lsn;
}

void Promise::NoteDurable(const wal::Log& log) { NoteDurable(log.durable_lsn()); }

void Promise::Adopt(const Boot& boot) {
  appended_ = boot.records;
  durable_ = appended_.empty() ? 0 : appended_.rbegin()->first;
}

std::string Promise::Judge(const Records& found) const {
  for (const auto& [lsn, record] : found) {
    const auto appended = appended_.find(lsn);
    if (appended == appended_.end()) return "invented LSN " + std::to_string(lsn);
    if (!(appended->second == record)) return "changed LSN " + std::to_string(lsn);
  }
  const wal::Lsn last = found.empty() ? 0 : found.rbegin()->first;
  for (const auto& [lsn, record] : appended_) {
    if (found.count(lsn) != 0) continue;
    if (lsn <= durable_) return "lost durable LSN " + std::to_string(lsn);
    if (lsn < last) return "LSN " + std::to_string(lsn) + " is missing before a later one";
  }
  return "";
}

bool WaitDurable(wal::Log& log, wal::Lsn lsn, const SimDisk* disk) {
  log.Kick();
  Eventually([&] {
    return log.durable_lsn() >= lsn || log.state() != wal::State::kRunning ||
           (disk != nullptr && disk->crashed());
  });
  return log.durable_lsn() >= lsn;
}

bool WaitHealed(const wal::Log& log) {
  return Eventually(
      [&] { return log.state() == wal::State::kRunning && log.durable_lsn() >= log.last_lsn(); });
}

}  // namespace crab::test

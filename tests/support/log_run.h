// Runs of the log for its crash, fault and corruption tests: appends records whose bytes follow
// from their LSN, remembers what was promised, and judges what a later boot finds. A LogRun belongs
// to one thread.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "persistence/log.h"
#include "tests/support/sim_disk.h"

namespace crab::test {

constexpr char kLogDirectory[] = "wal";

// Small, and without a shared ring: after a power cut there is none.
wal::Options LogOptions(wal::SyncPolicy policy);
const char* PolicyName(wal::SyncPolicy policy);

// The paths of the segments on a disk, in order; not of spare files and the like.
std::vector<std::string> SegmentPaths(const SimDisk& disk);

struct FoundRecord {
  wal::RecordType type;
  uint16_t shard;
  std::string payload;
  bool operator==(const FoundRecord&) const = default;
};
using Records = std::map<wal::Lsn, FoundRecord>;

// What a boot found. `log` is null where Open refused, and `error` says why.
struct Boot {
  std::unique_ptr<wal::Log> log;
  Records records;
  wal::RecoveryReport report;
  wal::Identity identity;
  std::string error;
  int error_number = 0;
  bool in_order = true;  // each LSN above the one before
};
Boot BootLog(wal::Disk& disk, const wal::Options& options);

// Publishes a checkpoint at `lsn` with one chunk, the effect "checkpoint" on shard 0: found by a
// boot as a record of that LSN. The log is not told.
Status PutCheckpoint(wal::Disk& disk, const wal::Log& log, const std::string& directory,
                     wal::Lsn lsn);

// A directory of the machine's own disk, for rings and for logs that are killed. Goes with its
// owner.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The promise of a log, over any number of boots.
class Promise {
 public:
  // Appends a record of about `bytes` bytes and notes it.
  wal::Lsn Append(wal::Log& log, size_t bytes);
  // Notes what the log says to be durable now.
  void NoteDurable(const wal::Log& log);
  void NoteDurable(wal::Lsn lsn) { durable_ = std::max(durable_, lsn); }
  // Takes over what a boot found as the truth from here on: it was applied, so it is promised.
  void Adopt(const Boot& boot);

  const Records& appended() const { return appended_; }
  wal::Lsn durable() const { return durable_; }

  // "" where `found` holds every durable record, nothing that was not appended, and no record
  // behind one that is missing; otherwise what is wrong.
  std::string Judge(const Records& found) const;

 private:
  Records appended_;
  wal::Lsn durable_ = 0;
  uint64_t count_ = 0;
};

// Waits until the record is durable, the disk has crashed, the log stopped running, or two
// minutes are over; returns whether it is durable.
bool WaitDurable(wal::Log& log, wal::Lsn lsn, const SimDisk* disk = nullptr);
// Until the log runs again and everything appended is durable.
bool WaitHealed(const wal::Log& log);

}  // namespace crab::test

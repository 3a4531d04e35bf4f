#include "persistence/backlog.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "persistence/log.h"

namespace crab::wal {
namespace {

// Keeps all records in memory and gives them in order, as one unit.
class KeptBacklog final : public Backlog {
 public:
  uint32_t units() const override { return 1; }
  bool empty() const override { return records_.empty(); }
  uint64_t total_bytes() const override { return report_.bytes_processed; }
  uint64_t done_bytes() const override { return done_.load(std::memory_order_relaxed); }

  Status Replay(uint32_t, const Apply& apply) override {
    return ReplayInOrder([&](const RecordView& record) {
      return apply({record.lsn, record.type, false, record.payload, {}});
    });
  }

  Status ReplayInOrder(const std::function<Status(const RecordView&)>& apply) override {
    for (const Kept& kept : records_) {
      Status applied = apply({kept.lsn, kept.type, kept.shard, kept.payload});
      done_.fetch_add(kept.payload.size(), std::memory_order_relaxed);
      if (applied.ok()) continue;
      std::lock_guard guard(mutex_);
      --report_.entries_recovered;
      ++report_.entries_skipped;
      report_.warnings.push_back("LSN " + std::to_string(kept.lsn) + ": " +
                                 std::string(applied.message()));
    }
    return Status::Ok();
  }

  RecoveryReport report() const override {
    std::lock_guard guard(mutex_);
    return report_;
  }

  void Keep(const RecordView& record) {
    records_.push_back({record.lsn, record.type, record.shard, std::string(record.payload)});
  }
  void SetReport(RecoveryReport report) { report_ = std::move(report); }

 private:
  struct Kept {
    Lsn lsn;
    RecordType type;
    uint16_t shard;
    std::string payload;
  };
  std::vector<Kept> records_;
  std::atomic<uint64_t> done_{0};
  mutable std::mutex mutex_;
  RecoveryReport report_;
};

}  // namespace

Result<std::unique_ptr<Log>> Log::Open(Disk& disk, const Options& options,
                                       std::unique_ptr<Backlog>* backlog) {
  auto kept = std::make_unique<KeptBacklog>();
  RecoveryReport report;
  auto log = TRY(Open(
      disk, options, [](const Identity&) {},
      [&](const RecordView& record) {
        kept->Keep(record);
        return Status::Ok();
      },
      &report));
  kept->SetReport(std::move(report));
  *backlog = std::move(kept);
  return Result<std::unique_ptr<Log>>(std::move(log));
}

}  // namespace crab::wal

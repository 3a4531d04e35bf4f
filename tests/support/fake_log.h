// A log in memory for the tests of dispatch and session: keeps what is appended, and leaves it to
// the test what is released, whether there is room and which state it is in. Synchronized as far as
// loops use it; the knobs and what happened belong to one thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "persistence/log.h"

namespace crab::test {

class FakeLog : public wal::Log {
 public:
  struct Record {
    wal::Lsn lsn;
    wal::RecordType type;
    uint16_t shard;
    std::string payload;
  };

  // --- the knobs ---
  bool has_room = true;
  bool releases_at_once = true;  // every record is durable and released as soon as it is appended
  bool drops = false;            // keeps nothing, as a log does that has degraded
  bool degrades = false;         // behind the next record, which leaves out an LSN
  std::string last_error = "the disk is on fire";
  wal::Lsn failed_above = UINT64_MAX;    // GateFailed for every gate above
  wal::Lsn given_up_above = UINT64_MAX;  // GateGivenUp likewise
  std::function<void()> on_append;       // after each record
  std::function<void()> on_gate_asked;   // after each answer of GateFailed
  void Release(wal::Lsn lsn) {
    durable_lsn_.store(lsn);
    written_lsn_.store(lsn);
    release_lsn_.store(lsn);
    unsynced_release_lsn_.store(lsn);
    if (listener_) listener_();
  }
  // For replies of a policy of their own that does not wait for the disk.
  void ReleaseUnsynced(wal::Lsn lsn) { unsynced_release_lsn_.store(lsn); }
  void SetDurable(wal::Lsn lsn) { durable_lsn_.store(lsn); }
  void SetState(wal::State state) { state_.store(state); }

  // --- what happened ---
  const std::vector<Record>& records() const { return records_; }
  void Forget() { records_.clear(); }
  uint64_t room_asked() const { return room_asked_; }  // calls of SecureRoom
  uint64_t syncs_requested() const { return syncs_requested_; }
  uint64_t rotations_requested() const { return rotations_requested_; }
  uint64_t cleanups_requested() const { return cleanups_requested_; }
  wal::Lsn checkpoint_lsn() const { return checkpoint_lsn_; }  // of the last SetCheckpoint
  wal::Lsn oldest_kept() const { return oldest_kept_; }

  // --- wal::Log ---
  bool SecureRoom(size_t) override {
    ++room_asked_;
    return has_room;
  }
  wal::Lsn Append(wal::RecordType type, uint16_t shard, std::string_view payload) override {
    if (drops) return wal::kNoGate;
    std::lock_guard lock(mutex_);
    const wal::Lsn lsn = last_lsn_.load() + 1;
    records_.push_back({lsn, type, shard, std::string(payload)});
    last_lsn_.store(std::exchange(degrades, false) ? lsn + 1 : lsn);
    if (releases_at_once) {
      durable_lsn_.store(lsn);
      written_lsn_.store(lsn);
      release_lsn_.store(lsn);
      unsynced_release_lsn_.store(lsn);
    }
    if (on_append) on_append();
    return lsn;
  }
  void Kick() override {}
  void SetListener(std::function<void()> listener) override { listener_ = std::move(listener); }
  wal::Lsn SetSyncPolicy(wal::SyncPolicy) override { return last_lsn(); }
  void SetFlushIntervalMs(uint32_t) override {}
  void SetBufferBytes(uint64_t) override {}
  void SetMaxSegmentBytes(uint64_t) override {}
  void SetOnError(wal::OnError) override {}
  void RequestSync() override { ++syncs_requested_; }
  void RequestRotate() override { ++rotations_requested_; }
  void SetCheckpoint(wal::Lsn newest, wal::Lsn oldest_kept) override {
    checkpoint_lsn_ = newest;
    oldest_kept_ = oldest_kept;
  }
  wal::Lsn retained_from() const override { return wal::kUnknownLsn; }
  void SetRestorable(wal::Lsn) override {}
  void RequestCleanup(uint64_t) override { ++cleanups_requested_; }
  void SetRetention(uint64_t, uint64_t) override {}
  void SetCompression(wal::Compression) override {}
  Status Stop() override { return Status::Ok(); }
  Result<wal::Lsn> Resume() override { return last_lsn(); }
  bool resumable() const override { return false; }
  void RetryDisk() override {}
  bool GateFailed(wal::Lsn gate) const override {
    const bool failed = gate > failed_above;
    if (on_gate_asked) on_gate_asked();
    return failed;
  }
  bool GateGivenUp(wal::Lsn gate) const override { return gate > given_up_above; }
  wal::Metrics metrics() const override {
    wal::Metrics metrics;
    metrics.state = state();
    metrics.last_lsn = last_lsn();
    metrics.durable_lsn = durable_lsn();
    metrics.checkpoint_lsn = checkpoint_lsn_;
    metrics.last_error = last_error;
    return metrics;
  }
  const wal::Identity& identity() const override { return identity_; }

 private:
  std::mutex mutex_;
  std::vector<Record> records_;
  std::atomic<uint64_t> room_asked_{0};
  uint64_t syncs_requested_ = 0;
  uint64_t rotations_requested_ = 0;
  uint64_t cleanups_requested_ = 0;
  wal::Lsn checkpoint_lsn_ = 0;
  wal::Lsn oldest_kept_ = 0;
  std::function<void()> listener_;
  wal::Identity identity_;
};

}  // namespace crab::test

// Everything of a server that keeps data, without its loops and sockets: a keyspace, commands
// through dispatch, the log, checkpoints, and recovery through the loader, on a simulated disk.
// What a server does in its own time happens here when the test says so; only the log's threads are
// their own, and Settle() waits for them. Belongs to one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/checkpoint.h"
#include "persistence/codec.h"
#include "persistence/log.h"
#include "src/execution/dispatch.h"
#include "src/execution/world.h"
#include "src/keyspace/keyspace.h"
#include "src/keyspace/snapshot.h"
#include "tests/engine/model.h"
#include "tests/support/sim_disk.h"

namespace crab::test {

constexpr char kEngineDirectory[] = "wal";
constexpr uint32_t kEngineShards = 8;

// Small segments, no shared ring, and nothing that happens by the clock.
wal::Options EngineOptions(wal::SyncPolicy policy = wal::SyncPolicy::kSync,
                           wal::RecoveryMode recovery = wal::RecoveryMode::kSalvage);

// A ring of one key.
class TestKeys {
 public:
  TestKeys();
  const std::shared_ptr<const wal::KeyRing>& ring() const { return ring_; }

 private:
  std::shared_ptr<const wal::KeyRing> ring_;
};

enum class Replay {
  kByUnits,  // the units in an order that the seed decides, through the server's loader
  kInOrder,  // record by record
};

class Engine : public SnapshotSink {
 public:
  // Recovers what the disk holds. Null where that is refused or fails, and `*error` says why.
  static std::unique_ptr<Engine> Start(SimDisk& disk, const wal::Options& options, Replay replay,
                                       uint64_t seed, std::string* error);
  ~Engine() override;

  wal::Log& log() { return *log_; }
  const wal::RecoveryReport& report() const { return report_; }
  wal::Lsn recovered_lsn() const { return recovered_lsn_; }  // where the log ended
  // All keys, values abridged.
  Data Read() const;
  Data ReadInFull() const;

  // The reply; "" where nothing happened for want of room.
  std::string Run(uint32_t db, const Words& words);
  // Of the last command: what its reply waits for.
  wal::Lsn gate() const { return client_.gate; }
  // Likewise: the record that it wrote; kNoGate: none.
  wal::Lsn own_lsn() const { return client_.own_lsn; }

  // A checkpoint as src/server/checkpoint_job.h makes them, one at a time. The data is what the
  // log's records up to `lsn` made.
  void BeginCheckpoint(wal::Lsn lsn);
  // A part of the work: creating the file, some entries of a shard, finishing, publishing. False
  // when it has ended, with its status.
  bool StepCheckpoint();
  bool checkpoint_runs() const { return snapshot_ != nullptr; }
  Status TakeCheckpointStatus() { return std::move(checkpoint_status_); }

  // Returns when the log's threads have nothing to do any more, as far as the disk shows.
  void Settle();

 private:
  struct Chunk {
    uint16_t shard;
    uint64_t entries;
    std::string effects;
  };

  Engine(SimDisk& disk, const wal::Options& options, const wal::Identity& identity);

  Status Recover(std::unique_ptr<wal::Backlog> backlog, Replay replay, uint64_t seed);
  Status ReplayByUnits(std::unique_ptr<wal::Backlog> backlog, uint64_t seed);
  Status ReplayInOrder(wal::Backlog& backlog);

  void Take(uint16_t shard, std::string effects, uint64_t entries) override;
  void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                 LargeString* value, bool stays) override;
  Status WriteCheckpoint(bool* ended);
  Status WaitUntilDurable();
  Status Publish();

  SimDisk& disk_;
  const wal::Options options_;
  const Registry registry_;
  Keyspace keyspace_;
  World world_{1};
  Execution execution_{keyspace_, world_, registry_};
  Dispatcher dispatcher_{execution_, 0};
  Client client_;
  std::unique_ptr<wal::Log> log_;
  wal::RecoveryReport report_;
  wal::Lsn recovered_lsn_ = 0;

  std::unique_ptr<Snapshot> snapshot_;
  std::unique_ptr<wal::CheckpointWriter> writer_;
  std::deque<Chunk> chunks_;
  wal::Lsn checkpoint_lsn_ = 0;
  uint32_t next_shard_ = 0;
  bool behind_gap_ = false;  // in this run, now or before
  bool finished_ = false;
  Status checkpoint_status_;
};

}  // namespace crab::test

// Loader: replays what the log holds into the keyspace while the server already serves (DESIGN §7).
// Threads of its own go through the backlog, stage by stage and in each through its units; a
// command that needs data of a unit that is not whole yet has its loop replay what is left of it
// first. Where the backlog does not allow any order, all units are whole at once, in the end.
//
// Who replays a unit holds all its shards meanwhile and is IN, a loop as itself and a worker as a
// guest of the world. So whether a unit is done is decided under its shards' locks, and whoever
// meets a unit in hand waits for it there. Synchronized but for Start and Stop, which belong to one
// thread at a time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "persistence/backlog.h"
#include "src/execution/dispatch.h"
#include "src/execution/replayer.h"
#include "src/execution/shard_loader.h"

namespace crab {

struct LoadProgress {
  uint64_t bytes_total = 0, bytes_done = 0;
  uint64_t units_total = 0, units_done = 0;
  int64_t elapsed_ms = 0;

  uint64_t bytes_per_second() const;
  int64_t remaining_ms() const;  // at this speed; 0 = not known yet
};

class Loader final : public ShardLoader {
 public:
  // Called by a worker that is about to replay some of a unit and holds nothing yet. Tests keep
  // workers waiting in it.
  using Hook = std::function<void(uint32_t unit)>;

  // How many threads a server replays with: its cores, whatever the number of its loops.
  static int Workers();

  // Before any loop runs. The backlog has at most as many units as the keyspace has shards.
  Loader(Execution& execution, std::unique_ptr<wal::Backlog> backlog, int workers, Hook hook = {});
  ~Loader() override;  // stops

  uint32_t units() const { return units_; }
  // Units become whole one by one, so that commands can already run.
  bool any_order() const { return any_order_; }

  // `on_end` is called on the last worker's thread, when every unit is done, one has failed, or
  // Stop has asked for the end.
  void Start(std::function<void()> on_end);
  // False: they were not through within this time.
  bool WaitFor(int64_t timeout_ms);
  // The workers end with what they are at; returns when they have.
  void Stop();

  // Why no more is loaded; OK while nothing has failed. Final once the workers are through.
  Status error() const;
  LoadProgress progress() const;
  wal::RecoveryReport report() const;

  // --- ShardLoader ---
  bool Has(uint32_t shard) const override { return done_[shard / shards_per_unit_]; }
  bool Load(uint32_t shard, int loop) override;

 private:
  LoadProgress ProgressNow() const;  // mutex_ is held
  void Work(int worker);
  // Everything has been replayed: lets go of the log's files, which takes a while.
  void ReleaseBacklog();
  // What is to be replayed next; false: nothing is left, or it failed.
  bool NextPiece(wal::Backlog::Piece* piece);
  void SetDone(uint32_t unit);
  void Fail(const Status& status);
  // False: it failed, or the unit is not whole yet.
  bool ReplayPiece(const wal::Backlog::Piece& piece, Replayer& replayer);
  Status Apply(const wal::Backlog::Part& part, Replayer& replayer, ShardRange shards);
  // Whether all of a transaction suits, this unit's part of which is to be applied.
  Status CheckWhole(const wal::Backlog::Part& part, Replayer& replayer);

  World& world_;
  Keyspace& keyspace_;
  // Null once no unit is left; that changes under mutex_.
  std::unique_ptr<wal::Backlog> backlog_;
  const int workers_;
  const Hook hook_;
  const uint32_t units_;
  const uint32_t shards_per_unit_;
  const bool any_order_;
  const int64_t start_us_;
  std::vector<std::unique_ptr<Replayer>> replayers_;  // of the loops, then of the workers
  // By unit. Set while its shards are held (all at once: under mutex_), and behind units_done_;
  // release, for who reads it without holding them.
  std::unique_ptr<std::atomic<bool>[]> done_;
  std::atomic<uint32_t> units_done_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> failed_{false};

  std::vector<std::thread> threads_;
  std::function<void()> on_end_;
  mutable std::mutex mutex_;
  std::condition_variable ended_;
  int working_ = 0;  // guarded by mutex_, as what follows
  bool through_ = false;
  std::string error_;           // the first
  LoadProgress last_progress_;  // once backlog_ is null
  wal::RecoveryReport last_report_;
  // Verdicts on large transactions, which every unit would judge anew, by LSN; "" = suits.
  std::map<wal::Lsn, std::string> verdicts_;
};

}  // namespace crab

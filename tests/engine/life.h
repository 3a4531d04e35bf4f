// What the engine's tests let happen to an engine: commands from a seed, awaited or not, beside a
// checkpoint, and afterwards a judgement of what a recovery finds. Belongs to one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tests/engine/engine.h"
#include "tests/engine/model.h"
#include "tests/support/sim_disk.h"

namespace crab::test {

struct LifeOptions {
  wal::Options log = EngineOptions();
  uint64_t seed = 1;
  bool whole_values = false;
};

// One engine after another on one disk after another, and the history of their data.
class Life {
 public:
  explicit Life(const LifeOptions& options)
      : options_(options), maker_(options.seed, options.whole_values) {}

  History& history() { return history_; }
  Engine& engine() { return *engine_; }
  bool running() const { return engine_ != nullptr; }
  const LifeOptions& options() const { return options_; }

  // The first engine on an empty disk, or the next one on what became of it: then the history is
  // to be judged first. False where it did not start; error() says why.
  bool Start(SimDisk& disk, Replay replay = Replay::kByUnits) {
    return Start(disk, replay, options_.log);
  }
  bool Start(SimDisk& disk, Replay replay, const wal::Options& options);
  void End() { engine_ = nullptr; }
  const std::string& error() const { return error_; }
  // The recovered data is the truth from here on.
  void Adopt();
  // The recovery reported losses, and no checkpoint has made what was found whole yet.
  bool salvage_due() const { return salvage_due_; }

  // Commands, each awaited until it is durable (where the log promises that at all).
  void RunCommands(int count);
  // Likewise, but only the last one is awaited.
  void RunTogether(int count);
  void RunUnawaited(int count);
  void Run(const MadeCommand& command, bool await);
  // A checkpoint, with a command between two steps about every other time.
  Status Checkpoint();
  Status CheckpointAt(wal::Lsn lsn);
  // What a server does by itself with every event: a log whose disk works again goes on behind a
  // gap, its checkpoint is written, and that which a recovery with losses calls for.
  void LookAfterLog();
  // Waits until the log runs again, on a disk that is in order again; false where it does not.
  bool Heal();

  // Waits for all that was asked for before to be on disk, and for the log's threads.
  void Settle();

  // The whole of it, long enough for each part of the log to have its turn: checkpoints, of which
  // the third removes the first, segments that are filled, sealed, retired and used again, records
  // that do not fit into one, a change of policy.
  void Story();

 private:
  bool over() const { return engine_ == nullptr || disk_->crashed(); }
  void NoteDurable();

  const LifeOptions options_;
  CommandMaker maker_;
  History history_;
  SimDisk* disk_ = nullptr;
  std::unique_ptr<Engine> engine_;
  std::string error_;
  bool salvage_due_ = false;
};

// Recovers what `disk` is after a power cut, by units under salvage, and on a copy in order under
// strict or prefix, for a power cut is no corruption: both must find the same, and so must a second
// recovery with another number of shards. What they find must be in the history. It is then the
// truth, and life goes on a little and survives a power cut.
struct Judgement {
  wal::RecoveryReport report;
  uint64_t boots = 0;
};
Judgement RecoverAndJudge(const SimDisk& disk, Life* life, uint64_t seed);

}  // namespace crab::test

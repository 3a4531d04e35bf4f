// Dispatch: one command from argv to reply. Checks what Redis checks, in its order; secures room in
// the log; takes the shards of the keys, or the world; runs the handler; hands its effects to the
// log (the tap) and notes the gate; lets the shards go. Expiry and eviction use it too.
// A Dispatcher is loop-bound; what it shares (Execution) is world-guarded.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "persistence/log.h"
#include "src/commands/command.h"
#include "src/commands/registry.h"
#include "src/execution/lock_set.h"
#include "src/execution/shard_loader.h"
#include "src/execution/world.h"
#include "src/keyspace/keyspace.h"
#include "utils/random.h"

namespace crab {

// What all dispatchers share. World-guarded: read while IN, changed only exclusively.
struct Execution {
  Keyspace& keyspace;
  World& world;
  const Registry& registry;
  wal::Log* log = nullptr;  // null: the log is off
  // Not null while the log is still being replayed: what is not there yet comes before it is used,
  // nothing is evicted, and nothing expires by itself but where all data is there.
  ShardLoader* loader = nullptr;

  // Set by the checkpoint while its queue is full: whoever may have to save what he changes waits
  // before he runs. Relaxed: a command more or less does not matter, and who waits is woken.
  std::atomic<bool> snapshot_full{false};
  std::atomic<uint64_t> snapshot_waits{0};  // how often it was found so, each look counted

  uint64_t maxmemory = 0;  // bytes, 0 = no limit
  int maxmemory_samples = 5;
  // What counts against maxmemory, kept only while there is a limit: the keyspace's bytes, by each
  // loop as it changes them, and all other memory, sampled each second. Relaxed: a limit that is
  // felt a command late is still a limit.
  std::atomic<int64_t> keyspace_bytes{0};
  std::atomic<int64_t> other_bytes{0};
  bool active_expire = true;  // DEBUG SET-ACTIVE-EXPIRE
  // Every reply's gate is at least this: the last change by a command that may touch any key.
  uint64_t base_lsn = 0;
  int64_t pause_until_ms = 0;  // CLIENT PAUSE, wall clock
  bool pause_writes_only = false;
};

// Counters of one loop. Written by it while IN, read by an exclusive command.
struct CommandStats {
  uint64_t calls = 0, cycles = 0, rejected = 0, failed = 0;
  // How long calls took, in buckets of a quarter of a power of two of cycles: percentiles are good
  // to 25 %. Made with the first call.
  static constexpr size_t kBuckets = 64 * 4;
  std::unique_ptr<std::array<uint32_t, kBuckets>> histogram;

  void Count(uint64_t spent_cycles);
  void Add(const CommandStats& other);
  // The upper end of the bucket that this percentile of the calls falls into.
  double PercentileCycles(double percentile) const;
};
struct DispatchStats {
  std::vector<CommandStats> commands;  // by Registry::IndexOf
  uint64_t processed = 0;
  uint64_t changes = 0;  // effects, as rdb_changes_since_last_save counts them
  uint64_t error_replies = 0;
  std::unordered_map<std::string, uint64_t>
      errors;  // by code: "ERR", "WRONGTYPE"; at most kErrorsMax
  static constexpr size_t kErrorsMax = 128;
  KeyspaceStats keyspace;
};

class Dispatcher {
 public:
  enum class Outcome : uint8_t {
    kDone,
    kNoRoom,      // nothing happened: again when the log's listener says that there is room
    kPaused,      // nothing happened: again when the pause is over
    kRecovering,  // nothing happened: again when all of the log has been replayed
  };

  Dispatcher(Execution& execution, int loop);

  // The loop is IN. Replies unless the outcome says that nothing happened.
  Outcome Run(Client& client, Args args, resp::Reply& reply);
  // Reads the clock: once per round, and by itself when it has grown old within one.
  void RefreshClock();
  // Before the first command of what a connection has read: its time begins now.
  void BeginBatch();
  int64_t now_ms() const { return now_ms_; }

  // Removes what has expired in this loop's shards, spending about `budget_us`. The loop is IN.
  void ExpireCycle(int64_t budget_us);

  // Runs `work` holding the world; the loop is IN before and after.
  template <typename Work>
  void Exclusively(Work&& work) {
    execution_.world.AcquireExclusive(loop_);
    work();
    execution_.world.ReleaseExclusive(loop_);
  }

  const DispatchStats& stats() const { return stats_; }
  // Changes that no log has: it had degraded, or is off. Only ever grows.
  uint64_t unlogged() const { return unlogged_; }
  void ResetStats();

 private:
  // Why a command may not run, or OK; `paused` and such are outcomes, not errors.
  Status Admit(const Client& client, const Command& command);
  // While the log is replayed: brings the data of the command's keys. False: it has to wait for
  // all.
  bool Load(const Command& command, Args args);
  void Reject(resp::Reply& reply, const Command* command, const Status& error);
  void CountError(std::string_view message);
  Status UnknownCommand(Args args, const Command* container) const;

  void RunKeyed(Call& call);
  void RunExclusive(Call& call);
  // Of a command with several keys, all of them held: what its reply depends on, and what those of
  // later ones do because of its record, if it has one (else 0).
  void NoteGates(Call& call, uint64_t lsn);
  // Calls the handler and turns an error into its reply.
  void Invoke(Call& call);
  // The command ran: counts its time, and drops its reply where the client asked for none.
  void Finish(Client& client, const Command& command, Buffer& out, size_t reply_begin);
  // Drops the reply of a client that wants none, now or for the next command.
  void Silence(Client& client, Buffer& out, size_t reply_begin);
  // Whether a change of about `bytes` may be made now: the log has room for it (to be given back)
  // and the checkpoint for what it replaces.
  bool SecureRoom(size_t bytes);
  // Hands the effects to the log; the LSN, or 0 where there was nothing to log.
  uint64_t Tap();
  // Deletes keys until memory fits; false when it cannot.
  bool EvictUntilFits();
  // Deletes the best victim of a few shards; false when no shard has one.
  bool EvictBest();
  // Counts what a held shard grew by since it had `bytes_before`.
  void CountMemory(const Shard& shard, size_t bytes_before) {
    execution_.keyspace_bytes.fetch_add(
        static_cast<int64_t>(shard.MemoryBytes()) - static_cast<int64_t>(bytes_before),
        std::memory_order_relaxed);
  }

  Execution& execution_;
  const int loop_;
  Effects effects_;
  KeyspaceView view_;
  LockSet locks_;
  struct Place {
    uint64_t hash;
    uint32_t shard;
  };
  std::vector<Place> places_;  // of the keys of a command that has several
  DispatchStats stats_;
  int64_t now_ms_ = 0;
  uint64_t clock_cycles_ = 0;  // when the clock was read
  uint64_t last_cycles_ = 0;   // when the last command ended, or its batch began
  uint32_t expire_next_shard_ = 0;
  Random random_;  // which shards eviction looks at
  uint64_t unlogged_ = 0;
  bool reading_ = false;  // the present command only reads
};

}  // namespace crab

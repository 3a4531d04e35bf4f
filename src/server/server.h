// Server: builds the parts from a Config, listens, accepts and hands sockets to loops, and stops in
// order. Two servers can live in one process. World-guarded unless said otherwise.
#pragma once

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "persistence/disk.h"
#include "persistence/log.h"
#include "src/commands/registry.h"
#include "src/config.h"
#include "src/execution/dispatch.h"
#include "src/execution/world.h"
#include "src/keyspace/keyspace.h"
#include "src/server/backup_job.h"
#include "src/server/checkpointer.h"
#include "src/server/loader.h"
#include "src/server/loading_door.h"
#include "src/server/loop.h"

namespace crab {

// Rows of the commands that act on the server; see client_commands.cc, admin_commands.cc and
// wal_commands.cc.
std::span<const Command> ClientCommands();
std::span<const Command> AdminCommands();
std::span<const Command> WalCommands();

class Server {
 public:
  // Opens the log, recovers, binds and listens; nothing is served before Run. The error is for the
  // operator and says what could not be had. `disk` holds the log and outlives the server.
  // `hook`: see Loader.
  static Result<std::unique_ptr<Server>> Start(Config config, wal::Disk& disk = wal::RealDisk(),
                                               Loader::Hook hook = {});
  ~Server();

  // Serves on this thread and the other loops' until somebody asks for the stop.
  // The error says what is not on disk.
  Status Run();
  // Any thread: begins the graceful stop.
  void RequestStop();
  // Any thread: a socket whose end says that this server is gone, with the lock of its log: it is
  // closed when all else has been destroyed.
  void CloseAtTheEnd(int fd) { last_sockets_.Add(fd); }

  const Config& config() const { return config_; }
  Execution& execution() { return *execution_; }
  const Registry& registry() const { return *registry_; }
  Keyspace& keyspace() { return *keyspace_; }
  // For the last server of a process: its destructor leaves the keyspace to the kernel, which takes
  // the memory back in a fraction of the time that freeing entry by entry would take.
  void LeaveKeyspace() { leaves_keyspace_ = true; }
  wal::Disk& disk() { return disk_; }
  // An option's path as it was meant when the server started: what is open does not move when
  // CONFIG SET dir changes the working directory. Any thread.
  std::string PathAtStart(const std::string& path) const;
  Checkpointer& checkpointer() { return *checkpointer_; }
  BackupJob& backup_job() { return backup_job_; }
  // What the log's files are encrypted with, as read when the log began; null or empty: nothing.
  const std::shared_ptr<const wal::KeyRing>& wal_keys() const { return wal_keys_; }
  wal::Log* log() { return execution_->log; }
  // Whether the log is still being replayed while commands run already. Any thread.
  bool recovering() const { return recovering_.load(std::memory_order_acquire); }
  // What is known of it so far, with its time. Any thread.
  wal::RecoveryReport recovery() const;
  // How far it is, or was at its end; all 0 where nothing was replayed.
  LoadProgress load_progress() const {
    return loader_ == nullptr ? last_progress_ : loader_->progress();
  }
  // From the opening of the log until commands ran; 0 without a log.
  int64_t time_to_serving_ms() const { return time_to_serving_ms_; }
  const std::vector<std::unique_ptr<Loop>>& loops() const { return loops_; }
  const std::string& run_id() const { return run_id_; }
  const std::string& replication_id() const { return replication_id_; }
  int64_t start_ms() const { return start_ms_; }
  uint64_t rejected_connections() const { return rejected_connections_; }
  uint64_t NextClientId() { return next_client_id_.fetch_add(1, std::memory_order_relaxed); }

  // Whether the client's unsent output is over client-output-buffer-limit, or over what a client is
  // kept that has not told who it is (its own loop asks).
  bool OverOutputLimit(Session& session) {
    const OutputBufferLimit& limit = config_.client_output_buffer_limit[0];
    const bool limited = limit.hard_bytes != 0 || limit.soft_bytes != 0;
    if (__builtin_expect(!limited && session.client().authenticated, 1)) return false;
    return OverOutputLimit(session, limit);
  }

  // The holder of the world puts another configuration in force: the log's policy, memory limits,
  // ports ... On an error the old one stays. `changed`: rows' names, as Config::Set returns them.
  Status Apply(const Config& config, std::span<const std::string_view> changed);

  // Any loop: makes every loop try again what was held back (the pause is over).
  void ResumeAll();

  void EverySecond();  // loop 0
  // Operations per second and bytes per second over the last seconds, for INFO.
  struct Rates {
    double operations = 0, bytes_in = 0, bytes_out = 0;
    double rounds = 0, round_us = 0;  // of the event loops, and the time in them
  };
  Rates rates() const { return rates_; }
  // Of the time stamp counter that dispatch measures with.
  double MicrosecondsPerCycle() const;
  uint64_t startup_memory_bytes() const { return startup_memory_bytes_; }
  void ChangeReplicationId();
  uint64_t peak_memory_bytes() const { return peak_memory_bytes_; }
  uint64_t evicted_clients() const { return evicted_clients_; }
  void ResetStats();  // CONFIG RESETSTAT

 private:
  class Sockets {
   public:
    ~Sockets();
    void Add(int fd);

   private:
    std::mutex mutex_;
    std::vector<int> fds_;
  };
  struct Listener {
    uv_poll_t poll;
    int fd;
    bool unix_socket;
    std::string address;
    Server* server;
  };

  Server(Config config, wal::Disk& disk);
  Result<wal::Options> OptionsOfLog(const Config& config) const;
  Status OpenLog(Loader::Hook hook);
  // Begins to replay, and where the whole log is to be judged first, ends it, too.
  Status BeginLoading();
  // Until the loops run, somebody tells those who come that all of the log is read first.
  void OpenLoadingDoor();
  void EndLoading();  // loop 0, IN, or its place before it runs
  void LogLoading() const;
  void LogRecovered() const;
  void ListenToLog();
  // After a time without the log, when its disk works again: goes on with a checkpoint.
  // Not while the log is replayed: the checkpoint would be of a part of the data.
  void HealLog();
  uint64_t StalledMs() const;
  void TellOfStall();  // of the log's disk
  // Before a clean stop of the log, no loop running: what changed without it is in a checkpoint.
  void EndGap();
  Status Listen();
  // Binds and listens on every address of `bind`; on an error `listeners` is empty.
  Status ListenAll(const Config& config, std::vector<std::unique_ptr<Listener>>* listeners);
  Status ListenTcp(const std::string& address, int port, int backlog,
                   std::vector<std::unique_ptr<Listener>>* listeners);
  Status ListenUnix(const std::string& path);
  void OnConnection(Listener& listener);
  void Welcome(const LoadingDoor::Socket& client);
  bool OverOutputLimit(Session& session, const OutputBufferLimit& limit);
  void EvictClients();  // down to maxmemory-clients, the largest first; the caller holds the world
  void PutInForce();    // what Execution and Keyspace know of the configuration
  void CountOtherMemory(uint64_t allocated_bytes);
  void StartAccepting(Listener& listener);
  void StopAccepting(std::unique_ptr<Listener> listener);
  void ReplaceTcpListeners(std::vector<std::unique_ptr<Listener>> listeners);
  static void CloseNow(std::vector<std::unique_ptr<Listener>>& listeners);
  // CONFIG SET wal-enabled: a new epoch, behind a gap until its checkpoint is there; the end of the
  // log.
  Status StartLog(const Config& config);
  void StopLog();
  void StopLoops();

  Sockets last_sockets_;  // first: destroyed after all else
  Config config_;
  wal::Disk& disk_;
  const std::string start_directory_;  // absolute; "" = it cannot be told
  std::unique_ptr<Registry> registry_;
  std::unique_ptr<Keyspace> keyspace_;
  bool leaves_keyspace_ = false;
  std::unique_ptr<World> world_;
  std::unique_ptr<Execution> execution_;
  std::unique_ptr<wal::Log> log_;
  std::shared_ptr<const wal::KeyRing> wal_keys_;
  // While these three change, or are read without the world.
  mutable std::mutex recovery_mutex_;
  std::unique_ptr<Loader> loader_;  // while the log is replayed
  wal::RecoveryReport recovery_;
  LoadProgress last_progress_;
  std::atomic<bool> recovering_{false};
  int64_t recovery_begin_us_ = 0;  // monotonic
  int64_t time_to_serving_ms_ = 0;
  int64_t loading_logged_us_ = 0;
  bool stall_told_ = false;
  Status failure_;  // why Run ends though nobody asked for it
  std::vector<std::unique_ptr<Loop>> loops_;
  std::unique_ptr<Checkpointer> checkpointer_;
  BackupJob backup_job_{disk_};
  std::vector<std::thread> threads_;  // of all loops but the first
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::unique_ptr<LoadingDoor> loading_door_;  // while it answers in the loops' place
  std::vector<LoadingDoor::Socket> early_;     // whom it let in, until Run
  uv_signal_t signals_[2];
  std::string run_id_;
  std::string replication_id_;
  int64_t start_ms_ = 0;
  std::atomic<uint64_t> next_client_id_{1};
  uint64_t rejected_connections_ = 0;  // loop 0
  bool stopping_ = false;              // loop 0
  Rates rates_;
  uint64_t peak_memory_bytes_ = 0;
  uint64_t evicted_clients_ = 0;
  uint64_t startup_memory_bytes_ = 0;
  uint64_t start_cycles_ = 0;
  int64_t start_monotonic_us_ = 0;
  struct Totals {
    uint64_t operations = 0, bytes_in = 0, bytes_out = 0, rounds = 0, round_cycles = 0;
    int64_t at_ms = 0;
  } last_totals_;
};

}  // namespace crab

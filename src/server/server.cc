#include "src/server/server.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "src/server/config_words.h"
#include "src/server/memory.h"
#include "utils/clock.h"
#include "utils/log.h"
#include "utils/random.h"
#include "utils/thread.h"

namespace crab {

namespace {

std::string CurrentDirectory() {
  std::error_code unknown;
  return std::filesystem::current_path(unknown).string();
}

constexpr int64_t kLoadingLoggedUs = 2'000'000;  // between two lines about a long replay
constexpr uint64_t kStallToldMs = 2000;

}  // namespace

Server::Server(Config config, wal::Disk& disk)
    : config_(std::move(config)),
      disk_(disk),
      start_directory_(CurrentDirectory()),
      run_id_(RandomHex(40)),
      start_ms_(RealClock().WallMs()),
      start_cycles_(__rdtsc()),
      start_monotonic_us_(RealClock().MonotonicUs()) {
  replication_id_ = RandomHex(40);
}

std::string Server::PathAtStart(const std::string& path) const {
  if (path.empty() || path.starts_with('/') || start_directory_.empty()) return path;
  return start_directory_ + "/" + (path.starts_with("./") ? path.substr(2) : path);
}

Server::Sockets::~Sockets() {
  for (int fd : fds_) close(fd);
}

void Server::Sockets::Add(int fd) {
  const std::lock_guard lock(mutex_);
  fds_.push_back(fd);
}

Server::~Server() {
  loading_door_.reset();  // it asks for the progress
  for (const LoadingDoor::Socket& socket : early_) close(socket.fd);
  if (log_ != nullptr) log_->SetListener({});  // its writer must not wake loops that are gone
  checkpointer_.reset();
  loader_.reset();
  loops_.clear();
  if (execution_ != nullptr) execution_->log = nullptr;
  if (leaves_keyspace_) (void)keyspace_.release();
}

namespace {

// Lets this process have a descriptor for each of `maxclients`, as Redis does; where the system
// does not allow so many, returns how many clients fit.
int64_t RaiseDescriptorLimit(int64_t maxclients, int64_t threads) {
  constexpr rlim_t kEachLoop = 8;
  // Listeners, segments, and the loops' own.
  const rlim_t own_descriptors = 128 + kEachLoop * static_cast<rlim_t>(threads);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return maxclients;
  const rlim_t wanted = static_cast<rlim_t>(maxclients) + own_descriptors;
  if (limit.rlim_cur >= wanted) return maxclients;
  // A privileged process may raise the hard limit as well; others stop at it.
  rlimit raised{wanted, std::max(wanted, limit.rlim_max)};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return maxclients;
  raised = {std::min(wanted, limit.rlim_max), limit.rlim_max};
  if (setrlimit(RLIMIT_NOFILE, &raised) != 0) raised.rlim_cur = limit.rlim_cur;
  if (raised.rlim_cur >= wanted) return maxclients;
  return std::max<int64_t>(
      1, static_cast<int64_t>(raised.rlim_cur) - static_cast<int64_t>(own_descriptors));
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(Config config, wal::Disk& disk, Loader::Hook hook) {
  std::unique_ptr<Server> server(new Server(std::move(config), disk));
  const Config& options = server->config_;
  const int threads = static_cast<int>(options.threads > 0 ? options.threads : UsableCores());
  if (const int64_t fit = RaiseDescriptorLimit(options.maxclients, threads);
      fit < options.maxclients) {
    LogWarn("the system allows too few open files for maxclients; raise it with `ulimit -n`",
            {{"maxclients", options.maxclients}, {"now", fit}});
    server->config_.maxclients = fit;
  }
  server->registry_ = std::make_unique<Registry>(std::initializer_list<std::span<const Command>>{
      StringCommands(), KeyCommands(), ExpireCommands(), ObjectCommands(), CommandCommands(),
      ClientCommands(), AdminCommands(), WalCommands()});
  server->world_ = std::make_unique<World>(threads);
  if (!UseHugePages(!options.disable_thp) && options.disable_thp) {
    LogWarn("the system does not let transparent huge pages be switched off for this process",
            {{"disable-thp", "not kept"}, {"error", std::strerror(errno)}});
  }
  TRY(server->Listen());  // first: a taken port is found before the log is touched
  if (options.enable_wal && options.wal_recovery != WalRecovery::kSalvage) {
    server->OpenLoadingDoor();
  }
  TRY(server->OpenLog(std::move(hook)));
  for (int i = 0; i < threads; ++i) server->loops_.push_back(std::make_unique<Loop>(*server, i));
  server->checkpointer_ = std::make_unique<Checkpointer>(*server);
  if (server->log_ != nullptr) server->ListenToLog();
  server->PutInForce();
  server->startup_memory_bytes_ = AllocatedBytes();
  if (server->loader_ != nullptr) TRY(server->BeginLoading());
  if (server->loading_door_ != nullptr) {
    server->early_ = server->loading_door_->Close();
    server->loading_door_.reset();
  }
  for (const auto& listener : server->listeners_) {
    LogInfo("listening", {{"address", listener->address}});
  }
  return server;
}

Result<wal::Options> Server::OptionsOfLog(const Config& config) const {
  Config at_start = config;
  for (std::string Config::*path :
       {&Config::wal_dir, &Config::wal_ring_dir, &Config::wal_encryption_key_file}) {
    at_start.*path = PathAtStart(config.*path);
  }
  return LogOptions(at_start);
}

Status Server::OpenLog(Loader::Hook hook) {
  const uint64_t seed = RandomUint64();
  KeyspaceOptions options;
  options.shard_count = static_cast<uint32_t>(config_.shards);
  options.databases = static_cast<uint32_t>(config_.databases);
  options.hash_seed = seed;
  options.shard_by_hashtag = config_.shard_by_hashtag;
  const auto build = [&] {
    keyspace_ = std::make_unique<Keyspace>(options);
    execution_.reset(new Execution{*keyspace_, *world_, *registry_});
  };
  if (!config_.enable_wal) {
    build();
    return Status::Ok();
  }
  recovery_begin_us_ = RealClock().MonotonicUs();
  const wal::Options log_options = TRY(OptionsOfLog(config_));
  std::unique_ptr<wal::Backlog> backlog;
  log_ = TRY(wal::Log::Open(disk_, log_options, &backlog));
  wal_keys_ = log_options.keys;
  options.hash_seed = log_->identity().hash_seed;
  build();
  execution_->log = log_.get();
  execution_->base_lsn = log_->last_lsn();
  if (backlog->empty()) {
    recovery_ = backlog->report();
    LogRecovered();
    return Status::Ok();
  }
  auto loader =
      std::make_unique<Loader>(*execution_, std::move(backlog), Loader::Workers(), std::move(hook));
  {
    std::lock_guard lock(recovery_mutex_);
    loader_ = std::move(loader);
  }
  execution_->loader = loader_.get();
  recovering_ = true;
  return Status::Ok();
}

Status Server::BeginLoading() {
  // Much memory is about to be touched for the first time, and in large pages that costs a fraction
  // (docs/architecture.md). Afterwards it would be the clients that wait for a large page.
  UseHugePages(true);
  // The other modes have promised a state that existed, and one unit is all or nothing, as are
  // those that become whole together.
  if (config_.wal_recovery == WalRecovery::kSalvage && loader_->units() > 1 &&
      loader_->any_order()) {
    loader_->Start([this] { loops_.front()->Post([this](Loop&) { EndLoading(); }); });
    return Status::Ok();
  }
  if (loading_door_ == nullptr) OpenLoadingDoor();
  loader_->Start({});
  while (!loader_->WaitFor(kLoadingLoggedUs / 1000)) LogLoading();
  TRY(loader_->error());
  world_->Enter(0);
  EndLoading();
  world_->Exit(0);
  return Status::Ok();
}

void Server::OpenLoadingDoor() {
  std::vector<LoadingDoor::Socket> listeners;
  for (const auto& listener : listeners_)
    listeners.push_back({listener->fd, listener->unix_socket});
  loading_door_ = std::make_unique<LoadingDoor>(config_, std::move(listeners), [this] {
    std::lock_guard lock(recovery_mutex_);
    return load_progress();
  });
}

void Server::EndLoading() {
  if (stopping_) return;  // Run ends it
  loader_->Stop();
  if (Status error = loader_->error(); !error.ok()) {
    // Its commands stay where they are: what is not all there is not served.
    LogError("the log cannot be replayed, stopping", {{"error", error.message()}});
    failure_ = std::move(error);
    RequestStop();
    return;
  }
  std::unique_ptr<Loader> loader;
  loops_.front()->dispatcher().Exclusively([&] {
    wal::RecoveryReport report = recovery();
    std::lock_guard lock(recovery_mutex_);
    loader = std::move(loader_);
    execution_->loader = nullptr;
    last_progress_ = loader->progress();
    recovery_ = std::move(report);
    PutInForce();  // the memory is counted from here on
  });
  UseHugePages(!config_.disable_thp);
  world_->CloseToGuests();
  recovering_.store(false, std::memory_order_release);
  LogRecovered();
  ResumeAll();
}

wal::RecoveryReport Server::recovery() const {
  std::lock_guard lock(recovery_mutex_);
  if (loader_ == nullptr) return recovery_;
  wal::RecoveryReport report = loader_->report();
  report.recovery_time_ms = (RealClock().MonotonicUs() - recovery_begin_us_) / 1000;
  return report;
}

void Server::LogLoading() const {
  const LoadProgress progress = loader_->progress();
  LogInfo("replaying the log", {{"units", progress.units_done},
                                {"of", progress.units_total},
                                {"bytes", progress.bytes_done},
                                {"bytes_per_sec", progress.bytes_per_second()},
                                {"remaining_ms", progress.remaining_ms()}});
}

void Server::LogRecovered() const {
  for (const std::string& warning : recovery_.warnings) LogWarn(warning);
  for (const auto& lost : recovery_.lost) {
    LogError("records lost",
             {{"first_lsn", lost.first}, {"last_lsn", lost.last}, {"where", lost.where}});
  }
  if (recovery_.lost_more > 0) {
    LogError("records lost at more places", {{"places", recovery_.lost_more}});
  }
  LogInfo("recovered", {{"segments", recovery_.segments_processed},
                        {"records", recovery_.entries_recovered},
                        {"from_ring", recovery_.ring_entries_recovered},
                        {"skipped", recovery_.entries_skipped},
                        {"corrupted", recovery_.corrupted_entries},
                        {"checkpoint_lsn", recovery_.checkpoint_lsn},
                        {"bytes", recovery_.bytes_processed},
                        {"time_to_first_answer_ms", time_to_serving_ms_},
                        {"ms", recovery_.recovery_time_ms}});
}

void Server::ListenToLog() {
  log_->SetListener([this] {
    for (const auto& loop : loops_) loop->WakeForLog();
  });
}

void Server::HealLog() {
  loops_.front()->dispatcher().Exclusively([this] {
    wal::Log* const log = execution_->log;
    if (log == nullptr || !log->resumable()) return;
    if (!checkpointer_->free()) {
      // One that was cut before the log stopped would be of no use behind the gap; the next second
      // looks whether the disk has let go of it and its walk is over.
      checkpointer_->GiveUp();
      return;
    }
    const uint64_t dropped = log->metrics().appends_dropped;
    const Result<wal::Lsn> lsn = log->Resume();
    if (!lsn.ok()) {
      LogWarn("the log cannot go on yet", {{"error", lsn.message()}});
      return;
    }
    // In the same moment: the records behind the gap belong to the data as it is now.
    checkpointer_->BeginBehindGap(*lsn, config_);
    // What was read without the log is in the checkpoint, and gates from before it are void.
    execution_->base_lsn = log->last_lsn();
    LogInfo("the log goes on; a restart finds it once its checkpoint is written",
            {{"records_dropped_meanwhile", dropped}});
  });
}

void Server::PutInForce() {
  execution_->maxmemory = config_.maxmemory;
  if (config_.maxmemory != 0) {
    execution_->keyspace_bytes.store(static_cast<int64_t>(keyspace_->MemoryBytes()),
                                     std::memory_order_relaxed);
    CountOtherMemory(AllocatedBytes());
  }
  execution_->maxmemory_samples = static_cast<int>(config_.maxmemory_samples);
  KeyspaceOptions& options = keyspace_->options();
  options.policy = EvictionPolicyOf(config_.maxmemory_policy);
  options.lfu_log_factor = static_cast<int>(config_.lfu_log_factor);
  options.lfu_decay_minutes = static_cast<int>(config_.lfu_decay_minutes);
  options.string_bytes_max = config_.proto_max_bulk_len;
  options.lazy_flush = config_.lazyfree_lazy_user_flush;
}

// --- running and stopping ---

Status Server::Run() {
  Loop& first = *loops_.front();
  signal(SIGPIPE, SIG_IGN);
  const int numbers[] = {SIGTERM, SIGINT};
  for (int i = 0; i < 2; ++i) {
    uv_signal_init(first.uv(), &signals_[i]);
    signals_[i].data = this;
    uv_signal_start(
        &signals_[i],
        [](uv_signal_t* handle, int number) {
          LogInfo("received a signal, stopping", {{"signal", strsignal(number)}});
          static_cast<Server*>(handle->data)->RequestStop();
        },
        numbers[i]);
  }
  for (const auto& listener : listeners_) StartAccepting(*listener);
  first.Post([this](Loop&) {
    for (const LoadingDoor::Socket& socket : std::exchange(early_, {})) {
      Welcome(socket);
    }
  });
  for (size_t i = 1; i < loops_.size(); ++i) {
    threads_.emplace_back([loop = loops_[i].get()] { loop->Run(); });
  }
  if (log_ != nullptr) {
    time_to_serving_ms_ = (RealClock().MonotonicUs() - recovery_begin_us_) / 1000;
  }
  first.Run();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (loader_ != nullptr) loader_->Stop();
  if (!config_.unixsocket.empty()) unlink(PathAtStart(config_.unixsocket).c_str());
  Status status = Status::Ok();
  if (log_ != nullptr) {
    // Of a log that is not all replayed the keyspace is a part: no checkpoint of it may stand for
    // the records that are missing. Then Stop tells what has not been logged, and the next start
    // finds the log as it was before the gap.
    if (!recovering()) EndGap();
    checkpointer_->Cancel();
    execution_->log = nullptr;
    status = log_->Stop();
  }
  return failure_.ok() ? std::move(status) : std::move(failure_);
}

void Server::EndGap() {
  // The next try may be a minute away, and whoever stops a server has often just made room.
  if (log_->state() != wal::State::kRunning) log_->RetryDisk();
  if (log_->resumable()) {
    checkpointer_->Cancel();
    checkpointer_->Drain();
    world_->Enter(0);
    HealLog();
    world_->Exit(0);
  }
  if (Status closed = checkpointer_->CloseGap(); !closed.ok()) {
    LogError("what changed since the log was off is not saved", {{"error", closed.message()}});
  }
}

void Server::RequestStop() {
  loops_.front()->Post([this](Loop&) {
    if (stopping_) return;
    stopping_ = true;
    for (std::unique_ptr<Listener>& listener : listeners_) StopAccepting(std::move(listener));
    listeners_.clear();
    for (uv_signal_t& signal : signals_) uv_close(reinterpret_cast<uv_handle_t*>(&signal), nullptr);
    StopLoops();
  });
}

void Server::StopLoops() {
  for (const auto& loop : loops_) loop->Post([](Loop& stopped) { stopped.Stop(); });
}

// Not what a checkpoint holds: it goes by itself, and evicting or refusing would not make it go.
void Server::CountOtherMemory(uint64_t allocated_bytes) {
  const uint64_t counted_bytes =
      allocated_bytes - std::min(allocated_bytes, checkpointer_->MemoryBytes());
  execution_->other_bytes.store(
      std::max<int64_t>(0, static_cast<int64_t>(counted_bytes) -
                               execution_->keyspace_bytes.load(std::memory_order_relaxed)),
      std::memory_order_relaxed);
}

void Server::ResumeAll() {
  for (const auto& loop : loops_) loop->Post([](Loop&) {});  // a loop that wakes tries again
}

// For how long the log's disk has not answered.
uint64_t Server::StalledMs() const {
  const wal::Log* const log = execution_->log;
  return log == nullptr ? 0 : log->metrics().sync_stalled_ms;
}

// Nothing fails while a disk does not answer: it shows only in who waits for it.
void Server::TellOfStall() {
  const uint64_t stalled_ms = StalledMs();
  const bool stalls = stalled_ms >= kStallToldMs;
  if (stalls == std::exchange(stall_told_, stalls)) return;
  if (stalls) {
    LogWarn("the disk of the write-ahead log does not answer; replies that wait for it wait on",
            {{"for_ms", stalled_ms}});
  } else {
    LogInfo("the disk of the write-ahead log answers again");
  }
}

void Server::EverySecond() {
  Totals totals;
  totals.at_ms = RealClock().WallMs();
  // The loops' counters are theirs while they are IN.
  loops_.front()->dispatcher().Exclusively([&] {
    for (const auto& loop : loops_) {
      totals.operations += loop->dispatcher().stats().processed;
      totals.bytes_in += loop->stats().bytes_in;
      totals.bytes_out += loop->stats().bytes_out;
      totals.rounds += loop->stats().rounds;
      totals.round_cycles += loop->stats().round_cycles;
    }
    EvictClients();
    checkpointer_->EverySecond();
  });
  if (loader_ != nullptr && RealClock().MonotonicUs() - loading_logged_us_ >= kLoadingLoggedUs) {
    if (loading_logged_us_ != 0) LogLoading();
    loading_logged_us_ = RealClock().MonotonicUs();
  }
  if (!recovering() && execution_->log != nullptr && execution_->log->resumable()) HealLog();
  TellOfStall();
  const double seconds = (totals.at_ms - last_totals_.at_ms) / 1000.0;
  if (last_totals_.at_ms != 0 && seconds > 0) {
    rates_.operations = (totals.operations - last_totals_.operations) / seconds;
    rates_.bytes_in = (totals.bytes_in - last_totals_.bytes_in) / seconds;
    rates_.bytes_out = (totals.bytes_out - last_totals_.bytes_out) / seconds;
    rates_.rounds = (totals.rounds - last_totals_.rounds) / seconds;
    rates_.round_us =
        (totals.round_cycles - last_totals_.round_cycles) * MicrosecondsPerCycle() / seconds;
  }
  last_totals_ = totals;
  const uint64_t allocated_bytes = AllocatedBytes();
  peak_memory_bytes_ = std::max(peak_memory_bytes_, allocated_bytes);
  if (config_.maxmemory != 0) CountOtherMemory(allocated_bytes);
}

void Server::EvictClients() {
  int64_t limit = config_.maxmemory_clients;
  if (limit < 0) limit = static_cast<int64_t>(config_.maxmemory) / 100 * -limit;
  if (limit == 0) return;
  std::vector<Session*> sessions;
  int64_t bytes = 0;
  for (const auto& loop : loops_) {
    for (const auto& [id, connection] : loop->connections()) {
      Session& session = connection->session();
      if (session.killed || session.client().no_evict) continue;
      sessions.push_back(&session);
      bytes += static_cast<int64_t>(session.MemoryBytes());
    }
  }
  if (bytes <= limit) return;
  std::sort(sessions.begin(), sessions.end(),
            [](Session* a, Session* b) { return a->MemoryBytes() > b->MemoryBytes(); });
  for (Session* session : sessions) {
    if (bytes <= limit) break;
    bytes -= static_cast<int64_t>(session->MemoryBytes());
    LogWarn("closing client: all clients' buffers are over maxmemory-clients",
            {{"client", session->client().id}, {"bytes", session->MemoryBytes()}});
    session->killed = true;
    session->loop().Post([](Loop& loop) { loop.CloseKilled(); });
    ++evicted_clients_;
  }
}

double Server::MicrosecondsPerCycle() const {
  const uint64_t cycles = __rdtsc() - start_cycles_;
  const auto us = static_cast<double>(RealClock().MonotonicUs() - start_monotonic_us_);
  return us / static_cast<double>(cycles);
}

void Server::ChangeReplicationId() { replication_id_ = RandomHex(40); }

void Server::ResetStats() {
  for (const auto& loop : loops_) {
    loop->dispatcher().ResetStats();
    loop->stats() = {};
  }
  rejected_connections_ = 0;
  evicted_clients_ = 0;
  last_totals_ = {};
  keyspace_->lazy_free().ResetFreed();
}

Status Server::Apply(const Config& config, std::span<const std::string_view> changed) {
  const auto has = [&](std::string_view name) {
    return std::find(changed.begin(), changed.end(), name) != changed.end();
  };
  if (has("maxclients")) {
    if (const int64_t fit = RaiseDescriptorLimit(config.maxclients, std::ssize(loops_));
        fit < config.maxclients) {
      return Config::SetFailed(
          "maxclients",
          "The operating system is not able to handle the specified number of clients, try with " +
              std::to_string(fit));
    }
  }
  // Until the loops know that nothing is left to replay: a log that begins now has a cut to make.
  if (has("wal-enabled") && recovering()) {
    return Config::SetFailed("wal-enabled", "The log is still being replayed");
  }
  const bool log_stays = execution_->log != nullptr && (!has("wal-enabled") || config.enable_wal);
  if (log_stays && config.wal_sync_policy == WalSyncPolicy::kSync &&
      config_.wal_sync_policy != WalSyncPolicy::kSync &&
      execution_->log->state() == wal::State::kDegraded) {
    return Status::Error(
        "MISCONF wal-sync-policy sync cannot be promised while the log is not kept; see wal_state "
        "in INFO persistence.");
  }
  // What can fail comes first, and is undone when a later step fails.
  std::vector<std::unique_ptr<Listener>> listeners;
  // What listens at the same port makes room for other addresses, and goes on if something fails.
  const bool makes_room = has("bind") && !has("port");
  const auto each_tcp_socket = [&](auto&& visit) {
    for (const auto& listener : listeners_) {
      if (makes_room && !listener->unix_socket) visit(listener->fd);
    }
  };
  std::string left_directory;  // where it has to go back to
  const auto failed = [&](std::string_view option, std::string_view message) {
    if (!left_directory.empty() && chdir(left_directory.c_str()) != 0) {
      LogError("cannot go back to the working directory",
               {{"directory", left_directory}, {"error", std::strerror(errno)}});
    }
    CloseNow(listeners);
    each_tcp_socket([&](int fd) { listen(fd, static_cast<int>(config_.tcp_backlog)); });
    return Config::SetFailed(option, message);
  };
  each_tcp_socket([](int fd) { shutdown(fd, SHUT_RD); });
  if (has("port") || has("bind")) {
    if (Status status = ListenAll(config, &listeners); !status.ok()) {
      LogWarn("the addresses stay as they were", {{"error", status.message()}});
      return has("port") ? failed("port", "Unable to listen on this port. Check server logs.")
                         : failed("bind", "Failed to bind to specified addresses.");
    }
  }
  if (has("dir")) {
    std::string here = CurrentDirectory();
    if (chdir(config.dir.c_str()) != 0) return failed("dir", std::strerror(errno));
    left_directory = std::move(here);
  }
  if (has("wal-enabled")) {
    if (!config.enable_wal) {
      if (StalledMs() >= kStallToldMs) {
        return failed("wal-enabled",
                      "the disk of the log does not answer, and everybody would wait for it");
      }
      StopLog();
    } else if (Status status = StartLog(config); !status.ok()) {
      return failed("wal-enabled", status.message());
    }
  }
  if (has("dir")) {
    LogInfo("the working directory is another; the log, the socket and other files stay in place",
            {{"directory", config.dir}, {"log", PathAtStart(config.wal_dir)}});
  }
  config_ = config;
  PutInForce();
  SetLogLevel(LogLevelOf(config_.loglevel));
  if (has("port") || has("bind")) ReplaceTcpListeners(std::move(listeners));
  if (wal::Log* const log = execution_->log; log != nullptr) {
    if (has("wal-sync-policy")) log->SetSyncPolicy(SyncPolicyOf(config_.wal_sync_policy));
    if (has("wal-flush-interval-ms")) {
      log->SetFlushIntervalMs(static_cast<uint32_t>(config_.wal_flush_interval_ms));
    }
    if (has("wal-buffer-size")) log->SetBufferBytes(config_.wal_buffer_size);
    if (has("wal-max-segment-size")) log->SetMaxSegmentBytes(config_.wal_max_segment_size);
    if (has("wal-on-error")) log->SetOnError(OnErrorOf(config_.wal_on_error));
    if (has("wal-compression")) log->SetCompression(CompressionOf(config_.wal_compression));
    if (has("wal-keep-segments") || has("wal-keep-ms")) {
      log->SetRetention(static_cast<uint64_t>(config_.wal_keep_segments),
                        static_cast<uint64_t>(config_.wal_keep_ms));
    }
  }
  return Status::Ok();
}

Status Server::StartLog(const Config& config) {
  wal::Options options = TRY(OptionsOfLog(config));
  options.hash_seed = keyspace_->options().hash_seed;
  // What an earlier log holds is superseded by the checkpoint, and so is any damage to it.
  options.recovery = wal::RecoveryMode::kSalvage;
  options.after_gap = true;
  std::unique_ptr<wal::Backlog> nothing;
  log_ = TRY(wal::Log::Open(disk_, options, &nothing));
  wal_keys_ = options.keys;
  ListenToLog();
  execution_->log = log_.get();
  checkpointer_->Drain();  // one that was given up when the log went off
  checkpointer_->BeginBehindGap(log_->last_lsn(), config);
  LogInfo("the log is on; a restart finds it once its checkpoint is written",
          {{"directory", config.wal_dir}});
  return Status::Ok();
}

void Server::StopLog() {
  checkpointer_->Cancel();
  // Replies of batches that are under way have no mark yet.
  for (const auto& loop : loops_) {
    for (const auto& [id, connection] : loop->connections()) {
      if (connection->session().client().gate != 0) connection->session().MarkOutput();
    }
  }
  wal::Log* const log = std::exchange(execution_->log, nullptr);
  execution_->base_lsn = 0;
  // With a disk that fails the log is off all the same: that is how one gets rid of it.
  const Status stopped = log->Stop();
  if (!stopped.ok()) LogError("the log is not whole", {{"error", stopped.message()}});
  // Gates of the old log mean nothing to a later one. A reply whose record is not on disk now never
  // leaves: the outcome is unknown, and a closed connection says so.
  for (const auto& loop : loops_) {
    for (const auto& [id, connection] : loop->connections()) {
      Session& session = connection->session();
      if (session.HeldAbove(log->durable_lsn())) session.killed = true;
      session.ForgetGate();
    }
  }
  log_.reset();
  for (uint32_t i = 0; i < keyspace_->shard_count(); ++i) keyspace_->shard(i).writes() = {};
  ResumeAll();
  LogInfo("the log is off");
}

}  // namespace crab

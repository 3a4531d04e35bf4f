// INFO, section by section, and STATS. Field names are Redis' (https://redis.io/commands/info)
// where Redis has the fact; the log's own are beside them under `wal_`. Both run holding the world,
// so the counters of all loops stand still.

#include "src/server/info.h"

#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <string>
#include <string_view>

#include "src/commands/errors.h"
#include "src/server/memory.h"
#include "src/server/server.h"
#include "utils/number.h"
#include "utils/version.h"

namespace crab {

namespace {

Server& ServerOf(Call& call) { return call.client.session->server(); }

// Gathers `name:value` lines under section titles.
class Page {
 public:
  void Title(std::string_view title) {
    if (!text_.empty()) text_ += "\r\n";
    text_.append("# ").append(title).append("\r\n");
  }
  void Field(std::string_view name, std::string_view value) {
    text_.append(name).append(":").append(value).append("\r\n");
  }
  template <std::integral T>
  void Field(std::string_view name, T value) {
    Field(name, std::string_view(std::to_string(value)));
  }
  [[gnu::format(printf, 3, 4)]] void Print(std::string_view name, const char* format, ...) {
    char value[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(value, sizeof(value), format, arguments);
    va_end(arguments);
    Field(name, std::string_view(value));
  }
  void Human(const std::string& name, uint64_t bytes) {
    Field(name, bytes);
    Field(name + "_human", std::string_view(FormatMemoryHuman(bytes)));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// The counters of all loops.
struct Sums {
  LoopStats loop;
  KeyspaceStats keyspace;
  uint64_t commands = 0, command_cycles = 0, changes = 0, errors = 0;
  size_t connections = 0, blocked = 0, input_max = 0, output_max = 0, client_bytes = 0;
};

Sums SumUp(Server& server) {
  Sums sums;
  for (const auto& loop : server.loops()) {
    const LoopStats& stats = loop->stats();
    sums.loop.bytes_in += stats.bytes_in;
    sums.loop.bytes_out += stats.bytes_out;
    sums.loop.reads += stats.reads;
    sums.loop.rounds += stats.rounds;
    sums.loop.round_cycles += stats.round_cycles;
    sums.loop.auth_denied += stats.auth_denied;
    sums.loop.writes += stats.writes;
    sums.loop.connections_accepted += stats.connections_accepted;
    sums.loop.output_limit_closed += stats.output_limit_closed;
    sums.loop.query_limit_closed += stats.query_limit_closed;
    const DispatchStats& dispatch = loop->dispatcher().stats();
    sums.keyspace.hits += dispatch.keyspace.hits;
    sums.keyspace.misses += dispatch.keyspace.misses;
    sums.keyspace.expired += dispatch.keyspace.expired;
    sums.keyspace.evicted += dispatch.keyspace.evicted;
    sums.commands += dispatch.processed;
    for (const CommandStats& stats_of_one : dispatch.commands) {
      sums.command_cycles += stats_of_one.cycles;
    }
    sums.changes += dispatch.changes;
    sums.errors += dispatch.error_replies;
    for (const auto& [id, connection] : loop->connections()) {
      Session& session = connection->session();
      ++sums.connections;
      sums.blocked += session.waiting() != Session::Wait::kNothing;
      sums.input_max = std::max(sums.input_max, session.input_bytes());
      sums.output_max = std::max(sums.output_max, session.output_bytes());
      sums.client_bytes += session.MemoryBytes();
    }
  }
  return sums;
}

void ServerSection(Server& server, const Call& call, Page& page) {
  utsname system;
  uname(&system);
  const int64_t uptime_s = (call.now_ms - server.start_ms()) / 1000;
  timeval now;
  gettimeofday(&now, nullptr);
  char executable[4096];
  const ssize_t length = readlink("/proc/self/exe", executable, sizeof(executable));
  page.Title("Server");
  page.Field("redis_version", kRedisVersion);
  page.Field("redis_git_sha1", "00000000");
  page.Field("redis_git_dirty", 0);
  page.Field("redis_build_id", "0");
  page.Field("redis_mode", "standalone");
  page.Field("crabcache_version", kCrabcacheVersion);
  page.Print("os", "%s %s %s", system.sysname, system.release, system.machine);
  page.Field("arch_bits", 64);
  page.Field("monotonic_clock", "x86 time stamp counter");
  page.Field("multiplexing_api", "libuv epoll");
  page.Field("atomicvar_api", "c11-builtin");
  page.Field("gcc_version", __VERSION__);
  page.Field("process_id", getpid());
  page.Field("process_supervised", "no");
  page.Field("run_id", server.run_id());
  page.Field("tcp_port", server.config().port);
  page.Field("server_time_usec", now.tv_sec * 1'000'000LL + now.tv_usec);
  page.Field("uptime_in_seconds", uptime_s);
  page.Field("uptime_in_days", uptime_s / 86400);
  page.Field("hz", 10);
  page.Field("configured_hz", server.config().hz);
  page.Field("lru_clock", (call.now_ms / 1000) & 0xffffff);
  page.Field("executable", length > 0 ? std::string_view(executable, length) : std::string_view());
  page.Field("config_file", server.config().file);
  page.Field("io_threads_active", 0);
  page.Field("threads", server.loops().size());
  page.Field("shards", server.keyspace().shard_count());
}

void ClientsSection(Server& server, const Sums& sums, Page& page) {
  page.Title("Clients");
  page.Field("connected_clients", sums.connections);
  page.Field("cluster_connections", 0);
  page.Field("maxclients", server.config().maxclients);
  page.Field("client_recent_max_input_buffer", sums.input_max);
  page.Field("client_recent_max_output_buffer", sums.output_max);
  page.Field("blocked_clients", sums.blocked);
  page.Field("tracking_clients", 0);
  page.Field("pubsub_clients", 0);
  page.Field("watching_clients", 0);
  page.Field("clients_in_timeout_table", 0);
  page.Field("total_watched_keys", 0);
  page.Field("total_blocking_keys", 0);
  page.Field("total_blocking_keys_on_nokey", 0);
}

double Ratio(uint64_t a, uint64_t b) { return b == 0 ? 0 : static_cast<double>(a) / b; }

// With a limit, what the limit is compared with, so that who reads both sees them agree: exact for
// keys, and as of the last second for the rest. Else what the allocator says.
uint64_t UsedBytes(Server& server, uint64_t allocated_bytes) {
  const Execution& execution = server.execution();
  if (execution.maxmemory == 0) return allocated_bytes;
  return static_cast<uint64_t>(
      std::max<int64_t>(0, execution.keyspace_bytes.load(std::memory_order_relaxed) +
                               execution.other_bytes.load(std::memory_order_relaxed)));
}

void MemorySection(Server& server, const Sums& sums, Page& page) {
  const AllocatorStats allocator = ReadAllocatorStats();
  const uint64_t resident = ResidentBytes();
  const uint64_t used = UsedBytes(server, allocator.allocated);
  const uint64_t peak = std::max(used, server.peak_memory_bytes());
  const uint64_t dataset = server.keyspace().MemoryBytes();
  const uint64_t overhead = used - std::min(used, dataset);
  struct sysinfo system;
  sysinfo(&system);
  const uint64_t system_bytes = static_cast<uint64_t>(system.totalram) * system.mem_unit;
  const auto maxmemory = static_cast<uint64_t>(server.config().maxmemory);
  page.Title("Memory");
  page.Human("used_memory", used);
  page.Human("used_memory_rss", resident);
  page.Human("used_memory_peak", peak);
  page.Print("used_memory_peak_perc", "%.2f%%", 100 * Ratio(used, peak));
  page.Field("used_memory_overhead", overhead);
  page.Field("used_memory_startup", server.startup_memory_bytes());
  page.Field("used_memory_dataset", dataset);
  page.Print(
      "used_memory_dataset_perc", "%.2f%%",
      100 * std::min(1.0, Ratio(dataset, used - std::min(used, server.startup_memory_bytes()))));
  page.Field("allocator_allocated", allocator.allocated);
  page.Field("allocator_active", allocator.active);
  page.Field("allocator_resident", allocator.resident);
  page.Field("allocator_muzzy", 0);
  page.Human("total_system_memory", system_bytes);
  page.Human("used_memory_lua", 0);
  page.Field("used_memory_vm_eval", 0);
  page.Field("used_memory_scripts_eval", 0);
  page.Field("number_of_cached_scripts", 0);
  page.Field("number_of_functions", 0);
  page.Field("number_of_libraries", 0);
  page.Field("used_memory_vm_functions", 0);
  page.Human("used_memory_vm_total", 0);
  page.Field("used_memory_functions", 0);
  page.Human("used_memory_scripts", 0);
  page.Human("maxmemory", maxmemory);
  const std::string_view policy = "maxmemory-policy";
  page.Field("maxmemory_policy", server.config().Get({&policy, 1}).front().second);
  page.Print("allocator_frag_ratio", "%.2f", Ratio(allocator.active, allocator.allocated));
  page.Field("allocator_frag_bytes", allocator.active - allocator.allocated);
  page.Print("allocator_rss_ratio", "%.2f", Ratio(allocator.resident, allocator.active));
  page.Field("allocator_rss_bytes",
             static_cast<int64_t>(allocator.resident) - static_cast<int64_t>(allocator.active));
  page.Print("rss_overhead_ratio", "%.2f", Ratio(resident, allocator.resident));
  page.Field("rss_overhead_bytes",
             static_cast<int64_t>(resident) - static_cast<int64_t>(allocator.resident));
  page.Print("mem_fragmentation_ratio", "%.2f", Ratio(resident, used));
  page.Field("mem_fragmentation_bytes",
             static_cast<int64_t>(resident) - static_cast<int64_t>(used));
  page.Field("mem_not_counted_for_evict", 0);
  page.Field("mem_replication_backlog", 0);
  page.Field("mem_total_replication_buffers", 0);
  page.Field("mem_clients_slaves", 0);
  page.Field("mem_clients_normal", sums.client_bytes);
  page.Field("mem_cluster_links", 0);
  page.Field("mem_aof_buffer",
             server.log() == nullptr ? 0 : server.log()->metrics().ring_used_bytes);
  page.Field("mem_allocator", AllocatorName());
  page.Field("active_defrag_running", 0);
  page.Field("lazyfree_pending_objects", server.keyspace().lazy_free().pending());
  page.Field("lazyfreed_objects", server.keyspace().lazy_free().freed());
}

std::string_view StateName(wal::State state) {
  switch (state) {
    case wal::State::kRunning:
      return "running";
    case wal::State::kDegraded:
      return "degraded";
    case wal::State::kRefusing:
      return "refusing";
    default:
      return "stopped";
  }
}

// The options of the log that are in force, each beside the state.
constexpr std::string_view kLogOptions[] = {
    "wal-enabled",           "wal-dir",           "wal-max-segment-size", "wal-buffer-size",
    "wal-flush-interval-ms", "wal-sync-policy",   "wal-ring-size",        "wal-ring-dir",
    "wal-recovery",          "wal-on-error",      "wal-compression",      "wal-encryption-key-file",
    "wal-max-recovery-ms",   "wal-keep-segments", "wal-keep-ms"};

void PersistenceSection(Server& server, Page& page) {
  wal::Log* const log = server.log();
  const wal::Metrics metrics = log == nullptr ? wal::Metrics{} : log->metrics();
  // A log that has just begun, or works again, and waits for its checkpoint can be written.
  const bool well = log == nullptr || metrics.state == wal::State::kRunning ||
                    (metrics.awaits_checkpoint && metrics.last_error.empty());
  page.Title("Persistence");
  page.Field("loading", 0);
  page.Field("async_loading", 0);
  const Checkpointer& checkpointer = server.checkpointer();
  const Checkpointer::Facts facts = server.checkpointer().facts();
  const bool saving = checkpointer.save_running();
  const bool rewriting = checkpointer.rewrite_running();
  const auto seconds = [](int64_t ms) { return ms < 0 ? -1 : ms / 1000; };
  // What a checkpoint holds in memory beyond the data, which Redis' copy-on-write pages are, too.
  page.Field("current_cow_peak", checkpointer.running() ? facts.job.queue_peak_bytes : 0);
  page.Field("current_cow_size", facts.job.queue_bytes);
  page.Field("current_cow_size_age", 0);
  page.Print(
      "current_fork_perc", "%.2f",
      facts.job.keys_total == 0 ? 0.0 : 100.0 * Ratio(facts.job.keys_done, facts.job.keys_total));
  page.Field("current_save_keys_processed", facts.job.keys_done);
  page.Field("current_save_keys_total", facts.job.keys_total);
  page.Field("rdb_changes_since_last_save", facts.changes_since_save);
  page.Field("rdb_bgsave_in_progress", saving ? 1 : 0);
  page.Field("rdb_last_save_time", facts.last_save_ms / 1000);
  page.Field("rdb_last_bgsave_status", facts.save.last_ok ? "ok" : "err");
  page.Field("rdb_last_bgsave_time_sec", seconds(facts.save.last_ms));
  page.Field("rdb_current_bgsave_time_sec", saving ? seconds(facts.job.running_ms) : -1);
  page.Field("rdb_saves", facts.save.done);
  page.Field("rdb_last_cow_size", facts.save.last_peak_bytes);
  page.Field("rdb_last_load_keys_expired", 0);
  page.Field("rdb_last_load_keys_loaded", facts.loaded_entries);
  page.Field("aof_enabled", log == nullptr ? 0 : 1);
  page.Field("aof_rewrite_in_progress", rewriting ? 1 : 0);
  page.Field("aof_rewrite_scheduled", checkpointer.rewrite_scheduled() ? 1 : 0);
  page.Field("aof_last_rewrite_time_sec", seconds(facts.rewrite.last_ms));
  page.Field("aof_current_rewrite_time_sec", rewriting ? seconds(facts.job.running_ms) : -1);
  page.Field("aof_last_bgrewrite_status", facts.rewrite.last_ok ? "ok" : "err");
  page.Field("aof_rewrites", facts.rewrite.done);
  page.Field("aof_rewrites_consecutive_failures", facts.rewrite.failed_in_a_row);
  page.Field("aof_last_write_status", well ? "ok" : "err");
  page.Field("aof_last_cow_size", facts.rewrite.last_peak_bytes);
  page.Field("module_fork_in_progress", 0);
  page.Field("module_fork_last_cow_size", 0);
  if (log != nullptr) {
    page.Field("aof_current_size", metrics.total_bytes + facts.bytes);
    page.Field("aof_base_size", facts.bytes);
    page.Field("aof_pending_rewrite", checkpointer.rewrite_scheduled() ? 1 : 0);
    page.Field("aof_buffer_length", metrics.ring_used_bytes);
    page.Field("aof_pending_bio_fsync", metrics.durable_lsn < metrics.written_lsn ? 1 : 0);
    page.Field("aof_delayed_fsync", 0);
  }
  for (std::string_view option : kLogOptions) {
    std::string name(option);
    std::replace(name.begin(), name.end(), '-', '_');
    page.Field(name, server.config().Get({&option, 1}).front().second);
  }
  const wal::RecoveryReport recovery = server.recovery();
  const LoadProgress progress = server.load_progress();
  page.Field("wal_recovering", server.recovering() ? 1 : 0);
  page.Field("wal_recovery_bytes_total", progress.bytes_total);
  page.Field("wal_recovery_bytes_done", progress.bytes_done);
  page.Field("wal_recovery_units_total", progress.units_total);
  page.Field("wal_recovery_units_done", progress.units_done);
  page.Field("wal_recovery_bytes_per_sec", progress.bytes_per_second());
  page.Field("wal_recovery_eta_ms", progress.remaining_ms());
  page.Field("wal_recovery_time_to_serving_ms", server.time_to_serving_ms());
  page.Field("wal_recovery_segments_processed", recovery.segments_processed);
  page.Field("wal_recovery_entries_recovered", recovery.entries_recovered);
  page.Field("wal_recovery_entries_skipped", recovery.entries_skipped);
  page.Field("wal_recovery_corrupted_entries", recovery.corrupted_entries);
  page.Field("wal_recovery_bytes_processed", recovery.bytes_processed);
  page.Field("wal_recovery_ring_entries", recovery.ring_entries_recovered);
  page.Field("wal_recovery_lost_ranges", recovery.lost.size() + recovery.lost_more);
  page.Field("wal_recovery_time_ms", recovery.recovery_time_ms);
  if (log == nullptr) return;
  page.Field("wal_checkpoint_in_progress", checkpointer.running() ? 1 : 0);
  page.Field("wal_checkpoint_scheduled",
             checkpointer.save_scheduled() || checkpointer.rewrite_scheduled() ? 1 : 0);
  const bool any = checkpointer.running() || facts.duration_ms >= 0 || !facts.last_ok;
  page.Field("wal_checkpoint_reason", any ? ReasonName(checkpointer.reason()) : "none");
  page.Field("wal_checkpoint_current_lsn", facts.job.lsn);
  page.Field("wal_checkpoint_current_ms", facts.job.running_ms);
  page.Field("wal_checkpoint_file_bytes", facts.job.file_bytes);
  page.Field("wal_checkpoint_queue_bytes", facts.job.queue_bytes);
  page.Field("wal_checkpoint_queue_peak_bytes", facts.job.queue_peak_bytes);
  page.Field("wal_checkpoint_queue_bytes_max", CheckpointJob::kQueueBytesMax);
  page.Field("wal_checkpoint_bytes_per_second_max", CheckpointJob::kFileBytesPerSecond);
  page.Field("wal_checkpoint_pre_image_entries", facts.job.saved_entries);
  page.Field("wal_checkpoint_pre_image_bytes", facts.job.saved_bytes);
  page.Field("wal_checkpoint_writer_waits",
             server.execution().snapshot_waits.load(std::memory_order_relaxed));
  page.Field("wal_checkpoint_lsn", facts.lsn);
  page.Field("wal_checkpoint_entries", facts.entries);
  page.Field("wal_checkpoint_bytes", facts.bytes);
  page.Field("wal_checkpoint_duration_ms", facts.duration_ms);
  page.Field("wal_checkpoint_time", facts.at_ms / 1000);
  page.Field("wal_checkpoint_last_status", facts.last_ok ? "ok" : "err");
  page.Field("wal_checkpoint_last_error", facts.last_error);
  page.Field("wal_checkpoints_published", facts.save.done + facts.rewrite.done);
  page.Field("wal_awaits_checkpoint", metrics.awaits_checkpoint ? 1 : 0);
  page.Field("wal_bytes_since_checkpoint", facts.log_bytes_since);
  page.Field("wal_records_since_checkpoint", facts.log_records_since);
  page.Field("wal_estimated_recovery_ms", facts.replay_ms);
  page.Field("wal_disk_free_bytes", facts.disk_free_bytes);
  page.Field("wal_state", StateName(metrics.state));
  page.Field("wal_last_error", metrics.last_error);
  page.Field("wal_epoch", metrics.epoch);
  page.Field("wal_last_lsn", metrics.last_lsn);
  page.Field("wal_written_lsn", metrics.written_lsn);
  page.Field("wal_durable_lsn", metrics.durable_lsn);
  page.Field("wal_segments", metrics.segments);
  page.Field("wal_current_segment", metrics.segment_number);
  page.Field("wal_current_segment_bytes", metrics.segment_offset);
  page.Field("wal_total_bytes", metrics.total_bytes);
  page.Field("wal_entries_appended", metrics.entries_appended);
  page.Field("wal_bytes_appended", metrics.bytes_appended);
  page.Field("wal_appends_dropped", metrics.appends_dropped);
  page.Field("wal_writes", metrics.writes);
  page.Field("wal_bytes_written", metrics.bytes_written);
  page.Field("wal_syncs", metrics.syncs);
  page.Field("wal_sync_last_us", metrics.sync_last_us);
  page.Field("wal_sync_max_us", metrics.sync_max_us);
  page.Field("wal_sync_avg_us", metrics.syncs == 0 ? 0 : metrics.sync_total_us / metrics.syncs);
  page.Field("wal_sync_stalled_ms", metrics.sync_stalled_ms);
  page.Field("wal_write_errors", metrics.write_errors);
  page.Field("wal_sync_errors", metrics.sync_errors);
  page.Field("wal_segments_created", metrics.segments_created);
  page.Field("wal_segments_retired", metrics.segments_retired);
  page.Field("wal_segments_recycled", metrics.segments_recycled);
  page.Field("wal_spare_segments", metrics.spare_segments);
  page.Field("wal_sealed_lsn", metrics.sealed_lsn);
  page.Field("wal_plain_bytes", metrics.plain_bytes);
  page.Field("wal_packed_bytes", metrics.packed_bytes);
  page.Field("wal_heals", metrics.heals);
  page.Field("wal_ring_shared", metrics.ring_shared ? 1 : 0);
  page.Field("wal_ring_used_bytes", metrics.ring_used_bytes);
  page.Field("wal_ring_bytes", metrics.ring_bytes);
  const BackupJob::Facts backup = server.backup_job().facts();
  page.Field("wal_backup_in_progress", backup.running ? 1 : 0);
  page.Field("wal_last_backup_status", backup.error.empty() ? "ok" : "err");
  page.Field("wal_last_backup_lsn", backup.report.lsn);
}

void StatsSection(Server& server, const Sums& sums, Page& page) {
  const Server::Rates rates = server.rates();
  page.Title("Stats");
  page.Field("total_connections_received",
             sums.loop.connections_accepted + server.rejected_connections());
  page.Field("total_commands_processed", sums.commands);
  page.Field("instantaneous_ops_per_sec", static_cast<int64_t>(rates.operations));
  page.Field("total_net_input_bytes", sums.loop.bytes_in);
  page.Field("total_net_output_bytes", sums.loop.bytes_out);
  page.Field("total_net_repl_input_bytes", 0);
  page.Field("total_net_repl_output_bytes", 0);
  page.Print("instantaneous_input_kbps", "%.2f", rates.bytes_in / 1024);
  page.Print("instantaneous_output_kbps", "%.2f", rates.bytes_out / 1024);
  page.Print("instantaneous_input_repl_kbps", "%.2f", 0.0);
  page.Print("instantaneous_output_repl_kbps", "%.2f", 0.0);
  page.Field("rejected_connections", server.rejected_connections());
  page.Field("sync_full", 0);
  page.Field("sync_partial_ok", 0);
  page.Field("sync_partial_err", 0);
  page.Field("expired_keys", sums.keyspace.expired);
  page.Print("expired_stale_perc", "%.2f", 0.0);
  page.Field("expired_time_cap_reached_count", 0);
  page.Field("expire_cycle_cpu_milliseconds", 0);
  page.Field("evicted_keys", sums.keyspace.evicted);
  page.Field("evicted_clients", server.evicted_clients());
  page.Field("evicted_scripts", 0);
  page.Field("total_eviction_exceeded_time", 0);
  page.Field("current_eviction_exceeded_time", 0);
  page.Field("keyspace_hits", sums.keyspace.hits);
  page.Field("keyspace_misses", sums.keyspace.misses);
  page.Field("pubsub_channels", 0);
  page.Field("pubsub_patterns", 0);
  page.Field("pubsubshard_channels", 0);
  page.Field("latest_fork_usec", 0);
  page.Field("total_forks", 0);
  page.Field("migrate_cached_sockets", 0);
  page.Field("slave_expires_tracked_keys", 0);
  page.Field("active_defrag_hits", 0);
  page.Field("active_defrag_misses", 0);
  page.Field("active_defrag_key_hits", 0);
  page.Field("active_defrag_key_misses", 0);
  page.Field("total_active_defrag_time", 0);
  page.Field("current_active_defrag_time", 0);
  page.Field("tracking_total_keys", 0);
  page.Field("tracking_total_items", 0);
  page.Field("tracking_total_prefixes", 0);
  page.Field("unexpected_error_replies", 0);
  page.Field("total_error_replies", sums.errors);
  page.Field("dump_payload_sanitizations", 0);
  page.Field("total_reads_processed", sums.loop.reads);
  page.Field("total_writes_processed", sums.loop.writes);
  page.Field("io_threaded_reads_processed", 0);
  page.Field("io_threaded_writes_processed", 0);
  page.Field("client_query_buffer_limit_disconnections", sums.loop.query_limit_closed);
  page.Field("client_output_buffer_limit_disconnections", sums.loop.output_limit_closed);
  page.Field("reply_buffer_shrinks", 0);
  page.Field("reply_buffer_expands", 0);
  const double us_per_cycle = server.MicrosecondsPerCycle();
  page.Field("eventloop_cycles", sums.loop.rounds);
  page.Field("eventloop_duration_sum",
             static_cast<uint64_t>(static_cast<double>(sums.loop.round_cycles) * us_per_cycle));
  page.Field("eventloop_duration_cmd_sum",
             static_cast<uint64_t>(static_cast<double>(sums.command_cycles) * us_per_cycle));
  page.Field("instantaneous_eventloop_cycles_per_sec", static_cast<int64_t>(rates.rounds));
  page.Field("instantaneous_eventloop_duration_usec",
             static_cast<int64_t>(rates.rounds > 0 ? rates.round_us / rates.rounds : 0));
  page.Field("acl_access_denied_auth", sums.loop.auth_denied);
  page.Field("acl_access_denied_cmd", 0);
  page.Field("acl_access_denied_key", 0);
  page.Field("acl_access_denied_channel", 0);
}

void ReplicationSection(Server& server, Page& page) {
  page.Title("Replication");
  page.Field("role", "master");
  page.Field("connected_slaves", 0);
  page.Field("master_failover_state", "no-failover");
  page.Field("master_replid", server.replication_id());
  page.Field("master_replid2", std::string(40, '0'));
  page.Field("master_repl_offset", 0);
  page.Field("second_repl_offset", -1);
  page.Field("repl_backlog_active", 0);
  page.Field("repl_backlog_size", 1048576);
  page.Field("repl_backlog_first_byte_offset", 0);
  page.Field("repl_backlog_histlen", 0);
}

void CpuSection(Page& page) {
  const auto print = [&](std::string_view name, const timeval& time) {
    page.Print(name, "%ld.%06ld", static_cast<long>(time.tv_sec), static_cast<long>(time.tv_usec));
  };
  rusage self, children, thread;
  getrusage(RUSAGE_SELF, &self);
  getrusage(RUSAGE_CHILDREN, &children);
  getrusage(RUSAGE_THREAD, &thread);
  page.Title("CPU");
  print("used_cpu_sys", self.ru_stime);
  print("used_cpu_user", self.ru_utime);
  print("used_cpu_sys_children", children.ru_stime);
  print("used_cpu_user_children", children.ru_utime);
  print("used_cpu_sys_main_thread", thread.ru_stime);
  print("used_cpu_user_main_thread", thread.ru_utime);
}

// All loops' figures of one command.
CommandStats StatsOf(Server& server, size_t index) {
  CommandStats sum;
  for (const auto& loop : server.loops()) sum.Add(loop->dispatcher().stats().commands[index]);
  return sum;
}

template <typename Visit>
void ForEachUsedCommand(Server& server, Visit&& visit) {
  const Registry& registry = server.registry();
  const auto look = [&](const Command& command) {
    const CommandStats stats = StatsOf(server, registry.IndexOf(command));
    if (stats.calls + stats.rejected + stats.failed > 0) visit(command, stats);
  };
  for (const Command* command : registry.commands()) {
    look(*command);
    for (const Command* subcommand : registry.Subcommands(*command)) look(*subcommand);
  }
}

void CommandstatsSection(Server& server, Page& page) {
  page.Title("Commandstats");
  const double us_per_cycle = server.MicrosecondsPerCycle();
  ForEachUsedCommand(server, [&](const Command& command, const CommandStats& stats) {
    const double us = static_cast<double>(stats.cycles) * us_per_cycle;
    page.Print("cmdstat_" + std::string(command.name),
               "calls=%lu,usec=%lu,usec_per_call=%.2f,rejected_calls=%lu,failed_calls=%lu",
               stats.calls, static_cast<uint64_t>(us), stats.calls == 0 ? 0.0 : us / stats.calls,
               stats.rejected, stats.failed);
  });
}

void ErrorstatsSection(Server& server, Page& page) {
  page.Title("Errorstats");
  std::map<std::string, uint64_t> errors;
  for (const auto& loop : server.loops()) {
    for (const auto& [code, count] : loop->dispatcher().stats().errors) errors[code] += count;
  }
  for (const auto& [code, count] : errors) page.Print("errorstat_" + code, "count=%lu", count);
}

void LatencystatsSection(Server& server, Page& page) {
  page.Title("Latencystats");
  if (!server.config().latency_tracking) return;
  const double us_per_cycle = server.MicrosecondsPerCycle();
  ForEachUsedCommand(server, [&](const Command& command, const CommandStats& stats) {
    if (stats.calls == 0) return;
    std::string line;
    for (double percentile : server.config().latency_tracking_info_percentiles) {
      char text[64];
      std::snprintf(text, sizeof(text), "%sp%g=%.3f", line.empty() ? "" : ",", percentile,
                    stats.PercentileCycles(percentile) * us_per_cycle);
      line += text;
    }
    page.Field("latency_percentiles_usec_" + std::string(command.name), line);
  });
}

void KeyspaceSection(Server& server, int64_t now_ms, Page& page) {
  page.Title("Keyspace");
  const Keyspace& keyspace = server.keyspace();
  for (uint32_t db = 0; db < keyspace.options().databases; ++db) {
    const uint64_t keys = keyspace.Size(db);
    if (keys == 0) continue;
    page.Print("db" + std::to_string(db), "keys=%lu,expires=%lu,avg_ttl=%ld,subexpiry=0", keys,
               keyspace.SizeWithDeadline(db), keyspace.AverageTtlMs(db, now_ms));
  }
}

// Which sections an INFO asks for.
struct Choice {
  bool all = false;  // all: everything that `default` leaves out, too
  bool standard = false;
  std::vector<std::string_view> names;

  bool Wants(std::string_view name, bool in_default) const {
    if (all || (standard && in_default)) return true;
    return std::any_of(names.begin(), names.end(),
                       [&](std::string_view asked) { return EqualsIgnoreCase(asked, name); });
  }
};

}  // namespace

std::vector<std::pair<std::string, std::string>> WalFields(Server& server) {
  Page page;
  PersistenceSection(server, page);
  std::vector<std::pair<std::string, std::string>> fields;
  std::string_view left = page.text();
  for (size_t end; (end = left.find("\r\n")) != std::string_view::npos;) {
    const std::string_view line = left.substr(0, end);
    left.remove_prefix(end + 2);
    const size_t colon = line.find(':');
    if (!line.starts_with("wal_") || colon == std::string_view::npos) continue;
    fields.emplace_back(line.substr(0, colon), line.substr(colon + 1));
  }
  return fields;
}

// INFO [section ...]
Status Info(Call& call) {
  Choice choice;
  choice.standard = call.args.size() == 1;
  for (size_t i = 1; i < call.args.size(); ++i) {
    if (call.args.Is(i, "default")) {
      choice.standard = true;
    } else if (call.args.Is(i, "all") || call.args.Is(i, "everything")) {
      choice.all = true;
    } else {
      choice.names.push_back(call.args[i]);
    }
  }
  Server& server = ServerOf(call);
  const Sums sums = SumUp(server);
  Page page;
  if (choice.Wants("server", true)) ServerSection(server, call, page);
  if (choice.Wants("clients", true)) ClientsSection(server, sums, page);
  if (choice.Wants("memory", true)) MemorySection(server, sums, page);
  if (choice.Wants("persistence", true)) PersistenceSection(server, page);
  if (choice.Wants("stats", true)) StatsSection(server, sums, page);
  if (choice.Wants("replication", true)) ReplicationSection(server, page);
  if (choice.Wants("cpu", true)) CpuSection(page);
  if (choice.Wants("modules", true)) page.Title("Modules");
  if (choice.Wants("commandstats", false)) CommandstatsSection(server, page);
  if (choice.Wants("errorstats", true)) ErrorstatsSection(server, page);
  if (choice.Wants("latencystats", false)) LatencystatsSection(server, page);
  if (choice.Wants("cluster", true)) {
    page.Title("Cluster");
    page.Field("cluster_enabled", 0);
  }
  if (choice.Wants("keyspace", true)) KeyspaceSection(server, call.now_ms, page);
  call.reply.Verbatim("txt", page.text());
  return Status::Ok();
}

// STATS
Status Stats(Call& call) {
  Server& server = ServerOf(call);
  const Config& config = server.config();
  const Sums sums = SumUp(server);
  wal::Log* const log = server.log();
  const wal::Metrics metrics = log == nullptr ? wal::Metrics{} : log->metrics();
  const wal::RecoveryReport recovery = server.recovery();
  uint64_t keys = 0;
  for (uint32_t db = 0; db < server.keyspace().options().databases; ++db) {
    keys += server.keyspace().Size(db);
  }
  // Numbers, booleans and fixed words only: nothing here needs escaping.
  static constexpr const char* kPolicies[] = {"None", "Async", "Sync"};
  std::string json;
  const auto number = [&](const char* name, auto value) {
    json.append("\"").append(name).append("\":").append(std::to_string(value)).append(",");
  };
  const auto close = [&](const char* end) {
    json.back() = '}';
    json += end;
  };
  json += "{\"wal\":{\"wal_enabled\":";
  json += log == nullptr ? "false," : "true,";
  json += "\"wal_config\":{";
  number("max_segment_size", config.wal_max_segment_size);
  number("buffer_size", config.wal_buffer_size);
  number("flush_interval_ms", config.wal_flush_interval_ms);
  json.append("\"sync_policy\":\"")
      .append(kPolicies[static_cast<int>(config.wal_sync_policy)])
      .append("\",");
  close(",");
  json.append("\"state\":\"")
      .append(log == nullptr ? "off" : StateName(metrics.state))
      .append("\",");
  number("last_lsn", metrics.last_lsn);
  number("durable_lsn", metrics.durable_lsn);
  number("entries_appended", metrics.entries_appended);
  number("bytes_written", metrics.bytes_written);
  number("syncs", metrics.syncs);
  number("segments", metrics.segments);
  number("total_bytes", metrics.total_bytes);
  number("write_errors", metrics.write_errors);
  number("sync_errors", metrics.sync_errors);
  json += "\"recovery\":{";
  number("segments_processed", recovery.segments_processed);
  number("entries_recovered", recovery.entries_recovered);
  number("entries_skipped", recovery.entries_skipped);
  number("corrupted_entries", recovery.corrupted_entries);
  number("recovery_time_ms", recovery.recovery_time_ms);
  close(",");
  close(",");
  json += "\"server\":{";
  number("uptime_seconds", (call.now_ms - server.start_ms()) / 1000);
  number("threads", server.loops().size());
  number("connected_clients", sums.connections);
  number("commands_processed", sums.commands);
  number("keyspace_hits", sums.keyspace.hits);
  number("keyspace_misses", sums.keyspace.misses);
  number("expired_keys", sums.keyspace.expired);
  number("evicted_keys", sums.keyspace.evicted);
  number("keys", keys);
  number("used_memory_bytes", UsedBytes(server, AllocatedBytes()));
  number("resident_memory_bytes", ResidentBytes());
  close(",");
  close("");
  if (call.client.inline_request) {
    // A person with netcat asked, or a script that pipes into jq: no framing.
    call.reply.buffer().Append(json);
    call.reply.buffer().Append(std::string_view("\r\n"));
  } else {
    call.reply.Bulk(json);
  }
  return Status::Ok();
}

}  // namespace crab

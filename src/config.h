// Config: the value of every option. One row per option in config_rows.cc is the only place that
// knows its names, type, range, default and sentence; the file, the command line, the environment,
// CONFIG GET / SET / REWRITE, --help and docs/configuration.md all come from that row.
// World-guarded in a running server: read while a command runs, changed only exclusively. A plain
// value otherwise: copy it, change the copy, and compare the fields to see what has to follow.
#pragma once

#include <array>
#include <cstdint>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "utils/status.h"

namespace crab {

enum class MaxmemoryPolicy : uint8_t {
  kVolatileLru,
  kVolatileLfu,
  kVolatileRandom,
  kVolatileTtl,
  kAllkeysLru,
  kAllkeysLfu,
  kAllkeysRandom,
  kNoEviction,
  kVolatileSieve,
  kAllkeysSieve,
};
enum class LogVerbosity : uint8_t { kDebug, kVerbose, kNotice, kWarning, kNothing };
// Who may use a command or an option that is closed by default.
enum class Permission : uint8_t { kNobody, kEverybody, kLocalConnections };
enum class WalSyncPolicy : uint8_t { kNone, kAsync, kSync };
enum class WalRecovery : uint8_t { kSalvage, kPrefix, kStrict };
enum class WalOnError : uint8_t { kAuto, kDegrade, kRefuse, kExit };
enum class WalCompression : uint8_t { kNone, kLz4, kZstd };

// Bits of Config::shutdown_on_sigint and _sigterm; 0 = as the save points say.
enum ShutdownFlag : uint8_t {
  kShutdownSave = 1,
  kShutdownNoSave = 2,
  kShutdownNow = 4,
  kShutdownForce = 8,
};

// Bits of Config::notify_keyspace_events, with Redis' letters.
enum NotifyFlag : uint32_t {
  kNotifyKeyspace = 1 << 0,  // K
  kNotifyKeyevent = 1 << 1,  // E
  kNotifyGeneric = 1 << 2,   // g
  kNotifyString = 1 << 3,    // $
  kNotifyList = 1 << 4,      // l
  kNotifySet = 1 << 5,       // s
  kNotifyHash = 1 << 6,      // h
  kNotifyZset = 1 << 7,      // z
  kNotifyExpired = 1 << 8,   // x
  kNotifyEvicted = 1 << 9,   // e
  kNotifyStream = 1 << 10,   // t
  kNotifyKeyMiss = 1 << 11,  // m
  kNotifyModule = 1 << 13,   // d
  kNotifyNew = 1 << 14,      // n
  // A: all but key misses and new keys.
  kNotifyAll = kNotifyGeneric | kNotifyString | kNotifyList | kNotifySet | kNotifyHash |
               kNotifyZset | kNotifyExpired | kNotifyEvicted | kNotifyStream | kNotifyModule,
};

enum class ClientClass : uint8_t { kNormal, kReplica, kPubsub };
struct OutputBufferLimit {
  int64_t hard_bytes = 0;  // 0 = none
  int64_t soft_bytes = 0;
  int64_t soft_seconds = 0;
  bool operator==(const OutputBufferLimit&) const = default;
};

struct SavePoint {
  int64_t seconds;
  int64_t changes;
  bool operator==(const SavePoint&) const = default;
};

struct Config {
  // Every option at its default, which its row states.
  Config();

  // Listening and clients.
  std::vector<std::string> bind;  // a leading '-': no error when it cannot be had; "*" = all
  int64_t port = 0;               // 0 = no TCP
  int64_t tcp_backlog = 0;
  std::string unixsocket;      // "" = none
  int64_t unixsocketperm = 0;  // mode bits, 0 = leave as the umask makes them
  bool protected_mode = false;
  std::string requirepass;  // "" = none
  int64_t maxclients = 0;
  int64_t timeout_seconds = 0;        // of an idle client, 0 = never
  int64_t tcp_keepalive_seconds = 0;  // 0 = off
  int64_t proto_max_bulk_len = 0;
  int64_t client_query_buffer_limit = 0;
  std::array<OutputBufferLimit, 3> client_output_buffer_limit;  // by ClientClass
  int64_t maxmemory_clients = 0;  // bytes; below 0: that many percent of maxmemory; 0 = no limit
  int64_t tracking_table_max_keys = 0;
  Permission enable_debug_command = {};
  Permission enable_protected_configs = {};
  Permission enable_module_command = {};
  bool acl_pubsub_default_all = false;
  int64_t acllog_max_len = 0;
  int64_t busy_reply_threshold_ms = 0;

  // The process.
  int64_t threads = 0;  // 0 = one per core
  int64_t shards = 0;   // power of two
  bool shard_by_hashtag = false;
  int64_t databases = 0;
  bool daemonize = false;
  std::string pidfile;
  std::string dir;  // "" = where it was started; main changes into it before anything is opened
  LogVerbosity loglevel = {};
  std::string logfile;              // "" = standard output
  uint8_t shutdown_on_sigint = 0;   // ShutdownFlag bits
  uint8_t shutdown_on_sigterm = 0;  // ShutdownFlag bits
  int64_t shutdown_timeout_seconds = 0;
  int64_t hz = 0;
  bool dynamic_hz = false;
  int64_t active_expire_effort = 0;
  bool activerehashing = false;

  // Memory.
  int64_t maxmemory = 0;  // bytes, 0 = no limit
  MaxmemoryPolicy maxmemory_policy;
  int64_t maxmemory_samples = 0;
  int64_t maxmemory_eviction_tenacity = 0;
  int64_t lfu_log_factor = 0;
  int64_t lfu_decay_minutes = 0;
  bool lazyfree_lazy_eviction = false;
  bool lazyfree_lazy_expire = false;
  bool lazyfree_lazy_server_del = false;
  bool lazyfree_lazy_user_del = false;
  bool lazyfree_lazy_user_flush = false;
  bool disable_thp = false;

  // Encodings.
  int64_t hash_max_listpack_entries = 0;
  int64_t hash_max_listpack_value = 0;
  int64_t list_max_listpack_size = 0;
  int64_t list_compress_depth = 0;
  int64_t set_max_intset_entries = 0;
  int64_t set_max_listpack_entries = 0;
  int64_t set_max_listpack_value = 0;
  int64_t zset_max_listpack_entries = 0;
  int64_t zset_max_listpack_value = 0;
  int64_t hll_sparse_max_bytes = 0;
  int64_t stream_node_max_bytes = 0;
  int64_t stream_node_max_entries = 0;

  // Looking inside.
  int64_t slowlog_log_slower_than_us = 0;  // below 0 = off
  int64_t slowlog_max_len = 0;
  int64_t latency_monitor_threshold_ms = 0;  // 0 = off
  bool latency_tracking = false;
  std::vector<double> latency_tracking_info_percentiles;
  uint32_t notify_keyspace_events = 0;  // NotifyFlag bits

  // Snapshots.
  std::string dbfilename;
  std::vector<SavePoint> save;
  bool rdbcompression = false;
  bool rdbchecksum = false;
  bool stop_writes_on_bgsave_error = false;

  // The write-ahead log.
  bool enable_wal = false;
  std::string wal_dir;
  int64_t wal_max_segment_size = 0;
  int64_t wal_buffer_size = 0;
  int64_t wal_flush_interval_ms = 0;
  WalSyncPolicy wal_sync_policy = {};
  int64_t wal_ring_size = 0;
  std::string wal_ring_dir;
  WalRecovery wal_recovery = {};
  WalOnError wal_on_error = {};
  WalCompression wal_compression = {};
  std::string wal_encryption_key_file;
  int64_t wal_max_recovery_ms = 0;
  int64_t auto_aof_rewrite_percentage = 0;  // of the last checkpoint; 0 = off
  int64_t auto_aof_rewrite_min_size = 0;
  int64_t wal_keep_segments = 0;
  int64_t wal_keep_ms = 0;

  // The file this came from, absolute; "" = none. What CONFIG REWRITE writes and INFO shows.
  std::string file;

  // Values of the options that are known for compatibility only, as text, by their row's number.
  // They have a type and a range and can be read and set, but nothing here looks at them.
  std::vector<std::string> accepted;

  bool operator==(const Config&) const = default;

  // CONFIG GET: name and value of every option that one of the patterns names, each once. A name
  // asked for literally comes back in the asker's spelling, as in Redis.
  std::vector<std::pair<std::string, std::string>> Get(
      std::span<const std::string_view> patterns) const;

  // CONFIG SET: all pairs or, with Redis' error text, none. `local_client`: the asking connection
  // is a loopback or unix one, which `enable-protected-configs local` asks about. Returns the rows'
  // names whose value is now another; what follows from them is the caller's to do, and when that
  // fails it keeps its old Config and answers with SetFailed().
  using Pair = std::pair<std::string_view, std::string_view>;
  Result<std::vector<std::string_view>> Set(std::span<const Pair> pairs, bool local_client = false);

  // The error CONFIG SET answers when an option's value was fine but could not be put in force.
  static Status SetFailed(std::string_view name, std::string_view detail);

  // CONFIG REWRITE: brings the file this came from up to date, keeping its comments and its order;
  // replaces it in one step, so that a crash leaves the old or the new one.
  Status Rewrite() const;
};

// What a start was asked to do.
struct Launch {
  Config config;
  // Whole sentences for the operator's log: options without effect, risky values.
  std::vector<std::string> warnings;
  // --help, --version, --check: print `text` and leave with exit status 0 instead of serving.
  bool serve = true;
  std::string text;
};

// Reads defaults, then the file, then the environment (CRABCACHE_*), then the command line, each
// over the one before. `argv` as main got it, `environment` as environ. The file "-" is read from
// `standard_input`. The error lists everything that is wrong, a line each, with file and line.
Result<Launch> LoadConfig(int argc, const char* const* argv, const char* const* environment,
                          std::istream& standard_input);

// Generated from the rows: docs/configuration.md and conf/crabcache.toml.
std::string ConfigurationPage();
std::string ExampleToml();

}  // namespace crab

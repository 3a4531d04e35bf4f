// The table of options. A row is one statement; the builders in front of it only name its columns.
// Ranges, defaults and which options change at run time are Redis' where the option is Redis'.
#include "src/config_rows.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "src/config_grammars.h"

namespace crab::config {
namespace {

constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();
constexpr int64_t kUintMax = std::numeric_limits<uint32_t>::max();
constexpr int64_t kLongMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kKib = 1024;
constexpr int64_t kMib = 1024 * kKib;
constexpr int64_t kGib = 1024 * kMib;

template <auto kMember>
struct MemberOf;
template <typename T, T Config::*kMember>
struct MemberOf<kMember> {
  using Type = T;
};

// The place of a field, whatever its number type.
template <auto kMember>
constexpr Place At() {
  using T = typename MemberOf<kMember>::Type;
  if constexpr (std::is_same_v<T, std::string>) {
    return {.text = kMember};
  } else {
    return {.get = [](const Config& config) { return static_cast<int64_t>(config.*kMember); },
            .set = [](Config& config, int64_t value) { config.*kMember = static_cast<T>(value); }};
  }
}
constexpr Place kNowhere = {};  // Config::accepted

// Redis takes any number here and holds it between 1 and 500.
constexpr Place kHzPlace = {
    .get = [](const Config& config) { return config.hz; },
    .set = [](Config& config, int64_t hz) { config.hz = std::clamp<int64_t>(hz, 1, 500); }};

using Text = std::string_view;

constexpr Row Bool(Text name, Place place, Text standard, Text sentence) {
  return {.name = name,
          .kind = Kind::kBool,
          .place = place,
          .default_text = standard,
          .sentence = sentence};
}
constexpr Row Integer(Text name, Place place, int64_t min, int64_t max, Text standard, Text unit,
                      Text sentence) {
  return {.name = name,
          .kind = Kind::kInteger,
          .min = min,
          .max = max,
          .place = place,
          .default_text = standard,
          .unit = unit,
          .sentence = sentence};
}
constexpr Row Memory(Text name, Place place, int64_t min, int64_t max, Text standard,
                     Text sentence) {
  return {.name = name,
          .kind = Kind::kMemory,
          .min = min,
          .max = max,
          .place = place,
          .default_text = standard,
          .unit = "bytes",
          .sentence = sentence};
}
constexpr Row OneOf(Text name, Place place, std::span<const Choice> choices, Text standard,
                    Text sentence) {
  return {.name = name,
          .kind = Kind::kChoice,
          .choices = choices,
          .place = place,
          .default_text = standard,
          .sentence = sentence};
}
constexpr Row String(Text name, Place place, Text standard, Text sentence) {
  return {.name = name,
          .kind = Kind::kText,
          .place = place,
          .default_text = standard,
          .sentence = sentence};
}
constexpr Row Words(Text name, Custom custom, Text standard, Text sentence) {
  return {.name = name,
          .kind = Kind::kCustom,
          .flags = kManyWords,
          .custom = custom,
          .default_text = standard,
          .sentence = sentence};
}

constexpr Row operator|(Row row, Flag flag) {
  row.flags |= flag;
  return row;
}
struct Alias {
  Text name;
};
constexpr Row operator|(Row row, Alias alias) {
  row.alias = alias.name;
  return row;
}
struct Toml {
  Text name;
};
constexpr Row operator|(Row row, Toml toml) {
  row.toml = toml.name;
  return row;
}
struct Section {
  Text title;
};
constexpr Row operator|(Section section, Row row) {
  row.section = section.title;
  return row;
}

template <typename E>
constexpr Choice Named(Text name, E value) {
  return {name, static_cast<int64_t>(value)};
}

constexpr Choice kEvictionPolicies[] = {
    Named("volatile-lru", MaxmemoryPolicy::kVolatileLru),
    Named("volatile-lfu", MaxmemoryPolicy::kVolatileLfu),
    Named("volatile-random", MaxmemoryPolicy::kVolatileRandom),
    Named("volatile-ttl", MaxmemoryPolicy::kVolatileTtl),
    Named("allkeys-lru", MaxmemoryPolicy::kAllkeysLru),
    Named("allkeys-lfu", MaxmemoryPolicy::kAllkeysLfu),
    Named("allkeys-random", MaxmemoryPolicy::kAllkeysRandom),
    Named("noeviction", MaxmemoryPolicy::kNoEviction),
    Named("volatile-sieve", MaxmemoryPolicy::kVolatileSieve),
    Named("allkeys-sieve", MaxmemoryPolicy::kAllkeysSieve),
};
constexpr Choice kLogVerbosities[] = {
    Named("debug", LogVerbosity::kDebug),     Named("verbose", LogVerbosity::kVerbose),
    Named("notice", LogVerbosity::kNotice),   Named("warning", LogVerbosity::kWarning),
    Named("nothing", LogVerbosity::kNothing),
};
constexpr Choice kPermissions[] = {
    Named("no", Permission::kNobody),
    Named("yes", Permission::kEverybody),
    Named("local", Permission::kLocalConnections),
};
constexpr Choice kPubsubDefaults[] = {{"allchannels", 1}, {"resetchannels", 0}};
constexpr Choice kSyncPolicies[] = {
    Named("none", WalSyncPolicy::kNone),
    Named("async", WalSyncPolicy::kAsync),
    Named("sync", WalSyncPolicy::kSync),
};
constexpr Choice kAppendFsync[] = {
    Named("everysec", WalSyncPolicy::kAsync),
    Named("always", WalSyncPolicy::kSync),
    Named("no", WalSyncPolicy::kNone),
};
constexpr Choice kRecoveries[] = {
    Named("salvage", WalRecovery::kSalvage),
    Named("prefix", WalRecovery::kPrefix),
    Named("strict", WalRecovery::kStrict),
};
constexpr Choice kOnErrors[] = {
    Named("auto", WalOnError::kAuto),
    Named("degrade", WalOnError::kDegrade),
    Named("refuse", WalOnError::kRefuse),
    Named("exit", WalOnError::kExit),
};
constexpr Choice kCompressions[] = {
    Named("none", WalCompression::kNone),
    Named("lz4", WalCompression::kLz4),
    Named("zstd", WalCompression::kZstd),
};
constexpr Choice kSupervisors[] = {{"upstart", 0}, {"systemd", 1}, {"auto", 2}, {"no", 3}};
constexpr Choice kSyslogFacilities[] = {
    {"user", 0},   {"local0", 1}, {"local1", 2}, {"local2", 3}, {"local3", 4},
    {"local4", 5}, {"local5", 6}, {"local6", 7}, {"local7", 8},
};
constexpr Choice kDisklessLoads[] = {{"disabled", 0}, {"on-empty-db", 1}, {"swapdb", 2}};
constexpr Choice kPayloadChecks[] = {{"no", 0}, {"yes", 1}, {"clients", 2}};
constexpr Choice kTlsAuthentications[] = {{"no", 0}, {"yes", 1}, {"optional", 2}};
constexpr Choice kOomAdjustments[] = {{"no", 0}, {"yes", 1}, {"relative", 1}, {"absolute", 2}};
constexpr Choice kEndpointTypes[] = {{"ip", 0}, {"hostname", 1}, {"unknown-endpoint", 2}};
constexpr Choice kPropagationErrors[] = {{"ignore", 0}, {"panic", 1}, {"panic-on-replicas", 2}};

constexpr Row kRows[] = {
    Section{"Listening"} | Words("bind", kBind, "127.0.0.1 -::1",
                                 "Addresses to listen on; one with a leading '-' may be missing on "
                                 "this machine, and '*' is all of them."),
    Integer("port", At<&Config::port>(), 0, 65535, "6379", "", "The TCP port; 0 serves no TCP."),
    Integer("tcp-backlog", At<&Config::tcp_backlog>(), 0, kIntMax, "511", "connections",
            "How many connections the kernel keeps until they are accepted.") |
        kAtStartOnly,
    String("unixsocket", At<&Config::unixsocket>(), "",
           "Path of a unix socket to listen on; empty for none.") |
        kAtStartOnly,
    Row{.name = "unixsocketperm",
        .kind = Kind::kOctal,
        .min = 0,
        .max = 0777,
        .place = At<&Config::unixsocketperm>(),
        .default_text = "0",
        .sentence = "Mode bits of the unix socket in octal; 0 leaves what the umask makes."} |
        kAtStartOnly,
    Bool("protected-mode", At<&Config::protected_mode>(), "yes",
         "Refuses clients from other machines while no password is set."),

    Section{"Clients"} | String("requirepass", At<&Config::requirepass>(), "",
                                "The password a client gives with AUTH; empty for none."),
    Integer("maxclients", At<&Config::maxclients>(), 1, kUintMax, "10000", "clients",
            "How many clients may be connected; the next one gets an error."),
    Integer("timeout", At<&Config::timeout_seconds>(), 0, kIntMax, "0", "seconds",
            "Closes a client that was idle for so long; 0 never does."),
    Integer("tcp-keepalive", At<&Config::tcp_keepalive_seconds>(), 0, kIntMax, "300", "seconds",
            "After how much silence TCP probes whether a client is still there; 0 never does."),
    Memory("proto-max-bulk-len", At<&Config::proto_max_bulk_len>(), 1 * kMib, kLongMax, "512mb",
           "The longest argument a client may send."),
    Memory("client-query-buffer-limit", At<&Config::client_query_buffer_limit>(), 1 * kMib,
           kLongMax, "1gb", "Closes a client whose unread request has grown beyond this."),
    Words("client-output-buffer-limit", kOutputBufferLimits,
          "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
          "Per class of clients (normal, replica, pubsub): closes one whose unsent replies exceed "
          "the hard limit, or the soft limit for so many seconds; 0 is no limit."),
    Row{.name = "maxmemory-clients",
        .kind = Kind::kMemoryOrPercent,
        .min = -100,
        .max = kLongMax,
        .place = At<&Config::maxmemory_clients>(),
        .default_text = "0",
        .unit = "bytes",
        .sentence = "What all clients' buffers together may take, or a percentage of maxmemory; "
                    "beyond it the largest are closed; 0 is no limit."},
    OneOf("enable-debug-command", At<&Config::enable_debug_command>(), kPermissions, "no",
          "Who may use DEBUG: no one, everyone, or local connections.") |
        kAtStartOnly,
    OneOf("enable-protected-configs", At<&Config::enable_protected_configs>(), kPermissions, "no",
          "Who may change protected options with CONFIG SET: no one, everyone, or local "
          "connections.") |
        kAtStartOnly,

    Section{"Process"} |
        Integer("threads", At<&Config::threads>(), 0, 1024, "0", "threads",
                "How many threads serve clients; 0 is one per core.") |
        kFixed,
    Integer("databases", At<&Config::databases>(), 1, kIntMax, "16", "databases",
            "How many databases SELECT can choose from.") |
        kAtStartOnly,
    Words("shards", kShards, "1024",
          "Into how many separately locked parts the keys are divided, a power of two up to 32768; "
          "a log that was written with another number is read all the same.") |
        kFixed,
    Bool("shard-by-hashtag", At<&Config::shard_by_hashtag>(), "no",
         "Puts keys with the same {hashtag} into one shard, so that commands on several of them "
         "take one lock.") |
        kFixed,
    Bool("daemonize", At<&Config::daemonize>(), "no", "Runs in the background.") | kAtStartOnly,
    String("pidfile", At<&Config::pidfile>(), "",
           "File that holds the process id while the server runs; empty for none.") |
        kAtStartOnly,
    String(
        "dir", At<&Config::dir>(), "",
        "The working directory, to which all other relative paths refer; empty for the one the "
        "server was started in. A change moves no file in use, but after CONFIG REWRITE the next "
        "start looks for relative paths there.") |
        kProtected,
    OneOf("loglevel", At<&Config::loglevel>(), kLogVerbosities, "notice",
          "The least important messages that are still written to the server's log."),
    String("logfile", At<&Config::logfile>(), "",
           "File for the server's messages; empty for standard output.") |
        kAtStartOnly,
    Integer("hz", kHzPlace, 0, kIntMax, "10", "per second",
            "How often background work runs; held between 1 and 500."),
    Integer("active-expire-effort", At<&Config::active_expire_effort>(), 1, 10, "1", "",
            "How much time the search for expired keys may take, from least to most."),

    Section{"Memory"} |
        Memory("maxmemory", At<&Config::maxmemory>(), 0, kLongMax, "0",
               "What the data may take before keys are evicted or writes refused; 0 is no limit."),
    OneOf("maxmemory-policy", At<&Config::maxmemory_policy>(), kEvictionPolicies, "noeviction",
          "Which keys go when maxmemory is reached: all keys or only those with a time to live, by "
          "recency, frequency, chance, nearest deadline or SIEVE."),
    Integer("maxmemory-samples", At<&Config::maxmemory_samples>(), 1, kIntMax, "5", "keys",
            "How many keys an eviction looks at to find the best one to give up."),
    Integer("maxmemory-eviction-tenacity", At<&Config::maxmemory_eviction_tenacity>(), 0, 100, "10",
            "",
            "How long a command may be held up by eviction, from hardly to as long as it takes.") |
        kAccepted,
    Integer("lfu-log-factor", At<&Config::lfu_log_factor>(), 0, kIntMax, "10", "",
            "How slowly the access counters of the lfu policies grow."),
    Integer("lfu-decay-time", At<&Config::lfu_decay_minutes>(), 0, kIntMax, "1", "minutes",
            "After how long without access such a counter is lowered by one."),

    Section{"Write-ahead log"} |
        Bool("wal-enabled", At<&Config::enable_wal>(), "no",
             "Logs every write, so that the data is there again after a restart or a crash.") |
        Alias{"appendonly"} | Toml{"enable_wal"},
    String("wal-dir", At<&Config::wal_dir>(), "./data/wal",
           "The log's directory; created where it is missing.") |
        Toml{"wal_dir"} | kFixed,
    OneOf("wal-sync-policy", At<&Config::wal_sync_policy>(), kSyncPolicies, "async",
          "What a reply promises: none = the write survives the end of the process; async = also a "
          "power cut, once flush_interval_ms has passed; sync = a power cut at once.") |
        Toml{"wal.sync_policy"},
    Integer("wal-flush-interval-ms", At<&Config::wal_flush_interval_ms>(), 1, kIntMax, "1000",
            "milliseconds",
            "Under async: how long a write may wait until it is safe from a power cut.") |
        Toml{"wal.flush_interval_ms"},
    Memory("wal-buffer-size", At<&Config::wal_buffer_size>(), 1 * kKib, kLongMax, "4096",
           "How many bytes gather before the writer is woken early.") |
        Toml{"wal.buffer_size"},
    // A restart notes where records stand in 32 bits, in units of 8: a segment and the largest
    // record stay well below the 32 GiB that this reaches to.
    Memory("wal-max-segment-size", At<&Config::wal_max_segment_size>(), 1 * kMib, 16 * kGib,
           "67108864", "The size at which the log begins its next file.") |
        Toml{"wal.max_segment_size"},
    Memory("wal-ring-size", At<&Config::wal_ring_size>(), 1 * kMib, kLongMax, "16777216",
           "Size of the shared ring, which holds what is not yet on disk.") |
        Toml{"wal.ring_size"} | kFixed,
    String("wal-ring-dir", At<&Config::wal_ring_dir>(), "/dev/shm",
           "Directory of the ring's file, on a file system in memory; it lets acknowledged writes "
           "survive kill -9. Empty for no such file: then replies wait until their writes are "
           "written to the log.") |
        Toml{"wal.ring_dir"} | kFixed,
    OneOf("wal-recovery", At<&Config::wal_recovery>(), kRecoveries, "salvage",
          "What a start does when the log is damaged: salvage = skip the damage and recover all "
          "the rest; prefix = stop there; strict = refuse to start.") |
        Toml{"wal.recovery"},
    OneOf(
        "wal-on-error", At<&Config::wal_on_error>(), kOnErrors, "auto",
        "What happens when the log cannot be written: degrade = serve without it until it can be; "
        "refuse = refuse writes; exit = end the server; auto = refuse under sync, else degrade.") |
        Toml{"wal.on_error"},
    OneOf("wal-compression", At<&Config::wal_compression>(), kCompressions, "none",
          "Compression of the log's records, from its next file on, and of checkpoints.") |
        Toml{"wal.compression"},
    String("wal-encryption-key-file", At<&Config::wal_encryption_key_file>(), "",
           "File with the keys of the log and its checkpoints, 64 hexadecimal digits a line: the "
           "first encrypts, all of them decrypt; empty for no encryption.") |
        Toml{"wal.encryption_key_file"} | kFixed,
    Integer("wal-max-recovery-ms", At<&Config::wal_max_recovery_ms>(), 1, kIntMax, "1000",
            "milliseconds",
            "Writes a checkpoint when replaying the log since the last one would take longer, by "
            "what the last start took or else by 300 MB and 2 million records a second and core; "
            "not before the log is 64 MiB and half the checkpoint.") |
        Toml{"wal.max_recovery_ms"},
    Integer("auto-aof-rewrite-percentage", At<&Config::auto_aof_rewrite_percentage>(), 0, kIntMax,
            "100", "percent",
            "Writes a checkpoint when the log since the last one, before compression, has grown to "
            "so much of its size; 0 for never."),
    Memory("auto-aof-rewrite-min-size", At<&Config::auto_aof_rewrite_min_size>(), 0, kLongMax,
           "67108864",
           "Length of the log since the last checkpoint below which its growth asks for none; what "
           "decides while there is no checkpoint."),
    Integer("wal-keep-segments", At<&Config::wal_keep_segments>(), 0, kIntMax, "0", "files",
            "How many of the log's files are kept that a restart does not need, with a checkpoint "
            "for them to begin with: for a restore of an earlier moment. They go when the disk is "
            "nearly full.") |
        Toml{"wal.keep_segments"},
    Integer("wal-keep-ms", At<&Config::wal_keep_ms>(), 0, kLongMax, "0", "milliseconds",
            "For how long such files are kept, and their checkpoint.") |
        Toml{"wal.keep_ms"},
    OneOf("appendfsync", At<&Config::wal_sync_policy>(), kAppendFsync, "everysec",
          "Redis' spelling of wal-sync-policy.") |
        kOtherSpelling,
    Row{.name = "aof-load-truncated",
        .kind = Kind::kCustom,
        .custom = kLoadTruncated,
        .default_text = "yes",
        .sentence = "Redis' spelling of wal-recovery: no is strict, yes any other."} |
        kOtherSpelling,

    Section{"Encodings"} |
        Integer("hash-max-listpack-entries", At<&Config::hash_max_listpack_entries>(), 0, kLongMax,
                "512", "fields", "A hash is a listpack up to so many fields.") |
        Alias{"hash-max-ziplist-entries"} | kAccepted,
    Memory("hash-max-listpack-value", At<&Config::hash_max_listpack_value>(), 0, kLongMax, "64",
           "And while no field or value is longer than this.") |
        Alias{"hash-max-ziplist-value"} | kAccepted,
    Integer("list-max-listpack-size", At<&Config::list_max_listpack_size>(), -kIntMax - 1, kIntMax,
            "-2", "", "Elements per node of a list; -1 to -5: 4 to 64 KiB per node.") |
        Alias{"list-max-ziplist-size"} | kAccepted,
    Integer("list-compress-depth", At<&Config::list_compress_depth>(), 0, kIntMax, "0", "nodes",
            "How many nodes at either end of a list stay uncompressed; 0 compresses none.") |
        kAccepted,
    Integer("set-max-intset-entries", At<&Config::set_max_intset_entries>(), 0, kLongMax, "512",
            "members", "A set of integers is an intset up to so many members.") |
        kAccepted,
    Integer("set-max-listpack-entries", At<&Config::set_max_listpack_entries>(), 0, kLongMax, "128",
            "members", "Any other set is a listpack up to so many members.") |
        kAccepted,
    Memory("set-max-listpack-value", At<&Config::set_max_listpack_value>(), 0, kLongMax, "64",
           "And while no member is longer than this.") |
        kAccepted,
    Integer("zset-max-listpack-entries", At<&Config::zset_max_listpack_entries>(), 0, kLongMax,
            "128", "members", "A sorted set is a listpack up to so many members.") |
        Alias{"zset-max-ziplist-entries"} | kAccepted,
    Memory("zset-max-listpack-value", At<&Config::zset_max_listpack_value>(), 0, kLongMax, "64",
           "And while no member is longer than this.") |
        Alias{"zset-max-ziplist-value"} | kAccepted,
    Memory("hll-sparse-max-bytes", At<&Config::hll_sparse_max_bytes>(), 0, kLongMax, "3000",
           "A HyperLogLog is sparse up to this size.") |
        kAccepted,
    Memory("stream-node-max-bytes", At<&Config::stream_node_max_bytes>(), 0, kLongMax, "4096",
           "Size of one node of a stream; 0 is no limit.") |
        kAccepted,
    Integer("stream-node-max-entries", At<&Config::stream_node_max_entries>(), 0, kLongMax, "100",
            "entries", "Entries in one node of a stream; 0 is no limit.") |
        kAccepted,

    Section{"Observation"} | Bool("latency-tracking", At<&Config::latency_tracking>(), "yes",
                                  "Keeps a distribution of every command's run time."),
    Words("latency-tracking-info-percentiles", kPercentiles, "50 99 99.9",
          "Which percentiles of them INFO latencystats shows."),
    Integer("slowlog-log-slower-than", At<&Config::slowlog_log_slower_than_us>(), -1, kLongMax,
            "10000", "microseconds", "Commands that ran longer go to the slow log; -1 logs none.") |
        kAccepted,
    Integer("slowlog-max-len", At<&Config::slowlog_max_len>(), 0, kLongMax, "128", "entries",
            "How many entries the slow log keeps.") |
        kAccepted,
    Integer("latency-monitor-threshold", At<&Config::latency_monitor_threshold_ms>(), 0, kLongMax,
            "0", "milliseconds", "Events that took longer are kept for LATENCY; 0 keeps none.") |
        kAccepted,
    Words("notify-keyspace-events", kNotifyEvents, "",
          "Which changes of keys are published to subscribers, by Redis' letters.") |
        kAccepted,

    Section{"Snapshots"} |
        String("dbfilename", At<&Config::dbfilename>(), "dump.rdb", "Name of the snapshot file.") |
        kProtected | kAccepted,
    Words("save", kSave, "3600 1 300 100 60 10000",
          "Writes a checkpoint after so many seconds with so many changes, once the log since the "
          "last one is half its size; empty for never. The log has every change without it, and "
          "while it is off nothing is written.") |
        kAddsUp,
    Bool("rdbcompression", At<&Config::rdbcompression>(), "yes",
         "Compresses strings in a snapshot.") |
        kAccepted,
    Bool("rdbchecksum", At<&Config::rdbchecksum>(), "yes", "Ends a snapshot with a checksum.") |
        kAtStartOnly | kAccepted,
    Bool("stop-writes-on-bgsave-error", At<&Config::stop_writes_on_bgsave_error>(), "yes",
         "Refuses writes after a snapshot has failed.") |
        kAccepted,
    Bool("rdb-del-sync-files", kNowhere, "no",
         "Deletes the snapshots that were made for replication.") |
        kAccepted,
    Bool("rdb-save-incremental-fsync", kNowhere, "yes",
         "Syncs a snapshot in parts while it is written.") |
        kAccepted,
    OneOf("sanitize-dump-payload", kNowhere, kPayloadChecks, "no",
          "Checks serialized values in depth before they are loaded.") |
        kAccepted,

    Section{"Commands and access control"} |
        String("aclfile", kNowhere, "", "File with the users and their rights.") | kAtStartOnly |
        kUnsupported,
    OneOf("acl-pubsub-default", At<&Config::acl_pubsub_default_all>(), kPubsubDefaults,
          "resetchannels", "Whether a new user may use every channel.") |
        kAccepted,
    Integer("acllog-max-len", At<&Config::acllog_max_len>(), 0, kLongMax, "128", "entries",
            "How many entries ACL LOG keeps.") |
        kAccepted,
    OneOf("enable-module-command", At<&Config::enable_module_command>(), kPermissions, "no",
          "Who may use MODULE.") |
        kAtStartOnly | kAccepted,
    Integer("tracking-table-max-keys", At<&Config::tracking_table_max_keys>(), 0, kLongMax,
            "1000000", "keys", "How many keys are remembered for client-side caches.") |
        kAccepted,
    Integer("busy-reply-threshold", At<&Config::busy_reply_threshold_ms>(), 0, kLongMax, "5000",
            "milliseconds", "After how long a running script makes other clients get BUSY.") |
        Alias{"lua-time-limit"} | kAccepted,
    Bool("hide-user-data-from-log", kNowhere, "no",
         "Keeps clients' data out of crash reports; here it is never in the log.") |
        kAccepted,

    Section{"Freeing of memory"} |
        Bool("lazyfree-lazy-eviction", At<&Config::lazyfree_lazy_eviction>(), "no",
             "Frees evicted values in the background.") |
        kAccepted,
    Bool("lazyfree-lazy-expire", At<&Config::lazyfree_lazy_expire>(), "no",
         "Frees expired values in the background.") |
        kAccepted,
    Bool("lazyfree-lazy-server-del", At<&Config::lazyfree_lazy_server_del>(), "no",
         "Frees overwritten values in the background.") |
        kAccepted,
    Bool("lazyfree-lazy-user-del", At<&Config::lazyfree_lazy_user_del>(), "no",
         "Makes DEL behave as UNLINK.") |
        kAccepted,
    Bool("lazyfree-lazy-user-flush", At<&Config::lazyfree_lazy_user_flush>(), "no",
         "Makes FLUSHALL and FLUSHDB free in the background."),
    Bool("activerehashing", At<&Config::activerehashing>(), "yes",
         "Spends idle time on growing hash tables; here they grow bucket by bucket.") |
        kAccepted,
    Bool("activedefrag", kNowhere, "no", "Moves values to undo fragmentation.") | kUnsupported,
    Memory("active-defrag-ignore-bytes", kNowhere, 1, kLongMax, "104857600",
           "Fragmentation below which nothing is moved.") |
        kAccepted,
    Integer("active-defrag-threshold-lower", kNowhere, 0, 1000, "10", "percent",
            "Fragmentation at which moving begins.") |
        kAccepted,
    Integer("active-defrag-threshold-upper", kNowhere, 0, 1000, "100", "percent",
            "Fragmentation at which it runs at full effort.") |
        kAccepted,
    Integer("active-defrag-cycle-min", kNowhere, 1, 99, "1", "percent",
            "Least share of time for it.") |
        kAccepted,
    Integer("active-defrag-cycle-max", kNowhere, 1, 99, "25", "percent",
            "Greatest share of time for it.") |
        kAccepted,
    Integer("active-defrag-max-scan-fields", kNowhere, 1, kLongMax, "1000", "fields",
            "Greatest collection it handles in one go.") |
        kAccepted,
    Bool("jemalloc-bg-thread", kNowhere, "yes",
         "Lets the allocator return memory from a thread of its own.") |
        kAccepted,

    Section{"The process, as Redis has it"} |
        Bool("dynamic-hz", At<&Config::dynamic_hz>(), "yes",
             "Raises hz with the number of clients.") |
        kAccepted,
    Integer("io-threads", kNowhere, 1, 128, "1", "threads",
            "Threads for reading and writing sockets; here threads says how many do everything.") |
        kAtStartOnly | kAccepted,
    Bool("io-threads-do-reads", kNowhere, "no", "Makes those threads read as well.") |
        kAtStartOnly | kAccepted,
    Integer("max-new-connections-per-cycle", kNowhere, 1, 1000, "10", "connections",
            "How many connections are accepted in one go.") |
        kAccepted,
    Row{.name = "shutdown-on-sigint",
        .kind = Kind::kCustom,
        .flags = kManyWords,
        .custom = kShutdownOnSigint,
        .default_text = "default",
        .sentence = "How SHUTDOWN's options apply to SIGINT."} |
        kAccepted,
    Row{.name = "shutdown-on-sigterm",
        .kind = Kind::kCustom,
        .flags = kManyWords,
        .custom = kShutdownOnSigterm,
        .default_text = "default",
        .sentence = "How SHUTDOWN's options apply to SIGTERM."} |
        kAccepted,
    Integer("shutdown-timeout", At<&Config::shutdown_timeout_seconds>(), 0, kIntMax, "10",
            "seconds", "How long a shutdown waits for replicas.") |
        kAccepted,
    OneOf("supervised", kNowhere, kSupervisors, "no",
          "Tells a service manager that the server is ready.") |
        kAtStartOnly | kAccepted,
    Bool("syslog-enabled", kNowhere, "no", "Sends messages to the system's log.") | kAtStartOnly |
        kAccepted,
    String("syslog-ident", kNowhere, "redis", "Name used there.") | kAtStartOnly | kAccepted,
    OneOf("syslog-facility", kNowhere, kSyslogFacilities, "local0", "Facility used there.") |
        kAtStartOnly | kAccepted,
    Bool("always-show-logo", kNowhere, "no", "Prints a logo at the start.") | kAtStartOnly |
        kAccepted,
    Bool("set-proc-title", kNowhere, "yes", "Shows the address in the process list.") |
        kAtStartOnly | kAccepted,
    Words("proc-title-template", kProcTitle, "{title} {listen-addr} {server-mode}",
          "What is shown there.") |
        kAccepted,
    String("locale-collate", kNowhere, "", "Locale by which strings are ordered.") | kAccepted,
    Bool("crash-log-enabled", kNowhere, "yes", "Writes a report when the server crashes.") |
        kAccepted,
    Bool("crash-memcheck-enabled", kNowhere, "yes", "Tests the memory before that report.") |
        kAccepted,
    Bool("disable-thp", At<&Config::disable_thp>(), "yes",
         "Switches transparent huge pages off, but for the time in which the log is replayed.") |
        kAtStartOnly,
    OneOf("oom-score-adj", kNowhere, kOomAdjustments, "no",
          "Tells the kernel whom to end first when memory is out.") |
        kAccepted,
    Words("oom-score-adj-values", kOomScores, "0 200 800",
          "By how much, for a master, a replica and a snapshot process.") |
        kAccepted,
    String("server_cpulist", kNowhere, "", "Cores of the server's threads.") | kAtStartOnly |
        kAccepted,
    String("bio_cpulist", kNowhere, "", "Cores of background threads.") | kAtStartOnly | kAccepted,
    String("aof_rewrite_cpulist", kNowhere, "", "Cores of a rewriting process.") | kAtStartOnly |
        kAccepted,
    String("bgsave_cpulist", kNowhere, "", "Cores of a snapshot process.") | kAtStartOnly |
        kAccepted,
    String("ignore-warnings", kNowhere, "", "Names of start-up warnings to pass over.") | kAccepted,
    OneOf("propagation-error-behavior", kNowhere, kPropagationErrors, "ignore",
          "What follows when a replicated command fails.") |
        kAccepted,
    String("bind-source-addr", kNowhere, "", "Address outgoing connections come from.") | kAccepted,
    Integer("socket-mark-id", kNowhere, 0, kUintMax, "0", "",
            "Mark the kernel puts on listening sockets.") |
        kAtStartOnly | kAccepted,

    Section{"Redis' append-only file"} |
        String("appendfilename", kNowhere, "appendonly.aof",
               "Name of the append-only file; here the log has files of its own in wal-dir.") |
        kAtStartOnly | kAccepted,
    String("appenddirname", kNowhere, "appendonlydir", "Directory of the append-only file.") |
        kAtStartOnly | kAccepted,
    Bool("no-appendfsync-on-rewrite", kNowhere, "no",
         "Does not sync while the file is rewritten.") |
        kAccepted,
    Bool("aof-rewrite-incremental-fsync", kNowhere, "yes", "Syncs a rewritten file in parts.") |
        kAccepted,
    Bool("aof-use-rdb-preamble", kNowhere, "yes", "Begins a rewritten file with a snapshot.") |
        kAccepted,
    Bool("aof-timestamp-enabled", kNowhere, "no", "Writes the time into the file.") | kAccepted,
    Bool("aof-disable-auto-gc", kNowhere, "no", "Keeps files that are no longer needed.") |
        kAccepted,

    Section{"Replication"} | Words("replicaof", kReplicaOf, "", "The master to follow.") |
        Alias{"slaveof"} | kAtStartOnly | kUnsupported,
    String("masterauth", kNowhere, "", "Password for the master.") | kAccepted,
    String("masteruser", kNowhere, "", "User for the master.") | kAccepted,
    Bool("replica-serve-stale-data", kNowhere, "yes", "Answers while the master is away.") |
        Alias{"slave-serve-stale-data"} | kAccepted,
    Bool("replica-read-only", kNowhere, "yes", "Refuses writes on a replica.") |
        Alias{"slave-read-only"} | kAccepted,
    Bool("replica-lazy-flush", kNowhere, "no", "Frees a replica's old data in the background.") |
        Alias{"slave-lazy-flush"} | kAccepted,
    Bool("replica-ignore-maxmemory", kNowhere, "yes", "Leaves eviction to the master.") |
        Alias{"slave-ignore-maxmemory"} | kAccepted,
    Bool("replica-ignore-disk-write-errors", kNowhere, "no",
         "Carries on when a replica's disk fails.") |
        kAccepted,
    Bool("replica-announced", kNowhere, "yes", "Shows the replica to Sentinel.") | kAccepted,
    Integer("replica-priority", kNowhere, 0, kIntMax, "100", "",
            "Order in which replicas are promoted.") |
        Alias{"slave-priority"} | kAccepted,
    String("replica-announce-ip", kNowhere, "", "Address a replica gives for itself.") |
        Alias{"slave-announce-ip"} | kAccepted,
    Integer("replica-announce-port", kNowhere, 0, 65535, "0", "",
            "Port a replica gives for itself.") |
        Alias{"slave-announce-port"} | kAccepted,
    Integer("min-replicas-to-write", kNowhere, 0, kIntMax, "0", "replicas",
            "Refuses writes with fewer replicas.") |
        Alias{"min-slaves-to-write"} | kUnsupported,
    Integer("min-replicas-max-lag", kNowhere, 0, kIntMax, "10", "seconds",
            "Lag beyond which a replica does not count.") |
        Alias{"min-slaves-max-lag"} | kAccepted,
    Memory("repl-backlog-size", kNowhere, 1, kLongMax, "1048576",
           "How much of the stream is kept for replicas that come back.") |
        kAccepted,
    Integer("repl-backlog-ttl", kNowhere, 0, kLongMax, "3600", "seconds",
            "How long it is kept without replicas.") |
        kAccepted,
    Bool("repl-disable-tcp-nodelay", kNowhere, "no", "Sends to replicas in fewer, later packets.") |
        kAccepted,
    Bool("repl-diskless-sync", kNowhere, "yes", "Sends a full copy without writing it to disk.") |
        kAccepted,
    Integer("repl-diskless-sync-delay", kNowhere, 0, kIntMax, "5", "seconds",
            "How long to wait for more replicas before that.") |
        kAccepted,
    Integer("repl-diskless-sync-max-replicas", kNowhere, 0, kIntMax, "0", "replicas",
            "With how many it begins at once.") |
        kAccepted,
    OneOf("repl-diskless-load", kNowhere, kDisklessLoads, "disabled",
          "Whether a replica loads a full copy from the socket.") |
        kAccepted,
    Integer("repl-ping-replica-period", kNowhere, 1, kIntMax, "10", "seconds",
            "How often a master pings its replicas.") |
        Alias{"repl-ping-slave-period"} | kAccepted,
    Integer("repl-timeout", kNowhere, 1, kIntMax, "60", "seconds",
            "When a silent master or replica counts as gone.") |
        kAccepted,

    Section{"Cluster"} |
        Bool("cluster-enabled", kNowhere, "no", "Makes the server a node of a cluster.") |
        kAtStartOnly | kUnsupported,
    String("cluster-config-file", kNowhere, "nodes.conf", "File of the cluster's state.") |
        kAtStartOnly | kAccepted,
    Integer("cluster-port", kNowhere, 0, 65535, "0", "", "Port of the cluster bus.") |
        kAtStartOnly | kAccepted,
    Integer("cluster-node-timeout", kNowhere, 0, kLongMax, "15000", "milliseconds",
            "When a silent node counts as failed.") |
        kAccepted,
    String("cluster-announce-ip", kNowhere, "", "Address a node gives for itself.") | kAccepted,
    Row{.name = "cluster-announce-hostname",
        .kind = Kind::kCustom,
        .custom = kClusterHostname,
        .default_text = "",
        .sentence = "Host name a node gives for itself."} |
        kAccepted,
    Row{.name = "cluster-announce-human-nodename",
        .kind = Kind::kText,
        .default_text = "",
        .sentence = "Name of the node in messages."} |
        kAccepted,
    Integer("cluster-announce-port", kNowhere, 0, 65535, "0", "", "Port a node gives for itself.") |
        kAccepted,
    Integer("cluster-announce-tls-port", kNowhere, 0, 65535, "0", "",
            "TLS port a node gives for itself.") |
        kAccepted,
    Integer("cluster-announce-bus-port", kNowhere, 0, 65535, "0", "",
            "Bus port a node gives for itself.") |
        kAccepted,
    OneOf("cluster-preferred-endpoint-type", kNowhere, kEndpointTypes, "ip",
          "How nodes are named to clients.") |
        kAccepted,
    Bool("cluster-allow-pubsubshard-when-down", kNowhere, "yes",
         "Serves sharded channels while the cluster is down.") |
        kAccepted,
    Bool("cluster-allow-reads-when-down", kNowhere, "no",
         "Serves reads while the cluster is down.") |
        kAccepted,
    Bool("cluster-allow-replica-migration", kNowhere, "yes",
         "Lets replicas move to masters without one.") |
        kAccepted,
    Integer("cluster-migration-barrier", kNowhere, 0, kIntMax, "1", "replicas",
            "How many replicas a master keeps.") |
        kAccepted,
    Bool("cluster-replica-no-failover", kNowhere, "no", "Keeps a replica from promoting itself.") |
        Alias{"cluster-slave-no-failover"} | kAccepted,
    Integer("cluster-replica-validity-factor", kNowhere, 0, kIntMax, "10", "",
            "How stale a replica may be to be promoted.") |
        Alias{"cluster-slave-validity-factor"} | kAccepted,
    Bool("cluster-require-full-coverage", kNowhere, "yes",
         "Serves nothing while slots are missing.") |
        kAccepted,
    Memory("cluster-link-sendbuf-limit", kNowhere, 0, kLongMax, "0",
           "Limit of a bus link's buffer.") |
        kAccepted,

    Section{"TLS"} | Integer("tls-port", kNowhere, 0, 65535, "0", "", "The port for TLS.") |
        kUnsupported,
    String("tls-cert-file", kNowhere, "", "The server's certificate.") | kAccepted,
    String("tls-key-file", kNowhere, "", "The server's key.") | kAccepted,
    String("tls-key-file-pass", kNowhere, "", "Password of the key.") | kAccepted,
    String("tls-client-cert-file", kNowhere, "", "Certificate for outgoing connections.") |
        kAccepted,
    String("tls-client-key-file", kNowhere, "", "Key for outgoing connections.") | kAccepted,
    String("tls-client-key-file-pass", kNowhere, "", "Password of that key.") | kAccepted,
    String("tls-ca-cert-file", kNowhere, "", "File of trusted certificates.") | kAccepted,
    String("tls-ca-cert-dir", kNowhere, "", "Directory of trusted certificates.") | kAccepted,
    String("tls-dh-params-file", kNowhere, "", "Diffie-Hellman parameters.") | kAccepted,
    OneOf("tls-auth-clients", kNowhere, kTlsAuthentications, "yes",
          "Whether clients need a certificate.") |
        kAccepted,
    Bool("tls-replication", kNowhere, "no", "TLS to the master.") | kUnsupported,
    Bool("tls-cluster", kNowhere, "no", "TLS on the cluster bus.") | kUnsupported,
    String("tls-protocols", kNowhere, "", "Versions of TLS.") | kAccepted,
    String("tls-ciphers", kNowhere, "", "Ciphers up to TLS 1.2.") | kAccepted,
    String("tls-ciphersuites", kNowhere, "", "Ciphers of TLS 1.3.") | kAccepted,
    Bool("tls-prefer-server-ciphers", kNowhere, "no", "Prefers the server's order of ciphers.") |
        kAccepted,
    Bool("tls-session-caching", kNowhere, "yes", "Keeps TLS sessions.") | kAccepted,
    Integer("tls-session-cache-size", kNowhere, 0, kIntMax, "20480", "sessions",
            "How many are kept.") |
        kAccepted,
    Integer("tls-session-cache-timeout", kNowhere, 0, kIntMax, "300", "seconds", "For how long.") |
        kAccepted,
    Integer("max-new-tls-connections-per-cycle", kNowhere, 1, 1000, "1", "connections",
            "How many TLS connections are accepted in one go.") |
        kAccepted,
};

char Folded(char c) {
  if (c >= 'A' && c <= 'Z') return static_cast<char>(c - 'A' + 'a');
  return c == '_' || c == '.' ? '-' : c;
}

bool EqualsLoosely(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return Folded(x) == Folded(y); });
}

// How many letters have to be added, dropped or exchanged to make `a` into `b`.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t exchanged = diagonal + (Folded(a[i]) == Folded(b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, diagonal + 1, exchanged});
    }
  }
  return row[b.size()];
}

}  // namespace

std::span<const Row> Rows() { return kRows; }

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; };
    return lower(x) == lower(y);
  });
}

const Row* FindRow(std::string_view name) {
  for (const Row& row : kRows) {
    if (EqualsIgnoreCase(row.name, name)) return &row;
    if (!row.alias.empty() && EqualsIgnoreCase(row.alias, name)) return &row;
  }
  return nullptr;
}

const Row* FindRowLoosely(std::string_view name) {
  for (const Row& row : kRows) {
    if (EqualsLoosely(row.name, name)) return &row;
    if (!row.alias.empty() && EqualsLoosely(row.alias, name)) return &row;
    if (!row.toml.empty() && EqualsLoosely(row.toml, name)) return &row;
  }
  return nullptr;
}

std::string_view NearestName(std::string_view name) {
  constexpr size_t kNameMax = 64;  // no name is nearly as long
  if (name.empty() || name.size() > kNameMax) return {};
  std::string_view nearest;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;  // further away it is no typing error
  for (const Row& row : kRows) {
    for (const std::string_view candidate : {row.name, row.alias, row.toml}) {
      if (candidate.empty()) continue;
      const size_t distance = EditDistance(name, candidate);
      if (distance < least && distance < candidate.size()) {
        least = distance;
        nearest = candidate;
      }
    }
  }
  return nearest;
}

std::string TomlName(const Row& row) {
  if (!row.toml.empty()) return std::string(row.toml);
  std::string name(row.name);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

std::string EnvironmentName(const Row& row) {
  std::string name = "CRABCACHE_" + TomlName(row);
  for (char& c : name) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    if (c == '.') c = '_';
  }
  return name;
}

}  // namespace crab::config

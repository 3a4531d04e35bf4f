#include "src/server/recovery.h"

#include <string>
#include <utility>

#include "utils/check.h"
#include "utils/log.h"

namespace crab {

wal::SyncPolicy SyncPolicyOf(WalSyncPolicy policy) {
  switch (policy) {
    case WalSyncPolicy::kNone:
      return wal::SyncPolicy::kNone;
    case WalSyncPolicy::kAsync:
      return wal::SyncPolicy::kAsync;
    case WalSyncPolicy::kSync:
      return wal::SyncPolicy::kSync;
  }
  CHECK(false);
}

wal::OnError OnErrorOf(WalOnError on_error) {
  switch (on_error) {
    case WalOnError::kAuto:
      return wal::OnError::kAuto;
    case WalOnError::kDegrade:
      return wal::OnError::kDegrade;
    case WalOnError::kRefuse:
      return wal::OnError::kRefuse;
    case WalOnError::kExit:
      return wal::OnError::kExit;
  }
  CHECK(false);
}

EvictionPolicy EvictionPolicyOf(MaxmemoryPolicy policy) {
  switch (policy) {
    case MaxmemoryPolicy::kVolatileLru:
      return EvictionPolicy::kVolatileLru;
    case MaxmemoryPolicy::kVolatileLfu:
      return EvictionPolicy::kVolatileLfu;
    case MaxmemoryPolicy::kVolatileRandom:
      return EvictionPolicy::kVolatileRandom;
    case MaxmemoryPolicy::kVolatileTtl:
      return EvictionPolicy::kVolatileTtl;
    case MaxmemoryPolicy::kAllkeysLru:
      return EvictionPolicy::kAllkeysLru;
    case MaxmemoryPolicy::kAllkeysLfu:
      return EvictionPolicy::kAllkeysLfu;
    case MaxmemoryPolicy::kAllkeysRandom:
      return EvictionPolicy::kAllkeysRandom;
    case MaxmemoryPolicy::kNoEviction:
      return EvictionPolicy::kNoEviction;
    case MaxmemoryPolicy::kVolatileSieve:
      return EvictionPolicy::kVolatileSieve;
    case MaxmemoryPolicy::kAllkeysSieve:
      return EvictionPolicy::kAllkeysSieve;
  }
  CHECK(false);
}

LogLevel LogLevelOf(LogVerbosity verbosity) {
  switch (verbosity) {
    case LogVerbosity::kDebug:
      return LogLevel::kDebug;
    case LogVerbosity::kVerbose:
      return LogLevel::kVerbose;
    case LogVerbosity::kNotice:
      return LogLevel::kNotice;
    case LogVerbosity::kWarning:
      return LogLevel::kWarning;
    case LogVerbosity::kNothing:
      return LogLevel::kNothing;
  }
  CHECK(false);
}

wal::Compression CompressionOf(WalCompression compression) {
  switch (compression) {
    case WalCompression::kNone:
      return wal::Compression::kNone;
    case WalCompression::kLz4:
      return wal::Compression::kLz4;
    case WalCompression::kZstd:
      return wal::Compression::kZstd;
  }
  CHECK(false);
}

namespace {

wal::RecoveryMode RecoveryModeOf(WalRecovery mode) {
  switch (mode) {
    case WalRecovery::kSalvage:
      return wal::RecoveryMode::kSalvage;
    case WalRecovery::kPrefix:
      return wal::RecoveryMode::kPrefix;
    case WalRecovery::kStrict:
      return wal::RecoveryMode::kStrict;
  }
  CHECK(false);
}

}  // namespace

Result<wal::Options> LogOptions(const Config& config, bool single_thread) {
  wal::Options options;
  options.directory = config.wal_dir;
  options.max_segment_bytes = config.wal_max_segment_size;
  options.buffer_bytes = config.wal_buffer_size;
  options.flush_interval_ms = static_cast<uint32_t>(config.wal_flush_interval_ms);
  options.sync_policy = SyncPolicyOf(config.wal_sync_policy);
  options.recovery = RecoveryModeOf(config.wal_recovery);
  options.on_error = OnErrorOf(config.wal_on_error);
  options.ring_bytes = config.wal_ring_size;
  options.ring_directory = config.wal_ring_dir;
  options.shard_count = static_cast<uint32_t>(config.shards);
  options.shard_by_hashtag = config.shard_by_hashtag;
  options.single_thread = single_thread;
  options.compression = CompressionOf(config.wal_compression);
  options.keys = TRY(wal::KeyRing::Load(config.wal_encryption_key_file));
  options.keep_segments = static_cast<uint64_t>(config.wal_keep_segments);
  options.keep_ms = static_cast<uint64_t>(config.wal_keep_ms);
  return options;
}

Result<std::unique_ptr<wal::Log>> OpenLogForImage(const Config& config, wal::Disk& disk,
                                                  bool single_thread, uint64_t hash_seed,
                                                  wal::RecoveryReport* report) {
  wal::Options options = TRY(LogOptions(config, single_thread));
  options.hash_seed = hash_seed;
  // What an earlier log holds is superseded by the image, and so is any damage to it.
  options.recovery = wal::RecoveryMode::kSalvage;
  return wal::Log::Open(
      disk, options, [](const wal::Identity&) {},
      [](const wal::RecordView&) { return Status::Ok(); }, report);
}

Result<std::unique_ptr<wal::Log>> Recovery::Run(
    const Config& config, wal::Disk& disk, bool single_thread,
    const std::function<Execution&(uint64_t hash_seed)>& build, wal::RecoveryReport* report) {
  const wal::Options options = TRY(LogOptions(config, single_thread));
  std::unique_ptr<Dispatcher> dispatcher;
  std::unique_ptr<wal::Log> log = TRY(wal::Log::Open(
      disk, options,
      [&](const wal::Identity& identity) {
        dispatcher = std::make_unique<Dispatcher>(build(identity.hash_seed), /*loop=*/0);
      },
      [&](const wal::RecordView& record) { return Apply(*dispatcher, record); }, report));

  for (const std::string& warning : report->warnings) LogWarn(warning);
  for (const auto& lost : report->lost) {
    LogError("records lost", {{"first_lsn", std::to_string(lost.first)},
                              {"last_lsn", std::to_string(lost.last)},
                              {"where", lost.where}});
  }
  LogInfo("recovered", {{"segments", std::to_string(report->segments_processed)},
                        {"records", std::to_string(report->entries_recovered)},
                        {"from_ring", std::to_string(report->ring_entries_recovered)},
                        {"skipped", std::to_string(report->entries_skipped)},
                        {"corrupted", std::to_string(report->corrupted_entries)},
                        {"bytes", std::to_string(report->bytes_processed)},
                        {"ms", std::to_string(report->recovery_time_ms)}});
  return log;
}

Result<std::string> ImageOf(const Keyspace& keyspace, uint64_t bytes_max) {
  constexpr uint64_t kDirectoryBytes = 12;  // of each effect, at most
  Effects effects;
  effects.Broadcast(0, EffectId::kFlushall, {});
  bool fits = true;
  for (uint32_t db = 0; fits && db < keyspace.options().databases; ++db) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      char scratch[24];
      effects.Set(static_cast<uint16_t>(keyspace.ShardOf(entry.key())), db, entry.key(),
                  entry.StringBytes(scratch), entry.deadline_ms());
      fits = effects.bytes().size() + effects.count() * kDirectoryBytes <= bytes_max;
      return fits;
    });
  }
  if (!fits) {
    return Status::Error("the data does not fit into one record of the log, which holds " +
                         std::to_string(bytes_max >> 20) + " MiB at most");
  }
  return std::string(effects.Transaction());
}

void AppendImage(wal::Log& log, std::string image) {
  log.AppendOwned(wal::RecordType::kTxn, wal::kBroadcastShard, std::move(image));
  log.Kick();
}

Status Recovery::Apply(Dispatcher& dispatcher, const wal::RecordView& record) {
  std::string_view effects = record.payload;
  EffectView effect;
  if (record.type == wal::RecordType::kTxn) {
    effects = TRY(TransactionEffects(record.payload));
    // Whole or not at all: nothing is applied before all of it is known to suit.
    for (std::string_view rest = effects; !rest.empty();) {
      TRY(ReadEffect(&rest, &effect));
      TRY(dispatcher.CheckReplay(effect));
    }
  }
  while (!effects.empty()) {
    TRY(ReadEffect(&effects, &effect));
    TRY(dispatcher.Replay(effect));
  }
  return Status::Ok();
}

}  // namespace crab

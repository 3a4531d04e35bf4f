#include "src/server/config_words.h"

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

Result<wal::Options> LogOptions(const Config& config) {
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
  options.compression = CompressionOf(config.wal_compression);
  options.keys = TRY(wal::KeyRing::Load(config.wal_encryption_key_file));
  options.keep_segments = static_cast<uint64_t>(config.wal_keep_segments);
  options.keep_ms = static_cast<uint64_t>(config.wal_keep_ms);
  return options;
}

}  // namespace crab

// What the log, the keyspace and the server's own log take from the configuration, in their words.
#pragma once

#include "persistence/log.h"
#include "src/config.h"
#include "src/keyspace/keyspace.h"
#include "utils/log.h"

namespace crab {

wal::SyncPolicy SyncPolicyOf(WalSyncPolicy policy);
wal::OnError OnErrorOf(WalOnError on_error);
EvictionPolicy EvictionPolicyOf(MaxmemoryPolicy policy);
LogLevel LogLevelOf(LogVerbosity verbosity);
wal::Compression CompressionOf(WalCompression compression);

// The log's options as the configuration states them. Reads the key file, if there is one; the
// error says what is wrong with it.
Result<wal::Options> LogOptions(const Config& config);

}  // namespace crab

// Recovery: opens the log as the configuration says and replays it into a new keyspace, on the same
// road that a client's command takes. Runs before any loop; one thread.
#pragma once

#include <functional>
#include <memory>

#include "persistence/disk.h"
#include "persistence/log.h"
#include "src/config.h"
#include "src/execution/dispatch.h"
#include "src/keyspace/keyspace.h"
#include "utils/log.h"

namespace crab {

// The log's and the keyspace's names for what the configuration says.
wal::SyncPolicy SyncPolicyOf(WalSyncPolicy policy);
wal::OnError OnErrorOf(WalOnError on_error);
EvictionPolicy EvictionPolicyOf(MaxmemoryPolicy policy);
LogLevel LogLevelOf(LogVerbosity verbosity);
wal::Compression CompressionOf(WalCompression compression);

// The log's options as the configuration states them. Reads the key file, if there is one; the
// error says what is wrong with it.
Result<wal::Options> LogOptions(const Config& config, bool single_thread);

// Opens the log for a keyspace that is already there, of this hash seed: nothing is replayed, and
// AppendImage is to follow.
Result<std::unique_ptr<wal::Log>> OpenLogForImage(const Config& config, wal::Disk& disk,
                                                  bool single_thread, uint64_t hash_seed,
                                                  wal::RecoveryReport* report);

// The whole keyspace as the payload of one TXN record: a broadcast FLUSHALL and every key, so that
// a log that begins or goes on with it holds all that is in memory. One record, because a restart
// finds it whole or not at all, and then what was before it. The caller holds the world, and
// appends it before it lets go. An error: the keyspace does not fit into `bytes_max`.
Result<std::string> ImageOf(const Keyspace& keyspace, uint64_t bytes_max = wal::kRecordBytesMax);
void AppendImage(wal::Log& log, std::string image);

class Recovery {
 public:
  // `build` makes the keyspace for the log's hash seed and returns what to replay into.
  // The error is for the operator. Reports and logs what was found.
  Result<std::unique_ptr<wal::Log>> Run(const Config& config, wal::Disk& disk, bool single_thread,
                                        const std::function<Execution&(uint64_t hash_seed)>& build,
                                        wal::RecoveryReport* report);

  // Replays one record. A TXN is applied whole or not at all.
  static Status Apply(Dispatcher& dispatcher, const wal::RecordView& record);
};

}  // namespace crab

#include "tests/engine/engine.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <numeric>
#include <thread>

#include "src/execution/replayer.h"
#include "src/server/loader.h"
#include "tests/support/log_run.h"
#include "tests/support/test_server.h"
#include "utils/check.h"
#include "utils/clock.h"

namespace crab::test {
namespace {

constexpr size_t kCheckpointsKept = 2;  // as src/server/checkpointer.cc
constexpr size_t kEntriesPerStep = 3;

KeyspaceOptions OptionsOf(const wal::Options& options, const wal::Identity& identity) {
  KeyspaceOptions keyspace;
  keyspace.shard_count = options.shard_count;
  keyspace.databases = CommandMaker::kDatabases;
  keyspace.hash_seed = identity.hash_seed;
  return keyspace;
}

}  // namespace

wal::Options EngineOptions(wal::SyncPolicy policy, wal::RecoveryMode recovery) {
  wal::Options options;
  options.directory = kEngineDirectory;
  options.max_segment_bytes = 16 << 10;
  options.ring_bytes = 1 << 20;
  options.ring_directory = "";
  options.flush_interval_ms = 1;
  options.sync_policy = policy;
  options.recovery = recovery;
  options.shard_count = kEngineShards;
  options.retry_ms = 1;
  options.heartbeat_ms = 3'600'000;
  return options;
}

TestKeys::TestKeys() {
  const ScopedDirectory directory;
  const std::string path = directory.path() + "/keys";
  std::ofstream(path) << std::string(64, '7') << "\n";
  auto ring = wal::KeyRing::Load(path);
  CHECK(ring.ok());
  ring_ = std::move(*ring);
}

std::unique_ptr<Engine> Engine::Start(SimDisk& disk, const wal::Options& options, Replay replay,
                                      uint64_t seed, std::string* error) {
  std::unique_ptr<wal::Backlog> backlog;
  auto log = wal::Log::Open(disk, options, &backlog);
  if (!log.ok()) {
    *error = log.message();
    return nullptr;
  }
  std::unique_ptr<Engine> engine(new Engine(disk, options, (*log)->identity()));
  engine->log_ = std::move(*log);
  engine->recovered_lsn_ = engine->log_->last_lsn();
  const Status recovered = engine->Recover(std::move(backlog), replay, seed);
  if (!recovered.ok()) {
    *error = recovered.message();
    return nullptr;
  }
  engine->execution_.log = engine->log_.get();
  return engine;
}

Engine::Engine(SimDisk& disk, const wal::Options& options, const wal::Identity& identity)
    : disk_(disk),
      options_(options),
      registry_({StringCommands(), KeyCommands(), ExpireCommands()}),
      keyspace_(OptionsOf(options, identity)) {}

Engine::~Engine() {
  if (snapshot_ != nullptr) {
    snapshot_->Abandon();
    snapshot_ = nullptr;
  }
  log_ = nullptr;
}

// --- recovery ------------------------------------------------------------------------------------

Status Engine::Recover(std::unique_ptr<wal::Backlog> backlog, Replay replay, uint64_t seed) {
  if (replay == Replay::kByUnits) return ReplayByUnits(std::move(backlog), seed);
  TRY(ReplayInOrder(*backlog));
  report_ = backlog->report();
  return Status::Ok();
}

// As a loop brings back the shards that its commands ask for, with no worker ahead of it.
Status Engine::ReplayByUnits(std::unique_ptr<wal::Backlog> backlog, uint64_t seed) {
  Loader loader(execution_, std::move(backlog), /*workers=*/1);
  world_.Enter(0);
  std::vector<uint32_t> shards(keyspace_.shard_count());
  std::iota(shards.begin(), shards.end(), 0);
  Random random(seed);
  for (size_t i = shards.size(); i > 1; --i) std::swap(shards[i - 1], shards[random.Below(i)]);
  for (const uint32_t shard : shards) {
    if (!loader.Load(shard, /*loop=*/0)) {
      Status error = loader.error();
      CHECK(!error.ok());
      return error;
    }
  }
  report_ = loader.report();
  world_.CloseToGuests();
  return Status::Ok();
}

Status Engine::ReplayInOrder(wal::Backlog& backlog) {
  Replayer replayer(keyspace_, registry_);
  return backlog.ReplayInOrder([&](const wal::RecordView& record) -> Status {
    std::string_view effects = record.payload;
    if (record.type == wal::RecordType::kTxn) {
      effects = TRY(TransactionEffects(effects));
      TRY(replayer.Check(effects));
    }
    return replayer.Replay(effects, {0, keyspace_.shard_count()});
  });
}

// --- commands ------------------------------------------------------------------------------------

Data Engine::ReadInFull() const {
  Data data;
  for (uint32_t db = 0; db < CommandMaker::kDatabases; ++db) {
    keyspace_.ForEach(db, [&](const Entry& entry) {
      char scratch[24];
      ModelValue& value = data[{db, std::string(entry.key())}];
      value.bytes = entry.StringBytes(scratch);
      value.deadline_ms = entry.has_deadline() ? entry.deadline_ms() : -1;
      return true;
    });
  }
  return data;
}

Data Engine::Read() const { return Abridged(ReadInFull()); }

std::string Engine::Run(uint32_t db, const Words& words) {
  const std::vector<std::string_view> argv(words.begin(), words.end());
  client_.db = db;
  client_.own_lsn = wal::kNoGate;
  Buffer out;
  resp::Reply reply(out, client_.protocol);
  dispatcher_.BeginBatch();
  (void)dispatcher_.Run(client_, Args(argv), reply);
  return std::string(out.view());
}

// The log's threads wake each other without anything to be seen from here but what they do. Where
// they try a broken disk again and again there is no end to wait for.
void Engine::Settle() {
  constexpr int kQuietRounds = 20;
  constexpr int kRoundsMax = 100;
  uint64_t calls = disk_.all_calls();
  for (int round = 0, quiet = 0; quiet < kQuietRounds && round < kRoundsMax; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
    const uint64_t now = disk_.all_calls();
    quiet = now == calls ? quiet + 1 : 0;
    calls = now;
  }
}

// --- checkpoints ---------------------------------------------------------------------------------

void Engine::BeginCheckpoint(wal::Lsn lsn) {
  CHECK(!checkpoint_runs());
  checkpoint_lsn_ = lsn;
  checkpoint_status_ = Status::Ok();
  next_shard_ = 0;
  finished_ = false;
  snapshot_ = std::make_unique<Snapshot>(keyspace_, *this);
}

bool Engine::StepCheckpoint() {
  bool ended = false;
  Status status = WriteCheckpoint(&ended);
  if (status.ok() && !ended) return true;
  checkpoint_status_ = std::move(status);
  writer_ = nullptr;
  snapshot_->Abandon();
  snapshot_ = nullptr;
  chunks_.clear();
  return false;
}

Status Engine::WriteCheckpoint(bool* ended) {
  if (writer_ == nullptr) {
    wal::CheckpointInfo info;
    info.lsn = checkpoint_lsn_;
    info.identity = log_->identity();
    info.identity.shard_count = keyspace_.shard_count();
    info.identity.hash_seed = keyspace_.options().hash_seed;
    info.created_at_ms = RealClock().WallMs();
    writer_ = TRY(wal::CheckpointWriter::Create(disk_, options_.directory, info,
                                                options_.compression, options_.keys));
    return Status::Ok();
  }
  for (; !chunks_.empty(); chunks_.pop_front()) {
    const Chunk& chunk = chunks_.front();
    TRY(writer_->Add(chunk.shard, chunk.effects, chunk.entries));
  }
  if (next_shard_ < keyspace_.shard_count()) {
    if (snapshot_->Step(next_shard_, kEntriesPerStep)) ++next_shard_;
    return Status::Ok();
  }
  CHECK(snapshot_->done());
  if (!finished_) {
    finished_ = true;
    return writer_->Finish();
  }
  *ended = true;
  TRY(WaitUntilDurable());
  return Publish();
}

// The server's rule, but for its patience: with the log in trouble it is over at once.
Status Engine::WaitUntilDurable() {
  for (;;) {
    const wal::Metrics metrics = log_->metrics();
    if (log_->durable_lsn() >= checkpoint_lsn_) return Status::Ok();
    if (metrics.awaits_checkpoint && metrics.synced_lsn >= checkpoint_lsn_) return Status::Ok();
    if (metrics.state != wal::State::kRunning && !metrics.awaits_checkpoint) {
      return Status::Error("the log stopped before what it had was durable");
    }
    if (disk_.crashed()) return Status::Error("the power is gone");
    log_->RequestSync();
    std::this_thread::yield();
  }
}

Status Engine::Publish() {
  TRY(writer_->Publish());
  const auto found = wal::ListCheckpoints(disk_, options_.directory);
  wal::KeptCheckpoints kept;
  if (found.ok()) {
    kept =
        wal::ChooseCheckpoints(*found, log_->identity().log_id, kCheckpointsKept, wal::kUnknownLsn);
  }
  behind_gap_ |= log_->metrics().awaits_checkpoint;
  const bool alone = kept.good < kCheckpointsKept && !behind_gap_;
  log_->SetCheckpoint(checkpoint_lsn_, alone ? 0 : kept.oldest_needed);
  // Files that cannot be removed now are removed by the next one.
  (void)wal::RemoveCheckpoints(disk_, options_.directory, kept.gone);
  return Status::Ok();
}

void Engine::Take(uint16_t shard, std::string effects, uint64_t entries) {
  chunks_.push_back({shard, entries, std::move(effects)});
}

void Engine::TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                       LargeString* value, bool /*stays*/) {
  Effects effects;
  effects.Set(shard, db, key, value->view(), deadline_ms);
  LargeString::Destroy(value);
  chunks_.push_back({shard, 1, std::string(effects.bytes())});
}

}  // namespace crab::test

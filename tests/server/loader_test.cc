#include "src/server/loader.h"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "src/keyspace/effects.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/test_server.h"
#include "utils/clock.h"

namespace crab {
namespace {

using test::Eventually;
using test::RedisClient;
using test::ScopedDirectory;
using test::TestServer;

// A backlog in memory: the records of each unit.
class FakeBacklog : public wal::Backlog {
 public:
  explicit FakeBacklog(uint32_t units) : units_(units) {}

  // A record of effects that all belong to `unit`.
  void Add(uint32_t unit, const Effects& effects) {
    units_[unit].push_back({++lsn_, wal::RecordType::kEffect, std::string(effects.bytes()), ""});
  }
  void AddBroadcast(const Effects& effects) {
    ++lsn_;
    for (auto& records : units_) {
      records.push_back({lsn_, wal::RecordType::kBroadcast, std::string(effects.bytes()), ""});
    }
  }
  // A transaction with these effects, of which each unit is given its own.
  void AddTransaction(const std::string& whole, const std::map<uint32_t, std::string>& parts) {
    ++lsn_;
    for (const auto& [unit, part] : parts) {
      units_[unit].push_back({lsn_, wal::RecordType::kTxn, part, whole});
    }
  }
  int64_t fails_at = -1;  // this unit cannot be had

  uint32_t units() const override { return static_cast<uint32_t>(units_.size()); }
  bool any_order() const override { return true; }
  Result<bool> NextPiece(Piece* piece) override {
    *piece = {next_unit_++};
    return piece->unit < units();
  }
  bool empty() const override { return lsn_ == 0; }
  uint64_t total_bytes() const override { return units_.size() * 100; }
  uint64_t done_bytes() const override { return done_ * 100; }
  Result<bool> Replay(const Piece& piece, const Apply& apply, const Ahead& ahead) override {
    const uint32_t unit = piece.unit;
    {
      std::lock_guard lock(mutex_);
      EXPECT_TRUE(replayed_.insert(unit).second) << "unit " << unit << " twice";
    }
    if (unit == fails_at) return Status::Error("cannot read wal-1.log: Input/output error");
    for (const Record& record : units_[unit]) {
      ahead(std::vector<std::string_view>{record.payload});
      const Status status = apply({record.lsn, record.type, false, record.payload, record.whole});
      std::lock_guard lock(mutex_);
      if (status.ok()) {
        ++report_.entries_recovered;
      } else {
        ++report_.entries_skipped;
        report_.warnings.emplace_back(status.message());
      }
    }
    ++done_;
    return true;
  }
  Status ReplayInOrder(const std::function<Status(const wal::RecordView&)>&) override {
    return Status::Error("not here");
  }
  wal::RecoveryReport report() const override {
    std::lock_guard lock(mutex_);
    return report_;
  }

 private:
  struct Record {
    wal::Lsn lsn;
    wal::RecordType type;
    std::string payload, whole;
  };
  std::vector<std::vector<Record>> units_;
  wal::Lsn lsn_ = 0;
  std::atomic<uint64_t> done_{0};
  std::atomic<uint32_t> next_unit_{0};
  mutable std::mutex mutex_;
  std::set<uint32_t> replayed_;
  wal::RecoveryReport report_;
};

// Keeps workers waiting before the units that it is told of.
class Gate {
 public:
  Loader::Hook hook() {
    return [this](uint32_t) {
      std::unique_lock lock(mutex_);
      met_ = true;
      changed_.notify_all();
      changed_.wait(lock, [this] { return open_; });
    };
  }
  // Until a worker waits.
  void WaitUntilMet() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return met_; });
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool met_ = false, open_ = false;
};

constexpr uint32_t kShards = 64;

class LoaderTest : public testing::TestWithParam<int> {  // loops
 protected:
  LoaderTest()
      : registry_({StringCommands(), KeyCommands()}),
        keyspace_({.shard_count = kShards, .hash_seed = 1}),
        world_(GetParam()),
        execution_{keyspace_, world_, registry_} {}

  uint32_t UnitOf(const std::string& key, uint32_t units) const {
    return keyspace_.ShardOf(key) / (kShards / units);
  }
  // `count` keys, each with a value that a SET, an APPEND and an INCRBY of another made.
  std::unique_ptr<FakeBacklog> Backlog(uint32_t units, int count) {
    auto backlog = std::make_unique<FakeBacklog>(units);
    for (int i = 0; i < count; ++i) {
      const std::string key = "key" + std::to_string(i);
      const auto shard = static_cast<uint16_t>(keyspace_.ShardOf(key));
      Effects effects;
      effects.Set(shard, 0, key, "value", kNoDeadline);
      backlog->Add(UnitOf(key, units), effects);
      effects.Clear();
      effects.Add(shard, 0, EffectId::kAppend, {key, std::to_string(i)});
      backlog->Add(UnitOf(key, units), effects);
    }
    return backlog;
  }
  std::string Run(Dispatcher& dispatcher, std::vector<std::string_view> argv) {
    Buffer out;
    resp::Reply reply(out, 2);
    Client client;
    dispatcher.RefreshClock();
    outcome_ = dispatcher.Run(client, Args(argv), reply);
    return std::string(out.view());
  }
  static std::string Bulk(const std::string& value) {
    return "$" + std::to_string(value.size()) + "\r\n" + value + "\r\n";
  }
  // What EndLoading of the server does.
  void End(Loader& loader, Dispatcher& dispatcher) {
    loader.Stop();
    dispatcher.Exclusively([&] { execution_.loader = nullptr; });
    world_.CloseToGuests();
  }

  Registry registry_;
  Keyspace keyspace_;
  World world_;
  Execution execution_;
  Dispatcher::Outcome outcome_ = Dispatcher::Outcome::kDone;
};
INSTANTIATE_TEST_SUITE_P(Loops, LoaderTest, testing::Values(1, 3));

TEST_P(LoaderTest, ReplaysEveryUnitOnce) {
  for (uint32_t units : {1u, 16u, kShards}) {
    keyspace_.DetachAll();
    Loader loader(execution_, Backlog(units, 500), /*workers=*/3);
    loader.Start({});
    ASSERT_TRUE(loader.WaitFor(60'000));
    EXPECT_TRUE(loader.error().ok());
    EXPECT_EQ(loader.report().entries_recovered, 1000u);
    EXPECT_EQ(keyspace_.Size(0), 500u);
    for (uint32_t shard = 0; shard < kShards; ++shard) EXPECT_TRUE(loader.Has(shard));
    const LoadProgress progress = loader.progress();
    EXPECT_EQ(progress.units_done, units);
    EXPECT_EQ(progress.bytes_done, progress.bytes_total);
    world_.Enter(0);
    loader.Stop();
    world_.CloseToGuests();
    world_.Exit(0);
  }
}

TEST_P(LoaderTest, ACommandBringsItsKeysAtOnce) {
  Gate gate;
  Loader loader(execution_, Backlog(kShards, 500), /*workers=*/2, gate.hook());
  execution_.loader = &loader;
  Dispatcher dispatcher(execution_, 0);
  loader.Start({});
  world_.Enter(0);
  EXPECT_EQ(Run(dispatcher, {"get", "key7"}), Bulk("value7"));
  EXPECT_EQ(loader.progress().units_done, 1u);
  EXPECT_EQ(Run(dispatcher, {"mget", "key8", "key9", "none"}),
            "*3\r\n" + Bulk("value8") + Bulk("value9") + "$-1\r\n");
  EXPECT_EQ(Run(dispatcher, {"set", "key10", "mine"}), "+OK\r\n");
  EXPECT_EQ(Run(dispatcher, {"append", "key11", "!"}), ":8\r\n");
  EXPECT_LE(loader.progress().units_done, 6u);
  world_.Exit(0);
  gate.Open();
  ASSERT_TRUE(loader.WaitFor(60'000));
  world_.Enter(0);
  End(loader, dispatcher);
  EXPECT_EQ(Run(dispatcher, {"get", "key10"}), Bulk("mine"));
  EXPECT_EQ(Run(dispatcher, {"get", "key11"}), Bulk("value11!"));
  EXPECT_EQ(Run(dispatcher, {"dbsize"}), ":500\r\n");
  world_.Exit(0);
}

TEST_P(LoaderTest, WhatLooksAtAllKeysWaitsUntilAllAreThere) {
  Gate gate;
  Loader loader(execution_, Backlog(kShards, 500), /*workers=*/2, gate.hook());
  execution_.loader = &loader;
  Dispatcher dispatcher(execution_, 0);
  loader.Start({});
  world_.Enter(0);
  for (const char* name : {"dbsize", "randomkey", "flushall", "flushdb"}) {
    EXPECT_EQ(Run(dispatcher, {name}), "") << name;
    EXPECT_EQ(outcome_, Dispatcher::Outcome::kRecovering) << name;
  }
  EXPECT_EQ(Run(dispatcher, {"keys", "*"}), "");
  EXPECT_EQ(Run(dispatcher, {"scan", "0"}), "");
  EXPECT_EQ(Run(dispatcher, {"swapdb", "0", "1"}), "");
  world_.Exit(0);
  gate.Open();
  ASSERT_TRUE(loader.WaitFor(60'000));
  world_.Enter(0);
  End(loader, dispatcher);
  EXPECT_EQ(Run(dispatcher, {"dbsize"}), ":500\r\n");
  EXPECT_EQ(Run(dispatcher, {"flushall"}), "+OK\r\n");
  EXPECT_EQ(Run(dispatcher, {"dbsize"}), ":0\r\n");
  world_.Exit(0);
}

TEST_P(LoaderTest, CommandsRunBesideTheWorkers) {
  constexpr int kKeys = 20'000;
  Loader loader(execution_, Backlog(kShards, kKeys), /*workers=*/2);
  execution_.loader = &loader;
  std::atomic<bool> ended{false};
  loader.Start([&] { ended = true; });
  std::vector<std::thread> loops;
  for (int loop = 0; loop < GetParam(); ++loop) {
    loops.emplace_back([&, loop] {
      Dispatcher dispatcher(execution_, loop);
      Client client;
      Buffer out;
      for (int i = loop; i < kKeys; i += GetParam()) {
        // From the end: the workers begin at the front.
        const std::string key = "key" + std::to_string(kKeys - 1 - i);
        world_.Enter(loop);
        for (const std::vector<std::string_view>& argv :
             {std::vector<std::string_view>{"append", key, "+"}, {"get", key}}) {
          resp::Reply reply(out, 2);
          out.Clear();
          ASSERT_EQ(dispatcher.Run(client, Args(argv), reply), Dispatcher::Outcome::kDone);
        }
        EXPECT_EQ(out.view(), Bulk("value" + std::to_string(kKeys - 1 - i) + "+"));
        if (i % 1000 == 0) dispatcher.Exclusively([] {});
        world_.Exit(loop);
      }
    });
  }
  for (std::thread& thread : loops) thread.join();
  ASSERT_TRUE(loader.WaitFor(60'000));
  loader.Stop();
  EXPECT_TRUE(ended);
  Dispatcher dispatcher(execution_, 0);
  world_.Enter(0);
  End(loader, dispatcher);
  EXPECT_EQ(Run(dispatcher, {"dbsize"}), ":20000\r\n");
  world_.Exit(0);
}

TEST_P(LoaderTest, AFlushReachesTheUnitsOwnShardsAlone) {
  auto backlog = Backlog(kShards, 100);
  Effects effects;
  effects.Broadcast(0, EffectId::kFlushall, {});
  backlog->AddBroadcast(effects);
  effects.Clear();
  effects.Set(static_cast<uint16_t>(keyspace_.ShardOf("late")), 3, "late", "v", kNoDeadline);
  backlog->Add(UnitOf("late", kShards), effects);
  effects.Clear();
  effects.Broadcast(0, EffectId::kSwapdb, {"3", "0"});
  backlog->AddBroadcast(effects);
  Gate gate;
  Loader loader(execution_, std::move(backlog), /*workers=*/2, gate.hook());
  execution_.loader = &loader;
  Dispatcher dispatcher(execution_, 0);
  loader.Start({});
  world_.Enter(0);
  EXPECT_EQ(Run(dispatcher, {"get", "late"}), Bulk("v"));
  EXPECT_EQ(Run(dispatcher, {"get", "key1"}), "$-1\r\n");
  EXPECT_EQ(Run(dispatcher, {"set", "key1", "again"}), "+OK\r\n");
  world_.Exit(0);
  gate.Open();  // the other units flush and swap, too
  ASSERT_TRUE(loader.WaitFor(60'000));
  world_.Enter(0);
  End(loader, dispatcher);
  EXPECT_EQ(Run(dispatcher, {"get", "key1"}), Bulk("again"));
  EXPECT_EQ(Run(dispatcher, {"dbsize"}), ":2\r\n");
  world_.Exit(0);
}

TEST_P(LoaderTest, ATransactionThatDoesNotSuitIsAppliedNowhere) {
  for (const size_t value_bytes : {size_t{10}, size_t{50'000}}) {  // judged by each, and once
    keyspace_.DetachAll();
    auto backlog = std::make_unique<FakeBacklog>(kShards);
    const std::string value(value_bytes, 'v');
    const auto add = [&](uint32_t last_db) {
      Effects effects;
      std::map<uint32_t, std::string> parts;
      for (const char* key : {"a", "b", "c"}) {
        const uint32_t db = *key == 'c' ? last_db : 0;
        const auto shard = static_cast<uint16_t>(keyspace_.ShardOf(key));
        Effects one;
        one.Set(shard, db, key, value, kNoDeadline);
        effects.Set(shard, db, key, value, kNoDeadline);
        parts[UnitOf(key, kShards)] += one.bytes();
      }
      backlog->AddTransaction(std::string(effects.Transaction()), parts);
    };
    add(/*last_db=*/99);
    Loader bad(execution_, std::move(backlog), /*workers=*/2);
    bad.Start({});
    ASSERT_TRUE(bad.WaitFor(60'000));
    EXPECT_EQ(keyspace_.Size(0), 0u);
    EXPECT_EQ(bad.report().entries_recovered, 0u);
    ASSERT_FALSE(bad.report().warnings.empty());
    EXPECT_NE(bad.report().warnings[0].find("database 99"), std::string::npos);
    world_.Enter(0);
    bad.Stop();
    world_.CloseToGuests();
    world_.Exit(0);

    backlog = std::make_unique<FakeBacklog>(kShards);
    add(/*last_db=*/0);
    Loader good(execution_, std::move(backlog), /*workers=*/2);
    good.Start({});
    ASSERT_TRUE(good.WaitFor(60'000));
    EXPECT_EQ(keyspace_.Size(0), 3u);
    world_.Enter(0);
    good.Stop();
    world_.CloseToGuests();
    world_.Exit(0);
  }
}

TEST_P(LoaderTest, DataThatCannotBeHadIsNotServed) {
  auto backlog = Backlog(kShards, 500);
  const uint32_t bad = UnitOf("key7", kShards);
  backlog->fails_at = bad;
  Gate gate;
  Loader loader(execution_, std::move(backlog), /*workers=*/2, gate.hook());
  execution_.loader = &loader;
  Dispatcher dispatcher(execution_, 0);
  std::atomic<bool> ended{false};
  loader.Start([&] { ended = true; });
  world_.Enter(0);
  EXPECT_EQ(Run(dispatcher, {"get", "key7"}), "");
  EXPECT_EQ(outcome_, Dispatcher::Outcome::kRecovering);
  EXPECT_EQ(Run(dispatcher, {"set", "key7", "v"}), "");
  EXPECT_EQ(loader.error().message(), "cannot read wal-1.log: Input/output error");
  world_.Exit(0);
  gate.Open();
  ASSERT_TRUE(loader.WaitFor(60'000)) << "the workers end where one unit has failed";
  loader.Stop();
  EXPECT_TRUE(ended);
  EXPECT_LT(loader.progress().units_done, kShards);
}

TEST_P(LoaderTest, StopsWithTheUnitAtHand) {
  Gate gate;
  Loader loader(execution_, Backlog(kShards, 500), /*workers=*/2, gate.hook());
  loader.Start({});
  std::thread opener([&] { gate.Open(); });
  loader.Stop();
  opener.join();
  EXPECT_TRUE(loader.WaitFor(0));
}

// --- a server that is started again ---

class ServingWhileLoadingTest : public testing::TestWithParam<int> {  // threads
 protected:
  static constexpr int kKeys = 2000;

  ServingWhileLoadingTest() {
    options_.threads = GetParam();
    options_.log_directory = directory_.path() + "/wal";
  }
  static std::string Key(int i) { return "key" + std::to_string(i); }
  static std::string Value(int i) {
    return "value" + std::to_string(i) + std::string(static_cast<size_t>(i % 300), 'v');
  }
  // A log of kKeys keys, each set twice.
  void Fill() {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    for (int i = 0; i < kKeys; ++i) {
      client.Queue({"SET", Key(i), "first"});
      client.Queue({"SET", Key(i), Value(i)});
    }
    for (int i = 0; i < 2 * kKeys; ++i) ASSERT_EQ(client.Read(), "+OK");
    ASSERT_TRUE(server.Stop().ok());
  }
  // The next start's workers wait for gate_.
  void HoldWorkers() { options_.loader_hook = gate_.hook(); }
  static std::string Field(RedisClient& client, const std::string& name) {
    const std::string info = client.Run("INFO persistence");
    const size_t at = info.find("\n" + name + ":");
    if (at == std::string::npos) return "(none)";
    const size_t begin = at + name.size() + 2;
    return info.substr(begin, info.find('\r', begin) - begin);
  }
  // A server of this log that judges all of it before it serves.
  Config LoadingFirst(const test::Endpoint& endpoint, const char* mode,
                      const test::Arguments& more = {}) {
    test::Arguments arguments{"--port",          "0",
                              "--unixsocket",    endpoint.unix_path,
                              "--threads",       std::to_string(GetParam()),
                              "--wal-enabled",   "yes",
                              "--wal-dir",       options_.log_directory,
                              "--wal-ring-dir",  options_.log_directory + "-ring",
                              "--wal-ring-size", "1mb",
                              "--wal-recovery",  mode};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto config = test::ConfigOf(arguments);
    EXPECT_TRUE(config.ok()) << config.message();
    return config.ok() ? std::move(*config) : Config();
  }
  static void WaitUntilLoaded(TestServer& server) {
    ASSERT_TRUE(Eventually([&] { return !server.server().recovering(); }));
  }

  ScopedDirectory directory_;
  TestServer::Options options_;
  Gate gate_;
};
INSTANTIATE_TEST_SUITE_P(Threads, ServingWhileLoadingTest, testing::Values(1, 3));

// So that a large log is back soon, and no client waits for a huge page later.
TEST_P(ServingWhileLoadingTest, HugePagesAreForTheReplay) {
  Fill();
  for (const bool always : {false, true}) {
    options_.arguments = {"--disable-thp", always ? "no" : "yes"};
    const auto off = [] { return prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0); };
    Gate gate;
    options_.loader_hook = gate.hook();
    TestServer server(options_);
    EXPECT_EQ(off(), 0);
    gate.Open();
    WaitUntilLoaded(server);
    EXPECT_EQ(off(), always ? 0 : 1);
  }
}

TEST_P(ServingWhileLoadingTest, AnswersWithTheRightValueFromTheStart) {
  Fill();
  HoldWorkers();
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(Field(client, "loading"), "0");
  EXPECT_EQ(Field(client, "wal_recovering"), "1");
  EXPECT_EQ(Field(client, "wal_recovery_units_done"), "0");
  for (int i = 0; i < 5; ++i) {
    const int late = kKeys - 1 - i;
    EXPECT_EQ(client.Run({"GET", Key(late)}), "$" + Value(late));
  }
  EXPECT_EQ(client.Run({"MGET", Key(7), "none", Key(8)}),
            "[$" + Value(7) + ", (nil), $" + Value(8) + "]");
  EXPECT_EQ(client.Run("PING"), "+PONG");
  EXPECT_EQ(Field(client, "wal_recovering"), "1");
  EXPECT_LE(std::stoi(Field(client, "wal_recovery_units_done")), 8);
  EXPECT_GT(std::stoi(Field(client, "wal_recovery_units_total")), 8);
  EXPECT_GT(std::stoll(Field(client, "wal_recovery_bytes_total")), 0);
  gate_.Open();
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(client.Run({"GET", Key(i)}), "$" + Value(i));
  WaitUntilLoaded(server);
  EXPECT_EQ(Field(client, "wal_recovering"), "0");
  EXPECT_EQ(Field(client, "wal_recovery_units_done"), Field(client, "wal_recovery_units_total"));
  EXPECT_EQ(Field(client, "wal_recovery_entries_recovered"), std::to_string(2 * kKeys));
  EXPECT_EQ(Field(client, "wal_recovery_entries_skipped"), "0");
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(client.Run({"GET", Key(i)}), "$" + Value(i));
  EXPECT_EQ(client.Run("DBSIZE"), ":" + std::to_string(kKeys));
}

TEST_P(ServingWhileLoadingTest, KeepsWhatIsWrittenMeanwhile) {
  Fill();
  HoldWorkers();
  {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    for (int i = 0; i < kKeys; i += 100) {
      EXPECT_EQ(client.Run({"APPEND", Key(i), "+"}), ":" + std::to_string(Value(i).size() + 1));
    }
    EXPECT_EQ(client.Run({"DEL", Key(1), Key(2), "none"}), ":2");
    EXPECT_EQ(client.Run({"RENAME", Key(3), "renamed"}), "+OK");
    EXPECT_EQ(client.Run("SET new value"), "+OK");
    EXPECT_EQ(Field(client, "wal_recovering"), "1");
    gate_.Open();
    WaitUntilLoaded(server);
    EXPECT_EQ(client.Run({"APPEND", Key(0), "+"}), ":" + std::to_string(Value(0).size() + 2));
    ASSERT_TRUE(server.Stop().ok());
  }
  options_.loader_hook = {};
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run({"GET", Key(0)}), "$" + Value(0) + "++");
  for (int i = 100; i < kKeys; i += 100) {
    EXPECT_EQ(client.Run({"GET", Key(i)}), "$" + Value(i) + "+");
  }
  EXPECT_EQ(client.Run({"EXISTS", Key(1), Key(2), Key(3)}), ":0");
  EXPECT_EQ(client.Run("GET renamed"), "$" + Value(3));
  EXPECT_EQ(client.Run("GET new"), "$value");
  EXPECT_EQ(client.Run("DBSIZE"), ":" + std::to_string(kKeys - 1));
}

TEST_P(ServingWhileLoadingTest, WhatNeedsAllKeysWaitsAndIsExact) {
  Fill();
  HoldWorkers();
  TestServer server(options_);
  RedisClient waiting(server.unix_endpoint()), other(server.unix_endpoint());
  waiting.Queue({"SET", "one", "more"});
  waiting.Queue({"DBSIZE"});
  waiting.Queue({"PING"});
  EXPECT_EQ(waiting.Read(), "+OK");
  // The DBSIZE holds back its own connection only.
  ASSERT_TRUE(Eventually([&] { return Field(other, "wal_recovering") == "1"; }));
  EXPECT_EQ(other.Run({"GET", Key(5)}), "$" + Value(5));
  EXPECT_EQ(other.Run("CONFIG SET wal-enabled no").substr(0, 4), "-ERR");
  gate_.Open();
  EXPECT_EQ(waiting.Read(), ":" + std::to_string(kKeys + 1));
  EXPECT_EQ(waiting.Read(), "+PONG");
}

// It could not be of all data, and whoever asks is not kept waiting for long.
TEST_P(ServingWhileLoadingTest, ACheckpointIsRefusedAtOnce) {
  Fill();
  HoldWorkers();
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  for (const char* line : {"SAVE", "BGSAVE", "BGSAVE SCHEDULE", "BGREWRITEAOF", "WAL CHECKPOINT"}) {
    EXPECT_EQ(client.Run(line), "-ERR the data is still being recovered") << line;
  }
  EXPECT_EQ(client.Run("SHUTDOWN SAVE"), "-ERR Errors trying to SHUTDOWN. Check logs.");
  EXPECT_EQ(Field(client, "wal_recovering"), "1");
  gate_.Open();
  WaitUntilLoaded(server);
  EXPECT_EQ(client.Run("BGSAVE"), "+Background saving started");
}

TEST_P(ServingWhileLoadingTest, AFlushWaitsAndLeavesNothing) {
  Fill();
  HoldWorkers();
  {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint()), other(server.unix_endpoint());
    client.Queue({"FLUSHALL"});
    client.Queue({"DBSIZE"});
    EXPECT_EQ(other.Run({"GET", Key(5)}), "$" + Value(5));
    gate_.Open();
    EXPECT_EQ(client.Read(), "+OK");
    EXPECT_EQ(client.Read(), ":0");
    EXPECT_EQ(client.Run("SET after flush"), "+OK");
    ASSERT_TRUE(server.Stop().ok());
  }
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("DBSIZE"), ":1");
  EXPECT_EQ(client.Run("GET after"), "$flush");
}

TEST_P(ServingWhileLoadingTest, StopsInTheMiddle) {
  Fill();
  HoldWorkers();
  {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint()), waiting(server.unix_endpoint());
    waiting.Queue({"DBSIZE"});
    EXPECT_EQ(client.Run("SET new value"), "+OK");
    EXPECT_EQ(Field(client, "wal_recovering"), "1");
    server.server().RequestStop();
    gate_.Open();
    EXPECT_TRUE(server.Wait().ok());
  }
  options_.loader_hook = {};
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("DBSIZE"), ":" + std::to_string(kKeys + 1));
  EXPECT_EQ(client.Run("GET new"), "$value");
}

// The log is given up and works again while most of the data is not there yet: a checkpoint of the
// rest would let the next start forget what the log has.
TEST_P(ServingWhileLoadingTest, AStopInTheMiddleOfALogThatMayGoOnKeepsAllOfIt) {
  test::SimDisk disk;
  options_.disk = &disk;
  options_.log_directory = "/wal";
  options_.arguments = {"--wal-on-error", "degrade"};
  Fill();
  HoldWorkers();
  {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    disk.AddFault(
        {.calls = test::kCreate | test::kWrite | test::kSync, .error = EIO, .for_ever = true});
    EXPECT_EQ(client.Run("SET lost value"), "+OK");
    ASSERT_TRUE(Eventually([&] { return Field(client, "wal_state") == "degraded"; }));
    disk.ClearFaults();
    ASSERT_TRUE(Eventually([&] { return server.server().log()->resumable(); }));
    EXPECT_EQ(Field(client, "wal_recovering"), "1");
    server.server().RequestStop();
    gate_.Open();
    const Status end = server.Wait();
    EXPECT_NE(end.message().find("not on disk"), std::string::npos) << end.message();
  }
  for (const std::string& path : disk.Paths()) EXPECT_FALSE(path.ends_with(".ckpt")) << path;
  options_.loader_hook = {};
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  WaitUntilLoaded(server);
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(client.Run({"GET", Key(i)}), "$" + Value(i));
}

TEST_P(ServingWhileLoadingTest, TheOtherModesLoadFirst) {
  Fill();
  for (const char* mode : {"prefix", "strict"}) {
    options_.arguments = {"--wal-recovery", mode};
    TestServer server(options_);
    EXPECT_FALSE(server.server().recovering());
    RedisClient client(server.unix_endpoint());
    EXPECT_EQ(Field(client, "wal_recovering"), "0");
    EXPECT_EQ(Field(client, "wal_recovery_entries_recovered"), std::to_string(2 * kKeys));
    EXPECT_EQ(client.Run("DBSIZE"), ":" + std::to_string(kKeys));
  }
}

// A server that is started on a thread of its own, and kept in its replay until the gate opens.
class Starting {
 public:
  explicit Starting(Config config)
      : thread_([this, config = std::move(config)] {
          auto server = Server::Start(config, wal::RealDisk(), gate_.hook());
          started_.set_value(server.ok() ? server->get() : nullptr);
          if (server.ok()) (void)(*server)->Run();
        }) {}
  ~Starting() {
    gate_.Open();
    Server* const server = started_.get_future().get();
    if (server != nullptr) server->RequestStop();
    thread_.join();
  }
  Gate& gate() { return gate_; }

 private:
  Gate gate_;
  std::promise<Server*> started_;
  std::thread thread_;
};

TEST_P(ServingWhileLoadingTest, TheOtherModesSaySoWhileTheyLoad) {
  Fill();
  for (const char* mode : {"prefix", "strict"}) {
    SCOPED_TRACE(mode);
    ScopedDirectory directory;
    const test::Endpoint endpoint{directory.path() + "/socket"};
    Starting starting(LoadingFirst(endpoint, mode));
    // The socket has its name a moment before it listens.
    ASSERT_TRUE(Eventually([&] { return RedisClient(endpoint).connected(); }));
    RedisClient client(endpoint);
    const std::string loading = "-LOADING Redis is loading the dataset in memory";
    EXPECT_EQ(client.Run({"GET", Key(5)}), loading);
    EXPECT_EQ(client.Run("PING"), loading);
    EXPECT_EQ(Field(client, "loading"), "1");
    EXPECT_EQ(Field(client, "async_loading"), "0");
    // The log is known from a certain moment on, and nothing of it is replayed before the gate.
    ASSERT_TRUE(Eventually([&] { return std::stoll(Field(client, "loading_total_bytes")) > 0; }));
    EXPECT_EQ(Field(client, "loading_loaded_bytes"), "0");
    EXPECT_EQ(Field(client, "loading_loaded_perc"), "0.00");
    EXPECT_EQ(Field(client, "loading_rdb_used_mem"), "0");
    EXPECT_EQ(Field(client, "loading_eta_seconds"), "1");
    EXPECT_NEAR(std::stod(Field(client, "loading_start_time")),
                static_cast<double>(RealClock().WallMs()) / 1000, 60);
    for (int i = 0; i < 100; ++i) client.Queue({"SET", Key(i), std::string(1000, 'x')});
    for (int i = 0; i < 100; ++i) EXPECT_EQ(client.Read(), loading);
    {
      RedisClient leaves(endpoint);
      EXPECT_EQ(leaves.Run("PING"), loading);
    }
    test::RawSocket half(endpoint), wrong(endpoint);
    half.Send("*2\r\n$3\r\nGET\r\n$4\r\nke");
    wrong.Send("*1\r\n!\r\n");
    EXPECT_EQ(wrong.ReadToEnd(), "-ERR Protocol error: expected '$', got '!'\r\n");
    starting.gate().Open();
    // The connection goes on with the server.
    ASSERT_TRUE(Eventually([&] { return client.Run("PING") == "+PONG"; }));
    EXPECT_EQ(half.ReadToEnd(), "");
    EXPECT_EQ(client.Run({"GET", Key(5)}), "$" + Value(5));
    EXPECT_EQ(Field(client, "loading"), "0");
    EXPECT_EQ(client.Run("DBSIZE"), ":" + std::to_string(kKeys));
  }
}

TEST_P(ServingWhileLoadingTest, APasswordIsAskedForWhileTheyLoadToo) {
  Fill();
  ScopedDirectory directory;
  const test::Endpoint endpoint{directory.path() + "/socket"};
  Starting starting(LoadingFirst(endpoint, "prefix", {"--requirepass", "secret"}));
  ASSERT_TRUE(Eventually([&] { return RedisClient(endpoint).connected(); }));
  RedisClient client(endpoint), stranger(endpoint);
  const std::string loading = "-LOADING Redis is loading the dataset in memory";
  const std::string stopped = "-NOAUTH Authentication required.";
  const std::string wrong = "-WRONGPASS invalid username-password pair or user is disabled.";
  const struct {
    std::vector<std::string> command;
    std::string answer;
  } cases[] = {
      {{"INFO"}, stopped},
      {{"PING"}, stopped},
      {{"HELLO", "3"}, loading},
      {{"AUTH"}, "-ERR wrong number of arguments for 'auth' command"},
      {{"AUTH", "default", "secret", "more"}, "-ERR syntax error"},
      {{"AUTH", "other", "secret"}, wrong},
      {{"AUTH", "guess"}, wrong},
      {{"PING"}, stopped},
      {{"auth", "secret"}, "+OK"},
      {{"PING"}, loading},
      {{"AUTH", "guess"}, wrong},  // it stays what it was
      {{"AUTH", "default", "secret"}, "+OK"},
      {{"GET", "key"}, loading},
  };
  for (const auto& row : cases) EXPECT_EQ(client.Run(row.command), row.answer) << row.command[0];
  EXPECT_EQ(Field(client, "loading"), "1");
  EXPECT_EQ(stranger.Run("PING"), stopped);
  starting.gate().Open();
  // Who was let in stays so, and nobody else.
  ASSERT_TRUE(Eventually([&] { return client.Run("PING") == "+PONG"; }));
  EXPECT_EQ(client.Run({"GET", Key(5)}), "$" + Value(5));
  EXPECT_EQ(stranger.Run({"GET", Key(5)}), stopped);
}

TEST_P(ServingWhileLoadingTest, KeysExpireWhenTheirTimeComes) {
  options_.arguments = {"--enable-debug-command", "yes"};
  {
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    ASSERT_EQ(client.Run("DEBUG SET-ACTIVE-EXPIRE 0"), "+OK");
    for (int i = 0; i < 100; ++i) {
      ASSERT_EQ(client.Run({"SET", Key(i), "v", "PX", "1"}), "+OK");
      ASSERT_EQ(client.Run({"SET", "lasting" + Key(i), "v", "EX", "10000"}), "+OK");
    }
    ASSERT_TRUE(server.Stop().ok());
  }
  HoldWorkers();
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run({"GET", Key(1)}), "(nil)");
  EXPECT_EQ(client.Run({"GET", "lasting" + Key(1)}), "$v");
  EXPECT_EQ(Field(client, "wal_recovering"), "1");
  gate_.Open();
  WaitUntilLoaded(server);
  EXPECT_TRUE(Eventually([&] { return client.Run("DBSIZE") == ":100"; }));
}

// A part of the data for all of it is worse than none.
TEST_P(ServingWhileLoadingTest, EndsWhenTheLogCannotBeRead) {
  options_.arguments = {"--wal-max-segment-size", "1mb"};
  Fill();
  {
    // More than a stage: what a worker has been given is open before it waits.
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    for (int i = 0; i < 24; ++i) {
      ASSERT_EQ(client.Run("SET large " + std::string(900 << 10, 'v')), "+OK");
    }
    ASSERT_TRUE(server.Stop().ok());
  }
  HoldWorkers();
  TestServer server(options_);
  RedisClient client(server.unix_endpoint());
  gate_.WaitUntilMet();
  // All files but the one that is being written.
  std::set<std::string> segments;
  for (const auto& file : std::filesystem::directory_iterator(options_.log_directory)) {
    const std::string name = file.path().filename();
    if (name.starts_with("wal-") && name.ends_with(".log")) segments.insert(file.path());
    if (name.ends_with(".ckpt")) std::filesystem::remove(file.path());
  }
  ASSERT_GT(segments.size(), 1u);
  segments.erase(std::prev(segments.end()));
  for (const std::string& path : segments) {
    // A link to itself: no damage, which salvage passes over, but nothing that can be opened.
    std::filesystem::create_symlink(path, path + ".link");
    std::filesystem::rename(path + ".link", path);
  }
  client.Queue({"GET", Key(5)});
  EXPECT_EQ(RedisClient(server.unix_endpoint()).Run("PING"), "+PONG");
  gate_.Open();
  ASSERT_EQ(client.Read(), "(closed)");
  const Status end = server.Wait();
  ASSERT_FALSE(end.ok());
  EXPECT_NE(end.message().find("symbolic links"), std::string::npos) << end.message();
}

// --- logs with packs ---

// Random commands, transactions, values of several records, flushes and swaps among them, while
// compression comes and goes: what a restart finds is what was there.
class PackedLogTest : public testing::TestWithParam<bool> {  // encrypted
 protected:
  PackedLogTest() {
    options_.threads = 2;
    options_.log_directory = directory_.path() + "/wal";
    if (!GetParam()) return;
    std::ofstream(directory_.path() + "/key") << std::string(64, 'a') << "\n";
    options_.arguments = {"--wal-encryption-key-file", directory_.path() + "/key"};
  }
  void RunSome(RedisClient& client, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = "key" + std::to_string(random_() % 300);
      const std::string other = "key" + std::to_string(random_() % 300);
      const std::string value(random_() % 400, static_cast<char>('a' + random_() % 26));
      const uint64_t kind = random_() % 200;
      if (kind == 0) {
        client.Queue({"FLUSHALL"});
      } else if (kind < 3) {
        client.Queue({"FLUSHDB"});
      } else if (kind < 6) {
        client.Queue({"SWAPDB", "0", std::to_string(1 + random_() % 2)});
      } else if (kind < 8) {
        client.Queue({"SET", key, std::string((size_t{1} << 20) + value.size(), 'B')});
      } else if (kind < 20) {
        client.Queue({"SELECT", std::to_string(random_() % 3)});
      } else if (kind < 40) {
        client.Queue({"MSET", key, value, other, "both", "key" + value, "three"});
      } else if (kind < 60) {
        client.Queue({"RENAME", key, other});
      } else if (kind < 80) {
        client.Queue({"DEL", key, other});
      } else if (kind < 110) {
        client.Queue({"APPEND", key, value});
      } else if (kind < 120) {
        client.Queue({"SETRANGE", key, "7", value});
      } else if (kind < 130) {
        client.Queue({"MOVE", key, "2"});
      } else {
        client.Queue({"SET", key, value});
      }
    }
    for (uint64_t i = 0; i < count; ++i) client.Read();
  }
  static std::map<std::string, std::string> Everything(RedisClient& client) {
    std::map<std::string, std::string> found;
    for (const char* db : {"0", "1", "2"}) {
      EXPECT_EQ(client.Run({"SELECT", db}), "+OK");
      found[std::string("size of ") + db] = client.Run("DBSIZE");
      std::istringstream keys(client.Run("KEYS *"));
      for (std::string key; std::getline(keys, key, '$');) {
        key = key.substr(0, key.find_first_of(",]"));
        if (key.starts_with("key")) found[db + key] = client.Run({"GET", key});
      }
    }
    return found;
  }

  ScopedDirectory directory_;
  TestServer::Options options_;
  std::mt19937_64 random_{test::TestSeed()};
};
INSTANTIATE_TEST_SUITE_P(Encrypted, PackedLogTest, testing::Bool());

TEST_P(PackedLogTest, IsReplayedToWhatItWas) {
  std::map<std::string, std::string> before;
  const char* const compressions[] = {"lz4", "none", "zstd"};
  for (int start = 0; start < 4; ++start) {
    SCOPED_TRACE(start);
    TestServer server(options_);
    RedisClient client(server.unix_endpoint());
    EXPECT_FALSE(server.server().recovering());
    EXPECT_TRUE(server.server().recovery().lost.empty());
    EXPECT_EQ(server.server().recovery().entries_skipped, 0u);
    if (start > 0) {
      EXPECT_GT(server.server().recovery().entries_recovered, 0u);
      const auto found = Everything(client);
      EXPECT_GT(found.size(), 20u);
      ASSERT_TRUE(found == before);
      const LoadProgress progress = server.server().load_progress();
      EXPECT_EQ(progress.units_done, progress.units_total);
      EXPECT_GT(progress.units_total, 1u);
      EXPECT_EQ(progress.bytes_done, progress.bytes_total);
    }
    for (const char* compression : compressions) {
      ASSERT_EQ(client.Run({"CONFIG", "SET", "wal-compression", compression}), "+OK");
      RunSome(client, 700);
    }
    before = Everything(client);
    ASSERT_TRUE(server.Stop().ok());
  }
}

}  // namespace
}  // namespace crab

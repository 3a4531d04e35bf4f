#include "src/server/loader.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "src/keyspace/effects.h"
#include "tests/server/loader_gate.h"
#include "tests/support/redis_client.h"
#include "tests/support/test_server.h"
#include "utils/clock.h"

namespace crab {
namespace {

using test::Gate;

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

}  // namespace
}  // namespace crab

#include "src/execution/dispatch.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "src/execution/replayer.h"
#include "src/keyspace/effects.h"
#include "tests/support/fake_log.h"

namespace crab {
namespace {

using test::FakeLog;
using Outcome = Dispatcher::Outcome;

// Rows that only a test needs: how dispatch treats a row, not what Redis' commands do.
Status FailOnPurpose(Call&) { return Status::Error("ODD on purpose"); }
Status AllowedBeforeAuth(Call& call) {
  call.reply.Ok();
  return Status::Ok();
}
constexpr Command kTestRows[] = {
    Command("fail", "", FailOnPurpose, -1, kFast, Scope::kLoop, kNoKeys, Group::kServer, "1.0.0",
            "O(1)", "Fails."),
    Command("knock", "", AllowedBeforeAuth, 1, kFast | kNoAuth, Scope::kLoop, kNoKeys,
            Group::kServer, "1.0.0", "O(1)", "Runs before AUTH."),
    Command("survey", "", AllowedBeforeAuth, 1, kLoading, Scope::kExclusive, kNoKeys,
            Group::kServer, "1.0.0", "O(1)", "Looks at the server and at no key."),
};

std::string Describe(const EffectView& effect) {
  std::string text = std::to_string(effect.db) + ":" + std::string(EffectName(effect.id));
  for (std::string_view argument : effect.arguments) text.append(" ").append(argument);
  return text;
}

std::vector<std::string> EffectsOf(const FakeLog::Record& record) {
  std::string_view bytes = record.payload;
  if (record.type == wal::RecordType::kTxn) {
    auto effects = TransactionEffects(record.payload);
    EXPECT_TRUE(effects.ok());
    bytes = *effects;
  }
  std::vector<std::string> described;
  while (!bytes.empty()) {
    EffectView effect;
    EXPECT_TRUE(ReadEffect(&bytes, &effect).ok());
    described.push_back(Describe(effect));
  }
  return described;
}

class DispatchTest : public testing::TestWithParam<int> {
 protected:
  DispatchTest()
      : registry_({StringCommands(), KeyCommands(), ExpireCommands(), ObjectCommands(),
                   CommandCommands(), kTestRows}),
        keyspace_({.shard_count = 128, .hash_seed = 1}),
        world_(GetParam()),
        execution_{keyspace_, world_, registry_},
        dispatcher_(execution_, 0) {
    world_.Enter(0);
  }
  ~DispatchTest() override { world_.Exit(0); }

  std::string RunWords(const std::vector<std::string>& words) {
    const std::vector<std::string_view> argv(words.begin(), words.end());
    Buffer out;
    resp::Reply reply(out, client_.protocol);
    outcome_ = dispatcher_.Run(client_, Args(argv), reply);
    return std::string(out.view());
  }
  std::string Run(const std::string& line) {
    std::istringstream stream(line);
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    return RunWords(words);
  }
  void UseLog() { execution_.log = &log_; }
  const CommandStats& StatsOf(const char* name) {
    return dispatcher_.stats().commands[registry_.IndexOf(*registry_.FindName(name))];
  }
  // Two keys of different shards.
  // The client as the command leaves it.
  Client RunAsNewClient(const std::string& words) {
    Client client;
    std::swap(client_, client);
    Run(words);
    std::swap(client_, client);
    return client;
  }
  std::pair<std::string, std::string> KeysOfTwoShards() {
    for (int i = 0;; ++i) {
      const std::string other = "k" + std::to_string(i);
      if (keyspace_.ShardOf(other) != keyspace_.ShardOf("k")) return {"k", other};
    }
  }
  uint16_t ShardOf(const std::string& key) { return static_cast<uint16_t>(keyspace_.ShardOf(key)); }

  Registry registry_;
  Keyspace keyspace_;
  World world_;
  Execution execution_;
  Dispatcher dispatcher_;
  FakeLog log_;
  Client client_;
  Outcome outcome_ = Outcome::kDone;
};

INSTANTIATE_TEST_SUITE_P(Loops, DispatchTest, testing::Values(1, 2),
                         [](const auto& param) { return std::to_string(param.param); });

TEST_P(DispatchTest, RefusesWhatNoRecordOfTheLogHolds) {
  const std::string refusal =
      "-ERR this would change more at once than one record of the write-ahead log holds\r\n";
  keyspace_.options().record_bytes_max = 100'000;
  for (const bool logged : {true, false}) {
    execution_.log = logged ? &log_ : nullptr;
    const size_t records = log_.records().size();
    EXPECT_EQ(RunWords({"MSET", "a", std::string(60'000, 'x'), "b", std::string(60'000, 'y')}),
              refusal);
    EXPECT_EQ(RunWords({"DEL", std::string(60'000, 'a')}), refusal);  // and so if it has expired
    std::vector<std::string> many{"DEL"};
    many.resize(4000, "k");
    EXPECT_EQ(RunWords(many), refusal);
    EXPECT_EQ(Run("EXISTS a b"), ":0\r\n");
    EXPECT_EQ(log_.records().size(), records);
    EXPECT_EQ(RunWords({"SET", "a", std::string(90'000, 'x')}), "+OK\r\n");
    EXPECT_EQ(Run("DEL a"), ":1\r\n");
    EXPECT_EQ(StatsOf("mset").rejected, logged ? 1u : 2u);
  }
}

// Each command as close to what a record holds as it may come.
TEST_P(DispatchTest, WhatIsNotRefusedFitsIntoOneRecord) {
  UseLog();
  for (const uint64_t limit : {5'000u, 50'000u, 4'000'000u}) {
    keyspace_.options().record_bytes_max = limit;
    for (const size_t key_bytes : {1u, 1'000u, 20'000u, 1'100'000u}) {
      for (uint64_t value_bytes = limit; value_bytes > 0; value_bytes = value_bytes / 8 * 5) {
        const std::string key(key_bytes, 'k'), value(value_bytes, 'v');
        const std::vector<std::string> lines[] = {{"SET", key, value, "PX", "100000"},
                                                  {"APPEND", key, value},
                                                  {"SETRANGE", key, "7", value},
                                                  {"MSET", key, value, key + "2", ""},
                                                  {"RENAME", key, key + "3"}};
        for (const std::vector<std::string>& line : lines) {
          RunWords(line);
          for (const FakeLog::Record& record : log_.records()) {
            ASSERT_LE(record.payload.size(), limit) << line[0] << " " << key_bytes;
          }
          log_.Forget();
        }
        RunWords({"FLUSHALL"});
      }
    }
  }
}

TEST_P(DispatchTest, NamesAnUnknownCommandAsRedisDoes) {
  // What redis-server 7.0.15 answers: the name and all arguments together are each cut at 128
  // bytes, and line breaks become spaces.
  const std::vector<std::string> many(10, std::string(30, 'z'));
  std::vector<std::string> many_words{"foo"};
  many_words.insert(many_words.end(), many.begin(), many.end());
  const std::string z = "'" + std::string(30, 'z') + "' ";
  struct Case {
    std::vector<std::string> words;
    std::string reply;
  };
  for (const Case& c : std::vector<Case>{
           {{"foo"}, "-ERR unknown command 'foo', with args beginning with: \r\n"},
           {{"foo", "a", "b"},
            "-ERR unknown command 'foo', with args beginning with: 'a' 'b' \r\n"},
           {{"foo\r\nbar", "a\nb"},
            "-ERR unknown command 'foo  bar', with args beginning with: 'a b' \r\n"},
           {{std::string(200, 'x'), std::string(200, 'y')},
            "-ERR unknown command '" + std::string(128, 'x') + "', with args beginning with: '" +
                std::string(128, 'y') + "' \r\n"},
           {many_words, "-ERR unknown command 'foo', with args beginning with: " + z + z + z + "'" +
                            std::string(29, 'z') + "' \r\n"},
           {{"foo", std::string(127, 'q') + "r", "second"},
            "-ERR unknown command 'foo', with args beginning with: '" + std::string(127, 'q') +
                "r' \r\n"},
           {{"object", "nope"}, "-ERR unknown subcommand 'nope'. Try OBJECT HELP.\r\n"},
           {{"object", "nope", "a"}, "-ERR unknown subcommand 'nope'. Try OBJECT HELP.\r\n"},
           {{"OBJECT", std::string(200, 'n')},
            "-ERR unknown subcommand '" + std::string(128, 'n') + "'. Try OBJECT HELP.\r\n"},
       }) {
    EXPECT_EQ(RunWords(c.words), c.reply) << c.words.front();
    EXPECT_EQ(outcome_, Outcome::kDone);
  }
}

TEST_P(DispatchTest, ChecksTheArity) {
  EXPECT_EQ(Run("get"), "-ERR wrong number of arguments for 'get' command\r\n");
  EXPECT_EQ(Run("GET a b"), "-ERR wrong number of arguments for 'get' command\r\n");
  EXPECT_EQ(Run("mset a"), "-ERR wrong number of arguments for 'mset' command\r\n");
  EXPECT_EQ(Run("object"), "-ERR wrong number of arguments for 'object' command\r\n");
  EXPECT_EQ(Run("object encoding"),
            "-ERR wrong number of arguments for 'object|encoding' command\r\n");
  EXPECT_EQ(StatsOf("get").rejected, 2u);
  EXPECT_EQ(StatsOf("get").calls, 0u);
}

TEST_P(DispatchTest, AsksForAuthenticationAfterNameAndArity) {
  client_.authenticated = false;
  EXPECT_EQ(Run("get k"), "-NOAUTH Authentication required.\r\n");
  EXPECT_EQ(Run("get"), "-ERR wrong number of arguments for 'get' command\r\n");
  EXPECT_EQ(Run("foo"), "-ERR unknown command 'foo', with args beginning with: \r\n");
  EXPECT_EQ(Run("knock"), "+OK\r\n");
  EXPECT_EQ(Run("set k v"), "-NOAUTH Authentication required.\r\n");
  client_.authenticated = true;
  EXPECT_EQ(Run("get k"), "$-1\r\n");
}

TEST_P(DispatchTest, RefusesWhatGrowsMemoryWhenItIsFull) {
  EXPECT_EQ(Run("set k v"), "+OK\r\n");
  execution_.maxmemory = 1;
  execution_.other_bytes = 2;
  EXPECT_EQ(Run("set k w"), "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
  EXPECT_EQ(Run("get k"), "$1\r\nv\r\n");
  EXPECT_EQ(Run("del k"), ":1\r\n");
  execution_.maxmemory = 0;
  EXPECT_EQ(Run("set k w"), "+OK\r\n");
  EXPECT_EQ(dispatcher_.stats().errors.at("OOM"), 1u);
}

TEST_P(DispatchTest, EvictsThroughTheLogBeforeItRefuses) {
  UseLog();
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(RunWords({"set", "key" + std::to_string(i), std::string(200, 'v')}), "+OK\r\n");
  }
  const size_t logged = log_.records().size();
  keyspace_.options().policy = EvictionPolicy::kAllkeysRandom;
  execution_.keyspace_bytes = static_cast<int64_t>(keyspace_.MemoryBytes());
  execution_.maxmemory = keyspace_.MemoryBytes() - 5000;
  EXPECT_EQ(Run("set one more"), "+OK\r\n");
  EXPECT_GT(dispatcher_.stats().keyspace.evicted, 0u);
  size_t deletions = 0;
  for (size_t i = logged; i < log_.records().size(); ++i) {
    for (const std::string& effect : EffectsOf(log_.records()[i])) {
      deletions += effect.starts_with("0:DEL ");
    }
  }
  EXPECT_EQ(deletions, dispatcher_.stats().keyspace.evicted);
}

TEST_P(DispatchTest, EvictsNothingWithoutRoomInTheLogOrDuringAPause) {
  UseLog();
  EXPECT_EQ(Run("set k v"), "+OK\r\n");
  keyspace_.options().policy = EvictionPolicy::kAllkeysRandom;
  execution_.maxmemory = 1;
  execution_.other_bytes = 2;
  log_.has_room = false;
  EXPECT_EQ(Run("get k"), "$1\r\nv\r\n");
  EXPECT_EQ(Run("set k w"), "");
  EXPECT_EQ(outcome_, Outcome::kNoRoom);
  log_.has_room = true;
  execution_.pause_until_ms = dispatcher_.now_ms() + 100'000;
  execution_.pause_writes_only = true;
  EXPECT_EQ(Run("get k"), "$1\r\nv\r\n");
  execution_.pause_until_ms = 0;
  client_ = Client();
  EXPECT_EQ(Run("get k"), "$-1\r\n");
  EXPECT_EQ(dispatcher_.stats().keyspace.evicted, 1u);
  EXPECT_EQ(client_.gate, 2u) << "it may come back until the deletion is durable";
  EXPECT_EQ(client_.own_lsn, 0u);
}

TEST_P(DispatchTest, CountsAShardsGrowthOnceHoweverOftenACommandNamesIt) {
  const auto [a, b] = KeysOfTwoShards();
  execution_.maxmemory = 1 << 30;
  execution_.keyspace_bytes = static_cast<int64_t>(keyspace_.MemoryBytes());
  const std::string value(1000, 'v');
  EXPECT_EQ(RunWords({"mset", a, value, b, value, a, value, b, value}), "+OK\r\n");
  EXPECT_EQ(execution_.keyspace_bytes, static_cast<int64_t>(keyspace_.MemoryBytes()));
  EXPECT_EQ(Run("del " + a + " " + b + " " + a), ":2\r\n");
  EXPECT_EQ(execution_.keyspace_bytes, static_cast<int64_t>(keyspace_.MemoryBytes()));
}

TEST_P(DispatchTest, RefusesWritesWhileTheLogDoes) {
  UseLog();
  log_.SetState(wal::State::kRefusing);
  EXPECT_EQ(Run("set k v"),
            "-MISCONF Errors writing to the write-ahead log: the disk is on fire\r\n");
  EXPECT_EQ(Run("get k"), "$-1\r\n");
  EXPECT_EQ(dispatcher_.stats().errors.at("MISCONF"), 1u);
  log_.SetState(wal::State::kRunning);
  EXPECT_EQ(Run("set k v"), "+OK\r\n");
}

TEST_P(DispatchTest, WaitsForRoomInTheLogHavingDoneNothing) {
  UseLog();
  log_.has_room = false;
  EXPECT_EQ(Run("incr n"), "");
  EXPECT_EQ(outcome_, Outcome::kNoRoom);
  EXPECT_EQ(Run("get n"), "$-1\r\n");  // a read needs no room
  EXPECT_EQ(outcome_, Outcome::kDone);
  log_.has_room = true;
  EXPECT_EQ(Run("incr n"), ":1\r\n");
  EXPECT_EQ(log_.records().size(), 1u);
  EXPECT_EQ(StatsOf("incr").calls, 1u);
}

TEST_P(DispatchTest, LogsASetAsOneEffectOfItsShard) {
  UseLog();
  EXPECT_EQ(Run("set k v"), "+OK\r\n");
  ASSERT_EQ(log_.records().size(), 1u);
  EXPECT_EQ(log_.records()[0].type, wal::RecordType::kEffect);
  EXPECT_EQ(log_.records()[0].shard, ShardOf("k"));
  EXPECT_EQ(EffectsOf(log_.records()[0]), (std::vector<std::string>{"0:SET k v"}));
}

TEST_P(DispatchTest, LogsAnMsetAsOneTransaction) {
  UseLog();
  const auto [a, b] = KeysOfTwoShards();
  EXPECT_EQ(Run("mset " + a + " 1 " + b + " 2"), "+OK\r\n");
  ASSERT_EQ(log_.records().size(), 1u);
  EXPECT_EQ(log_.records()[0].type, wal::RecordType::kTxn);
  EXPECT_EQ(log_.records()[0].shard, wal::kBroadcastShard);
  EXPECT_EQ(EffectsOf(log_.records()[0]),
            (std::vector<std::string>{"0:SET " + a + " 1", "0:SET " + b + " 2"}));
}

TEST_P(DispatchTest, LogsWhatHappensToAllShardsAsABroadcast) {
  UseLog();
  Run("set k v");
  EXPECT_EQ(Run("flushall"), "+OK\r\n");
  ASSERT_EQ(log_.records().size(), 2u);
  EXPECT_EQ(log_.records()[1].type, wal::RecordType::kBroadcast);
  EXPECT_EQ(log_.records()[1].shard, wal::kBroadcastShard);
}

TEST_P(DispatchTest, LogsNothingForAReadOrAFailureOrAWriteThatChangedNothing) {
  UseLog();
  for (const char* line : {"get k", "del k", "expire k 10", "set k v xx", "incr", "nope",
                           "setex k 0 v", "mget a b c", "dbsize"}) {
    Run(line);
  }
  EXPECT_TRUE(log_.records().empty());
  EXPECT_EQ(dispatcher_.stats().changes, 0u);
}

TEST_P(DispatchTest, LogsTheDeletionWhenAReadMeetsAnExpiredKey) {
  UseLog();
  EXPECT_EQ(Run("set k v px 1"), "+OK\r\n");
  const int64_t written_ms = dispatcher_.now_ms();
  while (dispatcher_.now_ms() < written_ms + 2) dispatcher_.RefreshClock();
  client_ = Client();
  EXPECT_EQ(Run("get k"), "$-1\r\n");
  EXPECT_EQ(client_.own_lsn, 0u) << "what it acknowledges is the clock's doing";
  ASSERT_EQ(log_.records().size(), 2u);
  EXPECT_EQ(log_.records()[1].shard, ShardOf("k"));
  EXPECT_EQ(EffectsOf(log_.records()[1]), (std::vector<std::string>{"0:DEL k"}));
  EXPECT_EQ(dispatcher_.stats().keyspace.expired, 1u);
}

TEST_P(DispatchTest, AReadLeavesAnExpiredKeyWhereItsDeletionCannotBeLogged) {
  UseLog();
  Run("set k v px 1");
  const int64_t written_ms = dispatcher_.now_ms();
  while (dispatcher_.now_ms() < written_ms + 2) dispatcher_.RefreshClock();
  const auto reads_as_absent = [&] {
    EXPECT_EQ(Run("get k"), "$-1\r\n");
    EXPECT_EQ(Run("exists k"), ":0\r\n");
    EXPECT_EQ(Run("dbsize"), ":1\r\n");
    EXPECT_EQ(log_.records().size(), 1u);
  };
  log_.has_room = false;
  reads_as_absent();
  log_.has_room = true;
  log_.SetState(wal::State::kRefusing);
  reads_as_absent();
  log_.SetState(wal::State::kRunning);
  execution_.pause_until_ms = dispatcher_.now_ms() + 1'000'000;
  execution_.pause_writes_only = true;
  reads_as_absent();
  execution_.pause_until_ms = 0;
  EXPECT_EQ(Run("get k"), "$-1\r\n");
  EXPECT_EQ(Run("dbsize"), ":0\r\n");
  EXPECT_EQ(log_.records().size(), 2u);
}

TEST_P(DispatchTest, TheExpiryCycleLogsWhatItRemoves) {
  UseLog();
  constexpr int kKeys = 300;
  for (int i = 0; i < kKeys; ++i) Run("set key" + std::to_string(i) + " v px 1");
  const int64_t written_ms = dispatcher_.now_ms();
  // The queue of deadlines counts in steps of 16 ms.
  while (dispatcher_.now_ms() < written_ms + 40) dispatcher_.RefreshClock();
  execution_.active_expire = false;
  dispatcher_.ExpireCycle(1'000'000);
  EXPECT_EQ(dispatcher_.stats().keyspace.expired, 0u);
  execution_.active_expire = true;
  const size_t logged = log_.records().size();
  // With two loops each looks after every other shard; one is enough to see that it does.
  dispatcher_.ExpireCycle(1'000'000);
  std::set<std::string> deleted;
  for (size_t i = logged; i < log_.records().size(); ++i) {
    for (const std::string& effect : EffectsOf(log_.records()[i])) {
      EXPECT_TRUE(effect.starts_with("0:DEL key")) << effect;
      EXPECT_TRUE(deleted.insert(effect).second) << effect << " twice";
    }
  }
  EXPECT_EQ(deleted.size(), dispatcher_.stats().keyspace.expired);
  if (GetParam() == 1) {
    EXPECT_EQ(deleted.size(), static_cast<size_t>(kKeys));
    client_ = Client();
    Run("get key" + std::to_string(kKeys - 1));
    EXPECT_EQ(client_.gate, static_cast<wal::Lsn>(kKeys)) << "of the SET, whose deadline it tells";
  } else {
    EXPECT_GT(deleted.size(), 0u);
  }
}

TEST_P(DispatchTest, TheGateOfAReplyIsTheLastChangeOfWhatItSaw) {
  UseLog();
  const auto [a, b] = KeysOfTwoShards();
  Run("set " + a + " 1");
  EXPECT_EQ(client_.gate, 1u);
  Run("set " + b + " 2");
  EXPECT_EQ(client_.gate, 2u);

  Client reader;
  std::swap(client_, reader);
  Run("get " + a);
  EXPECT_EQ(client_.gate, 1u) << "it saw nothing of the other shard";
  Run("mget " + a + " " + b);
  EXPECT_EQ(client_.gate, 2u);
  Run("get " + a);
  EXPECT_EQ(client_.gate, 2u) << "a gate never falls: replies leave in order";
}

TEST_P(DispatchTest, AReplyDoesNotWaitForTheNeighboursOfItsKeys) {
  UseLog();
  std::vector<std::string> same{"k"};  // keys of one shard
  for (int i = 0; same.size() < 5; ++i) {
    const std::string key = "k" + std::to_string(i);
    if (ShardOf(key) == ShardOf("k")) same.push_back(key);
  }
  Run("set " + same[0] + " 1");
  Run("mset " + same[1] + " 2 " + same[2] + " 3");
  Run("del absent " + same[2]);
  const auto gate_of = [&](const std::string& words) { return RunAsNewClient(words).gate; };
  EXPECT_EQ(gate_of("get " + same[0]), 1u);
  EXPECT_EQ(gate_of("get " + same[1]), 2u);
  EXPECT_EQ(gate_of("get " + same[2]), 3u);
  EXPECT_EQ(gate_of("get " + same[3]), 0u);
  EXPECT_EQ(gate_of("mget " + same[0] + " " + same[1]), 2u);
  EXPECT_EQ(gate_of("mget " + same[3] + " " + same[4]), 0u);
}

// A reply is void when the record is given up that it acknowledges, not when one is that it read.
TEST_P(DispatchTest, OnlyWhatWritesHasARecordOfItsOwn) {
  UseLog();
  const auto [a, b] = KeysOfTwoShards();
  const auto own_of = [&](const std::string& words) { return RunAsNewClient(words).own_lsn; };
  EXPECT_EQ(own_of("set " + a + " 1"), 1u);
  EXPECT_EQ(own_of("mset " + a + " 1 " + b + " 2"), 2u);
  EXPECT_EQ(own_of("set " + a + " 1 nx"), 0u) << "nothing was written";
  EXPECT_EQ(own_of("mget " + a + " " + b), 0u);
  EXPECT_EQ(own_of("dbsize"), 0u);
  EXPECT_EQ(own_of("swapdb 0 0"), 0u);
  EXPECT_EQ(own_of("flushall"), 3u);
}

TEST_P(DispatchTest, AfterAnExclusiveCommandEveryReplyWaitsForWhatItSaw) {
  UseLog();
  const auto [a, b] = KeysOfTwoShards();
  Run("set " + a + " 1");
  Run("flushall");
  EXPECT_EQ(execution_.base_lsn, 2u);
  EXPECT_EQ(client_.gate, 2u);
  Client reader;
  std::swap(client_, reader);
  Run("get " + b);
  EXPECT_EQ(client_.gate, 2u) << "that the key is absent is the FLUSHALL's doing";
  client_.gate = 0;
  Run("SET k v");
  client_.gate = 0;
  Run("SURVEY");
  EXPECT_EQ(client_.gate, 0u) << "what says nothing of the data waits for no disk";
  Run("DBSIZE");
  EXPECT_EQ(client_.gate, 3u);
  EXPECT_EQ(execution_.base_lsn, 2u) << "it changed nothing that others would see";
}

// The LSN that is left out then was nobody's: a reply that waited for it would not be given up.
TEST_P(DispatchTest, AnExclusiveCommandWaitsForItsOwnRecordWhereTheLogDegradesMeanwhile) {
  UseLog();
  Run("set key 1");
  log_.degrades = true;
  Run("flushall");
  EXPECT_EQ(log_.last_lsn(), 3u);
  EXPECT_EQ(client_.gate, 2u);
}

TEST_P(DispatchTest, ACommandOverMoreShardsThanALockSetHoldsStillRunsAsOne) {
  UseLog();
  std::vector<std::string> words{"mset"};
  for (int i = 0; i < 2000; ++i) {
    words.push_back("key" + std::to_string(i));
    words.push_back("v");
  }
  EXPECT_EQ(RunWords(words), "+OK\r\n");
  ASSERT_EQ(log_.records().size(), 1u);
  EXPECT_EQ(EffectsOf(log_.records()[0]).size(), 2000u);
  EXPECT_EQ(execution_.base_lsn, 0u) << "it took the world, and changed what it names";
  client_.gate = 0;
  Run("get key123");
  EXPECT_EQ(client_.gate, 1u);
  for (uint32_t shard = 0; shard < keyspace_.shard_count(); ++shard) {
    EXPECT_EQ(keyspace_.shard(shard).lock.load(), 0u) << shard;
  }
}

TEST_P(DispatchTest, LetsEveryShardGoWhateverTheOutcome) {
  UseLog();
  Run("set text abc");
  for (const char* line : {"incr text", "mset a 1 b 2 a 3", "mget a b c d", "rename missing x",
                           "rename a b", "msetnx a 1 b 2", "get a", "del a b c"}) {
    Run(line);
    for (uint32_t shard = 0; shard < keyspace_.shard_count(); ++shard) {
      ASSERT_EQ(keyspace_.shard(shard).lock.load(), 0u) << line;
    }
  }
}

TEST_P(DispatchTest, CountsCallsFailuresAndErrors) {
  Run("set text abc");
  Run("incr text");
  Run("incr n");
  Run("fail");
  Run("nope");
  Run("get");
  EXPECT_EQ(StatsOf("set").calls, 1u);
  EXPECT_EQ(StatsOf("incr").calls, 2u);
  EXPECT_EQ(StatsOf("incr").failed, 1u);
  EXPECT_EQ(StatsOf("fail").failed, 1u);
  EXPECT_EQ(StatsOf("get").rejected, 1u);
  EXPECT_EQ(dispatcher_.stats().errors.at("ERR"), 3u);
  EXPECT_EQ(dispatcher_.stats().errors.at("ODD"), 1u);
  EXPECT_EQ(dispatcher_.stats().error_replies, 4u);
  EXPECT_EQ(dispatcher_.stats().changes, 2u);
  EXPECT_GT(StatsOf("set").PercentileCycles(50), 0);
  dispatcher_.ResetStats();
  EXPECT_EQ(StatsOf("set").calls, 0u);
  EXPECT_TRUE(dispatcher_.stats().errors.empty());
}

TEST_P(DispatchTest, SilencesWhatTheClientDoesNotWantToHear) {
  client_.reply_mode = ReplyMode::kOff;
  for (const char* line : {"set k v", "nope", "get", "get k", "fail"}) EXPECT_EQ(Run(line), "");
  client_.reply_mode = ReplyMode::kOn;
  EXPECT_EQ(Run("get k"), "$1\r\nv\r\n");
}

TEST_P(DispatchTest, SkipsOneReplyEvenThatOfARefusedCommand) {
  for (const char* line : {"get k", "nope", "get", "fail"}) {
    client_.reply_mode = ReplyMode::kSkip;
    EXPECT_EQ(Run(line), "") << line;
    EXPECT_EQ(Run("get k"), "$-1\r\n") << "behind " << line;
  }
}

TEST_P(DispatchTest, HoldsCommandsBackWhileClientsArePaused) {
  execution_.pause_until_ms = dispatcher_.now_ms() + 1'000'000;
  EXPECT_EQ(Run("get k"), "");
  EXPECT_EQ(outcome_, Outcome::kPaused);
  EXPECT_EQ(Run("set k v"), "");
  EXPECT_EQ(outcome_, Outcome::kPaused);
  EXPECT_EQ(Run("nope"), "-ERR unknown command 'nope', with args beginning with: \r\n")
      << "a refusal does not wait";
  execution_.pause_writes_only = true;
  EXPECT_EQ(Run("get k"), "$-1\r\n");
  EXPECT_EQ(outcome_, Outcome::kDone);
  EXPECT_EQ(Run("set k v"), "");
  EXPECT_EQ(outcome_, Outcome::kPaused);
  execution_.pause_until_ms = dispatcher_.now_ms() - 1;
  EXPECT_EQ(Run("set k v"), "+OK\r\n");
}

TEST_P(DispatchTest, ReplaysWhatItLoggedIntoTheSameState) {
  UseLog();
  for (const char* line :
       {"set a 1", "incrby a 41", "append b xyz", "mset c 1 d 2 e 3", "setrange b 5 q", "del c",
        "expire d 100000", "persist d", "rename e f", "getdel f", "set g v ex 100000", "copy a h",
        "incrbyfloat a 0.5", "move h 3", "swapdb 3 4"}) {
    const std::string reply = Run(line);
    ASSERT_FALSE(reply.starts_with('-')) << line << " " << reply;
  }
  Keyspace other({.shard_count = 16, .hash_seed = 99});
  World world(1);
  Execution execution{other, world, registry_};
  Replayer replayer(other, registry_);
  for (const FakeLog::Record& record : log_.records()) {
    std::string_view bytes = record.payload;
    if (record.type == wal::RecordType::kTxn) bytes = *TransactionEffects(record.payload);
    ASSERT_TRUE(replayer.Check(bytes).ok());
    const Status status = replayer.Replay(bytes, {0, other.shard_count()});
    ASSERT_TRUE(status.ok()) << EffectsOf(record).front() << ": " << status.message();
  }
  Dispatcher replay(execution, 0);
  for (const char* line : {"get a", "get b", "get c", "get d", "ttl d", "get e", "get f", "get g",
                           "expiretime g", "get h", "dbsize"}) {
    const std::string here = Run(line);
    std::istringstream stream{std::string(line)};
    std::vector<std::string> words;
    for (std::string word; stream >> word;) words.push_back(word);
    const std::vector<std::string_view> argv(words.begin(), words.end());
    Buffer out;
    resp::Reply reply(out, 2);
    Client client;
    ASSERT_EQ(replay.Run(client, Args(argv), reply), Outcome::kDone);
    EXPECT_EQ(out.view(), here) << line;
  }
}

// Two dispatchers of one keyspace, as two loops have them: no update is lost, whether it locks one
// shard, several, or the world.
TEST(DispatchThreadsTest, LoopsShareTheKeyspaceWithoutLosingUpdates) {
  constexpr int kLoops = 3;
  constexpr int kSteps = 3000;
  const Registry registry({StringCommands(), KeyCommands()});
  Keyspace keyspace({.shard_count = 16, .hash_seed = 1});
  World world(kLoops);
  Execution execution{keyspace, world, registry};
  FakeLog log;
  execution.log = &log;
  std::vector<std::thread> threads;
  for (int loop = 0; loop < kLoops; ++loop) {
    threads.emplace_back([&, loop] {
      Dispatcher dispatcher(execution, loop);
      Client client;
      const auto run = [&](std::initializer_list<std::string_view> words) {
        const std::vector<std::string_view> argv(words);
        Buffer out;
        resp::Reply reply(out, 2);
        EXPECT_EQ(dispatcher.Run(client, Args(argv), reply), Outcome::kDone);
        return std::string(out.view());
      };
      for (int step = 0; step < kSteps; ++step) {
        world.Enter(loop);
        run({"incr", "shared"});
        run({"append", "text", "x"});
        run({"mset", "a", std::to_string(step), "b", std::to_string(step)});
        const std::string pair = run({"mget", "a", "b"});
        // "*2", then the same value twice: an MSET is seen whole.
        const std::string values = pair.substr(4);
        EXPECT_EQ(values.substr(0, values.size() / 2), values.substr(values.size() / 2)) << pair;
        world.Breathe(loop);
        if (step % 16 == 0) run({"dbsize"});
        if (step % 16 == 8) run({"set", "from", "x"});
        if (step % 16 == 8) run({"rename", "from", "to"});
        world.Exit(loop);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Dispatcher dispatcher(execution, 0);
  Client client;
  Buffer out;
  resp::Reply reply(out, 2);
  const std::vector<std::string_view> get{"get", "shared"};
  dispatcher.Run(client, Args(get), reply);
  const std::vector<std::string_view> strlen{"strlen", "text"};
  dispatcher.Run(client, Args(strlen), reply);
  const std::string count = std::to_string(kLoops * kSteps);
  EXPECT_EQ(out.view(),
            "$" + std::to_string(count.size()) + "\r\n" + count + "\r\n:" + count + "\r\n");
}

}  // namespace
}  // namespace crab

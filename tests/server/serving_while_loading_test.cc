// A server that is started again: what clients get while its log is replayed.
#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/loader_gate.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/test_server.h"
#include "utils/clock.h"

namespace crab {
namespace {

using test::Eventually;
using test::Gate;
using test::RedisClient;
using test::ScopedDirectory;
using test::TestServer;

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

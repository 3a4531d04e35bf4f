// The life of a whole server: its clients all at once, its end, its log, its sockets.
#include "src/server/server.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/server_story.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Eventually;
using test::Field;
using test::Lines;
using test::Mix;
using test::Number;
using test::RawSocket;
using test::RedisClient;
using test::ScopedDirectory;
using test::ServerTest;
using test::TestSeed;
using test::TestServer;

INSTANTIATE_TEST_SUITE_P(Loops, ServerTest, testing::Values(1, 2, 4),
                         [](const auto& param) { return std::to_string(param.param); });

TEST_P(ServerTest, ManyClientsLoseAndDoubleNothingWhileOthersTakeTheWorld) {
  constexpr int kClients = 6;
  constexpr int kRounds = 150;
  constexpr int kPipeline = 8;
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  TestServer server(Threads());
  std::atomic<bool> done{false};
  std::vector<std::thread> owners;
  for (int number = 0; number < kClients; ++number) {
    owners.emplace_back([&, number] {
      Random random(Mix(TestSeed(), static_cast<uint64_t>(number)));
      RedisClient client(server.unix_endpoint());
      std::map<std::string, std::string> own;
      for (int round = 0; round < kRounds; ++round) {
        std::vector<std::string> expected;
        for (int i = 0; i < kPipeline; ++i) {
          const std::string key = std::to_string(number) + ":" + std::to_string(random.Below(10));
          const std::string value(random.Below(400), static_cast<char>('a' + random.Below(26)));
          switch (random.Below(5)) {
            case 0:
              client.Queue({"SET", key, value});
              own[key] = value;
              expected.push_back("+OK");
              break;
            case 1:
              client.Queue({"GET", key});
              expected.push_back(own.contains(key) ? "$" + own[key] : "(nil)");
              break;
            case 2:
              client.Queue({"DEL", key});
              expected.push_back(":" + std::to_string(own.erase(key)));
              break;
            case 3:
              client.Queue({"MSET", key, value, key + "+", value});
              own[key] = own[key + "+"] = value;
              expected.push_back("+OK");
              break;
            default:
              client.Queue({"INCR", "shared"});
              expected.push_back("");
          }
        }
        int64_t last = 0;
        for (const std::string& reply : expected) {
          const std::string got = client.Read();
          if (!reply.empty()) {
            ASSERT_EQ(got, reply);
            continue;
          }
          ASSERT_GT(Number(got), last) << got;
          last = Number(got);
        }
        // Its increments by name, too: the sum over all clients is checked at the end.
        const auto increments = std::count(expected.begin(), expected.end(), "");
        client.Run({"INCRBY", "sum", std::to_string(increments)});
      }
    });
  }
  std::thread asker([&] {
    RedisClient client(server.unix_endpoint());
    ASSERT_EQ(client.Run("SELECT 5"), "+OK");
    int i = 0;
    while (!done) {
      ASSERT_EQ(client.Run("SET here now"), "+OK");
      ASSERT_EQ(client.Run("DBSIZE"), ":1");
      ASSERT_EQ(client.Run("FLUSHDB"), "+OK");
      ASSERT_EQ(client.Run("DBSIZE"), ":0");
      ASSERT_EQ(client.Run("SWAPDB 6 7"), "+OK");
      ASSERT_EQ(client.Run("CONFIG SET timeout " + std::to_string(1000 + ++i % 7)), "+OK");
      ASSERT_TRUE(client.Run("INFO").starts_with("$# Server"));
      ASSERT_GE(Lines(client.Run("CLIENT LIST")).size(), 1u);
      ASSERT_TRUE(client.Run("SCAN 0 COUNT 100").starts_with("["));
    }
  });
  for (std::thread& owner : owners) owner.join();
  done = true;
  asker.join();
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("GET shared"), client.Run("GET sum"));
  EXPECT_EQ(client.Run("FLUSHALL"), "+OK");
  EXPECT_EQ(client.Run("DBSIZE"), ":0");
}

TEST_P(ServerTest, HoldsWritesOfAllLoopsBackUntilThePauseEnds) {
  TestServer server(Threads());
  RedisClient admin(server.unix_endpoint());
  std::vector<std::unique_ptr<RawSocket>> writers;
  std::vector<std::string> ids;
  for (int i = 0; i < 4; ++i) {
    writers.push_back(std::make_unique<RawSocket>(server.unix_endpoint()));
    ASSERT_TRUE(writers.back()->Send("CLIENT ID\r\n"));
    const std::string line = writers.back()->ReadLine();
    ids.push_back(line.substr(1, line.size() - 3));
  }
  ASSERT_EQ(admin.Run("CLIENT PAUSE 10000000 WRITE"), "+OK");
  for (const auto& writer : writers) ASSERT_TRUE(writer->Send("GET n\r\nINCR n\r\n"));
  for (const auto& writer : writers) EXPECT_EQ(writer->ReadLine(), "$-1\r\n");
  // Each request has arrived: it is counted as input that waits.
  for (const std::string& id : ids) {
    EXPECT_TRUE(Eventually([&] {
      return Field(admin.Run("CLIENT LIST ID " + id), "qbuf=") != "0";
    })) << id;
  }
  EXPECT_EQ(admin.Run("GET n"), "(nil)");
  for (const auto& writer : writers) EXPECT_FALSE(writer->Readable(0));
  ASSERT_EQ(admin.Run("CLIENT UNPAUSE"), "+OK");
  int64_t sum = 0;
  for (const auto& writer : writers) sum += std::stoll(writer->ReadLine().substr(1));
  EXPECT_EQ(sum, 1 + 2 + 3 + 4);
  // A pause also ends by itself.
  ASSERT_EQ(admin.Run("CLIENT PAUSE 20 ALL"), "+OK");
  EXPECT_EQ(admin.Run("INCR n"), ":5");
}

TEST_P(ServerTest, TheMemoryInUseStaysBelowItsLimit) {
  TestServer server(Threads({"--maxmemory-policy", "volatile-lru"}));
  RedisClient client(server.unix_endpoint());
  const auto used = [&] { return std::stoll(Field(client.Run("INFO memory"), "used_memory:")); };
  const int64_t limit = used() + 100 * 1024;
  ASSERT_EQ(client.Run("CONFIG SET maxmemory " + std::to_string(limit)), "+OK");
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(client.Run("SET stays:" + std::to_string(i) + " x"), "+OK");
  }
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_EQ(client.Run("SETEX key:" + std::to_string(i) + " 1000 x"), "+OK");
  }
  EXPECT_LE(used(), limit);
  EXPECT_NE(Field(client.Run("INFO stats"), "evicted_keys:"), "0");
  for (int i = 0; i < 100; ++i) {
    EXPECT_EQ(client.Run("EXISTS stays:" + std::to_string(i)), ":1");
  }
}

TEST_P(ServerTest, ResetstatForgetsWhatWasFreedAside) {
  TestServer server(Threads());
  RedisClient client(server.unix_endpoint());
  ASSERT_EQ(client.Run("SET key value"), "+OK");
  ASSERT_EQ(client.Run("FLUSHALL ASYNC"), "+OK");
  const auto freed = [&] { return Field(client.Run("INFO memory"), "lazyfreed_objects:"); };
  EXPECT_TRUE(Eventually([&] { return freed() == "1"; }));
  ASSERT_EQ(client.Run("CONFIG RESETSTAT"), "+OK");
  EXPECT_EQ(freed(), "0");
}

TEST_P(ServerTest, StopsWhenAClientAsksForIt) {
  TestServer server(Threads());
  RawSocket bystander(server.unix_endpoint());
  ASSERT_TRUE(bystander.Send("PING\r\n"));
  EXPECT_EQ(bystander.ReadLine(), "+PONG\r\n");
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("SHUTDOWN NOSAVE\r\n"));
  EXPECT_EQ(bystander.ReadToEnd(), "");
  EXPECT_FALSE(client.Readable(20)) << "there is still a server";
  EXPECT_TRUE(server.Wait().ok());
  EXPECT_EQ(client.ReadToEnd(), "") << "no reply: the closed connection is the answer";
  EXPECT_FALSE(RawSocket(server.unix_endpoint()).connected()) << "the socket's file is gone";
}

// --- with a log ---

TEST_P(ServerTest, HasItsDataBackAfterARestart) {
  for (const char* policy : {"none", "async", "sync"}) {
    SCOPED_TRACE(policy);
    ScopedDirectory directory;
    TestServer::Options options = Threads({"--wal-sync-policy", policy});
    options.log_directory = directory.path() + "/wal";
    {
      TestServer server(options);
      RedisClient client(server.unix_endpoint());
      for (int i = 0; i < 100; ++i) {
        ASSERT_EQ(client.Run({"SET", "key" + std::to_string(i), std::to_string(i)}), "+OK");
      }
      EXPECT_EQ(client.Run("MSET a 1 b 2"), "+OK");
      EXPECT_EQ(client.Run("INCRBY a 41"), ":42");
      EXPECT_EQ(client.Run("DEL key0 key1"), ":2");
      EXPECT_EQ(client.Run("SET gone x PX 1"), "+OK");
      EXPECT_EQ(client.Run("SET later x EX 100000"), "+OK");
      EXPECT_EQ(client.Run("RENAME b c"), "+OK");
      EXPECT_EQ(client.Run({"SET", "big", std::string(3 << 20, 'b')}), "+OK");
      EXPECT_EQ(client.Run("SELECT 3"), "+OK");
      EXPECT_EQ(client.Run("SET here too"), "+OK");
      EXPECT_TRUE(server.Stop().ok());
    }
    options.threads = GetParam() % 4 + 1;  // whatever the number of loops was
    TestServer server(options);
    EXPECT_TRUE(server.server().recovery().lost.empty());
    EXPECT_EQ(server.server().recovery().corrupted_entries, 0u);
    RedisClient client(server.unix_endpoint());
    EXPECT_EQ(client.Run("GET a"), "$42");
    EXPECT_EQ(client.Run("GET key0"), "(nil)");
    EXPECT_EQ(client.Run("GET key99"), "$99");
    EXPECT_EQ(client.Run("EXISTS b gone"), ":0");
    EXPECT_EQ(client.Run("GET c"), "$2");
    EXPECT_GT(Number(client.Run("TTL later")), 90'000);
    EXPECT_EQ(client.Run("STRLEN big"), ":" + std::to_string(3 << 20));
    EXPECT_EQ(client.Run("DBSIZE"), ":102") << "98 keys, a, c, later and big";
    EXPECT_EQ(client.Run("SELECT 3"), "+OK");
    EXPECT_EQ(client.Run("GET here"), "$too");
  }
}

// As one change it would be more than a record holds, from some number of keys on.
TEST_P(ServerTest, PopulatesInRecordsOfABoundedSize) {
  ScopedDirectory directory;
  TestServer::Options options = Threads({"--enable-debug-command", "yes"});
  options.log_directory = directory.path() + "/wal";
  std::string digest;
  {
    TestServer server(options);
    RedisClient client(server.unix_endpoint());
    EXPECT_EQ(client.Run("DEBUG POPULATE 1 key 3221225472").substr(0, 4), "-ERR");
    EXPECT_EQ(client.Run("DEBUG POPULATE 1 key 9223372036854775807").substr(0, 4), "-ERR");
    EXPECT_EQ(client.Run("DBSIZE"), ":0");
    ASSERT_EQ(client.Run("DEBUG POPULATE 70 key 1000000"), "+OK");
    EXPECT_EQ(server.server().log()->last_lsn(), 2u);
    digest = client.Run("DEBUG DIGEST");
    EXPECT_TRUE(server.Stop().ok());
  }
  TestServer server(options);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("DBSIZE"), ":70");
  EXPECT_EQ(client.Run("DEBUG DIGEST"), digest);
}

TEST_P(ServerTest, AGracefulStopUnderLoadLosesNothingAcknowledged) {
  ScopedDirectory directory;
  TestServer::Options options = Threads();
  options.log_directory = directory.path() + "/wal";
  constexpr int kClients = 4;
  std::atomic<int64_t> acknowledged{0};
  {
    TestServer server(options);
    std::vector<std::thread> threads;
    for (int i = 0; i < kClients; ++i) {
      threads.emplace_back([&] {
        RedisClient client(server.unix_endpoint());
        while (Number(client.Run({"INCR", "n"})) > 0) ++acknowledged;
      });
    }
    EXPECT_TRUE(Eventually([&] { return acknowledged > 500; }));
    server.server().RequestStop();
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(server.Wait().ok());
  }
  TestServer server(options);
  RedisClient client(server.unix_endpoint());
  const int64_t found = std::stoll(client.Run("GET n").substr(1));
  EXPECT_GE(found, acknowledged);
  EXPECT_LE(found, acknowledged + kClients) << "each client had one request under way at most";
}

TEST_P(ServerTest, UnderSyncAReplyMeansThatItIsOnDisk) {
  ScopedDirectory directory;
  TestServer::Options options = Threads({"--wal-sync-policy", "sync"});
  options.log_directory = directory.path() + "/wal";
  TestServer server(options);
  const wal::Log& log = *server.server().log();
  RedisClient client(server.unix_endpoint());
  for (int i = 1; i <= 50; ++i) {
    const wal::Lsn before = log.last_lsn();
    ASSERT_EQ(client.Run("INCR n"), ":" + std::to_string(i));
    ASSERT_GT(log.durable_lsn(), before);
  }
  EXPECT_EQ(client.Run("CONFIG SET wal-sync-policy none"), "+OK");
  EXPECT_EQ(client.Run("INCR n"), ":51");
  EXPECT_EQ(client.Run("WAITAOF 1 0 0"), "[:1, :0]");
  EXPECT_EQ(log.durable_lsn(), log.last_lsn());
}

TEST_P(ServerTest, SwitchesThePolicyUnderLoad) {
  ScopedDirectory directory;
  TestServer::Options options = Threads();
  options.log_directory = directory.path() + "/wal";
  TestServer server(options);
  std::atomic<bool> done{false};
  std::atomic<int64_t> acknowledged{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      RedisClient client(server.unix_endpoint());
      while (!done) {
        for (int n = 0; n < 10; ++n) client.Queue({"INCR", "n"});
        for (int n = 0; n < 10; ++n) {
          ASSERT_GT(Number(client.Read()), 0);
          ++acknowledged;
        }
      }
    });
  }
  RedisClient admin(server.unix_endpoint());
  for (int i = 0; i < 30; ++i) {
    const char* const policies[] = {"sync", "none", "async"};
    ASSERT_EQ(admin.Run({"CONFIG", "SET", "wal-sync-policy", policies[i % 3]}), "+OK");
    const int64_t seen = acknowledged;
    EXPECT_TRUE(Eventually([&] { return acknowledged > seen + 5; })) << "no reply may be forgotten";
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admin.Run("GET n"), "$" + std::to_string(acknowledged));
}

TEST_P(ServerTest, TheLogGoesOffAndOnAndKeepsItsWord) {
  ScopedDirectory directory;
  auto options = Threads({"--wal-ring-dir", directory.path(), "--wal-sync-policy", "sync"});
  options.log_directory = directory.path() + "/wal";
  {
    TestServer server(options);
    RedisClient client(server.unix_endpoint());
    EXPECT_EQ(client.Run("SET before 1"), "+OK");
    EXPECT_EQ(client.Run("CONFIG SET wal-enabled no"), "+OK");
    EXPECT_EQ(client.Run("CONFIG GET wal-enabled"), "[$wal-enabled, $no]");
    EXPECT_EQ(client.Run("SET without 2"), "+OK");
    EXPECT_EQ(client.Run("CONFIG SET wal-enabled yes"), "+OK");
    EXPECT_EQ(client.Run("SET after 3"), "+OK");
    EXPECT_TRUE(server.Stop().ok());
  }
  TestServer server(options);
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("MGET before without after"), "[$1, $2, $3]");
}

// --- one configuration is enough ---

TEST(ServerSocketTest, ServesTcpAndUnixSocketAtOnce) {
  TestServer server({.tcp = true});
  RedisClient tcp(server.tcp_endpoint());
  RedisClient local(server.unix_endpoint());
  EXPECT_EQ(tcp.Run("SET k v"), "+OK");
  EXPECT_EQ(local.Run("GET k"), "$v");
  const std::string line = tcp.Run("CLIENT INFO");
  EXPECT_TRUE(Field(line, "addr=").starts_with("127.0.0.1:"));
  EXPECT_EQ(Field(line, "laddr="), "127.0.0.1:" + std::to_string(server.tcp_endpoint().port));
  EXPECT_EQ(Field(line, "flags="), "N");
  // The old form of CLIENT KILL, by address.
  EXPECT_EQ(local.Run("CLIENT KILL " + Field(line, "addr=")), "+OK");
  EXPECT_EQ(tcp.Run("PING"), "(closed)");
}

TEST(ServerSocketTest, ListensElsewhereAtTheSamePort) {
  TestServer server({.tcp = true});
  RedisClient local(server.unix_endpoint());
  EXPECT_EQ(local.Run({"CONFIG", "SET", "bind", "127.0.0.1 127.0.0.2"}), "+OK");
  EXPECT_EQ(RedisClient(server.tcp_endpoint()).Run("PING"), "+PONG");
  EXPECT_EQ(local.Run({"CONFIG", "SET", "bind", "0.0.0.0"}), "+OK");
  EXPECT_EQ(RedisClient(server.tcp_endpoint()).Run("PING"), "+PONG");
  // An address that this host does not have: all stays as it was.
  EXPECT_EQ(local.Run({"CONFIG", "SET", "bind", "192.0.2.1"}),
            "-ERR CONFIG SET failed (possibly related to argument 'bind') - Failed to bind to "
            "specified addresses.");
  EXPECT_EQ(RedisClient(server.tcp_endpoint()).Run("PING"), "+PONG");
}

TEST(ServerSocketTest, GivesTheUnixSocketItsPermissions) {
  TestServer server({.arguments = {"--unixsocketperm", "700"}});
  struct stat status {};
  ASSERT_EQ(stat(server.unix_endpoint().unix_path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0700u);
}

TEST(ServerSocketTest, TwoServersLiveInOneProcess) {
  TestServer one, two;
  RedisClient first(one.unix_endpoint()), second(two.unix_endpoint());
  EXPECT_EQ(first.Run("SET k 1"), "+OK");
  EXPECT_EQ(second.Run("GET k"), "(nil)");
  EXPECT_TRUE(one.Stop().ok());
  EXPECT_EQ(second.Run("PING"), "+PONG");
}

TEST(ServerStartTest, SaysWhatCannotBeHad) {
  ScopedDirectory directory;
  const auto error = [](const test::Arguments& arguments) {
    auto config = test::ConfigOf(arguments);
    if (!config.ok()) return std::string(config.message());
    auto server = Server::Start(std::move(*config));
    return std::string(server.ok() ? "(it started)" : server.message());
  };
  SetLogLevel(LogLevel::kNothing);
  TestServer running({.log_directory = directory.path() + "/wal", .tcp = true});
  const std::string port = std::to_string(running.tcp_endpoint().port);
  EXPECT_EQ(error({"--port", port}),
            "cannot listen on 127.0.0.1:" + port +
                ": Address already in use; stop the other server or choose another --port");
  EXPECT_NE(error({"--port", "0", "--unixsocket", directory.path() + "/other", "--wal-enabled",
                   "yes", "--wal-dir", directory.path() + "/wal"})
                .find("another server is using the log directory"),
            std::string::npos);
  EXPECT_EQ(error({"--port", "0"}), "nothing to listen on: port is 0 and unixsocket is not set");
  EXPECT_NE(
      error({"--port", "0", "--unixsocket", "/nonexistent/socket"}).find("/nonexistent/socket"),
      std::string::npos);
  EXPECT_NE(error({"--port", "0", "--unixsocket", std::string(200, 'x')}).find("at most 107 bytes"),
            std::string::npos);
  EXPECT_NE(error({"--nonsense", "1"}).find("nonsense"), std::string::npos);
  RedisClient client(running.unix_endpoint());
  EXPECT_EQ(client.Run("PING"), "+PONG") << "the one that runs is not disturbed";
}

}  // namespace
}  // namespace crab

#include "src/server/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <future>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/fake_log.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Endpoint;
using test::Eventually;
using test::FakeLog;
using test::Mix;
using test::RawSocket;
using test::RedisClient;
using test::Request;
using test::ScopedDirectory;
using test::TestSeed;
using test::TestServer;

std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line != "\r") lines.push_back(line);
  }
  return lines;
}

// "name=value" of a CLIENT LIST line, "name:value" of INFO.
std::string Field(const std::string& text, const std::string& name) {
  size_t at = text.find(name);
  while (at != std::string::npos && at != 0 &&
         std::string(" \n$").find(text[at - 1]) == std::string::npos) {
    at = text.find(name, at + 1);
  }
  if (at == std::string::npos) return "(no " + name + ")";
  const size_t begin = at + name.size();
  return text.substr(begin, text.find_first_of(" \r\n", begin) - begin);
}

int64_t Number(const std::string& reply) {
  return reply.starts_with(':') ? std::stoll(reply.substr(1)) : -1;
}

// Runs on loop 0 with the world held, and returns when it has run.
template <typename Work>
void Exclusively(Server& server, Work&& work) {
  std::promise<void> done;
  server.loops().front()->Post([&](Loop& loop) {
    loop.dispatcher().Exclusively(work);
    done.set_value();
  });
  done.get_future().wait();
}

class ServerTest : public testing::TestWithParam<int> {
 protected:
  TestServer::Options Threads(test::Arguments arguments = {}) {
    return {.threads = GetParam(), .arguments = std::move(arguments)};
  }
};

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

TEST_P(ServerTest, SpreadsConnectionsOverTheLoopsAndListsThemAll) {
  TestServer server(Threads());
  std::vector<std::unique_ptr<RedisClient>> clients;
  std::vector<int64_t> ids;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<RedisClient>(server.unix_endpoint()));
    ids.push_back(Number(clients.back()->Run("CLIENT ID")));
    EXPECT_EQ(clients.back()->Run({"CLIENT", "SETNAME", "client" + std::to_string(i)}), "+OK");
  }
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
  for (const auto& loop : server.server().loops()) {
    EXPECT_EQ(loop->connection_count(), 8u / static_cast<size_t>(GetParam()));
  }
  const std::vector<std::string> lines = Lines(clients[3]->Run("CLIENT LIST").substr(1));
  ASSERT_EQ(lines.size(), 8u);
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(Field(lines[i], "id="), std::to_string(ids[i]));
    EXPECT_EQ(Field(lines[i], "name="), "client" + std::to_string(i));
    EXPECT_EQ(Field(lines[i], "cmd="), i == 3 ? "client|list" : "client|setname");
    EXPECT_EQ(Field(lines[i], "flags="), "U");
  }
}

TEST_P(ServerTest, KillsClientsOfAnyLoop) {
  TestServer server(Threads());
  RedisClient killer(server.unix_endpoint());
  const std::string own_id = std::to_string(Number(killer.Run("CLIENT ID")));
  for (int i = 0; i < 6; ++i) {
    RawSocket victim(server.unix_endpoint());
    ASSERT_TRUE(victim.Send("CLIENT ID\r\n"));
    const std::string line = victim.ReadLine();
    const std::string id = line.substr(1, line.size() - 3);
    EXPECT_EQ(killer.Run("CLIENT KILL ID " + id), ":1");
    EXPECT_EQ(victim.ReadToEnd(), "");
    EXPECT_EQ(killer.Run("CLIENT KILL ID " + id), ":0") << "it is gone at once";
  }
  EXPECT_EQ(killer.Run("CLIENT KILL ID " + own_id), ":0") << "SKIPME is yes by default";
  std::vector<std::unique_ptr<RawSocket>> victims;
  for (int i = 0; i < 5; ++i) {
    victims.push_back(std::make_unique<RawSocket>(server.unix_endpoint()));
    ASSERT_TRUE(victims.back()->Send("PING\r\n"));
    ASSERT_EQ(victims.back()->ReadLine(), "+PONG\r\n");
  }
  EXPECT_EQ(killer.Run("CLIENT KILL TYPE normal"), ":5");
  for (const auto& victim : victims) EXPECT_EQ(victim->ReadToEnd(), "");
  EXPECT_EQ(killer.Run("CLIENT KILL ID " + own_id + " SKIPME no"), ":1") << "answered, then closed";
  EXPECT_EQ(killer.Run("PING"), "(closed)");
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

TEST_P(ServerTest, TurnsAwayMoreThanMaxclients) {
  TestServer server(Threads({"--maxclients", "3"}));
  std::vector<std::unique_ptr<RedisClient>> clients;
  for (int i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<RedisClient>(server.unix_endpoint()));
    ASSERT_EQ(clients.back()->Run("PING"), "+PONG");
  }
  EXPECT_EQ(RawSocket(server.unix_endpoint()).ReadToEnd(),
            "-ERR max number of clients reached\r\n");
  EXPECT_EQ(Field(clients[0]->Run("INFO stats"), "rejected_connections:"), "1");
  clients.pop_back();
  EXPECT_TRUE(
      Eventually([&] { return RedisClient(server.unix_endpoint()).Run("PING") == "+PONG"; }));
}

TEST_P(ServerTest, ClosesIdleClientsAfterTheTimeout) {
  TestServer server(Threads({"--timeout", "1"}));
  RawSocket idle(server.unix_endpoint());
  ASSERT_TRUE(idle.Send("PING\r\n"));
  RedisClient busy(server.unix_endpoint());
  EXPECT_EQ(idle.ReadLine(), "+PONG\r\n");
  while (!idle.Readable(50)) ASSERT_EQ(busy.Run("PING"), "+PONG");
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_EQ(busy.Run("PING"), "+PONG");
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

TEST_P(ServerTest, CarriesBigValuesBothWays) {
  TestServer server(Threads());
  const std::string value(24 << 20, 'v');
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run({"SET", "big", value}), "+OK");
  EXPECT_EQ(client.Run({"STRLEN", "big"}), ":" + std::to_string(value.size()));
  EXPECT_EQ(client.Run({"GET", "big"}), "$" + value);
  // A reader that takes its time holds nobody else up.
  RawSocket slow(server.unix_endpoint());
  ASSERT_TRUE(slow.Send("GET big\r\nPING\r\n"));
  for (int i = 0; i < 100; ++i) ASSERT_EQ(client.Run("PING"), "+PONG");
  EXPECT_EQ(slow.ReadLine(), "$" + std::to_string(value.size()) + "\r\n");
  EXPECT_EQ(slow.ReadExactly(value.size() + 2), value + "\r\n");
  EXPECT_EQ(slow.ReadLine(), "+PONG\r\n");
}

TEST_P(ServerTest, ClosesAReaderThatNeverReads) {
  TestServer server(Threads({"--client-output-buffer-limit", "normal 4mb 0 0"}));
  RedisClient client(server.unix_endpoint());
  ASSERT_EQ(client.Run({"SET", "big", std::string(1 << 20, 'v')}), "+OK");
  RawSocket reader(server.unix_endpoint());
  for (int i = 0; i < 100; ++i) {
    if (!reader.Send("GET big\r\n")) break;
  }
  EXPECT_LT(reader.ReadToEnd().size(), size_t{20 << 20});
  EXPECT_EQ(client.Run("PING"), "+PONG");
  EXPECT_EQ(Field(client.Run("INFO stats"), "client_output_buffer_limit_disconnections:"), "1");
}

TEST_P(ServerTest, KeepsLittleForAClientThatHasNotToldWhoItIs) {
  TestServer server(Threads({"--requirepass", "secret"}));
  RawSocket stranger(server.unix_endpoint());
  std::string pings;
  for (int i = 0; i < 5000; ++i) pings += "PING\r\n";
  for (int i = 0; i < 100 && stranger.Send(pings); ++i) continue;
  EXPECT_LT(stranger.ReadToEnd().size(), size_t{4 << 20});  // of 18 million bytes of errors
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("AUTH secret"), "+OK");
  EXPECT_EQ(Field(client.Run("INFO stats"), "client_output_buffer_limit_disconnections:"), "1");
}

TEST_P(ServerTest, ClosesTheLargestClientsAboveTheirCommonLimit) {
  TestServer server(Threads({"--maxmemory-clients", "3mb"}));
  RedisClient client(server.unix_endpoint());
  RawSocket spared(server.unix_endpoint());
  RawSocket large(server.unix_endpoint());
  const std::string begun = "*2\r\n$4\r\nECHO\r\n$8000000\r\n" + std::string(4 << 20, 'x');
  ASSERT_TRUE(spared.Send("CLIENT NO-EVICT ON\r\n" + begun));
  EXPECT_EQ(spared.ReadLine(), "+OK\r\n");
  ASSERT_TRUE(large.Send(begun));
  EXPECT_EQ(large.ReadToEnd(), "");
  EXPECT_EQ(Field(client.Run("INFO stats"), "evicted_clients:"), "1");
  EXPECT_FALSE(spared.Readable(0));
}

TEST_P(ServerTest, SurvivesAnyBytes) {
  TestServer server(Threads());
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  RedisClient client(server.unix_endpoint());
  std::vector<std::thread> threads;
  for (uint64_t number = 0; number < 3; ++number) {
    threads.emplace_back([&, number] {
      Random random(Mix(TestSeed(), number));
      const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
      while (std::chrono::steady_clock::now() < end) {
        RawSocket socket(server.unix_endpoint());
        ASSERT_TRUE(socket.connected());
        for (uint64_t pieces = 1 + random.Below(5); pieces > 0; --pieces) {
          std::string bytes;
          for (uint64_t i = random.Below(2000); i > 0; --i) {
            bytes += random.Below(2) == 0 ? "*$:\r\n0123456789-"[random.Below(16)]
                                          : static_cast<char>(random.Below(256));
          }
          if (!socket.Send(bytes)) break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(client.Run("PING"), "+PONG");
  EXPECT_TRUE(Eventually([&] { return Lines(client.Run("CLIENT LIST")).size() == 1; }));
}

TEST_P(ServerTest, StopsWhenAClientAsksForIt) {
  TestServer server(Threads());
  RawSocket bystander(server.unix_endpoint());
  ASSERT_TRUE(bystander.Send("PING\r\n"));
  EXPECT_EQ(bystander.ReadLine(), "+PONG\r\n");
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("SHUTDOWN NOSAVE\r\n"));
  EXPECT_EQ(client.ReadToEnd(), "") << "no reply: the closed connection is the answer";
  EXPECT_EQ(bystander.ReadToEnd(), "");
  EXPECT_TRUE(server.Wait().ok());
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

// A log whose releases the test decides, in a server that runs.
class HeldReplies {
 public:
  explicit HeldReplies(TestServer& server) : server_(server.server()) {
    log_.releases_at_once = false;
    log_.SetListener([this] {
      for (const auto& loop : server_.loops()) loop->WakeForLog();
    });
    Exclusively(server_, [&] { server_.execution().log = &log_; });
  }
  ~HeldReplies() {
    Exclusively(server_, [&] { server_.execution().log = nullptr; });
  }
  FakeLog& log() { return log_; }

 private:
  Server& server_;
  FakeLog log_;
};

TEST_P(ServerTest, WakesEveryConnectionWhoseReplyIsReleased) {
  TestServer server(Threads());
  HeldReplies held(server);
  constexpr int kClients = 6;
  constexpr int kRounds = 300;
  std::atomic<int> running{kClients};
  std::vector<std::thread> threads;
  for (int number = 0; number < kClients; ++number) {
    threads.emplace_back([&, number] {
      RedisClient client(server.unix_endpoint());
      const std::string key = "key" + std::to_string(number);
      for (int round = 1; round <= kRounds; ++round) {
        // A lost wake-up would end in "(timeout)".
        ASSERT_EQ(client.Run({"INCR", key}), ":" + std::to_string(round));
      }
      --running;
    });
  }
  // The log's writer: releases what there is, again and again.
  while (running > 0 && !HasFailure()) {
    const wal::Lsn last = held.log().last_lsn();
    if (last > held.log().release_lsn()) held.log().Release(last);
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_P(ServerTest, NoReplyLeavesBeforeItsReleaseOnAnyLoop) {
  TestServer server(Threads());
  std::vector<std::unique_ptr<RawSocket>> clients;
  HeldReplies held(server);
  for (int i = 0; i < 4; ++i) {
    clients.push_back(std::make_unique<RawSocket>(server.unix_endpoint()));
    ASSERT_TRUE(clients.back()->Send("PING\r\nINCR n\r\nPING\r\n"));
    ASSERT_TRUE(Eventually([&] { return held.log().last_lsn() == static_cast<wal::Lsn>(i + 1); }));
  }
  for (int i = 0; i < 4; ++i) {
    // What came before the write may leave with it, never without.
    EXPECT_FALSE(clients[i]->Readable(0));
    held.log().Release(static_cast<wal::Lsn>(i + 1));
    EXPECT_EQ(clients[i]->ReadLine() + clients[i]->ReadLine() + clients[i]->ReadLine(),
              "+PONG\r\n:" + std::to_string(i + 1) + "\r\n+PONG\r\n");
  }
}

TEST_P(ServerTest, AReplyWhoseRecordWasGivenUpNeverLeaves) {
  TestServer server(Threads());
  HeldReplies held(server);
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("INCR n\r\n"));
  ASSERT_TRUE(Eventually([&] { return held.log().last_lsn() == 1; }));
  Exclusively(server.server(), [&] { held.log().failed_above = 0; });
  held.log().Release(0);  // the log wakes its waiters to tell them
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_P(ServerTest, AClientThatHasSaidAllStillGetsItsHeldReplies) {
  TestServer server(Threads());
  HeldReplies held(server);
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("INCR n\r\n"));
  ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
  ASSERT_TRUE(Eventually([&] { return held.log().last_lsn() == 1; }));
  EXPECT_FALSE(client.Readable(20));
  held.log().Release(1);
  EXPECT_EQ(client.ReadToEnd(), ":1\r\n");
}

TEST_P(ServerTest, ReadsNoMoreFromAClientWhoseHeldRepliesPileUp) {
  TestServer server(Threads());
  RedisClient other(server.unix_endpoint());
  ASSERT_EQ(other.Run({"SET", "big", std::string(1 << 20, 'v')}), "+OK");
  HeldReplies held(server);
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("INCR n\r\n"));
  ASSERT_TRUE(Eventually([&] { return held.log().last_lsn() == 1; }));
  // Behind 20 MiB of replies more requests than one read and the socket's buffers take.
  std::string requests;
  for (int i = 0; i < 20; ++i) requests += "GET big\r\n";
  for (int i = 0; i < 500'000; ++i) requests += "PING\r\n";
  int64_t sent = 0;
  for (int idle = 0; idle < 20 && sent < static_cast<int64_t>(requests.size());) {
    const int64_t step = client.SendSome(std::string_view(requests).substr(sent));
    ASSERT_GE(step, 0);
    sent += step;
    idle = step == 0 ? idle + 1 : 0;
    if (step == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_LT(sent, static_cast<int64_t>(requests.size()));
  held.log().Release(1);
  EXPECT_EQ(client.ReadLine(), ":1\r\n");
  EXPECT_EQ(client.ReadLine(), "$1048576\r\n");
}

TEST_P(ServerTest, SpreadsConnectionsThatComeAtOnce) {
  TestServer server(Threads());
  std::vector<std::unique_ptr<RawSocket>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<RawSocket>(server.unix_endpoint()));
  }
  RedisClient(server.unix_endpoint()).Run("PING");  // all before it are accepted
  size_t least = SIZE_MAX, most = 0;
  for (const auto& loop : server.server().loops()) {
    least = std::min(least, loop->connection_count());
    most = std::max(most, loop->connection_count());
  }
  EXPECT_LE(most - least, 2u);
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

TEST(ServerSocketTest, ProtectedModeTurnsStrangersAway) {
  // A connection to an address of this host that is no loopback one comes from that address.
  std::string own_address;
  ifaddrs* addresses = nullptr;
  ASSERT_EQ(getifaddrs(&addresses), 0);
  for (const ifaddrs* i = addresses; i != nullptr; i = i->ifa_next) {
    if (i->ifa_addr == nullptr || i->ifa_addr->sa_family != AF_INET) continue;
    if ((i->ifa_flags & IFF_LOOPBACK) != 0 || (i->ifa_flags & IFF_UP) == 0) continue;
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(i->ifa_addr)->sin_addr, text, sizeof(text));
    own_address = text;
  }
  freeifaddrs(addresses);
  TestServer server({.arguments = {"--bind", "0.0.0.0"}, .tcp = true});
  RedisClient local(server.tcp_endpoint());
  EXPECT_EQ(local.Run("PING"), "+PONG");
  if (own_address.empty()) return;  // a host with a loopback interface only has no strangers
  Endpoint stranger = server.tcp_endpoint();
  stranger.host = own_address;
  EXPECT_TRUE(RawSocket(stranger).ReadToEnd().starts_with(
      "-DENIED Redis is running in protected mode because protected mode is enabled"));
  EXPECT_EQ(local.Run("CONFIG SET protected-mode no"), "+OK");
  EXPECT_EQ(RedisClient(stranger).Run("PING"), "+PONG");
  EXPECT_EQ(local.Run("CONFIG SET protected-mode yes requirepass secret"), "+OK");
  EXPECT_EQ(RedisClient(stranger).Run("PING"), "-NOAUTH Authentication required.");
}

TEST(ServerSocketTest, BearsThousandsOfHalfOpenConnections) {
  constexpr int kWanted = 10'000;
  rlimit files{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &files), 0);
  files.rlim_cur = std::min<rlim_t>(files.rlim_max, 2 * kWanted + 500);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &files), 0);
  // Both ends of each live in this process.
  const int count = std::min<int>(kWanted, (static_cast<int>(files.rlim_cur) - 300) / 2);
  TestServer server({.arguments = {"--maxclients", std::to_string(count + 10)}});
  RedisClient client(server.unix_endpoint());
  ASSERT_EQ(client.Run("PING"), "+PONG");
  const auto resident_bytes = [] {
    int64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    return pages * sysconf(_SC_PAGESIZE);
  };
  const int64_t before = resident_bytes();
  std::vector<std::unique_ptr<RawSocket>> sockets;
  for (int i = 0; i < count; ++i) {
    sockets.push_back(std::make_unique<RawSocket>(server.unix_endpoint()));
    ASSERT_TRUE(sockets.back()->connected()) << i;
    // A request that never ends, a promise of half a gigabyte, half a line, nothing.
    const char* const beginnings[] = {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nab",
                                      "*2\r\n$4\r\nECHO\r\n$536870912\r\nx", "PIN", ""};
    ASSERT_TRUE(sockets.back()->Send(beginnings[i % 4])) << i;
  }
  const auto connected = [&] { return Field(client.Run("INFO clients"), "connected_clients:"); };
  EXPECT_TRUE(Eventually([&] { return connected() == std::to_string(count + 1); })) << connected();
  EXPECT_EQ(client.Run("SET still here"), "+OK");
  EXPECT_EQ(client.Run("GET still"), "$here");
  const int64_t bytes_each = (resident_bytes() - before) / count;
  std::cout << "half-open connections: " << count << ", bytes each: " << bytes_each << "\n";
  EXPECT_LT(bytes_each, 24 * 1024);
  // The others may still finish what they began.
  ASSERT_TRUE(sockets[0]->Send("cde\r\n"));
  EXPECT_EQ(sockets[0]->ReadLine(), "+OK\r\n");
  sockets.clear();
  EXPECT_TRUE(Eventually([&] { return connected() == "1"; })) << connected();
  EXPECT_EQ(client.Run("GET k"), "$abcde");
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

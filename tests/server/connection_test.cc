// The life of connections in a whole server: they come, say too much or too little, wait, go.
#include "src/server/connection.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/server_story.h"
#include "tests/support/fake_log.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Endpoint;
using test::Eventually;
using test::Exclusively;
using test::FakeLog;
using test::Field;
using test::Lines;
using test::Mix;
using test::Number;
using test::RawSocket;
using test::RedisClient;
using test::ServerTest;
using test::TestSeed;
using test::TestServer;

class ConnectionTest : public ServerTest {};

INSTANTIATE_TEST_SUITE_P(Loops, ConnectionTest, testing::Values(1, 2, 4),
                         [](const auto& param) { return std::to_string(param.param); });

TEST_P(ConnectionTest, SpreadsConnectionsOverTheLoopsAndListsThemAll) {
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

TEST_P(ConnectionTest, KillsClientsOfAnyLoop) {
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

TEST_P(ConnectionTest, TurnsAwayMoreThanMaxclients) {
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

TEST_P(ConnectionTest, ClosesIdleClientsAfterTheTimeout) {
  TestServer server(Threads({"--timeout", "1"}));
  RawSocket idle(server.unix_endpoint());
  ASSERT_TRUE(idle.Send("PING\r\n"));
  RedisClient busy(server.unix_endpoint());
  EXPECT_EQ(idle.ReadLine(), "+PONG\r\n");
  while (!idle.Readable(50)) ASSERT_EQ(busy.Run("PING"), "+PONG");
  EXPECT_EQ(idle.ReadToEnd(), "");
  EXPECT_EQ(busy.Run("PING"), "+PONG");
}

TEST_P(ConnectionTest, CarriesBigValuesBothWays) {
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

TEST_P(ConnectionTest, ClosesAReaderThatNeverReads) {
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

TEST_P(ConnectionTest, KeepsLittleForAClientThatHasNotToldWhoItIs) {
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

TEST_P(ConnectionTest, ClosesTheLargestClientsAboveTheirCommonLimit) {
  TestServer server(Threads({"--maxmemory-clients", "3mb"}));
  RedisClient client(server.unix_endpoint());
  RawSocket spared(server.unix_endpoint());
  RawSocket large(server.unix_endpoint());
  const std::string begun = "*2\r\n$4\r\nECHO\r\n$8000000\r\n" + std::string(4 << 20, 'x');
  ASSERT_TRUE(spared.Send("CLIENT NO-EVICT ON\r\n" + begun));
  EXPECT_EQ(spared.ReadLine(), "+OK\r\n");
  large.Send(begun);  // it may be closed before the last of it
  EXPECT_EQ(large.ReadToEnd(), "");
  EXPECT_EQ(Field(client.Run("INFO stats"), "evicted_clients:"), "1");
  EXPECT_FALSE(spared.Readable(0));
}

TEST_P(ConnectionTest, SurvivesAnyBytes) {
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

TEST_P(ConnectionTest, WakesEveryConnectionWhoseReplyIsReleased) {
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

TEST_P(ConnectionTest, NoReplyLeavesBeforeItsReleaseOnAnyLoop) {
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

TEST_P(ConnectionTest, AReplyWhoseRecordWasGivenUpNeverLeaves) {
  TestServer server(Threads());
  HeldReplies held(server);
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send("INCR n\r\n"));
  ASSERT_TRUE(Eventually([&] { return held.log().last_lsn() == 1; }));
  Exclusively(server.server(), [&] { held.log().failed_above = 0; });
  held.log().Release(0);  // the log wakes its waiters to tell them
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_P(ConnectionTest, AReplyWhoseRecordIsGivenUpWhileItIsLookedAtNeverLeaves) {
  TestServer server(Threads());
  HeldReplies held(server);
  RawSocket client(server.unix_endpoint());
  Exclusively(server.server(), [&] {
    held.log().on_gate_asked = [&] {
      held.log().failed_above = 0;
      held.log().SetState(wal::State::kDegraded);
      held.log().Release(UINT64_MAX);
    };
  });
  ASSERT_TRUE(client.Send("INCR n\r\n"));
  EXPECT_EQ(client.ReadToEnd(), "");
}

TEST_P(ConnectionTest, AClientThatHasSaidAllStillGetsItsHeldReplies) {
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

TEST_P(ConnectionTest, ReadsNoMoreFromAClientWhoseHeldRepliesPileUp) {
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

TEST_P(ConnectionTest, SpreadsConnectionsThatComeAtOnce) {
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

TEST(ConnectionSocketTest, ProtectedModeTurnsStrangersAway) {
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

TEST(ConnectionSocketTest, BearsThousandsOfHalfOpenConnections) {
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

}  // namespace
}  // namespace crab

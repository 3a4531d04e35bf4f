#include "src/server/client_commands.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/redis_client.h"
#include "tests/support/test_server.h"

namespace crab {
namespace {

using test::RawSocket;
using test::RedisClient;
using test::Request;
using test::TestServer;

struct Case {
  std::vector<std::string> words;
  const char* reply;
};

// What redis-server 7.0.15 answers.
TEST(ClientCommandsTest, RefuseAsRedisDoes) {
  TestServer server;
  RedisClient client(server.unix_endpoint());
  for (const Case& c : std::vector<Case>{
           {{"client", "pause", "x"}, "-ERR timeout is not an integer or out of range"},
           {{"client", "pause", "-1"}, "-ERR timeout is negative"},
           {{"client", "pause", "1", "foo"}, "-ERR CLIENT PAUSE mode must be WRITE or ALL"},
           {{"client", "unpause", "x"},
            "-ERR wrong number of arguments for 'client|unpause' command"},
           {{"client", "kill", "id", "0"}, "-ERR client-id should be greater than 0"},
           {{"client", "kill", "id", "99"}, ":0"},
           {{"client", "kill", "1.2.3.4:5"}, "-ERR No such client"},
           {{"client", "kill", "type", "foo"}, "-ERR Unknown client type 'foo'"},
           {{"client", "kill", "id"}, "-ERR No such client"},
           {{"client", "kill", "skipme", "maybe"}, "-ERR syntax error"},
           {{"client", "kill", "user", "nobody"}, "-ERR No such user 'nobody'"},
           {{"client", "kill", "type", "pubsub"}, ":0"},
           {{"client", "list", "type", "foo"}, "-ERR Unknown client type 'foo'"},
           {{"client", "list", "id", "x"}, "-ERR Invalid client ID"},
           {{"client", "list", "id"}, "-ERR syntax error"},
           {{"client", "list", "foo"}, "-ERR syntax error"},
           {{"client", "list", "type", "pubsub"}, "$"},
           {{"client", "list", "type"}, "-ERR syntax error"},
           {{"client", "reply", "maybe"}, "-ERR syntax error"},
           {{"client", "nope"}, "-ERR unknown subcommand 'nope'. Try CLIENT HELP."},
           {{"client"}, "-ERR wrong number of arguments for 'client' command"},
           {{"hello", "4"}, "-NOPROTO unsupported protocol version"},
           {{"hello", "x"}, "-ERR Protocol version is not an integer or out of range"},
           {{"hello", "3", "foo"}, "-ERR Syntax error in HELLO option 'foo'"},
           {{"hello", "3", "setname", "a b"},
            "-ERR Client names cannot contain spaces, newlines or special characters."},
           {{"hello", "2", "setname"}, "-ERR Syntax error in HELLO option 'setname'"},
           {{"hello", "2", "auth", "a"}, "-ERR Syntax error in HELLO option 'auth'"},
           {{"hello", "2", "auth", "x", "y"},
            "-WRONGPASS invalid username-password pair or user is disabled."},
           {{"reset", "x"}, "-ERR wrong number of arguments for 'reset' command"},
           {{"select", "16"}, "-ERR DB index is out of range"},
           {{"select", "x"}, "-ERR value is not an integer or out of range"},
           {{"client", "getname"}, "(nil)"},
       }) {
    EXPECT_EQ(client.Run(c.words), c.reply) << testing::PrintToString(c.words);
  }
}

TEST(ClientCommandsTest, ResetMakesTheConnectionAsNew) {
  TestServer server;
  RawSocket client(server.unix_endpoint());
  ASSERT_TRUE(client.Send(Request({"hello", "3", "setname", "n"}) + Request({"select", "3"}) +
                          Request({"client", "no-touch", "on"}) + Request({"get", "none"}) +
                          Request({"reset"}) + Request({"get", "none"}) +
                          Request({"client", "getname"}) + Request({"client", "info"}) +
                          Request({"quit"})));
  const std::string bytes = client.ReadToEnd();
  EXPECT_TRUE(bytes.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")) << bytes;
  EXPECT_NE(bytes.find("+OK\r\n+OK\r\n_\r\n+RESET\r\n$-1\r\n$-1\r\n$"), std::string::npos) << bytes;
  EXPECT_NE(bytes.find(" name= "), std::string::npos);
  EXPECT_NE(bytes.find(" db=0 "), std::string::npos);
  EXPECT_NE(bytes.find(" flags=U "), std::string::npos);
  EXPECT_NE(bytes.find(" resp=2 "), std::string::npos);
}

// A server whose log is in no hurry: what is on disk soon is there because somebody asked for it.
TestServer::Options LazyLog(const test::ScopedDirectory& directory, const char* policy,
                            const char* interval_ms = "600000") {
  TestServer::Options options;
  options.log_directory = directory.path() + "/wal";
  options.arguments = {"--wal-sync-policy", policy, "--wal-flush-interval-ms", interval_ms,
                       "--wal-buffer-size", "1mb"};
  return options;
}

TEST(ClientCommandsTest, DurabilitySyncAnswersWhenItIsOnDiskWhateverThePolicy) {
  for (const char* policy : {"none", "async", "sync"}) {
    SCOPED_TRACE(policy);
    test::ScopedDirectory directory;
    TestServer server(LazyLog(directory, policy));
    const wal::Log& log = *server.server().log();
    RedisClient lax(server.unix_endpoint());
    RedisClient strict(server.unix_endpoint());
    EXPECT_EQ(lax.Run("SET a 1"), "+OK");
    EXPECT_EQ(strict.Run("CLIENT DURABILITY sync"), "+OK");
    for (int i = 1; i <= 50; ++i) {
      const wal::Lsn before = log.last_lsn();
      ASSERT_EQ(strict.Run("INCR n"), ":" + std::to_string(i));
      ASSERT_GT(log.durable_lsn(), before);
    }
    EXPECT_EQ(lax.Run("CLIENT DURABILITY"), "$default");
    EXPECT_EQ(RedisClient(server.unix_endpoint()).Run("CLIENT DURABILITY"), "$default");
  }
}

TEST(ClientCommandsTest, DurabilitySyncOfManyConnectionsSharesTheirSyncs) {
  test::ScopedDirectory directory;
  TestServer server(LazyLog(directory, "async"));
  const uint64_t before = server.server().log()->metrics().syncs;
  constexpr int kClients = 32;
  constexpr int kRounds = 20;
  std::vector<std::unique_ptr<RedisClient>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<RedisClient>(server.unix_endpoint()));
    ASSERT_EQ(clients.back()->Run("CLIENT DURABILITY sync"), "+OK");
  }
  RedisClient control(server.unix_endpoint());
  const std::string all = "blocked_clients:" + std::to_string(kClients) + "\r";
  for (int round = 0; round < kRounds; ++round) {
    // A pause gathers them: when it ends they run in one round of each loop.
    EXPECT_EQ(control.Run("CLIENT PAUSE 100000 WRITE"), "+OK");
    for (const auto& client : clients) client->Queue({"INCR", "n"});
    std::vector<std::thread> readers;
    for (const auto& client : clients) {
      readers.emplace_back([&client] { EXPECT_TRUE(client->Read().starts_with(":")); });
    }
    EXPECT_TRUE(test::Eventually(
        [&] { return control.Run("INFO clients").find(all) != std::string::npos; }));
    EXPECT_EQ(control.Run("CLIENT UNPAUSE"), "+OK");
    for (std::thread& reader : readers) reader.join();
  }
  const uint64_t syncs = server.server().log()->metrics().syncs - before;
  EXPECT_GT(syncs, 0u);
  EXPECT_LT(syncs, uint64_t{kClients * kRounds / 4});
}

TEST(ClientCommandsTest, DurabilityAsyncKeepsTheIntervalUnderPolicyNone) {
  test::ScopedDirectory directory;
  TestServer server(LazyLog(directory, "none", "400"));
  const wal::Log& log = *server.server().log();
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("CLIENT DURABILITY async"), "+OK");
  EXPECT_EQ(client.Run("SET k v"), "+OK");
  EXPECT_TRUE(test::Eventually([&] { return log.durable_lsn() == log.last_lsn(); }));
  // Shorter than the timer's step.
  EXPECT_EQ(client.Run("CONFIG SET wal-flush-interval-ms 10"), "+OK");
  EXPECT_EQ(client.Run("SET k w"), "+OK");
  EXPECT_TRUE(test::Eventually([&] { return log.durable_lsn() == log.last_lsn(); }));
}

TEST(ClientCommandsTest, DurabilityAsyncDoesNotWaitUnderPolicySync) {
  test::ScopedDirectory directory;
  TestServer server(LazyLog(directory, "sync"));
  RawSocket client(server.unix_endpoint());
  std::string pipeline = "CLIENT DURABILITY async\r\n";
  std::string expected = "+OK\r\n";
  for (int i = 1; i <= 1000; ++i) {
    pipeline += "INCR n\r\n";
    expected += ":" + std::to_string(i) + "\r\n";
  }
  ASSERT_TRUE(client.Send(pipeline));
  EXPECT_EQ(client.ReadExactly(expected.size()), expected);
}

TEST(ClientCommandsTest, AskForThePasswordWhenThereIsOne) {
  TestServer server({.arguments = {"--requirepass", "secret"}});
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("PING"), "-NOAUTH Authentication required.");
  EXPECT_EQ(client.Run("CLIENT LIST"), "-NOAUTH Authentication required.");
  EXPECT_TRUE(client.Run("HELLO").starts_with("-NOAUTH HELLO must be called with"));
  EXPECT_EQ(client.Run("AUTH wrong"),
            "-WRONGPASS invalid username-password pair or user is disabled.");
  EXPECT_EQ(client.Run("AUTH nobody secret"),
            "-WRONGPASS invalid username-password pair or user is disabled.");
  EXPECT_EQ(client.Run("AUTH default secret"), "+OK");
  EXPECT_EQ(client.Run("PING"), "+PONG");
  EXPECT_EQ(client.Run("RESET"), "+RESET");
  EXPECT_EQ(client.Run("PING"), "-NOAUTH Authentication required.");
  EXPECT_TRUE(client.Run("HELLO 2 AUTH default secret").starts_with("[$server, $redis"));
}

}  // namespace
}  // namespace crab

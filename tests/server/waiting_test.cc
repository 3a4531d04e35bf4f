// Clients that wait, and clients that leave: when the end of a connection is seen, and what it
// says.
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/redis_client.h"
#include "tests/support/test_server.h"

namespace crab {
namespace {

using test::Eventually;
using test::RawSocket;
using test::RedisClient;
using test::ScopedDirectory;
using test::TestServer;

// A server with a log; its clients wait in WAITAOF for replicas, of which there are none.
class WaitingTest : public testing::TestWithParam<int> {
 protected:
  WaitingTest()
      : server_({.threads = GetParam(), .log_directory = directory_.path() + "/wal"}),
        admin_(server_.unix_endpoint()) {}

  RawSocket NewSocket() { return RawSocket(server_.unix_endpoint()); }
  // Of CLIENT LIST, those whose last command this is.
  int64_t Clients(const std::string& command) {
    const std::string list = admin_.Run("CLIENT LIST");
    int64_t count = 0;
    for (size_t at = 0; (at = list.find("cmd=" + command + " ", at)) != std::string::npos; ++at) {
      ++count;
    }
    return count;
  }

  ScopedDirectory directory_;
  TestServer server_;
  RedisClient admin_;
};

INSTANTIATE_TEST_SUITE_P(Loops, WaitingTest, testing::Values(1, 2),
                         [](const auto& param) { return std::to_string(param.param); });

TEST_P(WaitingTest, AClientThatClosesWhileItWaitsIsGone) {
  constexpr int kClients = 8;
  std::vector<RawSocket> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(NewSocket());
    ASSERT_TRUE(clients.back().Send("WAITAOF 0 1 0\r\n"));
  }
  ASSERT_TRUE(Eventually([&] { return Clients("waitaof") == kClients; }));
  clients.clear();
  EXPECT_TRUE(Eventually([&] { return Clients("waitaof") == 0; }));
}

TEST_P(WaitingTest, AClientThatClosesBehindMoreThanIsReadAheadIsGone) {
  RawSocket client = NewSocket();
  ASSERT_TRUE(client.Send("WAITAOF 0 1 0\r\n"));
  ASSERT_TRUE(Eventually([&] { return Clients("waitaof") == 1; }));
  // Until the kernel takes no more: what is read ahead, and the socket's buffers.
  const std::string pings(1 << 20, '\n');
  size_t sent = 0;
  EXPECT_TRUE(Eventually([&] {
    const int64_t bytes = client.SendSome(pings);
    if (bytes > 0) sent += static_cast<size_t>(bytes);
    return bytes == 0 && sent > pings.size();
  }));
  client.Close();
  EXPECT_TRUE(Eventually([&] { return Clients("waitaof") == 0; }));
}

// As Redis 7.0: what ran before the wait is answered; the wait is not, and nothing behind it runs.
TEST_P(WaitingTest, AClientThatHasSaidAllIsNotWaitedFor) {
  for (const char* timeout : {"0", "100000"}) {
    RawSocket client = NewSocket();
    ASSERT_TRUE(client.Send("SET before 1\r\nWAITAOF 0 1 " + std::string(timeout) +
                            "\r\nSET behind 1\r\n"));
    ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
    EXPECT_EQ(client.ReadToEnd(), "+OK\r\n");
  }
  EXPECT_EQ(admin_.Run("EXISTS before behind"), ":1");
}

TEST_P(WaitingTest, AClientThatLeavesDuringAPauseLeavesNothingBehind) {
  ASSERT_EQ(admin_.Run("CLIENT PAUSE 1000000 WRITE"), "+OK");
  RawSocket client = NewSocket();
  ASSERT_TRUE(client.Send("GET before\r\nSET paused 1\r\n"));
  ASSERT_EQ(shutdown(client.fd(), SHUT_WR), 0);
  EXPECT_EQ(client.ReadToEnd(), "$-1\r\n");
  ASSERT_EQ(admin_.Run("CLIENT UNPAUSE"), "+OK");
  EXPECT_EQ(admin_.Run("EXISTS paused"), ":0");
}

TEST_P(WaitingTest, WhatArrivesDuringTheWaitIsAnsweredAfterIt) {
  RawSocket client = NewSocket();
  ASSERT_TRUE(client.Send("WAITAOF 0 1 300\r\nECHO 1\r\n"));
  ASSERT_TRUE(Eventually([&] { return Clients("waitaof") == 1; }));
  const std::string value(3 << 20, 'v');  // more than is read ahead
  ASSERT_GE(client.SendSome("ECHO 2\r\n*2\r\n$4\r\nECHO\r\n$3145728\r\n"), 1);
  ASSERT_TRUE(client.Send(value + "\r\n"));
  EXPECT_EQ(client.ReadLine(), "*2\r\n");
  EXPECT_EQ(client.ReadLine(), ":1\r\n");
  EXPECT_EQ(client.ReadLine(), ":0\r\n");
  EXPECT_EQ(client.ReadExactly(14), "$1\r\n1\r\n$1\r\n2\r\n");
  EXPECT_EQ(client.ReadExactly(10), "$3145728\r\n");
  EXPECT_EQ(client.ReadExactly(value.size() + 2), value + "\r\n");
}

TEST_P(WaitingTest, ASkippedReplyStaysAwayThoughItComesLater) {
  for (const char* command :
       {"WAITAOF 0 1 50", "WAITAOF 0 0 0", "WAL FLUSH", "WAL ROTATE", "PING"}) {
    SCOPED_TRACE(command);
    RawSocket client = NewSocket();
    ASSERT_TRUE(
        client.Send("SET k v\r\nCLIENT REPLY SKIP\r\n" + std::string(command) + "\r\nECHO on\r\n"));
    EXPECT_EQ(client.ReadLine(), "+OK\r\n");
    EXPECT_EQ(client.ReadLine(), "$2\r\n");
    EXPECT_EQ(client.ReadLine(), "on\r\n");
  }
  const std::string backup = directory_.path() + "/backup";
  RawSocket client = NewSocket();
  ASSERT_TRUE(client.Send("CLIENT REPLY OFF\r\nWAITAOF 0 1 50\r\nCLIENT REPLY SKIP\r\nWAL BACKUP " +
                          backup + "\r\nCLIENT REPLY ON\r\n"));
  EXPECT_EQ(client.ReadLine(), "+OK\r\n");
  EXPECT_TRUE(std::filesystem::exists(backup));
}

}  // namespace
}  // namespace crab

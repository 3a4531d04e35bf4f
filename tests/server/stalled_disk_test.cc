// A disk that does not answer: whoever waits for a sync waits, and nobody else does.
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

#include "tests/support/redis_client.h"
#include "tests/support/stalling_disk.h"
#include "tests/support/test_server.h"
#include "utils/log.h"

namespace crab {
namespace {

using test::Arguments;
using test::Eventually;
using test::RawSocket;
using test::RedisClient;
using test::Request;
using test::ScopedDirectory;
using test::StallingDisk;
using test::TestServer;

constexpr int kKeys = 100;
constexpr int kWriters = 50;

class StalledDiskTest : public testing::TestWithParam<int> {
 protected:
  TestServer::Options OptionsOf(const std::string& policy) {
    TestServer::Options options;
    options.threads = GetParam();
    options.log_directory = "wal";
    options.disk = &disk_;
    options.arguments = {"--save",         "",           "--wal-sync-policy", policy,
                         "--wal-ring-dir", rings_.path()};
    return options;
  }
  static RawSocket Sends(const TestServer& server, std::initializer_list<std::string_view> words) {
    RawSocket socket(server.unix_endpoint());
    EXPECT_TRUE(socket.Send(Request(words)));
    return socket;
  }
  static uint64_t StalledMs(RedisClient& client) {
    const std::string page = client.Run("INFO persistence");
    const size_t at = page.find("wal_sync_stalled_ms:");
    if (at == std::string::npos) return 0;
    return std::strtoull(page.c_str() + page.find(':', at) + 1, nullptr, 10);
  }
  static std::string Key(int i) { return "old" + std::to_string(i); }
  // Also those that share their shard with a write that waits.
  static void ExpectThatAllOldKeysAnswer(RedisClient& client) {
    for (int i = 0; i < kKeys; ++i) {
      ASSERT_EQ(client.Run({"GET", Key(i)}), "$value");
      ASSERT_EQ(client.Run({"MGET", Key(i), Key((i + 1) % kKeys)}), "[$value, $value]");
    }
  }

  ScopedDirectory rings_;
  StallingDisk disk_;
};

INSTANTIATE_TEST_SUITE_P(Loops, StalledDiskTest, testing::Values(1, 2),
                         [](const auto& param) { return std::to_string(param.param); });

TEST_P(StalledDiskTest, UnderSyncHoldsTheWriteAndWhoeverHasSeenIt) {
  TestServer server(OptionsOf("sync"));
  RedisClient admin(server.unix_endpoint());
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(admin.Run({"SET", Key(i), "value"}), "+OK");
  disk_.Stall();
  std::vector<RawSocket> writers, readers;
  for (int i = 0; i < kWriters; ++i) {
    writers.push_back(Sends(server, {"SET", "new" + std::to_string(i), "value"}));
  }
  EXPECT_TRUE(Eventually([&] { return disk_.stalled(); }));
  for (int i = 0; i < kWriters; ++i) {
    readers.push_back(Sends(server, {"GET", "new" + std::to_string(i)}));
  }
  ExpectThatAllOldKeysAnswer(admin);
  EXPECT_TRUE(Eventually([&] { return StalledMs(admin) > 1; }));
  for (int i = 0; i < kWriters; ++i) {
    EXPECT_FALSE(writers[i].Readable(0));
    EXPECT_FALSE(readers[i].Readable(0));
  }
  disk_.Release();
  for (int i = 0; i < kWriters; ++i) {
    EXPECT_EQ(writers[i].ReadLine(), "+OK\r\n");
    EXPECT_EQ(readers[i].ReadLine(), "$5\r\n");
  }
  EXPECT_TRUE(Eventually([&] { return StalledMs(admin) == 0; }));
}

TEST_P(StalledDiskTest, UnderAsyncHoldsOnlyWhoHasAskedForSync) {
  TestServer server(OptionsOf("async"));
  RedisClient admin(server.unix_endpoint());
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(admin.Run({"SET", Key(i), "value"}), "+OK");
  RawSocket writer = Sends(server, {"CLIENT", "DURABILITY", "sync"});
  ASSERT_EQ(writer.ReadLine(), "+OK\r\n");
  disk_.Stall();
  EXPECT_TRUE(writer.Send(Request({"SET", "new", "value"})));
  EXPECT_TRUE(Eventually([&] { return disk_.stalled(); }));
  ExpectThatAllOldKeysAnswer(admin);
  EXPECT_EQ(admin.Run("SET other value"), "+OK");
  EXPECT_EQ(admin.Run("GET new"), "$value");
  EXPECT_TRUE(Eventually([&] { return StalledMs(admin) > 1; }));
  EXPECT_FALSE(writer.Readable(0));
  disk_.Release();
  EXPECT_EQ(writer.ReadLine(), "+OK\r\n");
}

// That would hold up everybody until the disk answers.
TEST_P(StalledDiskTest, TheLogIsNotSwitchedOffMeanwhile) {
  TestServer server(OptionsOf("sync"));
  RedisClient admin(server.unix_endpoint());
  disk_.Stall();
  RawSocket writer = Sends(server, {"SET", "key", "value"});
  ASSERT_TRUE(Eventually([&] { return StalledMs(admin) >= 2000; }));
  const std::string refusal = admin.Run("CONFIG SET wal-enabled no");
  EXPECT_NE(refusal.find("does not answer"), std::string::npos) << refusal;
  EXPECT_EQ(admin.Run("CONFIG GET wal-enabled"), "[$wal-enabled, $yes]");
  disk_.Release();
  EXPECT_EQ(writer.ReadLine(), "+OK\r\n");
  EXPECT_EQ(admin.Run("CONFIG SET wal-enabled no"), "+OK");
}

// It shows in the log file, too, for nothing fails.
TEST_P(StalledDiskTest, IsToldOfOnceAndWhenItIsOver) {
  TestServer server(OptionsOf("sync"));
  const std::string path = rings_.path() + "/log";
  ASSERT_TRUE(SetLogFile(path).ok());
  SetLogLevel(LogLevel::kNotice);
  const auto times = [&](const std::string& text) {
    std::ifstream file(path);
    int count = 0;
    for (std::string line; std::getline(file, line);) count += line.find(text) != line.npos;
    return count;
  };
  disk_.Stall();
  RawSocket writer = Sends(server, {"SET", "key", "value"});
  EXPECT_TRUE(Eventually([&] { return times("does not answer") > 0; }));
  EXPECT_EQ(times("answers again"), 0);
  disk_.Release();
  EXPECT_EQ(writer.ReadLine(), "+OK\r\n");
  EXPECT_TRUE(Eventually([&] { return times("answers again") > 0; }));
  EXPECT_EQ(times("does not answer"), 1);
  SetLogLevel(LogLevel::kNothing);
  ASSERT_TRUE(SetLogFile("").ok());
}

}  // namespace
}  // namespace crab

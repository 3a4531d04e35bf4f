#include "src/server/wal_commands.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/redis_client.h"
#include "tests/support/test_server.h"

namespace crab {
namespace {

using test::RedisClient;
using test::ScopedDirectory;
using test::TestServer;

class WalCommandsTest : public testing::Test {
 protected:
  TestServer::Options WithLog(test::Arguments arguments = {}) {
    return {.arguments = std::move(arguments), .log_directory = Path("wal")};
  }
  std::string Path(const std::string& name) const { return directory_.path() + "/" + name; }

  ScopedDirectory directory_;
};

// The value behind `name` in a reply of names and values: "[$name, $value, $name, :1]".
std::string FieldOf(const std::string& reply, const std::string& name) {
  const size_t at = reply.find("$" + name + ", ");
  if (at == std::string::npos) return "(no " + name + " in " + reply + ")";
  const size_t begin = at + name.size() + 4;
  return reply.substr(begin, reply.find_first_of(",]", begin) - begin);
}

TEST_F(WalCommandsTest, SayThatTheLogIsOff) {
  TestServer server;
  RedisClient client(server.unix_endpoint());
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"wal", "flush"},
                                             {"wal", "rotate"},
                                             {"wal", "checkpoint"},
                                             {"wal", "cleanup", "0"},
                                             {"wal", "backup", Path("backup")}}) {
    EXPECT_TRUE(client.Run(words).starts_with("-ERR the write-ahead log is off")) << words[1];
  }
  EXPECT_EQ(FieldOf(client.Run("wal info"), "wal_enabled"), "no");
  EXPECT_FALSE(std::filesystem::exists(Path("backup")));
}

TEST_F(WalCommandsTest, RefuseWhatTheyDoNotUnderstand) {
  TestServer server(WithLog());
  RedisClient client(server.unix_endpoint());
  EXPECT_EQ(client.Run("wal"), "-ERR wrong number of arguments for 'wal' command");
  EXPECT_EQ(client.Run("wal nope"), "-ERR unknown subcommand 'nope'. Try WAL HELP.");
  EXPECT_EQ(client.Run("wal cleanup"), "-ERR wrong number of arguments for 'wal|cleanup' command");
  EXPECT_EQ(client.Run("wal cleanup -1"), "-ERR value is out of range, must be positive");
  EXPECT_EQ(client.Run("wal cleanup x"), "-ERR value is not an integer or out of range");
  EXPECT_EQ(client.Run({"wal", "backup", ""}), "-ERR the backup needs a directory");
  EXPECT_NE(client.Run("wal help").find("CHECKPOINT"), std::string::npos);
}

TEST_F(WalCommandsTest, FlushAnswersWhenAllIsDurable) {
  // With a policy that never syncs by itself.
  TestServer server(WithLog({"--wal-sync-policy", "none"}));
  RedisClient client(server.unix_endpoint());
  for (int i = 0; i < 20; ++i) {
    client.Run({"set", "key", std::to_string(i)});
    const std::string last = FieldOf(client.Run("wal info"), "wal_last_lsn");
    ASSERT_EQ(client.Run("wal flush"), "+OK");
    ASSERT_GE(std::stoull(FieldOf(client.Run("wal info"), "wal_durable_lsn")), std::stoull(last));
  }
}

TEST_F(WalCommandsTest, RotateAnswersWithTheNewSegment) {
  TestServer server(WithLog());
  RedisClient client(server.unix_endpoint());
  client.Run("set a b");
  const std::string before = FieldOf(client.Run("wal info"), "wal_current_segment");
  EXPECT_EQ(client.Run("wal rotate"), ":" + std::to_string(std::stoull(before) + 1));
  // An empty one is good enough.
  EXPECT_EQ(client.Run("wal rotate"), ":" + std::to_string(std::stoull(before) + 1));
}

TEST_F(WalCommandsTest, WaitingHoldsUpNobodyElse) {
  TestServer server(WithLog({"--wal-sync-policy", "async"}));
  RedisClient client(server.unix_endpoint());
  RedisClient other(server.unix_endpoint());
  client.Run("set a b");
  std::thread waiting([&] {
    for (int i = 0; i < 50; ++i) EXPECT_EQ(client.Run("wal flush"), "+OK");
  });
  for (int i = 0; i < 200; ++i) EXPECT_EQ(other.Run("set c d"), "+OK");
  waiting.join();
}

TEST_F(WalCommandsTest, CheckpointAndCleanupShortenTheLog) {
  TestServer server(WithLog({"--wal-keep-segments", "100"}));
  RedisClient client(server.unix_endpoint());
  for (int i = 0; i < 5; ++i) {
    client.Run({"set", "key", std::to_string(i)});
    client.Run("wal rotate");
  }
  const auto info = [&](const char* name) {
    return std::stoull(FieldOf(client.Run("wal info"), name));
  };
  EXPECT_EQ(info("wal_segments"), 6u);
  for (const char* value : {"x", "y"}) {  // two are kept, so the older one sets the bound
    client.Run({"set", "key", value});
    const uint64_t last = info("wal_last_lsn");
    ASSERT_TRUE(client.Run("wal checkpoint").starts_with("+Checkpoint s"));
    for (int i = 0; i < 500 && info("wal_checkpoint_lsn") < last; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ASSERT_GE(info("wal_checkpoint_lsn"), last);
  }
  EXPECT_GE(info("wal_segments"), 6u);
  EXPECT_EQ(client.Run("wal cleanup 1"), "+OK");
  for (int i = 0; i < 500 && info("wal_segments") > 2; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_LE(info("wal_segments"), 2u);
}

TEST_F(WalCommandsTest, BackupMakesADirectoryToStartFrom) {
  {
    TestServer server(WithLog({"--wal-sync-policy", "async"}));
    RedisClient client(server.unix_endpoint());
    for (int i = 0; i < 100; ++i) client.Run({"set", "key:" + std::to_string(i), "before"});
    const std::string lsn = FieldOf(client.Run("wal info"), "wal_last_lsn");
    const std::string reply = client.Run({"wal", "backup", Path("backup")});
    EXPECT_EQ(FieldOf(reply, "directory"), Path("backup"));
    EXPECT_EQ(FieldOf(reply, "lsn"), lsn);
    const std::string info = client.Run("wal info");
    EXPECT_EQ(FieldOf(info, "wal_backup_in_progress"), "0");
    EXPECT_EQ(FieldOf(info, "wal_last_backup_status"), "ok");
    EXPECT_EQ(FieldOf(info, "wal_last_backup_lsn"), lsn);
    client.Run("set key:0 after");
    EXPECT_EQ(client.Run({"wal", "backup", Path("backup")}),
              "-ERR " + Path("backup") + " is not empty: name a new directory");
    EXPECT_EQ(FieldOf(client.Run("wal info"), "wal_last_backup_status"), "err");
  }
  TestServer restored({.log_directory = Path("backup")});
  RedisClient client(restored.unix_endpoint());
  EXPECT_EQ(client.Run("dbsize"), ":100");
  EXPECT_EQ(client.Run("get key:0"), "$before");
}

TEST_F(WalCommandsTest, InfoIsAMap) {
  TestServer server(WithLog());
  test::RawSocket socket(server.unix_endpoint());
  ASSERT_TRUE(socket.Send("HELLO 3\r\nPING\r\nWAL INFO\r\nQUIT\r\n"));
  const std::string replies = socket.ReadToEnd();
  const size_t info = replies.find("+PONG\r\n%");
  ASSERT_NE(info, std::string::npos) << replies;
  EXPECT_NE(replies.find("$9\r\nwal_state\r\n$7\r\nrunning\r\n", info), std::string::npos);
  EXPECT_NE(replies.find("$12\r\nwal_last_lsn\r\n:0\r\n", info), std::string::npos) << replies;
}

}  // namespace
}  // namespace crab

// What begins checkpoints by itself, and what INFO tells of them.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "src/server/checkpointer.h"
#include "src/server/loader.h"
#include "tests/server/checkpoint_life.h"
#include "utils/clock.h"

namespace crab::test {
namespace {

TEST(CheckpointBooksTest, BooksOneThatIsWrittenBeforeAnybodyAsks) {
  SimDisk disk;
  Life life(disk);
  ASSERT_EQ(life.Run("SET key value"), "+OK");
  ASSERT_EQ(life.Run("SAVE"), "+OK");
  EXPECT_EQ(life.Number("wal_checkpoint_entries"), 1u);
  EXPECT_EQ(life.Number("wal_checkpoint_lsn"), 1u);
  EXPECT_EQ(life.Number("wal_records_since_checkpoint"), 0u);
}

// All cores replay, however few loops there are.
TEST(CheckpointBooksTest, EstimatesTheReplayByTheThreadsThatDoIt) {
  SimDisk disk;
  Life life(disk, {}, /*threads=*/1);
  ASSERT_EQ(life.Run("DEBUG POPULATE 60 key 1000000"), "+OK");
  Checkpointer::Facts facts;
  Server& server = life.server().server();
  server.loops().front()->Post([&](Loop&) {
    facts = server.checkpointer().facts();
    server.RequestStop();
  });
  ASSERT_TRUE(life.server().Wait().ok());
  const auto speed = ReplaySpeed::Assumed(static_cast<size_t>(Loader::Workers()));
  EXPECT_EQ(facts.replay_ms,
            static_cast<uint64_t>(speed.ReplayMs(facts.log_bytes_since, facts.log_records_since)));
  EXPECT_GT(facts.replay_ms, 0u);
}

TEST(CheckpointBooksTest, BeginsByItselfWhenTheNextStartWouldReplayTooLong) {
  SimDisk disk;
  Life life(disk, {"--wal-max-recovery-ms", "1"});
  // The same few keys again and again: a long log of little data.
  const std::string value(1 << 20, 'v');
  for (int i = 0; i < 60; ++i) {
    ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i % 4), value}), "+OK");
  }
  EXPECT_GT(life.Number("wal_estimated_recovery_ms"), 1u);
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "none");
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i % 4), value}), "+OK");
  }
  ASSERT_TRUE(life.Becomes("wal_checkpoints_published", "1"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "recovery-time");
  EXPECT_LT(life.Number("wal_bytes_since_checkpoint"), 64u << 20);
}

TEST(CheckpointBooksTest, BeginsByItselfWhenTheLogHasGrownAsTheOptionsSay) {
  SimDisk disk;
  Life life(disk);
  const std::string value(1 << 20, 'v');
  const auto write = [&](const std::string& key) {
    ASSERT_EQ(life.Run({"SET", key, value}), "+OK");
  };
  for (const char* key : {"a", "b", "c"}) write(key);
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "none");
  ASSERT_EQ(life.Run("CONFIG SET auto-aof-rewrite-min-size 2mb"), "+OK");
  ASSERT_TRUE(life.Becomes("wal_checkpoints_published", "1"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "log-growth");
  // Two thirds of that one are enough from here on.
  ASSERT_EQ(life.Run("CONFIG SET auto-aof-rewrite-percentage 60"), "+OK");
  for (const char* key : {"a", "b"}) write(key);
  ASSERT_TRUE(life.Becomes("wal_checkpoints_published", "2"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "log-growth");
}

// Also of what was to be retained for restores.
TEST(CheckpointBooksTest, BeginsByItselfWhenTheDiskRunsFullAndMakesRoom) {
  SimDisk disk;
  Life life(disk, {"--wal-max-segment-size", "1mb", "--wal-keep-segments", "100"});
  const std::string value(100 << 10, 'v');
  for (int i = 0; i < 80; ++i) ASSERT_EQ(life.Run({"SET", "key", value}), "+OK");
  life.BgSave();
  for (int i = 0; i < 80; ++i) ASSERT_EQ(life.Run({"SET", "key", value}), "+OK");
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "save");
  EXPECT_EQ(Files(disk, ".ckpt").size(), 1u);
  // Room for the checkpoint, and for less than the four segments that are to be there beside it.
  disk.SetCapacity(disk.used_bytes() + (3 << 20));
  ASSERT_TRUE(life.Becomes("wal_checkpoints_published", "2"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "disk-space");
  EXPECT_EQ(Files(disk, ".ckpt").size(), 1u);  // the older one has gone, and its log with it
  EXPECT_TRUE(Eventually([&] { return life.Number("wal_segments") <= 2; }))
      << life.Number("wal_segments");
}

TEST(CheckpointBooksTest, BeginsByItselfAtASavePoint) {
  SimDisk disk;
  Life life(disk);
  ASSERT_EQ(life.Run("SET one 1"), "+OK");
  ASSERT_EQ(life.Run({"CONFIG", "SET", "save", "1 2"}), "+OK");
  // The time is over, but one change is too few.
  const uint64_t uptime = life.Uptime();
  ASSERT_TRUE(Eventually([&] { return life.Uptime() >= uptime + 3; }));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "none");
  ASSERT_EQ(life.Run("SET two 2"), "+OK");
  ASSERT_TRUE(life.Becomes("rdb_saves", "1"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "save-point");
  EXPECT_EQ(life.Info("rdb_changes_since_last_save"), "0");
}

TEST(CheckpointBooksTest, CommandsAnswerAsRedis) {
  SimDisk disk;
  Life life(disk);
  EXPECT_EQ(life.Run("SAVE"), "+OK");
  EXPECT_EQ(life.Run("SAVE now"), "-ERR wrong number of arguments for 'save' command");
  EXPECT_EQ(life.Run("BGSAVE now"), "-ERR syntax error");
  EXPECT_EQ(life.Run("BGSAVE SCHEDULE now"), "-ERR syntax error");
  EXPECT_EQ(life.Run("LASTSAVE").substr(0, 1), ":");
  ASSERT_EQ(life.Run("DEBUG POPULATE 100000 key 100"), "+OK");
  RedisClient& client = life.client();
  // In one round of one loop, so that nothing ends between.
  for (const auto& words : std::vector<std::vector<std::string>>{
           {"BGSAVE"}, {"BGSAVE"}, {"BGSAVE", "SCHEDULE"}, {"SAVE"}, {"BGREWRITEAOF"}}) {
    if (words.size() == 1) {
      client.Queue({words[0]});
    } else {
      client.Queue({words[0], words[1]});
    }
  }
  EXPECT_EQ(client.Read(), "+Background saving started");
  EXPECT_EQ(client.Read(), "-ERR Background save already in progress");
  EXPECT_EQ(client.Read(), "-ERR Background save already in progress");
  EXPECT_EQ(client.Read(), "-ERR Background save already in progress");
  EXPECT_EQ(client.Read(), "+Background append only file rewriting scheduled");
  EXPECT_TRUE(life.Becomes("aof_rewrites", "1"));
  EXPECT_EQ(life.Info("rdb_saves"), "2");
  client.Queue({"BGREWRITEAOF"});
  client.Queue({"BGREWRITEAOF"});
  client.Queue({"BGSAVE"});
  client.Queue({"BGSAVE", "SCHEDULE"});
  EXPECT_EQ(client.Read(), "+Background append only file rewriting started");
  EXPECT_EQ(client.Read(), "-ERR Background append only file rewriting already in progress");
  EXPECT_EQ(client.Read(),
            "-ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE "
            "SCHEDULE in order to schedule a BGSAVE whenever possible.");
  EXPECT_EQ(client.Read(), "+Background saving scheduled");
  EXPECT_TRUE(life.Becomes("rdb_saves", "3"));
  EXPECT_EQ(life.Info("aof_rewrites"), "2");
}

TEST(CheckpointBooksTest, RedisFieldsTellOfTheLastSaveAndOfTheSizes) {
  SimDisk disk;
  const int64_t before_s = RealClock().WallMs() / 1000;
  Life life(disk, {}, /*threads=*/1);
  // Before the first it is when the server started.
  std::string saved = life.Run("LASTSAVE");
  EXPECT_GE(std::stoll(saved.substr(1)), before_s);
  EXPECT_EQ(":" + life.Info("rdb_last_save_time"), saved);
  ASSERT_EQ(life.Run("DEBUG POPULATE 20000 key 100"), "+OK");
  std::string page = life.Run("INFO persistence");
  EXPECT_EQ(Life::FieldOf(page, "rdb_bgsave_in_progress"), "0");
  EXPECT_EQ(Life::FieldOf(page, "aof_base_size"), "0");
  EXPECT_EQ(Life::FieldOf(page, "aof_current_size"), Life::FieldOf(page, "wal_total_bytes"));
  // In one round of the only loop, so that it has not ended yet.
  RedisClient& client = life.client();
  client.Queue({"BGSAVE"});
  client.Queue({"INFO", "persistence"});
  EXPECT_EQ(client.Read(), "+Background saving started");
  EXPECT_EQ(Life::FieldOf(client.Read(), "rdb_bgsave_in_progress"), "1");
  ASSERT_TRUE(life.Becomes("rdb_saves", "1"));
  page = life.Run("INFO persistence");
  const auto number = [&](const char* field) { return std::stoll(Life::FieldOf(page, field)); };
  EXPECT_EQ(number("rdb_bgsave_in_progress"), 0);
  EXPECT_GT(number("aof_base_size"), 20000 * 100);
  EXPECT_EQ(number("aof_base_size"), number("wal_checkpoint_bytes"));
  EXPECT_EQ(number("aof_current_size"), number("wal_total_bytes") + number("aof_base_size"));
  EXPECT_EQ(number("rdb_last_save_time"), number("wal_checkpoint_time"));
  EXPECT_LE(number("rdb_last_save_time"), RealClock().WallMs() / 1000);
  EXPECT_EQ(life.Run("LASTSAVE"), ":" + Life::FieldOf(page, "rdb_last_save_time"));
  // What a checkpoint is held to stands beside its figures.
  EXPECT_EQ(number("wal_checkpoint_queue_bytes_max"), 40 << 20);
  EXPECT_EQ(number("wal_checkpoint_bytes_per_second_max"), 256 << 20);
}

}  // namespace
}  // namespace crab::test

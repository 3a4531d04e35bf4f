// Checkpoints that bridge what a log lacks: it had to be given up, or began late.
#include <gtest/gtest.h>

#include <cerrno>
#include <filesystem>
#include <string>
#include <thread>

#include "persistence/checkpoint.h"
#include "src/server/checkpointer.h"
#include "tests/server/checkpoint_life.h"

namespace crab::test {
namespace {

// The disk takes nothing any more, and the server goes on without the log.
void LoseLog(SimDisk& disk, Life& life) {
  disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
  ASSERT_EQ(life.Run("SET given up"), "+OK");
  ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
}

void BeginCheckpointThatHangs(CheckpointTrouble& disk, Life& life) {
  disk.Set(Trouble::kHangs);
  ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
  ASSERT_TRUE(Eventually([&] { return disk.hanging(); }));
}

TEST(CheckpointGapTest, ALogThatHadToBeGivenUpGoesOnWithOne) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    disk.SetCapacity(disk.used_bytes());
    for (int i = 0; i < 50 && life.Info("wal_state") == "running"; ++i) {
      ASSERT_EQ(life.Run({"SET", "filler", std::string(1 << 20, static_cast<char>('a' + i % 20))}),
                "+OK");
    }
    ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
    EXPECT_EQ(life.Run("SET meanwhile 1"), "+OK");
    EXPECT_EQ(life.Run("BGSAVE").substr(0, 4), "-ERR");
    disk.SetCapacity(kUnlimited);
    ASSERT_TRUE(life.Becomes("wal_state", "running"));
    EXPECT_EQ(life.Info("wal_awaits_checkpoint"), "0");
    EXPECT_EQ(life.Info("wal_checkpoint_reason"), "gap");
    EXPECT_EQ(life.Run("SET behind 1"), "+OK");
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  ExpectAfterPowerCut(disk, digest, {{"GET meanwhile", "$1"}, {"GET behind", "$1"}});
}

// Without waiting for the next try.
TEST(CheckpointGapTest, AStopTriesTheDiskOnceMoreAndSavesWhatTheLogLacks) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
    ASSERT_EQ(life.Run("SET meanwhile 1"), "+OK");
    digest = life.Digest();
    disk.ClearFaults();
    const Status end = life.Stop();
    EXPECT_TRUE(end.ok()) << end.message();
  }
  ExpectAfterPowerCut(disk, digest, {{"GET given", "$up"}, {"GET meanwhile", "$1"}});
}

// Also where writes are refused, and a copy of the directory has taken its place.
TEST(CheckpointGapTest, AStopTakesTheDirectoryThatIsThere) {
  ScopedDirectory directory;
  const std::string wal = directory.path() + "/wal";
  const Arguments arguments = {"--wal-on-error", "refuse"};
  std::string digest;
  {
    Life life(wal, arguments);
    FillWithAllKinds(life);
    ASSERT_EQ(life.Run("WAITAOF 1 0 0"), "[:1, :0]");
    std::filesystem::rename(wal, wal + ".old");
    std::filesystem::copy(wal + ".old", wal);
    ASSERT_TRUE(Eventually([&] { return life.Run("SET key value").starts_with("-MISCONF"); }));
    EXPECT_EQ(life.Info("wal_state"), "refusing");
    digest = life.Digest();
    const Status end = life.Stop();
    EXPECT_TRUE(end.ok()) << end.message();
  }
  Life life(wal, arguments);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
}

TEST(CheckpointGapTest, AStopSaysWhatADiskThatFailsToTheEndLacks) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    ASSERT_EQ(life.Run("WAITAOF 1 0 0"), "[:1, :0]");
    digest = life.Digest();
    ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
    const Status end = life.Stop();
    EXPECT_NE(end.message().find("not on disk"), std::string::npos) << end.message();
  }
  disk.ClearFaults();
  ExpectAfterPowerCut(disk, digest);
}

// The one that runs bridges the gap as well as any.
TEST(CheckpointGapTest, AStopWaitsForASaveThatBridgesTheGap) {
  CheckpointTrouble disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
    disk.Set(Trouble::kFails);
    disk.ClearFaults();
    ASSERT_TRUE(life.Becomes("wal_checkpoint_last_status", "err"));
    ASSERT_EQ(life.Info("wal_awaits_checkpoint"), "1");
    disk.Set(Trouble::kHangs);
    ASSERT_EQ(life.Run("BGSAVE SCHEDULE").substr(0, 18), "+Background saving");
    ASSERT_TRUE(life.Becomes("rdb_bgsave_in_progress", "1"));
    digest = life.Digest();
    test::RawSocket witness(life.server().unix_endpoint());
    ASSERT_TRUE(witness.Send("PING\r\n"));
    ASSERT_EQ(witness.ReadLine(), "+PONG\r\n");
    std::thread repair([&] {
      EXPECT_EQ(witness.ReadToEnd(), "");  // the loops end
      disk.Set(Trouble::kNone);
    });
    const Status end = life.Stop();
    repair.join();
    EXPECT_TRUE(end.ok()) << end.message();
  }
  ExpectAfterPowerCut(disk, digest, {{"GET given", "$up"}});
}

// Of a checkpoint that is of no use any more nobody waits for the end.
TEST(CheckpointGapTest, ADiskThatHangsUnderAnOldOneHoldsNobodyUpWhenTheLogGoesOn) {
  CheckpointTrouble disk;
  Life life(disk, {"--wal-on-error", "degrade"});
  const CheckpointTrouble::LetsGo lets_go{disk};
  FillWithAllKinds(life);
  ASSERT_NO_FATAL_FAILURE(BeginCheckpointThatHangs(disk, life));
  ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
  disk.ClearFaults();
  ASSERT_TRUE(Eventually([&] { return life.server().server().log()->resumable(); }));
  const uint64_t uptime = life.Uptime();
  ASSERT_TRUE(Eventually([&] { return life.Uptime() >= uptime + 3; }));  // it tries every second
  EXPECT_EQ(life.Info("wal_state"), "degraded");
  disk.Set(Trouble::kNone);
  ASSERT_TRUE(life.Becomes("wal_state", "running"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "gap");
}

TEST(CheckpointGapTest, WritersDoNotWaitForTheQueueOfOneThatWasGivenUp) {
  CheckpointTrouble disk;
  Life life(disk, {"--wal-on-error", "degrade", "--auto-aof-rewrite-percentage", "0"});
  const CheckpointTrouble::LetsGo lets_go{disk};
  constexpr int kKeys = 100;
  const std::string value(1 << 20, 'v');
  for (int i = 0; i < kKeys; ++i) {
    ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), value}), "+OK");
  }
  ASSERT_NO_FATAL_FAILURE(BeginCheckpointThatHangs(disk, life));
  ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
  // All of them are saved before they are replaced, for a file that does not take them.
  test::RawSocket writer(life.server().unix_endpoint());
  std::string commands;
  for (int i = 0; i < kKeys; ++i) commands += "SET key" + std::to_string(i) + " short\r\n";
  ASSERT_TRUE(writer.Send(commands));
  ASSERT_TRUE(Eventually([&] { return life.Number("wal_checkpoint_writer_waits") > 0; }));
  EXPECT_GE(life.Number("current_cow_size"), CheckpointJob::kQueueBytesMax);
  disk.ClearFaults();
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(writer.ReadLine(), "+OK\r\n") << i;
  EXPECT_EQ(life.Info("rdb_bgsave_in_progress"), "1");  // the disk has not answered yet
  EXPECT_LE(life.Number("current_cow_size"), 2u << 20);
  disk.Set(Trouble::kNone);
  ASSERT_TRUE(life.Becomes("wal_state", "running"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "gap");
  EXPECT_EQ(life.Number("current_cow_size"), 0u);
}

TEST(CheckpointGapTest, ALogThatBeginsLateBeginsWithOne) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-enabled", "no"});
    EXPECT_EQ(life.Run("SAVE").substr(0, 4), "-ERR");
    EXPECT_EQ(life.Run("BGREWRITEAOF").substr(0, 4), "-ERR");
    FillWithAllKinds(life);
    ASSERT_EQ(life.Run("CONFIG SET wal-enabled yes"), "+OK");
    ASSERT_EQ(life.Run("SET behind 1"), "+OK");
    ASSERT_TRUE(life.Becomes("wal_state", "running"));
    ASSERT_TRUE(life.Becomes("wal_checkpoint_in_progress", "0"));
    // Off and on again, while one may still be walked to its end.
    ASSERT_EQ(life.Run("BGREWRITEAOF").substr(0, 11), "+Background");
    ASSERT_EQ(life.Run("CONFIG SET wal-enabled no"), "+OK");
    ASSERT_EQ(life.Run("SET without 1"), "+OK");
    ASSERT_EQ(life.Run("CONFIG SET wal-enabled yes"), "+OK");
    ASSERT_TRUE(life.Becomes("wal_state", "running"));
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  ExpectAfterPowerCut(disk, digest, {{"GET without", "$1"}});
}

// The log's writer ends the gap while the command looks at its state.
TEST(CheckpointGapTest, ASaveRightBehindTheBeginOfALogSaves) {
  SimDisk disk;
  Life life(disk, {"--wal-enabled", "no"});
  ASSERT_EQ(life.Run("SET key value"), "+OK");
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(life.Run("CONFIG SET wal-enabled yes"), "+OK");
    ASSERT_EQ(life.Run("SAVE"), "+OK");
    ASSERT_EQ(life.Run("SAVE"), "+OK");
    ASSERT_EQ(life.Run("CONFIG SET wal-enabled no"), "+OK");
  }
}

TEST(CheckpointGapTest, ALogThatWaitsForItsFirstOneHasNotFailed) {
  CheckpointTrouble disk;
  Life life(disk, {"--wal-enabled", "no"});
  const CheckpointTrouble::LetsGo lets_go{disk};
  EXPECT_EQ(life.Info("wal_sync_policy"), "async");
  FillWithAllKinds(life);
  disk.Set(Trouble::kHangs);
  ASSERT_EQ(life.Run("CONFIG SET appendonly yes"), "+OK");
  EXPECT_EQ(life.Info("wal_state"), "degraded");
  EXPECT_EQ(life.Info("wal_awaits_checkpoint"), "1");
  EXPECT_EQ(life.Info("aof_last_write_status"), "ok");
  // What asks the log for something waits as well.
  test::RawSocket flush(life.server().unix_endpoint());
  test::RawSocket rotate(life.server().unix_endpoint());
  ASSERT_TRUE(flush.Send("PING\r\nWAL FLUSH\r\n"));
  ASSERT_TRUE(rotate.Send("PING\r\nWAL ROTATE\r\n"));
  ASSERT_EQ(flush.ReadLine(), "+PONG\r\n");
  ASSERT_EQ(rotate.ReadLine(), "+PONG\r\n");
  ASSERT_EQ(life.Info("wal_awaits_checkpoint"), "1");
  disk.Set(Trouble::kNone);
  EXPECT_EQ(flush.ReadLine(), "+OK\r\n");
  EXPECT_EQ(rotate.ReadLine().substr(0, 1), ":");
  ASSERT_TRUE(life.Becomes("wal_state", "running"));
  EXPECT_EQ(life.Info("aof_last_write_status"), "ok");
  ASSERT_NO_FATAL_FAILURE(LoseLog(disk, life));
  EXPECT_EQ(life.Info("aof_last_write_status"), "err");
  disk.ClearFaults();
}

TEST(CheckpointGapTest, ALogThatBeginsLateBeginsWithOneUnderTheOptionsThatComeWithIt) {
  SimDisk disk;
  Life life(disk, {"--wal-enabled", "no"});
  ASSERT_EQ(life.Run("SET key value"), "+OK");
  ASSERT_EQ(life.Run("CONFIG SET wal-enabled yes wal-compression zstd"), "+OK");
  ASSERT_TRUE(life.Becomes("wal_checkpoints_published", "1"));
  auto found = wal::ListCheckpoints(disk, kDirectory);
  ASSERT_TRUE(found.ok()) << found.message();
  ASSERT_EQ(found->size(), 1u);
  EXPECT_EQ(found->front().compression, wal::Compression::kZstd);
}

}  // namespace
}  // namespace crab::test

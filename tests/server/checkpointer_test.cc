// Whole servers that write checkpoints, on a disk that fails and loses what was not synced: what a
// restart finds is what was there, however the life before it ended.
#include "src/server/checkpointer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/reader.h"
#include "tests/server/checkpoint_life.h"
#include "tests/support/seed.h"
#include "utils/clock.h"
#include "utils/random.h"

namespace crab::test {
namespace {

TEST(CheckpointerTest, ARestartFindsTheCheckpointAndWhatTheLogHasBehindIt) {
  for (const int threads : {1, 2}) {
    SCOPED_TRACE(threads);
    SimDisk disk;
    std::string digest, deadline;
    {
      Life life(disk, {}, threads);
      FillWithAllKinds(life);
      life.BgSave();
      EXPECT_EQ(life.Number("wal_checkpoint_entries"), 2005u);
      EXPECT_EQ(life.Info("rdb_last_bgsave_status"), "ok");
      EXPECT_EQ(life.Info("rdb_changes_since_last_save"), "0");
      EXPECT_EQ(Files(disk, ".ckpt").size(), 1u);
      EXPECT_EQ(life.Run("APPEND huge more"), ":" + std::to_string((3 << 20) + 4));
      EXPECT_EQ(life.Run("INCR number"), ":43");
      EXPECT_EQ(life.Run("DEL key7"), ":1");
      EXPECT_EQ(life.Info("rdb_changes_since_last_save"), "3");
      digest = life.Digest();
      deadline = life.Run("PEXPIRETIME short");
      ASSERT_TRUE(life.Stop().ok());
    }
    const auto after = disk.PowerCut();
    Life life(*after, {}, threads);
    life.AwaitRecovery();
    EXPECT_EQ(life.Digest(), digest);
    EXPECT_EQ(life.Info("rdb_last_load_keys_loaded"), "2005");
    EXPECT_EQ(life.Run("GET number"), "$43");
    EXPECT_EQ(life.Run("OBJECT ENCODING number"), "$int");
    EXPECT_EQ(life.Run("PEXPIRETIME short"), deadline);
  }
}

// What is not the same when it is applied twice shows whether the file is exact at its LSN.
TEST(CheckpointerTest, IsExactAtItsLsnWhateverIsWrittenMeanwhile) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk);
    ASSERT_EQ(life.Run("DEBUG POPULATE 60000 key 100"), "+OK");
    ASSERT_EQ(life.Run({"SET", "large", std::string(300 * 1024, 'l')}), "+OK");
    for (int round = 0; round < 3; ++round) {
      const uint64_t saves = life.Number("rdb_saves");
      ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
      std::vector<std::thread> writers;
      for (uint64_t w = 0; w < 2; ++w) {
        writers.emplace_back([&life, w, round] {
          RedisClient client = life.NewClient();
          Random random(TestSeed() + w + static_cast<uint64_t>(round) * 7);
          for (int i = 0; i < 4000; ++i) {
            const std::string key = "key:" + std::to_string(random.Below(60000));
            const uint64_t dice = random.Below(10);
            if (dice < 5) {
              client.Queue({"APPEND", key, "+"});
            } else if (dice < 7) {
              client.Queue({"DEL", key});
            } else if (dice < 9) {
              client.Queue({"INCR", "count" + std::to_string(random.Below(100))});
            } else {
              client.Queue({"APPEND", "large", "x"});
            }
            if (i % 50 == 49) {
              for (int k = 0; k < 50; ++k) (void)client.Read();
            }
          }
        });
      }
      for (std::thread& writer : writers) writer.join();
      ASSERT_TRUE(life.Becomes("rdb_saves", std::to_string(saves + 1)));
    }
    EXPECT_GT(life.Number("wal_checkpoint_entries"), 0u);
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  ExpectAfterPowerCut(disk, digest);
}

TEST(CheckpointerTest, DatabasesMayBeSwappedAndFlushedMeanwhile) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk);
    ASSERT_EQ(life.Run("DEBUG POPULATE 30000 key 100"), "+OK");
    ASSERT_EQ(life.Run("SELECT 1"), "+OK");
    ASSERT_EQ(life.Run("DEBUG POPULATE 30000 other 100"), "+OK");
    ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
    ASSERT_EQ(life.Run("APPEND other:5 x"), ":101");
    ASSERT_EQ(life.Run("SWAPDB 0 1"), "+OK");
    ASSERT_EQ(life.Run("APPEND key:6 y"), ":101");
    ASSERT_EQ(life.Run("FLUSHDB"), "+OK");
    ASSERT_EQ(life.Run("SET after 1"), "+OK");
    ASSERT_TRUE(life.Becomes("rdb_saves", "1"));
    EXPECT_EQ(life.Number("wal_checkpoint_entries"), 60000u);
    ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
    ASSERT_EQ(life.Run("FLUSHALL"), "+OK");
    ASSERT_EQ(life.Run("SET last 1"), "+OK");
    ASSERT_TRUE(life.Becomes("rdb_saves", "2"));
    EXPECT_EQ(life.Number("wal_checkpoint_entries"), 30001u);
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  ExpectAfterPowerCut(disk, digest, {{"DBSIZE", ":0"}});
}

TEST(CheckpointerTest, KeepsTwoAndRetiresTheSegmentsThatNeitherNeeds) {
  SimDisk disk;
  Life life(disk);
  for (int round = 1; round <= 4; ++round) {
    for (int i = 0; i < 40; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), std::string(100 * 1024, 'v')}), "+OK");
    }
    life.BgSave();
    EXPECT_EQ(Files(disk, ".ckpt").size(), std::min<size_t>(round, 2));
  }
  // Four times 4 MB in segments of 1 MiB: those of the last round, and of the one at hand.
  EXPECT_TRUE(Eventually([&] { return life.Number("wal_segments") <= 7; }))
      << life.Number("wal_segments");
  EXPECT_GT(life.Number("wal_segments_retired"), 0u);
  EXPECT_EQ(Files(disk, "checkpoint.tmp").size(), 0u);
}

// Segments are retained for restores, and with them the checkpoint that those begin with.
TEST(CheckpointerTest, KeepsTheBeginningOfWhatIsRetained) {
  SimDisk disk;
  Life life(disk, {"--wal-keep-segments", "6"});
  size_t most = 0;
  for (int round = 1; round <= 12; ++round) {
    for (int i = 0; i < 25; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), std::string(100 * 1024, 'v')}), "+OK");
    }
    life.BgSave();
    most = std::max(most, Files(disk, ".ckpt").size());
  }
  EXPECT_EQ(most, 4u);
  EXPECT_TRUE(Eventually([&] { return life.Number("wal_segments_retired") > 0; }));
  ASSERT_TRUE(life.Stop().ok());
  auto found = wal::ListCheckpoints(disk, kDirectory).value();
  auto log = wal::Reader::Open(disk, kDirectory);
  ASSERT_TRUE(log.ok()) << log.message();
  const auto& segments = (*log)->segments();
  // Behind the oldest one stand its records and all that follow, more than six segments below what
  // a restart needs.
  EXPECT_LE(segments.front().first_lsn, found.back().lsn + 1);
  ASSERT_GT(segments.size(), 7u);
  const auto needed = std::count_if(segments.begin(), segments.end(), [&](const auto& segment) {
    return segment.first_lsn <= found[1].lsn;
  });
  EXPECT_GE(needed, 6);
  EXPECT_LT(found.back().lsn, segments[static_cast<size_t>(needed) - 6].first_lsn);
}

// Also where each life writes one only.
TEST(CheckpointerTest, KeepsNoMoreForRestoresOverManyLives) {
  auto disk = std::make_unique<SimDisk>();
  for (int round = 1; round <= 10; ++round) {
    Life life(*disk, {"--wal-keep-segments", "3"});
    life.AwaitRecovery();
    for (int i = 0; i < 25; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), std::string(100 * 1024, 'v')}), "+OK");
    }
    life.BgSave();
    EXPECT_LE(Files(*disk, ".ckpt").size(), 4u);
    if (round > 4) {
      EXPECT_TRUE(Eventually([&] { return life.Number("wal_segments") < 30; }));
    }
    ASSERT_TRUE(life.Stop().ok());
  }
}

// One alone is not the only copy: its log stays until there is a second one.
TEST(CheckpointerTest, TheFirstOneMayBeDamaged) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk);
    FillWithAllKinds(life);
    life.BgSave();
    ASSERT_EQ(life.Run("SET last 1"), "+OK");
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  ASSERT_EQ(Files(disk, ".ckpt").size(), 1u);
  disk.FlipBit(Files(disk, ".ckpt")[0], 8 * 5000);
  ExpectAfterPowerCut(disk, digest);
}

// One that is known to be damaged does not count: the good one before it stays.
TEST(CheckpointerTest, ADamagedOneDoesNotTakeThePlaceOfAGoodOne) {
  SimDisk disk;
  std::vector<std::string> files;
  {
    Life life(disk);
    FillWithAllKinds(life);
    life.BgSave();
    ASSERT_EQ(life.Run("INCR number"), ":43");
    life.BgSave();
    ASSERT_EQ(life.Run("INCR number"), ":44");  // so that the next one has another name
    ASSERT_TRUE(life.Stop().ok());
    files = Files(disk, ".ckpt");
    std::sort(files.begin(), files.end());
    ASSERT_EQ(files.size(), 2u);
  }
  const auto after = disk.PowerCut();
  after->FlipBit(files[1], 8 * 5000);
  std::string digest;
  {
    Life life(*after);
    life.AwaitRecovery();
    ASSERT_TRUE(life.Becomes("aof_rewrites", "1"));  // the salvage
    ASSERT_EQ(life.Run("INCR number"), ":45");
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  const auto left = Files(*after, ".ckpt");
  EXPECT_NE(std::find(left.begin(), left.end(), files[0]), left.end());
  // And it serves, should the new one be damaged, too.
  for (const std::string& file : left) {
    if (file != files[0] && file != files[1]) after->FlipBit(file, 8 * 5000);
  }
  ExpectAfterPowerCut(*after, digest);
}

// One that could not be opened may be whole, and is nothing without the log behind it.
TEST(CheckpointerTest, RetiresNothingBehindOneThatItCouldNotOpen) {
  SimDisk disk;
  Life life(disk);
  const auto fill = [&](const std::string& prefix) {
    for (int i = 0; i < 40; ++i) {
      ASSERT_EQ(life.Run({"SET", prefix + std::to_string(i), std::string(100 * 1024, 'v')}), "+OK");
    }
  };
  life.BgSave();
  fill("one");
  // Both tries of the older one, which is listed first.
  disk.AddFault({.calls = kMap, .error = EMFILE});
  disk.AddFault({.calls = kMap, .error = EMFILE});
  life.BgSave();
  EXPECT_EQ(life.Number("wal_segments_retired"), 0u);
  EXPECT_EQ(Files(disk, ".ckpt").size(), 2u);
  fill("two");
  life.BgSave();
  EXPECT_TRUE(Eventually([&] { return life.Number("wal_segments_retired") > 0; }));
}

TEST(CheckpointerTest, ADamagedOneIsPassedOverForTheOneBeforeIt) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk);
    FillWithAllKinds(life);
    life.BgSave();
    ASSERT_EQ(life.Run("INCR number"), ":43");
    life.BgSave();
    ASSERT_EQ(life.Run("INCR number"), ":44");
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  const auto after = disk.PowerCut();
  std::vector<std::string> files = Files(*after, ".ckpt");
  ASSERT_EQ(files.size(), 2u);
  std::sort(files.begin(), files.end());
  after->FlipBit(files[1], 8 * 5000);
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("GET number"), "$44");
  // And the damage is not left for the next start.
  EXPECT_TRUE(life.Becomes("aof_rewrites", "1"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "salvage");
}

// The disk as another process finds it when this one is killed, or as the next boot does, looked at
// all the time while checkpoints are written and published.
TEST(CheckpointerTest, LosesNothingWheneverTheLifeEnds) {
  SimDisk disk;
  Life life(disk, {"--wal-sync-policy", "sync"});
  ASSERT_EQ(life.Run("DEBUG POPULATE 3000 key 100"), "+OK");
  std::atomic<int> acknowledged{0};
  std::atomic<bool> done{false};
  std::thread writer([&] {
    RedisClient client = life.NewClient();
    while (!done) {
      if (client.Run("INCR number").starts_with(":")) ++acknowledged;
    }
  });
  std::thread saver([&] {
    RedisClient client = life.NewClient();
    while (!done) (void)client.Run("BGSAVE");
  });
  constexpr int kEnds = 24;
  for (int i = 0; i < kEnds; ++i) {
    SCOPED_TRACE(testing::Message() << "end " << i);
    const int before = acknowledged;
    SimDiskOptions next;
    next.seed = TestSeed() + static_cast<uint64_t>(i);
    next.survivors = kEverySurvivors[i % 4];
    const auto after = i % 2 == 0 ? disk.PowerCut(next) : disk.Kill(next);
    const int behind = acknowledged;
    Life found(*after, {}, 1);
    found.AwaitRecovery();
    const std::string reply = found.Run("GET number");
    const int number = reply == "(nil)" ? 0 : std::stoi(reply.substr(1));
    EXPECT_GE(number, before);
    EXPECT_LE(number, behind + 2);
    EXPECT_EQ(found.Run("DBSIZE"), number == 0 ? ":3000" : ":3001");
    EXPECT_EQ(found.Info("wal_recovery_lost_ranges"), "0");
  }
  done = true;
  writer.join();
  saver.join();
  EXPECT_GT(life.Number("rdb_saves"), 2u);
}

TEST(CheckpointerTest, OneThatIsKilledLeavesTheLogAndTheOneBefore) {
  SimDisk disk;
  Life life(disk);
  FillWithAllKinds(life);
  life.BgSave();
  ASSERT_EQ(life.Run("SET after 1"), "+OK");
  const std::string digest = life.Digest();
  // The last step, the name, fails: so does the checkpoint, and the server says so.
  disk.AddFault({.calls = kRename, .error = EIO, .for_ever = true});
  EXPECT_EQ(life.Run("SAVE").substr(0, 4), "-ERR");
  EXPECT_EQ(life.Info("rdb_last_bgsave_status"), "err");
  EXPECT_EQ(life.Info("wal_checkpoint_last_status"), "err");
  EXPECT_EQ(life.Run("SHUTDOWN SAVE"), "-ERR Errors trying to SHUTDOWN. Check logs.");
  const auto killed = disk.Kill();
  {
    Life next(*killed);
    next.AwaitRecovery();
    EXPECT_EQ(next.Digest(), digest);
    EXPECT_EQ(next.Info("rdb_last_load_keys_loaded"), "2005");
  }
  disk.ClearFaults();
  EXPECT_EQ(life.Run("SAVE"), "+OK");
  EXPECT_EQ(life.Info("rdb_last_bgsave_status"), "ok");
}

// What BGSAVE has begun is given up, with many keys not walked yet.
TEST(CheckpointerTest, AStopGivesUpOneThatRuns) {
  SimDisk disk;
  {
    Life life(disk);
    ASSERT_EQ(life.Run("DEBUG POPULATE 100000 key 100"), "+OK");
    life.client().Queue({"BGSAVE"});
    life.client().Queue({"FLUSHALL"});
    life.client().Queue({"SET", "after", "1"});
    life.client().Queue({"SHUTDOWN", "NOSAVE"});
    ASSERT_TRUE(life.client().Send());
    ASSERT_TRUE(life.server().Wait().ok());
  }
  EXPECT_EQ(Files(disk, ".ckpt").size(), 0u);
  EXPECT_EQ(Files(disk, "checkpoint.tmp").size(), 0u);
  Life life(disk);
  life.AwaitRecovery();
  EXPECT_EQ(life.Run("DBSIZE"), ":1");
  life.BgSave();
}

// The new key comes first and the old one stays as long as a file needs it.
TEST(CheckpointerTest, AnOldKeyMayGoOnceNoFileNeedsIt) {
  SimDisk disk;
  ScopedDirectory directory;
  const auto keys = [&](const std::string& digits) {
    const std::string path = directory.path() + "/keys-" + digits;
    std::ofstream file(path);
    for (char digit : digits) file << std::string(64, digit) << "\n";
    return Arguments{"--wal-encryption-key-file", path};
  };
  const auto refusal = [&](const std::string& digits) -> std::string {
    Arguments arguments{"--port",    "0",        "--unixsocket",   directory.path() + "/socket",
                        "--threads", "2",        "--wal-enabled",  "yes",
                        "--wal-dir", kDirectory, "--wal-ring-dir", ""};
    const Arguments more = keys(digits);
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto config = test::ConfigOf(arguments);
    if (!config.ok()) return std::string(config.message());
    auto server = Server::Start(std::move(*config), disk);
    return server.ok() ? "it started" : std::string(server.message());
  };
  const std::string missing =
      "its key is not in the file of wal.encryption_key_file; nothing was changed";
  {
    Life life(disk, keys("a"));
    ASSERT_EQ(life.Run("SET under-a 1"), "+OK");
    ASSERT_TRUE(life.Stop().ok());
  }
  {
    Life life(disk, keys("ba"));
    life.AwaitRecovery();
    EXPECT_EQ(life.Run("GET under-a"), "$1");
    ASSERT_EQ(life.Run("SET under-b 2"), "+OK");
    ASSERT_TRUE(life.Stop().ok());
  }
  EXPECT_NE(refusal("b").find(missing), std::string::npos) << refusal("b");
  {
    Life life(disk, keys("ba"));
    life.AwaitRecovery();
    EXPECT_EQ(life.Run("GET under-a"), "$1");
    EXPECT_EQ(life.Run("GET under-b"), "$2");
    // Two checkpoints are kept, and the segments behind the older one.
    life.BgSave();
    ASSERT_EQ(life.Run("SET last 3"), "+OK");
    life.BgSave();
    EXPECT_TRUE(life.Becomes("wal_segments", "1"));
    ASSERT_TRUE(life.Stop().ok());
  }
  EXPECT_NE(refusal("a").find(missing), std::string::npos) << refusal("a");
  Life life(disk, keys("b"));
  life.AwaitRecovery();
  EXPECT_EQ(life.Run("MGET under-a under-b last"), "[$1, $2, $3]");
}

TEST(CheckpointerTest, ShutdownSaveLeavesOneBehindThatHoldsEverything) {
  ScopedDirectory directory;
  const std::string wal = directory.path() + "/wal";
  std::string digest;
  {
    Life life(wal, {"--wal-compression", "lz4"});
    FillWithAllKinds(life);
    digest = life.Digest();
    ASSERT_TRUE(life.ShutdownSave().ok());
  }
  Life life(wal, {});
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Info("rdb_last_load_keys_loaded"), "2005");
}

// Memory beyond the data is bounded: who overwrites faster than the file is written waits.
// Each part of a large value names its key.
TEST(CheckpointerTest, ALongKeyCostsNoMoreThanItsValue) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk);
    const std::string key(3 << 20, 'k');
    const std::string value(8 << 20, 'v');
    ASSERT_EQ(life.Run({"SET", key, value}), "+OK");
    life.BgSave();
    EXPECT_LT(life.Number("wal_checkpoint_bytes"), key.size() + 2 * value.size());
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  Life life(disk);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
}

// What it holds goes by itself, so that nothing is evicted or refused for it.
TEST(CheckpointerTest, WhatIsFlushedUnderOneDoesNotCountAgainstTheLimit) {
  CheckpointTrouble disk;
  Life life(disk, {"--maxmemory-policy", "noeviction"});
  const CheckpointTrouble::LetsGo lets_go{disk};
  ASSERT_EQ(life.Run("DEBUG POPULATE 60000 key 1000"), "+OK");
  disk.Set(Trouble::kHangs);
  ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
  ASSERT_EQ(life.Run("FLUSHALL"), "+OK");
  const int64_t used = std::strtoll(life.Info("used_memory", "memory").c_str(), nullptr, 10);
  const int64_t limit = std::max<int64_t>(used - (20 << 20), 1 << 20);
  ASSERT_EQ(life.Run({"CONFIG", "SET", "maxmemory", std::to_string(limit)}), "+OK");
  EXPECT_EQ(life.Run("SET key value"), "+OK");
  disk.Set(Trouble::kNone);
  ASSERT_TRUE(life.Becomes("rdb_saves", "1"));
}

// The holder of the world waits for the queue several times over.
TEST(CheckpointerTest, SaveOfMoreThanTheQueueHoldsEnds) {
  SimDisk disk;
  {
    Life life(disk, {"--wal-ring-size", "1mb"});
    const std::string value(1 << 20, 'v');
    for (int i = 0; i < 60; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), value}), "+OK");
    }
    // Values above an eighth of the ring count like others.
    EXPECT_GE(life.Number("wal_bytes_since_checkpoint"), 60u << 20);
    EXPECT_EQ(life.Run("SAVE"), "+OK");
    EXPECT_EQ(life.Number("wal_bytes_since_checkpoint"), 0u);
    EXPECT_EQ(life.Run("SET last 1"), "+OK");
    ASSERT_TRUE(life.ShutdownSave().ok());
  }
  Life life(disk);
  EXPECT_EQ(life.Run("STRLEN key59"), ":" + std::to_string(1 << 20));
  EXPECT_EQ(life.Run("DBSIZE"), ":61");
}

TEST(CheckpointerTest, WritersWaitWhereTheQueueIsFull) {
  ScopedDirectory directory;
  const std::string wal = directory.path() + "/wal";
  std::string digest;
  {
    Life life(wal, {"--auto-aof-rewrite-percentage", "0"});
    const std::string value(1 << 20, 'v');
    for (int i = 0; i < 100; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), value}), "+OK");
    }
    ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
    for (int i = 0; i < 100; ++i) {
      ASSERT_EQ(life.Run({"SET", "key" + std::to_string(i), "short"}), "+OK");
    }
    ASSERT_TRUE(life.Becomes("rdb_saves", "1"));
    EXPECT_LE(life.Number("wal_checkpoint_queue_peak_bytes"),
              CheckpointJob::kQueueBytesMax + (3 << 20));
    digest = life.Digest();
    ASSERT_TRUE(life.Stop().ok());
  }
  Life life(wal, {});
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
}

}  // namespace
}  // namespace crab::test

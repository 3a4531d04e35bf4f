// Whole servers that write checkpoints, on a disk that fills up, fails and loses what was not
// synced: what a restart finds is what was there, however the life before it ended.
#include "src/server/checkpointer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/eventually.h"
#include "tests/support/redis_client.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "tests/support/test_server.h"
#include "utils/clock.h"
#include "utils/random.h"

namespace crab::test {
namespace {

constexpr uint64_t kUnlimited = 1ull << 40;
constexpr char kDirectory[] = "/wal";

// Fails or does not answer where a checkpoint is written, and is well otherwise.
class CheckpointTrouble : public SimDisk {
 public:
  enum class Kind { kNone, kFails, kHangs };
  void Set(Kind kind) {
    kind_ = kind;
    kind_.notify_all();
  }
  // Lets go at the end of a scope, so that a server in it can stop where a test has failed.
  struct LetsGo {
    CheckpointTrouble& disk;
    ~LetsGo() { disk.Set(Kind::kNone); }
  };
  bool hanging() const { return hanging_; }  // something waits, or has waited, for an answer
  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    auto file = TRY(SimDisk::Open(path, mode));
    if (!path.ends_with("checkpoint.tmp")) return file;
    return std::unique_ptr<wal::File>(std::make_unique<Written>(*this, std::move(file)));
  }

 private:
  class Written : public wal::File {
   public:
    Written(CheckpointTrouble& disk, std::unique_ptr<wal::File> file)
        : disk_(disk), file_(std::move(file)) {}
    Status WriteAt(uint64_t offset, std::string_view bytes) override {
      if (disk_.kind_ == Kind::kHangs) disk_.hanging_ = true;
      disk_.kind_.wait(Kind::kHangs);
      if (disk_.kind_ == Kind::kFails) return Status::Error("as the test wants it", EIO);
      return file_->WriteAt(offset, bytes);
    }
    Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) override {
      return file_->ReadAt(offset, bytes);
    }
    Status SyncData() override { return file_->SyncData(); }
    Result<uint64_t> Size() override { return file_->Size(); }
    Status Truncate(uint64_t bytes) override { return file_->Truncate(bytes); }
    Result<std::unique_ptr<wal::Mapping>> Map() override { return file_->Map(); }

   private:
    CheckpointTrouble& disk_;
    std::unique_ptr<wal::File> file_;
  };

  std::atomic<Kind> kind_{Kind::kNone};
  std::atomic<bool> hanging_{false};
};
using Trouble = CheckpointTrouble::Kind;

// A server on a SimDisk, and a client of it.
class Life {
 public:
  explicit Life(wal::Disk& disk, Arguments arguments = {}, int threads = 2)
      : server_(OptionsOf(&disk, kDirectory, std::move(arguments), threads)),
        client_(server_.unix_endpoint()) {}
  Life(const std::string& directory, Arguments arguments)
      : server_(OptionsOf(nullptr, directory, std::move(arguments), 2)),
        client_(server_.unix_endpoint()) {}

  std::string Run(std::string_view line) { return client_.Run(line); }
  std::string Run(std::initializer_list<std::string_view> words) { return client_.Run(words); }
  RedisClient& client() { return client_; }
  RedisClient NewClient() { return RedisClient(server_.unix_endpoint()); }
  TestServer& server() { return server_; }
  Status Stop() { return server_.Stop(); }
  Status ShutdownSave() {
    test::RawSocket client(server_.unix_endpoint());
    EXPECT_TRUE(client.Send("SHUTDOWN SAVE\r\n"));
    Status end = server_.Wait();
    EXPECT_EQ(client.ReadToEnd(), "");
    return end;
  }

  std::string Info(const std::string& field, const std::string& section = "persistence") {
    return FieldOf(client_.Run("INFO " + section), field);
  }
  static std::string FieldOf(const std::string& page, const std::string& field) {
    const size_t found = page.find("\n" + field + ":");
    if (found == std::string::npos) return "(no " + field + ")";
    const size_t begin = found + field.size() + 2;
    return page.substr(begin, page.find('\r', begin) - begin);
  }
  uint64_t Number(const std::string& field) {
    const std::string text = Info(field);
    return std::strtoull(text.c_str(), nullptr, 10);
  }
  uint64_t Uptime() {  // in seconds
    return std::strtoull(Info("uptime_in_seconds", "server").c_str(), nullptr, 10);
  }
  bool Becomes(const std::string& field, const std::string& value) {
    const bool did = Eventually([&] { return Info(field) == value; });
    EXPECT_TRUE(did) << field << " is " << Info(field) << ", wanted " << value;
    return did;
  }
  // All of the log replayed, where it still was.
  void AwaitRecovery() { ASSERT_TRUE(Becomes("wal_recovering", "0")); }
  std::string Digest() { return client_.Run("DEBUG DIGEST"); }
  void BgSave() {
    const uint64_t saves = Number("rdb_saves");
    ASSERT_EQ(Run("BGSAVE"), "+Background saving started");
    ASSERT_TRUE(Becomes("rdb_saves", std::to_string(saves + 1)))
        << Info("wal_checkpoint_last_error");
  }

 private:
  static TestServer::Options OptionsOf(wal::Disk* disk, const std::string& directory,
                                       Arguments arguments, int threads) {
    TestServer::Options options;
    options.threads = threads;
    options.log_directory = directory;
    options.disk = disk;
    options.arguments = std::move(arguments);
    options.arguments.insert(options.arguments.end(),
                             {"--enable-debug-command", "yes", "--save", "", "--shards", "64"});
    return options;
  }

  TestServer server_;
  RedisClient client_;
};

std::vector<std::string> Files(const SimDisk& disk, std::string_view ending) {
  std::vector<std::string> found;
  for (const std::string& path : disk.Paths()) {
    if (path.ends_with(ending)) found.push_back(path);
  }
  return found;
}

// Keys of all kinds that a checkpoint treats in a way of its own.
void FillWithAllKinds(Life& life) {
  for (int i = 0; i < 2000; ++i) {
    const std::string key = "key" + std::to_string(i);
    ASSERT_EQ(life.Run({"SET", key, std::string(static_cast<size_t>(i) % 300, 'v')}), "+OK");
  }
  ASSERT_EQ(life.Run("SET number 42"), "+OK");
  ASSERT_EQ(life.Run({"SET", "large", std::string(200 * 1024, 'l')}), "+OK");
  ASSERT_EQ(life.Run({"SET", "huge", std::string(3 << 20, 'h'), "EX", "10000"}), "+OK");
  ASSERT_EQ(life.Run("SET short x EX 10000"), "+OK");
  ASSERT_EQ(life.Run("SELECT 3"), "+OK");
  ASSERT_EQ(life.Run({"SET", "key1", "of another database"}), "+OK");
  ASSERT_EQ(life.Run("SELECT 0"), "+OK");
}

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

TEST(CheckpointerTest, BooksOneThatIsWrittenBeforeAnybodyAsks) {
  SimDisk disk;
  Life life(disk);
  ASSERT_EQ(life.Run("SET key value"), "+OK");
  ASSERT_EQ(life.Run("SAVE"), "+OK");
  EXPECT_EQ(life.Number("wal_checkpoint_entries"), 1u);
  EXPECT_EQ(life.Number("wal_checkpoint_lsn"), 1u);
  EXPECT_EQ(life.Number("wal_records_since_checkpoint"), 0u);
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
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
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
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("DBSIZE"), ":0");
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

TEST(CheckpointerTest, ALogThatHadToBeGivenUpGoesOnWithOne) {
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
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("GET meanwhile"), "$1");
  EXPECT_EQ(life.Run("GET behind"), "$1");
}

// Without waiting for the next try.
TEST(CheckpointerTest, AStopTriesTheDiskOnceMoreAndSavesWhatTheLogLacks) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
    ASSERT_EQ(life.Run("SET given up"), "+OK");
    ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
    ASSERT_EQ(life.Run("SET meanwhile 1"), "+OK");
    digest = life.Digest();
    disk.ClearFaults();
    const Status end = life.Stop();
    EXPECT_TRUE(end.ok()) << end.message();
  }
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("GET given"), "$up");
  EXPECT_EQ(life.Run("GET meanwhile"), "$1");
}

TEST(CheckpointerTest, AStopSaysWhatADiskThatFailsToTheEndLacks) {
  SimDisk disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    ASSERT_EQ(life.Run("WAITAOF 1 0 0"), "[:1, :0]");
    digest = life.Digest();
    disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
    ASSERT_EQ(life.Run("SET given up"), "+OK");
    ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
    const Status end = life.Stop();
    EXPECT_NE(end.message().find("not on disk"), std::string::npos) << end.message();
  }
  disk.ClearFaults();
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
}

// The one that runs bridges the gap as well as any.
TEST(CheckpointerTest, AStopWaitsForASaveThatBridgesTheGap) {
  CheckpointTrouble disk;
  std::string digest;
  {
    Life life(disk, {"--wal-on-error", "degrade"});
    FillWithAllKinds(life);
    disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
    ASSERT_EQ(life.Run("SET given up"), "+OK");
    ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
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
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("GET given"), "$up");
}

// Of a checkpoint that is of no use any more nobody waits for the end.
TEST(CheckpointerTest, ADiskThatHangsUnderAnOldOneHoldsNobodyUpWhenTheLogGoesOn) {
  CheckpointTrouble disk;
  Life life(disk, {"--wal-on-error", "degrade"});
  const CheckpointTrouble::LetsGo lets_go{disk};
  FillWithAllKinds(life);
  disk.Set(Trouble::kHangs);
  ASSERT_EQ(life.Run("BGSAVE"), "+Background saving started");
  ASSERT_TRUE(Eventually([&] { return disk.hanging(); }));
  disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
  ASSERT_EQ(life.Run("SET given up"), "+OK");
  ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
  disk.ClearFaults();
  ASSERT_TRUE(Eventually([&] { return life.server().server().log()->resumable(); }));
  const uint64_t uptime = life.Uptime();
  ASSERT_TRUE(Eventually([&] { return life.Uptime() >= uptime + 3; }));  // it tries every second
  EXPECT_EQ(life.Info("wal_state"), "degraded");
  disk.Set(Trouble::kNone);
  ASSERT_TRUE(life.Becomes("wal_state", "running"));
  EXPECT_EQ(life.Info("wal_checkpoint_reason"), "gap");
}

// All cores replay, however few loops there are.
TEST(CheckpointerTest, EstimatesTheReplayByTheThreadsThatDoIt) {
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

TEST(CheckpointerTest, ALogThatBeginsLateBeginsWithOne) {
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
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Run("GET without"), "$1");
}

TEST(CheckpointerTest, ALogThatWaitsForItsFirstOneHasNotFailed) {
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
  disk.AddFault({.calls = kCreate | kWrite | kSync, .error = EIO, .for_ever = true});
  ASSERT_EQ(life.Run("SET given up"), "+OK");
  ASSERT_TRUE(life.Becomes("wal_state", "degraded"));
  EXPECT_EQ(life.Info("aof_last_write_status"), "err");
  disk.ClearFaults();
}

TEST(CheckpointerTest, ALogThatBeginsLateBeginsWithOneUnderTheOptionsThatComeWithIt) {
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

TEST(CheckpointerTest, BeginsByItselfWhenTheNextStartWouldReplayTooLong) {
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

TEST(CheckpointerTest, BeginsByItselfWhenTheLogHasGrownAsTheOptionsSay) {
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

TEST(CheckpointerTest, BeginsByItselfWhenTheDiskRunsFullAndMakesRoom) {
  SimDisk disk;
  Life life(disk, {"--wal-max-segment-size", "1mb"});
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

TEST(CheckpointerTest, BeginsByItselfAtASavePoint) {
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
    (void)life.client().Read();  // sends them
    ASSERT_TRUE(life.server().Wait().ok());
  }
  EXPECT_EQ(Files(disk, ".ckpt").size(), 0u);
  EXPECT_EQ(Files(disk, "checkpoint.tmp").size(), 0u);
  Life life(disk);
  life.AwaitRecovery();
  EXPECT_EQ(life.Run("DBSIZE"), ":1");
  life.BgSave();
}

TEST(CheckpointerTest, CommandsAnswerAsRedis) {
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

TEST(CheckpointerTest, RedisFieldsTellOfTheLastSaveAndOfTheSizes) {
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
    const std::string value(20 << 20, 'v');
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

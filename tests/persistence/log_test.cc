#include "persistence/log.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/support/log_run.h"
#include "tests/support/sim_disk.h"
#include "utils/log.h"

namespace crab::wal {
namespace {

// A directory of its own for each test, gone after it.
class LogTest : public testing::Test {
 protected:
  LogTest() {
    std::string pattern = testing::TempDir() + "/crab-log-XXXXXX";
    root_ = mkdtemp(pattern.data());
    options_.directory = root_ + "/wal";
    options_.ring_directory = root_;
    options_.max_segment_bytes = 1 << 20;
    options_.ring_bytes = 1 << 20;
    options_.flush_interval_ms = 5;
  }
  ~LogTest() override { std::filesystem::remove_all(root_); }

  struct Found {
    RecoveryReport report;
    std::vector<std::string> payloads;
    std::vector<Lsn> lsns;
    Identity identity;
    std::string error;
    std::unique_ptr<Log> log;
  };

  Found Open(Disk& disk = RealDisk()) {
    Found found;
    auto log = Log::Open(
        disk, options_, [&](const Identity& identity) { found.identity = identity; },
        [&](const RecordView& record) {
          found.payloads.emplace_back(record.payload);
          found.lsns.push_back(record.lsn);
          return Status::Ok();
        },
        &found.report);
    if (log.ok()) {
      found.log = std::move(log).value();
    } else {
      found.error = log.message();
    }
    return found;
  }

  static void WaitUntil(const std::function<bool()>& done) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << "waited in vain";
      std::this_thread::yield();
    }
  }
  static Lsn AppendOne(Log& log, std::string_view payload) {
    const Lsn lsn = log.Append(RecordType::kEffect, 7, payload);
    log.Kick();
    return lsn;
  }

  // Runs `work` on a log in a process of its own, which is killed in the middle of its life.
  void InKilledProcess(const std::function<void(Log&)>& work) {
    const pid_t child = fork();
    if (child == 0) {
      Found found = Open();
      if (found.log == nullptr) _exit(1);
      work(*found.log);
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child ended by itself";
  }

  std::string root_;
  Options options_;
};

TEST_F(LogTest, ReplaysInOrderWhatACleanStopLeft) {
  Identity identity;
  {
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    identity = found.identity;
    for (int i = 0; i < 1000; ++i) {
      EXPECT_EQ(AppendOne(*found.log, "payload " + std::to_string(i)), Lsn(i + 1));
    }
    ASSERT_TRUE(found.log->Stop().ok());
  }
  Found found = Open();
  ASSERT_NE(found.log, nullptr) << found.error;
  ASSERT_EQ(found.payloads.size(), 1000u);
  EXPECT_EQ(found.payloads[999], "payload 999");
  EXPECT_EQ(found.lsns[999], 1000u);
  EXPECT_EQ(found.identity.log_id, identity.log_id);
  EXPECT_EQ(found.identity.hash_seed, identity.hash_seed);
  EXPECT_EQ(found.report.entries_recovered, 1000u);
  EXPECT_EQ(found.report.segments_processed, 1u);
  EXPECT_TRUE(found.report.warnings.empty()) << found.report.warnings[0];
  EXPECT_EQ(found.log->last_lsn(), 1000u);
}

TEST_F(LogTest, MakesEachRecordDurableUnderEveryPolicyThatPromisesIt) {
  for (const SyncPolicy policy : {SyncPolicy::kSync, SyncPolicy::kAsync}) {
    options_.sync_policy = policy;
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    const Lsn lsn = AppendOne(*found.log, "x");
    WaitUntil([&] { return found.log->durable_lsn() >= lsn; });
    WaitUntil([&] { return found.log->release_lsn() >= lsn; });
  }
}

TEST_F(LogTest, LosesNothingThatWasAppendedWhenTheProcessIsKilled) {
  for (const SyncPolicy policy : {SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync}) {
    options_.sync_policy = policy;
    options_.flush_interval_ms = 10000;
    const size_t before = Open().payloads.size();
    InKilledProcess([](Log& log) {
      for (int i = 0; i < 500; ++i) (void)log.Append(RecordType::kEffect, 1, std::to_string(i));
    });
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    ASSERT_EQ(found.payloads.size(), before + 500);
    EXPECT_EQ(found.payloads.back(), "499");
    EXPECT_TRUE(found.report.lost.empty());
    EXPECT_TRUE(found.report.warnings.empty()) << found.report.warnings[0];
  }
}

TEST_F(LogTest, WritesRecordsLargerThanTheRingAndTheSegment) {
  std::string large(3 << 20, 'x');
  {
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    AppendOne(*found.log, "before");
    const Lsn lsn = AppendOne(*found.log, large);
    AppendOne(*found.log, "after");
    WaitUntil([&] { return found.log->release_lsn() >= lsn; });
    ASSERT_TRUE(found.log->Stop().ok());
  }
  Found found = Open();
  ASSERT_EQ(found.payloads.size(), 3u);
  EXPECT_EQ(found.payloads[1], large);
  EXPECT_EQ(found.payloads[2], "after");
}

TEST_F(LogTest, KeepsTheOrderOfManyAppenders) {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  {
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        Lsn last = 0;
        for (int i = 0; i < kEach; ++i) {
          const Lsn lsn = found.log->Append(RecordType::kEffect, static_cast<uint16_t>(t),
                                            std::to_string(t) + ":" + std::to_string(i));
          EXPECT_GT(lsn, last);
          last = lsn;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_TRUE(found.log->Stop().ok());
  }
  Found found = Open();
  ASSERT_EQ(found.payloads.size(), size_t{kThreads * kEach});
  std::vector<int> next(kThreads);
  for (size_t i = 0; i < found.payloads.size(); ++i) {
    ASSERT_EQ(found.lsns[i], i + 1);
    const int thread = found.payloads[i][0] - '0';
    ASSERT_EQ(found.payloads[i], std::to_string(thread) + ":" + std::to_string(next[thread]++));
  }
}

TEST_F(LogTest, FillsSegmentsOneAfterTheOther) {
  const std::string payload(100 << 10, 'x');
  {
    Found found = Open();
    ASSERT_NE(found.log, nullptr) << found.error;
    for (int i = 0; i < 50; ++i) {
      WaitUntil([&] { return found.log->SecureRoom(payload.size()); });
      AppendOne(*found.log, payload);
    }
    ASSERT_TRUE(found.log->Stop().ok());
    EXPECT_GE(found.log->metrics().segments_created, 5u);
  }
  Found found = Open();
  EXPECT_EQ(found.payloads.size(), 50u);
  EXPECT_TRUE(found.report.lost.empty());
  EXPECT_GE(found.report.segments_processed, 5u);
}

// A disk that takes forever: nothing is freed, and the log says so before a command begins.
TEST_F(LogTest, SaysWhenThereIsNoRoomAndKeepsWhatComesAnyway) {
  test::SimDisk disk;
  options_.on_error = OnError::kRefuse;
  options_.retry_ms = 1;
  const std::string payload(1000, 'x');
  Lsn appended = 0;
  {
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    disk.AddFault({.calls = test::kWrite, .error = EIO, .for_ever = true});
    while (found.log->SecureRoom(payload.size())) appended = AppendOne(*found.log, payload);
    EXPECT_LT(appended, 1100u);
    WaitUntil([&] { return found.log->state() == State::kRefusing; });
    // More than the ring has bytes or slots for.
    for (int i = 0; i < 10000; ++i) appended = AppendOne(*found.log, payload);
    EXPECT_LT(found.log->release_lsn(), appended);
    disk.ClearFaults();
    WaitUntil([&] { return found.log->state() == State::kRunning; });
    WaitUntil([&] { return found.log->durable_lsn() >= appended; });
    WaitUntil([&] { return found.log->release_lsn() >= appended; });
    EXPECT_TRUE(found.log->SecureRoom(payload.size()));
    EXPECT_GE(found.log->metrics().heals, 1u);
    ASSERT_TRUE(found.log->Stop().ok());
  }
  Found found = Open(disk);
  EXPECT_EQ(found.payloads.size(), appended);
  EXPECT_TRUE(found.report.lost.empty());
}

// Whoever set it to refuse may think better of it while the disk fails.
TEST_F(LogTest, DecidesAnewWhileItRefusesWhenTheOptionsChange) {
  struct Case {
    const char* name;
    SyncPolicy policy;
    OnError on_error;
    std::function<void(Log&)> change;
    bool fails_gates;
  };
  const Case cases[] = {
      {"degrade under async", SyncPolicy::kAsync, OnError::kRefuse,
       [](Log& log) { log.SetOnError(OnError::kDegrade); }, false},
      {"degrade under sync", SyncPolicy::kSync, OnError::kRefuse,
       [](Log& log) { log.SetOnError(OnError::kDegrade); }, true},
      {"a lower policy under auto", SyncPolicy::kSync, OnError::kAuto,
       [](Log& log) { log.SetSyncPolicy(SyncPolicy::kAsync); }, false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    test::SimDisk disk;
    options_.sync_policy = c.policy;
    options_.on_error = c.on_error;
    options_.retry_ms = 3'600'000;
    std::atomic<int> told{0};
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    found.log->SetListener([&] { ++told; });
    disk.AddFault({.calls = test::kWrite | test::kCreate, .error = EIO, .for_ever = true});
    const Lsn held = AppendOne(*found.log, "held");
    found.log->RequestSync();
    WaitUntil([&] { return found.log->state() == State::kRefusing; });
    const int told_before = told;
    c.change(*found.log);
    WaitUntil([&] { return found.log->state() == State::kDegraded; });
    EXPECT_EQ(found.log->GateFailed(held), c.fails_gates);
    WaitUntil([&] { return told > told_before; });
  }
}

TEST_F(LogTest, ExitsWhereThatIsAskedForWhileItRefuses) {
  test::SimDisk disk;
  options_.on_error = OnError::kRefuse;
  options_.retry_ms = 3'600'000;
  std::atomic<bool> exits{false};
  options_.on_fatal = [&](std::string_view) { exits = true; };
  Found found = Open(disk);
  ASSERT_NE(found.log, nullptr) << found.error;
  disk.AddFault({.calls = test::kWrite | test::kCreate, .error = EIO, .for_ever = true});
  AppendOne(*found.log, "held");
  found.log->RequestSync();
  WaitUntil([&] { return found.log->state() == State::kRefusing; });
  EXPECT_FALSE(exits);
  found.log->SetOnError(OnError::kExit);
  WaitUntil([&] { return exits.load(); });
}

TEST_F(LogTest, MovesToANewEpochWhenASyncFails) {
  test::SimDisk disk;
  options_.sync_policy = SyncPolicy::kSync;
  Found found = Open(disk);
  ASSERT_NE(found.log, nullptr) << found.error;
  const uint64_t epoch = found.log->metrics().epoch;
  for (int i = 0; i < 20; ++i) AppendOne(*found.log, "before");
  WaitUntil([&] { return found.log->durable_lsn() == 20; });
  disk.AddFault({.calls = test::kSync, .error = EIO});
  const Lsn lsn = AppendOne(*found.log, "through the fault");
  WaitUntil([&] { return found.log->durable_lsn() >= lsn; });
  EXPECT_EQ(found.log->state(), State::kRunning);
  EXPECT_EQ(found.log->metrics().epoch, epoch + 1);
  EXPECT_EQ(found.log->metrics().sync_errors, 1u);
  const auto after = disk.PowerCut();
  found.log.reset();  // no start goes on beside a process that has the ring
  const Found again = Open(*after);
  ASSERT_EQ(again.payloads.size(), 21u) << again.error;
  EXPECT_EQ(again.payloads.back(), "through the fault");
  EXPECT_TRUE(again.report.lost.empty());
}

TEST_F(LogTest, CarriesOnWithoutTheDiskAndResumesWithACheckpoint) {
  test::SimDisk disk;
  options_.on_error = OnError::kDegrade;
  options_.retry_ms = 1;
  {
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    std::atomic<int> told{0};
    found.log->SetListener([&] { ++told; });
    const Lsn good = AppendOne(*found.log, "before");
    WaitUntil([&] { return found.log->durable_lsn() >= good; });
    disk.AddFault({.calls = test::kWrite | test::kCreate, .error = ENOSPC, .for_ever = true});
    const Lsn given_up = AppendOne(*found.log, "given up");
    WaitUntil([&] { return found.log->state() == State::kDegraded; });
    EXPECT_GT(told.load(), 0);
    EXPECT_EQ(AppendOne(*found.log, "dropped"), kNoGate);
    EXPECT_GE(found.log->release_lsn(), given_up);  // what runs without the log is not held
    EXPECT_FALSE(found.log->GateFailed(given_up));  // async had promised nothing
    EXPECT_FALSE(found.log->Resume().ok());
    EXPECT_NE(found.log->metrics().last_error, "");
    disk.ClearFaults();
    WaitUntil([&] { return found.log->resumable(); });
    const auto resumed = found.log->Resume();
    ASSERT_TRUE(resumed.ok());
    EXPECT_GT(*resumed, given_up);  // no checkpoint from before can be the one that is awaited
    EXPECT_EQ(found.log->state(), State::kDegraded);
    EXPECT_TRUE(found.log->metrics().awaits_checkpoint);
    const Lsn lsn = AppendOne(*found.log, "behind the gap");
    EXPECT_EQ(lsn, *resumed + 1);
    EXPECT_GE(found.log->release_lsn(), lsn);  // nothing is promised, so nothing is held
    found.log->RequestSync();
    WaitUntil([&] { return found.log->metrics().synced_lsn >= lsn; });
    EXPECT_LT(found.log->durable_lsn(), given_up);  // WAITAOF is not to be answered
    found.log->SetCheckpoint(*resumed - 1, 0);      // an older one does not bridge it
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    EXPECT_EQ(found.log->state(), State::kDegraded);
    found.log->SetCheckpoint(*resumed, 0);
    WaitUntil([&] { return found.log->state() == State::kRunning; });
    EXPECT_FALSE(found.log->metrics().awaits_checkpoint);
    EXPECT_EQ(found.log->durable_lsn(), lsn);
    ASSERT_TRUE(test::PutCheckpoint(disk, *found.log, options_.directory, *resumed).ok());
  }
  Found found = Open(disk);
  EXPECT_EQ(found.payloads, (std::vector<std::string>{"checkpoint", "behind the gap"}));
  EXPECT_TRUE(found.report.lost.empty());
}

// Without the checkpoint the log ends before the gap, and goes on from there.
TEST_F(LogTest, ForgetsWhatIsBehindAGapThatNoCheckpointBridges) {
  test::SimDisk disk;
  options_.on_error = OnError::kDegrade;
  options_.retry_ms = 1;
  {
    Found found = Open(disk);
    const Lsn good = AppendOne(*found.log, "before");
    WaitUntil([&] { return found.log->durable_lsn() >= good; });
    disk.AddFault({.calls = test::kWrite | test::kCreate, .error = ENOSPC, .for_ever = true});
    AppendOne(*found.log, "given up");
    WaitUntil([&] { return found.log->state() == State::kDegraded; });
    disk.ClearFaults();
    WaitUntil([&] { return found.log->resumable(); });
    ASSERT_TRUE(found.log->Resume().ok());
    AppendOne(*found.log, "behind the gap");
    EXPECT_FALSE(found.log->Stop().ok());
  }
  for (int i = 0; i < 2; ++i) {
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    EXPECT_EQ(found.payloads.size(), 1u + i);
    EXPECT_EQ(found.payloads.front(), "before");
    EXPECT_TRUE(found.report.lost.empty());
    AppendOne(*found.log, "a new life");
    EXPECT_TRUE(found.log->Stop().ok());
  }
}

TEST_F(LogTest, NeverReleasesWhatItGaveUpUnderSync) {
  test::SimDisk disk;
  options_.on_error = OnError::kDegrade;
  options_.sync_policy = SyncPolicy::kSync;
  Found found = Open(disk);
  ASSERT_NE(found.log, nullptr) << found.error;
  const Lsn good = AppendOne(*found.log, "before");
  WaitUntil([&] { return found.log->durable_lsn() >= good; });
  disk.AddFault({.calls = test::kSync | test::kCreate, .error = EIO, .for_ever = true});
  const Lsn lost = AppendOne(*found.log, "held");
  WaitUntil([&] { return found.log->state() == State::kDegraded; });
  EXPECT_TRUE(found.log->GateFailed(lost));
  EXPECT_FALSE(found.log->GateFailed(good));
}

TEST_F(LogTest, RepliesWaitForThePolicyInForce) {
  test::SimDisk disk;
  options_.flush_interval_ms = 100000;
  Found found = Open(disk);
  ASSERT_NE(found.log, nullptr) << found.error;
  const Lsn first = AppendOne(*found.log, "async");
  EXPECT_GE(found.log->release_lsn(), first);  // the ring would survive a kill
  const Lsn raised = found.log->SetSyncPolicy(SyncPolicy::kSync);
  EXPECT_GT(raised, first);
  EXPECT_EQ(found.log->metrics().sync_policy, SyncPolicy::kSync);
  WaitUntil([&] { return found.log->durable_lsn() >= raised; });
  const Lsn second = AppendOne(*found.log, "sync");
  WaitUntil([&] { return found.log->release_lsn() >= second; });
  EXPECT_GE(found.log->durable_lsn(), second);
  const Lsn lowered = found.log->SetSyncPolicy(SyncPolicy::kNone);
  EXPECT_GE(found.log->release_lsn(), lowered);
}

TEST_F(LogTest, HoldsRepliesBackUntilALargePayloadIsWritten) {
  test::SimDisk disk;
  options_.on_error = OnError::kRefuse;
  options_.retry_ms = 1;
  Found found = Open(disk);
  ASSERT_NE(found.log, nullptr) << found.error;
  disk.AddFault({.calls = test::kWrite, .error = EIO, .for_ever = true});
  const Lsn before = AppendOne(*found.log, "small");
  const Lsn large = AppendOne(*found.log, std::string(200 << 10, 'x'));
  const Lsn after = AppendOne(*found.log, "small");
  EXPECT_GE(found.log->release_lsn(), before);
  EXPECT_LT(found.log->release_lsn(), large);
  disk.ClearFaults();
  WaitUntil([&] { return found.log->release_lsn() >= after; });
  EXPECT_GE(found.log->written_lsn(), large);
}

TEST_F(LogTest, WaitsForTheWriterWhereNoSharedRingCanBeHad) {
  options_.ring_directory = root_ + "/nowhere";
  Found found = Open();
  ASSERT_NE(found.log, nullptr) << found.error;
  EXPECT_FALSE(found.log->metrics().ring_shared);
  ASSERT_EQ(found.report.warnings.size(), 1u);
  EXPECT_NE(found.report.warnings[0].find("cannot create the ring"), std::string::npos);
  const Lsn lsn = AppendOne(*found.log, "x");
  WaitUntil([&] { return found.log->release_lsn() >= lsn; });
  EXPECT_GE(found.log->written_lsn(), lsn);
}

TEST_F(LogTest, NeverTouchesTheRingOfAnotherDirectory) {
  InKilledProcess([](Log& log) { AppendOne(log, "x"); });
  std::filesystem::copy(options_.directory, root_ + "/copy");
  options_.directory = root_ + "/copy";
  Found found = Open();
  ASSERT_NE(found.log, nullptr) << found.error;
  ASSERT_FALSE(found.report.warnings.empty());
  EXPECT_NE(found.report.warnings[0].find("it was neither used nor touched"), std::string::npos)
      << found.report.warnings[0];
}

TEST_F(LogTest, ReadsANewerFormatUnlessItForbidsThat) {
  test::SimDisk disk;
  {
    Found found = Open(disk);
    AppendOne(*found.log, "from the future");
  }
  const std::string path = options_.directory + "/" + SegmentName(1);
  const std::string original = disk.Contents(path);
  SegmentInfo info;
  info.number = 1;
  DecodeSegmentHeader(original, &info);
  info.format_version = kFormatVersion + 1;
  const auto put = [&] {
    std::string bytes = original;
    disk.PutFile(path, bytes.replace(0, kSegmentHeaderBytes, EncodeSegmentHeader(info)));
  };
  put();
  Found found = Open(disk);
  EXPECT_EQ(found.payloads, std::vector<std::string>{"from the future"});
  ASSERT_EQ(found.report.warnings.size(), 1u);
  EXPECT_NE(found.report.warnings[0].find("newer format version 3"), std::string::npos);
  found.log = nullptr;
  info.min_reader_version = kFormatVersion + 1;
  put();
  found = Open(disk);
  ASSERT_EQ(found.log, nullptr);
  EXPECT_NE(found.error.find("start a newer crabcache"), std::string::npos) << found.error;
}

TEST_F(LogTest, LeavesNoRingBehindACleanStop) {
  Found found = Open();
  ASSERT_NE(found.log, nullptr) << found.error;
  AppendOne(*found.log, "x");
  ASSERT_TRUE(found.log->Stop().ok());
  EXPECT_EQ(found.log->state(), State::kStopped);
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(root_)) {
    files += entry.is_regular_file() ? 1 : 0;
  }
  EXPECT_EQ(files, 0u);
}

TEST_F(LogTest, RefusesASecondServerInItsDirectory) {
  Found first = Open();
  ASSERT_NE(first.log, nullptr) << first.error;
  Found second = Open();
  ASSERT_EQ(second.log, nullptr);
  EXPECT_NE(second.error.find("another server is using the log directory"), std::string::npos)
      << second.error;
}

// What fills the heap's bound is freed when it is durable, not when something follows it: nothing
// may follow as long as there is no room.
TEST_F(LogTest, HasRoomAgainWhenAHugeRecordIsDurable) {
  for (const SyncPolicy policy : {SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync}) {
    test::SimDisk disk;
    options_.sync_policy = policy;
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    ASSERT_TRUE(found.log->SecureRoom(65 << 20));
    found.log->Append(RecordType::kTxn, kBroadcastShard, std::string((65 << 20) + 3, 'h'));
    EXPECT_FALSE(found.log->SecureRoom(10));
    WaitUntil([&] { return found.log->SecureRoom(10); });
    AppendOne(*found.log, "after");
    ASSERT_TRUE(found.log->Stop().ok());
    found.log.reset();
    Found again = Open(disk);
    ASSERT_EQ(again.payloads.size(), 2u);
    EXPECT_EQ(again.payloads[0], std::string((65 << 20) + 3, 'h'));
    EXPECT_EQ(again.payloads[1], "after");
  }
}

// A quiet log says what of it is durable, so that damage to its end is no torn tail.
TEST_F(LogTest, StatesWhatIsDurableWhenItGoesQuiet) {
  for (const SyncPolicy policy : {SyncPolicy::kAsync, SyncPolicy::kSync}) {
    test::SimDisk disk;
    options_.sync_policy = policy;
    options_.ring_directory = "";
    options_.heartbeat_ms = 1;
    std::unique_ptr<test::SimDisk> after;
    std::string path;
    uint64_t record_end = 0;
    {
      Found found = Open(disk);
      ASSERT_NE(found.log, nullptr) << found.error;
      const Lsn lsn = AppendOne(*found.log, "the last one before the quiet");
      WaitUntil([&] { return found.log->durable_lsn() >= lsn; });
      path = options_.directory + "/" + SegmentName(found.log->metrics().segment_number);
      // The record, then the frame that states it.
      const uint64_t batch = FrameBytes(sizeof(BatchPayload));
      record_end = kSegmentHeaderBytes + batch + FrameBytes(29);
      WaitUntil([&] { return found.log->metrics().segment_offset >= record_end + batch; });
      const uint64_t syncs = found.log->metrics().syncs;
      WaitUntil([&] { return found.log->metrics().syncs > syncs || syncs >= 2; });
      found.log->RequestSync();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_EQ(found.log->metrics().segment_offset, record_end + batch);  // once, not again
      after = disk.PowerCut();
    }
    after->FlipBit(path, (record_end - 12) * 8);
    options_.recovery = RecoveryMode::kStrict;
    EXPECT_NE(Open(*after).error.find("damaged"), std::string::npos);
    options_.recovery = RecoveryMode::kSalvage;
    const Found found = Open(*after);
    EXPECT_EQ(found.report.corrupted_entries, 1u);
    ASSERT_EQ(found.report.lost.size(), 1u);
    EXPECT_EQ(found.report.lost[0].first, 1u);
  }
}

// So does a start: what it took from a killed process' ring is synced, and the file says that.
TEST_F(LogTest, StatesThatWhatItTookFromTheRingIsDurable) {
  options_.flush_interval_ms = 60000;
  options_.buffer_bytes = 1 << 20;
  InKilledProcess([](Log& log) {
    for (int i = 0; i < 3; ++i) AppendOne(log, "in the ring");
  });
  InKilledProcess([](Log&) {});
  auto reader = Reader::Open(RealDisk(), options_.directory);
  ASSERT_TRUE(reader.ok());
  Frame frame;
  while (true) {
    auto more = (*reader)->Next(&frame);
    ASSERT_TRUE(more.ok());
    if (!*more) break;
  }
  EXPECT_EQ((*reader)->durable_lsn(), 3u);
}

TEST_F(LogTest, CountsEverySegmentThatItRead) {
  options_.flush_interval_ms = 60000;
  options_.buffer_bytes = 1 << 20;
  EXPECT_EQ(Open().report.segments_processed, 0u);
  std::filesystem::remove_all(options_.directory);
  InKilledProcess([](Log& log) {
    for (int i = 0; i < 3; ++i) AppendOne(log, "in the ring");
  });
  const Found found = Open();
  EXPECT_EQ(found.report.segments_processed, 1u);
  EXPECT_EQ(found.report.ring_entries_recovered, 3u);
}

// Each change of state once, however often the disk is tried.
TEST_F(LogTest, TellsOnceOfTroubleAndOnceOfItsEnd) {
  test::SimDisk disk;
  options_.sync_policy = SyncPolicy::kSync;
  options_.retry_ms = 1;
  const std::string path = root_ + "/server.log";
  const LogLevel level = GetLogLevel();
  SetLogLevel(LogLevel::kNotice);
  ASSERT_TRUE(SetLogFile(path).ok());
  {
    Found found = Open(disk);
    ASSERT_NE(found.log, nullptr) << found.error;
    const Lsn good = AppendOne(*found.log, "before");
    WaitUntil([&] { return found.log->durable_lsn() >= good; });
    disk.AddFault({.calls = test::kWrite | test::kCreate, .error = EIO, .for_ever = true});
    const Lsn late = AppendOne(*found.log, "late");
    WaitUntil([&] { return found.log->state() == State::kRefusing; });
    const uint64_t failed = disk.failed_calls();
    WaitUntil([&] { return disk.failed_calls() > failed + 3; });
    disk.ClearFaults();
    WaitUntil([&] { return found.log->durable_lsn() >= late; });
    EXPECT_TRUE(found.log->Stop().ok());
  }
  ASSERT_TRUE(SetLogFile("").ok());
  SetLogLevel(level);
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const auto count = [&](std::string_view words) {
    int found = 0;
    for (size_t at = 0; (at = text.find(words, at)) != std::string::npos; ++at) ++found;
    return found;
  };
  EXPECT_EQ(count("Input/output error; writes are refused until the disk works again"), 1) << text;
  EXPECT_EQ(count("the disk of the log works again; writes are accepted"), 1) << text;
}

}  // namespace
}  // namespace crab::wal

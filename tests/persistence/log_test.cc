#include "persistence/log.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "persistence/reader.h"

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

  Found Open() {
    Found found;
    auto log = Log::Open(
        RealDisk(), options_, [&](const Identity& identity) { found.identity = identity; },
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
    while (!done()) std::this_thread::yield();
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

TEST_F(LogTest, RefusesASecondServerInItsDirectory) {
  Found first = Open();
  ASSERT_NE(first.log, nullptr) << first.error;
  Found second = Open();
  ASSERT_EQ(second.log, nullptr);
  EXPECT_NE(second.error.find("another server is using the log directory"), std::string::npos)
      << second.error;
}

}  // namespace
}  // namespace crab::wal

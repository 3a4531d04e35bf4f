// kill -9, on the machine's own disk: a child appends and tells through a pipe what a reply could
// have told; the parent kills it at some moment, again and again on the same log, then looks. Under
// every policy nothing acknowledged is lost, because the ring outlives the process.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>

#include "persistence/log.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::SyncPolicy;

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/crabcache-log-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The bytes of a record follow from its LSN, so that parent and child need not talk about them.
std::string PayloadFor(Lsn lsn) {
  size_t bytes = Mix(1, lsn) % 300;
  if (lsn % 97 == 0) bytes = 5000;
  if (lsn % 331 == 0) bytes = 200 << 10;  // above an eighth of the ring: on the heap
  std::string payload = std::to_string(lsn) + ":";
  while (payload.size() < bytes) payload += static_cast<char>(Mix(lsn, payload.size()));
  return payload;
}

// In the child, until it is killed: appends as fast as it may and reports each LSN once it could
// have been acknowledged.
[[noreturn]] void AppendUntilKilled(const wal::Options& options, int pipe) {
  Boot boot = BootLog(wal::RealDisk(), options);
  if (boot.log == nullptr) _exit(1);
  Lsn appended = boot.log->last_lsn();
  Lsn reported = appended;
  for (;;) {
    // The log gives its policy record an LSN too, so the next one is only known to be above.
    const std::string payload = PayloadFor(appended + 1);
    if (boot.log->last_lsn() == appended && boot.log->SecureRoom(payload.size())) {
      const Lsn lsn =
          boot.log->Append(wal::RecordType::kEffect, static_cast<uint16_t>(appended % 16), payload);
      if (lsn != appended + 1) _exit(2);
      appended = lsn;
    }
    const Lsn released = std::min(boot.log->release_lsn(), appended);
    if (released > reported) {
      reported = released;
      if (write(pipe, &reported, sizeof(reported)) != sizeof(reported)) _exit(0);
    }
    if (boot.log->state() != wal::State::kRunning) _exit(3);
  }
}

// Runs a child and kills it after a while; returns the last LSN that it reported, 0 for none.
Lsn RunAndKill(const wal::Options& options, std::chrono::microseconds life) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    AppendUntilKilled(options, ends[1]);
  }
  close(ends[1]);
  Lsn last = 0;
  std::thread listener([&] {  // drains, or the child would wait for the pipe
    Lsn lsn;
    while (read(ends[0], &lsn, sizeof(lsn)) == sizeof(lsn)) last = lsn;
  });
  std::this_thread::sleep_for(life);
  EXPECT_EQ(kill(child, SIGKILL), 0);
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status)) << "the child gave up: " << WEXITSTATUS(status);
  listener.join();
  close(ends[0]);
  return last;
}

class LogKillTest : public testing::TestWithParam<SyncPolicy> {};

TEST_P(LogKillTest, LosesNothingAcknowledgedOnKill9) {
  TemporaryDirectory directory;
  wal::Options options = LogOptions(GetParam());
  options.directory = directory.path() + "/wal";
  options.ring_directory = directory.path();
  options.flush_interval_ms = 20;
  const int kills = LongTests() ? 500 : 25;
  Lsn acknowledged = 0;
  uint64_t from_ring = 0;
  for (int i = 0; i < kills; ++i) {
    SCOPED_TRACE(testing::Message() << "kill " << i);
    // Some die while they start.
    const auto life = std::chrono::microseconds(Mix(TestSeed(), i) % (i % 3 == 0 ? 5000 : 60000));
    acknowledged = std::max(acknowledged, RunAndKill(options, life));
    if (i % 3 != 2) continue;  // now and then two or three die before anyone looks
    Boot boot = BootLog(wal::RealDisk(), options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    ASSERT_TRUE(boot.in_order);
    ASSERT_TRUE(boot.report.lost.empty()) << boot.report.lost.front().where;
    for (const auto& [lsn, record] : boot.records) ASSERT_EQ(record.payload, PayloadFor(lsn));
    const Lsn last = boot.records.empty() ? 0 : boot.records.rbegin()->first;
    ASSERT_GE(last, acknowledged);
    for (Lsn lsn = 1; lsn <= last; ++lsn) {
      ASSERT_EQ(boot.records.count(lsn), 1u)
          << "LSN " << lsn << " is missing, " << last << " is not, acknowledged was "
          << acknowledged << testing::PrintToString(boot.report.warnings);
    }
    from_ring += boot.report.ring_entries_recovered;
    ASSERT_TRUE(i % 2 == 0 || boot.log->Stop().ok());
    boot.log.reset();
  }
  std::cout << "kills: " << kills << ", acknowledged: " << acknowledged
            << " records, found in the ring: " << from_ring << "\n";
  EXPECT_GT(acknowledged, 0u);
}

INSTANTIATE_TEST_SUITE_P(Policies, LogKillTest,
                         testing::Values(SyncPolicy::kNone, SyncPolicy::kAsync, SyncPolicy::kSync),
                         [](const auto& param) { return PolicyName(param.param); });

}  // namespace
}  // namespace crab::test

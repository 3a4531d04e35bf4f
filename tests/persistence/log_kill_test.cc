// kill -9, on the machine's own disk: a child appends and tells through a pipe what a reply could
// have told; the parent kills it at some moment, again and again on the same log, then looks. Under
// every policy nothing acknowledged is lost, because the ring outlives the process. And call by
// call: what a kill at each call of the disk leaves while a log heals, on a disk in memory beside a
// ring that is a file.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <thread>
#include <tuple>

#include "persistence/log.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::State;
using wal::SyncPolicy;

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

// Runs a child and kills it after a while, counted from its beginning or from its first report;
// returns the last LSN that it reported, 0 for none.
Lsn RunAndKill(const wal::Options& options, std::chrono::microseconds life, bool from_report) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    AppendUntilKilled(options, ends[1]);
  }
  close(ends[1]);
  std::atomic<Lsn> last{0};
  std::thread listener([&] {  // drains, or the child would wait for the pipe
    Lsn lsn;
    while (read(ends[0], &lsn, sizeof(lsn)) == sizeof(lsn)) last = lsn;
  });
  if (from_report) {
    EXPECT_TRUE(Eventually([&] { return last > 0; }));
  }
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
    const bool starts = i % 3 == 0;
    const auto life = std::chrono::microseconds(Mix(TestSeed(), i) % (starts ? 5000 : 60000));
    acknowledged = std::max(acknowledged, RunAndKill(options, life, !starts));
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

// --- a kill at each call of a healing log
// ---------------------------------------------------------

// What a kill leaves: the files, and the ring in a directory of its own.
struct Left {
  std::unique_ptr<SimDisk> disk;  // null: it did not come to the kill
  Lsn acknowledged = 0;
};

class LogHealKillTest : public testing::TestWithParam<std::tuple<SyncPolicy, OnError>> {
 protected:
  LogHealKillTest() {
    const auto [policy, on_error] = GetParam();
    options_ = LogOptions(policy);
    options_.on_error = on_error;
    options_.retry_ms = 1;
    options_.ring_directory = live_rings();
    std::filesystem::create_directories(live_rings());
  }
  std::string live_rings() const { return directory_.path() + "/live"; }
  std::string left_rings() const { return directory_.path() + "/left"; }

  // What goes wrong, beginning with one call.
  struct Trouble {
    DiskCall fails;
    bool for_ever = false;
    int directory_failures = 0;  // so often the directory cannot be synced either
  };

  // All is well again behind the trouble, unless it is for ever. The process dies at the n-th call
  // from the first failure on.
  Left LiveUntilKilled(const Trouble& trouble, uint64_t kill_at) {
    for (const auto& file : std::filesystem::directory_iterator(live_rings())) {
      std::filesystem::remove(file);
    }
    Left left;
    SimDisk disk({.seed = TestSeed()});
    Boot boot = BootLog(disk, options_);
    EXPECT_NE(boot.log, nullptr) << boot.error;
    if (boot.log == nullptr) return left;
    wal::Log& log = *boot.log;
    std::atomic<Lsn> appended{0};
    const auto append = [&](int count, size_t bytes) {
      for (int i = 0; i < count; ++i) {
        appended = log.Append(wal::RecordType::kEffect, 3, std::string(bytes, 'x'));
      }
      log.Kick();
    };
    append(5, 100);
    log.RequestSync();
    EXPECT_TRUE(WaitDurable(log, appended));
    append(20, 700);  // under `none` some of these leave the ring without being durable
    EXPECT_TRUE(Eventually([&] { return log.written_lsn() >= appended; }));
    append(1, 50);
    const uint64_t failed_before = disk.failed_calls();
    std::atomic<uint64_t> calls{0};
    std::atomic<bool> killed{false};
    disk.SetWatcher([&] {
      if (disk.failed_calls() == failed_before || ++calls != kill_at) return;
      left.acknowledged = log.state() == State::kDegraded
                              ? log.durable_lsn()
                              : std::min(log.release_lsn(), appended.load());
      std::filesystem::remove_all(left_rings());
      std::filesystem::copy(live_rings(), left_rings());
      left.disk = disk.Kill();
      killed = true;
    });
    // The log's threads are at work: the first failure can be theirs, before the next line here.
    disk.AddFault({.calls = trouble.fails, .error = EIO, .for_ever = trouble.for_ever});
    for (int i = 0; i < trouble.directory_failures; ++i) {
      disk.AddFault({.calls = kSyncDirectory, .error = EIO});
    }
    append(3, 200);
    log.RequestSync();
    const auto healed = [&] {
      return log.state() == State::kRunning && log.durable_lsn() >= appended &&
             disk.failed_calls() > failed_before;
    };
    // A disk that stays broken is tried a few times after it has been given up.
    const auto given_up = [&] { return trouble.for_ever && calls > 60; };
    EXPECT_TRUE(Eventually([&] { return killed || log.resumable() || healed() || given_up(); }));
    disk.SetWatcher({});
    return left;
  }

  // The next start finds all that was acknowledged, with the ring; and without one what had been
  // durable. What it has found no power cut takes any more, whatever of the unsynced it leaves.
  void Judge(const Left& left, uint64_t turn) {
    for (const Survivors survivors : kEverySurvivors) {
      for (const bool has_ring : {true, false}) {
        // One after the other is enough where the next kill differs by one call.
        if (!LongTests() && survivors != kEverySurvivors[(turn + has_ring) % 4]) continue;
        if (!LongTests() && !has_ring && turn % 3 != 0) continue;
        SCOPED_TRACE(testing::Message() << "survivors " << SurvivorsName(survivors)
                                        << (has_ring ? "" : ", without the ring"));
        auto disk = left.disk->Kill({.seed = TestSeed(), .survivors = survivors});
        Boot boot = BootLog(*disk, RestartOptions(has_ring));
        ASSERT_NE(boot.log, nullptr) << boot.error;
        for (Lsn lsn = 1; has_ring && lsn <= left.acknowledged; ++lsn) {
          ASSERT_EQ(boot.records.count(lsn), 1u)
              << "LSN " << lsn << " of " << left.acknowledged
              << " acknowledged ones is gone: " << testing::PrintToString(boot.report.warnings);
        }
        ASSERT_GE(boot.log->durable_lsn(), boot.records.rbegin()->first);
        const auto cut = disk->PowerCut();
        boot.log.reset();
        Boot again = BootLog(*cut, RestartOptions(/*has_ring=*/false));
        ASSERT_NE(again.log, nullptr) << again.error;
        for (const auto& [lsn, record] : boot.records) {
          ASSERT_EQ(again.records.count(lsn), 1u) << "a power cut took LSN " << lsn;
          ASSERT_EQ(again.records[lsn], record);
        }
      }
    }
  }

  // The start fails, or its process dies, and another one follows: at each call of the disk.
  void JudgeRetries(const Left& left) {
    for (uint64_t nth = 1;; ++nth) {
      SCOPED_TRACE(testing::Message() << "call " << nth << " of the start fails");
      const Survivors survivors = kEverySurvivors[nth % 4];
      auto disk = left.disk->Kill({.seed = TestSeed() + nth, .survivors = survivors});
      disk->AddFault({.calls = kWrite | kSync | kRename | kSyncDirectory | kTruncate,
                      .nth = nth,
                      .error = EIO});
      const wal::Options options = RestartOptions(/*has_ring=*/true);
      (void)BootLog(*disk, options);
      const bool failed = disk->failed_calls() > 0;
      disk = disk->Kill({.seed = TestSeed() + nth, .survivors = survivors});
      Boot boot = BootLog(*disk, options);
      ASSERT_NE(boot.log, nullptr) << boot.error;
      for (Lsn lsn = 1; lsn <= left.acknowledged; ++lsn) {
        ASSERT_EQ(boot.records.count(lsn), 1u) << lsn << " of " << left.acknowledged;
      }
      const auto cut = disk->PowerCut();
      boot.log.reset();
      Boot again = BootLog(*cut, RestartOptions(/*has_ring=*/false));
      ASSERT_NE(again.log, nullptr) << again.error;
      for (const auto& [lsn, record] : boot.records) {
        ASSERT_EQ(again.records.count(lsn), 1u) << "a power cut took LSN " << lsn;
      }
      if (!failed) return;
    }
  }

  wal::Options RestartOptions(bool has_ring) {
    const std::string rings = directory_.path() + "/restart";
    std::filesystem::remove_all(rings);
    if (has_ring) {
      std::filesystem::copy(left_rings(), rings);
    } else {
      std::filesystem::create_directories(rings);
    }
    wal::Options options = options_;
    options.ring_directory = rings;
    options.recovery = wal::RecoveryMode::kStrict;
    return options;
  }

  TemporaryDirectory directory_;
  wal::Options options_;
};

TEST_P(LogHealKillTest, LosesNothingAcknowledgedAtAnyCallOfTheDisk) {
  constexpr Trouble kTroubles[] = {
      {kSync, false, 0},  {kSync, false, 1},  {kSync, false, 2},  {kSync, false, 5},
      {kSync, true, 0},   {kWrite, false, 0}, {kWrite, false, 1}, {kWrite, false, 2},
      {kWrite, false, 5}, {kWrite, true, 0},
  };
  uint64_t kills = 0;
  for (const Trouble& trouble : kTroubles) {
    for (uint64_t kill_at = 1;; ++kill_at) {
      SCOPED_TRACE(testing::Message() << (trouble.fails == kSync ? "sync" : "write") << " fails"
                                      << (trouble.for_ever ? " for ever" : "") << ", then "
                                      << trouble.directory_failures
                                      << " times the directory's, killed at call " << kill_at);
      const Left left = LiveUntilKilled(trouble, kill_at);
      if (HasFailure()) return;
      if (left.disk == nullptr) break;
      Judge(left, kill_at);
      if (HasFailure()) return;
      if (LongTests() || kill_at % 32 == 5) JudgeRetries(left);
      if (HasFailure()) return;
      ++kills;
    }
  }
  std::cout << "kills: " << kills << "\n";
}

INSTANTIATE_TEST_SUITE_P(Policies, LogHealKillTest,
                         testing::Combine(testing::Values(SyncPolicy::kNone, SyncPolicy::kAsync,
                                                          SyncPolicy::kSync),
                                          testing::Values(OnError::kRefuse, OnError::kDegrade)),
                         [](const auto& param) {
                           return std::string(PolicyName(std::get<0>(param.param))) +
                                  (std::get<1>(param.param) == OnError::kRefuse ? "Refuse"
                                                                                : "Degrade");
                         });

}  // namespace
}  // namespace crab::test

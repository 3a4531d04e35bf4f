// The log's directory vanishes, is replaced or comes back under a running log: nothing is written
// where this log holds no lock, and nothing that was promised is lost.
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <tuple>

#include "persistence/log.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::OnError;
using wal::State;
using wal::SyncPolicy;

class LogDirectoryTest : public testing::TestWithParam<std::tuple<SyncPolicy, OnError>> {
 protected:
  LogDirectoryTest() {
    options_ = LogOptions(std::get<0>(GetParam()));
    options_.on_error = std::get<1>(GetParam());
    options_.retry_ms = 1;
    options_.directory = directory_;
  }
  // Boots, and appends a first record that is on disk.
  void Start() {
    boot_ = BootLog(wal::RealDisk(), options_);
    ASSERT_NE(boot_.log, nullptr) << boot_.error;
    AppendDurably();
  }
  void AppendDurably() {
    const Lsn lsn = promise_.Append(*boot_.log, 100);
    boot_.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot_.log, lsn)) << boot_.log->metrics().last_error;
  }
  // Appends until the log notices what has become of its directory: within a second.
  void AwaitTrouble() {
    ASSERT_TRUE(Eventually([&] {
      (void)promise_.Append(*boot_.log, 100);
      boot_.log->Kick();
      return boot_.log->state() != State::kRunning;
    }));
  }
  // As the server does where the log can go on.
  void Bridge() {
    ASSERT_TRUE(Eventually([&] { return boot_.log->resumable(); }))
        << boot_.log->metrics().last_error;
    bridge_ = boot_.log->Resume().value();
    ASSERT_TRUE(PutCheckpoint(wal::RealDisk(), *boot_.log, directory_, bridge_).ok());
    boot_.log->SetCheckpoint(bridge_, bridge_);
    ASSERT_TRUE(Eventually([&] { return boot_.log->state() == State::kRunning; }));
  }
  bool IsLocked() { return BootLog(wal::RealDisk(), options_).error_number == EWOULDBLOCK; }
  // Ends the log; under `strict` the next start finds whole what it left.
  void Restart() {
    ASSERT_TRUE(boot_.log->Stop().ok());
    boot_.log.reset();
    options_.recovery = wal::RecoveryMode::kStrict;
    boot_ = BootLog(wal::RealDisk(), options_);
    ASSERT_NE(boot_.log, nullptr) << boot_.error;
  }
  // In a directory without the segments; a restart finds all of it.
  void GoOnBehindACheckpoint() {
    Bridge();
    AppendDurably();
    const Lsn behind = promise_.appended().rbegin()->first;
    EXPECT_TRUE(IsLocked());
    Restart();
    EXPECT_EQ(boot_.report.checkpoint_lsn, bridge_);
    EXPECT_EQ(boot_.records.count(behind), 1u);
  }
  // In one that has them: what was not given up is there.
  void GoOnWithItsSegments() {
    if (std::get<1>(GetParam()) == OnError::kDegrade) {
      Bridge();
    } else {
      ASSERT_TRUE(Eventually([&] { return boot_.log->state() == State::kRunning; }))
          << boot_.log->metrics().last_error;
    }
    AppendDurably();
    EXPECT_TRUE(IsLocked());
    Restart();
    for (const auto& [lsn, record] : promise_.appended()) {
      if (lsn > bridge_) {
        EXPECT_EQ(boot_.records.count(lsn), 1u) << lsn;
      }
    }
  }

  TemporaryDirectory root_;
  const std::string directory_ = root_.path() + "/wal";
  const std::string elsewhere_ = root_.path() + "/elsewhere";
  wal::Options options_;
  Promise promise_;
  Boot boot_;
  Lsn bridge_ = 0;
};

TEST_P(LogDirectoryTest, GoesOnInANewOneBehindACheckpoint) {
  Start();
  std::filesystem::remove_all(directory_);
  AwaitTrouble();
  EXPECT_NE(boot_.log->metrics().last_error.find("No such file"), std::string::npos)
      << boot_.log->metrics().last_error;
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(std::filesystem::exists(directory_)) << "it is not made anew";
  std::filesystem::create_directory(directory_);
  GoOnBehindACheckpoint();
}

// What the ring has when the process is killed is found by the start in the new one.
TEST_P(LogDirectoryTest, TakesTheRingWithIt) {
  options_.ring_directory = root_.path();
  options_.flush_interval_ms = 1000000;
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const auto live_and_die = [&] {
    Start();
    std::filesystem::remove_all(directory_);
    AwaitTrouble();
    std::filesystem::create_directory(directory_);
    Bridge();
    const Lsn last = promise_.Append(*boot_.log, 100);
    if (Eventually([&] { return boot_.log->release_lsn() >= last; }) &&
        write(ends[1], &last, sizeof(last)) == sizeof(last)) {
      raise(SIGKILL);
    }
  };
  EXPECT_EXIT(live_and_die(), testing::KilledBySignal(SIGKILL), "");
  Lsn acknowledged = 0;
  ASSERT_EQ(read(ends[0], &acknowledged, sizeof(acknowledged)),
            static_cast<ssize_t>(sizeof(acknowledged)));
  for (const int end : ends) close(end);
  boot_ = BootLog(wal::RealDisk(), options_);
  ASSERT_NE(boot_.log, nullptr) << boot_.error;
  EXPECT_EQ(boot_.records.count(acknowledged), 1u);
  EXPECT_TRUE(boot_.report.lost.empty());
}

// Before anybody has looked whether the directory is there, a new segment is due.
TEST_P(LogDirectoryTest, BeginsNoSegmentInOneThatReplacedIt) {
  Start();
  std::filesystem::rename(directory_, elsewhere_);
  std::filesystem::create_directory(directory_);
  boot_.log->RequestRotate();
  ASSERT_TRUE(Eventually([&] { return boot_.log->state() != State::kRunning; }));
  GoOnBehindACheckpoint();
}

// A copy has the segments, and another server could hold it.
TEST_P(LogDirectoryTest, LocksACopyThatTookItsPlaceBeforeItGoesOnThere) {
  Start();
  std::filesystem::rename(directory_, elsewhere_);
  std::filesystem::copy(elsewhere_, directory_);
  {
    auto held = wal::RealDisk().Lock(directory_);
    ASSERT_TRUE(held.ok()) << held.message();
    boot_.log->RequestRotate();
    ASSERT_TRUE(Eventually([&] { return boot_.log->state() != State::kRunning; }));
    ASSERT_TRUE(Eventually([&] {
      return boot_.log->metrics().last_error.find("lock") != std::string::npos;
    })) << boot_.log->metrics().last_error;
    EXPECT_FALSE(boot_.log->resumable());
  }
  GoOnWithItsSegments();
}

// As where a mount went away: what lies below it is not taken for the log's directory.
TEST_P(LogDirectoryTest, WaitsForItsOwnWhereAnotherFileSystemStandsInItsPlace) {
  std::string below = "/dev/shm/crab-below-XXXXXX";
  ASSERT_NE(mkdtemp(below.data()), nullptr);
  Start();
  std::filesystem::rename(directory_, elsewhere_);
  std::filesystem::create_directory_symlink(below, directory_);
  AwaitTrouble();
  ASSERT_TRUE(Eventually([&] {
    return boot_.log->metrics().last_error.find("another file system") != std::string::npos;
  })) << boot_.log->metrics().last_error;
  EXPECT_FALSE(boot_.log->resumable());
  EXPECT_FALSE(std::filesystem::exists(below + "/lock"));
  for (const auto& file : std::filesystem::directory_iterator(below)) {
    EXPECT_FALSE(file.path().string().ends_with(".log")) << file.path();
  }
  std::filesystem::remove(directory_);
  std::filesystem::remove_all(below);
  std::filesystem::rename(elsewhere_, directory_);
  GoOnWithItsSegments();
}

// Whoever changes the option while the directory cannot be locked is heard.
TEST(LogDirectoryLockTest, DecidesAnewWhileTheDirectoryIsHeldByAnother) {
  TemporaryDirectory root;
  wal::Options options = LogOptions(SyncPolicy::kSync);
  options.on_error = OnError::kRefuse;
  options.retry_ms = 1;
  options.directory = root.path() + "/wal";
  Boot boot = BootLog(wal::RealDisk(), options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  std::filesystem::rename(options.directory, root.path() + "/elsewhere");
  std::filesystem::create_directory(options.directory);
  auto held = wal::RealDisk().Lock(options.directory);
  ASSERT_TRUE(held.ok()) << held.message();
  Promise promise;
  (void)promise.Append(*boot.log, 100);
  boot.log->RequestRotate();
  ASSERT_TRUE(Eventually([&] { return boot.log->state() == State::kRefusing; }));
  boot.log->SetOnError(OnError::kDegrade);
  ASSERT_TRUE(Eventually([&] { return boot.log->state() == State::kDegraded; }))
      << boot.log->metrics().last_error;
}

INSTANTIATE_TEST_SUITE_P(Actions, LogDirectoryTest,
                         testing::Combine(testing::Values(SyncPolicy::kNone, SyncPolicy::kSync),
                                          testing::Values(OnError::kRefuse, OnError::kDegrade)),
                         [](const auto& param) {
                           const bool refuses = std::get<1>(param.param) == OnError::kRefuse;
                           return std::string(PolicyName(std::get<0>(param.param))) +
                                  (refuses ? "Refuse" : "Degrade");
                         });

}  // namespace
}  // namespace crab::test

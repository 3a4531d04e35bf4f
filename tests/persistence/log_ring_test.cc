// What a start makes of the ring that a killed process left: under other options, in a start that
// did not get to its end, where it cannot be used.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>

#include "persistence/backlog.h"
#include "persistence/log.h"
#include "persistence/ring.h"
#include "persistence/segment.h"
#include "tests/persistence/backlog_story.h"
#include "tests/support/eventually.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"

namespace crab::test {
namespace {

class LogRingTest : public testing::Test {
 protected:
  LogRingTest() { std::filesystem::create_directories(live()); }
  std::string live() const { return directory_.path() + "/live"; }
  std::string left() const { return directory_.path() + "/left"; }

  // The writer takes nothing out of the ring unless it is asked to.
  wal::Options LazyOptions(uint32_t shard_count) const {
    wal::Options options = OptionsFor(shard_count);
    options.sync_policy = wal::SyncPolicy::kNone;
    options.flush_interval_ms = 3600000;
    options.buffer_bytes = 1 << 20;
    options.ring_directory = live();
    return options;
  }
  // As the process' death leaves it; its ring goes to left().
  std::unique_ptr<SimDisk> Kill(const SimDisk& disk) const {
    std::filesystem::remove_all(left());
    std::filesystem::copy(live(), left());
    return disk.Kill();
  }
  wal::Options WithRing(wal::Options options) const {
    options.ring_directory = directory_.path() + "/restart";
    std::filesystem::remove_all(options.ring_directory);
    std::filesystem::copy(left(), options.ring_directory);
    return options;
  }
  static std::string RingIn(const std::string& directory) {
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      if (file.path().extension() == ".ring") return file.path();
    }
    return "";
  }
  static std::string AsideIn(const std::string& directory) {
    for (const auto& file : std::filesystem::directory_iterator(directory)) {
      if (file.path().extension().string().starts_with(".aside-")) return file.path();
    }
    return "";
  }
  static std::string BytesOf(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  // The last LSN whose slot a ring had given back.
  static Lsn FreedIn(const std::string& directory) {
    Lsn freed = 0;
    const std::string bytes = BytesOf(RingIn(directory));
    std::memcpy(&freed, bytes.data() + offsetof(wal::RingHeader, freed_lsn), sizeof(freed));
    return freed;
  }

  TemporaryDirectory directory_;
};

// --- a ring that cannot be used

// What is in it may have been acknowledged, so nobody goes on without it unasked.
TEST_F(LogRingTest, NothingStartsWithoutARingThatCannotBeOpened) {
  SimDisk disk;
  const wal::Options options = LazyOptions(16);
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  for (int i = 0; i < 20; ++i) boot.log->Append(RecordType::kEffect, 3, "in the ring");
  const auto killed = Kill(disk);
  struct Obstacle {
    const char* says;
    std::function<void(const std::string&path)> put, take;
  };
  int locked = -1;
  const Obstacle obstacles[] = {
      {"cannot lock the ring",
       [&](const std::string& path) {
         locked = open(path.c_str(), O_RDWR | O_CLOEXEC);
         ASSERT_EQ(flock(locked, LOCK_EX), 0);
       },
       [&](const std::string&) { close(locked); }},
      {"cannot open the ring",
       [](const std::string& path) {
         std::filesystem::rename(path, path + ".away");
         std::filesystem::create_symlink(path, path);
       },
       [](const std::string& path) {
         std::filesystem::remove(path);
         std::filesystem::rename(path + ".away", path);
       }},
  };
  for (const Obstacle& obstacle : obstacles) {
    for (const RecoveryMode mode :
         {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
      SCOPED_TRACE(testing::Message() << obstacle.says << ", mode " << static_cast<int>(mode));
      wal::Options restart = WithRing(options);
      restart.recovery = mode;
      auto left_disk = killed->Kill();
      const std::string path = RingIn(restart.ring_directory);
      obstacle.put(path);
      Boot refused = BootLog(*left_disk, restart);
      EXPECT_EQ(refused.error.find(obstacle.says), 0u) << refused.error;
      EXPECT_NE(refused.error.find("nothing was changed"), std::string::npos) << refused.error;
      EXPECT_EQ(SegmentPaths(*left_disk), SegmentPaths(*killed));
      obstacle.take(path);
      Boot again = BootLog(*left_disk, restart);
      ASSERT_NE(again.log, nullptr) << again.error;
      EXPECT_EQ(again.records.size(), 20u);
    }
  }
}

// What a start does not use it keeps for a person to look at, once it has got to its end; and until
// then where the next start looks for it, which comes to the same.
TEST_F(LogRingTest, IsKeptAsideByTheStartThatCanDoWithoutIt) {
  const wal::Options options = LazyOptions(16);
  SimDisk disk;
  const auto begin = [&](SimDisk& on, int durable) {
    Boot boot = BootLog(on, options);
    EXPECT_NE(boot.log, nullptr) << boot.error;
    const auto append = [&] {
      const std::string payload = "record " + std::to_string(boot.log->last_lsn() + 1);
      return boot.log->Append(RecordType::kEffect, 3, payload);
    };
    for (int i = 1; i < durable; ++i) append();
    const Lsn last = append();
    boot.log->RequestSync();
    EXPECT_TRUE(WaitDurable(*boot.log, last));
    for (int i = 0; i < 10; ++i) append();
    return Kill(on);
  };
  const auto first = begin(disk, 3);
  const std::string path = SegmentPaths(*first).back();
  enum class Why { kDamagedFile, kDamagedRing, kOlderEpoch, kNewerEpoch };
  for (const Why why : {Why::kDamagedFile, Why::kDamagedRing, Why::kOlderEpoch, Why::kNewerEpoch}) {
    auto left_disk = first->Kill();
    size_t expected = 3;
    if (why == Why::kDamagedFile) {
      left_disk->FlipBit(path, left_disk->Contents(path).find("record 2") * 8);
      expected = 1;
    } else if (why == Why::kDamagedRing) {
      const std::string ring = RingIn(left());
      std::string bytes = BytesOf(ring);
      bytes[bytes.find("record 8")] ^= 1;
      std::ofstream(ring, std::ios::binary) << bytes;
      expected = 7;
    } else if (why == Why::kOlderEpoch) {
      wal::Options elsewhere = options;
      elsewhere.ring_directory = "";
      ASSERT_NE(BootLog(*left_disk, elsewhere).log, nullptr);
    } else {
      begin(*first->Kill(), 1);
    }
    bool failed = true;
    for (uint64_t nth = 1; failed; nth += LongTests() ? 1 : 2) {
      SCOPED_TRACE(testing::Message() << "case " << static_cast<int>(why) << ", call " << nth
                                      << " of the first start fails");
      wal::Options restart = WithRing(options);
      const bool damaged = why == Why::kDamagedFile || why == Why::kDamagedRing;
      restart.recovery = damaged ? RecoveryMode::kPrefix : RecoveryMode::kSalvage;
      const std::string ring = BytesOf(RingIn(restart.ring_directory));
      auto on = left_disk->Kill();
      on->AddFault({.calls = kChangingCalls, .nth = nth, .error = EIO});
      Boot boot = BootLog(*on, restart);
      failed = on->failed_calls() > 0;
      if (boot.log == nullptr) {
        ASSERT_TRUE(failed) << boot.error;
        ASSERT_TRUE(BytesOf(RingIn(restart.ring_directory)) == ring);
        boot = BootLog(*on, restart);
        ASSERT_NE(boot.log, nullptr) << boot.error;
      }
      ASSERT_EQ(boot.records.size(), expected) << testing::PrintToString(boot.report.warnings);
      ASSERT_TRUE(damaged || boot.report.lost.empty());
      ASSERT_TRUE(BytesOf(AsideIn(restart.ring_directory)) == ring);
      const std::string warnings = testing::PrintToString(boot.report.warnings);
      ASSERT_NE(warnings.find("kept as " + AsideIn(restart.ring_directory)), std::string::npos)
          << warnings;
    }
  }
}

// --- an end that only the ring has

// Of what is durable the ring keeps what shares the file's last block with what is not: where that
// block is damaged nothing is lost.
TEST_F(LogRingTest, HoldsWhatADamagedEndOfTheFilesHeld) {
  const wal::Options options = LazyOptions(16);
  SimDisk disk;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  const Lsn count = 20;
  for (Lsn lsn = 1; lsn <= count; ++lsn) {
    boot.log->Append(RecordType::kEffect, 3,
                     "record " + std::to_string(lsn) + std::string(500, '.'));
    if (lsn + 2 < count) continue;  // the last are alone, each with a statement of what is durable
    boot.log->RequestSync();
    ASSERT_TRUE(WaitDurable(*boot.log, lsn));
  }
  const auto killed = Kill(disk);
  const std::string path = SegmentPaths(*killed).back();
  const std::string bytes = killed->Contents(path);
  const Lsn freed = FreedIn(left());
  ASSERT_GT(freed, 0u);
  ASSERT_LT(freed, count);
  for (Lsn first = 1; first <= count; ++first) {
    for (const bool reads : {true, false}) {
      SCOPED_TRACE(testing::Message() << "damaged from record " << first << " on"
                                      << (reads ? "" : ", which cannot be read"));
      const uint64_t at = bytes.find("record " + std::to_string(first) + ".");
      const uint64_t end = bytes.find_last_not_of('\0') + 1;
      // With the first sector behind the header a GAP could be gone: that one is read with it.
      if (!reads && at < wal::kSegmentHeaderBytes + SimDisk::kSectorBytes) continue;
      for (const RecoveryMode mode : {RecoveryMode::kStrict, RecoveryMode::kSalvage}) {
        auto hurt = killed->Kill();
        std::string damaged = bytes;
        hurt->PutFile(path, damaged.replace(at, end - at, end - at, '?'));
        for (uint64_t from = at; !reads && from < end; from += SimDisk::kSectorBytes) {
          hurt->BreakSector(path, from / SimDisk::kSectorBytes);
        }
        wal::Options restart = WithRing(options);
        restart.recovery = mode;
        if (mode == RecoveryMode::kStrict && !reads) continue;
        if (mode == RecoveryMode::kStrict && first <= freed) {
          ASSERT_EQ(BootLog(*hurt, restart).log, nullptr);
          continue;
        }
        Boot again = BootLog(*hurt, restart);
        ASSERT_NE(again.log, nullptr) << again.error;
        // What cannot be read takes good ones before it along.
        const bool loses = first <= freed || !again.report.lost.empty();
        const Lsn lost_first = again.report.lost.empty() ? first : again.report.lost.front().first;
        ASSERT_LE(lost_first, first);
        ASSERT_EQ(again.report.corrupted_entries, loses ? freed + 1 - lost_first : 0u)
            << testing::PrintToString(again.report.warnings);
        for (Lsn lsn = 1; lsn <= count; ++lsn) {
          ASSERT_EQ(again.records.count(lsn), loses && lsn >= lost_first && lsn <= freed ? 0u : 1u)
              << lsn;
        }
        ASSERT_EQ(again.log->last_lsn(), count);
        const auto cut = hurt->PowerCut();
        restart.ring_directory = "";
        restart.recovery = RecoveryMode::kSalvage;
        ASSERT_TRUE(BootLog(*cut, restart).records == again.records);
      }
    }
  }
}

// That the file which began its epoch cannot be read is no reason to do without both. What else
// that file said nobody knows, so something is told as lost.
TEST_F(LogRingTest, CountsWhereTheFirstFileOfItsEpochCannotBeRead) {
  const wal::Options options = LazyOptions(16);
  for (const int written : {0, 3, 30}) {
    SimDisk disk;
    Boot boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    const Lsn before = boot.log->Append(RecordType::kEffect, 3, "before");
    boot.log.reset();
    boot = BootLog(disk, options);
    ASSERT_NE(boot.log, nullptr) << boot.error;
    for (int i = 0; i < 40; ++i) {
      const Lsn lsn = boot.log->Append(RecordType::kEffect, 3, std::string(500, '.'));
      if (i + 1 != written) continue;
      boot.log->RequestSync();
      ASSERT_TRUE(WaitDurable(*boot.log, lsn));
    }
    const auto killed = Kill(disk);
    killed->FlipBit(SegmentPaths(*killed).back(), 100);
    const Lsn freed = FreedIn(left());
    ASSERT_EQ(freed > before, written == 30);
    SCOPED_TRACE(testing::Message() << written << " written");
    wal::Options restart = WithRing(options);
    restart.recovery = RecoveryMode::kStrict;
    auto hurt = killed->Kill();
    ASSERT_EQ(BootLog(*hurt, restart).log, nullptr);
    restart.recovery = RecoveryMode::kPrefix;
    {
      const Boot prefix = BootLog(*hurt, restart);
      ASSERT_EQ(prefix.records.size(), before) << prefix.error;
      ASSERT_NE(AsideIn(restart.ring_directory), "");
    }
    restart = WithRing(options);
    restart.recovery = RecoveryMode::kSalvage;
    hurt = killed->Kill();
    for (int start = 0; start < 2; ++start) {
      const Boot salvage = BootLog(*hurt, restart);
      ASSERT_NE(salvage.log, nullptr) << salvage.error;
      for (Lsn lsn = 1; lsn <= before + 40; ++lsn) {
        ASSERT_EQ(salvage.records.count(lsn), lsn > before && lsn <= freed ? 0u : 1u)
            << lsn << testing::PrintToString(salvage.report.warnings);
      }
      ASSERT_EQ(AsideIn(restart.ring_directory), "");
      ASSERT_TRUE(start > 0 || !salvage.report.lost.empty());
    }
  }
}

// A life that began below the end of the files replaced what they still show.
TEST_F(LogRingTest, DoesNotFollowRecordsThatItsLifeHadReplaced) {
  wal::Options options = LazyOptions(16);
  options.keep_segments = 10;
  SimDisk disk;
  Boot boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  for (int i = 1; i <= 10; ++i) {
    boot.log->Append(RecordType::kEffect, 3, "old " + std::to_string(i) + ".");
  }
  boot.log.reset();
  const std::string path = SegmentPaths(disk).back();
  const uint64_t hurt_at = disk.Contents(path).find("old 5.") * 8;
  disk.FlipBit(path, hurt_at);
  options.recovery = RecoveryMode::kPrefix;
  boot = BootLog(disk, options);
  ASSERT_NE(boot.log, nullptr) << boot.error;
  ASSERT_EQ(boot.log->last_lsn(), 4u);
  for (int i = 0; i < 10; ++i) boot.log->Append(RecordType::kEffect, 3, "new");
  const auto killed = Kill(disk);
  for (const std::string& each : SegmentPaths(*killed)) {
    killed->FlipBit(each, each == path ? hurt_at : 100);  // the old damage was one of reading
  }
  for (const RecoveryMode mode :
       {RecoveryMode::kSalvage, RecoveryMode::kPrefix, RecoveryMode::kStrict}) {
    wal::Options restart = WithRing(options);
    restart.recovery = mode;
    const auto hurt = killed->Kill();
    const Boot again = BootLog(*hurt, restart);
    ASSERT_EQ(again.log == nullptr, mode == RecoveryMode::kStrict) << again.error;
    if (again.log == nullptr) continue;
    ASSERT_FALSE(mode == RecoveryMode::kSalvage && again.report.lost.empty());
    for (const auto& [lsn, record] : again.records) ASSERT_NE(record.payload, "new") << lsn;
    ASSERT_NE(AsideIn(restart.ring_directory), "") << testing::PrintToString(again.report.warnings);
  }
}

// --- other options

struct Renumbering {
  const char* name;
  uint32_t shards_before, shards_after;
  bool other_keys;  // another seed or another part of the key decides
  bool by_hashtag_before;
};

constexpr Renumbering kRenumberings[] = {
    {"FewerShards", 1024, 16, false, false},
    {"MoreShards", 4, 1024, false, false},
    {"AnotherSeed", 64, 64, true, false},
    {"AnotherPartOfTheKey", 64, 64, true, true},
};

class LogRenumberingTest : public LogRingTest, public testing::WithParamInterface<Renumbering> {};

// Whatever start finds them and wherever it ends, the records are numbered as they were appended.
TEST_P(LogRenumberingTest, KeepsTheShardsOfWhatOnlyTheRingHas) {
  const Renumbering& param = GetParam();
  wal::Options before = LazyOptions(param.shards_before);
  before.hash_seed = param.other_keys && !param.by_hashtag_before ? 1 : 2;
  before.shard_by_hashtag = param.by_hashtag_before;
  wal::Options after = LazyOptions(param.shards_after);
  after.hash_seed = 2;
  const auto shard_before = [&](int key) {
    const uint32_t shard = param.other_keys ? ShardOf(kKeys - key, param.shards_before)
                                            : ShardOf(key, param.shards_before);
    return static_cast<uint16_t>(shard);
  };
  for (const int written : {0, 100}) {
    for (const bool stamped : {true, false}) {
      if (!LongTests() && written > 0 && !stamped) continue;
      SCOPED_TRACE(testing::Message() << written << " records in the file, the ring is "
                                      << (stamped ? "stamped" : "from before it was stamped"));
      SimDisk disk;
      Data model;
      std::unique_ptr<Backlog> backlog;
      auto log = wal::Log::Open(disk, before, &backlog);
      ASSERT_TRUE(log.ok()) << log.message();
      for (Lsn lsn = 1; lsn <= 300; ++lsn) {
        const int key = static_cast<int>(Mix(3, lsn) % kKeys);
        model[static_cast<size_t>(key)].push_back(lsn);
        ASSERT_EQ((*log)->Append(RecordType::kEffect, shard_before(key), Add(key, lsn)), lsn);
        if (static_cast<int>(lsn) != written) continue;
        (*log)->RequestSync();
        ASSERT_TRUE(WaitDurable(**log, lsn));
      }
      const auto killed = Kill(disk);
      if (!stamped) {
        constexpr size_t kAt = offsetof(wal::RingHeader, hash_seed);
        std::fstream ring(RingIn(left()), std::ios::binary | std::ios::in | std::ios::out);
        ring.seekp(kAt);
        ring << std::string(sizeof(wal::Sharding), '\0');
        ASSERT_TRUE(ring.good());
      }
      bool failed = true;
      for (uint64_t nth = 1; failed; nth += LongTests() ? 1 : 2) {
        SCOPED_TRACE(testing::Message() << "call " << nth << " of the first start fails");
        const wal::Options restart = WithRing(after);
        auto left_disk = killed->Kill();
        left_disk->AddFault({.calls = kChangingCalls, .nth = nth, .error = EIO});
        Found found = FindByUnits(*left_disk, restart, nth, 2);
        failed = left_disk->failed_calls() > 0;
        for (int start = 1; start <= (failed ? 3 : 2); ++start) {
          if (found.error.empty()) {
            ASSERT_TRUE(found.report.lost.empty()) << found.report.lost.front().where;
            ASSERT_TRUE(found.data == model) << "start " << start << ", " << found.units
                                             << " units: " << found.report.entries_recovered;
          } else {
            ASSERT_TRUE(failed && start == 1) << "start " << start << ": " << found.error;
          }
          left_disk = left_disk->Kill();
          found = FindByUnits(*left_disk, restart, nth, 2);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Options, LogRenumberingTest, testing::ValuesIn(kRenumberings),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace crab::test

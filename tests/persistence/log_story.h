// A log with a past, for the tests of crabcache-wal and of backups: keys that change over several
// segments, epochs and checkpoints, and what the data was after each record. Runs the tool in this
// process. Belongs to one thread.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "persistence/checkpoint.h"
#include "persistence/log.h"
#include "persistence/segment.h"
#include "src/keyspace/effects.h"
#include "src/wal_tool/wal_tool.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/sim_disk.h"
#include "utils/clock.h"

namespace crab::test {

struct ToolAnswer {
  int status;
  std::string out, errors;
};

inline ToolAnswer RunTool(wal::Disk& disk, const std::vector<std::string_view>& arguments,
                          const wal::ToolSurroundings& surroundings = {}) {
  std::ostringstream out, errors;
  const int status = wal::RunWalTool(disk, arguments, out, errors, surroundings);
  return {status, out.str(), errors.str()};
}

// Values by database and key.
using Data = std::map<std::pair<uint32_t, std::string>, std::string>;

inline void RunWords(uint32_t db, const std::vector<std::string_view>& words, Data* data) {
  const std::string_view name = words.at(0);
  if (name == "FLUSHDB") {
    std::erase_if(*data, [&](const auto& entry) { return entry.first.first == db; });
    return;
  }
  const std::pair<uint32_t, std::string> key(db, words.at(1));
  if (name == "SET") {
    (*data)[key] = words.at(2);
  } else if (name == "APPEND") {
    (*data)[key] += words.at(2);
  } else if (name == "DEL") {
    data->erase(key);
  } else {
    ADD_FAILURE() << "no such effect here: " << name;
  }
}

inline Status RunEffects(wal::RecordType type, std::string_view payload, Data* data) {
  if (type == wal::RecordType::kTxn) payload = TRY(TransactionEffects(payload));
  while (!payload.empty()) {
    EffectView effect;
    TRY(ReadEffect(&payload, &effect));
    std::vector<std::string_view> words = {EffectName(effect.id)};
    words.insert(words.end(), effect.arguments.begin(), effect.arguments.end());
    RunWords(effect.db, words, data);
  }
  return Status::Ok();
}

// What a server finds in a directory; `error` where it refuses to start.
struct FoundData {
  Data data;
  wal::RecoveryReport report;
  wal::Lsn last_lsn = 0;
  std::string error;
};

inline FoundData StartFrom(wal::Disk& disk, wal::Options options, const std::string& directory,
                           wal::RecoveryMode mode = wal::RecoveryMode::kStrict) {
  options.directory = directory;
  options.recovery = mode;
  FoundData found;
  auto log = wal::Log::Open(
      disk, options, [](const wal::Identity&) {},
      [&](const wal::RecordView& record) {
        return RunEffects(record.type, record.payload, &found.data);
      },
      &found.report);
  if (!log.ok()) {
    found.error = log.message();
    return found;
  }
  found.last_lsn = (*log)->last_lsn();
  EXPECT_TRUE((*log)->Stop().ok());
  return found;
}

class LogStory {
 public:
  explicit LogStory(SimDisk& disk, wal::Options options = LogOptions(wal::SyncPolicy::kSync))
      : disk_(disk), options_(std::move(options)) {
    after_[0] = {};
  }

  // Behind a time without the log, in which `key` was set.
  void BootBehindGap(const std::string& key) {
    options_.after_gap = true;
    Boot();
    options_.after_gap = false;
    now_[{0, key}] = "without the log";
    after_[log_->last_lsn()] = now_;
    Checkpoint(/*tell=*/true);
    ASSERT_TRUE(WaitHealed(*log_));
  }
  void Boot() {
    auto log = wal::Log::Open(
        disk_, options_, [](const wal::Identity&) {},
        [](const wal::RecordView&) { return Status::Ok(); }, &report_);
    ASSERT_TRUE(log.ok()) << log.message();
    log_ = std::move(*log);
  }
  void Stop() {
    ASSERT_TRUE(log_->Stop().ok());
    log_ = nullptr;
  }
  wal::Log& log() { return *log_; }
  const wal::Options& options() const { return options_; }

  wal::Lsn Set(uint32_t db, std::string_view key, std::string_view value) {
    effects_.Clear();
    effects_.Set(ShardOf(key), db, key, value, kNoDeadline);
    return Append();
  }
  wal::Lsn Del(uint32_t db, std::string_view key) {
    effects_.Clear();
    effects_.Del(ShardOf(key), db, key);
    return Append();
  }
  wal::Lsn SetBoth(uint32_t db, std::string_view a, std::string_view b, std::string_view value) {
    effects_.Clear();
    effects_.Set(ShardOf(a), db, a, value, kNoDeadline);
    effects_.Set(ShardOf(b), db, b, value, kNoDeadline);
    return Append();
  }
  wal::Lsn FlushDb(uint32_t db) {
    effects_.Clear();
    effects_.Broadcast(db, EffectId::kFlushdb, {});
    return Append();
  }
  // `count` changes of all kinds, which follow from the seed.
  void Change(int count, uint64_t seed) {
    for (int i = 0; i < count; ++i) {
      const uint64_t chance = Mix(seed, static_cast<uint64_t>(i));
      const std::string key = "user:" + std::to_string(chance % 13);
      const std::string other = "order:" + std::to_string(chance / 16 % 5);
      const std::string value = "v" + std::to_string(chance % 1000) + std::string(chance % 90, 'x');
      const auto db = static_cast<uint32_t>(chance / 1000 % 2);
      switch (chance / 64 % 8) {
        case 0:
          Del(db, key);
          break;
        case 1:
          SetBoth(db, key, other, value);
          break;
        case 2:
          if (chance % 5 == 0) FlushDb(db);
          [[fallthrough]];
        default:
          Set(db, key, value);
      }
    }
  }
  // A new segment.
  void Rotate() {
    const wal::Lsn last = log_->last_lsn();
    log_->RequestRotate();
    log_->Kick();
    for (int i = 0; i < 5000 && log_->metrics().sealed_lsn < last; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_GE(log_->metrics().sealed_lsn, last);
  }
  // A checkpoint as of now. The log is told when `tell`: it then retires what it does not need.
  void Checkpoint(bool tell = false) {
    wal::CheckpointInfo info;
    info.lsn = log_->last_lsn();
    info.identity = log_->identity();
    info.created_at_ms = RealClock().WallMs();
    auto writer = wal::CheckpointWriter::Create(disk_, options_.directory, info,
                                                options_.compression, options_.keys);
    ASSERT_TRUE(writer.ok()) << writer.message();
    std::map<uint16_t, Effects> shards;
    std::map<uint16_t, uint64_t> keys;
    for (const auto& [key, value] : now_) {
      const uint16_t shard = ShardOf(key.second);
      shards[shard].Set(shard, key.first, key.second, value, kNoDeadline);
      ++keys[shard];
    }
    for (auto& [shard, effects] : shards) {
      ASSERT_TRUE((*writer)->Add(shard, effects.bytes(), keys[shard]).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
    ASSERT_TRUE((*writer)->Publish().ok());
    checkpoints_.push_back(info.lsn);
    if (tell) log_->SetCheckpoint(info.lsn, info.lsn);
  }

  // The data after each record, by its LSN.
  const std::map<wal::Lsn, Data>& after() const { return after_; }
  // As of an LSN that may be no record's: that of the last one at or below it.
  const Data& At(wal::Lsn lsn) const { return std::prev(after_.upper_bound(lsn))->second; }
  const Data& now() const { return now_; }
  const std::vector<wal::Lsn>& checkpoints() const { return checkpoints_; }

  static uint16_t ShardOf(std::string_view key) {
    return static_cast<uint16_t>(Mix(std::hash<std::string_view>()(key), 1) % 16);
  }

 private:
  wal::Lsn Append() {
    const bool several = effects_.count() > 1;
    const auto type = several                                   ? wal::RecordType::kTxn
                      : effects_.shard() == Effects::kBroadcast ? wal::RecordType::kBroadcast
                                                                : wal::RecordType::kEffect;
    const std::string_view payload = several ? effects_.Transaction() : effects_.bytes();
    const wal::Lsn lsn =
        log_->Append(type, several ? wal::kBroadcastShard : effects_.shard(), payload);
    EXPECT_TRUE(WaitDurable(*log_, lsn));
    EXPECT_TRUE(RunEffects(type, payload, &now_).ok());
    after_[lsn] = now_;
    return lsn;
  }

  SimDisk& disk_;
  wal::Options options_;
  std::unique_ptr<wal::Log> log_;
  wal::RecoveryReport report_;
  Effects effects_;
  Data now_;
  std::map<wal::Lsn, Data> after_;
  std::vector<wal::Lsn> checkpoints_;
};

// The first segment of another log, as if it had been copied here under this number.
inline void PutForeignSegment(SimDisk& disk, const SimDisk& other, uint64_t number) {
  wal::SegmentInfo info;
  info.number = 1;
  std::string bytes = other.Contents(SegmentPaths(other).front());
  wal::DecodeSegmentHeader(bytes, &info);
  ASSERT_EQ(info.problem, "");
  info.number = number;
  bytes.replace(0, wal::kSegmentHeaderBytes, wal::EncodeSegmentHeader(info));
  disk.PutFile(std::string(kLogDirectory) + "/" + wal::SegmentName(number), bytes);
}

// Two epochs, five segments, a checkpoint in the middle; nothing is retired.
inline void TellAStory(LogStory& story) {
  story.Boot();
  story.Change(25, 1);
  story.Rotate();
  story.Change(10, 2);
  story.Checkpoint();
  story.Change(10, 3);
  story.Rotate();
  story.Change(5, 4);
  story.Stop();
  story.Boot();
  story.Change(10, 5);
  story.Rotate();
  story.Change(10, 6);
  story.Stop();
}

}  // namespace crab::test

// A snapshot against a plain map of the keyspace at the cut: while keys change in every way that a
// view knows, on one thread and on several.
#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "src/keyspace/effects.h"
#include "src/keyspace/eviction.h"
#include "src/keyspace/snapshot.h"
#include "tests/keyspace/snapshot_recorder.h"
#include "tests/support/seed.h"

namespace crab {
namespace {

using test::ContentsOf;
using test::ExpectSame;
using test::kDatabases;
using test::kNowMs;
using test::Large;
using test::Model;
using test::Recorder;
using test::World;

// Writes of all kinds with cuts and steps between them, by chance.
class SnapshotRun {
 public:
  SnapshotRun(uint64_t seed, uint32_t shards, int keys)
      : seed_(seed), keys_(keys), world_(shards, seed), random_(seed) {}

  // One snapshot from before its cut to its end.
  void Round() {
    const bool abandons = Below(4) == 0;
    drift_ = static_cast<Drift>(Below(3));
    upheaval_ = 40;
    for (uint64_t i = Below(600); i > 0; --i) DoWrite();
    ExpectSame(ContentsOf(world_.keyspace), model_);
    if (testing::Test::HasFailure()) return;

    const Model expected = model_;
    Recorder recorder(world_.keyspace);
    if (Below(2)) recorder.full_at = 1 + Below(3);
    auto snapshot = std::make_unique<Snapshot>(world_.keyspace, recorder);
    ASSERT_EQ(snapshot->entries_total(), expected.size());
    drift_ = static_cast<Drift>(Below(3));
    upheaval_ = Below(2) ? 40 : 3;
    const uint64_t writes_per_step = Below(12);
    const uint64_t entries_max = 1 + Below(40);
    const uint64_t abandoned_after = abandons ? Below(200) : UINT64_MAX;
    for (uint64_t step = 0; !snapshot->done(); ++step) {
      if (step == abandoned_after) {
        snapshot->Abandon();
        recorder.closed = true;
        if (Below(2)) break;
      }
      const auto shard = static_cast<uint32_t>(Below(world_.keyspace.shard_count()));
      const bool done = snapshot->Step(shard, 1 + Below(entries_max));
      ASSERT_EQ(done, snapshot->done(shard));
      for (uint64_t i = 0; i < writes_per_step; ++i) DoWrite();
      recorder.ReadLarge(Below(2));
      if (testing::Test::HasFailure()) return;
    }
    // Some more after the end, before it is taken down.
    for (uint64_t i = Below(50); i > 0; --i) DoWrite();
    if (!recorder.closed) {
      EXPECT_EQ(snapshot->entries_done(), expected.size());
      EXPECT_LE(snapshot->entries_saved(), expected.size());
      recorder.ReadLarge(SIZE_MAX);
      ExpectSame(recorder.found, expected);
    }
    snapshot.reset();
    for (uint32_t db = 0; db < kDatabases; ++db) {
      world_.keyspace.ForEach(db, [&](const Entry& entry) {
        EXPECT_EQ(entry.epoch(), world_.keyspace.epoch());
        return true;
      });
    }
    ExpectSame(ContentsOf(world_.keyspace), model_);
  }

  void RemoveAll() {
    world_.keyspace.DetachAll();
    EXPECT_EQ(world_.keyspace.MemoryBytes(), 0u);
  }

 private:
  // Where the number of keys goes: the tables grow or shrink under the walk.
  enum class Drift { kNone, kGrow, kShrink };

  uint64_t Below(uint64_t bound) { return test::Mix(seed_, ++drawn_) % bound; }

  std::string Value() {
    static constexpr size_t kSizes[] = {0,   1,   8,   20,  43,   44,   45,   100,
                                        200, 254, 255, 256, 1000, 4096, 5000, 20000};
    static constexpr size_t kLarge[] = {65535, 65536, 65537, 70000, 200000};
    const auto letter = static_cast<char>('a' + Below(26));
    if (Below(3) == 0) return std::to_string(static_cast<int64_t>(test::Mix(seed_, ++drawn_)));
    if (Below(30) == 0) return std::string(kLarge[Below(std::size(kLarge))], letter);
    return std::string(kSizes[Below(std::size(kSizes))], letter);
  }
  int64_t Deadline() {
    const uint64_t kind = Below(4);
    return kind < 2 ? kNoDeadline : now_ms_ + static_cast<int64_t>(Below(kind == 2 ? 300 : 100000));
  }
  std::string Key() {
    const uint64_t number = Below(static_cast<uint64_t>(keys_));
    std::string key = "key:" + std::to_string(number);
    if (number % 50 == 0) key.append(300, 'k');
    return key;
  }
  // The effects of the view alone are the deletions of what had expired.
  void MirrorExpiry() {
    std::string_view bytes = world_.effects.bytes();
    while (!bytes.empty()) {
      EffectView effect;
      ASSERT_TRUE(ReadEffect(&bytes, &effect).ok());
      ASSERT_EQ(effect.id, static_cast<int>(EffectId::kDel));
      const auto it = model_.find({effect.db, std::string(effect.arguments[0])});
      ASSERT_NE(it, model_.end());
      ASSERT_GE(it->second.second, 0);
      ASSERT_LT(it->second.second, now_ms_);
      model_.erase(it);
    }
    world_.effects.Clear();
  }
  // The key as it reads now.
  Model::iterator Find(uint32_t db, const std::string& key) {
    world_.view.Peek(key);
    MirrorExpiry();
    return model_.find({db, key});
  }

  void DoWrite() {
    const auto db = static_cast<uint32_t>(Below(3));
    const std::string key = Key();
    KeyspaceView& view = world_.view;
    now_ms_ += static_cast<int64_t>(Below(3));
    view.Begin(db, now_ms_, false);
    if (Below(2)) view.HashOf(key);
    uint64_t kind = Below(100);
    if (drift_ == Drift::kGrow && Below(3) > 0) kind = 0;
    if (drift_ == Drift::kShrink && Below(3) > 0) kind = 30;
    if (kind < 30) {
      Set(db, key);
    } else if (kind < 40) {
      const auto it = Find(db, key);
      ASSERT_EQ(view.Remove(key), it != model_.end());
      if (it != model_.end()) model_.erase(it);
    } else if (kind < 80) {
      const auto it = Find(db, key);
      Entry* entry = view.FindForWrite(key);
      ASSERT_EQ(entry != nullptr, it != model_.end());
      if (entry != nullptr) ChangeInPlace(entry, it, kind);
    } else if (kind < 90) {
      Copy(db, key);
    } else if (kind < 94) {
      view.ExpireSome(static_cast<uint32_t>(Below(world_.keyspace.shard_count())), 5);
      MirrorExpiry();
    } else if (kind < 97) {
      Evict();
    } else if (Below(upheaval_) == 0) {
      ChangeAll(db);
    }
    ASSERT_TRUE(world_.effects.empty());
  }

  void Set(uint32_t db, const std::string& key) {
    const auto it = Find(db, key);
    const std::string value = Value();
    int64_t deadline_ms = Below(4) == 0 ? kKeepDeadline : Deadline();
    world_.view.SetString(key, value, deadline_ms);
    if (deadline_ms == kKeepDeadline) {
      deadline_ms = it == model_.end() ? kNoDeadline : it->second.second;
    }
    model_[{db, key}] = {value, deadline_ms};
  }

  void ChangeInPlace(Entry* entry, Model::iterator it, uint64_t kind) {
    KeyspaceView& view = world_.view;
    std::string& expected = it->second.first;
    if (kind < 50) {
      const std::string value = Value();
      view.AppendString(entry, value);
      expected += value;
    } else if (kind < 60) {
      const std::string value = Value() + "!";
      const size_t offset = Below(expected.size() + 300);
      view.OverwriteString(entry, offset, value);
      if (expected.size() < offset + value.size()) expected.resize(offset + value.size());
      expected.replace(offset, value.size(), value);
    } else if (kind < 70) {
      it->second.second = Deadline();
      view.SetDeadline(entry, it->second.second);
    } else if (kind < 75) {
      view.Remove(entry);
      model_.erase(it);
    } else {
      const auto integer = static_cast<int64_t>(test::Mix(seed_, ++drawn_));
      view.SetInteger(entry, integer);
      expected = std::to_string(integer);
    }
  }

  // COPY, MOVE and RENAME: a copy, and maybe the source goes.
  void Copy(uint32_t db, const std::string& key) {
    KeyspaceView& view = world_.view;
    const auto to_db = static_cast<uint32_t>(Below(kDatabases));
    const std::string to = Below(2) ? key : Key();
    const bool moves = Below(2);
    if (to_db == db && to == key) return;
    const auto it = Find(db, key);
    const Entry* source = view.Find(key);
    ASSERT_EQ(source != nullptr, it != model_.end());
    if (source == nullptr) return;
    const auto value = it->second;
    view.CopyTo(*source, to_db, to);
    MirrorExpiry();
    if (moves) {
      ASSERT_TRUE(view.Remove(key));
      model_.erase({db, key});
    }
    model_[{to_db, to}] = value;
  }

  void Evict() {
    constexpr EvictionPolicy kPolicies[] = {
        EvictionPolicy::kAllkeysLru, EvictionPolicy::kVolatileTtl, EvictionPolicy::kAllkeysSieve};
    const auto shard = static_cast<uint32_t>(Below(world_.keyspace.shard_count()));
    Victim victim;
    if (!EvictOne(world_.keyspace, shard, kPolicies[Below(3)], 5, now_ms_, random_, &victim)) {
      return;
    }
    world_.view.SelectDb(victim.db);
    const auto it = Find(victim.db, victim.key);
    ASSERT_EQ(world_.view.Remove(victim.key), it != model_.end());
    if (it != model_.end()) model_.erase(it);
  }

  void ChangeAll(uint32_t db) {
    switch (Below(6)) {
      case 0: {
        const DetachedTables freed_here = world_.keyspace.DetachAll();
        model_.clear();
        break;
      }
      case 1:
      case 2:
        world_.keyspace.lazy_free().Add(world_.keyspace.Detach(db));
        std::erase_if(model_, [&](const auto& item) { return item.first.first == db; });
        break;
      default: {
        const auto other = static_cast<uint32_t>(Below(kDatabases));
        world_.keyspace.Swap(db, other);
        Model swapped;
        for (auto& [where, value] : model_) {
          const uint32_t at = where.first == db ? other : where.first == other ? db : where.first;
          swapped[{at, where.second}] = std::move(value);
        }
        model_ = std::move(swapped);
      }
    }
  }

  uint64_t seed_;
  int keys_;
  uint64_t drawn_ = 0;
  int64_t now_ms_ = kNowMs;
  Drift drift_ = Drift::kNone;
  uint64_t upheaval_ = 40;  // of so many writes that could change whole databases, one does
  World world_;
  Random random_;
  Model model_;
};

TEST(SnapshotModelTest, TheLastOneLeavesTheKeyspaceUnwalked) {
  World world(2);
  for (int i = 0; i < 2000; ++i) world.Set(0, "key" + std::to_string(i), "v");
  for (int i = 0; i < 100; ++i) world.Set(1, "key" + std::to_string(i), "v");
  Recorder recorder(world.keyspace);
  {
    Snapshot snapshot(world.keyspace, recorder);
    snapshot.Step(0, 10);
    world.keyspace.Detach(1);  // the snapshot has these tables now, and frees them
    snapshot.SetLast();
    recorder.closed = true;
  }
  size_t stamped = 0;
  world.keyspace.ForEach(0, [&](const Entry& entry) {
    stamped += entry.epoch() == world.keyspace.epoch();
    return true;
  });
  EXPECT_LT(stamped, 100u);
  EXPECT_EQ(world.keyspace.snapshot(), nullptr);
}

TEST(SnapshotModelTest, IsTheKeyspaceAtTheCutWhateverChangesMeanwhile) {
  const uint64_t runs = test::LongTests() ? 200 : 10;
  for (uint64_t run = 0; run < runs; ++run) {
    const uint64_t seed = test::Mix(test::TestSeed(), run);
    SCOPED_TRACE(testing::Message() << "run " << run << " seed " << seed);
    SnapshotRun model(seed, 1u << run % 4, run % 3 == 0 ? 100 : 3000);
    for (int round = 0; round < 8; ++round) {
      SCOPED_TRACE(testing::Message() << "round " << round);
      model.Round();
      if (HasFailure()) return;
    }
    model.RemoveAll();
  }
}

// The sink of the threads' test: another thread reads the large values and gives them back.
class ThreadedSink : public SnapshotSink {
 public:
  explicit ThreadedSink(const Keyspace& keyspace)
      : recorder_(keyspace), thread_([this] { ReadAll(); }) {}
  ~ThreadedSink() override { Finish(); }

  void Take(uint16_t shard, std::string effects, uint64_t entries) override {
    const std::lock_guard lock(mutex_);
    recorder_.Take(shard, std::move(effects), entries);
  }
  void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                 LargeString* value, bool /*stays*/) override {
    const std::lock_guard lock(mutex_);
    large_.push_back({shard, db, std::move(key), deadline_ms, value});
    came_.notify_one();
  }
  const Model& Finish() {
    {
      const std::lock_guard lock(mutex_);
      finished_ = true;
      came_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    return recorder_.found;
  }

 private:
  void ReadAll() {
    std::unique_lock lock(mutex_);
    for (;;) {
      came_.wait(lock, [this] { return finished_ || !large_.empty(); });
      if (large_.empty()) return;
      const Large large = std::move(large_.front());
      large_.pop_front();
      lock.unlock();
      std::string value(large.value->view());
      LargeString::Destroy(large.value);
      lock.lock();
      recorder_.found[{large.db, large.key}] = {std::move(value), large.deadline_ms};
    }
  }

  std::mutex mutex_;
  std::condition_variable came_;
  Recorder recorder_;
  std::deque<Large> large_;
  bool finished_ = false;
  std::thread thread_;
};

// The lock of each shard, and of the world: all of them.
class ShardLocks {
 public:
  explicit ShardLocks(uint32_t shards) : mutexes_(shards) {}
  std::mutex& of(uint32_t shard) { return mutexes_[shard]; }
  void LockWorld() {
    for (std::mutex& mutex : mutexes_) mutex.lock();
  }
  void UnlockWorld() {
    for (std::mutex& mutex : mutexes_) mutex.unlock();
  }

 private:
  std::vector<std::mutex> mutexes_;
};

TEST(SnapshotModelTest, IsWalkedAndWrittenToByThreadsThatHoldDifferentShards) {
  constexpr uint32_t kShards = 8;
  constexpr uint64_t kKeys = 2000;
  World world(kShards);
  for (uint64_t i = 0; i < kKeys; ++i) {
    world.Set(0, "key" + std::to_string(i), std::string(i % 40 == 0 ? 70000 : i % 300, 'v'));
  }
  ShardLocks locks(kShards);
  std::atomic<bool> stop{false};
  const auto write = [&](uint64_t seed) {
    Effects effects;
    KeyspaceStats stats;
    KeyspaceView view(world.keyspace, effects, stats);
    for (uint64_t i = 0; !stop.load(); ++i) {
      const uint64_t number = test::Mix(seed, i);
      const std::string key = "key" + std::to_string(number % kKeys);
      const std::lock_guard lock(locks.of(world.keyspace.ShardOf(key)));
      view.Begin(0, kNowMs, false);
      Entry* entry = view.FindForWrite(key);
      if (entry == nullptr || number >> 32 & 1) {
        view.SetString(key, std::string(number >> 33 & 255, 'w'), kNoDeadline);
      } else if (number >> 40 & 1) {
        view.OverwriteString(entry, 3, "xyz");
      } else if (number >> 41 & 1) {
        view.SetDeadline(entry, kNowMs + 1000);
      } else if (number >> 42 & 1) {
        view.OverwriteString(entry, 70000, "large");
      } else {
        view.Remove(entry);
      }
    }
  };
  const uint64_t seed = test::TestSeed();
  std::vector<std::thread> writers;
  for (uint64_t i = 0; i < 2; ++i) writers.emplace_back(write, test::Mix(seed, i));
  for (int round = 0; round < 6; ++round) {
    ThreadedSink sink(world.keyspace);
    locks.LockWorld();
    const Model expected = ContentsOf(world.keyspace);
    auto snapshot = std::make_unique<Snapshot>(world.keyspace, sink);
    locks.UnlockWorld();
    std::vector<std::thread> walkers;
    for (uint32_t first = 0; first < 2; ++first) {
      walkers.emplace_back([&, first] {
        while (!snapshot->done()) {
          for (uint32_t i = first; i < kShards; ++i) {
            const std::lock_guard lock(locks.of(i));
            snapshot->Step(i, 5);
          }
        }
      });
    }
    for (std::thread& walker : walkers) walker.join();
    EXPECT_EQ(snapshot->entries_done(), expected.size());
    ExpectSame(sink.Finish(), expected);
    locks.LockWorld();
    snapshot.reset();
    locks.UnlockWorld();
    if (HasFailure()) break;
  }
  stop.store(true);
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace crab

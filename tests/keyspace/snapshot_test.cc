// What a snapshot gives to its sink, against a plain map of the keyspace at the cut: while keys
// change in every way that a view knows, on one thread and on several.

#include "src/keyspace/snapshot.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/keyspace/effects.h"
#include "src/keyspace/eviction.h"
#include "tests/support/seed.h"

namespace crab {
namespace {

constexpr int64_t kNowMs = 1'700'000'000'000;
constexpr uint32_t kDatabases = 4;

// Database and key to value and deadline.
using Model = std::map<std::pair<uint32_t, std::string>, std::pair<std::string, int64_t>>;

Model ContentsOf(const Keyspace& keyspace) {
  Model model;
  for (uint32_t db = 0; db < kDatabases; ++db) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      char scratch[24];
      model[{db, std::string(entry.key())}] = {std::string(entry.StringBytes(scratch)),
                                               entry.deadline_ms()};
      return true;
    });
  }
  return model;
}

// Compares without printing megabytes: the first key that differs.
void ExpectSame(const Model& found, const Model& expected) {
  for (const auto& [where, value] : expected) {
    const auto it = found.find(where);
    ASSERT_NE(it, found.end()) << "missing: " << where.first << " " << where.second;
    ASSERT_EQ(it->second.second, value.second)
        << "deadline: " << where.first << " " << where.second;
    ASSERT_TRUE(it->second.first == value.first)
        << "value: " << where.first << " " << where.second << ", " << it->second.first.size()
        << " bytes for " << value.first.size();
  }
  for (const auto& [where, value] : found) {
    ASSERT_TRUE(expected.contains(where)) << "too much: " << where.first << " " << where.second;
  }
}

// Replays what it is given into a map. Keeps its shares of large values until it is told otherwise,
// and reads them only then, so that a change in place would show.
class Recorder : public SnapshotSink {
 public:
  explicit Recorder(const Keyspace& keyspace) : keyspace_(keyspace) {}
  ~Recorder() override { ReadLarge(SIZE_MAX); }

  void Take(uint16_t shard, std::string effects, uint64_t entries) override {
    EXPECT_FALSE(closed);
    EXPECT_LT(effects.size(), Snapshot::kChunkBytes + Snapshot::kLargeBytes + 1000);
    ++chunks;
    short_chunks += effects.size() < Snapshot::kChunkBytes;
    std::string_view bytes = effects;
    for (; !bytes.empty(); --entries) {
      EffectView effect;
      const Status status = ReadEffect(&bytes, &effect);
      ASSERT_TRUE(status.ok());
      ASSERT_EQ(effect.id, static_cast<int>(EffectId::kSet));
      int64_t deadline_ms = kNoDeadline;
      if (effect.arguments.size() == 4) {
        ASSERT_EQ(effect.arguments[2], "PXAT");
        deadline_ms = std::stoll(std::string(effect.arguments[3]));
      } else {
        ASSERT_EQ(effect.arguments.size(), 2u);
      }
      Add(shard, effect.db, std::string(effect.arguments[0]), std::string(effect.arguments[1]),
          deadline_ms);
    }
    EXPECT_EQ(entries, 0u);
  }
  void TakeLarge(uint16_t shard, uint32_t db, std::string key, int64_t deadline_ms,
                 LargeString* value, bool stays) override {
    EXPECT_FALSE(closed);
    if (stays) {
      EXPECT_GE(value->size(), Snapshot::kLargeBytes);
    }
    large_.push_back({shard, db, std::move(key), deadline_ms, value});
    ++large_values;
    staying_values += stays;
  }
  bool IsFull() const override { return large_.size() >= full_at; }

  void ReadLarge(size_t count) {
    for (; count > 0 && !large_.empty(); --count) {
      Large large = std::move(large_.front());
      large_.pop_front();
      Add(large.shard, large.db, std::move(large.key), std::string(large.value->view()),
          large.deadline_ms);
      LargeString::Destroy(large.value);
    }
  }

  Model found;
  bool closed = false;  // from here on nothing may come
  size_t chunks = 0;
  size_t short_chunks = 0;
  size_t large_values = 0;
  size_t staying_values = 0;  // of them
  size_t full_at = SIZE_MAX;  // shares that it holds

 private:
  struct Large {
    uint16_t shard;
    uint32_t db;
    std::string key;
    int64_t deadline_ms;
    LargeString* value;
  };

  void Add(uint16_t shard, uint32_t db, std::string key, std::string value, int64_t deadline_ms) {
    EXPECT_EQ(keyspace_.ShardOf(key), shard);
    const bool is_new =
        found.try_emplace({db, std::move(key)}, std::move(value), deadline_ms).second;
    EXPECT_TRUE(is_new) << "an entry came twice";
  }

  const Keyspace& keyspace_;
  std::deque<Large> large_;
};

struct World {
  explicit World(uint32_t shards = 4, uint64_t seed = 7)
      : keyspace({.shard_count = shards, .databases = kDatabases, .hash_seed = seed}) {
    view.Begin(0, kNowMs, false);
  }
  void Set(uint32_t db, std::string_view key, std::string_view value,
           int64_t deadline_ms = kNoDeadline) {
    view.Begin(db, kNowMs, false);
    view.SetString(key, value, deadline_ms);
  }
  void WalkAll(Snapshot& snapshot) {
    for (uint32_t i = 0; i < keyspace.shard_count(); ++i) {
      while (!snapshot.Step(i, 1)) {
      }
    }
  }

  Keyspace keyspace;
  Effects effects;
  KeyspaceStats stats;
  KeyspaceView view{keyspace, effects, stats};
};

TEST(SnapshotTest, IsDoneAtOnceWithoutKeys) {
  World world;
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  EXPECT_TRUE(snapshot.done());
  world.Set(0, "new", "value");
  EXPECT_TRUE(snapshot.Step(world.keyspace.ShardOf("new"), 100));
  EXPECT_TRUE(recorder.found.empty());
}

TEST(SnapshotTest, TouchesNoEntryAtTheCut) {
  World world;
  for (int i = 0; i < 100; ++i) world.Set(0, "key" + std::to_string(i), "value");
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  EXPECT_EQ(snapshot.entries_total(), 100u);
  EXPECT_EQ(snapshot.entries_done(), 0u);
  world.keyspace.ForEach(0, [&](const Entry& entry) {
    EXPECT_NE(entry.epoch(), snapshot.epoch());
    return true;
  });
}

TEST(SnapshotTest, ReadsAndAccessesSaveNothing) {
  World world;
  world.Set(0, "key", "value");
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  world.view.Begin(0, kNowMs + 5000, false);
  EXPECT_NE(world.view.Find("key"), nullptr);
  EXPECT_NE(world.view.Peek("key"), nullptr);
  EXPECT_EQ(world.view.FindForWrite("other"), nullptr);
  EXPECT_FALSE(snapshot.done());
  EXPECT_NE(world.view.FindForWrite("key"), nullptr);
  EXPECT_TRUE(snapshot.done());
  EXPECT_EQ(snapshot.entries_saved(), 1u);
  EXPECT_GT(snapshot.bytes_saved(), 8u);
}

TEST(SnapshotTest, CallsDatabasesAsTheyWereCalledAtTheCut) {
  World world;
  for (uint32_t db = 0; db < 3; ++db) {
    for (int i = 0; i < 50; ++i) {
      world.Set(db, "key" + std::to_string(i), std::to_string(db * 1000));
    }
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  for (uint32_t i = 0; i < 4; ++i) snapshot.Step(i, 10);
  world.keyspace.Swap(0, 3);
  world.keyspace.Swap(1, 3);
  world.Set(3, "key7", "changed");   // database 1's
  world.Set(1, "key8", "changed");   // database 0's
  world.Set(0, "key9", "inserted");  // database 3's
  for (uint32_t i = 0; i < 4; ++i) snapshot.Step(i, 10);
  world.keyspace.Swap(2, 2);
  world.keyspace.Swap(1, 2);
  world.keyspace.Detach(1);  // database 2's
  world.keyspace.Detach(3);  // database 1's
  world.keyspace.Swap(1, 3);
  world.WalkAll(snapshot);
  EXPECT_TRUE(snapshot.done());
  ExpectSame(recorder.found, expected);
}

TEST(SnapshotTest, WalksTablesThatWereTakenAwayBeforeTheyAreFreed) {
  World world;
  for (uint32_t db = 0; db < 3; ++db) {
    for (int i = 0; i < 500; ++i) {
      world.Set(db, "key" + std::to_string(i), std::to_string(i), i % 3 ? kNoDeadline : kNowMs + i);
    }
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  {
    Snapshot snapshot(world.keyspace, recorder);
    for (uint32_t i = 0; i < 4; ++i) snapshot.Step(i, 30);
    const uint64_t bytes = world.keyspace.MemoryBytes();
    EXPECT_EQ(world.keyspace.Detach(0).keys(), 0u);
    EXPECT_EQ(snapshot.kept_bytes(), bytes - world.keyspace.MemoryBytes());
    EXPECT_GT(snapshot.kept_bytes(), 0u);
    for (int i = 0; i < 600; ++i) world.Set(0, "key" + std::to_string(i), "new");
    for (uint32_t i = 0; i < 4; ++i) snapshot.Step(i, 10);
    EXPECT_EQ(world.keyspace.DetachAll().keys(), 0u);
    EXPECT_EQ(world.keyspace.MemoryBytes(), 0u);
    world.WalkAll(snapshot);
    EXPECT_EQ(snapshot.kept_bytes(), 0u);
    EXPECT_EQ(snapshot.entries_saved(), 0u);
    // What is walked is no longer its concern.
    world.Set(0, "key", "newer");
    EXPECT_EQ(world.keyspace.DetachAll().keys(), 1u);
  }
  ExpectSame(recorder.found, expected);
  EXPECT_EQ(world.keyspace.lazy_free().pending() + world.keyspace.lazy_free().freed(), 2100u);
}

TEST(SnapshotTest, SharesLargeValuesAndNoLaterWriteShowsInThem) {
  World world(1);
  const size_t large = Snapshot::kLargeBytes;
  world.Set(0, "below", std::string(large - 1, 'a'));
  for (const char* key :
       {"kept", "appended", "patched", "set", "set to fit", "deleted", "expired"}) {
    world.Set(0, key, std::string(large, 'a'), kNowMs + 100);
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  {
    Snapshot snapshot(world.keyspace, recorder);
    KeyspaceView& view = world.view;
    view.Begin(0, kNowMs, false);
    view.AppendString(view.FindForWrite("appended"), "b");
    view.AppendString(view.FindForWrite("below"), "b");
    view.OverwriteString(view.FindForWrite("patched"), 10, "bbb");
    view.SetString("set", "small", kNoDeadline);
    view.SetString("set to fit", std::string(large, 'b'), kNowMs + 50);
    EXPECT_TRUE(view.Remove("deleted"));
    view.Begin(0, kNowMs + 1000, false);
    EXPECT_EQ(view.Find("expired"), nullptr);
    view.Begin(0, kNowMs, false);
    EXPECT_EQ(recorder.large_values, 7u);
    EXPECT_EQ(recorder.staying_values, 0u);
    world.WalkAll(snapshot);
    EXPECT_EQ(recorder.staying_values, 1u);
    EXPECT_EQ(snapshot.entries_saved(), 7u);
    // Once more, while the sink has its shares.
    view.AppendString(view.FindForWrite("appended"), "c");
    view.OverwriteString(view.FindForWrite("kept"), 0, "c");
  }
  EXPECT_EQ(recorder.large_values, 8u);
  recorder.ReadLarge(SIZE_MAX);
  ExpectSame(recorder.found, expected);
  const Model now = ContentsOf(world.keyspace);
  EXPECT_TRUE(now.at({0, "appended"}).first == std::string(large, 'a') + "bc");
  EXPECT_TRUE(now.at({0, "patched"}).first.substr(8, 7) == "aabbbaa");
  EXPECT_TRUE(now.at({0, "kept"}).first.substr(0, 2) == "ca");
  EXPECT_TRUE(now.at({0, "set to fit"}).first == std::string(large, 'b'));
  world.keyspace.DetachAll();
  EXPECT_EQ(world.keyspace.MemoryBytes(), 0u);
}

// One command may remove any number of them, and the queue behind the sink has no say in it.
TEST(SnapshotTest, CopiesNothingOfWhatIsRemovedButShortValues) {
  World world;
  constexpr int kKeys = 1000;
  for (int i = 0; i < kKeys; ++i) {
    world.Set(0, "key" + std::to_string(i), std::string(10'000, 'v'));
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  for (int i = 0; i < kKeys; ++i) {
    const std::string key = "key" + std::to_string(i);
    if (i % 2 == 0) {
      EXPECT_TRUE(world.view.Remove(key));
    } else {
      world.Set(0, key, "new");
    }
  }
  EXPECT_EQ(recorder.chunks, 0u);
  EXPECT_EQ(recorder.large_values, static_cast<size_t>(kKeys));
  EXPECT_EQ(recorder.staying_values, 0u);
  EXPECT_TRUE(snapshot.done());
  recorder.ReadLarge(SIZE_MAX);
  ExpectSame(recorder.found, expected);
}

TEST(SnapshotTest, GivesChunksOfABoundedSize) {
  World world(2);
  for (int i = 0; i < 6000; ++i) {
    world.Set(0, "key" + std::to_string(i), std::string(static_cast<size_t>(i % 250), 'v'));
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  Snapshot snapshot(world.keyspace, recorder);
  for (int i = 0; i < 2000; ++i) world.Set(0, "key" + std::to_string(i * 3), "new");
  world.WalkAll(snapshot);
  ExpectSame(recorder.found, expected);
  EXPECT_GT(recorder.chunks, 40u);
  EXPECT_LE(recorder.short_chunks, 2u) << "only a shard's last one may be short";
  EXPECT_EQ(snapshot.entries_saved(), 2000u);
  EXPECT_EQ(snapshot.entries_done(), 6000u);
}

// A share is given in no time, whatever the size of its value.
TEST(SnapshotTest, AStepEndsWhereTheSinkIsFull) {
  World world(1);
  constexpr size_t kFullAt = 3;
  for (int i = 0; i < 40; ++i) {
    world.Set(0, "large" + std::to_string(i), std::string(Snapshot::kLargeBytes, 'v'));
    world.Set(0, "small" + std::to_string(i), "value");
    world.Set(1, "flushed" + std::to_string(i), std::string(Snapshot::kLargeBytes, 'v'));
  }
  const Model expected = ContentsOf(world.keyspace);
  Recorder recorder(world.keyspace);
  recorder.full_at = kFullAt;
  {
    Snapshot snapshot(world.keyspace, recorder);
    world.keyspace.Detach(1);
    int steps = 0;
    for (bool done = false; !done; ++steps) {
      const size_t before = recorder.large_values;
      done = snapshot.Step(0, SIZE_MAX);
      ASSERT_LE(recorder.large_values - before, kFullAt);
      // Saved, if it was not walked yet.
      world.Set(0, "large" + std::to_string(steps), "new");
      recorder.ReadLarge(SIZE_MAX);
    }
    EXPECT_GE(steps, 20);
  }
  ExpectSame(recorder.found, expected);
}

// Nothing fills it any more.
TEST(SnapshotTest, AFullSinkDoesNotHoldUpOneThatIsAbandoned) {
  World world(1);
  for (int i = 0; i < 40; ++i) {
    world.Set(0, "large" + std::to_string(i), std::string(Snapshot::kLargeBytes, 'v'));
  }
  Recorder recorder(world.keyspace);
  recorder.full_at = 1;
  Snapshot snapshot(world.keyspace, recorder);
  EXPECT_FALSE(snapshot.Step(0, SIZE_MAX));
  EXPECT_EQ(recorder.large_values, 1u);
  snapshot.Abandon();
  EXPECT_TRUE(snapshot.Step(0, SIZE_MAX));
  EXPECT_EQ(recorder.large_values, 1u);
}

TEST(SnapshotTest, GivesNothingOnceItIsAbandonedAndLeavesAllStamped) {
  World world(2);
  for (int i = 0; i < 2000; ++i) world.Set(0, "key" + std::to_string(i), std::string(100, 'v'));
  world.Set(0, "large", std::string(Snapshot::kLargeBytes, 'v'));
  Recorder recorder(world.keyspace);
  {
    Snapshot snapshot(world.keyspace, recorder);
    snapshot.Step(0, 300);
    const size_t chunks = recorder.chunks;
    EXPECT_GT(chunks, 0u);
    snapshot.Abandon();
    recorder.closed = true;
    for (int i = 0; i < 100; ++i) world.Set(0, "key" + std::to_string(i), "new");
    world.Set(0, "large", "new");
    snapshot.Step(0, 300);
    EXPECT_FALSE(snapshot.done());
    EXPECT_EQ(recorder.chunks, chunks);
    // The rest is walked by the destructor.
  }
  world.keyspace.ForEach(0, [&](const Entry& entry) {
    EXPECT_EQ(entry.epoch(), world.keyspace.epoch());
    return true;
  });
  const Model expected = ContentsOf(world.keyspace);
  Recorder next(world.keyspace);
  Snapshot snapshot(world.keyspace, next);
  world.WalkAll(snapshot);
  ExpectSame(next.found, expected);
}

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

TEST(SnapshotTest, TheLastOneLeavesTheKeyspaceUnwalked) {
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

TEST(SnapshotTest, IsTheKeyspaceAtTheCutWhateverChangesMeanwhile) {
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
  struct Large {
    uint16_t shard;
    uint32_t db;
    std::string key;
    int64_t deadline_ms;
    LargeString* value;
  };

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

TEST(SnapshotTest, IsWalkedAndWrittenToByThreadsThatHoldDifferentShards) {
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

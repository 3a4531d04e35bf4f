// What a snapshot gives to its sink, case by case.
#include "src/keyspace/snapshot.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/keyspace/snapshot_recorder.h"

namespace crab {
namespace {

using test::ContentsOf;
using test::ExpectSame;
using test::kNowMs;
using test::Model;
using test::Recorder;
using test::World;

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

}  // namespace
}  // namespace crab

// The sink of a snapshot that a test compares, and a keyspace to take one of.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "src/keyspace/effects.h"
#include "src/keyspace/snapshot.h"

namespace crab::test {

constexpr int64_t kNowMs = 1'700'000'000'000;
constexpr uint32_t kDatabases = 4;

// Database and key to value and deadline.
using Model = std::map<std::pair<uint32_t, std::string>, std::pair<std::string, int64_t>>;

inline Model ContentsOf(const Keyspace& keyspace) {
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
inline void ExpectSame(const Model& found, const Model& expected) {
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

// A large value, which comes by itself.
struct Large {
  uint16_t shard;
  uint32_t db;
  std::string key;
  int64_t deadline_ms;
  LargeString* value;
};

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

}  // namespace crab::test

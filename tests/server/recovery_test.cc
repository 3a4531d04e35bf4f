#include "src/server/recovery.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "src/keyspace/effects.h"
#include "tests/support/fake_log.h"

namespace crab {
namespace {

TEST(RecoveryTest, WritesAllDataAsOneRecordThatBeginsWithAFlushall) {
  Keyspace keyspace({.shard_count = 4, .hash_seed = 7});
  Effects ignored;
  KeyspaceStats stats;
  KeyspaceView view{keyspace, ignored, stats};
  view.Begin(0, 1700000000000, false);
  std::map<std::string, std::string> data;
  for (int i = 0; i < 100; ++i) {
    const std::string key = "key" + std::to_string(i);
    data[key] = std::string(static_cast<size_t>(i) * 13, 'v');
    view.SetString(key, data[key], kNoDeadline);
  }
  auto image = ImageOf(keyspace);
  ASSERT_TRUE(image.ok()) << image.message();
  test::FakeLog log;
  AppendImage(log, *image);
  ASSERT_EQ(log.records().size(), 1u);
  EXPECT_EQ(log.records()[0].type, wal::RecordType::kTxn);
  auto effects = TransactionEffects(log.records()[0].payload);
  ASSERT_TRUE(effects.ok()) << effects.message();
  std::string_view bytes = *effects;
  EffectView effect;
  ASSERT_TRUE(ReadEffect(&bytes, &effect).ok());
  EXPECT_EQ(effect.id, static_cast<int>(EffectId::kFlushall));
  std::map<std::string, std::string> found;
  while (!bytes.empty()) {
    ASSERT_TRUE(ReadEffect(&bytes, &effect).ok());
    ASSERT_EQ(effect.id, static_cast<int>(EffectId::kSet));
    found[std::string(effect.arguments[0])] = effect.arguments[1];
  }
  EXPECT_EQ(found, data);
}

TEST(RecoveryTest, TellsWhereTheDataDoesNotFitIntoOneRecord) {
  Keyspace keyspace({.shard_count = 4, .hash_seed = 7});
  Effects ignored;
  KeyspaceStats stats;
  KeyspaceView view{keyspace, ignored, stats};
  view.Begin(0, 1700000000000, false);
  view.SetString("key", std::string(3 << 20, 'v'), kNoDeadline);
  EXPECT_TRUE(ImageOf(keyspace, 4 << 20).ok());
  auto image = ImageOf(keyspace, 2 << 20);
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.message(),
            "the data does not fit into one record of the log, which holds 2 MiB at most");
}

}  // namespace
}  // namespace crab

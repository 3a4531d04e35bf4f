// Which checkpoints stay, for a restart and for a restore of an earlier moment.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "persistence/checkpoint.h"

namespace crab::wal {
namespace {

constexpr uint64_t kLogId = 7;

// Newest first, as they are listed.
std::vector<CheckpointInfo> Found(const std::vector<Lsn>& lsns) {
  std::vector<CheckpointInfo> found;
  for (const Lsn lsn : lsns) {
    CheckpointInfo info;
    info.lsn = lsn;
    info.identity.log_id = kLogId;
    found.push_back(info);
  }
  return found;
}

std::vector<Lsn> LsnsOf(const std::vector<CheckpointInfo>& infos) {
  std::vector<Lsn> lsns;
  for (const CheckpointInfo& info : infos) lsns.push_back(info.lsn);
  return lsns;
}

TEST(KeptCheckpointsTest, TwoForARestart) {
  const auto kept = ChooseCheckpoints(Found({40, 30, 20, 10}), kLogId, 2, kUnknownLsn);
  EXPECT_EQ(kept.good, 2u);
  EXPECT_EQ(kept.oldest_needed, 30u);
  EXPECT_EQ(kept.oldest_restorable, kUnknownLsn);
  EXPECT_EQ(LsnsOf(kept.gone), (std::vector<Lsn>{20, 10}));
}

TEST(KeptCheckpointsTest, ForRestoresTheLastBelowWhatIsRetainedAndTheFirstAboveIt) {
  const auto kept = ChooseCheckpoints(Found({80, 70, 60, 50, 40, 30, 20, 10}), kLogId, 2, 35);
  EXPECT_EQ(kept.oldest_needed, 70u);
  EXPECT_EQ(kept.oldest_restorable, 30u);
  EXPECT_EQ(LsnsOf(kept.gone), (std::vector<Lsn>{60, 50, 20, 10}));
}

TEST(KeptCheckpointsTest, WhereAllIsRetainedTheFirstOfAll) {
  const auto kept = ChooseCheckpoints(Found({50, 40, 30, 20}), kLogId, 2, 1);
  EXPECT_EQ(kept.oldest_restorable, 20u);
  EXPECT_EQ(LsnsOf(kept.gone), std::vector<Lsn>{30});
}

TEST(KeptCheckpointsTest, AllWhileNobodyKnowsWhatIsRetained) {
  const auto kept = ChooseCheckpoints(Found({50, 40, 30, 20}), kLogId, 2, 0);
  EXPECT_EQ(kept.oldest_needed, 40u);
  EXPECT_EQ(kept.oldest_restorable, 20u);
  EXPECT_TRUE(kept.gone.empty());
}

TEST(KeptCheckpointsTest, OnesThatDoNotCount) {
  auto found = Found({60, 50, 40, 30, 20, 10});
  found[0].problem = "damaged";
  found[1].identity.log_id = 8;
  found[3].problem = "damaged";
  found[4].problem = "no file descriptors";
  found[4].unopened_errno = EMFILE;
  const auto kept = ChooseCheckpoints(found, kLogId, 1, kUnknownLsn);
  EXPECT_EQ(kept.good, 1u);
  EXPECT_EQ(kept.oldest_needed, 40u);
  EXPECT_EQ(LsnsOf(kept.gone), (std::vector<Lsn>{30, 10}));
}

// It may be whole, and is nothing without the log behind it.
TEST(KeptCheckpointsTest, OneThatCouldNotBeOpenedIsNeeded) {
  auto found = Found({60, 50});
  found[1].problem = "no file descriptors";
  found[1].unopened_errno = EMFILE;
  const auto kept = ChooseCheckpoints(found, kLogId, 2, kUnknownLsn);
  EXPECT_EQ(kept.good, 1u);
  EXPECT_EQ(kept.oldest_needed, 50u);
}

// As time goes by: at most four, and always one below what is retained.
TEST(KeptCheckpointsTest, TheOneAboveTakesThePlaceOfTheOneBelow) {
  std::vector<Lsn> there;
  for (Lsn newest = 10; newest <= 1000; newest += 10) {
    there.insert(there.begin(), newest);
    const Lsn retained_from = newest <= 205 ? 1 : newest - 205;
    const auto kept = ChooseCheckpoints(Found(there), kLogId, 2, retained_from);
    for (const Lsn gone : LsnsOf(kept.gone)) std::erase(there, gone);
    ASSERT_LE(there.size(), 4u) << newest;
    if (newest < 300) continue;
    ASSERT_LT(there.back(), retained_from) << newest;
    ASSERT_EQ(there.back(), kept.oldest_restorable);
    ASSERT_GT(there.back() + 2 * 215, newest);  // and not much longer than twice that
  }
}

}  // namespace
}  // namespace crab::wal

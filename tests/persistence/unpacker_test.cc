#include "persistence/unpacker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "persistence/record.h"
#include "tests/persistence/backlog_story.h"

namespace crab::test {
namespace {

using wal::Bundle;
using wal::FrameHeader;
using wal::Plan;
using wal::Unpacker;

constexpr uint32_t kUnits = 8;

class UnpackerTest : public testing::Test {
 protected:
  UnpackerTest() {
    wal::Options options = OptionsFor(16);
    options.compression = wal::Compression::kLz4;
    Maker maker(TestSeed());
    maker.Run(options, 600, /*checkpoints=*/false);
    made_ = maker.Take();
    auto reader = wal::Reader::Open(*made_.disk, kLogDirectory);
    for (const wal::SegmentInfo& info : (*reader)->segments()) {
      Plan::Segment& segment = segments_.emplace_back();
      segment.info = info;
      if (segments_.size() > 1) segments_[segments_.size() - 2].last = info.first_lsn - 1;
    }
    segments_.back().last = made_.last;
  }

  std::unique_ptr<Unpacker> Make(Lsn checkpoint_lsn, uint64_t window_bytes) {
    std::vector<const Plan::Segment*> segments;
    for (const Plan::Segment& segment : segments_) segments.push_back(&segment);
    return std::make_unique<Unpacker>(*made_.disk, nullptr, kUnits, checkpoint_lsn, segments,
                                      window_bytes);
  }
  // With `jobs` at once, which are put back in another order than they were taken in.
  static std::vector<Bundle> NextWindow(Unpacker& unpacker, size_t jobs) {
    std::vector<std::unique_ptr<Unpacker::Job>> taken;
    while (!unpacker.ready()) {
      while (unpacker.wanted() && taken.size() < jobs) {
        auto job = unpacker.Take();
        EXPECT_TRUE(job.ok()) << job.message();
        taken.push_back(std::move(*job));
      }
      EXPECT_FALSE(unpacker.ready());
      EXPECT_TRUE(taken.back()->Unpack().ok());
      unpacker.Put(std::move(taken.back()));
      taken.pop_back();
    }
    return unpacker.TakeWindow();
  }
  static std::vector<Lsn> LsnsOf(const Bundle& bundle, uint32_t unit) {
    std::vector<uint64_t> offsets;
    bundle.places->Offsets(unit, &offsets);
    std::vector<Lsn> lsns;
    for (const uint64_t offset : offsets) {
      FrameHeader header;
      std::memcpy(&header, bundle.plain.data() + offset, sizeof(header));
      lsns.push_back(header.lsn);
    }
    return lsns;
  }

  Made made_;
  std::vector<Plan::Segment> segments_;
};

TEST_F(UnpackerTest, GivesEveryRecordToItsUnitsInOrder) {
  for (const size_t jobs : {1, 4}) {
    for (const Lsn checkpoint : {Lsn{0}, made_.last / 2}) {
      auto unpacker = Make(checkpoint, /*window_bytes=*/16 << 10);
      std::set<Lsn> seen;
      std::vector<Lsn> last(kUnits, checkpoint);
      int windows = 0;
      for (;; ++windows) {
        const std::vector<Bundle> window = NextWindow(*unpacker, jobs);
        if (window.empty()) break;
        for (const Bundle& bundle : window) {
          EXPECT_TRUE(bundle.bad.empty());
          for (uint32_t unit = 0; unit < kUnits; ++unit) {
            for (const Lsn lsn : LsnsOf(bundle, unit)) {
              ASSERT_GT(lsn, last[unit]);
              last[unit] = lsn;
              seen.insert(lsn);
            }
          }
        }
      }
      EXPECT_GT(windows, 2);
      EXPECT_EQ(seen.size(), made_.last - checkpoint);
      EXPECT_TRUE(unpacker->ready() && !unpacker->wanted());
    }
  }
}

TEST_F(UnpackerTest, AWindowIsNoLargerThanToldAndABundle) {
  constexpr uint64_t kWindowBytes = 16 << 10;
  auto unpacker = Make(/*checkpoint_lsn=*/0, kWindowBytes);
  for (;;) {
    const std::vector<Bundle> window = NextWindow(*unpacker, /*jobs=*/3);
    if (window.empty()) break;
    uint64_t bytes = 0, largest = 0;
    for (const Bundle& bundle : window) {
      EXPECT_EQ(bundle.plain.size(), bundle.plain_bytes);
      bytes += bundle.plain.size();
      largest = std::max<uint64_t>(largest, bundle.plain.size());
    }
    EXPECT_LT(bytes, kWindowBytes + largest);
  }
}

}  // namespace
}  // namespace crab::test

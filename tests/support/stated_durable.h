// What a log states to be durable, by which frames, and what is left of that once bytes are
// damaged.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"

namespace crab::test {

// Says that everything up to `durable` was durable; stands in these bytes of the file.
struct Statement {
  std::string path;
  uint64_t begin, end;
  wal::Lsn durable;
};

struct Damage {
  std::string path;
  uint64_t begin = 0, end = ~uint64_t{0};  // bytes that are no longer what they were
};

// Of the segments of an undamaged log: headers, BATCH, SEAL and STOP frames.
inline std::vector<Statement> StatementsOf(wal::Reader& reader) {
  std::vector<Statement> statements;
  for (const wal::SegmentInfo& segment : reader.segments()) {
    statements.push_back({segment.path, 0, wal::kSegmentHeaderBytes,
                          std::max(segment.durable_lsn, segment.first_lsn - 1)});
  }
  wal::Frame frame;
  for (;;) {
    auto more = reader.Next(&frame);
    EXPECT_TRUE(more.ok()) << more.message();
    if (!more.ok() || !*more) return statements;
    EXPECT_EQ(frame.verdict, wal::Verdict::kGood) << frame.reason;
    const auto type = static_cast<wal::FrameType>(frame.type);
    wal::Lsn durable = 0;
    if (type == wal::FrameType::kBatch) {
      wal::BatchPayload batch;
      std::memcpy(&batch, frame.payload.data(), sizeof(batch));
      durable = batch.durable_lsn;
    } else if (type == wal::FrameType::kSeal || type == wal::FrameType::kStop) {
      durable = frame.lsn;
    }
    if (durable == 0) continue;
    statements.push_back({frame.segment->path, frame.offset, frame.offset + frame.bytes, durable});
  }
}

// The largest LSN that an undamaged statement calls durable. Without its header a segment's other
// statements cannot be checked, so they count for nothing.
inline wal::Lsn StatedDurable(const std::vector<Statement>& statements,
                              const std::vector<Damage>& damages) {
  wal::Lsn stated = 0;
  for (const Statement& statement : statements) {
    const bool hit = std::any_of(damages.begin(), damages.end(), [&](const Damage& damage) {
      return damage.path == statement.path && damage.begin < damage.end &&
             (damage.begin < wal::kSegmentHeaderBytes ||
              (damage.begin < statement.end && statement.begin < damage.end));
    });
    if (!hit) stated = std::max(stated, statement.durable);
  }
  return stated;
}

}  // namespace crab::test

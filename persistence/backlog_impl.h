// LogBacklog: the Backlog of a log directory. backlog.cc holds what one unit needs,
// backlog_source.cc how the records of a segment are read, backlog_turns.cc the order in which the
// units of a log with PACKs come.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <compare>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/backlog_source.h"
#include "persistence/checkpoint.h"
#include "persistence/disk.h"
#include "persistence/index.h"
#include "persistence/places.h"
#include "persistence/ranges.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/unpacker.h"
#include "utils/status.h"

namespace crab::wal {

// A stage has at least so many bytes, about what INDEX frames are apart, and so many records for
// each unit: what a unit costs beside its records (its lock, its places in the index, the first
// look at its table) is shared by as many.
constexpr uint64_t kStageBytesMin = uint64_t{4} << 20;
constexpr uint64_t kStageRecordsPerUnit = 64;
constexpr uint64_t kStageBytesMax = uint64_t{16} << 20;
// Of each stage that is worked on, and of the next one, so much is in memory twice at most: what
// its INDEX frames tell of may begin as far before it as they are apart.
constexpr uint64_t kReadAheadBytesMax = kStageBytesMax + kIndexedBytes;
constexpr size_t kReadAheads = 3;

// What one call has found, added to the report at its end.
struct Tally {
  uint64_t recovered = 0;
  uint64_t skipped = 0;
  uint64_t of_ring = 0;
  std::vector<std::string> warnings;

  void Warn(std::string text) {
    if (warnings.size() < kWarningsMax) warnings.push_back(std::move(text));
  }
};

// One plan and what it takes to carry it out.
struct Level {
  Plan plan;
  std::unique_ptr<CheckpointReader> checkpoint;  // null: none, or see `problem`
  std::string problem;                           // why the checkpoint cannot be read at all
  int problem_errno = 0;
  std::vector<std::unique_ptr<Source>> sources;
};

class LogBacklog final : public Backlog {
 public:
  LogBacklog(Disk& disk, const Options& options, Recovered& recovered, RecoveryReport report,
             int64_t started_us);

  uint32_t units() const override { return units_; }
  bool any_order() const override { return !by_turns_; }
  bool empty() const override { return empty_; }
  uint64_t total_bytes() const override { return total_bytes_; }
  // A checkpoint that has to be done without makes the way longer than it looked.
  uint64_t done_bytes() const override {
    return std::min(done_bytes_.load(std::memory_order_relaxed), total_bytes_);
  }
  Result<bool> NextPiece(Piece* piece) override;
  Result<bool> Replay(const Piece& piece, const Apply& apply, const Ahead& ahead) override;
  Status ReplayInOrder(const std::function<Status(const RecordView&)>& apply) override;
  RecoveryReport report() const override;

 private:
  // Scratch memory of one call of Replay, and who is asking.
  struct Call {
    uint32_t unit;
    const Apply& apply;
    const Ahead& ahead;
    const ReadAhead* read = nullptr;
    Tally tally = {};
    Lsn checkpoint_lsn = 0;  // of the unit's checkpoint: records above it are applied
    Lsn last_lsn = 0;        // of the records so far
    std::vector<uint64_t> offsets = {};
    std::vector<TxnPart> parts = {};
    std::string joined = {};
  };
  // How far a unit has come. Its replayer's.
  struct UnitState {
    Level* level = nullptr;  // null: not begun
    Lsn last_lsn = 0;
    // In any order: the source it is at, and how many of its INDEX frames are done, or where its
    // places tell, up to which offset; and of all bytes those that are behind it.
    size_t source = 0;
    size_t done_of_source = 0;
    uint64_t bytes = 0;
  };
  // Where a stage ends: at this offset of this segment.
  struct Stage {
    uint64_t segment_number;
    uint64_t offset;
    uint64_t bytes;  // of the log up to here
    std::vector<SegmentPart> parts = {};
  };
  // What all units replay before the next turn begins.
  struct Turn {
    bool chunks = false;
    std::vector<Source*> sources = {};  // plain ones
    std::vector<Bundle> bundles = {};
    bool ring = false;
    uint64_t bytes = 0;
  };
  using TakeChunk = std::function<Status(Lsn, uint16_t shard, std::string_view effects)>;

  Result<Level*> LevelAt(size_t depth);
  std::unique_ptr<Level> MakeLevel(Plan plan);
  // Calls `take` with each chunk of the units' shards; goes down the levels until one has them all.
  Result<Level*> ReplayChunks(uint64_t first_unit, uint64_t last_unit, const TakeChunk& take,
                              Tally* tally);
  Result<Level*> ReplayChunksOf(Call& call);

  Status Map(Source& source);
  Status Prepare(Source& source, Lsn checkpoint_lsn);
  static bool ReadIndexes(Source& source);
  Status ReadThrough(Source& source, Lsn checkpoint_lsn, Places* places);
  Status TellDamage(Source& source, Lsn checkpoint_lsn, uint64_t offset, Lsn before);
  void CutStages(const Plan& plan);
  Status ReplayStage(const Stage& stage, UnitState* state, Call& call);
  // The unit's records that INDEX frames before `end` tell of, from the one numbered *done on, in
  // their order; *done is set to the first one that is left. Where places tell, those from the
  // offset *done to `end`.
  Status FindOffsets(Source& source, Lsn checkpoint_lsn, uint64_t end, size_t* done, Call& call);
  // The same of one INDEX frame.
  Status TakeIndex(const Source& source, const IndexView& index, Call& call);
  Result<std::unique_ptr<Places>> MakePlaces(Source& source, Lsn checkpoint_lsn);
  Status ReadStage(size_t number);
  Result<SegmentPart> PartToRead(const SegmentPart& part, Source** source);
  bool ReadRecord(const Source& source, uint64_t offset, FrameReader& reader, bool anew,
                  FrameHeader* header, std::string_view* frame);
  Status ReplaySource(Source& source, Lsn checkpoint_lsn, uint64_t end, size_t* done, Call& call);
  void ReplayRing(const Plan& plan, Call& call);
  void ApplyRecordOf(const FrameHeader& header, std::string_view payload, uint32_t shard_count,
                     Call& call);
  void ApplyTxn(const FrameHeader& header, std::string_view payload, uint32_t shard_count,
                Call& call);
  Status ForEachRecord(
      const Level& level,
      const std::function<void(const FrameHeader&, std::string_view, bool ring)>& take);
  Status NoteFrame(const Plan::Segment& segment, const Frame& frame, Lsn checkpoint_lsn);
  Status NoteLost(Lsn first, Lsn last, const std::string& where, const std::string& reason);
  void NoteMoreLost(const RecoveryReport& found);
  void NoteWarning(const std::string& text);
  void AddWarning(const std::string& text);
  void NoteDamagedCheckpoint(size_t depth, const std::string& name, Lsn lsn,
                             const std::string& problem);
  void Finish(const Tally& tally, uint32_t units);

  // backlog_turns.cc
  Result<bool> NextPieceOfTurn(Piece* piece);
  Status ReplayTurn(UnitState* state, Call& call);
  void ReplayBundle(const Bundle& bundle, Call& call);
  Status UnpackMore(std::unique_lock<std::mutex>& lock);
  Status BeginTurn();
  Status BeginWindow();
  void BeginSources();
  void Fail(const Status& status);

  // A large transaction, in the copy that was checked: the mapping, or what has been read ahead.
  struct Checked {
    uint64_t segment_number;
    uint64_t offset;
    const char* bytes;
    auto operator<=>(const Checked&) const = default;
  };
  bool IsChecked(const Checked& transaction);
  void RememberChecked(const Checked& transaction);

  Disk& disk_;
  const Options options_;
  const int64_t started_us_;
  const uint32_t units_;
  const bool by_turns_;
  const bool empty_;
  const std::vector<CheckpointInfo> fallbacks_;
  uint64_t total_bytes_ = 0;
  std::atomic<uint64_t> done_bytes_{0};
  Places ring_places_;

  std::mutex levels_mutex_;
  std::vector<std::unique_ptr<Level>> levels_;

  std::mutex checked_mutex_;
  std::set<Checked> checked_;

  std::vector<UnitState> unit_states_;
  std::vector<Stage> stages_;            // constant; in any order
  std::atomic<uint64_t> next_piece_{0};  // likewise: the number of those that have been given out
  std::mutex reads_mutex_;               // held while a stage is read: its readers need it next
  // Of the stage with this number modulo kReadAheads; memory that no piece has any more is used
  // again.
  std::array<std::shared_ptr<ReadAhead>, kReadAheads> reads_;

  // Of a log with PACKs. `turn_` is constant while units are left in it; the rest is under
  // turn_mutex_.
  std::mutex turn_mutex_;
  std::condition_variable turn_changed_;
  Turn turn_;
  uint32_t turn_next_ = 0;  // unit of the turn to be given out
  uint32_t turn_left_ = 0;  // units of the turn that are not through
  bool begun_ = false, ring_begun_ = false, ended_ = false;
  Level* deepest_ = nullptr;  // of the units' levels: what the others need is a part of it
  size_t next_source_ = 0;    // of it
  std::unique_ptr<Unpacker> unpacker_;
  std::string turn_error_;  // the first
  int turn_errno_ = 0;

  mutable std::mutex report_mutex_;
  RecoveryReport report_;
  Ranges lost_;              // LSNs that have been told as lost; under report_mutex_
  uint32_t units_done_ = 0;  // under report_mutex_
};

}  // namespace crab::wal

// LogBacklog: the Backlog of a log directory. backlog.cc holds what one unit needs,
// backlog_turns.cc the order in which the units of a log with PACKs come.
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
#include "persistence/checkpoint.h"
#include "persistence/disk.h"
#include "persistence/index.h"
#include "persistence/places.h"
#include "persistence/ranges.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/segment.h"
#include "persistence/unpacker.h"
#include "utils/crc32c.h"
#include "utils/status.h"

namespace crab::wal {

// Brought into memory in one go. The first unit of all meets every block of the log, and is the one
// that somebody waits for: to map a block takes some microseconds, however small it is.
constexpr uint64_t kBlockBytes = uint64_t{1} << 20;
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
// Records of one unit stand far apart: each is a miss of the cache, and often of the TLB. So many
// are asked for ahead of the one being applied, each by its first lines; and of one that is so near
// that they have come, what it is about.
constexpr size_t kPrefetchAhead = 24;
constexpr size_t kTellAhead = 12;
constexpr size_t kCacheLine = 64;
inline void PrefetchRecord(const char* record) {
  __builtin_prefetch(record);
  __builtin_prefetch(record + kCacheLine);
  __builtin_prefetch(record + 2 * kCacheLine);
}

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

// Bytes of a segment, at [begin, end) of its file.
struct SegmentPart {
  uint64_t segment_number;
  uint64_t begin, end;
};

// A stage's bytes, read. To take them from the mapping would cost a page fault for every page,
// which is more than reading them; a client's unit, which needs few of them, is taken from there.
struct ReadAhead {
  struct Part {
    SegmentPart place;
    const char* bytes;
  };
  size_t stage;
  std::string memory = {};
  std::vector<Part> parts = {};

  const Part* Find(uint64_t segment_number) const {
    for (const Part& part : parts) {
      if (part.place.segment_number == segment_number) return &part;
    }
    return nullptr;
  }
};

// One segment, mapped. Synchronized.
struct Source {
  Plan::Segment segment;
  std::mutex mutex;  // held while it is being prepared and read through
  std::atomic<bool> prepared{false};
  // Constant once prepared.
  std::unique_ptr<Mapping> mapping;
  std::string_view bytes;
  struct Index {
    uint64_t offset;  // of its frame; the records that it tells of stand before it
    IndexView view;
  };
  std::vector<Index> indexes;  // oldest first; empty where segment.places tells
  // Whether they are in memory, or not to be had in one go.
  enum class Block : uint8_t { kUnknown, kLoaded, kDamaged };
  std::vector<std::atomic<Block>> blocks;

  // Made where a list of an INDEX frame turns out to be malformed; under `mutex`.
  std::unique_ptr<Places> read_places;

  Ranges bad;  // offsets where it does not check, as far as is in the report; under `mutex`

  // False: the disk does not give these bytes.
  bool Load(uint64_t offset, uint64_t count) {
    const uint64_t last = (offset + count - 1) / kBlockBytes;
    for (uint64_t block = offset / kBlockBytes; block <= last; ++block) {
      Block state = blocks[block].load(std::memory_order_acquire);
      if (state == Block::kLoaded) [[likely]]
        continue;
      if (state == Block::kUnknown) {
        const uint64_t start = block * kBlockBytes;
        const uint64_t size = std::min(kBlockBytes, bytes.size() - start);
        state = mapping->Load(start, size).ok() ? Block::kLoaded : Block::kDamaged;
        blocks[block].store(state, std::memory_order_release);
      }
      // Beside the pages that the disk does not give there are good ones; and a hiccup passes.
      if (state == Block::kDamaged) return mapping->Load(offset, count).ok();
    }
    return true;
  }

  // Where the bytes from an offset on are, or will be once they have been loaded.
  const char* At(uint64_t offset, const ReadAhead::Part* read) const {
    if (read != nullptr && offset >= read->place.begin && offset < read->place.end) {
      return read->bytes + (offset - read->place.begin);
    }
    return bytes.data() + offset;
  }

  // `count` bytes at an offset, in memory; null: the file has no such, or the disk does not give
  // them.
  const char* Bytes(uint64_t offset, uint64_t count, const ReadAhead::Part* read) {
    if (read != nullptr && offset >= read->place.begin && offset < read->place.end &&
        count <= read->place.end - offset) {
      return read->bytes + (offset - read->place.begin);
    }
    if (offset > bytes.size() || count > bytes.size() - offset || !Load(offset, count)) {
      return nullptr;
    }
    return bytes.data() + offset;
  }

  // The first bytes of the payload of the record at an offset, where they have been read.
  static std::string_view Peek(uint64_t offset, const ReadAhead::Part* read) {
    constexpr uint64_t kPeekedBytes = 2 * kCacheLine;
    if (read == nullptr || offset < read->place.begin || offset >= read->place.end ||
        read->place.end - offset < kPeekedBytes) {
      return {};
    }
    const char* const record = read->bytes + (offset - read->place.begin);
    FrameHeader header;
    std::memcpy(&header, record, sizeof(header));
    return {record + sizeof(header),
            std::min<uint64_t>(header.length, kPeekedBytes - sizeof(header))};
  }

  // The frame at an offset, not checked; false: none fits there.
  bool FrameAt(uint64_t offset, const ReadAhead::Part* read, FrameHeader* header,
               std::string_view* frame) {
    if (offset < kSegmentHeaderBytes) return false;
    const char* at = Bytes(offset, sizeof(*header), read);
    if (at == nullptr) return false;
    std::memcpy(header, at, sizeof(*header));
    const uint64_t frame_bytes = FrameBytes(header->length);
    at = Bytes(offset, frame_bytes, read);
    if (at == nullptr) return false;
    *frame = {at, frame_bytes};
    return true;
  }

  bool Checks(uint64_t offset, const FrameHeader& header, std::string_view frame) const {
    return (Crc32c(frame.substr(sizeof(header.crc))) ^ PlaceMix(segment.info.salt, offset)) ==
           header.crc;
  }
};

// One plan and what it takes to carry it out.
struct Level {
  Plan plan;
  std::unique_ptr<CheckpointReader> checkpoint;  // null: none, or see `problem`
  std::string problem;                           // why the checkpoint cannot be read at all
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
  bool ReadIndexes(Source& source);
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
  void NoteDamagedCheckpoint(size_t depth, const std::string& name, const std::string& problem);
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

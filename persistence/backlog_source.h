// One segment that is replayed: where its records stand, what has been read ahead of it, and how
// its frames are had, near when they are needed. Who replays what: backlog_impl.h.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/disk.h"
#include "persistence/index.h"
#include "persistence/places.h"
#include "persistence/ranges.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/segment.h"
#include "utils/crc32c.h"
#include "utils/touch.h"

namespace crab::wal {

// Records from this size on are not copied: what ran atomically on many shards would be by each
// unit. Where one stands in memory is its own place, then.
constexpr uint64_t kLargeRecordBytes = uint64_t{16} << 10;

// Who applies the records of one unit asks for them by groups: they stand far apart, and each is a
// miss of the cache, often of the TLB too. A group's first lines are asked for while the group two
// before it is applied, and what it is about while the one before it is.
class Approach {
 public:
  Approach(const std::vector<uint64_t>& offsets, const Backlog::Ahead& ahead)
      : offsets_(offsets), ahead_(ahead) {}

  // Before record i is applied, from 0 on. `peek` gives the first bytes of the record at an offset,
  // kPeekedBytes at most; none where they are not in memory.
  template <typename Peek>
  void To(size_t i, const Peek& peek) {
    if (i % kGroup != 0) return;
    if (i == 0) {
      AskFor(0, peek);
      AskFor(kGroup, peek);
      Tell(0, peek);
    }
    AskFor(i + 2 * kGroup, peek);
    Tell(i + kGroup, peek);
  }
  static constexpr size_t kPeekedBytes = 3 * kCacheLineBytes;

 private:
  static constexpr size_t kGroup = Backlog::kToldMax;

  size_t EndOf(size_t first) const { return std::min(first + kGroup, offsets_.size()); }
  template <typename Peek>
  void AskFor(size_t first, const Peek& peek) const {
    for (size_t i = first; i < EndOf(first); ++i) {
      const std::string_view record = peek(offsets_[i]);
      for (size_t at = 0; at < record.size(); at += kCacheLineBytes) Touch(record.data() + at);
    }
  }
  template <typename Peek>
  void Tell(size_t first, const Peek& peek) {
    if (!ahead_) return;
    size_t count = 0;
    for (size_t i = first; i < EndOf(first); ++i) {
      const std::string_view record = peek(offsets_[i]);
      if (record.size() <= sizeof(FrameHeader)) continue;
      FrameHeader header;
      std::memcpy(&header, record.data(), sizeof(header));
      told_[count++] = record.substr(sizeof(header), header.length);
    }
    ahead_(std::span(told_.data(), count));
  }

  const std::vector<uint64_t>& offsets_;
  const Backlog::Ahead& ahead_;
  std::array<std::string_view, kGroup> told_;
};

// Bytes of a segment, at [begin, end) of its file.
struct SegmentPart {
  uint64_t segment_number;
  uint64_t begin, end;
};

// A stage's bytes, read.
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

// One segment. Synchronized.
struct Source {
  Plan::Segment segment;
  std::mutex mutex;  // held while it is being prepared and read through
  std::atomic<bool> prepared{false};
  // Constant once prepared.
  std::unique_ptr<Mapping> mapping;  // null: the disk does not give the file at all
  uint64_t bytes = 0;                // of the file, that count
  bool loaded = false;               // all of the mapping, for units that all go through it
  struct Index {
    uint64_t offset;  // of its frame; the records that it tells of stand before it
    IndexView view;
  };
  std::vector<Index> indexes;  // oldest first; empty where segment.places tells
  // Made where a list of an INDEX frame turns out to be malformed; under `mutex`.
  std::unique_ptr<Places> read_places;

  Ranges bad;  // offsets where it does not check, as far as is in the report; under `mutex`

  bool Checks(uint64_t offset, const FrameHeader& header, std::string_view frame) const {
    return (Crc32c(frame.substr(sizeof(header.crc))) ^ PlaceMix(segment.info.salt, offset)) ==
           header.crc;
  }
};

// A frame as it stands in the mapping, not checked; false: none fits there, or the disk does not
// give it.
bool MappedFrame(const Source& source, uint64_t offset, FrameHeader* header,
                 std::string_view* frame);

// Gives the frames of one segment to one thread: from what has been read ahead, else, as for a
// client's unit, which needs few of them, from the file one by one. To take small ones from the
// mapping would cost a page fault each.
class FrameReader {
 public:
  FrameReader(Disk& disk, const Source& source, const ReadAhead* read);

  // The frame at an offset, not checked; false: none fits there, or the disk does not give it.
  // Lives until the next call. `anew`: from the file, whatever has been read ahead.
  bool Read(uint64_t offset, FrameHeader* header, std::string_view* frame, bool anew = false);
  // As Approach wants it.
  std::string_view Peek(uint64_t offset) const {
    if (read_ == nullptr || offset < read_->place.begin || offset >= read_->place.end) return {};
    return {read_->bytes + (offset - read_->place.begin),
            std::min<uint64_t>(Approach::kPeekedBytes, read_->place.end - offset)};
  }

 private:
  // Into the buffer, at the same distance from its beginning as from `offset`.
  bool Fetch(uint64_t offset, uint64_t begin, uint64_t end);

  Disk& disk_;
  const Source& source_;
  const ReadAhead::Part* const read_;  // null: nothing
  std::unique_ptr<File> file_;         // opened when it is needed
  uint64_t first_bytes_;               // what is read of a record at once
  std::string buffer_;
};

}  // namespace crab::wal

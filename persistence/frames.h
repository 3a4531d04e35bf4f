// The frames of one segment file: the one at an offset, the next one that checks, and where the
// written bytes end. Says of a frame that it is what was written there, not whether it counts:
// that is for the Reader.
// Thread-bound. Holds one window of the file in memory (1 MiB, more for a larger frame).
#pragma once

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/segment_info.h"
#include "utils/status.h"

namespace crab::wal {

// A file seen through a window that moves forward, and now and then back. A block that the disk
// cannot read is a hole in it: what stands before and behind it is seen as ever. What fails once
// and not twice is none.
class Window {
 public:
  static constexpr uint64_t kBlockBytes = 4096;  // what the kernel reads at least
  // With more of them the file counts as one that cannot be read: each may take the disk seconds.
  static constexpr size_t kUnreadableBlocksMax = 1024;

  void Reset(std::unique_ptr<File> file, uint64_t file_bytes);
  uint64_t file_bytes() const { return file_bytes_; }
  // `bytes` bytes at `offset`, or fewer where the file or what can be read ends. Lives until the
  // next call. An error: there are too many holes.
  Result<std::string_view> At(uint64_t offset, uint64_t bytes);
  // As far as is known: where At() ended short.
  bool IsUnreadable(uint64_t offset) const { return unreadable_.count(offset / kBlockBytes) != 0; }
  // The first place at or behind `offset` that is not in a hole, as far as is known.
  uint64_t BehindUnreadable(uint64_t offset) const;
  // What the disk said last of a hole.
  const std::string& read_error() const { return read_error_; }

 private:
  // Where what can be read from `offset` on ends, as far as is known.
  uint64_t ReadableEnd(uint64_t offset) const;
  Status Fill(uint64_t offset, uint64_t bytes);
  Result<size_t> Read(uint64_t offset, uint64_t bytes);

  std::unique_ptr<File> file_;
  uint64_t file_bytes_ = 0;
  std::unique_ptr<char[]> buffer_;
  uint64_t buffer_bytes_ = 0;
  uint64_t start_ = 0;
  uint64_t filled_ = 0;
  std::set<uint64_t> unreadable_;  // blocks, by their number
  std::string read_error_;
};

class Frames {
 public:
  // The frame at an offset, as far as it checks.
  struct Candidate {
    bool good = false;
    bool unreadable = false;   // a part of it: see read_error()
    FrameHeader header = {};   // of a good one: its crc is the body's part alone
    std::string_view payload;  // lives until the next call
    uint64_t bytes = 0;
    const char* why = "";
  };
  // The record that should come next, and where.
  struct Expected {
    Lsn lsn;
    uint64_t offset;
  };

  // `segment` is to outlive its use here.
  void Reset(std::unique_ptr<File> file, const SegmentInfo& segment);
  uint64_t file_bytes() const { return window_.file_bytes(); }

  Result<Candidate> Try(uint64_t offset);
  // The next frame at or behind `from` that checks and whose LSN is possible, or the file's end.
  Result<uint64_t> Find(uint64_t from, Expected expected, Candidate* found);
  const std::string& read_error() const { return window_.read_error(); }
  // What looking for frames has cost: bytes that were checksummed so far.
  uint64_t checked_bytes() const { return checked_bytes_; }
  // The end of what is not zero or cannot be read, `from` where nothing is.
  Result<uint64_t> LastWrittenByte(uint64_t from);

 private:
  const SegmentInfo* segment_ = nullptr;
  uint64_t checked_bytes_ = 0;
  Window window_;
};

// Whether a frame with this header may stand in the segment: in one that is encrypted a record that
// is not cannot be the server's.
bool MayHold(const SegmentInfo& segment, const FrameHeader& header);

// What the payload of a PACK states; zeroes where it is too short to.
PackPayload PackHead(std::string_view payload);

// Unpacks the PACK frame at `offset` and checks that it holds every record that it states.
// `*pack` is what it states, as far as that can be read. The frames yielded live in `*scratch` or
// in `payload`. ENOKEY: the key is missing; otherwise an error means damage.
Result<std::string_view> UnpackRecords(Codec& codec, const SegmentInfo& segment, uint64_t offset,
                                       uint8_t flags, std::string_view payload, PackPayload* pack,
                                       std::string* scratch);

}  // namespace crab::wal

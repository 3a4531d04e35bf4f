// The frames of one segment file, one after the other from its beginning, as far as they check;
// what a server has written meanwhile can be asked for again and again. It judges nothing: where a
// frame does not check it stops, and whether that is the end of what has been written so far, a
// torn tail or damage is for the Reader to say. For those who follow a log that grows (backup,
// crabcache-wal tail).
// Thread-bound. Holds one window of the file in memory (256 KiB, more for a larger frame).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/disk.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "utils/status.h"

namespace crab::wal {

class SegmentScan {
 public:
  struct Frame {
    FrameHeader header;        // its crc is the body's part alone
    std::string_view payload;  // lives until the next call
    uint64_t offset = 0;
    uint64_t bytes = 0;
    // The highest LSN that stands in it: of a PACK that of its last record, of a frame of the
    // writer that of the record before it.
    Lsn last_lsn = 0;
  };

  // Reads the header. Damage is an error with EBADMSG.
  static Result<std::unique_ptr<SegmentScan>> Open(Disk& disk, const std::string& path);

  const SegmentInfo& info() const { return info_; }
  // The next frame; false where none checks, or the segment has ended. After false, a later call
  // looks at the same place again.
  Result<bool> Next(Frame* frame);
  // A SEAL or STOP has been read: nothing will follow.
  bool ended() const { return ended_; }
  uint64_t offset() const { return offset_; }   // behind the last frame
  Lsn last_lsn() const { return last_lsn_; }    // of the records so far, 0 = none
  Lsn durable_lsn() const { return durable_; }  // the largest that something here states

 private:
  SegmentScan() = default;
  // `bytes` bytes at `offset`, or fewer where the file ends.
  Result<std::string_view> At(uint64_t offset, uint64_t bytes);
  Result<bool> Try(Frame* frame);

  SegmentInfo info_;
  std::unique_ptr<File> file_;
  std::vector<char> window_;
  uint64_t window_start_ = 0, window_bytes_ = 0;
  uint64_t offset_ = 0;
  Lsn last_lsn_ = 0, durable_ = 0;
  bool ended_ = false;
};

}  // namespace crab::wal

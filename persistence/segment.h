// A segment: one file of the log, "wal-<20 digits>.log": a header of 4 KiB written once, frames
// behind it, zeroes behind those. FORMAT.md is the specification.
// Thread-bound: a SegmentWriter belongs to the writer's thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/index.h"
#include "persistence/log.h"
#include "persistence/record.h"
#include "persistence/segment_info.h"
#include "utils/status.h"

namespace crab::wal {

constexpr uint32_t kFormatVersion = 2;  // what this program writes
constexpr uint64_t kSegmentHeaderBytes = 4096;
// Of the header's flags, beside kFlag... of codec.h.
constexpr uint32_t kHeaderShardByHashtag = 4;
constexpr uint32_t kHeaderAfterGap = 8;
constexpr char kSegmentMagic[8] = {'C', 'R', 'A', 'B', 'W', 'A', 'L', '\n'};

struct [[gnu::packed]] SegmentHeader {
  char magic[8];
  uint32_t format_version;
  uint32_t min_reader_version;
  uint32_t header_bytes;
  uint32_t flags;
  uint64_t log_id;
  uint64_t epoch;
  uint64_t number;
  uint64_t created_at_ms;
  uint64_t first_lsn;
  uint64_t durable_lsn;
  uint64_t salt;
  uint64_t hash_seed;
  uint32_t shard_count;
  uint32_t predecessor_crc;
  uint64_t predecessor_number;
  uint64_t predecessor_last_lsn;
  uint64_t replication_offset;
  char replication_id[40];
  uint64_t ring_epoch;
  uint64_t key_id;
  uint32_t compression;
  char zero[3912];
  uint32_t crc;  // CRC32C of all the bytes before it
};
static_assert(sizeof(SegmentHeader) == kSegmentHeaderBytes);
static_assert(offsetof(SegmentHeader, salt) == 72);
static_assert(offsetof(SegmentHeader, replication_id) == 120);
static_assert(offsetof(SegmentHeader, key_id) == 168);
static_assert(offsetof(SegmentHeader, crc) == 4092);

// The version that a reader of the segment must have at least. One of version 1 knows no PACK, no
// checkpoint, and no gap that needs one: it may read only from the log's first record on.
constexpr uint32_t MinReaderVersion(const SegmentInfo& info) {
  const bool packs = (info.flags & (kFlagCompressed | kFlagEncrypted)) != 0;
  return packs || info.after_gap || info.first_lsn > 1 ? 2 : 1;
}

std::string SegmentName(uint64_t number);
std::optional<uint64_t> SegmentNumber(std::string_view name);  // nullopt: no segment's name

// `info.problem` says what is wrong; min_reader_version is judged by the caller.
std::string EncodeSegmentHeader(const SegmentInfo& info);
void DecodeSegmentHeader(std::string_view bytes, SegmentInfo* info);

// Records behind an INDEX frame that make the next one due.
constexpr uint64_t kIndexedBytes = uint64_t{4} << 20;

// The file that is being written. Knows where the next frame goes, where the records of each shard
// stand and what the seal will say.
class SegmentWriter {
 public:
  // Over an open file whose header is on disk.
  SegmentWriter(SegmentInfo info, std::unique_ptr<File> file, uint64_t zeroed_bytes)
      : info_(std::move(info)), file_(std::move(file)), zeroed_bytes_(zeroed_bytes) {}

  const SegmentInfo& info() const { return info_; }
  uint64_t offset() const { return offset_; }  // where the next frame goes
  uint64_t zeroed_bytes() const { return zeroed_bytes_; }
  uint32_t running_crc() const { return running_crc_; }
  uint64_t records() const { return records_; }
  // Records are to be given to AddPack, not to Add.
  bool packs() const { return info_.packs(); }
  // What an INDEX frame for what is not indexed yet takes, about.
  uint64_t index_bytes() const;

  // Adds a frame to `out`, the bytes that the next Write() puts at offset() - out.size(). An INDEX
  // frame that is due comes before it.
  void Add(std::string& out, FrameHeader header, std::string_view payload);
  // Writes a whole record from where its payload is: for those too large to copy. What was added
  // before it has been written.
  Status WriteDirect(FrameHeader header, std::string_view payload);
  // A frame of the writer itself.
  void AddFrame(std::string& out, FrameType type, Lsn lsn, std::string_view payload);
  // Records as one PACK frame: `plain` are their frames, made by AppendPackedFrame.
  Status AddPack(std::string& out, Codec& codec, std::string_view plain, uint32_t records,
                 Lsn first_lsn);
  // An INDEX frame where one is due, so that what is added next stands at offset().
  void AddDueIndex(std::string& out);
  // SEAL or STOP, behind an INDEX frame for what has none.
  void AddEnd(std::string& out, FrameType type, Lsn lsn, int64_t wall_ms);
  Status Write(std::string_view bytes) {
    return bytes.empty() ? Status::Ok() : file_->WriteAt(offset_ - bytes.size(), bytes);
  }
  Status Sync() { return file_->SyncData(); }
  // Gives the zeroed space behind the last frame back to the file system.
  Status Trim() { return file_->Truncate(offset_); }
  // Gives back all but the header and a GAP frame: of a file none of whose records counts.
  Status CutToStart() {
    return file_->Truncate(kSegmentHeaderBytes + (info_.after_gap ? FrameBytes(0) : 0));
  }

 private:
  void Count(const FrameHeader& header);
  void AddIndex(std::string& out);
  void NoteRecord(const FrameHeader& header, std::string_view payload);

  SegmentInfo info_;
  std::unique_ptr<File> file_;
  uint64_t zeroed_bytes_;
  uint64_t offset_ = kSegmentHeaderBytes;
  uint64_t records_ = 0;
  uint32_t running_crc_ = 0;
  IndexBuilder index_;
  uint64_t indexed_bytes_ =
      kSegmentHeaderBytes;   // of the file, to where an INDEX frame tells of it
  uint64_t last_index_ = 0;  // offset of the last INDEX frame, 0 = none
  uint64_t unindexed_records_ = 0;
  Lsn last_lsn_ = 0;  // of the last record here
};

}  // namespace crab::wal

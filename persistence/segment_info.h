// What is known of a segment of a log: what its header says, and what the segments around it say
// about it.
#pragma once

#include <cstdint>
#include <string>

#include "persistence/codec.h"
#include "persistence/log.h"

namespace crab::wal {

// The problem of a good segment that lies in the directory of a log it is no part of.
constexpr char kForeignProblem[] = "it belongs to another log";

// What a segment's header says; FORMAT.md explains the fields.
struct SegmentInfo {
  std::string name;         // "wal-00000000000000000001.log"
  std::string path;         // with the directory
  uint64_t number = 0;      // from the name
  uint64_t file_bytes = 0;  // zeroed space ahead of the records included
  std::string problem;      // "" = the header is good; otherwise nothing below is to be trusted

  uint32_t format_version = 0;
  uint32_t min_reader_version = 0;
  uint32_t flags = 0;   // kFlagCompressed, kFlagEncrypted, kHeaderShardByHashtag
  uint64_t key_id = 0;  // of the key of its PACK frames, 0 = none
  Compression compression = Compression::kNone;
  bool shard_by_hashtag = false;
  Identity identity;
  uint64_t epoch = 0;
  int64_t created_at_ms = 0;
  Lsn first_lsn = 0;
  Lsn durable_lsn = 0;  // known when the segment was created
  uint64_t salt = 0;
  uint64_t replication_offset = 0;
  uint64_t predecessor_number = 0;  // 0 = none
  Lsn predecessor_last_lsn = 0;
  uint32_t predecessor_crc = 0;  // running CRC of the predecessor's records
  uint64_t ring_epoch = 0;       // epoch of the ring when the segment was made; 0 = none

  // Logging had been off before this segment: LSNs above `durable_lsn` and below `first_lsn` were
  // given up then, which is known and no damage.
  bool after_gap = false;
  // The records behind the gap count for nothing: there is no checkpoint that goes with them. With
  // gap_damaged there is one, and it cannot be read.
  bool gap_void = false;
  bool gap_damaged = false;

  // Records from here on were cut off: a later epoch issues these LSNs again.
  Lsn end_lsn = ~Lsn{0};

  // Its records stand in PACK frames.
  bool packs() const { return (flags & (kFlagCompressed | kFlagEncrypted)) != 0; }
};

}  // namespace crab::wal

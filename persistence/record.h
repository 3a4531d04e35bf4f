// One frame of a segment, as bytes: 20 bytes of header, the payload, zeroes up to the next multiple
// of 8. FORMAT.md is the specification; a golden test holds both together.
//
// The checksum has two parts. The body's is CRC32C over everything but the checksum itself,
// padding included: whoever appends computes it, in parallel. The place's is a mix of the segment's
// salt and the frame's offset in the file: the writer adds it by one XOR when the place is known.
// So bytes that are stale, moved, or embedded in a payload do not check.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "persistence/log.h"

namespace crab::wal {

// Types 1..15 are records: they take an LSN. Types from 16 are the writer's own frames: their LSN
// field repeats that of the record before them.
enum class FrameType : uint8_t {
  kNone = 0,  // never written: zeroed space is no frame
  kEffect = 1,
  kTxn = 2,
  kBroadcast = 3,
  kPolicy = 4,  // the sync policy from here on: one byte, SyncPolicy
  kVoid = 5,    // an LSN that was handed out and whose record never came to be
  kBatch = 16,  // before each write: BatchPayload
  kSeal = 17,   // the end of a full segment: EndPayload
  kStop = 18,   // the clean end of a log: EndPayload
  kGap = 19,    // logging was off before this: what follows needs a checkpoint at its beginning
  kIndex = 20,  // where the records since the last one stand, by shard: index.h
  kPack = 21,   // records as one compressed or encrypted piece: PackPayload and the packed frames
  // Of a checkpoint only: checkpoint.h.
  kChunk = 32,          // the effects that make some keys of one shard
  kChunkIndex = 33,     // where the chunks of each shard stand: index.h
  kCheckpointEnd = 34,  // its last frame
};

constexpr bool IsRecord(uint8_t type) { return type >= 1 && type < 16; }
const char* FrameTypeName(uint8_t type);  // "effect", "batch" ...; "unknown"

struct [[gnu::packed]] FrameHeader {
  uint32_t crc;
  uint32_t length;  // of the payload
  uint64_t lsn;
  uint8_t type;
  uint8_t flags;  // of a PACK, bit 0: compressed, bit 1: encrypted
  uint16_t shard;
};
static_assert(sizeof(FrameHeader) == 20);

struct [[gnu::packed]] BatchPayload {
  uint64_t durable_lsn;  // known when the batch was written
  uint64_t wall_ms;      // since 1970
  uint64_t replication_offset;
};
static_assert(sizeof(BatchPayload) == 24);

struct [[gnu::packed]] EndPayload {
  uint64_t wall_ms;
  uint64_t records;      // in this segment
  uint32_t running_crc;  // over the checksums of all frames before this one, in order
  uint32_t zero;
  uint64_t last_index;  // offset in the file of the last INDEX frame, 0 = none
};
static_assert(sizeof(EndPayload) == 32);
constexpr size_t kOldEndPayloadBytes = 24;  // without last_index: format version 1

// What stands before the packed bytes of a PACK. Unpacked they are whole frames of records, each
// padded to a multiple of 8, their checksums the body's part alone.
struct [[gnu::packed]] PackPayload {
  uint32_t plain_bytes;
  uint32_t records;
  uint64_t first_lsn;
};
static_assert(sizeof(PackPayload) == 16);

// What Codec authenticates with a PACK beside its flags: where it stands and what it claims to be.
struct [[gnu::packed]] PackContext {
  uint64_t log_id;
  uint64_t segment_number;
  uint64_t salt;    // of the segment
  uint64_t offset;  // of the PACK frame in the file
  PackPayload payload;

  std::string_view bytes() const { return {reinterpret_cast<const char*>(this), sizeof(*this)}; }
};
static_assert(sizeof(PackContext) == 48);

constexpr size_t kFrameAlignment = 8;
constexpr uint32_t kPayloadBytesMax = 0xfffffff0u - sizeof(FrameHeader);

constexpr uint64_t FrameBytes(uint64_t payload_bytes) {
  return (sizeof(FrameHeader) + payload_bytes + kFrameAlignment - 1) & ~(kFrameAlignment - 1);
}

// The body's part of the checksum.
uint32_t BodyCrc(const FrameHeader& header, std::string_view payload);
// The place's part: XORed with the body's, it is the `crc` in the file.
uint32_t PlaceMix(uint64_t salt, uint64_t file_offset);

// Appends a whole frame to `out`, to stand at `file_offset`. `header.crc` holds the body's part.
void AppendFrame(std::string& out, FrameHeader header, std::string_view payload, uint64_t salt,
                 uint64_t file_offset);
// The same for a frame inside a PACK, whose checksum is the body's part alone.
void AppendPackedFrame(std::string& out, const FrameHeader& header, std::string_view payload);

}  // namespace crab::wal

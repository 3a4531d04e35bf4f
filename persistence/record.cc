#include "persistence/record.h"

#include <cstring>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

#include "utils/check.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

[[maybe_unused]] constexpr size_t kShortBytes = 256;  // above it the interleaved version wins
constexpr char kZeroes[kFrameAlignment] = {};

std::string_view Padding(uint64_t payload_bytes) {
  return {kZeroes, FrameBytes(payload_bytes) - sizeof(FrameHeader) - payload_bytes};
}

}  // namespace

const char* FrameTypeName(uint8_t type) {
  switch (static_cast<FrameType>(type)) {
    case FrameType::kNone:
      return "none";
    case FrameType::kEffect:
      return "effect";
    case FrameType::kTxn:
      return "txn";
    case FrameType::kBroadcast:
      return "broadcast";
    case FrameType::kPolicy:
      return "policy";
    case FrameType::kVoid:
      return "void";
    case FrameType::kBatch:
      return "batch";
    case FrameType::kSeal:
      return "seal";
    case FrameType::kStop:
      return "stop";
    case FrameType::kGap:
      return "gap";
    case FrameType::kIndex:
      return "index";
    case FrameType::kPack:
      return "pack";
    case FrameType::kChunk:
      return "chunk";
    case FrameType::kChunkIndex:
      return "chunk-index";
    case FrameType::kCheckpointEnd:
      return "checkpoint-end";
  }
  return "unknown";
}

uint32_t BodyCrc(const FrameHeader& header, std::string_view payload) {
  const char* bytes = reinterpret_cast<const char*>(&header);
#ifdef __SSE4_2__
  // Runs once per record while others wait, so short ones are done in place, by words. Behind the
  // payload's whole words come its last 0 to 7 bytes and the padding: 4 bytes or 12 together.
  if (payload.size() <= kShortBytes) {
    uint64_t words[2];
    std::memcpy(words, bytes + sizeof(header.crc), sizeof(words));
    uint64_t crc = _mm_crc32_u64(~uint32_t{0}, words[0]);
    crc = _mm_crc32_u64(crc, words[1]);
    const char* at = payload.data();
    size_t left = payload.size();
    for (; left >= 8; left -= 8, at += 8) {
      std::memcpy(words, at, 8);
      crc = _mm_crc32_u64(crc, words[0]);
    }
    uint64_t tail = 0;
    int shift = 0;
    if (left & 4) {
      uint32_t four;
      std::memcpy(&four, at, 4);
      tail = four;
      at += 4;
      shift = 32;
    }
    for (left &= 3; left > 0; --left, ++at, shift += 8) {
      tail |= uint64_t{static_cast<uint8_t>(*at)} << shift;
    }
    left = payload.size() % 8;
    if (left > 4) return ~_mm_crc32_u32(static_cast<uint32_t>(_mm_crc32_u64(crc, tail)), 0);
    return ~_mm_crc32_u32(static_cast<uint32_t>(crc), static_cast<uint32_t>(tail));
  }
#endif
  uint32_t crc = Crc32c({bytes + sizeof(header.crc), sizeof(header) - sizeof(header.crc)});
  crc = Crc32c(payload, crc);
  return Crc32c(Padding(payload.size()), crc);
}

uint32_t PlaceMix(uint64_t salt, uint64_t file_offset) {
  // A multiply-xorshift mix: every bit of the salt and of the offset moves every bit of the result.
  uint64_t mix = salt ^ (file_offset * 0x9e3779b97f4a7c15u);
  mix = (mix ^ (mix >> 32)) * 0xd6e8feb86659fd93u;
  mix = (mix ^ (mix >> 32)) * 0xd6e8feb86659fd93u;
  return static_cast<uint32_t>(mix ^ (mix >> 32));
}

void AppendFrame(std::string& out, FrameHeader header, std::string_view payload, uint64_t salt,
                 uint64_t file_offset) {
  DCHECK(file_offset % kFrameAlignment == 0);
  header.crc ^= PlaceMix(salt, file_offset);
  AppendPackedFrame(out, header, payload);
}

void AppendPackedFrame(std::string& out, const FrameHeader& header, std::string_view payload) {
  DCHECK(header.length == payload.size());
  out.append(reinterpret_cast<const char*>(&header), sizeof(header));
  out.append(payload);
  out.append(Padding(payload.size()));
}

}  // namespace crab::wal

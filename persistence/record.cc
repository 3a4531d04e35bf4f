#include "persistence/record.h"

#include "utils/check.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

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
  }
  return "unknown";
}

uint32_t BodyCrc(const FrameHeader& header, std::string_view payload) {
  const char* bytes = reinterpret_cast<const char*>(&header);
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
  DCHECK(header.length == payload.size());
  DCHECK(file_offset % kFrameAlignment == 0);
  header.crc ^= PlaceMix(salt, file_offset);
  out.append(reinterpret_cast<const char*>(&header), sizeof(header));
  out.append(payload);
  out.append(Padding(payload.size()));
}

}  // namespace crab::wal

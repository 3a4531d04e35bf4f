#include "persistence/frames.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "persistence/segment.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

constexpr size_t kWindowBytes = size_t{1} << 20;
constexpr uint64_t kSmallestFrame = FrameBytes(0);
constexpr uint64_t kScanBytes = 4096;  // looked at in one go when searching

bool IsZero(std::string_view bytes) {
  return bytes.empty() ||
         (bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

bool KnownType(uint8_t type) {
  return IsRecord(type) || (type >= static_cast<uint8_t>(FrameType::kBatch) &&
                            type <= static_cast<uint8_t>(FrameType::kPack));
}

// Where records are packed, LSNs may be far apart, and packed bytes are as good as random: a length
// among them is often possible, and the checksum of all that it spans would be in vain. But only
// frames of the writer stand there, and they have little choice.
bool MayBeginPacked(const FrameHeader& header) {
  if (IsRecord(header.type) || header.shard != kBroadcastShard) return false;
  const bool pack = header.type == static_cast<uint8_t>(FrameType::kPack);
  return pack ? header.length >= sizeof(PackPayload) &&
                    (header.flags & ~(kFlagCompressed | kFlagEncrypted)) == 0
              : header.length <= kScanBytes && header.flags == 0;
}

}  // namespace

void Window::Reset(std::unique_ptr<File> file, uint64_t file_bytes) {
  file_ = std::move(file);
  file_bytes_ = file_bytes;
  filled_ = 0;
  start_ = 0;
}

Result<std::string_view> Window::At(uint64_t offset, uint64_t bytes) {
  if (offset >= file_bytes_) return std::string_view();
  bytes = std::min(bytes, file_bytes_ - offset);
  if (offset < start_ || offset + bytes > start_ + filled_) {
    const uint64_t wanted = std::min(std::max<uint64_t>(bytes, kWindowBytes), file_bytes_ - offset);
    if (buffer_.size() < wanted) buffer_.resize(wanted);
    start_ = offset;
    filled_ = 0;
    auto filled = file_->ReadAt(offset, {buffer_.data(), wanted});
    if (!filled.ok()) filled = file_->ReadAt(offset, {buffer_.data(), wanted});  // a hiccup?
    filled_ = TRY(std::move(filled));
    bytes = std::min<uint64_t>(bytes, filled_);
  }
  return std::string_view(buffer_.data() + (offset - start_), bytes);
}

void Frames::Reset(std::unique_ptr<File> file, const SegmentInfo& segment) {
  segment_ = &segment;
  window_.Reset(std::move(file), segment.file_bytes);
}

Result<Frames::Candidate> Frames::Try(uint64_t offset) {
  Candidate candidate;
  const std::string_view start = TRY(window_.At(offset, sizeof(FrameHeader)));
  if (start.size() < sizeof(FrameHeader)) {
    candidate.never_written = true;
    candidate.why = "the file ends";
    return candidate;
  }
  FrameHeader& header = candidate.header;
  std::memcpy(&header, start.data(), sizeof(header));
  static constexpr FrameHeader kZero = {};
  if (std::memcmp(&header, &kZero, sizeof(header)) == 0) {
    candidate.never_written = true;
    candidate.why = "zeroes where a frame was expected";
    return candidate;
  }
  candidate.bytes = FrameBytes(header.length);
  if (header.type == 0 || header.length > kPayloadBytesMax ||
      candidate.bytes > window_.file_bytes() - offset) {
    candidate.why = "no frame begins like this";
    return candidate;
  }
  const std::string_view whole = TRY(window_.At(offset, candidate.bytes));
  if (whole.size() < candidate.bytes) {
    candidate.why = "the file ends within a frame";
    return candidate;
  }
  checked_bytes_ += candidate.bytes;
  const uint32_t body = Crc32c(whole.substr(sizeof(header.crc)));
  if ((body ^ PlaceMix(segment_->salt, offset)) != header.crc) {
    candidate.why = "the checksum does not match";
    return candidate;
  }
  if (!MayHold(*segment_, header)) {
    // Anybody can make a checksum.
    candidate.why = "a record that is not encrypted stands where all are";
    return candidate;
  }
  header.crc = body;
  candidate.payload = whole.substr(sizeof(header), header.length);
  candidate.good = true;
  return candidate;
}

Result<uint64_t> Frames::Find(uint64_t from, Expected expected, Candidate* found) {
  found->good = false;
  const bool packed = segment_->packs();
  uint64_t at = from;
  while (at + kSmallestFrame <= window_.file_bytes()) {
    std::string_view block = TRY(window_.At(at, kScanBytes + sizeof(FrameHeader)));
    if (block.size() < sizeof(FrameHeader)) break;
    // Segments end in megabytes of zeroes, where no frame begins.
    if (IsZero(block)) {
      at += kScanBytes;
      continue;
    }
    const uint64_t end =
        at + std::min<uint64_t>(block.size() - sizeof(FrameHeader) + 1, kScanBytes);
    const uint64_t start = at;
    for (; at < end; at += kFrameAlignment) {
      FrameHeader header;
      std::memcpy(&header, block.data() + (at - start), sizeof(header));
      if (!KnownType(header.type)) continue;
      const Lsn highest = expected.lsn + (at - expected.offset) / kSmallestFrame + 1;
      if (header.lsn + 1 < expected.lsn) continue;
      if (packed ? !MayBeginPacked(header) : header.lsn > highest) continue;
      *found = TRY(Try(at));
      if (found->good) return at;
      block = TRY(window_.At(start, kScanBytes + sizeof(FrameHeader)));
    }
  }
  return window_.file_bytes();
}

Result<uint64_t> Frames::LastWrittenByte(uint64_t from) {
  uint64_t last = from;
  for (uint64_t at = from; at < window_.file_bytes(); at += kScanBytes) {
    const std::string_view bytes = TRY(window_.At(at, kScanBytes));
    if (!IsZero(bytes)) last = at + bytes.find_last_not_of('\0') + 1;
  }
  return last;
}

bool MayHold(const SegmentInfo& segment, const FrameHeader& header) {
  const bool pack = header.type == static_cast<uint8_t>(FrameType::kPack);
  const bool encrypted = pack && (header.flags & kFlagEncrypted) != 0;
  return segment.key_id == 0 || encrypted || !(pack || IsRecord(header.type));
}

PackPayload PackHead(std::string_view payload) {
  PackPayload head = {};
  if (payload.size() >= sizeof(head)) std::memcpy(&head, payload.data(), sizeof(head));
  return head;
}

Result<std::string_view> UnpackRecords(Codec& codec, const SegmentInfo& segment, uint64_t offset,
                                       uint8_t flags, std::string_view payload, PackPayload* pack,
                                       std::string* scratch) {
  *pack = PackHead(payload);
  if (payload.size() < sizeof(*pack)) return Status::Error("a PACK is too short");
  const PackContext context = {segment.identity.log_id, segment.number, segment.salt, offset,
                               *pack};
  const std::string_view plain = TRY(codec.Unpack(payload.substr(sizeof(*pack)), context.bytes(),
                                                  flags, pack->plain_bytes, scratch));
  // It counts as a whole: every record must be there.
  Lsn lsn = pack->first_lsn;
  std::string_view left = plain;
  for (; !left.empty(); ++lsn) {
    FrameHeader record;
    if (left.size() < sizeof(record)) return Status::Error("a record in a PACK is cut short");
    std::memcpy(&record, left.data(), sizeof(record));
    if (FrameBytes(record.length) > left.size() || record.lsn != lsn || !IsRecord(record.type) ||
        record.crc != Crc32c(left.substr(sizeof(record.crc),
                                         FrameBytes(record.length) - sizeof(record.crc)))) {
      return Status::Error("a record in a PACK does not check");
    }
    left.remove_prefix(FrameBytes(record.length));
  }
  if (lsn - pack->first_lsn != pack->records) return Status::Error("a PACK lacks records");
  return plain;
}

}  // namespace crab::wal

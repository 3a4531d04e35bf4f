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
              : header.length < sizeof(BatchPayload) + kScanBytes && header.flags == 0;
}

}  // namespace

void Window::Reset(std::unique_ptr<File> file, uint64_t file_bytes) {
  file_ = std::move(file);
  file_bytes_ = file_bytes;
  filled_ = 0;
  start_ = 0;
  unreadable_.clear();
}

Result<std::string_view> Window::At(uint64_t offset, uint64_t bytes) {
  bytes = std::min(bytes, ReadableEnd(offset) - offset);
  if (bytes == 0) return std::string_view();
  if (offset < start_ || offset + bytes > start_ + filled_) {
    TRY(Fill(offset, bytes));
    bytes = std::min(bytes, filled_);
  }
  return std::string_view(buffer_.get() + (offset - start_), bytes);
}

uint64_t Window::ReadableEnd(uint64_t offset) const {
  uint64_t end = std::max(file_bytes_, offset);
  const auto hole = unreadable_.lower_bound(offset / kBlockBytes);
  if (hole != unreadable_.end()) end = std::min(end, std::max(*hole * kBlockBytes, offset));
  return end;
}

uint64_t Window::BehindUnreadable(uint64_t offset) const {
  while (IsUnreadable(offset)) offset = (offset / kBlockBytes + 1) * kBlockBytes;
  return offset;
}

Result<size_t> Window::Read(uint64_t offset, uint64_t bytes) {
  return TryTwice([&] {
    return file_->ReadAt(offset, {buffer_.get() + (offset - start_), bytes});
  });
}

// From `offset` on, at least `bytes` where they can be read: as much as a window holds, or block by
// block up to one that cannot.
Status Window::Fill(uint64_t offset, uint64_t bytes) {
  const uint64_t wanted =
      std::min(std::max<uint64_t>(bytes, kWindowBytes), ReadableEnd(offset) - offset);
  if (buffer_bytes_ < wanted) {
    buffer_ = std::make_unique_for_overwrite<char[]>(wanted);
    buffer_bytes_ = wanted;
  }
  start_ = offset;
  filled_ = 0;
  auto filled = Read(offset, wanted);
  if (filled.ok()) {
    filled_ = *filled;
    return Status::Ok();
  }
  while (filled_ < wanted) {
    const uint64_t at = offset + filled_;
    const uint64_t step = std::min(kBlockBytes - at % kBlockBytes, wanted - filled_);
    auto read = Read(at, step);
    if (!read.ok()) {
      unreadable_.insert(at / kBlockBytes);
      read_error_ = read.message();
      return unreadable_.size() > kUnreadableBlocksMax ? read.TakeStatus() : Status::Ok();
    }
    filled_ += *read;
    if (*read < step) break;
  }
  return Status::Ok();
}

void Frames::Reset(std::unique_ptr<File> file, const SegmentInfo& segment) {
  segment_ = &segment;
  window_.Reset(std::move(file), segment.file_bytes);
}

Result<Frames::Candidate> Frames::Try(uint64_t offset) {
  Candidate candidate;
  const std::string_view start = TRY(window_.At(offset, sizeof(FrameHeader)));
  if (start.size() < sizeof(FrameHeader)) {
    candidate.unreadable = window_.IsUnreadable(offset + start.size());
    candidate.why = candidate.unreadable ? "it cannot be read" : "the file ends";
    return candidate;
  }
  FrameHeader& header = candidate.header;
  std::memcpy(&header, start.data(), sizeof(header));
  static constexpr FrameHeader kZero = {};
  if (std::memcmp(&header, &kZero, sizeof(header)) == 0) {
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
    candidate.unreadable = window_.IsUnreadable(offset + whole.size());
    candidate.why = candidate.unreadable ? "it cannot be read" : "the file ends within a frame";
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
    if (block.size() < sizeof(FrameHeader)) {
      const uint64_t end = at + block.size();
      at = window_.BehindUnreadable(end);
      if (at == end) break;
      continue;
    }
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
      const uint64_t before = block.size();
      block = TRY(window_.At(start, kScanBytes + sizeof(FrameHeader)));
      if (block.size() >= before) continue;
      // A part of it cannot be read any more: what is left is looked at anew.
      at += kFrameAlignment;
      break;
    }
  }
  return window_.file_bytes();
}

Result<uint64_t> Frames::LastWrittenByte(uint64_t from) {
  uint64_t last = from;
  for (uint64_t at = from; at < window_.file_bytes();) {
    const std::string_view bytes = TRY(window_.At(at, kScanBytes));
    if (!IsZero(bytes)) last = at + bytes.find_last_not_of('\0') + 1;
    const uint64_t end = at + bytes.size();
    at = window_.BehindUnreadable(end);
    if (at > end) last = std::min(at, window_.file_bytes());
    if (at == end && bytes.empty()) break;
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

#include "persistence/scan.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "persistence/frames.h"
#include "persistence/segment.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

constexpr uint64_t kWindowBytes = 256 * 1024;

}  // namespace

Result<std::unique_ptr<SegmentScan>> SegmentScan::Open(Disk& disk, const std::string& path) {
  std::unique_ptr<SegmentScan> scan(new SegmentScan);
  SegmentInfo& info = scan->info_;
  info.path = path;
  info.name = path.substr(path.rfind('/') + 1);
  info.number = SegmentNumber(info.name).value_or(0);
  scan->file_ = TRY(disk.Open(path, OpenMode::kRead));
  info.file_bytes = TRY(scan->file_->Size());
  DecodeSegmentHeader(TRY(scan->At(0, kSegmentHeaderBytes)), &info);
  if (!info.problem.empty()) return Status::Error(path + ": " + info.problem, EBADMSG);
  if (info.min_reader_version > kFormatVersion) {
    return Status::Error(path + " needs a reader of format version " +
                             std::to_string(info.min_reader_version) + "; use a newer crabcache",
                         EBADMSG);
  }
  scan->offset_ = kSegmentHeaderBytes;
  scan->durable_ = info.durable_lsn;
  return scan;
}

Result<std::string_view> SegmentScan::At(uint64_t offset, uint64_t bytes) {
  if (offset < window_start_ || offset + bytes > window_start_ + window_bytes_) {
    const uint64_t wanted = std::max(bytes, kWindowBytes);
    if (window_.size() < wanted) window_.resize(wanted);
    window_start_ = offset;
    window_bytes_ = 0;
    window_bytes_ = TRY(file_->ReadAt(offset, {window_.data(), wanted}));
  }
  const uint64_t there = window_start_ + window_bytes_;
  if (offset >= there) return std::string_view();
  return std::string_view(window_.data() + (offset - window_start_),
                          std::min(bytes, there - offset));
}

Result<bool> SegmentScan::Next(Frame* frame) {
  if (ended_) return false;
  if (TRY(Try(frame))) return true;
  // What the window holds may be older than what the server has written.
  window_bytes_ = 0;
  return Try(frame);
}

Result<bool> SegmentScan::Try(Frame* frame) {
  FrameHeader& header = frame->header;
  const std::string_view start = TRY(At(offset_, sizeof(header)));
  if (start.size() < sizeof(header)) return false;
  std::memcpy(&header, start.data(), sizeof(header));
  const uint64_t bytes = FrameBytes(header.length);
  if (header.type == 0 || header.length > kPayloadBytesMax) return false;
  // A length that was never written must not make the window as large as it says.
  if (offset_ + bytes > window_start_ + window_bytes_ && offset_ + bytes > TRY(file_->Size())) {
    return false;
  }
  const std::string_view whole = TRY(At(offset_, bytes));
  if (whole.size() < bytes) return false;
  const uint32_t body = Crc32c(whole.substr(sizeof(header.crc)));
  if ((body ^ PlaceMix(info_.salt, offset_)) != header.crc) return false;
  if (!MayHold(info_, header)) return false;
  header.crc = body;
  frame->payload = whole.substr(sizeof(header), header.length);
  frame->offset = offset_;
  frame->bytes = bytes;
  frame->last_lsn = header.lsn;
  offset_ += bytes;
  switch (static_cast<FrameType>(header.type)) {
    case FrameType::kBatch:
      if (frame->payload.size() >= sizeof(BatchPayload)) {
        BatchPayload batch;
        std::memcpy(&batch, frame->payload.data(), sizeof(batch));
        durable_ = std::max<Lsn>(durable_, batch.durable_lsn);
      }
      break;
    case FrameType::kSeal:
    case FrameType::kStop:
      durable_ = std::max<Lsn>(durable_, header.lsn);
      ended_ = true;
      break;
    case FrameType::kPack:
      if (frame->payload.size() >= sizeof(PackPayload)) {
        PackPayload pack;
        std::memcpy(&pack, frame->payload.data(), sizeof(pack));
        if (pack.records > 0) frame->last_lsn = pack.first_lsn + pack.records - 1;
      }
      last_lsn_ = std::max(last_lsn_, frame->last_lsn);
      break;
    default:
      if (IsRecord(header.type)) last_lsn_ = std::max<Lsn>(last_lsn_, header.lsn);
  }
  return true;
}

}  // namespace crab::wal

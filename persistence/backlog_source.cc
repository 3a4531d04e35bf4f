#include "persistence/backlog_source.h"

#include <utility>

#include "utils/status.h"

namespace crab::wal {

namespace {

Status LoadFrom(const Source& source, uint64_t offset, uint64_t count) {
  if (source.loaded) return Status::Ok();
  return TryTwice([&] { return source.mapping->Load(offset, count); });
}

// What is read of a record at once: all of one that is not much larger than others in its segment.
// To read less costs no less.
uint64_t FirstBytes(const Source& source) {
  constexpr uint64_t kBytesMin = 512;
  if (source.segment.records == 0) return kBytesMin;  // not stated
  const uint64_t bytes = source.bytes / source.segment.records * 5 / 4;
  return bytes > kLargeRecordBytes ? kBytesMin : std::max(bytes, kBytesMin);
}

}  // namespace

bool MappedFrame(const Source& source, uint64_t offset, FrameHeader* header,
                 std::string_view* frame) {
  if (offset < kSegmentHeaderBytes || offset > source.bytes) return false;
  const std::string_view bytes = source.mapping->bytes().substr(offset, source.bytes - offset);
  if (bytes.size() < sizeof(*header) || !LoadFrom(source, offset, sizeof(*header)).ok()) {
    return false;
  }
  std::memcpy(header, bytes.data(), sizeof(*header));
  *frame = bytes.substr(0, FrameBytes(header->length));
  return frame->size() == FrameBytes(header->length) &&
         LoadFrom(source, offset, frame->size()).ok();
}

FrameReader::FrameReader(Disk& disk, const Source& source, const ReadAhead* read)
    : disk_(disk),
      source_(source),
      read_(read == nullptr ? nullptr : read->Find(source.segment.info.number)),
      first_bytes_(FirstBytes(source)) {}

bool FrameReader::Read(uint64_t offset, FrameHeader* header, std::string_view* frame, bool anew) {
  if (!anew && read_ != nullptr && offset >= read_->place.begin && offset < read_->place.end) {
    const std::string_view bytes = {read_->bytes + (offset - read_->place.begin),
                                    read_->place.end - offset};
    if (bytes.size() >= sizeof(*header)) {
      std::memcpy(header, bytes.data(), sizeof(*header));
      *frame = bytes.substr(0, FrameBytes(header->length));
      if (frame->size() == FrameBytes(header->length)) return true;
    }
  }
  if (source_.loaded) return MappedFrame(source_, offset, header, frame);
  if (offset < kSegmentHeaderBytes || offset > source_.bytes) return false;
  const uint64_t limit = source_.bytes - offset;
  if (limit < sizeof(*header)) return false;
  uint64_t got = std::min(first_bytes_, limit);
  if (!Fetch(offset, 0, got)) {
    got = sizeof(*header);  // beside the pages that the disk does not give there are good ones
    if (!Fetch(offset, 0, got)) return false;
  }
  std::memcpy(header, buffer_.data(), sizeof(*header));
  if (header->length > kLargeRecordBytes) return MappedFrame(source_, offset, header, frame);
  const uint64_t size = FrameBytes(header->length);
  if (size > limit || (size > got && !Fetch(offset, got, size))) return false;
  *frame = {buffer_.data(), size};
  return true;
}

bool FrameReader::Fetch(uint64_t offset, uint64_t begin, uint64_t end) {
  if (buffer_.size() < end) buffer_.resize(end);
  char* const to = buffer_.data() + begin;
  const size_t size = end - begin;
  if (file_ == nullptr) {
    auto opened = disk_.Open(source_.segment.info.path, OpenMode::kRead);
    if (opened.ok()) {
      file_ = std::move(opened).value();
    } else {
      // Clients may have taken all file descriptors since the segment was mapped.
      if (!LoadFrom(source_, offset + begin, size).ok()) return false;
      std::memcpy(to, source_.mapping->bytes().data() + offset + begin, size);
      return true;
    }
  }
  const auto got = TryTwice([&] { return file_->ReadAt(offset + begin, {to, size}); });
  return got.ok() && *got == size;
}

}  // namespace crab::wal

#include "persistence/segment.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "utils/check.h"
#include "utils/crc32c.h"

namespace crab::wal {
namespace {

constexpr std::string_view kPrefix = "wal-";
constexpr std::string_view kSuffix = ".log";
constexpr size_t kDigits = 20;  // of the largest 64-bit number: names sort like numbers
constexpr uint64_t kSegmentNumberMax = ~uint64_t{0} / 2;

}  // namespace

std::string SegmentName(uint64_t number) {
  char name[40];
  std::snprintf(name, sizeof(name), "wal-%020llu.log", static_cast<unsigned long long>(number));
  return name;
}

std::optional<uint64_t> SegmentNumber(std::string_view name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size()) return std::nullopt;
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  uint64_t number = 0;
  for (const char digit : name.substr(kPrefix.size(), kDigits)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    if (__builtin_mul_overflow(number, 10, &number) ||
        __builtin_add_overflow(number, static_cast<uint64_t>(digit - '0'), &number)) {
      return std::nullopt;
    }
  }
  // No log comes so far; and the next segments are to have numbers too.
  if (number > kSegmentNumberMax) return std::nullopt;
  return number;
}

std::string EncodeSegmentHeader(const SegmentInfo& info) {
  SegmentHeader header = {};
  std::memcpy(header.magic, kSegmentMagic, sizeof(header.magic));
  header.format_version = info.format_version;
  header.min_reader_version = info.min_reader_version;
  header.header_bytes = kSegmentHeaderBytes;
  header.flags = info.flags;
  if (info.shard_by_hashtag) header.flags |= kHeaderShardByHashtag;
  if (info.after_gap) header.flags |= kHeaderAfterGap;
  header.log_id = info.identity.log_id;
  header.epoch = info.epoch;
  header.number = info.number;
  header.created_at_ms = static_cast<uint64_t>(info.created_at_ms);
  header.first_lsn = info.first_lsn;
  header.durable_lsn = info.durable_lsn;
  header.salt = info.salt;
  header.hash_seed = info.identity.hash_seed;
  header.shard_count = info.identity.shard_count;
  header.predecessor_crc = info.predecessor_crc;
  header.predecessor_number = info.predecessor_number;
  header.predecessor_last_lsn = info.predecessor_last_lsn;
  header.replication_offset = info.replication_offset;
  std::memcpy(header.replication_id, info.identity.replication_id, sizeof(header.replication_id));
  header.ring_epoch = info.ring_epoch;
  header.key_id = info.key_id;
  header.compression = static_cast<uint32_t>(info.compression);
  const char* bytes = reinterpret_cast<const char*>(&header);
  header.crc = Crc32c({bytes, offsetof(SegmentHeader, crc)});
  return {bytes, sizeof(header)};
}

void DecodeSegmentHeader(std::string_view bytes, SegmentInfo* info) {
  SegmentHeader header;
  if (bytes.size() < sizeof(header)) {
    info->problem = "the file is shorter than a header";
    return;
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (std::memcmp(header.magic, kSegmentMagic, sizeof(header.magic)) != 0) {
    info->problem = "the header does not begin as one";
    return;
  }
  if (header.crc != Crc32c(bytes.substr(0, offsetof(SegmentHeader, crc)))) {
    info->problem = "the header's checksum does not match";
    return;
  }
  if (header.number != info->number) {
    info->problem = "the header names segment " + std::to_string(header.number);
    return;
  }
  if (header.header_bytes != kSegmentHeaderBytes || header.first_lsn == 0) {
    info->problem = "the header contradicts itself";
    return;
  }
  info->format_version = header.format_version;
  info->min_reader_version = header.min_reader_version;
  info->flags = header.flags;
  info->identity.log_id = header.log_id;
  info->epoch = header.epoch;
  info->created_at_ms = static_cast<int64_t>(header.created_at_ms);
  info->first_lsn = header.first_lsn;
  info->durable_lsn = header.durable_lsn;
  info->salt = header.salt;
  info->identity.hash_seed = header.hash_seed;
  info->identity.shard_count = header.shard_count;
  info->predecessor_crc = header.predecessor_crc;
  info->predecessor_number = header.predecessor_number;
  info->predecessor_last_lsn = header.predecessor_last_lsn;
  info->replication_offset = header.replication_offset;
  std::memcpy(info->identity.replication_id, header.replication_id, sizeof(header.replication_id));
  info->ring_epoch = header.ring_epoch;
  info->key_id = header.key_id;
  info->compression = static_cast<Compression>(header.compression);
  info->shard_by_hashtag = (header.flags & kHeaderShardByHashtag) != 0;
  info->after_gap = (header.flags & kHeaderAfterGap) != 0;
}

void SegmentWriter::Count(const FrameHeader& header) {
  const uint32_t body = header.crc;
  running_crc_ = Crc32c({reinterpret_cast<const char*>(&body), sizeof(body)}, running_crc_);
  offset_ += FrameBytes(header.length);
}

// Before the record is counted: offset_ is where it stands.
void SegmentWriter::NoteRecord(const FrameHeader& header, std::string_view payload) {
  ++records_;
  ++unindexed_records_;
  last_lsn_ = header.lsn;
  index_.Add(header.type, header.shard, payload, offset_);
}

void SegmentWriter::Add(std::string& out, FrameHeader header, std::string_view payload) {
  AddDueIndex(out);
  AppendFrame(out, header, payload, info_.salt, offset_);
  if (IsRecord(header.type)) NoteRecord(header, payload);
  Count(header);
}

Status SegmentWriter::WriteDirect(FrameHeader header, std::string_view payload) {
  FrameHeader placed = header;
  placed.crc ^= PlaceMix(info_.salt, offset_);
  TRY(file_->WriteAt(offset_, {reinterpret_cast<const char*>(&placed), sizeof(placed)}));
  TRY(file_->WriteAt(offset_ + sizeof(placed), payload));
  const uint64_t written = sizeof(placed) + payload.size();
  const std::string padding(FrameBytes(payload.size()) - written, '\0');
  if (!padding.empty()) TRY(file_->WriteAt(offset_ + written, padding));
  NoteRecord(header, payload);
  Count(header);
  return Status::Ok();
}

void SegmentWriter::AddFrame(std::string& out, FrameType type, Lsn lsn, std::string_view payload) {
  FrameHeader header = {};
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = lsn;
  header.type = static_cast<uint8_t>(type);
  header.shard = kBroadcastShard;
  header.crc = BodyCrc(header, payload);
  Add(out, header, payload);
}

Status SegmentWriter::AddPack(std::string& out, Codec& codec, std::string_view plain,
                              uint32_t records, Lsn first_lsn) {
  const PackPayload head = {static_cast<uint32_t>(plain.size()), records, first_lsn};
  const PackContext context = {info_.identity.log_id, info_.number, info_.salt, offset_, head};
  std::string payload(reinterpret_cast<const char*>(&head), sizeof(head));
  FrameHeader header = {};
  TRY(codec.Pack(plain, context.bytes(), &payload, &header.flags));
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = first_lsn - 1;
  header.type = static_cast<uint8_t>(FrameType::kPack);
  header.shard = kBroadcastShard;
  header.crc = BodyCrc(header, payload);
  Add(out, header, payload);
  records_ += records;
  last_lsn_ = first_lsn + records - 1;
  return Status::Ok();
}

uint64_t SegmentWriter::index_bytes() const {
  if (unindexed_records_ == 0) return 0;
  // A place takes 2 or 3 bytes where each shard has a record every few hundred KiB.
  constexpr uint64_t kPlaceBytes = 3;
  constexpr uint64_t kListBytes = 8;
  const uint64_t lists = std::min<uint64_t>(unindexed_records_, info_.identity.shard_count + 1);
  return FrameBytes(2 * sizeof(uint64_t) + lists * kListBytes + unindexed_records_ * kPlaceBytes);
}

void SegmentWriter::AddDueIndex(std::string& out) {
  if (offset_ - indexed_bytes_ >= kIndexedBytes && !index_.empty()) [[unlikely]]
    AddIndex(out);
}

void SegmentWriter::AddIndex(std::string& out) {
  const std::string payload = index_.Take(last_index_);
  last_index_ = offset_;
  unindexed_records_ = 0;
  indexed_bytes_ = offset_ + FrameBytes(payload.size());  // so that adding it asks for no other
  AddFrame(out, FrameType::kIndex, last_lsn_, payload);
}

void SegmentWriter::AddEnd(std::string& out, FrameType type, Lsn lsn, int64_t wall_ms) {
  if (!index_.empty()) AddIndex(out);
  const EndPayload end = {static_cast<uint64_t>(wall_ms), records_, running_crc_, 0, last_index_};
  AddFrame(out, type, lsn, {reinterpret_cast<const char*>(&end), sizeof(end)});
}

}  // namespace crab::wal

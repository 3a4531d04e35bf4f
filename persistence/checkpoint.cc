#include "persistence/checkpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "persistence/index.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "utils/allocation.h"
#include "utils/check.h"
#include "utils/crc32c.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

constexpr std::string_view kPrefix = "checkpoint-";
constexpr std::string_view kSuffix = ".ckpt";
constexpr size_t kDigits = 20;  // of the largest 64-bit number: names sort like numbers
constexpr char kTemporaryName[] = "checkpoint.tmp";

constexpr uint32_t kCheckpointMinReader = 2;  // version 1 had none
// Writes of this size cost a disk hardly more than larger ones.
constexpr size_t kBufferBytes = 1 << 20;
static_assert(kBufferBytes % kDirectBytes == 0);
constexpr uint64_t kSyncBytes = 16 << 20;
// Plain bytes kept between checking the chunks of some shards and handing them out; beyond it they
// are unpacked a second time.
constexpr uint64_t kKeptPlainBytes = 8 << 20;

constexpr uint64_t kEndFrameBytes = FrameBytes(sizeof(CheckpointEndPayload));

std::string PathIn(const std::string& directory, std::string_view name) {
  return std::string(directory).append("/").append(name);
}

template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

template <typename T>
T Get(std::string_view bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

FrameHeader HeaderOf(FrameType type, uint16_t shard, Lsn lsn, uint8_t flags,
                     std::string_view payload) {
  FrameHeader header = {};
  header.length = static_cast<uint32_t>(payload.size());
  header.lsn = lsn;
  header.type = static_cast<uint8_t>(type);
  header.flags = flags;
  header.shard = shard;
  header.crc = BodyCrc(header, payload);
  return header;
}

// What is authenticated with a chunk: a chunk of another file, of another place, or of another
// shard is none.
struct [[gnu::packed]] ChunkContext {
  uint64_t log_id;
  uint64_t lsn;
  uint64_t salt;
  uint64_t offset;
  uint16_t shard;
  ChunkPayload chunk;
};

std::string EncodeHeader(const CheckpointInfo& info, uint64_t salt) {
  CheckpointHeader header = {};
  std::memcpy(header.magic, kCheckpointMagic, sizeof(header.magic));
  header.format_version = kFormatVersion;
  header.min_reader_version = kCheckpointMinReader;
  header.header_bytes = kCheckpointHeaderBytes;
  if (info.compression != Compression::kNone) header.flags |= kFlagCompressed;
  if (info.key_id != 0) header.flags |= kFlagEncrypted;
  if (info.shard_by_hashtag) header.flags |= kHeaderShardByHashtag;
  header.log_id = info.identity.log_id;
  header.lsn = info.lsn;
  header.created_at_ms = static_cast<uint64_t>(info.created_at_ms);
  header.salt = salt;
  header.hash_seed = info.identity.hash_seed;
  header.shard_count = info.identity.shard_count;
  header.compression = static_cast<uint32_t>(info.compression);
  header.key_id = info.key_id;
  header.replication_offset = info.replication_offset;
  std::memcpy(header.replication_id, info.identity.replication_id, sizeof(header.replication_id));
  header.crc = Crc32c(BytesOf(header).substr(0, offsetof(CheckpointHeader, crc)));
  return std::string(BytesOf(header));
}

// A chunk's place in the file.
struct Chunk {
  uint64_t offset;
  uint64_t bytes;  // of the frame
  uint16_t shard;
};

// All of a checkpoint but its chunks, and where those are.
struct Outline {
  CheckpointInfo info;
  uint64_t salt = 0;
  CheckpointEndPayload end = {};
  uint32_t index_body_crc = 0;
  std::vector<Chunk> chunks;  // by shard; those of a shard in file order
};

Status Damaged(const std::string& what) { return Status::Error(what, EBADMSG); }

Status DecodeHeader(std::string_view bytes, Outline* outline) {
  const auto header = Get<CheckpointHeader>(bytes);
  if (std::memcmp(header.magic, kCheckpointMagic, sizeof(header.magic)) != 0) {
    return Damaged("the header does not begin as one");
  }
  if (header.crc != Crc32c(bytes.substr(0, offsetof(CheckpointHeader, crc)))) {
    return Damaged("the header's checksum does not match");
  }
  CheckpointInfo* const info = &outline->info;
  if (header.lsn != info->lsn) {
    return Damaged("the header names LSN " + std::to_string(header.lsn));
  }
  if (header.min_reader_version > kFormatVersion) {
    return Status::Error("it needs a reader of format version " +
                             std::to_string(header.min_reader_version) + ", this is one of " +
                             std::to_string(kFormatVersion),
                         ENOTSUP);
  }
  const bool encrypted = (header.flags & kFlagEncrypted) != 0;
  if (header.header_bytes != kCheckpointHeaderBytes || encrypted != (header.key_id != 0)) {
    return Damaged("the header contradicts itself");
  }
  outline->salt = header.salt;
  info->identity.log_id = header.log_id;
  info->identity.hash_seed = header.hash_seed;
  info->identity.shard_count = header.shard_count;
  std::memcpy(info->identity.replication_id, header.replication_id, sizeof(header.replication_id));
  info->replication_offset = header.replication_offset;
  info->shard_by_hashtag = (header.flags & kHeaderShardByHashtag) != 0;
  info->created_at_ms = static_cast<int64_t>(header.created_at_ms);
  info->key_id = header.key_id;
  info->compression = static_cast<Compression>(header.compression);
  return Status::Ok();
}

// The payload of the frame that takes up all of [offset, offset + bytes), which is in memory.
Result<std::string_view> CheckFrame(std::string_view file, const Outline& outline, uint64_t offset,
                                    uint64_t bytes, FrameType type, uint16_t shard) {
  if (bytes < sizeof(FrameHeader)) return Damaged("no frame fits there");
  const std::string_view frame = file.substr(offset, bytes);
  const auto header = Get<FrameHeader>(frame);
  if (header.type != static_cast<uint8_t>(type) || header.shard != shard ||
      header.lsn != outline.info.lsn || FrameBytes(header.length) != bytes) {
    return Damaged("the frame is not what stands there");
  }
  // Over the bytes as they are, padding included.
  const uint32_t body = Crc32c(frame.substr(sizeof(header.crc)));
  if (header.crc != (body ^ PlaceMix(outline.salt, offset))) {
    return Damaged("the checksum does not match");
  }
  return frame.substr(sizeof(header), header.length);
}

// Chunks follow one another without a gap, so their offsets tell their sizes too.
Status PlaceChunks(const IndexView& view, Outline* outline) {
  std::vector<uint16_t> shards;
  view.Shards(&shards);
  std::vector<uint64_t> offsets;
  for (const uint16_t shard : shards) {
    offsets.clear();
    TRY(view.Offsets(shard, &offsets));
    for (const uint64_t offset : offsets) outline->chunks.push_back({offset, 0, shard});
  }
  if (outline->chunks.size() != outline->end.chunks || view.records() != outline->end.chunks) {
    return Damaged("its chunks are not as many as the end states");
  }
  std::vector<Chunk*> in_file;
  in_file.reserve(outline->chunks.size());
  for (Chunk& chunk : outline->chunks) in_file.push_back(&chunk);
  std::sort(in_file.begin(), in_file.end(),
            [](const Chunk* a, const Chunk* b) { return a->offset < b->offset; });
  uint64_t end = outline->end.index_offset;
  for (size_t i = in_file.size(); i-- > 0;) {
    if (in_file[i]->offset >= end) return Damaged("its chunks overlap");
    in_file[i]->bytes = end - in_file[i]->offset;
    end = in_file[i]->offset;
  }
  if (end != kCheckpointHeaderBytes) return Damaged("its chunks leave a gap");
  return Status::Ok();
}

// Reads all but the chunks of the file `outline->info` names.
Status ReadOutline(Mapping* mapping, Outline* outline) {
  const std::string_view file = mapping->bytes();
  CheckpointInfo* const info = &outline->info;
  info->file_bytes = file.size();
  if (file.size() < kCheckpointHeaderBytes) return Damaged("the file is shorter than a header");
  TRY(mapping->Load(0, kCheckpointHeaderBytes));
  TRY(DecodeHeader(file.substr(0, kCheckpointHeaderBytes), outline));

  if (file.size() < kCheckpointHeaderBytes + kEndFrameBytes || file.size() % kFrameAlignment != 0) {
    return Damaged("the file does not end as one");
  }
  const uint64_t end_offset = file.size() - kEndFrameBytes;
  TRY(mapping->Load(end_offset, kEndFrameBytes));
  auto end = CheckFrame(file, *outline, end_offset, kEndFrameBytes, FrameType::kCheckpointEnd,
                        kBroadcastShard);
  if (!end.ok()) return end.TakeStatus().Annotate("the end");
  if (end->size() != sizeof(CheckpointEndPayload)) return Damaged("the end is of another size");
  outline->end = Get<CheckpointEndPayload>(*end);
  info->chunks = outline->end.chunks;
  info->entries = outline->end.entries;
  info->plain_bytes = outline->end.plain_bytes;

  const uint64_t index_offset = outline->end.index_offset;
  if (index_offset < kCheckpointHeaderBytes || index_offset > end_offset ||
      index_offset % kFrameAlignment != 0) {
    return Damaged("the end does not tell where the index is");
  }
  TRY(mapping->Load(index_offset, end_offset - index_offset));
  auto index = CheckFrame(file, *outline, index_offset, end_offset - index_offset,
                          FrameType::kChunkIndex, kBroadcastShard);
  if (!index.ok()) return index.TakeStatus().Annotate("the index");
  outline->index_body_crc =
      Get<FrameHeader>(file.substr(index_offset)).crc ^ PlaceMix(outline->salt, index_offset);
  return PlaceChunks(TRY(IndexView::Parse(*index)), outline);
}

class FileWriter final : public CheckpointWriter {
 public:
  FileWriter(Disk& disk, std::string directory, std::unique_ptr<File> file, CheckpointInfo info,
             std::shared_ptr<const KeyRing> keys)
      : disk_(disk),
        directory_(std::move(directory)),
        file_(std::move(file)),
        info_(std::move(info)),
        salt_(RandomUint64()),
        codec_(info_.compression, std::move(keys)) {
    const std::string header = EncodeHeader(info_, salt_);
    static_assert(kCheckpointHeaderBytes < kBufferBytes);
    CHECK(Put(header).ok());
  }

  ~FileWriter() override {
    if (published_) return;
    file_.reset();
    // Where it cannot be removed, the next writer does.
    (void)disk_.Remove(TemporaryPath(directory_));
  }

  Status Add(uint16_t shard, std::string_view effects, uint64_t entries) override {
    CHECK(!finished_);
    CHECK_LE(effects.size(), kRecordBytesMax);
    CHECK_LE(entries, UINT32_MAX);
    TRY(Failure());
    const ChunkPayload chunk = {static_cast<uint32_t>(effects.size()),
                                static_cast<uint32_t>(entries)};
    const ChunkContext context = {info_.identity.log_id, info_.lsn, salt_, offset_, shard, chunk};
    payload_.assign(BytesOf(chunk));
    uint8_t flags = 0;
    TRY(Keep(codec_.Pack(effects, BytesOf(context), &payload_, &flags)));
    index_.Add(static_cast<uint8_t>(FrameType::kChunk), shard, {}, offset_);
    ++info_.chunks;
    info_.entries += entries;
    info_.plain_bytes += effects.size();
    Status status = AddFrame(HeaderOf(FrameType::kChunk, shard, info_.lsn, flags, payload_));
    if (payload_.capacity() > kBufferBytes) std::string().swap(payload_);
    return status;
  }

  Status Finish() override {
    CHECK(!finished_);
    TRY(Failure());
    const uint64_t index_offset = offset_;
    payload_ = index_.Take(0);
    TRY(AddFrame(HeaderOf(FrameType::kChunkIndex, kBroadcastShard, info_.lsn, 0, payload_)));
    const CheckpointEndPayload end = {info_.entries, info_.chunks, info_.plain_bytes,
                                      index_offset,  running_crc_, 0};
    payload_.assign(BytesOf(end));
    TRY(AddFrame(HeaderOf(FrameType::kCheckpointEnd, kBroadcastShard, info_.lsn, 0, payload_)));
    TRY(Flush());
    TRY(Keep(file_->SyncData()));
    info_.file_bytes = offset_;
    finished_ = true;
    return Status::Ok();
  }

  Status Publish() override {
    CHECK(finished_);
    CHECK(!published_);
    TRY(Failure());
    TRY(Keep(disk_.Rename(TemporaryPath(directory_), info_.path)));
    published_ = true;
    return Keep(disk_.SyncDirectory(directory_));
  }

  uint64_t bytes() const override { return offset_; }
  const CheckpointInfo& info() const override { return info_; }

  static std::string TemporaryPath(const std::string& directory) {
    return PathIn(directory, kTemporaryName);
  }

 private:
  // The first error is the answer to everything after it.
  Status Keep(Status status) {
    if (!status.ok() && error_.empty()) {
      error_ = status.message();
      errno_ = status.system_errno();
    }
    return status;
  }
  Status Failure() const { return error_.empty() ? Status::Ok() : Status::Error(error_, errno_); }

  // A frame around `payload_`.
  Status AddFrame(FrameHeader header) {
    const uint32_t body = header.crc;
    running_crc_ = Crc32c(BytesOf(body), running_crc_);
    header.crc ^= PlaceMix(salt_, offset_);
    constexpr char kZeroes[kFrameAlignment] = {};
    const uint64_t padding_bytes = FrameBytes(header.length) - sizeof(header) - payload_.size();
    TRY(Put(BytesOf(header)));
    TRY(Put(payload_));
    return Put({kZeroes, padding_bytes});
  }

  Status Put(std::string_view bytes) {
    while (!bytes.empty()) {
      const size_t step = std::min(bytes.size(), kBufferBytes - buffered_bytes_);
      std::memcpy(buffer_.get() + buffered_bytes_, bytes.data(), step);
      bytes.remove_prefix(step);
      buffered_bytes_ += step;
      offset_ += step;
      if (buffered_bytes_ == kBufferBytes) TRY(Flush());
    }
    return Status::Ok();
  }

  Status Flush() {
    if (buffered_bytes_ == 0) return Status::Ok();
    const std::string_view bytes{buffer_.get(), buffered_bytes_};
    TRY(Keep(file_->WriteAt(offset_ - bytes.size(), bytes)));
    buffered_bytes_ = 0;
    unsynced_bytes_ += bytes.size();
    if (unsynced_bytes_ < kSyncBytes) return Status::Ok();
    unsynced_bytes_ = 0;
    return Keep(file_->SyncData());
  }

  struct AlignedDeleter {
    void operator()(char* memory) const { ReleaseAligned(memory); }
  };

  Disk& disk_;
  const std::string directory_;
  std::unique_ptr<File> file_;
  CheckpointInfo info_;
  const uint64_t salt_;
  Codec codec_;
  IndexBuilder index_;
  // The last bytes before offset_, not yet written; where they go is a multiple of its size.
  const std::unique_ptr<char, AlignedDeleter> buffer_{
      static_cast<char*>(AllocateAligned(kBufferBytes, kDirectBytes))};
  size_t buffered_bytes_ = 0;
  std::string payload_;  // of the frame that is being made
  uint64_t offset_ = 0;  // where the next byte goes
  uint64_t unsynced_bytes_ = 0;
  uint32_t running_crc_ = 0;
  bool finished_ = false;
  bool published_ = false;
  std::string error_;
  int errno_ = 0;
};

class FileReader final : public CheckpointReader {
 public:
  FileReader(std::unique_ptr<Mapping> mapping, Outline outline, std::shared_ptr<const KeyRing> keys)
      : mapping_(std::move(mapping)), outline_(std::move(outline)), keys_(std::move(keys)) {}

  const CheckpointInfo& info() const override { return outline_.info; }

  Status ForEachChunk(uint32_t first_shard, uint32_t last_shard, const Take& take) override {
    const std::vector<Chunk> chunks = ChunksOf(first_shard, last_shard);
    Codec codec(Compression::kNone, keys_);
    std::string scratch;
    std::vector<std::string> kept(chunks.size());
    std::vector<std::string_view> plain(chunks.size());
    std::vector<bool> again(chunks.size());
    uint64_t kept_bytes = 0;
    for (size_t i = 0; i < chunks.size(); ++i) {
      plain[i] = TRY(ReadChunk(chunks[i], &codec, &scratch, nullptr));
      if (InFile(plain[i])) continue;
      again[i] = kept_bytes + plain[i].size() > kKeptPlainBytes;
      if (again[i]) continue;
      kept_bytes += plain[i].size();
      kept[i] = plain[i];
      plain[i] = kept[i];
    }
    for (size_t i = 0; i < chunks.size(); ++i) {
      if (again[i]) plain[i] = TRY(ReadChunk(chunks[i], &codec, &scratch, nullptr));
      TRY(take(chunks[i].shard, plain[i]));
    }
    return Status::Ok();
  }

  Status Verify(const std::function<void(uint64_t)>& progress) override {
    const CheckpointInfo& info = outline_.info;
    Codec codec(Compression::kNone, keys_);
    std::string scratch;
    uint64_t entries = 0;
    uint64_t plain_bytes = 0;
    uint32_t running_crc = 0;
    const auto count_frame = [&running_crc](uint32_t body) {
      running_crc = Crc32c(BytesOf(body), running_crc);
    };
    for (const Chunk& chunk : ChunksOf(0, UINT32_MAX)) {
      uint64_t chunk_entries = 0;
      plain_bytes += TRY(ReadChunk(chunk, &codec, &scratch, &chunk_entries)).size();
      entries += chunk_entries;
      count_frame(Get<FrameHeader>(mapping_->bytes().substr(chunk.offset)).crc ^
                  PlaceMix(outline_.salt, chunk.offset));
      if (progress) progress(chunk.offset + chunk.bytes);
    }
    count_frame(outline_.index_body_crc);
    if (running_crc != outline_.end.running_crc || entries != info.entries ||
        plain_bytes != info.plain_bytes) {
      return Damaged(info.path + ": its chunks are not those that the end states");
    }
    if (progress) progress(info.file_bytes);
    return Status::Ok();
  }

 private:
  // Those of the shards [first, last), in file order.
  std::vector<Chunk> ChunksOf(uint32_t first_shard, uint32_t last_shard) const {
    const auto below = [](const Chunk& chunk, uint32_t shard) { return chunk.shard < shard; };
    const std::vector<Chunk>& all = outline_.chunks;
    const auto first = std::lower_bound(all.begin(), all.end(), first_shard, below);
    const auto last = std::lower_bound(first, all.end(), last_shard, below);
    std::vector<Chunk> chunks(first, last);
    std::sort(chunks.begin(), chunks.end(),
              [](const Chunk& a, const Chunk& b) { return a.offset < b.offset; });
    return chunks;
  }

  bool InFile(std::string_view bytes) const {
    const std::string_view file = mapping_->bytes();
    return bytes.data() >= file.data() && bytes.data() < file.data() + file.size();
  }

  // The plain bytes of a chunk: in the file or in `scratch`.
  Result<std::string_view> ReadChunk(const Chunk& chunk, Codec* codec, std::string* scratch,
                                     uint64_t* entries) const {
    TRY(TryTwice([&] { return mapping_->Load(chunk.offset, chunk.bytes); }));
    Result<std::string_view> plain = CheckChunk(chunk, codec, scratch, entries);
    if (plain.ok()) return plain;
    return plain.TakeStatus().Annotate(outline_.info.path + ": the chunk at offset " +
                                       std::to_string(chunk.offset));
  }

  Result<std::string_view> CheckChunk(const Chunk& chunk, Codec* codec, std::string* scratch,
                                      uint64_t* entries) const {
    const CheckpointInfo& info = outline_.info;
    const std::string_view file = mapping_->bytes();
    const std::string_view payload =
        TRY(CheckFrame(file, outline_, chunk.offset, chunk.bytes, FrameType::kChunk, chunk.shard));
    if (payload.size() < sizeof(ChunkPayload)) return Damaged("it is shorter than its beginning");
    const auto head = Get<ChunkPayload>(payload);
    const uint8_t flags = Get<FrameHeader>(file.substr(chunk.offset)).flags;
    if (((flags & kFlagEncrypted) != 0) != (info.key_id != 0)) {
      return Damaged("it and the header differ on whether it is encrypted");
    }
    if (head.plain_bytes > kRecordBytesMax) return Damaged("it states an impossible size");
    const ChunkContext context = {info.identity.log_id, info.lsn,    outline_.salt,
                                  chunk.offset,         chunk.shard, head};
    const std::string_view plain = TRY(codec->Unpack(payload.substr(sizeof(head)), BytesOf(context),
                                                     flags, head.plain_bytes, scratch));
    if (plain.size() != head.plain_bytes) return Damaged("it is shorter than it states");
    if (entries != nullptr) *entries = head.entries;
    return plain;
  }

  const std::unique_ptr<Mapping> mapping_;
  const Outline outline_;
  const std::shared_ptr<const KeyRing> keys_;
};

// Maps the file at `path` and reads its outline. `outline->info` keeps what could be read.
Result<std::unique_ptr<Mapping>> OpenOutline(Disk& disk, const std::string& path,
                                             Outline* outline) {
  CheckpointInfo* const info = &outline->info;
  info->path = path;
  info->name = path.substr(path.rfind('/') + 1);
  const std::optional<Lsn> lsn = CheckpointLsn(info->name);
  if (!lsn) return Damaged("its name is not that of a checkpoint");
  info->lsn = *lsn;
  const std::unique_ptr<File> file = TRY(disk.Open(path, OpenMode::kRead));
  std::unique_ptr<Mapping> mapping = TRY(file->Map());
  TRY(ReadOutline(mapping.get(), outline));
  return mapping;
}

}  // namespace

std::string CheckpointName(Lsn lsn) {
  char name[48];
  std::snprintf(name, sizeof(name), "checkpoint-%020llu.ckpt",
                static_cast<unsigned long long>(lsn));
  return name;
}

std::optional<Lsn> CheckpointLsn(std::string_view name) {
  if (name.size() != kPrefix.size() + kDigits + kSuffix.size()) return std::nullopt;
  if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
  Lsn lsn = 0;
  for (const char digit : name.substr(kPrefix.size(), kDigits)) {
    if (digit < '0' || digit > '9') return std::nullopt;
    if (__builtin_mul_overflow(lsn, 10, &lsn) ||
        __builtin_add_overflow(lsn, static_cast<Lsn>(digit - '0'), &lsn)) {
      return std::nullopt;
    }
  }
  return lsn;
}

Result<std::vector<CheckpointInfo>> ListCheckpoints(Disk& disk, const std::string& directory) {
  std::vector<CheckpointInfo> checkpoints;
  for (const std::string& name : TRY(disk.List(directory))) {
    if (!CheckpointLsn(name)) continue;
    Outline outline;
    const auto mapping = TryTwice([&] {
      outline = Outline();
      return OpenOutline(disk, PathIn(directory, name), &outline);
    });
    if (!mapping.ok()) {
      const int error = mapping.system_errno();
      outline.info.problem = mapping.message();
      outline.info.unopened_errno = IsDamage(error) ? 0 : error;
    }
    checkpoints.push_back(std::move(outline.info));
  }
  std::reverse(checkpoints.begin(), checkpoints.end());
  return checkpoints;
}

Result<std::unique_ptr<CheckpointWriter>> CheckpointWriter::Create(
    Disk& disk, const std::string& directory, const CheckpointInfo& info, Compression compression,
    std::shared_ptr<const KeyRing> keys) {
  const std::string temporary = FileWriter::TemporaryPath(directory);
  const Status removed = disk.Remove(temporary);
  if (!removed.ok() && removed.system_errno() != ENOENT) {
    return Status::Error(std::string(removed.message()), removed.system_errno());
  }
  std::unique_ptr<File> file = TRY(disk.Open(temporary, OpenMode::kCreateDirect));
  CheckpointInfo made;
  made.name = CheckpointName(info.lsn);
  made.path = PathIn(directory, made.name);
  made.lsn = info.lsn;
  made.identity = info.identity;
  made.replication_offset = info.replication_offset;
  made.shard_by_hashtag = info.shard_by_hashtag;
  made.created_at_ms = info.created_at_ms;
  made.key_id = keys == nullptr ? 0 : keys->current_id();
  made.compression = compression;
  return std::unique_ptr<CheckpointWriter>(std::make_unique<FileWriter>(
      disk, directory, std::move(file), std::move(made), std::move(keys)));
}

Result<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(
    Disk& disk, const std::string& path, std::shared_ptr<const KeyRing> keys) {
  Outline outline;
  auto mapping = OpenOutline(disk, path, &outline);
  if (!mapping.ok()) {
    Status status = mapping.TakeStatus();
    // The disk's own errors name the path already.
    const int error = status.system_errno();
    if (error != EBADMSG && error != ENOTSUP) return status;
    return std::move(status).Annotate(path);
  }
  const CheckpointInfo& info = outline.info;
  if (info.key_id != 0 && (keys == nullptr || !keys->Has(info.key_id))) {
    char id[20];
    std::snprintf(id, sizeof(id), "%016llx", static_cast<unsigned long long>(info.key_id));
    return Status::Error(
        path + " is encrypted with key " + id + ", which wal.encryption_key_file does not hold",
        ENOKEY);
  }
  return std::unique_ptr<CheckpointReader>(std::make_unique<FileReader>(
      std::move(mapping).value(), std::move(outline), std::move(keys)));
}

KeptCheckpoints ChooseCheckpoints(const std::vector<CheckpointInfo>& found, uint64_t log_id,
                                  size_t keep, Lsn retained_from) {
  KeptCheckpoints kept;
  kept.oldest_needed = kUnknownLsn;
  std::vector<const CheckpointInfo*> older;  // good ones, newest first
  for (const CheckpointInfo& info : found) {
    const bool good = info.problem.empty();
    if (good && info.identity.log_id != log_id) continue;
    const bool unopened = info.unopened_errno != 0;  // it may be whole
    if (kept.good < keep) {
      if (good || unopened) kept.oldest_needed = std::min(kept.oldest_needed, info.lsn);
      if (good) ++kept.good;
    } else if (good) {
      older.push_back(&info);
    } else if (!unopened) {
      kept.gone.push_back(info);
    }
  }
  if (kept.oldest_needed == kUnknownLsn) kept.oldest_needed = 0;
  if (retained_from == kUnknownLsn) {
    for (const CheckpointInfo* info : older) kept.gone.push_back(*info);
    older.clear();
  }
  for (size_t i = 0; i < older.size(); ++i) {
    const bool below = older[i]->lsn < retained_from;
    const bool newest_below = below && (i == 0 || older[i - 1]->lsn >= retained_from);
    const bool oldest_above =
        !below && (i + 1 == older.size() || older[i + 1]->lsn < retained_from);
    if (newest_below || oldest_above || retained_from == 0) {
      kept.oldest_restorable = older[i]->lsn;
    } else {
      kept.gone.push_back(*older[i]);
    }
  }
  std::sort(kept.gone.begin(), kept.gone.end(),
            [](const CheckpointInfo& a, const CheckpointInfo& b) { return a.lsn > b.lsn; });
  return kept;
}

Status RemoveCheckpoints(Disk& disk, const std::string& directory,
                         const std::vector<CheckpointInfo>& gone) {
  for (const CheckpointInfo& info : gone) TRY(disk.Remove(info.path));
  return gone.empty() ? Status::Ok() : disk.SyncDirectory(directory);
}

}  // namespace crab::wal

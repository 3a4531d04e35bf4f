// Fuzzes what reads the log from a disk: segments, plain and packed, checkpoints, their indexes,
// the directories of what ran atomically, effects, packed pieces and files of keys.
// `log_fuzz [seconds] [seed]` damages good logs and prints the seed; with clang's -fsanitize=fuzzer
// the fuzzer drives the parts that read single pieces, and segments made of its bytes.
// It fails by aborting: in a CHECK here, in a sanitizer, or by the alarm where something hangs.
//
// Damage is of three kinds. Bytes that are changed alone must never become a record or a chunk that
// was not written. Frames whose checksums are made right again may, but not where the log is
// encrypted. Where the header is made right again too, any record may come of it, and no crash.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "persistence/backlog.h"
#include "persistence/checkpoint.h"
#include "persistence/codec.h"
#include "persistence/index.h"
#include "persistence/log.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/recovery.h"
#include "persistence/segment.h"
#include "src/keyspace/effects.h"
#include "tests/support/log_run.h"
#include "tests/support/sim_disk.h"
#include "utils/check.h"
#include "utils/crc32c.h"
#include "utils/random.h"

namespace {

using namespace crab;
using test::SimDisk;
using wal::FrameHeader;
using wal::FrameType;
using wal::Lsn;

constexpr char kContext[] = "what is known of the place";

std::shared_ptr<const wal::KeyRing> LoadKeys(std::string_view text) {
  const int file = memfd_create("keys", MFD_CLOEXEC);
  CHECK(file >= 0);
  CHECK_EQ(write(file, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  auto ring = wal::KeyRing::Load("/proc/self/fd/" + std::to_string(file));
  close(file);
  if (!ring.ok()) {
    CHECK(!ring.message().empty());
    return nullptr;
  }
  CHECK(!(*ring)->empty());
  return std::move(*ring);
}

const std::shared_ptr<const wal::KeyRing>& Keys() {
  static const auto keys = LoadKeys(std::string(64, 'a') + "\n# old\n" + std::string(64, '7'));
  return keys;
}

// --- single pieces -------------------------------------------------------------------------------

void CheckEffects(std::string_view bytes) {
  EffectView effect;
  while (!bytes.empty()) {
    const char* const end = bytes.data() + bytes.size();
    if (!ReadEffect(&bytes, &effect).ok()) return;
    for (const std::string_view argument : effect.arguments) {
      CHECK(argument.data() + argument.size() <= end);
    }
  }
}

void CheckTransaction(std::string_view payload) {
  std::vector<wal::TxnPart> parts;
  const bool whole = wal::ReadTxnDirectory(payload, &parts);
  Result<std::string_view> effects = TransactionEffects(payload);
  uint64_t bytes = 0;
  for (const wal::TxnPart& part : parts) {
    if (!whole) break;
    CHECK_LE(uint64_t{part.offset} + part.size, payload.size());
    bytes += part.size;
  }
  if (effects.ok()) {
    CHECK(whole);  // both read the same directory
    CHECK_EQ(effects->size(), bytes);
    CheckEffects(*effects);
  }
}

void CheckIndex(std::string_view payload) {
  Result<wal::IndexView> view = wal::IndexView::Parse(payload);
  if (!view.ok()) return;
  std::vector<uint16_t> shards;
  view->Shards(&shards);
  CHECK(std::is_sorted(shards.begin(), shards.end()));
  std::vector<uint64_t> offsets;
  for (const uint16_t shard : shards) {
    offsets.clear();
    if (!view->Offsets(shard, &offsets).ok()) continue;
    CHECK(std::is_sorted(offsets.begin(), offsets.end()));
    for (const uint64_t offset : offsets) CHECK_EQ(offset % wal::kFrameAlignment, 0u);
  }
}

// `written`: what packed pieces may unpack into where they are encrypted; null for anything.
void CheckPacked(std::string_view packed, const std::set<std::string>* written) {
  wal::Codec codec(wal::Compression::kNone, Keys());
  std::string scratch;
  constexpr uint64_t kPlainBytesMax = 100000;
  for (uint8_t flags = 0; flags < 6; ++flags) {
    auto plain = codec.Unpack(packed, kContext, flags, kPlainBytesMax, &scratch);
    if (!plain.ok()) continue;
    CHECK_LE(plain->size(), kPlainBytesMax);
    if ((flags & wal::kFlagEncrypted) != 0 && written != nullptr) {
      CHECK(written->count(std::string(*plain)) != 0);
    }
  }
}

void CheckPiece(std::string_view bytes) {
  CheckEffects(bytes);
  CheckTransaction(bytes);
  CheckIndex(bytes);
  CheckPacked(bytes, nullptr);
}

// --- logs ----------------------------------------------------------------------------------------

using Files = std::map<std::string, std::string>;  // by path

struct Record {
  uint8_t type;
  uint16_t shard;
  std::string payload;
  bool operator==(const Record&) const = default;
};

struct Sample {
  wal::Options options;
  Files files;
  std::map<Lsn, Record> records;
  std::map<Lsn, std::set<std::string>> chunks;  // by the LSN of their checkpoint
  std::vector<std::string> pieces;              // payloads of all kinds of frames
};

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::unique_ptr<SimDisk> DiskOf(const Files& files) {
  auto disk = std::make_unique<SimDisk>();
  CHECK(disk->CreateDirectories(test::kLogDirectory).ok());
  for (const auto& [path, bytes] : files) disk->PutFile(path, bytes);
  return disk;
}

// More frames than this cannot be in the files: each takes 24 bytes, packed at least one.
uint64_t FramesMax(const Files& files) {
  uint64_t bytes = 0;
  for (const auto& [path, content] : files) bytes += content.size();
  return bytes * 256 + 1000;
}

// Everything in the log that a reader believes.
void CheckReader(wal::Disk& disk, const Files& files, const Sample& sample, bool only_written,
                 const wal::ReaderOptions& options) {
  auto reader = wal::Reader::Open(disk, test::kLogDirectory, options);
  if (!reader.ok()) {
    CHECK(!reader.message().empty());
    return;
  }
  Lsn last = 0;
  wal::Frame frame;
  for (uint64_t left = FramesMax(files);; --left) {
    CHECK(left > 0);
    auto more = (*reader)->Next(&frame);
    if (!more.ok()) continue;
    if (!*more) return;
    CHECK(frame.verdict == wal::Verdict::kGood || !frame.reason.empty());
    if (!wal::IsRecord(frame.type) || frame.verdict != wal::Verdict::kGood) continue;
    CHECK(frame.lsn > last);
    last = frame.lsn;
    if (!only_written) continue;
    const auto found = sample.records.find(frame.lsn);
    CHECK(found != sample.records.end());
    CHECK(found->second == (Record{frame.type, frame.shard, std::string(frame.payload)}));
  }
}

// What a restart applies.
void CheckBacklog(wal::Disk& disk, const Sample& sample, bool only_written,
                  const wal::Options& options) {
  wal::RecoveryReport report;
  auto recovered = wal::Recover(
      disk, options, [] { return wal::Identity{.log_id = 1, .shard_count = 16}; }, &report);
  if (!recovered.ok()) {
    CHECK(!recovered.message().empty());
    return;
  }
  const auto backlog = wal::MakeBacklog(disk, options, *recovered, report, 0);
  std::vector<Lsn> last_lsns(backlog->units(), 0);
  for (wal::Backlog::Piece piece;;) {
    const auto next = backlog->NextPiece(&piece);
    CHECK(next.ok() || !next.message().empty());
    if (!next.ok() || !*next) break;
    Lsn& last = last_lsns[piece.unit];
    const auto replayed = backlog->Replay(piece, [&](const wal::Backlog::Part& part) -> Status {
      const std::string_view payload = part.whole.empty() ? part.payload : part.whole;
      if (part.of_checkpoint) {
        CHECK(last == 0 || last == part.lsn);
        last = part.lsn;
        if (only_written) {
          const auto chunks = sample.chunks.find(part.lsn);
          CHECK(chunks != sample.chunks.end());
          CHECK(chunks->second.count(std::string(payload)) != 0);
        }
      } else {
        CHECK(part.lsn > last);
        last = part.lsn;
        if (only_written) {
          const auto record = sample.records.find(part.lsn);
          CHECK(record != sample.records.end());
          CHECK_EQ(record->second.type, static_cast<uint8_t>(part.type));
          CHECK(record->second.payload == payload);
        }
      }
      CheckEffects(part.payload);
      return Status::Ok();
    });
    if (!replayed.ok()) CHECK(!replayed.message().empty());
  }
  (void)backlog->report();
}

void CheckCheckpoints(wal::Disk& disk, const Files& files, const Sample& sample,
                      bool only_written) {
  for (const auto& [path, bytes] : files) {
    if (!wal::CheckpointLsn(NameOf(path))) continue;
    auto reader = wal::CheckpointReader::Open(disk, path, sample.options.keys);
    if (!reader.ok()) continue;
    const auto chunks = sample.chunks.find((*reader)->info().lsn);
    (void)(*reader)->ForEachChunk(0, 1 << 16, [&](uint16_t, std::string_view effects) {
      if (only_written) {
        CHECK(chunks != sample.chunks.end());
        CHECK(chunks->second.count(std::string(effects)) != 0);
      }
      CheckEffects(effects);
      return Status::Ok();
    });
    (void)(*reader)->Verify({});
  }
}

void CheckFiles(const Files& files, const Sample& sample, bool only_written, Random& random) {
  const auto disk = DiskOf(files);
  wal::ReaderOptions reading;
  reading.keys = random.Below(16) == 0 ? nullptr : sample.options.keys;
  if (random.Below(2) == 0) reading.checkpoint_lsn = 0;
  CheckReader(*disk, files, sample, only_written, reading);
  reading.for_restart = true;
  reading.skip_sealed = random.Below(2) == 0;
  CheckReader(*disk, files, sample, only_written, reading);
  CheckCheckpoints(*disk, files, sample, only_written);
  wal::Options options = sample.options;
  options.keys = reading.keys;
  options.shard_count = 1u << random.Below(7);
  constexpr wal::RecoveryMode kModes[] = {wal::RecoveryMode::kSalvage, wal::RecoveryMode::kPrefix,
                                          wal::RecoveryMode::kStrict};
  options.recovery = kModes[random.Below(4) % 3];
  CheckBacklog(*disk, sample, only_written, options);
  if (random.Below(50) != 0) return;
  // A whole start, which writes behind what it has read; and the one after it.
  for (int start = 0; start < 2; ++start) {
    wal::RecoveryReport report;
    auto log = wal::Log::Open(
        *disk, options, [](const wal::Identity&) {},
        [](const wal::RecordView&) { return Status::Ok(); }, &report);
    if (!log.ok()) return;
    CHECK(start == 0 || options.recovery != wal::RecoveryMode::kPrefix || report.lost.empty());
    (void)(*log)->Append(wal::RecordType::kEffect, 0, "behind");
    (void)(*log)->Stop();
  }
}

// --- good logs -----------------------------------------------------------------------------------

void AppendSome(wal::Log& log, Random& random, int count) {
  Effects effects;
  for (int i = 0; i < count; ++i) {
    effects.Clear();
    const std::string key = "key:" + std::to_string(random.Below(40));
    const auto shard = static_cast<uint16_t>(random.Below(16));
    const std::string value(random.Below(random.Below(8) == 0 ? 9000 : 90), 'v');
    effects.Set(shard, 0, key, value, random.Below(2) == 0 ? kNoDeadline : 1700000000000);
    if (random.Below(4) == 0) effects.Del(static_cast<uint16_t>(random.Below(16)), 3, "other");
    if (random.Below(10) == 0) effects.Broadcast(0, EffectId::kFlushdb, {});
    const bool several = effects.count() > 1;
    log.Append(several ? wal::RecordType::kTxn : wal::RecordType::kEffect,
               several ? wal::kBroadcastShard : shard,
               several ? effects.Transaction() : effects.bytes());
    if (random.Below(4) == 0) CHECK(test::WaitDurable(log, log.last_lsn()));
  }
  if (random.Below(2) == 0) log.SetSyncPolicy(wal::SyncPolicy::kSync);  // a record of its own
}

void WriteCheckpoint(wal::Disk& disk, wal::Log& log, Sample* sample) {
  wal::CheckpointInfo info;
  info.lsn = log.last_lsn();
  info.identity = log.identity();
  auto writer = wal::CheckpointWriter::Create(disk, test::kLogDirectory, info,
                                              sample->options.compression, sample->options.keys);
  CHECK(writer.ok());
  for (uint16_t i = 0; i < 20; ++i) {
    Effects effects;
    effects.Set(i % 16, 0, "key:" + std::to_string(i), std::string(50 * i, 'c'), kNoDeadline);
    sample->chunks[info.lsn].insert(std::string(effects.bytes()));
    CHECK((*writer)->Add(i % 16, effects.bytes(), 1).ok());
  }
  CHECK((*writer)->Finish().ok());
  CHECK((*writer)->Publish().ok());
}

void Rotate(wal::Log& log) {
  CHECK(test::WaitDurable(log, log.last_lsn()));
  log.RequestRotate();
}

// The payloads of the frames of a file.
void TakePieces(const std::string& bytes, std::vector<std::string>* pieces) {
  for (uint64_t at = wal::kSegmentHeaderBytes; at + sizeof(FrameHeader) <= bytes.size();) {
    FrameHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.type == 0) return;
    pieces->push_back(bytes.substr(at + sizeof(header), header.length));
    at += wal::FrameBytes(header.length);
  }
}

// Two epochs, five segments, two checkpoints; with a time without the log between the epochs where
// `gap`. The last segment is not sealed.
Sample MakeSample(wal::Compression compression, bool encrypted, bool gap, Random& random) {
  Sample sample;
  SimDisk disk;
  sample.options = test::LogOptions(wal::SyncPolicy::kSync);
  sample.options.compression = compression;
  if (encrypted) sample.options.keys = Keys();
  std::unique_ptr<SimDisk> after;
  for (int epoch = 0; epoch < 2; ++epoch) {
    wal::Options options = sample.options;
    options.after_gap = gap && epoch == 1;
    wal::RecoveryReport report;
    auto log = wal::Log::Open(
        disk, options, [](const wal::Identity&) {},
        [](const wal::RecordView&) { return Status::Ok(); }, &report);
    CHECK(log.ok());
    if (options.after_gap) {
      WriteCheckpoint(disk, **log, &sample);
      (*log)->SetCheckpoint((*log)->last_lsn(), 0);
      CHECK(test::WaitHealed(**log));
    }
    AppendSome(**log, random, 30);
    Rotate(**log);
    AppendSome(**log, random, 20);
    CHECK(test::WaitDurable(**log, (*log)->last_lsn()));
    if (!options.after_gap) WriteCheckpoint(disk, **log, &sample);
    AppendSome(**log, random, 20);
    Rotate(**log);
    AppendSome(**log, random, 10);
    CHECK(test::WaitDurable(**log, (*log)->last_lsn()));
    if (epoch == 1) after = disk.Kill();
  }
  for (const std::string& path : after->Paths()) {
    const std::string name = NameOf(path);
    if (!wal::SegmentNumber(name) && !wal::CheckpointLsn(name)) continue;
    std::string bytes = after->Contents(path);
    // Of the zeroes behind an open end some are enough.
    bytes.resize(std::min(bytes.size(), bytes.find_last_not_of('\0') / 8 * 8 + 4096));
    if (wal::CheckpointLsn(name)) bytes = after->Contents(path);
    TakePieces(bytes, &sample.pieces);
    sample.files[path] = std::move(bytes);
  }
  const auto disk_after = DiskOf(sample.files);
  wal::ReaderOptions reading;
  reading.keys = sample.options.keys;
  auto reader = wal::Reader::Open(*disk_after, test::kLogDirectory, reading);
  CHECK(reader.ok());
  wal::Frame frame;
  for (;;) {
    auto more = (*reader)->Next(&frame);
    CHECK(more.ok());
    if (!*more) break;
    if (!wal::IsRecord(frame.type)) continue;
    CHECK(frame.verdict == wal::Verdict::kGood);
    sample.records[frame.lsn] = {frame.type, frame.shard, std::string(frame.payload)};
    sample.pieces.emplace_back(frame.payload);
  }
  CHECK(sample.records.size() > 100);
  return sample;
}

// --- damage --------------------------------------------------------------------------------------

// Gives frames, and the header, checksums that are right, up to where no frame can be made out.
void Sign(const std::string& path, bool header_too, std::string* bytes) {
  const bool checkpoint = wal::CheckpointLsn(NameOf(path)).has_value();
  if (bytes->size() < wal::kSegmentHeaderBytes) return;
  const size_t crc_offset = offsetof(wal::SegmentHeader, crc);
  static_assert(offsetof(wal::CheckpointHeader, crc) == offsetof(wal::SegmentHeader, crc));
  if (header_too) {
    const uint32_t crc = Crc32c(std::string_view(*bytes).substr(0, crc_offset));
    std::memcpy(bytes->data() + crc_offset, &crc, sizeof(crc));
  }
  uint64_t salt;
  std::memcpy(&salt,
              bytes->data() + (checkpoint ? offsetof(wal::CheckpointHeader, salt)
                                          : offsetof(wal::SegmentHeader, salt)),
              sizeof(salt));
  for (uint64_t at = wal::kSegmentHeaderBytes; at + sizeof(FrameHeader) <= bytes->size();) {
    FrameHeader header;
    std::memcpy(&header, bytes->data() + at, sizeof(header));
    const uint64_t frame_bytes = wal::FrameBytes(header.length);
    if (header.type == 0 || frame_bytes > bytes->size() - at) return;
    header.crc = Crc32c(std::string_view(*bytes).substr(at + sizeof(header.crc),
                                                        frame_bytes - sizeof(header.crc))) ^
                 wal::PlaceMix(salt, at);
    std::memcpy(bytes->data() + at, &header, sizeof(header));
    at += frame_bytes;
  }
}

// The offset of one of a file's frames, or of its end.
uint64_t SomeFrame(const std::string& bytes, Random& random) {
  std::vector<uint64_t> frames;
  for (uint64_t at = wal::kSegmentHeaderBytes; at + sizeof(FrameHeader) <= bytes.size();) {
    frames.push_back(at);
    FrameHeader header;
    std::memcpy(&header, bytes.data() + at, sizeof(header));
    if (header.type == 0) break;
    at += wal::FrameBytes(header.length);
  }
  return frames.empty() ? bytes.size() : frames[random.Below(frames.size())];
}

uint64_t SomeNumber(Random& random) {
  switch (random.Below(4)) {
    case 0:
      return random.Below(300);
    case 1:
      return ~random.Below(300);
    case 2:
      return uint64_t{1} << random.Below(64);
    default:
      return random.Next();
  }
}

void Overwrite(std::string* bytes, uint64_t at, std::string_view with) {
  for (size_t i = 0; i < with.size() && at + i < bytes->size(); ++i) (*bytes)[at + i] = with[i];
}

// Where damage tells most: in a header of the file, in that of a frame, anywhere.
uint64_t SomePlace(const std::string& bytes, Random& random) {
  switch (random.Below(4)) {
    case 0:
      return std::min<uint64_t>(bytes.size(), random.Below(200));
    case 1:
      return std::min(bytes.size(), SomeFrame(bytes, random) + random.Below(sizeof(FrameHeader)));
    case 2:
      return std::min(bytes.size(), SomeFrame(bytes, random) + random.Below(80));
    default:
      return random.Below(bytes.size() + 1);
  }
}

void Mutate(std::string* bytes, const std::string& other, Random& random) {
  const uint64_t at = SomePlace(*bytes, random);
  const uint64_t number = SomeNumber(random);
  switch (random.Below(9)) {
    case 0:
    case 1:
      if (at < bytes->size()) (*bytes)[at] ^= static_cast<char>(1 << random.Below(8));
      break;
    case 2:
      Overwrite(bytes, at, {reinterpret_cast<const char*>(&number), 1 + random.Below(8)});
      break;
    case 3:
      bytes->resize(random.Below(2) == 0 ? at : at / 8 * 8);
      break;
    case 4:
      Overwrite(bytes, at, std::string(random.Below(600), '\0'));
      break;
    case 5:
      bytes->insert(at / 8 * 8, std::string(8 * random.Below(4), static_cast<char>(number)));
      break;
    case 6:
      bytes->erase(at / 8 * 8, 8 * random.Below(20));
      break;
    case 7: {  // a frame to another place
      const uint64_t from = SomeFrame(other, random);
      if (from >= other.size()) break;
      const std::string piece = other.substr(from, 24 + 8 * random.Below(30));
      bytes->insert(std::min(bytes->size(), SomeFrame(*bytes, random)), piece);
      break;
    }
    default: {
      const uint64_t from = SomePlace(other, random);
      Overwrite(bytes, at, other.substr(from, random.Below(600)));
    }
  }
}

const std::string& SomePath(const Files& files, Random& random) {
  return std::next(files.begin(), static_cast<std::ptrdiff_t>(random.Below(files.size())))->first;
}

// To the set of files as a whole.
void MutateNames(Files* files, Random& random) {
  const std::string one = SomePath(*files, random);
  const std::string two = SomePath(*files, random);
  const bool segment = wal::SegmentNumber(NameOf(one)).has_value();
  const uint64_t number = SomeNumber(random);
  const std::string made = std::string(test::kLogDirectory) + "/" +
                           (segment ? wal::SegmentName(number) : wal::CheckpointName(number));
  switch (random.Below(4)) {
    case 0:
      files->erase(one);
      break;
    case 1:
      std::swap((*files)[one], (*files)[two]);
      break;
    case 2:
      (*files)[two] = std::string((*files)[one]);
      break;
    default:
      (*files)[made] = std::string((*files)[one]);
  }
}

// A segment with one PACK whose frames are `plain`.
void ForgePack(const Sample& sample, std::string plain, Files* files) {
  for (auto& [path, bytes] : *files) {
    if (!wal::SegmentNumber(NameOf(path)) || bytes.size() < wal::kSegmentHeaderBytes) continue;
    wal::PackPayload head = {static_cast<uint32_t>(plain.size()), 1, 1};
    std::string payload(reinterpret_cast<const char*>(&head), sizeof(head));
    FrameHeader header = {};
    wal::Codec codec(sample.options.compression, nullptr);
    CHECK(codec.Pack(plain, {}, &payload, &header.flags).ok());
    header.length = static_cast<uint32_t>(payload.size());
    header.type = static_cast<uint8_t>(FrameType::kPack);
    bytes.resize(wal::kSegmentHeaderBytes);
    wal::AppendFrame(bytes, header, payload, 0, bytes.size());
    Sign(path, false, &bytes);
    return;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckPiece(bytes);
  LoadKeys(bytes);
  static Random setup(1);
  static const Sample sample = MakeSample(wal::Compression::kLz4, false, false, setup);
  Files files = sample.files;
  auto& [path, segment] = *files.rbegin();
  segment.resize(wal::kSegmentHeaderBytes);
  segment.append(bytes);
  Sign(path, false, &segment);
  Random random(size);
  CheckFiles(files, sample, /*only_written=*/false, random);
  return 0;
}

#ifdef CRAB_FUZZ_STANDALONE
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "utils/log.h"

namespace {

constexpr unsigned kHangSeconds = 60;

void FuzzPiece(const std::vector<Sample>& samples, Random& random) {
  const Sample& sample = samples[random.Below(samples.size())];
  std::string piece = sample.pieces[random.Below(sample.pieces.size())];
  for (uint64_t changes = random.Below(4); changes > 0; --changes) {
    Mutate(&piece, sample.pieces[random.Below(sample.pieces.size())], random);
  }
  CheckPiece(piece);
}

void FuzzPacked(const std::vector<Sample>& samples, Random& random) {
  constexpr wal::Compression kAll[] = {wal::Compression::kNone, wal::Compression::kLz4,
                                       wal::Compression::kZstd};
  const Sample& sample = samples[random.Below(samples.size())];
  const std::string& plain = sample.pieces[random.Below(sample.pieces.size())];
  wal::Codec codec(kAll[random.Below(3)], random.Below(2) == 0 ? Keys() : nullptr);
  std::string packed;
  uint8_t flags = 0;
  CHECK(codec.Pack(plain, kContext, &packed, &flags).ok());
  const std::set<std::string> written = {plain};
  if ((flags & wal::kFlagEncrypted) == 0) return CheckPiece(packed);
  for (uint64_t changes = random.Below(3); changes > 0; --changes) Mutate(&packed, plain, random);
  CheckPacked(packed, (flags & wal::kFlagCompressed) != 0 ? nullptr : &written);
}

void FuzzKeys(Random& random) {
  std::string text = std::string(64, 'A') + "\n# c\n\n  " + std::string(64, '0') + " \r\n";
  for (uint64_t changes = random.Below(5); changes > 0; --changes) {
    const size_t at = random.Below(text.size() + 1);
    if (random.Below(2) == 0) {
      text.insert(at, 1, static_cast<char>(random.Next()));
    } else {
      text.erase(at, random.Below(3));
    }
  }
  LoadKeys(text);
}

void FuzzLog(const std::vector<Sample>& samples, Random& random) {
  const Sample& sample = samples[random.Below(samples.size())];
  const bool encrypted = sample.options.keys != nullptr;
  Files files = sample.files;
  std::set<std::string> changed;
  for (uint64_t changes = 1 + random.Below(5); changes > 0 && !files.empty(); --changes) {
    if (random.Below(12) == 0) {
      MutateNames(&files, random);
      continue;
    }
    const std::string path = SomePath(files, random);
    Mutate(&files[path], files[SomePath(files, random)], random);
    changed.insert(path);
  }
  const uint64_t kind = random.Below(3);
  for (auto& [path, bytes] : files) {
    if (kind > 0 && changed.count(path) != 0) Sign(path, /*header_too=*/kind == 2, &bytes);
  }
  CheckFiles(files, sample, kind == 0 || (kind == 1 && encrypted), random);
}

void FuzzForgedPack(const std::vector<Sample>& samples, Random& random) {
  const Sample& sample = samples[random.Below(samples.size())];
  std::string plain;
  Lsn lsn = 1;
  for (uint64_t records = random.Below(5); records > 0; --records, ++lsn) {
    FrameHeader header = {};
    std::string payload = sample.pieces[random.Below(sample.pieces.size())];
    if (random.Below(4) == 0) Mutate(&payload, payload, random);
    header.length = static_cast<uint32_t>(payload.size());
    header.lsn = lsn;
    header.type = static_cast<uint8_t>(1 + random.Below(4));
    header.shard = static_cast<uint16_t>(random.Below(20));
    header.crc = wal::BodyCrc(header, payload);
    wal::AppendPackedFrame(plain, header, payload);
  }
  if (random.Below(2) == 0) Mutate(&plain, plain, random);
  Files files = sample.files;
  ForgePack(sample, std::move(plain), &files);
  CheckFiles(files, sample, sample.options.keys != nullptr, random);
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc > 1 ? std::atoi(argv[1]) : 10;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : RandomUint64();
  std::printf("log_fuzz: %d s, seed %llu\n", seconds, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  SetLogLevel(LogLevel::kNothing);
  Random random(seed);
  std::vector<Sample> samples;
  for (const auto compression :
       {wal::Compression::kNone, wal::Compression::kLz4, wal::Compression::kZstd}) {
    for (const bool encrypted : {false, true}) {
      for (const bool gap : {false, true}) {
        samples.push_back(MakeSample(compression, encrypted, gap, random));
      }
    }
  }
  for (const Sample& sample : samples) CheckFiles(sample.files, sample, true, random);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    alarm(kHangSeconds);
    switch (random.Below(8)) {
      case 0:
        FuzzPiece(samples, random);
        break;
      case 1:
        FuzzPacked(samples, random);
        break;
      case 2:
        FuzzKeys(random);
        break;
      case 3:
        FuzzForgedPack(samples, random);
        break;
      default:
        FuzzLog(samples, random);
    }
  }
  std::printf("log_fuzz: %llu inputs, no failure\n1 passed, 0 failed\n",
              static_cast<unsigned long long>(runs));
  return 0;
}
#endif

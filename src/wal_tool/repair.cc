// crabcache-wal repair: makes a directory of which nothing is missing, out of one of which
// something is.
//
// The log is read twice. The first time finds the places that are bad. The second writes each
// segment that has one anew, frame by frame: what checks stays as it is, each LSN that is missing
// becomes a VOID record (LSNs are dense, and a VOID takes as little room as a record can), and
// INDEX and SEAL are made to suit. Records missing between segments become VOIDs at the end of the
// one before. Where the beginning of the log is gone, a checkpoint takes its place, made of the
// shards of a damaged one that can be read and of what else is known of the others, or empty. Each
// original is kept under a second name in repair-<time> before a new file takes its name, by one
// rename, and what has none to replace it loses its name last, when all that is made of it is
// there: a repair that is interrupted is begun anew, and finds what the first one found.
#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "persistence/backup.h"
#include "persistence/index.h"
#include "persistence/recovery.h"
#include "persistence/segment.h"
#include "src/wal_tool/shard_image.h"
#include "src/wal_tool/tool.h"
#include "utils/clock.h"

namespace crab::wal {
namespace {

constexpr char kUnfinished[] = "repair.tmp";
constexpr size_t kWriteBytes = 1 << 20;
constexpr size_t kPackBytes = 256 * 1024;  // of records in one PACK, about

// Writes one segment anew, under another name.
class Rewriter {
 public:
  static Result<std::unique_ptr<Rewriter>> Create(Tool& tool, const SegmentInfo& original,
                                                  Lsn first_lsn, const std::string& path) {
    std::unique_ptr<Rewriter> rewriter(new Rewriter(tool));
    SegmentInfo info = original;
    info.format_version = std::max(info.format_version, kFormatVersion);
    info.first_lsn = first_lsn;
    info.durable_lsn = std::min(info.durable_lsn, first_lsn - 1);
    info.after_gap &= first_lsn == original.first_lsn;
    info.min_reader_version = std::max(info.min_reader_version, MinReaderVersion(info));
    info.predecessor_crc = 0;  // the predecessor may have been written anew as well
    if ((info.flags & kFlagEncrypted) != 0) {
      // With the key that is used now, which may be another one of the ring.
      info.key_id = tool.keys == nullptr ? 0 : tool.keys->current_id();
    }
    auto file = TRY(tool.disk.Open(path, OpenMode::kCreate));
    TRY(file->WriteAt(0, EncodeSegmentHeader(info)));
    rewriter->codec_ = std::make_unique<Codec>(
        info.compression, (info.flags & kFlagEncrypted) != 0 ? tool.keys : nullptr);
    rewriter->writer_ = std::make_unique<SegmentWriter>(info, std::move(file), 0);
    rewriter->last_lsn_ = first_lsn - 1;
    return rewriter;
  }

  Status Record(FrameHeader header, std::string_view payload) {
    header.length = static_cast<uint32_t>(payload.size());
    header.crc = BodyCrc(header, payload);
    last_lsn_ = header.lsn;
    if (!writer_->packs()) {
      writer_->Add(out_, header, payload);
      return out_.size() >= kWriteBytes ? Flush() : Status::Ok();
    }
    if (packed_records_++ == 0) packed_first_ = header.lsn;
    packed_.append(reinterpret_cast<const char*>(&header), sizeof(header));
    packed_.append(payload);
    packed_.append(FrameBytes(payload.size()) - sizeof(header) - payload.size(), '\0');
    return packed_.size() >= kPackBytes ? FlushPack() : Status::Ok();
  }
  // VOIDs for what is missing up to `lsn`.
  Status FillTo(Lsn lsn) {
    FrameHeader header = {};
    header.type = static_cast<uint8_t>(FrameType::kVoid);
    header.shard = kBroadcastShard;
    while (last_lsn_ < lsn) {
      header.lsn = last_lsn_ + 1;
      TRY(Record(header, {}));
    }
    return Status::Ok();
  }
  // A frame of the writer. INDEX frames are made by the SegmentWriter itself, and ends by End.
  Status WritersFrame(FrameType type, std::string_view payload) {
    TRY(FlushPack());
    writer_->AddFrame(out_, type, last_lsn_, payload);
    return Status::Ok();
  }
  Status End(FrameType type, int64_t wall_ms) {
    TRY(FlushPack());
    writer_->AddEnd(out_, type, last_lsn_, wall_ms);
    return Status::Ok();
  }
  Status Finish() {
    TRY(FlushPack());
    TRY(Flush());
    return writer_->Sync();
  }

 private:
  explicit Rewriter(Tool& tool) : tool_(tool) {}
  Status FlushPack() {
    if (packed_records_ == 0) return Status::Ok();
    TRY(writer_->AddPack(out_, *codec_, packed_, packed_records_, packed_first_));
    packed_.clear();
    packed_records_ = 0;
    return out_.size() >= kWriteBytes ? Flush() : Status::Ok();
  }
  Status Flush() {
    TRY(writer_->Write(out_));
    out_.clear();
    return Status::Ok();
  }

  Tool& tool_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<SegmentWriter> writer_;
  std::string out_, packed_;
  uint32_t packed_records_ = 0;
  Lsn packed_first_ = 0, last_lsn_ = 0;
};

class Repair {
 public:
  explicit Repair(Tool& tool) : tool_(tool) {}
  int Run();

 private:
  Status CheckCheckpoints();
  Status FindDamage();
  Status RepairCheckpoints();
  Result<std::string> WriteBase(Lsn lsn);
  Status FillShards(const CheckpointInfo& info, std::map<uint16_t, Lsn> lost,
                    CheckpointWriter* writer, uint64_t* keys);
  Status LookBehindBase();
  Status RewriteSegments();
  Lsn LastNeeded(const SegmentInfo& segment, const Reader& reader) const;
  Status Rewrite(const SegmentInfo& segment, Reader& reader, Frame& frame, bool* more);
  Status KeepAside(const std::string& name);
  Status Remove(const std::string& name);
  Status Replace(const std::string& name);
  void Did(std::string what) { done_.push_back(std::move(what)); }
  std::string Path(const std::string& name) const { return request_.directory + "/" + name; }
  void Report(std::string_view verdict) const;

  Tool& tool_;
  const Request& request_ = tool_.request;
  OpenLog log_;
  std::string aside_;  // the directory for originals
  bool aside_made_ = false;
  std::vector<const CheckpointInfo*> damaged_checkpoints_;
  std::vector<std::string> unusable_;          // segments of which nothing can be read
  std::set<uint64_t> bad_;                     // segments to be written anew, by number
  std::map<uint64_t, Lsn> first_lsns_;         // of those that begin earlier then
  Lsn end_lsn_ = 0;                            // the log's, as far as it is known
  Lsn good_checkpoint_ = 0, needed_base_ = 0;  // records up to here are gone
  Lsn base_lsn_ = 0;                           // of the checkpoint that was written, 0 = none
  uint64_t lost_records_ = 0;
  std::set<std::pair<std::string, Lsn>> told_;  // places, and the last LSN that was lost there
  std::vector<std::string> found_, done_;
};

// Reads all of them; those that are damaged cannot be relied on.
Status Repair::CheckCheckpoints() {
  for (CheckpointInfo& checkpoint : log_.checkpoints) {
    if (checkpoint.problem.empty()) {
      auto reader = CheckpointReader::Open(tool_.disk, checkpoint.path, tool_.keys);
      if (!reader.ok() && reader.system_errno() == ENOKEY) return reader.TakeStatus();
      Progress progress(tool_.errors, tool_.interactive, checkpoint.name);
      const Status status =
          !reader.ok() ? reader.TakeStatus() : (*reader)->Verify([&](uint64_t done) {
            progress.Show(done, checkpoint.file_bytes);
          });
      checkpoint.problem = status.message();
    }
    if (checkpoint.problem.empty()) {
      good_checkpoint_ = std::max(good_checkpoint_, checkpoint.lsn);
    } else {
      damaged_checkpoints_.push_back(&checkpoint);
      found_.push_back("damaged checkpoint " + checkpoint.name + ": " + checkpoint.problem);
    }
  }
  return Status::Ok();
}

Status Repair::FindDamage() {
  log_.reader = TRY(Reader::Open(tool_.disk, request_.directory,
                                 {.keys = tool_.keys, .checkpoint_lsn = good_checkpoint_}));
  Lsn missing_first = 0;  // before the next segment; 0 = nothing
  const SegmentInfo* seen = nullptr;
  const auto errors = WalkLog(tool_, log_, "read", [&](const Frame& frame, const Walk&) {
    const bool readable = frame.segment != nullptr && frame.segment->problem.empty();
    if (readable && frame.segment != seen) {
      if (missing_first != 0 && seen != nullptr) {
        bad_.insert(seen->number);
      } else if (missing_first != 0) {
        bad_.insert(frame.segment->number);
        first_lsns_[frame.segment->number] = missing_first;
      }
      missing_first = 0;
      seen = frame.segment;
    }
    if (frame.verdict != Verdict::kCorrupt && frame.verdict != Verdict::kMissing) return true;
    // A second look finds again what the first one did, and what had not counted then.
    const bool news = told_.emplace(Place(frame), frame.lost_last).second &&
                      (base_lsn_ == 0 || frame.lost_last > base_lsn_);
    if (news) found_.push_back(ProblemText(frame));
    if (readable) bad_.insert(frame.segment->number);
    if (frame.lost_first > frame.lost_last || frame.lost_last == kUnknownLsn) return true;
    if (news) lost_records_ += frame.lost_last - frame.lost_first + 1;
    end_lsn_ = std::max(end_lsn_, frame.lost_last);
    if (readable) return true;
    if (frame.lost_first == 1) {
      needed_base_ = frame.lost_last;  // the log's beginning, and no checkpoint has it
    } else if (missing_first == 0) {
      missing_first = frame.lost_first;
    }
    return true;
  });
  if (!errors.empty()) return Status::Error(errors.front());
  if (tool_.stopped()) return Status::Error("interrupted", EINTR);
  if (missing_first != 0 && seen != nullptr) bad_.insert(seen->number);
  for (const SegmentInfo& segment : log_.reader->segments()) {
    if (!segment.problem.empty()) unusable_.push_back(segment.name);
  }
  return Status::Ok();
}

// A second name in the directory for originals; a copy where that cannot be had.
Status Repair::KeepAside(const std::string& name) {
  if (!aside_made_) TRY(tool_.disk.CreateDirectories(aside_));
  aside_made_ = true;
  const std::string kept = aside_ + "/" + name;
  if (!tool_.disk.Link(Path(name), kept).ok()) {
    (void)TRY(CopyFile(tool_.disk, Path(name), kept, UINT64_MAX, {}));
  }
  return tool_.disk.SyncDirectory(aside_);
}

Status Repair::Remove(const std::string& name) {
  TRY(tool_.disk.Remove(Path(name)));
  return tool_.disk.SyncDirectory(request_.directory);
}

// The unfinished file becomes `name`.
Status Repair::Replace(const std::string& name) {
  TRY(KeepAside(name));
  TRY(tool_.disk.Rename(Path(kUnfinished), Path(name)));
  return tool_.disk.SyncDirectory(request_.directory);
}

// Shards that the damaged checkpoint at `info.lsn` has lost are made of what else there is, as a
// start under `salvage` does: each of the newest older checkpoint that has it (its LSN goes into
// `lost`), and of the records since.
Status Repair::FillShards(const CheckpointInfo& info, std::map<uint16_t, Lsn> lost,
                          CheckpointWriter* writer, uint64_t* keys) {
  std::map<uint16_t, ShardImage> images;
  Lsn first = kUnknownLsn;  // records above it are needed
  for (auto& [shard, since] : lost) {
    for (const CheckpointInfo& older : log_.checkpoints) {
      if (CheckpointLsn(older.name).value_or(0) >= info.lsn) continue;
      auto reader = CheckpointReader::Open(tool_.disk, older.path, tool_.keys);
      if (!reader.ok() || ShardingOf((*reader)->info()) != ShardingOf(info)) continue;
      ShardImage image;
      const Status given = (*reader)->ForEachChunk(
          shard, shard + 1,
          [&](uint16_t, std::string_view effects) { return image.Take(effects); });
      if (!given.ok()) continue;
      since = (*reader)->info().lsn;
      images[shard] = std::move(image);
      break;
    }
    first = std::min(first, since);
  }
  const auto take = [&](uint16_t shard, Lsn lsn, std::string_view effects) -> Status {
    for (const auto& [each, since] : lost) {
      if ((each != shard && shard != kBroadcastShard) || lsn <= since) continue;
      TRY(images[each].Take(effects));
    }
    return Status::Ok();
  };
  auto reader = TRY(Reader::Open(tool_.disk, request_.directory,
                                 {.keys = tool_.keys, .checkpoint_lsn = info.lsn}));
  std::vector<TxnPart> parts;
  for (Frame frame; TRY(reader->Next(&frame)) && !tool_.stopped();) {
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type) || frame.lsn <= first) continue;
    if (frame.lsn > info.lsn) break;
    const auto type = static_cast<FrameType>(frame.type);
    parts.clear();
    if (type == FrameType::kTxn && !ReadTxnDirectory(frame.payload, &parts)) continue;
    if (type == FrameType::kEffect || type == FrameType::kBroadcast) {
      parts.push_back({frame.shard, 0, static_cast<uint32_t>(frame.payload.size())});
    }
    if (!parts.empty() && ShardingOf(*frame.segment) != ShardingOf(info)) {
      return Status::Error(CheckpointName(info.lsn) +
                               " has lost shards, and the records before it number shards in "
                               "another way: start a server with wal-recovery salvage, which "
                               "makes them of the log, and let it BGSAVE",
                           ENOTSUP);
    }
    for (const TxnPart& part : parts) {
      TRY(take(part.shard, frame.lsn, frame.payload.substr(part.offset, part.size)));
    }
  }
  for (const auto& [shard, image] : images) {
    TRY(image.Give(kPackBytes, [&](std::string_view effects, uint64_t begun) {
      *keys += begun;
      return writer->Add(shard, effects, begun);
    }));
  }
  return Status::Ok();
}

// A checkpoint for records up to `lsn`, which are gone: of the shards that a damaged one still has.
// With an LSN of 0, for a gap, only where there are such shards: without it the log ends before the
// gap. Returns its name, "" = none.
Result<std::string> Repair::WriteBase(Lsn lsn) {
  std::unique_ptr<CheckpointReader> source;
  CheckpointInfo info;
  for (const CheckpointInfo* damaged : damaged_checkpoints_) {
    auto reader = CheckpointReader::Open(tool_.disk, damaged->path, tool_.keys);
    if (!reader.ok()) continue;
    source = std::move(reader).value();
    info = source->info();
    break;
  }
  if (source == nullptr && lsn == 0) return std::string();
  for (const SegmentInfo& segment : log_.reader->segments()) {
    if (source != nullptr || !segment.problem.empty()) continue;
    info.identity = segment.identity;
    info.shard_by_hashtag = segment.shard_by_hashtag;
    info.created_at_ms = segment.created_at_ms;
    info.compression = segment.compression;
    info.key_id = segment.key_id;
  }
  info.lsn = std::max(info.lsn, lsn);
  const auto keys = info.key_id != 0 ? tool_.keys : nullptr;
  auto writer =
      TRY(CheckpointWriter::Create(tool_.disk, request_.directory, info, info.compression, keys));
  uint64_t keys_kept = 0;
  std::map<uint16_t, Lsn> lost;
  for (uint32_t shard = 0; source != nullptr && shard < info.identity.shard_count; ++shard) {
    // All of a shard's chunks are checked before the first is given.
    bool begun = false;
    Status status = source->ForEachChunk(
        shard, shard + 1, [&](uint16_t of, std::string_view effects) -> Status {
          begun = true;
          uint64_t entries = 0;
          EffectView effect;
          for (std::string_view left = effects; !left.empty();) {
            TRY(ReadEffect(&left, &effect));
            entries += effect.id == static_cast<int>(EffectId::kSet);
          }
          keys_kept += entries;
          return writer->Add(of, effects, entries);
        });
    if (!status.ok() && begun) return status;
    if (!status.ok()) lost[static_cast<uint16_t>(shard)] = 0;
  }
  if (!lost.empty()) TRY(FillShards(info, lost, writer.get(), &keys_kept));
  if (tool_.stopped()) return Status::Error("interrupted", EINTR);
  TRY(writer->Finish());
  TRY(writer->Publish());
  base_lsn_ = info.lsn;
  Did("wrote " + CheckpointName(info.lsn) + " with " + std::to_string(keys_kept) + " keys" +
      (source == nullptr ? std::string(": nothing is left of the data before")
                         : "; " + std::to_string(lost.size()) + " of " +
                               std::to_string(info.identity.shard_count) +
                               " shards could not be read, and are what older files tell of them"));
  return CheckpointName(info.lsn);
}

Status Repair::RepairCheckpoints() {
  // Whether the data before the first record is to be had from a damaged one only.
  bool needed = needed_base_ > 0;
  for (const CheckpointInfo* damaged : damaged_checkpoints_) {
    for (const SegmentInfo& segment : log_.reader->segments()) {
      needed |= segment.gap_damaged || (segment.gap_void && damaged->lsn + 1 >= segment.first_lsn);
    }
    TRY(KeepAside(damaged->name));
  }
  // It may have the name of the damaged one, and replaces it then.
  const std::string base = needed ? TRY(WriteBase(needed_base_)) : std::string();
  for (const CheckpointInfo* damaged : damaged_checkpoints_) {
    if (damaged->name != base) TRY(Remove(damaged->name));
    Did("moved " + damaged->name + " aside");
  }
  return Status::Ok();
}

// With the new checkpoint records may count that did not before.
Status Repair::LookBehindBase() {
  if (base_lsn_ == 0) return Status::Ok();
  log_ = TRY(OpenTheLog(tool_));
  good_checkpoint_ = std::max(good_checkpoint_, base_lsn_);
  damaged_checkpoints_.clear();  // the list they stand in is gone
  unusable_.clear();
  bad_.clear();
  first_lsns_.clear();
  needed_base_ = 0;
  return FindDamage();
}

// The last LSN that must stand in a segment, or in those before it.
Lsn Repair::LastNeeded(const SegmentInfo& segment, const Reader& reader) const {
  for (const SegmentInfo& later : reader.segments()) {
    if (later.number <= segment.number || !later.problem.empty()) continue;
    if (later.first_lsn >= later.end_lsn) continue;
    return later.after_gap ? std::min(later.durable_lsn, later.first_lsn - 1) : later.first_lsn - 1;
  }
  return end_lsn_;
}

// Writes the segment of `frame` anew. Afterwards `frame` is the first one of another segment.
Status Repair::Rewrite(const SegmentInfo& segment, Reader& reader, Frame& frame, bool* more) {
  const auto begins_earlier = first_lsns_.find(segment.number);
  const Lsn first =
      begins_earlier == first_lsns_.end() ? segment.first_lsn : begins_earlier->second;
  (void)tool_.disk.Remove(Path(kUnfinished));
  auto rewriter = TRY(Rewriter::Create(tool_, segment, first, Path(kUnfinished)));
  TRY(rewriter->FillTo(segment.first_lsn - 1));
  uint64_t end_ms = 0;
  FrameType end = FrameType::kNone;
  for (; *more && frame.segment == &segment; *more = TRY(reader.Next(&frame))) {
    if (frame.verdict != Verdict::kGood) continue;
    const auto type = static_cast<FrameType>(frame.type);
    if (IsRecord(frame.type)) {
      FrameHeader header = {};
      header.lsn = frame.lsn;
      header.type = frame.type;
      header.flags = frame.flags;
      header.shard = frame.shard;
      TRY(rewriter->FillTo(frame.lsn - 1));
      TRY(rewriter->Record(header, frame.payload));
    } else if (type == FrameType::kGap || type == FrameType::kBatch) {
      TRY(rewriter->WritersFrame(type, frame.payload));
    } else if (type == FrameType::kSeal || type == FrameType::kStop) {
      end = type;
      std::memcpy(&end_ms, frame.payload.data(), std::min(sizeof(end_ms), frame.payload.size()));
    }
  }
  if (segment.first_lsn < segment.end_lsn) TRY(rewriter->FillTo(LastNeeded(segment, reader)));
  // What was complete and is whole again ends as it did; a torn end stays an open one.
  if (end != FrameType::kNone) TRY(rewriter->End(end, static_cast<int64_t>(end_ms)));
  TRY(rewriter->Finish());
  rewriter = nullptr;
  TRY(Replace(segment.name));
  Did("wrote " + segment.name + " anew");
  return Status::Ok();
}

Status Repair::RewriteSegments() {
  if (bad_.empty()) return Status::Ok();
  uint64_t bytes = 0;
  for (const SegmentInfo& segment : log_.reader->segments()) {
    if (bad_.contains(segment.number)) bytes = std::max(bytes, segment.file_bytes);
  }
  bytes += lost_records_ * FrameBytes(0);
  if (TRY(tool_.disk.FreeBytes(request_.directory)) < bytes) {
    return Status::Error("the repair needs " + FormatBytes(bytes) + " of free space", ENOSPC);
  }
  // The same walk as before, over the same files.
  auto reader = TRY(Reader::Open(tool_.disk, request_.directory,
                                 {.keys = tool_.keys, .checkpoint_lsn = good_checkpoint_}));
  Frame frame;
  bool more = TRY(reader->Next(&frame));
  while (more) {
    const SegmentInfo* const segment = frame.segment;
    if (segment != nullptr && segment->problem.empty() && bad_.contains(segment->number)) {
      TRY(Rewrite(*segment, *reader, frame, &more));
      continue;
    }
    more = TRY(reader->Next(&frame));
  }
  return Status::Ok();
}

void Repair::Report(std::string_view verdict) const {
  if (request_.json) {
    const auto list = [](const std::vector<std::string>& lines) {
      std::vector<std::string> values;
      for (const std::string& line : lines) {
        values.emplace_back();
        AppendJson(&values.back(), line);
      }
      return JsonArray(values);
    };
    JsonObject json;
    json.Text("verdict", verdict).Number("lost_records", lost_records_);
    json.Text("originals", aside_made_ ? aside_ : "").Raw("found", list(found_));
    tool_.out << json.Raw("done", list(done_)).text() << "\n";
    return;
  }
  for (const std::string& line : found_) tool_.out << "found: " << line << "\n";
  for (const std::string& line : done_) tool_.out << "did: " << line << "\n";
  tool_.out << verdict;
  if (lost_records_ > 0) tool_.out << "; " << lost_records_ << " records are lost";
  if (aside_made_) tool_.out << "; the originals are in " << aside_;
  tool_.out << "\n";
}

int Repair::Run() {
  // First: the lock would make a directory's file where there is no log.
  auto log = OpenTheLog(tool_);
  if (!log.ok()) return tool_.Fail(log.message());
  std::unique_ptr<DirectoryLock> lock;
  if (!request_.dry_run) {
    auto locked = tool_.disk.Lock(request_.directory);
    if (!locked.ok() && locked.system_errno() == EWOULDBLOCK) {
      return tool_.Fail("a server holds " + request_.directory +
                        ": stop it first, for it writes to what would be repaired");
    }
    if (!locked.ok()) return tool_.Fail(locked.message());
    lock = std::move(locked).value();
    log = OpenTheLog(tool_);  // as nobody changes it any more
    if (!log.ok()) return tool_.Fail(log.message());
  }
  log_ = std::move(log).value();
  std::string time = FormatTime(RealClock().WallMs());
  std::erase_if(time, [](char c) { return c == ':' || c == '-' || c == '.'; });
  aside_ = Path("repair-" + time);
  for (int i = 2; tool_.disk.List(aside_).ok(); ++i) {
    aside_ = Path("repair-" + time + "-" + std::to_string(i));
  }
  const auto look = [&]() -> Status {
    TRY(CheckCheckpoints());
    return FindDamage();
  };
  if (Status status = look(); !status.ok()) return tool_.Fail(status.message());
  if (found_.empty() && unusable_.empty()) {
    Report("nothing is to be repaired");
    return kToolGood;
  }
  for (const std::string& name : unusable_) {
    found_.push_back(name + " cannot be used");
  }
  if (request_.dry_run) {
    Report("nothing was changed");
    return kToolCorruption;
  }
  const auto mend = [&]() -> Status {
    TRY(RepairCheckpoints());
    TRY(LookBehindBase());
    TRY(RewriteSegments());
    for (const std::string& name : unusable_) {
      TRY(KeepAside(name));
      TRY(Remove(name));
      Did("moved " + name + " aside");
    }
    return Status::Ok();
  };
  if (Status status = mend(); !status.ok()) {
    (void)tool_.disk.Remove(Path(kUnfinished));
    Report("not finished");
    const bool helps = status.system_errno() != ENOTSUP;
    return tool_.Fail(std::string(status.message()) + (helps ? "; run it again" : ""));
  }
  Report("repaired");
  return kToolGood;
}

}  // namespace

int RunRepair(Tool& tool) { return Repair(tool).Run(); }

}  // namespace crab::wal

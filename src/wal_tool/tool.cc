#include "src/wal_tool/tool.h"

#include <algorithm>
#include <cerrno>
#include <utility>

namespace crab::wal {
namespace {

// A server retires a few files per checkpoint, and to open a log takes milliseconds.
constexpr int kTriesMax = 20;

// Files of another log get here by somebody's hand, and count for nothing. Where no segment can be
// read nobody knows whose directory it is.
bool IsForeign(const Reader& reader, const CheckpointInfo& checkpoint) {
  return checkpoint.problem.empty() && reader.log_id() != 0 &&
         checkpoint.identity.log_id != reader.log_id();
}

// What is missing because a server has retired it during the walk is not lost: a checkpoint has it,
// perhaps one that the walk does not know.
void SpareRetired(Tool& tool, const OpenLog& log, Frame* frame, Walk* walk) {
  if (frame->segment != nullptr && !IsRetired(tool, frame->segment->path)) return;
  // Of those that the walk does know it may have been found that they are damaged.
  const auto known = [&](const CheckpointInfo& checkpoint) {
    return std::any_of(log.checkpoints.begin(), log.checkpoints.end(),
                       [&](const CheckpointInfo& old) { return old.name == checkpoint.name; });
  };
  Lsn newest = log.base();
  if (const auto checkpoints = ListCheckpoints(tool.disk, tool.request.directory);
      checkpoints.ok()) {
    for (const CheckpointInfo& checkpoint : *checkpoints) {
      if (!checkpoint.problem.empty() || known(checkpoint)) continue;
      if (IsForeign(*log.reader, checkpoint)) continue;
      newest = std::max(newest, checkpoint.lsn);
    }
  }
  const Lsn last = std::min(frame->lost_last, newest);
  if (frame->lost_first <= last) {
    walk->retired_first = frame->lost_first;
    walk->retired_last = last;
  }
  // Where nobody knows the last one, the segment's records were below the checkpoint all the same.
  const bool all = frame->lost_last == kUnknownLsn
                       ? walk->retired_last != 0
                       : frame->lost_last <= newest || frame->lost_last < frame->lost_first;
  walk->lost = !all;
  frame->lost_first = std::max(frame->lost_first, newest + 1);
}

}  // namespace

Lsn OpenLog::base() const {
  for (const CheckpointInfo& checkpoint : checkpoints) {
    if (checkpoint.problem.empty()) return checkpoint.lsn;
  }
  return 0;
}

uint64_t OpenLog::total_bytes() const {
  uint64_t bytes = 0;
  for (const SegmentInfo& segment : reader->segments()) bytes += segment.file_bytes;
  return bytes;
}

Result<OpenLog> OpenTheLog(Tool& tool) {
  const std::string& directory = tool.request.directory;
  for (int tries = 1;; ++tries) {
    OpenLog log;
    log.checkpoints = TRY(ListCheckpoints(tool.disk, directory));
    ReaderOptions options;
    options.keys = tool.keys;
    log.reader = TRY(Reader::Open(tool.disk, directory, options));
    const auto& segments = log.reader->segments();
    if (segments.empty()) {
      return Status::Error("there is no log in " + directory + ": it holds no segment");
    }
    // The reader has looked for checkpoints of its own, and both must know the same.
    OpenLog now;
    now.checkpoints = TRY(ListCheckpoints(tool.disk, directory));
    const bool moved =
        now.base() != log.base() ||
        std::any_of(segments.begin(), segments.end(),
                    [&](const SegmentInfo& segment) { return IsRetired(tool, segment.path); });
    if (moved && tries < kTriesMax) continue;
    std::erase_if(log.checkpoints, [&](const CheckpointInfo& checkpoint) {
      if (!IsForeign(*log.reader, checkpoint)) return false;
      tool.errors << "warning: " << checkpoint.name << " is of another log and was not used\n";
      return true;
    });
    return log;
  }
}

bool IsRetired(Tool& tool, const std::string& path) {
  return tool.disk.Open(path, OpenMode::kRead).system_errno() == ENOENT;
}

void NoteWallTime(uint8_t type, std::string_view payload, int64_t* wall_ms) {
  if (type == static_cast<uint8_t>(FrameType::kBatch) && payload.size() >= sizeof(BatchPayload)) {
    BatchPayload batch;
    std::memcpy(&batch, payload.data(), sizeof(batch));
    *wall_ms = static_cast<int64_t>(batch.wall_ms);
  }
}

std::vector<std::string> WalkLog(Tool& tool, OpenLog& log, std::string_view progress_title,
                                 const std::function<bool(const Frame&, const Walk&)>& visit) {
  Reader& reader = *log.reader;
  std::vector<std::string> errors;
  Progress progress(tool.errors, tool.interactive, progress_title);
  const uint64_t total = log.total_bytes();
  const Lsn base = log.base();
  const SegmentInfo* segment = nullptr;
  uint64_t before = 0;  // bytes of the segments before this one
  Walk walk;
  bool any_record = false;
  // Each lack of a key gives up one segment, so more of them would mean that nothing moves.
  while (errors.size() <= reader.segments().size() && !tool.stopped()) {
    Frame frame;
    Result<bool> more = reader.Next(&frame);
    if (!more.ok()) {
      errors.emplace_back(more.message());
      if (more.system_errno() != ENOKEY) break;  // the next call would try the same again
      continue;
    }
    if (!*more) break;
    if (frame.segment != nullptr) {
      if (frame.segment != segment) {
        if (segment != nullptr) before += segment->file_bytes;
        segment = frame.segment;
        walk.wall_ms = segment->created_at_ms;
      }
      progress.Show(before + frame.offset, total);
    }
    walk.lost = frame.verdict == Verdict::kCorrupt || frame.verdict == Verdict::kMissing;
    // What was retired because a checkpoint has it is not lost.
    if (frame.verdict == Verdict::kMissing && !any_record && base > 0) {
      frame.lost_first = std::max(frame.lost_first, base + 1);
      if (frame.lost_last < frame.lost_first) walk.lost = false;
    }
    walk.retired_first = walk.retired_last = 0;
    if (walk.lost) SpareRetired(tool, log, &frame, &walk);
    if (frame.verdict == Verdict::kGood) {
      NoteWallTime(frame.type, frame.payload, &walk.wall_ms);
      any_record |= IsRecord(frame.type);
    }
    if (!visit(frame, walk)) break;
  }
  return errors;
}

Result<std::vector<EffectView>> ReadEffects(uint8_t type, std::string_view payload) {
  std::string_view bytes = payload;
  if (static_cast<FrameType>(type) == FrameType::kTxn) bytes = TRY(TransactionEffects(payload));
  std::vector<EffectView> effects;
  while (!bytes.empty()) {
    effects.emplace_back();
    TRY(ReadEffect(&bytes, &effects.back()));
  }
  return effects;
}

std::string Place(const Frame& frame) {
  if (frame.segment == nullptr) return "between segments";
  return frame.segment->name + " bytes " + std::to_string(frame.offset) + ".." +
         std::to_string(frame.offset + frame.bytes);
}

std::string ProblemText(const Frame& frame) {
  std::string text = frame.verdict == Verdict::kTorn
                         ? "torn tail: "
                         : "lost " + LsnRange(frame.lost_first, frame.lost_last) + ": ";
  return text + Place(frame) + ": " + frame.reason;
}

std::string ProblemJson(const Frame& frame) {
  JsonObject json;
  json.Number("first", frame.lost_first);
  if (frame.lost_last == kUnknownLsn) {
    json.Null("last");
  } else {
    json.Number("last", frame.lost_last);
  }
  return json.Text("segment", frame.segment == nullptr ? "" : frame.segment->name)
      .Number("offset", frame.offset)
      .Number("bytes", frame.bytes)
      .Text("reason", frame.reason)
      .text();
}

std::string RecordJson(const Frame& frame, int64_t wall_ms) {
  JsonObject json;
  json.Number("lsn", frame.lsn).Text("type", FrameTypeName(frame.type));
  if (frame.shard == kBroadcastShard) {
    json.Null("shard");
  } else {
    json.Number("shard", frame.shard);
  }
  if (wall_ms != 0) json.Number("time_ms", static_cast<uint64_t>(wall_ms));
  const auto type = static_cast<FrameType>(frame.type);
  if (type == FrameType::kVoid) return json.text();
  if (type == FrameType::kPolicy) return json.Text("policy", PolicyText(frame.payload)).text();
  auto effects = ReadEffects(frame.type, frame.payload);
  if (!effects.ok()) {
    return json.Text("payload", frame.payload).Text("problem", effects.message()).text();
  }
  std::vector<std::string> list;
  for (const EffectView& effect : *effects) {
    std::vector<std::string> words(1);
    AppendJson(&words[0], EffectName(effect.id));
    for (const std::string_view argument : effect.arguments) {
      words.emplace_back();
      AppendJson(&words.back(), argument);
    }
    list.push_back(JsonObject().Number("db", effect.db).Raw("words", JsonArray(words)).text());
  }
  return json.Raw("effects", JsonArray(list)).text();
}

int Finish(Tool& tool, const Reader& reader, const std::vector<std::string>& disk_errors,
           bool lost) {
  for (const std::string& warning : reader.warnings())
    tool.errors << "warning: " << warning << "\n";
  for (const std::string& error : disk_errors) tool.errors << "error: " << error << "\n";
  if (!disk_errors.empty()) return kToolUnusable;
  return lost ? kToolCorruption : kToolGood;
}

}  // namespace crab::wal

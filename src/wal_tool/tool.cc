#include "src/wal_tool/tool.h"

#include <algorithm>
#include <utility>

namespace crab::wal {
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
  OpenLog log;
  log.checkpoints = TRY(ListCheckpoints(tool.disk, directory));
  ReaderOptions options;
  options.keys = tool.keys;
  log.reader = TRY(Reader::Open(tool.disk, directory, options));
  if (log.reader->segments().empty()) {
    return Status::Error("there is no log in " + directory + ": it holds no segment");
  }
  return log;
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
  // Each error gives up one segment, so more of them would mean that nothing moves.
  while (errors.size() <= reader.segments().size() && !tool.stopped()) {
    Frame frame;
    Result<bool> more = reader.Next(&frame);
    if (!more.ok()) {
      errors.emplace_back(more.message());
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

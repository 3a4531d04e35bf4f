// crabcache-wal dump
//
// --resp holds deadlines back until all else has been told. The log says when a key was removed, so
// replaying it needs no clock; but a server that takes the commands has one. It would drop a key
// whose deadline has passed as soon as it gets it, and the next APPEND or INCRBY of the log would
// make it anew, with a part of its value and for ever.
#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "src/wal_tool/tool.h"
#include "utils/number.h"

namespace crab::wal {
namespace {

// Above this what ran atomically is an image of all data, and a client's queue is no place for it.
constexpr size_t kMultiBytesMax = 64 << 20;

// Which keys have a deadline after the effects so far. Holds each of these keys.
class Deadlines {
 public:
  using OfDatabase = std::unordered_map<std::string, std::string>;  // decimal milliseconds

  // Notes what `effect` does to deadlines and takes those out of it. False: nothing is left of it.
  bool HoldBack(EffectView* effect) {
    std::vector<std::string_view>& words = effect->arguments;
    OfDatabase& keys = databases_[effect->db];
    switch (static_cast<EffectId>(effect->id)) {
      case EffectId::kSet:
        if (words.size() >= 4 && words[2] == "PXAT") {
          keys.insert_or_assign(std::string(words[0]), words[3]);
          words.erase(words.begin() + 2, words.begin() + 4);
        } else if (words.size() == 2) {
          keys.erase(std::string(words[0]));
        }  // else KEEPTTL
        return true;
      case EffectId::kPexpireat:
        keys.insert_or_assign(std::string(words[0]), words[1]);
        return false;
      case EffectId::kDel:
        for (const std::string_view key : words) keys.erase(std::string(key));
        return true;
      case EffectId::kPersist:
        keys.erase(std::string(words[0]));
        return true;
      case EffectId::kMove:
        if (auto moved = keys.extract(std::string(words[0])); !moved.empty()) {
          databases_[Database(words[1])].insert(std::move(moved));
        }
        return true;
      case EffectId::kFlushdb:
        keys.clear();
        return true;
      case EffectId::kFlushall:
        databases_.clear();
        return true;
      case EffectId::kSwapdb:
        std::swap(databases_[Database(words[0])], databases_[Database(words[1])]);
        return true;
      case EffectId::kAppend:
      case EffectId::kSetrange:
      case EffectId::kIncrby:
        return true;
    }
    return true;
  }
  const std::map<uint32_t, OfDatabase>& databases() const { return databases_; }

 private:
  static uint32_t Database(std::string_view word) {
    int64_t db = 0;
    return ParseInt64(word, &db) ? static_cast<uint32_t>(db) : 0;
  }

  std::map<uint32_t, OfDatabase> databases_;
};

// Prints effects as the commands that make them.
class RespPrinter {
 public:
  explicit RespPrinter(std::ostream& out) : out_(out) {}

  void Print(std::vector<EffectView> all, size_t bytes) {
    std::vector<EffectView> effects;
    for (EffectView& effect : all) {
      if (deadlines_.HoldBack(&effect)) effects.push_back(std::move(effect));
    }
    const bool multi = bytes <= kMultiBytesMax && TouchesSeveralKeys(effects);
    if (multi) Command({"MULTI"});
    for (const EffectView& effect : effects) {
      Select(effect.db);
      std::vector<std::string_view> words = {EffectName(effect.id)};
      words.insert(words.end(), effect.arguments.begin(), effect.arguments.end());
      Command(words);
    }
    if (multi) Command({"EXEC"});
  }
  // What has been held back.
  void PrintDeadlines() {
    for (const auto& [db, keys] : deadlines_.databases()) {
      for (const auto& [key, deadline_ms] : keys) {
        Select(db);
        Command({"PEXPIREAT", key, deadline_ms});
      }
    }
  }

 private:
  void Select(uint32_t db) {
    if (db == db_) return;
    Command({"SELECT", std::to_string(db)});
    db_ = db;
  }
  // Parts of one value follow one another and need no transaction.
  static bool TouchesSeveralKeys(const std::vector<EffectView>& effects) {
    for (const EffectView& effect : effects) {
      const EffectView& first = effects.front();
      const bool same = effect.db == first.db && !effect.arguments.empty() &&
                        !first.arguments.empty() &&
                        effect.arguments.front() == first.arguments.front();
      if (!same && &effect != &first) return true;
    }
    return false;
  }
  void Command(const std::vector<std::string_view>& words) {
    out_ << "*" << words.size() << "\r\n";
    for (const std::string_view word : words) {
      out_ << "$" << word.size() << "\r\n" << word << "\r\n";
    }
  }
  void Command(std::initializer_list<std::string> words) {
    Command(std::vector<std::string_view>(words.begin(), words.end()));
  }

  std::ostream& out_;
  uint32_t db_ = 0;  // of a connection that has just been made
  Deadlines deadlines_;
};

std::string EffectsText(const std::vector<EffectView>& effects) {
  std::string text;
  for (const EffectView& effect : effects) {
    if (!text.empty()) text += " ; ";
    text += "[" + std::to_string(effect.db) + "] ";
    text += EffectName(effect.id);
    for (const std::string_view argument : effect.arguments) {
      text += " ";
      AppendQuoted(&text, argument);
    }
  }
  return text;
}

std::string RecordText(const Frame& frame, const Result<std::vector<EffectView>>& effects) {
  std::string line = std::to_string(frame.lsn) + " " + FrameTypeName(frame.type) + " " +
                     (frame.shard == kBroadcastShard ? "*" : std::to_string(frame.shard));
  const auto type = static_cast<FrameType>(frame.type);
  if (type == FrameType::kVoid) return line;
  if (type == FrameType::kPolicy) return line + " " + PolicyText(frame.payload);
  if (effects.ok()) return line + " " + EffectsText(*effects);
  line += " ? ";
  AppendQuoted(&line, frame.payload);
  return line + " (" + std::string(effects.message()) + ")";
}

class Dump {
 public:
  explicit Dump(Tool& tool) : tool_(tool), resp_(tool.out) {}
  int Run();

 private:
  Status PrintCheckpoint(const CheckpointInfo& info);
  Status BeginWithCheckpoint(OpenLog* log);
  void PrintRecord(const Frame& frame, int64_t wall_ms);

  Tool& tool_;
  const Request& request_ = tool_.request;
  RespPrinter resp_;
  Lsn from_ = 0;
  bool older_ = false;       // it begins with an older checkpoint than the newest one
  bool unreadable_ = false;  // a record that checks and is no effect: not as a command
};

// Each key is an effect of a chunk; a large one several.
Status Dump::PrintCheckpoint(const CheckpointInfo& info) {
  auto reader = TRY(CheckpointReader::Open(tool_.disk, info.path, tool_.keys));
  Progress progress(tool_.errors, tool_.interactive, info.name);
  uint64_t done = 0;
  const auto print = [&](uint16_t shard, std::string_view chunk) -> Status {
    progress.Show(done += chunk.size(), info.plain_bytes);
    while (!chunk.empty()) {
      if (tool_.stopped()) return Status::Error("interrupted");
      const std::string_view whole = chunk;
      EffectView effect;
      TRY(ReadEffect(&chunk, &effect));
      if (request_.resp) {
        resp_.Print({std::move(effect)}, whole.size());
        continue;
      }
      if (!request_.json) {
        tool_.out << info.lsn << " checkpoint " << shard << " " << EffectsText({effect}) << "\n";
        continue;
      }
      Frame frame;
      frame.lsn = info.lsn;
      frame.type = static_cast<uint8_t>(FrameType::kEffect);
      frame.shard = shard;
      frame.payload = whole.substr(0, whole.size() - chunk.size());
      std::string line = RecordJson(frame, info.created_at_ms);
      const std::string_view kType = "\"type\":\"effect\"";
      line.replace(line.find(kType), kType.size(), "\"type\":\"checkpoint\"");
      tool_.out << line << "\n";
    }
    return Status::Ok();
  };
  return reader->ForEachChunk(0, info.identity.shard_count, print);
}

void Dump::PrintRecord(const Frame& frame, int64_t wall_ms) {
  if (request_.json) {
    tool_.out << RecordJson(frame, wall_ms) << "\n";
    return;
  }
  const auto type = static_cast<FrameType>(frame.type);
  const bool has_effects =
      type == FrameType::kEffect || type == FrameType::kTxn || type == FrameType::kBroadcast;
  auto effects = ReadEffects(frame.type, frame.payload);
  if (!request_.resp) {
    tool_.out << RecordText(frame, effects) << "\n";
  } else if (has_effects && effects.ok()) {
    resp_.Print(std::move(*effects), frame.payload.size());
  } else if (has_effects) {
    tool_.errors << "LSN " << frame.lsn << " is no command: " << effects.message() << "\n";
    unreadable_ = true;
  }
}

// The data at the newest checkpoint that is not behind the end that was asked for. What is missing
// since then is no loss to a restart, which has newer ones, but the dump would not be what it says.
Status Dump::BeginWithCheckpoint(OpenLog* log) {
  const Lsn to = request_.to.value_or(~Lsn{0});
  const Lsn newest = log->base();
  const auto suits = [&](const CheckpointInfo& checkpoint) {
    const bool late = request_.to_ms && checkpoint.created_at_ms > *request_.to_ms;
    return checkpoint.problem.empty() && checkpoint.lsn <= to && !late;
  };
  auto& checkpoints = log->checkpoints;
  checkpoints.erase(checkpoints.begin(),
                    std::find_if(checkpoints.begin(), checkpoints.end(), suits));
  older_ = log->base() != newest;
  if (older_) {
    log->reader = TRY(Reader::Open(tool_.disk, request_.directory,
                                   {.keys = tool_.keys, .checkpoint_lsn = log->base()}));
    for (const SegmentInfo& segment : log->reader->segments()) {
      const bool late = request_.to_ms && segment.created_at_ms > *request_.to_ms;
      if (!segment.gap_void || segment.first_lsn > to || late) continue;
      return Status::Error("logging had been off before LSN " + std::to_string(segment.first_lsn) +
                           ", and the end that was asked for lies before the first checkpoint "
                           "after that: dump to a point before it, or at or behind a checkpoint");
    }
  }
  if (checkpoints.empty()) return Status::Ok();
  const CheckpointInfo& chosen = checkpoints.front();
  if (Status status = PrintCheckpoint(chosen); !status.ok()) {
    return Status::Error(chosen.name + ": " + std::string(status.message()) +
                         "; --from 1 dumps the records alone");
  }
  from_ = chosen.lsn + 1;
  return Status::Ok();
}

int Dump::Run() {
  auto log = OpenTheLog(tool_);
  if (!log.ok()) return tool_.Fail(log.message());
  const Lsn to = request_.to.value_or(~Lsn{0});
  from_ = request_.from.value_or(0);
  if (!request_.from && !request_.from_ms) {
    if (Status status = BeginWithCheckpoint(&*log); !status.ok()) {
      return tool_.Fail(status.message());
    }
  }
  bool lost = false;
  bool reached = false;  // the end that was asked for
  std::string retired;
  const auto disk_errors = WalkLog(tool_, *log, "dump", [&](const Frame& frame, const Walk& walk) {
    if (walk.retired_last >= std::max<Lsn>(from_, 1) && walk.retired_first <= to) {
      retired = LsnRange(walk.retired_first, walk.retired_last);
      return false;
    }
    if (walk.lost || frame.verdict == Verdict::kTorn) {
      lost |= walk.lost;
      tool_.errors << ProblemText(frame) << "\n";
      return true;
    }
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type)) return true;
    if (frame.lsn > to) {
      reached = true;
      return false;
    }
    if (frame.lsn < from_) return true;
    if (request_.from_ms && walk.wall_ms < *request_.from_ms) return true;
    if (request_.to_ms && walk.wall_ms > *request_.to_ms) return true;
    PrintRecord(frame, walk.wall_ms);
    return tool_.out.good();
  });
  if (tool_.stopped()) return tool_.Fail("interrupted");
  // Filled with zeroes, the last segment seems to end before its time.
  if (!reached && retired.empty() && IsRetired(tool_, log->reader->segments().back().path)) {
    retired = log->reader->segments().back().name;
  }
  if (!retired.empty()) {
    return tool_.Fail(older_ ? retired + " are in a newer checkpoint alone: dump to another point"
                             : "the server retired " + retired + " meanwhile; dump again");
  }
  if (request_.resp) resp_.PrintDeadlines();
  tool_.out.flush();
  if (!tool_.out.good()) return tool_.Fail("cannot write the answer");
  return Finish(tool_, *log->reader, disk_errors, lost || unreadable_);
}

}  // namespace

int RunDump(Tool& tool) { return Dump(tool).Run(); }

}  // namespace crab::wal

// crabcache-wal restore: a new directory that holds the log up to one point.
//
// What stands behind the point in the last segment is cut off, and a segment of a new epoch whose
// first LSN is the one behind the point is put after it: by the rules of the format (FORMAT.md,
// epochs) nothing above the point counts then, whatever a PACK that the point lies in may hold.
// It has a replication id of its own, because from the point on history is another one.
#include <algorithm>
#include <cerrno>
#include <optional>

#include "persistence/backup.h"
#include "persistence/segment.h"
#include "src/wal_tool/tool.h"
#include "utils/clock.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

class Restore {
 public:
  explicit Restore(Tool& tool) : tool_(tool) {}
  int Run();

 private:
  // A server retires a few files per checkpoint; one that gets ahead of so many copies always will.
  static constexpr int kTriesMax = 20;

  // What goes into the new directory.
  struct Plan {
    Lsn point = 0;  // the last record's LSN
    const CheckpointInfo* checkpoint = nullptr;
    std::vector<SegmentInfo> segments;
    uint64_t last_bytes = 0;  // of the last of them
    SegmentInfo model;        // a segment to take the identity from
    int64_t wall_ms = 0;      // of the point
  };

  Result<Plan> Try();
  bool HasMoved();
  Status FindPoint(Lsn* point);
  Result<Plan> PlanFrom(const CheckpointInfo* checkpoint, Lsn point);
  Result<Plan> MakePlan();
  Status IsGood(const CheckpointInfo& checkpoint);
  Status Write(const Plan& plan);
  Status WriteNewEpoch(const Plan& plan);
  Status Copy(const std::string& path, uint64_t bytes);
  std::string Target(const std::string& name) const { return request_.target + "/" + name; }
  void Report(const Plan& plan) const;

  Tool& tool_;
  const Request& request_ = tool_.request;
  OpenLog log_;
  std::vector<std::string> made_;
  uint64_t done_ = 0, total_ = 0;
  std::optional<Progress> progress_;
};

// The last record that the request asks for.
Status Restore::FindPoint(Lsn* point) {
  *point = log_.base();
  if (request_.until_ms && log_.base() > 0) *point = 0;
  bool over = false;
  Lsn first = 0, last = 0;
  const auto errors = WalkLog(tool_, log_, "search", [&](const Frame& frame, const Walk& walk) {
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type)) return true;
    if (first == 0) first = frame.lsn;
    last = frame.lsn;
    over = (request_.until_lsn && frame.lsn > *request_.until_lsn) ||
           (request_.until_ms && walk.wall_ms > *request_.until_ms);
    if (!over) *point = frame.lsn;
    return !over;
  });
  if (!errors.empty()) return Status::Error(errors.front());
  if (request_.until_ms && *point == 0) {  // before the first record that is still there
    for (const CheckpointInfo& checkpoint : log_.checkpoints) {
      if (!checkpoint.problem.empty() || checkpoint.created_at_ms > *request_.until_ms) continue;
      if (first == 0 || checkpoint.lsn < first) *point = std::max(*point, checkpoint.lsn);
    }
  }
  if (request_.until_lsn) {
    last = std::max(last, log_.base());
    if (*request_.until_lsn > last) {
      return Status::Error("the log ends with LSN " + std::to_string(last) + ", before LSN " +
                           std::to_string(*request_.until_lsn));
    }
    *point = *request_.until_lsn;
  }
  return Status::Ok();
}

Status Restore::IsGood(const CheckpointInfo& checkpoint) {
  if (!checkpoint.problem.empty()) return Status::Error(checkpoint.problem);
  auto reader = TRY(CheckpointReader::Open(tool_.disk, checkpoint.path, tool_.keys));
  Progress progress(tool_.errors, tool_.interactive, checkpoint.name);
  return reader->Verify([&](uint64_t done) { progress.Show(done, checkpoint.file_bytes); });
}

// What is to be copied when the data of `checkpoint` (null: none) comes first. An error says why
// the point cannot be reached from there.
Result<Restore::Plan> Restore::PlanFrom(const CheckpointInfo* checkpoint, Lsn point) {
  Plan plan;
  plan.checkpoint = checkpoint;
  const Lsn base = checkpoint == nullptr ? 0 : checkpoint->lsn;
  OpenLog log;
  log.reader = TRY(Reader::Open(tool_.disk, request_.directory,
                                {.keys = tool_.keys, .checkpoint_lsn = base, .for_restart = true}));
  plan.point = base;
  std::string problem;
  const SegmentInfo* last = nullptr;
  std::vector<const SegmentInfo*> seen;
  const auto errors = WalkLog(tool_, log, "read", [&](const Frame& frame, const Walk& walk) {
    if (walk.lost && frame.lost_first <= point) {
      problem = ProblemText(frame);
      return false;
    }
    if (walk.retired_last > base && walk.retired_first <= point) {
      problem = "the server retired " + LsnRange(walk.retired_first, walk.retired_last);
      return false;
    }
    if (frame.verdict != Verdict::kGood) return true;
    if (seen.empty() || seen.back() != frame.segment) seen.push_back(frame.segment);
    if (!IsRecord(frame.type)) return frame.lsn <= point;
    if (frame.lsn > point) return false;
    if (frame.segment != last) plan.last_bytes = 0;
    last = frame.segment;
    plan.last_bytes = std::max(plan.last_bytes, frame.offset + frame.bytes);
    plan.point = std::max(plan.point, frame.lsn);
    plan.wall_ms = walk.wall_ms;
    return true;
  });
  if (!errors.empty()) return Status::Error(errors.front());
  if (!problem.empty()) {
    return Status::Error("the log is damaged below the point: " + problem + "; --until-lsn " +
                         std::to_string(plan.point) +
                         " ends before it, and `crabcache-wal repair` goes on behind it");
  }
  for (const SegmentInfo& segment : log.reader->segments()) {
    if (!segment.problem.empty()) continue;
    if (plan.model.number == 0 || segment.first_lsn <= plan.point + 1) plan.model = segment;
    if (segment.gap_void && segment.first_lsn <= point) {
      return Status::Error(
          "logging had been off before LSN " + std::to_string(segment.first_lsn) +
          ", and the point lies before the first checkpoint after that; the last " +
          "LSN before is " + std::to_string(plan.point));
    }
  }
  if (last == nullptr) return plan;
  plan.model = *last;
  for (const SegmentInfo* segment : seen) {
    if (segment->number <= last->number) plan.segments.push_back(*segment);
  }
  return plan;
}

Result<Restore::Plan> Restore::MakePlan() {
  Lsn point = 0;
  TRY(FindPoint(&point));
  if (tool_.stopped()) return Status::Error("interrupted", EINTR);
  for (const CheckpointInfo& checkpoint : log_.checkpoints) {
    if (!checkpoint.problem.empty() || checkpoint.lsn > point) continue;
    if (Status status = IsGood(checkpoint); !status.ok()) {
      tool_.errors << "warning: " << checkpoint.name
                   << " is damaged and was not used: " << status.message() << "\n";
      continue;
    }
    return PlanFrom(&checkpoint, point);
  }
  auto plan = PlanFrom(nullptr, point);
  if (plan.ok() && plan->point > 0) return plan;
  // From the log's beginning, which may be gone.
  Lsn oldest = 0;
  for (const CheckpointInfo& checkpoint : log_.checkpoints) {
    if (checkpoint.problem.empty()) oldest = checkpoint.lsn;
  }
  if (oldest > 0) {
    return Status::Error("nothing so old is there: the oldest point is LSN " +
                         std::to_string(oldest));
  }
  if (!plan.ok()) return plan;
  return Status::Error("no record is so old");
}

Status Restore::Copy(const std::string& path, uint64_t bytes) {
  const std::string target = Target(path.substr(path.rfind('/') + 1));
  made_.push_back(target);
  const uint64_t copied =
      TRY(CopyFile(tool_.disk, path, target, bytes, [&](uint64_t step) -> Status {
        progress_->Show(done_ += step, total_);
        return tool_.stopped() ? Status::Error("interrupted", EINTR) : Status::Ok();
      }));
  if (bytes != UINT64_MAX && copied < bytes) {
    return Status::Error(path + " became shorter while it was copied; try again");
  }
  if (IsRetired(tool_, path)) return Status::Error(path + " was retired while it was copied");
  return Status::Ok();
}

// A segment that ends everything above the point.
Status Restore::WriteNewEpoch(const Plan& plan) {
  SegmentInfo info;
  info.number = plan.model.number + 1;
  info.name = SegmentName(info.number);
  info.path = Target(info.name);
  info.format_version = kFormatVersion;
  info.identity = plan.model.identity;
  const std::string replication_id = RandomHex(sizeof(info.identity.replication_id));
  replication_id.copy(info.identity.replication_id, replication_id.size());
  info.shard_by_hashtag = plan.model.shard_by_hashtag;
  info.epoch = plan.model.epoch + 1;
  info.created_at_ms = RealClock().WallMs();
  info.first_lsn = plan.point + 1;
  info.durable_lsn = plan.point;
  info.min_reader_version = MinReaderVersion(info);
  info.salt = RandomUint64();
  info.predecessor_number = plan.segments.empty() ? 0 : plan.segments.back().number;
  info.predecessor_last_lsn = plan.point;
  made_.push_back(info.path);
  auto file = TRY(tool_.disk.Open(info.path, OpenMode::kCreate));
  TRY(file->WriteAt(0, EncodeSegmentHeader(info)));
  SegmentWriter writer(info, std::move(file), 0);
  std::string bytes;
  writer.AddEnd(bytes, FrameType::kStop, plan.point, info.created_at_ms);
  TRY(writer.Write(bytes));
  return writer.Sync();
}

Status Restore::Write(const Plan& plan) {
  TRY(MakeEmptyDirectory(tool_.disk, request_.target));
  progress_.emplace(tool_.errors, tool_.interactive, "restore");
  total_ = plan.checkpoint == nullptr ? 0 : plan.checkpoint->file_bytes;
  for (const SegmentInfo& segment : plan.segments) total_ += segment.file_bytes;
  if (plan.checkpoint != nullptr) TRY(Copy(plan.checkpoint->path, UINT64_MAX));
  for (const SegmentInfo& segment : plan.segments) {
    const bool last = segment.number == plan.segments.back().number;
    TRY(Copy(segment.path, last ? plan.last_bytes : UINT64_MAX));
  }
  TRY(WriteNewEpoch(plan));
  return tool_.disk.SyncDirectory(request_.target);
}

void Restore::Report(const Plan& plan) const {
  const Lsn checkpoint = plan.checkpoint == nullptr ? 0 : plan.checkpoint->lsn;
  if (request_.json) {
    JsonObject json;
    json.Number("lsn", plan.point).Text("target", request_.target);
    json.Number("checkpoint_lsn", checkpoint).Number("segments", plan.segments.size());
    if (plan.wall_ms != 0) json.Number("time_ms", static_cast<uint64_t>(plan.wall_ms));
    tool_.out << json.Number("bytes", done_).text() << "\n";
    return;
  }
  tool_.out << "restored up to LSN " << plan.point;
  if (plan.wall_ms != 0) tool_.out << ", written at " << FormatTime(plan.wall_ms);
  tool_.out << ", in " << request_.target << ": ";
  if (checkpoint > 0) tool_.out << "the checkpoint at LSN " << checkpoint << " and ";
  tool_.out << plan.segments.size() << " segments, " << FormatBytes(done_) << "\n";
}

Result<Restore::Plan> Restore::Try() {
  done_ = 0;
  log_ = TRY(OpenTheLog(tool_));
  Plan plan = TRY(MakePlan());
  // Had it been filled with zeroes, the log would seem to end before it.
  const std::string& newest = log_.reader->segments().back().path;
  if (IsRetired(tool_, newest)) return Status::Error(newest + " was retired while it was read");
  TRY(Write(plan));
  return plan;
}

// Whether a server has retired a file that the last try may have read.
bool Restore::HasMoved() {
  if (log_.reader == nullptr) return false;
  const auto retired = [&](const auto& file) { return IsRetired(tool_, file.path); };
  return std::any_of(log_.checkpoints.begin(), log_.checkpoints.end(), retired) ||
         std::any_of(log_.reader->segments().begin(), log_.reader->segments().end(), retired);
}

int Restore::Run() {
  for (int tries = 1;; ++tries) {
    auto plan = Try();
    if (progress_) progress_->Clear();
    if (plan.ok()) {
      Report(*plan);
      return kToolGood;
    }
    for (const std::string& path : made_) (void)tool_.disk.Remove(path);
    made_.clear();
    if (tool_.stopped() || !HasMoved()) return tool_.Fail(plan.message());
    if (tries == kTriesMax) {
      return tool_.Fail(
          "the server retires segments faster than they can be copied: make a "
          "backup first, and restore that");
    }
  }
}

}  // namespace

int RunRestore(Tool& tool) { return Restore(tool).Run(); }

}  // namespace crab::wal

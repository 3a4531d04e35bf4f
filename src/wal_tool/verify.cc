// crabcache-wal verify
#include <algorithm>

#include "src/wal_tool/tool.h"

namespace crab::wal {
namespace {

// Reads every byte of one checkpoint; "" = it is good.
std::string CheckpointProblem(Tool& tool, const CheckpointInfo& checkpoint) {
  if (!checkpoint.problem.empty()) return checkpoint.problem;
  auto reader = CheckpointReader::Open(tool.disk, checkpoint.path, tool.keys);
  if (!reader.ok()) return std::string(reader.message());
  Progress progress(tool.errors, tool.interactive, checkpoint.name);
  const Status status =
      (*reader)->Verify([&](uint64_t done) { progress.Show(done, checkpoint.file_bytes); });
  return std::string(status.message());
}

}  // namespace

int RunVerify(Tool& tool) {
  auto log = OpenTheLog(tool);
  if (!log.ok()) return tool.Fail(log.message());
  std::vector<std::string> damaged_text, damaged_json;
  Lsn damaged_lsn = 0;  // the highest that is stated
  for (CheckpointInfo& checkpoint : log->checkpoints) {
    checkpoint.problem = CheckpointProblem(tool, checkpoint);
    if (checkpoint.problem.empty() || IsRetired(tool, checkpoint.path)) continue;
    damaged_lsn = std::max(damaged_lsn, CheckpointLsn(checkpoint.name).value_or(0));
    damaged_text.push_back("damaged checkpoint: " + checkpoint.name + ": " + checkpoint.problem);
    damaged_json.push_back(JsonObject()
                               .Number("checkpoint", checkpoint.lsn)
                               .Text("name", checkpoint.name)
                               .Text("reason", checkpoint.problem)
                               .text());
  }
  std::erase_if(log->checkpoints, [&](const CheckpointInfo& checkpoint) {
    return !checkpoint.problem.empty() && IsRetired(tool, checkpoint.path);
  });
  // What was retired because of a damaged one counts as lost.
  if (!damaged_text.empty()) {
    auto reader = Reader::Open(
        tool.disk, tool.request.directory,
        {.keys = tool.keys, .checkpoint_lsn = log->base(), .damaged_checkpoint_lsn = damaged_lsn});
    if (!reader.ok()) return tool.Fail(reader.message());
    log->reader = std::move(*reader);
  }
  uint64_t records = 0, bytes = 0;
  Lsn first = 0, last = 0;
  std::vector<std::string> lost, torn;
  const auto disk_errors = WalkLog(tool, *log, "verify", [&](const Frame& frame, const Walk& walk) {
    const auto& show = tool.request.json ? ProblemJson : ProblemText;
    if (walk.lost) lost.push_back(show(frame));
    if (frame.verdict == Verdict::kTorn) torn.push_back(show(frame));
    if (frame.verdict != Verdict::kGood) return true;
    bytes += frame.bytes;
    if (!IsRecord(frame.type)) return true;
    if (records++ == 0) first = frame.lsn;
    last = frame.lsn;
    return true;
  });
  if (tool.stopped()) return tool.Fail("interrupted");
  const bool bad = !lost.empty() || !damaged_text.empty();
  const char* verdict = !disk_errors.empty() ? "unreadable"
                        : bad                ? "corrupt"
                        : !torn.empty()      ? "good, with a torn tail"
                                             : "good";
  const size_t segments = log->reader->segments().size();
  if (tool.request.json) {
    tool.out << JsonObject()
                    .Text("verdict", verdict)
                    .Number("segments", segments)
                    .Number("records", records)
                    .Number("first_lsn", first)
                    .Number("last_lsn", last)
                    .Number("durable_lsn", log->reader->durable_lsn())
                    .Number("bytes", bytes)
                    .Number("checkpoints", log->checkpoints.size())
                    .Number("checkpoint_lsn", log->base())
                    .Raw("lost", JsonArray(lost))
                    .Raw("torn", JsonArray(torn))
                    .Raw("damaged_checkpoints", JsonArray(damaged_json))
                    .text()
             << "\n";
  } else {
    for (const auto* lines : {&lost, &torn, &damaged_text}) {
      for (const std::string& line : *lines) tool.out << line << "\n";
    }
    tool.out << verdict << ": " << segments << " segments, " << records << " records ("
             << (records == 0 ? "none" : LsnRange(first, last)) << "), " << bytes
             << " bytes, durable at least to LSN " << log->reader->durable_lsn();
    if (!log->checkpoints.empty()) {
      tool.out << "; " << log->checkpoints.size() << " checkpoints, the newest good one at LSN "
               << log->base();
    }
    tool.out << "\n";
  }
  return Finish(tool, *log->reader, disk_errors, bad);
}

}  // namespace crab::wal

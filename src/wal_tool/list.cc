// crabcache-wal list
#include <algorithm>
#include <map>

#include "src/wal_tool/tool.h"

namespace crab::wal {
namespace {

struct Row {
  uint64_t records = 0;
  uint64_t used_bytes = 0;
  Lsn first_lsn = 0, last_lsn = 0;
  const char* end = "open";  // the server is running, or was killed
  std::string policy = "-";
};

std::string SegmentJson(const SegmentInfo& segment, const Row& row) {
  return JsonObject()
      .Number("number", segment.number)
      .Text("name", segment.name)
      .Number("epoch", segment.epoch)
      .Number("first_lsn", row.first_lsn)
      .Number("last_lsn", row.last_lsn)
      .Number("records", row.records)
      .Number("bytes", row.used_bytes)
      .Number("file_bytes", segment.file_bytes)
      .Text("end", row.end)
      .Text("policy", row.policy)
      .Text("compression", CompressionName(segment.compression))
      .Flag("encrypted", segment.key_id != 0)
      .Number("created_at_ms", static_cast<uint64_t>(segment.created_at_ms))
      .Text("problem", segment.problem)
      .text();
}

std::string CheckpointJson(const CheckpointInfo& checkpoint) {
  return JsonObject()
      .Number("checkpoint", checkpoint.lsn)
      .Text("name", checkpoint.name)
      .Number("keys", checkpoint.entries)
      .Number("file_bytes", checkpoint.file_bytes)
      .Number("plain_bytes", checkpoint.plain_bytes)
      .Text("compression", CompressionName(checkpoint.compression))
      .Flag("encrypted", checkpoint.key_id != 0)
      .Number("created_at_ms", static_cast<uint64_t>(checkpoint.created_at_ms))
      .Text("problem", checkpoint.problem)
      .text();
}

void PrintText(const OpenLog& log, std::map<const SegmentInfo*, Row>& rows, std::ostream& out) {
  std::vector<std::vector<std::string>> table = {
      {"segment", "epoch", "first", "last", "records", "bytes", "file bytes", "end", "policy"}};
  for (const SegmentInfo& segment : log.reader->segments()) {
    const Row& row = rows[&segment];
    table.push_back({std::to_string(segment.number), std::to_string(segment.epoch),
                     row.records == 0 ? "-" : std::to_string(row.first_lsn),
                     row.records == 0 ? "-" : std::to_string(row.last_lsn),
                     std::to_string(row.records), std::to_string(row.used_bytes),
                     std::to_string(segment.file_bytes), row.end, row.policy});
  }
  PrintTable(table, out);
  if (log.checkpoints.empty()) return;
  table = {{"checkpoint", "made at", "keys", "bytes", "state"}};
  for (const CheckpointInfo& checkpoint : log.checkpoints) {
    const bool good = checkpoint.problem.empty();
    table.push_back({std::to_string(checkpoint.lsn),
                     good ? FormatTime(checkpoint.created_at_ms) : "-",
                     good ? std::to_string(checkpoint.entries) : "-",
                     std::to_string(checkpoint.file_bytes), good ? "good" : checkpoint.problem});
  }
  out << "\n";
  PrintTable(table, out);
}

}  // namespace

int RunList(Tool& tool) {
  auto log = OpenTheLog(tool);
  if (!log.ok()) return tool.Fail(log.message());
  std::map<const SegmentInfo*, Row> rows;
  bool lost = false;
  std::string policy = "-";  // in force until a record says otherwise, over segments too
  const auto disk_errors = WalkLog(tool, *log, "list", [&](const Frame& frame, const Walk& walk) {
    lost |= walk.lost;
    if (frame.segment == nullptr) return true;
    Row& row = rows[frame.segment];
    row.policy = policy;
    if (frame.verdict == Verdict::kTorn) row.end = "torn";
    if (walk.lost) row.end = "corrupt";
    if (frame.verdict != Verdict::kGood) return true;
    row.used_bytes = std::max(row.used_bytes, frame.offset + frame.bytes);
    const auto type = static_cast<FrameType>(frame.type);
    if (type == FrameType::kSeal) row.end = "sealed";
    if (type == FrameType::kStop) row.end = "stopped";
    if (type == FrameType::kPolicy) row.policy = policy = PolicyText(frame.payload);
    if (!IsRecord(frame.type)) return true;
    if (row.records++ == 0) row.first_lsn = frame.lsn;
    row.last_lsn = frame.lsn;
    return true;
  });
  if (tool.stopped()) return tool.Fail("interrupted");
  for (const SegmentInfo& segment : log->reader->segments()) {
    if (!segment.problem.empty()) rows[&segment].end = "bad header";
  }
  std::erase_if(log->checkpoints, [&](const CheckpointInfo& checkpoint) {
    return !checkpoint.problem.empty() && IsRetired(tool, checkpoint.path);
  });
  if (tool.request.json) {
    for (const SegmentInfo& segment : log->reader->segments()) {
      tool.out << SegmentJson(segment, rows[&segment]) << "\n";
    }
    for (const CheckpointInfo& checkpoint : log->checkpoints) {
      tool.out << CheckpointJson(checkpoint) << "\n";
    }
  } else {
    PrintText(*log, rows, tool.out);
  }
  const bool damaged =
      std::any_of(log->checkpoints.begin(), log->checkpoints.end(),
                  [](const CheckpointInfo& checkpoint) { return !checkpoint.problem.empty(); });
  return Finish(tool, *log->reader, disk_errors, lost || damaged);
}

}  // namespace crab::wal

// crabcache-wal stats: what fills the log. Holds at most kPrefixesMax prefixes, whatever is in it.
#include <algorithm>
#include <array>
#include <cstdio>
#include <map>
#include <unordered_map>

#include "src/wal_tool/tool.h"

namespace crab::wal {
namespace {

constexpr size_t kPrefixesMax = 100'000;
constexpr std::string_view kNoPrefix = "(no prefix)";
constexpr std::string_view kOthers = "(others)";

struct Sum {
  uint64_t count = 0;
  uint64_t bytes = 0;
  void Add(uint64_t size) {
    ++count;
    bytes += size;
  }
};

struct SizeClass {
  const char* name;
  uint64_t bytes_max;
};
constexpr SizeClass kSizeClasses[] = {
    {"up to 64 B", 64},           {"up to 256 B", 256},       {"up to 1 KiB", 1 << 10},
    {"up to 4 KiB", 4 << 10},     {"up to 16 KiB", 16 << 10}, {"up to 64 KiB", 64 << 10},
    {"up to 256 KiB", 256 << 10}, {"up to 1 MiB", 1 << 20},   {"above 1 MiB", ~uint64_t{0}},
};

using Rows = std::vector<std::pair<std::string, Sum>>;

class Stats {
 public:
  explicit Stats(Tool& tool) : tool_(tool) {}
  int Run();

 private:
  void Count(const Frame& frame);
  std::string_view PrefixOf(std::string_view key) const;
  Rows Sorted(Rows rows, bool cut) const;
  void PrintTitled(const char* title, const Rows& rows) const;

  Tool& tool_;
  const Request& request_ = tool_.request;
  Sum records_, effects_, transactions_;
  uint64_t file_bytes_ = 0, used_bytes_ = 0;
  std::array<Sum, kEffectIdMax + 1> commands_;  // 0: what is no effect
  std::unordered_map<std::string, Sum> prefixes_;
  std::array<Sum, std::size(kSizeClasses)> sizes_;
};

std::string_view Stats::PrefixOf(std::string_view key) const {
  if (request_.prefix_bytes > 0) return key.substr(0, request_.prefix_bytes);
  const size_t end = key.find(request_.separator);
  return end == std::string_view::npos ? kNoPrefix : key.substr(0, end + request_.separator.size());
}

void Stats::Count(const Frame& frame) {
  records_.Add(frame.payload.size());
  for (size_t i = 0; i < sizes_.size(); ++i) {
    if (frame.payload.size() > kSizeClasses[i].bytes_max) continue;
    sizes_[i].Add(frame.payload.size());
    break;
  }
  const auto type = static_cast<FrameType>(frame.type);
  std::string_view bytes = frame.payload;
  if (type == FrameType::kTxn) {
    transactions_.Add(frame.payload.size());
    auto effects = TransactionEffects(frame.payload);
    if (effects.ok()) bytes = *effects;
  } else if (type != FrameType::kEffect && type != FrameType::kBroadcast) {
    return;
  }
  while (!bytes.empty()) {
    const size_t before = bytes.size();
    EffectView effect;
    if (!ReadEffect(&bytes, &effect).ok()) {
      commands_[0].Add(before);
      return;
    }
    const size_t size = before - bytes.size();
    effects_.Add(size);
    commands_[static_cast<size_t>(effect.id)].Add(size);
    if (type == FrameType::kBroadcast || effect.arguments.empty()) continue;
    const std::string prefix(PrefixOf(effect.arguments.front()));
    const auto found = prefixes_.find(prefix);
    const bool room = found != prefixes_.end() || prefixes_.size() < kPrefixesMax;
    prefixes_[room ? prefix : std::string(kOthers)].Add(size);
  }
}

// By bytes, the largest first; the first `top` of them where they are to be cut.
Rows Stats::Sorted(Rows rows, bool cut) const {
  std::erase_if(rows, [](const auto& row) { return row.second.count == 0; });
  std::sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) {
    return a.second.bytes != b.second.bytes ? a.second.bytes > b.second.bytes : a.first < b.first;
  });
  if (cut && rows.size() > request_.top) rows.resize(request_.top);
  return rows;
}

void Stats::PrintTitled(const char* title, const Rows& rows) const {
  std::vector<std::vector<std::string>> table = {{title, "count", "bytes", "share"}};
  for (const auto& [name, sum] : rows) {
    char share[16];
    std::snprintf(share, sizeof(share), "%.1f %%",
                  records_.bytes == 0 ? 0.0
                                      : 100.0 * static_cast<double>(sum.bytes) /
                                            static_cast<double>(records_.bytes));
    std::string shown;
    AppendQuoted(&shown, name);
    const bool plain = shown.size() == name.size() + 2;
    table.push_back(
        {plain ? name : shown, std::to_string(sum.count), FormatBytes(sum.bytes), share});
  }
  tool_.out << "\n";
  PrintTable(table, tool_.out);
}

std::string RowsJson(const Rows& rows, std::string_view title) {
  std::vector<std::string> list;
  for (const auto& [name, sum] : rows) {
    list.push_back(JsonObject()
                       .Text(title, name)
                       .Number("count", sum.count)
                       .Number("bytes", sum.bytes)
                       .text());
  }
  return JsonArray(list);
}

int Stats::Run() {
  auto log = OpenTheLog(tool_);
  if (!log.ok()) return tool_.Fail(log.message());
  bool lost = false;
  Lsn first = 0, last = 0;
  const auto disk_errors = WalkLog(tool_, *log, "stats", [&](const Frame& frame, const Walk& walk) {
    lost |= walk.lost;
    if (frame.verdict != Verdict::kGood) return true;
    used_bytes_ += frame.bytes;
    if (!IsRecord(frame.type)) return true;
    if (first == 0) first = frame.lsn;
    last = frame.lsn;
    Count(frame);
    return true;
  });
  if (tool_.stopped()) return tool_.Fail("interrupted");
  Rows commands, sizes;
  for (int id = 0; id <= kEffectIdMax; ++id) {
    commands.emplace_back(id == 0 ? "(no command)" : EffectName(id),
                          commands_[static_cast<size_t>(id)]);
  }
  for (size_t i = 0; i < sizes_.size(); ++i) {
    if (sizes_[i].count > 0) sizes.emplace_back(kSizeClasses[i].name, sizes_[i]);
  }
  commands = Sorted(std::move(commands), true);
  const Rows prefixes = Sorted(Rows(prefixes_.begin(), prefixes_.end()), true);
  uint64_t checkpoint_bytes = 0;
  for (const CheckpointInfo& checkpoint : log->checkpoints) {
    checkpoint_bytes += checkpoint.file_bytes;
  }
  if (request_.json) {
    tool_.out << JsonObject()
                     .Number("segments", log->reader->segments().size())
                     .Number("segment_file_bytes", log->total_bytes())
                     .Number("used_bytes", used_bytes_)
                     .Number("checkpoints", log->checkpoints.size())
                     .Number("checkpoint_bytes", checkpoint_bytes)
                     .Number("first_lsn", first)
                     .Number("last_lsn", last)
                     .Number("records", records_.count)
                     .Number("payload_bytes", records_.bytes)
                     .Number("transactions", transactions_.count)
                     .Number("effects", effects_.count)
                     .Raw("commands", RowsJson(commands, "command"))
                     .Raw("prefixes", RowsJson(prefixes, "prefix"))
                     .Raw("sizes", RowsJson(sizes, "size"))
                     .text()
              << "\n";
  } else {
    tool_.out << log->reader->segments().size() << " segments: " << FormatBytes(used_bytes_)
              << " used of " << FormatBytes(log->total_bytes()) << "; " << log->checkpoints.size()
              << " checkpoints: " << FormatBytes(checkpoint_bytes) << "\n"
              << records_.count << " records ("
              << (records_.count == 0 ? "none" : LsnRange(first, last))
              << "): " << FormatBytes(records_.bytes) << " of payload; " << transactions_.count
              << " transactions, " << effects_.count << " effects\n";
    PrintTitled("command", commands);
    PrintTitled("prefix", prefixes);
    PrintTitled("record's size", sizes);
  }
  return Finish(tool_, *log->reader, disk_errors, lost);
}

}  // namespace

int RunStats(Tool& tool) { return Stats(tool).Run(); }

}  // namespace crab::wal

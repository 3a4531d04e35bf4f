#include "src/wal_tool/wal_tool.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "persistence/reader.h"
#include "persistence/record.h"
#include "src/keyspace/effects.h"
#include "utils/version.h"

namespace crab::wal {
namespace {

constexpr char kUsage[] =
    "Usage: crabcache-wal list|verify|dump DIRECTORY [--json] [--from LSN] [--to LSN]\n"
    "\n"
    "Reads the write-ahead log in DIRECTORY. Takes no lock and changes nothing: a server may be\n"
    "running on it, and what it is just writing then looks like a torn tail.\n"
    "\n"
    "  list      a row for each segment: number, epoch, LSNs, records, bytes, how it ends, the\n"
    "            sync policy in force there (- = no record says)\n"
    "  verify    reads every checksum and names each range of records that was lost\n"
    "  dump      a line for each record: LSN, type, shard, [database] and the words of each "
    "effect\n"
    "\n"
    "  --json    one JSON object a line; bytes that are no UTF-8 as {\"hex\": \"...\"}\n"
    "  --from    the first LSN to dump\n"
    "  --to      the last LSN to dump\n"
    "  --help    this text\n"
    "  --version\n"
    "\n"
    "Exit status: 0 all is well (a torn tail too), 1 durable records were lost, 2 wrong usage or\n"
    "a directory that cannot be read or holds no log.\n";

struct Request {
  std::string_view verb;
  std::string directory;
  bool json = false;
  Lsn from = 0;
  Lsn to = ~Lsn{0};
};

// Fills `request`, or returns what is wrong with the arguments.
std::string ParseArguments(std::span<const std::string_view> arguments, Request* request) {
  std::vector<std::string_view> words;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (argument == "--json") {
      request->json = true;
    } else if (argument == "--from" || argument == "--to") {
      Lsn lsn = 0;
      const std::string_view text = i + 1 < arguments.size() ? arguments[++i] : "";
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), lsn);
      if (error != std::errc() || end != text.data() + text.size()) {
        return std::string(argument) + " needs an LSN";
      }
      (argument == "--from" ? request->from : request->to) = lsn;
    } else if (argument.substr(0, 1) == "-" && argument.size() > 1) {
      return "unknown option " + std::string(argument);
    } else {
      words.push_back(argument);
    }
  }
  if (words.empty()) return "what is to be done?";
  if (words[0] != "list" && words[0] != "verify" && words[0] != "dump") {
    return "unknown verb " + std::string(words[0]);
  }
  if (words.size() != 2) return std::string(words[0]) + " needs one directory";
  request->verb = words[0];
  request->directory = words[1];
  while (request->directory.size() > 1 && request->directory.back() == '/') {
    request->directory.pop_back();
  }
  return "";
}

// ---- how bytes are shown

void AppendHex(std::string* out, unsigned char byte) {
  constexpr char kDigits[] = "0123456789abcdef";
  out->push_back(kDigits[byte >> 4]);
  out->push_back(kDigits[byte & 15]);
}

// As redis-cli shows a string: in quotes, with escapes for what does not print.
void AppendQuoted(std::string* out, std::string_view bytes) {
  constexpr char kEscaped[] = "\"\\\n\r\t\a\b";
  constexpr char kLetters[] = "\"\\nrtab";
  out->push_back('"');
  for (const char c : bytes) {
    const char* escaped = c == '\0' ? nullptr : std::strchr(kEscaped, c);
    if (escaped != nullptr) {
      out->push_back('\\');
      out->push_back(kLetters[escaped - kEscaped]);
    } else if (c >= ' ' && c <= '~') {
      out->push_back(c);
    } else {
      out->append("\\x");
      AppendHex(out, static_cast<unsigned char>(c));
    }
  }
  out->push_back('"');
}

// Well-formed by Unicode's table 3-7: no surrogates, nothing overlong.
bool IsUtf8(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  for (size_t i = 0; i < bytes.size();) {
    const unsigned char lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if (lead < 0xc2 || lead > 0xf4) return false;
    const size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    if (bytes.size() - i < size) return false;
    unsigned char low = 0x80, high = 0xbf;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
    if (byte(i + 1) < low || byte(i + 1) > high) return false;
    for (size_t k = 2; k < size; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    i += size;
  }
  return true;
}

void AppendJson(std::string* out, std::string_view bytes) {
  if (!IsUtf8(bytes)) {
    out->append("{\"hex\":\"");
    for (const char c : bytes) AppendHex(out, static_cast<unsigned char>(c));
    out->append("\"}");
    return;
  }
  out->push_back('"');
  for (const char c : bytes) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out->append("\\u00");
      AppendHex(out, static_cast<unsigned char>(c));
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

const char* PolicyName(std::string_view payload) {
  if (payload.size() == 1) {
    switch (static_cast<SyncPolicy>(payload[0])) {
      case SyncPolicy::kNone:
        return "none";
      case SyncPolicy::kAsync:
        return "async";
      case SyncPolicy::kSync:
        return "sync";
    }
  }
  return "unknown";
}

// ---- walking the log

// Calls `visit(frame)` for every frame. Returns the errors of the disk, one for each segment that
// had to be given up.
template <typename Visit>
std::vector<std::string> Walk(Reader& reader, Visit visit) {
  std::vector<std::string> errors;
  // Each error gives up one segment, so more of them would mean that nothing moves.
  while (errors.size() <= reader.segments().size()) {
    Frame frame;
    Result<bool> more = reader.Next(&frame);
    if (!more.ok()) {
      errors.emplace_back(more.message());
      continue;
    }
    if (!*more) break;
    visit(frame);
  }
  return errors;
}

bool IsLost(const Frame& frame) {
  return frame.verdict == Verdict::kCorrupt || frame.verdict == Verdict::kMissing;
}

std::string LsnRange(Lsn first, Lsn last) {
  if (last < first) return "no record";
  if (last == kUnknownLsn) return "LSN " + std::to_string(first) + " and all behind it";
  if (first == last) return "LSN " + std::to_string(first);
  return "LSN " + std::to_string(first) + ".." + std::to_string(last);
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
  std::string text = "{\"first\":" + std::to_string(frame.lost_first) + ",\"last\":" +
                     (frame.lost_last == kUnknownLsn ? "null" : std::to_string(frame.lost_last)) +
                     ",\"segment\":";
  AppendJson(&text, frame.segment == nullptr ? "" : frame.segment->name);
  text += ",\"offset\":" + std::to_string(frame.offset) +
          ",\"bytes\":" + std::to_string(frame.bytes) + ",\"reason\":";
  AppendJson(&text, frame.reason);
  return text + "}";
}

// Tells the operator and picks the exit status.
int Finish(const Reader& reader, const std::vector<std::string>& disk_errors, bool lost,
           std::ostream& errors) {
  for (const std::string& warning : reader.warnings()) errors << "warning: " << warning << "\n";
  for (const std::string& error : disk_errors) errors << "error: " << error << "\n";
  if (!disk_errors.empty()) return kToolUnusable;
  return lost ? kToolCorruption : kToolGood;
}

// ---- list

struct Row {
  uint64_t records = 0;
  uint64_t used_bytes = 0;
  Lsn first_lsn = 0, last_lsn = 0;
  const char* end = "open";  // the server is running, or was killed
  const char* policy = "-";
};

std::string RowJson(const SegmentInfo& segment, const Row& row) {
  std::string text = "{\"number\":" + std::to_string(segment.number) + ",\"name\":";
  AppendJson(&text, segment.name);
  text += ",\"epoch\":" + std::to_string(segment.epoch) +
          ",\"first_lsn\":" + std::to_string(row.first_lsn) +
          ",\"last_lsn\":" + std::to_string(row.last_lsn) +
          ",\"records\":" + std::to_string(row.records) +
          ",\"bytes\":" + std::to_string(row.used_bytes) +
          ",\"file_bytes\":" + std::to_string(segment.file_bytes) + ",\"end\":\"" + row.end +
          "\",\"policy\":\"" + row.policy + "\",\"problem\":";
  AppendJson(&text, segment.problem);
  return text + "}\n";
}

void PrintTable(const std::vector<std::vector<std::string>>& rows, std::ostream& out) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out << (i == 0 ? "" : "  ") << std::string(widths[i] - row[i].size(), ' ') << row[i];
    }
    out << "\n";
  }
}

int List(Reader& reader, const Request& request, std::ostream& out, std::ostream& errors) {
  std::map<const SegmentInfo*, Row> rows;
  bool lost = false;
  const char* policy = "-";  // in force until a record says otherwise, over segments too
  const auto disk_errors = Walk(reader, [&](const Frame& frame) {
    lost |= IsLost(frame);
    if (frame.segment == nullptr) return;
    Row& row = rows[frame.segment];
    row.policy = policy;
    if (frame.verdict == Verdict::kTorn) row.end = "torn";
    if (IsLost(frame)) row.end = "corrupt";
    if (frame.verdict != Verdict::kGood) return;
    row.used_bytes = frame.offset + frame.bytes;
    const auto type = static_cast<FrameType>(frame.type);
    if (type == FrameType::kSeal) row.end = "sealed";
    if (type == FrameType::kStop) row.end = "stopped";
    if (type == FrameType::kPolicy) row.policy = policy = PolicyName(frame.payload);
    if (!IsRecord(frame.type)) return;
    if (row.records++ == 0) row.first_lsn = frame.lsn;
    row.last_lsn = frame.lsn;
  });
  std::vector<std::vector<std::string>> table = {
      {"segment", "epoch", "first", "last", "records", "bytes", "file bytes", "end", "policy"}};
  for (const SegmentInfo& segment : reader.segments()) {
    Row row = rows[&segment];
    if (!segment.problem.empty()) row.end = "bad header";
    if (request.json) {
      out << RowJson(segment, row);
      continue;
    }
    table.push_back({std::to_string(segment.number), std::to_string(segment.epoch),
                     row.records == 0 ? "-" : std::to_string(row.first_lsn),
                     row.records == 0 ? "-" : std::to_string(row.last_lsn),
                     std::to_string(row.records), std::to_string(row.used_bytes),
                     std::to_string(segment.file_bytes), row.end, row.policy});
  }
  if (!request.json) PrintTable(table, out);
  return Finish(reader, disk_errors, lost, errors);
}

// ---- verify

int Verify(Reader& reader, const Request& request, std::ostream& out, std::ostream& errors) {
  uint64_t records = 0, bytes = 0;
  Lsn first = 0, last = 0;
  std::vector<std::string> lost, torn;
  const auto disk_errors = Walk(reader, [&](const Frame& frame) {
    const auto& show = request.json ? ProblemJson : ProblemText;
    if (IsLost(frame)) lost.push_back(show(frame));
    if (frame.verdict == Verdict::kTorn) torn.push_back(show(frame));
    if (frame.verdict != Verdict::kGood) return;
    bytes += frame.bytes;
    if (!IsRecord(frame.type)) return;
    if (records++ == 0) first = frame.lsn;
    last = frame.lsn;
  });
  const char* verdict = !disk_errors.empty() ? "unreadable"
                        : !lost.empty()      ? "corrupt"
                        : !torn.empty()      ? "good, with a torn tail"
                                             : "good";
  const auto join = [](const std::vector<std::string>& parts, const char* separator) {
    std::string text;
    for (const std::string& part : parts) text += (text.empty() ? "" : separator) + part;
    return text;
  };
  if (request.json) {
    out << "{\"verdict\":\"" << verdict << "\",\"segments\":" << reader.segments().size()
        << ",\"records\":" << records << ",\"first_lsn\":" << first << ",\"last_lsn\":" << last
        << ",\"durable_lsn\":" << reader.durable_lsn() << ",\"bytes\":" << bytes << ",\"lost\":["
        << join(lost, ",") << "],\"torn\":[" << join(torn, ",") << "]}\n";
  } else {
    for (const std::string& line : lost) out << line << "\n";
    for (const std::string& line : torn) out << line << "\n";
    out << verdict << ": " << reader.segments().size() << " segments, " << records << " records ("
        << (records == 0 ? "none" : LsnRange(first, last)) << "), " << bytes
        << " bytes, durable at least to LSN " << reader.durable_lsn() << "\n";
  }
  return Finish(reader, disk_errors, !lost.empty(), errors);
}

// ---- dump

// The effects of a record's payload; an error where it is not what its type says.
Result<std::vector<EffectView>> ReadEffects(const Frame& frame) {
  std::string_view bytes = frame.payload;
  if (static_cast<FrameType>(frame.type) == FrameType::kTxn) {
    bytes = TRY(TransactionEffects(frame.payload));
  }
  std::vector<EffectView> effects;
  while (!bytes.empty()) {
    effects.emplace_back();
    TRY(ReadEffect(&bytes, &effects.back()));
  }
  return effects;
}

std::string NameOf(const EffectView& effect) {
  const std::string_view name = EffectName(effect.id);
  return name.empty() ? "command-" + std::to_string(effect.id) : std::string(name);
}

std::string RecordText(const Frame& frame) {
  std::string line = std::to_string(frame.lsn) + " " + FrameTypeName(frame.type) + " " +
                     (frame.shard == kBroadcastShard ? "*" : std::to_string(frame.shard));
  const auto type = static_cast<FrameType>(frame.type);
  if (type == FrameType::kVoid) return line;
  if (type == FrameType::kPolicy) return line + " " + PolicyName(frame.payload);
  auto effects = ReadEffects(frame);
  if (!effects.ok()) {
    line += " ? ";
    AppendQuoted(&line, frame.payload);
    return line + " (" + std::string(effects.message()) + ")";
  }
  const char* separator = " ";
  for (const EffectView& effect : *effects) {
    line += separator + ("[" + std::to_string(effect.db) + "] ") + NameOf(effect);
    for (const std::string_view argument : effect.arguments) {
      line += " ";
      AppendQuoted(&line, argument);
    }
    separator = " ; ";
  }
  return line;
}

std::string RecordJson(const Frame& frame) {
  std::string line =
      "{\"lsn\":" + std::to_string(frame.lsn) + ",\"type\":\"" + FrameTypeName(frame.type) +
      "\",\"shard\":" + (frame.shard == kBroadcastShard ? "null" : std::to_string(frame.shard));
  const auto type = static_cast<FrameType>(frame.type);
  if (type == FrameType::kVoid) return line + "}";
  if (type == FrameType::kPolicy) {
    return line + ",\"policy\":\"" + PolicyName(frame.payload) + "\"}";
  }
  auto effects = ReadEffects(frame);
  if (!effects.ok()) {
    line += ",\"payload\":";
    AppendJson(&line, frame.payload);
    line += ",\"problem\":";
    AppendJson(&line, effects.message());
    return line + "}";
  }
  line += ",\"effects\":[";
  const char* separator = "";
  for (const EffectView& effect : *effects) {
    line += separator + ("{\"db\":" + std::to_string(effect.db)) + ",\"words\":[";
    AppendJson(&line, NameOf(effect));
    for (const std::string_view argument : effect.arguments) {
      line += ",";
      AppendJson(&line, argument);
    }
    line += "]}";
    separator = ",";
  }
  return line + "]}";
}

int Dump(Reader& reader, const Request& request, std::ostream& out, std::ostream& errors) {
  bool lost = false;
  const auto disk_errors = Walk(reader, [&](const Frame& frame) {
    if (IsLost(frame) || frame.verdict == Verdict::kTorn) {
      lost |= IsLost(frame);
      errors << ProblemText(frame) << "\n";
      return;
    }
    if (frame.verdict != Verdict::kGood || !IsRecord(frame.type)) return;
    if (frame.lsn < request.from || frame.lsn > request.to) return;
    out << (request.json ? RecordJson(frame) : RecordText(frame)) << "\n";
  });
  return Finish(reader, disk_errors, lost, errors);
}

}  // namespace

int RunWalTool(Disk& disk, std::span<const std::string_view> arguments, std::ostream& out,
               std::ostream& errors) {
  for (const std::string_view argument : arguments) {
    if (argument == "--help") {
      out << kUsage;
      return kToolGood;
    }
    if (argument == "--version") {
      out << "crabcache-wal " << kCrabcacheVersion << "\n";
      return kToolGood;
    }
  }
  Request request;
  const std::string wrong = ParseArguments(arguments, &request);
  if (!wrong.empty()) {
    errors << "crabcache-wal: " << wrong << " (--help tells)\n";
    return kToolUnusable;
  }
  auto reader = Reader::Open(disk, request.directory);
  if (!reader.ok()) {
    errors << "crabcache-wal: " << reader.message() << "\n";
    return kToolUnusable;
  }
  if ((*reader)->segments().empty()) {
    errors << "crabcache-wal: there is no log in " << request.directory
           << ": it holds no segment\n";
    return kToolUnusable;
  }
  if (request.verb == "list") return List(**reader, request, out, errors);
  if (request.verb == "verify") return Verify(**reader, request, out, errors);
  return Dump(**reader, request, out, errors);
}

}  // namespace crab::wal

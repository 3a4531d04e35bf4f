#include "src/wal_tool/arguments.h"

#include <charconv>
#include <vector>

#include "src/wal_tool/text.h"
#include "src/wal_tool/tool.h"
#include "src/wal_tool/wal_tool.h"

namespace crab::wal {
namespace {

constexpr Verb kVerbs[] = {
    {"list", "DIRECTORY", "a row for each segment and each checkpoint",
     "For each segment: number, epoch, LSNs, records, bytes, how it ends, and the sync policy in\n"
     "force there (- = no record says). For each checkpoint: its LSN, when it was made, keys,\n"
     "bytes.\n",
     RunList},
    {"verify", "DIRECTORY", "read every checksum, name each range of records that was lost",
     "Reads every byte of the segments and of the checkpoints. Exit status 1 when durable records\n"
     "are missing or damaged, or a checkpoint is.\n",
     RunVerify},
    {"dump", "DIRECTORY", "print the records, as text, JSON or commands",
     "A line for each record: LSN, type, shard, [database] and the words of each effect. Where no\n"
     "--from is given, the newest checkpoint at or below the end that is asked for comes first,\n"
     "then what follows it; --from 1 shows all the records that are there.\n"
     "\n"
     "With --resp the commands themselves, for `redis-cli --pipe`: SELECT where the database\n"
     "changes, MULTI and EXEC around what ran atomically on more than one key. A transaction of\n"
     "one key is a large value in parts, and one above 64 MiB is an image of all data; neither is\n"
     "wrapped. Deadlines of keys come last: until then every key stays, so that one whose time is\n"
     "up is changed and removed as it was, whatever the clock of the server that takes them.\n",
     RunDump},
    {"tail", "DIRECTORY", "print the last records, and with -f what a server goes on to write",
     "JSON lines, as from dump --json. With -f it goes on until it is interrupted, over the ends\n"
     "of segments, restarts of the server and segments that are retired; it looks every 50 ms.\n"
     "Records are shown when they are written, which may be before they are durable. A line\n"
     "{\"event\": \"epoch\"} tells that the server began anew (LSNs from first_lsn on are issued\n"
     "again; with --from, the epochs up to it come first), {\"event\": \"skipped\"} that records "
     "were\n"
     "gone before they could be shown, {\"event\": \"damaged\"} that some cannot be read,\n"
     "{\"event\": \"foreign\"} that a segment belongs to another log and is passed over.\n",
     RunTail},
    {"stats", "DIRECTORY", "what fills the log: by command, by prefix of the keys, by size",
     "Counts the effects of all records and their bytes. The prefix of a key is what stands "
     "before\n"
     "the first separator; keys without one are counted together.\n",
     RunStats},
    {"restore", "SOURCE --to DIR", "make a new directory with the log as it was at a point in time",
     "Copies the newest checkpoint at or below the point and the segments above it, the last one\n"
     "cut behind the point, into DIR, which must be empty or not there. A server starts from it:\n"
     "crabcache-server --wal-enabled yes --wal-dir DIR. SOURCE is only read; a backup is as good\n"
     "as a log. Without a point everything is taken. The time of a record is that of the write it\n"
     "went to disk with: the point lies before the first write that is later than TIME. How far\n"
     "back it can lie follows from wal-keep-segments and wal-keep-ms.\n",
     RunRestore},
    {"repair", "DIRECTORY", "make a damaged directory start under `wal-recovery strict` again",
     "Drops what cannot be read and names it. Each file that is changed is kept aside first, in\n"
     "DIRECTORY/repair-<time>. Lost records leave VOID records behind, so all others keep their\n"
     "LSNs; a damaged checkpoint that is needed is made anew of the shards that can be read, and\n"
     "the others of what older checkpoints and records tell of them. Refuses where a server holds\n"
     "the directory. A torn tail is no damage and stays for the server to cut.\n",
     RunRepair},
    {"backup", "SOURCE TARGET", "copy the log of a running server, consistent at one LSN",
     "Hard links to checkpoints and full segments, and a copy of the last segment up to what is\n"
     "durable, in TARGET, which must be empty or not there; prints the LSN. On another file "
     "system\n"
     "all is copied. A server can start from TARGET; to keep the backup as it is, restore it into "
     "a\n"
     "directory of its own: crabcache-wal restore TARGET --to DIR.\n",
     RunBackup},
};

enum VerbBits : uint32_t {
  kList = 1 << 0,
  kVerify = 1 << 1,
  kDump = 1 << 2,
  kTail = 1 << 3,
  kStats = 1 << 4,
  kRestore = 1 << 5,
  kRepair = 1 << 6,
  kBackup = 1 << 7,
  kAll = (1 << 8) - 1,
};
static_assert(std::size(kVerbs) == 8);

bool ReadLsn(std::string_view text, uint64_t* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size();
}

template <auto kMember>
bool TakeNumber(std::string_view text, Request* request) {
  uint64_t value = 0;
  if (!ReadLsn(text, &value)) return false;
  request->*kMember = value;
  return true;
}

template <auto kMember>
bool TakeTime(std::string_view text, Request* request) {
  request->*kMember = ParseTime(text);
  return (request->*kMember).has_value();
}

template <auto kMember>
bool TakeText(std::string_view text, Request* request) {
  request->*kMember = text;
  return !text.empty();
}

template <auto kMember>
bool Switch(std::string_view, Request* request) {
  request->*kMember = true;
  return true;
}

struct OptionRow {
  const char* name;
  const char* value;  // null: a switch
  uint32_t verbs;
  const char* help;
  bool (*take)(std::string_view text, Request* request);
};

constexpr OptionRow kOptions[] = {
    {"--json", nullptr, kAll, "one JSON object a line; bytes that are no UTF-8: {\"hex\": \"...\"}",
     Switch<&Request::json>},
    {"--resp", nullptr, kDump, "commands, as `redis-cli --pipe` takes them",
     Switch<&Request::resp>},
    {"--from", "LSN", kDump, "the first record", TakeNumber<&Request::from>},
    {"--to", "LSN", kDump, "the last record", TakeNumber<&Request::to>},
    {"--from-time", "TIME", kDump, "records written at this time or later",
     TakeTime<&Request::from_ms>},
    {"--to-time", "TIME", kDump, "records written at this time or before",
     TakeTime<&Request::to_ms>},
    {"-f", nullptr, kTail, "go on with what is written from now on", Switch<&Request::follow>},
    {"-n", "COUNT", kTail, "how many of the last records come first (10; with -f none)",
     TakeNumber<&Request::count>},
    {"--from", "LSN", kTail, "begin with this record instead", TakeNumber<&Request::from>},
    {"--top", "COUNT", kStats, "rows of each table (10)", TakeNumber<&Request::top>},
    {"--separator", "TEXT", kStats, "what ends the prefix of a key (:)",
     TakeText<&Request::separator>},
    {"--prefix-bytes", "COUNT", kStats, "take so many bytes of each key as its prefix instead",
     TakeNumber<&Request::prefix_bytes>},
    {"--to", "DIR", kRestore, "the new directory", TakeText<&Request::target>},
    {"--until-lsn", "LSN", kRestore, "the last record", TakeNumber<&Request::until_lsn>},
    {"--until-time", "TIME", kRestore, "nothing written later than this",
     TakeTime<&Request::until_ms>},
    {"--dry-run", nullptr, kRepair, "say what would be done, and do nothing",
     Switch<&Request::dry_run>},
    {"--key-file", "FILE", kAll, "the keys of an encrypted log (wal-encryption-key-file)",
     TakeText<&Request::key_file>},
};

constexpr char kGeneral[] =
    "  --help       this text; behind a verb, that verb's\n"
    "  --version\n"
    "\n"
    "TIME is UTC, 2026-11-22T21:13:40.250Z or a beginning of it, or unix seconds or milliseconds.\n"
    "All verbs but `repair` take no lock and change nothing in the directory they read: a server\n"
    "may be running on it, and what it is just writing then looks like a torn tail.\n"
    "\n"
    "Exit status: 0 all is well (a torn tail too); 1 durable records were lost (or, of repair,\n"
    "would be), or list, verify or backup met a damaged checkpoint; 2 wrong usage, a directory\n"
    "that cannot be read or holds no log, or work that could not be done.\n";

std::string Padded(std::string text, size_t width) {
  text.resize(std::max(text.size() + 1, width), ' ');
  return text;
}

const Verb* FindVerb(std::string_view name) {
  for (const Verb& verb : kVerbs) {
    if (name == verb.name) return &verb;
  }
  return nullptr;
}

}  // namespace

std::span<const Verb> Verbs() { return kVerbs; }

std::vector<std::string_view> WalToolVerbs() {
  std::vector<std::string_view> names;
  for (const Verb& verb : kVerbs) names.push_back(verb.name);
  return names;
}

std::string WalToolHelp(std::string_view verb_name) {
  std::string text;
  if (verb_name.empty()) {
    text =
        "Usage: crabcache-wal VERB DIRECTORY [OPTION...]\n"
        "\n"
        "Reads, copies and repairs a write-ahead log.\n"
        "\n";
    for (const Verb& verb : kVerbs) text += "  " + Padded(verb.name, 11) + verb.summary + "\n";
    return text + "\n" + kGeneral;
  }
  const Verb* const verb = FindVerb(verb_name);
  if (verb == nullptr) return "";
  text = "Usage: crabcache-wal " + std::string(verb->name) + " " + verb->words +
         " [OPTION...]\n\n" + verb->text + "\n";
  const auto bit = 1u << (verb - kVerbs);
  for (const OptionRow& option : kOptions) {
    if ((option.verbs & bit) == 0) continue;
    const std::string value = option.value == nullptr ? "" : " " + std::string(option.value);
    text += "  " + Padded(option.name + value, 24) + option.help + "\n";
  }
  return text;
}

std::string ParseArguments(std::span<const std::string_view> arguments, Request* request) {
  if (arguments.empty()) return "what is to be done?";
  request->verb = FindVerb(arguments[0]);
  if (request->verb == nullptr) return "unknown verb " + std::string(arguments[0]);
  const auto bit = 1u << (request->verb - kVerbs);
  bool counted = false;
  std::vector<std::string_view> words;
  for (size_t i = 1; i < arguments.size(); ++i) {
    const std::string name(arguments[i]);
    if (name.size() < 2 || name[0] != '-') {
      words.push_back(arguments[i]);
      continue;
    }
    const OptionRow* found = nullptr;
    for (const OptionRow& option : kOptions) {
      if (name == option.name && (option.verbs & bit) != 0) found = &option;
    }
    if (found == nullptr) return "unknown option " + name + " of " + request->verb->name;
    std::string_view value;
    if (found->value != nullptr) {
      if (i + 1 == arguments.size()) return name + " needs a value: " + found->value;
      value = arguments[++i];
    }
    if (!found->take(value, request)) {
      return name + " needs a value: " + found->value + ", not '" + std::string(value) + "'";
    }
    counted |= name == "-n";
  }
  if (request->follow && !counted) request->count = 0;
  const bool two = bit == kBackup;
  if (words.size() != (two ? 2 : 1)) {
    return std::string(request->verb->name) + " needs " + request->verb->words;
  }
  const auto directory = [](std::string_view word) {
    while (word.size() > 1 && word.back() == '/') word.remove_suffix(1);
    return std::string(word);
  };
  request->directory = directory(words[0]);
  request->target = directory(two ? words[1] : std::string_view(request->target));
  if (bit == kRestore && request->target.empty()) return "restore needs --to DIR";
  if (request->until_lsn && request->until_ms) {
    return "restore takes --until-lsn or --until-time, not both";
  }
  if (request->resp && request->json) return "dump takes --json or --resp, not both";
  return "";
}

}  // namespace crab::wal

// What is printed from the rows: --help, docs/configuration.md, conf/crabcache.toml.
#include <algorithm>

#include "src/config_rows.h"

namespace crab {
namespace config {
namespace {

// An option that has a TOML name of its own and does something.
bool IsOwn(const Row& row) {
  return !row.has(kAccepted) && !row.has(kUnsupported) && !row.has(kOtherSpelling);
}

std::string Plain(std::string_view word) {
  const bool is_plain =
      !word.empty() && word.find_first_of(" \"'\\#\t\r\n") == word.npos &&
      std::all_of(word.begin(), word.end(), [](char c) { return c > 0x20 && c < 0x7f; });
  return is_plain ? std::string(word) : Quoted(word);
}

// A TOML basic string. Bytes that TOML does not take as they are become \u00xx escapes.
std::string TomlString(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (byte < 0x20 || byte == 0x7f) {
      constexpr char kHex[] = "0123456789abcdef";
      quoted += "\\u00";
      quoted += kHex[byte >> 4];
      quoted += kHex[byte & 15];
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string Values(const Row& row) {
  switch (row.kind) {
    case Kind::kBool:
      return "yes, no";
    case Kind::kInteger:
    case Kind::kMemory: {
      std::string text = std::to_string(row.min);
      if (row.max == INT64_MAX) return "from " + text;
      return text + " to " + std::to_string(row.max);
    }
    case Kind::kMemoryOrPercent:
      return "bytes, or 0% to 100%";
    case Kind::kOctal:
      return "octal, 0 to 777";
    case Kind::kChoice: {
      std::string text;
      for (const Choice& choice : row.choices) {
        if (!text.empty()) text += ", ";
        text += choice.name;
      }
      return text;
    }
    case Kind::kText:
      return "text";
    case Kind::kCustom:
      break;
  }
  return row.has(kManyWords) ? "words" : "see the sentence";
}

std::string Shown(std::string_view text) {
  return text.empty() ? std::string("empty") : "`" + std::string(text) + "`";
}

void AppendTable(const std::string& title, std::string_view rows, std::string* page) {
  if (rows.empty()) return;
  *page += "\n### " + title +
           "\n\n| TOML | CONFIG name | default | values | at run time | what it does |\n"
           "| --- | --- | --- | --- | --- | --- |\n";
  *page += rows;
}

std::string TableRow(const Row& row) {
  std::string text = "| `" + TomlName(row) + "` | `" + std::string(row.name) + '`';
  if (!row.alias.empty()) text += ", `" + std::string(row.alias) + '`';
  text += " | " + Shown(row.default_text) + " | " + Values(row);
  if (!row.unit.empty()) text += " (" + std::string(row.unit) + ')';
  text += row.has(kAtStartOnly) || row.has(kFixed) ? " | no"
          : row.has(kProtected)                    ? " | protected"
                                                   : " | yes";
  return text + " | " + std::string(row.sentence) + " |\n";
}

template <typename Wanted>
void AppendTables(Wanted wanted, std::string* page) {
  std::string title;
  std::string rows;
  for (const Row& row : Rows()) {
    if (!row.section.empty()) {
      AppendTable(title, rows, page);
      rows.clear();
      title = row.section;
    }
    if (wanted(row)) rows += TableRow(row);
  }
  AppendTable(title, rows, page);
}

// `text` in lines of at most 98 columns, each behind "# ".
std::string Commented(std::string_view text) {
  constexpr size_t kColumns = 98;
  std::string lines;
  while (!text.empty()) {
    size_t end = text.size();
    if (end > kColumns) end = text.rfind(' ', kColumns);
    if (end == std::string_view::npos) end = text.size();
    lines.append("# ").append(text.substr(0, end)).append("\n");
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return lines;
}

}  // namespace

std::vector<std::string> DirectiveValues(const Row& row, const Config& config) {
  std::vector<std::string> lines;
  if (row.name == "save" && !config.save.empty()) {
    for (const SavePoint& point : config.save) {
      lines.push_back(std::to_string(point.seconds) + ' ' + std::to_string(point.changes));
    }
    return lines;
  }
  const std::string value = ValueText(row, config);
  std::vector<std::string> words;
  if (!row.has(kManyWords) || value.empty() || !SplitWords(value, &words)) words = {value};
  if (row.name == "client-output-buffer-limit") {
    for (size_t i = 0; i + 3 < words.size(); i += 4) {
      lines.push_back(words[i] + ' ' + words[i + 1] + ' ' + words[i + 2] + ' ' + words[i + 3]);
    }
    return lines;
  }
  std::string line;
  for (const std::string& word : words) {
    if (&word != &words.front()) line += ' ';
    line += Plain(word);
  }
  return {line};
}

std::string TomlValue(const Row& row, const Config& config) {
  std::string value = ValueText(row, config);
  switch (row.kind) {
    case Kind::kBool:
      return value == "yes" ? "true" : "false";
    case Kind::kInteger:
    case Kind::kMemory:
      return value;
    case Kind::kMemoryOrPercent:
      return value.ends_with('%') ? TomlString(value) : value;
    case Kind::kOctal:
    case Kind::kChoice:
    case Kind::kText:
      return TomlString(value);
    case Kind::kCustom:
      break;
  }
  if (row.name == "shards") return value;
  if (row.name == "proc-title-template" || !row.has(kManyWords)) return TomlString(value);
  std::vector<std::string> elements = DirectiveValues(row, config);
  if (value.empty()) return "[]";
  const bool by_word = row.name == "bind" || row.name == "latency-tracking-info-percentiles" ||
                       row.name == "oom-score-adj-values" || row.name == "notify-keyspace-events";
  if (by_word) (void)SplitWords(value, &elements);
  std::string array = "[";
  for (const std::string& element : elements) {
    if (&element != &elements.front()) array += ", ";
    array += row.name == "latency-tracking-info-percentiles" ? element : TomlString(element);
  }
  return array + ']';
}

std::string HelpText() {
  std::string text =
      "Usage: crabcache-server [CONFIG] [--option value ...] [-]\n"
      "\n"
      "  CONFIG      a file: TOML when its name ends in .toml, else a redis.conf\n"
      "  -           reads a redis.conf from standard input as well\n"
      "  --check     checks the configuration and leaves\n"
      "  --help      prints this and leaves (-h)\n"
      "  --version   prints the version and leaves (-v)\n"
      "\n"
      "The environment is read over the file and the command line over the environment: the\n"
      "variable of an option is CRABCACHE_ and its TOML name in capitals, CRABCACHE_ENABLE_WAL.\n"
      "\n"
      "  crabcache-server --port 7000 --appendonly yes --appendfsync always\n"
      "  crabcache-server /etc/redis/redis.conf --save ''\n";
  for (const Row& row : Rows()) {
    if (!row.section.empty()) {
      const Row* in_section = &row;
      const Row* const end = Rows().data() + Rows().size();
      while (in_section != end && !IsOwn(*in_section) &&
             (in_section == &row || in_section->section.empty())) {
        ++in_section;
      }
      const bool has_own = in_section != end && IsOwn(*in_section) &&
                           (in_section == &row || in_section->section.empty());
      if (has_own) text.append("\n").append(row.section).append("\n");
    }
    if (!IsOwn(row)) continue;
    text.append("  --").append(row.name);
    if (!row.alias.empty()) text.append(", --").append(row.alias);
    text.append("  [").append(row.default_text).append("]  ").append(Values(row)).append("\n");
    text.append("      ").append(row.sentence).append("\n");
  }
  text +=
      "\nThe other directives of a redis.conf are known too; docs/configuration.md lists them.\n";
  return text;
}

}  // namespace config

std::string ConfigurationPage() {
  std::string page =
      "# Configuration\n"
      "\n"
      "This page is printed from the rows in `src/config_rows.cc`; a test holds the two equal.\n"
      "\n"
      "`crabcache-server [CONFIG] [--option value ...] [-]`\n"
      "\n"
      "An option takes the last value it is given, in this order:\n"
      "\n"
      "1. its default;\n"
      "2. the file CONFIG, then standard input where `-` is given;\n"
      "3. the environment: `CRABCACHE_` and the TOML name in capitals, dots as underscores, as in\n"
      "   `CRABCACHE_ENABLE_WAL=true` or `CRABCACHE_WAL_SYNC_POLICY=sync`;\n"
      "4. the command line: `--port 7000 --appendonly yes --save ''`.\n"
      "\n"
      "A CONFIG whose name ends in `.toml` is TOML: the options of the log are in the table "
      "`[wal]`,\n"
      "all others are keys at the top, before it. Any other CONFIG is a `redis.conf`, with "
      "quotes,\n"
      "`include`, units (`k` = 1000, `kb` = 1024, likewise `m`, `mb`, `g`, `gb`) and repeated\n"
      "directives; `save` lines add up, also over file and command line. Both files take every "
      "name\n"
      "in the tables below. `--check` reads all of it, prints what is wrong, each with file and "
      "line,\n"
      "and leaves; a start does the same and refuses. An unknown variable is only warned of.\n"
      "\n"
      "`CONFIG SET` changes what says yes under \"at run time\"; \"protected\" needs\n"
      "`enable-protected-configs`. `CONFIG REWRITE` writes the present values into CONFIG and "
      "keeps\n"
      "its comments and its order; values that stand in the file already keep their spelling.\n"
      "\n"
      "`appendfsync` is Redis' spelling of `wal-sync-policy` (no = none, everysec = async, always "
      "=\n"
      "sync), and `aof-load-truncated no` of `wal-recovery strict`. Each name answers `CONFIG GET` "
      "in\n"
      "its own spelling.\n"
      "\n"
      "## Options\n";
  config::AppendTables(config::IsOwn, &page);
  page +=
      "\n## Not supported yet\n"
      "\n"
      "Ignoring these would mislead, so that any value but the default is refused. The same holds "
      "for\n"
      "the directives `rename-command` and `loadmodule`, and for `user` except for the line of an "
      "open\n"
      "default user that Redis itself writes.\n";
  config::AppendTables([](const config::Row& row) { return row.has(config::kUnsupported); }, &page);
  page +=
      "\n## Accepted without effect\n"
      "\n"
      "A `redis.conf` may contain these, and `CONFIG GET` and `CONFIG SET` know them, with their "
      "types\n"
      "and ranges; but nothing in this version depends on them. A value other than the default is\n"
      "warned of at the start. The sentence tells what Redis does with it, or a later version "
      "will.\n";
  config::AppendTables(
      [](const config::Row& row) {
        return row.has(config::kAccepted) && !row.has(config::kUnsupported);
      },
      &page);
  return page;
}

std::string ExampleToml() {
  const Config defaults;
  std::string text =
      "# CrabCache's options, each with its default.\n"
      "# Start with: crabcache-server conf/crabcache.toml\n"
      "# Options of Redis that have no effect here are not listed: see docs/configuration.md.\n";
  for (const bool in_table : {false, true}) {
    if (in_table) text += "\n[wal]\n";
    for (const config::Row& row : config::Rows()) {
      if (!config::IsOwn(row) || row.toml.starts_with("wal.") != in_table) continue;
      if (!row.section.empty()) {
        text.append("\n# ---- ").append(row.section).append(" ----\n");
      }
      text.append("\n").append(config::Commented(row.sentence));
      if (row.kind == config::Kind::kChoice) {
        text.append(config::Commented("One of: " + config::Values(row)));
      }
      const std::string name = config::TomlName(row);
      text.append(in_table ? name.substr(4) : name).append(" = ");
      text.append(config::TomlValue(row, defaults)).append("\n");
    }
  }
  return text;
}

}  // namespace crab

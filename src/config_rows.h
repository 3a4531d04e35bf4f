// The rows behind Config: what one option is called, what values it takes, where its value lies.
// Private to src/config*.cc and its tests. Frozen: one constant table, built by the compiler.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/config.h"

namespace crab::config {

enum class Kind : uint8_t {
  kBool,             // yes, no; true and false in TOML
  kInteger,          // within [min, max]
  kMemory,           // bytes, with an optional unit
  kMemoryOrPercent,  // the same, or 0% to 100%, kept as a negative number
  kOctal,            // mode bits
  kChoice,           // one of `choices`, in any case
  kText,
  kCustom,  // has a grammar of its own: `custom`
};

enum Flag : uint16_t {
  kAtStartOnly = 1 << 0,  // Redis' immutable: CONFIG SET refuses
  kProtected = 1 << 1,    // CONFIG SET asks enable-protected-configs
  kManyWords = 1 << 2,    // the value may be several words; one word is split at its spaces
  kAddsUp = 1 << 3,       // a repeated directive adds to the one before: save
  kAccepted = 1 << 4,     // known, typed and kept, but nothing in this server depends on it
  // As kAccepted, but ignoring it would mislead (a port that is not served, a file that is not
  // encrypted): only the default is taken.
  kUnsupported = 1 << 5,
  // Redis' spelling of another row's value: no option of its own in TOML, help and documentation.
  kOtherSpelling = 1 << 6,
  // As kAtStartOnly, for options Redis does not have: CONFIG SET of the value in force passes.
  // Tools write back all that they read, and skip only the options that are immutable in Redis.
  kFixed = 1 << 7,
};

struct Choice {
  std::string_view name;
  int64_t value;
};

// Where a value lies in a Config: as a number or as text; neither = Config::accepted.
struct Place {
  int64_t (*get)(const Config&) = nullptr;
  void (*set)(Config&, int64_t) = nullptr;
  std::string Config::*text = nullptr;
};

// The grammar of a kCustom row. `read` changes the Config only when it returns OK. A row without a
// field has `check` instead, which yields the text to keep. The error is a bare detail, as Redis
// words it behind the dash of "CONFIG SET failed".
struct Custom {
  Status (*read)(std::span<const std::string> words, Config& config) = nullptr;
  std::string (*print)(const Config& config) = nullptr;
  Result<std::string> (*check)(std::span<const std::string> words) = nullptr;
};

struct Row {
  std::string_view name = {};     // as CONFIG GET spells it
  std::string_view alias = {};    // an older or Redis' own name of the same row, "" = none
  std::string_view toml = {};     // "" = name with underscores; of the log: "wal.sync_policy"
  std::string_view section = {};  // of the documents; "" = the section of the row before
  Kind kind;
  uint16_t flags = 0;
  int64_t min = 0;
  int64_t max = 0;
  std::span<const Choice> choices = {};
  Place place = {};
  Custom custom = {};
  std::string_view default_text = {};  // as a redis.conf spells it
  std::string_view unit = {};          // of a number, for the documents
  std::string_view sentence = {};      // what it does

  bool has(Flag flag) const { return (flags & flag) != 0; }
};

// All rows, in the order of the documents and of CONFIG GET.
std::span<const Row> Rows();

// The row called `name` in any case, by its name or alias: what CONFIG GET and SET know.
const Row* FindRow(std::string_view name);
// As FindRow, and by its TOML name; '-', '_' and '.' are one: what TOML, the environment and the
// command line know.
const Row* FindRowLoosely(std::string_view name);
// The known name that is closest to `name`, "" when none is close.
std::string_view NearestName(std::string_view name);

std::string TomlName(const Row& row);         // "wal.sync_policy", "maxmemory"
std::string EnvironmentName(const Row& row);  // "CRABCACHE_WAL_SYNC_POLICY"

// Sets the row's value. The error is a bare detail, as above; the Config is then unchanged.
Status SetValue(const Row& row, std::span<const std::string> words, Config& config);
// The value as CONFIG GET prints it.
std::string ValueText(const Row& row, const Config& config);
// The values of the directives that set the row in a redis.conf, one line each.
std::vector<std::string> DirectiveValues(const Row& row, const Config& config);
// The value as TOML writes it: true, 16, "1gb", ["60 1000"].
std::string TomlValue(const Row& row, const Config& config);

// One line of a redis.conf or one CONFIG value into words: quotes, \x41 and \n escapes as Redis
// takes them. False for quotes that do not close or are followed by more of a word.
bool SplitWords(std::string_view line, std::vector<std::string>* words);
// `word` in double quotes, so that SplitWords gives it back.
std::string Quoted(std::string_view word);

// A number of bytes with an optional unit. Like Redis it saturates what 64 bits do not hold.
bool ReadBytes(std::string_view text, int64_t* bytes);

bool EqualsIgnoreCase(std::string_view a, std::string_view b);

// --help: the usage and a line per option that does something.
std::string HelpText();

}  // namespace crab::config

// Config's own functions, and the start: defaults, file, environment, command line, each over the
// one before. All four end in Loader::Apply, which names what is wrong and goes on, so that one
// look at the errors is enough.
#include "src/config.h"

#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <istream>
#include <iterator>
#include <memory>
#include <optional>
#include <set>

#define TOML_HEADER_ONLY 0
#include <toml++/toml.h>

#include "src/config_rows.h"
#include "src/config_source.h"
#include "utils/check.h"
#include "utils/glob.h"
#include "utils/version.h"

namespace crab {

using config::Kind;
using config::Row;

Config::Config() : accepted(config::Rows().size()) {
  for (const Row& row : config::Rows()) {
    const std::string standard(row.default_text);
    const Status status = config::SetValue(row, {&standard, 1}, *this);
    CHECK(status.ok());
  }
}

std::vector<std::pair<std::string, std::string>> Config::Get(
    std::span<const std::string_view> patterns) const {
  std::vector<std::pair<std::string, std::string>> found;
  const auto add = [&](const Row& row, std::string_view name) {
    for (const auto& pair : found) {
      if (config::EqualsIgnoreCase(pair.first, name)) return;
    }
    std::string value = config::ValueText(row, *this);
    if (row.name == "dir") {  // Redis answers with where it is, whatever it was told
      std::error_code error;
      value = std::filesystem::current_path(error).string();
    }
    found.emplace_back(name, std::move(value));
  };
  for (const std::string_view pattern : patterns) {
    if (pattern.find_first_of("[*?") == std::string_view::npos) {
      if (const Row* row = config::FindRow(pattern)) add(*row, pattern);
      continue;
    }
    for (const Row& row : config::Rows()) {
      for (const std::string_view name : {row.name, row.alias}) {
        if (!name.empty() && GlobMatch(pattern, name, /*ignore_case=*/true)) add(row, name);
      }
    }
  }
  return found;
}

Status Config::SetFailed(std::string_view name, std::string_view detail) {
  std::string text = "ERR CONFIG SET failed (possibly related to argument '";
  text.append(name).append("') - ").append(detail);
  return Status::Error(std::move(text));
}

Result<std::vector<std::string_view>> Config::Set(std::span<const Pair> pairs, bool local_client) {
  std::vector<const Row*> rows;
  for (const auto& [name, value] : pairs) {
    const Row* row = config::FindRow(name);
    if (row == nullptr) {
      std::string text = "ERR Unknown option or number of arguments for CONFIG SET - '";
      text.append(name).append("'");
      return Status::Error(std::move(text));
    }
    if (row->has(config::kAtStartOnly)) return SetFailed(name, "can't set immutable config");
    const bool may_protected =
        enable_protected_configs == Permission::kEverybody ||
        (enable_protected_configs == Permission::kLocalConnections && local_client);
    if (row->has(config::kProtected) && !may_protected) {
      return SetFailed(name, "can't set protected config");
    }
    // Two names of one option pass, and the later one wins: in Redis too.
    for (size_t i = 0; i < rows.size(); ++i) {
      const bool same_name = config::EqualsIgnoreCase(pairs[i].first, name);
      if (rows[i] == row && same_name) return SetFailed(name, "duplicate parameter");
    }
    rows.push_back(row);
  }

  Config next = *this;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string value(pairs[i].second);
    if (rows[i]->has(config::kFixed)) {
      if (value == config::ValueText(*rows[i], *this)) continue;
      return SetFailed(pairs[i].first, "can't set immutable config");
    }
    const Status status = config::SetValue(*rows[i], {&value, 1}, next);
    if (!status.ok()) return SetFailed(pairs[i].first, status.message());
  }
  std::vector<std::string_view> changed;
  for (const Row& row : config::Rows()) {
    if (row.has(config::kOtherSpelling)) continue;
    if (config::ValueText(row, *this) != config::ValueText(row, next)) changed.push_back(row.name);
  }
  *this = std::move(next);
  return changed;
}

namespace {

constexpr size_t kFileBytesMax = 16 << 20;  // a stock file has 100 KiB

}  // namespace

namespace config {

Result<std::string> ReadConfigFile(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  const auto failed = [&](int error) {
    return Status::Error("cannot read configuration file " + path + ": " + std::strerror(error),
                         error);
  };
  if (file == nullptr) return failed(errno);
  std::string text;
  char block[1 << 16];
  while (const size_t size = std::fread(block, 1, sizeof(block), file.get())) {
    text.append(block, size);
    if (text.size() > kFileBytesMax) return failed(EFBIG);
  }
  if (std::ferror(file.get()) != 0) return failed(errno);
  return text;
}

bool IsTomlFile(std::string_view path) {
  return path.size() >= 5 && EqualsIgnoreCase(path.substr(path.size() - 5), ".toml");
}

}  // namespace config

namespace {

constexpr size_t kErrorsMax = 50;     // more than a screen helps nobody
constexpr int kIncludeDepthMax = 16;  // a file that includes itself ends here
constexpr std::string_view kEnvironmentPrefix = "CRABCACHE_";

bool IsOneOf(std::string_view text, std::initializer_list<std::string_view> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](std::string_view word) { return config::EqualsIgnoreCase(text, word); });
}

// The command line, taken apart before anything is read.
struct Arguments {
  struct Option {
    std::string name;
    std::vector<std::string> words;
  };
  std::string file;
  bool standard_input = false;
  bool help = false, version = false, check = false;
  std::vector<Option> options;
  std::vector<std::string> errors;
};

// `--name`, `--name value` in one piece (as container files like to write it) and `--name=value`.
Arguments::Option TakeOption(std::string_view argument) {
  argument.remove_prefix(2);
  const size_t equals = argument.find('=');
  if (equals != std::string_view::npos && config::FindRowLoosely(argument.substr(0, equals))) {
    return {std::string(argument.substr(0, equals)), {std::string(argument.substr(equals + 1))}};
  }
  Arguments::Option option;
  if (config::SplitWords(argument, &option.words) && option.words.size() > 1) {
    option.name = option.words.front();
    option.words.erase(option.words.begin());
  } else {
    option.name = argument;
    option.words.clear();
  }
  return option;
}

Arguments TakeArguments(int argc, const char* const* argv) {
  Arguments taken;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const bool may_be_file = i == 1;
    if (argument == "-" && (may_be_file || i == argc - 1)) {
      taken.standard_input = true;
    } else if (argument == "--help" || (may_be_file && argument == "-h")) {
      taken.help = true;
    } else if (argument == "--version" || (may_be_file && argument == "-v")) {
      taken.version = true;
    } else if (argument == "--check") {
      taken.check = true;
    } else if (argument.starts_with("--")) {
      taken.options.push_back(TakeOption(argument));
    } else if (may_be_file && !argument.starts_with('-')) {
      taken.file = argument;
    } else if (!taken.options.empty()) {
      taken.options.back().words.emplace_back(argument);
    } else {
      taken.errors.push_back("command line: unexpected argument '" + std::string(argument) +
                             "'; options begin with --");
    }
  }
  return taken;
}

// A TOML value as the words a redis.conf would have, or nothing where its type does not fit.
std::optional<std::vector<std::string>> TomlWords(const Row& row, const toml::node& node) {
  const auto one = [](std::string word) { return std::vector<std::string>{std::move(word)}; };
  const bool is_switch = row.kind == Kind::kBool || row.kind == Kind::kChoice ||
                         (row.kind == Kind::kCustom && row.has(config::kOtherSpelling));
  const bool is_text = row.kind != Kind::kBool && row.kind != Kind::kInteger &&
                       row.name != std::string_view("shards");
  const bool is_number = row.kind == Kind::kInteger || row.kind == Kind::kMemory ||
                         row.kind == Kind::kMemoryOrPercent || row.name == "shards";
  if (const auto* boolean = node.as_boolean(); boolean != nullptr && is_switch) {
    return one(boolean->get() ? "yes" : "no");
  }
  if (const auto* string = node.as_string(); string != nullptr && is_text) {
    return one(string->get());
  }
  if (const auto* integer = node.as_integer()) {
    if (is_number) return one(std::to_string(integer->get()));
    if (row.kind == Kind::kOctal && integer->get() >= 0) {
      char digits[32];
      std::snprintf(digits, sizeof(digits), "%llo", static_cast<unsigned long long>(**integer));
      return one(digits);
    }
  }
  const auto* array = node.as_array();
  if (array == nullptr || !row.has(config::kManyWords)) return std::nullopt;
  std::vector<std::string> words;
  for (const toml::node& element : *array) {
    if (const auto* string = element.as_string()) {
      std::vector<std::string> parts;
      if (!config::SplitWords(string->get(), &parts)) return std::nullopt;
      words.insert(words.end(), parts.begin(), parts.end());
    } else if (const auto* integer = element.as_integer()) {
      words.push_back(std::to_string(integer->get()));
    } else if (const auto* real = element.as_floating_point()) {
      char digits[32];
      std::snprintf(digits, sizeof(digits), "%.15g", real->get());
      words.emplace_back(digits);
    } else {
      return std::nullopt;
    }
  }
  if (words.empty()) words.emplace_back();
  return words;
}

std::string_view TomlExpectation(const Row& row) {
  switch (row.kind) {
    case Kind::kBool:
      return "true or false";
    case Kind::kInteger:
      return "an integer";
    case Kind::kMemory:
    case Kind::kMemoryOrPercent:
      return "an integer, or a string such as \"64mb\"";
    case Kind::kOctal:
      return "a string such as \"700\"";
    case Kind::kChoice:
    case Kind::kText:
      return "a string";
    case Kind::kCustom:
      break;
  }
  return row.has(config::kManyWords) ? "an array, or a string" : "a single value";
}

// Finds a byte by toml++'s line and column, which counts code points.
class TomlPositions {
 public:
  explicit TomlPositions(std::string_view text) : text_(text) {
    for (size_t at = 0; at != std::string_view::npos && at <= text.size();) {
      line_begins_.push_back(at);
      at = text.find('\n', at);
      if (at != std::string_view::npos) ++at;
    }
  }

  size_t Offset(const toml::source_position& position) const {
    if (position.line == 0 || position.line > line_begins_.size()) return text_.size();
    size_t at = line_begins_[position.line - 1];
    for (toml::source_index column = 1; column < position.column && at < text_.size(); ++column) {
      ++at;
      while (at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xc0) == 0x80) ++at;
    }
    return at;
  }

  // Behind the line in which `at` lies.
  size_t NextLine(size_t at) const {
    const size_t end = text_.find('\n', at);
    return end == std::string_view::npos ? text_.size() : end + 1;
  }

 private:
  std::string_view text_;
  std::vector<size_t> line_begins_;
};

class Loader {
 public:
  Loader(Config& config, std::vector<std::string>& warnings)
      : config_(config), warnings_(warnings) {}

  const std::vector<std::string>& errors() const { return errors_; }
  void AddError(std::string text) { errors_.push_back(std::move(text)); }

  // One directive of whatever source, `where` = "redis.conf:12".
  void Apply(const std::string& where, std::string_view name, std::vector<std::string> words,
             const Row* row) {
    if (row == nullptr) {
      AddError(where + ": " + Unknown(name));
      return;
    }
    // Directives that add up do so over file and command line together.
    if (row->has(config::kAddsUp) && seen_.contains(row) && words != std::vector<std::string>{""}) {
      std::vector<std::string> all;
      (void)config::SplitWords(config::ValueText(*row, config_), &all);
      for (const std::string& word : words) {
        std::vector<std::string> parts;
        if (config::SplitWords(word, &parts)) all.insert(all.end(), parts.begin(), parts.end());
      }
      words = std::move(all);
    }
    const Status status = config::SetValue(*row, words, config_);
    if (!status.ok()) {
      AddError(where + ": " + std::string(name) + ": " + std::string(status.message()));
      return;
    }
    const bool is_first = seen_.insert(row).second;
    const std::string value = config::ValueText(*row, config_);
    const bool turns_off = row->has(config::kAddsUp) && value.empty();
    if (row->has(config::kAccepted) && is_first && !turns_off &&
        value != config::ValueText(*row, defaults_)) {
      warnings_.push_back(where + ": '" + std::string(name) + "' has no effect in this version");
    }
  }

  void ReadRedisConf(const std::string& name, std::string_view text, int depth) {
    size_t number = 0;
    while (!text.empty()) {
      const size_t end = text.find('\n');
      const std::string_view line = text.substr(0, end);
      text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
      const std::string where = name + ':' + std::to_string(++number);
      const size_t first = line.find_first_not_of(" \t\r");
      if (first == std::string_view::npos || line[first] == '#') continue;
      std::vector<std::string> words;
      if (!config::SplitWords(line, &words)) {
        AddError(where + ": quotes do not match");
        continue;
      }
      if (words.empty()) continue;
      const std::string directive = std::move(words.front());
      words.erase(words.begin());
      if (!ApplySpecial(where, directive, words, depth)) {
        Apply(where, directive, std::move(words), config::FindRowLoosely(directive));
      }
    }
  }

  void ReadToml(const std::string& name, const std::string& text) {
    try {  // the one library here that throws; nothing of it passes this door
      const toml::table table = toml::parse(text, name);
      ApplyTable(name, "", table);
    } catch (const toml::parse_error& error) {
      AddError(name + ':' + std::to_string(error.source().begin.line) + ": " +
               std::string(error.description()));
    }
  }

  void ReadFileOf(const std::string& path, int depth) {
    Result<std::string> text = config::ReadConfigFile(path);
    if (!text.ok()) {
      AddError(std::string(text.message()));
    } else if (config::IsTomlFile(path)) {
      ReadToml(path, *text);
    } else {
      ReadRedisConf(path, *text, depth);
    }
  }

  // CRABCACHE_<OPTION>=value. What is unknown is a warning only: other programs may own it, and
  // Kubernetes sets CRABCACHE_SERVICE_HOST and the like beside a service of this name.
  void ReadEnvironment(const char* const* environment) {
    seen_.clear();
    for (; environment != nullptr && *environment != nullptr; ++environment) {
      const std::string_view entry = *environment;
      const size_t equals = entry.find('=');
      if (!entry.starts_with(kEnvironmentPrefix) || equals == std::string_view::npos) continue;
      const std::string variable(entry.substr(0, equals));
      std::string value(entry.substr(equals + 1));
      const Row* row = config::FindRowLoosely(variable.substr(kEnvironmentPrefix.size()));
      if (row == nullptr) {
        warnings_.push_back("environment: " + variable + " names no option; ignored");
        continue;
      }
      if (row->name == "port" && value.starts_with("tcp://")) {
        warnings_.push_back("environment: " + variable +
                            " is an address set by a service manager; ignored");
        continue;
      }
      if (row->kind == Kind::kBool && IsOneOf(value, {"true", "1", "on"})) value = "yes";
      if (row->kind == Kind::kBool && IsOneOf(value, {"false", "0", "off"})) value = "no";
      Apply("environment", variable, {std::move(value)}, row);
    }
  }

  void ReadOptions(const std::vector<Arguments::Option>& options) {
    for (const Arguments::Option& option : options) {
      const Row* row = config::FindRowLoosely(option.name);
      std::vector<std::string> words = option.words;
      if (words.empty() && row != nullptr && row->name == "save") words.emplace_back();
      Apply("command line", option.name, std::move(words), row);
    }
  }

  // What is legal but wants to be known.
  void WarnOfRisks() {
    const bool loopback_only =
        std::all_of(config_.bind.begin(), config_.bind.end(), [](const std::string& address) {
          return address.starts_with("127.") || address.starts_with("-127.") || address == "::1" ||
                 address == "-::1" || address == "localhost";
        });
    if (config_.port != 0 && !loopback_only && !config_.protected_mode &&
        config_.requirepass.empty()) {
      warnings_.push_back(
          "no password is set, protected-mode is off and bind is not the loopback alone: everyone "
          "who can reach this port can read and change all data");
    }
  }

 private:
  static std::string Unknown(std::string_view name) {
    std::string text = "unknown option '" + std::string(name) + "'";
    const std::string_view nearest = config::NearestName(name);
    if (!nearest.empty()) text.append("; did you mean '").append(nearest).append("'?");
    return text;
  }

  // Directives of a redis.conf that are not options. False = not one of them.
  bool ApplySpecial(const std::string& where, const std::string& directive,
                    const std::vector<std::string>& words, int depth) {
    if (config::EqualsIgnoreCase(directive, "include")) {
      Include(where, words, depth);
      return true;
    }
    if (config::EqualsIgnoreCase(directive, "user")) {
      // Redis' CONFIG REWRITE leaves the line of its open default user in every file.
      const std::vector<std::string> open = {"default", "on", "nopass", "~*", "&*", "+@all"};
      if (words != open) {
        AddError(where + ": user: this version has no users of its own; see requirepass");
      }
      return true;
    }
    if (IsOneOf(directive, {"rename-command", "loadmodule"})) {
      AddError(where + ": " + directive + ": this version does not support it");
      return true;
    }
    return false;
  }

  void Include(const std::string& where, const std::vector<std::string>& words, int depth) {
    if (words.size() != 1) {
      AddError(where + ": include: wrong number of arguments");
      return;
    }
    if (depth == kIncludeDepthMax) {
      AddError(where + ": include: more than " + std::to_string(kIncludeDepthMax) +
               " files deep; does a file include itself?");
      return;
    }
    glob_t found = {};
    if (words[0].find_first_of("*?[") != std::string::npos &&
        ::glob(words[0].c_str(), 0, nullptr, &found) == 0) {
      for (size_t i = 0; i < found.gl_pathc && errors_.size() < kErrorsMax; ++i) {
        ReadFileOf(found.gl_pathv[i], depth + 1);
      }
    } else if (words[0].find_first_of("*?[") == std::string::npos) {
      ReadFileOf(words[0], depth + 1);
    }
    ::globfree(&found);
  }

  void ApplyTable(const std::string& name, const std::string& prefix, const toml::table& table) {
    for (auto&& [key, node] : table) {
      const std::string path = prefix + std::string(key.str());
      const std::string where = name + ':' + std::to_string(key.source().begin.line);
      if (const toml::table* inner = node.as_table()) {
        if (path == "wal") {
          ApplyTable(name, "wal.", *inner);
        } else {
          AddError(std::string(where).append(": unknown table '").append(path) +
                   "'; [wal] is the only one");
        }
        continue;
      }
      const Row* row = config::FindRowLoosely(path);
      if (row == nullptr) {
        AddError(where + ": " + Unknown(path));
        continue;
      }
      std::optional<std::vector<std::string>> words = TomlWords(*row, node);
      if (!words) {
        AddError(std::string(where)
                     .append(": ")
                     .append(path)
                     .append(": expects ")
                     .append(TomlExpectation(*row)));
        continue;
      }
      Apply(where, path, *std::move(words), row);
    }
  }

  Config& config_;
  std::vector<std::string>& warnings_;
  const Config defaults_;
  std::vector<std::string> errors_;
  std::set<const Row*> seen_;
};

Status AllErrors(const std::vector<std::string>& errors) {
  std::string text;
  for (size_t i = 0; i < errors.size() && i < kErrorsMax; ++i) {
    if (i > 0) text += '\n';
    text += errors[i];
  }
  if (errors.size() > kErrorsMax) {
    text += "\nand " + std::to_string(errors.size() - kErrorsMax) + " more";
  }
  return Status::Error(std::move(text));
}

}  // namespace

namespace config {

Status ReadRedisConfText(const std::string& text, Config* config) {
  std::vector<std::string> warnings;
  Loader loader(*config, warnings);
  loader.ReadRedisConf("line", text, 0);
  return loader.errors().empty() ? Status::Ok() : AllErrors(loader.errors());
}

Status ReadTomlText(const std::string& text, Config* config) {
  std::vector<std::string> warnings;
  Loader loader(*config, warnings);
  loader.ReadToml("line", text);
  return loader.errors().empty() ? Status::Ok() : AllErrors(loader.errors());
}

Result<TomlLayout> FindTomlValues(const std::string& text) {
  TomlLayout layout;
  layout.top_end = text.size();
  const TomlPositions positions(text);
  bool has_header = false;
  size_t last_value_end = 0;
  const auto add = [&](const std::string& path, const toml::node& node) {
    const Row* row = FindRowLoosely(path);
    const std::optional<std::vector<std::string>> words =
        row == nullptr ? std::nullopt : TomlWords(*row, node);
    Config read;
    if (!words || !SetValue(*row, *words, read).ok()) return;
    layout.values[row] = {positions.Offset(node.source().begin),
                          positions.Offset(node.source().end), ValueText(*row, read)};
  };
  try {
    const toml::table table = toml::parse(text);
    for (auto&& [key, node] : table) {
      const toml::table* inner = node.as_table();
      if (inner == nullptr) {
        add(std::string(key.str()), node);
        last_value_end = std::max(last_value_end, positions.Offset(node.source().end));
        continue;
      }
      const size_t begin = positions.Offset(node.source().begin);
      const bool is_header = begin < text.size() && text[begin] == '[';
      has_header = has_header || is_header;
      if (key.str() == "wal") {
        for (auto&& [inner_key, value] : *inner) add("wal." + std::string(inner_key.str()), value);
        if (is_header) layout.wal_header_end = positions.NextLine(begin);
        layout.wal_is_dotted = !is_header && !inner->is_inline();
      }
      if (is_header) layout.top_end = std::min(layout.top_end, begin);
    }
  } catch (const toml::parse_error& error) {
    return Status::Error(std::string(error.description()));
  }
  if (has_header && last_value_end != 0) layout.top_end = positions.NextLine(last_value_end);
  return layout;
}

}  // namespace config

Result<Launch> LoadConfig(int argc, const char* const* argv, const char* const* environment,
                          std::istream& standard_input) {
  const Arguments arguments = TakeArguments(argc, argv);
  Launch launch;
  if (arguments.help || arguments.version) {
    launch.serve = false;
    launch.text = "CrabCache server v=";
    launch.text.append(kCrabcacheVersion).append(" redis=").append(kRedisVersion).append("\n");
    if (arguments.help) launch.text = config::HelpText();
    return launch;
  }
  Loader loader(launch.config, launch.warnings);
  for (const std::string& error : arguments.errors) loader.AddError(error);
  if (!arguments.file.empty()) {
    std::error_code error;
    launch.config.file = std::filesystem::absolute(arguments.file, error).string();
    loader.ReadFileOf(arguments.file, 0);
  }
  if (arguments.standard_input) {
    std::string text(kFileBytesMax + 1, '\0');
    standard_input.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<size_t>(standard_input.gcount()));
    if (text.size() > kFileBytesMax) {
      loader.AddError("standard input: more than 16 MiB");
    } else {
      loader.ReadRedisConf("standard input", text, 0);
    }
  }
  loader.ReadEnvironment(environment);
  loader.ReadOptions(arguments.options);
  if (!loader.errors().empty()) return AllErrors(loader.errors());
  loader.WarnOfRisks();
  if (arguments.check) {
    launch.serve = false;
    for (const std::string& warning : launch.warnings) launch.text += "warning: " + warning + '\n';
    launch.text += "the configuration is good\n";
  }
  return launch;
}

}  // namespace crab

// How the kinds of rows read and print their values, and how words are quoted.
#include <algorithm>
#include <charconv>
#include <limits>

#include "src/config_rows.h"
#include "utils/check.h"
#include "utils/number.h"

namespace crab::config {
namespace {

Status OutOfRange(const Row& row) {
  return Status::Error("argument must be between " + std::to_string(row.min) + " and " +
                       std::to_string(row.max) + " inclusive");
}

Result<int64_t> ReadMemory(const Row& row, const std::string& word) {
  const bool takes_percent = row.kind == Kind::kMemoryOrPercent;
  int64_t value = 0;
  if (takes_percent && word.ends_with('%')) {
    if (!ParseInt64(std::string_view(word).substr(0, word.size() - 1), &value) || value < 0) {
      return Status::Error("argument must be a memory or percent value");
    }
    if (value > 100) return Status::Error("percentage argument must be less or equal to 100");
    return -value;
  }
  if (!ReadBytes(word, &value)) {
    return takes_percent ? Status::Error("argument must be a memory or percent value")
                         : Status::Error("argument must be a memory value");
  }
  if (!takes_percent && (value < row.min || value > row.max)) return OutOfRange(row);
  return value;
}

Result<int64_t> ReadChoice(const Row& row, const std::string& word) {
  for (const Choice& choice : row.choices) {
    if (EqualsIgnoreCase(choice.name, word)) return choice.value;
  }
  std::string text = "argument(s) must be one of the following: ";
  for (const Choice& choice : row.choices) {
    if (&choice != &row.choices.front()) text += ", ";
    text += choice.name;
  }
  return Status::Error(std::move(text));
}

// Every kind that is a number inside.
Result<int64_t> ReadNumber(const Row& row, const std::string& word) {
  int64_t value = 0;
  switch (row.kind) {
    case Kind::kBool:
      if (EqualsIgnoreCase(word, "yes")) return int64_t{1};
      if (EqualsIgnoreCase(word, "no")) return int64_t{0};
      return Status::Error("argument must be 'yes' or 'no'");
    case Kind::kInteger:
      if (!ParseInt64(word, &value)) {
        return Status::Error("argument couldn't be parsed into an integer");
      }
      if (value < row.min || value > row.max) return OutOfRange(row);
      return value;
    case Kind::kOctal: {
      const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, 8);
      if (error != std::errc() || end != word.data() + word.size() || word.empty()) {
        return Status::Error("argument couldn't be parsed as an octal number");
      }
      if (value < row.min || value > row.max) return OutOfRange(row);
      return value;
    }
    case Kind::kMemory:
    case Kind::kMemoryOrPercent:
      return ReadMemory(row, word);
    case Kind::kChoice:
      return ReadChoice(row, word);
    case Kind::kText:
    case Kind::kCustom:
      break;
  }
  CHECK(false);
  return value;
}

std::string PrintNumber(const Row& row, int64_t value) {
  switch (row.kind) {
    case Kind::kBool:
      return value != 0 ? "yes" : "no";
    case Kind::kMemoryOrPercent:
      return value < 0 ? std::to_string(-value) + '%' : std::to_string(value);
    case Kind::kOctal: {
      char digits[kIntegerTextMax + 2];
      return std::string(digits, std::to_chars(digits, digits + sizeof(digits), value, 8).ptr);
    }
    case Kind::kChoice:
      for (const Choice& choice : row.choices) {
        if (choice.value == value) return std::string(choice.name);
      }
      return "unknown";
    default:
      return std::to_string(value);
  }
}

std::string& AcceptedText(const Row& row, Config& config) {
  const size_t index = static_cast<size_t>(&row - Rows().data());
  if (config.accepted.size() <= index) config.accepted.resize(Rows().size());
  return config.accepted[index];
}

std::vector<std::string> SplitAtSpaces(const std::string& text) {
  std::vector<std::string> words;
  size_t begin = 0;
  while (true) {
    // Two spaces enclose an empty word, which most grammars refuse: so does Redis.
    const size_t space = text.find(' ', begin);
    words.push_back(text.substr(begin, space - begin));
    if (space == std::string::npos) return words;
    begin = space + 1;
  }
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Reads the escape that starts at line[at], which is a backslash; returns its length.
size_t ReadEscape(std::string_view line, size_t at, std::string* word) {
  if (at + 1 >= line.size()) {
    *word += '\\';
    return 1;
  }
  if (line[at + 1] == 'x' && at + 3 < line.size() && HexDigit(line[at + 2]) >= 0 &&
      HexDigit(line[at + 3]) >= 0) {
    *word += static_cast<char>(HexDigit(line[at + 2]) * 16 + HexDigit(line[at + 3]));
    return 4;
  }
  constexpr std::string_view kLetters = "nrtba";
  constexpr std::string_view kBytes = "\n\r\t\b\a";
  const size_t known = kLetters.find(line[at + 1]);
  *word += known == std::string_view::npos ? line[at + 1] : kBytes[known];
  return 2;
}

// Reads a word that starts at the quote line[*at], and leaves *at behind its closing quote.
bool ReadQuoted(std::string_view line, size_t* at, std::string* word) {
  const char quote = line[(*at)++];
  while (*at < line.size()) {
    const char c = line[*at];
    if (c == quote) {
      ++*at;
      return *at == line.size() || IsSpace(line[*at]);
    }
    if (c == '\\' && quote == '"') {
      *at += ReadEscape(line, *at, word);
    } else if (c == '\\' && *at + 1 < line.size() && line[*at + 1] == '\'') {
      *word += '\'';
      *at += 2;
    } else {
      *word += c;
      ++*at;
    }
  }
  return false;
}

}  // namespace

bool ReadBytes(std::string_view text, int64_t* bytes) {
  constexpr auto kMax = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  uint64_t value = 0;
  if (!ParseMemory(text, &value)) {
    const bool only_digits = text.find_first_not_of("0123456789") == std::string_view::npos;
    if (!only_digits) return false;
    value = kMax;
  }
  *bytes = static_cast<int64_t>(std::min(value, kMax));
  return true;
}

namespace {

Status SetSupported(const Row& row, std::span<const std::string> words, Config& config) {
  std::vector<std::string> split;
  if (row.has(kManyWords) && words.size() == 1 && !words[0].empty()) {
    split = SplitAtSpaces(words[0]);
    words = split;
  }
  if (row.kind == Kind::kCustom && words.empty()) return Status::Error("wrong number of arguments");
  if (row.kind != Kind::kCustom && words.size() != 1) {
    return Status::Error("wrong number of arguments");
  }
  if (row.kind == Kind::kCustom && row.custom.read != nullptr) {
    TRY(row.custom.read(words, config));
  } else if (row.kind == Kind::kCustom) {
    AcceptedText(row, config) = TRY(row.custom.check(words));
  } else if (row.kind == Kind::kText) {
    (row.place.text != nullptr ? config.*row.place.text : AcceptedText(row, config)) = words[0];
  } else {
    const int64_t value = TRY(ReadNumber(row, words[0]));
    if (row.place.set != nullptr) {
      row.place.set(config, value);
    } else {
      AcceptedText(row, config) = PrintNumber(row, value);
    }
  }
  return Status::Ok();
}

}  // namespace

Status SetValue(const Row& row, std::span<const std::string> words, Config& config) {
  if (!row.has(kUnsupported)) return SetSupported(row, words, config);
  Config changed = config;
  TRY(SetSupported(row, words, changed));
  if (ValueText(row, changed) != row.default_text) {
    return Status::Error("this version does not support it; leave it at '" +
                         std::string(row.default_text) + "'");
  }
  config = std::move(changed);
  return Status::Ok();
}

std::string ValueText(const Row& row, const Config& config) {
  if (row.kind == Kind::kCustom && row.custom.print != nullptr) return row.custom.print(config);
  if (row.place.text != nullptr) return config.*row.place.text;
  if (row.place.get != nullptr) return PrintNumber(row, row.place.get(config));
  return config.accepted[static_cast<size_t>(&row - Rows().data())];
}

bool SplitWords(std::string_view line, std::vector<std::string>* words) {
  words->clear();
  size_t at = 0;
  while (true) {
    while (at < line.size() && IsSpace(line[at])) ++at;
    if (at == line.size()) return true;
    std::string word;
    while (at < line.size() && !IsSpace(line[at])) {
      if (line[at] == '"' || line[at] == '\'') {
        if (!ReadQuoted(line, &at, &word)) return false;
        break;
      }
      word += line[at++];
    }
    words->push_back(std::move(word));
  }
}

std::string Quoted(std::string_view word) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string text = "\"";
  for (const char c : word) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      text += '\\';
      text += c;
    } else if (c == '\n') {
      text += "\\n";
    } else if (c == '\r') {
      text += "\\r";
    } else if (c == '\t') {
      text += "\\t";
    } else if (byte < 0x20 || byte >= 0x7f) {
      text += "\\x";
      text += kHex[byte >> 4];
      text += kHex[byte & 15];
    } else {
      text += c;
    }
  }
  return text + '"';
}

}  // namespace crab::config

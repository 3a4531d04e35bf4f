// How crabcache-wal shows things: bytes as JSON and as redis-cli would, tables, sizes, times, and a
// bar for long work. Pure functions, and values of one thread.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/log.h"

namespace crab::wal {

void AppendHex(std::string* out, std::string_view bytes);
// As redis-cli shows a string: in quotes, with escapes for what does not print.
void AppendQuoted(std::string* out, std::string_view bytes);
// A JSON string; bytes that are no UTF-8 become {"hex": "..."}.
void AppendJson(std::string* out, std::string_view bytes);

// Puts one JSON object together, a field at a time.
class JsonObject {
 public:
  JsonObject& Number(std::string_view name, uint64_t value);
  JsonObject& Text(std::string_view name, std::string_view value);
  JsonObject& Flag(std::string_view name, bool value);
  JsonObject& Null(std::string_view name);
  // `json` is a value already.
  JsonObject& Raw(std::string_view name, std::string_view json);
  std::string text() const { return text_.empty() ? "{}" : text_ + "}"; }

 private:
  void Name(std::string_view name);
  std::string text_;
};
// "[a,b]" of values that are JSON already.
std::string JsonArray(const std::vector<std::string>& values);

// Rows under a row of titles, columns aligned to the right.
void PrintTable(const std::vector<std::vector<std::string>>& rows, std::ostream& out);

std::string FormatBytes(uint64_t bytes);           // "512 B", "1.5 MiB"
std::string FormatTime(int64_t ms);                // "2026-11-22T21:13:40.250Z", of ms since 1970
std::string LsnRange(Lsn first, Lsn last);         // "LSN 3..7"
std::string PolicyText(std::string_view payload);  // of a POLICY record

// A point in time: "2026-11-22", "2026-11-22T21:13", "...:40", "...:40.25", each with or without a
// Z, always UTC; or unix seconds (9 to 11 digits) or milliseconds. nullopt: none of these.
std::optional<int64_t> ParseTime(std::string_view text);

// One line that shows how far long work is: redrawn in place, at most ten times a second, and wiped
// when the work is over. Shows nothing where `enabled` is false.
class Progress {
 public:
  Progress(std::ostream& out, bool enabled, std::string_view verb)
      : out_(out), enabled_(enabled), verb_(verb) {}
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Show(uint64_t done, uint64_t total);
  void Clear();

 private:
  std::ostream& out_;
  const bool enabled_;
  const std::string verb_;
  int64_t shown_us_ = 0;  // 0 = nothing stands there
};

}  // namespace crab::wal

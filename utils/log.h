// The server's own log: what an operator acts on. A short phrase, then key=value:
//   LogInfo("recovered", {{"records", records}, {"ms", took_ms}});
// writes `2026-01-31 09:00:00.000 info  recovered records=12 ms=3`. Values that hold spaces, quotes
// or control bytes are quoted and escaped, so that a line stays a line.
// error: someone must act; warn: someone will have to; info: an event in the server's life; verbose
// and debug: for us. Nothing here is called per command.
// Synchronized: any thread. There is one log per process, as there is one standard output. Never
// throws or fails: a line that cannot be written is lost.
#pragma once

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include "utils/status.h"

namespace crab {

// Redis' levels in their order: each shows itself and all that follow. Errors are shown at
// kWarning.
enum class LogLevel : uint8_t { kDebug, kVerbose, kNotice, kWarning, kNothing };

// The names of the option `loglevel`, in any case; false for another.
bool ParseLogLevel(std::string_view name, LogLevel* level);
std::string_view LogLevelName(LogLevel level);

// Begins as kNotice.
void SetLogLevel(LogLevel level);
LogLevel GetLogLevel();
// Appends to `path` from now on, "" means standard output, where it begins. On an error the log
// goes on where it went. The same path again opens the file anew, as rotation needs.
Status SetLogFile(const std::string& path);

// One `key=value`; the value becomes text at once. Implicit on purpose, for the braces above.
struct LogField {
  template <std::integral T>
  LogField(std::string_view field_name, T number) : name(field_name), value(Text(number)) {}
  LogField(std::string_view field_name, double number);
  LogField(std::string_view field_name, std::string_view text) : name(field_name), value(text) {}
  LogField(std::string_view field_name, const std::string& text) : name(field_name), value(text) {}
  LogField(std::string_view field_name, const char* text) : name(field_name), value(text) {}

  std::string_view name;
  std::string value;

 private:
  static std::string Text(bool value) { return value ? "yes" : "no"; }
  template <std::integral T>
  static std::string Text(T value) {
    return std::to_string(value);
  }
};
using LogFields = std::initializer_list<LogField>;

void LogDebug(std::string_view phrase, LogFields fields = {});
void LogVerbose(std::string_view phrase, LogFields fields = {});
void LogInfo(std::string_view phrase, LogFields fields = {});
void LogWarn(std::string_view phrase, LogFields fields = {});
void LogError(std::string_view phrase, LogFields fields = {});

}  // namespace crab

// The one door to spdlog. Its logger writes to a list of one sink, which can be exchanged under a
// lock while other threads write.
#include "utils/log.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <strings.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <utility>

namespace crab {

namespace {

constexpr std::string_view kLevelNames[] = {"debug", "verbose", "notice", "warning", "nothing"};
constexpr char kPattern[] = "%Y-%m-%d %H:%M:%S.%e %v";

class Output {
 public:
  // Never destroyed: threads may still write while the process ends.
  static Output& Get() {
    static Output& output = *new Output;
    return output;
  }

  void Write(LogLevel level, std::string_view name, std::string_view phrase, LogFields fields);
  Status OpenFile(const std::string& path);

  // Only read to decide whether a line is made; nothing is ordered by it.
  std::atomic<LogLevel> level{LogLevel::kNotice};

 private:
  Output() : logger_("crabcache", sinks_) {
    sinks_->set_sinks({std::make_shared<spdlog::sinks::stdout_sink_mt>()});
    logger_.set_pattern(kPattern);
    logger_.set_level(spdlog::level::trace);
    logger_.flush_on(spdlog::level::trace);  // lines are rare, and the last ones matter most
    logger_.set_error_handler([](const std::string&) {});
  }

  std::shared_ptr<spdlog::sinks::dist_sink_mt> sinks_ =
      std::make_shared<spdlog::sinks::dist_sink_mt>();
  spdlog::logger logger_;
};

bool NeedsQuotes(std::string_view text) {
  if (text.empty()) return true;
  for (const char c : text) {
    if (static_cast<unsigned char>(c) <= ' ' || c == '"' || c == '\\' || c == 0x7f) return true;
  }
  return false;
}

// In quotes where they are needed; a control byte becomes \xNN wherever it stands.
void AppendValue(std::string* line, std::string_view text) {
  if (!NeedsQuotes(text)) {
    line->append(text);
    return;
  }
  line->push_back('"');
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      line->push_back('\\');
      line->push_back(c);
    } else if (byte < ' ' || byte == 0x7f) {
      line->append("\\x");
      line->push_back("0123456789abcdef"[byte >> 4]);
      line->push_back("0123456789abcdef"[byte & 15]);
    } else {
      line->push_back(c);
    }
  }
  line->push_back('"');
}

void Output::Write(LogLevel line_level, std::string_view name, std::string_view phrase,
                   LogFields fields) {
  if (line_level < level.load(std::memory_order_relaxed)) return;
  std::string line;
  line.append(name).append(" ");
  for (const char c : phrase) line.push_back(c == '\n' || c == '\r' ? ' ' : c);
  for (const LogField& field : fields) {
    line.append(" ").append(field.name).append("=");
    AppendValue(&line, field.value);
  }
  logger_.log(spdlog::level::info, spdlog::string_view_t(line.data(), line.size()));
}

Status Output::OpenFile(const std::string& path) {
  std::shared_ptr<spdlog::sinks::sink> sink;
  try {
    if (path.empty()) {
      sink = std::make_shared<spdlog::sinks::stdout_sink_mt>();
    } else {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(path);
    }
    sink->set_pattern(kPattern);
    sinks_->set_sinks({std::move(sink)});
  } catch (const std::exception& error) {  // of spdlog's, which stops here
    return Status::Error("cannot open log file " + path + ": " + error.what());
  }
  return Status::Ok();
}

}  // namespace

LogField::LogField(std::string_view field_name, double number) : name(field_name) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", number);
  value = text;
}

bool ParseLogLevel(std::string_view name, LogLevel* level) {
  for (size_t i = 0; i < std::size(kLevelNames); ++i) {
    if (name.size() != kLevelNames[i].size()) continue;
    if (strncasecmp(name.data(), kLevelNames[i].data(), name.size()) != 0) continue;
    *level = static_cast<LogLevel>(i);
    return true;
  }
  return false;
}

std::string_view LogLevelName(LogLevel level) { return kLevelNames[static_cast<size_t>(level)]; }

void SetLogLevel(LogLevel level) { Output::Get().level.store(level, std::memory_order_relaxed); }
LogLevel GetLogLevel() { return Output::Get().level.load(std::memory_order_relaxed); }
Status SetLogFile(const std::string& path) { return Output::Get().OpenFile(path); }

void LogDebug(std::string_view phrase, LogFields fields) {
  Output::Get().Write(LogLevel::kDebug, "debug", phrase, fields);
}
void LogVerbose(std::string_view phrase, LogFields fields) {
  Output::Get().Write(LogLevel::kVerbose, "verb ", phrase, fields);
}
void LogInfo(std::string_view phrase, LogFields fields) {
  Output::Get().Write(LogLevel::kNotice, "info ", phrase, fields);
}
void LogWarn(std::string_view phrase, LogFields fields) {
  Output::Get().Write(LogLevel::kWarning, "warn ", phrase, fields);
}
void LogError(std::string_view phrase, LogFields fields) {
  Output::Get().Write(LogLevel::kWarning, "error", phrase, fields);
}

}  // namespace crab

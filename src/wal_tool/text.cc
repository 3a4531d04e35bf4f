#include "src/wal_tool/text.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <ostream>

#include "utils/clock.h"

namespace crab::wal {
namespace {

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

// Takes a number of exactly `digits` digits from the front.
bool TakeDigits(std::string_view* text, size_t digits, int* value) {
  if (text->size() < digits) return false;
  *value = 0;
  for (size_t i = 0; i < digits; ++i) {
    const char c = (*text)[i];
    if (c < '0' || c > '9') return false;
    *value = *value * 10 + (c - '0');
  }
  text->remove_prefix(digits);
  return true;
}

bool TakeChar(std::string_view* text, char c) {
  if (text->empty() || text->front() != c) return false;
  text->remove_prefix(1);
  return true;
}

}  // namespace

void AppendHex(std::string* out, std::string_view bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const char c : bytes) {
    out->push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
    out->push_back(kDigits[static_cast<unsigned char>(c) & 15]);
  }
}

void AppendQuoted(std::string* out, std::string_view bytes) {
  constexpr char kEscaped[] = "\"\\\n\r\t\a\b";
  constexpr char kLetters[] = "\"\\nrtab";
  out->push_back('"');
  for (const char& c : bytes) {
    const char* escaped = c == '\0' ? nullptr : std::strchr(kEscaped, c);
    if (escaped != nullptr) {
      out->push_back('\\');
      out->push_back(kLetters[escaped - kEscaped]);
    } else if (c >= ' ' && c <= '~') {
      out->push_back(c);
    } else {
      out->append("\\x");
      AppendHex(out, {&c, 1});
    }
  }
  out->push_back('"');
}

void AppendJson(std::string* out, std::string_view bytes) {
  if (!IsUtf8(bytes)) {
    out->append("{\"hex\":\"");
    AppendHex(out, bytes);
    out->append("\"}");
    return;
  }
  out->push_back('"');
  for (const char& c : bytes) {
    if (c == '"' || c == '\\') {
      out->push_back('\\');
      out->push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out->append("\\u00");
      AppendHex(out, {&c, 1});
    } else {
      out->push_back(c);
    }
  }
  out->push_back('"');
}

void JsonObject::Name(std::string_view name) {
  text_ += text_.empty() ? "{\"" : ",\"";
  text_.append(name).append("\":");
}

JsonObject& JsonObject::Number(std::string_view name, uint64_t value) {
  return Raw(name, std::to_string(value));
}

JsonObject& JsonObject::Text(std::string_view name, std::string_view value) {
  Name(name);
  AppendJson(&text_, value);
  return *this;
}

JsonObject& JsonObject::Flag(std::string_view name, bool value) {
  return Raw(name, value ? "true" : "false");
}

JsonObject& JsonObject::Null(std::string_view name) { return Raw(name, "null"); }

JsonObject& JsonObject::Raw(std::string_view name, std::string_view json) {
  Name(name);
  text_ += json;
  return *this;
}

std::string JsonArray(const std::vector<std::string>& values) {
  std::string text = "[";
  for (const std::string& value : values) {
    if (text.size() > 1) text += ",";
    text += value;
  }
  return text + "]";
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

std::string FormatBytes(uint64_t bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f %s", value, kUnits[unit]);
  return text;
}

std::string FormatTime(int64_t ms) {
  const time_t seconds = static_cast<time_t>(ms / 1000);
  tm parts = {};
  gmtime_r(&seconds, &parts);
  char text[64];
  std::snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900,
                parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                static_cast<int>(ms % 1000));
  return text;
}

std::string LsnRange(Lsn first, Lsn last) {
  if (last < first) return "no record";
  if (last == kUnknownLsn) return "LSN " + std::to_string(first) + " and all behind it";
  if (first == last) return "LSN " + std::to_string(first);
  return "LSN " + std::to_string(first) + ".." + std::to_string(last);
}

std::string PolicyText(std::string_view payload) {
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

std::optional<int64_t> ParseTime(std::string_view text) {
  // Seconds from 1973 until 5138; milliseconds have 12 digits from 1973 on. 2026 is no number.
  constexpr size_t kSecondsDigitsMin = 9, kSecondsDigitsMax = 11;
  const bool is_number = text.size() >= kSecondsDigitsMin && text.size() <= 15 &&
                         text.find_first_not_of("0123456789") == std::string_view::npos;
  if (is_number) {
    int64_t number = 0;
    for (const char c : text) number = number * 10 + (c - '0');
    return text.size() <= kSecondsDigitsMax ? number * 1000 : number;
  }
  tm parts = {};
  int ms = 0;
  if (!TakeDigits(&text, 4, &parts.tm_year) || !TakeChar(&text, '-') ||
      !TakeDigits(&text, 2, &parts.tm_mon) || !TakeChar(&text, '-') ||
      !TakeDigits(&text, 2, &parts.tm_mday)) {
    return std::nullopt;
  }
  if (TakeChar(&text, 'T') || TakeChar(&text, ' ')) {
    if (!TakeDigits(&text, 2, &parts.tm_hour) || !TakeChar(&text, ':') ||
        !TakeDigits(&text, 2, &parts.tm_min)) {
      return std::nullopt;
    }
    if (TakeChar(&text, ':')) {
      if (!TakeDigits(&text, 2, &parts.tm_sec)) return std::nullopt;
      if (TakeChar(&text, '.')) {
        int scale = 100;
        int digit = 0;
        if (!TakeDigits(&text, 1, &digit)) return std::nullopt;
        do {
          ms += digit * scale;
          scale /= 10;
        } while (TakeDigits(&text, 1, &digit));
      }
    }
  }
  (void)TakeChar(&text, 'Z');
  if (!text.empty() || parts.tm_year < 1970 || parts.tm_mon < 1 || parts.tm_mon > 12 ||
      parts.tm_mday < 1 || parts.tm_mday > 31 || parts.tm_hour > 23 || parts.tm_min > 59 ||
      parts.tm_sec > 59) {
    return std::nullopt;
  }
  const int day = parts.tm_mday;
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  const time_t seconds = timegm(&parts);
  if (parts.tm_mday != day) return std::nullopt;  // the 30th of February
  return static_cast<int64_t>(seconds) * 1000 + ms;
}

void Progress::Show(uint64_t done, uint64_t total) {
  if (!enabled_) return;
  constexpr int64_t kRedrawUs = 100'000;
  constexpr uint64_t kWidth = 30;
  const int64_t now_us = RealClock().MonotonicUs();
  if (shown_us_ != 0 && now_us - shown_us_ < kRedrawUs) return;
  shown_us_ = now_us;
  total = std::max({total, done, uint64_t{1}});
  const uint64_t filled = done * kWidth / total;
  out_ << "\r" << verb_ << " [" << std::string(filled, '#') << std::string(kWidth - filled, ' ')
       << "] " << done * 100 / total << " %  " << FormatBytes(done) << " of " << FormatBytes(total)
       << "\x1b[K" << std::flush;
}

void Progress::Clear() {
  if (shown_us_ != 0) out_ << "\r\x1b[K" << std::flush;
  shown_us_ = 0;
}

}  // namespace crab::wal

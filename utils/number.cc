#include "utils/number.h"

#include <cctype>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace crab {

namespace {

// A text of a long double longer than this is refused by Redis; there are no such numbers but
// padded ones. The largest long double has 4933 digits.
constexpr size_t kLongDoubleTextMax = 5 * 1024;

struct DigitPairs {
  char text[200];
};
constexpr DigitPairs MakeDigitPairs() {
  DigitPairs pairs{};
  for (int i = 0; i < 100; ++i) {
    pairs.text[2 * i] = static_cast<char>('0' + i / 10);
    pairs.text[2 * i + 1] = static_cast<char>('0' + i % 10);
  }
  return pairs;
}
constexpr DigitPairs kDigitPairs = MakeDigitPairs();

bool IsDigit(char c) { return static_cast<unsigned char>(c - '0') < 10; }

// Digits only, nothing is 0; false when they do not fit.
bool ParseDigits(std::string_view digits, uint64_t* value) {
  uint64_t sum = 0;
  for (const char c : digits) {
    if (!IsDigit(c)) return false;
    if (__builtin_mul_overflow(sum, uint64_t{10}, &sum)) return false;
    if (__builtin_add_overflow(sum, static_cast<uint64_t>(c - '0'), &sum)) return false;
  }
  *value = sum;
  return true;
}

// One rule for both widths: strtod's language, less a leading space, a rest, nan and a result that
// left the range. Converts a copy, because the text is part of something longer and strtod needs
// its end marked.
template <typename Float, Float (*Convert)(const char*, char**)>
bool ParseFloat(std::string_view text, Float* value) {
  if (text.empty() || std::isspace(static_cast<unsigned char>(text[0]))) return false;
  char small[128];
  std::string large;
  const char* begin = small;
  if (text.size() < sizeof(small)) {
    std::memcpy(small, text.data(), text.size());
    small[text.size()] = '\0';
  } else {
    large = text;
    begin = large.c_str();
  }
  errno = 0;
  char* end = nullptr;
  const Float parsed = Convert(begin, &end);
  if (end != begin + text.size() || std::isnan(parsed)) return false;
  if (errno == ERANGE && (std::isinf(parsed) || parsed == 0)) return false;
  *value = parsed;
  return true;
}

}  // namespace

bool ParseInt64(std::string_view text, int64_t* value) {
  const char* p = text.data();
  const char* const end = p + text.size();
  if (p == end || text.size() > kIntegerTextMax) return false;
  const bool negative = *p == '-';
  if (negative) ++p;
  if (p == end) return false;
  auto digit = static_cast<unsigned char>(*p - '0');
  if (digit > 9) return false;
  if (digit == 0) {
    if (text.size() != 1) return false;  // a leading zero, or -0
    *value = 0;
    return true;
  }
  // Nineteen digits fit 64 bits; the twentieth, possible only without a sign, never fits 63.
  if (end - p > 19) return false;
  uint64_t sum = digit;
  for (++p; p != end; ++p) {
    digit = static_cast<unsigned char>(*p - '0');
    if (digit > 9) return false;
    sum = sum * 10 + digit;
  }
  constexpr auto kMax = static_cast<uint64_t>(INT64_MAX);
  if (sum > kMax + (negative ? 1 : 0)) return false;
  *value = static_cast<int64_t>(negative ? uint64_t{0} - sum : sum);
  return true;
}

bool ParseUint64(std::string_view text, uint64_t* value) {
  int64_t strict = 0;
  if (ParseInt64(text, &strict)) {
    if (strict < 0) return false;
    *value = static_cast<uint64_t>(strict);
    return true;
  }
  // The lenient reading is strtoull's: a minus negates within 64 bits.
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text[0]))) text.remove_prefix(1);
  const bool negative = !text.empty() && text[0] == '-';
  if (negative || (!text.empty() && text[0] == '+')) text.remove_prefix(1);
  uint64_t digits = 0;
  if (text.empty() || !ParseDigits(text, &digits)) return false;
  *value = negative ? uint64_t{0} - digits : digits;
  return true;
}

bool ParseDouble(std::string_view text, double* value) {
  int64_t integer = 0;
  if (text.size() <= 15 && ParseInt64(text, &integer)) {  // exact below 2^53
    *value = static_cast<double>(integer);
    return true;
  }
  return ParseFloat<double, std::strtod>(text, value);
}

bool ParseLongDouble(std::string_view text, long double* value) {
  if (text.size() >= kLongDoubleTextMax) return false;
  return ParseFloat<long double, std::strtold>(text, value);
}

bool ParseMemory(std::string_view text, uint64_t* bytes) {
  struct Unit {
    std::string_view name;
    uint64_t bytes;
  };
  static constexpr Unit kUnits[] = {
      {"", 1},          {"b", 1},        {"k", 1000},          {"kb", 1 << 10},
      {"m", 1'000'000}, {"mb", 1 << 20}, {"g", 1'000'000'000}, {"gb", 1 << 30},
  };
  size_t digits = 0;
  while (digits < text.size() && IsDigit(text[digits])) ++digits;
  std::string name(text.substr(digits));
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  for (const Unit& unit : kUnits) {
    if (name != unit.name) continue;
    uint64_t count = 0;
    uint64_t product = 0;
    if (!ParseDigits(text.substr(0, digits), &count)) return false;
    if (__builtin_mul_overflow(count, unit.bytes, &product)) return false;
    *bytes = product;
    return true;
  }
  return false;
}

size_t internal::FormatManyDigits(char* out, uint64_t value) {
  const size_t digits = DigitCount(value);
  char* p = out + digits;
  while (value >= 100) {
    const uint64_t rest = value / 100;
    p -= 2;
    std::memcpy(p, kDigitPairs.text + 2 * (value - rest * 100), 2);
    value = rest;
  }
  if (value >= 10) {
    std::memcpy(out, kDigitPairs.text + 2 * value, 2);
  } else {
    *out = static_cast<char>('0' + value);
  }
  return digits;
}

size_t FormatDouble(char* out, double value) {
  if (std::isnan(value)) {
    std::memcpy(out, "nan", 3);
    return 3;
  }
  // %.17g shows a whole number below 10^17 as plain digits; -0 keeps its sign and goes below.
  if (value > -1e17 && value < 1e17) {
    const auto whole = static_cast<int64_t>(value);
    if (static_cast<double>(whole) == value && !(whole == 0 && std::signbit(value))) {
      return FormatInt64(out, whole);
    }
  }
  const std::to_chars_result result =
      std::to_chars(out, out + kDoubleTextMax, value, std::chars_format::general, 17);
  return static_cast<size_t>(result.ptr - out);
}

std::string FormatHumanLongDouble(long double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[kLongDoubleTextMax];
  size_t size = static_cast<size_t>(std::snprintf(text, sizeof(text), "%.17Lf", value));
  if (std::memchr(text, '.', size) != nullptr) {
    while (text[size - 1] == '0') --size;
    if (text[size - 1] == '.') --size;
  }
  if (size == 2 && text[0] == '-' && text[1] == '0') return "0";
  return std::string(text, size);
}

std::string FormatMemoryHuman(uint64_t bytes) {
  static constexpr char kUnits[] = {'K', 'M', 'G', 'T', 'P'};
  char text[32];
  if (bytes >= 1024) {
    for (size_t i = 0; i < sizeof(kUnits); ++i) {
      const int shift = 10 * static_cast<int>(i + 1);
      if (bytes >> (shift + 10) != 0) continue;
      std::snprintf(text, sizeof(text), "%.2f%c",
                    static_cast<double>(bytes) / static_cast<double>(uint64_t{1} << shift),
                    kUnits[i]);
      return text;
    }
  }
  std::snprintf(text, sizeof(text), "%lluB", static_cast<unsigned long long>(bytes));
  return text;
}

}  // namespace crab

// Text <-> numbers, exactly as Redis reads and prints them. What Redis refuses (a leading zero, a
// sign, a space) is refused here; where it accepts more than one would expect, the comment says so.
// Pure functions: they keep nothing and depend on no locale but "C".
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace crab {

// The longest text of a 64-bit integer, sign included.
constexpr size_t kIntegerTextMax = 20;
// The longest text FormatDouble makes: sign, 17 digits, point, exponent, or leading zeros.
constexpr size_t kDoubleTextMax = 32;

// -?[1-9][0-9]* or 0, within range; nothing else, so that every number has one text. `value` is
// untouched when false is returned: that holds for all the Parse functions.
bool ParseInt64(std::string_view text, int64_t* value);

// An unsigned integer as Redis reads stream ids and cursors. A text that is no strict integer gets
// a second, lenient reading, in which leading spaces, a sign and leading zeros pass.
bool ParseUint64(std::string_view text, uint64_t* value);

// Any decimal or hexadecimal float, inf and infinity in any case. Refused: a leading space,
// anything behind the number, nan, and what overflows to infinity or underflows to zero.
bool ParseDouble(std::string_view text, double* value);
bool ParseLongDouble(std::string_view text, long double* value);

// A size as configuration spells it: digits, then nothing or b, k, kb, m, mb, g, gb in any case
// (k = 1000, kb = 1024 and so on). No digits are 0, as in Redis. Refused: a sign, a fraction, and,
// unlike Redis, which saturates or wraps, more than 64 bits hold.
bool ParseMemory(std::string_view text, uint64_t* bytes);

// How many decimal digits `value` has: 1 for 0.
inline size_t DigitCount(uint64_t value) {
  size_t digits = 1;
  while (true) {
    if (value < 10) return digits;
    if (value < 100) return digits + 1;
    if (value < 1000) return digits + 2;
    if (value < 10000) return digits + 3;
    value /= 10000;
    digits += 4;
  }
}

namespace internal {
size_t FormatManyDigits(char* out, uint64_t value);
}

// Writes the decimal text of `value` at `out`, without a terminator, and returns its length. Needs
// kIntegerTextMax bytes of room. Small numbers, the lengths of nearly all keys and values, take the
// inline way.
inline size_t FormatUint64(char* out, uint64_t value) {
  if (value < 10) {
    out[0] = static_cast<char>('0' + value);
    return 1;
  }
  if (value < 100) {
    const auto tens = static_cast<uint32_t>(value) / 10;
    out[0] = static_cast<char>('0' + tens);
    out[1] = static_cast<char>('0' + (static_cast<uint32_t>(value) - tens * 10));
    return 2;
  }
  return internal::FormatManyDigits(out, value);
}
inline size_t FormatInt64(char* out, int64_t value) {
  if (value >= 0) return FormatUint64(out, static_cast<uint64_t>(value));
  *out = '-';
  return 1 + FormatUint64(out + 1, uint64_t{0} - static_cast<uint64_t>(value));
}

// Writes `value` as Redis 7.0 replies scores and other doubles, %.17g with inf, -inf and nan, and
// returns the length. Needs kDoubleTextMax bytes of room.
size_t FormatDouble(char* out, double value);

// As INCRBYFLOAT prints: %.17Lf without trailing zeros, never -0.
std::string FormatHumanLongDouble(long double value);

// As INFO's used_memory_human prints: "512B", "1.50K", "2.00G".
std::string FormatMemoryHuman(uint64_t bytes);

}  // namespace crab

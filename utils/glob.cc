// Every element but the star matches exactly one byte. So when the elements behind a star fail,
// it is enough to let the last star take one more byte: what an earlier star could give it, it can
// reach itself. That makes one loop with one place to return to.
#include "utils/glob.h"

#include <algorithm>
#include <cstddef>

namespace crab {

namespace {

signed char Lower(char c) {
  return static_cast<signed char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

bool SameByte(char a, char b, bool ignore_case) {
  return a == b || (ignore_case && Lower(a) == Lower(b));
}

bool InRange(char first, char last, char c, bool ignore_case) {
  int low = static_cast<signed char>(first);
  int high = static_cast<signed char>(last);
  int byte = static_cast<signed char>(c);
  if (low > high) std::swap(low, high);
  if (ignore_case) {  // after the swap: [Z-a] turns into z-a, which holds nothing
    low = Lower(static_cast<char>(low));
    high = Lower(static_cast<char>(high));
    byte = Lower(c);
  }
  return byte >= low && byte <= high;
}

// Whether the class at pattern[*at], which is behind its '[', holds `c`. Moves behind its end.
bool ClassHolds(std::string_view pattern, size_t* at, char c, bool ignore_case) {
  size_t i = *at;
  const bool negated = i < pattern.size() && pattern[i] == '^';
  if (negated) ++i;
  bool holds = false;
  for (; i < pattern.size(); ++i) {
    const size_t left = pattern.size() - i;
    if (pattern[i] == '\\' && left >= 2) {
      holds |= pattern[++i] == c;
    } else if (pattern[i] == ']') {
      ++i;
      break;
    } else if (left >= 3 && pattern[i + 1] == '-') {
      holds |= InRange(pattern[i], pattern[i + 2], c, ignore_case);
      i += 2;
    } else {
      holds |= SameByte(pattern[i], c, ignore_case);
    }
  }
  *at = i;
  return holds != negated;
}

// Whether the element at pattern[*at], no star, matches `c`. Moves behind it.
bool ElementMatches(std::string_view pattern, size_t* at, char c, bool ignore_case) {
  switch (pattern[(*at)++]) {
    case '?':
      return true;
    case '[':
      return ClassHolds(pattern, at, c, ignore_case);
    case '\\':
      if (*at < pattern.size()) ++*at;
      [[fallthrough]];
    default:
      return SameByte(pattern[*at - 1], c, ignore_case);
  }
}

}  // namespace

bool GlobMatch(std::string_view pattern, std::string_view text, bool ignore_case) {
  if (text.empty()) return pattern.empty();
  constexpr size_t kNoStar = static_cast<size_t>(-1);
  size_t after_star = kNoStar;  // where the pattern goes on behind the last star
  size_t star_end = 0;          // the text that star has taken ends here
  size_t p = 0;
  for (size_t t = 0; t < text.size();) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      star_end = t;
      if (p == pattern.size()) return true;
    } else if (p < pattern.size() && ElementMatches(pattern, &p, text[t], ignore_case)) {
      ++t;
    } else if (after_star != kNoStar) {
      p = after_star;
      t = ++star_end;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace crab

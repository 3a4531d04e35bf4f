// Two readers of the same grammar. NextWhole takes the request that nearly always is there: all of
// it in the input, counts and lengths of few digits. It keeps nothing until it must give up, and
// then hands over the arguments it has. NextMultibulk takes everything else: it reads one header or
// one bulk at a time and can stop after any byte.
//
// Redis is lenient where speed made it so, and clients may depend on that: the byte behind a
// header's CR and the two bytes behind a bulk are dropped unread. A NUL inside a line hides the end
// of the line, so that such a request waits for its end until it is too long.
#include "resp/parser.h"

#include <cstddef>
#include <utility>

#include "utils/number.h"

namespace crab::resp {

namespace {

// What a client that has not authenticated may send, from Redis.
constexpr int64_t kUnauthenticatedBulksMax = 10;
constexpr int64_t kUnauthenticatedBulkBytesMax = 16384;

// The longest bulk NextWhole reads: three digits.
constexpr int64_t kWholeBulkBytesMax = 999;

// More pieces than this are given back after the request.
constexpr size_t kPiecesKept = 1024;

unsigned Digit(char c) { return static_cast<unsigned char>(c - '0'); }

// A space by isspace() of the "C" locale.
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// What ends an inline argument outside quotes. Redis skips \v and \f between arguments but takes
// them inside of one.
bool EndsArgument(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char Unescape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'b':
      return '\b';
    case 'a':
      return '\a';
    default:
      return c;
  }
}

// Appends what stands in quotes, `*at` being behind the opening one, and moves behind the closing
// one. False when there is none, or when it is not the end of the argument.
bool ReadQuoted(std::string_view line, char quote, size_t* at, std::string* out) {
  size_t i = *at;
  for (; i < line.size() && line[i] != quote; ++i) {
    const size_t left = line.size() - i - 1;
    if (line[i] != '\\' || left == 0) {
      out->push_back(line[i]);
    } else if (quote == '\'') {
      if (line[i + 1] == quote) ++i;
      out->push_back(line[i]);
    } else if (left >= 3 && line[i + 1] == 'x' && HexDigit(line[i + 2]) >= 0 &&
               HexDigit(line[i + 3]) >= 0) {
      out->push_back(static_cast<char>(HexDigit(line[i + 2]) * 16 + HexDigit(line[i + 3])));
      i += 3;
    } else {
      out->push_back(Unescape(line[++i]));
    }
  }
  if (i == line.size()) return false;
  *at = ++i;
  return i == line.size() || IsSpace(line[i]);
}

}  // namespace

[[gnu::always_inline]] inline bool Parser::NextWhole(std::string_view input, const Limits& limits,
                                                     std::vector<std::string_view>& argv,
                                                     size_t* consumed) {
  // Every request with an argument has these ten bytes: "*1\r\n$0\r\n\r\n".
  if (input.size() < 10 || limits.unauthenticated || limits.bulk_bytes_max < kWholeBulkBytesMax) {
    return false;
  }
  const char* const begin = input.data();
  const char* const end = begin + input.size();
  const char* p = begin + 1;
  unsigned count = Digit(*p++);
  if (count == 0 || count > 9) return false;
  if (*p != '\r') {
    const unsigned digit = Digit(*p++);
    if (digit > 9 || *p != '\r') return false;
    count = count * 10 + digit;
  }
  if (count > limits.multibulk_max) return false;
  p += 2;

  argv.resize(count);  // nothing to do when the last request had as many
  std::string_view* argument = argv.data();
  std::string_view* const arguments_end = argument + count;
  for (; argument != arguments_end; ++argument) {
    // A bulk has at least six bytes, "$0\r\n\r\n", and a header of three digits no more.
    if (end - p < 6 || *p != '$') break;
    unsigned size = Digit(p[1]);
    if (size > 9) break;
    const char* q = p + 2;
    if (*q != '\r') {
      if (size == 0) break;  // a leading zero
      unsigned digit = Digit(*q++);
      if (digit > 9) break;
      size = size * 10 + digit;
      if (*q != '\r') {
        digit = Digit(*q++);
        if (digit > 9 || *q != '\r') break;
        size = size * 10 + digit;
      }
    }
    q += 2;
    if (end - q < static_cast<ptrdiff_t>(size) + 2) break;
    *argument = std::string_view(q, size);
    p = q + size + 2;
  }
  if (__builtin_expect(argument == arguments_end, 1)) {
    *consumed = static_cast<size_t>(p - begin);
    return true;
  }

  Keep(begin, {argv.data(), argument}, p, static_cast<size_t>(arguments_end - argument));
  return false;
}

Parser::Verdict Parser::Next(std::string_view input, const Limits& limits,
                             std::vector<std::string_view>& argv, size_t* consumed) {
  if (input.empty()) {
    argv.clear();
    return Verdict::kIncomplete;
  }
  if (__builtin_expect(input[0] != '*', 0)) return NextInline(input, limits, argv, consumed);
  if (!in_request() && NextWhole(input, limits, argv, consumed)) return Verdict::kCommand;
  return NextMultibulk(input, limits, argv, consumed);
}

// Turns what NextWhole has read, the arguments before `position`, into state.
[[gnu::noinline]] void Parser::Keep(const char* begin, std::span<const std::string_view> arguments,
                                    const char* position, size_t left) {
  for (const std::string_view argument : arguments) {
    arguments_.push_back({static_cast<size_t>(argument.data() - begin), argument.size()});
  }
  position_ = static_cast<size_t>(position - begin);
  bulks_left_ = static_cast<int64_t>(left);
}

Parser::Verdict Parser::NextMultibulk(std::string_view input, const Limits& limits,
                                      std::vector<std::string_view>& argv, size_t* consumed) {
  argv.clear();
  request_bytes_known_ = 0;
  int64_t number = 0;
  size_t line_end = 0;
  if (bulks_left_ == 0) {
    const Line line = FindLine(input, '\r', limits, &line_end);
    if (line == Line::kTooLong) return Fail("Protocol error: too big mbulk count string");
    if (line == Line::kPartial || input.size() < line_end + 2) return Verdict::kIncomplete;
    if (!ParseInt64(input.substr(1, line_end - 1), &number) || number > limits.multibulk_max) {
      return Fail("Protocol error: invalid multibulk length");
    }
    if (limits.unauthenticated && number > kUnauthenticatedBulksMax) {
      return Fail("Protocol error: unauthenticated multibulk length");
    }
    position_ = line_end + 2;
    line_scanned_ = 0;
    bulks_left_ = number > 0 ? number : 0;
  }
  for (; bulks_left_ > 0; --bulks_left_) {
    if (bulk_bytes_ < 0) {
      const Line line = FindLine(input, '\r', limits, &line_end);
      if (line == Line::kTooLong) return Fail("Protocol error: too big bulk count string");
      if (line == Line::kPartial || input.size() < line_end + 2) return Verdict::kIncomplete;
      if (input[position_] != '$') {
        return Fail(std::string("Protocol error: expected '$', got '") + input[position_] + "'");
      }
      const size_t digits = position_ + 1;
      // A line of nothing but CR was refused above, so the dollar is before the line's end.
      if (!ParseInt64(input.substr(digits, line_end - digits), &number) || number < 0 ||
          number > limits.bulk_bytes_max) {
        return Fail("Protocol error: invalid bulk length");
      }
      if (limits.unauthenticated && number > kUnauthenticatedBulkBytesMax) {
        return Fail("Protocol error: unauthenticated bulk length");
      }
      position_ = line_end + 2;
      line_scanned_ = 0;
      bulk_bytes_ = number;
    }
    const auto size = static_cast<size_t>(bulk_bytes_);
    if (input.size() - position_ < size + 2) {
      request_bytes_known_ = position_ + size + 2;
      return Verdict::kIncomplete;
    }
    arguments_.push_back({position_, size});
    position_ += size + 2;
    bulk_bytes_ = -1;
  }
  argv.reserve(arguments_.size());
  for (const Piece& piece : arguments_) {
    argv.emplace_back(input.data() + piece.offset, piece.size);
  }
  *consumed = position_;
  Reset();
  return Verdict::kCommand;
}

Parser::Verdict Parser::NextInline(std::string_view input, const Limits& limits,
                                   std::vector<std::string_view>& argv, size_t* consumed) {
  argv.clear();
  request_bytes_known_ = 0;
  size_t line_end = 0;
  const Line line = FindLine(input, '\n', limits, &line_end);
  if (line == Line::kTooLong) return Fail("Protocol error: too big inline request");
  if (line == Line::kPartial) return Verdict::kIncomplete;
  *consumed = line_end + 1;
  if (line_end > 0 && input[line_end - 1] == '\r') --line_end;
  if (!SplitInline(input.substr(0, line_end), argv)) {
    argv.clear();
    return Fail("Protocol error: unbalanced quotes in request");
  }
  Reset();
  return Verdict::kCommand;
}

// Looks for `end` from position_ on, not again where it looked before. The place of the end counts,
// not how much has arrived, so that the verdict is the same however the bytes are cut.
Parser::Line Parser::FindLine(std::string_view input, char end, const Limits& limits,
                              size_t* line_end) {
  const std::string_view line = input.substr(position_, limits.inline_bytes_max + 1);
  const std::string_view rest = line.substr(line_scanned_);
  const size_t found = rest.find(end);
  const size_t without_end = found == rest.npos ? rest.size() : found;
  const size_t nul = rest.substr(0, without_end).find('\0');
  if (nul == rest.npos) {
    line_scanned_ += without_end;
    if (found != rest.npos) {
      *line_end = position_ + line_scanned_;
      return Line::kWhole;
    }
  } else {
    line_scanned_ += nul;  // stays there until the line is too long
  }
  return line.size() > limits.inline_bytes_max ? Line::kTooLong : Line::kPartial;
}

// The arguments are made in one string, which has its full length before the first view of it.
bool Parser::SplitInline(std::string_view line, std::vector<std::string_view>& argv) {
  inline_bytes_.clear();
  inline_bytes_.reserve(line.size());
  for (size_t i = 0;;) {
    while (i < line.size() && IsSpace(line[i])) ++i;
    if (i == line.size()) return true;
    const size_t begin = inline_bytes_.size();
    while (i < line.size() && !EndsArgument(line[i])) {
      const char c = line[i++];
      if (c == '"' || c == '\'') {
        if (!ReadQuoted(line, c, &i, &inline_bytes_)) return false;
        break;
      }
      inline_bytes_.push_back(c);
    }
    argv.emplace_back(inline_bytes_.data() + begin, inline_bytes_.size() - begin);
  }
}

Parser::Verdict Parser::Fail(std::string message) {
  Reset();
  error_ = std::move(message);
  return Verdict::kError;
}

void Parser::Reset() {
  position_ = 0;
  line_scanned_ = 0;
  bulks_left_ = 0;
  bulk_bytes_ = -1;
  request_bytes_known_ = 0;
  if (arguments_.capacity() > kPiecesKept) {
    arguments_ = {};
  } else {
    arguments_.clear();
  }
}

}  // namespace crab::resp

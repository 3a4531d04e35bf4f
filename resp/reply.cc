#include "resp/reply.h"

#include <cmath>
#include <string>

#include "utils/check.h"

namespace crab::resp {

void Reply::Line(char type, std::string_view text) {
  char* const begin = out_.Reserve(1 + text.size() + 2);
  char* p = begin;
  *p++ = type;
  for (const char c : text) *p++ = (c == '\r' || c == '\n') ? ' ' : c;
  p = WriteCrLf(p);
  out_.Commit(static_cast<size_t>(p - begin));
}

void Reply::BulkInteger(int64_t value) {
  char digits[kIntegerTextMax];
  Bulk({digits, FormatInt64(digits, value)});
}

void Reply::Double(double value) {
  char text[kDoubleTextMax];
  const std::string_view number(text, FormatDouble(text, value));
  protocol_ > 2 ? Line(',', number) : Bulk(number);
}

void Reply::HumanDouble(long double value) { Bulk(FormatHumanLongDouble(value)); }

void Reply::Boolean(bool value) {
  if (protocol_ > 2) {
    value ? Literal("#t\r\n") : Literal("#f\r\n");
  } else {
    value ? Literal(":1\r\n") : Literal(":0\r\n");
  }
}

void Reply::BigNumber(std::string_view digits) { protocol_ > 2 ? Line('(', digits) : Bulk(digits); }

void Reply::Verbatim(std::string_view format, std::string_view text) {
  CHECK_EQ(format.size(), size_t{3});
  if (protocol_ == 2) return Bulk(text);
  Header('=', static_cast<int64_t>(format.size() + 1 + text.size()));
  out_.Append(format);
  out_.Append(':');
  out_.Append(text);
  out_.Append(std::string_view("\r\n"));
}

}  // namespace crab::resp

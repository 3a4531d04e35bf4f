// Typed replies -> RESP2 or RESP3 bytes at the end of a buffer, by
// https://redis.io/docs/reference/protocol-spec. What RESP2 lacks becomes what Redis sends there: a
// map an array of twice the length, a double a bulk, a boolean 0 or 1, a verbatim string a bulk, a
// push an array, a null $-1 or *-1.
// Belongs to one loop; cheap to make, holds no state but the buffer and the version. The replies of
// the hot commands are inline: they reserve once and write each byte once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "utils/bytes.h"
#include "utils/number.h"

namespace crab::resp {

class Reply {
 public:
  Reply(Buffer& out, int protocol) : out_(out), protocol_(protocol) {}

  int protocol() const { return protocol_; }
  void set_protocol(int protocol) { protocol_ = protocol; }
  Buffer& buffer() { return out_; }

  void Ok() { Literal("+OK\r\n"); }
  // A status line. CR and LF become spaces, as in Redis.
  void Simple(std::string_view text) { Line('+', text); }
  // `message` with its code, without the dash: "ERR no such key". CR and LF become spaces.
  void Error(std::string_view message) { Line('-', message); }
  void Integer(int64_t value) { Header(':', value); }
  void Bulk(std::string_view bytes);
  void BulkInteger(int64_t value);  // the decimal text of `value` as a bulk string
  void Null() { protocol_ > 2 ? Literal("_\r\n") : Literal("$-1\r\n"); }
  void NullArray() { protocol_ > 2 ? Literal("_\r\n") : Literal("*-1\r\n"); }
  void Array(size_t elements) { Header('*', static_cast<int64_t>(elements)); }
  void Map(size_t pairs) {
    protocol_ > 2 ? Header('%', static_cast<int64_t>(pairs)) : Array(2 * pairs);
  }
  void Set(size_t elements) { Header(protocol_ > 2 ? '~' : '*', static_cast<int64_t>(elements)); }
  void Push(size_t elements) { Header(protocol_ > 2 ? '>' : '*', static_cast<int64_t>(elements)); }
  void Double(double value);            // %.17g, as Redis 7.0 prints doubles
  void HumanDouble(long double value);  // as INCRBYFLOAT replies: a bulk in either version
  void Boolean(bool value);
  void BigNumber(std::string_view digits);
  void Verbatim(std::string_view format, std::string_view text);  // format: 3 bytes, "txt"

 private:
  // The type byte, the digits of any integer, CR LF.
  static constexpr size_t kHeaderMax = 1 + kIntegerTextMax + 2;

  template <size_t N>
  void Literal(const char (&text)[N]) {
    std::memcpy(out_.Reserve(N - 1), text, N - 1);
    out_.Commit(N - 1);
  }
  static char* WriteCrLf(char* p) {
    std::memcpy(p, "\r\n", 2);
    return p + 2;
  }
  static char* WriteHeader(char* p, char type, int64_t count) {
    *p = type;
    return WriteCrLf(p + 1 + FormatInt64(p + 1, count));
  }
  void Header(char type, int64_t count) {
    char* const begin = out_.Reserve(kHeaderMax);
    out_.Commit(static_cast<size_t>(WriteHeader(begin, type, count) - begin));
  }
  void Line(char type, std::string_view text);

  Buffer& out_;
  int protocol_;
};

inline void Reply::Bulk(std::string_view bytes) {
  char* const begin = out_.Reserve(kHeaderMax + bytes.size() + 2);
  char* p = WriteHeader(begin, '$', static_cast<int64_t>(bytes.size()));
  if (!bytes.empty()) std::memcpy(p, bytes.data(), bytes.size());
  p = WriteCrLf(p + bytes.size());
  out_.Commit(static_cast<size_t>(p - begin));
}

}  // namespace crab::resp

// Typed replies -> RESP2 or RESP3 bytes at the end of a buffer (https://redis.io/docs/reference/protocol-spec).
// What RESP2 lacks becomes what Redis sends there: a map an array of twice the length, a double a
// bulk, a boolean 0 or 1, a verbatim string a bulk, a push an array, a null $-1 or *-1.
// Belongs to one loop; cheap to make, holds no state but the buffer and the version.
#pragma once

#include <cstdint>
#include <string_view>

#include "utils/bytes.h"

namespace crab::resp {

class Reply {
 public:
  Reply(Buffer& out, int protocol) : out_(out), protocol_(protocol) {}

  int protocol() const { return protocol_; }
  void set_protocol(int protocol) { protocol_ = protocol; }
  Buffer& buffer() { return out_; }

  void Ok() { out_.Append(std::string_view("+OK\r\n")); }
  void Simple(std::string_view text);
  // `message` with its code, without the dash: "ERR no such key". CR and LF become spaces, as in Redis.
  void Error(std::string_view message);
  void Integer(int64_t value);
  void Bulk(std::string_view bytes);
  void BulkInteger(int64_t value);  // the decimal text of `value` as a bulk string
  void Null();       // $-1 or _
  void NullArray();  // *-1 or _
  void Array(size_t elements) { Header('*', elements); }
  void Map(size_t pairs);
  void Set(size_t elements) { Header(protocol_ > 2 ? '~' : '*', elements); }
  void Push(size_t elements) { Header(protocol_ > 2 ? '>' : '*', elements); }
  void Double(double value);            // as Redis prints doubles (%.17g, shortest where it does)
  void HumanDouble(long double value);  // as INCRBYFLOAT prints
  void Boolean(bool value);
  void BigNumber(std::string_view digits);
  void Verbatim(std::string_view format, std::string_view text);  // format: 3 bytes, "txt"
  // Status of a `Simple` line when `text` is known at compile time is the same call.

 private:
  void Header(char type, size_t count);

  Buffer& out_;
  int protocol_;
};

}  // namespace crab::resp

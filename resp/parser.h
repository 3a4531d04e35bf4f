// RESP requests: bytes -> argv. Reads multibulk and inline requests exactly as Redis does, error
// texts included. argv are views into the input (of an inline request: into the parser), so they
// live until the input moves or Next is called again. A bulk is not copied and a partial request is
// not read twice: the parser remembers how far it came, relative to the first byte of the request.
// Belongs to one connection, one thread. Holds 16 bytes per argument of a partial request, so what
// it holds is bounded by what the connection lets its input grow to.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crab::resp {

struct Limits {
  int64_t bulk_bytes_max = 512 << 20;   // proto-max-bulk-len
  int64_t multibulk_max = INT32_MAX;    // arguments of one request
  size_t inline_bytes_max = 64 * 1024;  // of a line: an inline request or a length
  bool unauthenticated = false;         // 10 arguments of 16384 bytes at most
};

class Parser {
 public:
  enum class Verdict {
    kCommand,     // argv holds a request (maybe of no argument: skip it); drop `consumed` bytes
    kIncomplete,  // nothing consumed: call again with the same first byte and more behind it
    kError,       // error() says what; the connection is to be closed after sending it
  };

  // `input` begins at the first byte of a request. Whether it arrives whole or byte by byte, the
  // verdicts are the same.
  Verdict Next(std::string_view input, const Limits& limits, std::vector<std::string_view>& argv,
               size_t* consumed);

  // After kError: "Protocol error: too big inline request" and such, without "ERR ".
  const std::string& error() const { return error_; }
  // After kIncomplete: bytes that the whole request is known to need in all (0 = not known), so
  // that a big bulk can be read into a buffer of the right size. It grows with each argument.
  size_t request_bytes_known() const { return request_bytes_known_; }
  // True while a request is partly read.
  bool in_request() const { return (position_ | line_scanned_) != 0; }
  // Arguments of the partial request that are whole, for CLIENT LIST's argv-mem and such.
  size_t arguments_read() const { return arguments_.size(); }

 private:
  struct Piece {
    size_t offset, size;  // relative to the first byte of the request
  };
  enum class Line { kWhole, kPartial, kTooLong };

  bool NextWhole(std::string_view input, const Limits& limits, std::vector<std::string_view>& argv,
                 size_t* consumed);
  void Keep(const char* begin, std::span<const std::string_view> arguments, const char* position,
            size_t left);
  Verdict NextMultibulk(std::string_view input, const Limits& limits,
                        std::vector<std::string_view>& argv, size_t* consumed);
  Verdict NextInline(std::string_view input, const Limits& limits,
                     std::vector<std::string_view>& argv, size_t* consumed);
  Line FindLine(std::string_view input, char end, const Limits& limits, size_t* line_end);
  bool SplitInline(std::string_view line, std::vector<std::string_view>& argv);
  Verdict Fail(std::string message);
  void Reset();

  size_t position_ = 0;      // read so far of the present request
  size_t line_scanned_ = 0;  // bytes behind position_ that hold no end of the line
  int64_t bulks_left_ = 0;   // arguments still to come
  int64_t bulk_bytes_ = -1;  // length of the one being read, -1 = its header is next
  size_t request_bytes_known_ = 0;
  std::vector<Piece> arguments_;
  std::string inline_bytes_;  // the arguments of an inline request, end to end
  std::string error_;
};

}  // namespace crab::resp

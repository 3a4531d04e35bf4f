// Args: one request's arguments, typed on demand. Views into the connection's input: they die with
// the call, so what is kept is copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "utils/status.h"

namespace crab {

bool EqualsIgnoreCase(std::string_view a, std::string_view b);

class Args {
 public:
  Args() = default;
  explicit Args(std::span<const std::string_view> argv) : argv_(argv) {}

  size_t size() const { return argv_.size(); }
  std::string_view operator[](size_t i) const { return argv_[i]; }
  std::span<const std::string_view> span() const { return argv_; }
  Args From(size_t first) const { return Args(argv_.subspan(first)); }

  // Whether argument i is this word, in any case.
  bool Is(size_t i, std::string_view word) const { return EqualsIgnoreCase(argv_[i], word); }
  // "ERR value is not an integer or out of range"
  Result<int64_t> Integer(size_t i) const;
  // The same within [min, max], with an error text of the command's own when outside.
  Result<int64_t> Integer(size_t i, int64_t min, int64_t max, const char* error) const;
  // "ERR value is not a valid float"
  Result<long double> Float(size_t i) const;

 private:
  std::span<const std::string_view> argv_;
};

}  // namespace crab

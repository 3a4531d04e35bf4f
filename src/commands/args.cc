#include "src/commands/args.h"

#include "src/commands/errors.h"
#include "utils/number.h"

namespace crab {

namespace {

inline char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; }

}  // namespace

bool EqualsIgnoreCase(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i] && Lower(a[i]) != Lower(b[i])) return false;
  }
  return true;
}

Result<int64_t> Args::Integer(size_t i) const {
  int64_t value = 0;
  if (!ParseInt64(argv_[i], &value)) return Status::Error(kNotAnInteger);
  return value;
}

Result<int64_t> Args::Integer(size_t i, int64_t min, int64_t max, const char* error) const {
  const int64_t value = TRY(Integer(i));
  if (value < min || value > max) return Status::Error(error);
  return value;
}

Result<long double> Args::Float(size_t i) const {
  long double value = 0;
  if (!ParseLongDouble(argv_[i], &value)) return Status::Error(kNotAFloat);
  return value;
}

}  // namespace crab

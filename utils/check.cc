#include "utils/check.h"

#include <cstdio>
#include <cstdlib>

namespace crab::internal {

void CheckFailed(const char* expression, const char* file, int line, const std::string& values) {
  std::fprintf(stderr, "CHECK failed: %s%s at %s:%d\n", expression, values.c_str(), file, line);
  std::abort();
}

}  // namespace crab::internal

// CHECK and DCHECK: a statement that is true unless this program has a bug. A false one prints
// what and where, and aborts. CHECK stays in the release build; DCHECK only where NDEBUG is not
// set. Never for bytes that come from a client or a disk: those get a Status.
#pragma once

#include <sstream>
#include <string>

namespace crab::internal {

[[noreturn]] void CheckFailed(const char* expression, const char* file, int line,
                              const std::string& values);

template <typename A, typename B>
[[noreturn, gnu::noinline, gnu::cold]] void CheckFailedWith(const char* expression,
                                                            const char* file, int line, const A& a,
                                                            const B& b) {
  std::ostringstream values;
  values << " (" << a << " vs " << b << ")";
  CheckFailed(expression, file, line, values.str());
}

}  // namespace crab::internal

#define CHECK(condition)                             \
  (__builtin_expect(static_cast<bool>(condition), 1) \
       ? (void)0                                     \
       : ::crab::internal::CheckFailed(#condition, __FILE__, __LINE__, {}))

#define CRAB_CHECK_OP(op, a, b)                                                          \
  do {                                                                                   \
    const auto& check_a_ = (a);                                                          \
    const auto& check_b_ = (b);                                                          \
    if (__builtin_expect(!(check_a_ op check_b_), 0)) {                                  \
      ::crab::internal::CheckFailedWith(#a " " #op " " #b, __FILE__, __LINE__, check_a_, \
                                        check_b_);                                       \
    }                                                                                    \
  } while (0)

#define CHECK_EQ(a, b) CRAB_CHECK_OP(==, a, b)
#define CHECK_NE(a, b) CRAB_CHECK_OP(!=, a, b)
#define CHECK_LT(a, b) CRAB_CHECK_OP(<, a, b)
#define CHECK_LE(a, b) CRAB_CHECK_OP(<=, a, b)
#define CHECK_GT(a, b) CRAB_CHECK_OP(>, a, b)
#define CHECK_GE(a, b) CRAB_CHECK_OP(>=, a, b)

#ifdef NDEBUG
#define DCHECK(condition) ((void)0)
#else
#define DCHECK(condition) CHECK(condition)
#endif

// Status, Result<T> and TRY: how a function says that it could not do what it was asked.
// A Status is one pointer, null for OK. A client's error is a static string with Redis' exact
// bytes; an operator's error is a sentence made where it happened, with the errno behind it.
// Values of one thread; nothing here locks or throws.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace crab {

class [[nodiscard]] Status {
 public:
  static Status Ok() { return Status(); }

  // An error whose text never changes: `text` must be a string literal (it is kept by pointer).
  static Status Error(const char* text) {
    Status status;
    status.word_ = reinterpret_cast<uintptr_t>(text);
    return status;
  }

  // An error with a text of its own and, where a system call is behind it, its errno.
  static Status Error(std::string text, int system_errno = 0);

  Status() = default;
  Status(Status&& other) noexcept : word_(std::exchange(other.word_, 0)) {}
  Status& operator=(Status&& other) noexcept {
    std::swap(word_, other.word_);
    return *this;
  }
  Status(const Status&) = delete;
  Status& operator=(const Status&) = delete;
  ~Status() {
    if (word_ & kOwned) Free();
  }

  bool ok() const { return word_ == 0; }
  // The text of the error, "" when OK. Lives as long as this Status.
  std::string_view message() const;
  // The errno of the system call that failed, 0 where there was none.
  int system_errno() const;
  // The same error with `context: ` before its text; OK stays OK.
  Status Annotate(std::string_view context) &&;

 private:
  struct Owned {
    std::string text;
    int system_errno;
  };
  // String literals and heap objects are at least 2-aligned or not: the top bit, never set in a
  // user-space address, tells them apart whatever their alignment.
  static constexpr uintptr_t kOwned = uintptr_t{1} << 63;

  const Owned* owned() const { return reinterpret_cast<const Owned*>(word_ & ~kOwned); }
  void Free();

  uintptr_t word_ = 0;
};

// A value, or the Status that says why there is none.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : ok_(true) { new (&value_) T(std::move(value)); }  // NOLINT: implicit on purpose
  Result(Status status) : ok_(false) {                                // NOLINT: implicit on purpose
    new (&status_) Status(std::move(status));
  }
  Result(Result&& other) noexcept : ok_(other.ok_) {
    if (ok_) {
      new (&value_) T(std::move(other.value_));
    } else {
      new (&status_) Status(std::move(other.status_));
    }
  }
  Result& operator=(Result&& other) noexcept {
    if (this != &other) {
      this->~Result();
      new (this) Result(std::move(other));
    }
    return *this;
  }
  ~Result() {
    if (ok_) {
      value_.~T();
    } else {
      status_.~Status();
    }
  }

  bool ok() const { return ok_; }
  T& value() & { return value_; }
  const T& value() const& { return value_; }
  T&& value() && { return std::move(value_); }
  T* operator->() { return &value_; }
  T& operator*() & { return value_; }
  const T& operator*() const& { return value_; }
  // The error; OK when there is a value.
  Status TakeStatus() { return ok_ ? Status::Ok() : std::move(status_); }
  std::string_view message() const { return ok_ ? std::string_view() : status_.message(); }
  int system_errno() const { return ok_ ? 0 : status_.system_errno(); }

 private:
  union {
    T value_;
    Status status_;
  };
  bool ok_;
};

namespace internal {
inline Status TakeStatus(Status& status) { return std::move(status); }
template <typename T>
Status TakeStatus(Result<T>& result) {
  return result.TakeStatus();
}
inline void TakeValue(Status&&) {}
template <typename T>
T TakeValue(Result<T>&& result) {
  return std::move(result).value();
}
}  // namespace internal

}  // namespace crab

// Yields the value of a Result (nothing of a Status), or returns its error from this function.
#define TRY(expression)                                  \
  __extension__({                                        \
    auto try_result_ = (expression);                     \
    if (__builtin_expect(!try_result_.ok(), 0)) {        \
      return ::crab::internal::TakeStatus(try_result_);  \
    }                                                    \
    ::crab::internal::TakeValue(std::move(try_result_)); \
  })

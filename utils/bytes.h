// Buffer: bytes that are appended at the end and taken from the front, in one piece of memory.
// Growth does not initialise what it adds. Belongs to one thread; views into it live until the next
// call that is not const.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <utility>

#include "utils/check.h"

namespace crab {

class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(begin_, other.begin_);
    std::swap(end_, other.end_);
    std::swap(capacity_, other.capacity_);
  }

  const char* data() const { return data_ + begin_; }
  char* data() { return data_ + begin_; }
  size_t size() const { return end_ - begin_; }
  bool empty() const { return end_ == begin_; }
  size_t capacity() const { return capacity_; }
  std::string_view view() const { return {data_ + begin_, size()}; }

  // Room for `bytes` more behind the end; what is written there counts after Commit.
  char* Reserve(size_t bytes) {
    if (__builtin_expect(capacity_ - end_ < bytes, 0)) Grow(bytes);
    return data_ + end_;
  }
  void Commit(size_t bytes) { end_ += bytes; }
  size_t room() const { return capacity_ - end_; }

  void Append(std::string_view bytes) {
    std::memcpy(Reserve(bytes.size()), bytes.data(), bytes.size());
    end_ += bytes.size();
  }
  void Append(char byte) {
    *Reserve(1) = byte;
    ++end_;
  }
  // Drops `bytes` from the front.
  void Consume(size_t bytes) {
    begin_ += bytes;
    if (begin_ == end_) begin_ = end_ = 0;
  }
  // Drops what is behind the first `bytes`.
  void Truncate(size_t bytes) { end_ = begin_ + bytes; }
  void Clear() { begin_ = end_ = 0; }
  // Gives the memory back when more than `keep_bytes` is held and nothing is inside.
  void ShrinkIfEmpty(size_t keep_bytes) {
    if (empty() && capacity_ > keep_bytes) {
      std::free(data_);
      data_ = nullptr;
      begin_ = end_ = capacity_ = 0;
    }
  }

 private:
  void Grow(size_t bytes);

  char* data_ = nullptr;
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t capacity_ = 0;
};

}  // namespace crab

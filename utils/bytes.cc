#include "utils/bytes.h"

#include <algorithm>

namespace crab {

void Buffer::Grow(size_t bytes) {
  constexpr size_t kSmallest = 1024;
  const size_t used = size();
  if (begin_ > 0 && capacity_ - used >= bytes && begin_ >= used) {
    std::memmove(data_, data_ + begin_, used);  // moving is cheap: at least half was free
  } else {
    const size_t capacity = std::max({kSmallest, used + bytes, used * 2});
    char* data = static_cast<char*>(std::malloc(capacity));
    CHECK(data != nullptr);
    if (used > 0) std::memcpy(data, data_ + begin_, used);
    std::free(data_);
    data_ = data;
    capacity_ = capacity;
  }
  begin_ = 0;
  end_ = used;
}

}  // namespace crab

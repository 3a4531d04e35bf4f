#include "utils/random.h"

#include <sys/random.h>

#include <cerrno>

#include "utils/check.h"

namespace crab {

void FillRandom(void* bytes, size_t size) {
  auto* p = static_cast<char*>(bytes);
  while (size > 0) {
    const ssize_t got = getrandom(p, size, 0);
    if (got < 0) {
      CHECK_EQ(errno, EINTR);
      continue;
    }
    p += got;
    size -= static_cast<size_t>(got);
  }
}

uint64_t RandomUint64() {
  uint64_t value = 0;
  FillRandom(&value, sizeof(value));
  return value;
}

std::string RandomHex(size_t digits) {
  std::string text(digits, '\0');
  FillRandom(text.data(), text.size());
  for (char& c : text) c = "0123456789abcdef"[c & 15];
  return text;
}

Random::Random(uint64_t seed) {
  for (uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    uint64_t mixed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    word = mixed ^ (mixed >> 31);
  }
}

}  // namespace crab

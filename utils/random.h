// Chance for choices: eviction samples, RANDOMKEY, jitter. Fast and of good quality, yet it can be
// predicted from its output: secrets and ids come from RandomHex, which asks the kernel.
// A Random belongs to one thread. Seeded by hand it repeats itself, which tests use.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace crab {

// Bytes of the kernel's. Never fails: without the system call nothing here can start.
void FillRandom(void* bytes, size_t size);
uint64_t RandomUint64();
// `digits` lower-case hexadecimal digits, for run ids and replication ids.
std::string RandomHex(size_t digits);

// xoshiro256** (Blackman and Vigna), its state filled from the seed by splitmix64.
class Random {
 public:
  Random() : Random(RandomUint64()) {}
  explicit Random(uint64_t seed);

  uint64_t Next() {
    const uint64_t result = RotateLeft(state_[1] * 5, 7) * 9;
    const uint64_t shifted = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = RotateLeft(state_[3], 45);
    return result;
  }
  // From 0 to bound - 1, bound > 0. The bias is below bound / 2^64.
  uint64_t Below(uint64_t bound) {
    __extension__ using Product = unsigned __int128;
    return static_cast<uint64_t>((static_cast<Product>(Next()) * bound) >> 64);
  }
  // From 0.0 up to, not including, 1.0.
  double Fraction() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

 private:
  static uint64_t RotateLeft(uint64_t value, int bits) {
    return (value << bits) | (value >> (64 - bits));
  }

  uint64_t state_[4];
};

}  // namespace crab

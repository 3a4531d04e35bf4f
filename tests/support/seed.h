// The one seed of a test run: every random choice in a test derives from it, so that a failure can
// be run again. A failing test that asked for the seed prints it.
// Synchronized.
#pragma once

#include <cstdint>

namespace crab::test {

// CRAB_TEST_SEED from the environment (any base strtoull reads), or a fixed default.
uint64_t TestSeed();

// True where CRAB_TEST_LONG=1 asks for the variants that take minutes.
bool LongTests();

// A well mixed 64-bit number out of a seed and the number of the case (splitmix64).
uint64_t Mix(uint64_t seed, uint64_t number);

}  // namespace crab::test

// LCS: the longest sequence of bytes that two strings have in common, in order but with gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

struct CommonSequence {
  // The same bytes at [a, a + size) of one string and [b, b + size) of the other.
  struct Run {
    size_t a, b, size;
  };
  size_t size = 0;
  std::vector<Run> runs;  // from the end of the strings to their beginning
};

// Where several sequences are equally long, finds the one that Redis finds. Takes O(a * b) time,
// and a bit of memory for each pair of bytes.
CommonSequence FindCommonSequence(std::string_view a, std::string_view b);
// Only its size: two rows of memory.
size_t CommonSequenceSize(std::string_view a, std::string_view b);

// LCS key1 key2 [LEN] [IDX] [MINMATCHLEN len] [WITHMATCHLEN]
Status Lcs(Call& call);

}  // namespace crab

// Key specs: which arguments of a request are keys, by its command's row. Dispatch takes the shards
// of these keys, COMMAND GETKEYS shows them. Pure functions of the row and argv.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/commands/args.h"
#include "src/commands/command.h"

namespace crab {

// Whether the command has exactly one key wherever it is called: args[command.keys[0].first]. The
// common case, which dispatch serves without a walk.
inline bool HasOneKey(const Command& command) {
  return command.keys[0].first > 0 && command.keys[0].first == command.keys[0].last &&
         command.keys[1].first == 0;
}

// Calls visit(key, spec) for each key of a request whose arity suits, spec by spec; a key named
// twice is visited twice.
template <typename Visit>
void ForEachKeyWithSpec(const Command& command, Args args, Visit&& visit) {
  const int argc = static_cast<int>(args.size());
  for (const KeySpec& spec : command.keys) {
    if (spec.first == 0) return;
    const int last = std::min(spec.last < 0 ? argc + spec.last : spec.last, argc - 1);
    for (int i = spec.first; i <= last; i += spec.step) visit(args[i], spec);
  }
}

// The same as visit(key).
template <typename Visit>
void ForEachKey(const Command& command, Args args, Visit&& visit) {
  ForEachKeyWithSpec(command, args, [&](std::string_view key, const KeySpec&) { visit(key); });
}

// What this request does with the keys of `spec`, as KeyFlags: where the row says that the flags
// vary (SET with GET reads as well), decided by the arguments.
uint16_t KeyFlagsOf(const Command& command, Args args, const KeySpec& spec);

// The three numbers that described the keys before there were specs: first, last and step of the
// one range that holds all of them; zeros without keys.
struct KeyRange {
  int first = 0, last = 0, step = 0;
};
KeyRange KeyRangeOf(const Command& command);

}  // namespace crab

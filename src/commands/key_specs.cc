#include "src/commands/key_specs.h"

#include "utils/check.h"

namespace crab {

uint16_t KeyFlagsOf([[maybe_unused]] const Command& command, Args args, const KeySpec& spec) {
  if (!(spec.flags & kKeyVariableFlags)) return spec.flags;
  // SET, the only such command: any argument behind the value that reads GET counts, wherever it
  // stands.
  DCHECK(EqualsIgnoreCase(command.name, "set"));
  for (size_t i = 3; i < args.size(); ++i) {
    if (args.Is(i, "get")) return kKeyReadWrite | kKeyAccess | kKeyUpdate;
  }
  return kKeyOverwrite | kKeyUpdate;
}

KeyRange KeyRangeOf(const Command& command) {
  const KeySpec& spec = command.keys[0];
  KeyRange range{spec.first, spec.last, spec.step};
  if (command.keys[1].first != 0) range.last = std::max<int>(range.last, command.keys[1].last);
  return range;
}

}  // namespace crab

// DEBUG: what test tools need.
#pragma once

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

// DEBUG subcommand [argument ...]: the handler; it runs holding the world.
Status Debug(Call& call);

}  // namespace crab

// INFO and STATS: the state of the server, as text for people and tools and as JSON.
#pragma once

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

// INFO [section [section ...]]: handlers; they run holding the world.
Status Info(Call& call);
// STATS: one JSON object, a bulk string, or a bare line to an inline request.
Status Stats(Call& call);

}  // namespace crab

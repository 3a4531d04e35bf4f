// INFO and STATS: the state of the server, as text for people and tools and as JSON.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

class Server;

// INFO [section [section ...]]: handlers; they run holding the world.
Status Info(Call& call);
// STATS: one JSON object, a bulk string, or a bare line to an inline request.
Status Stats(Call& call);
// What INFO persistence says of the log, as names and values. The caller holds the world.
std::vector<std::pair<std::string, std::string>> WalFields(Server& server);

}  // namespace crab

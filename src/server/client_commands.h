// What the commands about connections share with INFO and with tests.
#pragma once

#include <cstdint>
#include <string>

namespace crab {

class Session;

// A session's line of CLIENT LIST, without the newline. `own_id`: the client that asks.
std::string ClientInfoLine(const Session& session, int64_t now_ms, uint64_t own_id);

}  // namespace crab

// What the commands about connections share with INFO, with the LoadingDoor and with tests.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/commands/args.h"
#include "utils/status.h"

namespace crab {

class Session;

// Views into the arguments.
struct Credentials {
  std::string_view user, password;
};
// What AUTH was given, at least one argument; `secret`: option requirepass.
Result<Credentials> AuthArguments(std::string_view secret, const Args& args);
// OK where they suit.
Status CheckPassword(std::string_view secret, const Credentials& given);

// A session's line of CLIENT LIST, without the newline. `own_id`: the client that asks.
std::string ClientInfoLine(const Session& session, int64_t now_ms, uint64_t own_id);

}  // namespace crab

// HELP of a container command (OBJECT HELP, CLIENT HELP ...), made of the rows of its subcommands
// in the shape in which Redis prints it: a line for the syntax, indented lines for what it does.
#pragma once

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

// The handler of each "container|help" row.
Status ContainerHelp(Call& call);

}  // namespace crab

#include <gtest/gtest.h>

#include "src/commands/registry.h"
#include "src/commands/syntax.h"
#include "src/server/server.h"

namespace crab {
namespace {

// COMMAND DOCS, which redis-cli asks for when it starts, writes every row.
TEST(CommandRowsTest, TheNotationOfEveryRowIsUnderstood) {
  for (std::span<const Command> rows : {ClientCommands(), AdminCommands(), WalCommands()}) {
    for (const Command& row : rows) {
      Result<std::vector<SyntaxArgument>> arguments = ParseSyntax(row.syntax);
      EXPECT_TRUE(arguments.ok()) << row.name << ": " << arguments.message();
    }
  }
}

}  // namespace
}  // namespace crab

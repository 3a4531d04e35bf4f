// The rows of all commands, of every group together.

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "src/commands/registry.h"
#include "src/commands/syntax.h"
#include "src/server/server.h"

namespace crab {
namespace {

TEST(RowsTest, EverySyntaxIsWellFormed) {
  for (std::span<const Command> group :
       {StringCommands(), KeyCommands(), ClientCommands(), AdminCommands()}) {
    for (const Command& command : group) {
      auto arguments = ParseSyntax(command.syntax);
      EXPECT_TRUE(arguments.ok()) << command.name << ": " << arguments.message();
    }
  }
}

TEST(RowsTest, EverySubcommandHasItsContainerAndEveryNameIsThereOnce) {
  std::set<std::string> names;
  for (std::span<const Command> group :
       {StringCommands(), KeyCommands(), ClientCommands(), AdminCommands()}) {
    for (const Command& command : group) {
      EXPECT_TRUE(names.insert(command.name).second) << command.name;
    }
  }
  for (const std::string& name : names) {
    const size_t bar = name.find('|');
    if (bar != std::string::npos) {
      EXPECT_TRUE(names.contains(name.substr(0, bar))) << name;
    }
  }
}

}  // namespace
}  // namespace crab

// Registry: name -> Command. Built once from the groups' tables, then frozen and shared by all loops.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "src/commands/command.h"

namespace crab {

std::span<const Command> StringCommands();
std::span<const Command> KeyCommands();
std::span<const Command> ExpireCommands();
std::span<const Command> ObjectCommands();
std::span<const Command> CommandCommands();

class Registry {
 public:
  explicit Registry(std::initializer_list<std::span<const Command>> groups);

  // The row for argv: of a container's subcommand when there is one. Null: no such command, or no
  // such subcommand (then *container is the container's row). Never allocates.
  const Command* Find(Args args, const Command** container) const;
  const Command* FindName(std::string_view name) const;  // "get", "client|list", any case
  // Top-level rows by name; subcommands of a container.
  const std::vector<const Command*>& commands() const { return commands_; }
  std::vector<const Command*> Subcommands(const Command& container) const;
  // A dense number of a row, for per-command statistics, below size().
  size_t IndexOf(const Command& command) const;
  size_t size() const;

 private:
  std::vector<const Command*> commands_;
};

}  // namespace crab

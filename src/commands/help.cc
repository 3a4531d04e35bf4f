#include "src/commands/help.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/registry.h"
#include "src/commands/syntax.h"
#include "utils/check.h"

namespace crab {

namespace {

std::string Upper(std::string_view text) {
  std::string upper(text);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return std::toupper(c); });
  return upper;
}

void AppendArguments(const std::vector<SyntaxArgument>& arguments, std::string_view separator,
                     std::string* line);

// One argument as Redis' help texts write it: <value>, TOKEN <value>, (ON|OFF), [...] when
// optional, and an ellipsis when it may come more than once.
void AppendArgument(const SyntaxArgument& argument, std::string* line) {
  using Type = SyntaxArgument::Type;
  if (argument.optional) line->push_back('[');
  line->append(argument.token);
  if (argument.type != Type::kPureToken) {
    if (!argument.token.empty()) line->push_back(' ');
    if (argument.type == Type::kOneof) {
      if (!argument.optional) line->push_back('(');
      AppendArguments(argument.arguments, "|", line);
      if (!argument.optional) line->push_back(')');
    } else if (argument.type == Type::kBlock) {
      AppendArguments(argument.arguments, " ", line);
    } else {
      line->append("<").append(argument.name).append(">");
    }
  }
  if (argument.multiple) line->append(" ...");
  if (argument.optional) line->push_back(']');
}

void AppendArguments(const std::vector<SyntaxArgument>& arguments, std::string_view separator,
                     std::string* line) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (i > 0) line->append(separator);
    AppendArgument(arguments[i], line);
  }
}

}  // namespace

Status ContainerHelp(Call& call) {
  const std::string_view name = call.command.name;
  const std::string_view container_name = name.substr(0, name.find('|'));
  const Command* container = call.registry.FindName(container_name);
  CHECK(container != nullptr);

  std::vector<std::string> lines;
  lines.push_back(Upper(container_name) +
                  " <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
  if (container->handler != nullptr) {  // COMMAND: it can be called without a subcommand
    lines.push_back("(no subcommand)");
    lines.push_back("    " + std::string(container->summary));
  }
  const auto add = [&lines](const Command& command) {
    const std::string_view full_name = command.name;
    std::string line = Upper(full_name.substr(full_name.find('|') + 1));
    auto arguments = ParseSyntax(command.syntax);
    CHECK(arguments.ok());
    if (!arguments->empty()) line.push_back(' ');
    AppendArguments(*arguments, " ", &line);
    lines.push_back(std::move(line));
    lines.push_back("    " + std::string(command.summary));
  };
  for (const Command* subcommand : call.registry.Subcommands(*container)) {
    if (subcommand != &call.command) add(*subcommand);
  }
  add(call.command);  // HELP itself stands last

  call.reply.Array(lines.size());
  for (const std::string& line : lines) call.reply.Simple(line);
  return Status::Ok();
}

}  // namespace crab

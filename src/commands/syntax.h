// Syntax: the arguments of a command as a tree, read from the compact notation of Command::syntax.
// COMMAND DOCS is made of it, and with that the hints of redis-cli. Pure functions; the tree's
// views point into the notation, which for a row lives for ever.
//
//   key                  an argument. Its type is key or pattern where that is its name, else
//   string seconds:integer      the same with its type: string integer double key pattern unix-time
//   newkey:key#1         a key of the second key specification (#0 is understood)
//   KEEPTTL              capitals: a token that stands for itself, named "keepttl"
//   EX seconds:integer   a token in front of an argument
//   [x]                  optional
//   x...                 once or more; `[PREFIX prefix]...` repeats the token as well,
//                        `[TOKEN value...]` has it once
//   (pair: a b)          a group with a name: arguments one after the other ...
//   (mode: A|B)          ... or one of several. `[pair: a b]` is an optional group, and a token in
//                        front of the name is the group's: `[AUTH login: username password]`
//   x@6.2.0  x!2.8.12    the version since which there is x, or since which it is deprecated; of a
//                        group it stands behind the name: `[condition@7.0.0: NX|XX]`
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "resp/reply.h"
#include "utils/status.h"

namespace crab {

struct SyntaxArgument {
  enum class Type : uint8_t {
    kString,
    kInteger,
    kDouble,
    kKey,
    kPattern,
    kUnixTime,
    kPureToken,
    kOneof,
    kBlock
  };

  std::string name;
  Type type = Type::kString;
  int key_spec = 0;  // of a key: which of the command's key specifications
  std::string_view token;
  std::string_view since;
  std::string_view deprecated_since;
  bool optional = false;
  bool multiple = false;
  bool multiple_token = false;
  std::vector<SyntaxArgument> arguments;  // of a group
};

std::string_view SyntaxTypeName(SyntaxArgument::Type type);  // "pure-token"

// The arguments in order; an error says what is wrong and where.
Result<std::vector<SyntaxArgument>> ParseSyntax(std::string_view notation);

// Writes the array that COMMAND DOCS shows under "arguments".
void ReplySyntax(resp::Reply& reply, const std::vector<SyntaxArgument>& arguments);

}  // namespace crab

#include "src/commands/syntax.h"

#include <gtest/gtest.h>

#include <string>

#include "src/commands/registry.h"

namespace crab {
namespace {

// The tree as text: name type, then what is not as usual, then the members of a group in braces.
std::string Show(const std::vector<SyntaxArgument>& arguments) {
  std::string text;
  for (const SyntaxArgument& argument : arguments) {
    if (!text.empty()) text += ", ";
    text.append(argument.name).append(" ").append(SyntaxTypeName(argument.type));
    if (argument.type == SyntaxArgument::Type::kKey && argument.key_spec != 0) {
      text += "#" + std::to_string(argument.key_spec);
    }
    if (!argument.token.empty()) text.append(" token=").append(argument.token);
    if (!argument.since.empty()) text.append(" since=").append(argument.since);
    if (!argument.deprecated_since.empty())
      text.append(" until=").append(argument.deprecated_since);
    if (argument.optional) text += " optional";
    if (argument.multiple) text += " multiple";
    if (argument.multiple_token) text += " multiple_token";
    if (!argument.arguments.empty()) text += " {" + Show(argument.arguments) + "}";
  }
  return text;
}

TEST(SyntaxTest, ReadsEachForm) {
  const struct {
    const char* notation;
    const char* tree;
  } cases[] = {
      {"", ""},
      {"key value", "key key, value string"},
      {"pattern", "pattern pattern"},
      {"seconds:integer by:double at:unix-time", "seconds integer, by double, at unix-time"},
      {"source:key newkey:key#1", "source key, newkey key#1"},
      {"key... [section...]", "key key multiple, section string optional multiple"},
      {"[section]...", "section string optional multiple"},
      {"[LEN] [IDX]", "len pure-token token=LEN optional, idx pure-token token=IDX optional"},
      {"[MATCH pattern] [TYPE type@6.0.0]",
       "pattern pattern token=MATCH optional, type string token=TYPE since=6.0.0 optional"},
      {"EX seconds:integer@2.6.12", "seconds integer token=EX since=2.6.12"},
      {"[PREFIX prefix]...", "prefix string token=PREFIX optional multiple multiple_token"},
      {"[WEIGHTS weight:integer...]", "weight integer token=WEIGHTS optional multiple"},
      {"(key_value: key value)...", "key_value block multiple {key key, value string}"},
      {"(parameter: parameter)...", "parameter block multiple {parameter string}"},
      {"(mode: ON|OFF)", "mode oneof {on pure-token token=ON, off pure-token token=OFF}"},
      {"[mode@6.2.0: WRITE | ALL]",
       "mode oneof since=6.2.0 optional {write pure-token token=WRITE, all pure-token token=ALL}"},
      {"[TYPE kind@5.0.0: NORMAL|PUBSUB]",
       "kind oneof token=TYPE since=5.0.0 optional {normal pure-token token=NORMAL, pubsub "
       "pure-token token=PUBSUB}"},
      {"[arguments: protover:integer [AUTH login: username password] [SETNAME clientname]]",
       "arguments block optional {protover integer, login block token=AUTH optional {username "
       "string, password string}, clientname string token=SETNAME optional}"},
      {"(filter: ip:port!2.8.12|(new-format: [ID client-id:integer@2.8.12] [SKIPME yes/no])...)",
       "filter oneof {ip:port string until=2.8.12, new-format block multiple {client-id integer "
       "token=ID since=2.8.12 optional, yes/no string token=SKIPME optional}}"},
      {"[ID id@6.2.0: client-id:integer...]",
       "id block token=ID since=6.2.0 optional {client-id integer multiple}"},
  };
  for (const auto& [notation, tree] : cases) {
    SCOPED_TRACE(notation);
    Result<std::vector<SyntaxArgument>> arguments = ParseSyntax(notation);
    ASSERT_TRUE(arguments.ok()) << arguments.message();
    EXPECT_EQ(Show(*arguments), tree);
  }
}

TEST(SyntaxTest, SaysWhatItDoesNotUnderstand) {
  for (const char* notation : {"[", "[key", "(mode: A|B", "key ]", "|", "(mode: A|B C)", "(mode: )",
                               "[a b]", ":integer", "(mode: A B|C)"}) {
    EXPECT_FALSE(ParseSyntax(notation).ok()) << notation;
  }
}

TEST(SyntaxTest, EveryRowsNotationIsUnderstood) {
  for (std::span<const Command> rows :
       {StringCommands(), KeyCommands(), ExpireCommands(), ObjectCommands(), CommandCommands()}) {
    for (const Command& row : rows) {
      Result<std::vector<SyntaxArgument>> arguments = ParseSyntax(row.syntax);
      EXPECT_TRUE(arguments.ok()) << row.name << ": " << arguments.message();
    }
  }
}

std::string Reply(std::string_view notation, int protocol) {
  Result<std::vector<SyntaxArgument>> arguments = ParseSyntax(notation);
  EXPECT_TRUE(arguments.ok());
  Buffer out;
  resp::Reply reply(out, protocol);
  ReplySyntax(reply, *arguments);
  std::string text(out.view());
  for (size_t at; (at = text.find("\r\n")) != std::string::npos;) text.replace(at, 2, " ");
  return text;
}

// The bytes that redis-server 7.0 shows for such arguments.
TEST(SyntaxTest, RepliesAsCommandDocsDoes) {
  constexpr char kNotation[] = "key [EX seconds:integer@6.2.0] [m: A|B]...";
  EXPECT_EQ(Reply(kNotation, 2),
            "*3 "
            "*6 $4 name $3 key $4 type $3 key $14 key_spec_index :0 "
            "*10 $4 name $7 seconds $4 type $7 integer $5 token $2 EX $5 since $5 6.2.0 "
            "$5 flags *1 +optional "
            "*8 $4 name $1 m $4 type $5 oneof $5 flags *2 +optional +multiple $9 arguments *2 "
            "*6 $4 name $1 a $4 type $10 pure-token $5 token $1 A "
            "*6 $4 name $1 b $4 type $10 pure-token $5 token $1 B ");
  EXPECT_EQ(Reply("[PREFIX prefix]...", 3),
            "*1 %4 $4 name $6 prefix $4 type $6 string $5 token $6 PREFIX "
            "$5 flags ~3 +optional +multiple +multiple_token ");
}

}  // namespace
}  // namespace crab

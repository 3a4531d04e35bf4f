#include "src/commands/syntax.h"

#include <algorithm>
#include <iterator>

namespace crab {

namespace {

using Type = SyntaxArgument::Type;
using Arguments = std::vector<SyntaxArgument>;

constexpr std::string_view kTypeNames[] = {"string",    "integer",    "double", "key",  "pattern",
                                           "unix-time", "pure-token", "oneof",  "block"};
constexpr std::string_view kRepeat = "...";

bool IsCapital(char c) { return c >= 'A' && c <= 'Z'; }

// Takes what stands behind `mark` off the end of `word`, "" where there is no mark.
std::string_view CutBehind(std::string_view* word, char mark) {
  const size_t at = word->rfind(mark);
  if (at == std::string_view::npos) return {};
  const std::string_view behind = word->substr(at + 1);
  *word = word->substr(0, at);
  return behind;
}

class Parser {
 public:
  explicit Parser(std::string_view notation) : text_(notation) {}

  Result<Arguments> All() {
    Arguments arguments;
    for (SkipSpaces(); at_ < text_.size(); SkipSpaces()) arguments.push_back(TRY(Item()));
    return arguments;
  }

 private:
  Result<SyntaxArgument> Item() {
    if (Peek() == '[' || Peek() == '(') return Bracket();
    return Plain();
  }

  // TOKEN, name, or TOKEN name.
  Result<SyntaxArgument> Plain() {
    SyntaxArgument argument;
    std::string_view word = TRY(Word());
    if (IsCapital(word[0])) {
      const bool takes_argument =
          Peek() == ' ' && at_ + 1 < text_.size() && text_[at_ + 1] >= 'a' && text_[at_ + 1] <= 'z';
      if (takes_argument) {
        argument.token = word;
        ++at_;
        word = TRY(Word());
      } else {
        ReadVersions(&word, &argument);
        argument.type = Type::kPureToken;
        argument.token = word;
        std::transform(word.begin(), word.end(), std::back_inserter(argument.name), ::tolower);
        argument.multiple = Take(kRepeat);
        return argument;
      }
    }
    ReadVersions(&word, &argument);
    ReadType(&word, &argument);
    if (word.empty()) return Error("an argument without a name");
    argument.name = word;
    argument.multiple = Take(kRepeat);
    return argument;
  }

  // An optional item, or a group: [TOKEN name: items] or (TOKEN name: items).
  Result<SyntaxArgument> Bracket() {
    const bool optional = Peek() == '[';
    ++at_;
    SyntaxArgument argument;
    if (ReadGroupHead(&argument)) {
      TRY(Members(&argument));
    } else {
      argument = TRY(Item());
    }
    SkipSpaces();
    if (!Take(optional ? "]" : ")")) return Error("a bracket that is not closed");
    argument.optional |= optional;
    if (Take(kRepeat)) {
      argument.multiple = true;
      argument.multiple_token = !argument.token.empty() && argument.type != Type::kPureToken;
    }
    return argument;
  }

  // Reads `TOKEN name:` or `name:`; without one of them nothing is read.
  bool ReadGroupHead(SyntaxArgument* argument) {
    const size_t begin = at_;
    Result<std::string_view> first = Word();
    if (first.ok() && IsCapital(first->front()) && Take(" ")) {
      argument->token = *first;
      first = Word();
    }
    if (!first.ok() || first->back() != ':') {
      argument->token = {};
      at_ = begin;
      return false;
    }
    std::string_view name = *first;
    name.remove_suffix(1);
    ReadVersions(&name, argument);
    argument->name = name;
    return true;
  }

  Status Members(SyntaxArgument* group) {
    bool alternatives = false;
    do {
      SkipSpaces();
      group->arguments.push_back(TRY(Item()));
      SkipSpaces();
      const bool another = Take("|");
      if (group->arguments.size() == 1) alternatives = another;
      const bool ends = Peek() == ']' || Peek() == ')' || Peek() == 0;
      if (another != alternatives && !(alternatives && ends)) {
        return Error("a group that mixes alternatives with a sequence");
      }
      if (ends) break;
    } while (true);
    group->type = alternatives ? Type::kOneof : Type::kBlock;
    return Status::Ok();
  }

  static void ReadVersions(std::string_view* word, SyntaxArgument* argument) {
    argument->deprecated_since = CutBehind(word, '!');
    argument->since = CutBehind(word, '@');
  }

  static void ReadType(std::string_view* word, SyntaxArgument* argument) {
    const std::string_view key_spec = CutBehind(word, '#');
    if (!key_spec.empty()) argument->key_spec = key_spec[0] - '0';
    std::string_view name = *word;
    const std::string_view type = CutBehind(&name, ':');
    const auto* known = std::find(std::begin(kTypeNames), std::end(kTypeNames), type);
    if (!type.empty() && known != std::end(kTypeNames)) {  // else a colon of the name: ip:port
      *word = name;
      argument->type = static_cast<Type>(known - kTypeNames);
    } else if (*word == "key") {
      argument->type = Type::kKey;
    } else if (*word == "pattern") {
      argument->type = Type::kPattern;
    }
  }

  Result<std::string_view> Word() {
    const size_t begin = at_;
    while (at_ < text_.size() && std::string_view(" |()[]").find(text_[at_]) == text_.npos &&
           !text_.substr(at_).starts_with(kRepeat)) {
      ++at_;
    }
    if (at_ == begin) return Error("an argument is missing");
    return text_.substr(begin, at_ - begin);
  }

  char Peek() const { return at_ < text_.size() ? text_[at_] : 0; }
  void SkipSpaces() {
    while (Peek() == ' ') ++at_;
  }
  bool Take(std::string_view expected) {
    if (!text_.substr(at_).starts_with(expected)) return false;
    at_ += expected.size();
    return true;
  }
  Status Error(std::string_view what) const {
    return Status::Error("syntax `" + std::string(text_) + "`: " + std::string(what) +
                         " at position " + std::to_string(at_));
  }

  const std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

std::string_view SyntaxTypeName(Type type) { return kTypeNames[static_cast<size_t>(type)]; }

Result<std::vector<SyntaxArgument>> ParseSyntax(std::string_view notation) {
  return Parser(notation).All();
}

void ReplySyntax(resp::Reply& reply, const std::vector<SyntaxArgument>& arguments) {
  reply.Array(arguments.size());
  for (const SyntaxArgument& argument : arguments) {
    const bool is_key = argument.type == Type::kKey;
    const size_t flags = argument.optional + argument.multiple + argument.multiple_token;
    reply.Map(2 + is_key + !argument.token.empty() + !argument.since.empty() +
              !argument.deprecated_since.empty() + (flags != 0) + !argument.arguments.empty());
    reply.Bulk("name");
    reply.Bulk(argument.name);
    reply.Bulk("type");
    reply.Bulk(SyntaxTypeName(argument.type));
    if (is_key) {
      reply.Bulk("key_spec_index");
      reply.Integer(argument.key_spec);
    }
    const auto field = [&reply](std::string_view name, std::string_view value) {
      if (value.empty()) return;
      reply.Bulk(name);
      reply.Bulk(value);
    };
    field("token", argument.token);
    field("since", argument.since);
    field("deprecated_since", argument.deprecated_since);
    if (flags != 0) {
      reply.Bulk("flags");
      reply.Set(flags);
      if (argument.optional) reply.Simple("optional");
      if (argument.multiple) reply.Simple("multiple");
      if (argument.multiple_token) reply.Simple("multiple_token");
    }
    if (!argument.arguments.empty()) {
      reply.Bulk("arguments");
      ReplySyntax(reply, argument.arguments);
    }
  }
}

}  // namespace crab

// COMMAND: what the rows say about the commands, in the structure in which Redis 7 says it. The
// hints of redis-cli, the routing of cluster clients and the tables of many libraries come from
// here.

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "src/commands/acl_categories.h"
#include "src/commands/command.h"
#include "src/commands/errors.h"
#include "src/commands/help.h"
#include "src/commands/key_specs.h"
#include "src/commands/registry.h"
#include "src/commands/syntax.h"
#include "utils/check.h"
#include "utils/glob.h"

namespace crab {

namespace {

struct NamedFlag {
  uint32_t flag;
  const char* name;
};

constexpr NamedFlag kCommandFlagNames[] = {
    {kWrite, "write"},
    {kRead, "readonly"},
    {kDenyOom, "denyoom"},
    {kAdmin, "admin"},
    {kPubsub, "pubsub"},
    {kNoScript, "noscript"},
    {kBlocking, "blocking"},
    {kLoading, "loading"},
    {kStale, "stale"},
    {kSkipMonitor, "skip_monitor"},
    {kSkipSlowlog, "skip_slowlog"},
    {kAsking, "asking"},
    {kFast, "fast"},
    {kNoAuth, "no_auth"},
    {kMayReplicate, "may_replicate"},
    {kNoMandatoryKeys, "no_mandatory_keys"},
    {kNoAsyncLoading, "no_async_loading"},
    {kNoMulti, "no_multi"},
    {kMovableKeys, "movablekeys"},
    {kAllowBusy, "allow_busy"},
};

constexpr NamedFlag kKeyFlagNames[] = {
    {kKeyRead, "RO"},       {kKeyReadWrite, "RW"},  {kKeyOverwrite, "OW"},
    {kKeyRemove, "RM"},     {kKeyAccess, "access"}, {kKeyUpdate, "update"},
    {kKeyInsert, "insert"}, {kKeyDelete, "delete"}, {kKeyVariableFlags, "variable_flags"},
};

void ReplyFlags(resp::Reply& reply, uint32_t flags, std::span<const NamedFlag> names) {
  size_t count = 0;
  for (const NamedFlag& named : names) count += (flags & named.flag) != 0;
  reply.Set(count);
  for (const NamedFlag& named : names) {
    if (flags & named.flag) reply.Simple(named.name);
  }
}

void ReplyCategories(resp::Reply& reply, uint32_t categories) {
  reply.Set(std::popcount(categories));
  char name[32] = "@";
  for (size_t i = 0; i < kAclCategoryNames.size(); ++i) {
    if (!(categories & (1u << i))) continue;
    const size_t size = kAclCategoryNames[i].copy(name + 1, sizeof name - 1);
    reply.Simple({name, size + 1});
  }
}

void ReplyTips(resp::Reply& reply, std::string_view tips) {
  std::vector<std::string_view> words;
  while (!tips.empty()) {
    const size_t end = std::min(tips.find(' '), tips.size());
    words.push_back(tips.substr(0, end));
    tips.remove_prefix(std::min(end + 1, tips.size()));
  }
  reply.Set(words.size());
  for (std::string_view word : words) reply.Bulk(word);
}

// A spec of Redis says where to begin and how to go on from there; its last key is relative to the
// first, or counted from the end. Ours all begin at an index and go on as a range.
void ReplyKeySpec(resp::Reply& reply, const KeySpec& spec) {
  reply.Map(3);
  reply.Bulk("flags");
  ReplyFlags(reply, spec.flags, kKeyFlagNames);
  reply.Bulk("begin_search");
  reply.Map(2);
  reply.Bulk("type");
  reply.Bulk("index");
  reply.Bulk("spec");
  reply.Map(1);
  reply.Bulk("index");
  reply.Integer(spec.first);
  reply.Bulk("find_keys");
  reply.Map(2);
  reply.Bulk("type");
  reply.Bulk("range");
  reply.Bulk("spec");
  reply.Map(3);
  reply.Bulk("lastkey");
  reply.Integer(spec.last < 0 ? spec.last : spec.last - spec.first);
  reply.Bulk("keystep");
  reply.Integer(spec.step);
  reply.Bulk("limit");
  reply.Integer(0);
}

size_t KeySpecCount(const Command& command) {
  return (command.keys[0].first != 0) + (command.keys[1].first != 0);
}

// The ten elements that describe a command. Redis says an empty set where there are no subcommands,
// and an array where there are.
void ReplyInfo(resp::Reply& reply, const Registry& registry, const Command& command) {
  const KeyRange range = KeyRangeOf(command);
  reply.Array(10);
  reply.Bulk(command.name);
  reply.Integer(command.arity);
  ReplyFlags(reply, command.flags, kCommandFlagNames);
  reply.Integer(range.first);
  reply.Integer(range.last);
  reply.Integer(range.step);
  ReplyCategories(reply, AclCategoriesOf(command));
  ReplyTips(reply, command.tips);
  reply.Set(KeySpecCount(command));
  for (size_t i = 0; i < KeySpecCount(command); ++i) ReplyKeySpec(reply, command.keys[i]);
  const std::vector<const Command*> subcommands = registry.Subcommands(command);
  if (subcommands.empty()) {
    reply.Set(0);
  } else {
    reply.Array(subcommands.size());
    for (const Command* subcommand : subcommands) ReplyInfo(reply, registry, *subcommand);
  }
}

const char* GroupName(Group group) {
  switch (group) {
    case Group::kGeneric:
      return "generic";
    case Group::kString:
      return "string";
    case Group::kConnection:
      return "connection";
    case Group::kServer:
      return "server";
  }
  return "";
}

// A command's name and the map that documents it.
void ReplyDocs(resp::Reply& reply, const Registry& registry, const Command& command) {
  const auto arguments = ParseSyntax(command.syntax);
  CHECK(arguments.ok());
  const std::vector<const Command*> subcommands = registry.Subcommands(command);
  const std::initializer_list<std::pair<const char*, const char*>> facts = {
      {"summary", command.summary},
      {"since", command.since},
      {"group", GroupName(command.group)},
      {"complexity", command.complexity},
  };
  reply.Bulk(command.name);
  const bool deprecated = command.deprecated_since != nullptr;
  reply.Map(facts.size() + 3 * deprecated + !arguments.value().empty() + !subcommands.empty());
  for (const auto& [name, text] : facts) {
    reply.Bulk(name);
    reply.Bulk(text);
  }
  if (deprecated) {
    reply.Bulk("doc_flags");
    reply.Set(1);
    reply.Simple("deprecated");
    reply.Bulk("deprecated_since");
    reply.Bulk(command.deprecated_since);
    reply.Bulk("replaced_by");
    reply.Bulk(command.replaced_by);
  }
  if (!arguments.value().empty()) {
    reply.Bulk("arguments");
    ReplySyntax(reply, arguments.value());
  }
  if (!subcommands.empty()) {
    reply.Bulk("subcommands");
    reply.Map(subcommands.size());
    for (const Command* subcommand : subcommands) ReplyDocs(reply, registry, *subcommand);
  }
}

// COMMAND, and COMMAND INFO without a name.
Status DescribeAll(Call& call) {
  const std::vector<const Command*>& commands = call.registry.commands();
  call.reply.Array(commands.size());
  for (const Command* command : commands) ReplyInfo(call.reply, call.registry, *command);
  return Status::Ok();
}

// COMMAND COUNT
Status CommandCount(Call& call) {
  call.reply.Integer(static_cast<int64_t>(call.registry.commands().size()));
  return Status::Ok();
}

// COMMAND INFO [command-name ...]: null for a name that is none.
Status CommandInfo(Call& call) {
  if (call.args.size() == 2) return DescribeAll(call);
  const Args names = call.args.From(2);
  call.reply.Array(names.size());
  for (std::string_view name : names.span()) {
    if (const Command* command = call.registry.FindName(name)) {
      ReplyInfo(call.reply, call.registry, *command);
    } else {
      call.reply.Null();
    }
  }
  return Status::Ok();
}

// COMMAND DOCS [command-name ...]: a name that is none is left out.
Status CommandDocs(Call& call) {
  std::vector<const Command*> named;
  for (std::string_view name : call.args.From(2).span()) {
    if (const Command* command = call.registry.FindName(name)) named.push_back(command);
  }
  const auto& shown = call.args.size() == 2 ? call.registry.commands() : named;
  call.reply.Map(shown.size());
  for (const Command* command : shown) ReplyDocs(call.reply, call.registry, *command);
  return Status::Ok();
}

// COMMAND LIST [FILTERBY MODULE name|ACLCAT category|PATTERN pattern]
// Lists subcommands too, under their full names.
Status CommandList(Call& call) {
  const Args args = call.args;
  const bool filtered = args.size() == 5 && args.Is(2, "filterby");
  if (args.size() != 2 && !filtered) return Status::Error(kSyntaxError);
  std::string_view pattern = "*";
  uint32_t categories = ~0u;
  if (filtered) {
    if (args.Is(3, "module")) {
      categories = 0;  // there are no modules, so none has a command
    } else if (args.Is(3, "aclcat")) {
      categories = AclCategoryNamed(args[4]);
    } else if (args.Is(3, "pattern")) {
      pattern = args[4];
    } else {
      return Status::Error(kSyntaxError);
    }
  }

  std::vector<std::string_view> names;
  const auto consider = [&](const Command& command) {
    if ((AclCategoriesOf(command) & categories) &&
        GlobMatch(pattern, command.name, /*ignore_case=*/true)) {
      names.push_back(command.name);
    }
  };
  for (const Command* command : call.registry.commands()) {
    consider(*command);
    for (const Command* subcommand : call.registry.Subcommands(*command)) consider(*subcommand);
  }
  call.reply.Array(names.size());
  for (std::string_view name : names) call.reply.Bulk(name);
  return Status::Ok();
}

// The row of the request that COMMAND GETKEYS was given, when its keys can be told.
Result<const Command*> CommandWithKeys(const Registry& registry, Args request) {
  const Command* container = nullptr;
  const Command* command = registry.Find(request, &container);
  if (command == nullptr) return Status::Error("ERR Invalid command specified");
  if (command->keys[0].first == 0) return Status::Error("ERR The command has no key arguments");
  if (!command->AritySuits(request.size())) {
    return Status::Error("ERR Invalid number of arguments specified for command");
  }
  return command;
}

size_t KeyCount(const Command& command, Args request) {
  size_t count = 0;
  ForEachKey(command, request, [&](std::string_view) { ++count; });
  return count;
}

// COMMAND GETKEYS command [arg ...]
Status CommandGetkeys(Call& call) {
  const Args request = call.args.From(2);
  const Command* command = TRY(CommandWithKeys(call.registry, request));
  call.reply.Array(KeyCount(*command, request));
  ForEachKey(*command, request, [&](std::string_view key) { call.reply.Bulk(key); });
  return Status::Ok();
}

// COMMAND GETKEYSANDFLAGS command [arg ...]
Status CommandGetkeysandflags(Call& call) {
  const Args request = call.args.From(2);
  const Command* command = TRY(CommandWithKeys(call.registry, request));
  call.reply.Array(KeyCount(*command, request));
  ForEachKeyWithSpec(*command, request, [&](std::string_view key, const KeySpec& spec) {
    call.reply.Array(2);
    call.reply.Bulk(key);
    ReplyFlags(call.reply, KeyFlagsOf(*command, request, spec), kKeyFlagNames);
  });
  return Status::Ok();
}

constexpr uint32_t kAlways = kLoading | kStale | kConnection;
constexpr auto kServer = Group::kServer;
constexpr auto kLoop = Scope::kLoop;
constexpr char kAnyOrder[] = "nondeterministic_output_order";

constexpr Command kCommands[] = {
    Command("command", "", DescribeAll, -1, kAlways, kLoop, kNoKeys, kServer, "2.8.13",
            "O(n), n = commands", "Describes the commands of this server.", kAnyOrder),
    Command("command|count", "", CommandCount, 2, kAlways, kLoop, kNoKeys, kServer, "2.8.13",
            "O(1)", "Counts the commands of this server."),
    Command("command|docs", "[command-name...]", CommandDocs, -2, kAlways, kLoop, kNoKeys, kServer,
            "7.0.0", "O(n), n = commands asked for", "Documents commands, or all of them.",
            kAnyOrder),
    Command("command|getkeys", "command [arg...]", CommandGetkeys, -4, kAlways, kLoop, kNoKeys,
            kServer, "2.8.13", "O(n), n = arguments", "Tells which arguments are keys."),
    Command("command|getkeysandflags", "command [arg...]", CommandGetkeysandflags, -4, kAlways,
            kLoop, kNoKeys, kServer, "7.0.0", "O(n), n = arguments",
            "Tells which arguments are keys, and what is done with them."),
    Command("command|help", "", ContainerHelp, 2, kAlways, kLoop, kNoKeys, kServer, "5.0.0", "O(1)",
            "Lists these subcommands."),
    Command("command|info", "[command-name...]", CommandInfo, -2, kAlways, kLoop, kNoKeys, kServer,
            "2.8.13", "O(n), n = commands asked for", "Describes commands, or all of them.",
            kAnyOrder),
    Command("command|list",
            "[FILTERBY filterby: MODULE module-name|ACLCAT category|PATTERN pattern]", CommandList,
            -2, kAlways, kLoop, kNoKeys, kServer, "7.0.0", "O(n), n = commands",
            "Lists the names of commands, or of those that a filter lets pass.", kAnyOrder),
};

}  // namespace

std::span<const Command> CommandCommands() { return kCommands; }

}  // namespace crab

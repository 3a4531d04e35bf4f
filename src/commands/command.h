// Command: the row that states every fact about a command, and Call: one execution of it.
// Rows are constants in the group files; arity check, key routing, the tap, memory refusal, ACL
// categories, COMMAND INFO and COMMAND DOCS all derive from them. Frozen once built.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "resp/reply.h"
#include "src/commands/args.h"
#include "src/commands/client.h"
#include "src/keyspace/effects.h"
#include "src/keyspace/keyspace.h"
#include "utils/status.h"

namespace crab {

class Command;
class Registry;

// One execution. A handler reads its arguments in the order in which Redis checks them, finds,
// decides, changes, logs what it did as effects, and replies once; or returns an error having
// changed nothing. Everything it refers to lives until it returns.
struct Call {
  const Command& command;
  Args args;
  KeyspaceView& keyspace;
  resp::Reply& reply;
  Effects& effects;
  Client& client;
  const Registry& registry;
  int64_t now_ms;  // wall clock at the start of the command; 0 in replay: nothing is in the past
};

using Handler = Status (*)(Call&);

// Flags, in the order and with the meaning of COMMAND INFO (https://redis.io/commands/command).
enum CommandFlags : uint32_t {
  kWrite = 1u << 0,
  kRead = 1u << 1,  // "readonly"
  kDenyOom = 1u << 2,
  kAdmin = 1u << 3,
  kPubsub = 1u << 4,
  kNoScript = 1u << 5,
  kBlocking = 1u << 6,
  kLoading = 1u << 7,
  kStale = 1u << 8,
  kSkipMonitor = 1u << 9,
  kSkipSlowlog = 1u << 10,
  kAsking = 1u << 11,
  kFast = 1u << 12,
  kNoAuth = 1u << 13,
  kMayReplicate = 1u << 14,
  kNoMandatoryKeys = 1u << 15,
  kNoAsyncLoading = 1u << 16,
  kNoMulti = 1u << 17,
  kAllowBusy = 1u << 18,
  kMovableKeys = 1u << 19,
  // Ours, never shown:
  kDangerous = 1u << 24,      // joins @dangerous without being admin (KEYS, FLUSHALL ...)
  kConnection = 1u << 25,     // joins @connection instead of the group's category
  kAdminCategory = 1u << 27,  // joins @admin and @dangerous without the flag (LASTSAVE)
  kAllKeys = 1u << 28,  // waits for the end of a recovery though kLoading: it looks at any key
  kRefusedWithWrites = 1u << 29,  // gets -MISCONF, too, while the log refuses writes (PING)
  kKeyspace = 1u << 26,  // joins @keyspace without being of the generic group (FLUSHALL, DBSIZE)
};

// What must be held while a command runs (DESIGN §3). Exclusive is the default for a new command.
enum class Scope : uint8_t {
  kExclusive,  // the whole world: reads or changes anything
  kKeys,       // the shards of its keys
  kLoop,       // nothing shared: its own connection and what is changed only exclusively
};

enum KeyFlags : uint16_t {
  kKeyRead = 1 << 0,       // RO
  kKeyReadWrite = 1 << 1,  // RW
  kKeyOverwrite = 1 << 2,  // OW
  kKeyRemove = 1 << 3,     // RM
  kKeyAccess = 1 << 4,
  kKeyUpdate = 1 << 5,
  kKeyInsert = 1 << 6,
  kKeyDelete = 1 << 7,
  kKeyVariableFlags = 1 << 8,
};

// Where keys stand in argv: from `first` to `last` (negative: counted from the end, -1 the last
// argument; relative to argv, not to first), each `step`-th. first 0 = no keys.
struct KeySpec {
  int8_t first = 0, last = 0, step = 0;
  uint16_t flags = 0;
};

constexpr KeySpec kNoKeys{};
constexpr KeySpec kOneKeyRead{1, 1, 1, kKeyRead | kKeyAccess};

enum class Group : uint8_t { kGeneric, kString, kConnection, kServer };

class Command {
 public:
  // `name` in lower case; a subcommand is "client|list". `syntax` is the arguments behind the name
  // in the notation of src/commands/syntax.h, from which COMMAND DOCS is made. `tips` are those of
  // COMMAND INFO, with a space between two. `keys2` is a second key specification (COPY, RENAME).
  consteval Command(const char* row_name, const char* row_syntax, Handler row_handler,
                    int row_arity, uint32_t row_flags, Scope row_scope, KeySpec row_keys,
                    Group row_group, const char* row_since, const char* row_complexity,
                    const char* row_summary, const char* row_tips = "", KeySpec row_keys2 = {})
      : name(row_name),
        syntax(row_syntax),
        handler(row_handler),
        arity(row_arity),
        flags(row_flags),
        scope(row_scope),
        group(row_group),
        keys{row_keys, row_keys2},
        since(row_since),
        complexity(row_complexity),
        summary(row_summary),
        tips(row_tips) {
    if (arity == 0) throw "an arity counts the name, so it is never 0";
    for (const char* c = name; *c != 0; ++c) {
      if (*c >= 'A' && *c <= 'Z') throw "names are in lower case";
    }
    if ((flags & kWrite) && (flags & kRead)) throw "a command reads or writes";
    if (scope == Scope::kKeys && keys[0].first == 0) throw "no keys to take the shards of";
  }

  // The same row of a command that is kept for old clients; `replacement` is what COMMAND DOCS
  // names instead.
  consteval Command Deprecated(const char* version, const char* replacement) const {
    Command row = *this;
    row.deprecated_since = version;
    row.replaced_by = replacement;
    return row;
  }

  const char* name;
  const char* syntax;
  Handler handler;  // null for a container of subcommands
  int arity;        // exact, or -least; counts the name (and the subcommand)
  uint32_t flags;
  Scope scope;
  Group group;
  KeySpec keys[2];
  const char* since;
  const char* complexity;
  const char* summary;
  const char* tips;
  const char* deprecated_since = nullptr;  // null: not deprecated
  const char* replaced_by = nullptr;

  bool is_write() const { return flags & kWrite; }
  bool AritySuits(size_t argc) const {
    return arity > 0 ? argc == static_cast<size_t>(arity) : argc >= static_cast<size_t>(-arity);
  }
};

}  // namespace crab

// OBJECT: what lies behind a key. Looking at it leaves its access data alone.

#include <cstdint>
#include <limits>

#include "src/commands/command.h"
#include "src/commands/help.h"
#include "src/commands/registry.h"

namespace crab {

namespace {

bool PolicyCountsFrequency(EvictionPolicy policy) {
  return policy == EvictionPolicy::kAllkeysLfu || policy == EvictionPolicy::kVolatileLfu;
}

// OBJECT ENCODING key
Status ObjectEncoding(Call& call) {
  const Entry* entry = call.keyspace.Look(call.args[2]);
  if (entry == nullptr) {
    call.reply.Null();
  } else {
    call.reply.Bulk(EncodingName(entry->encoding()));
  }
  return Status::Ok();
}

// OBJECT REFCOUNT key
// Values are never shared here. Redis shares one object for each small integer and answers the
// largest int for it, which clients know as "shared".
Status ObjectRefcount(Call& call) {
  constexpr int64_t kSharedIntegers = 10000;
  const Entry* entry = call.keyspace.Look(call.args[2]);
  if (entry == nullptr) {
    call.reply.Null();
    return Status::Ok();
  }
  const bool shared =
      entry->is_integer() && entry->integer() >= 0 && entry->integer() < kSharedIntegers;
  call.reply.Integer(shared ? std::numeric_limits<int32_t>::max() : 1);
  return Status::Ok();
}

// OBJECT IDLETIME key: seconds since the last access.
Status ObjectIdletime(Call& call) {
  const Entry* entry = call.keyspace.Look(call.args[2]);
  if (entry == nullptr) {
    call.reply.Null();
    return Status::Ok();
  }
  if (PolicyCountsFrequency(call.keyspace.keyspace().options().policy)) {
    return Status::Error(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when "
        "switching between policies at runtime LRU and LFU data will take some time to adjust.");
  }
  call.reply.Integer(entry->IdleSeconds(call.now_ms));
  return Status::Ok();
}

// OBJECT FREQ key: the logarithmic access counter, decayed up to now.
Status ObjectFreq(Call& call) {
  const Entry* entry = call.keyspace.Look(call.args[2]);
  if (entry == nullptr) {
    call.reply.Null();
    return Status::Ok();
  }
  const KeyspaceOptions& options = call.keyspace.keyspace().options();
  if (!PolicyCountsFrequency(options.policy)) {
    return Status::Error(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note "
        "that when switching between policies at runtime LRU and LFU data will take some time to "
        "adjust.");
  }
  call.reply.Integer(entry->LfuCounter(call.now_ms, options.lfu_decay_minutes));
  return Status::Ok();
}

constexpr KeySpec kSecondArgument{2, 2, 1, kKeyRead};
constexpr auto kGeneric = Group::kGeneric;
constexpr auto kKeys = Scope::kKeys;
constexpr char kNondeterministic[] = "nondeterministic_output";

constexpr Command kCommands[] = {
    Command("object", "", nullptr, -2, 0, Scope::kLoop, kNoKeys, kGeneric, "2.2.3",
            "As its subcommand.", "Looks behind a key."),
    Command("object|encoding", "key", ObjectEncoding, 3, kRead, kKeys, kSecondArgument, kGeneric,
            "2.2.3", "O(1)", "Names the representation of a key's value.", kNondeterministic),
    Command("object|freq", "key", ObjectFreq, 3, kRead, kKeys, kSecondArgument, kGeneric, "4.0.0",
            "O(1)", "Tells how often a key is accessed, on a logarithmic scale.",
            kNondeterministic),
    Command("object|help", "", ContainerHelp, 2, kLoading | kStale, Scope::kLoop, kNoKeys, kGeneric,
            "6.2.0", "O(1)", "Lists these subcommands."),
    Command("object|idletime", "key", ObjectIdletime, 3, kRead, kKeys, kSecondArgument, kGeneric,
            "2.2.3", "O(1)", "Tells how many seconds ago a key was accessed.", kNondeterministic),
    Command("object|refcount", "key", ObjectRefcount, 3, kRead, kKeys, kSecondArgument, kGeneric,
            "2.2.3", "O(1)", "Tells by how many keys a value is shared.", kNondeterministic),
};

}  // namespace

std::span<const Command> ObjectCommands() { return kCommands; }

}  // namespace crab

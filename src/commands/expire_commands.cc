// Commands on the deadlines of keys. A deadline is an absolute time in milliseconds; what is asked
// for in seconds or from now on is turned into one, and only that is logged.

#include <cstdint>
#include <string>
#include <string_view>

#include "src/commands/command.h"
#include "src/commands/errors.h"
#include "src/commands/registry.h"

namespace crab {

namespace {

enum class Unit : uint8_t { kSeconds, kMilliseconds };

// The conditions behind the time: EXPIRE key seconds [NX|XX|GT|LT].
struct Condition {
  bool nx = false, xx = false, gt = false, lt = false;

  // A key without a deadline lives for ever, which is later than any deadline: GT never holds for
  // it, LT always does.
  bool Holds(int64_t deadline_ms, int64_t present_ms) const {
    const bool has_deadline = present_ms != kNoDeadline;
    if (nx && has_deadline) return false;
    if (xx && !has_deadline) return false;
    if (gt && (!has_deadline || deadline_ms <= present_ms)) return false;
    if (lt && has_deadline && deadline_ms >= present_ms) return false;
    return true;
  }
};

Result<Condition> ReadCondition(Args args) {
  Condition condition;
  for (size_t i = 3; i < args.size(); ++i) {
    if (args.Is(i, "nx")) {
      condition.nx = true;
    } else if (args.Is(i, "xx")) {
      condition.xx = true;
    } else if (args.Is(i, "gt")) {
      condition.gt = true;
    } else if (args.Is(i, "lt")) {
      condition.lt = true;
    } else {
      // Redis prints the option as a C string.
      const std::string_view option = args[i].substr(0, args[i].find('\0'));
      return Status::Error("ERR Unsupported option " + std::string(option));
    }
  }
  if (condition.nx && (condition.xx || condition.gt || condition.lt)) {
    return Status::Error("ERR NX and XX, GT or LT options at the same time are not compatible");
  }
  if (condition.gt && condition.lt) {
    return Status::Error("ERR GT and LT options at the same time are not compatible");
  }
  return condition;
}

// Argument 2 as an absolute time. Negative times are fine, they lie in the past; only what no
// int64_t of milliseconds can hold is refused.
Result<int64_t> ReadDeadline(const Call& call, Unit unit, int64_t base_ms) {
  int64_t time = TRY(call.args.Integer(2));
  if ((unit == Unit::kSeconds && __builtin_mul_overflow(time, int64_t{1000}, &time)) ||
      __builtin_add_overflow(time, base_ms, &time)) {
    return InvalidExpireTime(call.command);
  }
  return time;
}

// EXPIRE and its kin: `base_ms` is what the time counts from.
Status ExpireFrom(Call& call, Unit unit, int64_t base_ms) {
  const std::string_view key = call.args[1];
  const Condition condition = TRY(ReadCondition(call.args));
  const int64_t deadline_ms = TRY(ReadDeadline(call, unit, base_ms));
  Entry* entry = call.keyspace.FindForWrite(key);
  if (entry == nullptr || !condition.Holds(deadline_ms, entry->deadline_ms())) {
    call.reply.Integer(0);
    return Status::Ok();
  }
  const uint32_t db = call.keyspace.db();
  const uint16_t shard = call.keyspace.ShardOf(key);
  // A replayed deadline lay ahead when it was logged. If it has passed since, the key goes the way
  // of all expired keys, so that whatever was logged for it in between finds it.
  if (deadline_ms <= call.now_ms && !call.client.replay) {
    call.keyspace.Remove(entry);
    call.effects.Del(shard, db, key);
  } else {
    call.keyspace.SetDeadline(entry, deadline_ms);
    call.effects.Expireat(shard, db, key, deadline_ms);
  }
  call.reply.Integer(1);
  return Status::Ok();
}

// EXPIRE key seconds [NX|XX|GT|LT]
Status Expire(Call& call) { return ExpireFrom(call, Unit::kSeconds, call.now_ms); }
Status Pexpire(Call& call) { return ExpireFrom(call, Unit::kMilliseconds, call.now_ms); }
Status Expireat(Call& call) { return ExpireFrom(call, Unit::kSeconds, 0); }
Status Pexpireat(Call& call) { return ExpireFrom(call, Unit::kMilliseconds, 0); }

// TTL and its kin: -2 for no key, -1 for no deadline. Seconds are rounded to the nearest.
Status RemainingFrom(Call& call, Unit unit, int64_t base_ms) {
  constexpr int64_t kNoKey = -2, kForEver = -1;
  const Entry* entry = call.keyspace.Look(call.args[1]);
  int64_t answer = kNoKey;
  if (entry != nullptr) {
    answer = kForEver;
    if (entry->has_deadline()) {
      answer = entry->deadline_ms() - base_ms;
      if (answer < 0) answer = 0;
      // Rounded, and without the sum that the last half second of time would overflow.
      if (unit == Unit::kSeconds) answer = answer / 1000 + (answer % 1000 >= 500 ? 1 : 0);
    }
  }
  call.reply.Integer(answer);
  return Status::Ok();
}

Status Ttl(Call& call) { return RemainingFrom(call, Unit::kSeconds, call.now_ms); }
Status Pttl(Call& call) { return RemainingFrom(call, Unit::kMilliseconds, call.now_ms); }
Status Expiretime(Call& call) { return RemainingFrom(call, Unit::kSeconds, 0); }
Status Pexpiretime(Call& call) { return RemainingFrom(call, Unit::kMilliseconds, 0); }

// PERSIST key
Status Persist(Call& call) {
  const std::string_view key = call.args[1];
  Entry* entry = call.keyspace.FindForWrite(key);
  const bool had_deadline = entry != nullptr && entry->has_deadline();
  if (had_deadline) {
    call.keyspace.SetDeadline(entry, kNoDeadline);
    call.effects.Persist(call.keyspace.ShardOf(key), call.keyspace.db(), key);
  }
  call.reply.Integer(had_deadline);
  return Status::Ok();
}

constexpr KeySpec kOneKeyUpdate{1, 1, 1, kKeyReadWrite | kKeyUpdate};
constexpr auto kGeneric = Group::kGeneric;
constexpr auto kKeys = Scope::kKeys;

constexpr Command kCommands[] = {
    Command("expire", "key seconds:integer [condition@7.0.0: NX|XX|GT|LT]", Expire, -3,
            kWrite | kFast, kKeys, kOneKeyUpdate, kGeneric, "1.0.0", "O(1)",
            "Gives a key a deadline, in seconds from now."),
    Command("pexpire", "key milliseconds:integer [condition@7.0.0: NX|XX|GT|LT]", Pexpire, -3,
            kWrite | kFast, kKeys, kOneKeyUpdate, kGeneric, "2.6.0", "O(1)",
            "Gives a key a deadline, in milliseconds from now."),
    Command("expireat", "key unix-time-seconds:unix-time [condition@7.0.0: NX|XX|GT|LT]", Expireat,
            -3, kWrite | kFast, kKeys, kOneKeyUpdate, kGeneric, "1.2.0", "O(1)",
            "Gives a key a deadline, as a Unix time in seconds."),
    Command("pexpireat", "key unix-time-milliseconds:unix-time [condition@7.0.0: NX|XX|GT|LT]",
            Pexpireat, -3, kWrite | kFast, kKeys, kOneKeyUpdate, kGeneric, "2.6.0", "O(1)",
            "Gives a key a deadline, as a Unix time in milliseconds."),
    Command("ttl", "key", Ttl, 2, kRead | kFast, kKeys, kOneKeyRead, kGeneric, "1.0.0", "O(1)",
            "Tells how many seconds a key has left.", "nondeterministic_output"),
    Command("pttl", "key", Pttl, 2, kRead | kFast, kKeys, kOneKeyRead, kGeneric, "2.6.0", "O(1)",
            "Tells how many milliseconds a key has left.", "nondeterministic_output"),
    Command("expiretime", "key", Expiretime, 2, kRead | kFast, kKeys, kOneKeyRead, kGeneric,
            "7.0.0", "O(1)", "Tells a key's deadline as a Unix time in seconds."),
    Command("pexpiretime", "key", Pexpiretime, 2, kRead | kFast, kKeys, kOneKeyRead, kGeneric,
            "7.0.0", "O(1)", "Tells a key's deadline as a Unix time in milliseconds."),
    Command("persist", "key", Persist, 2, kWrite | kFast, kKeys, kOneKeyUpdate, kGeneric, "2.2.0",
            "O(1)", "Takes a key's deadline away."),
};

}  // namespace

std::span<const Command> ExpireCommands() { return kCommands; }

}  // namespace crab

// The commands of strings, LCS apart (lcs.cc).
#include <algorithm>
#include <cmath>
#include <string>

#include "src/commands/command.h"
#include "src/commands/errors.h"
#include "src/commands/lcs.h"
#include "src/commands/registry.h"
#include "utils/number.h"

namespace crab {

namespace {

// The entry of a key that is read, null when absent; WRONGTYPE when it holds no string.
inline Result<const Entry*> FindString(Call& call, std::string_view key) {
  const Entry* entry = call.keyspace.Find(key);
  if (entry != nullptr && entry->type() != Type::kString) return Status::Error(kWrongType);
  return entry;
}

// The same of a key that is about to change.
inline Result<Entry*> FindStringForWrite(Call& call, std::string_view key) {
  Entry* entry = call.keyspace.FindForWrite(key);
  if (entry != nullptr && entry->type() != Type::kString) return Status::Error(kWrongType);
  return entry;
}

inline void ReplyString(resp::Reply& reply, const Entry* entry) {
  if (entry == nullptr) return reply.Null();
  char scratch[24];
  reply.Bulk(entry->StringBytes(scratch));
}

// Makes the key this string, whatever it was, and logs it.
inline void Store(Call& call, std::string_view key, std::string_view value, int64_t deadline_ms) {
  call.keyspace.SetString(key, value, deadline_ms);
  call.effects.Set(call.keyspace.ShardOf(key), call.keyspace.db(), key, value, deadline_ms);
}

void RemoveKey(Call& call, std::string_view key) {
  Entry* entry = call.keyspace.FindForWrite(key);
  if (entry == nullptr) return;
  call.keyspace.Remove(entry);
  call.effects.Del(call.keyspace.ShardOf(key), call.keyspace.db(), key);
}

// --- times to live ---

enum class TimeUnit : uint8_t { kSeconds, kMilliseconds };
enum class TimeBase : uint8_t { kNow, kEpoch };

// The absolute deadline that argument `i` stands for. Redis takes no time before 1970 and none that
// leaves 64 bits of milliseconds; one in the past is fine.
Result<int64_t> Deadline(const Call& call, size_t i, TimeUnit unit, TimeBase base) {
  int64_t time = TRY(call.args.Integer(i));
  const int64_t scale = unit == TimeUnit::kSeconds ? 1000 : 1;
  const int64_t start = base == TimeBase::kNow ? call.now_ms : 0;
  if (time <= 0 || __builtin_mul_overflow(time, scale, &time) ||
      __builtin_add_overflow(time, start, &time)) {
    return InvalidExpireTime(call.command);
  }
  return time;
}

// What may follow the value of SET, or the key of GETEX.
struct Options {
  bool only_absent = false;
  bool only_present = false;
  bool get = false;
  bool keep_deadline = false;
  bool persist = false;
  size_t time_at = 0;  // index of the argument that holds the time; 0: none
  TimeUnit unit = TimeUnit::kSeconds;
  TimeBase base = TimeBase::kNow;
};

enum class OptionsOf : uint8_t { kSet, kGetex };

// Any order; a word may come twice, but only one way to choose a deadline may be named. The times
// are read later, as Redis does it: a syntax error behind a bad number is the one that is told.
Result<Options> ParseOptions(Args args, size_t first, OptionsOf of) {
  struct TimeWord {
    std::string_view word;
    TimeUnit unit;
    TimeBase base;
  };
  static constexpr TimeWord kTimeWords[] = {
      {"EX", TimeUnit::kSeconds, TimeBase::kNow},
      {"PX", TimeUnit::kMilliseconds, TimeBase::kNow},
      {"EXAT", TimeUnit::kSeconds, TimeBase::kEpoch},
      {"PXAT", TimeUnit::kMilliseconds, TimeBase::kEpoch},
  };
  Options options;
  std::string_view time_word;
  for (size_t i = first; i < args.size(); ++i) {
    const bool is_set = of == OptionsOf::kSet;
    if (is_set && !options.only_present && args.Is(i, "NX")) {
      options.only_absent = true;
    } else if (is_set && !options.only_absent && args.Is(i, "XX")) {
      options.only_present = true;
    } else if (is_set && args.Is(i, "GET")) {
      options.get = true;
    } else if (is_set && time_word.empty() && args.Is(i, "KEEPTTL")) {
      options.keep_deadline = true;
    } else if (!is_set && time_word.empty() && args.Is(i, "PERSIST")) {
      options.persist = true;
    } else {
      const auto* found = std::find_if(std::begin(kTimeWords), std::end(kTimeWords),
                                       [&](const TimeWord& time) { return args.Is(i, time.word); });
      const bool fits = found != std::end(kTimeWords) && i + 1 < args.size() &&
                        !options.keep_deadline && !options.persist &&
                        (time_word.empty() || time_word == found->word);
      if (!fits) return Status::Error(kSyntaxError);
      time_word = found->word;
      options.time_at = ++i;
      options.unit = found->unit;
      options.base = found->base;
    }
  }
  return options;
}

// --- SET and its relatives ---

Status SetWithOptions(Call& call) {
  const std::string_view key = call.args[1];
  const Options options = TRY(ParseOptions(call.args, 3, OptionsOf::kSet));
  int64_t deadline_ms = options.keep_deadline ? kKeepDeadline : kNoDeadline;
  if (options.time_at != 0) {
    deadline_ms = TRY(Deadline(call, options.time_at, options.unit, options.base));
  }

  // With GET a value that is no string is an error, even where the condition fails; and the old
  // value is the answer, whatever becomes of the condition.
  const Entry* old = options.get ? TRY(FindString(call, key)) : call.keyspace.FindForWrite(key);
  const bool refused = old != nullptr ? options.only_absent : options.only_present;
  if (options.get) {
    ReplyString(call.reply, old);
  } else if (refused) {
    call.reply.Null();
  } else {
    call.reply.Ok();
  }
  if (refused) return Status::Ok();

  // A time in the past is stored like any other: the key is there until somebody looks, as in
  // Redis.
  Store(call, key, call.args[2], deadline_ms);
  return Status::Ok();
}

// SET key value [NX|XX] [GET] [EX seconds|PX ms|EXAT seconds|PXAT ms|KEEPTTL]
Status Set(Call& call) {
  if (__builtin_expect(call.args.size() != 3, 0)) return SetWithOptions(call);
  Store(call, call.args[1], call.args[2], kNoDeadline);
  call.reply.Ok();
  return Status::Ok();
}

Status Setnx(Call& call) {
  const bool absent = call.keyspace.FindForWrite(call.args[1]) == nullptr;
  if (absent) Store(call, call.args[1], call.args[2], kNoDeadline);
  call.reply.Integer(absent);
  return Status::Ok();
}

Status SetExpiring(Call& call, TimeUnit unit) {
  const int64_t deadline_ms = TRY(Deadline(call, 2, unit, TimeBase::kNow));
  Store(call, call.args[1], call.args[3], deadline_ms);
  call.reply.Ok();
  return Status::Ok();
}

Status Setex(Call& call) { return SetExpiring(call, TimeUnit::kSeconds); }
Status Psetex(Call& call) { return SetExpiring(call, TimeUnit::kMilliseconds); }

Status Getset(Call& call) {
  ReplyString(call.reply, TRY(FindString(call, call.args[1])));
  Store(call, call.args[1], call.args[2], kNoDeadline);
  return Status::Ok();
}

// --- GET and its relatives ---

Status Get(Call& call) {
  ReplyString(call.reply, TRY(FindString(call, call.args[1])));
  return Status::Ok();
}

Status Getdel(Call& call) {
  const Entry* entry = TRY(FindString(call, call.args[1]));
  ReplyString(call.reply, entry);
  if (entry != nullptr) RemoveKey(call, call.args[1]);
  return Status::Ok();
}

// GETEX key [EX seconds|PX ms|EXAT seconds|PXAT ms|PERSIST]
// An absent key answers before the time is read, so a bad one goes unnoticed.
Status Getex(Call& call) {
  const std::string_view key = call.args[1];
  const Options options = TRY(ParseOptions(call.args, 2, OptionsOf::kGetex));
  const Entry* entry = TRY(FindString(call, key));
  int64_t deadline_ms = kKeepDeadline;
  if (entry != nullptr && options.time_at != 0) {
    deadline_ms = TRY(Deadline(call, options.time_at, options.unit, options.base));
  }
  ReplyString(call.reply, entry);
  if (entry == nullptr) return Status::Ok();

  const uint16_t shard = call.keyspace.ShardOf(key);
  if (options.persist) {
    if (!entry->has_deadline()) return Status::Ok();
    call.keyspace.SetDeadline(call.keyspace.FindForWrite(key), kNoDeadline);
    call.effects.Persist(shard, call.keyspace.db(), key);
  } else if (deadline_ms == kKeepDeadline) {
    return Status::Ok();
  } else if (deadline_ms <= call.now_ms) {
    RemoveKey(call, key);
  } else {
    call.keyspace.SetDeadline(call.keyspace.FindForWrite(key), deadline_ms);
    call.effects.Expireat(shard, call.keyspace.db(), key, deadline_ms);
  }
  return Status::Ok();
}

Status Strlen(Call& call) {
  const Entry* entry = TRY(FindString(call, call.args[1]));
  call.reply.Integer(entry == nullptr ? 0 : static_cast<int64_t>(entry->StringSize()));
  return Status::Ok();
}

// GETRANGE key start end
// Offsets below zero count from the end, and both are clamped to the value; an absent key reads as
// the empty string.
Status Getrange(Call& call) {
  int64_t start = TRY(call.args.Integer(2));
  int64_t end = TRY(call.args.Integer(3));
  const Entry* entry = TRY(FindString(call, call.args[1]));
  char scratch[24];
  const std::string_view value = entry == nullptr ? "" : entry->StringBytes(scratch);
  const auto size = static_cast<int64_t>(value.size());
  // Asked before clamping, which would turn two offsets in front of the value into its first byte.
  const bool crossed = start < 0 && end < 0 && start > end;
  start = std::max<int64_t>(start < 0 ? start + size : start, 0);
  end = std::min(std::max<int64_t>(end < 0 ? end + size : end, 0), size - 1);
  const bool empty = crossed || start > end;
  call.reply.Bulk(empty ? "" : value.substr(start, end - start + 1));
  return Status::Ok();
}

// --- several keys ---

Status Mget(Call& call) {
  call.reply.Array(call.args.size() - 1);
  for (const std::string_view key : call.args.From(1).span()) {
    const Entry* entry = call.keyspace.Find(key);
    const bool is_string = entry != nullptr && entry->type() == Type::kString;
    ReplyString(call.reply, is_string ? entry : nullptr);
  }
  return Status::Ok();
}

void StorePairs(Call& call) {
  for (size_t i = 1; i < call.args.size(); i += 2) {
    Store(call, call.args[i], call.args[i + 1], kNoDeadline);
  }
}

Status Mset(Call& call) {
  if (call.args.size() % 2 == 0) return WrongArity(call.command);
  StorePairs(call);
  call.reply.Ok();
  return Status::Ok();
}

Status Msetnx(Call& call) {
  if (call.args.size() % 2 == 0) return WrongArity(call.command);
  for (size_t i = 1; i < call.args.size(); i += 2) {
    if (call.keyspace.FindForWrite(call.args[i]) != nullptr) {
      call.reply.Integer(0);
      return Status::Ok();
    }
  }
  StorePairs(call);
  call.reply.Integer(1);
  return Status::Ok();
}

// --- changes in place ---

// Whether a string of `size` bytes and then `more` is within proto-max-bulk-len. What the log holds
// was within it when it happened, so replay does not ask.
Status CheckSize(const Call& call, uint64_t size, uint64_t more) {
  uint64_t sum;
  if (__builtin_add_overflow(size, more, &sum) ||
      (sum > call.keyspace.keyspace().options().string_bytes_max && !call.client.replay)) {
    return Status::Error(kStringTooLong);
  }
  return Status::Ok();
}

// APPEND key value
// Appending nothing is a change all the same: the key comes into being, or its integer becomes raw.
Status Append(Call& call) {
  const std::string_view key = call.args[1];
  const std::string_view bytes = call.args[2];
  Entry* entry = TRY(FindStringForWrite(call, key));
  if (entry == nullptr) {
    entry = call.keyspace.SetString(key, bytes, kNoDeadline);
  } else {
    TRY(CheckSize(call, entry->StringSize(), bytes.size()));
    entry = call.keyspace.AppendString(entry, bytes);
  }
  call.reply.Integer(static_cast<int64_t>(entry->StringSize()));
  call.effects.Add(call.keyspace.ShardOf(key), call.keyspace.db(), EffectId::kAppend, {key, bytes});
  return Status::Ok();
}

// Logs a SETRANGE, in parts that a replica accepts.
void LogSetrange(Call& call, std::string_view key, uint64_t offset, std::string_view bytes) {
  const uint16_t shard = call.keyspace.ShardOf(key);
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, Effects::PartBytes(key));
    char digits[kIntegerTextMax];
    const std::string_view text(digits, FormatUint64(digits, offset));
    call.effects.Add(shard, call.keyspace.db(), EffectId::kSetrange, {key, text, part});
    bytes.remove_prefix(part.size());
    offset += part.size();
  }
}

// SETRANGE key offset value
// Writing nothing changes nothing, wherever the offset lies; an absent key stays absent.
Status Setrange(Call& call) {
  const std::string_view key = call.args[1];
  const std::string_view bytes = call.args[3];
  const int64_t offset = TRY(call.args.Integer(2, 0, INT64_MAX, "ERR offset is out of range"));
  Entry* entry = TRY(FindStringForWrite(call, key));
  if (bytes.empty()) {
    call.reply.Integer(entry == nullptr ? 0 : static_cast<int64_t>(entry->StringSize()));
    return Status::Ok();
  }
  TRY(CheckSize(call, static_cast<uint64_t>(offset), bytes.size()));
  if (entry == nullptr) entry = call.keyspace.SetString(key, "", kNoDeadline);
  entry = call.keyspace.OverwriteString(entry, static_cast<size_t>(offset), bytes);
  call.reply.Integer(static_cast<int64_t>(entry->StringSize()));
  LogSetrange(call, key, static_cast<uint64_t>(offset), bytes);
  return Status::Ok();
}

// --- numbers ---

Result<int64_t> IntegerOf(const Entry& entry) {
  if (entry.is_integer()) return entry.integer();
  char scratch[24];
  int64_t value = 0;
  if (!ParseInt64(entry.StringBytes(scratch), &value)) return Status::Error(kNotAnInteger);
  return value;
}

Status AddInteger(Call& call, int64_t delta) {
  const std::string_view key = call.args[1];
  Entry* entry = TRY(FindStringForWrite(call, key));
  int64_t value = entry == nullptr ? 0 : TRY(IntegerOf(*entry));
  if (__builtin_add_overflow(value, delta, &value)) {
    return Status::Error("ERR increment or decrement would overflow");
  }
  char digits[kIntegerTextMax];
  if (entry != nullptr) {
    call.keyspace.SetInteger(entry, value);
  } else {
    call.keyspace.SetString(key, {digits, FormatInt64(digits, value)}, kNoDeadline);
  }
  call.effects.Add(call.keyspace.ShardOf(key), call.keyspace.db(), EffectId::kIncrby,
                   {key, {digits, FormatInt64(digits, delta)}});
  call.reply.Integer(value);
  return Status::Ok();
}

Status Incr(Call& call) { return AddInteger(call, 1); }
Status Decr(Call& call) { return AddInteger(call, -1); }
Status Incrby(Call& call) { return AddInteger(call, TRY(call.args.Integer(2))); }

Status Decrby(Call& call) {
  const int64_t delta = TRY(call.args.Integer(2));
  if (delta == INT64_MIN) return Status::Error("ERR decrement would overflow");
  return AddInteger(call, -delta);
}

// INCRBYFLOAT key increment
// The sum stays text even where it is an integer, as in Redis. It is what is logged, so that replay
// prints the same digits wherever it computes.
Status Incrbyfloat(Call& call) {
  const std::string_view key = call.args[1];
  Entry* entry = TRY(FindStringForWrite(call, key));
  long double value = 0;
  char scratch[24];
  if (entry != nullptr && !ParseLongDouble(entry->StringBytes(scratch), &value)) {
    return Status::Error(kNotAFloat);
  }
  value += TRY(call.args.Float(2));
  if (!std::isfinite(value)) {
    return Status::Error("ERR increment would produce NaN or Infinity");
  }
  const std::string text = FormatHumanLongDouble(value);
  call.keyspace.SetString(key, text, kKeepDeadline, /*as_integer=*/false);
  call.effects.Set(call.keyspace.ShardOf(key), call.keyspace.db(), key, text, kKeepDeadline);
  call.reply.Bulk(text);
  return Status::Ok();
}

// --- the rows ---

constexpr KeySpec OneKey(uint16_t flags) { return {1, 1, 1, flags}; }
constexpr KeySpec kChangedKey = OneKey(kKeyReadWrite | kKeyAccess | kKeyUpdate);
constexpr KeySpec kOverwrittenKey = OneKey(kKeyOverwrite | kKeyUpdate);

constexpr char kSetSyntax[] =
    "key value [condition@2.6.12: NX|XX] [GET@6.2.0] "
    "[expiration: EX seconds:integer@2.6.12|PX milliseconds:integer@2.6.12|"
    "EXAT unix-time-seconds:unix-time@6.2.0|PXAT unix-time-milliseconds:unix-time@6.2.0|"
    "KEEPTTL@6.0.0]";
constexpr char kGetexSyntax[] =
    "key [expiration: EX seconds:integer|PX milliseconds:integer|"
    "EXAT unix-time-seconds:unix-time|PXAT unix-time-milliseconds:unix-time|PERSIST]";
constexpr char kRangeSyntax[] = "key start:integer end:integer";
constexpr char kLcsSyntax[] =
    "key1:key key2:key [LEN] [IDX] [MINMATCHLEN len:integer] [WITHMATCHLEN]";

constexpr Command kCommands[] = {
    Command("append", "key value", Append, 3, kWrite | kDenyOom | kFast, Scope::kKeys,
            OneKey(kKeyReadWrite | kKeyInsert), Group::kString, "2.0.0",
            "O(n), n = bytes appended; the value itself is copied when it has to grow",
            "Adds bytes to the end of a string, which comes into being if it was absent."),
    Command("decr", "key", Decr, 2, kWrite | kDenyOom | kFast, Scope::kKeys, kChangedKey,
            Group::kString, "1.0.0", "O(1)", "Takes one from the integer of a key; absent is 0."),
    Command("decrby", "key decrement:integer", Decrby, 3, kWrite | kDenyOom | kFast, Scope::kKeys,
            kChangedKey, Group::kString, "1.0.0", "O(1)",
            "Takes a number from the integer of a key; absent is 0."),
    Command("get", "key", Get, 2, kRead | kFast, Scope::kKeys, kOneKeyRead, Group::kString, "1.0.0",
            "O(1)", "Reads a string."),
    Command("getdel", "key", Getdel, 2, kWrite | kFast, Scope::kKeys,
            OneKey(kKeyReadWrite | kKeyAccess | kKeyDelete), Group::kString, "6.2.0", "O(1)",
            "Reads a string and removes its key."),
    Command("getex", kGetexSyntax, Getex, -2, kWrite | kFast, Scope::kKeys, kChangedKey,
            Group::kString, "6.2.0", "O(1)", "Reads a string and changes when it expires."),
    Command("getrange", kRangeSyntax, Getrange, 4, kRead, Scope::kKeys, kOneKeyRead, Group::kString,
            "2.4.0", "O(n), n = bytes returned",
            "Reads the bytes of a string between two offsets."),
    Command("getset", "key value", Getset, 3, kWrite | kDenyOom | kFast, Scope::kKeys, kChangedKey,
            Group::kString, "1.0.0", "O(1)", "Stores a string and answers with the one before.")
        .Deprecated("6.2.0", "`SET` with the `!GET` argument"),
    Command("incr", "key", Incr, 2, kWrite | kDenyOom | kFast, Scope::kKeys, kChangedKey,
            Group::kString, "1.0.0", "O(1)", "Adds one to the integer of a key; absent is 0."),
    Command("incrby", "key increment:integer", Incrby, 3, kWrite | kDenyOom | kFast, Scope::kKeys,
            kChangedKey, Group::kString, "1.0.0", "O(1)",
            "Adds a number to the integer of a key; absent is 0."),
    Command("incrbyfloat", "key increment:double", Incrbyfloat, 3, kWrite | kDenyOom | kFast,
            Scope::kKeys, kChangedKey, Group::kString, "2.6.0", "O(1)",
            "Adds a decimal number to the number of a key; absent is 0."),
    Command("lcs", kLcsSyntax, Lcs, -3, kRead, Scope::kKeys, {1, 2, 1, kKeyRead | kKeyAccess},
            Group::kString, "7.0.0", "O(n*m), the lengths of the two strings",
            "Finds the longest sequence of bytes that two strings have in common."),
    Command("mget", "key...", Mget, -2, kRead | kFast, Scope::kKeys,
            {1, -1, 1, kKeyRead | kKeyAccess}, Group::kString, "1.0.0", "O(n), n = keys",
            "Reads the strings of several keys at one moment.", "request_policy:multi_shard"),
    Command("mset", "(key_value: key value)...", Mset, -3, kWrite | kDenyOom, Scope::kKeys,
            {1, -1, 2, kKeyOverwrite | kKeyUpdate}, Group::kString, "1.0.1", "O(n), n = keys",
            "Stores several strings at one moment.",
            "request_policy:multi_shard response_policy:all_succeeded"),
    Command("msetnx", "(key_value: key value)...", Msetnx, -3, kWrite | kDenyOom, Scope::kKeys,
            {1, -1, 2, kKeyOverwrite | kKeyInsert}, Group::kString, "1.0.1", "O(n), n = keys",
            "Stores several strings if none of their keys exists.",
            "request_policy:multi_shard response_policy:agg_min"),
    Command("psetex", "key milliseconds:integer value", Psetex, 4, kWrite | kDenyOom, Scope::kKeys,
            kOverwrittenKey, Group::kString, "2.6.0", "O(1)",
            "Stores a string that expires after some milliseconds."),
    Command("set", kSetSyntax, Set, -3, kWrite | kDenyOom, Scope::kKeys,
            OneKey(kKeyReadWrite | kKeyAccess | kKeyUpdate | kKeyVariableFlags), Group::kString,
            "1.0.0", "O(1)", "Stores a string, whatever the key held before."),
    Command("setex", "key seconds:integer value", Setex, 4, kWrite | kDenyOom, Scope::kKeys,
            kOverwrittenKey, Group::kString, "2.0.0", "O(1)",
            "Stores a string that expires after some seconds."),
    Command("setnx", "key value", Setnx, 3, kWrite | kDenyOom | kFast, Scope::kKeys,
            OneKey(kKeyOverwrite | kKeyInsert), Group::kString, "1.0.0", "O(1)",
            "Stores a string if its key is absent."),
    Command("setrange", "key offset:integer value", Setrange, 4, kWrite | kDenyOom, Scope::kKeys,
            OneKey(kKeyReadWrite | kKeyUpdate), Group::kString, "2.2.0",
            "O(n), n = bytes written and bytes of zeros before them",
            "Overwrites a part of a string, which grows with zeros up to the offset."),
    Command("strlen", "key", Strlen, 2, kRead | kFast, Scope::kKeys, OneKey(kKeyRead),
            Group::kString, "2.2.0", "O(1)", "Counts the bytes of a string."),
    Command("substr", kRangeSyntax, Getrange, 4, kRead, Scope::kKeys, kOneKeyRead, Group::kString,
            "1.0.0", "O(n), n = bytes returned", "The old name of GETRANGE.")
        .Deprecated("2.0.0", "`GETRANGE`"),
};

}  // namespace

std::span<const Command> StringCommands() { return kCommands; }

}  // namespace crab

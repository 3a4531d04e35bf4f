// Commands on keys whatever their type, and on whole databases.
//
// A value that moves (RENAME, COPY) may get to another shard, while each effect touches exactly
// one: so it is logged as what its destination holds now, and the source's deletion is an effect of
// its own. MOVE stays within the shard of its key and is logged as such.

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/command.h"
#include "src/commands/errors.h"
#include "src/commands/registry.h"
#include "utils/check.h"
#include "utils/glob.h"
#include "utils/number.h"

namespace crab {

namespace {

constexpr char kSameObject[] = "ERR source and destination objects are the same";
constexpr char kDbOutOfRange[] = "ERR DB index is out of range";

bool IsDatabase(const Call& call, int64_t index) {
  return index >= 0 && index < call.keyspace.keyspace().options().databases;
}

// Argument i as a database of this server. Redis reads an int before it looks at the range.
Result<uint32_t> ReadDatabase(const Call& call, size_t i) {
  const int64_t index = TRY(
      call.args.Integer(i, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max(),
                        "ERR value is out of range, value must between -2147483648 and "
                        "2147483647"));
  if (!IsDatabase(call, index)) return Status::Error(kDbOutOfRange);
  return static_cast<uint32_t>(index);
}

// Logs an entry of database `db` as it stands: whatever was there under its key is replaced.
void LogWhole(Call& call, uint32_t db, const Entry& entry) {
  CHECK(entry.type() == Type::kString);
  char scratch[24];
  call.effects.Set(call.keyspace.ShardOf(entry.key()), db, entry.key(), entry.StringBytes(scratch),
                   entry.deadline_ms());
}

// Whether LogWhole of `entry` under the name `to`, and the removal of both keys, is within what a
// record holds. A value gets there in parts, with APPEND and SETRANGE.
Status CheckWhole(const Call& call, const Entry& entry, std::string_view to) {
  const uint64_t removals = entry.key().size() + to.size() + 2 * Effects::kOwnBytesMax;
  const uint64_t bytes = Effects::SetBytesMax(to, entry.StringSize()) + removals;
  if (bytes <= call.keyspace.keyspace().options().record_bytes_max) return Status::Ok();
  return Status::Error(kTooLargeForRecord);
}

// DEL key [key ...], and UNLINK.
Status Del(Call& call) {
  int64_t removed = 0;
  for (std::string_view key : call.args.From(1).span()) {
    if (!call.keyspace.Remove(key)) continue;
    call.effects.Del(call.keyspace.ShardOf(key), call.keyspace.db(), key);
    ++removed;
  }
  call.reply.Integer(removed);
  return Status::Ok();
}

// EXISTS key [key ...]: a key named twice counts twice.
Status Exists(Call& call) {
  int64_t found = 0;
  for (std::string_view key : call.args.From(1).span()) {
    found += call.keyspace.Look(key) != nullptr;
  }
  call.reply.Integer(found);
  return Status::Ok();
}

// TOUCH key [key ...]: an EXISTS that counts as an access.
Status Touch(Call& call) {
  int64_t found = 0;
  for (std::string_view key : call.args.From(1).span()) {
    found += call.keyspace.Find(key) != nullptr;
  }
  call.reply.Integer(found);
  return Status::Ok();
}

// TYPE key
Status TypeOf(Call& call) {
  const Entry* entry = call.keyspace.Look(call.args[1]);
  call.reply.Simple(entry == nullptr ? "none" : TypeName(entry->type()));
  return Status::Ok();
}

// Moves the value and deadline of argument 1 to argument 2; false when `only_if_absent` forbids it.
// A key renamed to itself is there, so that is allowed and changes nothing.
Result<bool> RenameTo(Call& call, bool only_if_absent) {
  const std::string_view from = call.args[1], to = call.args[2];
  KeyspaceView& view = call.keyspace;
  if (view.FindForWrite(from) == nullptr) return Status::Error(kNoSuchKey);
  if (from == to) return !only_if_absent;
  // Before the source is found again: looking may remove an expired destination.
  if (view.FindForWrite(to) != nullptr && only_if_absent) return false;
  const Entry* source = view.Peek(from);
  TRY(CheckWhole(call, *source, to));
  const Entry* copy = view.CopyTo(*source, view.db(), to);
  LogWhole(call, view.db(), *copy);
  CHECK(view.Remove(from));
  call.effects.Del(view.ShardOf(from), view.db(), from);
  return true;
}

// RENAME key newkey
Status Rename(Call& call) {
  TRY(RenameTo(call, /*only_if_absent=*/false));
  call.reply.Ok();
  return Status::Ok();
}

// RENAMENX key newkey
Status Renamenx(Call& call) {
  call.reply.Integer(TRY(RenameTo(call, /*only_if_absent=*/true)));
  return Status::Ok();
}

// COPY source destination [DB index] [REPLACE]
Status Copy(Call& call) {
  const std::string_view from = call.args[1], to = call.args[2];
  KeyspaceView& view = call.keyspace;
  const uint32_t from_db = view.db();
  uint32_t to_db = from_db;
  bool replace = false;
  for (size_t i = 3; i < call.args.size(); ++i) {
    if (call.args.Is(i, "replace")) {
      replace = true;
    } else if (call.args.Is(i, "db") && i + 1 < call.args.size()) {
      to_db = TRY(ReadDatabase(call, ++i));
    } else {
      return Status::Error(kSyntaxError);
    }
  }
  if (from_db == to_db && from == to) return Status::Error(kSameObject);

  bool copied = false;
  if (view.Find(from) != nullptr) {
    view.SelectDb(to_db);
    const bool taken = view.FindForWrite(to) != nullptr;
    view.SelectDb(from_db);
    if (!taken || replace) {
      const Entry* source = view.Peek(from);
      TRY(CheckWhole(call, *source, to));
      const Entry* copy = view.CopyTo(*source, to_db, to);
      LogWhole(call, to_db, *copy);
      copied = true;
    }
  }
  call.reply.Integer(copied);
  return Status::Ok();
}

// MOVE key db
Status Move(Call& call) {
  const std::string_view key = call.args[1];
  KeyspaceView& view = call.keyspace;
  const uint32_t from_db = view.db();
  const uint32_t to_db = TRY(ReadDatabase(call, 2));
  if (from_db == to_db) return Status::Error(kSameObject);

  bool moved = false;
  if (view.FindForWrite(key) != nullptr) {
    view.SelectDb(to_db);
    const bool taken = view.FindForWrite(key) != nullptr;
    view.SelectDb(from_db);
    if (!taken) {
      view.CopyTo(*view.Peek(key), to_db, key);
      CHECK(view.Remove(key));
      char text[kIntegerTextMax];
      call.effects.Add(view.ShardOf(key), from_db, EffectId::kMove,
                       {key, {text, FormatUint64(text, to_db)}});
      moved = true;
    }
  }
  call.reply.Integer(moved);
  return Status::Ok();
}

// For the walks, which see entries as they lie. A key still lives in the millisecond of its
// deadline.
bool HasPassed(const Entry& entry, int64_t now_ms) {
  return entry.has_deadline() && entry.deadline_ms() < now_ms;
}

// RANDOMKEY: never an expired key, however many there are. Those that are drawn are removed, as by
// any other read.
Status Randomkey(Call& call) {
  // With more expired keys than live ones a draw may fail; after this many, which is what one small
  // record of the log holds of deletions, the first live one will do.
  constexpr int kDrawsMax = 64;
  const Keyspace& keyspace = call.keyspace.keyspace();
  const uint32_t db = call.keyspace.db();
  const Entry* chosen = nullptr;
  for (int draw = 0; draw < kDrawsMax && chosen == nullptr; ++draw) {
    const Entry* entry = keyspace.RandomEntry(db);
    if (entry == nullptr) break;
    if (HasPassed(*entry, call.now_ms)) {
      call.keyspace.Peek(std::string(entry->key()));  // looking at it removes it
    } else {
      chosen = entry;
    }
  }
  if (chosen == nullptr) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      if (!HasPassed(entry, call.now_ms)) chosen = &entry;
      return chosen == nullptr;
    });
  }
  if (chosen == nullptr) {
    call.reply.Null();
  } else {
    call.reply.Bulk(chosen->key());
  }
  return Status::Ok();
}

// The keys' number stands before the keys, so they are gathered first; the views are good, since
// nothing changes while the world is held.
void ReplyKeys(resp::Reply& reply, const std::vector<std::string_view>& keys) {
  reply.Array(keys.size());
  for (std::string_view key : keys) reply.Bulk(key);
}

// KEYS pattern
Status Keys(Call& call) {
  const std::string_view pattern = call.args[1];
  const bool all = pattern == "*";
  std::vector<std::string_view> keys;
  call.keyspace.keyspace().ForEach(call.keyspace.db(), [&](const Entry& entry) {
    if (!HasPassed(entry, call.now_ms) && (all || GlobMatch(pattern, entry.key()))) {
      keys.push_back(entry.key());
    }
    return true;
  });
  ReplyKeys(call.reply, keys);
  return Status::Ok();
}

struct ScanOptions {
  int64_t count = 10;
  std::string_view pattern = "*";
  std::string_view type;  // "" = any; an unknown one fits no key
};

Result<ScanOptions> ReadScanOptions(Args args) {
  ScanOptions options;
  for (size_t i = 2; i < args.size(); i += 2) {
    if (i + 1 == args.size()) return Status::Error(kSyntaxError);
    if (args.Is(i, "count")) {
      options.count = TRY(args.Integer(i + 1));
      if (options.count < 1) return Status::Error(kSyntaxError);
    } else if (args.Is(i, "match")) {
      options.pattern = args[i + 1];
    } else if (args.Is(i, "type")) {
      options.type = args[i + 1];
    } else {
      return Status::Error(kSyntaxError);
    }
  }
  return options;
}

// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type]
// COUNT bounds the keys looked at, not those that fit. Expired keys met on the way are removed, as
// by any other read, but no more of them at once than one small record of the log holds.
Status Scan(Call& call) {
  // A step over empty buckets finds nothing: as in Redis, after ten times COUNT steps enough is
  // enough.
  constexpr int64_t kStepsPerKey = 10;
  constexpr size_t kExpiredMax = 64;
  uint64_t cursor = 0;
  if (!ParseUint64(call.args[1], &cursor)) return Status::Error("ERR invalid cursor");
  const ScanOptions options = TRY(ReadScanOptions(call.args));

  const bool all = options.pattern == "*";
  std::vector<std::string_view> keys;
  std::vector<std::string> expired;
  int64_t seen = 0;
  int64_t steps_left = options.count > std::numeric_limits<int64_t>::max() / kStepsPerKey
                           ? std::numeric_limits<int64_t>::max()
                           : options.count * kStepsPerKey;
  do {
    cursor = call.keyspace.keyspace().Scan(call.keyspace.db(), cursor, [&](const Entry& entry) {
      ++seen;
      if (HasPassed(entry, call.now_ms)) {
        if (expired.size() < kExpiredMax) expired.emplace_back(entry.key());
        return;
      }
      if (!options.type.empty() && !EqualsIgnoreCase(options.type, TypeName(entry.type()))) {
        return;
      }
      if (all || GlobMatch(options.pattern, entry.key())) keys.push_back(entry.key());
    });
  } while (cursor != 0 && --steps_left > 0 && seen < options.count);

  char text[kIntegerTextMax];
  call.reply.Array(2);
  call.reply.Bulk({text, FormatUint64(text, cursor)});
  ReplyKeys(call.reply, keys);
  for (const std::string& key : expired) call.keyspace.Peek(key);  // looking at it removes it
  return Status::Ok();
}

// DBSIZE: counts keys that have expired and are not removed yet, as Redis does.
Status Dbsize(Call& call) {
  call.reply.Integer(static_cast<int64_t>(call.keyspace.keyspace().Size(call.keyspace.db())));
  return Status::Ok();
}

// The mode of FLUSHDB and FLUSHALL, [ASYNC|SYNC]. Both take all keys away at once; ASYNC gives
// their memory back on a thread of its own.
Result<bool> IsAsync(Call& call) {
  const bool asynchronous = call.args.size() == 2 && call.args.Is(1, "ASYNC");
  if (call.args.size() > 2 ||
      (call.args.size() == 2 && !asynchronous && !call.args.Is(1, "SYNC"))) {
    return Status::Error(kSyntaxError);
  }
  return asynchronous || (call.args.size() == 1 && call.keyspace.keyspace().options().lazy_flush);
}

// FLUSHDB [ASYNC|SYNC]
Status Flushdb(Call& call) {
  const bool asynchronous = TRY(IsAsync(call));
  Keyspace& keyspace = call.keyspace.keyspace();
  DetachedTables tables = keyspace.Detach(call.keyspace.db());
  if (asynchronous) keyspace.lazy_free().Add(std::move(tables));
  call.effects.Broadcast(call.keyspace.db(), EffectId::kFlushdb, {});
  call.reply.Ok();
  return Status::Ok();
}

// FLUSHALL [ASYNC|SYNC]
Status Flushall(Call& call) {
  const bool asynchronous = TRY(IsAsync(call));
  Keyspace& keyspace = call.keyspace.keyspace();
  DetachedTables tables = keyspace.DetachAll();
  if (asynchronous) keyspace.lazy_free().Add(std::move(tables));
  call.effects.Broadcast(call.keyspace.db(), EffectId::kFlushall, {});
  call.reply.Ok();
  return Status::Ok();
}

// SWAPDB index1 index2
Status Swapdb(Call& call) {
  constexpr int64_t kMin = std::numeric_limits<int32_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int32_t>::max();
  const auto read = [&](size_t i, const char* error) -> Result<int64_t> {
    auto index = call.args.Integer(i, kMin, kMax, error);
    if (!index.ok()) return Status::Error(error);
    return index;
  };
  const int64_t first = TRY(read(1, "ERR invalid first DB index"));
  const int64_t second = TRY(read(2, "ERR invalid second DB index"));
  if (!IsDatabase(call, first) || !IsDatabase(call, second)) return Status::Error(kDbOutOfRange);
  if (first != second) {
    call.keyspace.keyspace().Swap(static_cast<uint32_t>(first), static_cast<uint32_t>(second));
    call.effects.Broadcast(call.keyspace.db(), EffectId::kSwapdb, {call.args[1], call.args[2]});
  }
  call.reply.Ok();
  return Status::Ok();
}

constexpr KeySpec KeyAt(int8_t place, uint16_t flags) { return {place, place, 1, flags}; }
constexpr KeySpec AllKeys(uint16_t flags) { return {1, -1, 1, flags}; }

constexpr auto kGeneric = Group::kGeneric;
constexpr auto kServer = Group::kServer;
constexpr auto kKeys = Scope::kKeys;
constexpr auto kExclusive = Scope::kExclusive;

// Tips for clients of a cluster.
constexpr char kSumOverShards[] = "request_policy:multi_shard response_policy:agg_sum";
constexpr char kSumOverAllShards[] = "request_policy:all_shards response_policy:agg_sum";
constexpr char kAllShardsSucceed[] = "request_policy:all_shards response_policy:all_succeeded";

constexpr Command kCommands[] = {
    Command("copy", "source:key destination:key#1 [DB destination-db:integer] [REPLACE]", Copy, -3,
            kWrite | kDenyOom, kKeys, KeyAt(1, kKeyRead | kKeyAccess), kGeneric, "6.2.0",
            "O(n), n = bytes of the value", "Copies a value to another key.", "",
            KeyAt(2, kKeyOverwrite | kKeyUpdate)),
    Command("dbsize", "", Dbsize, 1, kRead | kFast | kKeyspace, kExclusive, kNoKeys, kServer,
            "1.0.0", "O(shards)", "Counts the keys of the database.", kSumOverAllShards),
    Command("del", "key...", Del, -2, kWrite, kKeys, AllKeys(kKeyRemove | kKeyDelete), kGeneric,
            "1.0.0", "O(n), n = keys", "Removes keys.", kSumOverShards),
    Command("exists", "key...", Exists, -2, kRead | kFast, kKeys, AllKeys(kKeyRead), kGeneric,
            "1.0.0", "O(n), n = keys", "Counts which of these keys there are.", kSumOverShards),
    Command("flushall", "[async: ASYNC@4.0.0|SYNC@6.2.0]", Flushall, -1,
            kWrite | kDangerous | kKeyspace, kExclusive, kNoKeys, kServer, "1.0.0",
            "O(n), n = keys of all databases", "Removes the keys of all databases.",
            kAllShardsSucceed),
    Command("flushdb", "[async: ASYNC@4.0.0|SYNC@6.2.0]", Flushdb, -1,
            kWrite | kDangerous | kKeyspace, kExclusive, kNoKeys, kServer, "1.0.0",
            "O(n), n = keys of the database", "Removes the keys of the database.",
            kAllShardsSucceed),
    Command("keys", "pattern", Keys, 2, kRead | kDangerous, kExclusive, kNoKeys, kGeneric, "1.0.0",
            "O(n), n = keys of the database", "Lists all keys that match a pattern.",
            "request_policy:all_shards nondeterministic_output_order"),
    Command("move", "key db:integer", Move, 3, kWrite | kFast, kKeys,
            KeyAt(1, kKeyReadWrite | kKeyAccess | kKeyUpdate), kGeneric, "1.0.0",
            "O(n), n = bytes of the value", "Moves a key to another database."),
    Command("randomkey", "", Randomkey, 1, kRead, kExclusive, kNoKeys, kGeneric, "1.0.0", "O(1)",
            "Picks a key by chance.", "request_policy:all_shards nondeterministic_output"),
    Command("rename", "key newkey:key#1", Rename, 3, kWrite, kKeys,
            KeyAt(1, kKeyReadWrite | kKeyAccess | kKeyDelete), kGeneric, "1.0.0",
            "O(n), n = bytes of the value", "Gives a key another name, replacing what has it.", "",
            KeyAt(2, kKeyOverwrite | kKeyUpdate)),
    Command("renamenx", "key newkey:key#1", Renamenx, 3, kWrite | kFast, kKeys,
            KeyAt(1, kKeyReadWrite | kKeyAccess | kKeyDelete), kGeneric, "1.0.0",
            "O(n), n = bytes of the value", "Gives a key another name unless that is taken.", "",
            KeyAt(2, kKeyOverwrite | kKeyInsert)),
    Command("scan", "cursor:integer [MATCH pattern] [COUNT count:integer] [TYPE type:string@6.0.0]",
            Scan, -2, kRead, kExclusive, kNoKeys, kGeneric, "2.8.0",
            "O(COUNT) a call, O(n) for a whole walk over n keys", "Walks over the keys in steps.",
            "nondeterministic_output request_policy:special"),
    Command("swapdb", "index1:integer index2:integer", Swapdb, 3,
            kWrite | kFast | kDangerous | kKeyspace, kExclusive, kNoKeys, kServer, "4.0.0",
            "O(shards)", "Exchanges two databases."),
    Command("touch", "key...", Touch, -2, kRead | kFast, kKeys, AllKeys(kKeyRead), kGeneric,
            "3.2.1", "O(n), n = keys", "Counts as an access to keys.", kSumOverShards),
    Command("type", "key", TypeOf, 2, kRead | kFast, kKeys, KeyAt(1, kKeyRead), kGeneric, "1.0.0",
            "O(1)", "Names the type of a key's value."),
    Command("unlink", "key...", Del, -2, kWrite | kFast, kKeys, AllKeys(kKeyRemove | kKeyDelete),
            kGeneric, "4.0.0", "O(n), n = keys", "Removes keys.", kSumOverShards),
};

}  // namespace

std::span<const Command> KeyCommands() { return kCommands; }

}  // namespace crab

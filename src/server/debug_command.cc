#include "src/server/debug_command.h"

#include <time.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "src/commands/errors.h"
#include "src/execution/replayer.h"
#include "src/server/loop.h"
#include "src/server/server.h"
#include "utils/check.h"
#include "utils/glob.h"
#include "utils/hash.h"
#include "utils/log.h"
#include "utils/number.h"
#include "utils/random.h"

namespace crab {

namespace {

constexpr char kNotAllowed[] =
    "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you "
    "can "
    "run it from a local connection, otherwise you need to set this option in the configuration "
    "file, and then restart the server.";

Server& ServerOf(Call& call) { return call.client.session->server(); }

// 20 bytes that depend on all of the bytes they are made of, added up by XOR where order is free.
class Digest {
 public:
  void Mix(std::string_view bytes) {
    for (uint64_t& word : state_) word = HashKey(bytes, word + 1 + (&word - state_.data()));
  }
  void Xor(const Digest& other) {
    for (size_t i = 0; i < state_.size(); ++i) state_[i] ^= other.state_[i];
  }
  std::string Hex() const {
    char text[49];
    std::snprintf(text, sizeof(text), "%016lx%016lx%016lx", state_[0], state_[1], state_[2]);
    return std::string(text, 40);
  }

 private:
  std::array<uint64_t, 3> state_{};
};

Digest ValueDigest(const Entry& entry) {
  Digest digest;
  char scratch[24];
  digest.Mix(TypeName(entry.type()));
  digest.Mix(entry.StringBytes(scratch));
  if (entry.has_deadline()) digest.Mix("deadline");  // that there is one, not when: as Redis
  return digest;
}

// DEBUG DIGEST: the same for the same data in all databases, whatever their order.
std::string KeyspaceDigest(Keyspace& keyspace, int64_t now_ms) {
  Digest sum;
  for (uint32_t db = 0; db < keyspace.options().databases; ++db) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      if (entry.has_deadline() && entry.deadline_ms() <= now_ms) return true;
      Digest one = ValueDigest(entry);
      one.Mix(std::to_string(db));
      one.Mix(entry.key());
      sum.Xor(one);
      return true;
    });
  }
  return sum.Hex();
}

// DEBUG PROTOCOL type: one reply of each kind.
Status Protocol(Call& call) {
  resp::Reply& reply = call.reply;
  const auto is = [&](std::string_view name) { return call.args.Is(2, name); };
  if (is("string")) {
    reply.Bulk("Hello World");
  } else if (is("integer")) {
    reply.Integer(12345);
  } else if (is("double")) {
    reply.Double(3.141);
  } else if (is("null")) {
    reply.Null();
  } else if (is("array")) {
    reply.Array(3);
    for (int i = 0; i < 3; ++i) reply.Integer(i);
  } else if (is("set")) {
    reply.Set(3);
    for (int i = 0; i < 3; ++i) reply.Integer(i);
  } else if (is("map")) {
    reply.Map(3);
    for (int i = 0; i < 3; ++i) {
      reply.Integer(i);
      reply.Boolean(i == 1);
    }
  } else if (is("attrib")) {
    if (reply.protocol() < 3) {
      reply.Bulk("Some real reply following the attribute");
      return Status::Ok();
    }
    reply.buffer().Append(std::string_view("|1\r\n"));
    reply.Bulk("key-popularity");
    reply.Array(2);
    reply.Bulk("key:123");
    reply.Integer(90);
    reply.Bulk("Some real reply following the attribute");
  } else if (is("push")) {
    if (reply.protocol() < 3) {
      return Status::Error("ERR RESP2 is not supported by this command");
    }
    reply.Push(2);
    reply.Bulk("server-cpu-usage");
    reply.Integer(42);
    // A push answers nothing; who waits for a reply gets one.
    reply.Bulk("Some real reply following the push reply");
  } else if (is("true")) {
    reply.Boolean(true);
  } else if (is("false")) {
    reply.Boolean(false);
  } else if (is("bignum")) {
    reply.BigNumber("1234567999999999999999999999999999999");
  } else if (is("verbatim")) {
    reply.Verbatim("txt", "This is a verbatim\nstring");
  } else {
    return Status::Error(
        "ERR Wrong protocol type name. Please use one of the following: "
        "string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false");
  }
  return Status::Ok();
}

constexpr size_t kPopulateRecordBytes = 64 << 20;

// Logs what has been done as a record of its own; the world is held.
void LogSoFar(Call& call) {
  Effects& effects = call.effects;
  if (wal::Log* const log = ServerOf(call).log(); log != nullptr) {
    if (effects.count() > 1) {
      log->Append(wal::RecordType::kTxn, wal::kBroadcastShard, effects.Transaction());
    } else if (!effects.empty()) {
      log->Append(wal::RecordType::kEffect, effects.shard(), effects.bytes());
    }
  }
  effects.Clear();
}

// DEBUG POPULATE count [prefix] [size]: keys prefix:0 ... with values value:0 ..., cut or filled up
// with zero bytes to `size`. Keys that exist stay. It may be more than a record holds, so it is
// logged in several, and a crash in between leaves some of the keys.
Status Populate(Call& call) {
  const int64_t count = TRY(call.args.Integer(2, 0, INT64_MAX, kNotAnInteger));
  const std::string prefix(call.args.size() > 3 ? call.args[3] : "key");
  const int64_t size =
      call.args.size() > 4 ? TRY(call.args.Integer(4, 0, INT64_MAX, kNotAnInteger)) : 0;
  const uint64_t record_bytes_max = call.keyspace.keyspace().options().record_bytes_max;
  const std::string longest = prefix + ":" + std::to_string(count);
  if (static_cast<uint64_t>(size) > record_bytes_max ||
      Effects::SetBytesMax(longest, static_cast<uint64_t>(size)) + longest.size() +
              Effects::kOwnBytesMax >  // an expired one is deleted first
          record_bytes_max) {
    return Status::Error(kTooLargeForRecord);
  }
  for (int64_t i = 0; i < count; ++i) {
    const std::string key = prefix + ":" + std::to_string(i);
    if (call.keyspace.FindForWrite(key) != nullptr) continue;
    std::string value = "value:" + std::to_string(i);
    if (size > 0) value.resize(static_cast<size_t>(size), '\0');
    call.keyspace.SetString(key, value, kNoDeadline);
    const size_t bytes = call.effects.bytes().size() + key.size() + value.size();
    if (bytes > kPopulateRecordBytes) LogSoFar(call);
    call.effects.Set(call.keyspace.ShardOf(key), call.client.db, key, value, kNoDeadline);
  }
  call.reply.Ok();
  return Status::Ok();
}

Status ObjectFacts(Call& call) {
  const Entry* entry = call.keyspace.Peek(call.args[2]);
  if (entry == nullptr) return Status::Error(kNoSuchKey);
  char scratch[24];
  char line[256];
  std::snprintf(
      line, sizeof(line),
      "Value at:%p refcount:1 encoding:%s serializedlength:%zu lru:%u lru_seconds_idle:%u",
      static_cast<const void*>(entry), std::string(EncodingName(entry->encoding())).c_str(),
      entry->StringBytes(scratch).size() + 1, entry->access(), entry->IdleSeconds(call.now_ms));
  call.reply.Simple(line);
  return Status::Ok();
}

// DEBUG RELOAD, DEBUG LOADAOF: all data as the log would hold it, and back into an empty keyspace
// by the road of recovery. What this changes was not in the log to begin with, so nothing is
// logged.
Status Reload(Call& call) {
  Keyspace& keyspace = ServerOf(call).keyspace();
  Effects effects;
  effects.Broadcast(0, EffectId::kFlushall, {});
  for (uint32_t db = 0; db < keyspace.options().databases; ++db) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      char scratch[24];
      effects.Set(static_cast<uint16_t>(keyspace.ShardOf(entry.key())), db, entry.key(),
                  entry.StringBytes(scratch), entry.deadline_ms());
      return true;
    });
  }
  Replayer replayer(keyspace, ServerOf(call).registry());
  TRY(replayer.Replay(effects.bytes(), {0, keyspace.shard_count()}));
  call.reply.Ok();
  return Status::Ok();
}

constexpr std::string_view kHelp[] = {
    "DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CHANGE-REPL-ID",
    "    Take another replication id.",
    "DIGEST",
    "    A hex digest of all data; equal data has equal digests.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    A hex digest of the value of each key.",
    "ERROR <string>",
    "    Answer with this error.",
    "LOG <message>",
    "    Write this to the server's log.",
    "OBJECT <key>",
    "    Facts about a key's value.",
    "PANIC | SEGFAULT",
    "    Crash.",
    "POPULATE <count> [<prefix>] [<size>]",
    "    Create <count> string keys.",
    "PROTOCOL <type>",
    "    Answer with a reply of this type.",
    "RELOAD | LOADAOF",
    "    Turn all data into the log's form and load it again from there.",
    "SET-ACTIVE-EXPIRE (0|1)",
    "    Switch the removal of expired keys that nobody reads off and on.",
    "SLEEP <seconds>",
    "    Serve nobody for so long; decimals allowed.",
    "STRINGMATCH-LEN <pattern> <string>",
    "    Match a glob pattern.",
    "HELP",
    "    Print this help.",
};

Status Help(Call& call) {
  call.reply.Array(std::size(kHelp));
  for (std::string_view line : kHelp) call.reply.Simple(line);
  return Status::Ok();
}

}  // namespace

Status Debug(Call& call) {
  Server& server = ServerOf(call);
  const Permission permission = server.config().enable_debug_command;
  if (permission == Permission::kNobody ||
      (permission == Permission::kLocalConnections && !call.client.session->is_local())) {
    return Status::Error(kNotAllowed);
  }
  const size_t argc = call.args.size();
  const auto is = [&](std::string_view name) { return call.args.Is(1, name); };
  if (is("HELP") && argc == 2) return Help(call);
  if (is("PROTOCOL") && argc == 3) return Protocol(call);
  if (is("POPULATE") && argc >= 3 && argc <= 5) return Populate(call);
  if ((is("RELOAD") || is("LOADAOF")) && argc == 2) return Reload(call);
  if (is("OBJECT") && argc >= 3) return ObjectFacts(call);
  if (is("SLEEP") && argc == 3) {
    double seconds = 0;
    if (!ParseDouble(call.args[2], &seconds)) return Status::Error(kNotAFloat);
    seconds = std::max(seconds, 0.0);
    timespec time{
        static_cast<time_t>(seconds),
        static_cast<long>((seconds - static_cast<double>(static_cast<time_t>(seconds))) * 1e9)};
    nanosleep(&time, nullptr);
    call.reply.Ok();
  } else if (is("SET-ACTIVE-EXPIRE") && argc == 3) {
    server.execution().active_expire = call.args[2] != "0";
    call.reply.Ok();
  } else if (is("ERROR") && argc == 3) {
    return Status::Error(std::string(call.args[2]));
  } else if (is("LOG") && argc == 3) {
    LogWarn("DEBUG LOG", {{"text", call.args[2]}});
    call.reply.Ok();
  } else if (is("DIGEST") && argc == 2) {
    call.reply.Simple(KeyspaceDigest(server.keyspace(), call.now_ms));
  } else if (is("DIGEST-VALUE") && argc >= 2) {
    call.reply.Array(argc - 2);
    for (size_t i = 2; i < argc; ++i) {
      const Entry* entry = call.keyspace.Peek(call.args[i]);
      call.reply.Simple(entry == nullptr ? Digest().Hex() : ValueDigest(*entry).Hex());
    }
  } else if (is("CHANGE-REPL-ID") && argc == 2) {
    server.ChangeReplicationId();
    call.reply.Ok();
  } else if (is("STRINGMATCH-LEN") && argc == 4) {
    call.reply.Integer(GlobMatch(call.args[2], call.args[3], false) ? 1 : 0);
  } else if (is("QUICKLIST-PACKED-THRESHOLD") && argc == 3) {
    call.reply.Ok();  // lists have no such threshold here; tests set it before they begin
  } else if (is("SEGFAULT") && argc == 2) {
    raise(SIGSEGV);
  } else if (is("PANIC") && argc == 2) {
    CHECK(!"DEBUG PANIC was called");
  } else {
    return Status::Error("ERR unknown subcommand or wrong number of arguments for '" +
                         std::string(call.args[1]) + "'. Try DEBUG HELP.");
  }
  return Status::Ok();
}

}  // namespace crab

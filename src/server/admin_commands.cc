// Commands that steer the server: CONFIG, SHUTDOWN, SAVE and its kin, WAITAOF, TIME, MEMORY.
// INFO and STATS are in info.cc, DEBUG in debug_command.cc.

#include <sys/time.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "src/commands/errors.h"
#include "src/commands/help.h"
#include "src/server/debug_command.h"
#include "src/server/info.h"
#include "src/server/server.h"
#include "utils/log.h"
#include "utils/number.h"

namespace crab {

namespace {

Server& ServerOf(Call& call) { return call.client.session->server(); }

// CONFIG GET parameter [parameter ...]
Status ConfigGet(Call& call) {
  const auto found = ServerOf(call).config().Get(call.args.From(2).span());
  call.reply.Map(found.size());
  for (const auto& [name, value] : found) {
    call.reply.Bulk(name);
    call.reply.Bulk(value);
  }
  return Status::Ok();
}

// CONFIG SET parameter value [parameter value ...]
Status ConfigSet(Call& call) {
  if (call.args.size() % 2 != 0) return WrongArity(call.command);
  std::vector<Config::Pair> pairs;
  for (size_t i = 2; i < call.args.size(); i += 2) {
    pairs.emplace_back(call.args[i], call.args[i + 1]);
  }
  Server& server = ServerOf(call);
  Config config = server.config();
  const auto changed = TRY(config.Set(pairs, call.client.session->is_local()));
  TRY(server.Apply(config, changed));
  call.reply.Ok();
  return Status::Ok();
}

// CONFIG RESETSTAT
Status ConfigResetStat(Call& call) {
  ServerOf(call).ResetStats();
  call.reply.Ok();
  return Status::Ok();
}

// CONFIG REWRITE
Status ConfigRewrite(Call& call) {
  TRY(ServerOf(call).config().Rewrite());
  LogInfo("configuration file rewritten", {{"file", ServerOf(call).config().file}});
  call.reply.Ok();
  return Status::Ok();
}

// SAVE: a checkpoint, with everybody waiting until it is published.
Status Save(Call& call) {
  TRY(ServerOf(call).checkpointer().SaveNow(Checkpointer::Reason::kSave));
  call.reply.Ok();
  return Status::Ok();
}

// BGSAVE [SCHEDULE]: a checkpoint, here and now begun.
Status BgSave(Call& call) {
  const bool schedule = call.args.size() > 1;
  if (schedule && (call.args.size() > 2 || !call.args.Is(1, "SCHEDULE"))) {
    return Status::Error(kSyntaxError);
  }
  Checkpointer& checkpointer = ServerOf(call).checkpointer();
  TRY(checkpointer.CanBegin());
  if (checkpointer.save_running()) {
    return Status::Error("ERR Background save already in progress");
  }
  if (checkpointer.rewrite_running() && !schedule) {
    return Status::Error(
        "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE "
        "in "
        "order to schedule a BGSAVE whenever possible.");
  }
  const bool now = checkpointer.free();
  checkpointer.Schedule(Checkpointer::Reason::kSave);
  call.reply.Simple(now ? "Background saving started" : "Background saving scheduled");
  return Status::Ok();
}

// BGREWRITEAOF: the same, for it is what makes the log shorter.
Status BgRewriteAof(Call& call) {
  Checkpointer& checkpointer = ServerOf(call).checkpointer();
  TRY(checkpointer.CanBegin());
  if (checkpointer.rewrite_running()) {
    return Status::Error("ERR Background append only file rewriting already in progress");
  }
  const bool now = checkpointer.free();
  checkpointer.Schedule(Checkpointer::Reason::kRewrite);
  call.reply.Simple(now ? "Background append only file rewriting started"
                        : "Background append only file rewriting scheduled");
  return Status::Ok();
}

// SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [ABORT]
// Without a word, and with NOSAVE, what the log has is on disk when the server is gone: a
// checkpoint is only written where SAVE asks for it.
Status Shutdown(Call& call) {
  bool save = false, no_save = false, abort = false, force = false, other = false;
  for (size_t i = 1; i < call.args.size(); ++i) {
    if (call.args.Is(i, "NOSAVE")) {
      no_save = true;
    } else if (call.args.Is(i, "SAVE")) {
      save = true;
    } else if (call.args.Is(i, "FORCE")) {
      force = other = true;
    } else if (call.args.Is(i, "NOW")) {
      other = true;
    } else if (call.args.Is(i, "ABORT")) {
      abort = true;
    } else {
      return Status::Error(kSyntaxError);
    }
  }
  if ((abort && (save || no_save || other)) || (save && no_save)) {
    return Status::Error(kSyntaxError);
  }
  // The stop is decided at once and cannot be called back.
  if (abort) return Status::Error("ERR No shutdown in progress.");
  LogInfo("a client asked for the stop", {{"client", call.client.id}});
  if (save) {
    // One that BGSAVE began is as old as its cut.
    Checkpointer& checkpointer = ServerOf(call).checkpointer();
    checkpointer.Cancel();
    if (Status status = checkpointer.SaveNow(Checkpointer::Reason::kSave); !status.ok()) {
      LogError("cannot save before the stop", {{"error", status.message()}, {"stopping", force}});
      if (!force) return Status::Error("ERR Errors trying to SHUTDOWN. Check logs.");
    }
  }
  ServerOf(call).RequestStop();
  call.client.session->asked_for_stop = true;  // no reply: the closed connection is the answer
  call.client.close_after_reply = true;
  return Status::Ok();
}

// WAITAOF numlocal numreplicas timeout
Status WaitAof(Call& call) {
  const int64_t local =
      TRY(call.args.Integer(1, 0, 1, "ERR value is out of range, value must between 0 and 1"));
  const int64_t replicas =
      TRY(call.args.Integer(2, 0, INT64_MAX, "ERR value is out of range, must be positive"));
  int64_t timeout_ms = 0;
  if (!ParseInt64(call.args[3], &timeout_ms)) {
    return Status::Error("ERR timeout is not an integer or out of range");
  }
  if (timeout_ms < 0) return Status::Error("ERR timeout is negative");
  if (timeout_ms > INT64_MAX - call.now_ms) return Status::Error("ERR timeout is out of range");
  wal::Log* log = ServerOf(call).execution().log;
  if (local > 0 && log == nullptr) {
    return Status::Error(kWaitAofWithoutLog);
  }
  const bool durable = log != nullptr && IsDurable(*log, call.client.gate);
  if (replicas == 0 && (local == 0 || durable)) {
    call.reply.Array(2);
    call.reply.Integer(durable ? 1 : 0);
    call.reply.Integer(0);
    return Status::Ok();
  }
  if (log != nullptr) log->RequestSync();
  call.client.durable_wait = {true, call.client.gate,
                              timeout_ms == 0 ? 0 : call.now_ms + timeout_ms, local > 0,
                              replicas > 0};
  return Status::Ok();
}

// TIME
Status Time(Call& call) {
  timeval now;
  gettimeofday(&now, nullptr);
  call.reply.Array(2);
  call.reply.BulkInteger(now.tv_sec);
  call.reply.BulkInteger(now.tv_usec);
  return Status::Ok();
}

// LASTSAVE
Status LastSave(Call& call) {
  call.reply.Integer(ServerOf(call).checkpointer().last_save_ms() / 1000);
  return Status::Ok();
}

// MEMORY USAGE key [SAMPLES count]
Status MemoryUsage(Call& call) {
  for (size_t i = 3; i < call.args.size(); i += 2) {
    if (!call.args.Is(i, "SAMPLES") || i + 1 == call.args.size()) {
      return Status::Error(kSyntaxError);
    }
    const int64_t samples = TRY(call.args.Integer(i + 1));
    if (samples < 0) return Status::Error(kSyntaxError);
  }
  const Entry* entry = call.keyspace.Peek(call.args[2]);
  if (entry == nullptr) {
    call.reply.Null();
  } else {
    call.reply.Integer(static_cast<int64_t>(entry->MemoryBytes()));
  }
  return Status::Ok();
}

constexpr uint32_t kSteering = kAdmin | kNoScript | kLoading | kStale;

constexpr Command kCommands[] = {
    Command("bgrewriteaof", "", BgRewriteAof, 1, kAdmin | kNoScript | kNoAsyncLoading,
            Scope::kExclusive, kNoKeys, Group::kServer, "1.0.0", "O(1)",
            "Makes the log shorter by a checkpoint, while the server goes on."),
    Command("bgsave", "[SCHEDULE@3.2.2]", BgSave, -1, kAdmin | kNoScript | kNoAsyncLoading,
            Scope::kExclusive, kNoKeys, Group::kServer, "1.0.0", "O(1)",
            "Writes all data into a checkpoint, while the server goes on."),
    Command("config", "", nullptr, -2, 0, Scope::kLoop, kNoKeys, Group::kServer, "2.0.0",
            "By the subcommand.", "Commands about the configuration."),
    Command("config|get", "(parameter: parameter)...", ConfigGet, -3, kSteering, Scope::kLoop,
            kNoKeys, Group::kServer, "2.0.0", "O(N), N = patterns", "The values of options."),
    Command("config|help", "", ContainerHelp, 2, kLoading | kStale, Scope::kLoop, kNoKeys,
            Group::kServer, "5.0.0", "O(1)", "What CONFIG can do."),
    Command("config|resetstat", "", ConfigResetStat, 2, kSteering, Scope::kExclusive, kNoKeys,
            Group::kServer, "2.0.0", "O(1)", "Sets the counters of INFO back to 0."),
    Command("config|rewrite", "", ConfigRewrite, 2, kSteering, Scope::kExclusive, kNoKeys,
            Group::kServer, "2.8.0", "O(1)", "Writes the options in force to the file."),
    Command("config|set", "(parameter_value: parameter value)...", ConfigSet, -4, kSteering,
            Scope::kExclusive, kNoKeys, Group::kServer, "2.0.0", "O(N), N = options",
            "Changes options.", "request_policy:all_nodes response_policy:all_succeeded"),
    Command("debug", "subcommand [argument...]", Debug, -2, kSteering | kAllKeys, Scope::kExclusive,
            kNoKeys, Group::kServer, "1.0.0", "By the subcommand.", "What test tools need."),
    Command("info", "[section...]", Info, -1, kLoading | kStale | kDangerous, Scope::kExclusive,
            kNoKeys, Group::kServer, "1.0.0", "O(1)", "The state of the server.",
            "nondeterministic_output request_policy:all_shards response_policy:special"),
    Command("lastsave", "", LastSave, 1, kLoading | kStale | kFast | kAdminCategory, Scope::kLoop,
            kNoKeys, Group::kServer, "1.0.0", "O(1)",
            "When the data was last saved, in unix seconds.", "nondeterministic_output"),
    Command("memory", "", nullptr, -2, 0, Scope::kLoop, kNoKeys, Group::kServer, "4.0.0",
            "By the subcommand.", "Commands about memory."),
    Command("memory|help", "", ContainerHelp, 2, kLoading | kStale, Scope::kLoop, kNoKeys,
            Group::kServer, "4.0.0", "O(1)", "What MEMORY can do."),
    Command("memory|usage", "key [SAMPLES count:integer]", MemoryUsage, -3, kRead, Scope::kKeys,
            KeySpec{2, 2, 1, kKeyRead}, Group::kServer, "4.0.0", "O(N), N = samples",
            "The bytes a key and its value take."),
    Command("save", "", Save, 1, kAdmin | kNoScript | kNoAsyncLoading | kNoMulti, Scope::kExclusive,
            kNoKeys, Group::kServer, "1.0.0", "O(N), N = keys",
            "Writes all data into a checkpoint, everybody waiting."),
    Command("shutdown", "[nosave_save: NOSAVE|SAVE] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]",
            Shutdown, -1, kAdmin | kNoScript | kLoading | kStale | kNoMulti | kAllowBusy,
            Scope::kExclusive, kNoKeys, Group::kServer, "1.0.0", "O(N), N = keys, when saving",
            "Stops the server, the log on disk."),
    Command("stats", "", Stats, 1, kLoading | kStale | kFast, Scope::kExclusive, kNoKeys,
            Group::kServer, "7.4.0", "O(1)", "The state of the server as one JSON object.",
            "nondeterministic_output"),
    Command("time", "", Time, 1, kLoading | kStale | kFast, Scope::kLoop, kNoKeys, Group::kServer,
            "2.6.0", "O(1)", "The server's clock: unix seconds and microseconds.",
            "nondeterministic_output"),
    Command("waitaof", "numlocal:integer numreplicas:integer timeout:integer", WaitAof, 4,
            kNoScript | kConnection, Scope::kLoop, kNoKeys, Group::kGeneric, "7.2.0", "O(1)",
            "Waits until this connection's writes are durable.",
            "request_policy:all_shards response_policy:agg_min"),
};

}  // namespace

std::span<const Command> AdminCommands() { return kCommands; }

}  // namespace crab

// WAL INFO, FLUSH, ROTATE, CHECKPOINT, CLEANUP, BACKUP, HELP.
// FLUSH, ROTATE and BACKUP answer when it is done: the client waits as in WAITAOF, its loop does
// not.
#include "src/server/wal_commands.h"

#include <limits>
#include <string>

#include "src/commands/command.h"
#include "src/commands/help.h"
#include "src/server/info.h"
#include "src/server/server.h"
#include "utils/number.h"

namespace crab {

namespace {

constexpr const char* kLogIsOff =
    "ERR the write-ahead log is off. CONFIG SET wal-enabled yes switches it on.";

Server& ServerOf(Call& call) { return call.client.session->server(); }

// The log, if there is one that is written, or will be as soon as its checkpoint is there.
Result<wal::Log*> UsableLog(Server& server) {
  wal::Log* const log = server.log();
  if (log == nullptr) return Status::Error(kLogIsOff);
  if (log->state() == wal::State::kRunning) return log;
  const wal::Metrics metrics = log->metrics();
  if (metrics.state == wal::State::kRunning || metrics.awaits_checkpoint) return log;
  return Status::Error("ERR the write-ahead log cannot be written: " + metrics.last_error);
}

// Asks the log for what `wait` waits for.
void Ask(wal::Log& log, Client::DurableWait& wait) {
  wait.asked = true;
  wait.lsn = log.last_lsn();
  if (wait.kind == Client::DurableWait::Kind::kFlush) {
    log.RequestSync();
  } else {
    // All that was appended before this stands in files that nobody writes to, once it is sealed.
    log.RequestRotate();
  }
}

Status Wait(Call& call, Client::DurableWait::Kind kind, std::string_view directory = {}) {
  wal::Log* const log = TRY(UsableLog(ServerOf(call)));
  Client::DurableWait wait;
  wait.active = true;
  wait.kind = kind;
  wait.directory = directory;
  if (log->state() == wal::State::kRunning) Ask(*log, wait);
  call.client.durable_wait = std::move(wait);
  return Status::Ok();
}

// WAL INFO: the fields of INFO persistence that are about the log.
Status WalInfo(Call& call) {
  const auto fields = WalFields(ServerOf(call));
  call.reply.Map(fields.size());
  for (const auto& [name, value] : fields) {
    call.reply.Bulk(name);
    int64_t number = 0;
    if (ParseInt64(value, &number)) {
      call.reply.Integer(number);
    } else {
      call.reply.Bulk(value);
    }
  }
  return Status::Ok();
}

// WAL FLUSH
Status WalFlush(Call& call) { return Wait(call, Client::DurableWait::Kind::kFlush); }

// WAL ROTATE
Status WalRotate(Call& call) { return Wait(call, Client::DurableWait::Kind::kRotate); }

// WAL CHECKPOINT
Status WalCheckpoint(Call& call) {
  Server& server = ServerOf(call);
  if (server.log() == nullptr) return Status::Error(kLogIsOff);
  Checkpointer& checkpointer = server.checkpointer();
  TRY(checkpointer.CanBegin());
  const bool now = checkpointer.free();
  checkpointer.Schedule(Checkpointer::Reason::kRewrite);
  call.reply.Simple(now ? "Checkpoint started" : "Checkpoint scheduled");
  return Status::Ok();
}

// WAL CLEANUP keep
Status WalCleanup(Call& call) {
  const int64_t keep = TRY(call.args.Integer(2, 0, std::numeric_limits<int64_t>::max(),
                                             "ERR value is out of range, must be positive"));
  wal::Log* const log = TRY(UsableLog(ServerOf(call)));
  log->RequestCleanup(static_cast<uint64_t>(keep));
  call.reply.Ok();
  return Status::Ok();
}

// WAL BACKUP directory
Status WalBackup(Call& call) {
  const std::string_view directory = call.args[2];
  if (directory.empty() || directory.find('\0') != std::string_view::npos) {
    return Status::Error("ERR the backup needs a directory");
  }
  if (ServerOf(call).backup_job().facts().running) {
    return Status::Error("ERR a backup is already in progress");
  }
  return Wait(call, Client::DurableWait::Kind::kBackup, directory);
}

void ReplyBackup(const BackupJob::Facts& facts, resp::Reply& reply) {
  const wal::BackupReport& report = facts.report;
  reply.Map(7);
  reply.Bulk("directory");
  reply.Bulk(facts.target);
  for (const auto& [name, value] : {std::pair<const char*, uint64_t>{"lsn", report.lsn},
                                    {"checkpoints", report.checkpoints},
                                    {"segments", report.segments},
                                    {"linked-files", report.linked_files},
                                    {"copied-files", report.copied_files},
                                    {"copied-bytes", report.copied_bytes}}) {
    reply.Bulk(name);
    reply.Integer(static_cast<int64_t>(value));
  }
}

constexpr uint32_t kSteering = kAdmin | kNoScript | kStale;
constexpr uint32_t kWaiting = kSteering | kNoMulti;

constexpr Command kCommands[] = {
    Command("wal", "", nullptr, -2, 0, Scope::kLoop, kNoKeys, Group::kServer, "1.0.0",
            "By the subcommand.", "Commands about the write-ahead log."),
    Command("wal|backup", "directory", WalBackup, 3, kWaiting, Scope::kExclusive, kNoKeys,
            Group::kServer, "1.0.0", "O(N), N = files of the log",
            "Makes a consistent copy of the log in a new directory, by hard links where it can."),
    Command("wal|checkpoint", "", WalCheckpoint, 2, kSteering | kNoAsyncLoading, Scope::kExclusive,
            kNoKeys, Group::kServer, "1.0.0", "O(N), N = keys, in the background",
            "Begins a checkpoint, after which older segments of the log are not needed."),
    Command("wal|cleanup", "keep:integer", WalCleanup, 3, kSteering, Scope::kExclusive, kNoKeys,
            Group::kServer, "1.0.0", "O(N), N = segments",
            "Removes segments that no checkpoint needs, until so many of all are left."),
    Command("wal|flush", "", WalFlush, 2, kWaiting, Scope::kExclusive, kNoKeys, Group::kServer,
            "1.0.0", "O(1)", "Writes and syncs the log; answers when all before is durable."),
    Command("wal|help", "", ContainerHelp, 2, kLoading | kStale, Scope::kLoop, kNoKeys,
            Group::kServer, "1.0.0", "O(1)", "What WAL can do."),
    Command("wal|info", "", WalInfo, 2, kSteering | kLoading, Scope::kExclusive, kNoKeys,
            Group::kServer, "1.0.0", "O(1)", "The state of the log.", "nondeterministic_output"),
    Command("wal|rotate", "", WalRotate, 2, kWaiting, Scope::kExclusive, kNoKeys, Group::kServer,
            "1.0.0", "O(1)", "Begins a new segment; answers with its number when the old is full."),
};

}  // namespace

std::span<const Command> WalCommands() { return kCommands; }

bool AnswerWalWait(Server& server, Client::DurableWait& wait, resp::Reply& reply) {
  using Kind = Client::DurableWait::Kind;
  const auto answer = [&] {
    wait.active = false;
    return true;
  };
  if (wait.job != 0) {  // a backup is being made, whatever the log does meanwhile
    const BackupJob::Facts facts = server.backup_job().facts();
    if (facts.number == wait.job && facts.running) return false;
    if (facts.number != wait.job) {
      reply.Error("ERR the backup has ended, and another one began before its result was told");
    } else if (!facts.error.empty()) {
      reply.Error("ERR " + facts.error);
    } else {
      ReplyBackup(facts, reply);
    }
    return answer();
  }
  const auto usable = UsableLog(server);
  if (!usable.ok()) {
    reply.Error(usable.message());
    return answer();
  }
  wal::Log* const log = *usable;
  if (log->state() != wal::State::kRunning) return false;  // it wakes the loops when it goes on
  if (!wait.asked) Ask(*log, wait);
  if (wait.kind == Kind::kFlush) {
    if (log->durable_lsn() < wait.lsn) return false;
    reply.Ok();
    return answer();
  }
  const wal::Metrics metrics = log->metrics();
  if (metrics.sealed_lsn < wait.lsn) return false;
  if (wait.kind == Kind::kRotate) {
    reply.Integer(static_cast<int64_t>(metrics.segment_number));
    return answer();
  }
  auto job = server.backup_job().Start(server.PathAtStart(server.config().wal_dir), wait.directory);
  if (!job.ok()) {
    reply.Error(job.message());
    return answer();
  }
  wait.job = *job;
  return false;
}

}  // namespace crab

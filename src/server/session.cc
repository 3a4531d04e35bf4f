#include "src/server/session.h"

#include <algorithm>

#include "src/server/loop.h"
#include "src/server/server.h"
#include "src/server/wal_commands.h"
#include "utils/check.h"
#include "utils/log.h"

namespace crab {

namespace {

// From this size on an argument is read straight into a buffer made for it.
constexpr size_t kBigRequestBytes = 32 * 1024;
// Replies of one batch beyond this are sent before the next request runs: a short pipeline of GETs
// of large values does not gather them all in memory.
constexpr size_t kOutputPerTurnBytes = 4 << 20;
// Buffers above this are given back when they are empty.
constexpr size_t kIdleBufferBytes = 16 * 1024;
constexpr size_t kIdleArguments = 256;

}  // namespace

Session::Session(Server& server, Loop& loop, Dispatcher& dispatcher, uint64_t id,
                 SessionOptions options)
    : server_(server), loop_(loop), dispatcher_(dispatcher), options_(std::move(options)) {
  client_.id = id;
  client_.authenticated = options_.authenticated || server.config().requirepass.empty();
  client_.session = this;
  created_ms = last_active_ms = dispatcher.now_ms();
}

bool Session::is_local() const {
  return options_.unix_socket || options_.peer_address.starts_with("127.") ||
         options_.peer_address.starts_with("[::1]");
}

void Session::Receive(std::string_view bytes) {
  last_active_ms = dispatcher_.now_ms();
  if (EndOfInputEndsWait()) return input_.Append(bytes);
  if (!input_.empty() || wait_ != Wait::kNothing) {
    input_.Append(bytes);
    Resume();
    return;
  }
  const size_t consumed = Run(bytes);
  if (consumed < bytes.size() && !closing() && !killed) input_.Append(bytes.substr(consumed));
}

std::span<char> Session::ReceiveBuffer() {
  const size_t needed = parser_.request_bytes_known();
  if (input_.empty() || needed < input_.size() + kBigRequestBytes) return {};
  // A quarter more at most than has come so far, but at least 1 MiB: a client that announces a huge
  // argument and sends nothing costs nothing.
  const size_t step =
      std::min(needed - input_.size(), std::max<size_t>(1 << 20, input_.size() / 4));
  return {input_.Reserve(step), step};
}

void Session::Received(size_t bytes) {
  last_active_ms = dispatcher_.now_ms();
  input_.Commit(bytes);
  if (parser_.request_bytes_known() <= input_.size()) {
    Resume();
  } else {
    CloseIfInputIsTooLong();
  }
}

void Session::Resume() {
  if (client_.durable_wait.active && !FinishDurableWait()) {
    // The sync that was asked for may have begun before the last record was whole.
    wal::Log* log = server_.execution().log;
    if (log != nullptr && log->durable_lsn() < client_.durable_wait.lsn) log->RequestSync();
    return;
  }
  wait_ = Wait::kNothing;
  const size_t consumed = Run(input_.view());
  input_.Consume(std::min(consumed, input_.size()));
  if (closing() || killed) input_.Clear();
  input_.ShrinkIfEmpty(kIdleBufferBytes);
  CloseIfInputIsTooLong();
}

void Session::EndWait() {
  if (!EndOfInputEndsWait()) return;
  wait_ = Wait::kNothing;
  client_.durable_wait.active = false;
  input_.Clear();
}

void Session::CloseIfInputIsTooLong() {
  const auto limit = static_cast<size_t>(server_.config().client_query_buffer_limit);
  if (input_.size() > limit) {
    LogWarn("closing client that reached the query buffer limit",
            {{"client", std::to_string(client_.id)}, {"bytes", std::to_string(input_.size())}});
    ++loop_.stats().query_limit_closed;
    killed = true;
  }
}

size_t Session::Run(std::string_view bytes) {
  const Config& config = server_.config();
  resp::Limits limits;
  limits.bulk_bytes_max = config.proto_max_bulk_len;
  resp::Reply reply(output_, client_.protocol);
  size_t done = 0;
  dispatcher_.BeginBatch();
  // What is not sent yet but may be stays so, whatever gate the replies behind it get.
  if (marks_.empty()) released_end_ = output_taken_ + output_.size();
  while (done < bytes.size() && !client_.close_after_reply && !killed) {
    limits.unauthenticated = !client_.authenticated;
    size_t consumed = 0;
    switch (parser_.Next(bytes.substr(done), limits, argv_, &consumed)) {
      case resp::Parser::Verdict::kIncomplete:
        if (client_.gate != 0) MarkOutput();
        return done;
      case resp::Parser::Verdict::kError:
        ProtocolError(parser_.error());
        done = bytes.size();
        continue;
      case resp::Parser::Verdict::kCommand:
        break;
    }
    if (!argv_.empty()) {
      request_bytes_ = bytes.size() - done;
      client_.inline_request = bytes[done] != '*';
      NoteLogState();
      const uint64_t unlogged_before = dispatcher_.unlogged();
      const Dispatcher::Outcome outcome = dispatcher_.Run(client_, Args(argv_), reply);
      if (__builtin_expect(outcome != Dispatcher::Outcome::kDone, 0)) {
        wait_ = outcome == Dispatcher::Outcome::kNoRoom   ? Wait::kLogRoom
                : outcome == Dispatcher::Outcome::kPaused ? Wait::kPause
                                                          : Wait::kRecovery;
        break;  // the request stays in the input
      }
      reply.set_protocol(client_.protocol);
      if (__builtin_expect(client_.durability == Durability::kSync, 0) && ran_logged_ &&
          dispatcher_.unlogged() != unlogged_before) {
        killed = true;  // the log gave up after the command was admitted: the outcome is unknown
      }
      if (__builtin_expect(client_.durable_wait.active, 0) && !FinishDurableWait()) {
        wait_ = Wait::kDurable;
        done += consumed;
        break;
      }
      if (__builtin_expect(server_.OverOutputLimit(*this), 0)) killed = true;
      loop_.Breathe();
      if (__builtin_expect(output_.size() > kOutputPerTurnBytes, 0) &&
          done + consumed < bytes.size()) {
        wait_ = Wait::kTurn;
        done += consumed;
        break;
      }
    }
    done += consumed;
  }
  if (client_.gate != 0) MarkOutput();
  // The log of `none` is in no hurry, but this connection was promised what `async` promises.
  if (__builtin_expect(client_.durability == Durability::kAsync, 0) &&
      server_.execution().log != nullptr &&
      server_.config().wal_sync_policy == WalSyncPolicy::kNone &&
      server_.execution().log->durable_lsn() < client_.gate) {
    loop_.SyncWithin(server_.config().wal_flush_interval_ms);
  }
  return done;
}

// Before a command runs.
void Session::NoteLogState() {
  const wal::Log* const log = server_.execution().log;
  const bool logged = log != nullptr && log->state() == wal::State::kRunning;
  if (__builtin_expect(logged == ran_logged_, 1)) return;
  // What was said so far is marked as it was run.
  const size_t marked_end = marks_.empty() ? released_end_ : marks_.back().end;
  if (client_.gate != 0 && marked_end != output_taken_ + output_.size()) MarkOutput();
  ran_logged_ = logged;
}

bool Session::FinishDurableWait() {
  Client::DurableWait& wait = client_.durable_wait;
  if (wait.kind != Client::DurableWait::Kind::kWaitAof) {
    const size_t before = output_.size();
    resp::Reply answer(output_, client_.protocol);
    if (!AnswerWalWait(server_, wait, answer)) return false;
    if (wait.silent) output_.Truncate(before);
    return true;
  }
  const wal::Log* log = server_.execution().log;
  const bool durable = log != nullptr && IsDurable(*log, wait.lsn);
  const bool late = wait.deadline_ms != 0 && dispatcher_.now_ms() >= wait.deadline_ms;
  const bool in_vain = wait.for_log && log == nullptr;  // it was switched off meanwhile
  if (!late && !in_vain && (!durable || wait.for_replicas)) return false;
  wait.active = false;
  if (wait.silent) return true;
  resp::Reply reply(output_, client_.protocol);
  if (in_vain) {
    reply.Error(kWaitAofWithoutLog);
    return true;
  }
  reply.Array(2);
  reply.Integer(durable ? 1 : 0);
  reply.Integer(0);  // replicas
  return true;
}

void Session::ProtocolError(const std::string& message) {
  resp::Reply(output_, client_.protocol).Error("ERR " + message);
  client_.close_after_reply = true;
}

void Session::MarkOutput() {
  const size_t end = output_taken_ + output_.size();
  const wal::Lsn own = std::exchange(client_.own_lsn, wal::kNoGate);
  if (marks_.empty()) {
    const wal::Log* log = server_.execution().log;
    if (log == nullptr) return;
    const Mark mark{end, client_.gate, own, client_.durability};
    // Of a log that degrades under `sync` all gates open, but not to what was written before and
    // given up: that is held until the connection closes. What begins without the log waits for
    // nothing. The gate comes first: whoever sees it open because the log degraded sees the rest,
    // too.
    const bool open = IsOpen(mark);
    const bool degraded = log->state() == wal::State::kDegraded;
    if (degraded ? !ran_logged_ || Released(mark) : open) {
      released_end_ = end;
      return;
    }
    marks_.push_back(mark);
  } else if (marks_.back().gate == client_.gate && marks_.back().durability == client_.durability) {
    marks_.back().end = end;
    marks_.back().own = std::max(marks_.back().own, own);
  } else if (marks_.back().end != end) {
    marks_.push_back({end, client_.gate, own, client_.durability});
  }
}

// What was read waits no longer once the log has given it up: it is in memory, and everybody reads
// it from now on. Its gate first: a log that degrades says what it gives up before it opens all
// gates.
bool Session::Released(const Mark& mark) const {
  const wal::Log* const log = server_.execution().log;
  return log == nullptr || ((IsOpen(mark) || IsGivenUp(*log, mark.gate, mark.durability)) &&
                            !IsGivenUp(*log, mark.own, mark.durability));
}

bool Session::HeldIsDecided() const {
  const Mark& mark = marks_.front();
  const wal::Log* const log = server_.execution().log;
  return IsOpen(mark) || (log != nullptr && IsGivenUp(*log, mark.gate, mark.durability));
}

bool Session::IsOpen(const Mark& mark) const {
  const wal::Log* const log = server_.execution().log;
  if (log == nullptr) return true;
  switch (mark.durability) {
    case Durability::kDefault:
      return mark.gate <= log->release_lsn();
    case Durability::kNone:
    case Durability::kAsync:
      return mark.gate <= log->release_lsn(wal::SyncPolicy::kAsync);
    case Durability::kSync:
      return mark.gate <= log->release_lsn(wal::SyncPolicy::kSync);
  }
  CHECK(false);
}

bool Session::HeldForNothing(const wal::Log& log) const {
  return std::any_of(marks_.begin(), marks_.end(),
                     [&](const Mark& mark) { return IsGivenUp(log, mark.own, mark.durability); });
}

bool Session::HeldAbove(wal::Lsn durable_lsn) const {
  return std::any_of(marks_.begin(), marks_.end(),
                     [&](const Mark& mark) { return mark.own > durable_lsn; });
}

bool Session::IsGivenUp(const wal::Log& log, wal::Lsn lsn, Durability durability) {
  switch (durability) {
    case Durability::kDefault:
      return log.GateFailed(lsn);
    case Durability::kSync:
      return log.GateGivenUp(lsn);
    case Durability::kNone:
    case Durability::kAsync:
      return false;  // it waits for no disk, and what it says of none is true
  }
  CHECK(false);
}

std::string_view Session::Sendable() {
  if (__builtin_expect(marks_.empty(), 1)) return output_.view();
  while (!marks_.empty() && Released(marks_.front())) {
    released_end_ = marks_.front().end;
    marks_.pop_front();
  }
  if (marks_.empty()) return output_.view();
  return output_.view().substr(0, released_end_ - output_taken_);
}

void Session::Sent(size_t bytes) {
  output_taken_ += bytes;
  output_.Consume(bytes);
}

void Session::TakeOutput(size_t bytes, Buffer* to) {
  output_taken_ += bytes;
  if (bytes == output_.size()) {
    output_.swap(*to);
    output_.Clear();
  } else {
    to->Append(output_.view().substr(0, bytes));
    output_.Consume(bytes);
  }
}

size_t Session::MemoryBytes() const {
  return sizeof(*this) + input_.capacity() + output_.capacity() + in_flight_bytes;
}

void Session::ShrinkBuffers() {
  input_.ShrinkIfEmpty(kIdleBufferBytes);
  output_.ShrinkIfEmpty(kIdleBufferBytes);
  // Views into a request that has run, or that is split again when it does.
  if (argv_.capacity() > kIdleArguments) std::vector<std::string_view>().swap(argv_);
}

}  // namespace crab

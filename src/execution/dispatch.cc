#include "src/execution/dispatch.h"

#include <x86intrin.h>

#include <algorithm>
#include <cmath>

#include "src/commands/errors.h"
#include "src/commands/key_specs.h"
#include "src/keyspace/eviction.h"
#include "utils/clock.h"
#include "utils/log.h"
#include "utils/touch.h"

namespace crab {

namespace {

// A payload's ids, counts and length prefixes, beside the arguments themselves.
constexpr size_t kPayloadOverheadBytes = 64;
// The clock is read again when it is older than this many cycles: about 0.3 ms.
constexpr uint64_t kClockCyclesMax = 1'000'000;
// Above this many keys of one command the list of their places gives its memory back at once.
constexpr size_t kPlacesKept = 1024;
// Keys removed while one shard is held by the expiry cycle.
constexpr size_t kExpireKeysPerHold = 64;

// The first words of an HTTP request's lines.
bool IsHttp(std::string_view name) {
  return EqualsIgnoreCase(name, "post") || EqualsIgnoreCase(name, "host:");
}

// As C prints it: up to the first NUL.
std::string Printed(std::string_view text) { return std::string(text.substr(0, text.find('\0'))); }

// Of an exclusive command: whether it looks at no key. Redis' flag says what may run without the
// data.
bool RunsWithoutData(const Command& command) {
  return (command.flags & kLoading) && !(command.flags & kAllKeys);
}

// What a read writes is an expiry that it came across, of which its reply says nothing.
void NoteOwn(Call& call, uint64_t lsn) {
  if (!(call.command.flags & kRead)) call.client.own_lsn = lsn;
}

size_t PayloadEstimate(Args args) {
  size_t bytes = kPayloadOverheadBytes;
  for (std::string_view argument : args.span()) bytes += argument.size() + 8;
  return bytes;
}

// Of one of many effects, its place in the directory included: SET k v, DEL k.
constexpr uint64_t kEffectBytes = 24;

// What the effects of a command may take in a record, at most: each argument is a key or a value, a
// key that has expired is deleted first, and each part of a large value names its key.
uint64_t EffectsBytesMax(const Command& command, Args args) {
  uint64_t bytes = 0, key_bytes = 0, longest_key = 0;
  for (std::string_view argument : args.span()) bytes += argument.size();
  size_t effects = args.size();
  ForEachKey(command, args, [&](std::string_view key) {
    key_bytes += key.size();
    longest_key = std::max<uint64_t>(longest_key, key.size());
    ++effects;
  });
  const uint64_t parts = bytes / Effects::kPartBytes;
  return bytes + key_bytes + std::min(bytes, parts * longest_key) + effects * kEffectBytes +
         (parts + 1) * Effects::kOwnBytesMax;
}

// Below this share of what a record holds PayloadEstimate says enough.
constexpr uint64_t kRecordShare = 256;

static_assert(KeyspaceOptions{}.record_bytes_max <= wal::kRecordBytesMax);

}  // namespace

void CommandStats::Count(uint64_t spent_cycles) {
  ++calls;
  cycles += spent_cycles;
  if (__builtin_expect(histogram == nullptr, 0)) {
    histogram = std::make_unique<std::array<uint32_t, kBuckets>>();
  }
  const uint64_t value = spent_cycles | 4;  // at least three bits, so that two follow the first
  const int top = 63 - __builtin_clzll(value);
  ++(*histogram)[top * 4 + ((value >> (top - 2)) & 3)];
}

void CommandStats::Add(const CommandStats& other) {
  calls += other.calls;
  cycles += other.cycles;
  rejected += other.rejected;
  failed += other.failed;
  if (other.histogram == nullptr) return;
  if (histogram == nullptr) histogram = std::make_unique<std::array<uint32_t, kBuckets>>();
  for (size_t i = 0; i < kBuckets; ++i) (*histogram)[i] += (*other.histogram)[i];
}

double CommandStats::PercentileCycles(double percentile) const {
  if (histogram == nullptr) return 0;
  const double wanted = static_cast<double>(calls) * percentile / 100;
  double seen = 0;
  for (size_t i = 0; i < kBuckets; ++i) {
    seen += (*histogram)[i];
    if ((*histogram)[i] != 0 && seen >= wanted) {
      return std::ldexp(1.0 + static_cast<double>(i % 4 + 1) / 4, static_cast<int>(i / 4));
    }
  }
  return 0;
}

Dispatcher::Dispatcher(Execution& execution, int loop)
    : execution_(execution),
      loop_(loop),
      view_(execution.keyspace, effects_, stats_.keyspace),
      expire_next_shard_(loop) {
  stats_.commands.resize(execution.registry.size());
  // A command that writes has its room already. A read may find none: then the key that has expired
  // waits for its removal, and so it does during a pause.
  view_.SetMayRemove([this] {
    if (!reading_) return true;
    if (execution_.pause_until_ms > now_ms_) return false;
    wal::Log* const log = execution_.log;
    return log == nullptr ||
           (log->state() != wal::State::kRefusing && SecureRoom(kPayloadOverheadBytes));
  });
  RefreshClock();
}

void Dispatcher::RefreshClock() {
  now_ms_ = RealClock().WallMs();
  clock_cycles_ = last_cycles_ = __rdtsc();
}

void Dispatcher::BeginBatch() { last_cycles_ = __rdtsc(); }

void Dispatcher::ResetStats() {
  for (CommandStats& stats : stats_.commands) stats = {};
  stats_.errors.clear();
  stats_.processed = 0;
  stats_.error_replies = 0;
  stats_.keyspace = {};
}

Dispatcher::Outcome Dispatcher::Run(Client& client, Args args, resp::Reply& reply) {
  Buffer& out = reply.buffer();
  const size_t reply_begin = out.size();
  const Command* container = nullptr;
  const Command* command = execution_.registry.Find(args, &container);
  if (__builtin_expect(command == nullptr, 0)) {
    if (IsHttp(args[0])) {
      // A browser was made to talk to this port, with somebody's commands in the body.
      LogWarn("closing a connection that speaks HTTP", {{"client", client.id}});
      client.close_after_reply = true;
      return Outcome::kDone;
    }
    Reject(reply, nullptr, UnknownCommand(args, container));
    if (client.reply_mode != ReplyMode::kOn) Silence(client, out, reply_begin);
    return Outcome::kDone;
  }
  Status refusal = Status::Ok();
  if (__builtin_expect(!command->AritySuits(args.size()), 0)) {
    refusal = Status::Error("ERR wrong number of arguments for '" + std::string(command->name) +
                            "' command");
  } else {
    refusal = Admit(client, *command);
  }
  if (__builtin_expect(!refusal.ok(), 0)) {
    Reject(reply, command, refusal);
    if (client.reply_mode != ReplyMode::kOn) Silence(client, out, reply_begin);
    return Outcome::kDone;
  }
  if (__builtin_expect(execution_.pause_until_ms > now_ms_, 0) &&
      (!execution_.pause_writes_only || (command->flags & (kWrite | kMayReplicate)))) {
    return Outcome::kPaused;
  }
  if (__builtin_expect(execution_.loader != nullptr, 0) && !Load(*command, args)) {
    return Outcome::kRecovering;
  }
  client.last_command = command;
  if (command->is_write()) {
    const size_t estimate = PayloadEstimate(args);
    const uint64_t record_bytes_max = execution_.keyspace.options().record_bytes_max;
    if (__builtin_expect(estimate > record_bytes_max / kRecordShare, 0) &&
        EffectsBytesMax(*command, args) > record_bytes_max) {
      Reject(reply, command, Status::Error(kTooLargeForRecord));
      if (client.reply_mode != ReplyMode::kOn) Silence(client, out, reply_begin);
      return Outcome::kDone;
    }
    if (execution_.log != nullptr && __builtin_expect(!SecureRoom(estimate), 0)) {
      return Outcome::kNoRoom;
    }
  }

  reading_ = command->flags & kRead;
  view_.Begin(client.db, now_ms_, client.no_touch);
  Call call{*command, args, view_, reply, effects_, client, execution_.registry, now_ms_};
  switch (command->scope) {
    case Scope::kKeys:
      RunKeyed(call);
      break;
    case Scope::kLoop:
      Invoke(call);
      break;
    case Scope::kExclusive:
      RunExclusive(call);
      break;
  }
  Finish(client, *command, out, reply_begin);
  return Outcome::kDone;
}

Status Dispatcher::Admit(const Client& client, const Command& command) {
  if (__builtin_expect(!client.authenticated, 0) && !(command.flags & kNoAuth)) {
    return Status::Error("NOAUTH Authentication required.");
  }
  if (__builtin_expect(execution_.maxmemory != 0, 0) && !EvictUntilFits() &&
      (command.flags & kDenyOom)) {
    return Status::Error("OOM command not allowed when used memory > 'maxmemory'.");
  }
  if ((command.flags & (kWrite | kRefusedWithWrites)) && execution_.log != nullptr &&
      __builtin_expect(execution_.log->state() == wal::State::kRefusing, 0)) {
    return Status::Error("MISCONF Errors writing to the write-ahead log: " +
                         execution_.log->metrics().last_error);
  }
  if (__builtin_expect(client.durability == Durability::kSync, 0) && command.is_write() &&
      (execution_.log == nullptr || execution_.log->state() == wal::State::kDegraded)) {
    return Status::Error(
        "MISCONF This connection asked for CLIENT DURABILITY sync, and the server is running "
        "without its write-ahead log.");
  }
  return Status::Ok();
}

bool Dispatcher::Load(const Command& command, Args args) {
  switch (command.scope) {
    case Scope::kKeys: {
      bool loaded = true;
      ForEachKey(command, args, [&](std::string_view key) {
        loaded = loaded && execution_.loader->Load(execution_.keyspace.ShardOf(key), loop_);
      });
      return loaded;
    }
    case Scope::kLoop:
      return true;
    case Scope::kExclusive:
      // What Redis denies while it loads beside its work says so here by itself, at once.
      return RunsWithoutData(command) || (command.flags & kNoAsyncLoading);
  }
  return false;
}

void Dispatcher::Finish(Client& client, const Command& command, Buffer& out, size_t reply_begin) {
  CommandStats& stats = stats_.commands[execution_.registry.IndexOf(command)];
  const uint64_t cycles = __rdtsc();
  const uint64_t spent = cycles - last_cycles_;
  last_cycles_ = cycles;
  stats.Count(spent);
  ++stats_.processed;
  if (__builtin_expect(cycles - clock_cycles_ > kClockCyclesMax, 0)) RefreshClock();
  if (__builtin_expect(client.reply_mode != ReplyMode::kOn, 0)) Silence(client, out, reply_begin);
}

void Dispatcher::Silence(Client& client, Buffer& out, size_t reply_begin) {
  out.Truncate(reply_begin);
  client.durable_wait.silent = client.durable_wait.active;  // its reply comes later
  // CLIENT REPLY SKIP silences itself and the one command after it, be that one refused.
  if (client.reply_mode == ReplyMode::kSkip) {
    client.reply_mode = ReplyMode::kOn;
  } else if (client.reply_mode == ReplyMode::kSkipNext) {
    client.reply_mode = ReplyMode::kSkip;
  }
}

void Dispatcher::Invoke(Call& call) {
  const size_t reply_begin = call.reply.buffer().size();
  const Status status = call.command.handler(call);
  if (__builtin_expect(!status.ok(), 0)) {
    CHECK_EQ(call.reply.buffer().size(), reply_begin);
    call.reply.Error(status.message());
    ++stats_.commands[execution_.registry.IndexOf(call.command)].failed;
    CountError(status.message());
  }
}

void Dispatcher::RunKeyed(Call& call) {
  Keyspace& keyspace = execution_.keyspace;
  const bool locking = execution_.world.shared();
  const bool limited = execution_.maxmemory != 0;
  if (HasOneKey(call.command)) {
    const std::string_view key = call.args[call.command.keys[0].first];
    const uint64_t hash = view_.HashOf(key);
    const uint32_t index = keyspace.ShardOf(key, hash);
    Shard& shard = keyspace.shard(index);
    if (locking) LockShard(shard);
    Touch(&shard.writes());
    const size_t bytes_before = limited ? shard.MemoryBytes() : 0;
    Invoke(call);
    if (limited) CountMemory(shard, bytes_before);
    if (const uint64_t lsn = Tap()) {
      shard.writes().Note(hash, lsn);
      NoteOwn(call, lsn);
    }
    call.client.gate = std::max({call.client.gate, shard.writes().Last(hash), execution_.base_lsn});
    if (locking) UnlockShard(shard);
    return;
  }
  locks_.Clear();
  places_.clear();
  bool fits = true;
  ForEachKey(call.command, call.args, [&](std::string_view key) {
    const uint64_t hash = keyspace.Hash(key);
    const uint32_t index = keyspace.ShardOf(key, hash);
    places_.push_back({hash, index});
    fits = fits && locks_.Add(index);
  });
  if (!fits) return RunExclusive(call);
  if (locking) locks_.Lock(keyspace);
  int64_t bytes_grown = 0;
  if (limited) {
    locks_.Compact();  // each shard's growth counts once
    for (uint16_t index : locks_.shards()) bytes_grown -= keyspace.shard(index).MemoryBytes();
  }
  Invoke(call);
  if (limited) {
    for (uint16_t index : locks_.shards()) bytes_grown += keyspace.shard(index).MemoryBytes();
    execution_.keyspace_bytes.fetch_add(bytes_grown, std::memory_order_relaxed);
  }
  NoteGates(call, Tap());
  if (locking) locks_.Unlock(keyspace);
}

void Dispatcher::NoteGates(Call& call, uint64_t lsn) {
  Keyspace& keyspace = execution_.keyspace;
  uint64_t gate = std::max(call.client.gate, execution_.base_lsn);
  if (lsn != 0) {
    NoteOwn(call, lsn);
    for (const auto& [hash, shard] : places_) keyspace.shard(shard).writes().Note(hash, lsn);
    gate = std::max(gate, lsn);
  } else {
    for (const auto& [hash, shard] : places_) {
      gate = std::max(gate, keyspace.shard(shard).writes().Last(hash));
    }
  }
  call.client.gate = gate;
  if (places_.size() > kPlacesKept) std::vector<Place>().swap(places_);
}

void Dispatcher::RunExclusive(Call& call) {
  execution_.world.AcquireExclusive(loop_);
  const wal::Log* const log_before = execution_.log;
  const wal::Lsn last_before = log_before == nullptr ? wal::kNoGate : log_before->last_lsn();
  Invoke(call);
  if (execution_.maxmemory != 0) {
    execution_.keyspace_bytes.store(static_cast<int64_t>(execution_.keyspace.MemoryBytes()),
                                    std::memory_order_relaxed);
  }
  const wal::Lsn own = Tap();
  if (call.command.scope == Scope::kKeys) {
    NoteGates(call, own);  // it has more keys than a lock set takes
  } else if (execution_.log != nullptr) {
    // A log that degrades at this moment leaves out an LSN, which nobody was promised.
    const wal::Lsn last = own != wal::kNoGate ? own : execution_.log->last_lsn();
    const bool logged = execution_.log != log_before || last != last_before;
    // It may have changed anything: all that comes after waits for it ...
    if (logged) execution_.base_lsn = last;
    // ... and it may have read anything. INFO and the like read nothing that is logged, and answer
    // also while the disk does not.
    if (logged || !RunsWithoutData(call.command)) {
      call.client.gate = std::max(call.client.gate, last);
      if (logged) NoteOwn(call, last);
    }
  }
  execution_.world.ReleaseExclusive(loop_);
}

bool Dispatcher::SecureRoom(size_t bytes) {
  if (__builtin_expect(execution_.snapshot_full.load(std::memory_order_relaxed), 0)) {
    execution_.snapshot_waits.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  return execution_.log->SecureRoom(bytes);
}

uint64_t Dispatcher::Tap() {
  if (effects_.empty()) return 0;
  stats_.changes += effects_.count();
  uint64_t lsn = 0;
  if (execution_.log != nullptr) {
    if (effects_.count() > 1) {
      lsn = execution_.log->Append(wal::RecordType::kTxn, wal::kBroadcastShard,
                                   effects_.Transaction());
    } else {
      const uint16_t shard = effects_.shard();
      const wal::RecordType type =
          shard == Effects::kBroadcast ? wal::RecordType::kBroadcast : wal::RecordType::kEffect;
      lsn = execution_.log->Append(type, shard, effects_.bytes());
    }
  }
  // Also where the log was switched off since the command was let in.
  if (__builtin_expect(lsn == wal::kNoGate, 0)) ++unlogged_;
  effects_.Clear();
  return lsn;
}

void Dispatcher::ExpireCycle(int64_t budget_us) {
  if (!execution_.active_expire || execution_.pause_until_ms > now_ms_) return;
  const int64_t start_us = RealClock().MonotonicUs();
  Keyspace& keyspace = execution_.keyspace;
  const bool locking = execution_.world.shared();
  const uint32_t loops = execution_.world.loops();
  const auto advance = [&] {
    expire_next_shard_ += loops;
    if (expire_next_shard_ >= keyspace.shard_count()) expire_next_shard_ = loop_;
  };
  reading_ = false;
  view_.Begin(0, now_ms_, /*no_touch=*/true);
  for (uint32_t seen = loop_; seen < keyspace.shard_count(); seen += loops) {
    const uint32_t index = expire_next_shard_;
    Shard& shard = keyspace.shard(index);
    if (shard.next_deadline_ms() > now_ms_ ||
        (execution_.loader != nullptr && !execution_.loader->Has(index))) {
      advance();
      continue;
    }
    wal::Log* const log = execution_.log;
    if (log != nullptr && (log->state() == wal::State::kRefusing ||
                           !SecureRoom(kExpireKeysPerHold * kPayloadOverheadBytes))) {
      return;  // a deletion that cannot be logged waits; reads answer as absent meanwhile
    }
    if (locking) LockShard(shard);
    const size_t bytes_before = shard.MemoryBytes();
    const size_t removed = view_.ExpireSome(index, kExpireKeysPerHold);
    if (execution_.maxmemory != 0) CountMemory(shard, bytes_before);
    // No gate: whoever reads that such a key is gone knows it from the clock, not from the record.
    Tap();
    if (locking) UnlockShard(shard);
    if (removed < kExpireKeysPerHold) {  // else the same shard again: more may be due
      advance();
    } else {
      seen -= loops;
    }
    if (RealClock().MonotonicUs() - start_us > budget_us) return;
    execution_.world.Breathe(loop_);
  }
}

bool Dispatcher::EvictUntilFits() {
  // Bounds the work before one command: when memory is far above the limit (it was lowered), each
  // command pays a part of the way down.
  constexpr int kKeysPerCommandMax = 64;
  if (execution_.pause_until_ms > now_ms_) return true;  // the data stands still, as in Redis
  if (execution_.loader != nullptr) return true;  // what it needs is not known before all is there
  const auto used_bytes = [this] {
    return execution_.keyspace_bytes.load(std::memory_order_relaxed) +
           execution_.other_bytes.load(std::memory_order_relaxed);
  };
  const auto limit = static_cast<int64_t>(execution_.maxmemory);
  for (int evicted = 0; used_bytes() > limit; ++evicted) {
    if (execution_.keyspace.options().policy == EvictionPolicy::kNoEviction) return false;
    if (evicted == kKeysPerCommandMax) return true;
    wal::Log* const log = execution_.log;
    if (log != nullptr) {
      if (log->state() == wal::State::kRefusing) return false;
      // Without room for what a deletion writes memory waits as the log does, and with it the
      // command, if it is a write.
      if (!SecureRoom(kPayloadOverheadBytes)) return true;
    }
    const bool found = EvictBest();
    if (!found) return false;
  }
  return true;
}

bool Dispatcher::EvictBest() {
  // Compares the best of this many shards that have one: with the samples of each that is a better
  // choice than Redis' pool makes, at the price of as many cache misses.
  constexpr int kShardsCompared = 3;
  Keyspace& keyspace = execution_.keyspace;
  const bool locking = execution_.world.shared();
  const bool of_deadlines = IsVolatile(keyspace.options().policy);
  const uint32_t mask = keyspace.shard_count() - 1;
  const auto first = static_cast<uint32_t>(random_.Next());
  Victim best;
  uint32_t best_shard = 0;
  int offers = 0;
  for (uint32_t i = 0; i <= mask && offers < kShardsCompared; ++i) {
    // An odd stride visits every shard once, and neighbours are not asked together.
    const uint32_t index = (first + i * 0x9e3779b1u) & mask;
    Shard& shard = keyspace.shard(index);
    // No key with a deadline: nothing to offer under a volatile policy, and not worth its lock.
    if (of_deadlines && shard.next_deadline_ms() == INT64_MAX) continue;
    Victim victim;
    if (locking) LockShard(shard);
    const bool offered =
        EvictOne(keyspace, index, keyspace.options().policy,
                 static_cast<size_t>(execution_.maxmemory_samples), now_ms_, random_, &victim);
    if (locking) UnlockShard(shard);
    if (!offered) continue;
    if (offers++ == 0 || victim.score > best.score) {
      best = std::move(victim);
      best_shard = index;
    }
  }
  if (offers == 0) return false;
  Shard& shard = keyspace.shard(best_shard);
  if (locking) LockShard(shard);
  reading_ = false;
  view_.Begin(best.db, now_ms_, /*no_touch=*/true);
  const size_t bytes_before = shard.MemoryBytes();
  if (view_.Remove(best.key)) {  // else another loop was faster: memory shrank all the same
    effects_.Del(static_cast<uint16_t>(best_shard), best.db, best.key);
    ++stats_.keyspace.evicted;
  }
  CountMemory(shard, bytes_before);
  if (const uint64_t lsn = Tap()) shard.writes().Note(keyspace.Hash(best.key), lsn);
  if (locking) UnlockShard(shard);
  return true;
}

Status Dispatcher::UnknownCommand(Args args, const Command* container) const {
  // Redis quotes at most 128 bytes of the arguments, each argument likewise.
  constexpr size_t kQuotedBytesMax = 128;
  if (container != nullptr) {
    std::string name(container->name);
    std::transform(name.begin(), name.end(), name.begin(), ::toupper);
    return Status::Error("ERR unknown subcommand '" + Printed(args[1].substr(0, kQuotedBytesMax)) +
                         "'. Try " + name + " HELP.");
  }
  std::string text = "ERR unknown command '" + Printed(args[0].substr(0, kQuotedBytesMax)) +
                     "', with args beginning with: ";
  const size_t prefix = text.size();
  for (size_t i = 1; i < args.size() && text.size() - prefix < kQuotedBytesMax; ++i) {
    const size_t left = kQuotedBytesMax - (text.size() - prefix);
    text.append("'").append(Printed(args[i].substr(0, left))).append("' ");
  }
  return Status::Error(std::move(text));
}

void Dispatcher::Reject(resp::Reply& reply, const Command* command, const Status& error) {
  reply.Error(error.message());
  if (command != nullptr) ++stats_.commands[execution_.registry.IndexOf(*command)].rejected;
  CountError(error.message());
}

void Dispatcher::CountError(std::string_view message) {
  ++stats_.error_replies;
  const std::string code(message.substr(0, message.find(' ')));
  if (stats_.errors.size() < DispatchStats::kErrorsMax || stats_.errors.contains(code)) {
    ++stats_.errors[code];
  }
}

}  // namespace crab

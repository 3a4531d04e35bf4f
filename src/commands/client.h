// Client: the part of a connection's state that a command may read and change. Owned by its session
// (src/server/session), changed by its own loop while it is IN, so an exclusive command may read
// any.
#pragma once

#include <cstdint>
#include <string>

namespace crab {

class Command;
class Session;  // src/server: what stands behind a Client; null in replay and in tests

enum class ReplyMode : uint8_t { kOn, kOff, kSkipNext, kSkip };

// CLIENT DURABILITY: what a reply of this connection says about the disk, whatever wal-sync-policy
// says about everybody else's.
enum class Durability : uint8_t { kDefault, kNone, kAsync, kSync };

struct Client {
  uint64_t id = 0;
  uint32_t db = 0;
  int protocol = 2;
  bool authenticated = true;
  bool no_touch = false;
  bool no_evict = false;
  bool replay = false;  // the recovery's own client: errors are bugs or damage, nothing is logged
  bool close_after_reply = false;
  ReplyMode reply_mode = ReplyMode::kOn;
  Durability durability = Durability::kDefault;
  std::string user = "default";
  std::string name;          // CLIENT SETNAME
  std::string library_name;  // CLIENT SETINFO LIB-NAME
  std::string library_version;
  // The highest LSN that what this client was told depends on: its replies leave when
  // Log::release_lsn() has reached it, or what its durability asks for instead.
  uint64_t gate = 0;
  // The highest LSN of a record that a reply acknowledges which its session has not marked yet; 0 =
  // none. Such a reply is void when the record is given up, one that only read is not.
  uint64_t own_lsn = 0;
  const Command* last_command = nullptr;
  bool inline_request = false;  // the present request came as an inline one
  // Set by WAITAOF instead of replying: the session replies and goes on when the log is durable up
  // to `lsn` (and no replica is waited for), or at `deadline_ms`.
  struct DurableWait {
    bool active = false;
    uint64_t lsn = 0;
    int64_t deadline_ms = 0;  // wall clock; 0 = for ever
    bool for_log = false;     // else only for replicas, of which there are none
    bool for_replicas = false;
    bool silent = false;  // CLIENT REPLY was off or SKIP for it: nothing is answered
    // WAL FLUSH, ROTATE and BACKUP wait as well: wal_commands.h.
    enum class Kind : uint8_t { kWaitAof, kFlush, kRotate, kBackup } kind = Kind::kWaitAof;
    bool asked = false;          // the log has been asked; not yet while it awaits a checkpoint
    uint64_t job = 0;            // the number of the backup that is waited for
    std::string directory = {};  // where it goes
  } durable_wait;
  Session* session = nullptr;
};

}  // namespace crab

// Session: the protocol state behind a connection. Bytes in, bytes out; it has no socket, so a test
// can drive it. It splits what arrives into requests, runs each through dispatch, and knows which
// of its reply bytes may leave yet (the gate of DESIGN §5). Changed only by its own loop while that
// is IN; an exclusive command may read and mark it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "resp/parser.h"
#include "src/commands/client.h"
#include "src/execution/dispatch.h"
#include "utils/bytes.h"

namespace crab {

class Server;
class Loop;

// Whether the disk has all that depends on records up to `gate`. A log that has degraded cannot say
// so: what was written since has no record.
inline bool IsDurable(const wal::Log& log, wal::Lsn gate) {
  return log.state() != wal::State::kDegraded && log.durable_lsn() >= gate;
}

constexpr char kWaitAofWithoutLog[] =
    "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.";

// What a session needs of its surroundings and does not own.
struct SessionOptions {
  std::string peer_address;  // "127.0.0.1:5000"; "/path:0" for a unix socket
  std::string local_address;
  int fd = -1;
  bool unix_socket = false;
  bool authenticated = false;  // it has told the password before there was a session
};

class Session {
 public:
  Session(Server& server, Loop& loop, Dispatcher& dispatcher, uint64_t id, SessionOptions options);

  Client& client() { return client_; }
  const Client& client() const { return client_; }
  Server& server() { return server_; }
  Loop& loop() { return loop_; }
  const SessionOptions& options() const { return options_; }
  // From this host: loopback or a unix socket.
  bool is_local() const;

  // --- bytes in ---
  // Takes bytes that were read elsewhere, runs every whole request in them and keeps the rest.
  void Receive(std::string_view bytes);
  // Where to read the next bytes to, so that a big argument is not copied twice; empty when the
  // loop's shared buffer will do. What was read there is told to Received.
  std::span<char> ReceiveBuffer();
  void Received(size_t bytes);
  // Runs what is waiting in the input; after kNoRoom or a pause, when that may be over.
  void Resume();

  enum class Wait : uint8_t { kNothing, kLogRoom, kPause, kRecovery, kDurable, kTurn };
  Wait waiting() const { return wait_; }
  // Whether it waits for something that nobody is told of once the client has said all: as in
  // Redis, the request is dropped then with all behind it. Other waits are ours alone: Redis would
  // have run those requests, and so they still are.
  bool EndOfInputEndsWait() const { return wait_ == Wait::kDurable || wait_ == Wait::kPause; }
  void EndWait();

  // --- bytes out ---
  // Reply bytes that may leave now; the connection takes them with Sent or TakeOutput.
  std::string_view Sendable();
  void Sent(size_t bytes);
  // Whether there are replies that wait for the log.
  bool held() const { return !marks_.empty(); }
  // Whether it is known by now what becomes of the first of them: it may leave or never will. Only
  // when held().
  bool HeldIsDecided() const;
  // Whether a held reply acknowledges a record that `log` gave up, so that it must never leave.
  bool HeldForNothing(const wal::Log& log) const;
  // Whether a held reply waits for a sync because of CLIENT DURABILITY. One between others is seen
  // when it is their first.
  bool HeldForOwnSync() const {
    return !marks_.empty() && (marks_.front().durability == Durability::kSync ||
                               marks_.back().durability == Durability::kSync);
  }
  // Whether a held reply acknowledges a record above `durable_lsn`.
  bool HeldAbove(wal::Lsn durable_lsn) const;
  // Moves `bytes` from the front of the output to `to`, without copying when that is all of it.
  void TakeOutput(size_t bytes, Buffer* to);
  Buffer& output() { return output_; }
  // The log that its gate speaks of is gone, complete: nothing waits any more.
  void ForgetGate() {
    client_.gate = client_.own_lsn = 0;
    marks_.clear();
  }
  // Anything written into output() outside of a request (a push, an error before closing), and what
  // was said under one durability, before it changes.
  void MarkOutput();

  // To be closed as soon as the output has left; no more input is read.
  bool closing() const { return client_.close_after_reply; }
  void CloseAfterReply() { client_.close_after_reply = true; }
  // To be closed at once: killed, or over a limit. Set by an exclusive command of any loop.
  bool killed = false;
  // It called SHUTDOWN: its socket closes with the process, and that is the answer.
  bool asked_for_stop = false;

  // --- facts for CLIENT LIST and the cron ---
  int64_t created_ms = 0;
  int64_t last_active_ms = 0;
  size_t in_flight_bytes = 0;            // handed to the socket, not yet taken by the kernel
  int64_t over_soft_limit_since_ms = 0;  // 0 = is not over it
  size_t input_bytes() const { return input_.size(); }
  size_t input_capacity() const { return input_.capacity(); }
  size_t output_capacity() const { return output_.capacity(); }
  // Bytes in hand from the present request on.
  size_t request_bytes() const { return request_bytes_; }
  size_t output_bytes() const { return output_.size() + in_flight_bytes; }
  size_t MemoryBytes() const;
  void ShrinkBuffers();

 private:
  struct Mark {
    size_t end;             // bytes of the output, counted from the connection's start, ...
    wal::Lsn gate;          // ... that leave once this is released ...
    wal::Lsn own;           // ... or given up, if this is not: the last record they acknowledge ...
    Durability durability;  // ... for such a reply
  };

  // Whether what it marks may leave: its gate decides nothing more, and no record that it
  // acknowledges was given up.
  bool Released(const Mark& mark) const;
  bool IsOpen(const Mark& mark) const;
  static bool IsGivenUp(const wal::Log& log, wal::Lsn lsn, Durability durability);
  // Runs the whole requests at the front of `bytes` and returns how many bytes they were.
  size_t Run(std::string_view bytes);
  void NoteLogState();
  // Answers WAITAOF when it is time; false: not yet.
  bool FinishDurableWait();
  void ProtocolError(const std::string& message);
  void CloseIfInputIsTooLong();  // client-query-buffer-limit

  Server& server_;
  Loop& loop_;
  Dispatcher& dispatcher_;
  SessionOptions options_;
  Client client_;
  resp::Parser parser_;
  std::vector<std::string_view> argv_;
  size_t request_bytes_ = 0;
  Buffer input_;   // what is left of the input: a request that is not whole or may not run yet
  Buffer output_;  // replies not yet handed to the connection
  size_t output_taken_ = 0;  // bytes that left output_ since the start
  size_t released_end_ = 0;  // of the output in front of the first mark, counted like its end
  std::deque<Mark> marks_;   // ascending; only while replies wait for the log
  bool ran_logged_ = false;  // the log was keeping everything when the last command was let in
  Wait wait_ = Wait::kNothing;
};

}  // namespace crab

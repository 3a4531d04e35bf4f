// Connection: one socket on one loop for life. Reads into the session, writes what the session lets
// leave. A uv_poll with recv and send of our own: libuv's streams cost some 3 % of a request more
// (their read and write take the longer way through the kernel). Owns the descriptor, the handle
// and what is in flight; loop-bound.
#pragma once

#include <uv.h>

#include <cstddef>
#include <memory>

#include "src/server/session.h"
#include "utils/bytes.h"

namespace crab {

class Loop;

class Connection {
 public:
  // Takes over `fd`, which is open, connected and not blocking.
  Connection(Loop& loop, int fd, std::unique_ptr<Session> session);

  // Begins to read. False: the kernel has no room to watch the descriptor, which is then closed;
  // destroy this.
  bool Start();
  Session& session() { return *session_; }

  // Sends what may leave, and closes when the session is to be closed. The loop is IN.
  void Flush();
  // Runs what waited for room in the log or the end of a pause, then flushes.
  void Resume();
  // Closes the socket; the loop destroys this connection when libuv has let go of the handle.
  void Close();
  bool closing() const { return closing_; }

 private:
  friend class Loop;

  void OnReadable();
  void OnWritable();
  void OnEndOfInput();
  // Sends from the front of `bytes`; how many the kernel took, or -1 when the connection is gone.
  ssize_t Send(std::string_view bytes);
  // Reading goes on only while the session can run what arrives; the wait for room in the socket
  // only while something is in flight.
  void UpdateEvents();

  Loop& loop_;
  int fd_;
  std::unique_ptr<Session> session_;
  uv_poll_t poll_;
  int events_ = 0;  // what poll_ waits for
  bool closing_ = false;
  bool in_dirty_list_ = false;  // the loop will flush it at the end of the round
  bool in_held_list_ = false;   // the loop will flush it when the log moves
  bool in_paused_list_ = false;
  Buffer in_flight_;  // replies that left the session and found the socket full
};

}  // namespace crab

// Connection: one socket on one loop for life. Reads into the session, writes what the session lets
// leave. Owns the libuv handle and what is in flight; loop-bound.
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
  Connection(Loop& loop, int fd, bool unix_socket, std::unique_ptr<Session> session);

  // False: libuv refused the descriptor, which stays the caller's; close this.
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

  void OnRead(ssize_t bytes, const uv_buf_t* buffer);
  void OnWritten(int status);
  // Reading goes on only while the session can run what arrives.
  void UpdateReading();

  Loop& loop_;
  int fd_;
  std::unique_ptr<Session> session_;
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } uv_;
  const bool unix_socket_;
  bool reading_ = false;
  bool closing_ = false;
  bool own_buffer_ = false;     // the read under way goes into the session's buffer
  bool in_dirty_list_ = false;  // the loop will flush it at the end of the round
  bool in_held_list_ = false;   // the loop will flush it when the log moves
  bool in_paused_list_ = false;
  uv_write_t write_{};
  Buffer in_flight_;  // what uv_write is sending; empty when no write is under way
};

}  // namespace crab

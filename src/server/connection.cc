#include "src/server/connection.h"

#include <limits>

#include "src/server/loop.h"
#include "src/server/server.h"

namespace crab {

namespace {

// With so much held back by the log nothing more is read: a client that sends on without waiting
// for replies cannot make them pile up while a disk stands still.
constexpr size_t kHeldBytesMax = 1 << 20;

}  // namespace

Connection::Connection(Loop& loop, int fd, bool unix_socket, std::unique_ptr<Session> session)
    : loop_(loop), fd_(fd), session_(std::move(session)), unix_socket_(unix_socket) {}

bool Connection::Start() {
  int error =
      unix_socket_ ? uv_pipe_init(loop_.uv(), &uv_.pipe, 0) : uv_tcp_init(loop_.uv(), &uv_.tcp);
  CHECK_EQ(error, 0);
  uv_.handle.data = this;
  error = unix_socket_ ? uv_pipe_open(&uv_.pipe, fd_) : uv_tcp_open(&uv_.tcp, fd_);
  if (error != 0) return false;
  write_.data = this;
  UpdateReading();
  return true;
}

void Connection::UpdateReading() {
  const bool wanted = !closing_ && !session_->closing() &&
                      session_->waiting() == Session::Wait::kNothing &&
                      !(session_->held() && session_->output().size() > kHeldBytesMax);
  if (wanted == reading_) return;
  reading_ = wanted;
  if (!wanted) {
    uv_read_stop(&uv_.stream);
    return;
  }
  uv_read_start(
      &uv_.stream,
      [](uv_handle_t* handle, size_t, uv_buf_t* buffer) {
        auto* self = static_cast<Connection*>(handle->data);
        const std::span<char> own = self->session_->ReceiveBuffer();
        self->own_buffer_ = !own.empty();
        const std::span<char> target = own.empty() ? self->loop_.read_buffer() : own;
        *buffer = uv_buf_init(target.data(), target.size());
      },
      [](uv_stream_t* stream, ssize_t bytes, const uv_buf_t* buffer) {
        static_cast<Connection*>(stream->data)->OnRead(bytes, buffer);
      });
}

void Connection::OnRead(ssize_t bytes, const uv_buf_t* buffer) {
  if (bytes == 0) return;  // EAGAIN
  loop_.Enter();
  if (bytes == UV_EOF && (in_dirty_list_ || session_->held()) && in_flight_.empty()) {
    // The client has said all it wanted and may still listen (`nc -N`): it gets its replies.
    session_->CloseAfterReply();
    loop_.FlushSoon(*this);
    UpdateReading();
  } else if (bytes < 0) {
    Close();
  } else {
    loop_.stats().bytes_in += bytes;
    ++loop_.stats().reads;
    if (own_buffer_) {
      session_->Received(bytes);
    } else {
      session_->Receive({buffer->base, static_cast<size_t>(bytes)});
    }
    // Much to send leaves at once, so that a long pipeline is answered while it still arrives.
    constexpr size_t kSendAtOnceBytes = 64 * 1024;
    if (session_->output().size() < kSendAtOnceBytes && !session_->killed) {
      loop_.FlushSoon(*this);
    } else {
      Flush();
    }
    if (!closing_) UpdateReading();  // at once: the same event may read on
  }
}

void Connection::Resume() {
  if (closing_) return;
  session_->Resume();
  Flush();
  if (!closing_) UpdateReading();  // also where Flush waits for the socket
}

void Connection::Flush() {
  if (closing_) return;
  if (session_->killed) return Close();
  if (session_->waiting() != Session::Wait::kNothing) loop_.AwaitResume(*this);
  if (!in_flight_.empty()) return;  // OnWritten comes back here
  if (__builtin_expect(session_->held(), 0)) {
    const wal::Log* log = loop_.server().execution().log;
    // What these replies say was given up: the outcome is unknown, and a closed connection says so.
    if (log != nullptr && session_->HeldForNothing(*log)) return Close();
  }
  const std::string_view sendable = session_->Sendable(loop_.server().ReleaseLsn());
  if (!sendable.empty()) {
    const uv_buf_t piece = uv_buf_init(const_cast<char*>(sendable.data()), sendable.size());
    int sent = uv_try_write(&uv_.stream, &piece, 1);
    if (sent < 0 && sent != UV_EAGAIN) return Close();
    if (sent < 0) sent = 0;
    loop_.stats().bytes_out += sent;
    ++loop_.stats().writes;
    const size_t rest = sendable.size() - sent;
    session_->Sent(sent);
    if (rest > 0) {
      session_->TakeOutput(rest, &in_flight_);
      session_->in_flight_bytes = in_flight_.size();
      const uv_buf_t left = uv_buf_init(in_flight_.data(), in_flight_.size());
      const int error = uv_write(&write_, &uv_.stream, &left, 1, [](uv_write_t* write, int status) {
        static_cast<Connection*>(write->data)->OnWritten(status);
      });
      if (error != 0) return Close();
    }
  }
  if (session_->held()) {
    loop_.AwaitLog(*this);
  } else if (session_->closing() && in_flight_.empty() && session_->output().empty()) {
    return Close();
  } else if (session_->waiting() == Session::Wait::kTurn) {
    loop_.WakeSoon();
  }
  UpdateReading();
}

void Connection::OnWritten(int status) {
  loop_.Enter();
  loop_.stats().bytes_out += in_flight_.size();
  in_flight_.Clear();
  constexpr size_t kKeptBytes = 64 * 1024;
  in_flight_.ShrinkIfEmpty(kKeptBytes);
  session_->in_flight_bytes = 0;
  if (status != 0) {
    Close();
  } else {
    Flush();
  }
}

void Connection::Close() {
  if (closing_) return;
  closing_ = true;
  reading_ = false;
  loop_.Forget(*this);
  uv_close(&uv_.handle, [](uv_handle_t* handle) {
    auto* self = static_cast<Connection*>(handle->data);
    self->loop_.Destroy(self);
  });
}

}  // namespace crab

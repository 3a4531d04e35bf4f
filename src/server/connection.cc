#include "src/server/connection.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "src/server/loop.h"
#include "src/server/server.h"

namespace crab {

namespace {

// With so much held back by the log nothing more is read: a client that sends on without waiting
// for replies cannot make them pile up while a disk stands still.
constexpr size_t kHeldBytesMax = 1 << 20;
// What is read ahead of a client that waits, so that its end is seen as in Redis; behind more than
// that the kernel tells of the end.
constexpr size_t kReadAheadBytesMax = 1 << 20;

}  // namespace

Connection::Connection(Loop& loop, int fd, std::unique_ptr<Session> session)
    : loop_(loop), fd_(fd), session_(std::move(session)) {}

bool Connection::Start() {
  if (uv_poll_init(loop_.uv(), &poll_, fd_) != 0) {
    close(fd_);
    return false;
  }
  poll_.data = this;
  UpdateEvents();
  return true;
}

void Connection::UpdateEvents() {
  if (closing_) return;
  const bool waits = session_->waiting() != Session::Wait::kNothing;
  const bool ends_wait = session_->EndOfInputEndsWait();
  const bool read = !session_->closing() &&
                    !(session_->held() && session_->output().size() > kHeldBytesMax) &&
                    (!waits || (ends_wait && session_->input_bytes() < kReadAheadBytesMax));
  const int wanted = (read ? UV_READABLE : 0) | (ends_wait && !read ? UV_DISCONNECT : 0) |
                     (in_flight_.empty() ? 0 : UV_WRITABLE);
  if (wanted == events_) return;
  events_ = wanted;
  if (wanted == 0) {
    uv_poll_stop(&poll_);
    return;
  }
  uv_poll_start(&poll_, wanted, [](uv_poll_t* handle, int status, int events) {
    auto& self = *static_cast<Connection*>(handle->data);
    self.loop_.Enter();
    if (status < 0) return self.Close();
    if (events & UV_READABLE) self.OnReadable();
    if ((events & UV_DISCONNECT) && !self.closing_) self.OnEndOfInput();
    if ((events & UV_WRITABLE) && !self.closing_) self.OnWritable();
  });
}

void Connection::OnReadable() {
  // A pipeline longer than the buffer is read on at once, but not for ever: others wait, too.
  constexpr int kReadsPerEvent = 16;
  for (int i = 0; i < kReadsPerEvent; ++i) {
    const std::span<char> own = session_->ReceiveBuffer();
    const std::span<char> target = own.empty() ? loop_.read_buffer() : own;
    const ssize_t bytes = recv(fd_, target.data(), target.size(), 0);
    if (bytes < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) Close();
      return;
    }
    if (bytes == 0) return OnEndOfInput();
    loop_.stats().bytes_in += static_cast<uint64_t>(bytes);
    ++loop_.stats().reads;
    if (own.empty()) {
      session_->Receive({target.data(), static_cast<size_t>(bytes)});
    } else {
      session_->Received(static_cast<size_t>(bytes));
    }
    // Much to send leaves at once, so that a long pipeline is answered while it still arrives.
    constexpr size_t kSendAtOnceBytes = 64 * 1024;
    if (session_->output().size() < kSendAtOnceBytes && !session_->killed) {
      loop_.FlushSoon(*this);
    } else {
      Flush();
    }
    UpdateEvents();
    if (closing_ || !(events_ & UV_READABLE) || static_cast<size_t>(bytes) < target.size()) return;
  }
}

void Connection::OnEndOfInput() {
  session_->EndWait();
  if ((!in_dirty_list_ && !session_->held()) || !in_flight_.empty()) return Close();
  // The client has said all it wanted and may still listen (`nc -N`): it gets its replies.
  session_->CloseAfterReply();
  loop_.FlushSoon(*this);
  UpdateEvents();
}

ssize_t Connection::Send(std::string_view bytes) {
  ssize_t sent = 0;
  do {
    sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) return -1;
  ++loop_.stats().writes;
  if (sent < 0) return 0;
  loop_.stats().bytes_out += static_cast<uint64_t>(sent);
  return sent;
}

void Connection::Resume() {
  if (closing_) return;
  session_->Resume();
  Flush();
  UpdateEvents();  // also where Flush waits for the socket
}

void Connection::Flush() {
  if (closing_) return;
  if (session_->killed) return Close();
  const bool takes_turns = session_->waiting() == Session::Wait::kTurn;
  if (session_->waiting() != Session::Wait::kNothing) loop_.AwaitResume(*this);
  if (!in_flight_.empty()) {
    // OnWritable comes back here. A client may send all it has before it reads anything, so a full
    // socket does not keep its requests from running.
    if (takes_turns) loop_.WakeSoon();
    return;
  }
  if (__builtin_expect(session_->held(), 0)) {
    const wal::Log* log = loop_.server().execution().log;
    // What these replies say was given up: the outcome is unknown, and a closed connection says so.
    if (log != nullptr && session_->HeldForNothing(*log)) return Close();
  }
  const std::string_view sendable = session_->Sendable();
  if (!sendable.empty()) {
    const size_t bytes = sendable.size();
    const ssize_t sent = Send(sendable);
    if (sent < 0) return Close();
    session_->Sent(static_cast<size_t>(sent));
    if (static_cast<size_t>(sent) < bytes) {
      session_->TakeOutput(bytes - static_cast<size_t>(sent), &in_flight_);
      session_->in_flight_bytes = in_flight_.size();
    }
  }
  if (session_->held()) {
    loop_.AwaitLog(*this);
    if (session_->HeldForOwnSync()) loop_.SyncSoon();
  } else if (session_->closing() && in_flight_.empty() && session_->output().empty()) {
    return Close();
  } else if (takes_turns) {
    loop_.WakeSoon();
  }
  UpdateEvents();
}

void Connection::OnWritable() {
  const ssize_t sent = Send(in_flight_.view());
  if (sent < 0) return Close();
  in_flight_.Consume(static_cast<size_t>(sent));
  session_->in_flight_bytes = in_flight_.size();
  if (!in_flight_.empty()) return;
  constexpr size_t kKeptBytes = 64 * 1024;
  in_flight_.ShrinkIfEmpty(kKeptBytes);
  Flush();
  UpdateEvents();
}

void Connection::Close() {
  if (closing_) return;
  closing_ = true;
  loop_.Forget(*this);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), [](uv_handle_t* handle) {
    auto* self = static_cast<Connection*>(handle->data);
    self->loop_.Destroy(self);
  });
  // After uv_close, which takes it out of the poll: its number may be another's at once.
  if (session_->asked_for_stop) {
    loop_.server().CloseAtTheEnd(fd_);
  } else {
    close(fd_);
  }
}

}  // namespace crab

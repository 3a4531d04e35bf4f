// The server's sockets: listening, and accepting on loop 0.
#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "src/server/server.h"
#include "utils/clock.h"
#include "utils/log.h"

namespace crab {

namespace {

Status SystemError(const std::string& what) {
  const int error = errno;
  return Status::Error(what + ": " + std::strerror(error), error);
}

// "127.0.0.1:6379", "[::1]:6379"; "?:0" when it cannot be told.
std::string AddressText(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (address.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
    return std::string(text) + ":" + std::to_string(ntohs(in.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    const auto& in6 = reinterpret_cast<const sockaddr_in6&>(address);
    inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof(text));
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(in6.sin6_port));
  }
  return "?:0";
}

bool IsLoopback(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("[::1]");
}

// Redis' bound: its first reply buffer and 1 KiB.
constexpr int64_t kUnauthenticatedOutputBytesMax = 17 * 1024;

// What Redis answers to a stranger in protected mode, in substance; clients look for the code only.
constexpr std::string_view kProtectedModeError =
    "-DENIED Redis is running in protected mode because protected mode is enabled and no password "
    "is set for the default user. In this mode connections are only accepted from the loopback "
    "interface. To connect from elsewhere set a password with 'requirepass', or turn protected "
    "mode off with 'CONFIG SET protected-mode no' from this host or 'protected-mode no' in the "
    "configuration, and be sure that the server cannot be reached from the internet.\r\n";

}  // namespace

Status Server::Listen() {
  TRY(ListenAll(config_, &listeners_));
  if (!config_.unixsocket.empty()) TRY(ListenUnix(config_.unixsocket));
  if (listeners_.empty()) {
    return Status::Error("nothing to listen on: port is 0 and unixsocket is not set");
  }
  return Status::Ok();
}

Status Server::ListenAll(const Config& config, std::vector<std::unique_ptr<Listener>>* listeners) {
  if (config.port == 0) return Status::Ok();
  for (const std::string& address : config.bind) {
    const bool optional = address.starts_with("-");
    Status status = ListenTcp(optional ? address.substr(1) : address, static_cast<int>(config.port),
                              static_cast<int>(config.tcp_backlog), listeners);
    const int error = status.system_errno();
    if (!status.ok() && !(optional && (error == EADDRNOTAVAIL || error == EAFNOSUPPORT))) {
      CloseNow(*listeners);
      return status;
    }
  }
  if (listeners->empty()) {
    return Status::Error("cannot listen on any address of `bind`; set one that this host has");
  }
  return Status::Ok();
}

void Server::CloseNow(std::vector<std::unique_ptr<Listener>>& listeners) {
  for (const auto& listener : listeners) close(listener->fd);
  listeners.clear();
}

Status Server::ListenTcp(const std::string& address, int port, int backlog,
                         std::vector<std::unique_ptr<Listener>>* listeners) {
  const std::string where = address + ":" + std::to_string(port);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  const char* host = address == "*" ? "0.0.0.0" : address == "::*" ? "::" : address.c_str();
  addrinfo* found = nullptr;
  const std::string service = std::to_string(port);
  if (const int error = getaddrinfo(host, service.c_str(), &hints, &found); error != 0) {
    return Status::Error("cannot listen on " + where + ": " + gai_strerror(error), EADDRNOTAVAIL);
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return SystemError("cannot listen on " + where);
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (found->ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
  if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, backlog) != 0) {
    Status status = SystemError("cannot listen on " + where);
    close(fd);
    if (status.system_errno() == EADDRINUSE) {
      status = Status::Error(
          std::string(status.message()) + "; stop the other server or choose another --port",
          EADDRINUSE);
    }
    return status;
  }
  sockaddr_storage bound{};
  socklen_t size = sizeof(bound);
  getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size);
  listeners->push_back(
      std::make_unique<Listener>(Listener{{}, fd, false, AddressText(bound), this}));
  return Status::Ok();
}

Status Server::ListenUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return Status::Error("cannot listen on " + path + ": a unix socket's path has at most " +
                         std::to_string(sizeof(address.sun_path) - 1) + " bytes");
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  unlink(path.c_str());
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return SystemError("cannot listen on " + path);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0 ||
      listen(fd, static_cast<int>(config_.tcp_backlog)) != 0) {
    Status status = SystemError("cannot listen on " + path);
    close(fd);
    return status;
  }
  if (config_.unixsocketperm != 0) chmod(path.c_str(), static_cast<mode_t>(config_.unixsocketperm));
  listeners_.push_back(std::make_unique<Listener>(Listener{{}, fd, true, path, this}));
  return Status::Ok();
}

void Server::StartAccepting(Listener& listener) {
  CHECK_EQ(uv_poll_init(loops_.front()->uv(), &listener.poll, listener.fd), 0);
  listener.poll.data = &listener;
  uv_poll_start(&listener.poll, UV_READABLE, [](uv_poll_t* handle, int, int) {
    Listener& ready = *static_cast<Listener*>(handle->data);
    Loop& loop = *ready.server->loops_.front();
    loop.Enter();
    ready.server->OnConnection(ready);
  });
}

void Server::StopAccepting(std::unique_ptr<Listener> listener) {
  Listener* const closing = listener.release();
  const int fd = closing->fd;
  uv_close(reinterpret_cast<uv_handle_t*>(&closing->poll),
           [](uv_handle_t* handle) { delete static_cast<Listener*>(handle->data); });
  close(fd);  // after uv_close, which takes it out of the poll
}

void Server::ReplaceTcpListeners(std::vector<std::unique_ptr<Listener>> listeners) {
  // The handles belong to loop 0, which is polling at this moment, or is the one that asks.
  auto replacement = std::make_shared<std::vector<std::unique_ptr<Listener>>>(std::move(listeners));
  loops_.front()->Post([this, replacement](Loop&) {
    if (stopping_) return CloseNow(*replacement);
    for (std::unique_ptr<Listener>& listener : listeners_) {
      if (!listener->unix_socket) StopAccepting(std::move(listener));
    }
    std::erase(listeners_, nullptr);
    for (std::unique_ptr<Listener>& listener : *replacement) {
      StartAccepting(*listener);
      LogInfo("listening", {{"address", listener->address}});
      listeners_.push_back(std::move(listener));
    }
  });
}

// --- accepting: loop 0 ---

void Server::OnConnection(Listener& listener) {
  constexpr int kAcceptsPerEvent = 1000;  // as Redis: a flood of connections does not stop the rest
  for (int i = 0; i < kAcceptsPerEvent; ++i) {
    const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      // EINVAL: CONFIG SET bind is about to replace this socket.
      if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINVAL) {
        LogWarn("cannot accept a connection", {{"error", std::strerror(errno)}});
      }
      return;
    }
    Welcome({fd, listener.unix_socket});
  }
}

void Server::Welcome(const LoadingDoor::Socket& client) {
  const int fd = client.fd;
  const auto refuse = [&](std::string_view text) {
    ++rejected_connections_;
    [[maybe_unused]] const ssize_t sent = write(fd, text.data(), text.size());
    close(fd);
  };
  size_t connections = 0;
  Loop* least_loaded = loops_.front().get();
  for (const auto& loop : loops_) {
    connections += loop->connection_count();
    if (loop->connection_count() < least_loaded->connection_count()) least_loaded = loop.get();
  }
  if (connections >= static_cast<size_t>(config_.maxclients)) {
    return refuse("-ERR max number of clients reached\r\n");
  }
  SessionOptions options;
  options.fd = fd;
  options.unix_socket = client.unix_socket;
  options.authenticated = client.authenticated;
  if (client.unix_socket) {
    options.peer_address = options.local_address = config_.unixsocket + ":0";
  } else {
    sockaddr_storage address{};
    socklen_t size = sizeof(address);
    if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
      options.peer_address = AddressText(address);
    }
    size = sizeof(address);
    if (getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
      options.local_address = AddressText(address);
    }
    if (config_.protected_mode && config_.requirepass.empty() &&
        !IsLoopback(options.peer_address)) {
      return refuse(kProtectedModeError);
    }
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (const int idle = static_cast<int>(config_.tcp_keepalive_seconds); idle > 0) {
      // Three probes within the second third of the interval, as Redis sets it.
      const int interval = std::max(1, idle / 3);
      const int probes = 3;
      setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
      setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
      setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
      setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
    }
  }
  least_loaded->ExpectConnection();
  if (least_loaded->index() == 0) {
    least_loaded->Adopt(fd, std::move(options));
  } else {
    least_loaded->Post([fd, options = std::move(options)](Loop& loop) { loop.Adopt(fd, options); });
  }
}

bool Server::OverOutputLimit(Session& session, const OutputBufferLimit& limit) {
  const auto bytes = static_cast<int64_t>(session.output_bytes());
  bool over = limit.hard_bytes > 0 && bytes >= limit.hard_bytes;
  // Errors that nobody reads must not be a way to fill the memory of a server with a password.
  over = over || (!session.client().authenticated && bytes > kUnauthenticatedOutputBytesMax);
  if (limit.soft_bytes > 0 && bytes >= limit.soft_bytes) {
    const int64_t now_ms = RealClock().WallMs();
    if (session.over_soft_limit_since_ms == 0) session.over_soft_limit_since_ms = now_ms;
    over = over || now_ms - session.over_soft_limit_since_ms > limit.soft_seconds * 1000;
  } else {
    session.over_soft_limit_since_ms = 0;
  }
  if (over) {
    ++session.loop().stats().output_limit_closed;
    LogWarn("closing client that reached the output buffer limit",
            {{"client", std::to_string(session.client().id)}, {"bytes", std::to_string(bytes)}});
  }
  return over;
}

}  // namespace crab

#include "src/server/loading_door.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "src/commands/args.h"
#include "utils/check.h"
#include "utils/thread.h"

namespace crab {

namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr char kLoading[] = "-LOADING Redis is loading the dataset in memory\r\n";
// What clients look at that ask before they begin: they come again in so many seconds.
constexpr char kInfo[] =
    "# Persistence\r\nloading:1\r\nasync_loading:0\r\nloading_eta_seconds:1\r\n";

bool Send(int fd, std::string_view bytes) {
  // A client that reads so little that this does not fit has no use for the rest.
  return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(bytes.size());
}

}  // namespace

LoadingDoor::LoadingDoor(const Config& config, std::vector<Socket> listeners)
    : listeners_(std::move(listeners)),
      visitors_max_(static_cast<size_t>(config.maxclients)),
      input_bytes_max_(static_cast<size_t>(config.client_query_buffer_limit)),
      has_password_(!config.requirepass.empty()) {
  limits_.bulk_bytes_max = config.proto_max_bulk_len;
  limits_.unauthenticated = has_password_;
  CHECK_EQ(pipe2(closing_, O_CLOEXEC), 0);
  thread_ = std::thread([this] { Work(); });
}

LoadingDoor::~LoadingDoor() {
  for (const Socket& socket : Close()) close(socket.fd);
  for (int fd : closing_) close(fd);
}

std::vector<LoadingDoor::Socket> LoadingDoor::Close() {
  if (thread_.joinable()) {
    CHECK_EQ(write(closing_[1], "", 1), 1);
    thread_.join();
  }
  std::vector<Socket> between;
  for (Visitor& visitor : visitors_) {
    if (visitor.input.empty()) {
      between.push_back(visitor.socket);
    } else {
      close(visitor.socket.fd);
    }
  }
  visitors_.clear();
  return between;
}

void LoadingDoor::Work() {
  SetThreadName("loading-door");
  std::vector<pollfd> polled;
  while (true) {
    polled.assign(1, {closing_[0], POLLIN, 0});
    for (const Socket& listener : listeners_) polled.push_back({listener.fd, POLLIN, 0});
    for (const Visitor& visitor : visitors_) polled.push_back({visitor.socket.fd, POLLIN, 0});
    if (poll(polled.data(), polled.size(), -1) < 0) {
      CHECK_EQ(errno, EINTR);
      continue;
    }
    if (polled.front().revents != 0) return;
    auto visitor = visitors_.begin();
    for (size_t i = 1 + listeners_.size(); i < polled.size(); ++i) {
      if (polled[i].revents != 0 && !Serve(*visitor)) {
        close(visitor->socket.fd);
        visitor = visitors_.erase(visitor);
      } else {
        ++visitor;
      }
    }
    for (size_t i = 0; i < listeners_.size(); ++i) {
      if (polled[1 + i].revents != 0) Accept(listeners_[i]);
    }
  }
}

void LoadingDoor::Accept(const Socket& listener) {
  const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    // Out of descriptors the connection stays in the backlog: not to be asked for in a circle.
    if (errno == EMFILE || errno == ENFILE) usleep(10'000);
    return;
  }
  if (visitors_.size() >= visitors_max_) {
    (void)Send(fd, "-ERR max number of clients reached\r\n");
    close(fd);
    return;
  }
  visitors_.emplace_back().socket = {fd, listener.unix_socket};
}

bool LoadingDoor::Serve(Visitor& visitor) {
  char bytes[kReadBytes];
  const ssize_t got = read(visitor.socket.fd, bytes, sizeof(bytes));
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  visitor.input.append(bytes, static_cast<size_t>(got));
  std::vector<std::string_view> argv;
  std::string answers;
  size_t done = 0;
  bool failed = false;
  while (done < visitor.input.size() && !failed) {
    size_t consumed = 0;
    const auto verdict =
        visitor.parser.Next(std::string_view(visitor.input).substr(done), limits_, argv, &consumed);
    if (verdict == resp::Parser::Verdict::kIncomplete) break;
    failed = verdict == resp::Parser::Verdict::kError;
    if (failed) {
      answers += "-ERR " + visitor.parser.error() + "\r\n";
    } else if (!argv.empty()) {
      answers += Answer(argv.front());
    }
    done += consumed;
  }
  visitor.input.erase(0, done);
  if (!answers.empty() && !Send(visitor.socket.fd, answers)) return false;
  return !failed && visitor.input.size() <= input_bytes_max_;
}

std::string LoadingDoor::Answer(std::string_view command) const {
  if (has_password_ || !EqualsIgnoreCase(command, "info")) return kLoading;
  const std::string_view info = kInfo;
  return "$" + std::to_string(info.size()) + "\r\n" + std::string(info) + "\r\n";
}

}  // namespace crab

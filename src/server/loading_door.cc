#include "src/server/loading_door.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "src/server/client_commands.h"
#include "utils/check.h"
#include "utils/clock.h"
#include "utils/thread.h"

namespace crab {

namespace {

constexpr size_t kReadBytes = 16 * 1024;
constexpr char kLoadingError[] = "-LOADING Redis is loading the dataset in memory\r\n";

bool Send(int fd, std::string_view bytes) {
  // A client that reads so little that this does not fit has no use for the rest.
  return send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) ==
         static_cast<ssize_t>(bytes.size());
}

}  // namespace

LoadingDoor::LoadingDoor(const Config& config, std::vector<Socket> listeners,
                         std::function<LoadProgress()> progress)
    : listeners_(std::move(listeners)),
      visitors_max_(static_cast<size_t>(config.maxclients)),
      input_bytes_max_(static_cast<size_t>(config.client_query_buffer_limit)),
      password_(config.requirepass),
      progress_(std::move(progress)),
      start_ms_(RealClock().WallMs()) {
  limits_.bulk_bytes_max = config.proto_max_bulk_len;
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
  visitors_.emplace_back().socket = {fd, listener.unix_socket, password_.empty()};
}

bool LoadingDoor::Serve(Visitor& visitor) {
  char bytes[kReadBytes];
  const ssize_t got = read(visitor.socket.fd, bytes, sizeof(bytes));
  if (got < 0) return errno == EAGAIN || errno == EINTR;
  if (got == 0) return false;
  visitor.input.append(bytes, static_cast<size_t>(got));
  std::vector<std::string_view> argv;
  std::string answers;
  resp::Limits limits = limits_;
  size_t done = 0;
  bool failed = false;
  while (done < visitor.input.size() && !failed) {
    limits.unauthenticated = !visitor.socket.authenticated;
    size_t consumed = 0;
    const auto verdict =
        visitor.parser.Next(std::string_view(visitor.input).substr(done), limits, argv, &consumed);
    if (verdict == resp::Parser::Verdict::kIncomplete) break;
    failed = verdict == resp::Parser::Verdict::kError;
    if (failed) {
      answers += "-ERR " + visitor.parser.error() + "\r\n";
    } else if (!argv.empty()) {
      answers += Answer(visitor, Args(argv));
    }
    done += consumed;
  }
  visitor.input.erase(0, done);
  if (!answers.empty() && !Send(visitor.socket.fd, answers)) return false;
  return !failed && visitor.input.size() <= input_bytes_max_;
}

std::string LoadingDoor::Answer(Visitor& visitor, const Args& args) const {
  if (args.Is(0, "auth")) return Authenticate(visitor, args);
  // Its client is not wrong, and would not come again after an error about passwords.
  if (args.Is(0, "hello")) return kLoadingError;
  if (!visitor.socket.authenticated) return "-NOAUTH Authentication required.\r\n";
  return args.Is(0, "info") ? Info() : kLoadingError;
}

std::string LoadingDoor::Authenticate(Visitor& visitor, const Args& args) const {
  if (args.size() < 2) return "-ERR wrong number of arguments for 'auth' command\r\n";
  Result<Credentials> given = AuthArguments(password_, args);
  const Status status = given.ok() ? CheckPassword(password_, *given) : given.TakeStatus();
  if (!status.ok()) return "-" + std::string(status.message()) + "\r\n";
  visitor.socket.authenticated = true;
  return "+OK\r\n";
}

// The part of INFO persistence that clients look at who ask before they begin: they come again in
// `loading_eta_seconds`, which is therefore never 0.
std::string LoadingDoor::Info() const {
  const LoadProgress progress = progress_();
  const double percent = progress.bytes_total == 0
                             ? 0
                             : 100.0 * static_cast<double>(progress.bytes_done) /
                                   static_cast<double>(progress.bytes_total);
  char percent_text[32];
  std::snprintf(percent_text, sizeof(percent_text), "%.2f", percent);
  std::string info = "# Persistence\r\n";
  const auto field = [&](const char* name, const std::string& value) {
    info.append(name).append(":").append(value).append("\r\n");
  };
  field("loading", "1");
  field("async_loading", "0");
  field("loading_start_time", std::to_string(start_ms_ / 1000));
  field("loading_total_bytes", std::to_string(progress.bytes_total));
  field("loading_rdb_used_mem", "0");
  field("loading_loaded_bytes", std::to_string(progress.bytes_done));
  field("loading_loaded_perc", percent_text);
  field("loading_eta_seconds",
        std::to_string(std::max<int64_t>(1, (progress.remaining_ms() + 999) / 1000)));
  return "$" + std::to_string(info.size()) + "\r\n" + info + "\r\n";
}

}  // namespace crab

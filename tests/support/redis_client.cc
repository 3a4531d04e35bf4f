#include "tests/support/redis_client.h"

#include <arpa/inet.h>
#include <hiredis/hiredis.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <sstream>
#include <utility>

namespace crab::test {

namespace {

int ConnectSocket(const Endpoint& endpoint) {
  if (!endpoint.unix_path.empty()) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, endpoint.unix_path.c_str(), sizeof(address.sun_path) - 1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
    close(fd);
    return -1;
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  inet_pton(AF_INET, endpoint.host.c_str(), &address.sin_addr);
  address.sin_port = htons(static_cast<uint16_t>(endpoint.port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) return fd;
  close(fd);
  return -1;
}

template <typename Words>
std::string RequestOf(const Words& words) {
  std::string request = "*" + std::to_string(words.size()) + "\r\n";
  for (const auto& word : words) {
    request += "$" + std::to_string(word.size()) + "\r\n";
    request.append(word).append("\r\n");
  }
  return request;
}

template <typename Words>
void AppendCommand(redisContext* context, const Words& words) {
  std::vector<const char*> argv;
  std::vector<size_t> sizes;
  for (const auto& word : words) {
    argv.push_back(word.data());
    sizes.push_back(word.size());
  }
  redisAppendCommandArgv(context, static_cast<int>(argv.size()), argv.data(), sizes.data());
}

}  // namespace

std::string Request(std::initializer_list<std::string_view> words) { return RequestOf(words); }
std::string Request(std::span<const std::string> words) { return RequestOf(words); }

RedisClient::RedisClient(const Endpoint& endpoint)
    : context_(endpoint.unix_path.empty() ? redisConnect(endpoint.host.c_str(), endpoint.port)
                                          : redisConnectUnix(endpoint.unix_path.c_str())) {
  if (connected()) {
    const timeval patience{kPatienceMs / 1000, 0};
    redisSetTimeout(context_, patience);
  }
}

RedisClient::~RedisClient() {
  if (context_ != nullptr) redisFree(context_);
}

bool RedisClient::connected() const { return context_ != nullptr && context_->err == 0; }

std::string RedisClient::Run(std::span<const std::string> words) {
  if (!connected()) return "(closed)";
  AppendCommand(context_, words);
  return Read();
}

std::string RedisClient::Run(std::initializer_list<std::string_view> words) {
  if (!connected()) return "(closed)";
  AppendCommand(context_, words);
  return Read();
}

std::string RedisClient::Run(std::string_view line) {
  std::istringstream stream{std::string(line)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return Run(words);
}

void RedisClient::Queue(std::initializer_list<std::string_view> words) {
  if (connected()) AppendCommand(context_, words);
}

std::string RedisClient::Read() {
  if (!connected()) return "(closed)";
  void* raw = nullptr;
  if (redisGetReply(context_, &raw) != REDIS_OK) return Failure();
  auto* reply = static_cast<redisReply*>(raw);
  std::string text = Text(reply);
  freeReplyObject(reply);
  return text;
}

bool RedisClient::Send() {
  int done = 0;
  while (connected() && done == 0) {
    if (redisBufferWrite(context_, &done) != REDIS_OK) return false;
  }
  return connected();
}

std::string RedisClient::Failure() {
  const bool timed_out = context_->err == REDIS_ERR_IO && (errno == EAGAIN || errno == ETIMEDOUT);
  return timed_out ? "(timeout)" : "(closed)";
}

std::string RedisClient::Text(const redisReply* reply) const {
  switch (reply->type) {
    case REDIS_REPLY_STATUS:
      return "+" + std::string(reply->str, reply->len);
    case REDIS_REPLY_ERROR:
      return "-" + std::string(reply->str, reply->len);
    case REDIS_REPLY_INTEGER:
      return ":" + std::to_string(reply->integer);
    case REDIS_REPLY_STRING:
      return "$" + std::string(reply->str, reply->len);
    case REDIS_REPLY_NIL:
      return "(nil)";
    case REDIS_REPLY_ARRAY: {
      std::string text = "[";
      for (size_t i = 0; i < reply->elements; ++i) {
        text += (i > 0 ? ", " : "") + Text(reply->element[i]);
      }
      return text + "]";
    }
    default:
      return "(reply of type " + std::to_string(reply->type) + ")";
  }
}

RawSocket::RawSocket(const Endpoint& endpoint) : fd_(ConnectSocket(endpoint)) {
  if (fd_ < 0) return;
  const timeval patience{kPatienceMs / 1000, 0};
  setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

RawSocket::~RawSocket() { Close(); }

void RawSocket::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

bool RawSocket::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

int64_t RawSocket::SendSome(std::string_view bytes) {
  const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent >= 0) return sent;
  return errno == EAGAIN ? 0 : -1;
}

bool RawSocket::ReadSome() {
  char buffer[64 * 1024];
  const ssize_t count = recv(fd_, buffer, sizeof(buffer), 0);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) timed_out_ = true;
  if (count <= 0) return false;
  bytes_.append(buffer, static_cast<size_t>(count));
  return true;
}

std::string RawSocket::ReadLine() {
  size_t end;
  while ((end = bytes_.find("\r\n")) == std::string::npos) {
    if (!ReadSome()) return std::exchange(bytes_, {}) + (timed_out_ ? "(timeout)" : "(closed)");
  }
  std::string line = bytes_.substr(0, end + 2);
  bytes_.erase(0, end + 2);
  return line;
}

std::string RawSocket::ReadExactly(size_t bytes) {
  while (bytes_.size() < bytes) {
    if (!ReadSome()) return std::exchange(bytes_, {}) + (timed_out_ ? "(timeout)" : "(closed)");
  }
  std::string read = bytes_.substr(0, bytes);
  bytes_.erase(0, bytes);
  return read;
}

std::string RawSocket::ReadToEnd() {
  while (ReadSome()) {
  }
  return std::exchange(bytes_, {}) + (timed_out_ ? "(timeout)" : "");
}

bool RawSocket::Readable(int wait_ms) const {
  pollfd poll_fd{fd_, POLLIN, 0};
  return !bytes_.empty() || poll(&poll_fd, 1, wait_ms) > 0;
}

}  // namespace crab::test

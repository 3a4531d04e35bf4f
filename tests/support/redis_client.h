// Clients for the tests of a running server. RedisClient speaks through hiredis, as most programs
// do; RawSocket sends and reads bytes, for what a well-behaved client never sends. Each belongs to
// one thread. Nothing here waits longer than kPatienceMs: then a read says that it timed out.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct redisContext;
struct redisReply;

namespace crab::test {

// Long enough for a loaded machine under a sanitizer; a test that reaches it has failed.
constexpr int kPatienceMs = 120'000;

// Where a server listens: a TCP port of this host, or a unix socket.
struct Endpoint {
  std::string unix_path;  // "" = TCP
  int port = 0;
  std::string host = "127.0.0.1";
};

class RedisClient {
 public:
  explicit RedisClient(const Endpoint& endpoint);
  ~RedisClient();
  RedisClient(RedisClient&& other) noexcept : context_(other.context_) { other.context_ = nullptr; }
  RedisClient& operator=(RedisClient&&) = delete;

  // Sends one command and returns its reply as text: "+OK", "-ERR ...", ":5", "$bytes", "(nil)",
  // "[:1, $a]", and "(closed)" or "(timeout)" where none came.
  std::string Run(std::span<const std::string> words);
  std::string Run(std::initializer_list<std::string_view> words);
  // The words of a line, cut at spaces.
  std::string Run(std::string_view line);

  // A pipeline: Queue any number of commands, then read as many replies; the first Read sends them.
  void Queue(std::initializer_list<std::string_view> words);
  std::string Read();
  // Sends what is queued where no reply is awaited. False when the peer has closed.
  bool Send();

  bool connected() const;

 private:
  std::string Text(const redisReply* reply) const;
  std::string Failure();

  redisContext* context_;
};

class RawSocket {
 public:
  explicit RawSocket(const Endpoint& endpoint);
  ~RawSocket();
  RawSocket(RawSocket&& other) noexcept : fd_(other.fd_), bytes_(std::move(other.bytes_)) {
    other.fd_ = -1;
  }
  RawSocket& operator=(RawSocket&&) = delete;

  bool connected() const { return fd_ >= 0; }
  int fd() const { return fd_; }
  // False when the peer has closed.
  bool Send(std::string_view bytes);
  // Sends what the kernel takes without waiting; the number of bytes, or -1 when the peer closed.
  int64_t SendSome(std::string_view bytes);
  // Up to and with the next CR LF; what there is when the peer closes or patience ends.
  std::string ReadLine();
  std::string ReadExactly(size_t bytes);
  // All until the peer closes; ends with "(timeout)" if it does not.
  std::string ReadToEnd();
  // Whether something can be read (or the peer has closed) within `wait_ms`.
  bool Readable(int wait_ms) const;
  void Close();

 private:
  // One read into bytes_; false at the end.
  bool ReadSome();

  int fd_ = -1;
  std::string bytes_;  // read and not yet returned
  bool timed_out_ = false;
};

// *N $len word ...: a request as clients send it.
std::string Request(std::initializer_list<std::string_view> words);
std::string Request(std::span<const std::string> words);

}  // namespace crab::test

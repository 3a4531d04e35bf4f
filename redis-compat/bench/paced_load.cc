// A load of a fixed rate, for latencies: redis-benchmark always goes as fast as it can, and what
// then waits for a slow reply is not sent at all. Here each request has its moment, and its latency
// counts from that moment, so that a pause of the server is seen by everyone it keeps waiting.
//
//   paced_load PORT RATE SECONDS CONNECTIONS KEYS VALUE_BYTES WRITE_PERCENT FIRST_KEY
//
// RATE 0: as fast as it goes. Prints requests per second and the percentiles 50, 99, 99.9 and 100
// of the latency in microseconds.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <string_view>
#include <vector>

#include "utils/random.h"

namespace {

using Clock = std::chrono::steady_clock;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch())
      .count();
}

struct Connection {
  int fd = -1;
  std::deque<int64_t> due_ns;  // of the requests under way
  std::string received, unsent;
};

// The bytes of the reply at the front, 0 when it is not whole: a status, a number or a bulk.
size_t ReplyBytes(std::string_view bytes) {
  const size_t line = bytes.find("\r\n");
  if (line == bytes.npos) return 0;
  if (bytes[0] == '-') {
    std::fprintf(stderr, "the server answers %.*s\n", static_cast<int>(line), bytes.data());
    std::exit(1);
  }
  if (bytes[0] != '$' || bytes[1] == '-') return line + 2;
  const size_t whole = line + 2 + std::strtoull(bytes.data() + 1, nullptr, 10) + 2;
  return bytes.size() < whole ? 0 : whole;
}

void Flush(Connection& connection) {
  while (!connection.unsent.empty()) {
    const ssize_t sent =
        send(connection.fd, connection.unsent.data(), connection.unsent.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return;
    if (sent < 0) std::exit(1);
    connection.unsent.erase(0, static_cast<size_t>(sent));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 9) {
    std::fprintf(stderr,
                 "usage: paced_load PORT RATE SECONDS CONNECTIONS KEYS VALUE_BYTES WRITE_PERCENT "
                 "FIRST_KEY\n");
    return 2;
  }
  const auto number = [&](int i) { return std::strtoull(argv[i], nullptr, 10); };
  const uint64_t rate = number(2), keys = number(5), write_percent = number(7), first = number(8);
  const double seconds = std::atof(argv[3]);
  const std::string value(number(6), 'v');
  std::vector<Connection> connections(number(4));
  const int poll_fd = epoll_create1(EPOLL_CLOEXEC);
  for (size_t i = 0; i < connections.size(); ++i) {
    Connection& connection = connections[i];
    connection.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(number(1)));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(connection.fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
      std::perror("connect");
      return 1;
    }
    const int on = 1;
    setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    fcntl(connection.fd, F_SETFL, O_NONBLOCK);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = i;
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, connection.fd, &event);
  }

  crab::Random random(1);
  std::vector<uint32_t> latencies_us;
  const auto issue = [&](Connection& connection, int64_t due_ns) {
    char key[32];
    std::snprintf(key, sizeof(key), "key:%012llu",
                  static_cast<unsigned long long>(first + random.Below(keys)));
    if (random.Below(100) < write_percent) {
      connection.unsent += "*3\r\n$3\r\nSET\r\n$16\r\n" + std::string(key) + "\r\n$" +
                           std::to_string(value.size()) + "\r\n" + value + "\r\n";
    } else {
      connection.unsent += "*2\r\n$3\r\nGET\r\n$16\r\n" + std::string(key) + "\r\n";
    }
    connection.due_ns.push_back(due_ns);
    Flush(connection);
  };
  const int64_t begin_ns = NowNs();
  const int64_t end_ns = begin_ns + static_cast<int64_t>(seconds * 1e9);
  int64_t next_ns = begin_ns;
  size_t turn = 0, under_way = 0;
  if (rate == 0) {
    for (Connection& connection : connections) issue(connection, NowNs());
    under_way = connections.size();
  }
  char buffer[64 * 1024];
  constexpr int64_t kPatienceNs = 30'000'000'000;  // for the last replies
  for (int64_t now_ns = begin_ns; now_ns < end_ns || under_way > 0; now_ns = NowNs()) {
    if (now_ns > end_ns + kPatienceNs) {
      std::fprintf(stderr, "%zu replies did not come\n", under_way);
      return 1;
    }
    for (; rate != 0 && next_ns <= now_ns && next_ns < end_ns; ++under_way) {
      issue(connections[turn++ % connections.size()], next_ns);
      next_ns += static_cast<int64_t>(1'000'000'000 / rate);
    }
    epoll_event events[64];
    // Milliseconds are too coarse for a rate; asking again and again is what a core of its own is
    // for.
    const int ready = epoll_wait(poll_fd, events, 64, rate == 0 ? 10 : 0);
    for (int i = 0; i < ready; ++i) {
      Connection& connection = connections[events[i].data.u64];
      const ssize_t got = recv(connection.fd, buffer, sizeof(buffer), 0);
      if (got <= 0) {
        if (got < 0 && errno == EAGAIN) continue;
        std::fprintf(stderr, "the server closed a connection\n");
        return 1;
      }
      connection.received.append(buffer, static_cast<size_t>(got));
      const int64_t at_ns = NowNs();
      std::string_view rest = connection.received;
      while (!rest.empty()) {
        const size_t bytes = ReplyBytes(rest);
        if (bytes == 0) break;
        rest.remove_prefix(bytes);
        latencies_us.push_back(static_cast<uint32_t>((at_ns - connection.due_ns.front()) / 1000));
        connection.due_ns.pop_front();
        --under_way;
        if (rate == 0 && at_ns < end_ns) {
          issue(connection, at_ns);
          ++under_way;
        }
      }
      connection.received.erase(0, connection.received.size() - rest.size());
    }
    for (Connection& connection : connections) {
      if (!connection.unsent.empty()) Flush(connection);
    }
  }
  if (latencies_us.empty()) return 1;
  std::sort(latencies_us.begin(), latencies_us.end());
  const auto percentile = [&](double part) {
    const auto at = static_cast<size_t>(part * static_cast<double>(latencies_us.size() - 1));
    return latencies_us[at];
  };
  std::printf("%.0f %u %u %u %u\n", static_cast<double>(latencies_us.size()) / seconds,
              percentile(0.5), percentile(0.99), percentile(0.999), percentile(1.0));
  return 0;
}

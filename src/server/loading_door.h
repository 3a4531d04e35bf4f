// LoadingDoor: answers clients while nothing can be served yet, because all of the log is judged
// and replayed first: as Redis, it says -LOADING to every command, and INFO says loading:1. So
// clients wait and try again, as they do with Redis, instead of hanging in the listen backlog.
// A thread of its own from the constructor to Close; everything else belongs to the caller. What a
// client sends is bounded as ever, and dropped.
#pragma once

#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "resp/parser.h"
#include "src/config.h"

namespace crab {

class LoadingDoor {
 public:
  struct Socket {
    int fd;
    bool unix_socket;
  };

  // `listeners` do not block, and stay the caller's.
  LoadingDoor(const Config& config, std::vector<Socket> listeners);
  ~LoadingDoor();  // closes everybody's connection

  // No more answers. The connections, the caller's from here on: each between two requests, those
  // in the middle of one are closed.
  std::vector<Socket> Close();

 private:
  struct Visitor {
    Socket socket;
    resp::Parser parser;
    std::string input;
  };

  void Work();
  void Accept(const Socket& listener);
  bool Serve(Visitor& visitor);  // false: the connection has ended
  std::string Answer(std::string_view command) const;

  const std::vector<Socket> listeners_;
  const size_t visitors_max_;
  const size_t input_bytes_max_;
  const bool has_password_;
  resp::Limits limits_;
  int closing_[2] = {-1, -1};  // a pipe: written to when the thread is to end
  std::list<Visitor> visitors_;
  std::thread thread_;
};

}  // namespace crab

// LoadingDoor: answers clients while nothing can be served yet, because all of the log is judged
// and replayed first. As Redis, it says -LOADING to commands, and INFO says loading:1 and how far
// it is; with a password AUTH goes before. So clients wait and try again, as they do with Redis,
// instead of hanging in the listen backlog.
// A thread of its own from the constructor to Close; everything else belongs to the caller. What a
// client sends is bounded as ever, and dropped.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "resp/parser.h"
#include "src/commands/args.h"
#include "src/config.h"
#include "src/server/loader.h"

namespace crab {

class LoadingDoor {
 public:
  struct Socket {
    int fd;
    bool unix_socket;
    bool authenticated = false;  // a visitor who has told the password
  };

  // `listeners` do not block, and stay the caller's. `progress` is called on the door's thread.
  LoadingDoor(const Config& config, std::vector<Socket> listeners,
              std::function<LoadProgress()> progress);
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
  std::string Answer(Visitor& visitor, const Args& args) const;
  std::string Authenticate(Visitor& visitor, const Args& args) const;
  std::string Info() const;

  const std::vector<Socket> listeners_;
  const size_t visitors_max_;
  const size_t input_bytes_max_;
  const std::string password_;  // "" = none
  const std::function<LoadProgress()> progress_;
  const int64_t start_ms_;  // wall clock
  resp::Limits limits_;
  int closing_[2] = {-1, -1};  // a pipe: written to when the thread is to end
  std::list<Visitor> visitors_;
  std::thread thread_;
};

}  // namespace crab

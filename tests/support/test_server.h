// A server in this process, for tests: started on a unix socket (and a free TCP port where a test
// asks) in a directory of its own, running on threads of its own until it is stopped. Two can run
// at once. Only the tests of src/server link what it needs, so it is all in this header.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/config.h"
#include "src/server/server.h"
#include "tests/support/eventually.h"
#include "tests/support/redis_client.h"
#include "utils/log.h"

namespace crab::test {

// A directory that goes with its owner. In /tmp: a unix socket's path is short.
class ScopedDirectory {
 public:
  ScopedDirectory() {
    char path[] = "/tmp/crab-test-XXXXXX";
    if (mkdtemp(path) == nullptr) std::abort();
    path_ = path;
  }
  ~ScopedDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScopedDirectory(const ScopedDirectory&) = delete;
  ScopedDirectory& operator=(const ScopedDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A TCP port that nobody listened on a moment ago; whoever binds it may have to try again.
inline int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  const bool bound = bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0 &&
                     getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(fd);
  return bound ? ntohs(address.sin_port) : 0;
}

using Arguments = std::vector<std::string>;

// The Config of a command line, without file and environment.
inline Result<Config> ConfigOf(const Arguments& arguments) {
  std::vector<const char*> argv{"crabcache-server"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  const char* const environment[] = {nullptr};
  std::istringstream no_input;
  auto launch = LoadConfig(static_cast<int>(argv.size()), argv.data(), environment, no_input);
  if (!launch.ok()) return launch.TakeStatus();
  return std::move(launch->config);
}

class TestServer {
 public:
  struct Options {
    int threads = 2;
    Arguments arguments = {};        // as on the command line
    std::string log_directory = {};  // "" = without the log
    wal::Disk* disk = nullptr;       // of the log: null = the machine's; another has no shared ring
    bool tcp = false;                // listens on a free port as well
    Loader::Hook loader_hook = {};   // called before each unit of the log that a worker replays
  };

  TestServer() : TestServer(Options{}) {}
  explicit TestServer(Options options) {
    SetLogLevel(LogLevel::kNothing);
    // Somebody else may take the port between its choice and the bind.
    for (int attempt = 0; attempt < 20; ++attempt) {
      auto server = Start(options);
      if (server.ok()) {
        server_ = std::move(*server);
        break;
      }
      if (server.system_errno() != EADDRINUSE) {
        std::fprintf(stderr, "the server did not start: %s\n",
                     std::string(server.message()).c_str());
        std::abort();
      }
    }
    if (server_ == nullptr) std::abort();
    thread_ = std::thread([this] { end_ = server_->Run(); });
  }
  ~TestServer() { (void)Stop(); }

  // Ends the server as SIGTERM does and waits for it; what Server::Run returned.
  Status Stop() {
    if (server_ == nullptr) return Status::Ok();
    server_->RequestStop();
    return Wait();
  }
  // Waits until somebody else has stopped it.
  Status Wait() {
    if (thread_.joinable()) thread_.join();
    server_.reset();
    return std::move(end_);
  }

  Server& server() { return *server_; }
  Endpoint unix_endpoint() const { return {directory_.path() + "/socket"}; }
  Endpoint tcp_endpoint() const { return {"", port_}; }
  const std::string& directory() const { return directory_.path(); }

 private:
  Result<std::unique_ptr<Server>> Start(const Options& options) {
    port_ = options.tcp ? FreePort() : 0;
    Arguments arguments{"--port",       std::to_string(port_),
                        "--unixsocket", unix_endpoint().unix_path,
                        "--threads",    std::to_string(options.threads)};
    wal::Disk& disk = options.disk == nullptr ? wal::RealDisk() : *options.disk;
    if (!options.log_directory.empty()) {
      const std::string ring_directory =
          options.disk == nullptr ? options.log_directory + "-ring" : "";
      for (const auto& [name, value] : {std::pair<const char*, std::string>{"--wal-enabled", "yes"},
                                        {"--wal-dir", options.log_directory},
                                        {"--wal-ring-dir", ring_directory},
                                        {"--wal-ring-size", "1mb"},
                                        {"--wal-max-segment-size", "1mb"}}) {
        arguments.insert(arguments.end(), {name, value});
      }
      if (!ring_directory.empty()) std::filesystem::create_directories(ring_directory);
    }
    arguments.insert(arguments.end(), options.arguments.begin(), options.arguments.end());
    return Server::Start(TRY(ConfigOf(arguments)), disk, options.loader_hook);
  }

  ScopedDirectory directory_;
  int port_ = 0;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  Status end_;
};

}  // namespace crab::test

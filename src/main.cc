// crabcache-server: reads the configuration, builds the server, serves, and says how it ended.

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <string_view>

#include "src/config.h"
#include "src/server/config_words.h"
#include "src/server/server.h"
#include "utils/log.h"

// What jemalloc reads before main: the heap may have huge pages. Whether it gets them is said by
// UseHugePages (src/server/memory.h).
extern "C" const char* malloc_conf;
const char* malloc_conf = "thp:always";

namespace {

int Fail(std::string_view message) {
  std::cerr << "crabcache-server: " << message << "\n";
  return 1;
}

// A first command to try, for somebody who has just started it.
std::string FirstCommand(const crab::Config& config) {
  const std::string where =
      config.port != 0 ? "-p " + std::to_string(config.port) : "-s " + config.unixsocket;
  return "redis-cli " + where + " set hello world";
}

}  // namespace

int main(int argc, char** argv) {
  auto launch = crab::LoadConfig(argc, argv, environ, std::cin);
  if (!launch.ok()) return Fail(launch.message());
  if (!launch->serve) {
    std::cout << launch->text;
    return 0;
  }
  crab::Config config = std::move(launch->config);
  if (!config.dir.empty() && chdir(config.dir.c_str()) != 0) {
    return Fail("cannot change into the directory of option dir: " + config.dir);
  }
  if (const crab::Status status = crab::SetLogFile(config.logfile); !status.ok()) {
    return Fail(status.message());
  }
  crab::SetLogLevel(crab::LogLevelOf(config.loglevel));
  if (config.daemonize && daemon(/*nochdir=*/1, /*noclose=*/0) != 0) {
    return Fail("cannot go into the background");
  }
  for (const std::string& warning : launch->warnings) crab::LogWarn(warning);

  const bool logs_to_file = !config.logfile.empty();
  // CONFIG SET dir does not move it.
  const std::string pidfile =
      config.pidfile.empty() ? "" : std::filesystem::absolute(config.pidfile).string();
  const auto fail = [&](std::string_view message) {
    if (logs_to_file) crab::LogError(std::string(message));  // on a terminal once is enough
    return Fail(message);
  };
  auto server = crab::Server::Start(std::move(config));
  if (!server.ok()) return fail(server.message());
  // Only now: the file may be that of a running server, whose port this one could not have.
  if (!pidfile.empty()) std::ofstream(pidfile) << getpid() << "\n";
  if (!(*server)->config().enable_wal) {
    crab::LogInfo("the write-ahead log is off: nothing outlives this process; --wal-enabled yes");
  }
  crab::LogInfo("ready to accept connections; try: " + FirstCommand((*server)->config()));
  const crab::Status status = (*server)->Run();
#ifndef __SANITIZE_ADDRESS__  // its search for leaks does not know the tagged pointers of tables
  (*server)->LeaveKeyspace();
#endif
  if (!pidfile.empty()) unlink(pidfile.c_str());
  if (!status.ok()) return fail(status.message());
  crab::LogInfo((*server)->config().enable_wal ? "stopped, the log is on disk"
                                               : "stopped without a log, nothing was kept");
  return 0;
}

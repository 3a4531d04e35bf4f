// crabcache-server: reads the configuration, builds the server, serves, and says how it ended.

#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>

#include "src/config.h"
#include "src/server/recovery.h"
#include "src/server/server.h"
#include "utils/log.h"

namespace {

int Fail(std::string_view message) {
  std::cerr << "crabcache-server: " << message << "\n";
  return 1;
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
  if (!config.pidfile.empty()) std::ofstream(config.pidfile) << getpid() << "\n";
  for (const std::string& warning : launch->warnings) crab::LogWarn(warning);

  auto server = crab::Server::Start(std::move(config));
  if (!server.ok()) {
    crab::LogError(std::string(server.message()));
    return Fail(server.message());
  }
  crab::LogInfo("ready to accept connections; try: redis-cli -p " +
                std::to_string((*server)->config().port) + " set hello world");
  const crab::Status status = (*server)->Run();
  if (!status.ok()) return Fail(status.message());
  crab::LogInfo("stopped, the log is on disk");
  return 0;
}

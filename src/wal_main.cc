// crabcache-wal: see src/wal_tool/wal_tool.h.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <string_view>
#include <vector>

#include "persistence/disk.h"
#include "src/wal_tool/wal_tool.h"

namespace {

std::atomic<bool> interrupted{false};

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  // What is under way ends in order; a second interrupt ends it at once.
  struct sigaction action = {};
  action.sa_handler = [](int) { interrupted.store(true, std::memory_order_relaxed); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  return crab::wal::RunWalTool(crab::wal::RealDisk(), arguments, std::cout, std::cerr,
                               {isatty(STDERR_FILENO) == 1, &interrupted});
}

// crabcache-wal: see src/wal_tool/wal_tool.h.
#include <iostream>
#include <string_view>
#include <vector>

#include "persistence/disk.h"
#include "src/wal_tool/wal_tool.h"

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  return crab::wal::RunWalTool(crab::wal::RealDisk(), arguments, std::cout, std::cerr);
}

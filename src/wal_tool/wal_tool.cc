#include "src/wal_tool/wal_tool.h"

#include <ostream>

#include "src/wal_tool/tool.h"
#include "utils/version.h"

namespace crab::wal {

int RunWalTool(Disk& disk, std::span<const std::string_view> arguments, std::ostream& out,
               std::ostream& errors, const ToolSurroundings& surroundings) {
  for (const std::string_view argument : arguments) {
    if (argument == "--help") {
      const std::string of_verb = WalToolHelp(arguments[0]);
      out << (of_verb.empty() ? WalToolHelp() : of_verb);
      return kToolGood;
    }
    if (argument == "--version") {
      out << "crabcache-wal " << kCrabcacheVersion << "\n";
      return kToolGood;
    }
  }
  Request request;
  Tool tool{disk, request, out, errors, surroundings.interactive, surroundings.stop};
  if (const std::string wrong = ParseArguments(arguments, &request); !wrong.empty()) {
    return tool.Fail(wrong + " (--help tells)");
  }
  if (!request.key_file.empty()) {
    auto keys = KeyRing::Load(request.key_file);
    if (!keys.ok()) return tool.Fail(keys.message());
    tool.keys = std::move(keys).value();
  }
  return request.verb->run(tool);
}

}  // namespace crab::wal

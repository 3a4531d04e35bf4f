// The versions the program states.
#pragma once

#include <string_view>

namespace crab {

// Ours, of `--version` and INFO's crabcache_version.
constexpr std::string_view kCrabcacheVersion = "0.1.0";
// The Redis whose behaviour is offered: clients branch on it (INFO, HELLO).
constexpr std::string_view kRedisVersion = "7.4.0";

}  // namespace crab

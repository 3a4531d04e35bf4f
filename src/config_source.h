// The texts that options come from, for those who write them: CONFIG REWRITE. Implemented beside
// the reader in config.cc. Private to src/config*.cc.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "src/config_rows.h"

namespace crab::config {

bool IsTomlFile(std::string_view path);
// The whole file; the error is for the operator.
Result<std::string> ReadConfigFile(const std::string& path);

// Reads a text over `config`. The error lists everything that is wrong.
Status ReadRedisConfText(const std::string& text, Config* config);
Status ReadTomlText(const std::string& text, Config* config);

// Where the values stand in a TOML text, in bytes from its beginning.
struct TomlLayout {
  struct Value {
    size_t begin = 0;
    size_t end = 0;
    std::string text;  // as CONFIG GET would print it
  };
  std::map<const Row*, Value> values;
  size_t top_end = 0;          // where a new key at the top goes
  size_t wal_header_end = 0;   // behind the line of [wal]; 0 when there is none
  bool wal_is_dotted = false;  // wal.sync_policy = ... among the keys at the top
};
Result<TomlLayout> FindTomlValues(const std::string& text);

}  // namespace crab::config

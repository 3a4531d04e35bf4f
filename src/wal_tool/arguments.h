// The command line of crabcache-wal: one table of verbs and one of options, from which parsing,
// --help and the page docs/crabcache-wal.md follow.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "persistence/log.h"

namespace crab::wal {

struct Tool;

struct Request {
  const struct Verb* verb = nullptr;
  std::string directory;
  std::string target;  // of backup, and of restore --to
  std::string key_file;
  bool json = false, resp = false, follow = false, dry_run = false;
  std::optional<Lsn> from, to;            // LSNs, both included
  std::optional<int64_t> from_ms, to_ms;  // since 1970, both included
  std::optional<Lsn> until_lsn;
  std::optional<int64_t> until_ms;
  uint64_t count = 10;        // tail: records shown before it follows
  uint64_t top = 10;          // stats: rows of a table
  uint64_t prefix_bytes = 0;  // stats: 0 = up to the separator
  std::string separator = ":";
};

struct Verb {
  const char* name;
  const char* words;    // what follows the name
  const char* summary;  // one line
  const char* text;     // the rest of its help
  int (*run)(Tool& tool);
};

std::span<const Verb> Verbs();

// Fills `request`, or returns what is wrong with the arguments.
std::string ParseArguments(std::span<const std::string_view> arguments, Request* request);

}  // namespace crab::wal

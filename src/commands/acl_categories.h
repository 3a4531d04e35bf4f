// ACL categories of a command, derived from its flags and its group as Redis derives them; no row
// states them. Pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "src/commands/command.h"

namespace crab {

// One bit each, in the order in which COMMAND INFO and ACL CAT list them.
enum AclCategories : uint32_t {
  kAclKeyspace = 1u << 0,
  kAclRead = 1u << 1,
  kAclWrite = 1u << 2,
  kAclSet = 1u << 3,
  kAclSortedset = 1u << 4,
  kAclList = 1u << 5,
  kAclHash = 1u << 6,
  kAclString = 1u << 7,
  kAclBitmap = 1u << 8,
  kAclHyperloglog = 1u << 9,
  kAclGeo = 1u << 10,
  kAclStream = 1u << 11,
  kAclPubsub = 1u << 12,
  kAclAdmin = 1u << 13,
  kAclFast = 1u << 14,
  kAclSlow = 1u << 15,
  kAclBlocking = 1u << 16,
  kAclDangerous = 1u << 17,
  kAclConnection = 1u << 18,
  kAclTransaction = 1u << 19,
  kAclScripting = 1u << 20,
};

// Bit i is called kAclCategoryNames[i], without the "@".
inline constexpr std::array<std::string_view, 21> kAclCategoryNames = {
    "keyspace", "read",   "write",       "set",       "sortedset",  "list",        "hash",
    "string",   "bitmap", "hyperloglog", "geo",       "stream",     "pubsub",      "admin",
    "fast",     "slow",   "blocking",    "dangerous", "connection", "transaction", "scripting"};

uint32_t AclCategoriesOf(const Command& command);
// The bit of a name in any case, 0 for none.
uint32_t AclCategoryNamed(std::string_view name);

}  // namespace crab

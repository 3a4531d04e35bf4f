// The errors that several commands answer with, in Redis' exact words.
#pragma once

#include <string>

#include "src/commands/command.h"
#include "utils/status.h"

namespace crab {

constexpr char kSyntaxError[] = "ERR syntax error";
constexpr char kNotAnInteger[] = "ERR value is not an integer or out of range";
constexpr char kNotAFloat[] = "ERR value is not a valid float";
constexpr char kNoSuchKey[] = "ERR no such key";
constexpr char kWrongType[] = "WRONGTYPE Operation against a key holding the wrong kind of value";
constexpr char kTooLargeForRecord[] =
    "ERR this would change more at once than one record of the write-ahead log holds";
constexpr char kStringTooLong[] = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

inline Status WrongArity(const Command& command) {
  return Status::Error("ERR wrong number of arguments for '" + std::string(command.name) +
                       "' command");
}
inline Status InvalidExpireTime(const Command& command) {
  return Status::Error("ERR invalid expire time in '" + std::string(command.name) + "' command");
}

}  // namespace crab

// The grammars of the options that are more than one word or number. Private to src/config*.cc.
#pragma once

#include <span>
#include <string>

#include "src/config_rows.h"

namespace crab::config {

using WordList = std::span<const std::string>;

Status ReadBind(WordList words, Config& config);
std::string PrintBind(const Config& config);
inline constexpr Custom kBind = {.read = ReadBind, .print = PrintBind};

Status ReadOutputBufferLimits(WordList words, Config& config);
std::string PrintOutputBufferLimits(const Config& config);
inline constexpr Custom kOutputBufferLimits = {.read = ReadOutputBufferLimits,
                                               .print = PrintOutputBufferLimits};

Status ReadShards(WordList words, Config& config);
std::string PrintShards(const Config& config);
inline constexpr Custom kShards = {.read = ReadShards, .print = PrintShards};

Status ReadLoadTruncated(WordList words, Config& config);
std::string PrintLoadTruncated(const Config& config);
inline constexpr Custom kLoadTruncated = {.read = ReadLoadTruncated, .print = PrintLoadTruncated};

Status ReadPercentiles(WordList words, Config& config);
std::string PrintPercentiles(const Config& config);
inline constexpr Custom kPercentiles = {.read = ReadPercentiles, .print = PrintPercentiles};

Status ReadNotifyEvents(WordList words, Config& config);
std::string PrintNotifyEvents(const Config& config);
inline constexpr Custom kNotifyEvents = {.read = ReadNotifyEvents, .print = PrintNotifyEvents};

Status ReadSave(WordList words, Config& config);
std::string PrintSave(const Config& config);
inline constexpr Custom kSave = {.read = ReadSave, .print = PrintSave};

Status ReadShutdownOnSigint(WordList words, Config& config);
std::string PrintShutdownOnSigint(const Config& config);
inline constexpr Custom kShutdownOnSigint = {.read = ReadShutdownOnSigint,
                                             .print = PrintShutdownOnSigint};

Status ReadShutdownOnSigterm(WordList words, Config& config);
std::string PrintShutdownOnSigterm(const Config& config);
inline constexpr Custom kShutdownOnSigterm = {.read = ReadShutdownOnSigterm,
                                              .print = PrintShutdownOnSigterm};

Result<std::string> CheckProcTitle(WordList words);
inline constexpr Custom kProcTitle = {.check = CheckProcTitle};

Result<std::string> CheckOomScores(WordList words);
inline constexpr Custom kOomScores = {.check = CheckOomScores};

Result<std::string> CheckReplicaOf(WordList words);
inline constexpr Custom kReplicaOf = {.check = CheckReplicaOf};

Result<std::string> CheckClusterHostname(WordList words);
inline constexpr Custom kClusterHostname = {.check = CheckClusterHostname};

}  // namespace crab::config

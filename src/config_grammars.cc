#include "src/config_grammars.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <limits>

#include "utils/number.h"

namespace crab::config {
namespace {

std::string Joined(WordList words, std::string_view between) {
  std::string text;
  for (const std::string& word : words) {
    if (&word != &words.front()) text += between;
    text += word;
  }
  return text;
}

bool IsOneEmptyWord(WordList words) { return words.size() == 1 && words[0].empty(); }

constexpr Choice kShutdownFlags[] = {
    {"default", 0},        {"save", kShutdownSave},   {"nosave", kShutdownNoSave},
    {"now", kShutdownNow}, {"force", kShutdownForce},
};

Status ReadShutdownFlags(WordList words, uint8_t* flags) {
  uint8_t read = 0;
  for (const std::string& word : words) {
    const auto* found =
        std::find_if(std::begin(kShutdownFlags), std::end(kShutdownFlags),
                     [&](const Choice& choice) { return EqualsIgnoreCase(choice.name, word); });
    if (found == std::end(kShutdownFlags)) {
      return Status::Error(
          "argument(s) must be one of the following: default, save, nosave, now, force");
    }
    read |= static_cast<uint8_t>(found->value);
  }
  if ((read & kShutdownSave) != 0 && (read & kShutdownNoSave) != 0) {
    return Status::Error("shutdown options SAVE and NOSAVE can't be used simultaneously");
  }
  *flags = read;
  return Status::Ok();
}

std::string PrintShutdownFlags(uint8_t flags) {
  if (flags == 0) return "default";
  std::string text;
  for (const Choice& choice : kShutdownFlags) {
    if ((flags & choice.value) == 0) continue;
    if (!text.empty()) text += ' ';
    text += choice.name;
  }
  return text;
}

struct NotifyLetter {
  char letter;
  uint32_t flag;
};
// In the order in which Redis prints them.
constexpr NotifyLetter kNotifyLetters[] = {
    {'g', kNotifyGeneric},  {'$', kNotifyString},  {'l', kNotifyList},    {'s', kNotifySet},
    {'h', kNotifyHash},     {'z', kNotifyZset},    {'x', kNotifyExpired}, {'e', kNotifyEvicted},
    {'t', kNotifyStream},   {'d', kNotifyModule},  {'n', kNotifyNew},     {'K', kNotifyKeyspace},
    {'E', kNotifyKeyevent}, {'m', kNotifyKeyMiss},
};

// As Redis' strtoll based readers do: a sign and leading zeros pass, anything behind does not.
bool ReadLenientInteger(const std::string& text, int64_t* value) {
  if (text.empty()) return false;
  char* end = nullptr;
  errno = 0;
  *value = std::strtoll(text.c_str(), &end, 10);
  return errno == 0 && end == text.c_str() + text.size();
}

}  // namespace

// ADDRESS ... : no more than 16 of them, as in Redis. None at all listens on no TCP address.
Status ReadBind(WordList words, Config& config) {
  constexpr size_t kAddressesMax = 16;
  if (words.size() > kAddressesMax) return Status::Error("Too many bind addresses specified.");
  config.bind.clear();
  if (!IsOneEmptyWord(words)) config.bind.assign(words.begin(), words.end());
  return Status::Ok();
}

std::string PrintBind(const Config& config) { return Joined(config.bind, " "); }

// CLASS HARD SOFT SECONDS, repeated; a class that is not named keeps its limits.
Status ReadOutputBufferLimits(WordList words, Config& config) {
  if (IsOneEmptyWord(words)) return Status::Ok();  // Redis takes it, and it changes nothing
  if (words.size() % 4 != 0) {
    return Status::Error("Wrong number of arguments in buffer limit configuration.");
  }
  auto limits = config.client_output_buffer_limit;
  for (size_t i = 0; i < words.size(); i += 4) {
    const std::string& name = words[i];
    ClientClass client_class;
    if (EqualsIgnoreCase(name, "normal")) {
      client_class = ClientClass::kNormal;
    } else if (EqualsIgnoreCase(name, "replica") || EqualsIgnoreCase(name, "slave")) {
      client_class = ClientClass::kReplica;
    } else if (EqualsIgnoreCase(name, "pubsub")) {
      client_class = ClientClass::kPubsub;
    } else {
      return Status::Error("Invalid client class specified in buffer limit configuration.");
    }
    OutputBufferLimit limit;
    if (!ReadBytes(words[i + 1], &limit.hard_bytes) ||
        !ReadBytes(words[i + 2], &limit.soft_bytes) ||
        !ReadLenientInteger(words[i + 3], &limit.soft_seconds) || limit.soft_seconds < 0) {
      return Status::Error(
          "Error in hard, soft or soft_seconds setting in buffer limit configuration.");
    }
    limits[static_cast<size_t>(client_class)] = limit;
  }
  config.client_output_buffer_limit = limits;
  return Status::Ok();
}

std::string PrintOutputBufferLimits(const Config& config) {
  constexpr std::string_view kNames[] = {"normal", "slave", "pubsub"};
  std::string text;
  for (size_t i = 0; i < std::size(kNames); ++i) {
    const OutputBufferLimit& limit = config.client_output_buffer_limit[i];
    if (i > 0) text += ' ';
    text.append(kNames[i]).append(" ").append(std::to_string(limit.hard_bytes));
    text.append(" ").append(std::to_string(limit.soft_bytes));
    text.append(" ").append(std::to_string(limit.soft_seconds));
  }
  return text;
}

Status ReadShards(WordList words, Config& config) {
  constexpr uint64_t kShardsMax = 32768;  // a record names its shard in 16 bits, 0xffff is taken
  int64_t value = 0;
  if (words.size() != 1) return Status::Error("wrong number of arguments");
  if (!ParseInt64(words[0], &value) || value < 1 || static_cast<uint64_t>(value) > kShardsMax ||
      !std::has_single_bit(static_cast<uint64_t>(value))) {
    return Status::Error("argument must be a power of two between 1 and 32768");
  }
  config.shards = value;
  return Status::Ok();
}

std::string PrintShards(const Config& config) { return std::to_string(config.shards); }

// no = strict; yes = anything but strict, so that it leaves prefix alone.
Status ReadLoadTruncated(WordList words, Config& config) {
  if (words.size() != 1) return Status::Error("wrong number of arguments");
  if (EqualsIgnoreCase(words[0], "no")) {
    config.wal_recovery = WalRecovery::kStrict;
  } else if (EqualsIgnoreCase(words[0], "yes")) {
    if (config.wal_recovery == WalRecovery::kStrict) config.wal_recovery = WalRecovery::kSalvage;
  } else {
    return Status::Error("argument must be 'yes' or 'no'");
  }
  return Status::Ok();
}

std::string PrintLoadTruncated(const Config& config) {
  return config.wal_recovery == WalRecovery::kStrict ? "no" : "yes";
}

Status ReadPercentiles(WordList words, Config& config) {
  constexpr size_t kPercentilesMax = 1000;  // each is a field of a line of INFO
  std::vector<double> percentiles;
  if (!IsOneEmptyWord(words)) {
    if (words.size() > kPercentilesMax) {
      return Status::Error("Invalid latency-tracking-info-percentiles parameters");
    }
    for (const std::string& word : words) {
      double percentile = 0;
      if (!ParseDouble(word, &percentile)) {
        return Status::Error("Invalid latency-tracking-info-percentiles parameters");
      }
      if (percentile < 0 || percentile > 100) {
        return Status::Error(
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]");
      }
      percentiles.push_back(percentile);
    }
  }
  config.latency_tracking_info_percentiles = std::move(percentiles);
  return Status::Ok();
}

std::string PrintPercentiles(const Config& config) {
  std::string text;
  for (const double percentile : config.latency_tracking_info_percentiles) {
    if (!text.empty()) text += ' ';
    char digits[kDoubleTextMax];
    const auto end = std::to_chars(digits, digits + sizeof(digits), percentile);
    text.append(digits, end.ptr);
  }
  return text;
}

Status ReadNotifyEvents(WordList words, Config& config) {
  if (words.size() != 1) return Status::Error("wrong number of arguments");
  uint32_t flags = 0;
  for (const char letter : words[0]) {
    if (letter == 'A') {
      flags |= kNotifyAll;
      continue;
    }
    const auto* found =
        std::find_if(std::begin(kNotifyLetters), std::end(kNotifyLetters),
                     [&](const NotifyLetter& known) { return known.letter == letter; });
    if (found == std::end(kNotifyLetters)) {
      return Status::Error("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
    }
    flags |= found->flag;
  }
  config.notify_keyspace_events = flags;
  return Status::Ok();
}

// A stands for all of its letters. Redis 7.0 forgets n behind an A; we print it, as 7.4 does.
std::string PrintNotifyEvents(const Config& config) {
  const uint32_t flags = config.notify_keyspace_events;
  std::string text;
  uint32_t named = 0;
  if ((flags & kNotifyAll) == kNotifyAll) {
    text += 'A';
    named = kNotifyAll;
  }
  for (const NotifyLetter& known : kNotifyLetters) {
    if ((flags & ~named & known.flag) != 0) text += known.letter;
  }
  return text;
}

// SECONDS CHANGES, repeated; one empty word is no save point at all.
Status ReadSave(WordList words, Config& config) {
  std::vector<SavePoint> points;
  if (!IsOneEmptyWord(words)) {
    if (words.size() % 2 != 0) return Status::Error("Invalid save parameters");
    for (size_t i = 0; i < words.size(); i += 2) {
      SavePoint point;
      if (!ReadLenientInteger(words[i], &point.seconds) ||
          !ReadLenientInteger(words[i + 1], &point.changes) || point.seconds < 1 ||
          point.changes < 0) {
        return Status::Error("Invalid save parameters");
      }
      points.push_back(point);
    }
  }
  config.save = std::move(points);
  return Status::Ok();
}

std::string PrintSave(const Config& config) {
  std::string text;
  for (const SavePoint& point : config.save) {
    if (!text.empty()) text += ' ';
    text += std::to_string(point.seconds) + ' ' + std::to_string(point.changes);
  }
  return text;
}

Status ReadShutdownOnSigint(WordList words, Config& config) {
  return ReadShutdownFlags(words, &config.shutdown_on_sigint);
}
std::string PrintShutdownOnSigint(const Config& config) {
  return PrintShutdownFlags(config.shutdown_on_sigint);
}
Status ReadShutdownOnSigterm(WordList words, Config& config) {
  return ReadShutdownFlags(words, &config.shutdown_on_sigterm);
}
std::string PrintShutdownOnSigterm(const Config& config) {
  return PrintShutdownFlags(config.shutdown_on_sigterm);
}

Result<std::string> CheckProcTitle(WordList words) {
  constexpr std::string_view kKnown[] = {"{title}",    "{listen-addr}", "{server-mode}", "{port}",
                                         "{tls-port}", "{unixsocket}",  "{config-file}"};
  std::string text = Joined(words, " ");
  for (size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
    const auto is_here = [&](std::string_view name) {
      return text.compare(at, name.size(), name) == 0;
    };
    if (std::none_of(std::begin(kKnown), std::end(kKnown), is_here)) {
      return Status::Error("template format is invalid or contains unknown variables");
    }
  }
  return text;
}

Result<std::string> CheckOomScores(WordList words) {
  if (words.size() != 3) return Status::Error("wrong number of arguments");
  for (const std::string& word : words) {
    int64_t score = 0;
    if (!ReadLenientInteger(word, &score) || score < -2000 || score > 2000) {
      return Status::Error(
          "Invalid oom-score-adj-values, elements must be between -2000 and 2000.");
    }
  }
  return Joined(words, " ");
}

// HOST PORT or NO ONE; one empty word is what CONFIG GET prints for no master.
Result<std::string> CheckReplicaOf(WordList words) {
  if (IsOneEmptyWord(words)) return std::string();
  if (words.size() != 2) return Status::Error("wrong number of arguments");
  if (EqualsIgnoreCase(words[0], "no") && EqualsIgnoreCase(words[1], "one")) return std::string();
  int64_t port = 0;
  if (!ParseInt64(words[1], &port) || port < 0 || port > 65535) {
    return Status::Error("Invalid master port");
  }
  return Joined(words, " ");
}

Result<std::string> CheckClusterHostname(WordList words) {
  constexpr size_t kHostNameMax = 255;  // of the domain name system
  if (words.size() != 1) return Status::Error("wrong number of arguments");
  if (words[0].size() > kHostNameMax) {
    return Status::Error("Hostnames must be less than 256 characters");
  }
  for (const char c : words[0]) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '.') {
      return Status::Error("Hostnames may only contain alphanumeric characters, hyphens or dots");
    }
  }
  return words[0];
}

}  // namespace crab::config

// Fuzzes the readers of foreign bytes: the parser of requests, and the effects of the log. With
// clang's -fsanitize=fuzzer the fuzzer drives it; built otherwise, with CRAB_FUZZ_STANDALONE, it
// has a main of its own: `parser_fuzz [seconds] [seed]` mutates good streams and prints the seed.
// It fails by aborting: in a CHECK here, or in a sanitizer.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "resp/parser.h"
#include "src/keyspace/effects.h"
#include "utils/check.h"

namespace {

using crab::resp::Limits;
using crab::resp::Parser;

// What came of a stream: everything a client could tell apart.
struct Outcome {
  std::vector<std::string> arguments;  // of all requests, each request ended by its count
  std::string error;
  size_t left = 0;

  bool operator==(const Outcome& other) const {
    return arguments == other.arguments && error == other.error && left == other.left;
  }
};

// Feeds `stream` in pieces of 1 to `piece_max` bytes, each call with memory of exactly its size.
Outcome Feed(std::string_view stream, const Limits& limits, size_t piece_max) {
  Parser parser;
  std::vector<std::string_view> argv;
  Outcome outcome;
  size_t begin = 0;
  for (size_t fed = 0, piece = 0; fed < stream.size();) {
    piece = piece * 7 + 3;
    fed = std::min(stream.size(), fed + 1 + piece % piece_max);
    while (begin < fed) {
      const std::vector<char> exact(stream.begin() + static_cast<ptrdiff_t>(begin),
                                    stream.begin() + static_cast<ptrdiff_t>(fed));
      size_t consumed = 0;
      const Parser::Verdict verdict =
          parser.Next({exact.data(), exact.size()}, limits, argv, &consumed);
      if (verdict == Parser::Verdict::kError) {
        outcome.error = parser.error();
        CHECK(!outcome.error.empty());
        return outcome;
      }
      if (verdict == Parser::Verdict::kIncomplete) break;
      CHECK(consumed > 0);
      CHECK_LE(consumed, exact.size());
      outcome.arguments.insert(outcome.arguments.end(), argv.begin(), argv.end());
      outcome.arguments.push_back(std::to_string(argv.size()));
      begin += consumed;
    }
  }
  outcome.left = stream.size() - begin;
  return outcome;
}

void CheckParser(std::string_view stream, const Limits& limits) {
  const Outcome whole = Feed(stream, limits, SIZE_MAX);
  CHECK(Feed(stream, limits, 1) == whole);
  CHECK(Feed(stream, limits, 23) == whole);
}

void CheckEffects(std::string_view bytes) {
  crab::Result<std::string_view> inside = crab::TransactionEffects(bytes);
  if (inside.ok()) bytes = *inside;
  crab::EffectView effect;
  while (!bytes.empty()) {
    const char* const end = bytes.data() + bytes.size();
    if (!crab::ReadEffect(&bytes, &effect).ok()) return;
    for (const std::string_view argument : effect.arguments) {
      CHECK(argument.data() + argument.size() <= end);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  CheckParser(bytes, {});
  CheckParser(bytes, {.inline_bytes_max = 40, .unauthenticated = true});
  CheckEffects(bytes);
  return 0;
}

#ifdef CRAB_FUZZ_STANDALONE
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "utils/random.h"

namespace {

// Streams worth damaging.
std::vector<std::string> Corpus() {
  std::vector<std::string> corpus = {
      "PING\r\n",
      "set \"a\\x41\\n\" 'b\\'c' d\"e\"\r\nPING\n",
      "*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n",
      "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000000001\r\n$32\r\n" + std::string(32, 'x') + "\r\n",
      "*2\r\n$0\r\n\r\n$100\r\n" + std::string(100, '$') + "\r\nGET a\r\n",
      "*2147483647\r\n$536870912\r\n",
      "*12\r\n" + std::string("$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"),
  };
  crab::Effects effects;
  effects.Set(1, 0, "key", "value", 1700000000000);
  effects.Del(2, 300, "key");
  effects.Broadcast(0, crab::EffectId::kFlushall, {});
  corpus.emplace_back(effects.bytes());
  corpus.emplace_back(effects.Transaction());
  return corpus;
}

void Mutate(crab::Random& random, const std::vector<std::string>& corpus, std::string* bytes) {
  static constexpr char kLikely[] = {'*', '$', '\r', '\n', '0', '1', '9', '-', '"', '\'', '\\', 0};
  const size_t at = random.Below(bytes->size() + 1);
  const char likely = kLikely[random.Below(sizeof(kLikely))];
  switch (random.Below(7)) {
    case 0:
      bytes->insert(at, 1, likely);
      break;
    case 1:
      bytes->erase(at, 1 + random.Below(4));
      break;
    case 2:
      if (at < bytes->size()) (*bytes)[at] = likely;
      break;
    case 3:
      if (at < bytes->size()) {
        (*bytes)[at] = static_cast<char>((*bytes)[at] ^ (1 << random.Below(8)));
      }
      break;
    case 4:
      bytes->insert(at, std::to_string(random.Next() >> random.Below(64)));
      break;
    case 5:
      bytes->insert(at, corpus[random.Below(corpus.size())]);
      break;
    default:
      bytes->resize(at);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int seconds = argc > 1 ? std::atoi(argv[1]) : 10;
  const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 0) : crab::RandomUint64();
  std::printf("parser_fuzz: %d s, seed %llu\n", seconds, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  const std::vector<std::string> corpus = Corpus();
  crab::Random random(seed);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  uint64_t runs = 0;
  for (; std::chrono::steady_clock::now() < end; ++runs) {
    std::string bytes = corpus[random.Below(corpus.size())];
    for (uint64_t changes = random.Below(6); changes > 0; --changes) {
      Mutate(random, corpus, &bytes);
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::printf("parser_fuzz: %llu inputs, no failure\n1 passed, 0 failed\n",
              static_cast<unsigned long long>(runs));
  return 0;
}
#endif

#include "resp/parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/seed.h"

namespace crab::resp {
namespace {

using Argv = std::vector<std::string>;
using Verdict = Parser::Verdict;

// What a connection would see of a stream: the requests, and the error that ended it, if any.
struct Seen {
  std::vector<Argv> requests;
  std::string error;
  size_t left = 0;  // bytes of an unfinished request

  bool operator==(const Seen& other) const {
    return requests == other.requests && error == other.error && left == other.left;
  }
};

std::ostream& operator<<(std::ostream& out, const Seen& seen) {
  for (const Argv& argv : seen.requests) {
    out << "[";
    for (const std::string& argument : argv) out << "'" << argument << "' ";
    out << "] ";
  }
  return out << "error='" << seen.error << "' left=" << seen.left;
}

// Feeds `stream` in pieces of the sizes that `next_size` gives. Every call gets memory of its own,
// exactly as long as the input, so that a sanitizer sees any byte read behind it.
template <typename NextSize>
Seen Feed(const std::string& stream, const Limits& limits, NextSize next_size) {
  Parser parser;
  std::vector<std::string_view> argv;
  Seen seen;
  std::string pending;
  for (size_t fed = 0; fed < stream.size();) {
    const size_t size = std::min<size_t>(next_size(), stream.size() - fed);
    pending.append(stream, fed, size);
    fed += size;
    while (!pending.empty()) {
      const std::vector<char> exact(pending.begin(), pending.end());
      size_t consumed = 0;
      const Verdict verdict = parser.Next({exact.data(), exact.size()}, limits, argv, &consumed);
      if (verdict == Verdict::kError) {
        seen.error = parser.error();
        return seen;
      }
      if (verdict == Verdict::kIncomplete) break;
      EXPECT_GT(consumed, 0u);
      EXPECT_LE(consumed, pending.size());
      if (!argv.empty()) seen.requests.emplace_back(argv.begin(), argv.end());
      pending.erase(0, consumed);
      EXPECT_FALSE(parser.in_request());
    }
  }
  seen.left = pending.size();
  return seen;
}

Seen FeedWhole(const std::string& stream, const Limits& limits = {}) {
  return Feed(stream, limits, [] { return SIZE_MAX; });
}
Seen FeedBytes(const std::string& stream, const Limits& limits = {}) {
  return Feed(stream, limits, [] { return size_t{1}; });
}

std::string Multibulk(const Argv& argv) {
  std::string bytes = "*" + std::to_string(argv.size()) + "\r\n";
  for (const std::string& argument : argv) {
    bytes += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
  }
  return bytes;
}

// A stream of requests of many shapes, and the requests.
std::string MixedStream(std::vector<Argv>* requests) {
  *requests = {{"PING"},
               {"SET", "key:000000000001", std::string(32, 'x')},
               {"GET", ""},
               {"SET", "k", std::string(99, 'a')},
               {"SET", "k", std::string(100, 'b')},
               {"SET", "k", std::string(999, 'c')},
               {"SET", "k", std::string(1000, 'd')},
               {"SET", "\r\n*1\r\n$4\r\n", std::string("\0\xff\r\n", 4)},
               Argv(9, "nine"),
               Argv(10, "ten"),
               Argv(99, "many"),
               Argv(100, "hundred")};
  std::string stream;
  for (const Argv& argv : *requests) stream += Multibulk(argv);
  stream += "inline \"a\\x41\" 'q'\r\n";
  requests->push_back({"inline", "aA", "q"});
  return stream;
}

TEST(ParserTest, ReadsEachRequestOfAStream) {
  std::vector<Argv> requests;
  const std::string stream = MixedStream(&requests);
  const Seen seen = FeedWhole(stream);
  EXPECT_EQ(seen.requests, requests);
  EXPECT_EQ(seen.error, "");
  EXPECT_EQ(seen.left, 0u);
}

TEST(ParserTest, ReadsTheSameHoweverTheStreamIsCut) {
  std::vector<Argv> requests;
  const std::string stream = MixedStream(&requests);
  const Seen whole = FeedWhole(stream);
  EXPECT_EQ(FeedBytes(stream), whole);
  for (size_t cut = 1; cut < stream.size(); ++cut) {
    size_t calls = 0;
    ASSERT_EQ(Feed(stream, {}, [&] { return calls++ == 0 ? cut : SIZE_MAX; }), whole) << cut;
  }
}

TEST(ParserTest, WaitsAtEveryPrefixOfARequest) {
  for (const std::string& request :
       {Multibulk({"SET", "key", "value"}), Multibulk({std::string(300, 'x'), ""}),
        std::string("set 'a b' \"c\"\r\n")}) {
    for (size_t size = 1; size < request.size(); ++size) {
      const Seen seen = FeedWhole(request.substr(0, size));
      ASSERT_TRUE(seen.requests.empty()) << size;
      ASSERT_EQ(seen.error, "") << size;
      ASSERT_EQ(seen.left, size);
    }
  }
}

TEST(ParserTest, SaysHowMuchAPartialBulkNeeds) {
  Parser parser;
  std::vector<std::string_view> argv;
  size_t consumed = 0;
  const std::string head = "*2\r\n$3\r\nGET\r\n$70000\r\n";
  const std::string request = head + std::string(70000, 'x') + "\r\n";
  ASSERT_EQ(parser.Next(head, {}, argv, &consumed), Verdict::kIncomplete);
  EXPECT_EQ(parser.request_bytes_known(), request.size());
  EXPECT_EQ(parser.arguments_read(), 1u);
  EXPECT_TRUE(parser.in_request());
  ASSERT_EQ(parser.Next(request, {}, argv, &consumed), Verdict::kCommand);
  EXPECT_EQ(consumed, request.size());
  EXPECT_EQ(argv[1].size(), 70000u);
  EXPECT_EQ(argv[1].data(), request.data() + head.size()) << "a bulk is not copied";
  EXPECT_FALSE(parser.in_request());
  EXPECT_EQ(parser.request_bytes_known(), 0u);
}

TEST(ParserTest, ReservesNothingForWhatIsOnlyAnnounced) {
  Parser parser;
  std::vector<std::string_view> argv;
  size_t consumed = 0;
  EXPECT_EQ(parser.Next("*2147483647\r\n$536870912\r\n", {}, argv, &consumed),
            Verdict::kIncomplete);
  EXPECT_LT(argv.capacity(), 100u);
}

// Each row was asked of redis-server 7.0.15.
TEST(ParserTest, RefusesWhatRedisRefusesInItsWords) {
  const struct {
    std::string stream;
    std::string error;
  } rows[] = {
      {"*1\r\n\r\n", "Protocol error: expected '$', got '\r'"},
      {"*1\r\n\n\r\n", "Protocol error: expected '$', got '\n'"},
      {"*1\r\nabc\r\n", "Protocol error: expected '$', got 'a'"},
      {"*2\r\n$4\r\nECHO\r\n:1\r\n", "Protocol error: expected '$', got ':'"},
      {"*-00\r\n", "Protocol error: invalid multibulk length"},
      {"*2147483648\r\n", "Protocol error: invalid multibulk length"},
      {"*99999999999999999999999\r\n", "Protocol error: invalid multibulk length"},
      {"*+1\r\n", "Protocol error: invalid multibulk length"},
      {"* 1\r\n", "Protocol error: invalid multibulk length"},
      {"*01\r\n", "Protocol error: invalid multibulk length"},
      {"*\r\n", "Protocol error: invalid multibulk length"},
      {"*1x\r\n", "Protocol error: invalid multibulk length"},
      {"*1\r\n$\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$x\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$04\r\nPING\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$00\r\n\r\nxxxx", "Protocol error: invalid bulk length"},
      {"*1\r\n$4 \r\nPING\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$12x\r\n123456789012\r\n", "Protocol error: invalid bulk length"},
      {"*1\r\n$536870913\r\n", "Protocol error: invalid bulk length"},
      {"echo \"a\"b\r\n", "Protocol error: unbalanced quotes in request"},
      {"echo \"a\r\n", "Protocol error: unbalanced quotes in request"},
      {"echo 'a\r\n", "Protocol error: unbalanced quotes in request"},
      {"echo \"a\"'b'\r\n", "Protocol error: unbalanced quotes in request"},
      {"echo \"abc\\\r\n", "Protocol error: unbalanced quotes in request"},
      {std::string(65537, 'x'), "Protocol error: too big inline request"},
      {"*" + std::string(65536, '1'), "Protocol error: too big mbulk count string"},
      {"*1\r\n$" + std::string(65536, '1'), "Protocol error: too big bulk count string"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.stream.substr(0, 40));
    EXPECT_EQ(FeedWhole(row.stream).error, row.error);
    if (row.stream.size() < 1000) {
      EXPECT_EQ(FeedBytes(row.stream).error, row.error);
    }
    EXPECT_EQ(FeedWhole("PING\r\n" + row.stream).error, row.error);
  }
}

TEST(ParserTest, AcceptsWhatRedisAccepts) {
  const struct {
    std::string stream;
    std::vector<Argv> requests;
  } rows[] = {
      {"*0\r\n*-1\r\n*-10\r\nPING\r\n", {{"PING"}}},
      {"*1\rX$4\rYPINGZZPING\r\n", {{"PING"}, {"PING"}}},
      {"\n\r\n \r\nPING\n", {{"PING"}}},
      {"*2\r\n$0\r\n\r\n$0\r\n\r\n", {{"", ""}}},
      {"echo \"a\\x41\\n\\q\"\r\n", {{"echo", "aA\nq"}}},
      {"echo \"\\r\\t\\b\\a\\\\\\\"\"\r\n", {{"echo", "\r\t\b\a\\\""}}},
      {"echo 'it\\'s \\n'\r\n", {{"echo", "it's \\n"}}},
      {"echo a\"b c\"\r\n", {{"echo", "ab c"}}},
      {"echo \"\" ''\r\n", {{"echo", "", ""}}},
      {"echo \"\\xZ1\" \"\\x4\"\r\n", {{"echo", "xZ1", "x4"}}},
      {"echo \"\\x00\\xfF\"\r\n", {{"echo", std::string("\0\xff", 2)}}},
      {"echo a\x0b"
       "b\r\n",
       {{"echo",
         "a\x0b"
         "b"}}},
      {"\x0b"
       "echo \"a\"\x0b"
       "b\r\n",
       {{"echo", "a", "b"}}},
      {"echo a\rb\r\n", {{"echo", "a", "b"}}},
      {"\rPING\r\n", {{"PING"}}},
      {std::string(65530, ' ') + "PING\r\n", {{"PING"}}},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.stream.substr(0, 40));
    EXPECT_EQ(FeedWhole(row.stream).requests, row.requests);
    if (row.stream.size() < 1000) {
      EXPECT_EQ(FeedBytes(row.stream).requests, row.requests);
    }
  }
}

// Redis' own answer between here and its next read depends on how the bytes were cut.
TEST(ParserTest, BoundsALineByWhereItEnds) {
  const std::string line(65534, ' ');
  EXPECT_EQ(FeedWhole(line + "a\r\n").requests.size(), 1u);
  EXPECT_EQ(FeedWhole(line + "ab\r\n").error, "Protocol error: too big inline request");
}

TEST(ParserTest, WaitsBehindANulUntilTheLineIsTooLong) {
  const std::string rows[] = {std::string("PI\0NG\r\nPING\r\n", 13),
                              std::string("*1\r\n$4\0\r\nPING\r\n", 15),
                              std::string("*1\0\r\n$4\r\nPING\r\n", 15)};
  const std::string errors[] = {"Protocol error: too big inline request",
                                "Protocol error: too big bulk count string",
                                "Protocol error: too big mbulk count string"};
  for (size_t i = 0; i < std::size(rows); ++i) {
    EXPECT_EQ(FeedWhole(rows[i]).left, rows[i].size());
    EXPECT_EQ(FeedBytes(rows[i]).left, rows[i].size());
    EXPECT_EQ(FeedWhole(rows[i] + std::string(65537, 'x')).error, errors[i]);
  }
}

TEST(ParserTest, HoldsTheUnauthenticatedToTenShortArguments) {
  const Limits limits{.unauthenticated = true};
  EXPECT_EQ(FeedWhole(Multibulk(Argv(10, "x")), limits).requests.size(), 1u);
  EXPECT_EQ(FeedWhole(Multibulk(Argv(11, "x")), limits).error,
            "Protocol error: unauthenticated multibulk length");
  EXPECT_EQ(FeedWhole(Multibulk({std::string(16384, 'x')}), limits).requests.size(), 1u);
  EXPECT_EQ(FeedWhole(Multibulk({std::string(16385, 'x')}), limits).error,
            "Protocol error: unauthenticated bulk length");
}

TEST(ParserTest, HoldsEveryoneToTheLimitsGiven) {
  const Limits limits{.bulk_bytes_max = 5, .multibulk_max = 3, .inline_bytes_max = 10};
  EXPECT_EQ(FeedWhole(Multibulk({"12345"}), limits).requests.size(), 1u);
  EXPECT_EQ(FeedWhole(Multibulk({"123456"}), limits).error, "Protocol error: invalid bulk length");
  EXPECT_EQ(FeedWhole(Multibulk({"1", "2", "3"}), limits).requests.size(), 1u);
  EXPECT_EQ(FeedWhole(Multibulk({"1", "2", "3", "4"}), limits).error,
            "Protocol error: invalid multibulk length");
  EXPECT_EQ(FeedWhole("0123456789\n", limits).requests.size(), 1u);
  EXPECT_EQ(FeedWhole("0123456789a\n", limits).error, "Protocol error: too big inline request");
}

TEST(ParserTest, GoesOnAfterAnError) {
  Parser parser;
  std::vector<std::string_view> argv;
  size_t consumed = 0;
  ASSERT_EQ(parser.Next("*2\r\n$1\r\na\r\n!\r\n", {}, argv, &consumed), Verdict::kError);
  EXPECT_FALSE(parser.in_request());
  ASSERT_EQ(parser.Next("PING\r\n", {}, argv, &consumed), Verdict::kCommand);
  EXPECT_EQ(argv.size(), 1u);
}

// Property: whatever the bytes, what is seen does not depend on how they are cut.
TEST(ParserTest, SeesTheSameInDamagedStreamsHoweverTheyAreCut) {
  std::vector<Argv> requests;
  const std::string good = MixedStream(&requests).substr(0, 700);
  static constexpr char kLikely[] = {'*', '$', '\r', '\n', '0', '1', '9', '-', '"', '\'', '\\', 0};
  const uint64_t seed = test::TestSeed();
  for (uint64_t i = 0; i < 1500; ++i) {
    SCOPED_TRACE(i);
    std::string stream = good;
    const uint64_t changes = 1 + test::Mix(seed, i) % 3;
    for (uint64_t c = 0; c < changes; ++c) {
      const uint64_t chance = test::Mix(seed + c + 1, i);
      const size_t at = (chance >> 8) % std::min<size_t>(stream.size(), 250);
      switch (chance % 4) {
        case 0:
          stream[at] = static_cast<char>(stream[at] ^ (1 << (chance >> 40) % 8));
          break;
        case 1:
          stream[at] = kLikely[(chance >> 40) % sizeof(kLikely)];
          break;
        case 2:
          stream.erase(at, 1);
          break;
        default:
          stream.insert(at, 1, kLikely[(chance >> 40) % sizeof(kLikely)]);
      }
    }
    const Seen whole = FeedWhole(stream);
    ASSERT_EQ(FeedBytes(stream), whole);
    uint64_t step = 0;
    ASSERT_EQ(Feed(stream, {}, [&] { return 1 + test::Mix(seed + i, ++step) % 60; }), whole);
  }
}

}  // namespace
}  // namespace crab::resp

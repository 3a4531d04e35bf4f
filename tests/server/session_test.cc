// What a session reads and answers: pipelines, protocol errors, limits.
#include "src/server/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/server/server.h"
#include "tests/server/session_life.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::kOk;
using test::Request;
using test::SessionTest;
using test::TestSeed;
using Wait = Session::Wait;

TEST_F(SessionTest, AnswersAPipelineInOrder) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"}) + Request({"get", "k"}) + "PING\r\n" +
                                   Request({"nope"}) + Request({"echo", ""})),
            "+OK\r\n$1\r\nv\r\n+PONG\r\n-ERR unknown command 'nope', with args beginning with: \r\n"
            "$0\r\n\r\n");
  EXPECT_EQ(session->input_bytes(), 0u);
}

TEST_F(SessionTest, SendsWhatItHasBeforeAPipelineGathersMore) {
  const auto session = NewSession();
  const std::string value(1 << 20, 'x');
  Exchange(*session, Request({"set", "k", value}));
  std::string pipeline;
  for (int i = 0; i < 100; ++i) pipeline += Request({"get", "k"});
  std::string received = Exchange(*session, pipeline);
  int turns = 1;
  while (session->waiting() == Session::Wait::kTurn) {
    EXPECT_LT(received.size(), size_t{6} << 20);  // a few MiB of replies, then the next turn
    received.clear();
    session->Resume();
    received = Take(*session);
    ++turns;
  }
  EXPECT_GE(turns, 20);
  EXPECT_EQ(session->input_bytes(), 0u);
}

TEST_F(SessionTest, EverySplitOfAPipelineGivesTheSameBytes) {
  const std::string pipeline =
      Request({"set", "k", "hello"}) + "PING\r\n\r\n" + Request({"append", "k", "!"}) +
      Request({"hello", "3"}) + Request({"get", "none"}) + Request({"hello", "2"}) +
      Request({"mget", "k", "none", "k"}) + "ECHO \"a b\"\r\n" + Request({"nope", "x"}) +
      Request({"client", "reply", "skip"}) + Request({"ping"}) + Request({"del", "k"}) +
      "*-1\r\n*0\r\n" + Request({"incr", "n"}) + Request({"del", "n"}) + Request({"quit"}) +
      Request({"set", "after", "quit"});
  // HELLO shows the connection's number; the rest is the same for all.
  const auto run = [&](const std::vector<size_t>& cuts) {
    last_id_ = 100;
    const auto session = NewSession();
    std::string out;
    size_t begin = 0;
    for (size_t cut : cuts) {
      session->Receive(std::string_view(pipeline).substr(begin, cut - begin));
      out += Take(*session);
      begin = cut;
      if (session->closing()) break;
    }
    EXPECT_TRUE(session->closing());
    return out;
  };
  const std::string whole = run({pipeline.size()});
  EXPECT_TRUE(whole.ends_with(":1\r\n:1\r\n:1\r\n+OK\r\n")) << whole;
  for (size_t cut = 1; cut < pipeline.size(); ++cut) {
    ASSERT_EQ(run({cut, pipeline.size()}), whole) << "cut at " << cut;
  }
  std::vector<size_t> every_byte;
  for (size_t cut = 1; cut <= pipeline.size(); ++cut) every_byte.push_back(cut);
  EXPECT_EQ(run(every_byte), whole);
  Random random(TestSeed());
  for (int i = 0; i < 300; ++i) {
    std::vector<size_t> cuts{pipeline.size()};
    for (uint64_t n = random.Below(10); n > 0; --n)
      cuts.push_back(1 + random.Below(pipeline.size()));
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    ASSERT_EQ(run(cuts), whole) << "seed " << TestSeed() << ", round " << i;
  }
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"exists", "after"})), ":0\r\n");
}

TEST_F(SessionTest, KeepsAPartialRequestUntilTheRestArrives) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, "*2\r\n$4\r\nECH"), "");
  EXPECT_GT(session->input_bytes(), 0u);
  EXPECT_EQ(Exchange(*session, "O\r\n$2\r\nh"), "");
  EXPECT_EQ(Exchange(*session, "i\r\nPI"), "$2\r\nhi\r\n");
  EXPECT_EQ(Exchange(*session, "NG\r\n"), "+PONG\r\n");
  EXPECT_EQ(session->input_bytes(), 0u);
}

TEST_F(SessionTest, ReadsABigArgumentIntoABufferOfItsOwn) {
  const auto session = NewSession();
  const std::string value(5 << 20, 'v');
  const std::string request = Request({"set", "k", value}) + Request({"strlen", "k"});
  size_t sent = 1000;
  session->Receive(std::string_view(request).substr(0, sent));
  int own_reads = 0;
  while (sent < request.size()) {
    const std::span<char> own = session->ReceiveBuffer();
    if (own.empty()) {
      const size_t bytes = std::min<size_t>(request.size() - sent, 16 * 1024);
      session->Receive(std::string_view(request).substr(sent, bytes));
      sent += bytes;
    } else {
      ++own_reads;
      // The kernel gives what it has, rarely all that there is room for.
      const size_t bytes = std::min({own.size(), request.size() - sent, size_t{100'000}});
      std::copy_n(request.data() + sent, bytes, own.data());
      session->Received(bytes);
      sent += bytes;
    }
    ASSERT_LE(session->input_capacity(), 2 * value.size());
  }
  EXPECT_GT(own_reads, 10);
  EXPECT_EQ(Take(*session), "+OK\r\n:5242880\r\n");
  EXPECT_LE(session->input_capacity(), size_t{64 * 1024}) << "the big buffer is given back";
}

TEST_F(SessionTest, AnAnnouncedArgumentCostsNothingUntilItComes) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, "*2\r\n$4\r\nECHO\r\n$536870912\r\nx"), "");
  EXPECT_LE(session->ReceiveBuffer().size(), size_t{1 << 20});
  EXPECT_LE(session->MemoryBytes(), size_t{3 << 20});
}

TEST_F(SessionTest, AnswersAProtocolErrorAndCloses) {
  struct Case {
    std::string bytes;
    const char* reply;
  };
  for (const Case& c : std::vector<Case>{
           {"\"unbal\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"},
           {"*x\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
           {"*1\r\nfoo\r\n", "-ERR Protocol error: expected '$', got 'f'\r\n"},
           {"*1\r\n$x\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
           {"*2147483648\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
           {std::string(70000, 'A'), "-ERR Protocol error: too big inline request\r\n"},
       }) {
    const auto session = NewSession();
    EXPECT_EQ(Exchange(*session, "PING\r\n" + c.bytes + "PING\r\n"),
              "+PONG\r\n" + std::string(c.reply));
    EXPECT_TRUE(session->closing());
    EXPECT_EQ(Exchange(*session, "PING\r\n"), "") << "nothing runs after it";
  }
}

TEST_F(SessionTest, RunsNothingAfterQuit) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, "QUIT\r\nSET k v\r\nPING\r\n"), kOk);
  EXPECT_TRUE(session->closing());
  const auto other = NewSession();
  EXPECT_EQ(Exchange(*other, "EXISTS k\r\n"), ":0\r\n");
}

TEST_F(SessionTest, LimitsWhatAStrangerMaySend) {
  Build({"--requirepass", "secret"});
  const auto bytes_of = [&](std::string_view bytes) { return Exchange(*NewSession(), bytes); };
  EXPECT_EQ(bytes_of("*11\r\n"), "-ERR Protocol error: unauthenticated multibulk length\r\n");
  EXPECT_EQ(bytes_of("*1\r\n$16385\r\n"), "-ERR Protocol error: unauthenticated bulk length\r\n");
  EXPECT_EQ(bytes_of("*10\r\n$16384\r\n"), "");
  EXPECT_EQ(bytes_of("PING\r\n"), "-NOAUTH Authentication required.\r\n");
  // Authentication counts from the next request on, be it in the same read.
  const std::string big(20000, 'v');
  EXPECT_EQ(bytes_of(Request({"auth", "secret"}) + Request({"echo", big})),
            "+OK\r\n$20000\r\n" + big + "\r\n");
  EXPECT_EQ(bytes_of(Request({"auth", "wrong"}) + Request({"reset"}) + Request({"get", "k"})),
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n+RESET\r\n"
            "-NOAUTH Authentication required.\r\n");
}

// --- limits ---

TEST_F(SessionTest, AClientWhoseUnfinishedRequestIsTooLongIsClosed) {
  Build({"--client-query-buffer-limit", "1mb"});
  {
    SCOPED_TRACE("many small arguments");
    const auto session = NewSession();
    session->Receive("*100000\r\n");
    std::string argument = "$1000\r\n" + std::string(1000, 'x') + "\r\n";
    size_t sent = 0;
    for (; sent < (4u << 20) && !session->killed; sent += argument.size()) {
      session->Receive(argument);
    }
    EXPECT_TRUE(session->killed);
    EXPECT_LT(sent, size_t{2 << 20});
  }
  {
    SCOPED_TRACE("one big argument, read into its own buffer");
    const auto session = NewSession();
    session->Receive("*2\r\n$4\r\nECHO\r\n$100000000\r\n");
    size_t sent = 0;
    while (sent < (8u << 20) && !session->killed) {
      const std::span<char> own = session->ReceiveBuffer();
      if (own.empty()) {
        session->Receive(std::string(10000, 'x'));
        sent += 10000;
      } else {
        std::fill(own.begin(), own.end(), 'x');
        session->Received(own.size());
        sent += own.size();
      }
    }
    EXPECT_TRUE(session->killed);
    EXPECT_LT(sent, size_t{4 << 20});
  }
}

TEST_F(SessionTest, AClientWithTooMuchOutputIsClosedAtTheHardLimit) {
  Build({"--client-output-buffer-limit", "normal", "100000", "0", "0"});
  const auto session = NewSession();
  const std::string value(30000, 'v');
  session->Receive(Request({"set", "k", value}));
  Take(*session);
  for (int i = 0; i < 3; ++i) session->Receive(Request({"get", "k"}));
  EXPECT_FALSE(session->killed);
  session->Receive(Request({"get", "k"}) + Request({"set", "late", "v"}));
  EXPECT_TRUE(session->killed);
  EXPECT_EQ(Exchange(*NewSession(), Request({"exists", "late"})), ":0\r\n");
  EXPECT_EQ(server_->loops().front()->stats().output_limit_closed, 1u);
}

TEST_F(SessionTest, AClientThatTakesItsOutputIsNotClosed) {
  Build({"--client-output-buffer-limit", "normal", "100000", "50000", "1"});
  const auto session = NewSession();
  const std::string value(30000, 'v');
  session->Receive(Request({"set", "k", value}));
  for (int i = 0; i < 20; ++i) {
    session->Receive(Request({"get", "k"}));
    Take(*session);
  }
  EXPECT_FALSE(session->killed);
}

TEST_F(SessionTest, TheSoftLimitClosesOnlyAfterItsTime) {
  Build({"--client-output-buffer-limit", "normal", "0", "50000", "100"});
  const auto session = NewSession();
  const std::string value(60000, 'v');
  session->Receive(Request({"set", "k", value}) + Request({"get", "k"}));
  EXPECT_FALSE(session->killed);
  EXPECT_NE(session->over_soft_limit_since_ms, 0);
  session->over_soft_limit_since_ms -= 99'000;
  EXPECT_FALSE(server_->OverOutputLimit(*session));
  session->over_soft_limit_since_ms -= 2'000;
  EXPECT_TRUE(server_->OverOutputLimit(*session));
  Take(*session);
  EXPECT_FALSE(server_->OverOutputLimit(*session)) << "below it the clock starts anew";
  EXPECT_EQ(session->over_soft_limit_since_ms, 0);
}

TEST_F(SessionTest, MovesItsOutputWithoutLosingAByte) {
  const auto session = NewSession();
  session->Receive("ECHO abc\r\nECHO def\r\n");
  Buffer to;
  session->Sent(4);
  session->TakeOutput(5, &to);
  EXPECT_EQ(to.view(), "abc\r\n");
  to.Clear();
  session->TakeOutput(session->output().size(), &to);
  EXPECT_EQ(to.view(), "$3\r\ndef\r\n");
  EXPECT_TRUE(session->output().empty());
}

// Random bytes, and good requests with flipped bits, in pieces of any size: a session answers or
// closes, and holds no more than it was given.
TEST_F(SessionTest, SurvivesAnyBytes) {
  Random random(TestSeed());
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  for (int round = 0; round < 2000; ++round) {
    const auto session = NewSession();
    std::string bytes;
    if (random.Below(2) == 0) {
      for (uint64_t i = random.Below(300); i > 0; --i) {
        bytes += random.Below(3) == 0 ? "*$:\r\n019-\" "[random.Below(12)]
                                      : static_cast<char>(random.Below(256));
      }
    } else {
      bytes = Request({"mset", "k", "v", "l", "w"}) + Request({"get", "k"}) + "PING\r\n" +
              Request({"setrange", "k", "5", "x"}) + Request({"hello", "3"});
      for (uint64_t flips = 1 + random.Below(5); flips > 0; --flips) {
        bytes[random.Below(bytes.size())] ^= static_cast<char>(1 << random.Below(8));
      }
    }
    for (size_t begin = 0; begin < bytes.size() && !session->closing() && !session->killed;) {
      const size_t piece = std::min<size_t>(1 + random.Below(64), bytes.size() - begin);
      session->Receive(std::string_view(bytes).substr(begin, piece));
      begin += piece;
      Take(*session);
    }
    ASSERT_LE(session->MemoryBytes(), size_t{2 << 20}) << "round " << round;
  }
}

}  // namespace
}  // namespace crab

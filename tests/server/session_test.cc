#include "src/server/session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "src/server/server.h"
#include "tests/support/fake_log.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::Arguments;
using test::FakeLog;
using test::Mix;
using test::Request;
using test::TestSeed;
using Wait = Session::Wait;

// Sessions of a server that was built and does not run: the test is their connection.
class SessionTest : public testing::Test {
 protected:
  SessionTest() { Build({}); }

  void Build(Arguments arguments) {
    SetLogLevel(LogLevel::kNothing);
    server_.reset();
    Arguments all{"--port", "0", "--unixsocket", directory_.path() + "/socket", "--threads", "1"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    auto config = test::ConfigOf(all);
    ASSERT_TRUE(config.ok()) << config.message();
    auto server = Server::Start(std::move(*config));
    ASSERT_TRUE(server.ok()) << server.message();
    server_ = std::move(*server);
  }
  std::unique_ptr<Session> NewSession() {
    Loop& loop = *server_->loops().front();
    loop.dispatcher().RefreshClock();
    SessionOptions options;
    options.peer_address = options.local_address = "127.0.0.1:1";
    return std::make_unique<Session>(*server_, loop, loop.dispatcher(), ++last_id_, options);
  }
  // All that may leave now.
  std::string Take(Session& session) {
    const std::string bytes(session.Sendable());
    session.Sent(bytes.size());
    return bytes;
  }
  std::string Exchange(Session& session, std::string_view bytes) {
    session.Receive(bytes);
    return Take(session);
  }
  void UseLog() { server_->execution().log = &log_; }
  // From now on a reply that saw a record waits until the test releases it.
  void HoldReplies() {
    UseLog();
    log_.releases_at_once = false;
  }

  test::ScopedDirectory directory_;
  FakeLog log_;
  std::unique_ptr<Server> server_;
  uint64_t last_id_ = 0;
};

constexpr char kOk[] = "+OK\r\n";

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

// --- replies that wait for the log ---

TEST_F(SessionTest, HoldsAReplyUntilItsRecordIsReleased) {
  HoldReplies();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"})), "");
  EXPECT_TRUE(session->held());
  log_.Release(1);
  EXPECT_EQ(Take(*session), kOk);
  EXPECT_FALSE(session->held());
}

TEST_F(SessionTest, SendsWhatSawNothingUnreleased) {
  HoldReplies();
  const auto writer = NewSession();
  EXPECT_EQ(Exchange(*writer, Request({"set", "k", "v"})), "");
  const auto reader = NewSession();
  EXPECT_EQ(Exchange(*reader, Request({"ping"})), "+PONG\r\n");
  EXPECT_EQ(Exchange(*reader, Request({"get", "k"})), "") << "it saw what may yet be lost";
  log_.Release(1);
  EXPECT_EQ(Take(*reader), "$1\r\nv\r\n");
}

TEST_F(SessionTest, RepliesLeaveInOrderAndEachWhenItsOwnRecordIsReleased) {
  HoldReplies();
  const auto session = NewSession();
  // A client that never stops writing: later gates must not hold earlier replies back.
  constexpr int kRounds = 1000;
  int answered = 0;
  for (int i = 1; i <= kRounds; ++i) {
    session->Receive(Request({"incr", "n"}));
    log_.Release(i - 1);  // the log is always one record behind
    for (std::string out = Take(*session); !out.empty();) {
      ++answered;
      const std::string reply = ":" + std::to_string(answered) + "\r\n";
      ASSERT_TRUE(out.starts_with(reply)) << out;
      out.erase(0, reply.size());
    }
    ASSERT_EQ(answered, i - 1);
    ASSERT_TRUE(session->held());
  }
  log_.Release(kRounds);
  EXPECT_EQ(Take(*session), ":" + std::to_string(kRounds) + "\r\n");
}

TEST_F(SessionTest, ARandomMixOfWritesAndReleasesKeepsTheOrderAndTheGates) {
  HoldReplies();
  Random random(TestSeed());
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  const auto session = NewSession();
  std::string expected;  // all replies so far
  std::string got;
  struct Due {
    size_t end;
    wal::Lsn gate;
  };
  std::vector<Due> dues;  // of each batch
  int64_t n = 0;
  wal::Lsn released = 0;
  for (int step = 0; step < 5000; ++step) {
    if (random.Below(2) == 0) {
      std::string batch;
      for (uint64_t i = random.Below(4); i > 0; --i) {
        if (random.Below(3) == 0) {
          batch += Request({"ping"});
          expected += "+PONG\r\n";
        } else {
          batch += Request({"incr", "n"});
          expected += ":" + std::to_string(++n) + "\r\n";
        }
      }
      session->Receive(batch);
      dues.push_back({expected.size(), log_.last_lsn()});
    } else if (released < log_.last_lsn()) {
      released += 1 + random.Below(log_.last_lsn() - released);
      log_.Release(released);
    }
    // The socket takes what it likes of what may leave.
    const std::string_view sendable = session->Sendable();
    const size_t sent = random.Below(sendable.size() + 1);
    got += sendable.substr(0, sent);
    const size_t limit_end = got.size() - sent + sendable.size();
    session->Sent(sent);
    size_t must = 0;  // what is released has to be sendable, and nothing else may be
    for (const Due& due : dues) {
      if (due.gate <= released) must = due.end;
    }
    ASSERT_EQ(limit_end, must) << "step " << step;
  }
  log_.Release(log_.last_lsn());
  got += Take(*session);
  EXPECT_EQ(got, expected);
}

TEST_F(SessionTest, KnowsOfEveryHeldReplyWhetherItsRecordWasGivenUp) {
  HoldReplies();
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "1"}));
  session->Receive(Request({"set", "k", "2"}));
  EXPECT_FALSE(session->HeldForNothing(log_));
  log_.failed_above = 1;  // the first became durable, the second did not
  EXPECT_TRUE(session->HeldForNothing(log_));
}

TEST_F(SessionTest, HoldsWhatALogGaveUpBeforeItsReplyWasQueued) {
  UseLog();
  log_.releases_at_once = false;
  const auto session = NewSession();
  // The log degrades under `sync` between the append and the end of the batch: it opens all gates.
  log_.on_append = [&] {
    log_.failed_above = 0;
    log_.SetState(wal::State::kDegraded);
    log_.Release(UINT64_MAX);
  };
  session->Receive(Request({"set", "k", "v"}));
  EXPECT_TRUE(session->held());
  EXPECT_TRUE(session->HeldForNothing(log_));
  // What begins afterwards runs without the log and is held by nothing.
  const auto later = NewSession();
  EXPECT_EQ(Exchange(*later, Request({"get", "k"})), "$1\r\nv\r\n");
}

TEST_F(SessionTest, HoldsWhatALogGivesUpThatHealedInTheMiddleOfThePipeline) {
  UseLog();
  log_.releases_at_once = false;
  log_.SetState(wal::State::kDegraded);  // behind a gap
  log_.Release(UINT64_MAX);
  log_.on_append = [&] {
    if (log_.last_lsn() == 1) {  // the gap is bridged ...
      log_.SetState(wal::State::kRunning);
      log_.Release(1);
    } else {  // ... and the disk fails again
      log_.failed_above = 1;
      log_.SetState(wal::State::kDegraded);
      log_.Release(UINT64_MAX);
    }
  };
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "a", "1"}) + Request({"set", "b", "2"})), kOk);
  EXPECT_TRUE(session->HeldForNothing(log_));
}

TEST_F(SessionTest, HoldsWhatALogGivesUpBetweenTwoLooksAtIt) {
  HoldReplies();
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "v"}));
  // Whatever was asked before, all gates open now.
  log_.on_gate_asked = [&] {
    log_.failed_above = 0;
    log_.SetState(wal::State::kDegraded);
    log_.Release(UINT64_MAX);
  };
  EXPECT_FALSE(session->HeldForNothing(log_));
  EXPECT_EQ(Take(*session), "");
  ASSERT_TRUE(session->HeldForNothing(log_));
  EXPECT_TRUE(session->HeldIsDecided()) << "nobody has to wait for more";
}

TEST_F(SessionTest, ClosesAfterTheHeldReplyOfQuitAndNotBefore) {
  HoldReplies();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"}) + Request({"quit"})), "");
  EXPECT_TRUE(session->closing());
  EXPECT_TRUE(session->held());
  log_.Release(1);
  EXPECT_EQ(Take(*session), "+OK\r\n+OK\r\n");
}

// --- CLIENT DURABILITY ---

// The log's own policy is `async` from here on: everything may leave, nothing is on disk.
constexpr wal::Lsn kEverything = UINT64_MAX;

TEST_F(SessionTest, TellsAndTakesTheDurabilityOfAConnection) {
  UseLog();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY\r\n"), "$7\r\ndefault\r\n");
  for (const std::string name : {"none", "async", "sync", "default"}) {
    EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY " + name + "\r\nCLIENT DURABILITY\r\n"),
              "+OK\r\n$" + std::to_string(name.size()) + "\r\n" + name + "\r\n");
  }
  EXPECT_EQ(Exchange(*session, "client durability SYNC\r\nRESET\r\nclient durability\r\n"),
            "+OK\r\n+RESET\r\n$7\r\ndefault\r\n");
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY always\r\n"),
            "-ERR CLIENT DURABILITY mode must be NONE, ASYNC, SYNC or DEFAULT\r\n");
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync now\r\n"),
            "-ERR wrong number of arguments for 'client|durability' command\r\n");
}

TEST_F(SessionTest, OneThatAsksForSyncWaitsForTheDiskAndTheOthersDoNot) {
  HoldReplies();
  log_.Release(kEverything);
  log_.SetDurable(0);
  const auto strict = NewSession();
  const auto lax = NewSession();
  EXPECT_EQ(Exchange(*strict, "CLIENT DURABILITY sync\r\n"), kOk);
  EXPECT_EQ(Exchange(*lax, "SET a 1\r\n"), kOk);
  EXPECT_EQ(Exchange(*strict, "SET b 1\r\n"), "");
  EXPECT_TRUE(strict->HeldForOwnSync());
  EXPECT_EQ(Exchange(*strict, "GET a\r\n"), "") << "what it is told must be on disk as well";
  log_.SetDurable(1);
  EXPECT_EQ(Take(*strict), "");
  log_.SetDurable(2);
  EXPECT_EQ(Take(*strict), "+OK\r\n$1\r\n1\r\n");
  EXPECT_EQ(Exchange(*strict, "GET a\r\n"), "$1\r\n1\r\n");
}

TEST_F(SessionTest, OneThatAsksForLessLeavesWhileThePolicyMakesTheOthersWait) {
  HoldReplies();
  log_.ReleaseUnsynced(kEverything);
  const auto strict = NewSession();
  EXPECT_EQ(Exchange(*strict, "SET a 1\r\n"), "");
  for (const std::string name : {"async", "none"}) {
    const auto lax = NewSession();
    EXPECT_EQ(Exchange(*lax, "CLIENT DURABILITY " + name + "\r\nSET b 1\r\nGET a\r\n"),
              "+OK\r\n+OK\r\n$1\r\n1\r\n");
    EXPECT_FALSE(lax->HeldForOwnSync());
  }
  log_.ReleaseUnsynced(0);  // a record that lives on the heap only
  const auto lax = NewSession();
  EXPECT_EQ(Exchange(*lax, "CLIENT DURABILITY async\r\n"), kOk);
  EXPECT_EQ(Exchange(*lax, "SET b 1\r\n"), "");
  log_.ReleaseUnsynced(kEverything);
  EXPECT_EQ(Take(*lax), kOk);
  EXPECT_EQ(Take(*strict), "");
}

TEST_F(SessionTest, EachReplyWaitsForWhatWasAskedWhenItWasMade) {
  HoldReplies();
  log_.Release(kEverything);
  log_.SetDurable(0);
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session,
                     "INCR n\r\nCLIENT DURABILITY sync\r\nINCR n\r\n"
                     "CLIENT DURABILITY async\r\nINCR n\r\n"),
            ":1\r\n");
  log_.SetDurable(1);
  EXPECT_EQ(Take(*session), "") << "raising and the first write behind it came in one go";
  log_.SetDurable(2);
  EXPECT_EQ(Take(*session), "+OK\r\n:2\r\n+OK\r\n:3\r\n");
  EXPECT_EQ(Exchange(*session, "INCR n\r\n"), ":4\r\n");
  // Raising tells that all before it is on disk.
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync\r\n"), "");
  log_.SetDurable(4);
  EXPECT_EQ(Take(*session), kOk);
}

TEST_F(SessionTest, WritesOfOneThatAsksForSyncAreRefusedWithoutALog) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync\r\n"),
            "-ERR CLIENT DURABILITY sync cannot be used when appendonly is disabled.\r\n");
  UseLog();
  const std::string refused =
      "-MISCONF This connection asked for CLIENT DURABILITY sync, and the server is running "
      "without its write-ahead log.\r\n";
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync\r\nSET k 1\r\n"), "+OK\r\n+OK\r\n");
  log_.SetState(wal::State::kDegraded);
  log_.drops = true;
  EXPECT_EQ(Exchange(*session, "SET k 2\r\nGET k\r\n"), refused + "$1\r\n1\r\n");
  EXPECT_EQ(Exchange(*NewSession(), "SET k 3\r\n"), kOk);
  EXPECT_EQ(Exchange(*session, "GET k\r\n"), "$1\r\n3\r\n");
  log_.SetState(wal::State::kRunning);
  log_.drops = false;
  EXPECT_EQ(Exchange(*session, "SET k 4\r\n"), kOk);
  server_->execution().log = nullptr;
  session->ForgetGate();
  EXPECT_EQ(Exchange(*session, "SET k 5\r\nGET k\r\n"), refused + "$1\r\n4\r\n");
}

TEST_F(SessionTest, APolicyThatCannotBeKeptIsRefused) {
  UseLog();
  const auto session = NewSession();
  log_.SetState(wal::State::kDegraded);
  EXPECT_EQ(Exchange(*session, "CONFIG SET appendfsync always\r\n"),
            "-MISCONF wal-sync-policy sync cannot be promised while the log is not kept; see "
            "wal_state in INFO persistence.\r\n");
  EXPECT_EQ(Exchange(*session, "CONFIG GET appendfsync\r\n"),
            "*2\r\n$11\r\nappendfsync\r\n$8\r\neverysec\r\n");
  EXPECT_EQ(Exchange(*session, "CONFIG SET appendfsync no\r\n"), kOk);
  log_.SetState(wal::State::kRunning);
  EXPECT_EQ(Exchange(*session, "CONFIG SET appendfsync always\r\n"), kOk);
  log_.SetState(wal::State::kDegraded);
  EXPECT_EQ(Exchange(*session, "CONFIG SET appendfsync always\r\n"), kOk) << "nothing changes";
}

// As Redis does: who watches a server by PING sees that its disk has failed.
TEST_F(SessionTest, PingIsRefusedTogetherWithWrites) {
  UseLog();
  const auto session = NewSession();
  const std::string refused =
      "-MISCONF Errors writing to the write-ahead log: the disk is on fire\r\n";
  log_.SetState(wal::State::kRefusing);
  EXPECT_EQ(Exchange(*session, "PING\r\nPING message\r\nSET k v\r\nECHO x\r\n"),
            refused + refused + refused + "$1\r\nx\r\n");
  log_.SetState(wal::State::kDegraded);
  EXPECT_EQ(Exchange(*session, "PING\r\n"), "+PONG\r\n");
}

TEST_F(SessionTest, WhatTheLogGaveUpIsNeverAcknowledgedToOneThatAsksForSync) {
  HoldReplies();
  log_.Release(kEverything);
  log_.SetDurable(0);
  const auto strict = NewSession();
  EXPECT_EQ(Exchange(*strict, "CLIENT DURABILITY sync\r\n"), kOk);
  EXPECT_EQ(Exchange(*strict, "SET k 1\r\n"), "");
  EXPECT_FALSE(strict->HeldForNothing(log_));
  log_.SetState(wal::State::kDegraded);
  log_.given_up_above = 0;
  EXPECT_EQ(Take(*strict), "");
  EXPECT_TRUE(strict->HeldForNothing(log_));
  // Also where it gave up in the middle of the command.
  log_.SetState(wal::State::kRunning);
  const auto late = NewSession();
  EXPECT_EQ(Exchange(*late, "CLIENT DURABILITY sync\r\n"), kOk);
  log_.drops = true;
  late->Receive("SET k 2\r\n");
  EXPECT_TRUE(late->killed);
  // Nobody else was promised anything.
  const auto lax = NewSession();
  EXPECT_EQ(Exchange(*lax, "SET k 3\r\n"), kOk);
  EXPECT_FALSE(lax->killed);
}

// --- requests that wait ---

TEST_F(SessionTest, TriesAgainWithoutLosingOrDoublingWhenTheLogHadNoRoom) {
  UseLog();
  const auto session = NewSession();
  log_.has_room = false;
  const std::string pipeline = Request({"get", "n"}) + Request({"incr", "n"}) +
                               Request({"incr", "n"}) + Request({"get", "n"});
  EXPECT_EQ(Exchange(*session, pipeline), "$-1\r\n");
  EXPECT_EQ(session->waiting(), Wait::kLogRoom);
  session->Resume();
  EXPECT_EQ(session->waiting(), Wait::kLogRoom);
  EXPECT_EQ(Exchange(*session, Request({"echo", "x"})), "") << "what comes later waits behind it";
  log_.has_room = true;
  session->Resume();
  EXPECT_EQ(session->waiting(), Wait::kNothing);
  EXPECT_EQ(Take(*session), ":1\r\n:2\r\n$1\r\n2\r\n$1\r\nx\r\n");
  EXPECT_EQ(log_.records().size(), 2u);
  EXPECT_EQ(session->input_bytes(), 0u);
}

TEST_F(SessionTest, RoomThatComesAndGoesLosesAndDoublesNothing) {
  UseLog();
  Random random(TestSeed());
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  const auto session = NewSession();
  std::string stream;
  constexpr int kRequests = 500;
  for (int i = 0; i < kRequests; ++i) stream += Request({"incr", "n"});
  std::string got;
  for (size_t begin = 0; begin < stream.size();) {
    log_.has_room = random.Below(2) == 0;
    const size_t bytes = std::min<size_t>(1 + random.Below(200), stream.size() - begin);
    session->Receive(std::string_view(stream).substr(begin, bytes));
    begin += bytes;
    log_.has_room = random.Below(2) == 0;
    session->Resume();
    got += Take(*session);
  }
  log_.has_room = true;
  session->Resume();
  got += Take(*session);
  std::string expected;
  for (int i = 1; i <= kRequests; ++i) expected += ":" + std::to_string(i) + "\r\n";
  EXPECT_EQ(got, expected);
}

TEST_F(SessionTest, WaitsOutAPause) {
  const auto admin = NewSession();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1000000 WRITE\r\n"), kOk);
  EXPECT_EQ(Exchange(*session, "PING\r\nSET k v\r\nGET k\r\n"), "+PONG\r\n");
  EXPECT_EQ(session->waiting(), Wait::kPause);
  EXPECT_EQ(Exchange(*admin, "GET k\r\nCLIENT UNPAUSE\r\n"), "$-1\r\n+OK\r\n");
  session->Resume();
  EXPECT_EQ(Take(*session), "+OK\r\n$1\r\nv\r\n");
}

TEST_F(SessionTest, APauseIsNeverMadeShorterOrNarrower) {
  const auto admin = NewSession();
  Execution& execution = server_->execution();
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1000000 WRITE\r\n"), kOk);
  const int64_t until_ms = execution.pause_until_ms;
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1 WRITE\r\n"), kOk);
  EXPECT_EQ(execution.pause_until_ms, until_ms);
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1 ALL\r\n"), kOk);
  EXPECT_FALSE(execution.pause_writes_only);
}

TEST_F(SessionTest, SwitchesRepliesOffAndOn) {
  const auto session = NewSession();
  EXPECT_EQ(
      Exchange(*session,
               "CLIENT REPLY SKIP\r\nPING\r\nECHO 1\r\nCLIENT REPLY SKIP\r\nNOPE\r\nECHO 2\r\n"
               "CLIENT REPLY OFF\r\nPING\r\nGET\r\nCLIENT REPLY SKIP\r\nPING\r\n"
               "CLIENT REPLY ON\r\nECHO 3\r\n"),
      "$1\r\n1\r\n$1\r\n2\r\n+OK\r\n$1\r\n3\r\n");
}

TEST_F(SessionTest, WaitaofAnswersWhenTheWritesOfItsConnectionAreDurable) {
  UseLog();
  log_.releases_at_once = false;
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "v"}));
  log_.Release(1);
  log_.SetDurable(0);  // as under `async`: released, not yet on disk
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "1", "0", "0"}) + Request({"ping"})), kOk);
  EXPECT_EQ(session->waiting(), Wait::kDurable);
  EXPECT_EQ(log_.syncs_requested(), 1u);
  session->Resume();
  EXPECT_EQ(Take(*session), "");
  log_.SetDurable(1);
  session->Resume();
  EXPECT_EQ(Take(*session), "*2\r\n:1\r\n:0\r\n+PONG\r\n");
  EXPECT_EQ(session->waiting(), Wait::kNothing);
}

TEST_F(SessionTest, WaitaofGivesUpAtItsTimeout) {
  UseLog();
  log_.releases_at_once = false;
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "v"}));
  log_.Release(1);
  log_.SetDurable(0);
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "1", "0", "1"})), kOk);
  Dispatcher& dispatcher = server_->loops().front()->dispatcher();
  const int64_t asked_ms = dispatcher.now_ms();
  while (dispatcher.now_ms() < asked_ms + 2) dispatcher.RefreshClock();
  session->Resume();
  EXPECT_EQ(Take(*session), "*2\r\n:0\r\n:0\r\n");
  // Waiting for replicas only: what the disk has is told truly all the same.
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "0", "1", "1"})), "");
  const int64_t again_ms = dispatcher.now_ms();
  while (dispatcher.now_ms() < again_ms + 2) dispatcher.RefreshClock();
  session->Resume();
  EXPECT_EQ(Take(*session), "*2\r\n:0\r\n:0\r\n");
}

TEST_F(SessionTest, WaitaofDoesNotTakeADegradedLogsWord) {
  UseLog();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"})), kOk);
  log_.SetState(wal::State::kDegraded);
  log_.drops = true;
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "w"})), kOk);
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "0", "0", "0"})), "*2\r\n:0\r\n:0\r\n");
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "1", "0", "0"})), "");
  session->Resume();
  EXPECT_EQ(Take(*session), "");
  log_.SetState(wal::State::kRunning);  // healed: what was not logged is in the checkpoint
  session->Resume();
  EXPECT_EQ(Take(*session), "*2\r\n:1\r\n:0\r\n");
}

TEST_F(SessionTest, WaitaofRefusesAsRedisDoes) {
  UseLog();
  const auto session = NewSession();
  const std::pair<const char*, const char*> cases[] = {
      {"2 0 0", "ERR value is out of range, value must between 0 and 1"},
      {"x 0 0", "ERR value is not an integer or out of range"},
      {"1 -1 0", "ERR value is out of range, must be positive"},
      {"1 0 x", "ERR timeout is not an integer or out of range"},
      {"1 0 -1", "ERR timeout is negative"},
      {"1 0 9223372036854775807", "ERR timeout is out of range"},
      {"1 0", "ERR wrong number of arguments for 'waitaof' command"},
  };
  for (const auto& [arguments, error] : cases) {
    EXPECT_EQ(Exchange(*session, "WAITAOF " + std::string(arguments) + "\r\n"),
              "-" + std::string(error) + "\r\n");
  }
}

TEST_F(SessionTest, WaitaofNeedsALog) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "1", "0", "0"})),
            "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n");
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "0", "0", "0"})), "*2\r\n:0\r\n:0\r\n");
}

TEST_F(SessionTest, WaitaofEndsWhenTheLogIsSwitchedOffUnderIt) {
  UseLog();
  log_.releases_at_once = false;
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "v"}) + Request({"waitaof", "1", "0", "0"}));
  EXPECT_EQ(session->waiting(), Wait::kDurable);
  server_->execution().log = nullptr;
  session->ForgetGate();
  session->Resume();
  EXPECT_EQ(Take(*session), std::string(kOk) + "-" + kWaitAofWithoutLog + "\r\n");
  EXPECT_EQ(session->waiting(), Wait::kNothing);
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

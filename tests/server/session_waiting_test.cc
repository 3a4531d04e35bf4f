// What a session holds back: replies that wait for the log, requests that wait for room, a pause or
// WAITAOF.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "src/server/server.h"
#include "src/server/session.h"
#include "tests/server/session_life.h"
#include "tests/support/fake_log.h"
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

class SessionWaitingTest : public SessionTest {};

constexpr wal::Lsn kEverything = UINT64_MAX;

// --- replies that wait for the log ---

TEST_F(SessionWaitingTest, HoldsAReplyUntilItsRecordIsReleased) {
  HoldReplies();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"})), "");
  EXPECT_TRUE(session->held());
  log_.Release(1);
  EXPECT_EQ(Take(*session), kOk);
  EXPECT_FALSE(session->held());
}

TEST_F(SessionWaitingTest, SendsWhatSawNothingUnreleased) {
  HoldReplies();
  const auto writer = NewSession();
  EXPECT_EQ(Exchange(*writer, Request({"set", "k", "v"})), "");
  const auto reader = NewSession();
  EXPECT_EQ(Exchange(*reader, Request({"ping"})), "+PONG\r\n");
  EXPECT_EQ(Exchange(*reader, Request({"get", "k"})), "") << "it saw what may yet be lost";
  log_.Release(1);
  EXPECT_EQ(Take(*reader), "$1\r\nv\r\n");
}

TEST_F(SessionWaitingTest, RepliesLeaveInOrderAndEachWhenItsOwnRecordIsReleased) {
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

TEST_F(SessionWaitingTest, ARandomMixOfWritesAndReleasesKeepsTheOrderAndTheGates) {
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

TEST_F(SessionWaitingTest, KnowsOfEveryHeldReplyWhetherItsRecordWasGivenUp) {
  HoldReplies();
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "1"}));
  session->Receive(Request({"set", "k", "2"}));
  EXPECT_FALSE(session->HeldForNothing(log_));
  log_.failed_above = 1;  // the first became durable, the second did not
  EXPECT_TRUE(session->HeldForNothing(log_));
}

TEST_F(SessionWaitingTest, HoldsWhatALogGaveUpBeforeItsReplyWasQueued) {
  UseLog();
  log_.releases_at_once = false;
  const auto session = NewSession();
  // The log degrades under `sync` between the append and the end of the batch: it opens all gates.
  log_.on_append = [&] {
    log_.failed_above = 0;
    log_.SetState(wal::State::kDegraded);
    log_.Release(kEverything);
  };
  session->Receive(Request({"set", "k", "v"}));
  EXPECT_TRUE(session->held());
  EXPECT_TRUE(session->HeldForNothing(log_));
  // What begins afterwards runs without the log and is held by nothing.
  const auto later = NewSession();
  EXPECT_EQ(Exchange(*later, Request({"get", "k"})), "$1\r\nv\r\n");
}

// What was read is in memory, and is what anybody reads who comes now.
TEST_F(SessionWaitingTest, WhatWasOnlyReadLeavesWhenTheLogGivesItUp) {
  HoldReplies();
  const auto writer = NewSession();
  EXPECT_EQ(Exchange(*writer, Request({"set", "k", "v"})), "");
  const auto reader = NewSession();
  EXPECT_EQ(Exchange(*reader, Request({"get", "k"})), "");
  const auto all = NewSession();
  EXPECT_EQ(Exchange(*all, Request({"dbsize"})), "") << "an exclusive command";
  log_.failed_above = 0;
  log_.SetState(wal::State::kDegraded);
  log_.Release(kEverything);
  for (Session* session : {reader.get(), all.get()}) {
    EXPECT_TRUE(session->HeldIsDecided());
    EXPECT_FALSE(session->HeldForNothing(log_));
  }
  EXPECT_EQ(Take(*reader), "$1\r\nv\r\n");
  EXPECT_EQ(Take(*all), ":1\r\n");
  EXPECT_TRUE(writer->HeldForNothing(log_));
}

TEST_F(SessionWaitingTest, AReadDoesNotLetTheWriteInFrontOfItLeave) {
  HoldReplies();
  const auto one_batch = NewSession();
  EXPECT_EQ(Exchange(*one_batch, Request({"set", "k", "v"}) + Request({"get", "k"})), "");
  const auto two = NewSession();
  EXPECT_EQ(Exchange(*two, Request({"mset", "k", "v", "other", "v"})), "");
  EXPECT_EQ(Exchange(*two, Request({"get", "k"})), "");
  const auto exclusive = NewSession();
  EXPECT_EQ(Exchange(*exclusive, Request({"flushall"})), "");
  EXPECT_EQ(Exchange(*exclusive, Request({"get", "k"})), "");
  log_.failed_above = 0;
  log_.SetState(wal::State::kDegraded);
  log_.Release(kEverything);
  for (Session* session : {one_batch.get(), two.get(), exclusive.get()}) {
    EXPECT_TRUE(session->HeldForNothing(log_));
    EXPECT_EQ(Take(*session), "");
  }
}

TEST_F(SessionWaitingTest, WhatWasAcknowledgedIsNotHeldAgainstALaterRead) {
  HoldReplies();
  log_.Release(kEverything);
  log_.SetDurable(0);
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"})), kOk);  // under `async`
  log_.SetDurable(1);
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync\r\n"), kOk);
  log_.SetDurable(0);
  EXPECT_EQ(Exchange(*session, Request({"get", "k"})), "");
  log_.given_up_above = 0;
  EXPECT_EQ(Take(*session), "$1\r\nv\r\n");
  EXPECT_FALSE(session->HeldForNothing(log_));
}

// Its reply says that all before it is durable.
TEST_F(SessionWaitingTest, TheChangeToSyncIsNotConfirmedWhereWhatWasBeforeItIsGivenUp) {
  HoldReplies();
  log_.Release(kEverything);
  log_.SetDurable(0);
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "k", "v"})), kOk);  // under `async`
  EXPECT_EQ(Exchange(*session, "CLIENT DURABILITY sync\r\n"), "");
  log_.given_up_above = 0;
  EXPECT_EQ(Take(*session), "");
  EXPECT_TRUE(session->HeldForNothing(log_));
}

// Where the log is switched off and could not be completed.
TEST_F(SessionWaitingTest, WhatIsHeldAboveWhatIsDurableIsOnlyWhatAcknowledges) {
  HoldReplies();
  const auto writer = NewSession();
  EXPECT_EQ(Exchange(*writer, Request({"set", "k", "v"})), "");
  const auto reader = NewSession();
  EXPECT_EQ(Exchange(*reader, Request({"get", "k"})), "");
  EXPECT_TRUE(writer->HeldAbove(0));
  EXPECT_FALSE(writer->HeldAbove(1));
  EXPECT_FALSE(reader->HeldAbove(0));
}

TEST_F(SessionWaitingTest, HoldsWhatALogGivesUpThatHealedInTheMiddleOfThePipeline) {
  UseLog();
  log_.releases_at_once = false;
  log_.SetState(wal::State::kDegraded);  // behind a gap
  log_.Release(kEverything);
  log_.on_append = [&] {
    if (log_.last_lsn() == 1) {  // the gap is bridged ...
      log_.SetState(wal::State::kRunning);
      log_.Release(1);
    } else {  // ... and the disk fails again
      log_.failed_above = 1;
      log_.SetState(wal::State::kDegraded);
      log_.Release(kEverything);
    }
  };
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"set", "a", "1"}) + Request({"set", "b", "2"})), kOk);
  EXPECT_TRUE(session->HeldForNothing(log_));
}

TEST_F(SessionWaitingTest, HoldsWhatALogGivesUpBetweenTwoLooksAtIt) {
  HoldReplies();
  const auto session = NewSession();
  session->Receive(Request({"set", "k", "v"}));
  // Whatever was asked before, all gates open now.
  log_.on_gate_asked = [&] {
    log_.failed_above = 0;
    log_.SetState(wal::State::kDegraded);
    log_.Release(kEverything);
  };
  EXPECT_FALSE(session->HeldForNothing(log_));
  EXPECT_EQ(Take(*session), "");
  ASSERT_TRUE(session->HeldForNothing(log_));
  EXPECT_TRUE(session->HeldIsDecided()) << "nobody has to wait for more";
}

TEST_F(SessionWaitingTest, ClosesAfterTheHeldReplyOfQuitAndNotBefore) {
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

TEST_F(SessionWaitingTest, TellsAndTakesTheDurabilityOfAConnection) {
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

TEST_F(SessionWaitingTest, OneThatAsksForSyncWaitsForTheDiskAndTheOthersDoNot) {
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

TEST_F(SessionWaitingTest, OneThatAsksForLessLeavesWhileThePolicyMakesTheOthersWait) {
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

TEST_F(SessionWaitingTest, EachReplyWaitsForWhatWasAskedWhenItWasMade) {
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

TEST_F(SessionWaitingTest, WritesOfOneThatAsksForSyncAreRefusedWithoutALog) {
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

TEST_F(SessionWaitingTest, APolicyThatCannotBeKeptIsRefused) {
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
TEST_F(SessionWaitingTest, PingIsRefusedTogetherWithWrites) {
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

TEST_F(SessionWaitingTest, WhatTheLogGaveUpIsNeverAcknowledgedToOneThatAsksForSync) {
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

TEST_F(SessionWaitingTest, TriesAgainWithoutLosingOrDoublingWhenTheLogHadNoRoom) {
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

TEST_F(SessionWaitingTest, RoomThatComesAndGoesLosesAndDoublesNothing) {
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

TEST_F(SessionWaitingTest, WaitsOutAPause) {
  const auto admin = NewSession();
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1000000 WRITE\r\n"), kOk);
  EXPECT_EQ(Exchange(*session, "PING\r\nSET k v\r\nGET k\r\n"), "+PONG\r\n");
  EXPECT_EQ(session->waiting(), Wait::kPause);
  EXPECT_EQ(Exchange(*admin, "GET k\r\nCLIENT UNPAUSE\r\n"), "$-1\r\n+OK\r\n");
  session->Resume();
  EXPECT_EQ(Take(*session), "+OK\r\n$1\r\nv\r\n");
}

TEST_F(SessionWaitingTest, APauseIsNeverMadeShorterOrNarrower) {
  const auto admin = NewSession();
  Execution& execution = server_->execution();
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1000000 WRITE\r\n"), kOk);
  const int64_t until_ms = execution.pause_until_ms;
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1 WRITE\r\n"), kOk);
  EXPECT_EQ(execution.pause_until_ms, until_ms);
  EXPECT_EQ(Exchange(*admin, "CLIENT PAUSE 1 ALL\r\n"), kOk);
  EXPECT_FALSE(execution.pause_writes_only);
}

TEST_F(SessionWaitingTest, SwitchesRepliesOffAndOn) {
  const auto session = NewSession();
  EXPECT_EQ(
      Exchange(*session,
               "CLIENT REPLY SKIP\r\nPING\r\nECHO 1\r\nCLIENT REPLY SKIP\r\nNOPE\r\nECHO 2\r\n"
               "CLIENT REPLY OFF\r\nPING\r\nGET\r\nCLIENT REPLY SKIP\r\nPING\r\n"
               "CLIENT REPLY ON\r\nECHO 3\r\n"),
      "$1\r\n1\r\n$1\r\n2\r\n+OK\r\n$1\r\n3\r\n");
}

TEST_F(SessionWaitingTest, WaitaofAnswersWhenTheWritesOfItsConnectionAreDurable) {
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

TEST_F(SessionWaitingTest, WaitaofGivesUpAtItsTimeout) {
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

TEST_F(SessionWaitingTest, WaitaofDoesNotTakeADegradedLogsWord) {
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

TEST_F(SessionWaitingTest, WaitaofRefusesAsRedisDoes) {
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

TEST_F(SessionWaitingTest, WaitaofNeedsALog) {
  const auto session = NewSession();
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "1", "0", "0"})),
            "-ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.\r\n");
  EXPECT_EQ(Exchange(*session, Request({"waitaof", "0", "0", "0"})), "*2\r\n:0\r\n:0\r\n");
}

TEST_F(SessionWaitingTest, WaitaofEndsWhenTheLogIsSwitchedOffUnderIt) {
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

}  // namespace
}  // namespace crab

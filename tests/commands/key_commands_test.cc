// Replies and effects are those of Redis, where the words are the same.
#include <set>
#include <string>

#include "tests/commands/call_fixture.h"

namespace crab {
namespace {

class KeyCommandsTest : public CallFixture {
 protected:
  // The keys that a whole walk with SCAN returns; each step with these options.
  std::multiset<std::string> ScanAll(const std::string& options) {
    std::multiset<std::string> keys;
    std::string cursor = "0";
    int calls = 0;
    do {
      // "*2 $1 7 *1 $3 key": the words behind the cursor's length, then every second one.
      const std::vector<std::string> words = SplitLine(Run("SCAN " + cursor + options));
      cursor = words.at(2);
      for (size_t i = 5; i < words.size(); i += 2) keys.insert(words[i]);
    } while (cursor != "0" && ++calls < 100'000);
    EXPECT_EQ(cursor, "0");
    return keys;
  }
};

TEST_F(KeyCommandsTest, DelCountsAndLogsOnlyTheKeysThatWereThere) {
  Run("MSET a 1 b 2 c 3");
  EXPECT_EQ(Run("DEL a nosuch b a"), ":2");
  EXPECT_EQ(effects(), "DEL a; DEL b");
  EXPECT_EQ(Run("UNLINK c"), ":1");
  EXPECT_EQ(effects(), "DEL c");
  EXPECT_EQ(Run("DEL c"), ":0");
  EXPECT_EQ(effects(), "");
}

TEST_F(KeyCommandsTest, AnExpiredKeyIsNotRemovedButHasGone) {
  Run("SET a 1 PX 10");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("DEL a"), ":0");
  EXPECT_EQ(effects(), "DEL a");  // its expiry
}

TEST_F(KeyCommandsTest, ExistsCountsAKeyAsOftenAsItIsNamed) {
  Run("MSET a 1 b 2");
  EXPECT_EQ(Run("EXISTS a a b nosuch"), ":3");
  EXPECT_EQ(Run("TOUCH a a b nosuch"), ":3");
  EXPECT_EQ(Run("EXISTS"), "-ERR wrong number of arguments for 'exists' command");
}

TEST_F(KeyCommandsTest, LookingCountsAsAHitOrMissButNotAsAnAccess) {
  Run("SET a 1");
  runner_.now_ms += 100'000;
  Run("EXISTS a nosuch");
  Run("TYPE a");
  Run("TTL a");
  EXPECT_EQ(Run("OBJECT IDLETIME a"), ":100");
  EXPECT_EQ(runner_.stats.hits, 4u);
  EXPECT_EQ(runner_.stats.misses, 1u);
  Run("TOUCH a");
  EXPECT_EQ(Run("OBJECT IDLETIME a"), ":0");
}

TEST_F(KeyCommandsTest, TypeNamesTheTypeOrNone) {
  Run("SET a 1");
  EXPECT_EQ(Run("TYPE a"), "+string");
  EXPECT_EQ(Run("TYPE nosuch"), "+none");
}

TEST_F(KeyCommandsTest, RenameMovesTheValueWithItsDeadline) {
  Run("SET a value PX 5000");
  Run("SET b other");
  EXPECT_EQ(Run("RENAME a b"), "+OK");
  EXPECT_EQ(effects(), "SET b value PXAT 1700000005000; DEL a");
  EXPECT_EQ(Run("GET b"), "$5 value");
  EXPECT_EQ(Run("PTTL b"), ":5000");
  EXPECT_EQ(Run("EXISTS a"), ":0");
}

TEST_F(KeyCommandsTest, RenameTakesTheDestinationsDeadlineAway) {
  Run("SET a value");
  Run("SET b other PX 5000");
  EXPECT_EQ(Run("RENAME a b"), "+OK");
  EXPECT_EQ(Run("PTTL b"), ":-1");
}

TEST_F(KeyCommandsTest, RenameOfAMissingKeyIsAnErrorEvenToItself) {
  EXPECT_EQ(Run("RENAME nosuch a"), "-ERR no such key");
  EXPECT_EQ(Run("RENAME nosuch nosuch"), "-ERR no such key");
  EXPECT_EQ(Run("RENAMENX nosuch a"), "-ERR no such key");
  Run("SET a 1 PX 10");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("RENAME a b"), "-ERR no such key");
}

// It could only be logged in several records, and a crash could come between them.
TEST_F(KeyCommandsTest, WhatNoRecordHoldsIsNeitherRenamedNorCopied) {
  const std::string refusal =
      "-ERR this would change more at once than one record of the write-ahead log holds";
  runner_.keyspace.options().record_bytes_max = 1000;
  Run("SET a " + std::string(500, 'x'));
  Run("SET b other");
  EXPECT_EQ(Run("RENAME a b"), "+OK");
  Run("APPEND b " + std::string(500, 'y'));
  for (const char* line : {"RENAME b c", "RENAMENX b c", "COPY b c", "COPY b c DB 1"}) {
    EXPECT_EQ(Run(line), refusal) << line;
    EXPECT_EQ(effects(), "") << line;
  }
  EXPECT_EQ(Run("RENAME b b"), "+OK");
  EXPECT_EQ(Run("EXISTS b c"), ":1");
  EXPECT_EQ(Run("STRLEN b"), ":1000");
  EXPECT_EQ(Run("MOVE b 1"), ":1");
  EXPECT_EQ(Run("SET c 1"), "+OK");
  runner_.keyspace.options().record_bytes_max = 10'000;
  EXPECT_EQ(Run("COPY c d"), ":1");
}

TEST_F(KeyCommandsTest, RenameToItselfChangesNothing) {
  Run("SET a 1");
  EXPECT_EQ(Run("RENAME a a"), "+OK");
  EXPECT_EQ(effects(), "");
  EXPECT_EQ(Run("RENAMENX a a"), ":0");
  EXPECT_EQ(Run("GET a"), "$1 1");
}

TEST_F(KeyCommandsTest, RenamenxLeavesATakenNameAlone) {
  Run("MSET a 1 b 2");
  EXPECT_EQ(Run("RENAMENX a b"), ":0");
  EXPECT_EQ(effects(), "");
  EXPECT_EQ(Run("RENAMENX a c"), ":1");
  EXPECT_EQ(effects(), "SET c 1; DEL a");
  Run("PEXPIRE b 10");
  runner_.now_ms += 11;  // an expired name is free
  EXPECT_EQ(Run("RENAMENX c b"), ":1");
  EXPECT_EQ(effects(), "DEL b; SET b 1; DEL c");
}

TEST_F(KeyCommandsTest, CopyKeepsTheDeadlineAndReplacesOnlyWhenAsked) {
  Run("SET a value PX 5000");
  EXPECT_EQ(Run("COPY a b"), ":1");
  EXPECT_EQ(effects(), "SET b value PXAT 1700000005000");
  Run("SET a new");
  EXPECT_EQ(Run("COPY a b"), ":0");
  EXPECT_EQ(effects(), "");
  EXPECT_EQ(Run("COPY a b REPLACE"), ":1");
  EXPECT_EQ(effects(), "SET b new");
  EXPECT_EQ(Run("PTTL b"), ":-1");
  EXPECT_EQ(Run("COPY nosuch b REPLACE"), ":0");
  EXPECT_EQ(Run("GET b"), "$3 new");
}

TEST_F(KeyCommandsTest, CopyIsDeep) {
  Run("SET a " + std::string(1000, 'x'));
  Run("COPY a b");
  Run("APPEND a y");
  EXPECT_EQ(Run("STRLEN b"), ":1000");
  EXPECT_EQ(Run("STRLEN a"), ":1001");
}

TEST_F(KeyCommandsTest, CopyGetsToAnotherDatabase) {
  Run("SET a value");
  EXPECT_EQ(Run("COPY a a DB 3"), ":1");
  EXPECT_EQ(effects(), "[3] SET a value");
  EXPECT_EQ(Run("COPY a a DB 3"), ":0");
  runner_.client.db = 3;
  EXPECT_EQ(Run("GET a"), "$5 value");
}

TEST_F(KeyCommandsTest, CopyReadsItsOptionsBeforeAnythingElse) {
  const std::pair<const char*, const char*> kCases[] = {
      {"COPY a a", "-ERR source and destination objects are the same"},
      {"COPY a a DB 0", "-ERR source and destination objects are the same"},
      {"COPY a a DB 99", "-ERR DB index is out of range"},
      {"COPY a c DB", "-ERR syntax error"},
      {"COPY a c REPLACE FOO", "-ERR syntax error"},
      {"COPY a c DB x", "-ERR value is not an integer or out of range"},
      {"COPY a c DB -1", "-ERR DB index is out of range"},
      {"COPY a c DB 16", "-ERR DB index is out of range"},
      {"COPY a c DB 99999999999",
       "-ERR value is out of range, value must between -2147483648 and 2147483647"},
  };
  for (const auto& [line, reply] : kCases) EXPECT_EQ(Run(line), reply) << line;
}

TEST_F(KeyCommandsTest, MoveTakesTheKeyAlongUnlessItsNameIsTaken) {
  Run("SET a value PX 5000");
  EXPECT_EQ(Run("MOVE a 2"), ":1");
  EXPECT_EQ(effects(), "MOVE a 2");
  EXPECT_EQ(Run("EXISTS a"), ":0");
  Run("SET a other");
  EXPECT_EQ(Run("MOVE a 2"), ":0");
  EXPECT_EQ(effects(), "");
  runner_.client.db = 2;
  EXPECT_EQ(Run("GET a"), "$5 value");
  EXPECT_EQ(Run("PTTL a"), ":5000");
}

TEST_F(KeyCommandsTest, MoveChecksTheDatabaseFirst) {
  EXPECT_EQ(Run("MOVE nosuch 0"), "-ERR source and destination objects are the same");
  EXPECT_EQ(Run("MOVE nosuch 16"), "-ERR DB index is out of range");
  EXPECT_EQ(Run("MOVE nosuch -1"), "-ERR DB index is out of range");
  EXPECT_EQ(Run("MOVE nosuch x"), "-ERR value is not an integer or out of range");
  EXPECT_EQ(Run("MOVE nosuch 1"), ":0");
}

TEST_F(KeyCommandsTest, RandomkeyFindsTheOneLiveKeyAmongExpiredOnes) {
  EXPECT_EQ(Run("RANDOMKEY"), "$-1");
  for (int i = 0; i < 1000; ++i) Run("SET old" + std::to_string(i) + " x PX 10");
  Run("SET live x");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("RANDOMKEY"), "$4 live");
  Run("DEL live");
  EXPECT_EQ(Run("RANDOMKEY"), "$-1");
}

TEST_F(KeyCommandsTest, RandomkeyRemovesTheExpiredKeysThatItDraws) {
  for (int i = 0; i < 10; ++i) Run("SET old" + std::to_string(i) + " x PX 10");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("DBSIZE"), ":10");
  EXPECT_EQ(Run("RANDOMKEY"), "$-1");
  EXPECT_EQ(Run("DBSIZE"), ":0");
}

TEST_F(KeyCommandsTest, KeysMatchesAPatternAndHidesExpiredKeys) {
  Run("MSET one 1 two 2 three 3");
  Run("SET tenth 10 PX 10");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("KEYS t[wx]o"), "*1 $3 two");
  EXPECT_TRUE(Run("KEYS *").starts_with("*3 "));
  EXPECT_EQ(Run("KEYS x*"), "*0");
}

TEST_F(KeyCommandsTest, ScanReturnsEachKeyOnceWhileNothingChanges) {
  std::multiset<std::string> expected;
  for (int i = 0; i < 2000; ++i) {
    expected.insert("key" + std::to_string(i));
    Run("SET key" + std::to_string(i) + " x");
  }
  EXPECT_EQ(ScanAll(""), expected);
  EXPECT_EQ(ScanAll(" COUNT 1"), expected);
  EXPECT_EQ(ScanAll(" COUNT 9223372036854775807 TYPE StRiNg"), expected);
  EXPECT_TRUE(ScanAll(" TYPE list").empty());
  EXPECT_TRUE(ScanAll(" TYPE nosuch").empty());
  EXPECT_EQ(ScanAll(" MATCH key1?9"),
            (std::multiset<std::string>{"key109", "key119", "key129", "key139", "key149", "key159",
                                        "key169", "key179", "key189", "key199"}));
  for (int i = 0; i < 2000; i += 2) {
    Run("PEXPIRE key" + std::to_string(i) + " 10");
    expected.erase("key" + std::to_string(i));
  }
  runner_.now_ms += 11;
  EXPECT_EQ(ScanAll(""), expected);
}

TEST_F(KeyCommandsTest, ScanRemovesExpiredKeysThatItMeets) {
  Run("SET a 1");
  Run("SET b 1 PX 10");
  runner_.now_ms += 11;
  EXPECT_EQ(Run("DBSIZE"), ":2");
  EXPECT_EQ(ScanAll(" TYPE list MATCH nosuch").size(), 0u);
  EXPECT_EQ(Run("DBSIZE"), ":1");
  EXPECT_EQ(Run("GET a"), "$1 1");
}

TEST_F(KeyCommandsTest, ScanEndsAtOnceInASmallDatabase) {
  EXPECT_EQ(Run("SCAN 0"), "*2 $1 0 *0");
  Run("SET a 1");
  EXPECT_EQ(Run("SCAN 0"), "*2 $1 0 *1 $1 a");
}

TEST_F(KeyCommandsTest, ScanRefusesWhatItCannotRead) {
  const std::pair<const char*, const char*> kCases[] = {
      {"SCAN x", "-ERR invalid cursor"},
      {"SCAN 18446744073709551616", "-ERR invalid cursor"},
      {"SCAN \"0 \"", "-ERR invalid cursor"},
      {"SCAN x COUNT x", "-ERR invalid cursor"},
      {"SCAN 0 COUNT x", "-ERR value is not an integer or out of range"},
      {"SCAN 0 COUNT 0", "-ERR syntax error"},
      {"SCAN 0 COUNT -1", "-ERR syntax error"},
      {"SCAN 0 MATCH", "-ERR syntax error"},
      {"SCAN 0 FOO x", "-ERR syntax error"},
  };
  for (const auto& [line, reply] : kCases) EXPECT_EQ(Run(line), reply) << line;
}

TEST_F(KeyCommandsTest, FlushdbClearsOneDatabaseAndFlushallAll) {
  Run("SET a 1");
  runner_.client.db = 1;
  Run("SET b 1");
  EXPECT_EQ(Run("DBSIZE"), ":1");
  EXPECT_EQ(Run("FLUSHDB"), "+OK");
  EXPECT_EQ(effects(), "[1] FLUSHDB");
  EXPECT_EQ(Run("DBSIZE"), ":0");
  runner_.client.db = 0;
  EXPECT_EQ(Run("DBSIZE"), ":1");
  EXPECT_EQ(Run("FLUSHALL SYNC"), "+OK");
  EXPECT_EQ(effects(), "FLUSHALL");
  EXPECT_EQ(Run("DBSIZE"), ":0");
  EXPECT_EQ(Run("FLUSHALL async"), "+OK");
  EXPECT_EQ(Run("FLUSHALL now"), "-ERR syntax error");
  EXPECT_EQ(Run("FLUSHDB SYNC ASYNC"), "-ERR syntax error");
}

TEST_F(KeyCommandsTest, SwapdbExchangesTwoDatabases) {
  Run("SET a 1");
  EXPECT_EQ(Run("SWAPDB 0 5"), "+OK");
  EXPECT_EQ(effects(), "SWAPDB 0 5");
  EXPECT_EQ(Run("EXISTS a"), ":0");
  runner_.client.db = 5;
  EXPECT_EQ(Run("EXISTS a"), ":1");
  EXPECT_EQ(Run("SWAPDB 5 5"), "+OK");
  EXPECT_EQ(effects(), "");
}

TEST_F(KeyCommandsTest, SwapdbSaysWhichIndexIsWrong) {
  EXPECT_EQ(Run("SWAPDB x x"), "-ERR invalid first DB index");
  EXPECT_EQ(Run("SWAPDB 99 x"), "-ERR invalid second DB index");
  EXPECT_EQ(Run("SWAPDB 0 99999999999"), "-ERR invalid second DB index");
  EXPECT_EQ(Run("SWAPDB 0 16"), "-ERR DB index is out of range");
  EXPECT_EQ(Run("SWAPDB -1 0"), "-ERR DB index is out of range");
}

TEST_F(KeyCommandsTest, WhatIsLoggedRepeatsWhatWasDone) {
  const std::string large(3000, 'x');
  const ReplaySample kSamples[] = {
      {{"MSET a 1 b 2"}, "DEL a nosuch"},
      {{"MSET a 1 b 2"}, "UNLINK a b"},
      {{"SET a value PX 5000", "SET b other"}, "RENAME a b"},
      {{"SET a " + large, "PEXPIRE a 99"}, "RENAME a b"},
      {{"SET a -17"}, "RENAMENX a b"},
      {{"SET a value PX 5000"}, "COPY a b DB 2"},
      {{"SET a " + large, "SET b 1 EX 10"}, "COPY a b REPLACE"},
      {{"SET a value PX 5000"}, "MOVE a 3"},
      {{"SET a 1", "COPY a b DB 1"}, "FLUSHDB"},
      {{"SET a 1", "COPY a b DB 1"}, "FLUSHALL"},
      {{"SET a 1", "COPY a b DB 1"}, "SWAPDB 1 0"},
  };
  ExpectReplayEqualsLife(KeyCommands(), kSamples);
}

}  // namespace
}  // namespace crab

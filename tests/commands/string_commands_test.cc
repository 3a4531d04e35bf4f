#include <gtest/gtest.h>

#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/errors.h"
#include "tests/commands/call_fixture.h"
#include "tests/support/seed.h"

namespace crab {
namespace {

// The replies are those of redis-server 7.0.
struct Step {
  const char* line;
  const char* reply;         // CR LF shown as a space
  const char* effects = "";  // what the log is given
};

class StringCommandsTest : public CallFixture {
 protected:
  void Expect(const std::vector<Step>& steps) {
    for (const Step& step : steps) {
      EXPECT_EQ(Run(step.line), step.reply) << step.line;
      EXPECT_EQ(effects(), step.effects) << step.line;
    }
  }
  std::string RunWords(const std::vector<std::string>& words) { return runner_.RunWords(words); }
};

TEST_F(StringCommandsTest, SetStoresAndGetReads) {
  Expect({
      {"SET k v", "+OK", "SET k v"},
      {"GET k", "$1 v"},
      {"GET nothing", "$-1"},
      {"set k \"a b\\x01\\xff\"", "+OK", "SET k a b\001\377"},
      {"get k", "$5 a b\001\377"},
      {"SET k 123", "+OK", "SET k 123"},
      {"GET k", "$3 123"},
      {"SET \"\" \"\"", "+OK", "SET  "},
      {"GET \"\"", "$0 "},
      {"SET k", "-ERR wrong number of arguments for 'set' command"},
      {"GET", "-ERR wrong number of arguments for 'get' command"},
      {"GET a b", "-ERR wrong number of arguments for 'get' command"},
  });
}

TEST_F(StringCommandsTest, SetTakesItsConditions) {
  Expect({
      {"SET k v XX", "$-1"},
      {"EXISTS k", ":0"},
      {"SET k v NX", "+OK", "SET k v"},
      {"SET k w NX", "$-1"},
      {"GET k", "$1 v"},
      {"SET k w XX", "+OK", "SET k w"},
      {"SET k v NX XX", "-ERR syntax error"},
      {"SET k v XX NX", "-ERR syntax error"},
      {"SET k v NX NX", "$-1"},
      {"SET k x xx XX", "+OK", "SET k x"},
  });
}

// With NX as well, and whatever becomes of the condition.
TEST_F(StringCommandsTest, SetWithGetAnswersWithTheOldValue) {
  Expect({
      {"SET k v GET", "$-1", "SET k v"},
      {"SET k w GET", "$1 v", "SET k w"},
      {"SET k x NX GET", "$1 w"},
      {"GET k", "$1 w"},
      {"SET k y XX GET", "$1 w", "SET k y"},
      {"SET absent v XX GET", "$-1"},
      {"EXISTS absent", ":0"},
      {"SET new v NX GET", "$-1", "SET new v"},
      {"SET k z get GET", "$1 y", "SET k z"},
  });
}

TEST_F(StringCommandsTest, SetTakesADeadlineInEveryUnit) {
  Expect({
      {"SET k v EX 10", "+OK", "SET k v PXAT 1700000010000"},
      {"SET k v PX 10", "+OK", "SET k v PXAT 1700000000010"},
      {"SET k v EXAT 7700000000", "+OK", "SET k v PXAT 7700000000000"},
      {"SET k v PXAT 7700000000001", "+OK", "SET k v PXAT 7700000000001"},
      {"PEXPIRETIME k", ":7700000000001"},
      {"SET k w KEEPTTL", "+OK", "SET k w KEEPTTL"},
      {"PEXPIRETIME k", ":7700000000001"},
      {"SET k x", "+OK", "SET k x"},
      {"PEXPIRETIME k", ":-1"},
      {"SET k v pxat 7700000000001 NX", "$-1"},
      {"SET k v EX 10 EX 20", "+OK", "SET k v PXAT 1700000020000"},
      {"SET k v KEEPTTL KEEPTTL", "+OK", "SET k v KEEPTTL"},
      {"SET absent v KEEPTTL", "+OK", "SET absent v KEEPTTL"},
      {"PEXPIRETIME absent", ":-1"},
      {"SET k v PXAT 9223372036854775807", "+OK", "SET k v PXAT 9223372036854775807"},
      {"SET k v EXAT 9223372036854775", "+OK", "SET k v PXAT 9223372036854775000"},
  });
}

TEST_F(StringCommandsTest, SetRefusesDeadlinesThatDoNotExist) {
  Expect({
      {"SET k v EX 0", "-ERR invalid expire time in 'set' command"},
      {"SET k v EX -1", "-ERR invalid expire time in 'set' command"},
      {"SET k v PX 0", "-ERR invalid expire time in 'set' command"},
      {"SET k v EXAT 0", "-ERR invalid expire time in 'set' command"},
      {"SET k v PXAT -5", "-ERR invalid expire time in 'set' command"},
      {"SET k v EX 9223372036854775807", "-ERR invalid expire time in 'set' command"},
      {"SET k v EX 9223372036854775", "-ERR invalid expire time in 'set' command"},
      {"SET k v PX 9223372036854775807", "-ERR invalid expire time in 'set' command"},
      {"SET k v EXAT 9223372036854775807", "-ERR invalid expire time in 'set' command"},
      {"SET k v EX x", "-ERR value is not an integer or out of range"},
      {"SET k v EX 1.5", "-ERR value is not an integer or out of range"},
      {"SET k v EX \"\"", "-ERR value is not an integer or out of range"},
      {"SET k v PX 99999999999999999999", "-ERR value is not an integer or out of range"},
      {"SET k v NX EX x", "-ERR value is not an integer or out of range"},
      {"EXISTS k", ":0"},
  });
}

TEST_F(StringCommandsTest, SetRefusesWhatItDoesNotUnderstand) {
  Expect({
      {"SET k v EX", "-ERR syntax error"},
      {"SET k v EX 10 PX 10", "-ERR syntax error"},
      {"SET k v EX 10 KEEPTTL", "-ERR syntax error"},
      {"SET k v KEEPTTL EX 10", "-ERR syntax error"},
      {"SET k v PERSIST", "-ERR syntax error"},
      {"SET k v EX 10 PXAT 7700000000000", "-ERR syntax error"},
      {"SET k v nonsense", "-ERR syntax error"},
      {"SET k v EX x nonsense", "-ERR syntax error"},
      {"SET k v NX GET what", "-ERR syntax error"},
      {"SET k v \"\"", "-ERR syntax error"},
      {"EXISTS k", ":0"},
  });
}

TEST_F(StringCommandsTest, SetWhoseTimeIsUpStoresAKeyThatTheNextLookRemoves) {
  Expect({
      {"SET k v PXAT 1", "+OK", "SET k v PXAT 1"},
      {"GET k", "$-1", "DEL k"},
      {"SET k v", "+OK", "SET k v"},
      {"SET k w EXAT 1", "+OK", "SET k w PXAT 1000"},
      {"GET k", "$-1", "DEL k"},
      {"SET k v", "+OK", "SET k v"},
      {"SET k w PXAT 1 GET", "$1 v", "SET k w PXAT 1"},
      {"EXISTS k", ":0", "DEL k"},
      {"SET k v PXAT 1 GET", "$-1", "SET k v PXAT 1"},
      {"SET k v PXAT 1 XX", "$-1", "DEL k"},
      {"EXISTS k", ":0"},
  });
}

TEST_F(StringCommandsTest, SetnxSetexPsetexAndGetsetAreSet) {
  Expect({
      {"SETNX k v", ":1", "SET k v"},
      {"SETNX k w", ":0"},
      {"GET k", "$1 v"},
      {"SETEX k 10 v", "+OK", "SET k v PXAT 1700000010000"},
      {"PSETEX k 10 w", "+OK", "SET k w PXAT 1700000000010"},
      {"SETEX k 0 v", "-ERR invalid expire time in 'setex' command"},
      {"SETEX k -1 v", "-ERR invalid expire time in 'setex' command"},
      {"SETEX k x v", "-ERR value is not an integer or out of range"},
      {"PSETEX k 0 v", "-ERR invalid expire time in 'psetex' command"},
      {"PSETEX k 9223372036854775807 v", "-ERR invalid expire time in 'psetex' command"},
      {"SETEX k 9223372036854775807 v", "-ERR invalid expire time in 'setex' command"},
      {"SETEX k 10", "-ERR wrong number of arguments for 'setex' command"},
      {"PSETEX k v", "-ERR wrong number of arguments for 'psetex' command"},
      {"SETEX k 100 w", "+OK", "SET k w PXAT 1700000100000"},
      {"GETSET k v", "$1 w", "SET k v"},
      {"PTTL k", ":-1"},
      {"GETSET new v", "$-1", "SET new v"},
      {"GETSET k", "-ERR wrong number of arguments for 'getset' command"},
      {"SETNX k", "-ERR wrong number of arguments for 'setnx' command"},
  });
}

TEST_F(StringCommandsTest, GetdelReadsAndRemoves) {
  Expect({
      {"GETDEL k", "$-1"},
      {"SET k v EX 10", "+OK", "SET k v PXAT 1700000010000"},
      {"GETDEL k", "$1 v", "DEL k"},
      {"EXISTS k", ":0"},
      {"GETDEL", "-ERR wrong number of arguments for 'getdel' command"},
      {"GETDEL a b", "-ERR wrong number of arguments for 'getdel' command"},
  });
}

TEST_F(StringCommandsTest, GetexChangesWhenAStringExpires) {
  Expect({
      {"GETEX k", "$-1"},
      {"GETEX k EX 10", "$-1"},
      {"GETEX k EX 0", "$-1"},
      {"GETEX k EX x", "$-1"},
      {"SET k v", "+OK", "SET k v"},
      {"GETEX k", "$1 v"},
      {"GETEX k EX 10", "$1 v", "PEXPIREAT k 1700000010000"},
      {"GETEX k px 10", "$1 v", "PEXPIREAT k 1700000000010"},
      {"GETEX k EXAT 7700000000", "$1 v", "PEXPIREAT k 7700000000000"},
      {"GETEX k PXAT 7700000000001", "$1 v", "PEXPIREAT k 7700000000001"},
      {"PEXPIRETIME k", ":7700000000001"},
      {"GETEX k", "$1 v"},
      {"PEXPIRETIME k", ":7700000000001"},
      {"GETEX k PERSIST", "$1 v", "PERSIST k"},
      {"PTTL k", ":-1"},
      {"GETEX k persist PERSIST", "$1 v"},
      {"GETEX k EX 0", "-ERR invalid expire time in 'getex' command"},
      {"GETEX k EX x", "-ERR value is not an integer or out of range"},
      {"GETEX k EX", "-ERR syntax error"},
      {"GETEX k KEEPTTL", "-ERR syntax error"},
      {"GETEX k NX", "-ERR syntax error"},
      {"GETEX k GET", "-ERR syntax error"},
      {"GETEX k EX 10 PERSIST", "-ERR syntax error"},
      {"GETEX k PERSIST EX 10", "-ERR syntax error"},
      {"GETEX k EX 10 PX 10", "-ERR syntax error"},
      {"GETEX k EX x what", "-ERR syntax error"},
      {"GETEX", "-ERR wrong number of arguments for 'getex' command"},
      {"GETEX k PXAT 9223372036854775808", "-ERR value is not an integer or out of range"},
      {"GETEX k PX 9223372036854775807", "-ERR invalid expire time in 'getex' command"},
      {"GETEX k PXAT 1", "$1 v", "DEL k"},
      {"EXISTS k", ":0"},
  });
}

TEST_F(StringCommandsTest, StrlenCountsBytes) {
  Expect({
      {"STRLEN k", ":0"},
      {"SET k \"a\\x01b\"", "+OK", "SET k a\001b"},
      {"STRLEN k", ":3"},
      {"SET k -12345", "+OK", "SET k -12345"},
      {"STRLEN k", ":6"},
      {"STRLEN", "-ERR wrong number of arguments for 'strlen' command"},
      {"STRLEN k k", "-ERR wrong number of arguments for 'strlen' command"},
  });
}

TEST_F(StringCommandsTest, GetrangeClampsItsOffsets) {
  Expect({
      {"SET k \"This is a string\"", "+OK", "SET k This is a string"},
      {"GETRANGE k 0 3", "$4 This"},
      {"GETRANGE k -3 -1", "$3 ing"},
      {"GETRANGE k 0 -1", "$16 This is a string"},
      {"GETRANGE k 10 100", "$6 string"},
      {"GETRANGE k 0 0", "$1 T"},
      {"GETRANGE k -1 -1", "$1 g"},
      {"GETRANGE k 3 2", "$0 "},
      {"GETRANGE k -1 -3", "$0 "},
      {"GETRANGE k -100 -50", "$1 T"},
      {"GETRANGE k -50 -100", "$0 "},
      {"GETRANGE k 100 200", "$0 "},
      {"GETRANGE k 16 16", "$0 "},
      {"GETRANGE k 15 15", "$1 g"},
      {"GETRANGE k 5 -100", "$0 "},
      {"GETRANGE k -100 2", "$3 Thi"},
      {"GETRANGE k 0 9223372036854775807", "$16 This is a string"},
      {"GETRANGE k -9223372036854775808 9223372036854775807", "$16 This is a string"},
      {"GETRANGE k -9223372036854775808 -9223372036854775808", "$1 T"},
      {"GETRANGE k 9223372036854775807 9223372036854775807", "$0 "},
      {"GETRANGE k x 1", "-ERR value is not an integer or out of range"},
      {"GETRANGE k 0 x", "-ERR value is not an integer or out of range"},
      {"GETRANGE k 0 1.0", "-ERR value is not an integer or out of range"},
      {"GETRANGE k 0", "-ERR wrong number of arguments for 'getrange' command"},
      {"GETRANGE k 0 1 2", "-ERR wrong number of arguments for 'getrange' command"},
      {"GETRANGE absent 0 -1", "$0 "},
      {"SUBSTR k 0 3", "$4 This"},
      {"SUBSTR k 0", "-ERR wrong number of arguments for 'substr' command"},
      {"SUBSTR k x 1", "-ERR value is not an integer or out of range"},
      {"SET k 12345", "+OK", "SET k 12345"},
      {"GETRANGE k 1 -2", "$3 234"},
      {"SET k \"\"", "+OK", "SET k "},
      {"GETRANGE k 0 -1", "$0 "},
      {"GETRANGE k -1 0", "$0 "},
  });
}

TEST_F(StringCommandsTest, MsetAndMgetTakeSeveralKeys) {
  Expect({
      {"MSET a 1 b 2", "+OK", "SET a 1; SET b 2"},
      {"MGET a b c a", "*4 $1 1 $1 2 $-1 $1 1"},
      {"MSET a 3 a 4", "+OK", "SET a 3; SET a 4"},
      {"GET a", "$1 4"},
      {"MSET a", "-ERR wrong number of arguments for 'mset' command"},
      {"MSET a b c", "-ERR wrong number of arguments for 'mset' command"},
      {"MSET", "-ERR wrong number of arguments for 'mset' command"},
      {"MGET", "-ERR wrong number of arguments for 'mget' command"},
      {"MSETNX a 1 new 2", ":0"},
      {"EXISTS new", ":0"},
      {"MSETNX new 1 new 2 other 3", ":1", "SET new 1; SET new 2; SET other 3"},
      {"MGET new other", "*2 $1 2 $1 3"},
      {"MSETNX a", "-ERR wrong number of arguments for 'msetnx' command"},
      {"MSETNX a b c", "-ERR wrong number of arguments for 'msetnx' command"},
      {"SETEX a 10 v", "+OK", "SET a v PXAT 1700000010000"},
      {"MSET a w", "+OK", "SET a w"},
      {"PTTL a", ":-1"},
  });
}

TEST_F(StringCommandsTest, AppendAddsToTheEnd) {
  Expect({
      {"APPEND k ab", ":2", "APPEND k ab"},
      {"APPEND k \"c\\x01\"", ":4", "APPEND k c\001"},
      {"GET k", "$4 abc\001"},
      {"APPEND k \"\"", ":4", "APPEND k "},
      {"APPEND empty \"\"", ":0", "APPEND empty "},
      {"EXISTS empty", ":1"},
      {"SET n 12", "+OK", "SET n 12"},
      {"APPEND n 3", ":3", "APPEND n 3"},
      {"GET n", "$3 123"},
      {"INCR n", ":124", "INCRBY n 1"},
      {"APPEND k", "-ERR wrong number of arguments for 'append' command"},
      {"APPEND k a b", "-ERR wrong number of arguments for 'append' command"},
      {"SETEX t 100 a", "+OK", "SET t a PXAT 1700000100000"},
      {"APPEND t b", ":2", "APPEND t b"},
      {"TTL t", ":100"},
  });
}

TEST_F(StringCommandsTest, AppendDecidesTheEncoding) {
  Expect({
      {"APPEND k 12", ":2", "APPEND k 12"},
      {"OBJECT ENCODING k", "$3 int"},
      {"APPEND k \"\"", ":2", "APPEND k "},
      {"OBJECT ENCODING k", "$3 raw"},
      {"INCR k", ":13", "INCRBY k 1"},
      {"OBJECT ENCODING k", "$3 int"},
      {"APPEND e \"\"", ":0", "APPEND e "},
      {"OBJECT ENCODING e", "$6 embstr"},
      {"SETRANGE r 0 12", ":2", "SETRANGE r 0 12"},
      {"OBJECT ENCODING r", "$3 raw"},
  });
}

TEST_F(StringCommandsTest, SetrangeOverwritesAndGrows) {
  Expect({
      {"SETRANGE k 0 \"\"", ":0"},
      {"EXISTS k", ":0"},
      {"SETRANGE k 5 \"\"", ":0"},
      {"SETRANGE k 3 abc", ":6", "SETRANGE k 3 abc"},
      {"GET k", "$6 \\0\\0\\0abc"},
      {"SETRANGE k 0 xy", ":6", "SETRANGE k 0 xy"},
      {"GET k", "$6 xy\\0abc"},
      {"SETRANGE k 8 z", ":9", "SETRANGE k 8 z"},
      {"GET k", "$9 xy\\0abc\\0\\0z"},
      {"SETRANGE k 100 \"\"", ":9"},
      {"SETRANGE k 9223372036854775807 \"\"", ":9"},
      {"SET n 123", "+OK", "SET n 123"},
      {"SETRANGE n 1 9", ":3", "SETRANGE n 1 9"},
      {"GET n", "$3 193"},
      {"SETRANGE k -1 x", "-ERR offset is out of range"},
      {"SETRANGE k -1 \"\"", "-ERR offset is out of range"},
      {"SETRANGE k x y", "-ERR value is not an integer or out of range"},
      {"SETRANGE k 9223372036854775807 x",
       "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"},
      {"SETRANGE k 536870912 x", "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"},
      {"SETRANGE absent 536870912 x",
       "-ERR string exceeds maximum allowed size (proto-max-bulk-len)"},
      {"EXISTS absent", ":0"},
      {"SETRANGE k 0", "-ERR wrong number of arguments for 'setrange' command"},
      {"SETRANGE k 0 a b", "-ERR wrong number of arguments for 'setrange' command"},
      {"SETEX t 100 a", "+OK", "SET t a PXAT 1700000100000"},
      {"SETRANGE t 0 b", ":1", "SETRANGE t 0 b"},
      {"TTL t", ":100"},
  });
}

TEST_F(StringCommandsTest, IncrAndItsRelativesAdd) {
  Expect({
      {"INCR k", ":1", "INCRBY k 1"},
      {"INCRBY k 10", ":11", "INCRBY k 10"},
      {"DECR k", ":10", "INCRBY k -1"},
      {"DECRBY k 30", ":-20", "INCRBY k -30"},
      {"GET k", "$3 -20"},
      {"INCRBY k 0", ":-20", "INCRBY k 0"},
      {"SET k 9223372036854775807", "+OK", "SET k 9223372036854775807"},
      {"INCR k", "-ERR increment or decrement would overflow"},
      {"INCRBY k 1", "-ERR increment or decrement would overflow"},
      {"INCRBY k -9223372036854775808", ":-1", "INCRBY k -9223372036854775808"},
      {"DECRBY k -9223372036854775808", "-ERR decrement would overflow"},
      {"SET k -9223372036854775808", "+OK", "SET k -9223372036854775808"},
      {"DECR k", "-ERR increment or decrement would overflow"},
      {"DECRBY k 1", "-ERR increment or decrement would overflow"},
      {"INCRBY k -1", "-ERR increment or decrement would overflow"},
      {"GET k", "$20 -9223372036854775808"},
      {"SET k \" 1\"", "+OK", "SET k  1"},
      {"INCR k", "-ERR value is not an integer or out of range"},
      {"SET k 01", "+OK", "SET k 01"},
      {"INCR k", "-ERR value is not an integer or out of range"},
      {"SET k \"\"", "+OK", "SET k "},
      {"INCR k", "-ERR value is not an integer or out of range"},
      {"SET k 1.0", "+OK", "SET k 1.0"},
      {"DECR k", "-ERR value is not an integer or out of range"},
      {"SET k 9223372036854775808", "+OK", "SET k 9223372036854775808"},
      {"INCR k", "-ERR value is not an integer or out of range"},
      {"INCRBY k x", "-ERR value is not an integer or out of range"},
      {"DECRBY k x", "-ERR value is not an integer or out of range"},
      {"INCRBY k 1.5", "-ERR value is not an integer or out of range"},
      {"INCRBY k", "-ERR wrong number of arguments for 'incrby' command"},
      {"DECRBY k", "-ERR wrong number of arguments for 'decrby' command"},
      {"INCR", "-ERR wrong number of arguments for 'incr' command"},
      {"DECR k 1", "-ERR wrong number of arguments for 'decr' command"},
      {"GET k", "$19 9223372036854775808"},
      {"SETEX t 100 5", "+OK", "SET t 5 PXAT 1700000100000"},
      {"INCR t", ":6", "INCRBY t 1"},
      {"TTL t", ":100"},
      {"OBJECT ENCODING t", "$3 int"},
  });
}

TEST_F(StringCommandsTest, IncrbyfloatAddsDecimals) {
  Expect({
      {"INCRBYFLOAT k 10.5", "$4 10.5", "SET k 10.5 KEEPTTL"},
      {"INCRBYFLOAT k 0.1", "$4 10.6", "SET k 10.6 KEEPTTL"},
      {"INCRBYFLOAT k -5", "$3 5.6", "SET k 5.6 KEEPTTL"},
      {"SET k 5.0e3", "+OK", "SET k 5.0e3"},
      {"INCRBYFLOAT k 2.0e2", "$4 5200", "SET k 5200 KEEPTTL"},
      {"SET k 10", "+OK", "SET k 10"},
      {"INCRBYFLOAT k 0x10", "$2 26", "SET k 26 KEEPTTL"},
      {"SET k -0", "+OK", "SET k -0"},
      {"INCRBYFLOAT k -0", "$1 0", "SET k 0 KEEPTTL"},
      {"INCRBYFLOAT small -1e-20", "$1 0", "SET small 0 KEEPTTL"},
      {"SET k 3", "+OK", "SET k 3"},
      {"INCRBYFLOAT k inf", "-ERR increment would produce NaN or Infinity"},
      {"INCRBYFLOAT k -inf", "-ERR increment would produce NaN or Infinity"},
      {"INCRBYFLOAT k nan", "-ERR value is not a valid float"},
      {"INCRBYFLOAT k x", "-ERR value is not a valid float"},
      {"INCRBYFLOAT k \" 1\"", "-ERR value is not a valid float"},
      {"INCRBYFLOAT k 1e5000", "-ERR value is not a valid float"},
      {"INCRBYFLOAT k \"\"", "-ERR value is not a valid float"},
      {"INCRBYFLOAT k", "-ERR wrong number of arguments for 'incrbyfloat' command"},
      {"GET k", "$1 3"},
      {"SET k abc", "+OK", "SET k abc"},
      {"INCRBYFLOAT k 1", "-ERR value is not a valid float"},
      {"SET k \"\"", "+OK", "SET k "},
      {"INCRBYFLOAT k 1", "-ERR value is not a valid float"},
      {"SET k 1e4932", "+OK", "SET k 1e4932"},
      {"INCRBYFLOAT k 1e4932", "-ERR increment would produce NaN or Infinity"},
      {"SET k 3.14159265358979323846", "+OK", "SET k 3.14159265358979323846"},
      {"INCRBYFLOAT k 0", "$19 3.14159265358979324", "SET k 3.14159265358979324 KEEPTTL"},
  });
}

TEST_F(StringCommandsTest, IncrbyfloatMakesTextEvenOfAnInteger) {
  Expect({
      {"SET k 5", "+OK", "SET k 5"},
      {"INCRBYFLOAT k 1", "$1 6", "SET k 6 KEEPTTL"},
      {"OBJECT ENCODING k", "$6 embstr"},
      {"INCR k", ":7", "INCRBY k 1"},
      {"OBJECT ENCODING k", "$3 int"},
  });
}

TEST_F(StringCommandsTest, LcsFindsTheLongestCommonSequence) {
  Expect({
      {"SET a ohmytext", "+OK", "SET a ohmytext"},
      {"SET b mynewtext", "+OK", "SET b mynewtext"},
      {"LCS a b", "$6 mytext"},
      {"LCS a b LEN", ":6"},
      {"LCS a b IDX", "*4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6"},
      {"LCS a b IDX MINMATCHLEN 4", "*4 $7 matches *1 *2 *2 :4 :7 *2 :5 :8 $3 len :6"},
      {"LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN",
       "*4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6"},
      {"LCS a b idx minmatchlen -4 withmatchlen",
       "*4 $7 matches *2 *3 *2 :4 :7 *2 :5 :8 :4 *3 *2 :2 :3 *2 :0 :1 :2 $3 len :6"},
      {"LCS a b MINMATCHLEN 4", "$6 mytext"},
      {"LCS a b LEN WITHMATCHLEN", ":6"},
      {"LCS a b LEN LEN", ":6"},
      {"LCS a absent", "$0 "},
      {"LCS a absent LEN", ":0"},
      {"LCS absent b IDX", "*4 $7 matches *0 $3 len :0"},
      {"LCS absent nothing", "$0 "},
      {"LCS a a IDX", "*4 $7 matches *1 *2 *2 :0 :7 *2 :0 :7 $3 len :8"},
      {"LCS a b IDX LEN", "-ERR If you want both the length and indexes, please just use IDX."},
      {"LCS a b MINMATCHLEN", "-ERR syntax error"},
      {"LCS a b MINMATCHLEN x", "-ERR value is not an integer or out of range"},
      {"LCS a b MINMATCHLEN x what", "-ERR value is not an integer or out of range"},
      {"LCS a b what", "-ERR syntax error"},
      {"LCS a", "-ERR wrong number of arguments for 'lcs' command"},
      {"LCS a b IDX MINMATCHLEN 5", "*4 $7 matches *0 $3 len :6"},
      {"SET a 12345", "+OK", "SET a 12345"},
      {"SET b 10305", "+OK", "SET b 10305"},
      {"LCS a b", "$3 135"},
      {"LCS a b IDX",
       "*4 $7 matches *3 *2 *2 :4 :4 *2 :4 :4 *2 *2 :2 :2 *2 :2 :2 *2 *2 :0 :0 *2 :0 :0 $3 len :3"},
      {"SET a abcbdab", "+OK", "SET a abcbdab"},
      {"SET b bdcaba", "+OK", "SET b bdcaba"},
      {"LCS a b", "$4 bdab"},
      {"LCS a b IDX WITHMATCHLEN",
       "*4 $7 matches *2 *3 *2 :5 :6 *2 :3 :4 :2 *3 *2 :3 :4 *2 :0 :1 :2 $3 len :4"},
      {"LCS b a", "$4 bcba"},
      {"LCS b a IDX WITHMATCHLEN",
       "*4 $7 matches *4 *3 *2 :5 :5 *2 :5 :5 :1 *3 *2 :4 :4 *2 :3 :3 :1 *3 *2 :2 :2 *2 :2 :2 :1 "
       "*3 *2 :0 :0 *2 :1 :1 :1 $3 len :4"},
  });
}

TEST_F(StringCommandsTest, KeysAndValuesHoldAnyBytes) {
  const std::string key("k\0\r\n", 4);
  const std::string value("\0\xff\r\n$5", 6);
  EXPECT_EQ(RunWords({"SET", key, value}), "+OK\r\n");
  EXPECT_EQ(RunWords({"GET", key}), "$6\r\n" + value + "\r\n");
  EXPECT_EQ(RunWords({"APPEND", key, std::string(1, '\0')}), ":7\r\n");
  EXPECT_EQ(RunWords({"GETRANGE", key, "-1", "-1"}), std::string("$1\r\n\0\r\n", 7));
  EXPECT_EQ(RunWords({"GET", "k"}), "$-1\r\n");
}

TEST_F(StringCommandsTest, AnswersAbsenceInResp3) {
  runner_.client.protocol = 3;
  EXPECT_EQ(Run("GET absent"), "_");
  EXPECT_EQ(Run("MGET absent"), "*1 _");
  EXPECT_EQ(Run("SET absent v XX"), "_");
  EXPECT_EQ(Run("LCS absent nothing IDX"), "%2 $7 matches *0 $3 len :0");
}

TEST_F(StringCommandsTest, KeepsDatabasesApart) {
  Run("SET k zero");
  runner_.client.db = 3;
  EXPECT_EQ(Run("GET k"), "$-1");
  EXPECT_EQ(Run("APPEND k three"), ":5");
  EXPECT_EQ(effects(), "[3] APPEND k three");
  runner_.client.db = 0;
  EXPECT_EQ(Run("GET k"), "$4 zero");
}

// Each command that meets a key whose time is up logs its deletion, and then works on an absent
// one.
TEST_F(StringCommandsTest, AKeyWhoseTimeIsUpIsAbsent) {
  const std::vector<Step> steps = {
      {"GET k", "$-1", "DEL k"},
      {"SET k w NX", "+OK", "DEL k; SET k w"},
      {"SET k w XX", "$-1", "DEL k"},
      {"SET k w KEEPTTL", "+OK", "DEL k; SET k w KEEPTTL"},
      {"SETNX k w", ":1", "DEL k; SET k w"},
      {"GETSET k w", "$-1", "DEL k; SET k w"},
      {"GETDEL k", "$-1", "DEL k"},
      {"GETEX k PERSIST", "$-1", "DEL k"},
      {"STRLEN k", ":0", "DEL k"},
      {"MGET k k", "*2 $-1 $-1", "DEL k"},
      {"MSETNX k w", ":1", "DEL k; SET k w"},
      {"APPEND k w", ":1", "DEL k; APPEND k w"},
      {"SETRANGE k 1 w", ":2", "DEL k; SETRANGE k 1 w"},
      {"SETRANGE k 1 \"\"", ":0", "DEL k"},
      {"INCR k", ":1", "DEL k; INCRBY k 1"},
      {"INCRBYFLOAT k 1.5", "$3 1.5", "DEL k; SET k 1.5 KEEPTTL"},
      {"LCS k k LEN", ":0", "DEL k"},
  };
  for (const Step& step : steps) {
    runner_.now_ms = CommandRunner::kStartMs;
    ASSERT_EQ(Run("SET k 5 PX 10"), "+OK");
    runner_.now_ms += 10;
    ASSERT_EQ(Run("EXISTS k"), ":1") << "a deadline that has just come has not passed";
    runner_.now_ms += 1;
    EXPECT_EQ(Run(step.line), step.reply) << step.line;
    EXPECT_EQ(effects(), step.effects) << step.line;
    EXPECT_EQ(Run("PEXPIRETIME k"), Run("EXISTS k") == ":1" ? ":-1" : ":-2") << step.line;
    Run("DEL k");
  }
}

TEST_F(StringCommandsTest, GetCountsHitsAndMisses) {
  Run("SET k v");
  Run("GET k");
  Run("GET absent");
  Run("MGET k absent k");
  Run("SET k w XX GET");
  Run("INCR n");
  EXPECT_EQ(runner_.stats.hits, 4u);
  EXPECT_EQ(runner_.stats.misses, 2u);
}

// proto-max-bulk-len bounds what APPEND and SETRANGE make, but not what replay makes again.
TEST_F(StringCommandsTest, StringsStayWithinTheirBound) {
  runner_.keyspace.options().string_bytes_max = 10;
  const std::string too_long = std::string("-") + kStringTooLong;
  EXPECT_EQ(Run("APPEND k 1234567890"), ":10");
  EXPECT_EQ(Run("APPEND k x"), too_long);
  EXPECT_EQ(effects(), "");
  EXPECT_EQ(Run("APPEND k \"\""), ":10");
  EXPECT_EQ(Run("SETRANGE k 9 x"), ":10");
  EXPECT_EQ(Run("SETRANGE k 10 x"), too_long);
  EXPECT_EQ(Run("SETRANGE absent 10 x"), too_long);
  EXPECT_EQ(Run("EXISTS absent"), ":0");
  EXPECT_EQ(Run("LCS k k"),
            "-ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
  CommandRunner replay({.shard_count = 16, .hash_seed = 1, .string_bytes_max = 2});
  replay.Replay(runner_);
  EXPECT_EQ(replay.Contents(), runner_.Contents());
}

TEST_F(StringCommandsTest, CutsLargeValuesIntoPartsForTheLog) {
  const std::string large(2 * Effects::kPartBytes + 5, 'x');
  const std::string small(Effects::kPartBytes, 'y');
  RunWords({"SET", "set", large, "PX", "100"});
  RunWords({"MSET", "a", small, "b", large});
  RunWords({"APPEND", "appended", large});
  RunWords({"APPEND", "appended", large});
  RunWords({"SETRANGE", "ranged", "7", large});
  RunWords({"SETRANGE", "ranged", "9", small});
  RunWords({"GETSET", "a", large});
  for (const std::string& payload : runner_.payloads()) {
    std::string_view bytes = payload;
    EffectView effect;
    while (!bytes.empty()) {
      const size_t before = bytes.size();
      ASSERT_TRUE(ReadEffect(&bytes, &effect).ok());
      EXPECT_LE(before - bytes.size(), Effects::kPartBytes + 64);
    }
  }
  CommandRunner replay;
  replay.Replay(runner_);
  EXPECT_EQ(replay.Contents(), runner_.Contents());
}

TEST_F(StringCommandsTest, ReplayStoresADeadlineThatHasPassedSince) {
  Run("SET k v PX 10");
  runner_.now_ms += 1'000'000;
  CommandRunner replay;
  replay.Replay(runner_);
  const std::map<std::string, std::string> expected = {{"0/k", "string 1700000000010 v"}};
  EXPECT_EQ(replay.Contents(), expected);
}

TEST_F(StringCommandsTest, OldNamesSayWhatReplacesThem) {
  const std::string docs = Run("COMMAND DOCS substr");
  EXPECT_NE(docs.find("$9 doc_flags *1 +deprecated $16 deprecated_since $5 2.0.0 "
                      "$11 replaced_by $10 `GETRANGE`"),
            std::string::npos)
      << docs;
  EXPECT_EQ(Run("COMMAND DOCS getrange").find("deprecated"), std::string::npos);
}

const ReplaySample kSamples[] = {
    {{}, "APPEND k v"},
    {{}, "APPEND k \"\""},
    {{"SET k 12 PX 100"}, "APPEND k 3"},
    {{}, "DECR k"},
    {{"SET k 5 PX 100"}, "DECR k"},
    {{"SET k -5"}, "DECRBY k -9223372036854775807"},
    {{"SET k v"}, "GETDEL k"},
    {{}, "GETDEL k"},
    {{"SET k v"}, "GETEX k"},
    {{"SET k v"}, "GETEX k EX 10"},
    {{"SET k v PX 100"}, "GETEX k PERSIST"},
    {{"SET k v"}, "GETEX k PXAT 1"},
    {{"SET k v PX 100"}, "GETSET k w"},
    {{}, "INCR k"},
    {{"SET k 9"}, "INCRBY k -9223372036854775808"},
    {{"SET k 0.1 PX 100"}, "INCRBYFLOAT k 0.2"},
    {{}, "INCRBYFLOAT k 1e300"},
    {{"SET a 1 PX 100"}, "MSET a 1 b 2 a 3"},
    {{"SET a 1"}, "MSETNX a 1 b 2"},
    {{}, "MSETNX a 1 b 2"},
    {{"SET k v"}, "PSETEX k 100 w"},
    {{}, "SET k v"},
    {{"SET k v PX 100"}, "SET k w"},
    {{"SET k v PX 100"}, "SET k w KEEPTTL"},
    {{"SET k v"}, "SET k w NX GET"},
    {{"SET k v"}, "SET k w XX EX 10 GET"},
    {{"SET k v"}, "SET k w PXAT 1"},
    {{}, "SET k w EXAT 1"},
    {{}, "SET k 1 EXAT 7700000000"},
    {{"SET k v"}, "SETEX k 100 w"},
    {{}, "SETNX k v"},
    {{"SET k v"}, "SETNX k w"},
    {{"SET k abcdef PX 100"}, "SETRANGE k 3 xy"},
    {{}, "SETRANGE k 3 xy"},
    {{}, "SETRANGE k 3 \"\""},
};

TEST(StringReplayTest, ReplayOfEveryWriteEqualsLife) {
  ExpectReplayEqualsLife(StringCommands(), kSamples);
}

// Chance finds the orders of commands that nobody thinks of; time passes between them.
TEST(StringReplayTest, ReplayOfRandomCommandsEqualsLife) {
  const char* const commands[] = {
      "SET K V",      "SET K V NX",       "SET K V XX GET",    "SET K V KEEPTTL", "SET K V PX 20",
      "SET K V EX 1", "SET K V PXAT 1",   "SETNX K V",         "SETEX K 1 V",     "PSETEX K 15 V",
      "GETSET K V",   "GETDEL K",         "GETEX K PX 30",     "GETEX K PERSIST", "GETEX K EXAT 1",
      "MSET K V K V", "MSETNX K V K V",   "APPEND K V",        "SETRANGE K 3 V",  "INCR K",
      "DECRBY K 7",   "INCRBYFLOAT K .1", "INCRBYFLOAT K 1e2", "GET K",           "LCS K K",
      "DEL K",        "SETRANGE K 70 V",
  };
  const char* const values[] = {"1",
                                "-5",
                                "",
                                "abc",
                                "9223372036854775807",
                                "0.5",
                                "a value above the forty-four bytes that are embstr"};
  std::mt19937_64 random(test::TestSeed());
  CommandRunner life;
  for (int step = 0; step < 20'000; ++step) {
    std::vector<std::string> words = SplitLine(commands[random() % std::size(commands)]);
    for (size_t i = 1; i < words.size(); ++i) {
      if (words[i] == "K") words[i] = std::string(1, static_cast<char>('a' + random() % 6));
      if (words[i] == "V") words[i] = values[random() % std::size(values)];
    }
    life.RunWords(words);
    if (random() % 4 == 0) life.now_ms += random() % 20;
  }
  CommandRunner replay;
  replay.Replay(life);
  // What has expired but was not met since is still in life's keyspace and in replay's.
  EXPECT_EQ(replay.Contents(), life.Contents());
  EXPECT_GT(life.payloads().size(), 1000u);
}

}  // namespace
}  // namespace crab

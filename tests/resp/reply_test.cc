#include "resp/reply.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "tests/support/seed.h"

namespace crab::resp {
namespace {

std::string Written(int protocol, const std::function<void(Reply&)>& write) {
  Buffer buffer;
  Reply reply(buffer, protocol);
  write(reply);
  return std::string(buffer.view());
}

// Each row was asked of redis-server 7.0.15, with DEBUG PROTOCOL or a command that replies it.
TEST(ReplyTest, WritesTheBytesOfRedis) {
  const struct {
    std::function<void(Reply&)> write;
    std::string resp2, resp3;
  } rows[] = {
      {[](Reply& r) { r.Ok(); }, "+OK\r\n", "+OK\r\n"},
      {[](Reply& r) { r.Simple("PONG"); }, "+PONG\r\n", "+PONG\r\n"},
      {[](Reply& r) { r.Simple("a\r\nb"); }, "+a  b\r\n", "+a  b\r\n"},
      {[](Reply& r) { r.Error("ERR no\nway\r"); }, "-ERR no way \r\n", "-ERR no way \r\n"},
      {[](Reply& r) { r.Integer(0); }, ":0\r\n", ":0\r\n"},
      {[](Reply& r) { r.Integer(INT64_MIN); }, ":-9223372036854775808\r\n",
       ":-9223372036854775808\r\n"},
      {[](Reply& r) { r.Bulk(""); }, "$0\r\n\r\n", "$0\r\n\r\n"},
      {[](Reply& r) { r.Bulk({}); }, "$0\r\n\r\n", "$0\r\n\r\n"},
      {[](Reply& r) { r.Bulk("a\r\nb"); }, "$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"},
      {[](Reply& r) { r.BulkInteger(-17); }, "$3\r\n-17\r\n", "$3\r\n-17\r\n"},
      {[](Reply& r) { r.Null(); }, "$-1\r\n", "_\r\n"},
      {[](Reply& r) { r.NullArray(); }, "*-1\r\n", "_\r\n"},
      {[](Reply& r) { r.Array(0); }, "*0\r\n", "*0\r\n"},
      {[](Reply& r) { r.Array(100); }, "*100\r\n", "*100\r\n"},
      {[](Reply& r) { r.Map(3); }, "*6\r\n", "%3\r\n"},
      {[](Reply& r) { r.Set(3); }, "*3\r\n", "~3\r\n"},
      {[](Reply& r) { r.Push(2); }, "*2\r\n", ">2\r\n"},
      {[](Reply& r) { r.Double(3.141); }, "$5\r\n3.141\r\n", ",3.141\r\n"},
      {[](Reply& r) { r.Double(3.1); }, "$18\r\n3.1000000000000001\r\n", ",3.1000000000000001\r\n"},
      {[](Reply& r) { r.Double(1e17); }, "$5\r\n1e+17\r\n", ",1e+17\r\n"},
      {[](Reply& r) { r.Double(INFINITY); }, "$3\r\ninf\r\n", ",inf\r\n"},
      {[](Reply& r) { r.Double(-INFINITY); }, "$4\r\n-inf\r\n", ",-inf\r\n"},
      {[](Reply& r) { r.HumanDouble(10.1L); }, "$4\r\n10.1\r\n", "$4\r\n10.1\r\n"},
      {[](Reply& r) { r.Boolean(true); }, ":1\r\n", "#t\r\n"},
      {[](Reply& r) { r.Boolean(false); }, ":0\r\n", "#f\r\n"},
      {[](Reply& r) { r.BigNumber("1234567999999999999999999999999999999"); },
       "$37\r\n1234567999999999999999999999999999999\r\n",
       "(1234567999999999999999999999999999999\r\n"},
      {[](Reply& r) { r.Verbatim("txt", "This is a verbatim\nstring"); },
       "$25\r\nThis is a verbatim\nstring\r\n", "=29\r\ntxt:This is a verbatim\nstring\r\n"},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(Written(2, row.write), row.resp2);
    EXPECT_EQ(Written(3, row.write), row.resp3);
  }
}

TEST(ReplyTest, AppendsBehindWhatIsThere) {
  Buffer buffer;
  Reply reply(buffer, 2);
  std::string expected;
  for (int i = 0; i < 2000; ++i) {  // through several growths of the buffer
    const std::string text(static_cast<size_t>(i % 130), 'x');
    reply.Bulk(text);
    reply.Integer(i);
    expected +=
        "$" + std::to_string(text.size()) + "\r\n" + text + "\r\n:" + std::to_string(i) + "\r\n";
  }
  EXPECT_EQ(buffer.view(), expected);
}

}  // namespace
}  // namespace crab::resp

// Uses hiredis as a C or C++ program would: `hiredis_client PORT UNIX_PATH`.
// Prints how many checks held, and ends with a status other than 0 when one did not.

#include <hiredis/hiredis.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

namespace {

int passed = 0;
int failed = 0;

void Check(const char* name, bool holds) {
  ++(holds ? passed : failed);
  if (!holds) std::printf("FAILED hiredis: %s\n", name);
}

struct FreeReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
struct FreeContext {
  void operator()(redisContext* context) const { redisFree(context); }
};
using Reply = std::unique_ptr<redisReply, FreeReply>;
using Context = std::unique_ptr<redisContext, FreeContext>;

template <typename... Args>
Reply Run(const Context& context, const char* format, Args... args) {
  return Reply(static_cast<redisReply*>(redisCommand(context.get(), format, args...)));
}

Reply Next(const Context& context) {
  void* reply = nullptr;
  if (redisGetReply(context.get(), &reply) != REDIS_OK) return nullptr;
  return Reply(static_cast<redisReply*>(reply));
}

bool IsText(const Reply& reply, int type, std::string_view text) {
  return reply && reply->type == type && std::string_view(reply->str, reply->len) == text;
}

bool IsInteger(const Reply& reply, long long value) {
  return reply && reply->type == REDIS_REPLY_INTEGER && reply->integer == value;
}

bool Connected(const Context& context) { return context && context->err == 0; }

void UseCommands(const Context& context) {
  Check("ping", IsText(Run(context, "PING"), REDIS_REPLY_STATUS, "PONG"));
  Check("set", IsText(Run(context, "SET %s %s", "hi:k", "v"), REDIS_REPLY_STATUS, "OK"));
  Check("get", IsText(Run(context, "GET %s", "hi:k"), REDIS_REPLY_STRING, "v"));
  const Reply nothing = Run(context, "GET hi:none");
  Check("nil", nothing && nothing->type == REDIS_REPLY_NIL);
  const std::string bytes("\0\r\n\xff", 4);
  Run(context, "SET hi:bin %b", bytes.data(), bytes.size());
  Check("binary", IsText(Run(context, "GET hi:bin"), REDIS_REPLY_STRING, bytes));
  Run(context, "DEL hi:n");
  Check("incrby", IsInteger(Run(context, "INCRBY hi:n %d", 42), 42));
  const Reply error = Run(context, "INCR hi:k");
  Check("error", error && error->type == REDIS_REPLY_ERROR &&
                     std::string_view(error->str).starts_with("ERR value is not an integer"));
  const Reply many = Run(context, "MGET hi:k hi:none hi:n");
  Check("array", many && many->type == REDIS_REPLY_ARRAY && many->elements == 3 &&
                     many->element[1]->type == REDIS_REPLY_NIL);
}

void UsePipeline(const Context& context) {
  constexpr int kCommands = 10000;
  Run(context, "DEL hi:p");
  for (int i = 0; i < kCommands; ++i) redisAppendCommand(context.get(), "INCR hi:p");
  bool in_order = true;
  for (int i = 1; i <= kCommands; ++i) in_order = in_order && IsInteger(Next(context), i);
  Check("pipeline", in_order);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const timeval timeout{10, 0};
  const Context tcp(redisConnectWithTimeout("127.0.0.1", std::atoi(argv[1]), timeout));
  Check("connects", Connected(tcp));
  const Context local(redisConnectUnixWithTimeout(argv[2], timeout));
  Check("connects to the unix socket", Connected(local));
  if (failed == 0) {
    redisSetTimeout(tcp.get(), timeout);
    redisSetTimeout(local.get(), timeout);
    UseCommands(tcp);
    UsePipeline(tcp);
    UseCommands(local);
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

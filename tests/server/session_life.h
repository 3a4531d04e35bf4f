// Sessions without connections, for the tests of what they read, answer and wait for.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "src/server/server.h"
#include "src/server/session.h"
#include "tests/support/fake_log.h"
#include "tests/support/test_server.h"

namespace crab::test {

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

  ScopedDirectory directory_;
  FakeLog log_;
  std::unique_ptr<Server> server_;
  uint64_t last_id_ = 0;
};

inline constexpr char kOk[] = "+OK\r\n";

}  // namespace crab::test

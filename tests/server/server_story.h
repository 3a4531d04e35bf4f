// What the tests of whole servers share: reading their answers, and one set of tests for any number
// of loops.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <future>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "src/server/server.h"
#include "tests/support/test_server.h"

namespace crab::test {

inline std::vector<std::string> Lines(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) {
    if (!line.empty() && line != "\r") lines.push_back(line);
  }
  return lines;
}

// "name=value" of a CLIENT LIST line, "name:value" of INFO.
inline std::string Field(const std::string& text, const std::string& name) {
  size_t at = text.find(name);
  while (at != std::string::npos && at != 0 &&
         std::string(" \n$").find(text[at - 1]) == std::string::npos) {
    at = text.find(name, at + 1);
  }
  if (at == std::string::npos) return "(no " + name + ")";
  const size_t begin = at + name.size();
  return text.substr(begin, text.find_first_of(" \r\n", begin) - begin);
}

inline int64_t Number(const std::string& reply) {
  return reply.starts_with(':') ? std::stoll(reply.substr(1)) : -1;
}

// Runs on loop 0 with the world held, and returns when it has run.
template <typename Work>
void Exclusively(Server& server, Work&& work) {
  std::promise<void> done;
  server.loops().front()->Post([&](Loop& loop) {
    loop.dispatcher().Exclusively(work);
    done.set_value();
  });
  done.get_future().wait();
}

class ServerTest : public testing::TestWithParam<int> {
 protected:
  TestServer::Options Threads(Arguments arguments = {}) {
    return {.threads = GetParam(), .arguments = std::move(arguments)};
  }
};

}  // namespace crab::test

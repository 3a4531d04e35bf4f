// Runs command lines against a keyspace, without a server: no connection, no locks, no log. What a
// command logs is kept and can be replayed into another keyspace.
//
//   TEST_F(StringCommandsTest, CountsTheBytesOfAValue) {
//     EXPECT_EQ(Run("SET key value"), "+OK");
//     EXPECT_EQ(Run("STRLEN key"), ":5");
//   }
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/command.h"
#include "src/commands/registry.h"
#include "src/execution/replayer.h"
#include "src/keyspace/keyspace.h"

namespace crab {

// Cuts a line into words at spaces. "..." holds one word, in which \n, \r, \t, \" , \\ and \xHH
// mean what they mean in redis-cli.
inline std::vector<std::string> SplitLine(std::string_view line) {
  std::vector<std::string> words;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == ' ') continue;
    const bool quoted = line[i] == '"';
    std::string word;
    for (i += quoted; i < line.size() && line[i] != (quoted ? '"' : ' '); ++i) {
      if (!quoted || line[i] != '\\') {
        word += line[i];
        continue;
      }
      switch (line[++i]) {
        case 'n':
          word += '\n';
          break;
        case 'r':
          word += '\r';
          break;
        case 't':
          word += '\t';
          break;
        case 'x':
          word += static_cast<char>(std::stoi(std::string(line.substr(i + 1, 2)), nullptr, 16));
          i += 2;
          break;
        default:
          word += line[i];
      }
    }
    words.push_back(std::move(word));
  }
  return words;
}

// A keyspace, one client, and the rows that it may call.
class CommandRunner {
 public:
  // The time at which commands run, until a test moves it.
  static constexpr int64_t kStartMs = 1'700'000'000'000;

  explicit CommandRunner(KeyspaceOptions options = {.shard_count = 16, .hash_seed = 1})
      : registry({StringCommands(), KeyCommands(), ExpireCommands(), ObjectCommands(),
                  CommandCommands()}),
        keyspace(options),
        view_(keyspace, effects_, stats) {}

  // The reply's bytes. Arity and unknown names answer as dispatch does.
  std::string RunWords(std::span<const std::string> words) {
    last_effects_.clear();
    std::vector<std::string_view> argv(words.begin(), words.end());
    const Args args(argv);
    const Command* container = nullptr;
    const Command* command = registry.Find(args, &container);
    if (command == nullptr) return "-ERR unknown command\r\n";
    if (!command->AritySuits(args.size())) {
      return "-ERR wrong number of arguments for '" + std::string(command->name) + "' command\r\n";
    }
    const Status status = Invoke(*command, args, now_ms);
    if (!status.ok()) {
      EXPECT_TRUE(out_.empty()) << command->name << " replied and then failed";
      EXPECT_TRUE(effects_.count() == 0 || OnlyDeletions()) << command->name;
      resp::Reply(out_, client.protocol).Error(status.message());
    }
    if (!effects_.empty()) {
      payloads_.emplace_back(effects_.bytes());
      ForEachEffect(effects_.bytes(), [&](const EffectView& effect) {
        if (!last_effects_.empty()) last_effects_ += "; ";
        if (effect.db != 0) last_effects_ += "[" + std::to_string(effect.db) + "] ";
        last_effects_.append(EffectName(effect.id));
        for (std::string_view argument : effect.arguments) {
          last_effects_.append(" ").append(argument);
        }
      });
    }
    effects_.Clear();
    std::string reply(out_.view());
    out_.Clear();
    return reply;
  }
  // The same of a line. Of the reply each CR LF is shown as one space, but for the last, and a zero
  // byte as \0.
  std::string Run(std::string_view line) {
    std::string reply = RunWords(SplitLine(line));
    for (size_t at; (at = reply.find("\r\n")) != std::string::npos;) reply.replace(at, 2, " ");
    if (!reply.empty()) reply.pop_back();
    for (size_t at; (at = reply.find('\0')) != std::string::npos;) reply.replace(at, 1, "\\0");
    return reply;
  }
  // What the last command logged: "SET k v; DEL x", "" when nothing.
  const std::string& last_effects() const { return last_effects_; }

  // The effects of each command that logged some.
  const std::vector<std::string>& payloads() const { return payloads_; }

  // Runs all that `life` logged, as recovery does.
  void Replay(const CommandRunner& life) {
    Replayer replayer(keyspace, registry);
    for (const std::string& payload : life.payloads_) {
      const Status status = replayer.Replay(payload, {0, keyspace.shard_count()});
      EXPECT_TRUE(status.ok()) << status.message();
    }
  }

  // Everything in the keyspace, a line per key: type, deadline and value.
  std::map<std::string, std::string> Contents() const {
    std::map<std::string, std::string> contents;
    for (uint32_t db = 0; db < keyspace.options().databases; ++db) {
      keyspace.ForEach(db, [&](const Entry& entry) {
        char scratch[24];
        std::string& line = contents[std::to_string(db) + "/" + std::string(entry.key())];
        line.append(TypeName(entry.type())).append(" ");
        line.append(std::to_string(entry.deadline_ms())).append(" ");
        line.append(entry.StringBytes(scratch));
        return true;
      });
    }
    return contents;
  }

  const Registry registry;
  Keyspace keyspace;
  KeyspaceStats stats;
  Client client;
  int64_t now_ms = kStartMs;

 private:
  Status Invoke(const Command& command, Args args, int64_t time) {
    view_.Begin(client.db, time, client.no_touch);
    resp::Reply reply(out_, client.protocol);
    Call call{command, args, view_, reply, effects_, client, registry, time};
    return command.handler(call);
  }
  template <typename Visit>
  static void ForEachEffect(std::string_view bytes, Visit&& visit) {
    EffectView effect;
    while (!bytes.empty()) {
      const Status status = ReadEffect(&bytes, &effect);
      ASSERT_TRUE(status.ok()) << status.message();
      visit(effect);
    }
  }
  // A command that fails may have met keys whose time was up.
  bool OnlyDeletions() const {
    bool only = true;
    ForEachEffect(effects_.bytes(), [&](const EffectView& effect) {
      only = only && effect.id == static_cast<int>(EffectId::kDel);
    });
    return only;
  }

  Effects effects_;
  KeyspaceView view_;
  Buffer out_;
  std::vector<std::string> payloads_;
  std::string last_effects_;
};

class CallFixture : public testing::Test {
 protected:
  std::string Run(std::string_view line) { return runner_.Run(line); }
  const std::string& effects() const { return runner_.last_effects(); }

  CommandRunner runner_;
};

// One thing that a write command can do: lines that prepare the keyspace, then the line itself.
struct ReplaySample {
  std::vector<std::string> prepare;
  std::string line;
};

// Runs each sample and then its log, and expects both keyspaces to hold the same. Every row of
// `rows` that writes must be called by a sample.
inline void ExpectReplayEqualsLife(std::span<const Command> rows,
                                   std::span<const ReplaySample> samples) {
  std::map<std::string_view, int> calls;
  for (const Command& row : rows) {
    if (row.is_write()) calls[row.name] = 0;
  }
  for (const ReplaySample& sample : samples) {
    SCOPED_TRACE(sample.line);
    CommandRunner life;
    for (const std::string& line : sample.prepare) {
      const std::string reply = life.Run(line);
      ASSERT_FALSE(reply.starts_with("-")) << line << " answers " << reply;
    }
    const std::string reply = life.Run(sample.line);
    EXPECT_FALSE(reply.starts_with("-")) << reply;
    CommandRunner replay;
    replay.Replay(life);
    EXPECT_EQ(replay.Contents(), life.Contents());
    const Command* command = life.registry.FindName(SplitLine(sample.line)[0]);
    ASSERT_NE(command, nullptr);
    ++calls[command->name];
  }
  for (const auto& [name, count] : calls) EXPECT_GT(count, 0) << name << " has no sample";
}

}  // namespace crab

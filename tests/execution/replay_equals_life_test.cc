// Replay equals life: for every command that writes, the keyspace after running it equals the
// keyspace after replaying what it logged. The commands are those of a server's registry and their
// arguments are drawn from their rows' syntax, so a new command is tested by being there. One that
// never succeeds, or never changes anything, fails the test: it was not really tried.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/syntax.h"
#include "src/execution/dispatch.h"
#include "src/execution/replayer.h"
#include "src/server/server.h"
#include "tests/support/fake_log.h"
#include "tests/support/seed.h"
#include "tests/support/test_server.h"
#include "utils/random.h"

namespace crab {
namespace {

using test::FakeLog;
using test::LongTests;
using test::Mix;
using test::ScopedDirectory;
using test::TestSeed;

constexpr uint32_t kShards = 16;
constexpr uint32_t kDatabases = 4;
// Commands on one pair of keyspaces before the next, empty pair.
constexpr int kCommandsPerLife = 400;

using Words = std::vector<std::string>;

std::string Printed(const Words& words) {
  constexpr size_t kShown = 60;
  std::string line;
  for (const std::string& word : words) {
    if (!line.empty()) line += ' ';
    line += testing::PrintToString(word.substr(0, kShown));
    if (word.size() > kShown) line += "(" + std::to_string(word.size()) + " bytes)";
  }
  return line;
}

// Draws the arguments of a command.
class Arguments {
 public:
  explicit Arguments(uint64_t seed) : random_(seed) {}

  // A whole command line; `now_ms` is what times are near to.
  Words Draw(const Command& command, const std::vector<SyntaxArgument>& syntax, int64_t now_ms) {
    now_ms_ = now_ms;
    Words words;
    const std::string_view name = command.name;
    const size_t bar = name.find('|');
    words.emplace_back(name.substr(0, bar));
    if (bar != std::string_view::npos) words.emplace_back(name.substr(bar + 1));
    for (const SyntaxArgument& argument : syntax) Add(argument, &words);
    return words;
  }
  uint64_t Below(uint64_t bound) { return random_.Below(bound); }

 private:
  template <typename Container>
  const auto& Pick(const Container& container) {
    return container[random_.Below(std::size(container))];
  }
  bool Chance(uint64_t percent) { return random_.Below(100) < percent; }

  void Add(const SyntaxArgument& argument, Words* words) {
    if (argument.optional && Chance(60)) return;
    const uint64_t times = argument.multiple ? 1 + random_.Below(4) : 1;
    for (uint64_t i = 0; i < times; ++i) {
      if (!argument.token.empty() && (i == 0 || argument.multiple_token) &&
          argument.type != SyntaxArgument::Type::kPureToken) {
        words->emplace_back(argument.token);
      }
      AddOne(argument, words);
    }
  }

  void AddOne(const SyntaxArgument& argument, Words* words) {
    switch (argument.type) {
      case SyntaxArgument::Type::kOneof:
        return Add(Pick(argument.arguments), words);
      case SyntaxArgument::Type::kBlock:
        for (const SyntaxArgument& inner : argument.arguments) Add(inner, words);
        return;
      case SyntaxArgument::Type::kPureToken:
        return words->emplace_back(argument.token), void();
      case SyntaxArgument::Type::kKey:
        return words->push_back(Key()), void();
      case SyntaxArgument::Type::kPattern:
        return words->push_back(Chance(50) ? "*" : Key()), void();
      case SyntaxArgument::Type::kUnixTime:
        return words->push_back(UnixTime(argument.name)), void();
      case SyntaxArgument::Type::kInteger:
        return words->push_back(Integer(argument.name)), void();
      case SyntaxArgument::Type::kDouble:
        return words->push_back(Double()), void();
      case SyntaxArgument::Type::kString:
        return words->push_back(Value()), void();
    }
  }

  // Few, so that commands meet what others left; some are no text, one needs a long header.
  std::string Key() {
    static const std::string kKeys[] = {
        "a", "b", "c", "n", "", std::string("\0\r\n", 3), std::string(300, 'k'), "{t}x"};
    return Pick(kKeys);
  }

  std::string Value() {
    static const std::string kTexts[] = {"",    "0",    "-1",   "10",     "9223372036854775806",
                                         "007", "3.25", "-0.5", "1e3",    "-9223372036854775808",
                                         "x",   " 1",   "inf",  "\xff\n", "embstr, up to 44 bytes"};
    const uint64_t roll = random_.Below(1000);
    if (roll < 700) return Pick(kTexts);
    if (roll < 800) return Bytes(44 + random_.Below(3));  // embstr and raw
    if (roll < 960) return Bytes(254 + random_.Below(60));
    if (roll < 998) return Bytes(70'000);
    return Bytes((1 << 20) + 100'000);  // more than one effect holds
  }
  std::string Bytes(size_t size) {
    std::string bytes(size, '\0');
    const uint64_t salt = random_.Next();
    for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(salt >> (i % 57));
    return bytes;
  }

  std::string Number(int64_t least, int64_t most) {
    return std::to_string(
        least + static_cast<int64_t>(random_.Below(static_cast<uint64_t>(most - least) + 1)));
  }
  // A number that suits what it is called, and now and then one at the edge or beyond.
  std::string Integer(std::string_view name) {
    static const std::string kEdges[] = {
        "0", "-1", "1", "9223372036854775807", "-9223372036854775808", "18446744073709551616",
        "x", ""};
    if (Chance(8)) return Pick(kEdges);
    const auto called = [&](std::string_view part) { return name.find(part) != name.npos; };
    if (called("db") || called("index")) return Number(0, kDatabases - 1);
    if (called("milliseconds")) return Chance(20) ? "1" : Number(1, 100'000'000);
    if (called("seconds")) return Number(1, 100'000);
    if (called("offset")) return Chance(90) ? Number(0, 400) : Number(0, 200'000);
    return Chance(70) ? Number(-100, 100) : Number(-5'000'000'000, 5'000'000'000);
  }
  std::string UnixTime(std::string_view name) {
    if (Chance(8)) return Integer(name);
    // From a little in the past: what has expired is part of the state.
    const int64_t at_ms = now_ms_ - 100'000 + static_cast<int64_t>(random_.Below(100'000'000));
    return std::to_string(name.find("milli") != name.npos ? at_ms : at_ms / 1000);
  }
  std::string Double() {
    static const std::string kDoubles[] = {"0",   "1",    "-1.5",  "0.1",  "3.0e3", "1e-7",
                                           "5e5", "-inf", "1e400", "text", "1e17",  "100.000"};
    return Pick(kDoubles);
  }

  Random random_;
  int64_t now_ms_ = 0;
};

// How a short string is kept tells of its past: raw after an APPEND, embstr and not int after an
// INCRBYFLOAT. A restart forgets that, in Redis as here; of all else it forgets nothing.
std::string_view EncodingOf(const Entry& entry) {
  if (entry.type() == Type::kString && entry.StringSize() <= kEmbstrBytesMax) return "short";
  return EncodingName(entry.encoding());
}

// Everything about a keyspace, a line per key: type, encoding, deadline and value.
std::map<std::string, std::string> ContentsOf(const Keyspace& keyspace) {
  std::map<std::string, std::string> contents;
  for (uint32_t db = 0; db < keyspace.options().databases; ++db) {
    keyspace.ForEach(db, [&](const Entry& entry) {
      std::string& line = contents[std::to_string(db) + "/" + std::string(entry.key())];
      EXPECT_TRUE(line.empty()) << "a key that is there twice";
      line.append(TypeName(entry.type())).append(" ").append(EncodingOf(entry));
      line.append(" ").append(std::to_string(entry.deadline_ms())).append(" ");
      if (entry.type() != Type::kString) {
        ADD_FAILURE() << "values of type " << TypeName(entry.type()) << " are not compared";
        return false;
      }
      char scratch[24];
      line.append(entry.StringBytes(scratch));
      return true;
    });
  }
  return contents;
}

// The first line in which two keyspaces differ, "" where none does.
std::string Difference(const Keyspace& life, const Keyspace& replay) {
  const auto ours = ContentsOf(life);
  const auto theirs = ContentsOf(replay);
  const auto shown = [](const std::string& line) { return Printed({line}); };
  for (const auto& [key, line] : ours) {
    const auto found = theirs.find(key);
    if (found == theirs.end()) return shown(key) + " is only in life: " + shown(line);
    if (found->second != line) {
      return shown(key) + " is " + shown(line) + " in life, " + shown(found->second) + " in replay";
    }
  }
  for (const auto& [key, line] : theirs) {
    if (!ours.contains(key)) return shown(key) + " is only in replay: " + shown(line);
  }
  return "";
}

KeyspaceOptions Options() {
  KeyspaceOptions options;
  options.shard_count = kShards;
  options.databases = kDatabases;
  options.hash_seed = 1;
  options.string_bytes_max = 4 << 20;
  return options;
}

uint64_t TakeVarint(std::string_view* bytes) {
  uint64_t value = 0;
  for (int shift = 0; !bytes->empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(bytes->front());
    bytes->remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// One effect with the shard that its record, or the directory of its transaction, states.
struct Stated {
  uint16_t shard;
  std::string_view bytes;
};
std::vector<Stated> EffectsOf(const FakeLog::Record& record) {
  if (record.type != wal::RecordType::kTxn) return {{record.shard, record.payload}};
  std::string_view rest = record.payload;
  std::vector<std::pair<uint16_t, size_t>> directory(TakeVarint(&rest));
  for (auto& [shard, size] : directory) {
    shard =
        static_cast<uint16_t>(static_cast<uint8_t>(rest[0]) | static_cast<uint8_t>(rest[1]) << 8);
    rest.remove_prefix(2);
    size = TakeVarint(&rest);
  }
  std::vector<Stated> effects;
  for (const auto& [shard, size] : directory) {
    effects.push_back({shard, rest.substr(0, size)});
    rest.remove_prefix(size);
  }
  return effects;
}

// A keyspace that commands run on, and one that gets what they log, record by record.
class Pair {
 public:
  explicit Pair(const Registry& registry)
      : registry_(registry),
        life_(Options()),
        replay_(Options()),
        world_(1),
        execution_{life_, world_, registry},
        dispatcher_(execution_, 0),
        replayer_(replay_, registry) {
    execution_.log = &log_;
    world_.Enter(0);
  }
  ~Pair() { world_.Exit(0); }

  // Runs a command and replays what it logged. Its reply.
  std::string Run(const Words& words) {
    const std::vector<std::string_view> argv(words.begin(), words.end());
    dispatcher_.RefreshClock();
    Buffer out;
    resp::Reply reply(out, client_.protocol);
    EXPECT_EQ(dispatcher_.Run(client_, Args(argv), reply), Dispatcher::Outcome::kDone);
    const size_t before = replayed_;
    for (; replayed_ < log_.records().size(); ++replayed_) Replay(log_.records()[replayed_]);
    logged_ = replayed_ != before;
    return std::string(out.view());
  }
  bool logged() const { return logged_; }  // whether the last command did
  std::string Difference() const { return crab::Difference(life_, replay_); }

  // Replays all records again into an empty keyspace, one shard after the other, in an order drawn
  // by `arguments`: as a recovery that lets a client's shard come first.
  std::string DifferenceByShard(Arguments& arguments) const {
    Keyspace keyspace(Options());
    Replayer replayer(keyspace, registry_);
    std::vector<uint32_t> shards;
    for (uint32_t shard = 0; shard < kShards; ++shard) {
      shards.insert(shards.begin() + static_cast<int64_t>(arguments.Below(shard + 1)), shard);
    }
    for (uint32_t shard : shards) {
      for (const FakeLog::Record& record : log_.records()) {
        for (const Stated& effect : EffectsOf(record)) {
          if (effect.shard != shard && effect.shard != Effects::kBroadcast) continue;
          const Status status = replayer.Replay(effect.bytes, {shard, shard + 1});
          if (!status.ok()) return std::string(status.message());
        }
      }
    }
    return crab::Difference(life_, keyspace);
  }
  int64_t now_ms() const { return dispatcher_.now_ms(); }
  Client& client() { return client_; }

 private:
  void Replay(const FakeLog::Record& record) {
    std::string_view effects = record.payload;
    if (record.type == wal::RecordType::kTxn) {
      auto found = TransactionEffects(record.payload);
      ASSERT_TRUE(found.ok()) << found.message();
      effects = *found;
    }
    const Status checked = replayer_.Check(effects);
    EXPECT_TRUE(checked.ok()) << checked.message();
    const Status status = replayer_.Replay(effects, {0, kShards});
    EXPECT_TRUE(status.ok()) << status.message();
  }

  const Registry& registry_;
  Keyspace life_, replay_;
  World world_;
  Execution execution_;
  FakeLog log_;
  Dispatcher dispatcher_;
  Replayer replayer_;
  Client client_;
  size_t replayed_ = 0;
  bool logged_ = false;
};

// A row that writes, and how its trials went.
struct Writer {
  const Command* command;
  std::vector<SyntaxArgument> syntax;
  int calls = 0, successes = 0, effects = 0;
};

std::vector<Writer> WritersOf(const Registry& registry) {
  std::vector<Writer> writers;
  const auto add = [&](const Command* command) {
    if (!command->is_write()) return;
    auto syntax = ParseSyntax(command->syntax);
    ASSERT_TRUE(syntax.ok()) << command->name << ": " << syntax.message();
    writers.push_back({command, std::move(*syntax)});
  };
  for (const Command* command : registry.commands()) {
    add(command);
    for (const Command* subcommand : registry.Subcommands(*command)) add(subcommand);
  }
  return writers;
}

class ReplayEqualsLifeTest : public testing::Test {
 protected:
  // The registry that clients meet.
  ReplayEqualsLifeTest() {
    SetLogLevel(LogLevel::kNothing);
    auto config = test::ConfigOf({"--port", "0", "--unixsocket", directory_.path() + "/socket"});
    auto server = Server::Start(std::move(*config));
    if (server.ok()) server_ = std::move(*server);
  }

  ScopedDirectory directory_;
  std::unique_ptr<Server> server_;
};

TEST_F(ReplayEqualsLifeTest, ForEveryCommandThatWrites) {
  ASSERT_NE(server_, nullptr);
  const Registry& registry = server_->registry();
  std::vector<Writer> writers = WritersOf(registry);
  ASSERT_FALSE(writers.empty());
  const int rounds = LongTests() ? 2000 : 60;
  SCOPED_TRACE(testing::Message() << "seed " << TestSeed());
  uint64_t commands = 0;
  for (int round = 0; round < rounds; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    Arguments arguments(Mix(TestSeed(), static_cast<uint64_t>(round)));
    Pair pair(registry);
    for (int i = 0; i < kCommandsPerLife; ++i, ++commands) {
      pair.client().db = arguments.Below(4) == 0 ? arguments.Below(kDatabases) : 0;
      Writer& writer = writers[arguments.Below(writers.size())];
      // What empties everything would leave the others little to work on.
      const bool sweeping = writer.command->keys[0].first == 0;
      if (sweeping && arguments.Below(10) != 0) continue;
      const Words words = arguments.Draw(*writer.command, writer.syntax, pair.now_ms());
      const std::string reply = pair.Run(words);
      ++writer.calls;
      if (!reply.starts_with("-")) ++writer.successes;
      if (pair.logged()) ++writer.effects;
      ASSERT_EQ(pair.Difference(), "") << "after " << Printed(words) << " in database "
                                       << pair.client().db << ", which got " << Printed({reply});
    }
    ASSERT_EQ(pair.DifferenceByShard(arguments), "") << "shard by shard";
  }
  for (const Writer& writer : writers) {
    EXPECT_GT(writer.calls, 0) << writer.command->name << " was never drawn";
    EXPECT_GT(writer.successes, 0) << writer.command->name << " never succeeded in " << writer.calls
                                   << " calls: draw arguments that suit it";
    EXPECT_GT(writer.effects, 0) << writer.command->name << " never changed anything in "
                                 << writer.calls << " calls";
  }
  std::printf("%zu write commands, %llu commands replayed\n", writers.size(),
              static_cast<unsigned long long>(commands));
}

// The same test with a replay that forgets one record must fail: it sees what it is to see.
TEST_F(ReplayEqualsLifeTest, ADifferenceIsSeen) {
  ASSERT_NE(server_, nullptr);
  Keyspace one(Options()), other(Options());
  Effects effects;
  KeyspaceStats stats;
  KeyspaceView view_of_one(one, effects, stats), view_of_other(other, effects, stats);
  const auto set = [](KeyspaceView& view, uint32_t db, std::string_view key, std::string_view value,
                      int64_t deadline_ms) {
    view.Begin(db, 0, true);
    view.SetString(key, value, deadline_ms);
  };
  set(view_of_one, 0, "k", "1", kNoDeadline);
  EXPECT_NE(Difference(one, other), "") << "a key that is missing";
  EXPECT_NE(Difference(other, one), "") << "a key too many";
  set(view_of_other, 0, "k", "2", kNoDeadline);
  EXPECT_NE(Difference(one, other), "") << "another value";
  set(view_of_other, 0, "k", "1", 5);
  EXPECT_NE(Difference(one, other), "") << "another deadline";
  set(view_of_other, 0, "k", "1", kNoDeadline);
  EXPECT_EQ(Difference(one, other), "");
  set(view_of_one, 1, "j", "1", kNoDeadline);
  set(view_of_other, 2, "j", "1", kNoDeadline);
  EXPECT_NE(Difference(one, other), "") << "another database";
}

}  // namespace
}  // namespace crab

// crabcache-wal dump --resp, and which records a dump begins with.
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "src/wal_tool/text.h"
#include "tests/persistence/log_story.h"

namespace crab::test {
namespace {

using Words = std::vector<std::string>;

// Whole requests of RESP; anything else fails the test.
std::vector<Words> ParseRequests(std::string_view bytes) {
  std::vector<Words> requests;
  const auto number = [&](char mark) {
    const size_t end = bytes.find("\r\n");
    if (bytes.empty() || bytes[0] != mark || end == std::string_view::npos) {
      ADD_FAILURE() << "expected " << mark << " at " << bytes.substr(0, 20);
      bytes = {};
      return 0ul;
    }
    const auto value = std::stoul(std::string(bytes.substr(1, end - 1)));
    bytes.remove_prefix(end + 2);
    return value;
  };
  while (!bytes.empty()) {
    Words words(number('*'));
    for (std::string& word : words) {
      const size_t size = number('$');
      word = bytes.substr(0, size);
      EXPECT_EQ(bytes.substr(size, 2), "\r\n");
      bytes.remove_prefix(size + 2);
    }
    requests.push_back(std::move(words));
  }
  return requests;
}

// As a server would run them on a new connection.
Data RunRequests(const std::vector<Words>& requests) {
  Data data;
  uint32_t db = 0;
  bool in_multi = false;
  for (const Words& words : requests) {
    if (words[0] == "SELECT") {
      db = static_cast<uint32_t>(std::stoul(words[1]));
    } else if (words[0] == "MULTI" || words[0] == "EXEC") {
      EXPECT_EQ(in_multi, words[0] == "EXEC");
      in_multi = !in_multi;
    } else {
      RunWords(db, std::vector<std::string_view>(words.begin(), words.end()), &data);
    }
  }
  EXPECT_FALSE(in_multi);
  return data;
}

class WalToolDumpTest : public testing::Test {
 protected:
  WalToolDumpTest() { TellAStory(story_); }
  SimDisk disk_;
  LogStory story_{disk_};
};

TEST_F(WalToolDumpTest, GivesCommandsThatMakeTheSameData) {
  const ToolAnswer all = RunTool(disk_, {"dump", "wal", "--resp"});
  EXPECT_EQ(all.status, 0) << all.errors;
  EXPECT_EQ(RunRequests(ParseRequests(all.out)), story_.now());
  // From the first record, without the checkpoint.
  const ToolAnswer records = RunTool(disk_, {"dump", "wal", "--resp", "--from", "1"});
  EXPECT_EQ(RunRequests(ParseRequests(records.out)), story_.now());
  EXPECT_NE(records.out, all.out);
}

TEST_F(WalToolDumpTest, GivesTheDataOfEveryPoint) {
  for (const auto& [lsn, data] : story_.after()) {
    const ToolAnswer answer =
        RunTool(disk_, {"dump", "wal", "--resp", "--to", std::to_string(lsn)});
    EXPECT_EQ(answer.status, 0) << answer.errors;
    EXPECT_EQ(RunRequests(ParseRequests(answer.out)), data) << lsn;
  }
}

TEST_F(WalToolDumpTest, BeginsWithTheCheckpoint) {
  const std::string checkpoint = std::to_string(story_.checkpoints()[0]);
  const ToolAnswer text = RunTool(disk_, {"dump", "wal"});
  EXPECT_TRUE(text.out.starts_with(checkpoint + " checkpoint ")) << text.out.substr(0, 80);
  const ToolAnswer json = RunTool(disk_, {"dump", "wal", "--json"});
  EXPECT_TRUE(
      json.out.starts_with("{\"lsn\":" + checkpoint + ",\"type\":\"checkpoint\",\"shard\":"))
      << json.out.substr(0, 80);
  const ToolAnswer before =
      RunTool(disk_, {"dump", "wal", "--to", std::to_string(story_.checkpoints()[0] - 1)});
  EXPECT_TRUE(before.out.starts_with("1 ")) << before.out.substr(0, 80);
}

TEST(WalToolDumpRespTest, WrapsWhatWasAtomicAndNothingElse) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.SetBoth(3, "a", "b", "x");
  story.Set(3, "large", std::string(3 << 20, 'y'));
  story.FlushDb(0);
  story.Stop();
  std::string names;
  const auto requests = ParseRequests(RunTool(disk, {"dump", "wal", "--resp"}).out);
  for (const Words& words : requests) names += words[0] + " ";
  EXPECT_EQ(names, "MULTI SELECT SET SET EXEC SET APPEND APPEND SELECT FLUSHDB ");
  EXPECT_EQ(RunRequests(requests), story.now());
}

// Keys with their deadlines, as a server has them when its clock says `now_ms`.
class Server {
 public:
  explicit Server(int64_t now_ms) : now_ms_(now_ms) {}

  struct Entry {
    std::string value;
    int64_t deadline_ms = kNoDeadline;
    bool operator==(const Entry&) const = default;
  };
  using Key = std::pair<uint32_t, std::string>;

  // Whether it changes anything: what does not is never logged.
  bool Changes(uint32_t db, const std::vector<std::string_view>& words) const {
    const std::string_view name = words[0];
    if (name != "PEXPIREAT" && name != "MOVE") return true;
    const std::string key(words[1]);
    return entries_.contains({db, key}) &&
           (name != "MOVE" || !entries_.contains({Number(words[2]), key}));
  }
  void Run(uint32_t db, const std::vector<std::string_view>& words) {
    const std::string_view name = words[0];
    if (name == "FLUSHALL") return entries_.clear();
    if (name == "FLUSHDB") {
      std::erase_if(entries_, [&](const auto& entry) { return entry.first.first == db; });
      return;
    }
    if (name == "SWAPDB") {
      std::map<Key, Entry> swapped;
      for (auto& [of, entry] : entries_) {
        const uint32_t to = of.first == Number(words[1])   ? Number(words[2])
                            : of.first == Number(words[2]) ? Number(words[1])
                                                           : of.first;
        swapped[{to, of.second}] = entry;
      }
      entries_ = std::move(swapped);
      return;
    }
    const Key key(db, words[1]);
    const auto there = entries_.find(key);
    if (name == "SET") {
      Entry& entry = entries_[key];
      entry.value = words[2];
      if (words.size() == 3) entry.deadline_ms = kNoDeadline;
      if (words.size() == 5) Expire(key, words[4]);
    } else if (name == "APPEND") {
      entries_[key].value += words[2];
    } else if (name == "DEL") {
      entries_.erase(key);
    } else if (name == "PEXPIREAT") {
      if (there != entries_.end()) Expire(key, words[2]);
    } else if (name == "PERSIST") {
      if (there != entries_.end()) there->second.deadline_ms = kNoDeadline;
    } else if (name == "MOVE") {
      const Key to(Number(words[2]), words[1]);
      if (there == entries_.end() || entries_.contains(to)) return;
      entries_[to] = std::exchange(there->second, {});
      entries_.erase(key);
    } else {
      ADD_FAILURE() << "no such effect here: " << name;
    }
  }
  void Run(const std::vector<Words>& requests) {
    uint32_t db = 0;
    for (const Words& words : requests) {
      if (words[0] == "SELECT") {
        db = Number(words[1]);
      } else if (words[0] != "MULTI" && words[0] != "EXEC") {
        Run(db, std::vector<std::string_view>(words.begin(), words.end()));
      }
    }
  }
  // Those whose time is up go too.
  const std::map<Key, Entry>& entries() {
    std::erase_if(entries_, [&](const auto& entry) {
      return entry.second.deadline_ms >= 0 && entry.second.deadline_ms <= now_ms_;
    });
    return entries_;
  }

 private:
  static uint32_t Number(std::string_view word) {
    return static_cast<uint32_t>(std::stoul(std::string(word)));
  }
  void Expire(const Key& key, std::string_view deadline_ms) {
    entries_[key].deadline_ms = std::stoll(std::string(deadline_ms));
    if (entries_[key].deadline_ms <= now_ms_) entries_.erase(key);
  }

  const int64_t now_ms_;
  std::map<Key, Entry> entries_;
};

// One effect that follows from `chance`.
void AddEffect(uint64_t chance, Effects* effects) {
  const std::string key = "key:" + std::to_string(chance % 7);
  const auto db = static_cast<uint32_t>(chance / 8 % 2);
  const uint16_t shard = LogStory::ShardOf(key);
  const std::string value = "v" + std::to_string(chance % 1000);
  const auto deadline_ms = static_cast<int64_t>(1 + chance / 16 % 1000);
  switch (chance / 100000 % 16) {
    case 0:
      return effects->Del(shard, db, key);
    case 1:
      return effects->Persist(shard, db, key);
    case 2:
      return effects->Set(shard, db, key, value, kNoDeadline);
    case 3:
      return effects->Set(shard, db, key, value, kKeepDeadline);
    case 4:
    case 5:
      return effects->Add(shard, db, EffectId::kMove, {key, db == 0 ? "1" : "0"});
    case 6:
    case 7:
    case 8:
      return effects->Expireat(shard, db, key, deadline_ms);
    case 9:
    case 10:
      return effects->Set(shard, db, key, value, deadline_ms);
    case 11:
      if (chance % 3 == 0) return effects->Broadcast(0, EffectId::kSwapdb, {"0", "1"});
      if (chance % 31 == 1) return effects->Broadcast(db, EffectId::kFlushdb, {});
      if (chance % 61 == 1) return effects->Broadcast(0, EffectId::kFlushall, {});
      [[fallthrough]];
    default:
      return effects->Add(shard, db, EffectId::kAppend, {key, value});
  }
}

// Whatever the clock of the server that takes the commands.
TEST(WalToolDumpRespTest, ReplaysKeysWhoseTimeIsUp) {
  for (uint64_t round = 0; round < 20; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    SimDisk disk;
    Boot boot = BootLog(disk, LogOptions(wal::SyncPolicy::kNone));
    ASSERT_NE(boot.log, nullptr) << boot.error;
    Server logged(/*now_ms=*/0);
    for (uint64_t i = 0; i < 300; ++i) {
      const uint64_t chance = Mix(TestSeed() + round, i);
      Effects effects;
      const auto add = [&](uint64_t what) {
        Effects one;
        AddEffect(what, &one);
        std::string_view bytes = one.bytes();
        EffectView effect;
        ASSERT_TRUE(ReadEffect(&bytes, &effect).ok());
        if (one.shard() == Effects::kBroadcast && effects.count() > 0) return;
        std::vector<std::string_view> words = {EffectName(effect.id)};
        words.insert(words.end(), effect.arguments.begin(), effect.arguments.end());
        if (!logged.Changes(effect.db, words)) return;
        logged.Run(effect.db, words);
        AddEffect(what, &effects);
      };
      add(chance);
      if (chance % 5 == 0 && effects.count() == 1 && effects.shard() != Effects::kBroadcast) {
        add(Mix(chance, 1));
      }
      if (effects.empty()) continue;
      const bool several = effects.count() > 1;
      const auto type = several                                  ? wal::RecordType::kTxn
                        : effects.shard() == Effects::kBroadcast ? wal::RecordType::kBroadcast
                                                                 : wal::RecordType::kEffect;
      (void)boot.log->Append(type, several ? wal::kBroadcastShard : effects.shard(),
                             several ? effects.Transaction() : effects.bytes());
    }
    ASSERT_TRUE(boot.log->Stop().ok());
    const ToolAnswer answer = RunTool(disk, {"dump", "wal", "--resp"});
    ASSERT_EQ(answer.status, 0) << answer.errors;
    const auto requests = ParseRequests(answer.out);
    for (const int64_t now_ms : {0, 500, 1000000}) {
      Server server(now_ms);
      server.Run(requests);
      auto expected = logged.entries();
      std::erase_if(expected, [&](const auto& entry) {
        return entry.second.deadline_ms >= 0 && entry.second.deadline_ms <= now_ms;
      });
      EXPECT_EQ(server.entries(), expected) << "at " << now_ms;
    }
    if (HasFailure()) return;
  }
}

TEST(WalToolDumpTimeTest, TakesRecordsOfATime) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(5, 1);
  story.Stop();
  const std::string now = std::to_string(RealClock().WallMs() + 1000);
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--from-time", now}).out, "");
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--to-time", "2020-01-01T00:00:00Z"}).out, "");
  EXPECT_EQ(RunTool(disk, {"dump", "wal", "--from-time", "2020-01-01", "--to-time", now}).out,
            RunTool(disk, {"dump", "wal"}).out);
}

TEST(WalToolTextTest, ReadsTimes) {
  for (const auto& [text, ms] : std::vector<std::pair<const char*, int64_t>>{
           {"1795377564", 1795377564000},
           {"1795377564398", 1795377564398},
           {"1970-01-01", 0},
           {"1970-01-02T00:00", 86400000},
           {"2026-11-22T21:13:40Z", 1795382020000},
           {"2026-11-22T21:13:40.25Z", 1795382020250},
           {"2026-11-22 21:13:40.2509", 1795382020250},
           {"2024-02-29", 1709164800000},
       }) {
    EXPECT_EQ(wal::ParseTime(text), ms) << text;
  }
  for (const char* text : {"", "now", "2026", "2026-13-01", "2026-02-30", "2026-11-22T", "-1",
                           "2026-11-22T24:00", "2026-11-22T21:13:40.Z", "2026-11-22T21:13+01"}) {
    EXPECT_EQ(wal::ParseTime(text), std::nullopt) << text;
  }
  EXPECT_EQ(wal::FormatTime(1795382020250), "2026-11-22T21:13:40.250Z");
  EXPECT_EQ(wal::ParseTime(wal::FormatTime(1709164800001)), 1709164800001);
}

}  // namespace
}  // namespace crab::test

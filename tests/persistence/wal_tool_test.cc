#include "src/wal_tool/wal_tool.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "src/keyspace/effects.h"
#include "tests/persistence/log_story.h"
#include "tests/support/log_run.h"
#include "tests/support/sim_disk.h"
#include "utils/version.h"

namespace crab::test {
namespace {

using Answer = ToolAnswer;

size_t Lines(const std::string& text) { return std::count(text.begin(), text.end(), '\n'); }

// Seven records in two epochs: LSN 1..4 and 5..7, the third a transaction.
class WalToolTest : public testing::Test {
 protected:
  WalToolTest() {
    {
      Boot boot = BootLog(disk_, LogOptions(wal::SyncPolicy::kSync));
      EXPECT_NE(boot.log, nullptr) << boot.error;
      Effects effects;
      effects.Set(3, 0, "key", "value", kNoDeadline);
      Append(*boot.log, wal::RecordType::kEffect, 3, effects.bytes());
      effects.Clear();
      effects.Add(4, 9, EffectId::kAppend, {"\"k\"\n", std::string_view("\0\xff", 2)});
      Append(*boot.log, wal::RecordType::kEffect, 4, effects.bytes());
      effects.Clear();
      effects.Del(1, 0, "a");
      effects.Del(2, 0, "b");
      Append(*boot.log, wal::RecordType::kTxn, wal::kBroadcastShard, effects.Transaction());
      Append(*boot.log, wal::RecordType::kEffect, 5, "no effect");
      EXPECT_TRUE(boot.log->Stop().ok());
    }
    Boot boot = BootLog(disk_, LogOptions(wal::SyncPolicy::kSync));
    EXPECT_NE(boot.log, nullptr) << boot.error;
    Effects effects;
    effects.Broadcast(2, EffectId::kFlushdb, {});
    for (int i = 0; i < 3; ++i) {
      Append(*boot.log, wal::RecordType::kBroadcast, wal::kBroadcastShard, effects.bytes());
    }
    EXPECT_TRUE(boot.log->Stop().ok());
  }

  void Append(wal::Log& log, wal::RecordType type, uint16_t shard, std::string_view payload) {
    lsns_.push_back(log.Append(type, shard, payload));
    WaitDurable(log, lsns_.back());
  }
  std::string Lsn(int record) const { return std::to_string(lsns_[record]); }
  std::string Last() const { return SegmentPaths(disk_).back(); }

  SimDisk disk_;
  std::vector<wal::Lsn> lsns_;
};

TEST_F(WalToolTest, SaysHowItIsUsed) {
  const Answer help = RunTool(disk_, {"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_EQ(help.out, wal::WalToolHelp());
  for (const std::string_view verb : wal::WalToolVerbs()) {
    EXPECT_NE(help.out.find("\n  " + std::string(verb) + " "), std::string::npos) << verb;
    const Answer of_verb = RunTool(disk_, {verb, "--help"});
    EXPECT_EQ(of_verb.out.find("Usage: crabcache-wal " + std::string(verb) + " "), 0u);
  }
  EXPECT_EQ(RunTool(disk_, {"--version"}).out,
            "crabcache-wal " + std::string(kCrabcacheVersion) + "\n");
}

// docs/crabcache-wal.md shows what the program prints.
TEST(WalToolManualTest, IsWhatHelpPrints) {
  const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
  std::ifstream file(root / "docs/crabcache-wal.md", std::ios::binary);
  std::stringstream manual;
  manual << file.rdbuf();
  EXPECT_NE(manual.str().find("```\n" + wal::WalToolHelp() + "```\n"), std::string::npos)
      << wal::WalToolHelp();
  for (const std::string_view verb : wal::WalToolVerbs()) {
    const std::string help = wal::WalToolHelp(verb);
    const std::string section = "## " + std::string(verb) + "\n\n```\n" + help + "```\n";
    EXPECT_NE(manual.str().find(section), std::string::npos) << section;
  }
}

TEST_F(WalToolTest, RefusesWhatItDoesNotUnderstand) {
  for (const std::vector<std::string_view>& arguments :
       std::vector<std::vector<std::string_view>>{{},
                                                  {"list"},
                                                  {"frobnicate", "wal"},
                                                  {"list", "wal", "more"},
                                                  {"list", "wal", "--jason"},
                                                  {"dump", "wal", "--from"},
                                                  {"dump", "wal", "--from", "1x"},
                                                  {"dump", "wal", "--to", "-1"},
                                                  {"verify", "no/such/directory"}}) {
    const Answer answer = RunTool(disk_, arguments);
    EXPECT_EQ(answer.status, 2);
    EXPECT_EQ(answer.out, "");
    EXPECT_EQ(answer.errors.substr(0, 15), "crabcache-wal: ");
  }
}

TEST_F(WalToolTest, ListsARowForEachSegment) {
  const Answer table = RunTool(disk_, {"list", "wal/"});
  EXPECT_EQ(table.status, 0) << table.errors;
  EXPECT_EQ(Lines(table.out), 1 + SegmentPaths(disk_).size());
  EXPECT_NE(table.out.find("stopped"), std::string::npos);
  const Answer json = RunTool(disk_, {"list", "wal", "--json"});
  EXPECT_EQ(Lines(json.out), SegmentPaths(disk_).size());
  EXPECT_NE(json.out.find("\"last_lsn\":" + Lsn(6)), std::string::npos) << json.out;
}

TEST_F(WalToolTest, DumpsTheWordsOfEachRecord) {
  const Answer text = RunTool(disk_, {"dump", "wal"});
  EXPECT_EQ(text.status, 0) << text.errors;
  for (const std::string& line : {
           Lsn(0) + " effect 3 [0] SET \"key\" \"value\"",
           Lsn(1) + " effect 4 [9] APPEND \"\\\"k\\\"\\n\" \"\\x00\\xff\"",
           Lsn(2) + " txn * [0] DEL \"a\" ; [0] DEL \"b\"",
           Lsn(3) + " effect 5 ? \"no effect\" (",
           Lsn(4) + " broadcast * [2] FLUSHDB\n",
       }) {
    EXPECT_NE(("\n" + text.out).find("\n" + line), std::string::npos) << line << "\n" << text.out;
  }
}

TEST_F(WalToolTest, DumpsJson) {
  const Answer json = RunTool(disk_, {"dump", "wal", "--json", "--from", Lsn(1), "--to", Lsn(3)});
  EXPECT_EQ(json.status, 0) << json.errors;
  std::string timeless = json.out;  // when a record was written is nobody's choice
  for (size_t at; (at = timeless.find("\"time_ms\":")) != std::string::npos;) {
    timeless.erase(at, timeless.find(',', at) + 1 - at);
  }
  EXPECT_EQ(timeless.substr(0, timeless.find("{\"lsn\":" + Lsn(3))),
            "{\"lsn\":" + Lsn(1) +
                ",\"type\":\"effect\",\"shard\":4,\"effects\":[{\"db\":9,\"words\":[\"APPEND\","
                "\"\\\"k\\\"\\u000a\",{\"hex\":\"00ff\"}]}]}\n"
                "{\"lsn\":" +
                Lsn(2) +
                ",\"type\":\"txn\",\"shard\":null,\"effects\":[{\"db\":0,\"words\":[\"DEL\",\"a\"]}"
                ",{\"db\":0,\"words\":[\"DEL\",\"b\"]}]}\n");
  EXPECT_NE(json.out.find("\"payload\":\"no effect\",\"problem\":\""), std::string::npos);
}

TEST_F(WalToolTest, DumpsOnlyWhatWasAskedFor) {
  const Answer text = RunTool(disk_, {"dump", "wal", "--from", Lsn(5), "--to", Lsn(5)});
  EXPECT_EQ(text.out, Lsn(5) + " broadcast * [2] FLUSHDB\n");
  EXPECT_EQ(RunTool(disk_, {"dump", "wal", "--from", "1000"}).out, "");
}

TEST_F(WalToolTest, CallsAGoodLogGood) {
  const Answer text = RunTool(disk_, {"verify", "wal"});
  EXPECT_EQ(text.status, 0) << text.out;
  EXPECT_EQ(text.out.substr(0, 6), "good: ");
  EXPECT_EQ(RunTool(disk_, {"verify", "wal", "--json"}).out.substr(0, 19),
            "{\"verdict\":\"good\",\"");
}

TEST_F(WalToolTest, CallsATornTailGoodAndSaysSo) {
  // The last epoch as if the power had failed within its last write: no STOP frame, and half of the
  // record before it.
  const std::string bytes = disk_.Contents(Last());
  disk_.Cut(Last(), bytes.find_last_not_of('\0') + 1 - 80);
  const Answer text = RunTool(disk_, {"verify", "wal"});
  EXPECT_EQ(text.out.find("lost "), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("torn tail: "), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("good, with a torn tail: "), std::string::npos) << text.out;
  EXPECT_EQ(text.status, 0);
}

TEST_F(WalToolTest, NamesEachLostRange) {
  const std::string first = SegmentPaths(disk_).front();
  const size_t at = disk_.Contents(first).find("value");
  disk_.FlipBit(first, at * 8);
  const Answer text = RunTool(disk_, {"verify", "wal"});
  EXPECT_EQ(text.status, 1);
  EXPECT_NE(text.out.find("lost LSN " + Lsn(0) + ": wal-"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("\ncorrupt: "), std::string::npos) << text.out;
  const Answer json = RunTool(disk_, {"verify", "wal", "--json"});
  EXPECT_EQ(json.status, 1);
  EXPECT_NE(json.out.find("\"lost\":[{\"first\":" + Lsn(0) + ",\"last\":" + Lsn(0) + ","),
            std::string::npos)
      << json.out;
  // The rest is still shown.
  const Answer dump = RunTool(disk_, {"dump", "wal"});
  EXPECT_EQ(dump.status, 1);
  EXPECT_NE(dump.out.find(Lsn(1) + " effect 4"), std::string::npos);
  EXPECT_EQ(dump.out.find("\"value\""), std::string::npos);
}

TEST_F(WalToolTest, TellsADiskThatDoesNotRead) {
  disk_.AddFault({.calls = kRead, .nth = 4, .error = EIO, .for_ever = true});
  const Answer text = RunTool(disk_, {"verify", "wal"});
  EXPECT_NE(text.status, 0);
  EXPECT_NE((text.out + text.errors).find("Input/output error"), std::string::npos);
}

TEST_F(WalToolTest, LeavesARunningServersDirectoryAlone) {
  Boot boot = BootLog(disk_, LogOptions(wal::SyncPolicy::kSync));
  ASSERT_NE(boot.log, nullptr) << boot.error;
  WaitDurable(*boot.log, boot.log->Append(wal::RecordType::kEffect, 1, "x"));
  const uint64_t before = disk_.changing_calls();
  for (const std::string_view verb : {"list", "verify", "dump"}) {
    EXPECT_EQ(RunTool(disk_, {verb, "wal"}).status, 0) << verb;
  }
  EXPECT_EQ(disk_.calls_of(kLock), 3u);  // one for each boot
  EXPECT_LE(disk_.changing_calls() - before, 4u) << "nothing but the log's own heartbeat";
}

TEST(WalToolNoLogTest, SaysThatThereIsNoLog) {
  SimDisk disk;
  ASSERT_TRUE(disk.CreateDirectories("empty").ok());
  ASSERT_TRUE(disk.CreateDirectories("other").ok());
  disk.PutFile("other/dump.rdb", "something else");
  for (const std::string_view verb : {"list", "verify", "dump"}) {
    for (const std::string_view directory : {"empty", "other"}) {
      const Answer answer = RunTool(disk, {verb, directory});
      EXPECT_EQ(answer.status, 2);
      EXPECT_EQ(answer.out, "");
      EXPECT_NE(answer.errors.find("there is no log in " + std::string(directory)),
                std::string::npos);
    }
  }
}

}  // namespace
}  // namespace crab::test

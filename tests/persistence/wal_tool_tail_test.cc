// crabcache-wal tail and stats.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <sstream>
#include <streambuf>
#include <thread>

#include "tests/persistence/log_story.h"

namespace crab::test {
namespace {

// Keeps what is written and lets another thread wait for a number of lines.
class LineBuffer : public std::streambuf {
 public:
  std::vector<std::string> lines() const {
    std::lock_guard lock(mutex_);
    return lines_;
  }
  bool WaitForLines(size_t count) {
    std::unique_lock lock(mutex_);
    return moved_.wait_for(lock, std::chrono::seconds(20), [&] { return lines_.size() >= count; });
  }

 protected:
  int overflow(int c) override {
    std::lock_guard lock(mutex_);
    if (c == '\n') {
      lines_.push_back(std::exchange(line_, {}));
      moved_.notify_all();
    } else {
      line_.push_back(static_cast<char>(c));
    }
    return c;
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable moved_;
  std::string line_;
  std::vector<std::string> lines_;
};

wal::Lsn LsnOf(const std::string& line) {
  constexpr std::string_view kStart = "{\"lsn\":";
  return line.starts_with(kStart) ? std::stoull(line.substr(kStart.size())) : 0;
}

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<wal::Lsn> RecordsIn(const std::string& text) {
  std::vector<wal::Lsn> lsns;
  for (const std::string& line : Lines(text)) {
    if (LsnOf(line) != 0) lsns.push_back(LsnOf(line));
  }
  return lsns;
}

class Follower {
 public:
  Follower(wal::Disk& disk, std::vector<std::string_view> arguments)
      : thread_([this, &disk, arguments = std::move(arguments)] {
          std::ostream out(&lines_);
          std::ostringstream errors;
          status_ = wal::RunWalTool(disk, arguments, out, errors, {.stop = &stop_});
          errors_ = errors.str();
        }) {}
  ~Follower() { Stop(); }
  void Stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    EXPECT_EQ(status_, 0) << errors_;
  }
  LineBuffer& lines() { return lines_; }

 private:
  LineBuffer lines_;
  std::atomic<bool> stop_{false};
  int status_ = 0;
  std::string errors_;
  std::thread thread_;
};

TEST(WalToolTailTest, ShowsTheLastRecords) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  const wal::Lsn last = story.after().rbegin()->first;
  for (const size_t count : {1, 3, 10, 30, 60}) {
    const std::string text = std::to_string(count);
    const ToolAnswer answer = RunTool(disk, {"tail", "wal", "-n", text});
    EXPECT_EQ(answer.status, 0) << answer.errors;
    const auto lines = static_cast<size_t>(std::count(answer.out.begin(), answer.out.end(), '\n'));
    EXPECT_EQ(lines, count);
    EXPECT_NE(answer.out.find("{\"lsn\":" + std::to_string(last) + ","), std::string::npos);
  }
  const ToolAnswer from = RunTool(disk, {"tail", "wal", "--from", std::to_string(last)});
  EXPECT_EQ(RecordsIn(from.out), std::vector<wal::Lsn>{last});
}

// Whoever goes on where it has stopped must learn which of its LSNs have been issued again.
TEST(WalToolTailTest, TellsTheEpochsBeforeTheFirstRecord) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  const wal::Lsn last = story.after().rbegin()->first;
  for (const wal::Lsn from : {last, last + 1, last + 100}) {
    const ToolAnswer answer = RunTool(disk, {"tail", "wal", "--from", std::to_string(from)});
    EXPECT_EQ(answer.status, 0) << answer.errors;
    const auto lines = Lines(answer.out);
    ASSERT_EQ(lines.size(), from == last ? 3u : 2u) << answer.out;
    EXPECT_TRUE(lines[0].starts_with("{\"event\":\"epoch\",\"epoch\":1,\"first_lsn\":1,"));
    EXPECT_TRUE(lines[1].starts_with("{\"event\":\"epoch\",\"epoch\":2,\"first_lsn\":"));
    EXPECT_EQ(LsnOf(lines.back()), from == last ? last : 0);
  }
  // In the first epoch; the second is told where it begins.
  const auto lines = Lines(RunTool(disk, {"tail", "wal", "--from", "1"}).out);
  EXPECT_TRUE(lines.at(0).starts_with("{\"event\":\"epoch\",\"epoch\":1,"));
  EXPECT_EQ(LsnOf(lines.at(1)), 1u);
}

TEST(WalToolTailTest, TellsWhatIsGoneBeforeTheFirstRecord) {
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  disk.RemoveFile(SegmentPaths(disk).front());
  const ToolAnswer answer = RunTool(disk, {"tail", "wal", "--from", "3"});
  EXPECT_EQ(answer.status, 0) << answer.errors;
  const auto records = RecordsIn(answer.out);
  ASSERT_FALSE(records.empty());
  EXPECT_NE(answer.out.find("{\"event\":\"skipped\",\"first_lsn\":3,\"last_lsn\":" +
                            std::to_string(records.front() - 1) + "}\n"),
            std::string::npos)
      << answer.out;
  // Without a first LSN nothing is missed.
  EXPECT_EQ(RunTool(disk, {"tail", "wal", "-n", "1000"}).out.find("skipped"), std::string::npos);
}

TEST(WalToolTailTest, FollowsAServerOverSegmentsAndRestarts) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(5, 1);
  Follower follower(disk, {"tail", "-f", "wal", "--from", "1"});
  // One line for the epoch, and one for each record: LSN 0 of the story is none.
  ASSERT_TRUE(follower.lines().WaitForLines(story.after().size()));
  for (uint64_t round = 0; round < 5; ++round) {
    story.Change(5, 10 + round);
    story.Rotate();
    story.Change(5, 20 + round);
    if (round % 2 == 1) story.Checkpoint(/*tell=*/true);
    ASSERT_TRUE(follower.lines().WaitForLines(story.after().size()));
  }
  story.Stop();
  story.Boot();
  story.Change(5, 30);
  const wal::Lsn last = story.after().rbegin()->first;
  std::vector<std::string> lines;
  do {
    lines = follower.lines().lines();
  } while ((lines.empty() || LsnOf(lines.back()) != last) &&
           follower.lines().WaitForLines(lines.size() + 1));
  follower.Stop();
  story.Stop();
  // Every record, once, in order; and one line for each epoch.
  std::vector<wal::Lsn> lsns;
  std::string events;
  for (const std::string& line : lines) {
    if (LsnOf(line) != 0) {
      lsns.push_back(LsnOf(line));
    } else {
      events += line + "\n";
    }
  }
  std::vector<wal::Lsn> expected;
  for (const auto& [lsn, data] : story.after()) {
    if (lsn != 0) expected.push_back(lsn);
  }
  EXPECT_EQ(lsns, expected);
  EXPECT_TRUE(events.starts_with("{\"event\":\"epoch\",\"epoch\":1,")) << events;
  EXPECT_NE(events.find("\n{\"event\":\"epoch\",\"epoch\":2,"), std::string::npos) << events;
  EXPECT_EQ(std::count(events.begin(), events.end(), '\n'), 2) << events;
}

TEST(WalToolTailTest, FollowsACompressedLog) {
  SimDisk disk;
  wal::Options options = LogOptions(wal::SyncPolicy::kSync);
  options.compression = wal::Compression::kZstd;
  LogStory story(disk, options);
  story.Boot();
  Follower follower(disk, {"tail", "-f", "wal", "--from", "1"});
  story.Change(20, 1);
  EXPECT_TRUE(follower.lines().WaitForLines(story.after().size()));
  follower.Stop();
  story.Stop();
  for (const std::string& line : follower.lines().lines()) {
    if (LsnOf(line) == 0) continue;
    EXPECT_NE(line.find("\"effects\":["), std::string::npos) << line;
  }
}

// Whose log it is does not depend on what somebody copied into the directory, before or meanwhile.
TEST(WalToolTailTest, PassesSegmentsOfAnotherLogOver) {
  SimDisk other_disk;
  LogStory other(other_disk);
  other.Boot();
  other.Set(0, "foreign", "value");
  other.Stop();
  SimDisk disk;
  LogStory story(disk);
  TellAStory(story);
  PutForeignSegment(disk, other_disk, 50);
  const wal::Lsn last = story.after().rbegin()->first;
  const ToolAnswer end = RunTool(disk, {"tail", "wal", "-n", "5"});
  EXPECT_EQ(end.status, 0) << end.errors;
  EXPECT_NE(end.out.find("{\"lsn\":" + std::to_string(last) + ","), std::string::npos) << end.out;
  EXPECT_EQ(end.out.find("value"), std::string::npos) << end.out;

  const std::string from = std::to_string(last);
  Follower follower(disk, {"tail", "-f", "wal", "--from", from});
  // Two epochs, the last record, and word of the other log.
  ASSERT_TRUE(follower.lines().WaitForLines(4));
  PutForeignSegment(disk, other_disk, 51);
  ASSERT_TRUE(follower.lines().WaitForLines(5));
  story.Boot();
  story.Set(0, "next", "one");
  ASSERT_TRUE(follower.lines().WaitForLines(7));
  follower.Stop();
  story.Stop();
  std::vector<std::string> lines = follower.lines().lines();
  lines.erase(lines.begin(), lines.begin() + 2);
  EXPECT_EQ(LsnOf(lines[0]), last);
  EXPECT_EQ(lines[1], "{\"event\":\"foreign\",\"segment\":\"" + wal::SegmentName(50) + "\"}");
  EXPECT_EQ(lines[2], "{\"event\":\"foreign\",\"segment\":\"" + wal::SegmentName(51) + "\"}");
  EXPECT_TRUE(lines[3].starts_with("{\"event\":\"epoch\",")) << lines[3];
  EXPECT_EQ(LsnOf(lines[4]), last + 1);
}

TEST(WalToolTailTest, BeginsAtTheEnd) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Change(5, 1);
  Follower follower(disk, {"tail", "-f", "wal", "-n", "1"});
  ASSERT_TRUE(follower.lines().WaitForLines(1));  // from here on it follows
  const wal::Lsn next = story.Set(0, "new", "key");
  ASSERT_TRUE(follower.lines().WaitForLines(2));
  follower.Stop();
  story.Stop();
  EXPECT_EQ(LsnOf(follower.lines().lines().at(1)), next);
}

TEST(WalToolStatsTest, CountsWhatFillsTheLog) {
  SimDisk disk;
  LogStory story(disk);
  story.Boot();
  story.Set(0, "user:1", std::string(1000, 'x'));
  story.Set(0, "user:2", std::string(1000, 'x'));
  story.Set(0, "order:1", "small");
  story.Set(0, "plain", "small");
  story.SetBoth(0, "user:1", "cart-7", "y");
  story.Del(0, "order:1");
  story.FlushDb(1);
  story.Stop();
  const ToolAnswer json = RunTool(disk, {"stats", "wal", "--json"});
  EXPECT_EQ(json.status, 0) << json.errors;
  for (const char* part : {
           "\"records\":7,",
           "\"transactions\":1,\"effects\":8,",
           "\"commands\":[{\"command\":\"SET\",\"count\":6,",
           "{\"command\":\"DEL\",\"count\":1,",
           "{\"command\":\"FLUSHDB\",\"count\":1,",
           "\"prefixes\":[{\"prefix\":\"user:\",\"count\":3,",
           "{\"prefix\":\"order:\",\"count\":2,",
           "{\"prefix\":\"(no prefix)\",\"count\":2,",
           "{\"size\":\"up to 1 KiB\",\"count\":2,",
       }) {
    EXPECT_NE(json.out.find(part), std::string::npos) << part << "\n" << json.out;
  }
  const ToolAnswer top = RunTool(disk, {"stats", "wal", "--json", "--top", "1"});
  EXPECT_EQ(top.out.find("order:"), std::string::npos);
  const ToolAnswer separator = RunTool(disk, {"stats", "wal", "--separator", "-"});
  EXPECT_NE(separator.out.find("cart-"), std::string::npos) << separator.out;
  const ToolAnswer bytes = RunTool(disk, {"stats", "wal", "--prefix-bytes", "2", "--json"});
  EXPECT_NE(bytes.out.find("{\"prefix\":\"us\",\"count\":3,"), std::string::npos) << bytes.out;
}

}  // namespace
}  // namespace crab::test

// A server on a simulated disk that writes checkpoints, for the tests of them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/eventually.h"
#include "tests/support/forwarding_file.h"
#include "tests/support/redis_client.h"
#include "tests/support/sim_disk.h"
#include "tests/support/test_server.h"

namespace crab::test {

inline constexpr uint64_t kUnlimited = 1ull << 40;
inline constexpr char kDirectory[] = "/wal";

// Fails or does not answer where a checkpoint is written, and is well otherwise.
class CheckpointTrouble : public SimDisk {
 public:
  enum class Kind { kNone, kFails, kHangs };
  void Set(Kind kind) {
    kind_ = kind;
    kind_.notify_all();
  }
  // Lets go at the end of a scope, so that a server in it can stop where a test has failed.
  struct LetsGo {
    CheckpointTrouble& disk;
    ~LetsGo() { disk.Set(Kind::kNone); }
  };
  bool hanging() const { return hanging_; }  // something waits, or has waited, for an answer
  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    auto file = TRY(SimDisk::Open(path, mode));
    if (!path.ends_with("checkpoint.tmp")) return file;
    return std::unique_ptr<wal::File>(std::make_unique<Written>(*this, std::move(file)));
  }

 private:
  class Written : public ForwardingFile {
   public:
    Written(CheckpointTrouble& disk, std::unique_ptr<wal::File> file)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Status WriteAt(uint64_t offset, std::string_view bytes) override {
      if (disk_.kind_ == Kind::kHangs) disk_.hanging_ = true;
      disk_.kind_.wait(Kind::kHangs);
      if (disk_.kind_ == Kind::kFails) return Status::Error("as the test wants it", EIO);
      return ForwardingFile::WriteAt(offset, bytes);
    }

   private:
    CheckpointTrouble& disk_;
  };

  std::atomic<Kind> kind_{Kind::kNone};
  std::atomic<bool> hanging_{false};
};
using Trouble = CheckpointTrouble::Kind;

// A server on a SimDisk, and a client of it.
class Life {
 public:
  explicit Life(wal::Disk& disk, Arguments arguments = {}, int threads = 2)
      : server_(OptionsOf(&disk, kDirectory, std::move(arguments), threads)),
        client_(server_.unix_endpoint()) {}
  Life(const std::string& directory, Arguments arguments)
      : server_(OptionsOf(nullptr, directory, std::move(arguments), 2)),
        client_(server_.unix_endpoint()) {}

  std::string Run(std::string_view line) { return client_.Run(line); }
  std::string Run(std::initializer_list<std::string_view> words) { return client_.Run(words); }
  RedisClient& client() { return client_; }
  RedisClient NewClient() { return RedisClient(server_.unix_endpoint()); }
  TestServer& server() { return server_; }
  Status Stop() { return server_.Stop(); }
  Status ShutdownSave() {
    test::RawSocket client(server_.unix_endpoint());
    EXPECT_TRUE(client.Send("SHUTDOWN SAVE\r\n"));
    Status end = server_.Wait();
    EXPECT_EQ(client.ReadToEnd(), "");
    return end;
  }

  std::string Info(const std::string& field, const std::string& section = "persistence") {
    return FieldOf(client_.Run("INFO " + section), field);
  }
  static std::string FieldOf(const std::string& page, const std::string& field) {
    const size_t found = page.find("\n" + field + ":");
    if (found == std::string::npos) return "(no " + field + ")";
    const size_t begin = found + field.size() + 2;
    return page.substr(begin, page.find('\r', begin) - begin);
  }
  uint64_t Number(const std::string& field) {
    const std::string text = Info(field);
    return std::strtoull(text.c_str(), nullptr, 10);
  }
  uint64_t Uptime() {  // in seconds
    return std::strtoull(Info("uptime_in_seconds", "server").c_str(), nullptr, 10);
  }
  bool Becomes(const std::string& field, const std::string& value) {
    const bool did = Eventually([&] { return Info(field) == value; });
    EXPECT_TRUE(did) << field << " is " << Info(field) << ", wanted " << value;
    return did;
  }
  // All of the log replayed, where it still was.
  void AwaitRecovery() { ASSERT_TRUE(Becomes("wal_recovering", "0")); }
  std::string Digest() { return client_.Run("DEBUG DIGEST"); }
  void BgSave() {
    const uint64_t saves = Number("rdb_saves");
    ASSERT_EQ(Run("BGSAVE"), "+Background saving started");
    ASSERT_TRUE(Becomes("rdb_saves", std::to_string(saves + 1)))
        << Info("wal_checkpoint_last_error");
  }

 private:
  static TestServer::Options OptionsOf(wal::Disk* disk, const std::string& directory,
                                       Arguments arguments, int threads) {
    TestServer::Options options;
    options.threads = threads;
    options.log_directory = directory;
    options.disk = disk;
    options.arguments = std::move(arguments);
    options.arguments.insert(options.arguments.end(),
                             {"--enable-debug-command", "yes", "--save", "", "--shards", "64"});
    return options;
  }

  TestServer server_;
  RedisClient client_;
};

// A start on what a power cut leaves finds the data of that digest, and these answers.
inline void ExpectAfterPowerCut(
    const SimDisk& disk, const std::string& digest,
    std::initializer_list<std::pair<std::string_view, std::string_view>> answers = {}) {
  const auto after = disk.PowerCut();
  Life life(*after);
  life.AwaitRecovery();
  EXPECT_EQ(life.Digest(), digest);
  EXPECT_EQ(life.Info("wal_recovery_lost_ranges"), "0");
  for (const auto& [command, answer] : answers) EXPECT_EQ(life.Run(command), answer) << command;
}

inline std::vector<std::string> Files(const SimDisk& disk, std::string_view ending) {
  std::vector<std::string> found;
  for (const std::string& path : disk.Paths()) {
    if (path.ends_with(ending)) found.push_back(path);
  }
  return found;
}

// Keys of all kinds that a checkpoint treats in a way of its own.
inline void FillWithAllKinds(Life& life) {
  for (int i = 0; i < 2000; ++i) {
    const std::string key = "key" + std::to_string(i);
    ASSERT_EQ(life.Run({"SET", key, std::string(static_cast<size_t>(i) % 300, 'v')}), "+OK");
  }
  ASSERT_EQ(life.Run("SET number 42"), "+OK");
  ASSERT_EQ(life.Run({"SET", "large", std::string(200 * 1024, 'l')}), "+OK");
  ASSERT_EQ(life.Run({"SET", "huge", std::string(3 << 20, 'h'), "EX", "10000"}), "+OK");
  ASSERT_EQ(life.Run("SET short x EX 10000"), "+OK");
  ASSERT_EQ(life.Run("SELECT 3"), "+OK");
  ASSERT_EQ(life.Run({"SET", "key1", "of another database"}), "+OK");
  ASSERT_EQ(life.Run("SELECT 0"), "+OK");
}

}  // namespace crab::test

// The program as an operator starts it: what it says and how it ends when it cannot serve, and that
// it serves and stops when it can.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/redis_client.h"
#include "tests/support/test_server.h"

namespace crab {
namespace {

using test::Arguments;
using test::Endpoint;
using test::FreePort;
using test::RawSocket;
using test::RedisClient;
using test::ScopedDirectory;

// Stands beside this test program.
std::string ProgramPath() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "crabcache-server";
}

// A child whose output goes to a file.
class Program {
 public:
  Program(const ScopedDirectory& directory, Arguments arguments)
      : output_path_(directory.path() + "/output") {
    std::vector<char*> argv;
    std::string path = ProgramPath();
    argv.push_back(path.data());
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    child_ = fork();
    if (child_ != 0) return;
    const int output = open(output_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (dup2(output, STDOUT_FILENO) >= 0 && dup2(output, STDERR_FILENO) >= 0) {
      execv(argv[0], argv.data());
    }
    _exit(127);
  }
  ~Program() {
    if (child_ <= 0) return;
    kill(child_, SIGKILL);
    Wait();
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  pid_t pid() const { return child_; }
  void Signal(int number) { kill(child_, number); }
  // The exit status, or -signal.
  int Wait() {
    int status = 0;
    waitpid(child_, &status, 0);
    child_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  bool Ended() {
    siginfo_t info{};
    waitid(P_PID, static_cast<id_t>(child_), &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid != 0;
  }
  std::string Output() const {
    std::ifstream file(output_path_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // Waits until it answers there; false when it ended instead.
  bool Serves(const Endpoint& endpoint) {
    while (!Ended()) {
      if (RedisClient(endpoint).Run("PING") == "+PONG") return true;
      std::this_thread::yield();
    }
    return false;
  }

 private:
  std::string output_path_;
  pid_t child_ = 0;
};

TEST(ProgramTest, EndsWithAClearMessageWhenItCannotServe) {
  ScopedDirectory directory;
  const std::string path = directory.path();
  std::ofstream(path + "/bad.conf") << "port 0\nmaxclients many\n";
  std::ofstream(path + "/bad.toml") << "port = 0\nmaxclient = 5\n";
  struct Case {
    Arguments arguments;
    std::vector<std::string> says;
  };
  for (const Case& c : std::vector<Case>{
           {{"--nonsense", "1"}, {"nonsense"}},
           {{"--port", "many"}, {"port", "integer"}},
           {{path + "/none.conf"}, {"none.conf", "No such file or directory"}},
           {{path + "/bad.conf"}, {"bad.conf", "2", "maxclients"}},
           {{path + "/bad.toml"}, {"bad.toml", "2", "maxclient"}},
           {{"--port", "0"}, {"nothing to listen on"}},
           {{"--port", "0", "--unixsocket", path + "/no/such/socket"}, {"/no/such/socket"}},
           {{"--port", "0", "--unixsocket", path + "/s", "--dir", path + "/missing"}, {"/missing"}},
           {{"--port", "0", "--unixsocket", path + "/s", "--logfile", path}, {"cannot", path}},
       }) {
    ScopedDirectory own;
    Program program(own, c.arguments);
    EXPECT_EQ(program.Wait(), 1) << testing::PrintToString(c.arguments);
    for (const std::string& text : c.says) {
      EXPECT_NE(program.Output().find(text), std::string::npos)
          << testing::PrintToString(c.arguments) << " said: " << program.Output();
    }
  }
}

TEST(ProgramTest, ServesUntilSigtermAndLeavesItsDataAndNoSocket) {
  ScopedDirectory directory;
  const Endpoint endpoint{directory.path() + "/socket"};
  const Arguments arguments{"--port",         "0",
                            "--unixsocket",   endpoint.unix_path,
                            "--threads",      "2",
                            "--wal-enabled",  "yes",
                            "--wal-dir",      directory.path() + "/wal",
                            "--wal-ring-dir", directory.path()};
  for (int number : {SIGTERM, SIGINT}) {
    Program program(directory, arguments);
    ASSERT_TRUE(program.Serves(endpoint)) << program.Output();
    ASSERT_GT(RedisClient(endpoint).Run("INCR starts"), ":0");
    program.Signal(number);
    EXPECT_EQ(program.Wait(), 0) << program.Output();
    EXPECT_FALSE(std::filesystem::exists(endpoint.unix_path));
  }
  Program program(directory, arguments);
  ASSERT_TRUE(program.Serves(endpoint)) << program.Output();
  EXPECT_EQ(RedisClient(endpoint).Run("GET starts"), "$2");
}

TEST(ProgramTest, ASecondServerLeavesTheFirstAlone) {
  ScopedDirectory directory;
  int port = 0;
  std::unique_ptr<Program> first;
  const auto arguments = [&](const std::string& own_port, const std::string& log_name) {
    return Arguments{"--port",         own_port,
                     "--wal-enabled",  "yes",
                     "--wal-dir",      directory.path() + "/" + log_name,
                     "--wal-ring-dir", directory.path()};
  };
  bool serves = false;
  for (int attempt = 0; attempt < 20 && !serves; ++attempt) {  // others take ports, too
    port = FreePort();
    first = std::make_unique<Program>(directory, arguments(std::to_string(port), "one"));
    serves = first->Serves({"", port});
  }
  ASSERT_TRUE(serves) << first->Output();
  ScopedDirectory own;
  Program same_port(own, arguments(std::to_string(port), "two"));
  EXPECT_EQ(same_port.Wait(), 1);
  EXPECT_NE(same_port.Output().find("Address already in use"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(directory.path() + "/two")) << "it made no log";
  Program same_log(
      own, {"--port", "0", "--unixsocket", own.path() + "/s", "--wal-enabled", "yes", "--wal-dir",
            directory.path() + "/one", "--wal-ring-dir", directory.path()});
  EXPECT_EQ(same_log.Wait(), 1);
  EXPECT_NE(same_log.Output().find("another server is using the log directory"), std::string::npos);
  EXPECT_EQ(RedisClient({"", port}).Run("SET k v"), "+OK");
}

TEST(ProgramTest, WhoAskedForTheStopSeesItsEndLast) {
  ScopedDirectory directory;
  const Endpoint endpoint{directory.path() + "/socket"};
  const Arguments arguments{"--port",
                            "0",
                            "--unixsocket",
                            endpoint.unix_path,
                            "--wal-enabled",
                            "yes",
                            "--wal-dir",
                            directory.path() + "/wal",
                            "--wal-ring-dir",
                            directory.path(),
                            "--pidfile",
                            directory.path() + "/pid",
                            "--enable-debug-command",
                            "yes"};
  std::unique_ptr<Program> program = std::make_unique<Program>(directory, arguments);
  ASSERT_TRUE(program->Serves(endpoint)) << program->Output();
  ASSERT_EQ(RedisClient(endpoint).Run("DEBUG POPULATE 20000"), "+OK");  // a while to write and free
  for (int i = 0; i < 3; ++i) {
    RawSocket client(endpoint);
    ASSERT_TRUE(client.Send("SHUTDOWN\r\n"));
    EXPECT_EQ(client.ReadToEnd(), "");
    EXPECT_FALSE(std::filesystem::exists(directory.path() + "/pid"));
    ScopedDirectory own;
    auto next = std::make_unique<Program>(own, arguments);
    ASSERT_TRUE(next->Serves(endpoint)) << next->Output();
    EXPECT_EQ(program->Wait(), 0) << program->Output();
    program = std::move(next);
    EXPECT_EQ(RedisClient(endpoint).Run("DBSIZE"), ":20000");
  }
}

TEST(ProgramTest, NoFileInUseMovesWithTheWorkingDirectory) {
  ScopedDirectory directory;
  const std::string here = directory.path() + "/here", there = directory.path() + "/there";
  for (const std::string& path : {here, there}) std::filesystem::create_directory(path);
  const Endpoint endpoint{here + "/socket"};
  const Arguments arguments{"--dir",
                            here,
                            "--port",
                            "0",
                            "--unixsocket",
                            "socket",
                            "--pidfile",
                            "pid",
                            "--wal-enabled",
                            "yes",
                            "--wal-dir",
                            "./wal",
                            "--threads",
                            "2",
                            "--wal-ring-dir",
                            "ring",
                            "--enable-protected-configs",
                            "yes"};
  std::filesystem::create_directory(here + "/ring");
  {
    Program program(directory, arguments);
    ASSERT_TRUE(program.Serves(endpoint)) << program.Output();
    RedisClient client(endpoint);
    ASSERT_EQ(client.Run({"CONFIG", "SET", "dir", there}), "+OK");
    ASSERT_EQ(client.Run("SET a 1"), "+OK");
    EXPECT_TRUE(client.Run("WAL ROTATE").starts_with(":"));
    EXPECT_EQ(client.Run("SAVE"), "+OK");
    ASSERT_EQ(client.Run("CONFIG SET wal-enabled no"), "+OK");
    ASSERT_EQ(client.Run("SET b 2"), "+OK");
    ASSERT_EQ(client.Run("CONFIG SET wal-enabled yes"), "+OK");
    EXPECT_EQ(client.Run("SAVE"), "+OK");
    const std::string backup = client.Run("WAL BACKUP backup");
    EXPECT_TRUE(backup.starts_with("[$directory, $backup")) << backup;
    EXPECT_TRUE(std::filesystem::exists(there + "/backup")) << "this is named now";
    EXPECT_EQ(client.Run("CONFIG GET wal-dir"), "[$wal-dir, $./wal]");
    program.Signal(SIGTERM);
    EXPECT_EQ(program.Wait(), 0) << program.Output();
    std::filesystem::remove_all(there + "/backup");
    EXPECT_TRUE(std::filesystem::is_empty(there));
    EXPECT_FALSE(std::filesystem::exists(endpoint.unix_path));
    EXPECT_FALSE(std::filesystem::exists(here + "/pid"));
  }
  Program program(directory, arguments);
  ASSERT_TRUE(program.Serves(endpoint)) << program.Output();
  EXPECT_EQ(RedisClient(endpoint).Run("MGET a b"), "[$1, $2]");
}

TEST(ProgramTest, AChangeThatFailsLeavesTheWorkingDirectory) {
  ScopedDirectory directory;
  const Endpoint endpoint{directory.path() + "/socket"};
  std::ofstream(directory.path() + "/file") << "in the way";
  Program program(directory, {"--port", "0", "--unixsocket", endpoint.unix_path, "--wal-dir",
                              directory.path() + "/file", "--wal-ring-dir", directory.path(),
                              "--enable-protected-configs", "yes", "--dir", directory.path()});
  ASSERT_TRUE(program.Serves(endpoint)) << program.Output();
  RedisClient client(endpoint);
  const auto set = [&](const char* dir) {
    return client.Run({"CONFIG", "SET", "dir", dir, "wal-enabled", "yes"});
  };
  const auto where = [&] {
    return std::filesystem::read_symlink("/proc/" + std::to_string(program.pid()) + "/cwd");
  };
  EXPECT_TRUE(set("/").starts_with("-ERR CONFIG SET failed")) << set("/");
  EXPECT_EQ(where(), directory.path());
  EXPECT_EQ(client.Run("CONFIG GET dir"), "[$dir, $" + directory.path() + "]");
  EXPECT_TRUE(set("/no/such/directory").starts_with("-ERR CONFIG SET failed"));
  EXPECT_EQ(where(), directory.path());
  ASSERT_EQ(client.Run("CONFIG SET dir /"), "+OK");
  EXPECT_EQ(where(), "/");
}

TEST(ProgramTest, ChecksItsOptionsAndPrintsItsHelp) {
  for (const char* argument : {"--version", "--help", "--check"}) {
    ScopedDirectory own;
    Program program(own, {argument});
    EXPECT_EQ(program.Wait(), 0) << argument;
    EXPECT_FALSE(program.Output().empty()) << argument;
  }
}

}  // namespace
}  // namespace crab

#include "src/config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include "src/config_rows.h"
#include "tests/support/seed.h"

namespace crab {
namespace {

using config::FindRow;
using config::Row;
using config::Rows;

std::filesystem::path TestFolder() { return std::filesystem::path(__FILE__).parent_path(); }
std::filesystem::path Root() { return TestFolder().parent_path().parent_path(); }

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A folder of this test alone, gone at its end.
class Folder {
 public:
  Folder() {
    char name[] = "/tmp/crab-config-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).string();
  }
  std::string path(const std::string& name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

Result<Launch> Load(std::vector<std::string> arguments, std::vector<std::string> variables = {},
                    const std::string& input = {}) {
  std::vector<const char*> argv = {"crabcache-server"};
  for (const std::string& argument : arguments) argv.push_back(argument.c_str());
  std::vector<const char*> environment;
  for (const std::string& variable : variables) environment.push_back(variable.c_str());
  environment.push_back(nullptr);
  std::istringstream stream(input);
  return LoadConfig(static_cast<int>(argv.size()), argv.data(), environment.data(), stream);
}

Config Loaded(std::vector<std::string> arguments, std::vector<std::string> variables = {},
              const std::string& input = {}) {
  Result<Launch> launch = Load(std::move(arguments), std::move(variables), input);
  EXPECT_TRUE(launch.ok()) << launch.message();
  return launch.ok() ? launch->config : Config();
}

std::string LoadError(std::vector<std::string> arguments, std::vector<std::string> variables = {}) {
  Result<Launch> launch = Load(std::move(arguments), std::move(variables));
  return launch.ok() ? "no error" : std::string(launch.message());
}

std::string Get(const Config& config, std::string_view name) {
  const auto pairs = config.Get({&name, 1});
  return pairs.size() == 1 ? pairs[0].second : "not one option";
}

// The error of CONFIG SET, "" for OK.
std::string Set(Config& config, std::vector<Config::Pair> pairs) {
  auto changed = config.Set(pairs);
  return std::string(changed.message());
}

std::string Detail(const std::string& error) {
  const size_t at = error.find("') - ");
  return error.empty() ? "OK" : at == std::string::npos ? error : error.substr(at + 5);
}

TEST(ConfigTest, HasEveryNameOnceWithADefaultItTakesItself) {
  std::map<std::string, int> names;
  for (const Row& row : Rows()) {
    SCOPED_TRACE(row.name);
    ++names[std::string(row.name)];
    if (!row.alias.empty()) ++names[std::string(row.alias)];
    EXPECT_FALSE(row.sentence.empty());
    EXPECT_EQ(row.sentence.back(), '.');
    Config config;
    const std::string value = config::ValueText(row, config);
    EXPECT_TRUE(config::SetValue(row, {&value, 1}, config).ok());
    EXPECT_EQ(config::ValueText(row, config), value);
    EXPECT_EQ(config, Config());
  }
  for (const auto& [name, count] : names) EXPECT_EQ(count, 1) << name;
  EXPECT_EQ(Rows()[0].section.empty(), false);
}

// The fixture says what the real one does; what differs is listed with its reason.
TEST(ConfigTest, KnowsTheDefaultsAndErrorsOfRedis) {
  const std::map<std::string, std::string> other_default = {
      {"save", "the fixture's server had it off"},
      {"unixsocket", "the fixture's server had one"},
      {"enable-protected-configs", "the fixture's server had it on"},
      {"dir", "where it was started"},
  };
  const std::map<std::string, std::string> other_error = {
      {"maxmemory-policy", "two policies more"},
      {"loglevel", "7.4 knows 'nothing'"},
      {"dir", "the server changes into it, and answers when it cannot"},
  };
  std::istringstream lines(ReadAll(TestFolder() / "redis_7_0_options.txt"));
  int checked = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    SCOPED_TRACE(line);
    std::vector<std::string> columns;
    std::istringstream cells(line);
    for (std::string cell; std::getline(cells, cell, '|');) columns.push_back(cell);
    ASSERT_EQ(columns.size(), 4u);
    const std::string& name = columns[0];
    ASSERT_NE(FindRow(name), nullptr);
    Config config;
    config.enable_protected_configs = Permission::kEverybody;
    if (!other_default.contains(name)) {
      EXPECT_EQ(Get(config, name), columns[1]);
    }
    if (!other_error.contains(name)) {
      EXPECT_EQ(Detail(Set(config, {{name, "-99999999999999"}})), columns[2]);
      config = Config();
      config.enable_protected_configs = Permission::kEverybody;
      EXPECT_EQ(Detail(Set(config, {{name, "zzz"}})), columns[3]);
    }
    ++checked;
  }
  EXPECT_GT(checked, 180);
}

TEST(ConfigTest, AnswersConfigSetAsRedisDoes) {
  struct Case {
    std::vector<Config::Pair> pairs;
    std::string_view error;
  };
  const Case cases[] = {
      {{{"foo", "1"}}, "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"},
      {{{"hz", "5"}, {"foo", "3"}},
       "ERR Unknown option or number of arguments for CONFIG SET - 'foo'"},
      {{{"databases", "3"}, {"foo", "1"}},
       "ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable "
       "config"},
      {{{"timeout", "x"}, {"timeout", "3"}},
       "ERR CONFIG SET failed (possibly related to argument 'timeout') - duplicate parameter"},
      {{{"hz", "5"}, {"HZ", "6"}},
       "ERR CONFIG SET failed (possibly related to argument 'HZ') - duplicate parameter"},
      {{{"hash-max-ziplist-entries", "5"}, {"hash-max-listpack-entries", "6"}}, ""},
      {{{"dir", "/"}},
       "ERR CONFIG SET failed (possibly related to argument 'dir') - can't set protected config"},
      {{{"MAXMEMORY", "x"}},
       "ERR CONFIG SET failed (possibly related to argument 'MAXMEMORY') - argument must be a "
       "memory value"},
      {{{"maxmemory", ""}}, ""},
      {{{"maxmemory", "1GB"}}, ""},
      {{{"maxmemory", "5B"}}, ""},
      {{{"maxmemory", "99999999999999999999"}}, ""},
  };
  for (const Case& test : cases) {
    Config config;
    SCOPED_TRACE(test.pairs.front().first);
    EXPECT_EQ(Set(config, test.pairs), test.error);
    if (!test.error.empty()) {
      EXPECT_EQ(config, Config());
    }
  }
}

TEST(ConfigTest, GivesTheDetailsOfRedisForOneValue) {
  struct Case {
    const char* name;
    const char* value;
    const char* answer;  // "OK" or the detail
  };
  const Case cases[] = {
      {"maxmemory", "1.5gb", "argument must be a memory value"},
      {"maxmemory", "1 gb", "argument must be a memory value"},
      {"maxmemory", "1tb", "argument must be a memory value"},
      {"maxmemory", "20%", "argument must be a memory value"},
      {"maxmemory-clients", "20%", "OK"},
      {"maxmemory-clients", "0%", "OK"},
      {"maxmemory-clients", "110%", "percentage argument must be less or equal to 100"},
      {"maxmemory-clients", "-1", "argument must be a memory or percent value"},
      {"timeout", "", "argument couldn't be parsed into an integer"},
      {"timeout", " 1", "argument couldn't be parsed into an integer"},
      {"timeout", "010", "argument couldn't be parsed into an integer"},
      {"timeout", "0x10", "argument couldn't be parsed into an integer"},
      {"timeout", "2147483648", "argument must be between 0 and 2147483647 inclusive"},
      {"maxclients", "4294967296", "argument must be between 1 and 4294967295 inclusive"},
      {"port", "70000", "argument must be between 0 and 65535 inclusive"},
      {"proto-max-bulk-len", "100",
       "argument must be between 1048576 and 9223372036854775807 inclusive"},
      {"proto-max-bulk-len", "-1", "argument must be a memory value"},
      {"appendonly", "YES", "OK"},
      {"appendonly", "true", "argument must be 'yes' or 'no'"},
      {"appendfsync", "async", "argument(s) must be one of the following: everysec, always, no"},
      {"wal-sync-policy", "always", "argument(s) must be one of the following: none, async, sync"},
      {"wal-sync-policy", "Sync", "OK"},
      {"loglevel", "WARNING", "OK"},
      {"save", "3600 1 300", "Invalid save parameters"},
      {"save", "0 1", "Invalid save parameters"},
      {"save", "60 -1", "Invalid save parameters"},
      {"save", "60  1", "Invalid save parameters"},
      {"save", "60 0", "OK"},
      {"save", "", "OK"},
      {"client-output-buffer-limit", "foo",
       "Wrong number of arguments in buffer limit configuration."},
      {"client-output-buffer-limit", "normal a 2 3",
       "Error in hard, soft or soft_seconds setting in buffer limit configuration."},
      {"client-output-buffer-limit", "normal 0 0 -1",
       "Error in hard, soft or soft_seconds setting in buffer limit configuration."},
      {"client-output-buffer-limit", "master 0 0 0",
       "Invalid client class specified in buffer limit configuration."},
      {"client-output-buffer-limit", "", "OK"},
      {"notify-keyspace-events", "KQ", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."},
      {"shutdown-on-sigterm", "foo",
       "argument(s) must be one of the following: default, save, nosave, now, force"},
      {"shutdown-on-sigterm", "",
       "argument(s) must be one of the following: default, save, nosave, now, force"},
      {"shutdown-on-sigterm", "save nosave",
       "shutdown options SAVE and NOSAVE can't be used simultaneously"},
      {"shutdown-on-sigterm", "save default", "OK"},
      {"latency-tracking-info-percentiles", "50 101",
       "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]"},
      {"latency-tracking-info-percentiles", "a",
       "Invalid latency-tracking-info-percentiles parameters"},
      {"oom-score-adj-values", "1 2 20000",
       "Invalid oom-score-adj-values, elements must be between -2000 and 2000."},
      {"proc-title-template", "{foo}", "template format is invalid or contains unknown variables"},
      {"cluster-announce-hostname", "a b",
       "Hostnames may only contain alphanumeric characters, hyphens or dots"},
      {"repl-backlog-size", "0", "argument must be between 1 and 9223372036854775807 inclusive"},
      {"tls-port", "1", "this version does not support it; leave it at '0'"},
      {"activedefrag", "yes", "this version does not support it; leave it at 'no'"},
      {"wal-max-segment-size", "1mb", "OK"},
      {"wal-max-segment-size", "1048575",
       "argument must be between 1048576 and 17179869184 inclusive"},
      {"wal-buffer-size", "1000",
       "argument must be between 1024 and 9223372036854775807 inclusive"},
      {"wal-flush-interval-ms", "0", "argument must be between 1 and 2147483647 inclusive"},
      {"wal-dir", "x", "can't set immutable config"},
      {"wal-dir", "./data/wal", "OK"},
      {"databases", "16", "can't set immutable config"},
  };
  for (const Case& test : cases) {
    Config config;
    EXPECT_EQ(Detail(Set(config, {{test.name, test.value}})), test.answer)
        << test.name << " '" << test.value << "'";
  }
}

TEST(ConfigTest, RefusesBothEndsOfEveryRangeByOne) {
  for (const Row& row : Rows()) {
    if (row.kind != config::Kind::kInteger || row.has(config::kUnsupported)) continue;
    SCOPED_TRACE(row.name);
    Config config;
    const auto takes = [&](int64_t value) {
      const std::string text = std::to_string(value);
      return config::SetValue(row, {&text, 1}, config).ok();
    };
    EXPECT_TRUE(takes(row.min));
    EXPECT_TRUE(takes(row.max));
    EXPECT_FALSE(takes(row.min - 1));
    if (row.max != INT64_MAX) {
      EXPECT_FALSE(takes(row.max + 1));
    }
  }
}

TEST(ConfigTest, SetsAllPairsOrNone) {
  Config config;
  EXPECT_NE(Set(config, {{"timeout", "10"}, {"hz", "zz"}}), "");
  EXPECT_EQ(config, Config());
  auto changed = config.Set(std::vector<Config::Pair>{
      {"timeout", "10"}, {"appendfsync", "always"}, {"maxclients", "10000"}});
  ASSERT_TRUE(changed.ok());
  EXPECT_EQ(*changed, (std::vector<std::string_view>{"timeout", "wal-sync-policy"}));
}

TEST(ConfigTest, OpensProtectedOptionsToWhomTheOptionSays) {
  const std::vector<Config::Pair> pairs = {{"dbfilename", "x.rdb"}};
  Config config;
  EXPECT_FALSE(config.Set(pairs, /*local_client=*/true).ok());
  config.enable_protected_configs = Permission::kLocalConnections;
  EXPECT_FALSE(config.Set(pairs, /*local_client=*/false).ok());
  EXPECT_TRUE(config.Set(pairs, /*local_client=*/true).ok());
  EXPECT_EQ(config.dbfilename, "x.rdb");
}

TEST(ConfigTest, GetsEachMatchOnceAndLiteralNamesAsTheyWereSpelled) {
  const Config config;
  const std::vector<std::string_view> patterns = {"HZ", "h?", "hash-max-*-entries", "nothing"};
  std::vector<std::string> names;
  for (const auto& [name, value] : config.Get(patterns)) names.push_back(name);
  EXPECT_EQ(names, (std::vector<std::string>{"HZ", "hash-max-listpack-entries",
                                             "hash-max-ziplist-entries"}));
}

TEST(ConfigTest, AnswersEachAliasInItsOwnSpelling) {
  Config config;
  EXPECT_EQ(Get(config, "appendfsync"), "everysec");
  EXPECT_EQ(Set(config, {{"appendfsync", "always"}}), "");
  EXPECT_EQ(Get(config, "wal-sync-policy"), "sync");
  EXPECT_EQ(Set(config, {{"wal-sync-policy", "none"}}), "");
  EXPECT_EQ(Get(config, "appendfsync"), "no");
  EXPECT_EQ(Set(config, {{"appendonly", "yes"}}), "");
  EXPECT_EQ(Get(config, "wal-enabled"), "yes");
  EXPECT_TRUE(config.enable_wal);
  EXPECT_EQ(Set(config, {{"aof-load-truncated", "no"}}), "");
  EXPECT_EQ(Get(config, "wal-recovery"), "strict");
  EXPECT_EQ(Set(config, {{"aof-load-truncated", "yes"}}), "");
  EXPECT_EQ(Get(config, "wal-recovery"), "salvage");
  EXPECT_EQ(Set(config, {{"wal-recovery", "prefix"}}), "");
  EXPECT_EQ(Set(config, {{"aof-load-truncated", "yes"}}), "");
  EXPECT_EQ(Get(config, "wal-recovery"), "prefix");
  EXPECT_EQ(Set(config, {{"slave-priority", "7"}}), "");
  EXPECT_EQ(Get(config, "replica-priority"), "7");
}

TEST(ConfigTest, PrintsSpecialValuesAsRedisDoes) {
  Config config;
  EXPECT_EQ(Set(config, {{"notify-keyspace-events", "KEA"},
                         {"shutdown-on-sigterm", "force nosave now"},
                         {"latency-tracking-info-percentiles", "0.0 50 99.123456 100"},
                         {"maxmemory-clients", "50%"},
                         {"client-output-buffer-limit", "normal 1mb 2mb 3 replica 1 2 3"},
                         {"hz", "100000"}}),
            "");
  EXPECT_EQ(Get(config, "notify-keyspace-events"), "AKE");
  EXPECT_EQ(Get(config, "shutdown-on-sigterm"), "nosave now force");
  EXPECT_EQ(Get(config, "latency-tracking-info-percentiles"), "0 50 99.123456 100");
  EXPECT_EQ(Get(config, "maxmemory-clients"), "50%");
  EXPECT_EQ(Get(config, "client-output-buffer-limit"),
            "normal 1048576 2097152 3 slave 1 2 3 pubsub 33554432 8388608 60");
  EXPECT_EQ(Get(config, "hz"), "500");
  EXPECT_EQ(Get(Loaded({"--unixsocketperm", "770"}), "unixsocketperm"), "770");
}

TEST(ConfigTest, HasTheDefaultsOfTheSpecification) {
  const Config config = Loaded({});
  EXPECT_FALSE(config.enable_wal);
  EXPECT_EQ(config.wal_dir, "./data/wal");
  EXPECT_EQ(config.wal_max_segment_size, 67108864);
  EXPECT_EQ(config.wal_buffer_size, 4096);
  EXPECT_EQ(config.wal_flush_interval_ms, 1000);
  EXPECT_EQ(config.wal_sync_policy, WalSyncPolicy::kAsync);
  EXPECT_EQ(config.wal_ring_size, 16 << 20);
  EXPECT_EQ(config.wal_recovery, WalRecovery::kSalvage);
  EXPECT_EQ(config.port, 6379);
  EXPECT_EQ(config.bind, (std::vector<std::string>{"127.0.0.1", "-::1"}));
  EXPECT_TRUE(config.protected_mode);
  EXPECT_EQ(config.databases, 16);
  EXPECT_EQ(config.maxclients, 10000);
  EXPECT_EQ(config.shards, 1024);
}

TEST(ConfigTest, ReadsAStockRedisConf) {
  const Config config = Loaded({(TestFolder() / "stock_redis.conf").string()});
  EXPECT_EQ(config.port, 7379);
  EXPECT_EQ(config.unixsocketperm, 0770);
  EXPECT_EQ(config.loglevel, LogVerbosity::kVerbose);
  EXPECT_EQ(config.requirepass, "a password with \"quotes\"");
  EXPECT_EQ(config.save, (std::vector<SavePoint>{{3600, 1}, {300, 100}, {60, 10000}}));
  EXPECT_EQ(config.maxmemory, int64_t{2} << 30);
  EXPECT_EQ(config.maxmemory_policy, MaxmemoryPolicy::kAllkeysLru);
  EXPECT_EQ(config.maxmemory_clients, -5);
  EXPECT_TRUE(config.enable_wal);
  EXPECT_EQ(config.wal_sync_policy, WalSyncPolicy::kSync);
  EXPECT_EQ(config.wal_recovery, WalRecovery::kStrict);
  EXPECT_EQ(config.hash_max_listpack_entries, 256);
  EXPECT_EQ(config.client_output_buffer_limit[2], (OutputBufferLimit{16 << 20, 4000000, 30}));
}

TEST(ConfigTest, PutsCommandLineOverEnvironmentOverFile) {
  const Folder folder;
  const std::string file = folder.Write("a.conf", "port 1\nhz 1\ntimeout 1\n");
  const Config config =
      Loaded({file, "--port", "3"}, {"CRABCACHE_PORT=2", "CRABCACHE_HZ=2", "OTHER=1"});
  EXPECT_EQ(config.port, 3);
  EXPECT_EQ(config.hz, 2);
  EXPECT_EQ(config.timeout_seconds, 1);
  EXPECT_EQ(config.file, file);
}

TEST(ConfigTest, TakesTheEnvironmentOfTheSpecification) {
  const Config config = Loaded({}, {"CRABCACHE_ENABLE_WAL=true", "CRABCACHE_WAL_SYNC_POLICY=Sync",
                                    "CRABCACHE_WAL_DIR=/x", "CRABCACHE_WAL_FLUSH_INTERVAL_MS=5"});
  EXPECT_TRUE(config.enable_wal);
  EXPECT_EQ(config.wal_sync_policy, WalSyncPolicy::kSync);
  EXPECT_EQ(config.wal_dir, "/x");
  EXPECT_EQ(config.wal_flush_interval_ms, 5);
  for (const Row& row : Rows()) {
    EXPECT_EQ(config::FindRowLoosely(config::EnvironmentName(row).substr(10)), &row);
  }
}

TEST(ConfigTest, OnlyWarnsOfVariablesThatAServiceManagerSets) {
  Result<Launch> launch =
      Load({}, {"CRABCACHE_PORT=tcp://10.0.0.1:6379", "CRABCACHE_SERVICE_HOST=10.0.0.1"});
  ASSERT_TRUE(launch.ok());
  EXPECT_EQ(launch->warnings.size(), 2u);
  EXPECT_EQ(launch->config.port, 6379);
  EXPECT_EQ(LoadError({}, {"CRABCACHE_HZ=x"}),
            "environment: CRABCACHE_HZ: argument couldn't be parsed into an integer");
}

TEST(ConfigTest, TakesRedisCommandLine) {
  Config config = Loaded({"--port", "7000", "--appendonly", "yes", "--save", ""});
  EXPECT_EQ(config.port, 7000);
  EXPECT_TRUE(config.enable_wal);
  EXPECT_TRUE(config.save.empty());
  EXPECT_TRUE(Loaded({"--save", "--port", "1"}).save.empty());
  config = Loaded({"--save", "60", "1", "300", "2", "--bind", "::1", "10.0.0.1"});
  EXPECT_EQ(config.save, (std::vector<SavePoint>{{60, 1}, {300, 2}}));
  EXPECT_EQ(config.bind, (std::vector<std::string>{"::1", "10.0.0.1"}));
  EXPECT_EQ(Loaded({"--save", "60 1", "--save", "5 5"}).save,
            (std::vector<SavePoint>{{60, 1}, {5, 5}}));
  EXPECT_EQ(Loaded({"--maxmemory 1kb", "--port=9"}).maxmemory, 1024);
  EXPECT_EQ(Loaded({"--maxmemory 1kb", "--port=9"}).port, 9);
  EXPECT_EQ(Loaded({"-"}, {}, "port 11\n").port, 11);
  EXPECT_EQ(Loaded({"--port", "12", "-"}, {}, "port 11\nhz 12\n").port, 12);
  EXPECT_EQ(Loaded({"--list-max-listpack-size", "-3"}).list_max_listpack_size, -3);
}

TEST(ConfigTest, PrintsHelpVersionAndCheckInsteadOfServing) {
  for (const char* argument : {"--help", "-h", "--version", "-v", "--check"}) {
    Result<Launch> launch = Load({argument});
    ASSERT_TRUE(launch.ok()) << argument;
    EXPECT_FALSE(launch->serve);
    EXPECT_FALSE(launch->text.empty());
  }
  EXPECT_NE(config::HelpText().find("--wal-sync-policy"), std::string::npos);
  EXPECT_EQ(LoadError({"--check", "--hz", "x"}),
            "command line: hz: argument couldn't be parsed into an integer");
}

TEST(ConfigTest, NamesEveryErrorWithFileAndLineAtOnce) {
  const Folder folder;
  const std::string conf = folder.Write("a.conf",
                                        "# comment\n"
                                        "maxmemroy 5\n"
                                        "port 99999\n"
                                        "requirepass \"x\n"
                                        "hz 1 2\n"
                                        "timeout\n"
                                        "rename-command FLUSHALL \"\"\n"
                                        "zzzzzzzzzzzzzz 1\n");
  EXPECT_EQ(LoadError({conf, "--prot", "1", "--hz", "x"}),
            conf + ":2: unknown option 'maxmemroy'; did you mean 'maxmemory'?\n" + conf +
                ":3: port: argument must be between 0 and 65535 inclusive\n" + conf +
                ":4: quotes do not match\n" + conf + ":5: hz: wrong number of arguments\n" + conf +
                ":6: timeout: wrong number of arguments\n" + conf +
                ":7: rename-command: this version does not support it\n" + conf +
                ":8: unknown option 'zzzzzzzzzzzzzz'\n" +
                "command line: unknown option 'prot'; did you mean 'port'?\n" +
                "command line: hz: argument couldn't be parsed into an integer");
  const std::string toml = folder.Write("a.toml",
                                        "port = \"6379\"\n"
                                        "maxmemory = \"1xb\"\n"
                                        "protected_mode = \"yes\"\n"
                                        "bind = [{}]\n"
                                        "[wal]\n"
                                        "sync_policy = \"often\"\n"
                                        "segment_size = 5\n"
                                        "[memory]\n"
                                        "x = 1\n");
  const std::string error = LoadError({toml});
  for (const char* part :
       {":1: port: expects an integer", ":2: maxmemory: argument must be a memory value",
        ":3: protected_mode: expects true or false", ":4: bind: expects an array, or a string",
        ":6: wal.sync_policy: argument(s) must be one of the following: none, "
        "async, sync",
        ":7: unknown option 'wal.segment_size'",
        ":8: unknown table 'memory'; [wal] is the only one"}) {
    EXPECT_NE(error.find(toml + part), std::string::npos) << part << "\nin\n" << error;
  }
  const std::string broken = folder.Write("b.toml", "port = 1\nhz = = 2\n");
  EXPECT_EQ(LoadError({broken}).find(broken + ":2: "), 0u) << LoadError({broken});
  EXPECT_EQ(
      LoadError({folder.path("none.conf")}),
      "cannot read configuration file " + folder.path("none.conf") + ": No such file or directory");
  EXPECT_EQ(LoadError({"--port", "1", "-x", "--y"}).find("command line: port: wrong number"), 0u);
  EXPECT_EQ(LoadError({"-x"}), "command line: unexpected argument '-x'; options begin with --");
}

TEST(ConfigTest, IncludesFilesAndStopsAtThoseThatIncludeThemselves) {
  const Folder folder;
  folder.Write("b1.inc", "hz 11\n");
  folder.Write("b2.inc", "timeout 12\n");
  const std::string a = folder.Write("a.conf", "include " + folder.path("b*.inc") + "\ninclude \"" +
                                                   folder.path("none*") + "\"\nport 3\n");
  const Config config = Loaded({a});
  EXPECT_EQ(config.hz, 11);
  EXPECT_EQ(config.timeout_seconds, 12);
  EXPECT_EQ(config.port, 3);
  const std::string loop = folder.path("loop.conf");
  folder.Write("loop.conf", "include " + loop + "\n");
  EXPECT_NE(LoadError({loop}).find("does a file include itself?"), std::string::npos);
}

TEST(ConfigTest, WarnsOfOptionsWithoutEffectAndOfOpenDoors) {
  const Folder folder;
  const std::string a = folder.Write("a.conf", "repl-timeout 5\nio-threads 1\nsave \"\"\n");
  Result<Launch> launch = Load({a, "--bind", "*", "--protected-mode", "no"});
  ASSERT_TRUE(launch.ok());
  ASSERT_EQ(launch->warnings.size(), 2u);
  EXPECT_EQ(launch->warnings[0], a + ":1: 'repl-timeout' has no effect in this version");
  EXPECT_NE(launch->warnings[1].find("no password is set"), std::string::npos);
}

TEST(ConfigTest, TakesTheUserLineThatRedisWritesAndNoOther) {
  const Folder folder;
  Loaded({folder.Write("a.conf", "user default on nopass ~* &* +@all\n")});
  EXPECT_NE(LoadError({folder.Write("b.conf", "user joe on >x ~* +@all\n")}), "no error");
}

TEST(ConfigTest, SplitsWordsAndQuotesThem) {
  std::vector<std::string> words;
  ASSERT_TRUE(config::SplitWords("  a \"b c\\x41\\n\\\"\" 'd\\'e' \"\" f\\n", &words));
  EXPECT_EQ(words, (std::vector<std::string>{"a", "b cA\n\"", "d'e", "", "f\\n"}));
  for (const char* bad : {"\"a", "'a", "\"a\"b", "'a'b", "x\"y", "\"a\\"}) {
    EXPECT_FALSE(config::SplitWords(bad, &words)) << bad;
  }
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  ASSERT_TRUE(config::SplitWords(config::Quoted(all), &words));
  EXPECT_EQ(words, std::vector<std::string>{all});
}

TEST(ConfigTest, RewritesARedisConfKeepingCommentsAndOrder) {
  const Folder folder;
  const std::string path = folder.Write("r.conf",
                                        "# mine\n"
                                        "port 7000\n"
                                        "\n"
                                        "save 60 100\n"
                                        "  # about hz\n"
                                        "hz 10\n"
                                        "hash-max-ziplist-entries 100\n"
                                        "appendfsync everysec\n"
                                        "client-output-buffer-limit normal 1mb 2mb 3\n"
                                        "maxmemory 1gb\n"
                                        "save 5 6\n");
  ::chmod(path.c_str(), 0640);
  Config config = Loaded({path});
  EXPECT_EQ(Set(config, {{"maxmemory", "5mb"},
                         {"save", "1 2 3 4 5 6"},
                         {"requirepass", "a \"b\n"},
                         {"hash-max-listpack-entries", "77"},
                         {"appendfsync", "always"},
                         {"appendonly", "yes"},
                         {"bind", ""}}),
            "");
  ASSERT_TRUE(config.Rewrite().ok());
  EXPECT_EQ(ReadAll(path),
            "# mine\n"
            "port 7000\n"
            "\n"
            "save 1 2\n"
            "  # about hz\n"
            "hz 10\n"
            "hash-max-listpack-entries 77\n"
            "appendfsync always\n"
            "client-output-buffer-limit normal 1mb 2mb 3\n"
            "maxmemory 5242880\n"
            "save 3 4\n"
            "\n"
            "# Generated by CONFIG REWRITE\n"
            "bind \"\"\n"
            "requirepass \"a \\\"b\\n\"\n"
            "appendonly yes\n"
            "save 5 6\n");
  struct stat info = {};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0640u);
  EXPECT_EQ(Loaded({path}), config);
  EXPECT_EQ(Set(config, {{"save", ""}, {"requirepass", ""}}), "");
  ASSERT_TRUE(config.Rewrite().ok());
  EXPECT_EQ(Loaded({path}), config);
  EXPECT_EQ(Config().Rewrite().message(), "ERR The server is running without a config file");
}

TEST(ConfigTest, RewritesWhatAnIncludedFileSaysOtherwise) {
  const Folder folder;
  const std::string inner = folder.Write("inner.inc", "hz 20\n");
  const std::string path = folder.Write("outer.conf", "include " + inner + "\n");
  Config config = Loaded({path});
  EXPECT_EQ(Set(config, {{"hz", "10"}}), "");
  ASSERT_TRUE(config.Rewrite().ok());
  EXPECT_EQ(Loaded({path}).hz, 10);
  EXPECT_EQ(ReadAll(inner), "hz 20\n");
}

TEST(ConfigTest, RewritesTomlInPlace) {
  const Folder folder;
  const std::string path = folder.Write("r.toml",
                                        "# é mine\n"
                                        "requirepass = \"é\" # secret\n"
                                        "save = [\n  \"60 1\",\n]\n"
                                        "maxmemory = \"1gb\"\n"
                                        "\n"
                                        "[wal] # the log\n"
                                        "sync_policy = \"Async\" # as it was\n");
  Config config = Loaded({path});
  EXPECT_EQ(Set(config, {{"requirepass", "é\"\\\n"},
                         {"save", "1 2 3 4"},
                         {"appendonly", "yes"},
                         {"wal-buffer-size", "1mb"}}),
            "");
  const Status status = config.Rewrite();
  ASSERT_TRUE(status.ok()) << status.message();
  EXPECT_EQ(ReadAll(path),
            "# é mine\n"
            "requirepass = \"é\\\"\\\\\\u000a\" # secret\n"
            "save = [\"1 2\", \"3 4\"]\n"
            "maxmemory = \"1gb\"\n"
            "# Generated by CONFIG REWRITE\n"
            "enable_wal = true\n"
            "\n"
            "[wal] # the log\n"
            "buffer_size = 1048576\n"
            "sync_policy = \"Async\" # as it was\n");
  EXPECT_EQ(Loaded({path}), config);

  for (const char* text : {"", "port = 1", "wal.ring_size = \"1mb\"\n", "[wal]\n", "[wal]"}) {
    const std::string other = folder.Write("o.toml", text);
    Config changed = Loaded({other});
    EXPECT_EQ(Set(changed, {{"timeout", "9"}, {"wal-buffer-size", "2048"}}), "");
    const Status rewritten = changed.Rewrite();
    ASSERT_TRUE(rewritten.ok()) << text << ": " << rewritten.message();
    EXPECT_EQ(Loaded({other}), changed) << ReadAll(other);
  }
  const std::string inline_table = folder.Write("i.toml", "wal = {ring_size = \"1mb\"}\n");
  Config stuck = Loaded({inline_table});
  EXPECT_EQ(Set(stuck, {{"wal-buffer-size", "2048"}}), "");
  EXPECT_FALSE(stuck.Rewrite().ok());
  EXPECT_EQ(ReadAll(inline_table), "wal = {ring_size = \"1mb\"}\n");
}

// A value of a row's kind, out of its range as often as not.
std::string RandomValue(const Row& row, uint64_t random) {
  const std::string number = std::to_string(random % 5000);
  switch (row.kind) {
    case config::Kind::kBool:
      return random % 2 == 0 ? "yes" : "no";
    case config::Kind::kChoice:
      return std::string(row.choices[random % row.choices.size()].name);
    case config::Kind::kMemoryOrPercent:
      return random % 2 == 0 ? std::to_string(random % 101) + '%' : number;
    case config::Kind::kMemory:
      return std::to_string(random % 9000) + (random % 2 == 0 ? "kb" : "m");
    case config::Kind::kText:
      return random % 3 == 0 ? "" : "t \"" + number + "'\t#";
    case config::Kind::kOctal:
    case config::Kind::kInteger:
      return number;
    case config::Kind::kCustom:
      break;
  }
  return random % 2 == 0 ? number + " 5" : "";
}

TEST(ConfigTest, RewriteRoundTripsRandomValues) {
  const Folder folder;
  const std::string stock = ReadAll(TestFolder() / "stock_redis.conf");
  const std::string example = ExampleToml();
  for (uint64_t round = 0; round < 60; ++round) {
    const uint64_t seed = test::Mix(test::TestSeed(), round);
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    const bool is_toml = round % 2 == 0;
    const std::string path = folder.Write(is_toml ? "x.toml" : "x.conf", round % 4 < 2 ? ""
                                                                         : is_toml     ? example
                                                                                       : stock);
    Config config = Loaded({path});
    for (uint64_t step = 0; step < 40; ++step) {
      const uint64_t random = test::Mix(seed, step);
      const Row& row = Rows()[random % Rows().size()];
      const std::string value = RandomValue(row, random >> 8);
      (void)config::SetValue(row, {&value, 1}, config);
    }
    const Status status = config.Rewrite();
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_EQ(Loaded({path}), config) << ReadAll(path);
    const std::string once = ReadAll(path);
    ASSERT_TRUE(config.Rewrite().ok());
    ASSERT_EQ(ReadAll(path), once);
  }
}

TEST(ConfigTest, SurvivesDamagedFiles) {
  const Folder folder;
  const std::string sources[] = {ReadAll(TestFolder() / "stock_redis.conf"), ExampleToml()};
  for (int which = 0; which < 2; ++which) {
    const char* const name = which == 0 ? "f.conf" : "f.toml";
    for (uint64_t round = 0; round < 300; ++round) {
      const uint64_t seed = test::Mix(test::TestSeed() + 1, round);
      SCOPED_TRACE(testing::Message() << "seed " << seed);
      std::string text = sources[which];
      for (uint64_t flip = 0; flip < 1 + round % 8; ++flip) {
        const uint64_t random = test::Mix(seed, flip);
        text[random % text.size()] = static_cast<char>(random >> 32);
      }
      if (round % 3 == 0) text.resize(seed % text.size());
      const std::string path = folder.Write(name, text);
      Result<Launch> launch = Load({path});
      if (launch.ok()) {
        const Status status = launch->config.Rewrite();
        if (status.ok()) {
          EXPECT_TRUE(Load({path}).ok());
        }
      } else {
        EXPECT_FALSE(launch.message().empty());
      }
    }
  }
  EXPECT_NE(LoadError({folder.Write("nul.conf", std::string("hz\0 1\n", 6))}), "no error");
  EXPECT_NE(LoadError({folder.Write("deep.toml", "bind = " + std::string(100000, '['))}),
            "no error");
  EXPECT_NE(LoadError({folder.Write("big.conf", std::string((16 << 20) + 1, '#'))}), "no error");
  EXPECT_NE(LoadError({"/"}), "no error");
}

void ExpectPrinted(const std::filesystem::path& path, const std::string& text) {
  if (std::getenv("CRAB_UPDATE_DOCS") != nullptr) std::ofstream(path, std::ios::binary) << text;
  EXPECT_EQ(ReadAll(path), text)
      << path << " is not what the rows say: run this test with CRAB_UPDATE_DOCS=1";
}

TEST(ConfigTest, DocumentsAreWhatTheRowsSay) {
  ExpectPrinted(Root() / "docs/configuration.md", ConfigurationPage());
  ExpectPrinted(Root() / "conf/crabcache.toml", ExampleToml());
}

TEST(ConfigTest, TheExampleFileEqualsTheDefaultsAndNamesEveryOption) {
  const std::string path = (Root() / "conf/crabcache.toml").string();
  Config config = Loaded({path});
  config.file.clear();
  EXPECT_EQ(config, Config());
  const std::string text = ReadAll(path);
  for (const Row& row : Rows()) {
    const bool is_listed = !row.has(config::kAccepted) && !row.has(config::kUnsupported) &&
                           !row.has(config::kOtherSpelling);
    std::string key = config::TomlName(row);
    if (key.starts_with("wal.")) key = key.substr(4);
    EXPECT_EQ(text.find("\n" + key + " = ") != std::string::npos, is_listed) << row.name;
  }
}

}  // namespace
}  // namespace crab

#include <string>

#include "src/commands/acl_categories.h"
#include "tests/commands/call_fixture.h"

namespace crab {
namespace {

class CommandCommandsTest : public CallFixture {};

// The bytes that Redis 7.0 sends.
TEST_F(CommandCommandsTest, InfoHasTenElements) {
  EXPECT_EQ(Run("COMMAND INFO Expire nosuch"),
            "*2 *10 $6 expire :-3 *2 +write +fast :1 :1 :1 *3 +@keyspace +@write +@fast *0 "
            "*1 *6 $5 flags *2 +RW +update "
            "$12 begin_search *4 $4 type $5 index $4 spec *2 $5 index :1 "
            "$9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :0 $7 keystep :1 $5 limit :0 "
            "*0 $-1");
  runner_.client.protocol = 3;
  EXPECT_EQ(Run("COMMAND INFO del nosuch"),
            "*2 *10 $3 del :-2 ~1 +write :1 :-1 :1 ~3 +@keyspace +@write +@slow "
            "~2 $26 request_policy:multi_shard $23 response_policy:agg_sum "
            "~1 %3 $5 flags ~2 +RM +delete "
            "$12 begin_search %2 $4 type $5 index $4 spec %1 $5 index :1 "
            "$9 find_keys %2 $4 type $5 range $4 spec %3 $7 lastkey :-1 $7 keystep :1 $5 limit :0 "
            "~0 _");
}

TEST_F(CommandCommandsTest, InfoOfAContainerHoldsItsSubcommands) {
  const std::string info = Run("COMMAND INFO object");
  EXPECT_TRUE(
      info.starts_with("*1 *10 $6 object :-2 *0 :0 :0 :0 *1 +@slow *0 *0 "
                       "*5 *10 $15 object|encoding :3 *1 +readonly :2 :2 :1 *3 +@keyspace "))
      << info;
  EXPECT_TRUE(Run("COMMAND INFO object|freq").starts_with("*1 *10 $11 object|freq :3 "));
}

TEST_F(CommandCommandsTest, TwoKeySpecsMakeOneRange) {
  const std::string info = Run("COMMAND INFO copy");
  EXPECT_TRUE(info.starts_with("*1 *10 $4 copy :-3 *2 +write +denyoom :1 :2 :1 ")) << info;
  EXPECT_NE(info.find("$5 index :2 "), std::string::npos) << info;
}

TEST_F(CommandCommandsTest, CountAndInfoSpeakOfTheSameCommands) {
  const std::string count = std::to_string(runner_.registry.commands().size());
  EXPECT_EQ(Run("COMMAND COUNT"), ":" + count);
  EXPECT_TRUE(Run("COMMAND").starts_with("*" + count + " "));
  EXPECT_EQ(Run("COMMAND INFO"), Run("COMMAND"));
}

TEST_F(CommandCommandsTest, DocsAreMapsByName) {
  runner_.client.protocol = 3;
  EXPECT_EQ(Run("COMMAND DOCS nosuch"), "%0");
  const std::string docs = Run("COMMAND DOCS nosuch MOVE");
  EXPECT_TRUE(docs.starts_with("%1 $4 move %5 $7 summary $")) << docs;
  EXPECT_NE(docs.find("$5 since $5 1.0.0 $5 group $7 generic $10 complexity $"), std::string::npos)
      << docs;
  EXPECT_TRUE(
      docs.ends_with("$9 arguments *2 "
                     "%3 $4 name $3 key $4 type $3 key $14 key_spec_index :0 "
                     "%2 $4 name $2 db $4 type $7 integer"))
      << docs;
  EXPECT_NE(Run("COMMAND DOCS object").find("$11 subcommands %5 $15 object|encoding %5 "),
            std::string::npos);
}

TEST_F(CommandCommandsTest, EveryRowCanBeDocumented) {
  EXPECT_TRUE(Run("COMMAND DOCS")
                  .starts_with("*" + std::to_string(2 * runner_.registry.commands().size()) + " "));
}

TEST_F(CommandCommandsTest, ListFilters) {
  EXPECT_EQ(Run("COMMAND LIST FILTERBY PATTERN PEXPIRE*"),
            "*3 $7 pexpire $9 pexpireat $11 pexpiretime");
  EXPECT_EQ(Run("COMMAND LIST FILTERBY PATTERN object|[ef]*"),
            "*2 $15 object|encoding $11 object|freq");
  EXPECT_TRUE(Run("COMMAND LIST FILTERBY ACLCAT Dangerous")
                  .starts_with("*4 $8 flushall $7 flushdb $4 keys $6 swapdb"));
  EXPECT_EQ(Run("COMMAND LIST FILTERBY ACLCAT nosuch"), "*0");
  EXPECT_EQ(Run("COMMAND LIST FILTERBY MODULE json"), "*0");
  for (const char* line :
       {"COMMAND LIST FILTERBY", "COMMAND LIST FILTERBY PATTERN", "COMMAND LIST FILTERBY FOO x",
        "COMMAND LIST FOO PATTERN x", "COMMAND LIST FILTERBY PATTERN a b"}) {
    EXPECT_EQ(Run(line), "-ERR syntax error") << line;
  }
}

TEST_F(CommandCommandsTest, GetkeysReadsTheSpecs) {
  const std::pair<const char*, const char*> kCases[] = {
      {"COMMAND GETKEYS GET a", "*1 $1 a"},
      {"COMMAND GETKEYS mset a 1 b 2", "*2 $1 a $1 b"},
      {"COMMAND GETKEYS copy a b DB 3", "*2 $1 a $1 b"},
      {"COMMAND GETKEYS object freq x", "*1 $1 x"},
      {"COMMAND GETKEYS del a b a", "*3 $1 a $1 b $1 a"},
      {"COMMAND GETKEYS nosuch a", "-ERR Invalid command specified"},
      {"COMMAND GETKEYS object nosuch a", "-ERR Invalid command specified"},
      {"COMMAND GETKEYS object freq", "-ERR Invalid number of arguments specified for command"},
      {"COMMAND GETKEYS get a b", "-ERR Invalid number of arguments specified for command"},
      {"COMMAND GETKEYS keys *", "-ERR The command has no key arguments"},
      {"COMMAND GETKEYS get", "-ERR wrong number of arguments for 'command|getkeys' command"},
  };
  for (const auto& [line, reply] : kCases) EXPECT_EQ(Run(line), reply) << line;
}

TEST_F(CommandCommandsTest, GetkeysandflagsTellsWhatIsDoneWithEachKey) {
  EXPECT_EQ(Run("COMMAND GETKEYSANDFLAGS copy a b"),
            "*2 *2 $1 a *2 +RO +access *2 $1 b *2 +OW +update");
  EXPECT_EQ(Run("COMMAND GETKEYSANDFLAGS set a b"), "*1 *2 $1 a *2 +OW +update");
  EXPECT_EQ(Run("COMMAND GETKEYSANDFLAGS set a b EX 5 get"), "*1 *2 $1 a *3 +RW +access +update");
}

TEST_F(CommandCommandsTest, HelpShowsOptionalAndRepeatedArguments) {
  const std::string help = Run("COMMAND HELP");
  EXPECT_NE(help.find("+(no subcommand)"), std::string::npos);
  EXPECT_NE(help.find("+INFO [<command-name> ...] "), std::string::npos) << help;
  EXPECT_NE(help.find("+LIST [FILTERBY MODULE <module-name>|ACLCAT <category>|PATTERN <pattern>] "),
            std::string::npos)
      << help;
}

Status Nothing(Call&) { return Status::Ok(); }

TEST(AclCategoriesTest, FollowFromFlagsAndGroup) {
  static constexpr Command kRows[] = {
      Command("container", "", nullptr, -2, kAdmin, Scope::kLoop, kNoKeys, Group::kGeneric, "1.0.0",
              "O(1)", "Holds."),
      Command("read", "", Nothing, 1, kRead | kFast, Scope::kLoop, kNoKeys, Group::kString, "1.0.0",
              "O(1)", "Reads."),
      Command("flush", "", Nothing, 1, kWrite | kDangerous | kKeyspace, Scope::kLoop, kNoKeys,
              Group::kServer, "1.0.0", "O(1)", "Flushes."),
      Command("wait", "", Nothing, 1, kBlocking | kConnection, Scope::kLoop, kNoKeys,
              Group::kGeneric, "1.0.0", "O(1)", "Waits."),
  };
  EXPECT_EQ(AclCategoriesOf(kRows[0]), kAclSlow | kAclAdmin | kAclDangerous);
  EXPECT_EQ(AclCategoriesOf(kRows[1]), kAclFast | kAclRead | kAclString);
  EXPECT_EQ(AclCategoriesOf(kRows[2]), kAclSlow | kAclWrite | kAclDangerous | kAclKeyspace);
  EXPECT_EQ(AclCategoriesOf(kRows[3]), kAclSlow | kAclBlocking | kAclConnection);
}

TEST(AclCategoriesTest, HaveNames) {
  EXPECT_EQ(AclCategoryNamed("KeySpace"), kAclKeyspace);
  EXPECT_EQ(AclCategoryNamed("scripting"), kAclScripting);
  EXPECT_EQ(AclCategoryNamed("nosuch"), 0u);
}

}  // namespace
}  // namespace crab

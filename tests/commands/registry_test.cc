#include "src/commands/registry.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace crab {
namespace {

Status Nothing(Call&) { return Status::Ok(); }

consteval Command Row(const char* name) {
  return Command(name, "", Nothing, -1, kRead, Scope::kLoop, kNoKeys, Group::kServer, "1.0.0",
                 "O(1)", "A row of the test.");
}

constexpr Command kFirst[] = {Row("get"),      Row("set"),        Row("expire"),
                              Row("expireat"), Row("expiretime"), Row("bitfield_ro"),
                              Row("x"),        Row("no-evict")};
constexpr Command kSecond[] = {Row("client"), Row("client|list"), Row("client|no-evict"),
                               Row("clientele")};

const Command* Find(const Registry& registry, std::initializer_list<std::string_view> argv,
                    const Command** container) {
  *container = nullptr;
  return registry.Find(Args(std::span(argv.begin(), argv.size())), container);
}

TEST(RegistryTest, FindsEveryRowInAnyCase) {
  const Registry registry({kFirst, kSecond});
  for (std::span<const Command> rows :
       {std::span<const Command>(kFirst), std::span<const Command>(kSecond)}) {
    for (const Command& row : rows) {
      SCOPED_TRACE(row.name);
      std::string upper(row.name);
      for (char& c : upper) c = static_cast<char>(toupper(c));
      std::string mixed(row.name);
      mixed[0] = static_cast<char>(toupper(mixed[0]));
      EXPECT_EQ(registry.FindName(row.name), &row);
      EXPECT_EQ(registry.FindName(upper), &row);
      EXPECT_EQ(registry.FindName(mixed), &row);
    }
  }
}

// Every string that differs from a name in one byte is another name or none: the fold of the case
// must not take one symbol for another.
TEST(RegistryTest, FindsNothingElse) {
  const Registry registry({kFirst, kSecond});
  for (const char* text : {"get", "expire", "expireat", "bitfield_ro", "no-evict", "client|list"}) {
    const std::string name(text);
    for (size_t i = 0; i < name.size(); ++i) {
      for (int byte = 0; byte < 256; ++byte) {
        std::string other = name;
        other[i] = static_cast<char>(byte);
        const Command* found = registry.FindName(other);
        std::string lower = other;
        for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
        if (found == nullptr) {
          EXPECT_NE(lower, name);
        } else {
          EXPECT_EQ(found->name, lower);  // one byte away from "get" is "set"
        }
      }
    }
  }
  EXPECT_EQ(registry.FindName(""), nullptr);
  EXPECT_EQ(registry.FindName("ge"), nullptr);
  EXPECT_EQ(registry.FindName("gett"), nullptr);
  EXPECT_EQ(registry.FindName(std::string_view("get\0", 4)), nullptr);
  EXPECT_EQ(registry.FindName("expiretimes"), nullptr);
  EXPECT_EQ(registry.FindName(std::string(1000, 'x')), nullptr);
}

TEST(RegistryTest, FindsASubcommandOfAContainer) {
  const Registry registry({kFirst, kSecond});
  const Command* container = nullptr;
  EXPECT_EQ(Find(registry, {"CLIENT", "LIST"}, &container), &kSecond[1]);
  EXPECT_EQ(Find(registry, {"client", "No-Evict", "on"}, &container), &kSecond[2]);
  EXPECT_EQ(container, nullptr);
  EXPECT_EQ(Find(registry, {"client", "nothing"}, &container), nullptr);
  EXPECT_EQ(container, &kSecond[0]);
  EXPECT_EQ(Find(registry, {"client", std::string(500, 'l')}, &container), nullptr);
  EXPECT_EQ(container, &kSecond[0]);
}

TEST(RegistryTest, FindsTheRowItselfWhereThereIsNoSubcommand) {
  const Registry registry({kFirst, kSecond});
  const Command* container = nullptr;
  EXPECT_EQ(Find(registry, {"client"}, &container), &kSecond[0]);
  EXPECT_EQ(Find(registry, {"get", "list"}, &container), &kFirst[0]);
  EXPECT_EQ(Find(registry, {"nothing", "list"}, &container), nullptr);
  EXPECT_EQ(container, nullptr);
}

TEST(RegistryTest, ListsTopLevelRowsByNameAndSubcommandsOfOne) {
  const Registry registry({kFirst, kSecond});
  std::string names;
  for (const Command* command : registry.commands()) names += std::string(command->name) + " ";
  EXPECT_EQ(names, "bitfield_ro client clientele expire expireat expiretime get no-evict set x ");
  const std::vector<const Command*> of_client = registry.Subcommands(kSecond[0]);
  ASSERT_EQ(of_client.size(), 2u);
  EXPECT_EQ(of_client[0], &kSecond[1]);
  EXPECT_TRUE(registry.Subcommands(kFirst[0]).empty());
}

TEST(RegistryTest, NumbersRowsDensely) {
  const Registry registry({kFirst, kSecond});
  std::set<size_t> numbers;
  for (const Command& row : kFirst) numbers.insert(registry.IndexOf(row));
  for (const Command& row : kSecond) numbers.insert(registry.IndexOf(row));
  EXPECT_EQ(registry.size(), std::size(kFirst) + std::size(kSecond));
  EXPECT_EQ(numbers.size(), registry.size());
  EXPECT_EQ(*numbers.rbegin(), registry.size() - 1);
}

TEST(RegistryDeathTest, RefusesANameTwiceAndASubcommandWithoutContainer) {
  static constexpr Command kTwice[] = {Row("get"), Row("get")};
  static constexpr Command kOrphan[] = {Row("object|help")};
  EXPECT_DEATH(Registry({kTwice}), "CHECK failed");
  EXPECT_DEATH(Registry({kOrphan}), "CHECK failed");
}

}  // namespace
}  // namespace crab

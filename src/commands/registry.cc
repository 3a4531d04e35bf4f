#include "src/commands/registry.h"

#include <algorithm>
#include <bit>
#include <string>

#include "utils/check.h"

namespace crab {

namespace {

// "container|subcommand" is put together on the stack to be looked up; longer names do not exist.
constexpr size_t kNameBytesMax = 64;

bool IsSubcommand(std::string_view name) { return name.find('|') != std::string_view::npos; }

}  // namespace

Registry::Registry(std::initializer_list<std::span<const Command>> groups) {
  for (std::span<const Command> rows : groups) {
    if (rows.empty()) continue;
    groups_.push_back({rows.data(), rows.size(), size_});
    size_ += rows.size();
  }
  slots_.resize(std::bit_ceil(std::max<size_t>(size_ * 4, 16)));
  shift_ = 64 - std::countr_zero(slots_.size());
  for (std::span<const Command> rows : groups) {
    for (const Command& command : rows) Insert(command);
  }
  for (std::span<const Command> rows : groups) {
    for (const Command& command : rows) {
      const std::string_view name = command.name;
      if (!IsSubcommand(name)) {
        commands_.push_back(&command);
        continue;
      }
      const Slot* container = FindSlot(name.substr(0, name.find('|')));
      CHECK(container != nullptr);
      const_cast<Slot*>(container)->is_container = true;
    }
  }
  std::sort(commands_.begin(), commands_.end(),
            [](const Command* a, const Command* b) { return std::string_view(a->name) < b->name; });
}

void Registry::Insert(const Command& command) {
  const std::string_view name = command.name;
  CHECK(!name.empty() && name.size() < kNameBytesMax);
  CHECK(FindSlot(name) == nullptr);
  const uint64_t word = FoldWord(name);
  size_t i = Home(word, name.size());
  while (slots_[i].command != nullptr) i = (i + 1) & (slots_.size() - 1);
  const bool letters =
      std::all_of(name.begin(), name.end(), [](char c) { return c >= 'a' && c <= 'z'; });
  slots_[i] = {.word = word,
               .command = &command,
               .name_size = static_cast<uint32_t>(name.size()),
               .word_decides = letters && name.size() <= 8};
}

const Command* Registry::FindSubcommand(const Command& container, std::string_view name,
                                        const Command** found_container) const {
  const std::string_view container_name = container.name;
  char full[2 * kNameBytesMax];
  const Command* command = nullptr;
  if (name.size() < kNameBytesMax) {
    char* end = std::copy(container_name.begin(), container_name.end(), full);
    *end++ = '|';
    end = std::copy(name.begin(), name.end(), end);
    command = FindName({full, static_cast<size_t>(end - full)});
  }
  if (command == nullptr) *found_container = &container;
  return command;
}

std::vector<const Command*> Registry::Subcommands(const Command& container) const {
  const std::string prefix = std::string(container.name) + '|';
  std::vector<const Command*> found;
  for (const Rows& rows : groups_) {
    for (size_t i = 0; i < rows.count; ++i) {
      if (std::string_view(rows.first[i].name).starts_with(prefix)) found.push_back(rows.first + i);
    }
  }
  return found;
}

size_t Registry::NotARow() {
  CHECK(!"the command is a row of this registry");
  __builtin_unreachable();
}

}  // namespace crab

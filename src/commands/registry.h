// Registry: name -> Command. Built once from the groups' tables, then frozen and shared by all
// loops.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string_view>
#include <vector>

#include "src/commands/command.h"

namespace crab {

std::span<const Command> StringCommands();
std::span<const Command> KeyCommands();
std::span<const Command> ExpireCommands();
std::span<const Command> ObjectCommands();
std::span<const Command> CommandCommands();

class Registry {
 public:
  explicit Registry(std::initializer_list<std::span<const Command>> groups);

  // The row for argv: of a container's subcommand when there is one. Null: no such command, or no
  // such subcommand (then *container is the container's row). Never allocates.
  const Command* Find(Args args, const Command** container) const {
    const Slot* slot = FindSlot(args[0]);
    if (slot == nullptr) return nullptr;
    if (__builtin_expect(!slot->is_container, 1) || args.size() == 1) return slot->command;
    return FindSubcommand(*slot->command, args[1], container);
  }
  const Command* FindName(std::string_view name) const {  // "get", "client|list", any case
    const Slot* slot = FindSlot(name);
    return slot == nullptr ? nullptr : slot->command;
  }
  // Top-level rows by name; subcommands of a container.
  const std::vector<const Command*>& commands() const { return commands_; }
  std::vector<const Command*> Subcommands(const Command& container) const;
  // A dense number of a row, for per-command statistics, below size().
  size_t IndexOf(const Command& command) const {
    for (const Rows& rows : groups_) {
      const size_t offset =
          reinterpret_cast<uintptr_t>(&command) - reinterpret_cast<uintptr_t>(rows.first);
      if (offset < rows.count * sizeof(Command)) return rows.index + offset / sizeof(Command);
    }
    return NotARow();
  }
  size_t size() const { return size_; }

 private:
  // An open table, at most a quarter full. `word` folds the first bytes of a name as FoldWord does.
  struct Slot {
    uint64_t word = 0;
    const Command* command = nullptr;  // null: free
    uint32_t name_size = 0;
    bool word_decides = false;  // word and name_size equal only for this name, in any case
    bool is_container = false;
  };
  struct Rows {
    const Command* first;
    size_t count;
    size_t index;  // of the first
  };

  // The first eight bytes of a name as one number that is the same in lower and upper case. A name
  // of up to eight letters is told from any other by this number and its length; elsewhere the fold
  // also maps a few control characters and symbols onto digits and others, so names are compared.
  static uint64_t FoldWord(std::string_view name) {
    constexpr uint64_t kLowerCase = 0x2020202020202020;
    const char* bytes = name.data();
    uint64_t word = 0;
    if (name.size() >= 8) {
      std::memcpy(&word, bytes, 8);
    } else if (name.size() >= 4) {  // two loads that overlap
      uint32_t front, back;
      std::memcpy(&front, bytes, 4);
      std::memcpy(&back, bytes + name.size() - 4, 4);
      word = front | static_cast<uint64_t>(back) << 32;
    } else if (!name.empty()) {
      const auto byte = [bytes](size_t i) { return uint64_t{static_cast<uint8_t>(bytes[i])}; };
      word = byte(0) | byte(name.size() / 2) << 8 | byte(name.size() - 1) << 16;
    }
    return word | kLowerCase;
  }
  // Where a name's search begins. The multiplier is the golden ratio's fraction; the length tells
  // names with a common beginning apart (expire, expireat: expiretime).
  size_t Home(uint64_t word, size_t name_size) const {
    return ((word + name_size) * 0x9e3779b97f4a7c15) >> shift_;
  }
  const Slot* FindSlot(std::string_view name) const {
    const uint64_t word = FoldWord(name);
    for (size_t i = Home(word, name.size());; i = (i + 1) & (slots_.size() - 1)) {
      const Slot& slot = slots_[i];
      if (slot.command == nullptr) return nullptr;
      if (slot.word == word && slot.name_size == name.size() &&
          (slot.word_decides || EqualsIgnoreCase(name, slot.command->name))) {
        return &slot;
      }
    }
  }
  const Command* FindSubcommand(const Command& container, std::string_view name,
                                const Command** found_container) const;
  void Insert(const Command& command);
  [[noreturn]] static size_t NotARow();

  std::vector<Slot> slots_;  // a power of two, 2^(64 - shift_)
  int shift_ = 0;
  std::vector<Rows> groups_;
  size_t size_ = 0;
  std::vector<const Command*> commands_;
};

}  // namespace crab

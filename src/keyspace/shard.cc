#include "src/keyspace/shard.h"

#include <algorithm>

namespace crab {

Table& Shard::TableOf(uint32_t db) {
  if (Table* table = FindTable(db)) return *table;
  if (db > others_.size()) others_.resize(db);
  others_[db - 1] = std::make_unique<Table>();
  return *others_[db - 1];
}

size_t Shard::MemoryBytes() const {
  size_t bytes = first_.MemoryBytes();
  for (const auto& table : others_) {
    if (table != nullptr) bytes += table->MemoryBytes();
  }
  return bytes;
}

void Shard::RefreshNextDeadline() {
  int64_t next_ms = first_.deadlines().next_ms();
  for (const auto& table : others_) {
    if (table != nullptr) next_ms = std::min(next_ms, table->deadlines().next_ms());
  }
  next_deadline_ms_.store(next_ms, std::memory_order_relaxed);
}

}  // namespace crab

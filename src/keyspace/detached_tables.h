// DetachedTables: what FLUSHALL, FLUSHDB and SWAPDB take out of the keyspace in one stroke.
// Moved from the loop that detached it to the thread that frees it; one owner at a time.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "src/keyspace/table.h"

namespace crab {

// Tables with all that is in them, freed by the destructor: on any
// thread, so that FLUSHALL of millions of keys holds nobody up.
class DetachedTables {
 public:
  DetachedTables() = default;
  DetachedTables(DetachedTables&&) = default;
  DetachedTables& operator=(DetachedTables&&) = default;

  void Add(std::unique_ptr<Table> table) {
    keys_ += table->size();
    tables_.push_back(std::move(table));
  }
  size_t keys() const { return keys_; }

 private:
  std::vector<std::unique_ptr<Table>> tables_;
  size_t keys_ = 0;
};

}  // namespace crab

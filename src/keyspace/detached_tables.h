// DetachedTables: what FLUSHALL, FLUSHDB and SWAPDB take out of the keyspace in one stroke.
// Moved from the loop that detached it to the thread that frees it; one owner at a time.
#pragma once

#include <cstddef>
#include <memory>
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

  size_t keys() const { return keys_; }

 private:
  friend class Keyspace;
  std::vector<std::unique_ptr<Table>> tables_;
  size_t keys_ = 0;
};

}  // namespace crab

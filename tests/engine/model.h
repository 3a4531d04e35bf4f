// What a keyspace should hold: the commands of the engine's tests on a plain map, and what the data
// was after each record of the log. Belongs to one thread.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "persistence/log.h"
#include "utils/random.h"

namespace crab::test {

struct ModelValue {
  std::string bytes;
  int64_t deadline_ms = -1;  // -1: none
  bool operator==(const ModelValue&) const = default;
};
using ModelKey = std::pair<uint32_t, std::string>;  // database, key
using Data = std::map<ModelKey, ModelValue>;
using Words = std::vector<std::string>;

// Values of more than this are kept as their size and checksum, so that copies of the data are
// cheap.
constexpr size_t kAbridgedBytes = 1000;
Data Abridged(const Data& data);
// The keys in which two differ, for a message.
std::string Difference(const Data& found, const Data& expected);

// The commands that CommandMaker makes, on a map.
void RunOnModel(uint32_t db, const Words& words, Data* data);

struct MadeCommand {
  uint32_t db;
  Words words;
};

// Draws commands that write. With `whole_values` each effect gives keys a value whatever they had
// before, so that what remains when some are lost can be told.
class CommandMaker {
 public:
  explicit CommandMaker(uint64_t seed, bool whole_values = false)
      : random_(seed), whole_values_(whole_values) {}
  MadeCommand Next();
  Random& random() { return random_; }

  static constexpr uint32_t kDatabases = 3;

 private:
  std::string Key() { return std::string(1, static_cast<char>('a' + random_.Below(7))); }
  std::string Number() { return "n" + std::to_string(random_.Below(3)); }
  std::string Value();
  std::string Deadline();

  Random random_;
  const bool whole_values_;
  uint64_t count_ = 0;
};

// The data after each record, and what of it was promised.
class History {
 public:
  History() { points_.push_back({}); }

  const Data& data() const { return data_; }
  Data* mutable_data() { return &data_; }

  // The present data is what the log makes of its records up to `lsn`. A change that the log gave
  // no LSN to (it is degraded) is not to be noted.
  void Note(wal::Lsn lsn);
  // The log's records are to be found from here on: nobody was told so before.
  void Promise(wal::Lsn durable);
  wal::Lsn promised() const { return promised_; }
  wal::Lsn last() const { return points_.back().lsn; }

  // "" where `found` is what the data was at one time, not before what was promised; otherwise what
  // is wrong. `exact`: where the log ended, for a log that gave each change an LSN.
  std::string Judge(const Data& found, std::optional<wal::Lsn> exact = {}) const;
  // What a recovery found is the truth from now on, as of `lsn`, and promised: it may have been
  // read.
  void Adopt(Data found, wal::Lsn lsn);

  // What the records up to `last`, but for those that are lost, make of the data at `base`.
  // Only of whole values.
  Data Without(wal::Lsn base, wal::Lsn last,
               const std::vector<std::pair<wal::Lsn, wal::Lsn>>& lost) const;
  // The data at this LSN.
  const Data& At(wal::Lsn lsn) const;

 private:
  struct Point {
    wal::Lsn lsn = 0;
    Data data;
  };
  Data data_;                  // with values in full
  std::vector<Point> points_;  // abridged, ascending
  wal::Lsn promised_ = 0;
};

}  // namespace crab::test

#include "tests/engine/model.h"

#include <algorithm>
#include <cstdlib>

#include "utils/check.h"
#include "utils/hash.h"

namespace crab::test {

Data Abridged(const Data& data) {
  Data abridged = data;
  for (auto& [key, value] : abridged) {
    if (value.bytes.size() <= kAbridgedBytes) continue;
    value.bytes = std::to_string(value.bytes.size()) + " bytes, hash " +
                  std::to_string(HashKey(value.bytes, 1));
  }
  return abridged;
}

std::string Difference(const Data& found, const Data& expected) {
  std::string text;
  const auto print = [&](const Data& data, const ModelKey& key) {
    const auto value = data.find(key);
    if (value == data.end()) return std::string("nothing");
    return "'" + value->second.bytes.substr(0, 40) + "'@" +
           std::to_string(value->second.deadline_ms);
  };
  std::set<ModelKey> keys;
  for (const auto& [key, value] : found) keys.insert(key);
  for (const auto& [key, value] : expected) keys.insert(key);
  for (const ModelKey& key : keys) {
    if (print(found, key) == print(expected, key)) continue;
    text += " " + std::to_string(key.first) + ":" + key.second + " is " + print(found, key) +
            " instead of " + print(expected, key) + ";";
  }
  return text;
}

void RunOnModel(uint32_t db, const Words& words, Data* data) {
  const std::string& name = words[0];
  const ModelKey key{db, words.size() > 1 ? words[1] : ""};
  const auto found = data->find(key);
  const auto integer = [](const std::string& text) {
    return std::strtoll(text.c_str(), nullptr, 10);
  };
  if (name == "SET") {
    (*data)[key] = {words[2], words.size() == 5 ? integer(words[4]) : -1};
  } else if (name == "MSET") {
    for (size_t i = 1; i < words.size(); i += 2) (*data)[{db, words[i]}] = {words[i + 1]};
  } else if (name == "APPEND") {
    (*data)[key].bytes += words[2];
  } else if (name == "SETRANGE") {
    const auto begin = static_cast<size_t>(integer(words[2]));
    std::string& bytes = (*data)[key].bytes;
    bytes.resize(std::max(bytes.size(), begin + words[3].size()));
    bytes.replace(begin, words[3].size(), words[3]);
  } else if (name == "INCRBY") {
    ModelValue& value = (*data)[key];
    value.bytes = std::to_string(integer(value.bytes) + integer(words[2]));
  } else if (name == "DEL") {
    for (size_t i = 1; i < words.size(); ++i) data->erase({db, words[i]});
  } else if (name == "PEXPIREAT") {
    if (found != data->end()) found->second.deadline_ms = integer(words[2]);
  } else if (name == "PERSIST") {
    if (found != data->end()) found->second.deadline_ms = -1;
  } else if (name == "RENAME" || name == "MOVE") {
    const bool move = name == "MOVE";
    const ModelKey to = move ? ModelKey{static_cast<uint32_t>(integer(words[2])), key.second}
                             : ModelKey{db, words[2]};
    if (found == data->end() || to == key || (move && data->count(to) != 0)) return;
    const ModelValue value = found->second;
    data->erase(found);
    (*data)[to] = value;
  } else if (name == "SWAPDB") {
    const auto a = static_cast<uint32_t>(integer(words[1]));
    const auto b = static_cast<uint32_t>(integer(words[2]));
    Data swapped;
    for (auto& [at, value] : *data) {
      const uint32_t other = at.first == a ? b : at.first == b ? a : at.first;
      swapped[{other, at.second}] = value;
    }
    *data = std::move(swapped);
  } else if (name == "FLUSHDB") {
    std::erase_if(*data, [&](const auto& entry) { return entry.first.first == db; });
  } else {
    CHECK(name == "FLUSHALL");
    data->clear();
  }
}

// --- commands ------------------------------------------------------------------------------------

std::string CommandMaker::Value() {
  std::string value = "v" + std::to_string(++count_) + ":";
  const uint64_t size = random_.Below(random_.Below(8) == 0 ? 600 : 40);
  while (value.size() < size) value += static_cast<char>('A' + random_.Below(26));
  return value;
}

// Far away: no key expires while a test looks at it.
std::string CommandMaker::Deadline() {
  return std::to_string(4'000'000'000'000 + static_cast<int64_t>(random_.Below(1'000'000)));
}

MadeCommand CommandMaker::Next() {
  const auto db = static_cast<uint32_t>(random_.Below(kDatabases));
  const uint64_t roll = random_.Below(whole_values_ ? 60 : 100);
  if (roll < 25) return {db, {"SET", Key(), Value()}};
  if (roll < 35) return {db, {"SET", Key(), Value(), "PXAT", Deadline()}};
  if (roll < 47) return {db, {"MSET", Key(), Value(), Key(), Value(), Key(), Value()}};
  if (roll < 54) return {db, {"DEL", Key(), Key()}};
  if (roll < 60) return {db, {"RENAME", Key(), Key()}};
  if (roll < 67) return {db, {"APPEND", Key(), Value()}};
  if (roll < 75) return {db, {"INCRBY", Number(), std::to_string(random_.Below(100))}};
  if (roll < 79) return {db, {"SETRANGE", Key(), std::to_string(random_.Below(30)), Value()}};
  if (roll < 84) return {db, {"PEXPIREAT", Key(), Deadline()}};
  if (roll < 87) return {db, {"PERSIST", Key()}};
  if (roll < 92) return {db, {"MOVE", Key(), std::to_string((db + 1) % kDatabases)}};
  if (roll < 97) return {db, {"SWAPDB", std::to_string(db), std::to_string((db + 1) % kDatabases)}};
  if (roll < 99) return {db, {"FLUSHDB"}};
  return {db, {"FLUSHALL"}};
}

// --- history -------------------------------------------------------------------------------------

void History::Note(wal::Lsn lsn) {
  Data now = Abridged(data_);
  if (points_.back().lsn == lsn) {
    points_.back().data = std::move(now);
    return;
  }
  CHECK_GT(lsn, points_.back().lsn);
  points_.push_back({lsn, std::move(now)});
}

void History::Promise(wal::Lsn durable) { promised_ = std::max(promised_, durable); }

const Data& History::At(wal::Lsn lsn) const {
  const Point* at = &points_.front();
  for (const Point& point : points_) {
    if (point.lsn <= lsn) at = &point;
  }
  return at->data;
}

std::string History::Judge(const Data& found, std::optional<wal::Lsn> exact) const {
  if (exact) {
    if (*exact < promised_) {
      return "ends at LSN " + std::to_string(*exact) + ", below the promised " +
             std::to_string(promised_);
    }
    if (found == At(*exact)) return "";
    return "not what was at LSN " + std::to_string(*exact) + ":" + Difference(found, At(*exact));
  }
  for (auto point = points_.rbegin(); point != points_.rend(); ++point) {
    if (found == point->data) return "";
    if (point->lsn <= promised_) break;
  }
  for (const Point& point : points_) {
    if (found == point.data) {
      return "the data as of LSN " + std::to_string(point.lsn) + ", and " +
             std::to_string(promised_) + " was promised";
    }
  }
  return "data that never was; beside that of the promised LSN " + std::to_string(promised_) + ":" +
         Difference(found, At(promised_));
}

void History::Adopt(Data found, wal::Lsn lsn) {
  points_.clear();
  points_.push_back({lsn, Abridged(found)});
  data_ = std::move(found);
  promised_ = lsn;
}

Data History::Without(wal::Lsn base, wal::Lsn last,
                      const std::vector<std::pair<wal::Lsn, wal::Lsn>>& lost) const {
  Data data = At(base);
  const Point* before = &points_.front();
  for (const Point& point : points_) {
    const Data& was = before->data;
    before = &point;
    if (point.lsn <= base || point.lsn > last) continue;
    const bool gone = std::any_of(lost.begin(), lost.end(), [&](const auto& range) {
      return range.first <= point.lsn && point.lsn <= range.second;
    });
    if (gone) continue;
    for (const auto& [key, value] : was) {
      if (point.data.count(key) == 0) data.erase(key);
    }
    for (const auto& [key, value] : point.data) {
      const auto old = was.find(key);
      if (old == was.end() || !(old->second == value)) data[key] = value;
    }
  }
  return data;
}

}  // namespace crab::test

#include "persistence/index.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "persistence/record.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

// What stands before the lists of an INDEX payload.
struct [[gnu::packed]] Head {
  uint64_t previous;
  uint32_t records;
  uint32_t lists;
};
static_assert(sizeof(Head) == 16);

struct [[gnu::packed]] List {
  uint16_t shard;
  uint16_t zero;
  uint32_t end;  // in the delta area
};
static_assert(sizeof(List) == 8);

// Above it an offset would not fit into the bits of a place that the shard leaves.
constexpr uint64_t kOffsetMax = uint64_t{1} << 50;
constexpr int kVarintBytesMax = 10;

void AppendVarint(uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// Takes a varint from the front of `bytes`; false where there is none of 64 bits.
bool TakeVarint(std::string_view* bytes, uint64_t* value) {
  *value = 0;
  for (int i = 0; i < kVarintBytesMax && static_cast<size_t>(i) < bytes->size(); ++i) {
    const auto byte = static_cast<uint8_t>((*bytes)[i]);
    if (i == kVarintBytesMax - 1 && byte > 1) return false;
    *value |= uint64_t{byte & 0x7fu} << (7 * i);
    if (byte < 0x80) {
      bytes->remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

List ListAt(std::string_view lists, size_t number) {
  List list;
  std::memcpy(&list, lists.data() + number * sizeof(list), sizeof(list));
  return list;
}

Status Damaged(const char* what) {
  return Status::Error(std::string("the index contradicts itself: ") + what, EBADMSG);
}

}  // namespace

bool ReadTxnDirectory(std::string_view payload, std::vector<TxnPart>* parts) {
  parts->clear();
  std::string_view rest = payload;
  uint64_t count;
  constexpr size_t kRowBytesMin = sizeof(uint16_t) + 1;
  if (!TakeVarint(&rest, &count) || count > rest.size() / kRowBytesMin) return false;
  uint64_t total = 0;
  for (uint64_t i = 0; i < count; ++i) {
    uint16_t shard;
    if (rest.size() < sizeof(shard)) return false;
    std::memcpy(&shard, rest.data(), sizeof(shard));
    rest.remove_prefix(sizeof(shard));
    uint64_t size;
    if (!TakeVarint(&rest, &size) || size > payload.size() - total) return false;
    parts->push_back({shard, static_cast<uint32_t>(total), static_cast<uint32_t>(size)});
    total += size;
  }
  if (total != rest.size()) return false;
  const auto first = static_cast<uint32_t>(payload.size() - rest.size());
  for (TxnPart& part : *parts) part.offset += first;
  return true;
}

void IndexBuilder::Add(uint8_t type, uint16_t shard, std::string_view payload, uint64_t offset) {
  DCHECK(offset % kFrameAlignment == 0);
  CHECK_LT(offset, kOffsetMax);
  ++records_;
  if (type != static_cast<uint8_t>(FrameType::kTxn)) {
    AddPlace(shard, offset);
  } else if (!ReadTxnDirectory(payload, &parts_)) {
    AddPlace(kBroadcastShard, offset);
  } else {
    for (const TxnPart& part : parts_) AddPlace(part.shard, offset);
  }
}

void IndexBuilder::AddPlace(uint16_t shard, uint64_t offset) {
  places_.push_back(uint64_t{shard} << kOffsetBits | offset / kFrameAlignment);
  if (shard != kBroadcastShard) shards_ = std::max<uint32_t>(shards_, shard + 1u);
}

// Places come in the order of their offsets, so counting them by shard sorts them: two passes over
// memory, where a general sort would cost the writer's thread milliseconds for each index.
void IndexBuilder::SortByShard() {
  const auto slot = [this](uint64_t place) {
    const auto shard = static_cast<uint16_t>(place >> kOffsetBits);
    return shard == kBroadcastShard ? shards_ : shard;
  };
  starts_.assign(shards_ + 2, 0);
  for (const uint64_t place : places_) ++starts_[slot(place) + 1];
  for (size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
  sorted_.resize(places_.size());
  for (const uint64_t place : places_) sorted_[starts_[slot(place)]++] = place;
  // What ran atomically may have touched one shard more than once.
  sorted_.erase(std::unique(sorted_.begin(), sorted_.end()), sorted_.end());
}

std::string IndexBuilder::Take(uint64_t previous) {
  SortByShard();
  constexpr uint64_t kOffsetMask = (uint64_t{1} << kOffsetBits) - 1;
  std::string lists, deltas;
  for (size_t i = 0; i < sorted_.size();) {
    const uint64_t shard = sorted_[i] >> kOffsetBits;
    for (uint64_t last = 0; i < sorted_.size() && sorted_[i] >> kOffsetBits == shard; ++i) {
      const uint64_t place = sorted_[i] & kOffsetMask;
      AppendVarint(place - last, &deltas);
      last = place;
    }
    const List list = {static_cast<uint16_t>(shard), 0, static_cast<uint32_t>(deltas.size())};
    lists.append(reinterpret_cast<const char*>(&list), sizeof(list));
  }
  const Head head = {previous, records_, static_cast<uint32_t>(lists.size() / sizeof(List))};
  std::string payload(reinterpret_cast<const char*>(&head), sizeof(head));
  payload.reserve(payload.size() + lists.size() + deltas.size());
  payload.append(lists).append(deltas);
  places_.clear();
  records_ = 0;
  shards_ = 0;
  return payload;
}

Result<IndexView> IndexView::Parse(std::string_view payload) {
  Head head;
  if (payload.size() < sizeof(head)) return Damaged("it is shorter than its beginning");
  std::memcpy(&head, payload.data(), sizeof(head));
  payload.remove_prefix(sizeof(head));
  if (head.lists > payload.size() / sizeof(List)) return Damaged("its lists do not fit into it");
  if (head.previous % kFrameAlignment != 0) return Damaged("the one before it is at no frame");
  IndexView view;
  view.previous_ = head.previous;
  view.records_ = head.records;
  view.lists_ = payload.substr(0, head.lists * sizeof(List));
  view.deltas_ = payload.substr(view.lists_.size());
  int last_shard = -1;
  uint32_t last_end = 0;
  for (size_t i = 0; i < head.lists; ++i) {
    const List list = ListAt(view.lists_, i);
    if (list.shard <= last_shard) return Damaged("its shards do not ascend");
    if (list.end <= last_end) return Damaged("a list has no end");
    last_shard = list.shard;
    last_end = list.end;
  }
  if (last_end > view.deltas_.size()) return Damaged("its lists do not fit into it");
  return view;
}

Status IndexView::Offsets(uint16_t shard, std::vector<uint64_t>* offsets) const {
  size_t first = 0;
  size_t end = lists_.size() / sizeof(List);
  while (first < end) {
    const size_t middle = (first + end) / 2;
    if (ListAt(lists_, middle).shard < shard) {
      first = middle + 1;
    } else {
      end = middle;
    }
  }
  if (first == lists_.size() / sizeof(List)) return Status::Ok();
  const List list = ListAt(lists_, first);
  if (list.shard != shard) return Status::Ok();
  const uint32_t start = first == 0 ? 0 : ListAt(lists_, first - 1).end;
  std::string_view rest = deltas_.substr(start, list.end - start);
  const size_t before = offsets->size();
  for (uint64_t place = 0; !rest.empty();) {
    uint64_t delta;
    if (!TakeVarint(&rest, &delta) || delta == 0 || delta > kOffsetMax / kFrameAlignment - place) {
      offsets->resize(before);
      return Damaged("a list is not one of offsets");
    }
    place += delta;
    offsets->push_back(place * kFrameAlignment);
  }
  return Status::Ok();
}

void IndexView::Shards(std::vector<uint16_t>* shards) const {
  for (size_t i = 0; i < lists_.size() / sizeof(List); ++i) {
    shards->push_back(ListAt(lists_, i).shard);
  }
}

}  // namespace crab::wal

#include "src/keyspace/table.h"

#include <bit>
#include <cstring>
#include <utility>

#include "utils/hash.h"

namespace crab {

namespace {

Bucket* AllocateBuckets(size_t count) {
  auto* buckets = static_cast<Bucket*>(AllocateAligned(count * sizeof(Bucket), alignof(Bucket)));
  std::memset(static_cast<void*>(buckets), 0, count * sizeof(Bucket));
  return buckets;
}

}  // namespace

Table::~Table() {
  for (size_t i = 0; i < bucket_count_; ++i) {
    ForEachOfChain(bucket(i), [](Place place) {
      Entry::Destroy(place.entry());
      return true;
    });
    FreeChain(bucket(i)->next());
  }
  for (size_t i = 0; i < bucket_count_; i += kChunkBuckets) {
    ReleaseAligned(directory_[i / kChunkBuckets]);
  }
  if (directory_capacity_ > 1) {
    Release(directory_, AllocatedBytes(directory_capacity_ * sizeof(Bucket*)));
  }
}

void Table::Swap(Table& other) {
  std::swap(directory_, other.directory_);
  std::swap(bucket_count_, other.bucket_count_);
  std::swap(low_mask_, other.low_mask_);
  std::swap(size_, other.size_);
  std::swap(with_deadline_, other.with_deadline_);
  std::swap(memory_, other.memory_);
  std::swap(first_chunk_, other.first_chunk_);
  std::swap(directory_capacity_, other.directory_capacity_);
  std::swap(first_chunk_buckets_, other.first_chunk_buckets_);
  std::swap(sieve_hand, other.sieve_hand);
  deadlines_.Swap(other.deadlines_);
  for (Table* table : {this, &other}) {
    if (table->directory_capacity_ == 1) table->directory_ = &table->first_chunk_;
  }
}

Table::Place Table::Locate(uint64_t hash, const Entry* entry) const {
  Place found;
  if (size_ > 0) {
    ForEachOfChain(BucketOf(hash), [&](Place place) {
      if (place.entry() != entry) return true;
      found = place;
      return false;
    });
  }
  CHECK(found);
  return found;
}

void Table::Insert(uint64_t hash, Entry* entry, uint64_t seed) {
  if (size_ >= bucket_count_ * kSplitLoad) Split(seed);
  const auto pointer = reinterpret_cast<uint64_t>(entry);
  DCHECK((pointer & ~Bucket::kPointerMask) == 0);
  const uint64_t slot = pointer | (hash & Bucket::kHashMask) << Bucket::kPointerBits |
                        uint64_t{entry->has_deadline()} << 63;
  AppendTo(BucketOf(hash), slot, Fingerprint(hash));
  ++size_;
  memory_ += entry->MemoryBytes();
  if (entry->has_deadline()) {
    ++with_deadline_;
    AddRecord(hash, entry->deadline_ms(), seed);
  }
}

void Table::Remove(uint64_t hash, Place place, uint64_t seed) {
  Entry* entry = place.entry();
  const bool had_deadline = place.has_deadline();
  memory_ -= entry->MemoryBytes();
  Entry::Destroy(entry);
  DropSlot(BucketOf(hash), place);
  --size_;
  if (size_ == 0) {
    while (bucket_count_ > 0) DropLastBucket();
  } else if (size_ < bucket_count_ * kMergeLoad && bucket_count_ > 1) {
    Merge();
  }
  if (had_deadline) {
    --with_deadline_;
    TrimRecords(seed);
  }
}

void Table::Replace(uint64_t hash, Place place, Entry* entry, size_t old_bytes,
                    int64_t old_deadline_ms, uint64_t seed) {
  const bool had_deadline = place.has_deadline();
  uint64_t& slot = place.bucket->slots_[place.slot];
  slot = reinterpret_cast<uint64_t>(entry) | (slot & ~Bucket::kPointerMask);
  memory_ += entry->MemoryBytes() - old_bytes;
  if (entry->has_deadline()) {
    slot |= uint64_t{1} << 63;
    with_deadline_ += !had_deadline;
    if (!had_deadline || entry->deadline_ms() < old_deadline_ms) {
      AddRecord(hash, entry->deadline_ms(), seed);
    }
  } else if (had_deadline) {
    slot &= ~(uint64_t{1} << 63);
    --with_deadline_;
    TrimRecords(seed);
  }
}

void Table::AppendTo(Bucket* bucket, uint64_t slot, uint8_t fingerprint) {
  while (true) {
    const uint32_t limit = bucket->state_ & Bucket::kChained ? 0x3f : 0x7f;
    const uint32_t free = ~static_cast<uint32_t>(bucket->state_) & limit;
    if (free != 0) {
      const int i = __builtin_ctz(free);
      bucket->slots_[i] = slot;
      bucket->fingerprints_[i] = fingerprint;
      bucket->state_ |= static_cast<uint8_t>(1u << i);
      return;
    }
    if (!(bucket->state_ & Bucket::kChained)) {
      // The last slot makes room for the address of the next bucket and moves there.
      constexpr int kLast = Bucket::kSlots - 1;
      Bucket* next = AllocateBuckets(1);
      memory_ += sizeof(Bucket);
      next->slots_[0] = bucket->slots_[kLast];
      next->fingerprints_[0] = bucket->fingerprints_[kLast];
      next->state_ = 1;
      bucket->slots_[kLast] = reinterpret_cast<uint64_t>(next);
      bucket->fingerprints_[kLast] = 0;
      bucket->state_ = Bucket::kChained | (bucket->state_ & 0x3f);
    }
    bucket = bucket->next();
  }
}

// Empties a slot and fills the gap from the end of the chain, so that only its last bucket has gaps
// and an empty one is given back. `head` is the first bucket of the chain that `place` is in.
void Table::DropSlot(Bucket* head, Place place) {
  Bucket* before_last = nullptr;
  Bucket* last = head;
  while (last->next() != nullptr) {
    before_last = last;
    last = last->next();
  }
  const int end = std::bit_width(last->used()) - 1;
  place.bucket->slots_[place.slot] = last->slots_[end];
  place.bucket->fingerprints_[place.slot] = last->fingerprints_[end];
  last->state_ &= static_cast<uint8_t>(~(1u << end));
  if (before_last != nullptr && last->count() <= 1) {
    // Its one entry goes back to where the address was.
    constexpr int kLast = Bucket::kSlots - 1;
    before_last->state_ &= static_cast<uint8_t>(~Bucket::kChained);
    if (last->used() != 0) {
      const int only = __builtin_ctz(last->used());
      before_last->slots_[kLast] = last->slots_[only];
      before_last->fingerprints_[kLast] = last->fingerprints_[only];
      before_last->state_ |= 1u << kLast;
    }
    ReleaseAligned(last);
    memory_ -= sizeof(Bucket);
  }
}

void Table::FreeChain(Bucket* bucket) {
  while (bucket != nullptr) {
    Bucket* next = bucket->next();
    ReleaseAligned(bucket);
    memory_ -= sizeof(Bucket);
    bucket = next;
  }
}

bool Table::HashBit(const Bucket& bucket, int slot, int bit, uint64_t seed) const {
  if (bit < 15) return bucket.hash_bits(slot) >> bit & 1;
  return HashKey(bucket.entry(slot)->key(), seed) >> bit & 1;
}

// Adds a bucket at the end. Its keys are in the bucket that has the same index but for the top bit.
void Table::Split(uint64_t seed) {
  Bucket* to = AddBucket();
  if (bucket_count_ == 1) return;
  const int bit = std::bit_width(low_mask_);
  Bucket* from = bucket(bucket_count_ - 1 - (low_mask_ + 1));
  if (bucket_count_ == 2 * (low_mask_ + 1)) low_mask_ = 2 * low_mask_ + 1;

  const Bucket head = *from;
  from->state_ = 0;
  ForEachOfChain(const_cast<Bucket*>(&head), [&](Place place) {
    const Bucket& bucket = *place.bucket;
    AppendTo(HashBit(bucket, place.slot, bit, seed) ? to : from, bucket.slots_[place.slot],
             bucket.fingerprints_[place.slot]);
    return true;
  });
  FreeChain(head.next());
}

// Undoes the latest split.
void Table::Merge() {
  const size_t last = bucket_count_ - 1;
  if (bucket_count_ == low_mask_ + 1) low_mask_ >>= 1;
  Bucket* to = bucket(last - (low_mask_ + 1));
  Bucket* from = bucket(last);
  ForEachOfChain(from, [&](Place place) {
    AppendTo(to, place.bucket->slots_[place.slot], place.bucket->fingerprints_[place.slot]);
    return true;
  });
  FreeChain(from->next());
  DropLastBucket();
}

Bucket* Table::AddBucket() {
  const size_t index = bucket_count_;
  if (index < kChunkBuckets) {
    if (index == first_chunk_buckets_) ResizeFirstChunk(index == 0 ? 1 : 2 * index);
  } else if (index % kChunkBuckets == 0) {
    const size_t chunk = index / kChunkBuckets;
    if (chunk == directory_capacity_) {
      const size_t bytes = AllocatedBytes(2 * chunk * sizeof(Bucket*));
      auto** directory = static_cast<Bucket**>(Allocate(bytes));
      std::memcpy(directory, directory_, chunk * sizeof(Bucket*));
      if (directory_capacity_ > 1) {
        const size_t old_bytes = AllocatedBytes(directory_capacity_ * sizeof(Bucket*));
        Release(directory_, old_bytes);
        memory_ -= old_bytes;
      }
      directory_ = directory;
      directory_capacity_ = static_cast<uint32_t>(bytes / sizeof(Bucket*));
      memory_ += bytes;
    }
    directory_[chunk] = AllocateBuckets(kChunkBuckets);
    memory_ += kChunkBuckets * sizeof(Bucket);
  }
  ++bucket_count_;
  Bucket* added = bucket(index);
  added->state_ = 0;
  return added;
}

void Table::DropLastBucket() {
  const size_t index = --bucket_count_;
  if (index >= kChunkBuckets) {
    if (index % kChunkBuckets != 0) return;
    const size_t chunks = index / kChunkBuckets;
    ReleaseAligned(directory_[chunks]);
    memory_ -= kChunkBuckets * sizeof(Bucket);
    if (chunks == 1) {
      const size_t bytes = AllocatedBytes(directory_capacity_ * sizeof(Bucket*));
      first_chunk_ = directory_[0];
      Release(directory_, bytes);
      memory_ -= bytes;
      directory_ = &first_chunk_;
      directory_capacity_ = 1;
    }
  } else if (index * 4 <= first_chunk_buckets_) {
    ResizeFirstChunk(index == 0 ? 0 : 2 * index);
  }
  if (bucket_count_ == 0) low_mask_ = 0;
}

void Table::ResizeFirstChunk(size_t buckets) {
  DCHECK(directory_ == &first_chunk_);
  Bucket* chunk = nullptr;
  if (buckets > 0) {
    chunk = AllocateBuckets(buckets);
    if (bucket_count_ > 0) {
      std::memcpy(static_cast<void*>(chunk), first_chunk_, bucket_count_ * sizeof(Bucket));
    }
  }
  if (first_chunk_ != nullptr) ReleaseAligned(first_chunk_);
  memory_ += (buckets - first_chunk_buckets_) * sizeof(Bucket);
  first_chunk_ = chunk;
  first_chunk_buckets_ = static_cast<uint32_t>(buckets);
}

// The cursor is a hash suffix, counted up from its top bit down as Redis does it: the suffixes in
// that order are the hashes ordered by their reversed bits, and each bucket is one interval of it,
// whichever number of bits addresses it at the moment. All before the cursor has been visited, so
// splits and merges between two steps lose nothing; a merge can only show some keys twice.
uint64_t Table::Scan(uint64_t cursor, Bucket** chain) const {
  *chain = nullptr;
  if (size_ == 0) return 0;
  const size_t index = IndexOf(cursor);
  *chain = bucket(index);
  // Split already, or made by a split: addressed by one bit more.
  const bool deep = index > low_mask_ || index + low_mask_ + 1 < bucket_count_;
  const uint64_t mask = deep ? 2 * uint64_t{low_mask_} + 1 : low_mask_;
  // The addressing bits, increased in reverse order; carried out of the lowest, it is the end.
  uint64_t next = cursor & mask;
  for (uint64_t bit = (mask + 1) >> 1; bit != 0; bit >>= 1) {
    next ^= bit;
    if (next & bit) return next;
  }
  return 0;
}

void Table::AddRecord(uint64_t hash, int64_t deadline_ms, uint64_t seed) {
  deadlines_.Push(DeadlineQueue::Record(deadline_ms, hash));
  TrimRecords(seed);
}

// Rebuilds the records from the keys when too many are out of date. The slack grows with the table,
// whose walk is the price, so that each record pays for a bounded share of it.
void Table::TrimRecords(uint64_t seed) {
  if (with_deadline_ == 0) {
    deadlines_.Clear();
    return;
  }
  if (deadlines_.size() <= 2 * with_deadline_ + size_ / 8 + 64) return;
  deadlines_.Reset(with_deadline_);
  for (size_t i = 0; i < bucket_count_; ++i) {
    ForEachOfChain(bucket(i), [&](Place place) {
      if (place.has_deadline()) {
        const Entry* entry = place.entry();
        deadlines_.Add(DeadlineQueue::Record(entry->deadline_ms(), HashKey(entry->key(), seed)));
      }
      return true;
    });
  }
  deadlines_.Order();
}

Table::Place Table::EarliestDeadline(int64_t until_ms, uint64_t seed, size_t* work,
                                     uint64_t* hash) {
  for (; *work > 0 && deadlines_.next_ms() <= until_ms; --*work) {
    const uint64_t record = deadlines_.top();
    Place earliest;
    int64_t earliest_ms = 0;
    // The record's hash bits name one bucket, but in a table of more than 2^24 they name several.
    uint64_t suffix = DeadlineQueue::HashBits(record);
    do {
      ForEachOfChain(size_ > 0 ? BucketOf(suffix) : nullptr, [&](Place place) {
        if (!place.has_deadline()) return true;
        const uint64_t key_hash = HashKey(place.entry()->key(), seed);
        if ((key_hash & DeadlineQueue::kHashMask) != DeadlineQueue::HashBits(record)) return true;
        const int64_t deadline_ms = place.entry()->deadline_ms();
        if (!earliest || deadline_ms < earliest_ms) {
          earliest = place;
          earliest_ms = deadline_ms;
          *hash = key_hash;
        }
        return true;
      });
      suffix += uint64_t{1} << DeadlineQueue::kHashBits;
    } while (suffix <= 2 * uint64_t{low_mask_} + 1);
    // The record stays as long as its key has this deadline.
    const uint64_t exact = earliest ? DeadlineQueue::Record(earliest_ms, record) : 0;
    if (exact == record) return earliest;
    deadlines_.Pop();
    if (earliest) deadlines_.Push(exact);
  }
  return {};
}

Table::Place Table::PlaceOfRecord(size_t i, uint64_t seed) const {
  Place found;
  if (size_ == 0) return found;
  const uint64_t hash = DeadlineQueue::HashBits(deadlines_[i]);
  ForEachOfChain(BucketOf(hash), [&](Place place) {
    if (!place.has_deadline()) return true;
    if ((HashKey(place.entry()->key(), seed) & DeadlineQueue::kHashMask) != hash) return true;
    found = place;
    return false;
  });
  return found;
}

}  // namespace crab

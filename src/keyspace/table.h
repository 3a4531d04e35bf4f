// Table: the keys of one database in one shard, by linear hashing over buckets of one cache line.
//
// A bucket holds seven slots and, for each, one byte of its key's hash, all compared at once. What
// does not fit goes to a chain of further buckets. About every sixth insertion splits one bucket in
// two, in a fixed order, and removals merge them again in the opposite order: no rehashing, no
// second table, no pause. A slot keeps 15 bits of the hash, so that up to 32768 buckets a split
// touches no entry.
//
// The table owns its entries, counts every byte it keeps, and knows which keys have a deadline.
// Shard-bound. A Place lives until the next insertion or removal.
#pragma once

#include <emmintrin.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "src/keyspace/entry.h"
#include "src/keyspace/expiry.h"
#include "utils/check.h"
#include "utils/touch.h"

namespace crab {

// One cache line. With `chained` set the seventh slot is the address of the next bucket.
class alignas(64) Bucket {
 public:
  static constexpr int kSlots = 7;

  // Bit i: slot i is in use and its fingerprint is this one.
  uint32_t Matches(uint8_t fingerprint) const {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(this));
    const __m128i equal = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(static_cast<char>(fingerprint)));
    return (static_cast<uint32_t>(_mm_movemask_epi8(equal)) >> 1) & used();
  }
  uint32_t used() const { return state_ & kUsedMask; }
  int count() const { return __builtin_popcount(used()); }
  Bucket* next() const {
    return state_ & kChained ? reinterpret_cast<Bucket*>(slots_[kSlots - 1]) : nullptr;
  }
  Entry* entry(int i) const { return reinterpret_cast<Entry*>(slots_[i] & kPointerMask); }
  bool has_deadline(int i) const { return slots_[i] >> 63; }
  // The low 15 bits of the key's hash.
  uint32_t hash_bits(int i) const { return (slots_[i] >> kPointerBits) & kHashMask; }

 private:
  friend class Table;
  static constexpr int kPointerBits = 48;
  static constexpr uint64_t kPointerMask = (uint64_t{1} << kPointerBits) - 1;
  static constexpr uint32_t kHashMask = 0x7fff;
  static constexpr uint8_t kUsedMask = 0x7f;
  static constexpr uint8_t kChained = 0x80;

  uint8_t state_;
  uint8_t fingerprints_[kSlots];
  uint64_t slots_[kSlots];
};
static_assert(sizeof(Bucket) == 64);

class Table {
 public:
  // Where a key is; false for nowhere.
  struct Place {
    Bucket* bucket = nullptr;
    int slot = 0;

    explicit operator bool() const { return bucket != nullptr; }
    Entry* entry() const { return bucket->entry(slot); }
    bool has_deadline() const { return bucket->has_deadline(slot); }
  };

  Table() = default;
  ~Table();
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  void Swap(Table& other);

  size_t size() const { return size_; }
  size_t size_with_deadline() const { return with_deadline_; }
  // Entries, values, buckets and deadline records.
  size_t MemoryBytes() const { return memory_ + deadlines_.MemoryBytes(); }
  const DeadlineQueue& deadlines() const { return deadlines_; }

  [[gnu::always_inline]] Place Find(uint64_t hash, std::string_view key) const {
    if (size_ == 0) return {};
    const uint8_t fingerprint = Fingerprint(hash);
    for (Bucket* bucket = BucketOf(hash); bucket != nullptr; bucket = bucket->next()) {
      for (uint32_t matches = bucket->Matches(fingerprint); matches != 0; matches &= matches - 1) {
        const int slot = __builtin_ctz(matches);
        if (bucket->entry(slot)->KeyEquals(key)) return {bucket, slot};
      }
    }
    return {};
  }
  // Ask the memory for what looking for a key will need: first its bucket, and once that has come,
  // what will be looked at next, an entry or another bucket.
  void TouchBucket(uint64_t hash) const {
    if (bucket_count_ > 0) Touch(BucketOf(hash));
  }
  void TouchBehindBucket(uint64_t hash) const {
    if (bucket_count_ == 0) return;
    const Bucket* const bucket = BucketOf(hash);
    const uint32_t matches = bucket->Matches(Fingerprint(hash));
    if (matches != 0) {
      Touch(bucket->entry(__builtin_ctz(matches)));
    } else if (bucket->next() != nullptr) {
      Touch(bucket->next());
    }
  }
  // Where this very entry is; CHECKs that it is here.
  Place Locate(uint64_t hash, const Entry* entry) const;

  // `seed` is that of Keyspace::Hash: tables with more buckets than a slot has bits for hash again.
  // The key must not be here yet. The table owns the entry from now on.
  void Insert(uint64_t hash, Entry* entry, uint64_t seed);
  // Destroys the entry.
  void Remove(uint64_t hash, Place place, uint64_t seed);
  // Puts another entry of the same key, whose predecessor is gone already, in its place.
  // `old_bytes`: MemoryBytes() of the predecessor.
  void Replace(uint64_t hash, Place place, Entry* entry, size_t old_bytes, int64_t old_deadline_ms,
               uint64_t seed);
  // To be told when an entry's memory or deadline has changed where it stands.
  void AddMemory(int64_t bytes) { memory_ += static_cast<size_t>(bytes); }
  void DeadlineMoved(uint64_t hash, int64_t old_deadline_ms, int64_t deadline_ms, uint64_t seed) {
    if (deadline_ms < old_deadline_ms) AddRecord(hash, deadline_ms, seed);
  }

  // The key with the earliest deadline, if that is due at `until_ms`, with its hash. Drops and
  // corrects the records that turn out to be out of date on the way, at most `*work` of them, which
  // counts down to 0; nowhere when there is none, or none was found by then.
  Place EarliestDeadline(int64_t until_ms, uint64_t seed, size_t* work, uint64_t* hash);
  // The key that record i of deadlines() means; nowhere when it is out of date.
  Place PlaceOfRecord(size_t i, uint64_t seed) const;

  // --- walks ---
  size_t bucket_count() const { return bucket_count_; }
  // The first of a chain; index below bucket_count().
  Bucket* bucket(size_t index) const {
    return &directory_[index / kChunkBuckets][index % kChunkBuckets];
  }
  template <typename Visit>  // bool(Place): false ends the walk
  static bool ForEachOfChain(Bucket* bucket, Visit visit) {
    for (; bucket != nullptr; bucket = bucket->next()) {
      for (uint32_t used = bucket->used(); used != 0; used &= used - 1) {
        if (!visit(Place{bucket, __builtin_ctz(used)})) return false;
      }
    }
    return true;
  }
  // One step of SCAN from `cursor` on: *chain is set to the bucket to visit (null when the table is
  // empty) and the next cursor is returned, 0 at the end.
  uint64_t Scan(uint64_t cursor, Bucket** chain) const;
  // Any entry, each as likely as any other; nowhere when empty. `random` is called for 64 bits.
  template <typename Random>
  Place RandomPlace(Random& random) const;

  // The bucket at which the sieve's hand stands (src/keyspace/eviction).
  uint32_t sieve_hand = 0;

 private:
  // 1 KiB of buckets are allocated at once; the first such chunk grows by doubling.
  static constexpr size_t kChunkBuckets = 16;
  // Split above this many keys per bucket, merge below that. Measured: 14 bytes of buckets per key
  // and 1.2 buckets looked at per hit.
  static constexpr size_t kSplitLoad = 6;
  static constexpr size_t kMergeLoad = 3;

  static uint8_t Fingerprint(uint64_t hash) { return static_cast<uint8_t>(hash >> 40); }
  size_t IndexOf(uint64_t hash) const {
    const size_t index = hash & (2 * low_mask_ + 1);
    return index < bucket_count_ ? index : index & low_mask_;
  }
  Bucket* BucketOf(uint64_t hash) const { return bucket(IndexOf(hash)); }

  void AppendTo(Bucket* bucket, uint64_t slot, uint8_t fingerprint);
  void DropSlot(Bucket* head, Place place);
  void FreeChain(Bucket* bucket);
  void Split(uint64_t seed);
  void Merge();
  Bucket* AddBucket();
  void DropLastBucket();
  void ResizeFirstChunk(size_t buckets);
  bool HashBit(const Bucket& bucket, int slot, int bit, uint64_t seed) const;
  void AddRecord(uint64_t hash, int64_t deadline_ms, uint64_t seed);
  void TrimRecords(uint64_t seed);

  Bucket** directory_ = &first_chunk_;
  uint32_t bucket_count_ = 0;
  // 2^n - 1 for the largest 2^n <= bucket_count_: the buckets below it are addressed by n bits of
  // the hash, or n + 1 where they have been split.
  uint32_t low_mask_ = 0;
  size_t size_ = 0;
  size_t with_deadline_ = 0;
  size_t memory_ = 0;
  Bucket* first_chunk_ = nullptr;    // the directory while there is but one chunk
  uint32_t directory_capacity_ = 1;  // above 1: allocated
  uint32_t first_chunk_buckets_ = 0;
  DeadlineQueue deadlines_;
};

template <typename Random>
Table::Place Table::RandomPlace(Random& random) const {
  // Chains longer than this are cut short of equal chances; none is in a table of usual load.
  constexpr size_t kLongest = 32;
  while (size_ > 0) {
    // A chain of n keys is taken with the chance n / kLongest, so every key has the same.
    const uint64_t bits = random();
    Bucket* chain = bucket((bits >> 32) * bucket_count_ >> 32);
    size_t skip = bits % kLongest;
    Place found;
    ForEachOfChain(chain, [&](Place place) {
      if (skip-- > 0) return true;
      found = place;
      return false;
    });
    if (found) return found;
  }
  return {};
}

}  // namespace crab

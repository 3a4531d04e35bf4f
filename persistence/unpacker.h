// Unpacker: the records of segments that hold PACK frames, in plain again, window by window, so
// that a replay of any length holds a bounded part of them; by as many threads as there are.
// A window is made of bundles. Take reads the packed bytes of the next one, Unpack makes the
// records of them and sorts their places by unit, Put adds it to the window. Unpack may run on any
// number of threads at once; the other calls are for one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/places.h"
#include "persistence/reader.h"
#include "persistence/recovery.h"
#include "utils/status.h"

namespace crab::wal {

// Some packs of one segment that follow each other, in plain.
struct Bundle {
  const Plan::Segment* segment = nullptr;
  uint64_t order = 0;       // of all bundles
  uint64_t file_bytes = 0;  // that it comes from
  uint64_t plain_bytes = 0;

  std::string plain;               // frames of records, as in a PACK
  std::unique_ptr<Places> places;  // in `plain`, of those that count
  std::vector<Frame> bad;          // what does not check, in the order of the file
};

class Unpacker {
 public:
  // A bundle in the making, and the memory that it takes; to be handed back by Put.
  class Job {
   public:
    explicit Job(const std::shared_ptr<const KeyRing>& keys) : codec_(Compression::kNone, keys) {}

    // An error is for the operator; what is damaged is among the bundle's bad frames.
    Status Unpack();

   private:
    friend class Unpacker;
    struct Taken {
      Frame frame;
      size_t at, size;  // of its payload
      Lsn first;        // of the records that count
    };

    void Begin(const Plan::Segment& segment, uint32_t units, uint64_t order);
    // A PACK, a record or a bad place. Records up to `seen` do not count.
    void Add(const Frame& frame, Lsn seen);
    Status UnpackOne(Taken& taken);
    // Those of LSN `first` to `last` count.
    void AddRecords(std::string_view records, Lsn first, Lsn last);
    uint64_t memory() const { return payloads_.capacity() + scratch_.capacity(); }

    Codec codec_;
    std::string scratch_;
    Bundle bundle_;
    uint32_t units_ = 1;
    std::vector<Taken> frames_;
    std::string payloads_;
  };

  // `segments` are those to be read, in their order, and live as long. Records up to
  // `checkpoint_lsn` are left out. A window has `window_bytes` in plain, and what its last bundle
  // has more.
  Unpacker(Disk& disk, std::shared_ptr<const KeyRing> keys, uint32_t units, Lsn checkpoint_lsn,
           std::vector<const Plan::Segment*> segments, uint64_t window_bytes);

  // Another bundle is wanted for this window.
  bool wanted() const { return next_segment_ < segments_.size() && taken_bytes_ < window_bytes_; }
  // The window is made: nothing is wanted, and all that was taken has been put.
  bool ready() const { return !wanted() && jobs_out_ == 0; }

  // Only where one is wanted.
  Result<std::unique_ptr<Job>> Take();
  void Put(std::unique_ptr<Job> job);

  // Only when ready: the window, in the order of the log, and the next one may be begun. Empty at
  // the end.
  std::vector<Bundle> TakeWindow();

 private:
  Disk& disk_;
  const std::shared_ptr<const KeyRing> keys_;
  const uint32_t units_;
  const std::vector<const Plan::Segment*> segments_;
  const uint64_t window_bytes_;
  const uint64_t bundle_bytes_;

  size_t next_segment_ = 0;
  std::unique_ptr<Reader> reader_;  // of segments_[next_segment_]; null = not opened yet
  Lsn seen_;                        // what has been given up to here does not count again
  uint64_t next_order_ = 0;
  uint64_t taken_bytes_ = 0;  // of this window, plain
  int jobs_out_ = 0;
  std::vector<Bundle> window_;
  std::vector<std::unique_ptr<Job>> idle_;  // what has been put back, for its memory
};

}  // namespace crab::wal

// A checkpoint: everything as of one LSN, in one file, so that a restart reads no record at or
// below it. The file is a header, chunks (each the effects that make some keys of one shard), an
// index of the chunks by shard, and an end. FORMAT.md is the specification.
// The bytes of a chunk are opaque here, as a record's payload is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/codec.h"
#include "persistence/disk.h"
#include "persistence/log.h"
#include "utils/status.h"

namespace crab::wal {

struct CheckpointInfo {
  std::string name;  // "checkpoint-00000000000000000017.ckpt": the digits are the LSN
  std::string path;
  std::string problem;  // "" = header, index and end are good
  // Where the problem is not damage: the errno with which it could not be opened, ENOTSUP for a
  // format that is too new. Whether it is whole nobody knows.
  int unopened_errno = 0;

  Lsn lsn = 0;  // it holds exactly what the records up to this one made
  Identity identity;
  uint64_t replication_offset = 0;
  bool shard_by_hashtag = false;  // how the shards of its chunks were found
  int64_t created_at_ms = 0;
  uint64_t key_id = 0;  // of the key it is encrypted with, 0 = none
  Compression compression = Compression::kNone;
  uint64_t file_bytes = 0;
  uint64_t chunks = 0;
  uint64_t entries = 0;      // keys
  uint64_t plain_bytes = 0;  // of all chunks before compression
};

constexpr uint64_t kCheckpointHeaderBytes = 4096;
constexpr char kCheckpointMagic[8] = {'C', 'R', 'A', 'B', 'C', 'K', 'P', '\n'};

struct [[gnu::packed]] CheckpointHeader {
  char magic[8];
  uint32_t format_version;
  uint32_t min_reader_version;
  uint32_t header_bytes;
  uint32_t flags;  // as a segment's
  uint64_t log_id;
  uint64_t lsn;
  uint64_t created_at_ms;
  uint64_t salt;
  uint64_t hash_seed;
  uint32_t shard_count;
  uint32_t compression;
  uint64_t key_id;
  uint64_t replication_offset;
  char replication_id[40];
  char zero[3964];
  uint32_t crc;  // CRC32C of all the bytes before it
};
static_assert(sizeof(CheckpointHeader) == kCheckpointHeaderBytes);
static_assert(offsetof(CheckpointHeader, salt) == 48);
static_assert(offsetof(CheckpointHeader, replication_id) == 88);
static_assert(offsetof(CheckpointHeader, crc) == 4092);

// What stands before the packed bytes of a chunk.
struct [[gnu::packed]] ChunkPayload {
  uint32_t plain_bytes;
  uint32_t entries;
};
static_assert(sizeof(ChunkPayload) == 8);

struct [[gnu::packed]] CheckpointEndPayload {
  uint64_t entries;
  uint64_t chunks;
  uint64_t plain_bytes;
  uint64_t index_offset;
  uint32_t running_crc;  // over the body's part of the checksums of all frames before it, in order
  uint32_t zero;
};
static_assert(sizeof(CheckpointEndPayload) == 40);

std::string CheckpointName(Lsn lsn);
std::optional<Lsn> CheckpointLsn(std::string_view name);  // nullopt: no checkpoint's name

// All that have a checkpoint's name, newest first, those with a problem included. Reads headers,
// ends and indexes, not chunks.
Result<std::vector<CheckpointInfo>> ListCheckpoints(Disk& disk, const std::string& directory);

// Writes one. Thread-bound. Until Publish there is only "checkpoint.tmp", which the next writer
// removes, as does the destructor.
class CheckpointWriter {
 public:
  // `info`: lsn, identity, replication_offset, shard_by_hashtag, created_at_ms are taken from it.
  static Result<std::unique_ptr<CheckpointWriter>> Create(Disk& disk, const std::string& directory,
                                                          const CheckpointInfo& info,
                                                          Compression compression,
                                                          std::shared_ptr<const KeyRing> keys);
  virtual ~CheckpointWriter() = default;

  // One chunk, of kRecordBytesMax at most; those of one shard are read back in the order in which
  // they were added. It is written out as memory fills (1 MiB), and synced piece by piece (16 MiB),
  // so that the last sync is short and the disk's queue stays so. After an error of the disk each
  // later call ends with the same one.
  virtual Status Add(uint16_t shard, std::string_view effects, uint64_t entries) = 0;
  // Index, end, sync. Nothing can be added any more.
  virtual Status Finish() = 0;
  // Gives it its name and syncs the directory. The caller has seen durable_lsn reach the
  // checkpoint's LSN: a checkpoint must not know more than the log. After an error it is under its
  // name, whole, or gone with the writer.
  virtual Status Publish() = 0;
  virtual uint64_t bytes() const = 0;  // in the file so far
  virtual const CheckpointInfo& info() const = 0;
};

// Reads one. Synchronized once open: any number of threads, each with a Codec and scratch memory of
// its own inside the call.
class CheckpointReader {
 public:
  // Maps the file and checks all but the chunks. A missing or wrong key, and damage, are errors
  // that say so; system_errno() is ENOKEY (the key) or EBADMSG (damage), or the disk's own.
  static Result<std::unique_ptr<CheckpointReader>> Open(Disk& disk, const std::string& path,
                                                        std::shared_ptr<const KeyRing> keys);
  virtual ~CheckpointReader() = default;

  virtual const CheckpointInfo& info() const = 0;
  // Checks every chunk of the shards [first, last), then gives the plain bytes of each to `take`,
  // in file order. An error before the first one is given is damage; one behind it is a disk that
  // reads a second time what it did not read the first.
  using Take = std::function<Status(uint16_t shard, std::string_view effects)>;
  virtual Status ForEachChunk(uint32_t first_shard, uint32_t last_shard, const Take& take) = 0;
  // Checks every byte of the file. `progress` (may be empty) is told the bytes done.
  virtual Status Verify(const std::function<void(uint64_t)>& progress) = 0;
};

// Which of a log's checkpoints stay, and what of its records they need.
struct KeptCheckpoints {
  size_t good = 0;        // for a restart
  Lsn oldest_needed = 0;  // of those: records at or below it are not needed
  // The oldest one that stays for a restore of an earlier moment; kUnknownLsn: none does.
  Lsn oldest_restorable = kUnknownLsn;
  std::vector<CheckpointInfo> gone;  // the others, newest first
};

// Of `found`, newest first, the newest `keep` good ones stay for a restart. For restores two more
// do at most: the newest one below `retained_from`, as from there the records can be replayed that
// the log retains (Log::retained_from), and the oldest one above it, which takes that one's place
// in time. Where it is 0, not known yet, all good ones stay. Damaged ones go that are older than
// the oldest one for a restart. Those of another log, and those that could not be opened, stay and
// do not count.
KeptCheckpoints ChooseCheckpoints(const std::vector<CheckpointInfo>& found, uint64_t log_id,
                                  size_t keep, Lsn retained_from);

// Removes them, and syncs the directory.
Status RemoveCheckpoints(Disk& disk, const std::string& directory,
                         const std::vector<CheckpointInfo>& gone);

}  // namespace crab::wal

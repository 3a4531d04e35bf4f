// A disk in memory that loses, tears, flips, refuses and fills up on request, for the tests of the
// log. It keeps POSIX' promises and no more: bytes survive a power cut once SyncData succeeded
// after they were written, names once SyncDirectory succeeded after they were changed; everything
// else survives as Survivors says. After a failed SyncData, what it should have made durable is
// never made so by a later one, as on Linux. A directory survives from its creation on:
// wal::RealDisk syncs its parents in the same call. A mapping shows what was loaded, and zeroes
// elsewhere. Synchronized; must outlive the files and locks
// it gave out.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "persistence/disk.h"
#include "tests/support/paged_bytes.h"

namespace crab::test {

// The calls of wal::Disk and wal::File, as bits, so that a fault can name several.
enum DiskCall : uint32_t {
  kOpen = 1 << 0,    // of an existing file
  kCreate = 1 << 1,  // Open with kCreate
  kWrite = 1 << 2,
  kRead = 1 << 3,
  kSync = 1 << 4,
  kSize = 1 << 5,
  kTruncate = 1 << 6,
  kList = 1 << 7,
  kCreateDirectories = 1 << 8,
  kRename = 1 << 9,
  kRemove = 1 << 10,
  kSyncDirectory = 1 << 11,
  kLinkCount = 1 << 12,
  kFreeBytes = 1 << 13,
  kLock = 1 << 14,
  kLink = 1 << 15,
  kMap = 1 << 16,  // of a file, and bringing a part of it into memory
  kAnyCall = (1 << 17) - 1,
  // Those after which the disk may differ from before: a crash between two others changes nothing.
  kChangingCalls = kCreate | kWrite | kSync | kTruncate | kCreateDirectories | kRename | kRemove |
                   kSyncDirectory | kLink,
};

// What a power cut leaves of the changes that no sync covered.
enum class Survivors {
  kNone,    // nothing
  kAll,     // everything, as after the death of the process alone
  kRandom,  // any 512-byte sectors of any writes, any changes of names, in any order
  kTorn,    // everything before the last write, and of that one a prefix that ends in mid-sector
};
constexpr Survivors kEverySurvivors[] = {Survivors::kNone, Survivors::kAll, Survivors::kRandom,
                                         Survivors::kTorn};
const char* SurvivorsName(Survivors survivors);

struct Fault {
  uint32_t calls = kAnyCall;  // bits of DiskCall
  uint64_t nth = 1;           // the n-th such call fails, from 1
  int error = 0;              // errno
  bool for_ever = false;      // so does each later call of the kind that failed
  double written = 0;         // of a failing write: the share that reaches the file first
};

struct SimDiskOptions {
  uint64_t seed = 1;
  uint64_t crash_at =
      0;  // the n-th changing call is cut short and fails, as all after it; 0 = none
  Survivors survivors = Survivors::kNone;
  uint32_t flipped_bits = 0;       // at the power cut, in what survives without having been synced
  uint64_t capacity = 1ull << 40;  // bytes, counted in blocks of 4 KiB
  std::vector<Fault> faults = {};
};

class SimDisk : public wal::Disk {
 public:
  explicit SimDisk(SimDiskOptions options = {});
  ~SimDisk() override;

  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override;
  Result<std::vector<std::string>> List(const std::string& directory) override;
  Status CreateDirectories(const std::string& directory) override;
  Status Rename(const std::string& from, const std::string& to) override;
  Status Remove(const std::string& path) override;
  Status Link(const std::string& from, const std::string& to) override;
  Status SyncDirectory(const std::string& directory) override;
  Result<uint64_t> LinkCount(const std::string& path) override;
  Result<uint64_t> FreeBytes(const std::string& directory) override;
  Result<std::unique_ptr<wal::DirectoryLock>> Lock(const std::string& directory) override;

  // The disk as the next boot finds it, everything on it durable. The same disk gives the same
  // answer each time; what still runs on this one goes on undisturbed.
  std::unique_ptr<SimDisk> PowerCut(SimDiskOptions next = {}) const;

  // The disk as another process finds it when this one is killed: everything is there, and what was
  // not synced still is not.
  std::unique_ptr<SimDisk> Kill(SimDiskOptions next = {}) const;

  bool crashed() const;
  // Calls so far; those of kChangingCalls are what crash_at counts.
  uint64_t changing_calls() const;
  uint64_t all_calls() const;
  uint64_t calls_of(DiskCall call) const;
  // Calls that failed because of a fault or for want of space.
  uint64_t failed_calls() const;

  void AddFault(const Fault& fault);  // its n-th call counts from now
  void ClearFaults();
  // The n-th changing call from now on is cut short, as Options::crash_at says.
  void CrashAt(uint64_t nth, Survivors survivors);
  void SetCapacity(uint64_t bytes);
  uint64_t used_bytes() const;
  // Called on the caller's thread at the beginning of each call, before it has done anything: the
  // moment to Kill(). It must change nothing here.
  void SetWatcher(std::function<void()> watcher);

  // The hand of fate, uncounted and durable at once. The file must exist, but for PutFile.
  std::vector<std::string> Paths() const;
  bool Exists(const std::string& path) const;
  std::string Contents(const std::string& path) const;
  void PutFile(const std::string& path, std::string_view bytes);
  void RemoveFile(const std::string& path);
  void FlipBit(const std::string& path, uint64_t bit);
  void ZeroSector(const std::string& path, uint64_t sector);
  void BreakSector(const std::string& path, uint64_t sector);  // cannot be read any more
  void Cut(const std::string& path, uint64_t bytes);
  void SetLinkCount(const std::string& path, uint64_t links);

  // True of the error that every call returns once the power is cut.
  static bool IsPowerCut(const Status& status);

  static constexpr uint64_t kSectorBytes = 512;
  static constexpr uint64_t kBlockBytes = 4096;

 private:
  friend class SimFile;
  friend class SimMapping;
  friend class SimLock;

  // A change of a file that no sync covered yet.
  struct Change {
    bool truncates = false;
    uint64_t offset = 0;    // of a truncation: the new size
    uint64_t bytes = 0;     // written
    PagedBytes file = {};   // just after this write
    bool given_up = false;  // a SyncData failed on it: a later one does not save it

    std::string Written() const { return file.Substring(offset, bytes); }
  };
  struct Inode {
    PagedBytes current;  // what a read sees
    PagedBytes durable;  // what every power cut leaves
    std::vector<Change> changes;
    std::vector<bool> blocks;  // taken from the capacity
    std::set<uint64_t> broken_sectors;
    uint64_t links = 1;
    uint32_t openers = 0;
  };
  // A change of names that no SyncDirectory covered yet: `inode` gets the name `to` ("" = none) and
  // loses the name `from`.
  struct NameChange {
    uint64_t inode;
    std::string from, to;
  };
  using Names = std::map<std::string, uint64_t>;
  struct Directory {
    Names current, durable;
    std::vector<NameChange> changes;
  };
  struct ArmedFault {
    Fault fault;
    uint64_t seen = 0;
    uint32_t broken = 0;  // kinds that fail from now on
  };

  // Every call starts here: counts it, and returns the error that it is to end with, if any.
  // `*fault` is then the fault's, null for a power cut.
  Status Enter(DiskCall call, const std::string& path, const Fault** fault = nullptr);
  Status Fail(DiskCall call, const std::string& path, int error);
  Directory* FindDirectory(const std::string& path);
  Inode* FindFile(const std::string& path);
  const Inode* FindFile(const std::string& path) const;
  void DropIfUnused(uint64_t inode);
  uint64_t UsedBytes() const;
  const PagedBytes& ContentOf(const std::string& path) const;  // the file must exist
  void Replace(const std::string& path, PagedBytes bytes);
  static void FlipBitIn(PagedBytes* bytes, uint64_t bit);
  uint64_t Write(Inode* inode, uint64_t offset, std::string_view bytes);
  static void MakeDurable(Inode* inode);

  static void ApplyNames(const NameChange& change, Names* names);
  static void Apply(const Change& change, PagedBytes* bytes);
  PagedBytes Survive(const Inode& inode, bool torn_here, std::mt19937_64* random) const;

  mutable std::recursive_mutex mutex_;  // the watcher is called with it
  SimDiskOptions options_;
  std::function<void()> watcher_;
  std::vector<ArmedFault> faults_;
  std::map<std::string, Directory> directories_;
  std::map<uint64_t, Inode> inodes_;
  std::set<std::string> locked_;
  std::map<uint32_t, uint64_t> calls_;
  uint64_t next_inode_ = 1;
  const Inode* last_written_ = nullptr;  // may be gone since
  uint64_t changing_calls_ = 0;
  uint64_t all_calls_ = 0;
  uint64_t failed_calls_ = 0;
  bool crashed_ = false;
  bool crash_happens_now_ = false;  // the call under way is the one that the crash cuts short
};

}  // namespace crab::test

#include "tests/support/sim_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "utils/check.h"

namespace crab::test {
namespace {

// No call of a real disk ends with it, so that a test can tell our crash from a fault.
constexpr int kPowerCutErrno = EOWNERDEAD;

const char* CallName(DiskCall call) {
  switch (call) {
    case kOpen:
      return "open";
    case kCreate:
      return "create";
    case kWrite:
      return "write";
    case kRead:
      return "read";
    case kSync:
      return "sync";
    case kSize:
      return "stat";
    case kTruncate:
      return "truncate";
    case kList:
      return "list";
    case kCreateDirectories:
      return "create the directory";
    case kRename:
      return "rename";
    case kRemove:
      return "remove";
    case kSyncDirectory:
      return "sync the directory";
    case kLinkCount:
      return "count the links of";
    case kFreeBytes:
      return "find the free space of";
    case kLock:
      return "lock";
    case kLink:
      return "link";
    case kMap:
      return "map";
    default:
      return "use";
  }
}

// "" for a name without a directory.
std::string DirectoryOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "" : path.substr(0, slash);
}

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }

std::string WithoutSlash(std::string directory) {
  while (directory.size() > 1 && directory.back() == '/') directory.pop_back();
  return directory;
}

}  // namespace

const char* SurvivorsName(Survivors survivors) {
  switch (survivors) {
    case Survivors::kNone:
      return "none";
    case Survivors::kAll:
      return "all";
    case Survivors::kRandom:
      return "random";
    case Survivors::kTorn:
      return "torn";
  }
  return "?";
}

class SimFile : public wal::File {
 public:
  // The disk is locked by the caller.
  SimFile(SimDisk* disk, uint64_t inode, std::string path, bool writable)
      : disk_(disk), inode_(inode), path_(std::move(path)), writable_(writable) {
    ++disk_->inodes_[inode_].openers;
  }

  ~SimFile() override {
    std::lock_guard lock(disk_->mutex_);
    --disk_->inodes_[inode_].openers;
    disk_->DropIfUnused(inode_);
  }

  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    std::lock_guard lock(disk_->mutex_);
    CHECK(writable_);
    SimDisk::Inode& inode = disk_->inodes_[inode_];
    const Fault* fault = nullptr;
    Status status = disk_->Enter(kWrite, path_, &fault);
    if (status.ok()) {
      const uint64_t written = disk_->Write(&inode, offset, bytes);
      if (written == bytes.size()) return status;
      ++disk_->failed_calls_;
      return disk_->Fail(kWrite, path_, ENOSPC);
    }
    if (SimDisk::IsPowerCut(status)) {
      if (disk_->crash_happens_now_) disk_->Write(&inode, offset, bytes);  // as far as it fits
    } else if (fault != nullptr) {
      const auto share = static_cast<size_t>(fault->written * static_cast<double>(bytes.size()));
      disk_->Write(&inode, offset, bytes.substr(0, std::min(share, bytes.size())));
    }
    return status;
  }

  Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->Enter(kRead, path_));
    const SimDisk::Inode& inode = disk_->inodes_[inode_];
    if (offset >= inode.current.size()) return size_t{0};
    const size_t size = std::min<uint64_t>(bytes.size(), inode.current.size() - offset);
    const auto broken = inode.broken_sectors.lower_bound(offset / SimDisk::kSectorBytes);
    if (broken != inode.broken_sectors.end() && *broken * SimDisk::kSectorBytes < offset + size) {
      return disk_->Fail(kRead, path_, EIO);
    }
    inode.current.Read(offset, bytes.first(size));
    return size;
  }

  Status SyncData() override {
    std::lock_guard lock(disk_->mutex_);
    SimDisk::Inode& inode = disk_->inodes_[inode_];
    Status status = disk_->Enter(kSync, path_);
    if (!status.ok()) {
      if (!SimDisk::IsPowerCut(status)) {
        for (SimDisk::Change& change : inode.changes) change.given_up = true;
      }
      return status;
    }
    disk_->MakeDurable(&inode);
    return status;
  }

  Result<uint64_t> Size() override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->Enter(kSize, path_));
    return disk_->inodes_[inode_].current.size();
  }

  Status Truncate(uint64_t bytes) override {
    std::lock_guard lock(disk_->mutex_);
    CHECK(writable_);
    Status status = disk_->Enter(kTruncate, path_);
    if (status.ok() || disk_->crash_happens_now_) {
      SimDisk::Inode& inode = disk_->inodes_[inode_];
      SimDisk::Change change{.truncates = true, .offset = bytes};
      SimDisk::Apply(change, &inode.current);
      const uint64_t blocks = (bytes + SimDisk::kBlockBytes - 1) / SimDisk::kBlockBytes;
      if (inode.blocks.size() > blocks) inode.blocks.resize(blocks);
      inode.changes.push_back(std::move(change));
    }
    return status;
  }

  Result<std::unique_ptr<wal::Mapping>> Map() override;

 private:
  SimDisk* const disk_;
  const uint64_t inode_;
  const std::string path_;
  const bool writable_;
};

// The file as it was: nobody changes what is mapped. What is read before its Load are zeroes,
// which cost no memory until then.
class SimMapping : public wal::Mapping {
 public:
  // The disk is locked by the caller.
  SimMapping(SimDisk* disk, std::string path, const PagedBytes& file)
      : disk_(disk),
        path_(std::move(path)),
        file_(file),
        memory_(static_cast<char*>(std::calloc(std::max<uint64_t>(file.size(), 1), 1)), &std::free),
        loaded_((file.size() + kPageBytes - 1) / kPageBytes) {
    bytes_ = {memory_.get(), file.size()};
  }
  ~SimMapping() override {
    std::lock_guard lock(disk_->mutex_);  // who writes to the file looks whether it is shared
    file_ = {};
  }
  Status Load(uint64_t offset, uint64_t count) override {
    std::lock_guard lock(disk_->mutex_);
    TRY(disk_->Enter(kMap, path_));
    const uint64_t end = std::min(offset + count, file_.size());
    for (uint64_t page = offset / kPageBytes; page * kPageBytes < end; ++page) {
      if (loaded_[page]) continue;  // others may be reading it
      const uint64_t at = page * kPageBytes;
      file_.Read(at, {memory_.get() + at, std::min(kPageBytes, file_.size() - at)});
      loaded_[page] = true;
    }
    return Status::Ok();
  }

 private:
  static constexpr uint64_t kPageBytes = PagedBytes::kPageBytes;

  SimDisk* const disk_;
  const std::string path_;
  PagedBytes file_;
  const std::unique_ptr<char, decltype(&std::free)> memory_;
  std::vector<bool> loaded_;
};

Result<std::unique_ptr<wal::Mapping>> SimFile::Map() {
  std::lock_guard lock(disk_->mutex_);
  TRY(disk_->Enter(kMap, path_));
  return std::unique_ptr<wal::Mapping>(
      std::make_unique<SimMapping>(disk_, path_, disk_->inodes_[inode_].current));
}

class SimLock : public wal::DirectoryLock {
 public:
  SimLock(SimDisk* disk, std::string directory) : disk_(disk), directory_(std::move(directory)) {}
  ~SimLock() override {
    std::lock_guard lock(disk_->mutex_);
    disk_->locked_.erase(directory_);
  }
  Place place() const override { return Place::kSame; }  // no directory ever goes

 private:
  SimDisk* const disk_;
  const std::string directory_;
};

SimDisk::SimDisk(SimDiskOptions options) : options_(std::move(options)) {
  for (const Fault& fault : options_.faults) faults_.push_back({fault});
}

SimDisk::~SimDisk() { CHECK(locked_.empty()); }

bool SimDisk::IsPowerCut(const Status& status) { return status.system_errno() == kPowerCutErrno; }

Status SimDisk::Fail(DiskCall call, const std::string& path, int error) {
  return Status::Error(std::string("cannot ") + CallName(call) + " " + path + ": " +
                           (error == kPowerCutErrno ? "the power is cut" : std::strerror(error)),
                       error);
}

Status SimDisk::Enter(DiskCall call, const std::string& path, const Fault** fault) {
  crash_happens_now_ = false;
  if (watcher_) watcher_();
  if (crashed_) return Fail(call, path, kPowerCutErrno);
  ++all_calls_;
  ++calls_[call];
  if ((call & kChangingCalls) != 0 && ++changing_calls_ == options_.crash_at) {
    crashed_ = true;
    crash_happens_now_ = true;
    return Fail(call, path, kPowerCutErrno);
  }
  for (ArmedFault& armed : faults_) {
    if ((armed.broken & call) == 0) {
      if ((armed.fault.calls & call) == 0 || ++armed.seen != armed.fault.nth) continue;
      if (armed.fault.for_ever) armed.broken |= call;
    }
    ++failed_calls_;
    if (fault != nullptr) *fault = &armed.fault;
    return Fail(call, path, armed.fault.error);
  }
  return Status::Ok();
}

SimDisk::Directory* SimDisk::FindDirectory(const std::string& path) {
  const auto found = directories_.find(WithoutSlash(path));
  return found == directories_.end() ? nullptr : &found->second;
}

const SimDisk::Inode* SimDisk::FindFile(const std::string& path) const {
  const auto directory = directories_.find(WithoutSlash(DirectoryOf(path)));
  if (directory == directories_.end()) return nullptr;
  const auto name = directory->second.current.find(NameOf(path));
  if (name == directory->second.current.end()) return nullptr;
  return &inodes_.at(name->second);
}

SimDisk::Inode* SimDisk::FindFile(const std::string& path) {
  return const_cast<Inode*>(std::as_const(*this).FindFile(path));
}

// A file without a name gives its blocks back when the last who has it open closes it. Its bytes
// stay while a power cut may bring the name back.
void SimDisk::DropIfUnused(uint64_t inode) {
  const Inode& file = inodes_.at(inode);
  if (file.openers > 0) return;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, owner] : directory.current) {
      if (owner == inode) return;
    }
    for (const auto& [name, owner] : directory.durable) {
      if (owner == inode) return;
    }
    for (const NameChange& change : directory.changes) {
      if (change.inode == inode) return;
    }
  }
  inodes_.erase(inode);
}

uint64_t SimDisk::UsedBytes() const {
  std::set<uint64_t> used;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, inode] : directory.current) used.insert(inode);
  }
  uint64_t blocks = 0;
  for (const auto& [number, inode] : inodes_) {
    if (inode.openers == 0 && used.count(number) == 0) continue;
    blocks += std::count(inode.blocks.begin(), inode.blocks.end(), true);
  }
  return blocks * kBlockBytes;
}

// Writes what there is room for and returns its size.
uint64_t SimDisk::Write(Inode* inode, uint64_t offset, std::string_view bytes) {
  const uint64_t first = offset / kBlockBytes;
  const uint64_t end = (offset + bytes.size() + kBlockBytes - 1) / kBlockBytes;
  if (inode->blocks.size() < end) inode->blocks.resize(end);
  uint64_t written = bytes.size();
  uint64_t free_blocks = ~uint64_t{0};  // counted when first needed
  for (uint64_t block = first; block < end && !bytes.empty(); ++block) {
    if (inode->blocks[block]) continue;
    if (free_blocks == ~uint64_t{0}) {
      const uint64_t used = UsedBytes();
      free_blocks = used >= options_.capacity ? 0 : (options_.capacity - used) / kBlockBytes;
    }
    if (free_blocks == 0) {
      written = block * kBlockBytes <= offset ? 0 : block * kBlockBytes - offset;
      break;
    }
    --free_blocks;
    inode->blocks[block] = true;
  }
  if (written == 0) return 0;
  bytes = bytes.substr(0, written);
  inode->current.Write(offset, bytes);
  inode->changes.push_back({.offset = offset, .bytes = bytes.size(), .file = inode->current});
  last_written_ = inode;
  return written;
}

// What a failed SyncData gave up stays in doubt, unless a later write of the same bytes is saved.
void SimDisk::MakeDurable(Inode* inode) {
  if (std::none_of(inode->changes.begin(), inode->changes.end(),
                   [](const Change& change) { return change.given_up; })) {
    inode->durable = inode->current;
    inode->changes.clear();
    return;
  }
  std::vector<Change> doubtful;
  for (Change& change : inode->changes) {
    if (change.given_up) {
      doubtful.push_back(std::move(change));
      continue;
    }
    Apply(change, &inode->durable);
    std::erase_if(doubtful, [&](const Change& older) {
      return change.truncates || older.truncates ||
             (older.offset < change.offset + change.bytes &&
              change.offset < older.offset + older.bytes);
    });
  }
  inode->changes = std::move(doubtful);
}

void SimDisk::Apply(const Change& change, PagedBytes* bytes) {
  if (change.truncates) {
    bytes->Resize(change.offset);
  } else {
    bytes->Write(change.offset, change.Written());
  }
}

void SimDisk::ApplyNames(const NameChange& change, Names* names) {
  if (!change.from.empty()) {
    const auto from = names->find(change.from);
    if (from != names->end() && from->second == change.inode) names->erase(from);
  }
  if (!change.to.empty()) (*names)[change.to] = change.inode;
}

Result<std::unique_ptr<wal::File>> SimDisk::Open(const std::string& path, wal::OpenMode mode) {
  std::lock_guard lock(mutex_);
  const bool creates = mode == wal::OpenMode::kCreate || mode == wal::OpenMode::kCreateDirect;
  Status status = Enter(creates ? kCreate : kOpen, path);
  if (!status.ok() && !(creates && crash_happens_now_)) return status;
  Directory* directory = FindDirectory(DirectoryOf(path));
  if (directory == nullptr) return Fail(creates ? kCreate : kOpen, path, ENOENT);
  const std::string name = NameOf(path);
  const auto found = directory->current.find(name);
  if (creates) {
    if (found != directory->current.end()) return Fail(kCreate, path, EEXIST);
    const uint64_t inode = next_inode_++;
    inodes_[inode] = {};
    directory->current[name] = inode;
    directory->changes.push_back({.inode = inode, .from = "", .to = name});
    if (!status.ok()) return status;
    return std::unique_ptr<wal::File>(new SimFile(this, inode, path, true));
  }
  if (found == directory->current.end()) return Fail(kOpen, path, ENOENT);
  return std::unique_ptr<wal::File>(
      new SimFile(this, found->second, path, mode == wal::OpenMode::kReadWrite));
}

Result<std::vector<std::string>> SimDisk::List(const std::string& directory) {
  std::lock_guard lock(mutex_);
  TRY(Enter(kList, directory));
  const Directory* found = FindDirectory(directory);
  if (found == nullptr) return Fail(kList, directory, ENOENT);
  std::vector<std::string> names;
  for (const auto& [name, inode] : found->current) names.push_back(name);
  return names;
}

Status SimDisk::CreateDirectories(const std::string& directory) {
  std::lock_guard lock(mutex_);
  Status status = Enter(kCreateDirectories, directory);
  if (status.ok()) directories_[WithoutSlash(directory)];
  return status;
}

Status SimDisk::Rename(const std::string& from, const std::string& to) {
  std::lock_guard lock(mutex_);
  Status status = Enter(kRename, from);
  if (!status.ok() && !crash_happens_now_) return status;
  CHECK(DirectoryOf(from) == DirectoryOf(to));
  Directory* directory = FindDirectory(DirectoryOf(from));
  if (directory == nullptr || directory->current.count(NameOf(from)) == 0) {
    return Fail(kRename, from, ENOENT);
  }
  const uint64_t inode = directory->current[NameOf(from)];
  directory->changes.push_back({.inode = inode, .from = NameOf(from), .to = NameOf(to)});
  ApplyNames(directory->changes.back(), &directory->current);
  return status;
}

Status SimDisk::Remove(const std::string& path) {
  std::lock_guard lock(mutex_);
  Status status = Enter(kRemove, path);
  if (!status.ok() && !crash_happens_now_) return status;
  Directory* directory = FindDirectory(DirectoryOf(path));
  if (directory == nullptr || directory->current.count(NameOf(path)) == 0) {
    return Fail(kRemove, path, ENOENT);
  }
  const uint64_t inode = directory->current[NameOf(path)];
  directory->changes.push_back({.inode = inode, .from = NameOf(path), .to = ""});
  ApplyNames(directory->changes.back(), &directory->current);
  return status;
}

Status SimDisk::Link(const std::string& from, const std::string& to) {
  std::lock_guard lock(mutex_);
  Status status = Enter(kLink, from);
  if (!status.ok() && !crash_happens_now_) return status;
  Directory* source = FindDirectory(DirectoryOf(from));
  Directory* target = FindDirectory(DirectoryOf(to));
  if (source == nullptr || source->current.count(NameOf(from)) == 0 || target == nullptr) {
    return Fail(kLink, from, ENOENT);
  }
  if (target->current.count(NameOf(to)) != 0) return Fail(kLink, to, EEXIST);
  const uint64_t inode = source->current[NameOf(from)];
  target->changes.push_back({.inode = inode, .from = "", .to = NameOf(to)});
  ApplyNames(target->changes.back(), &target->current);
  return status;
}

Status SimDisk::SyncDirectory(const std::string& directory) {
  std::lock_guard lock(mutex_);
  Status status = Enter(kSyncDirectory, directory);
  if (!status.ok()) return status;
  Directory* found = FindDirectory(directory);
  if (found == nullptr) return Fail(kSyncDirectory, directory, ENOENT);
  found->durable = found->current;
  std::set<uint64_t> touched;
  for (const NameChange& change : found->changes) touched.insert(change.inode);
  found->changes.clear();
  for (const uint64_t inode : touched) {
    if (inodes_.count(inode) != 0) DropIfUnused(inode);
  }
  return status;
}

Result<uint64_t> SimDisk::LinkCount(const std::string& path) {
  std::lock_guard lock(mutex_);
  TRY(Enter(kLinkCount, path));
  const Inode* file = FindFile(path);
  if (file == nullptr) return Fail(kLinkCount, path, ENOENT);
  uint64_t names = 0;
  for (const auto& [name, other] : directories_) {
    for (const auto& [_, inode] : other.current) names += &inodes_[inode] == file ? 1 : 0;
  }
  return std::max(names, file->links);
}

Result<uint64_t> SimDisk::FreeBytes(const std::string& directory) {
  std::lock_guard lock(mutex_);
  TRY(Enter(kFreeBytes, directory));
  const uint64_t used = UsedBytes();
  return used >= options_.capacity ? uint64_t{0} : options_.capacity - used;
}

Result<std::unique_ptr<wal::DirectoryLock>> SimDisk::Lock(const std::string& directory) {
  std::lock_guard lock(mutex_);
  TRY(Enter(kLock, directory));
  if (!locked_.insert(WithoutSlash(directory)).second) return Fail(kLock, directory, EWOULDBLOCK);
  return std::unique_ptr<wal::DirectoryLock>(new SimLock(this, WithoutSlash(directory)));
}

// The content of one file after the cut.
PagedBytes SimDisk::Survive(const Inode& inode, bool torn_here, std::mt19937_64* random) const {
  PagedBytes bytes = inode.durable;
  std::vector<bool> unsynced;  // bytes that a change wrote: flips fall among them
  const bool flips = options_.flipped_bits > 0;
  const auto write = [&](uint64_t offset, std::string_view part) {
    bytes.Write(offset, part);
    if (!flips) return;
    if (unsynced.size() < offset + part.size()) unsynced.resize(offset + part.size());
    const uint64_t begin = std::min(offset, inode.durable.size());
    const uint64_t end = std::min(offset + part.size(), inode.durable.size());
    const std::string durable = inode.durable.Substring(begin, end - begin);
    for (uint64_t i = 0; i < part.size(); ++i) {
      if (i >= durable.size() || durable[i] != part[i]) unsynced[offset + i] = true;
    }
  };
  // Now and then nearly all of it survives, now and then hardly any.
  const uint32_t kept_of_8 = 1 + (*random)() % 7;
  for (size_t i = 0; i < inode.changes.size(); ++i) {
    const Change& change = inode.changes[i];
    switch (options_.survivors) {
      case Survivors::kNone:
        break;
      case Survivors::kTorn:
        if (torn_here && i + 1 == inode.changes.size() && !change.truncates) {
          write(change.offset, change.Written().substr(0, (*random)() % change.bytes));
          break;
        }
        [[fallthrough]];
      case Survivors::kAll:
        if (change.truncates) {
          Apply(change, &bytes);
        } else {
          write(change.offset, change.Written());
        }
        break;
      case Survivors::kRandom:
        if (change.truncates) {
          if ((*random)() % 8 < kept_of_8) Apply(change, &bytes);
          break;
        }
        const uint64_t end = change.offset + change.bytes;
        for (uint64_t at = change.offset; at < end;) {
          const uint64_t sector_end =
              std::min(end, at / kSectorBytes * kSectorBytes + kSectorBytes);
          if ((*random)() % 8 < kept_of_8) {
            write(at, change.file.Substring(at, sector_end - at));
          }
          at = sector_end;
        }
        // The size may have got there without the bytes.
        if (bytes.size() < end && (*random)() % 2 == 0) bytes.Resize(end);
        break;
    }
  }
  std::vector<uint64_t> candidates;
  for (uint64_t at = 0; at < std::min(unsynced.size(), bytes.size()); ++at) {
    if (unsynced[at]) candidates.push_back(at);
  }
  for (uint32_t i = 0; i < options_.flipped_bits && !candidates.empty(); ++i) {
    const uint64_t at = candidates[(*random)() % candidates.size()];
    FlipBitIn(&bytes, at * 8 + (*random)() % 8);
  }
  return bytes;
}

std::unique_ptr<SimDisk> SimDisk::PowerCut(SimDiskOptions next) const {
  std::lock_guard lock(mutex_);
  std::mt19937_64 random(options_.seed);
  auto disk = std::make_unique<SimDisk>(std::move(next));
  for (const auto& [path, directory] : directories_) {
    Names names = directory.durable;
    const uint32_t kept_of_8 = 1 + random() % 7;
    for (const NameChange& change : directory.changes) {
      const bool survives = options_.survivors == Survivors::kRandom
                                ? random() % 8 < kept_of_8
                                : options_.survivors != Survivors::kNone;
      if (survives) ApplyNames(change, &names);
    }
    Directory& after = disk->directories_[path];
    for (const auto& [name, number] : names) {
      const uint64_t inode = disk->next_inode_++;
      const Inode& before = inodes_.at(number);
      Inode& file = disk->inodes_[inode];
      file.durable = Survive(before, &before == last_written_, &random);
      file.current = file.durable;
      file.links = before.links;
      file.broken_sectors = before.broken_sectors;
      file.blocks.assign((file.durable.size() + kBlockBytes - 1) / kBlockBytes, true);
      after.current[name] = inode;
    }
    after.durable = after.current;
  }
  return disk;
}

std::unique_ptr<SimDisk> SimDisk::Kill(SimDiskOptions next) const {
  std::lock_guard lock(mutex_);
  auto disk = std::make_unique<SimDisk>(std::move(next));
  disk->directories_ = directories_;
  disk->inodes_ = inodes_;
  disk->next_inode_ = next_inode_;
  for (auto inode = disk->inodes_.begin(); inode != disk->inodes_.end();) {
    inode->second.openers = 0;
    const uint64_t number = inode->first;
    ++inode;
    disk->DropIfUnused(number);
  }
  return disk;
}

bool SimDisk::crashed() const {
  std::lock_guard lock(mutex_);
  return crashed_;
}

uint64_t SimDisk::changing_calls() const {
  std::lock_guard lock(mutex_);
  return changing_calls_;
}

uint64_t SimDisk::all_calls() const {
  std::lock_guard lock(mutex_);
  return all_calls_;
}

uint64_t SimDisk::calls_of(DiskCall call) const {
  std::lock_guard lock(mutex_);
  const auto found = calls_.find(call);
  return found == calls_.end() ? 0 : found->second;
}

uint64_t SimDisk::failed_calls() const {
  std::lock_guard lock(mutex_);
  return failed_calls_;
}

void SimDisk::AddFault(const Fault& fault) {
  std::lock_guard lock(mutex_);
  faults_.push_back({fault});
}

void SimDisk::CrashAt(uint64_t nth, Survivors survivors) {
  std::lock_guard lock(mutex_);
  options_.crash_at = changing_calls_ + nth;
  options_.survivors = survivors;
}

void SimDisk::ClearFaults() {
  std::lock_guard lock(mutex_);
  faults_.clear();
}

void SimDisk::SetWatcher(std::function<void()> watcher) {
  std::lock_guard lock(mutex_);
  watcher_ = std::move(watcher);
}

void SimDisk::SetCapacity(uint64_t bytes) {
  std::lock_guard lock(mutex_);
  options_.capacity = bytes;
}

uint64_t SimDisk::used_bytes() const {
  std::lock_guard lock(mutex_);
  return UsedBytes();
}

std::vector<std::string> SimDisk::Paths() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& [path, directory] : directories_) {
    for (const auto& [name, inode] : directory.current) paths.push_back(path + "/" + name);
  }
  return paths;
}

bool SimDisk::Exists(const std::string& path) const {
  std::lock_guard lock(mutex_);
  return FindFile(path) != nullptr;
}

const PagedBytes& SimDisk::ContentOf(const std::string& path) const {
  const Inode* file = FindFile(path);
  CHECK(file != nullptr);
  return file->current;
}

std::string SimDisk::Contents(const std::string& path) const {
  std::lock_guard lock(mutex_);
  return ContentOf(path).AsString();
}

void SimDisk::PutFile(const std::string& path, std::string_view bytes) {
  std::lock_guard lock(mutex_);
  if (FindFile(path) == nullptr) {
    Directory& directory = directories_[WithoutSlash(DirectoryOf(path))];
    const uint64_t inode = next_inode_++;
    directory.current[NameOf(path)] = inode;
    directory.durable[NameOf(path)] = inode;
    inodes_[inode] = {};
  }
  Replace(path, PagedBytes(bytes));
}

void SimDisk::Replace(const std::string& path, PagedBytes bytes) {
  Inode* file = FindFile(path);
  file->changes.clear();
  file->blocks.assign((bytes.size() + kBlockBytes - 1) / kBlockBytes, true);
  file->current = file->durable = std::move(bytes);
}

void SimDisk::RemoveFile(const std::string& path) {
  std::lock_guard lock(mutex_);
  CHECK(FindFile(path) != nullptr);
  Directory* directory = FindDirectory(DirectoryOf(path));
  const uint64_t inode = directory->current[NameOf(path)];
  directory->current.erase(NameOf(path));
  directory->durable.erase(NameOf(path));
  std::erase_if(directory->changes, [&](const NameChange& c) { return c.inode == inode; });
  DropIfUnused(inode);
}

void SimDisk::FlipBitIn(PagedBytes* bytes, uint64_t bit) {
  std::string byte = bytes->Substring(bit / 8, 1);
  byte[0] ^= static_cast<char>(1 << bit % 8);
  bytes->Write(bit / 8, byte);
}

void SimDisk::FlipBit(const std::string& path, uint64_t bit) {
  std::lock_guard lock(mutex_);
  PagedBytes bytes = ContentOf(path);
  FlipBitIn(&bytes, bit);
  Replace(path, std::move(bytes));
}

void SimDisk::ZeroSector(const std::string& path, uint64_t sector) {
  std::lock_guard lock(mutex_);
  PagedBytes bytes = ContentOf(path);
  const uint64_t begin = sector * kSectorBytes;
  CHECK_LT(begin, bytes.size());
  bytes.Write(begin, std::string(std::min(kSectorBytes, bytes.size() - begin), '\0'));
  Replace(path, std::move(bytes));
}

void SimDisk::BreakSector(const std::string& path, uint64_t sector) {
  std::lock_guard lock(mutex_);
  Inode* inode = FindFile(path);
  CHECK(inode != nullptr);
  CHECK_LT(sector * kSectorBytes, inode->current.size());
  inode->broken_sectors.insert(sector);
}

void SimDisk::Cut(const std::string& path, uint64_t size) {
  std::lock_guard lock(mutex_);
  PagedBytes bytes = ContentOf(path);
  CHECK_LE(size, bytes.size());
  bytes.Resize(size);
  Replace(path, std::move(bytes));
}

void SimDisk::SetLinkCount(const std::string& path, uint64_t links) {
  std::lock_guard lock(mutex_);
  Inode* file = FindFile(path);
  CHECK(file != nullptr);
  file->links = links;
}

}  // namespace crab::test

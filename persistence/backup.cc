#include "persistence/backup.h"

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "persistence/chain.h"
#include "persistence/checkpoint.h"
#include "persistence/frames.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/scan.h"
#include "persistence/segment.h"

namespace crab::wal {
namespace {

// A server retires a few files per checkpoint, and a try takes milliseconds.
constexpr uint64_t kTriesMax = 20;
constexpr size_t kCopyBytes = 1 << 20;

// Of hard links: across file systems, not supported, too many, forbidden for files of others.
bool CannotLink(int error) {
  return error == EXDEV || error == EOPNOTSUPP || error == EPERM || error == EMLINK;
}

// One try. What it has made is removed by its destructor, unless it was kept.
class Attempt {
 public:
  Attempt(Disk& disk, const std::string& source, const std::string& target,
          const BackupOptions& options, BackupReport* report)
      : disk_(disk), source_(source), target_(target), options_(options), report_(*report) {}
  ~Attempt() {
    for (const std::string& path : made_) (void)disk_.Remove(path);
    if (!made_.empty()) (void)disk_.SyncDirectory(target_);
  }

  // False: a file was retired meanwhile.
  Result<bool> Run();

 private:
  Result<bool> TakeCheckpoints();
  Result<bool> TakeSegments(const Chain& chain);
  Result<bool> Take(const std::string& name);
  Result<bool> CopyWhole(const std::string& name);
  Result<bool> TakeGrowing(const std::string& name);
  Result<bool> StopsAtDamage(SegmentScan& scan);
  Result<bool> IsWhole();
  void StopBeforeGap();
  // One that cannot be read is not known to be another's.
  bool IsOurs(const CheckpointInfo& info) const {
    return !info.problem.empty() || log_id_ == 0 || info.identity.log_id == log_id_;
  }
  bool IsThere(const std::string& name) { return disk_.Open(Source(name), OpenMode::kRead).ok(); }
  std::string Source(const std::string& name) const { return source_ + "/" + name; }
  std::string Target(const std::string& name) const { return target_ + "/" + name; }
  Status Tell(uint64_t bytes) {
    done_ += bytes;
    if (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed)) {
      return Status::Error("the backup was ended before it was whole", ECANCELED);
    }
    if (options_.progress) options_.progress(std::min(done_, total_), total_);
    return Status::Ok();
  }

  Disk& disk_;
  const std::string& source_;
  const std::string& target_;
  const BackupOptions& options_;
  BackupReport& report_;
  std::vector<std::string> made_;
  uint64_t log_id_ = 0;
  std::string first_segment_;
  Lsn checkpoint_lsn_ = 0;
  uint64_t done_ = 0, total_ = 0;
};

Result<bool> Attempt::Run() {
  log_id_ = TRY(Chain::Read(disk_, source_, {.checkpoint_lsn = 0})).log_id();
  if (!TRY(TakeCheckpoints())) return false;
  // Those that are there now: after the checkpoints.
  const Chain chain = TRY(Chain::Read(disk_, source_, {.checkpoint_lsn = 0}));
  if (chain.segments().empty()) {
    return Status::Error("there is no log in " + source_ + ": it holds no segment", ENOENT);
  }
  if (!TRY(TakeSegments(chain)) || !TRY(IsWhole())) return false;
  StopBeforeGap();
  TRY(disk_.SyncDirectory(target_));
  made_.clear();
  return true;
}

Result<bool> Attempt::TakeCheckpoints() {
  for (const CheckpointInfo& info : TRY(ListCheckpoints(disk_, source_))) {
    if (!IsOurs(info)) {
      ++report_.foreign;
      continue;
    }
    if (!TRY(Take(info.name))) return false;
    report_.damaged |= !info.problem.empty();
    ++report_.checkpoints;
  }
  for (const CheckpointInfo& info : TRY(ListCheckpoints(disk_, target_))) {
    if (info.problem.empty()) checkpoint_lsn_ = std::max(checkpoint_lsn_, info.lsn);
  }
  return true;
}

Result<bool> Attempt::TakeSegments(const Chain& chain) {
  // A server that runs writes to the newest one whose header can be read.
  const SegmentInfo* growing = &chain.segments().back();
  for (const SegmentInfo& segment : chain.segments()) {
    total_ += segment.file_bytes;
    if (segment.problem.empty()) growing = &segment;
  }
  for (const SegmentInfo& segment : chain.segments()) {
    if (segment.problem == kForeignProblem) {
      ++report_.foreign;
      continue;
    }
    if (first_segment_.empty()) first_segment_ = segment.name;
    if (!TRY(&segment == growing ? TakeGrowing(segment.name) : Take(segment.name))) return false;
    report_.damaged |= !segment.problem.empty();
    ++report_.segments;
  }
  return true;
}

// By a link where that can be had.
Result<bool> Attempt::Take(const std::string& name) {
  Status linked = disk_.Link(Source(name), Target(name));
  if (!linked.ok()) {
    if (linked.system_errno() == ENOENT) return false;
    if (!CannotLink(linked.system_errno())) return linked;
    return CopyWhole(name);
  }
  made_.push_back(Target(name));
  // A server that renames what it retires counts the links before it fills it with zeroes. Where
  // the old name is still there, the link was made before that.
  if (!IsThere(name)) return false;
  auto file = TRY(disk_.Open(Target(name), OpenMode::kRead));
  const uint64_t bytes = TRY(file->Size());
  ++report_.linked_files;
  report_.linked_bytes += bytes;
  TRY(Tell(bytes));
  return true;
}

Result<bool> Attempt::CopyWhole(const std::string& name) {
  auto copied = CopyFile(disk_, Source(name), Target(name), UINT64_MAX,
                         [&](uint64_t bytes) { return Tell(bytes); });
  if (!copied.ok() && copied.system_errno() == ENOENT && !IsThere(name)) return false;
  if (!copied.ok() && copied.system_errno() == EEXIST) return copied.TakeStatus();
  made_.push_back(Target(name));
  ++report_.copied_files;
  report_.copied_bytes += TRY(std::move(copied));
  return IsThere(name);
}

// The last segment: its end moves. A frame that is stated to be durable is never written again.
Result<bool> Attempt::TakeGrowing(const std::string& name) {
  auto opened = SegmentScan::Open(disk_, Source(name));
  if (!opened.ok()) {
    if (!IsThere(name)) return false;
    // Its header is damaged: taken as it is, for the reader of the backup to judge.
    if (opened.system_errno() == EBADMSG) return CopyWhole(name);
    return opened.TakeStatus();
  }
  SegmentScan& scan = **opened;
  struct Mark {
    uint64_t end;
    Lsn lsn;
  };
  std::vector<Mark> unsure;  // frames above what is known to be durable, until it is
  uint64_t end = kSegmentHeaderBytes;
  Lsn last = scan.info().first_lsn - 1;
  SegmentScan::Frame frame;
  // A checkpoint is published when what it holds is durable, which the log may not have said yet.
  const auto durable = [&] { return std::max(scan.durable_lsn(), checkpoint_lsn_); };
  while (TRY(scan.Next(&frame))) {
    if (frame.header.type == static_cast<uint8_t>(FrameType::kGap)) {
      // It stands there since before the segment got its name, and states nothing.
      end = frame.offset + frame.bytes;
      continue;
    }
    unsure.push_back({frame.offset + frame.bytes, std::max(last, scan.last_lsn())});
    size_t sure = 0;
    while (sure < unsure.size() && unsure[sure].lsn <= durable()) ++sure;
    if (sure == 0) continue;
    end = unsure[sure - 1].end;
    last = unsure[sure - 1].lsn;
    unsure.erase(unsure.begin(), unsure.begin() + static_cast<std::ptrdiff_t>(sure));
  }
  report_.lsn = last;
  if (scan.ended()) return Take(name);  // nobody writes to it any more
  if (TRY(StopsAtDamage(scan))) {
    // What is behind it counts too, and how is for the reader of the backup to judge.
    report_.damaged = true;
    return CopyWhole(name);
  }
  total_ -= std::min(total_, scan.info().file_bytes - std::min(end, scan.info().file_bytes));
  auto copied =
      CopyFile(disk_, Source(name), Target(name), end, [&](uint64_t bytes) { return Tell(bytes); });
  if (!copied.ok() && copied.system_errno() == ENOENT && !IsThere(name)) return false;
  if (!copied.ok()) return copied.TakeStatus();
  made_.push_back(Target(name));
  ++report_.copied_files;
  report_.copied_bytes += *copied;
  // Had the file been recycled meanwhile, its name would be gone.
  return *copied == end && IsThere(name);
}

// Whether where the frames end is not the end of what has been written: there is one behind it.
Result<bool> Attempt::StopsAtDamage(SegmentScan& scan) {
  auto file = disk_.Open(scan.info().path, OpenMode::kRead);
  if (!file.ok()) {
    if (file.system_errno() == ENOENT) return false;  // retired: the copy will find that out
    return file.TakeStatus();
  }
  SegmentInfo info = scan.info();
  info.file_bytes = TRY((*file)->Size());
  Frames frames;
  frames.Reset(std::move(file).value(), info);
  const uint64_t end = scan.offset();
  const Lsn next = std::max(scan.last_lsn() + 1, info.first_lsn);
  Frames::Candidate found;
  (void)TRY(frames.Find(end, {next, end}, &found));
  if (!found.good) return false;
  // A server writes from the front to the back: where it has only gone on meanwhile, the place can
  // be read now.
  SegmentScan::Frame frame;
  return !TRY(scan.Next(&frame));
}

// Whether the segments begin where the newest checkpoint ends, or before.
Result<bool> Attempt::IsWhole() {
  auto first = SegmentScan::Open(disk_, Target(first_segment_));
  if (!first.ok()) return true;  // damaged: there is nothing better to be had
  if ((*first)->info().first_lsn <= checkpoint_lsn_ + 1) return true;
  // Older segments may have been retired between the two lists; a newer checkpoint is there then.
  for (const CheckpointInfo& info : TRY(ListCheckpoints(disk_, source_))) {
    if (info.problem.empty() && IsOurs(info) && info.lsn > checkpoint_lsn_) return false;
  }
  return true;
}

// What was logged behind a gap counts only together with a checkpoint from then, which may not have
// been finished: a restart from the backup ends before the gap.
void Attempt::StopBeforeGap() {
  const auto reader = Reader::Open(disk_, target_);
  if (!reader.ok()) return;  // it tells whoever reads the backup
  for (const SegmentInfo& segment : (*reader)->segments()) {
    if (segment.gap_void) report_.lsn = std::min(report_.lsn, segment.durable_lsn);
  }
}

}  // namespace

Status MakeEmptyDirectory(Disk& disk, const std::string& directory) {
  TRY(disk.CreateDirectories(directory));
  if (TRY(disk.List(directory)).empty()) return Status::Ok();
  return Status::Error(directory + " is not empty: name a new directory", ENOTEMPTY);
}

Result<uint64_t> CopyFile(Disk& disk, const std::string& from, const std::string& to,
                          uint64_t bytes, const std::function<Status(uint64_t)>& progress) {
  auto in = TRY(disk.Open(from, OpenMode::kRead));
  auto out = TRY(disk.Open(to, OpenMode::kCreate));
  std::vector<char> buffer(kCopyBytes);
  uint64_t done = 0;
  const auto copy = [&]() -> Status {
    while (done < bytes) {
      const size_t wanted = std::min<uint64_t>(buffer.size(), bytes - done);
      const size_t got = TRY(in->ReadAt(done, {buffer.data(), wanted}));
      TRY(out->WriteAt(done, {buffer.data(), got}));
      done += got;
      if (progress) TRY(progress(got));
      if (got < wanted) break;
    }
    return out->SyncData();
  };
  if (Status status = copy(); !status.ok()) {
    (void)disk.Remove(to);
    return status;
  }
  return done;
}

Result<BackupReport> BackUp(Disk& disk, const std::string& source, const std::string& target,
                            const BackupOptions& options) {
  TRY(disk.List(source));  // before the target is made
  TRY(MakeEmptyDirectory(disk, target));
  for (uint64_t tries = 1; tries <= kTriesMax; ++tries) {
    BackupReport report;
    report.tries = tries;
    Attempt attempt(disk, source, target, options, &report);
    if (TRY(attempt.Run())) return report;
  }
  return Status::Error("cannot back up " + source + ": its server retires segments faster than " +
                           "they can be copied; back up to a directory on the same file system",
                       EAGAIN);
}

}  // namespace crab::wal

#include "persistence/unpacker.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "persistence/frames.h"
#include "persistence/record.h"
#include "utils/check.h"

namespace crab::wal {
namespace {

// Of a window, so that as many threads have something to do; but no more bytes than caches hold.
constexpr uint64_t kBundlesOfWindow = 32;
constexpr uint64_t kBundleBytesMax = uint64_t{1} << 20;
constexpr uint64_t kIdleBytesMax = 4 * kBundleBytesMax;

}  // namespace

void Unpacker::Job::Begin(const Plan::Segment& segment, uint32_t units, uint64_t order) {
  bundle_ = Bundle();
  bundle_.segment = &segment;
  bundle_.order = order;
  units_ = units;
  frames_.clear();
  payloads_.clear();
}

void Unpacker::Job::Add(const Frame& frame, Lsn seen) {
  Taken& taken = frames_.emplace_back();
  taken.frame = frame;
  taken.frame.payload = {};
  taken.frame.segment = nullptr;  // goes with the reader
  taken.at = payloads_.size();
  taken.size = frame.payload.size();
  taken.first = seen + 1;
  payloads_.append(frame.payload);
}

Status Unpacker::Job::Unpack() {
  const uint32_t shard_count = bundle_.segment->info.identity.shard_count;
  bundle_.places = std::make_unique<Places>(std::max(shard_count, 1u), units_);
  // What a damaged pack states may be any size.
  bundle_.plain.reserve(std::min(bundle_.plain_bytes, 2 * kBundleBytesMax));
  for (Taken& taken : frames_) TRY(UnpackOne(taken));
  bundle_.places->Finish();
  return Status::Ok();
}

Status Unpacker::Job::UnpackOne(Taken& taken) {
  Frame& frame = taken.frame;
  const SegmentInfo& info = bundle_.segment->info;
  const std::string_view payload = std::string_view(payloads_).substr(taken.at, taken.size);
  if (frame.verdict != Verdict::kGood) {
    bundle_.bad.push_back(std::move(frame));
  } else if (IsRecord(frame.type)) {
    // By itself among packs, which no writer of ours makes it.
    FrameHeader header = {};
    header.length = static_cast<uint32_t>(payload.size());
    header.lsn = frame.lsn;
    header.type = frame.type;
    header.flags = frame.flags;
    header.shard = frame.shard;
    std::string record;
    AppendPackedFrame(record, header, payload);
    AddRecords(record, taken.first, frame.lsn);
  } else {
    PackPayload pack;
    auto records =
        UnpackRecords(codec_, info, frame.offset, frame.flags, payload, &pack, &scratch_);
    if (records.ok()) {
      AddRecords(*records, std::max(taken.first, frame.lost_first), frame.lost_last);
    } else if (records.system_errno() == ENOKEY) {
      return Status::Error(info.name + ": " + std::string(records.message()), ENOKEY);
    } else {
      frame.verdict = Verdict::kCorrupt;
      frame.reason = records.message();
      bundle_.bad.push_back(std::move(frame));
    }
  }
  return Status::Ok();
}

void Unpacker::Job::AddRecords(std::string_view records, Lsn first, Lsn last) {
  uint64_t at = bundle_.plain.size();
  bundle_.plain.append(records);
  while (!records.empty()) {
    FrameHeader header;
    std::memcpy(&header, records.data(), sizeof(header));
    if (header.lsn >= first && header.lsn <= last) {
      bundle_.places->Add(header.type, header.shard, records.substr(sizeof(header), header.length),
                          at);
    }
    const uint64_t bytes = FrameBytes(header.length);
    at += bytes;
    records.remove_prefix(bytes);
  }
}

Unpacker::Unpacker(Disk& disk, std::shared_ptr<const KeyRing> keys, uint32_t units,
                   Lsn checkpoint_lsn, std::vector<const Plan::Segment*> segments,
                   uint64_t window_bytes)
    : disk_(disk),
      keys_(std::move(keys)),
      units_(units),
      segments_(std::move(segments)),
      window_bytes_(window_bytes),
      bundle_bytes_(std::clamp<uint64_t>(window_bytes / kBundlesOfWindow, 1, kBundleBytesMax)),
      seen_(checkpoint_lsn) {
  CHECK_GT(window_bytes_, 0u);
}

Result<std::unique_ptr<Unpacker::Job>> Unpacker::Take() {
  CHECK(wanted());
  const Plan::Segment& segment = *segments_[next_segment_];
  if (reader_ == nullptr) {
    reader_ = Reader::OpenSegment(disk_, segment.info, segment.last, keys_, /*whole_packs=*/true);
  }
  std::unique_ptr<Job> job;
  if (idle_.empty()) {
    job = std::make_unique<Job>(keys_);
  } else {
    job = std::move(idle_.back());
    idle_.pop_back();
  }
  job->Begin(segment, units_, next_order_++);
  Bundle& bundle = job->bundle_;
  while (bundle.plain_bytes < bundle_bytes_ && job->payloads_.size() < bundle_bytes_) {
    Frame frame;
    if (!TRY(reader_->Next(&frame))) {
      reader_.reset();
      ++next_segment_;
      break;
    }
    bundle.file_bytes += frame.bytes;
    const bool good = frame.verdict == Verdict::kGood;
    if (good && frame.type == static_cast<uint8_t>(FrameType::kPack)) {
      job->Add(frame, seen_);
      seen_ = std::max(seen_, frame.lost_last);
      bundle.plain_bytes += PackHead(frame.payload).plain_bytes;
    } else if (!good || (IsRecord(frame.type) && frame.lsn > seen_)) {
      job->Add(frame, seen_);
      if (good) seen_ = frame.lsn;
      bundle.plain_bytes += FrameBytes(frame.payload.size());
    }
  }
  taken_bytes_ += bundle.plain_bytes;
  ++jobs_out_;
  return job;
}

void Unpacker::Put(std::unique_ptr<Job> job) {
  CHECK_GT(jobs_out_, 0);
  --jobs_out_;
  window_.push_back(std::move(job->bundle_));
  // One huge record is no reason to keep its size.
  if (job->memory() <= kIdleBytesMax) idle_.push_back(std::move(job));
}

std::vector<Bundle> Unpacker::TakeWindow() {
  CHECK(ready());
  taken_bytes_ = 0;
  std::sort(window_.begin(), window_.end(),
            [](const Bundle& one, const Bundle& other) { return one.order < other.order; });
  return std::exchange(window_, {});
}

}  // namespace crab::wal

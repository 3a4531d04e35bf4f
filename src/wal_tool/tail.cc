// crabcache-wal tail: reads segments one after the other and waits where the last one ends. It sees
// a record when the server has written it, judges nothing, and steps over what does not check when
// a newer segment is there.
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <thread>

#include "persistence/chain.h"
#include "persistence/frames.h"
#include "persistence/scan.h"
#include "persistence/segment.h"
#include "src/wal_tool/tool.h"

namespace crab::wal {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(50);

class Tail {
 public:
  explicit Tail(Tool& tool) : tool_(tool), codec_(Compression::kNone, tool.keys) {}
  int Run();

 private:
  // The lowest number of a segment above `number`; 0 = none.
  Result<uint64_t> NumberAfter(uint64_t number);
  Status EnterFirst();
  Status Enter(uint64_t number);
  Result<bool> ReadOn();
  Status Take(const SegmentScan::Frame& frame);
  void TakeRecord(const FrameHeader& header, std::string_view payload);
  void Emit(std::string line);
  void Announce(const JsonObject& event) { Emit(event.text()); }
  void EnterEpoch(const SegmentInfo& info);
  void SkipTo(Lsn lsn);

  Tool& tool_;
  const Request& request_ = tool_.request;
  Codec codec_;
  std::string scratch_;
  std::unique_ptr<SegmentScan> scan_;
  uint64_t log_id_ = 0;  // 0 = not known yet
  uint64_t number_ = 0;  // of the segment that is read
  uint64_t epoch_ = 0;
  Lsn next_ = 0;  // of the record to come, 0 = any
  int64_t wall_ms_ = 0;
  bool live_ = false;             // past the end that was there at the start
  std::deque<std::string> kept_;  // the last lines until it is live
};

Result<uint64_t> Tail::NumberAfter(uint64_t number) {
  for (const std::string& name : TRY(tool_.disk.List(request_.directory))) {  // sorted
    const auto found = SegmentNumber(name);
    if (found && *found > number) return *found;
  }
  return uint64_t{0};
}

// The last segment; with --from the last one that begins at or below it, with -n as many before the
// last as may be needed. With --from, all epochs up to that segment's are told: whoever goes on
// where it has stopped must know whether LSNs that it has seen have been issued again.
Status Tail::EnterFirst() {
  std::vector<uint64_t> numbers;
  for (const std::string& name : TRY(tool_.disk.List(request_.directory))) {
    if (const auto number = SegmentNumber(name)) numbers.push_back(*number);
  }
  if (numbers.empty()) {
    return Status::Error("there is no log in " + request_.directory + ": it holds no segment");
  }
  log_id_ = TRY(Chain::Read(tool_.disk, request_.directory, {.checkpoint_lsn = 0})).log_id();
  uint64_t chosen = numbers.back();
  std::optional<Lsn> end;
  for (auto number = numbers.rbegin(); number != numbers.rend(); ++number) {
    auto scan = SegmentScan::Open(tool_.disk, request_.directory + "/" + SegmentName(*number));
    if (scan.ok() && (*scan)->info().identity.log_id != log_id_) continue;
    chosen = *number;
    if (!scan.ok()) continue;  // retired meanwhile, or damaged
    const Lsn first = (*scan)->info().first_lsn;
    if (request_.from) {
      if (first <= *request_.from) break;
      continue;
    }
    if (!end) {
      end = first;
      SegmentScan::Frame frame;
      while (TRY((*scan)->Next(&frame))) end = std::max(*end, frame.last_lsn + 1);
    }
    if (*end - std::min(first, *end) >= request_.count) break;
  }
  for (const uint64_t number : numbers) {
    if (!request_.from || number > chosen) break;
    auto scan = SegmentScan::Open(tool_.disk, request_.directory + "/" + SegmentName(number));
    if (scan.ok() && (*scan)->info().identity.log_id == log_id_) EnterEpoch((*scan)->info());
  }
  next_ = request_.from.value_or(0);
  return Enter(chosen);
}

Status Tail::Enter(uint64_t number) {
  number_ = number;
  auto scan = SegmentScan::Open(tool_.disk, request_.directory + "/" + SegmentName(number));
  if (!scan.ok()) {
    scan_ = nullptr;
    if (scan.system_errno() == ENOENT) return Status::Ok();  // retired meanwhile
    if (scan.system_errno() != EBADMSG) return scan.TakeStatus();
    Announce(JsonObject().Text("event", "damaged").Text("reason", scan.message()));
    return Status::Ok();
  }
  scan_ = std::move(scan).value();
  const SegmentInfo& info = scan_->info();
  if (log_id_ == 0) log_id_ = info.identity.log_id;
  if (info.identity.log_id != log_id_) {
    Announce(JsonObject().Text("event", "foreign").Text("segment", info.name));
    scan_ = nullptr;
    return Status::Ok();
  }
  wall_ms_ = info.created_at_ms;
  if (epoch_ != 0) EnterEpoch(info);
  epoch_ = info.epoch;
  // What stands before its beginning was to be found in the segments before it.
  SkipTo(info.first_lsn);
  return Status::Ok();
}

// Tells where another epoch begins; its LSNs may have been seen before.
void Tail::EnterEpoch(const SegmentInfo& info) {
  if (info.epoch == epoch_) return;
  Announce(JsonObject()
               .Text("event", "epoch")
               .Number("epoch", info.epoch)
               .Number("first_lsn", info.first_lsn)
               .Number("time_ms", static_cast<uint64_t>(info.created_at_ms)));
  next_ = std::min(next_, info.first_lsn);
  epoch_ = info.epoch;
}

// Tells which records before this one have not been there.
void Tail::SkipTo(Lsn lsn) {
  if (next_ == 0 || lsn <= next_) return;
  Announce(
      JsonObject().Text("event", "skipped").Number("first_lsn", next_).Number("last_lsn", lsn - 1));
  next_ = lsn;
}

void Tail::Emit(std::string line) {
  if (live_ || request_.from) {
    tool_.out << line << "\n";
    return;
  }
  kept_.push_back(std::move(line));
  if (kept_.size() > request_.count) kept_.pop_front();
}

void Tail::TakeRecord(const FrameHeader& header, std::string_view payload) {
  if (next_ != 0 && header.lsn < next_) return;
  SkipTo(header.lsn);
  next_ = header.lsn + 1;
  Frame record;
  record.lsn = header.lsn;
  record.type = header.type;
  record.shard = header.shard;
  record.payload = payload;
  Emit(RecordJson(record, wall_ms_));
}

Status Tail::Take(const SegmentScan::Frame& frame) {
  NoteWallTime(frame.header.type, frame.payload, &wall_ms_);
  if (IsRecord(frame.header.type)) {
    TakeRecord(frame.header, frame.payload);
    return Status::Ok();
  }
  if (frame.header.type != static_cast<uint8_t>(FrameType::kPack)) return Status::Ok();
  PackPayload pack;
  auto unpacked = UnpackRecords(codec_, scan_->info(), frame.offset, frame.header.flags,
                                frame.payload, &pack, &scratch_);
  if (unpacked.system_errno() == ENOKEY) {
    return Status::Error(scan_->info().path + ": " + std::string(unpacked.message()), ENOKEY);
  }
  if (!unpacked.ok()) {
    Announce(JsonObject()
                 .Text("event", "damaged")
                 .Text("reason", scan_->info().name + ": " + std::string(unpacked.message())));
    return Status::Ok();
  }
  for (std::string_view left = *unpacked; !left.empty();) {
    FrameHeader header;
    std::memcpy(&header, left.data(), sizeof(header));
    TakeRecord(header, left.substr(sizeof(header), header.length));
    left.remove_prefix(FrameBytes(header.length));
  }
  return Status::Ok();
}

// Takes all that there is now. False: nothing has come.
Result<bool> Tail::ReadOn() {
  bool any = false;
  SegmentScan::Frame frame;
  while (!tool_.stopped()) {
    if (scan_ != nullptr && TRY(scan_->Next(&frame))) {
      TRY(Take(frame));
      any = true;
      continue;
    }
    // Asked before the last look at this segment: what was written before the next one began.
    const uint64_t next = TRY(NumberAfter(number_));
    if (next == 0) return any;
    if (scan_ != nullptr && TRY(scan_->Next(&frame))) {
      TRY(Take(frame));
      continue;
    }
    TRY(Enter(next));
    any = true;
  }
  return any;
}

int Tail::Run() {
  const auto run = [&]() -> Status {
    TRY(EnterFirst());
    (void)TRY(ReadOn());
    live_ = true;
    for (const std::string& line : kept_) tool_.out << line << "\n";
    kept_.clear();
    tool_.out.flush();
    while (request_.follow && !tool_.stopped() && tool_.out.good()) {
      if (TRY(ReadOn())) {
        tool_.out.flush();
      } else {
        std::this_thread::sleep_for(kPollInterval);
      }
    }
    return Status::Ok();
  };
  const Status status = run();
  return status.ok() ? kToolGood : tool_.Fail(status.message());
}

}  // namespace

int RunTail(Tool& tool) { return Tail(tool).Run(); }

}  // namespace crab::wal

// The classic table: cell (i, j) is the size of the longest common sequence of the first i bytes of
// one string and the first j of the other. Only the last row is kept; for the way back one bit per
// cell is enough, since whether two bytes are equal can be looked up again.
#include "src/commands/lcs.h"

#include <algorithm>

#include "src/commands/errors.h"

namespace crab {

namespace {

// Calls on_up(i, j) for each pair of different bytes where leaving the last byte of `a` out keeps a
// longer sequence than leaving out that of `b`.
template <typename OnUp>
size_t FillTable(std::string_view a, std::string_view b, OnUp&& on_up) {
  std::vector<uint32_t> row(b.size() + 1, 0);
  for (size_t i = 1; i <= a.size(); ++i) {
    uint32_t diagonal = 0;  // cell (i - 1, j - 1)
    for (size_t j = 1; j <= b.size(); ++j) {
      const uint32_t above = row[j];
      if (a[i - 1] == b[j - 1]) {
        row[j] = diagonal + 1;
      } else if (above > row[j - 1]) {
        on_up(i, j);
      } else {
        row[j] = row[j - 1];
      }
      diagonal = above;
    }
  }
  return row[b.size()];
}

}  // namespace

size_t CommonSequenceSize(std::string_view a, std::string_view b) {
  return FillTable(a, b, [](size_t, size_t) {});
}

CommonSequence FindCommonSequence(std::string_view a, std::string_view b) {
  CommonSequence found;
  const size_t width = b.size() + 1;
  std::vector<bool> up((a.size() + 1) * width);
  found.size = FillTable(a, b, [&](size_t i, size_t j) { up[i * width + j] = true; });
  size_t i = a.size();
  size_t j = b.size();
  bool in_run = false;
  while (i > 0 && j > 0) {
    if (a[i - 1] == b[j - 1]) {
      --i;
      --j;
      if (!in_run) found.runs.push_back({.a = i, .b = j, .size = 0});
      found.runs.back().a = i;
      found.runs.back().b = j;
      ++found.runs.back().size;
      in_run = true;
    } else {
      --(up[i * width + j] ? i : j);
      in_run = false;
    }
  }
  return found;
}

namespace {

struct Options {
  bool size_only = false;
  bool runs = false;
  bool run_sizes = false;
  int64_t run_size_min = 0;
};

Result<Options> ParseOptions(Args args) {
  Options options;
  for (size_t i = 3; i < args.size(); ++i) {
    if (args.Is(i, "IDX")) {
      options.runs = true;
    } else if (args.Is(i, "LEN")) {
      options.size_only = true;
    } else if (args.Is(i, "WITHMATCHLEN")) {
      options.run_sizes = true;
    } else if (args.Is(i, "MINMATCHLEN") && i + 1 < args.size()) {
      options.run_size_min = TRY(args.Integer(++i));
    } else {
      return Status::Error(kSyntaxError);
    }
  }
  if (options.runs && options.size_only) {
    return Status::Error("ERR If you want both the length and indexes, please just use IDX.");
  }
  return options;
}

// Redis needs four bytes for each pair of bytes, and refuses when that is more than a string may
// have. Ours takes a bit, but the bound is kept: it bounds the time as well.
Status CheckSizes(const Call& call, std::string_view a, std::string_view b) {
  if (std::max(a.size(), b.size()) >= UINT32_MAX - 1) {
    return Status::Error("ERR String too long for LCS");
  }
  const uint64_t cells = (uint64_t{a.size()} + 1) * (b.size() + 1);
  if (cells > call.keyspace.keyspace().options().string_bytes_max / sizeof(uint32_t)) {
    return Status::Error(
        "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
  }
  return Status::Ok();
}

void ReplyRange(resp::Reply& reply, size_t begin, size_t size) {
  reply.Array(2);
  reply.Integer(static_cast<int64_t>(begin));
  reply.Integer(static_cast<int64_t>(begin + size - 1));
}

void ReplyRuns(resp::Reply& reply, CommonSequence found, const Options& options) {
  std::erase_if(found.runs, [&](const CommonSequence::Run& run) {
    return static_cast<int64_t>(run.size) < options.run_size_min;
  });
  reply.Map(2);
  reply.Bulk("matches");
  reply.Array(found.runs.size());
  for (const CommonSequence::Run& run : found.runs) {
    reply.Array(options.run_sizes ? 3 : 2);
    ReplyRange(reply, run.a, run.size);
    ReplyRange(reply, run.b, run.size);
    if (options.run_sizes) reply.Integer(static_cast<int64_t>(run.size));
  }
  reply.Bulk("len");
  reply.Integer(static_cast<int64_t>(found.size));
}

}  // namespace

// The types are checked before the options, and an absent key is an empty string.
Status Lcs(Call& call) {
  // Finding a key may remove it and move others, so both are found before either is looked at.
  call.keyspace.Find(call.args[1]);
  call.keyspace.Find(call.args[2]);
  const Entry* const entries[] = {call.keyspace.Peek(call.args[1]),
                                  call.keyspace.Peek(call.args[2])};
  std::string_view values[2];
  char scratch[2][24];
  for (size_t i = 0; i < 2; ++i) {
    if (entries[i] == nullptr) continue;
    if (entries[i]->type() != Type::kString) {
      return Status::Error("ERR The specified keys must contain string values");
    }
    values[i] = entries[i]->StringBytes(scratch[i]);
  }
  const Options options = TRY(ParseOptions(call.args));
  TRY(CheckSizes(call, values[0], values[1]));

  if (options.size_only) {
    call.reply.Integer(static_cast<int64_t>(CommonSequenceSize(values[0], values[1])));
    return Status::Ok();
  }
  CommonSequence found = FindCommonSequence(values[0], values[1]);
  if (options.runs) {
    ReplyRuns(call.reply, std::move(found), options);
    return Status::Ok();
  }
  std::string sequence;
  sequence.reserve(found.size);
  for (auto run = found.runs.rbegin(); run != found.runs.rend(); ++run) {
    sequence.append(values[0].substr(run->a, run->size));
  }
  call.reply.Bulk(sequence);
  return Status::Ok();
}

}  // namespace crab

// Replayer: runs the effects of records again, by the handlers that clients' commands take, with
// the tap shut and time standing still. It knows each effect's row from the start and keeps what it
// needs from one effect to the next, so that an effect costs what it does to the keyspace.
// Thread-bound; several may work at once, each on shards that its caller holds.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "src/commands/command.h"
#include "src/commands/registry.h"
#include "src/keyspace/effects.h"
#include "src/keyspace/keyspace.h"
#include "utils/bytes.h"
#include "utils/status.h"

namespace crab {

// Shards first ... end - 1.
struct ShardRange {
  uint32_t first, end;

  bool operator==(const ShardRange&) const = default;
};

class Replayer {
 public:
  Replayer(Keyspace& keyspace, const Registry& registry);

  // Replays effects that stand end to end. The caller holds `shards`: an effect on a key of another
  // is an error, and a broadcast is applied to these shards alone. What stood before the effect
  // that an error names has been applied.
  Status Replay(std::string_view effects, ShardRange shards);
  // Asks the memory for what the first effects of the payloads that come next will look at, and for
  // more of what was asked for by the call before, of the same shards. At most kExpectedMax. Any
  // bytes will do: what is no effect, or one of other shards than those at hand, is passed over.
  void Expect(std::span<const std::string_view> payloads, ShardRange shards);
  static constexpr size_t kExpectedMax = 32;
  // Whether Replay could, of effects of any shards: each is known, its arguments and its database
  // suit. What ran atomically is asked before a part of it is replayed.
  Status Check(std::string_view effects);

 private:
  struct PlainSet;
  struct Expected {
    const Table* table;
    uint64_t hash;
  };

  // Takes one from the front of `effects`. False: something else stands there, or it is damaged.
  static bool TakePlainSet(std::string_view* effects, PlainSet* set);
  Status CheckDatabase(const PlainSet& set) const;
  Status CheckOne() const;  // effect_
  // Points the view at a key's database; the error says that its shard is not at hand.
  Status Begin(uint32_t db, std::string_view key, std::string_view name, ShardRange shards);
  Status ReplayOne(ShardRange shards);
  Status ReplayBroadcast(ShardRange shards);

  Keyspace& keyspace_;
  const Registry& registry_;
  std::array<const Command*, kEffectIdMax + 1> commands_{};  // by id; null: no such row
  EffectView effect_;
  std::vector<std::string_view> argv_;
  Effects effects_;  // what the handlers log; dropped
  KeyspaceStats stats_;
  KeyspaceView view_;
  Buffer discarded_;  // the handlers' replies
  resp::Reply reply_;
  Client client_;
  std::array<Expected, kExpectedMax> expected_;
  size_t expected_count_ = 0;
  ShardRange expected_shards_{0, 0};
};

}  // namespace crab

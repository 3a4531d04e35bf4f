// Every bit of a small log and its checkpoints flipped, every file cut at every byte, every sector
// zeroed, files swapped, removed, doubled, and put back as they once were. Whatever is damaged: a
// start in any mode says what is lost, and applies nothing but what was.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <functional>
#include <iostream>
#include <optional>
#include <set>

#include "persistence/checkpoint.h"
#include "persistence/reader.h"
#include "persistence/record.h"
#include "persistence/segment.h"
#include "tests/engine/life.h"
#include "tests/support/log_run.h"
#include "tests/support/seed.h"
#include "tests/support/stated_durable.h"

namespace crab::test {
namespace {

using wal::Lsn;
using wal::RecoveryMode;
using wal::SyncPolicy;
using Files = std::map<std::string, std::string>;

struct Original {
  wal::Options options;
  Files files;  // without spares
  std::vector<Statement> statements;
  History history;
  Lsn last = 0;
  // Where logging had been off: the last record before, and the checkpoint that holds what changed
  // meanwhile. 0 = it never was.
  Lsn before_gap = 0, gap_checkpoint = 0;
  // What files were at earlier moments, those that are gone by now included.
  std::map<std::string, std::set<std::string>> versions;

  std::unique_ptr<SimDisk> Disk() const { return DiskOf(files); }
  static std::unique_ptr<SimDisk> DiskOf(const Files& content) {
    auto disk = std::make_unique<SimDisk>();
    EXPECT_TRUE(disk->CreateDirectories(kEngineDirectory).ok());
    for (const auto& [path, bytes] : content) disk->PutFile(path, bytes);
    return disk;
  }
};

std::string NameOf(const std::string& path) { return path.substr(path.rfind('/') + 1); }
bool IsSegment(const std::string& path) { return wal::SegmentNumber(NameOf(path)).has_value(); }
bool IsCheckpoint(const std::string& path) { return wal::CheckpointLsn(NameOf(path)).has_value(); }

// Segments and checkpoints. Zeroes behind the last frame are cut but for a few: thousands of them
// are the same case.
Files FilesOf(const SimDisk& disk) {
  constexpr size_t kZeroesKept = 64;
  Files files;
  for (const std::string& path : disk.Paths()) {
    if (!IsSegment(path) && !IsCheckpoint(path)) continue;
    std::string bytes = disk.Contents(path);
    if (IsSegment(path)) {
      const size_t used = bytes.find_last_not_of('\0') + 1;
      bytes.resize(std::min(bytes.size(), (used + 7) / 8 * 8 + kZeroesKept));
    }
    files[path] = std::move(bytes);
  }
  return files;
}

void FindStatements(Original* original) {
  auto disk = original->Disk();
  auto reader = wal::Reader::Open(*disk, kEngineDirectory, {.keys = original->options.keys});
  ASSERT_TRUE(reader.ok()) << reader.message();
  original->statements = StatementsOf(**reader);
  for (const auto& [path, bytes] : original->files) {
    if (!IsCheckpoint(path)) continue;
    original->statements.push_back({path, 0, bytes.size(), *wal::CheckpointLsn(NameOf(path))});
  }
}

// How the life of a log ends that is damaged then.
enum class End {
  kStops,
  kPowerFails,  // and every byte survives
  kHealed,      // likewise, after a time without the log, behind a gap
};

// The disk fails for some commands, and works again.
void LoseLogForAWhile(SimDisk& disk, Life* life, Original* original) {
  original->before_gap = life->engine().log().durable_lsn();
  disk.AddFault({.calls = kChangingCalls, .error = EIO, .for_ever = true});
  life->RunCommands(4);
  ASSERT_EQ(life->engine().log().state(), wal::State::kDegraded);
  disk.ClearFaults();
  ASSERT_TRUE(life->Heal());
  original->gap_checkpoint = life->engine().log().metrics().checkpoint_lsn;
}

// Two segments or more and two checkpoints that count, and some more of each that are gone.
void MakeOriginal(wal::Options options, End end, Original* original) {
  SimDisk disk({.survivors = Survivors::kAll});
  options.on_error = wal::OnError::kDegrade;
  Life life({.log = options, .seed = TestSeed(), .whole_values = true});
  original->options = options;
  ASSERT_TRUE(life.Start(disk)) << life.error();
  const auto remember = [&] {
    life.Settle();
    for (const auto& [path, bytes] : FilesOf(disk)) original->versions[path].insert(bytes);
  };
  for (int part = 0; part < 3; ++part) {
    life.RunCommands(3);
    remember();
    life.RunTogether(3);
    remember();
    if (part == 2 && end == End::kHealed) {
      ASSERT_NO_FATAL_FAILURE(LoseLogForAWhile(disk, &life, original));
    } else {
      ASSERT_EQ(life.Checkpoint().message(), "");
    }
    remember();
    life.RunCommands(2);
    life.engine().log().RequestRotate();
    life.RunCommands(2);
    remember();
  }
  std::unique_ptr<SimDisk> after;
  if (end == End::kStops) {
    ASSERT_EQ(life.engine().log().Stop().message(), "");
  } else {
    after = disk.PowerCut();
  }
  original->last = life.history().last();
  original->history = life.history();
  original->files = FilesOf(end == End::kStops ? disk : *after);
  life.End();
  ASSERT_NO_FATAL_FAILURE(FindStatements(original));
}

// Nothing counts that is said behind a gap without a checkpoint of that name.
Lsn StatedDurable(const Original& original, const Files& files,
                  const std::vector<Damage>& damages) {
  const Lsn stated = StatedDurable(original.statements, damages);
  const bool bridged = std::any_of(files.begin(), files.end(), [&](const auto& file) {
    const auto lsn = wal::CheckpointLsn(NameOf(file.first));
    return lsn && *lsn >= original.gap_checkpoint;
  });
  return bridged ? stated : std::min(stated, original.before_gap);
}

using Ranges = std::vector<std::pair<Lsn, Lsn>>;

// What a salvage reported as lost: LSNs, or what had none, because logging was off.
Ranges LostRanges(const Original& original, const wal::RecoveryReport& report) {
  Ranges lost;
  for (const auto& range : report.lost) lost.emplace_back(range.first, range.last);
  for (const std::string& warning : report.warnings) {
    if (warning.find("what changed during that time is lost") == warning.npos) continue;
    lost.emplace_back(original.before_gap + 1, original.gap_checkpoint);
  }
  return lost;
}

// Whether each key, be it absent, is as in one of these.
bool IsMadeOf(const Data& found, const std::vector<Data>& parts) {
  const auto at = [](const Data& data, const ModelKey& key) {
    const auto value = data.find(key);
    return value == data.end() ? std::optional<ModelValue>() : value->second;
  };
  std::set<ModelKey> keys;
  for (const auto& [key, value] : found) keys.insert(key);
  for (const Data& part : parts) {
    for (const auto& [key, value] : part) keys.insert(key);
  }
  return std::all_of(keys.begin(), keys.end(), [&](const ModelKey& key) {
    return std::any_of(parts.begin(), parts.end(),
                       [&](const Data& part) { return at(part, key) == at(found, key); });
  });
}

// What the history says of data that was found, some of it reported as lost: "" where there is an
// end of the log at or behind `stated` from which it follows.
std::string JudgeSalvaged(const Original& original, Lsn stated, const Data& found,
                          const wal::RecoveryReport& report) {
  const Ranges lost = LostRanges(original, report);
  std::string text = "checkpoint " + std::to_string(report.checkpoint_lsn) + ", lost";
  for (const auto& [first, last] : lost) {
    text += " " + std::to_string(first) + "-" + std::to_string(last);
  }
  for (const auto& range : report.lost) {
    if (range.where.empty()) return "lost LSNs without a place";
  }
  std::string first_difference;
  for (Lsn last = original.last; last + 1 > stated; --last) {
    // Shards whose chunks are damaged begin at an older checkpoint, or at none.
    std::vector<Data> expected = {original.history.Without(report.checkpoint_lsn, last, lost)};
    if (!report.checkpoint_problem.empty()) {
      expected.push_back(original.history.Without(0, last, lost));
      for (const auto& [path, bytes] : original.files) {
        const auto lsn = wal::CheckpointLsn(NameOf(path));
        if (lsn && *lsn < report.checkpoint_lsn) {
          expected.push_back(original.history.Without(*lsn, last, lost));
        }
      }
    }
    if (IsMadeOf(found, expected)) return "";
    if (last == original.last) first_difference = Difference(found, expected.front());
    if (last == 0) break;
  }
  for (const std::string& warning : report.warnings) text += "; " + warning;
  if (!report.checkpoint_problem.empty()) text += "; " + report.checkpoint_problem;
  return "not what remains; " + text + ", stated " + std::to_string(stated) + ":" +
         first_difference;
}

class Damager {
 public:
  // Every `modes_every`-th case goes through the other modes, a second start and what follows.
  Damager(const Original& original, const char* what, uint64_t modes_every, uint64_t stride = 1)
      : original_(original), what_(what), modes_every_(modes_every), stride_(stride) {}
  ~Damager() {
    std::cout << "engine: " << cases_ << " cases of " << offered_ << " (" << what_ << "), "
              << with_loss_ << " of them with losses, " << boots_ << " recoveries\n";
  }

  void Try(const std::vector<Damage>& damages, const std::function<void(Files*)>& damage) {
    // About every `stride_`-th, which ones is the seed's choice.
    const bool takes = LongTests() || Mix(TestSeed(), offered_) % stride_ == 0;
    ++offered_;
    if (!takes || testing::Test::HasFailure()) return;
    ++cases_;
    Files files = original_.files;
    damage(&files);
    const Lsn stated = StatedDurable(original_, files, damages);
    const uint64_t seed = Mix(TestSeed(), cases_);
    const bool all_modes = cases_ % modes_every_ == 0;

    auto disk = Original::DiskOf(files);
    std::string error;
    auto engine = Start(*disk, RecoveryMode::kSalvage, seed, &error);
    ASSERT_NE(engine, nullptr) << error;
    const Data found = engine->Read();
    const wal::RecoveryReport report = engine->report();
    const Ranges lost = LostRanges(original_, report);
    if (!lost.empty()) ++with_loss_;
    ASSERT_EQ(JudgeSalvaged(original_, stated, found, report), "");
    // The older one and the log behind it have everything, where there is no gap between.
    if (damages.size() == 1 && IsCheckpoint(damages.front().path) &&
        original_.gap_checkpoint == 0) {
      ASSERT_TRUE(report.lost.empty()) << "a damaged checkpoint cost data";
    }
    if (!all_modes) return;
    engine = nullptr;
    ASSERT_NO_FATAL_FAILURE(GoOn(disk.get(), found, seed));
    ASSERT_NO_FATAL_FAILURE(TryPrefix(files, stated, lost));
    ASSERT_NO_FATAL_FAILURE(TryStrict(files, stated, lost));
  }

 private:
  std::unique_ptr<Engine> Start(SimDisk& disk, RecoveryMode mode, uint64_t seed,
                                std::string* error) {
    ++boots_;
    wal::Options options = original_.options;
    options.recovery = mode;
    return Engine::Start(disk, options, seed % 2 == 0 ? Replay::kByUnits : Replay::kInOrder, seed,
                         error);
  }

  // What was salvaged stays: a second start finds it, and, once there is a checkpoint of it, also
  // one after a power cut, with what was written since.
  void GoOn(SimDisk* disk, const Data& found, uint64_t seed) {
    std::string error;
    std::unique_ptr<SimDisk> after;
    // The same way: in order nothing of a damaged checkpoint is used, by units what is whole.
    std::unique_ptr<Engine> engine = Start(*disk, RecoveryMode::kSalvage, seed, &error);
    ASSERT_NE(engine, nullptr) << error;
    ASSERT_EQ(Difference(engine->Read(), found), "") << "the second start";
    engine->BeginCheckpoint(engine->log().last_lsn());
    while (engine->StepCheckpoint()) {
    }
    ASSERT_EQ(engine->TakeCheckpointStatus().message(), "");
    ASSERT_EQ(engine->Run(0, {"SET", "after", "1"}), "+OK\r\n");
    ASSERT_TRUE(WaitDurable(engine->log(), engine->gate()));
    after = disk->PowerCut();
    engine = nullptr;
    engine = Start(*after, RecoveryMode::kSalvage, 1, &error);
    ASSERT_NE(engine, nullptr) << error;
    Data expected = found;
    expected[{0, "after"}] = {"1"};
    ASSERT_EQ(Difference(engine->Read(), expected), "") << "after a checkpoint and a power cut";
  }

  // A state that was, and everything before the first loss.
  void TryPrefix(const Files& files, Lsn stated, const Ranges& lost) {
    auto disk = Original::DiskOf(files);
    std::string error;
    auto engine = Start(*disk, RecoveryMode::kPrefix, cases_, &error);
    if (engine == nullptr) {
      // Where the beginning is lost there is no prefix of anything.
      ASSERT_NE(error, "");
      ASSERT_FALSE(lost.empty()) << error;
      return;
    }
    Lsn from = stated;
    for (const auto& [first, last] : lost) from = std::min(from, first - 1);
    const Data found = engine->Read();
    ASSERT_EQ(JudgePrefix(found, from), "");
    ASSERT_EQ(engine->Run(0, {"SET", "after", "1"}), "+OK\r\n");
    ASSERT_TRUE(WaitDurable(engine->log(), engine->gate()));
    engine = nullptr;
    engine = Start(*disk, RecoveryMode::kPrefix, cases_ + 1, &error);
    ASSERT_NE(engine, nullptr) << error;
    Data expected = found;
    expected[{0, "after"}] = {"1"};
    ASSERT_EQ(Difference(engine->Read(), expected), "") << "after a prefix";
  }

  // All of it, or a refusal that changes nothing.
  void TryStrict(const Files& files, Lsn stated, const Ranges& lost) {
    auto disk = Original::DiskOf(files);
    std::string error;
    auto engine = Start(*disk, RecoveryMode::kStrict, cases_, &error);
    if (engine != nullptr) {
      ASSERT_TRUE(lost.empty()) << "strict started on a log that lost records";
      ASSERT_EQ(JudgePrefix(engine->Read(), stated), "");
      return;
    }
    ASSERT_NE(error, "");
    // Also for damage where no start has to read: it judges all that is there.
    ASSERT_TRUE(files != original_.files) << error;
    for (const auto& [path, bytes] : files) {
      ASSERT_TRUE(disk->Exists(path) && disk->Contents(path) == bytes)
          << "refused, and changed " << path;
    }
  }

  // "" where the data is what it was at some LSN from `from` on.
  std::string JudgePrefix(const Data& found, Lsn from) const {
    for (Lsn lsn = original_.last;; --lsn) {
      if (found == original_.history.At(lsn)) return "";
      if (lsn <= from) break;
    }
    return "no state that was from LSN " + std::to_string(from) +
           " on:" + Difference(found, original_.history.At(original_.last));
  }

  const Original& original_;
  const char* const what_;
  const uint64_t modes_every_;
  const uint64_t stride_;
  uint64_t offered_ = 0, cases_ = 0, with_loss_ = 0, boots_ = 0;
};

class EngineDamageTest : public testing::TestWithParam<End> {
 protected:
  void SetUp() override { MakeOriginal(EngineOptions(), GetParam(), &original_); }
  Original original_;
};

TEST_P(EngineDamageTest, FindsAllOfWhatIsWhole) {
  Damager damager(original_, "no damage", 1);
  uint64_t segments = 0, checkpoints = 0;
  for (const auto& [path, bytes] : original_.files) ++(IsSegment(path) ? segments : checkpoints);
  EXPECT_GE(segments, 2u);
  EXPECT_EQ(checkpoints, 2u);
  for (int i = 0; i < 4; ++i) damager.Try({}, [](Files*) {});
}

void FlipBits(const Original& original, const char* what, uint64_t stride) {
  Damager damager(original, what, 40, stride);
  for (const auto& [path, bytes] : original.files) {
    for (uint64_t at = 0; at < bytes.size(); ++at) {
      // The reserved part of a header is the same zero thousands of times.
      const bool reserved = at >= 192 && at < wal::kSegmentHeaderBytes - 4;
      if (reserved && at % 64 != 0 && !LongTests()) continue;
      for (uint64_t bit = 0; bit < 8; ++bit) {
        SCOPED_TRACE(testing::Message() << path << " bit " << at * 8 + bit);
        damager.Try({{path, at, at + 1}}, [&, file = path](Files* files) {
          (*files)[file][at] ^= static_cast<char>(1 << bit);
        });
        if (testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST_P(EngineDamageTest, TellsOfEveryFlippedBit) { FlipBits(original_, "bits flipped", 40); }

void CutEverywhere(const Original& original, const char* what, uint64_t stride) {
  Damager damager(original, what, 20, stride);
  for (const auto& [path, bytes] : original.files) {
    for (uint64_t size = 0; size < bytes.size(); ++size) {
      SCOPED_TRACE(testing::Message() << path << " cut at " << size);
      damager.Try({{path, size, ~uint64_t{0}}},
                  [&, file = path](Files* files) { (*files)[file].resize(size); });
      if (testing::Test::HasFailure()) return;
    }
  }
}

TEST_P(EngineDamageTest, TellsOfEveryMissingEnd) { CutEverywhere(original_, "files cut", 40); }

TEST_P(EngineDamageTest, TellsOfEveryZeroedSector) {
  constexpr uint64_t kSector = SimDisk::kSectorBytes;
  Damager damager(original_, "sectors zeroed", 1);
  for (const auto& [path, bytes] : original_.files) {
    for (uint64_t begin = 0; begin < bytes.size(); begin += kSector) {
      SCOPED_TRACE(testing::Message() << path << " sector " << begin / kSector);
      const size_t size = std::min<size_t>(kSector, bytes.size() - begin);
      if (bytes.compare(begin, size, std::string(size, '\0')) == 0) continue;  // as before
      damager.Try({{path, begin, begin + size}}, [&, file = path](Files* files) {
        (*files)[file].replace(begin, size, size, '\0');
      });
      if (HasFailure()) return;
    }
  }
}

TEST_P(EngineDamageTest, TellsOfFilesThatAreGoneSwappedOrDoubled) {
  Damager damager(original_, "files removed, emptied, swapped, doubled", 1);
  const std::string directory = std::string(kEngineDirectory) + "/";
  for (const auto& [one, one_bytes] : original_.files) {
    SCOPED_TRACE(one);
    damager.Try({{one}}, [file = one](Files* files) { files->erase(file); });
    damager.Try({{one}}, [file = one](Files* files) { (*files)[file].clear(); });
    for (const auto& [other, other_bytes] : original_.files) {
      if (one == other) continue;
      SCOPED_TRACE(other);
      damager.Try({{one}, {other}}, [&, a = one, b = other](Files* files) {  // both are gone
        files->erase(a);
        files->erase(b);
      });
      damager.Try({{one}, {other}}, [&, a = one, b = other](Files* files) {  // swapped
        std::swap((*files)[a], (*files)[b]);
      });
      damager.Try({{one}}, [&, a = one, b = other](Files* files) {  // a second copy over it
        (*files)[a] = original_.files.at(b);
      });
    }
    // A second copy beside it, under the name of another segment or checkpoint.
    for (const uint64_t number : {uint64_t{0}, uint64_t{90}, ~uint64_t{0}}) {
      SCOPED_TRACE(number);
      damager.Try({}, [&, a = one](Files* files) {
        (*files)[directory + wal::SegmentName(number)] = original_.files.at(a);
      });
      damager.Try({}, [&, a = one](Files* files) {
        (*files)[directory + wal::CheckpointName(number)] = original_.files.at(a);
      });
    }
    for (Lsn lsn = 1; lsn <= original_.last; lsn += 5) {
      const std::string name = directory + wal::CheckpointName(lsn);
      if (original_.files.count(name) != 0) continue;
      damager.Try({}, [&, a = one](Files* files) { (*files)[name] = original_.files.at(a); });
    }
    if (HasFailure()) return;
  }
}

TEST_P(EngineDamageTest, TellsOfFilesThatAreAsTheyOnceWere) {
  Damager damager(original_, "files as they once were", 1);
  for (const auto& [path, versions] : original_.versions) {
    for (const std::string& version : versions) {
      const auto now = original_.files.find(path);
      if (now != original_.files.end() && now->second == version) continue;
      SCOPED_TRACE(testing::Message() << path << " with " << version.size() << " bytes"
                                      << (now == original_.files.end() ? ", that was gone" : ""));
      std::vector<Damage> damages;
      if (now != original_.files.end()) {
        const size_t same = static_cast<size_t>(
            std::mismatch(version.begin(), version.end(), now->second.begin(), now->second.end())
                .first -
            version.begin());
        damages.push_back({path, same, ~uint64_t{0}});
      }
      damager.Try(damages, [&, file = path](Files* files) { (*files)[file] = version; });
      if (HasFailure()) return;
    }
  }
}

// Where every piece is authenticated damage is found earlier, and nothing else differs.
TEST(EnginePackedDamageTest, TellsOfDamageToACompressedAndEncryptedLog) {
  const TestKeys keys;
  wal::Options options = EngineOptions();
  options.compression = wal::Compression::kZstd;
  options.keys = keys.ring();
  Original original;
  ASSERT_NO_FATAL_FAILURE(MakeOriginal(options, End::kPowerFails, &original));
  FlipBits(original, "bits flipped, zstd, encrypted", 90);
  CutEverywhere(original, "files cut, zstd, encrypted", 90);
}

INSTANTIATE_TEST_SUITE_P(Ends, EngineDamageTest,
                         testing::Values(End::kStops, End::kPowerFails, End::kHealed),
                         [](const auto& param) {
                           switch (param.param) {
                             case End::kStops:
                               return "Stopped";
                             case End::kPowerFails:
                               return "PowerCut";
                             case End::kHealed:
                               break;
                           }
                           return "Healed";
                         });

}  // namespace
}  // namespace crab::test

// Codec: what happens to payloads between memory and disk: compression (LZ4, Zstandard) and
// encryption (AES-256-GCM, NIST SP 800-38D). Compressed first, then encrypted; both are optional.
// The layout of what it makes is in persistence/FORMAT.md.
// A KeyRing is frozen. A Codec is thread-bound: it keeps its working memory.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "utils/status.h"

namespace crab::wal {

enum class Compression : uint8_t { kNone = 0, kLz4 = 1, kZstd = 2 };
const char* CompressionName(Compression compression);  // "none", "lz4", "zstd"

// Bits of the flags of a frame and of a file's header.
constexpr uint8_t kFlagCompressed = 1;
constexpr uint8_t kFlagEncrypted = 2;

// The keys of wal.encryption_key_file: one a line, 64 hexadecimal digits each; empty lines and
// lines that begin with # do not count. The first is written with; all of them read, so that a log
// whose key was changed stays readable.
class KeyRing {
 public:
  KeyRing() = default;
  ~KeyRing();  // wipes the keys
  KeyRing(const KeyRing&) = delete;
  KeyRing& operator=(const KeyRing&) = delete;

  // "" = no file: nothing is encrypted and nothing encrypted can be read. The error says what is
  // wrong with the file, and never quotes a key.
  static Result<std::shared_ptr<const KeyRing>> Load(const std::string& path);

  bool empty() const { return keys_.empty(); }
  // Names a key without telling it: the first 8 bytes of the SHA-256 of "crabcache-key" and the
  // key. 0 = none.
  uint64_t current_id() const { return keys_.empty() ? 0 : keys_.front().id; }
  bool Has(uint64_t id) const;

 private:
  friend class Codec;
  struct Key {
    uint64_t id;
    std::array<unsigned char, 32> bytes;
  };
  const Key* Find(uint64_t id) const;

  std::vector<Key> keys_;
};

class Codec {
 public:
  // `keys` may be null or empty: no encryption.
  Codec(Compression compression, std::shared_ptr<const KeyRing> keys);
  ~Codec();
  Codec(const Codec&) = delete;
  Codec& operator=(const Codec&) = delete;

  // Appends the packed form of `plain` to `out` and tells by `flags` (kFlag...) what was done.
  // Bytes that compression does not make smaller stay as they are. `context` (what is known of the
  // place before it is packed) is authenticated with them and the flags when they are encrypted,
  // and not stored.
  Status Pack(std::string_view plain, std::string_view context, std::string* out, uint8_t* flags);
  // The plain bytes: `packed` itself where flags say nothing, otherwise in `scratch`. An error
  // names what is wrong: damage, a key that is not in the ring, a wrong key. Makes no more than
  // `plain_bytes_max` bytes.
  Result<std::string_view> Unpack(std::string_view packed, std::string_view context, uint8_t flags,
                                  uint64_t plain_bytes_max, std::string* scratch);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace crab::wal

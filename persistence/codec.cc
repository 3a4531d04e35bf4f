#include "persistence/codec.h"

#include <lz4.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "utils/check.h"
#include "utils/random.h"

namespace crab::wal {
namespace {

// What stands before the bytes of an encrypted piece.
constexpr size_t kNonceBytes = 12;
constexpr size_t kTagBytes = 16;
struct [[gnu::packed]] Envelope {
  unsigned char nonce[kNonceBytes];
  unsigned char tag[kTagBytes];
  uint64_t key_id;
};
static_assert(sizeof(Envelope) == 36);

// Zstandard's fastest regular level: the log is compressed while replies wait for it.
constexpr int kZstdLevel = 1;
// No piece expands further than its algorithm can: 255 bytes for each of LZ4's, and a block of
// 128 KiB for each 4 of Zstandard's. So a forged size makes nobody take memory.
constexpr uint64_t kLz4RatioMax = 255;
constexpr uint64_t kZstdRatioMax = 128 * 1024 / 4;
constexpr uint64_t kExpansionSlack = 1024;
// Working memory above it is given back after use.
constexpr size_t kKeptBytes = 4 << 20;
// EVP takes an int.
constexpr size_t kCipherStepBytes = 1 << 30;

constexpr size_t kKeyBytes = 32;
constexpr size_t kKeysMax = 1024;
constexpr size_t kKeyFileBytesMax = 256 << 10;

Status Damaged(const char* what) { return Status::Error(std::string(what), EBADMSG); }

std::string KeyIdText(uint64_t id) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(id));
  return text;
}

unsigned char* Bytes(char* text) { return reinterpret_cast<unsigned char*>(text); }
const unsigned char* Bytes(const char* text) {
  return reinterpret_cast<const unsigned char*>(text);
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

// Wipes what held a key when it goes out of scope.
struct Secret {
  std::string text;
  ~Secret() { OPENSSL_cleanse(text.data(), text.size()); }
};

Status ReadKeyFile(const std::string& path, std::string* text) {
  std::FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) {
    const int error = errno;
    return Status::Error("cannot open " + path + ": " + std::strerror(error), error);
  }
  // In one piece: a string that grows would leave copies of the keys in freed memory.
  text->resize(kKeyFileBytesMax + 1);
  std::setvbuf(file, nullptr, _IONBF, 0);
  text->resize(std::fread(text->data(), 1, text->size(), file));
  const int error = std::ferror(file) != 0 ? errno : 0;
  std::fclose(file);
  if (error != 0) return Status::Error("cannot read " + path + ": " + std::strerror(error), error);
  if (text->size() > kKeyFileBytesMax) {
    return Status::Error(path + " is larger than a file of keys can be", EFBIG);
  }
  return Status::Ok();
}

uint64_t KeyId(const std::array<unsigned char, kKeyBytes>& key) {
  constexpr std::string_view kPrefix = "crabcache-key";
  unsigned char input[kPrefix.size() + kKeyBytes];
  std::memcpy(input, kPrefix.data(), kPrefix.size());
  std::memcpy(input + kPrefix.size(), key.data(), key.size());
  unsigned char digest[EVP_MAX_MD_SIZE];
  CHECK_EQ(EVP_Digest(input, sizeof(input), digest, nullptr, EVP_sha256(), nullptr), 1);
  OPENSSL_cleanse(input, sizeof(input));
  uint64_t id;
  std::memcpy(&id, digest, sizeof(id));
  return id;
}

// Grows `text` to at least `bytes` without clearing what it already has.
char* Room(std::string* text, size_t bytes) {
  if (text->size() < bytes) text->resize(bytes);
  return text->data();
}

void GiveBack(std::string* text) {
  if (text->capacity() > kKeptBytes) std::string().swap(*text);
}

}  // namespace

const char* CompressionName(Compression compression) {
  switch (compression) {
    case Compression::kNone:
      return "none";
    case Compression::kLz4:
      return "lz4";
    case Compression::kZstd:
      return "zstd";
  }
  return "unknown";
}

KeyRing::~KeyRing() {
  for (Key& key : keys_) OPENSSL_cleanse(key.bytes.data(), key.bytes.size());
}

Result<std::shared_ptr<const KeyRing>> KeyRing::Load(const std::string& path) {
  auto ring = std::make_shared<KeyRing>();
  if (path.empty()) return std::shared_ptr<const KeyRing>(std::move(ring));
  Secret secret;
  TRY(ReadKeyFile(path, &secret.text));
  ring->keys_.reserve(kKeysMax);
  std::string_view rest = secret.text;
  for (uint64_t number = 1; !rest.empty(); ++number) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    while (!line.empty() && std::strchr(" \t\r", line.back()) != nullptr) line.remove_suffix(1);
    while (!line.empty() && (line.front() == ' ' || line.front() == '\t')) line.remove_prefix(1);
    if (line.empty() || line.front() == '#') continue;
    const std::string where = path + ":" + std::to_string(number) + ": ";
    if (line.size() != 2 * kKeyBytes) {
      return Status::Error(where + "a key has 64 hexadecimal digits, this line has " +
                               std::to_string(line.size()) + " characters",
                           EINVAL);
    }
    if (ring->keys_.size() == kKeysMax) {
      return Status::Error(where + "more than " + std::to_string(kKeysMax) + " keys", EINVAL);
    }
    Key& key = ring->keys_.emplace_back();
    for (size_t i = 0; i < kKeyBytes; ++i) {
      const int high = HexDigit(line[2 * i]);
      const int low = HexDigit(line[2 * i + 1]);
      if (high < 0 || low < 0) {
        return Status::Error(where + "character " + std::to_string(2 * i + (high < 0 ? 1 : 2)) +
                                 " of the key is no hexadecimal digit",
                             EINVAL);
      }
      key.bytes[i] = static_cast<unsigned char>(high << 4 | low);
    }
    key.id = KeyId(key.bytes);
  }
  if (ring->keys_.empty()) return Status::Error(path + " holds no key", EINVAL);
  return std::shared_ptr<const KeyRing>(std::move(ring));
}

bool KeyRing::Has(uint64_t id) const { return Find(id) != nullptr; }

const KeyRing::Key* KeyRing::Find(uint64_t id) const {
  for (const Key& key : keys_) {
    if (key.id == id) return &key;
  }
  return nullptr;
}

// Contexts of the libraries, each made when first needed and kept, its key schedule included.
struct Codec::State {
  State(Compression with, std::shared_ptr<const KeyRing> ring)
      : compression(with), keys(std::move(ring)) {}
  ~State() {
    ZSTD_freeCCtx(compressor);
    ZSTD_freeDCtx(decompressor);
    EVP_CIPHER_CTX_free(encryptor);
    EVP_CIPHER_CTX_free(decryptor);
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  bool encrypts() const { return keys != nullptr && !keys->empty(); }

  // "" where it gets no smaller. The answer lives in `buffer`.
  std::string_view Compress(std::string_view plain);
  Result<std::string_view> Decompress(std::string_view packed, uint64_t plain_bytes_max,
                                      std::string* out);
  Status Encrypt(std::string_view plain, std::string_view context, uint8_t flags, std::string* out);
  Result<std::string_view> Decrypt(std::string_view packed, std::string_view context, uint8_t flags,
                                   std::string* out);

  const Compression compression;
  const std::shared_ptr<const KeyRing> keys;
  ZSTD_CCtx* compressor = nullptr;
  ZSTD_DCtx* decompressor = nullptr;
  EVP_CIPHER_CTX* encryptor = nullptr;
  EVP_CIPHER_CTX* decryptor = nullptr;
  uint64_t decryptor_key_id = 0;  // the key that `decryptor` is set to
  std::string buffer;             // between compression and encryption
};

std::string_view Codec::State::Compress(std::string_view plain) {
  // One byte tells the algorithm; a result of the plain size or more is not worth unpacking.
  if (plain.size() < 3) return {};
  const size_t room = plain.size() - 2;
  char* const out = Room(&buffer, 1 + room);
  out[0] = static_cast<char>(compression);
  size_t size = 0;
  if (compression == Compression::kLz4) {
    if (plain.size() > LZ4_MAX_INPUT_SIZE) return {};
    size = static_cast<size_t>(LZ4_compress_default(
        plain.data(), out + 1, static_cast<int>(plain.size()), static_cast<int>(room)));
  } else if (compression == Compression::kZstd) {
    if (compressor == nullptr) {
      compressor = ZSTD_createCCtx();
      CHECK(compressor != nullptr);
      ZSTD_CCtx_setParameter(compressor, ZSTD_c_compressionLevel, kZstdLevel);
    }
    size = ZSTD_compress2(compressor, out + 1, room, plain.data(), plain.size());
    if (ZSTD_isError(size)) size = 0;
  }
  return size == 0 ? std::string_view() : std::string_view(out, 1 + size);
}

Result<std::string_view> Codec::State::Decompress(std::string_view packed, uint64_t plain_bytes_max,
                                                  std::string* out) {
  if (packed.empty()) return Damaged("a compressed piece is empty");
  const auto algorithm = static_cast<Compression>(packed.front());
  packed.remove_prefix(1);
  if (algorithm == Compression::kLz4) {
    if (packed.size() > LZ4_MAX_INPUT_SIZE) return Damaged("an LZ4 piece is too large for one");
    const uint64_t room = std::min<uint64_t>(
        {plain_bytes_max, LZ4_MAX_INPUT_SIZE, packed.size() * kLz4RatioMax + kExpansionSlack});
    const int size = LZ4_decompress_safe(packed.data(), Room(out, room),
                                         static_cast<int>(packed.size()), static_cast<int>(room));
    if (size < 0) return Damaged("an LZ4 piece does not unpack into the size it should have");
    return std::string_view(out->data(), static_cast<size_t>(size));
  }
  if (algorithm == Compression::kZstd) {
    if (decompressor == nullptr) {
      decompressor = ZSTD_createDCtx();
      CHECK(decompressor != nullptr);
    }
    const uint64_t room =
        std::min<uint64_t>(plain_bytes_max, packed.size() * kZstdRatioMax + kExpansionSlack);
    const size_t size =
        ZSTD_decompressDCtx(decompressor, Room(out, room), room, packed.data(), packed.size());
    if (ZSTD_isError(size)) {
      return Status::Error(
          std::string("a Zstandard piece does not unpack: ") + ZSTD_getErrorName(size), EBADMSG);
    }
    return std::string_view(out->data(), size);
  }
  return Damaged("a piece is compressed in a way that this version does not know");
}

Status Codec::State::Encrypt(std::string_view plain, std::string_view context, uint8_t flags,
                             std::string* out) {
  const KeyRing::Key& key = keys->keys_.front();
  if (encryptor == nullptr) {
    encryptor = EVP_CIPHER_CTX_new();
    CHECK(encryptor != nullptr);
    CHECK_EQ(EVP_EncryptInit_ex(encryptor, EVP_aes_256_gcm(), nullptr, key.bytes.data(), nullptr),
             1);
  }
  Envelope envelope;
  envelope.key_id = key.id;
  FillRandom(envelope.nonce, sizeof(envelope.nonce));
  const size_t start = out->size();
  out->resize(start + sizeof(envelope) + plain.size());
  unsigned char* const cipher = Bytes(out->data() + start + sizeof(envelope));
  int size = 0;
  bool good = EVP_EncryptInit_ex(encryptor, nullptr, nullptr, nullptr, envelope.nonce) == 1 &&
              EVP_EncryptUpdate(encryptor, nullptr, &size, Bytes(context.data()),
                                static_cast<int>(context.size())) == 1 &&
              EVP_EncryptUpdate(encryptor, nullptr, &size, &flags, sizeof(flags)) == 1;
  for (size_t at = 0; good && at < plain.size(); at += kCipherStepBytes) {
    const size_t step = std::min(kCipherStepBytes, plain.size() - at);
    good = EVP_EncryptUpdate(encryptor, cipher + at, &size, Bytes(plain.data() + at),
                             static_cast<int>(step)) == 1;
  }
  good = good && EVP_EncryptFinal_ex(encryptor, cipher + plain.size(), &size) == 1 &&
         EVP_CIPHER_CTX_ctrl(encryptor, EVP_CTRL_GCM_GET_TAG, kTagBytes, envelope.tag) == 1;
  if (!good) {
    out->resize(start);
    return Status::Error("AES-256-GCM failed to encrypt", EIO);
  }
  std::memcpy(out->data() + start, &envelope, sizeof(envelope));
  return Status::Ok();
}

Result<std::string_view> Codec::State::Decrypt(std::string_view packed, std::string_view context,
                                               uint8_t flags, std::string* out) {
  Envelope envelope;
  if (packed.size() < sizeof(envelope)) return Damaged("an encrypted piece is cut short");
  std::memcpy(&envelope, packed.data(), sizeof(envelope));
  packed.remove_prefix(sizeof(envelope));
  const uint64_t key_id = envelope.key_id;
  const KeyRing::Key* key = keys == nullptr ? nullptr : keys->Find(key_id);
  if (key == nullptr) {
    return Status::Error("it is encrypted with key " + KeyIdText(key_id) +
                             ", which wal.encryption_key_file does not hold",
                         ENOKEY);
  }
  if (decryptor == nullptr) {
    decryptor = EVP_CIPHER_CTX_new();
    CHECK(decryptor != nullptr);
    CHECK_EQ(EVP_DecryptInit_ex(decryptor, EVP_aes_256_gcm(), nullptr, nullptr, nullptr), 1);
    decryptor_key_id = 0;
  }
  const unsigned char* const new_key = decryptor_key_id == key_id ? nullptr : key->bytes.data();
  decryptor_key_id = key_id;
  unsigned char* const plain = Bytes(Room(out, packed.size()));
  int size = 0;
  bool good = EVP_DecryptInit_ex(decryptor, nullptr, nullptr, new_key, envelope.nonce) == 1 &&
              EVP_DecryptUpdate(decryptor, nullptr, &size, Bytes(context.data()),
                                static_cast<int>(context.size())) == 1 &&
              EVP_DecryptUpdate(decryptor, nullptr, &size, &flags, sizeof(flags)) == 1;
  for (size_t at = 0; good && at < packed.size(); at += kCipherStepBytes) {
    const size_t step = std::min(kCipherStepBytes, packed.size() - at);
    good = EVP_DecryptUpdate(decryptor, plain + at, &size, Bytes(packed.data() + at),
                             static_cast<int>(step)) == 1;
  }
  unsigned char none[kTagBytes];
  good = good &&
         EVP_CIPHER_CTX_ctrl(decryptor, EVP_CTRL_GCM_SET_TAG, kTagBytes, envelope.tag) == 1 &&
         EVP_DecryptFinal_ex(decryptor, none, &size) == 1;
  if (!good) {
    // Bytes that were not written under this key in this place are not to be looked at.
    OPENSSL_cleanse(plain, packed.size());
    decryptor_key_id = 0;
    return Damaged("an encrypted piece is not what was written: its tag does not match");
  }
  return std::string_view(out->data(), packed.size());
}

Codec::Codec(Compression compression, std::shared_ptr<const KeyRing> keys)
    : state_(std::make_unique<State>(compression, std::move(keys))) {}

Codec::~Codec() = default;

Status Codec::Pack(std::string_view plain, std::string_view context, std::string* out,
                   uint8_t* flags) {
  *flags = 0;
  std::string_view bytes = plain;
  if (state_->compression != Compression::kNone) {
    const std::string_view smaller = state_->Compress(plain);
    if (!smaller.empty()) {
      bytes = smaller;
      *flags |= kFlagCompressed;
    }
  }
  Status status;
  if (state_->encrypts()) {
    *flags |= kFlagEncrypted;
    status = state_->Encrypt(bytes, context, *flags, out);
  } else {
    out->append(bytes);
  }
  GiveBack(&state_->buffer);
  return status;
}

Result<std::string_view> Codec::Unpack(std::string_view packed, std::string_view context,
                                       uint8_t flags, uint64_t plain_bytes_max,
                                       std::string* scratch) {
  if ((flags & ~(kFlagCompressed | kFlagEncrypted)) != 0) {
    return Damaged("a piece is packed in a way that this version does not know");
  }
  const bool compressed = (flags & kFlagCompressed) != 0;
  if ((flags & kFlagEncrypted) != 0) {
    packed = TRY(state_->Decrypt(packed, context, flags, compressed ? &state_->buffer : scratch));
  }
  Result<std::string_view> plain = packed;
  if (compressed) plain = state_->Decompress(packed, plain_bytes_max, scratch);
  GiveBack(&state_->buffer);
  if (plain.ok() && plain->size() > plain_bytes_max) {
    return Damaged("a piece is larger than it should be");
  }
  return plain;
}

}  // namespace crab::wal

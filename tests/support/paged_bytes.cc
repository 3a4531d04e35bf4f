#include "tests/support/paged_bytes.h"

#include <algorithm>
#include <cstring>

#include "utils/check.h"

namespace crab::test {
namespace {

constexpr uint64_t kPageBytes = PagedBytes::kPageBytes;

bool IsZero(std::string_view bytes) {
  static constexpr char kZeroes[kPageBytes] = {};
  return std::memcmp(bytes.data(), kZeroes, bytes.size()) == 0;
}

// Calls `part(page, offset in it, offset in the range, bytes)` for each page of a range.
template <typename Part>
void ForEachPage(uint64_t offset, uint64_t count, Part part) {
  for (uint64_t done = 0; done < count;) {
    const uint64_t in_page = (offset + done) % kPageBytes;
    const uint64_t bytes = std::min(count - done, kPageBytes - in_page);
    part((offset + done) / kPageBytes, in_page, done, bytes);
    done += bytes;
  }
}

}  // namespace

void PagedBytes::Read(uint64_t offset, std::span<char> bytes) const {
  CHECK_LE(offset + bytes.size(), size_);
  ForEachPage(offset, bytes.size(), [&](uint64_t page, uint64_t at, uint64_t to, uint64_t count) {
    if (const Page* held = (*pages_)[page].get()) {
      std::memcpy(bytes.data() + to, held->data() + at, count);
    } else {
      std::memset(bytes.data() + to, 0, count);
    }
  });
}

std::string PagedBytes::Substring(uint64_t offset, uint64_t count) const {
  std::string bytes(count, '\0');
  Read(offset, bytes);
  return bytes;
}

void PagedBytes::Write(uint64_t offset, std::string_view bytes) {
  if (size_ < offset + bytes.size()) Resize(offset + bytes.size());
  ForEachPage(offset, bytes.size(), [&](uint64_t page, uint64_t at, uint64_t from, uint64_t count) {
    const std::string_view part = bytes.substr(from, count);
    if ((*pages_)[page] == nullptr && IsZero(part)) return;
    std::memcpy(OwnPage(page)->data() + at, part.data(), count);
  });
}

void PagedBytes::Resize(uint64_t bytes) {
  if (bytes == size_) return;
  const uint64_t rest = bytes % kPageBytes;
  if (bytes < size_ && rest != 0 && (*pages_)[bytes / kPageBytes] != nullptr) {
    std::memset(OwnPage(bytes / kPageBytes)->data() + rest, 0, kPageBytes - rest);
  }
  OwnPages()->resize((bytes + kPageBytes - 1) / kPageBytes);
  size_ = bytes;
}

PagedBytes::Pages* PagedBytes::OwnPages() {
  if (pages_.use_count() > 1) pages_ = std::make_shared<Pages>(*pages_);
  return pages_.get();
}

PagedBytes::Page* PagedBytes::OwnPage(uint64_t index) {
  std::shared_ptr<Page>& page = (*OwnPages())[index];
  if (page == nullptr) {
    page = std::make_shared<Page>();
  } else if (page.use_count() > 1) {
    page = std::make_shared<Page>(*page);
  }
  return page.get();
}

}  // namespace crab::test

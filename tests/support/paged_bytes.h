// A sequence of bytes in pages, which copies of it share until one of them changes: a copy costs no
// page, a change after it the list of pages and one page, and pages of zeroes that were never
// anything else are not held. For the files of tests/support/sim_disk.h, of which there are
// thousands that differ in a few bytes. Not synchronized. Two threads may each have a copy of their
// own; that the last owner of a page writes it in place after another has read it for the last time
// rests on x86, which writes no earlier than it read the count.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace crab::test {

class PagedBytes {
 public:
  static constexpr uint64_t kPageBytes = 4096;

  PagedBytes() = default;
  explicit PagedBytes(std::string_view bytes) { Write(0, bytes); }

  uint64_t size() const { return size_; }
  // Fills all of `bytes`: [offset, offset + bytes.size()) is within size().
  void Read(uint64_t offset, std::span<char> bytes) const;
  std::string Substring(uint64_t offset, uint64_t count) const;
  std::string AsString() const { return Substring(0, size_); }

  // Grows to hold `bytes` at `offset`; zeroes are between the old end and them.
  void Write(uint64_t offset, std::string_view bytes);
  void Resize(uint64_t bytes);  // zeroes are behind the old end

 private:
  using Page = std::array<char, kPageBytes>;
  using Pages = std::vector<std::shared_ptr<Page>>;  // null: zeroes

  Pages* OwnPages();
  Page* OwnPage(uint64_t index);

  std::shared_ptr<Pages> pages_ = std::make_shared<Pages>();  // behind size_ there are zeroes
  uint64_t size_ = 0;
};

}  // namespace crab::test

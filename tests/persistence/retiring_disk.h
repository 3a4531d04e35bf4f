// A disk under a server that retires its segments at the worst moment: while somebody reads them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "persistence/segment.h"
#include "tests/persistence/log_story.h"
#include "tests/support/forwarding_file.h"

namespace crab::test {

// Before the n-th read of a segment, by the thread that made the disk, there is a new checkpoint,
// and the segments below it have lost their names and are filled with zeroes.
class RetiringDisk : public SimDisk {
 public:
  RetiringDisk() : story_(*this) {
    story_.Boot();
    story_.Change(10, 1);
    story_.Rotate();
    story_.Checkpoint();
    story_.Change(10, 2);
    story_.Rotate();
    story_.Set(0, "a", std::string(100, 'b'));
  }
  ~RetiringDisk() override { story_.Stop(); }
  LogStory& story() { return story_; }
  void RetireAt(uint64_t nth_read) { reads_left_ = nth_read; }
  bool retired() const { return reads_left_ == 0; }

  Result<std::unique_ptr<wal::File>> Open(const std::string& path, wal::OpenMode mode) override {
    auto file = TRY(SimDisk::Open(path, mode));
    const std::string name = path.substr(path.rfind('/') + 1);
    if (std::this_thread::get_id() != reader_ || mode != wal::OpenMode::kRead ||
        !wal::SegmentNumber(name)) {
      return file;
    }
    return std::unique_ptr<wal::File>(std::make_unique<ReadFile>(*this, std::move(file)));
  }

 private:
  class ReadFile : public ForwardingFile {
   public:
    ReadFile(RetiringDisk& disk, std::unique_ptr<wal::File> file)
        : ForwardingFile(std::move(file)), disk_(disk) {}
    Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) override {
      if (disk_.reads_left_ > 0 && --disk_.reads_left_ == 0) disk_.Retire();
      return ForwardingFile::ReadAt(offset, bytes);
    }

   private:
    RetiringDisk& disk_;
  };

  void Retire() {
    story_.Rotate();
    story_.Set(1, "behind", "the segments");  // so that there is a new one
    story_.Checkpoint();
    auto paths = SegmentPaths(*this);
    std::erase_if(paths, [](const std::string& path) { return !path.starts_with("wal/"); });
    paths.pop_back();
    for (const std::string& path : paths) {
      const std::string spare = path + ".spare";
      ASSERT_TRUE(SimDisk::Link(path, spare).ok());
      PutFile(spare, std::string(Contents(path).size(), '\0'));
      RemoveFile(path);
    }
  }

  const std::thread::id reader_ = std::this_thread::get_id();
  uint64_t reads_left_ = 0;  // until they are retired
  LogStory story_;
};

}  // namespace crab::test

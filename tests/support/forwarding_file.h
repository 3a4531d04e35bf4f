// A file that passes every call on to another one, for tests to override those that they change.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "persistence/disk.h"

namespace crab::test {

class ForwardingFile : public wal::File {
 public:
  explicit ForwardingFile(std::unique_ptr<wal::File> file) : file_(std::move(file)) {}
  Status WriteAt(uint64_t offset, std::string_view bytes) override {
    return file_->WriteAt(offset, bytes);
  }
  Result<size_t> ReadAt(uint64_t offset, std::span<char> bytes) override {
    return file_->ReadAt(offset, bytes);
  }
  Status SyncData() override { return file_->SyncData(); }
  Result<uint64_t> Size() override { return file_->Size(); }
  Status Truncate(uint64_t bytes) override { return file_->Truncate(bytes); }
  Result<std::unique_ptr<wal::Mapping>> Map() override { return file_->Map(); }

 private:
  const std::unique_ptr<wal::File> file_;
};

}  // namespace crab::test

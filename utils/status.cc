#include "utils/status.h"

namespace crab {

Status Status::Error(std::string text, int system_errno) {
  Status status;
  status.word_ = reinterpret_cast<uintptr_t>(new Owned{std::move(text), system_errno}) | kOwned;
  return status;
}

std::string_view Status::message() const {
  if (word_ == 0) return {};
  if (word_ & kOwned) return owned()->text;
  return reinterpret_cast<const char*>(word_);
}

int Status::system_errno() const { return (word_ & kOwned) ? owned()->system_errno : 0; }

Status Status::Annotate(std::string_view context) && {
  if (ok()) return std::move(*this);
  std::string text(context);
  text.append(": ").append(message());
  return Error(std::move(text), system_errno());
}

void Status::Free() { delete owned(); }

}  // namespace crab

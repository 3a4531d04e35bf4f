#include "src/commands/acl_categories.h"

#include <cstddef>

namespace crab {

namespace {

uint32_t CategoryOfGroup(Group group) {
  switch (group) {
    case Group::kGeneric:
      return kAclKeyspace;
    case Group::kString:
      return kAclString;
    case Group::kConnection:
      return kAclConnection;
    case Group::kServer:
      return 0;
  }
  return 0;
}

}  // namespace

uint32_t AclCategoriesOf(const Command& command) {
  const uint32_t flags = command.flags;
  uint32_t categories = flags & kFast ? kAclFast : kAclSlow;
  if (flags & kWrite) categories |= kAclWrite;
  if (flags & kRead) categories |= kAclRead;
  if (flags & (kAdmin | kAdminCategory)) categories |= kAclAdmin | kAclDangerous;
  if (flags & kDangerous) categories |= kAclDangerous;
  if (flags & kPubsub) categories |= kAclPubsub;
  if (flags & kBlocking) categories |= kAclBlocking;
  if (flags & kKeyspace) categories |= kAclKeyspace;
  if (flags & kConnection) {
    categories |= kAclConnection;
  } else if (command.handler != nullptr) {  // a mere container is of no group
    categories |= CategoryOfGroup(command.group);
  }
  return categories;
}

uint32_t AclCategoryNamed(std::string_view name) {
  for (size_t i = 0; i < kAclCategoryNames.size(); ++i) {
    if (EqualsIgnoreCase(name, kAclCategoryNames[i])) return 1u << i;
  }
  return 0;
}

}  // namespace crab

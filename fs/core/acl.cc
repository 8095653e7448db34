#include "fs/core/acl.h"

#include <sys/stat.h>

#include <cstddef>
#include <utility>

namespace plumb::acl {
namespace {

constexpr std::uint32_t kVersion = 2;
constexpr std::size_t kHeaderBytes = 4;
constexpr std::size_t kEntryBytes = 8;
constexpr std::uint16_t kPermBits = 07;

std::uint32_t load_le(std::string_view bytes, std::size_t at, std::size_t count) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < count; ++i) {
    value |= std::uint32_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  }
  return value;
}

void append_le(std::string& out, std::uint32_t value, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    out.push_back(static_cast<char>((value >> (8 * i)) & 0xff));
  }
}

// Entries come in groups, each tag at its place; see acl(5), "VALID ACLS".
bool is_valid(const Acl& acl) {
  enum class Expect { kUserObj, kUserOrGroupObj, kGroupOrLater, kOther, kEnd };
  Expect expect = Expect::kUserObj;
  bool needs_mask = false;
  for (const Entry& entry : acl) {
    if ((entry.perm & ~kPermBits) != 0) return false;
    switch (entry.tag) {
      case kUserObj:
        if (expect != Expect::kUserObj) return false;
        expect = Expect::kUserOrGroupObj;
        break;
      case kUser:
        if (expect != Expect::kUserOrGroupObj || entry.id == kNoId) return false;
        needs_mask = true;
        break;
      case kGroupObj:
        if (expect != Expect::kUserOrGroupObj) return false;
        expect = Expect::kGroupOrLater;
        break;
      case kGroup:
        if (expect != Expect::kGroupOrLater || entry.id == kNoId) return false;
        needs_mask = true;
        break;
      case kMask:
        if (expect != Expect::kGroupOrLater) return false;
        expect = Expect::kOther;
        break;
      case kOther:
        if (expect != Expect::kOther && (expect != Expect::kGroupOrLater || needs_mask)) {
          return false;
        }
        expect = Expect::kEnd;
        break;
      default:
        return false;
    }
  }
  return expect == Expect::kEnd;
}

// The entry that the group bits of the mode stand for.
Entry* group_class(Acl& acl) {
  Entry* group = nullptr;
  for (Entry& entry : acl) {
    if (entry.tag == kMask) return &entry;
    if (entry.tag == kGroupObj) group = &entry;
  }
  return group;
}

std::uint16_t bits_of(std::uint32_t mode, unsigned shift) {
  return static_cast<std::uint16_t>((mode >> shift) & kPermBits);
}

// Restricts an entry to the bits that the creator asked for.
void restrict_to(Entry& entry, std::uint32_t mode, unsigned shift) {
  entry.perm = static_cast<std::uint16_t>(entry.perm & bits_of(mode, shift));
}

}  // namespace

Result<Acl> parse(std::string_view xattr_value) {
  if (xattr_value.size() < kHeaderBytes) return fail(EINVAL);
  if (load_le(xattr_value, 0, 4) != kVersion) return fail(EOPNOTSUPP);
  const std::size_t entry_bytes = xattr_value.size() - kHeaderBytes;
  if (entry_bytes % kEntryBytes != 0) return fail(EINVAL);

  Acl acl;
  acl.reserve(entry_bytes / kEntryBytes);
  for (std::size_t at = kHeaderBytes; at < xattr_value.size(); at += kEntryBytes) {
    Entry entry;
    entry.tag = static_cast<std::uint16_t>(load_le(xattr_value, at, 2));
    entry.perm = static_cast<std::uint16_t>(load_le(xattr_value, at + 2, 2));
    const bool named = entry.tag == kUser || entry.tag == kGroup;
    entry.id = named ? load_le(xattr_value, at + 4, 4) : kNoId;
    acl.push_back(entry);
  }
  if (!acl.empty() && !is_valid(acl)) return fail(EINVAL);
  return acl;
}

std::string serialize(const Acl& acl) {
  std::string value;
  value.reserve(kHeaderBytes + acl.size() * kEntryBytes);
  append_le(value, kVersion, 4);
  for (const Entry& entry : acl) {
    append_le(value, entry.tag, 2);
    append_le(value, entry.perm, 2);
    append_le(value, entry.id, 4);
  }
  return value;
}

bool equivalent_mode(const Acl& acl, std::uint32_t& mode_inout) {
  if (acl.empty()) return true;
  std::uint32_t user = 0;
  std::uint32_t group = 0;
  std::uint32_t other = 0;
  bool equivalent = true;
  for (const Entry& entry : acl) {
    const std::uint32_t perm = entry.perm & kPermBits;
    switch (entry.tag) {
      case kUserObj:
        user = perm;
        break;
      case kGroupObj:
        group = perm;
        break;
      case kMask:  // comes after kGroupObj
        group = perm;
        equivalent = false;
        break;
      case kOther:
        other = perm;
        break;
      default:
        equivalent = false;
        break;
    }
  }
  mode_inout = (mode_inout & ~0777U) | (user << 6) | (group << 3) | other;
  return equivalent;
}

Inherited inherit(const Acl& directory_default, std::uint32_t mode) {
  Inherited result;
  result.mode = mode;
  if (directory_default.empty() || S_ISLNK(mode)) return result;

  Acl access = directory_default;
  for (Entry& entry : access) {
    if (entry.tag == kUserObj) restrict_to(entry, mode, 6);
    if (entry.tag == kOther) restrict_to(entry, mode, 0);
  }
  if (Entry* group = group_class(access)) restrict_to(*group, mode, 3);

  if (!equivalent_mode(access, result.mode)) result.access = serialize(access);
  if (S_ISDIR(mode)) result.default_acl = serialize(directory_default);
  return result;
}

void apply_chmod(Acl& acl, std::uint32_t mode) {
  for (Entry& entry : acl) {
    if (entry.tag == kUserObj) entry.perm = bits_of(mode, 6);
    if (entry.tag == kOther) entry.perm = bits_of(mode, 0);
  }
  if (Entry* group = group_class(acl)) group->perm = bits_of(mode, 3);
}

}  // namespace plumb::acl

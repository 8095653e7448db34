// POSIX ACLs as pure functions over the value of the xattrs system.posix_acl_access and
// system.posix_acl_default.
//
// The value is that of linux/posix_acl_xattr.h: a u32 version (2), then entries of u16 tag, u16
// permissions, u32 id, all little-endian. The rules are those of acl(5) and of the kernel's
// fs/posix_acl.c, which enforces the access ACL itself (FUSE_POSIX_ACL); the volume keeps the ACLs,
// the mode bits and inheritance consistent.
//
// Invariant: an Acl that parse() returned is empty ("no ACL") or valid: entries in the order user,
// named users, group, named groups, mask, other; a mask if there is any named entry.
//
// Thread safety: no state.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pmem/result.h"

namespace plumb::acl {

inline constexpr std::string_view kAccessName = "system.posix_acl_access";
inline constexpr std::string_view kDefaultName = "system.posix_acl_default";

// Tags of entries, as in acl(5) and linux/posix_acl.h.
inline constexpr std::uint16_t kUserObj = 0x01;
inline constexpr std::uint16_t kUser = 0x02;
inline constexpr std::uint16_t kGroupObj = 0x04;
inline constexpr std::uint16_t kGroup = 0x08;
inline constexpr std::uint16_t kMask = 0x10;
inline constexpr std::uint16_t kOther = 0x20;

inline constexpr std::uint32_t kNoId = 0xffff'ffff;  // id of every entry but kUser and kGroup

struct Entry {
  std::uint16_t tag = 0;
  std::uint16_t perm = 0;    // r=4 w=2 x=1
  std::uint32_t id = kNoId;  // uid of kUser, gid of kGroup
  friend bool operator==(const Entry&, const Entry&) = default;
};

using Acl = std::vector<Entry>;

/// Reads and validates an xattr value. A value without entries is an empty Acl: setting it removes
/// the ACL. EINVAL for a malformed value, EOPNOTSUPP for another version.
[[nodiscard]] Result<Acl> parse(std::string_view xattr_value);

/// The xattr value of `acl`; parse() of it gives `acl` again.
[[nodiscard]] std::string serialize(const Acl& acl);

/// Puts the permission bits that the access ACL `acl` stands for into the low nine bits of
/// `mode_inout` (the group bits are those of the mask, if there is one). True if the mode says all
/// that the ACL says, so that it need not be stored. An empty ACL leaves the mode alone.
[[nodiscard]] bool equivalent_mode(const Acl& acl, std::uint32_t& mode_inout);

/// What a new inode gets from the default ACL of its directory.
struct Inherited {
  std::uint32_t mode = 0;
  std::optional<std::string> access;       // xattr value, if the mode does not say it all
  std::optional<std::string> default_acl;  // xattr value, for directories
};

/// `mode` is S_IFMT and permissions as the creator asked for them: where there is a default ACL the
/// umask does not count. An empty ACL leaves the mode as it is (apply the umask then); symbolic
/// links inherit nothing.
[[nodiscard]] Inherited inherit(const Acl& directory_default, std::uint32_t mode);

/// Follows a chmod: user, other and the mask (the group if there is no mask) take the bits of
/// `mode`.
void apply_chmod(Acl& acl, std::uint32_t mode);

}  // namespace plumb::acl

// Extended attributes and, as two of them, POSIX ACLs. Who may set what is the kernel's to check.

#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fs/core/acl.h"
#include "fs/fuse/handlers.h"

namespace plumb::fuse::handlers {
namespace {

bool is_acl(std::string_view name) {
  return name == acl::kAccessName || name == acl::kDefaultName;
}

bool is_in_group(const Request& request, std::uint32_t gid) {
  if (request.context().gid == gid) return true;
  std::vector<gid_t> groups(64);
  int count = fuse_req_getgroups(request.raw(), static_cast<int>(groups.size()), groups.data());
  if (count > static_cast<int>(groups.size())) {
    groups.resize(static_cast<std::size_t>(count));
    count = fuse_req_getgroups(request.raw(), count, groups.data());
  }
  if (count <= 0) return false;
  const auto end = groups.begin() + std::min<std::ptrdiff_t>(count, std::ssize(groups));
  return std::find(groups.begin(), end, gid) != end;
}

// chmod by an ACL clears set-gid if the caller is not of the file's group. The kernel knows
// (FUSE_SETXATTR_ACL_KILL_SGID), but libfuse does not pass it on.
bool acl_keeps_setgid(const Server& server, const Request& request, Inode& inode) {
  const Attributes attributes = server.volume.attributes(inode);
  if ((attributes.mode & S_ISGID) == 0 || request.context().uid == 0) return true;
  return is_in_group(request, attributes.gid);
}

// A size of 0 asks how much there is.
void reply_value(Request& request, std::string_view value, std::size_t size) {
  if (size == 0) return request.xattr_size(value.size());
  if (value.size() > size) return request.error(ERANGE);
  static_cast<void>(request.bytes(value.data(), value.size()));
}

}  // namespace

void setxattr(Server& server, Request& request, fuse_ino_t id, const char* name, const char* value, std::size_t size,
              int flags) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const bool may_keep_setid = name != acl::kAccessName || acl_keeps_setgid(server, request, **inode);
  request.status(server.volume.set_xattr(
      **inode, name, {value, size}, {.create = (flags & XATTR_CREATE) != 0, .replace = (flags & XATTR_REPLACE) != 0},
      request.caller(may_keep_setid)));
}

void getxattr(Server& server, Request& request, fuse_ino_t id, const char* name, std::size_t size) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const auto value = server.volume.get_xattr(**inode, name);
  if (!value) return request.error(value.error());
  reply_value(request, *value, size);
}

void listxattr(Server& server, Request& request, fuse_ino_t id, std::size_t size) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const auto names = server.volume.list_xattrs(**inode);
  if (!names) return request.error(names.error());
  std::string list;
  for (const std::string& name : *names) {
    // The kernel leaves it to the file system to hide these, see xattr(7).
    if (request.context().uid != 0 && name.starts_with("trusted.")) continue;
    list.append(name).push_back('\0');
  }
  reply_value(request, list, size);
}

void removexattr(Server& server, Request& request, fuse_ino_t id, const char* name) {
  const auto inode = server.inode(id);
  if (!inode) return request.error(inode.error());
  const Status removed = server.volume.remove_xattr(**inode, name);
  // Removing an ACL that is not there succeeds, as on other file systems.
  if (!removed && removed.error().code == ENODATA && is_acl(name)) return request.ok();
  request.status(removed);
}

}  // namespace plumb::fuse::handlers

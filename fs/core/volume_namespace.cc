// Names: lookup, create, link, unlink, rename, readdir. Each change is one transaction.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "fs/core/acl.h"
#include "fs/core/directory.h"
#include "fs/core/value_chain.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"

namespace plumb {
namespace {

bool is_directory(const media::Inode& inode) {
  return S_ISDIR(inode.mode);
}
std::uint8_t type_of(std::uint32_t mode) {
  return static_cast<std::uint8_t>(IFTODT(mode));
}
bool has(const media::Inode& inode, std::uint32_t flag) {
  return (inode.flags & flag) != 0;
}

// What a directory lets happen to its entries.
Status may_add(const media::Inode& directory) {
  if (!is_directory(directory)) return fail(ENOTDIR);
  if (directory.links == 0) return fail(ENOENT);
  if (has(directory, kInodeImmutable)) return fail(EPERM);
  return {};
}
Status may_remove(const media::Inode& directory, const media::Inode& victim) {
  if (!is_directory(directory)) return fail(ENOTDIR);
  if (has(directory, kInodeImmutable) || has(directory, kInodeAppend)) return fail(EPERM);
  if (has(victim, kInodeImmutable) || has(victim, kInodeAppend)) return fail(EPERM);
  return {};
}

void touch(media::Inode& inode, Timestamp t) {
  VolumeImpl::set_mtime(inode, t);
  VolumeImpl::set_ctime(inode, t);
}

// Flags a new inode takes from its directory.
std::uint32_t inherited_flags(const media::Inode& parent, std::uint32_t mode) {
  std::uint32_t flags = parent.flags & (kInodeNoatime | kInodeNodump | kInodeSync | kInodeDax);
  if (S_ISDIR(mode)) return flags | (parent.flags & (kInodeRtInherit | kInodeDirsync));
  if (!S_ISREG(mode)) return flags & (kInodeNoatime | kInodeNodump);
  if (has(parent, kInodeRtInherit)) flags |= kInodeRealtime;
  return flags;
}

Status set_target(Transaction& t, media::Inode& node, std::string_view target) {
  if (target.empty()) return fail(ENOENT);
  if (target.size() > kSymlinkMax) return fail(ENAMETOOLONG);
  node.size_bytes = target.size();
  if (target.size() <= media::kInlineBytes) {
    node.inline_target = 1;
    std::memcpy(node.inline_data.data(), target.data(), target.size());
    return {};
  }
  PLUMB_ASSIGN(node.data, write_chain(t, node.number, target));
  return {};
}

// Mode, owner and ACLs of a new inode, as the kernel's vfs and posix_acl_create would.
Status inherit(Transaction& t, const media::Inode& parent, const CreateRequest& request, media::Inode& node) {
  std::uint32_t mode = request.mode;
  node.uid = request.caller.uid;
  node.gid = request.caller.gid;
  if ((parent.mode & S_ISGID) != 0) {
    node.gid = parent.gid;
    if (S_ISDIR(mode)) mode |= S_ISGID;
  }
  node.flags = inherited_flags(parent, mode);
  if (S_ISLNK(mode)) {
    node.mode = S_IFLNK | 0777;
    return {};
  }
  Result<std::string> inherited = fail(ENODATA);
  if (parent.xattrs.block != 0) inherited = read_xattr(t.store(), parent, acl::kDefaultName);
  if (!inherited) {
    if (inherited.error().code != ENODATA) return tl::unexpected(inherited.error());
    node.mode = mode & ~(request.umask & 0777);
    return {};
  }
  PLUMB_ASSIGN(const acl::Acl directory_default, acl::parse(*inherited));
  const acl::Inherited result = acl::inherit(directory_default, mode);
  node.mode = result.mode;
  if (result.access) PLUMB_TRY(write_xattr(t, node, acl::kAccessName, *result.access, {}));
  if (result.default_acl) PLUMB_TRY(write_xattr(t, node, acl::kDefaultName, *result.default_acl, {}));
  return {};
}

}  // namespace

// A new inode with everything but a name. `parent` gives what is inherited; its lock is held.
static Result<media::Inode> make_inode(VolumeImpl& v, Transaction& t, const media::Inode& parent,
                                       const CreateRequest& request) {
  PLUMB_ASSIGN(const InodeNumber number, v.table.allocate(t));
  media::Inode node;
  std::memset(static_cast<void*>(&node), 0, sizeof node);
  node.magic = media::kInodeMagic;
  node.number = number.value;
  node.generation = t.sequence().value;  // grows for ever: a number that comes again has another generation
  node.rdev = S_ISCHR(request.mode) || S_ISBLK(request.mode) ? request.rdev : 0;
  node.links = S_ISDIR(request.mode) ? 2 : 1;
  const Timestamp now = VolumeImpl::now();
  touch(node, now);
  VolumeImpl::set_atime(node, now);
  node.btime = node.mtime;
  node.btime_ns = node.mtime_ns;
  node.parent = S_ISDIR(request.mode) ? parent.number.get() : 0;
  PLUMB_TRY(inherit(t, parent, request, node));
  if (S_ISLNK(request.mode)) PLUMB_TRY(set_target(t, node, request.symlink_target));
  return node;
}

static Status after_namespace_change(VolumeImpl& v, const media::Inode& directory) {
  const bool force = v.options.sync || v.options.dirsync || has(directory, kInodeDirsync) || has(directory, kInodeSync);
  return force ? v.store.journal().force_all() : Status{};
}

Result<FoundEntry> Volume::lookup(Inode& parent, std::string_view name) {
  VolumeImpl& v = *impl_;
  if (name.size() > kNameMax) return fail(ENAMETOOLONG);
  InodeNumber number;
  {
    SharedLock lock(parent.lock);
    if (!is_directory(parent.media)) return fail(ENOTDIR);
    if (name == "..") {
      number = InodeNumber(parent.media.parent);
    } else if (name == ".") {
      number = parent.number();
    } else {
      PLUMB_ASSIGN(const auto entry, find_dentry(v.store, parent.media, name));
      if (!entry) return fail(ENOENT);
      number = entry->inode;
    }
  }
  auto inode = v.cache.get(number);
  // Unlinked between the two steps: as if the lookup had come later. (Without a race it is damage; fsck says so.)
  if (!inode) return inode.error().code == ESTALE ? fail(ENOENT) : tl::unexpected(inode.error());
  FoundEntry found{std::move(*inode), {}};
  found.attributes = attributes(*found.inode);
  return found;
}

Result<FoundEntry> Volume::create(Inode& parent, std::string_view name, const CreateRequest& request) {
  VolumeImpl& v = *impl_;
  PLUMB_TRY(check_name(name));
  return v.with_space([&]() -> Result<FoundEntry> {
    MutexLock names(v.namespace_mutex);
    ExclusiveLock lock(parent.lock);
    PLUMB_TRY(may_add(parent.media));
    PLUMB_ASSIGN(const auto existing, find_dentry(v.store, parent.media, name));
    if (existing) return fail(EEXIST);
    if (v.store.read_only()) return fail(EROFS);
    const bool directory = S_ISDIR(request.mode);
    if (directory && parent.media.links >= kLinkMax) return fail(EMLINK);
    Transaction t(v.store);
    PLUMB_ASSIGN(media::Inode node, make_inode(v, t, parent.media, request));
    media::Inode next = parent.media;
    PLUMB_TRY(add_dentry(t, next, name, InodeNumber(node.number), type_of(node.mode)));
    if (directory) next.links = next.links + 1;
    touch(next, {static_cast<std::int64_t>(node.mtime.get()), node.mtime_ns});
    PLUMB_TRY(v.table.put(t, node));
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    VolumeImpl::adopt(parent, next, sequence, true);
    FoundEntry found{v.cache.add(node), attributes_of(node, v.store.block_size())};
    found.inode->last_sequence = sequence.value;
    found.inode->last_data_sequence = sequence.value;
    PLUMB_TRY(after_namespace_change(v, next));
    return found;
  });
}

Result<FoundEntry> Volume::create_unnamed(Inode& parent, const CreateRequest& request) {
  VolumeImpl& v = *impl_;
  return v.with_space([&]() -> Result<FoundEntry> {
    SharedLock lock(parent.lock);
    PLUMB_TRY(may_add(parent.media));
    Transaction t(v.store);
    PLUMB_ASSIGN(media::Inode node, make_inode(v, t, parent.media, request));
    node.links = 0;
    PLUMB_TRY(v.table.put(t, node));
    PLUMB_TRY(v.table.add_orphan(t, InodeNumber(node.number)));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    FoundEntry found{v.cache.add(node), attributes_of(node, v.store.block_size())};
    found.inode->last_sequence = sequence.value;
    found.inode->last_data_sequence = sequence.value;
    return found;
  });
}

Result<Attributes> Volume::link(Inode& inode, Inode& parent, std::string_view name) {
  VolumeImpl& v = *impl_;
  PLUMB_TRY(check_name(name));
  return v.with_space([&]() -> Result<Attributes> {
    MutexLock names(v.namespace_mutex);
    if (&inode == &parent) return fail(EPERM);
    ExclusiveLock parent_lock(parent.lock);
    OneMoreInodeLock lock(inode.lock);
    PLUMB_TRY(may_add(parent.media));
    if (is_directory(inode.media)) return fail(EPERM);
    if (has(inode.media, kInodeImmutable) || has(inode.media, kInodeAppend)) return fail(EPERM);
    if (inode.media.links >= kLinkMax) return fail(EMLINK);
    PLUMB_ASSIGN(const auto existing, find_dentry(v.store, parent.media, name));
    if (existing) return fail(EEXIST);
    Transaction t(v.store);
    media::Inode next_parent = parent.media;
    media::Inode next = inode.media;
    const bool was_unnamed = next.links == 0;
    next.links = next.links + 1;
    const Timestamp now = VolumeImpl::now();
    VolumeImpl::set_ctime(next, now);
    touch(next_parent, now);
    PLUMB_TRY(add_dentry(t, next_parent, name, inode.number(), type_of(next.mode)));
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_TRY(v.table.put(t, next_parent));
    // What a truncate has cut off of a leased file is still to go.
    const bool cut = inode.leases != nullptr && inode.leases->cut;
    if (was_unnamed && !cut) PLUMB_TRY(v.table.remove_orphan(t, inode.number()));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    VolumeImpl::adopt(inode, next, sequence, true);
    VolumeImpl::adopt(parent, next_parent, sequence, true);
    PLUMB_TRY(after_namespace_change(v, next_parent));
    return v.attributes_now(inode);
  });
}

// unlink and rmdir. Uses the reserve: deleting works on a full file system.
static Status remove_name(VolumeImpl& v, Inode& parent, std::string_view name, bool want_directory) {
  PLUMB_TRY(check_name(name));
  const Status status = v.with_space([&]() -> Status {
    InodeRef victim;
    MutexLock names(v.namespace_mutex);
    ExclusiveLock parent_lock(parent.lock);
    if (!is_directory(parent.media)) return fail(ENOTDIR);
    PLUMB_ASSIGN(const auto entry, find_dentry(v.store, parent.media, name));
    if (!entry) return fail(ENOENT);
    PLUMB_ASSIGN(victim, v.cache.get(entry->inode));
    if (victim.get() == &parent) return fail(EUCLEAN, "directory contains itself");
    OneMoreInodeLock lock(victim->lock);
    const bool directory = is_directory(victim->media);
    if (want_directory && !directory) return fail(ENOTDIR);
    if (!want_directory && directory) return fail(EISDIR);
    PLUMB_TRY(may_remove(parent.media, victim->media));
    if (directory && victim->media.size_bytes != 0) return fail(ENOTEMPTY);
    Transaction t(v.store, Transaction::Privilege::kMayUseReserve);
    media::Inode next_parent = parent.media;
    media::Inode next = victim->media;
    PLUMB_TRY(remove_dentry(t, next_parent, *entry));
    next.links = directory ? 0 : next.links - 1;
    if (directory) next_parent.links = next_parent.links - 1;
    const Timestamp now = VolumeImpl::now();
    VolumeImpl::set_ctime(next, now);
    touch(next_parent, now);
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_TRY(v.table.put(t, next_parent));
    if (next.links == 0) PLUMB_TRY(v.table.add_orphan(t, victim.number()));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    VolumeImpl::adopt(*victim, next, sequence, true);
    VolumeImpl::adopt(parent, next_parent, sequence, true);
    return after_namespace_change(v, next_parent);
  });
  v.throttle_reclaim();
  return status;
}

Status Volume::unlink(Inode& parent, std::string_view name) {
  return remove_name(*impl_, parent, name, false);
}
Status Volume::rmdir(Inode& parent, std::string_view name) {
  return remove_name(*impl_, parent, name, true);
}

Result<std::string> Volume::readlink(Inode& inode) {
  SharedLock lock(inode.lock);
  if (!S_ISLNK(inode.media.mode)) return fail(EINVAL);
  if (inode.media.inline_target == 0) return read_chain(impl_->store, inode.media.data.block, inode.media.size_bytes);
  return std::string(reinterpret_cast<const char*>(inode.media.inline_data.data()), inode.media.size_bytes);
}

Status Volume::read_directory(Inode& directory, std::uint64_t cookie,
                              const std::function<bool(const DirectoryEntry&)>& emit) {
  VolumeImpl& v = *impl_;
  PLUMB_TRY(v.touch_atime(directory));
  SharedLock lock(directory.lock);
  if (!is_directory(directory.media)) return fail(ENOTDIR);
  if (cookie < kCookieDot && !emit({".", directory.number(), DT_DIR, kCookieDot})) return {};
  if (cookie < kCookieDotDot && !emit({"..", InodeNumber(directory.media.parent), DT_DIR, kCookieDotDot})) return {};
  if (directory.media.links == 0) return {};
  const BTree tree(v.store, media::TreeKind::kDirectory, directory.number().value);
  return tree.visit(directory.media.data, std::max(cookie, kCookieDotDot) + 1,
                    [&](std::uint64_t key, std::span<const std::byte> record) {
                      const Dentry entry = parse_dentry(key, record);
                      return emit({entry.name, entry.inode, entry.type, key});
                    });
}

}  // namespace plumb

// Attributes, flags, extended attributes, and the size.
#include <sys/stat.h>

#include <algorithm>

#include "fs/core/acl.h"
#include "fs/core/extents.h"
#include "fs/core/volume_impl.h"
#include "fs/core/xattr.h"

namespace plumb {
namespace {

bool immutable(const media::Inode& inode) {
  return (inode.flags & kInodeImmutable) != 0;
}
bool append_only(const media::Inode& inode) {
  return (inode.flags & kInodeAppend) != 0;
}

Timestamp atime_of(const media::Inode& i) {
  return {static_cast<std::int64_t>(i.atime.get()), i.atime_ns};
}
Timestamp mtime_of(const media::Inode& i) {
  return {static_cast<std::int64_t>(i.mtime.get()), i.mtime_ns};
}
Timestamp ctime_of(const media::Inode& i) {
  return {static_cast<std::int64_t>(i.ctime.get()), i.ctime_ns};
}

bool atime_is_due(const media::Inode& inode, AtimeMode mode, Timestamp now) {
  if (mode == AtimeMode::kNoatime || (inode.flags & kInodeNoatime) != 0) return false;
  const Timestamp atime = atime_of(inode);
  if (mode == AtimeMode::kStrictatime) return atime != now;
  // relatime (mount(8)): not newer than the last change, or a day old.
  return atime <= mtime_of(inode) || atime <= ctime_of(inode) || now.seconds - atime.seconds >= 86400;
}

// chmod of an inode with an access ACL changes the ACL too (acl(5)).
Status chmod_acl(Transaction& t, media::Inode& next, std::uint32_t mode) {
  if (next.xattrs.block == 0) return {};
  const auto value = read_xattr(t.store(), next, acl::kAccessName);
  if (!value) return value.error().code == ENODATA ? Status{} : tl::unexpected(value.error());
  PLUMB_ASSIGN(acl::Acl entries, acl::parse(*value));
  acl::apply_chmod(entries, mode);
  return write_xattr(t, next, acl::kAccessName, acl::serialize(entries), {});
}

// The attributes but for the size.
Status apply(Transaction& t, media::Inode& next, const SetAttributes& set, const Caller& caller, Timestamp now) {
  if (set.uid) next.uid = *set.uid;
  if (set.gid) next.gid = *set.gid;
  if (set.kill_setid && !S_ISDIR(next.mode)) next.mode = VolumeImpl::without_setid(next.mode);
  if (set.size_bytes || set.uid || set.gid) PLUMB_TRY(VolumeImpl::drop_capability(t, next));
  if (set.mode) {
    std::uint32_t mode = (next.mode & S_IFMT) | (*set.mode & 07777);
    (void)caller;  // set-gid of a foreign group is the kernel's to refuse: only it knows all groups
    next.mode = mode;
    PLUMB_TRY(chmod_acl(t, next, mode));
  }
  if (set.atime_now) VolumeImpl::set_atime(next, now);
  if (set.mtime_now) VolumeImpl::set_mtime(next, now);
  if (set.atime) VolumeImpl::set_atime(next, *set.atime);
  if (set.mtime) VolumeImpl::set_mtime(next, *set.mtime);
  VolumeImpl::set_ctime(next, set.ctime ? *set.ctime : now);
  return {};
}

Status may_change(const media::Inode& inode, const SetAttributes& set) {
  if (immutable(inode)) return fail(EPERM);
  const bool only_times_now = !set.mode && !set.uid && !set.gid && !set.size_bytes && !set.atime && !set.mtime;
  if (append_only(inode) && !only_times_now) return fail(EPERM);
  if (set.size_bytes) {
    if (S_ISDIR(inode.mode)) return fail(EISDIR);
    if (!S_ISREG(inode.mode)) return fail(EINVAL);
    if (*set.size_bytes > kMaxFileSize) return fail(EFBIG);
  }
  return {};
}

}  // namespace

std::uint32_t VolumeImpl::without_setid(std::uint32_t mode) {
  mode &= ~static_cast<std::uint32_t>(S_ISUID);
  // set-gid without group execute once meant mandatory locking: it stays (chown(2)).
  if ((mode & S_IXGRP) != 0) mode &= ~static_cast<std::uint32_t>(S_ISGID);
  return mode;
}

Status VolumeImpl::drop_capability(Transaction& t, media::Inode& next) {
  if (next.xattrs.block == 0) return {};
  const Status erased = erase_xattr(t, next, kCapabilityName);
  return !erased && erased.error().code == ENODATA ? Status{} : erased;
}

Status VolumeImpl::touch_atime(Inode& inode) {
  if (store.read_only() || options.atime == AtimeMode::kNoatime) return {};
  const Timestamp t = now();
  {
    SharedLock lock(inode.lock);
    if (!atime_is_due(inode.media, options.atime, t)) return {};
  }
  ExclusiveLock lock(inode.lock);
  if (!atime_is_due(inode.media, options.atime, t) || inode.media.links == 0) return {};
  Transaction transaction(store);
  media::Inode next = inode.media;
  set_atime(next, t);
  PLUMB_TRY(table.put(transaction, next));
  PLUMB_ASSIGN(const Sequence sequence, transaction.commit());
  adopt(inode, next, sequence, false);
  return {};
}

Result<bool> VolumeImpl::shrink(Transaction& t, Inode& inode, media::Inode next, std::uint64_t size_bytes) {
  const std::uint64_t first = first_block_beyond(inode.media, size_bytes);
  inode.tail.add(size_bytes, inode.media.size_bytes);  // the last unit keeps bytes beyond the new end
  next.size_bytes = size_bytes;
  const bool leased = inode.leases != nullptr;
  auto step = [&]() -> Result<bool> {
    // Leased blocks stay until the last lease ends; a crash before that finds the inode on the orphan list.
    const bool keep = leased && allocated_end(inode.extents) > first;
    PLUMB_ASSIGN(const bool all,
                 keep ? Result<bool>(false)
                      : remove_extents(t, next, inode.extents, FileBlock(first), FileBlock(~std::uint64_t{0}), 256));
    PLUMB_TRY(settle_extents(t, next, inode.extents));
    PLUMB_TRY(table.put(t, next));
    // Too many extents for one record: the orphan list finishes the work after a crash.
    if (!all)
      PLUMB_TRY(table.add_orphan(t, inode.number()));
    else if (next.links != 0)
      PLUMB_TRY(table.remove_orphan(t, inode.number()));  // listed by an earlier truncate that failed half way
    return all;
  };
  const Result<bool> all = step();
  const Result<Sequence> committed = all ? t.commit() : Result<Sequence>(tl::unexpected(all.error()));
  if (!committed) {
    forget_extents(inode);
    return tl::unexpected(committed.error());
  }
  adopt(inode, next, *committed, true);
  if (leased && !*all) inode.leases->cut = true;
  return *all;
}

Attributes VolumeImpl::attributes_now(const Inode& inode) const {
  Attributes attributes = attributes_of(inode.media, store.block_size());
  if (inode.leases == nullptr) return attributes;
  attributes.changes_directly = inode.leases->has_writers();
  // What a truncate has cut off and leases keep is not the file's any more.
  if (inode.leases->cut && inode.extents_loaded) {
    const std::uint64_t first = first_block_beyond(inode.media, inode.media.size_bytes);
    for (auto it = inode.extents.rbegin(); it != inode.extents.rend(); ++it) {
      const std::uint64_t end = it->first + it->second.length;
      if (end <= first) break;
      attributes.sectors -= (end - std::max(first, it->first)) * (store.block_size() / 512);
    }
  }
  return attributes;
}

Attributes Volume::attributes(Inode& inode) {
  (void)impl_->refresh_times(inode);  // a full log does not fail a stat
  SharedLock lock(inode.lock);
  return impl_->attributes_now(inode);
}

Result<Attributes> Volume::set_attributes(Inode& inode, const SetAttributes& set, const Caller& caller) {
  VolumeImpl& v = *impl_;
  auto result = v.with_space([&]() -> Result<Attributes> {
    ExclusiveLock lock(inode.lock);
    PLUMB_TRY(may_change(inode.media, set));
    if (v.store.read_only()) return fail(EROFS);
    PLUMB_TRY(v.take_write_time(inode));  // times that are set come after the stores so far
    const Timestamp now = VolumeImpl::now();
    const std::uint64_t old_size = inode.media.size_bytes;
    const bool smaller = set.size_bytes && *set.size_bytes <= inode.media.size_bytes;
    if (set.size_bytes && !smaller) PLUMB_TRY(v.prepare_extension(inode, *set.size_bytes));
    media::Inode next = inode.media;
    SetAttributes effective = set;
    // truncate(2) changes mtime also when the size stays; FUSE does not always ask for it.
    if (set.size_bytes && !set.mtime) effective.mtime_now = true;
    if (smaller) PLUMB_TRY(load_extents(v.store, inode));
    bool all_cut = true;
    {
      Transaction t(v.store, smaller ? Transaction::Privilege::kMayUseReserve : Transaction::Privilege::kOrdinary);
      PLUMB_TRY(apply(t, next, effective, caller, now));
      if (smaller) {
        // In one record with the rest: `next` names xattr blocks as this transaction leaves them (capability, ACL).
        PLUMB_ASSIGN(all_cut, v.shrink(t, inode, next, *set.size_bytes));
      } else {
        if (set.size_bytes) next.size_bytes = *set.size_bytes;
        PLUMB_TRY(v.table.put(t, next));
        PLUMB_ASSIGN(const Sequence sequence, t.commit());
        VolumeImpl::adopt(inode, next, sequence, set.size_bytes.has_value());
      }
    }
    if (inode.leases != nullptr && set.mtime) v.leases.forget_write_time(inode.leases->slot);
    if (inode.leases != nullptr && smaller)
      PLUMB_TRY(v.zero_cut(inode, *set.size_bytes, old_size));
    else if (!all_cut)
      PLUMB_TRY(v.finish_truncate(inode));
    return v.attributes_now(inode);
  });
  if (result && (v.options.sync || (result->flags & kInodeSync) != 0)) PLUMB_TRY(v.store.journal().force_all());
  if (set.size_bytes) v.throttle_reclaim();
  return result;
}

// What every change of an inode's attributes ends with: on a sync mount, and for an inode with the sync flag, it is
// durable.
static Status end_of_change(VolumeImpl& v, Inode& inode, const Status& changed) {
  if (!changed || !(v.options.sync || (inode.flags_hint() & kInodeSync) != 0)) return changed;
  return v.store.journal().force(Sequence(inode.last_sequence.load(std::memory_order_acquire)));
}

Status Volume::set_flags(Inode& inode, std::uint32_t flags) {
  VolumeImpl& v = *impl_;
  const Status changed = v.with_space([&]() -> Status {
    ExclusiveLock lock(inode.lock);
    const std::uint32_t old = inode.media.flags;
    const std::uint32_t wanted = (old & ~kInodeUserFlags) | (flags & kInodeUserFlags);
    if ((wanted & (kInodeRealtime | kInodeRtInherit) & ~old) != 0 && v.superblock.device_count() < 2)
      return fail(EINVAL, "this file system has no realtime device");
    if (((wanted ^ old) & kInodeRealtime) != 0 && (inode.media.blocks != 0 || !S_ISREG(inode.media.mode)))
      return fail(EINVAL, "the realtime flag changes only while a file has no blocks");
    if (((wanted ^ old) & kInodeRealtime) != 0 && inode.leases != nullptr)
      return fail(EBUSY, "the realtime flag does not change while programs map the file");
    if ((wanted & ~old & kInodeRtInherit) != 0 && !S_ISDIR(inode.media.mode))
      return fail(EINVAL, "only directories hand the realtime flag down");
    if (wanted == old) return {};
    Transaction t(v.store);
    media::Inode next = inode.media;
    next.flags = wanted;
    VolumeImpl::set_ctime(next, VolumeImpl::now());
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    VolumeImpl::adopt(inode, next, sequence, false);
    return {};
  });
  return end_of_change(v, inode, changed);
}

Result<std::string> Volume::get_xattr(Inode& inode, std::string_view name) {
  SharedLock lock(inode.lock);
  return read_xattr(impl_->store, inode.media, name);
}

Result<std::vector<std::string>> Volume::list_xattrs(Inode& inode) {
  SharedLock lock(inode.lock);
  return xattr_names(impl_->store, inode.media);
}

// An access ACL sets the permission bits, and is not kept when the bits say it all (acl(5)).
static Status set_acl(Transaction& t, media::Inode& next, std::string_view name, std::string_view value,
                      XattrSetFlags flags, const Caller& caller) {
  PLUMB_ASSIGN(const acl::Acl entries, acl::parse(value));
  if (S_ISLNK(next.mode)) return fail(EOPNOTSUPP);
  if (name == acl::kDefaultName) {
    if (!S_ISDIR(next.mode)) return entries.empty() ? Status{} : fail(EACCES);
    if (!entries.empty()) return write_xattr(t, next, name, value, flags);
    const Status removed = erase_xattr(t, next, name);
    return removed || removed.error().code == ENODATA ? Status{} : removed;
  }
  std::uint32_t mode = next.mode;
  if (!caller.may_keep_setid) mode &= ~static_cast<std::uint32_t>(S_ISGID);  // not of the file's group
  const bool minimal = entries.empty() || acl::equivalent_mode(entries, mode);
  next.mode = mode;
  if (!minimal) return write_xattr(t, next, name, value, flags);
  const Status removed = erase_xattr(t, next, name);
  return removed || removed.error().code == ENODATA ? Status{} : removed;
}

// xattr(7): these namespaces and no others.
static Status check_xattr_name(std::string_view name) {
  if (name == acl::kAccessName || name == acl::kDefaultName) return {};
  for (const std::string_view prefix : {"user.", "trusted.", "security."})
    if (name.starts_with(prefix)) return name.size() > prefix.size() ? Status{} : fail(EINVAL);
  return fail(EOPNOTSUPP);
}

Status Volume::set_xattr(Inode& inode, std::string_view name, std::string_view value, XattrSetFlags flags,
                         const Caller& caller) {
  VolumeImpl& v = *impl_;
  PLUMB_TRY(check_xattr_name(name));
  const Status changed = v.with_space([&]() -> Status {
    ExclusiveLock lock(inode.lock);
    if (immutable(inode.media) || append_only(inode.media)) return fail(EPERM);
    Transaction t(v.store);
    media::Inode next = inode.media;
    if (name == acl::kAccessName || name == acl::kDefaultName)
      PLUMB_TRY(set_acl(t, next, name, value, flags, caller));
    else
      PLUMB_TRY(write_xattr(t, next, name, value, flags));
    VolumeImpl::set_ctime(next, VolumeImpl::now());
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    if (inode.leases != nullptr && name == VolumeImpl::kCapabilityName) inode.leases->has_capability = true;
    VolumeImpl::adopt(inode, next, sequence, false);
    return {};
  });
  return end_of_change(v, inode, changed);
}

Status Volume::remove_xattr(Inode& inode, std::string_view name) {
  VolumeImpl& v = *impl_;
  const Status changed = v.with_space([&]() -> Status {
    ExclusiveLock lock(inode.lock);
    if (immutable(inode.media) || append_only(inode.media)) return fail(EPERM);
    Transaction t(v.store, Transaction::Privilege::kMayUseReserve);
    media::Inode next = inode.media;
    PLUMB_TRY(erase_xattr(t, next, name));
    VolumeImpl::set_ctime(next, VolumeImpl::now());
    PLUMB_TRY(v.table.put(t, next));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    VolumeImpl::adopt(inode, next, sequence, false);
    return {};
  });
  return end_of_change(v, inode, changed);
}

Result<InodeRef> Volume::inode_by_number(InodeNumber number, std::uint64_t generation) {
  PLUMB_ASSIGN(InodeRef inode, impl_->cache.get(number));
  SharedLock lock(inode->lock);
  if (inode->media.links == 0 || (generation != 0 && inode->media.generation != generation)) return fail(ESTALE);
  return inode;
}

}  // namespace plumb

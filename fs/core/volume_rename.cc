// rename(2): one transaction whatever it moves, replaces or exchanges.
#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "fs/core/directory.h"
#include "fs/core/volume_impl.h"

namespace plumb {
namespace {

bool is_directory(const media::Inode& inode) {
  return S_ISDIR(inode.mode);
}
bool locked_down(const media::Inode& inode) {
  return (inode.flags & (kInodeImmutable | kInodeAppend)) != 0;
}

class Rename {
 public:
  Rename(VolumeImpl& v, Inode& from, std::string_view from_name, Inode& to, std::string_view to_name, RenameFlags flags,
         const Caller& caller)
      : v_(v), from_(from), to_(to), from_name_(from_name), to_name_(to_name), flags_(flags), caller_(caller) {}

  // Under the namespace lock: names do not move while this runs.
  Status run() {
    PLUMB_TRY(find());
    if (source_.get() == target_.get()) return {};  // two names of one inode: nothing happens (rename(2))
    PLUMB_TRY(check_ancestors());
    // Only the holder of the namespace lock takes several inode locks, so their order is free; each once.
    std::vector<Inode*> all{&from_, &to_, source_.get()};
    if (target_) all.push_back(target_.get());
    std::sort(all.begin(), all.end());
    all.erase(std::unique(all.begin(), all.end()), all.end());
    std::vector<std::unique_ptr<OneMoreInodeLock>> locks;
    for (Inode* inode : all) locks.push_back(std::make_unique<OneMoreInodeLock>(inode->lock));
    PLUMB_TRY(check_rules());
    return commit();
  }

 private:
  Status find() {
    {
      SharedLock lock(from_.lock);
      if (!is_directory(from_.media)) return fail(ENOTDIR);
      PLUMB_ASSIGN(auto entry, find_dentry(v_.store, from_.media, from_name_));
      if (!entry) return fail(ENOENT);
      source_entry_ = std::move(*entry);
    }
    {
      SharedLock lock(to_.lock);
      if (!is_directory(to_.media)) return fail(ENOTDIR);
      if (to_.media.links == 0) return fail(ENOENT);
      PLUMB_ASSIGN(target_entry_, find_dentry(v_.store, to_.media, to_name_));
    }
    if (flags_.noreplace && target_entry_) return fail(EEXIST);
    if (flags_.exchange && !target_entry_) return fail(ENOENT);
    PLUMB_ASSIGN(source_, v_.cache.get(source_entry_.inode));
    if (target_entry_) {
      PLUMB_ASSIGN(target_, v_.cache.get(target_entry_->inode));
    }
    return {};
  }

  Result<bool> is_below(InodeNumber directory, InodeNumber ancestor) {
    for (int depth = 0; depth < 1'000'000; ++depth) {
      if (directory == ancestor) return true;
      if (directory == kRootInode) return false;
      PLUMB_ASSIGN(const InodeRef inode, v_.cache.get(directory));
      SharedLock lock(inode->lock);
      directory = InodeNumber(inode->media.parent);
    }
    return fail(ELOOP);
  }

  // A directory does not go below itself, and a directory is not replaced by something below it.
  Status check_ancestors() {
    PLUMB_ASSIGN(const bool inside_source, is_below(to_.number(), source_.number()));
    if (inside_source) return fail(EINVAL);
    if (!target_) return {};
    PLUMB_ASSIGN(const bool inside_target, is_below(from_.number(), target_.number()));
    if (inside_target) return fail(flags_.exchange ? EINVAL : ENOTEMPTY);
    return {};
  }

  Status check_rules() {
    if (locked_down(from_.media) || locked_down(source_->media)) return fail(EPERM);
    if ((to_.media.flags & kInodeImmutable) != 0) return fail(EPERM);
    if (target_) {
      if (locked_down(target_->media) || (to_.media.flags & kInodeAppend) != 0) return fail(EPERM);
      if (!flags_.exchange) {
        if (is_directory(source_->media) && !is_directory(target_->media)) return fail(ENOTDIR);
        if (!is_directory(source_->media) && is_directory(target_->media)) return fail(EISDIR);
        if (is_directory(target_->media) && target_->media.size_bytes != 0) return fail(ENOTEMPTY);
      }
    }
    return {};
  }

  // The copy of an inode that this transaction commits; one for each inode however many roles it has.
  media::Inode& next(Inode& inode) { return nexts_.try_emplace(&inode, inode.media).first->second; }

  Status change_links() {
    if (&from_ == &to_) {
      if (target_ && !flags_.exchange && is_directory(target_->media)) next(to_).links = next(to_).links - 1;
      return {};
    }
    const int source_is = is_directory(source_->media) ? 1 : 0;
    const int target_is = target_ && is_directory(target_->media) ? 1 : 0;
    const int from_delta = -source_is + (flags_.exchange ? target_is : 0);
    const int to_delta = source_is - target_is;
    next(from_).links = static_cast<std::uint32_t>(static_cast<int>(next(from_).links.get()) + from_delta);
    next(to_).links = static_cast<std::uint32_t>(static_cast<int>(next(to_).links.get()) + to_delta);
    if (next(from_).links > kLinkMax || next(to_).links > kLinkMax) return fail(EMLINK);
    if (source_is != 0) next(*source_).parent = to_.number().value;
    if (target_is != 0 && flags_.exchange) next(*target_).parent = from_.number().value;
    return {};
  }

  Status change_entries(Transaction& t) {
    if (flags_.exchange) {
      PLUMB_TRY(redirect_dentry(t, next(to_), *target_entry_, source_.number(), source_entry_.type));
      return redirect_dentry(t, next(from_), source_entry_, target_.number(), target_entry_->type);
    }
    if (target_entry_)
      PLUMB_TRY(redirect_dentry(t, next(to_), *target_entry_, source_.number(), source_entry_.type));
    else
      PLUMB_TRY(add_dentry(t, next(to_), to_name_, source_.number(), source_entry_.type));
    if (!flags_.whiteout) return remove_dentry(t, next(from_), source_entry_);
    PLUMB_ASSIGN(const InodeNumber whiteout, make_whiteout(t));
    return redirect_dentry(t, next(from_), source_entry_, whiteout, DT_CHR);
  }

  // A character device 0:0 in place of the old name (overlayfs).
  Result<InodeNumber> make_whiteout(Transaction& t) {
    PLUMB_ASSIGN(const InodeNumber number, v_.table.allocate(t));
    media::Inode node;
    std::memset(static_cast<void*>(&node), 0, sizeof node);
    node.magic = media::kInodeMagic;
    node.number = number.value;
    node.generation = t.sequence().value;
    node.mode = S_IFCHR;
    node.links = 1;
    node.uid = caller_.uid;
    node.gid = caller_.gid;
    const Timestamp now = VolumeImpl::now();
    VolumeImpl::set_atime(node, now);
    VolumeImpl::set_mtime(node, now);
    VolumeImpl::set_ctime(node, now);
    node.btime = node.ctime;
    node.btime_ns = node.ctime_ns;
    PLUMB_TRY(v_.table.put(t, node));
    return number;
  }

  Status commit() {
    Transaction t(v_.store, target_ && !flags_.exchange ? Transaction::Privilege::kMayUseReserve
                                                        : Transaction::Privilege::kOrdinary);
    PLUMB_TRY(change_links());
    PLUMB_TRY(change_entries(t));
    const Timestamp now = VolumeImpl::now();
    for (Inode* directory : {&from_, &to_}) {
      VolumeImpl::set_mtime(next(*directory), now);
      VolumeImpl::set_ctime(next(*directory), now);
    }
    VolumeImpl::set_ctime(next(*source_), now);
    bool orphaned = false;
    if (target_) {
      VolumeImpl::set_ctime(next(*target_), now);
      if (!flags_.exchange) {
        next(*target_).links = is_directory(target_->media) ? 0 : target_->media.links - 1;
        orphaned = next(*target_).links == 0;
      }
    }
    for (auto& [inode, media] : nexts_) PLUMB_TRY(v_.table.put(t, media));
    if (orphaned) PLUMB_TRY(v_.table.add_orphan(t, target_.number()));
    PLUMB_ASSIGN(const Sequence sequence, t.commit());
    for (auto& [inode, media] : nexts_) VolumeImpl::adopt(*inode, media, sequence, true);
    return {};
  }

  VolumeImpl& v_;
  Inode& from_;
  Inode& to_;
  std::string_view from_name_, to_name_;
  RenameFlags flags_;
  Caller caller_;
  Dentry source_entry_;
  std::optional<Dentry> target_entry_;
  InodeRef source_, target_;
  std::map<Inode*, media::Inode> nexts_;
};

}  // namespace

Status Volume::rename(Inode& from, std::string_view from_name, Inode& to, std::string_view to_name, RenameFlags flags,
                      const Caller& caller) {
  VolumeImpl& v = *impl_;
  PLUMB_TRY(check_name(from_name));
  PLUMB_TRY(check_name(to_name));
  if (flags.exchange && (flags.noreplace || flags.whiteout)) return fail(EINVAL);
  PLUMB_TRY(v.with_space([&]() -> Status {
    // The operation holds the last references to what it replaced until the locks are gone.
    Rename operation(v, from, from_name, to, to_name, flags, caller);
    MutexLock names(v.namespace_mutex);
    return operation.run();
  }));
  const std::uint32_t sync_flags = (from.flags_hint() | to.flags_hint()) & (kInodeSync | kInodeDirsync);
  const bool force = v.options.sync || v.options.dirsync || sync_flags != 0;
  return force ? v.store.journal().force_all() : Status{};
}

}  // namespace plumb

#include "fs/core/volume.h"

#include <sys/stat.h>
#include <time.h>

#include <cstring>

#include "fs/core/volume_impl.h"
#include "fs/media/uuid_text.h"
#include "pmem/unreadable.h"

namespace plumb {
void ReadPin::release() {
  if (token_ != nullptr) Epochs::unpin(token_);
  token_ = nullptr;
}

// ---- VolumeImpl: life ----

VolumeImpl::VolumeImpl(const Superblock& sb, const MountOptions& mount_options)
    : options(mount_options),
      store(sb, mount_options.read_only),
      superblock(store.superblock()),
      table(store),
      leases(superblock),
      cache(store, table, [this](InodeRef inode) { queue_deletion(std::move(inode)); }) {}

VolumeImpl::~VolumeImpl() {
  stop_threads();
  cache.shut_down();
  root = InodeRef();
  std::deque<InodeRef> rest;
  {
    MutexLock lock(queue_mutex_);
    rest.swap(deletions_);
  }
}

Status VolumeImpl::open() {
  if (!options.read_only) PLUMB_TRY(superblock.mend_copies());
  store.journal().set_deferred(options.writeback == Writeback::kDeferred);
  PLUMB_ASSIGN(const Journal::Recovery recovery, store.open());
  if (!recovery.was_clean && !options.read_only) {
    PLUMB_TRY(superblock.count_unsafe_shutdown());
    // A daemon that died knew which ranges were dirty; nobody does now. An fsync from here on must be able to rely on
    // what was stored before.
    for (const DeviceRole role : store.roles()) {
      pmem::Device& device = store.device(role);
      if (device.is_memory() && !recovery.was_deferred) continue;
      // No flush makes anything durable there, and this one would give a sparse file on tmpfs all its pages.
      if (device.info().is_volatile) continue;
      // What cannot be read is lost, not waiting.
      PLUMB_TRY(pmem::flush_readable(device, 0, superblock.entry(role).size_bytes));
      PLUMB_TRY(device.drain());
    }
  }
  store.journal().set_deferred(options.writeback == Writeback::kDeferred);  // with the next header
  PLUMB_TRY(table.load());
  PLUMB_ASSIGN(root, cache.get(kRootInode));
  if ((root->media.mode & S_IFMT) != S_IFDIR) return fail(EUCLEAN, "the root inode is not a directory");
  if (options.read_only) return {};
  leases.open(store.journal().epoch(), options.sync);
  if (options.has_stale_clients && options.has_stale_clients(leases.epoch())) {
    stale_clients_ = true;
    notify("programs still map files of an earlier mount: deleted blocks stay until they end");
  }
  std::vector<InodeNumber> orphans;
  {
    Transaction t(store);
    orphans = table.orphans(t);
  }
  for (const InodeNumber number : orphans) {
    PLUMB_ASSIGN(InodeRef inode, cache.get(number));
    if (inode->media.links == 0) continue;  // dropping the reference queues it
    ExclusiveLock lock(inode->lock);
    const Status finished = finish_truncate(*inode);
    // Without space the orphan list keeps it for later; the file is short already.
    if (!finished && finished.error().code != ENOSPC) return finished;
  }
  if (options.background_threads) {
    reclaim_thread_ = std::thread([this] { reclaim_loop(); });
    timer_thread_ = std::thread([this] { timer_loop(); });
  }
  return {};
}

void VolumeImpl::stop_threads() {
  {
    MutexLock lock(queue_mutex_);
    stop_ = true;
  }
  queue_condition_.notify_all();
  timer_condition_.notify_all();
  if (reclaim_thread_.joinable()) reclaim_thread_.join();
  if (timer_thread_.joinable()) timer_thread_.join();
}

Status VolumeImpl::close() {
  if (closed_) return {};
  stop_threads();
  if (options.read_only) return {};
  PLUMB_TRY(write_back_all());
  PLUMB_TRY(run_reclaim());
  // What reclaim has met. Without space for the list it stays for whoever meets it next; see unclean_windows().
  (void)list_faults();
  if (!store.unclean_windows()) {
    // No operation is in flight, and whatever was abandoned has been zeroed: nothing is hidden in the windows.
    Transaction t(store, Transaction::Privilege::kMayUseReserve);
    PLUMB_ASSIGN(media::State * state, t.modify_state());
    for (media::WindowSlot& slot : state->windows) slot = media::WindowSlot{};
    for (const DeviceRole role : store.roles()) store.allocator(role).close_windows();
    PLUMB_TRY(t.commit());
  }
  PLUMB_TRY(store.close());
  closed_ = true;
  return {};
}

bool VolumeImpl::make_space() {
  if (store.read_only()) return false;
  auto free_units = [this] {
    std::uint64_t sum = 0;
    for (const DeviceRole role : store.roles()) sum += store.allocator(role).free_blocks();
    return sum;
  };
  const std::uint64_t before = free_units();
  const auto extended =
      store.extend_zeroed(DeviceRole::kMain);  // the realtime device's moves as its space is asked for
  const Status reclaimed = run_reclaim();
  return (extended && *extended) || (reclaimed && free_units() > before);
}

Timestamp VolumeImpl::now() {
  // Coarse, as the kernel's own file times: within one tick a write changes no time and needs no record.
  timespec ts{};
  clock_gettime(CLOCK_REALTIME_COARSE, &ts);
  return {ts.tv_sec, static_cast<std::uint32_t>(ts.tv_nsec)};
}

void VolumeImpl::set_mtime(media::Inode& inode, Timestamp t) {
  inode.mtime = static_cast<std::uint64_t>(t.seconds);
  inode.mtime_ns = t.nanoseconds;
}
void VolumeImpl::set_ctime(media::Inode& inode, Timestamp t) {
  inode.ctime = static_cast<std::uint64_t>(t.seconds);
  inode.ctime_ns = t.nanoseconds;
}
void VolumeImpl::set_atime(media::Inode& inode, Timestamp t) {
  inode.atime = static_cast<std::uint64_t>(t.seconds);
  inode.atime_ns = t.nanoseconds;
}

void VolumeImpl::adopt(Inode& inode, const media::Inode& next, Sequence sequence, bool data) {
  inode.media = next;
  if (inode.leases != nullptr) inode.leases->publish(next);
  inode.last_sequence.store(sequence.value, std::memory_order_release);
  if (data) inode.last_data_sequence.store(sequence.value, std::memory_order_release);
}

// ---- Volume: life and statistics ----

Volume::Volume(std::unique_ptr<VolumeImpl> impl) : impl_(std::move(impl)) {}
Volume::~Volume() = default;

Result<std::unique_ptr<Volume>> Volume::mount(const Members& members, const MountOptions& options) {
  PLUMB_ASSIGN(const Superblock superblock, Superblock::read(members));
  pmem::Device& main = members.main;
  MountOptions effective = options;
  if (main.info().read_only || (members.realtime != nullptr && members.realtime->info().read_only))
    effective.read_only = true;
  if ((superblock.media().ro_compat & ~media::kRoCompatKnown) != 0 && !effective.read_only)
    return fail(ENOTSUP, main.info().path + ": features that this program can only read; mount with -o ro");
  auto impl = std::make_unique<VolumeImpl>(superblock, effective);
  PLUMB_TRY(impl->open());
  return std::unique_ptr<Volume>(new Volume(std::move(impl)));
}

Status Volume::unmount() {
  return impl_->close();
}

InodeRef Volume::root() {
  return impl_->root;
}
bool Volume::read_only() const {
  return impl_->store.read_only();
}
Status Volume::run_reclaim() {
  return impl_->run_reclaim();
}

FsStatistics Volume::statistics(Inode* inode) {
  VolumeImpl& v = *impl_;
  const Superblock& sb = v.superblock;
  (void)v.run_deletions();  // what was deleted counts as free at once; an error leaves it counted as used
  DeviceRole role = DeviceRole::kMain;
  if (inode != nullptr && sb.device_count() > 1 && (inode->flags_hint() & (kInodeRealtime | kInodeRtInherit)) != 0)
    role = DeviceRole::kRealtime;
  const bool stands_still = v.clients_remain();
  FsStatistics s;
  s.block_size_bytes = sb.block_size();
  // For its lock: a batch of reclaim moves blocks from "pending" to "free" in one commit, and nobody sees them in
  // neither.
  const Transaction steady(v.store);
  s.blocks = sb.blocks(role) - sb.entry(role).data_start;
  // What waits in the reclaim queue is free to the user: an allocation that needs it waits for it. Not available while
  // programs of an earlier mount hold reclaim up.
  auto free_of = [&v, &sb](DeviceRole r) {
    return v.store.allocator(r).free_blocks() * sb.unit_blocks(r) + v.store.pending_blocks(r);
  };
  const std::uint64_t main_free = free_of(DeviceRole::kMain) + v.store.reclaim_nodes();
  const std::uint64_t reserve = v.store.allocator(DeviceRole::kMain).reserve_blocks();
  auto available = [&v, stands_still](DeviceRole r, std::uint64_t free, std::uint64_t kept) {
    const std::uint64_t held = kept + (stands_still ? v.store.pending_blocks(r) : 0);
    return free > held ? free - held : 0;
  };
  const std::uint64_t main_available = available(DeviceRole::kMain, main_free, reserve);
  s.blocks_free = role == DeviceRole::kMain ? main_free : free_of(role);
  s.blocks_available = role == DeviceRole::kMain ? main_available : available(role, s.blocks_free, 0);
  s.inodes_free = main_available * sb.inodes_per_block();
  s.inodes = v.table.used() + s.inodes_free;
  std::memcpy(&s.fsid, sb.media().uuid.data(), sizeof s.fsid);
  return s;
}

VolumeStatistics Volume::counters() {
  VolumeImpl& v = *impl_;
  VolumeStatistics s;
  s.uuid = media::uuid_text(v.superblock.media().uuid);
  const auto& label = v.superblock.media().label;
  s.label.assign(label.data(), strnlen(label.data(), label.size()));
  for (std::size_t i = 0; i < v.superblock.device_count(); ++i) {
    const auto role = static_cast<DeviceRole>(i);
    DeviceStatistics d = statistics_of(v.superblock.device(role), v.writeback_counters[i]);
    d.role = role == DeviceRole::kMain ? "main" : "realtime";
    d.blocks = v.superblock.blocks(role);
    d.blocks_free = v.store.allocator(role).free_blocks() * v.superblock.unit_blocks(role);
    d.dirty_bytes = v.dirty_bytes(role);
    d.bad_blocks = v.store.bad_blocks().count(role);
    s.devices.push_back(std::move(d));
  }
  s.transactions = v.store.counters().transactions;
  s.log_bytes = v.store.journal().counters().bytes;
  s.log_forces = v.store.journal().counters().forces;
  s.checkpoints = v.store.journal().counters().checkpoints;
  for (const DeviceRole role : v.store.roles()) s.reclaim_pending_blocks += v.store.pending_blocks(role);
  s.windows_opened = v.store.counters().windows_opened;
  s.buffers = v.store.buffers().size();
  s.inodes_in_core = v.cache.size();
  s.unsafe_shutdowns = v.superblock.media().unsafe_shutdowns;
  s.leased_inodes = v.leases.leased_inodes();
  s.stale_clients = v.stale_clients_.load(std::memory_order_acquire);
  s.read_only = v.store.read_only();
  return s;
}

}  // namespace plumb

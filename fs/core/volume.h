// A mounted plumbfs: the operations of a POSIX file system on a device, without FUSE.
//
// Every operation is atomic across a crash and, on a memory device, durable when it returns (writeback=immediate).
// Bytes in, Result out; the caller (fs/fuse, tools, tests) logs and replies.
//
// Who checks permissions: the kernel (default_permissions). The volume enforces what the kernel cannot: immutable and
// append flags, set-id clearing, ACL inheritance, sticky/set-gid inheritance of new inodes, limits. Sticky-bit deletion
// rules are the kernel's.
//
// Inode lifetime: an InodeRef keeps the in-core inode, also after the last link is gone. When the last InodeRef of an
// unlinked inode goes, its blocks are queued for reclaim. The FUSE layer holds one InodeRef for as long as nlookup > 0.
//
// Thread safety: all functions may be called from any thread. Lock order: fs/DESIGN.md, "Locks". No lock is held when a
// function returns; ReadPin holds blocks, not locks.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/core/superblock.h"
#include "fs/core/types.h"
#include "pmem/device.h"
#include "pmem/result.h"

namespace plumb {

class Inode;
class VolumeImpl;
struct HandleLease;  // leases.h

/// Counted reference to an in-core inode.
class InodeRef {
 public:
  InodeRef() = default;
  explicit InodeRef(Inode* adopted) : inode_(adopted) {}  // takes over one reference
  InodeRef(const InodeRef& other);
  InodeRef(InodeRef&& other) noexcept : inode_(std::exchange(other.inode_, nullptr)) {}
  InodeRef& operator=(InodeRef other) noexcept {
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeRef();
  [[nodiscard]] Inode* get() const { return inode_; }
  Inode* operator->() const { return inode_; }
  Inode& operator*() const { return *inode_; }
  explicit operator bool() const { return inode_ != nullptr; }
  [[nodiscard]] InodeNumber number() const;
  [[nodiscard]] std::uint64_t generation() const;

 private:
  Inode* inode_ = nullptr;
};

enum class Writeback : std::uint8_t { kImmediate, kDeferred };
enum class AtimeMode : std::uint8_t { kRelatime, kNoatime, kStrictatime };

struct MountOptions {
  bool read_only = false;
  Writeback writeback = Writeback::kImmediate;  // only memory devices know the difference
  AtimeMode atime = AtimeMode::kRelatime;
  bool sync = false;  // -o sync: every operation as if followed by fsync
  bool dirsync = false;
  unsigned interval_seconds = 5;   // writeback interval of deferred data; 0: never by itself
  unsigned commit_seconds = 5;     // log force on a page-cached device; 0: never by itself
  bool background_threads = true;  // tests: false, and call run_reclaim() by hand
  /// Hears, in one line each, of failures that are no answer to a request: a block that was put on the list of bad
  /// blocks, a log that cannot be written any more. Called from any thread; it does not call the volume.
  std::function<void(const std::string& line)> on_notice;
  /// True while programs that leased files of an earlier mount live: epochs other than this one's. Not set: there are
  /// none. Called from any thread, with locks held.
  std::function<bool(std::uint64_t epoch)> has_stale_clients;
};

struct FormatOptions {
  std::uint32_t block_size_bytes = 4096;  // 1024, 2048, 4096, 16384, 65536
  std::string label;                      // up to 31 bytes
  std::array<std::uint8_t, 16> uuid{};    // all zeros: make one
  std::uint64_t journal_bytes = 0;        // 0: by size
  bool contents_are_zero = false;         // the caller knows the device reads as zeros
  std::uint32_t realtime_extent_bytes =
      2u << 20;                   // unit of the realtime device: a power of two, 4 KiB (and a block) to 1 GiB
  bool realtime_inherit = false;  // the root directory hands the realtime flag down
  bool realtime_is_zero = false;  // the caller knows the realtime device reads as zeros
  std::array<std::uint8_t, 16> realtime_uuid{};  // all zeros: make one
  std::array<std::uint8_t, 16> hash_seed{};      // all zeros: random; tests fix it
  Timestamp now{};                               // 0: the clock; tests fix it
};

/// What stat and statx need.
struct Attributes {
  InodeNumber inode;
  std::uint64_t generation = 0;
  std::uint32_t mode = 0;  // with the S_IFMT bits
  std::uint32_t links = 0;
  std::uint32_t uid = 0, gid = 0;
  std::uint64_t rdev = 0;  // as Linux' new_encode_dev / makedev() of the user's dev_t
  std::uint64_t size_bytes = 0;
  std::uint64_t sectors = 0;  // 512-byte units allocated
  Timestamp atime, mtime, ctime, btime;
  std::uint32_t flags = 0;        // kInode* below
  bool changes_directly = false;  // programs with write leases may change the times at any moment
};

// Inode flags as stored (fs/media/layout.h) and shown by FS_IOC_GETFLAGS / FSGETXATTR (mapped by fs/fuse).
inline constexpr std::uint32_t kInodeImmutable = 1u << 0;
inline constexpr std::uint32_t kInodeAppend = 1u << 1;
inline constexpr std::uint32_t kInodeNoatime = 1u << 2;
inline constexpr std::uint32_t kInodeNodump = 1u << 3;
inline constexpr std::uint32_t kInodeDax = 1u << 4;  // directories: inherited
inline constexpr std::uint32_t kInodeRealtime = 1u << 5;
inline constexpr std::uint32_t kInodeRtInherit = 1u << 6;
inline constexpr std::uint32_t kInodeSync = 1u << 7;
inline constexpr std::uint32_t kInodeDirsync = 1u << 8;
inline constexpr std::uint32_t kInodeUserFlags = 0x1ff;

/// Who asks.
struct Caller {
  std::uint32_t uid = 0, gid = 0;
  bool may_keep_setid = false;  // CAP_FSETID: writes keep set-id bits, chmod keeps set-gid of a foreign group
};

/// setattr: what is set changes. ctime follows by itself unless given.
struct SetAttributes {
  std::optional<std::uint32_t> mode;  // permission bits 07777
  std::optional<std::uint32_t> uid, gid;
  std::optional<std::uint64_t> size_bytes;
  std::optional<Timestamp> atime, mtime, ctime;
  bool atime_now = false, mtime_now = false;
  bool kill_setid = false;  // kernel asks to clear set-uid and set-gid (chown, truncate, write by others)
};

struct CreateRequest {
  std::uint32_t mode = 0;   // S_IFMT | permissions, not yet masked
  std::uint32_t umask = 0;  // applied here, unless the directory has a default ACL
  std::uint64_t rdev = 0;
  std::string_view symlink_target;  // S_IFLNK
  Caller caller;
};

struct FoundEntry {
  InodeRef inode;
  Attributes attributes;
};

struct DirectoryEntry {
  std::string_view name;  // valid during the callback
  InodeNumber inode;
  std::uint8_t type = 0;     // DT_*
  std::uint64_t cookie = 0;  // d_off: pass it to continue after this entry; below 2^63
};

struct FsStatistics {
  std::uint64_t block_size_bytes = 0, blocks = 0, blocks_free = 0, blocks_available = 0;
  std::uint64_t inodes = 0, inodes_free = 0;
  std::uint64_t fsid = 0;
};

/// Bytes of a file as they lie on the device, to be copied from before the pin goes. Holes point to shared zeros. The
/// blocks are not reused while the pin lives. No lock is held; keep pins short.
class ReadPin {
 public:
  ReadPin() = default;
  ReadPin(ReadPin&& other) noexcept { *this = std::move(other); }
  ReadPin& operator=(ReadPin&& other) noexcept {
    release();
    iov = std::move(other.iov);
    length_bytes = std::exchange(other.length_bytes, 0);
    token_ = std::exchange(other.token_, nullptr);
    return *this;
  }
  ReadPin(const ReadPin&) = delete;
  ReadPin& operator=(const ReadPin&) = delete;
  ~ReadPin() { release(); }
  void release();

  std::vector<iovec> iov;          // read only
  std::uint64_t length_bytes = 0;  // sum of iov; shorter than asked at the end of the file

 private:
  friend class VolumeImpl;
  std::atomic<std::uint64_t>* token_ = nullptr;
};

/// Per open file description. Made by open(), dropped by the FUSE layer at release.
/// Writeback errors are reported once to each open file (errseq): the handle remembers what it has seen.
struct FileHandle {
  FileHandle() = default;
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  ~FileHandle();

  InodeRef inode;
  bool append = false;  // O_APPEND
  bool sync = false;    // O_SYNC
  bool dsync = false;   // O_DSYNC
  bool writable = false;
  bool page_cached = false;  // use_page_cache()
  std::atomic<std::uint64_t> seen_error{0};
  std::shared_ptr<HandleLease> lease;  // made by lease(); guarded by the inode's lock
};

enum class FsyncMode : std::uint8_t { kFull, kDataOnly };

struct XattrSetFlags {
  bool create = false;   // XATTR_CREATE
  bool replace = false;  // XATTR_REPLACE
};

struct RenameFlags {
  bool noreplace = false, exchange = false, whiteout = false;
};

/// A question for the direct path; flags and answer as protocol::Lease has them.
struct LeaseRequest {
  std::uint64_t offset_bytes = 0, length_bytes = 0;
  bool write = false, allocate = false, map = false;
  std::uint32_t uid = 0;  // whom it counts for
};
struct LeaseAnswer {
  struct Piece {
    std::uint64_t file_offset = 0, device_offset = 0, length = 0;  // bytes
  };
  std::uint64_t offset_bytes = 0, length_bytes = 0, size_bytes = 0;
  std::uint32_t slot = 0;
  std::size_t member = 0;
  std::vector<Piece> extents;
  bool first_writer = false;  // of the inode: what the kernel keeps of it may get old from now on
};
/// As protocol::Align has it.
struct AlignRequest {
  std::uint64_t most_pieces = 0;
  bool keep_holes = false;
};

struct BadBlockReport;  // bad_block_report.h
/// Part of the list of bad blocks.
struct BadBlocksPart {
  std::vector<BadBlockReport> reports;
  std::optional<std::uint64_t> next;  // where the rest begins
};

/// Counters of `plumb stat`, per member device.
struct DeviceStatistics {
  std::string path, type, kind, role;  // role: "main", "realtime"
  std::uint64_t blocks = 0, blocks_free = 0;
  std::uint64_t writeback_ranges = 0;  // ranges that writeback flushed
  std::uint64_t writeback_bytes = 0;
  std::uint64_t writeback_drains = 0;
  std::uint64_t device_flushes = 0, device_flushed_bytes = 0, device_drains = 0,
                errors = 0;       // everything, log included
  std::uint64_t bad_blocks = 0;   // on the list
  std::uint64_t dirty_bytes = 0;  // data stored and not yet durable
};

struct VolumeStatistics {
  std::string uuid, label;
  std::vector<DeviceStatistics> devices;
  std::uint64_t transactions = 0, log_bytes = 0, log_forces = 0, checkpoints = 0;
  std::uint64_t reclaim_pending_blocks = 0, windows_opened = 0;
  std::uint64_t buffers = 0, inodes_in_core = 0;
  std::uint64_t unsafe_shutdowns = 0;
  std::uint64_t leased_inodes = 0;
  bool stale_clients = false;  // of an earlier mount: nothing is reclaimed while they live
  bool read_only = false;
};

class Volume {
 public:
  /// Writes a new file system, with a realtime device if there is one. Everything on the devices is lost. EINVAL with a
  /// clear detail when a device is too small, the block size is none of the five, or the realtime extent size is not
  /// possible.
  [[nodiscard]] static Status format(const Members& members, const FormatOptions& options);

  /// Opens the file system on its members (owned by the caller, outlive the volume), recovering it if it was not
  /// unmounted. EUCLEAN / EBADMSG: not a plumbfs or damaged; ENOTSUP: a later version's features; ENXIO: a member is
  /// missing or another one than the device table names; EINVAL: a second device for a file system that has none.
  [[nodiscard]] static Result<std::unique_ptr<Volume>> mount(const Members& members, const MountOptions& options);
  /// Ends cleanly: writeback, log force, checkpoint, clean mark. Without it (destructor only) it is like a crash of the
  /// daemon: the destructor writes nothing.
  [[nodiscard]] Status unmount();
  ~Volume();

  [[nodiscard]] InodeRef root();
  /// By number and generation (NFS handles; generation 0: any). ESTALE if there is none.
  [[nodiscard]] Result<InodeRef> inode_by_number(InodeNumber number, std::uint64_t generation);

  // --- namespace: `parent` is a directory; names are 1..255 bytes without '/' and NUL (ENAMETOOLONG, EINVAL) ---
  [[nodiscard]] Result<FoundEntry> lookup(Inode& parent, std::string_view name);  // ".." works
  /// mknod, mkdir, symlink and create in one: EEXIST, ENOSPC, EMLINK, EPERM (append/immutable), ENOENT (parent
  /// removed).
  [[nodiscard]] Result<FoundEntry> create(Inode& parent, std::string_view name, const CreateRequest& request);
  /// O_TMPFILE: an inode without a name, gone when its last reference goes, unless link() names it.
  [[nodiscard]] Result<FoundEntry> create_unnamed(Inode& parent, const CreateRequest& request);
  [[nodiscard]] Result<Attributes> link(Inode& inode, Inode& parent, std::string_view name);
  [[nodiscard]] Status unlink(Inode& parent, std::string_view name);
  [[nodiscard]] Status rmdir(Inode& parent, std::string_view name);
  [[nodiscard]] Status rename(Inode& from, std::string_view from_name, Inode& to, std::string_view to_name,
                              RenameFlags flags, const Caller& caller);
  [[nodiscard]] Result<std::string> readlink(Inode& inode);

  /// Calls `emit` for entries after `cookie` (0: from the start, with . and ..) until it returns false. Entries that
  /// neither came nor went meanwhile are seen exactly once. `emit` runs under the directory's shared lock: it must not
  /// call the volume (collect first, then look up).
  [[nodiscard]] Status read_directory(Inode& directory, std::uint64_t cookie,
                                      const std::function<bool(const DirectoryEntry&)>& emit);

  // --- attributes ---
  [[nodiscard]] Attributes attributes(Inode& inode);
  [[nodiscard]] Result<Attributes> set_attributes(Inode& inode, const SetAttributes& set, const Caller& caller);
  [[nodiscard]] Status set_flags(Inode& inode, std::uint32_t flags);  // kInodeUserFlags
  /// Project id of FS_IOC_FSSETXATTR is not kept. Extended attribute names carry their full prefix ("user.x").
  [[nodiscard]] Result<std::string> get_xattr(Inode& inode, std::string_view name);  // ENODATA
  [[nodiscard]] Status set_xattr(Inode& inode, std::string_view name, std::string_view value, XattrSetFlags flags,
                                 const Caller& caller);
  [[nodiscard]] Status remove_xattr(Inode& inode, std::string_view name);
  [[nodiscard]] Result<std::vector<std::string>> list_xattrs(Inode& inode);

  // --- data ---
  /// O_TRUNC by the caller through set_attributes. EPERM: writable open of an immutable file, or an append-only one
  /// without O_APPEND. EISDIR is the kernel's.
  [[nodiscard]] Result<std::unique_ptr<FileHandle>> open(Inode& inode, int flags);
  /// Updates atime by the rules of the mount, unless `keep_atime` (O_NOATIME). Never blocks on writers of other files.
  /// EIO: a block of the range is on the list of bad blocks.
  [[nodiscard]] Result<ReadPin> read(Inode& inode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                                     bool keep_atime = false);
  /// Copying from the pin has failed: finds out where, so that the blocks get on the list. The pin is still held.
  void note_unreadable(const ReadPin& pin);
  /// Returns the bytes written; less than asked only when space ran out midway (ENOSPC if none). With handle.append the
  /// offset is the end of the file as the volume knows it. `from_page_cache`: the kernel writes back a mapping (no
  /// O_APPEND, no set-id clearing). EFBIG beyond kMaxFileSize. EIO: a bad block that is not wholly written, or cannot
  /// be written.
  [[nodiscard]] Result<std::uint64_t> write(FileHandle& handle, std::uint64_t offset_bytes, std::span<const iovec> data,
                                            const Caller& caller, bool from_page_cache = false);
  /// fallocate(2) modes 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]; else EOPNOTSUPP.
  [[nodiscard]] Status allocate(FileHandle& handle, int mode, std::uint64_t offset_bytes, std::uint64_t length_bytes,
                                const Caller& caller);
  /// SEEK_DATA / SEEK_HOLE. ENXIO as in lseek(2).
  [[nodiscard]] Result<std::uint64_t> seek(Inode& inode, std::uint64_t offset_bytes, int whence);
  [[nodiscard]] Result<std::uint64_t> copy_range(FileHandle& from, std::uint64_t from_offset_bytes, FileHandle& to,
                                                 std::uint64_t to_offset_bytes, std::uint64_t length_bytes,
                                                 const Caller& caller);
  [[nodiscard]] Status fsync(FileHandle& handle, FsyncMode mode);
  [[nodiscard]] Status fsync_inode(Inode& inode, FsyncMode mode);  // directories and handles that are not files

  // --- direct path: volume_lease.cc has the rules ---
  /// Pins the blocks of a range of an open file where they are until end_lease(), and says where; as kIocLease. At most
  /// `most` extents.
  [[nodiscard]] Result<LeaseAnswer> lease(FileHandle& handle, const LeaseRequest& request, std::size_t most);
  /// From now on the kernel keeps pages of the file for this handle; the file is not leased as long. False, and nothing
  /// is changed, if it is: direct stores would not be seen in those pages.
  [[nodiscard]] bool use_page_cache(FileHandle& handle);
  /// Of all that the handle has leased; before it is dropped. What was put off is done with the last lease of an inode.
  void end_lease(FileHandle& handle);
  /// Moves a file without leases into aligned chunks, as far as there is space; as kIocAlign. Returns the bytes that
  /// lie so afterwards, of those it has looked at.
  [[nodiscard]] Result<std::uint64_t> align(FileHandle& handle, const AlignRequest& request = {});
  /// Stamp of this mount for clients; never 0.
  [[nodiscard]] std::uint64_t epoch();
  [[nodiscard]] std::uint32_t lease_slots();
  [[nodiscard]] const Superblock& superblock() const;

  // --- whole file system ---
  [[nodiscard]] Status sync();  // everything durable: all dirty ranges, then the log
  /// Of the device that holds, or for a directory would hold, the data of `inode` (XFS does the same for its realtime
  /// device); of the main device without an inode.
  [[nodiscard]] FsStatistics statistics(Inode* inode = nullptr);
  [[nodiscard]] VolumeStatistics counters();
  /// Works off deletion and reclaim until nothing is pending that could go (tests, sync, ENOSPC).
  [[nodiscard]] Status run_reclaim();
  /// The entries of the list of bad blocks from `cursor` on (0: all; else BadBlocksPart::next), at most `most`.
  [[nodiscard]] Result<BadBlocksPart> report_bad_blocks(std::uint64_t cursor, std::size_t most);
  /// Tries to make bad blocks usable: what no file owns is zeroed and free again if it can be read then; a note about
  /// metadata that can be read again goes. Bad blocks of files become good by writing them. Returns how many blocks
  /// left the list.
  [[nodiscard]] Result<std::uint64_t> clear_bad_blocks();
  [[nodiscard]] bool read_only() const;

  [[nodiscard]] VolumeImpl& impl() { return *impl_; }

 private:
  explicit Volume(std::unique_ptr<VolumeImpl> impl);
  std::unique_ptr<VolumeImpl> impl_;
};

}  // namespace plumb

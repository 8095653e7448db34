#include "tools/common/signatures.h"

#include <blkid/blkid.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "tools/common/label_text.h"

namespace plumb::tools {
namespace {

// ZFS has the largest labels, 512 KiB at either end; VMFS the farthest magic, 1 MiB in. As libblkid looks no farther.
constexpr std::uint64_t kEndBytes = 2u << 20;
constexpr std::uint64_t kPieceBytes = 4096;
constexpr int kMostSignatures = 64;  // a device has a handful; more means that wiping does not work

struct CloseProbe {
  void operator()(blkid_struct_probe* probe) const { blkid_free_probe(probe); }
};

// What libblkid reads from, and what has to be kept the same as the device while signatures are wiped.
class ProbeFile {
 public:
  static Result<ProbeFile> open(const pmem::Device& device);

  ProbeFile(ProbeFile&& other) noexcept : fd_(other.fd_), is_copy_(other.is_copy_) { other.fd_ = -1; }
  ProbeFile& operator=(ProbeFile&&) = delete;
  ~ProbeFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int fd() const { return fd_; }

  Status zero_copy(std::uint64_t offset_bytes, std::uint64_t length_bytes) const {
    if (!is_copy_) return {};  // the mapping and the descriptor show the same page cache
    const std::vector<char> zeros(length_bytes);
    if (::pwrite(fd_, zeros.data(), zeros.size(), static_cast<off_t>(offset_bytes)) < 0)
      return fail(errno, "copy for libblkid");
    return {};
  }

 private:
  ProbeFile(int fd, bool is_copy) : fd_(fd), is_copy_(is_copy) {}
  static Result<ProbeFile> copy_of(const pmem::Device& device);

  int fd_ = -1;
  bool is_copy_ = false;
};

Result<ProbeFile> ProbeFile::open(const pmem::Device& device) {
  const std::string& path = device.info().path;
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return fail(errno, path);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) return copy_of(device);
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return fail(errno, path + ": cannot be read");
  return ProbeFile(fd, false);
}

Result<ProbeFile> ProbeFile::copy_of(const pmem::Device& device) {
  const int fd = ::memfd_create("plumbfs-probe", MFD_CLOEXEC);
  if (fd < 0) return fail(errno, "memfd_create");
  ProbeFile file(fd, true);
  const std::uint64_t size = device.size_bytes();
  if (::ftruncate(fd, static_cast<off_t>(size)) != 0) return fail(errno, "copy for libblkid");
  std::array<std::byte, kPieceBytes> piece;
  for (std::uint64_t at = 0; at < size; at += kPieceBytes) {
    if (at >= kEndBytes && at + kEndBytes < size) at = (size - kEndBytes) / kPieceBytes * kPieceBytes;
    const auto bytes = std::span(piece).first(static_cast<std::size_t>(std::min(kPieceBytes, size - at)));
    // A poisoned piece holds no signature that anybody could read.
    if (!device.load(at, bytes)) continue;
    if (::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at)) < 0) return fail(errno, "copy for libblkid");
  }
  return file;
}

using Probe = std::unique_ptr<blkid_struct_probe, CloseProbe>;

Result<Probe> new_probe(const ProbeFile& file, std::uint64_t size_bytes) {
  Probe probe(blkid_new_probe());
  if (!probe || blkid_probe_set_device(probe.get(), file.fd(), 0, static_cast<blkid_loff_t>(size_bytes)) != 0)
    return fail(ENOMEM, "libblkid cannot look at the device");
  blkid_probe_enable_superblocks(probe.get(), 1);
  blkid_probe_set_superblocks_flags(probe.get(), BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID |
                                                     BLKID_SUBLKS_USAGE | BLKID_SUBLKS_MAGIC | BLKID_SUBLKS_BADCSUM);
  blkid_probe_enable_partitions(probe.get(), 1);
  blkid_probe_set_partitions_flags(probe.get(), BLKID_PARTS_MAGIC | BLKID_PARTS_FORCE_GPT);
  return probe;
}

std::string value_of(const Probe& probe, const char* name) {
  const char* data = nullptr;
  std::size_t length = 0;
  if (blkid_probe_lookup_value(probe.get(), name, &data, &length) != 0 || data == nullptr) return {};
  std::string text(data, length);
  while (!text.empty() && text.back() == '\0') text.pop_back();
  return text;
}

std::string with_article(const std::string& noun) {
  const bool vowel = std::string_view("aeioAEIO").find(noun.front()) != std::string_view::npos;
  return (vowel ? "an " : "a ") + noun;
}

std::string describe_type(const std::string& type, const std::string& usage) {
  if (usage == "raid") return with_article(type + " RAID member");
  if (usage == "crypto") return with_article(type + " encrypted volume");
  if (type == "swap") return "swap space";
  if (usage == "other") return with_article(type + " signature");
  return with_article(type + " file system");
}

// What the last blkid_do_probe() found.
Signature signature_of(const Probe& probe) {
  Signature signature;
  std::size_t magic_length = 0;
  const char* magic = nullptr;
  std::string offset;
  const std::string table = value_of(probe, "PTTYPE");
  if (!table.empty()) {
    signature.what = with_article(table + " partition table");
    signature.uuid = value_of(probe, "PTUUID");
    offset = value_of(probe, "PTMAGIC_OFFSET");
    blkid_probe_lookup_value(probe.get(), "PTMAGIC", &magic, &magic_length);
  } else {
    signature.what = describe_type(value_of(probe, "TYPE"), value_of(probe, "USAGE"));
    signature.label = value_of(probe, "LABEL");
    signature.uuid = value_of(probe, "UUID");
    offset = value_of(probe, "SBMAGIC_OFFSET");
    blkid_probe_lookup_value(probe.get(), "SBMAGIC", &magic, &magic_length);
  }
  signature.offset_bytes = std::strtoull(offset.c_str(), nullptr, 10);
  signature.length_bytes = offset.empty() ? 0 : magic_length;
  return signature;
}

// Nothing when there is no further one.
Result<std::optional<Signature>> next_signature(const Probe& probe) {
  const int found = blkid_do_probe(probe.get());
  if (found == 1) return std::nullopt;
  if (found != 0) return fail(EIO, "libblkid cannot read the device");
  return signature_of(probe);
}

}  // namespace

Result<std::vector<Signature>> find_signatures(const pmem::Device& device) {
  PLUMB_ASSIGN(const ProbeFile file, ProbeFile::open(device));
  PLUMB_ASSIGN(const Probe probe, new_probe(file, device.size_bytes()));
  std::vector<Signature> signatures;
  for (int i = 0; i < kMostSignatures; ++i) {
    PLUMB_ASSIGN(auto signature, next_signature(probe));
    if (!signature) break;
    signatures.push_back(std::move(*signature));
  }
  return signatures;
}

Result<std::vector<Signature>> wipe_signatures(pmem::Device& device) {
  PLUMB_ASSIGN(const ProbeFile file, ProbeFile::open(device));
  PLUMB_ASSIGN(const Probe probe, new_probe(file, device.size_bytes()));
  std::vector<Signature> wiped;
  for (int i = 0; i < kMostSignatures; ++i) {
    PLUMB_ASSIGN(auto signature, next_signature(probe));
    if (!signature) return wiped;
    const std::uint64_t offset = signature->offset_bytes;
    const std::uint64_t length = signature->length_bytes;
    if (length > 0) {
      PLUMB_TRY(device.zero(offset, length));
      PLUMB_TRY(device.persist(offset, length));
      PLUMB_TRY(file.zero_copy(offset, length));
      // Looks again with the same prober: many have a second copy.
      blkid_probe_step_back(probe.get());
    }
    wiped.push_back(std::move(*signature));
  }
  return fail(
      EIO, "the " + wiped.back().what + " at byte " + std::to_string(wiped.back().offset_bytes) + " cannot be wiped");
}

}  // namespace plumb::tools

// What the daemon parses that is not the medium: ACLs and names from programs, requests of the kernel, option lists,
// and what fs/client/protocol.h carries: text of statistics, questions for leases.
#include <fcntl.h>
#include <linux/fuse.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fs/client/protocol.h"
#include "fs/core/acl.h"
#include "fs/core/check.h"
#include "fs/core/directory.h"
#include "fs/core/volume.h"
#include "fs/fuse/direct_path.h"
#include "fs/fuse/options.h"
#include "fs/fuse/statistics.h"
#include "fs/fuse/syncfs.h"
#include "pmem/crash_device.h"
#include "test/fuzz/input.h"
#include "test/fuzz/targets.h"

namespace plumb::fuzz {
namespace {

std::string rest_of(Input& input) {
  const auto bytes = input.take_bytes(~std::size_t{0});
  return {bytes.begin(), bytes.end()};
}

void acl_value(Input& input) {
  std::uint32_t mode = input.take<std::uint32_t>();
  const std::string value = rest_of(input);
  auto parsed = acl::parse(value);
  if (!parsed) return;
  if (!parsed->empty()) {
    const auto again = acl::parse(acl::serialize(*parsed));
    require(again && *again == *parsed, "acl: a value that was read is not the same when it is written and read again");
  }
  const acl::Inherited inherited =
      acl::inherit(*parsed, (mode & 1) != 0 ? S_IFDIR | (mode & 0777) : S_IFREG | (mode & 0777));
  require(!inherited.access || acl::parse(*inherited.access), "acl: an inherited ACL is not valid");
  std::uint32_t bits = mode;
  (void)acl::equivalent_mode(*parsed, bits);
  require((bits & ~0777u) == (mode & ~0777u), "acl: bits beside the permissions changed");
  acl::apply_chmod(*parsed, mode);
  require(parsed->empty() || acl::parse(acl::serialize(*parsed)), "acl: invalid after chmod");
}

// A request as the kernel would send it, in a buffer of its exact size.
void kernel_request(Input& input) {
  const std::string request = rest_of(input);
  std::vector<char> buffer(request.begin(), request.end());
  const std::size_t length = fuse::turn_syncfs(buffer.data(), buffer.size(), buffer.size());
  require(length <= buffer.size(), "syncfs: the request grew out of its buffer");
}

void name_and_options(Input& input) {
  const std::string text = rest_of(input);
  if (check_name(text))
    require(!text.empty() && text.size() <= kNameMax && text.find('/') == std::string::npos,
            "name: a name that cannot be was accepted");
  for (const std::string& option : fuse::split_options(text)) (void)option;
  (void)fuse::parse_raw_options({text}, true);
  const std::array<const char*, 5> arguments = {"plumbfs", "/dev/pmem0", "/mnt", "-o", text.c_str()};
  (void)fuse::parse_options(static_cast<int>(arguments.size()), arguments.data(), true);
}

void statistics_answer(Input& input) {
  VolumeStatistics counters;
  counters.transactions = input.take<std::uint64_t>();
  counters.label = rest_of(input);
  DeviceStatistics device;
  device.path = counters.label;
  counters.devices.assign(2, device);
  const auto reply = fuse::to_reply(fuse::to_json(counters, counters.transactions));
  require(!reply || (*reply)->length_bytes <= protocol::kStatisticsTextMax, "statistics: longer than the answer");
}

// Questions of the direct path as ioctl brings them, in buffers of their exact size, on a file with holes; whatever is
// asked, the answer stays within what was asked and within the device.
void lease_question(Input& input) {
  pmem::CrashDevice device(8u << 20, {});
  FormatOptions format;
  format.contents_are_zero = true;
  MountOptions mount;
  mount.background_threads = false;
  if (!Volume::format(Members(device), format)) return;
  auto volume = Volume::mount(Members(device), mount);
  require(volume.has_value(), "lease: a new file system cannot be mounted");
  CreateRequest request;
  request.mode = S_IFREG | 0644;
  auto made = (*volume)->create(*(*volume)->root(), "f", request);
  require(made.has_value(), "lease: no file");
  auto handle = (*volume)->open(*made->inode, O_RDWR);
  require(handle.has_value(), "lease: the file cannot be opened");
  const std::string bytes(3000, 'x');
  const iovec piece{const_cast<char*>(bytes.data()), bytes.size()};
  for (const std::uint64_t at : {0, 20'000, 100'000})
    require((*volume)->write(**handle, at, std::span(&piece, 1), Caller{}).has_value(), "lease: no bytes");
  for (int i = 0; i < 4; ++i) {
    const auto question = input.take_bytes(std::min<std::size_t>(input.take<std::uint8_t>(), 64));
    const std::vector<std::uint8_t> exact(question.begin(), question.end());
    const auto wanted = fuse::parse_lease(exact.data(), exact.size(), 0);
    if (!wanted) continue;
    const auto answer = (*volume)->lease(**handle, *wanted, protocol::kLeaseExtentsMax);
    if (!answer) continue;
    const auto wire = fuse::to_wire(*answer, (*volume)->epoch(), made->inode.number());
    require(wire->offset_bytes <= wanted->offset_bytes, "lease: an answer about something else");
    require(wire->extent_count <= protocol::kLeaseExtentsMax, "lease: too many extents");
    std::uint64_t next = wire->offset_bytes;
    for (std::uint32_t e = 0; e < wire->extent_count; ++e) {
      const protocol::LeaseExtent& extent = wire->extents[e];
      require(extent.file_offset >= next && extent.length != 0, "lease: extents overlap");
      next = extent.file_offset + extent.length;
      require(next <= wire->offset_bytes + wire->length_bytes, "lease: an extent beyond the answer");
      require(extent.device_offset + extent.length <= device.size_bytes(), "lease: an extent beyond the device");
    }
    SetAttributes cut;
    cut.size_bytes = input.take<std::uint32_t>() % 200'000;
    require((*volume)->set_attributes(*made->inode, cut, Caller{}).has_value(), "lease: no truncate");
  }
  (*volume)->end_lease(**handle);
  handle->reset();
  made->inode = InodeRef();
  require((*volume)->unmount().has_value(), "lease: no unmount");
  const auto report = check_volume(Members(device), {});
  require(report && report->problems_total == 0, "lease: not sound afterwards");
}

}  // namespace

void fuzz_wire(std::span<const std::uint8_t> bytes) {
  Input input(bytes);
  static constexpr std::array kParts = {acl_value, kernel_request, name_and_options, statistics_answer, lease_question};
  kParts[input.take<std::uint8_t>() % kParts.size()](input);
}

}  // namespace plumb::fuzz

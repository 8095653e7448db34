// What the daemon parses that is not the medium: ACLs and names from programs, requests of the kernel, option lists,
// and the text that goes back in fs/client/protocol.h's one structure.
#include <linux/fuse.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fs/client/protocol.h"
#include "fs/core/acl.h"
#include "fs/core/directory.h"
#include "fs/fuse/options.h"
#include "fs/fuse/statistics.h"
#include "fs/fuse/syncfs.h"
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

}  // namespace

void fuzz_wire(std::span<const std::uint8_t> bytes) {
  Input input(bytes);
  static constexpr std::array kParts = {acl_value, kernel_request, name_and_options, statistics_answer};
  kParts[input.take<std::uint8_t>() % kParts.size()](input);
}

}  // namespace plumb::fuzz

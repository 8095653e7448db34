#include "tools/mkfs/options.h"

#include <sys/random.h>

#include <cerrno>
#include <chrono>
#include <system_error>

#include "fs/media/layout.h"
#include "fs/media/uuid_text.h"
#include "tools/common/command_line.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"

namespace plumb::tools {
namespace {

constexpr const char* kProgram = "mkfs.plumbfs";

// CLI11 reports what a transform throws together with the option's name.
std::string size_in_bytes(std::string text) {
  const auto size = parse_size(text);
  if (!size) throw CLI::ValidationError(size.error().detail);
  return std::to_string(*size);
}

Result<media::Uuid> random_uuid() {
  media::Uuid uuid{};
  if (::getrandom(uuid.data(), uuid.size(), 0) != static_cast<ssize_t>(uuid.size()))
    return fail(errno, "no random bytes for a uuid");
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x40);  // version 4, RFC 9562
  uuid[8] = static_cast<std::uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

// Version 7: milliseconds since 1970, then random bits; sorts by time of making.
Result<media::Uuid> time_uuid() {
  PLUMB_ASSIGN(media::Uuid uuid, random_uuid());
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  const auto milliseconds =
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(since_1970).count());
  for (unsigned i = 0; i < 6; ++i) uuid[i] = static_cast<std::uint8_t>(milliseconds >> (40 - 8 * i));
  uuid[6] = static_cast<std::uint8_t>((uuid[6] & 0x0f) | 0x70);
  return uuid;
}

Result<media::Uuid> uuid_of(const std::string& text) {
  if (text == "random") return random_uuid();
  if (text == "time") return time_uuid();
  const auto uuid = media::parse_uuid(text);
  if (uuid && *uuid != media::Uuid{}) return *uuid;
  if (uuid || text == "clear") return fail(EINVAL, "a plumbfs cannot be without a uuid: its devices are found by it");
  return fail(EINVAL, "'" + text + "' is no uuid; write 8-4-4-4-12 hexadecimal digits, random or time");
}

Status check(const MkfsOptions& options, const std::string& uuid, media::Uuid& uuid_out) {
  if (!media::valid_block_size(options.format.block_size_bytes))
    return fail(EINVAL, "--block-size " + std::to_string(options.format.block_size_bytes) +
                            " is none that plumbfs has; choose 1k, 2k, 4k, 16k or 64k");
  if (options.format.label.size() > kLabelMax)
    return fail(EINVAL, "--label is " + std::to_string(options.format.label.size()) +
                            " bytes long; a label has at most " + std::to_string(kLabelMax));
  if (options.format.label.find('\0') != std::string::npos) return fail(EINVAL, "--label contains a NUL byte");
  PLUMB_ASSIGN(uuid_out, uuid_of(uuid));
  return {};
}

Status check_realtime(const MkfsOptions& options, std::uint64_t extent_bytes, bool asked_for) {
  if (options.realtime_device.empty())
    return asked_for ? fail(EINVAL, "--rt-extent and --rt-inherit are about the realtime device; --rtdev names one")
                     : Status{};
  if (!media::valid_realtime_extent(extent_bytes, options.format.block_size_bytes))
    return fail(EINVAL, "--rt-extent " + std::to_string(extent_bytes) +
                            " cannot be; it takes a power of two from 4k (and the block size) to 1G");
  return {};
}

}  // namespace

std::variant<MkfsOptions, int> parse_mkfs_options(int argc, char** argv) {
  MkfsOptions options;
  std::string uuid = "random";
  std::uint64_t block_size = options.format.block_size_bytes;
  std::uint64_t journal_size = 0;
  std::uint64_t realtime_extent = options.format.realtime_extent_bytes;

  CLI::App app("Makes a plumbfs on a device or a file. Everything on it is lost.", kProgram);
  prepare(app, kProgram);
  app.add_option("-b,--block-size", block_size, "1k, 2k, 4k (default), 16k or 64k")
      ->transform(size_in_bytes)
      ->type_name("SIZE");
  app.add_option("-L,--label", options.format.label, "Label, up to 31 bytes")->type_name("TEXT");
  app.add_option("-U,--uuid", uuid, "A uuid, random (default) or time")->type_name("UUID");
  auto* const size = app.add_option("-s,--size", options.create_bytes,
                                    "Create DEVICE as a file of this size (suffix k, M, G, T), allocated fully")
                         ->transform(size_in_bytes)
                         ->type_name("SIZE");
  app.add_option("--journal-size", journal_size, "Size of the journal (default: by the device)")
      ->transform(size_in_bytes)
      ->type_name("SIZE");
  app.add_option("-r,--rtdev", options.realtime_device,
                 "Second device for the data of files that are marked realtime (plumb set)")
      ->type_name("DEVICE");
  auto* const extent =
      app.add_option("-e,--rt-extent", realtime_extent,
                     "Unit of allocation of the realtime device: a power of two from 4k to 1G (default 2M)")
          ->transform(size_in_bytes)
          ->type_name("SIZE");
  auto* const inherit = app.add_flag("--rt-inherit", options.format.realtime_inherit,
                                     "Mark the root directory: new files are realtime unless told otherwise");
  app.add_flag("-f,--force", options.force, "Overwrite a file system, partition table or RAID member that is there");
  app.add_flag("--assume-persistent", options.assume_persistent,
               "Believe that a dax device without NVDIMM region keeps its contents over a power cut");
  app.add_flag("-q,--quiet", options.quiet, "Print nothing but errors and warnings");
  app.add_flag("--json", options.json, "Print what was made as one JSON object");
  app.add_option("DEVICE", options.device, "Dax device, block device or file")->required();
  app.footer(
      "Exit status: 0 made, 1 error, 2 usage error.\n"
      "Examples: mkfs.plumbfs -L scratch -s 1G /dev/shm/scratch.plumbfs\n"
      "          mkfs.plumbfs /dev/dax0.0 -r /dev/dax1.0");

  if (const auto status = parse(app, argc, argv, kProgram, kMkfsUsage)) return *status;
  if (size->count() > 0 && options.create_bytes == 0) {
    complain(kProgram, "--size 0: a file system needs at least " + size_text(media::kMinDeviceBytes));
    return kMkfsUsage;
  }
  options.format.block_size_bytes = block_size <= media::kMaxBlockSize ? static_cast<std::uint32_t>(block_size) : 0;
  options.format.journal_bytes = journal_size;
  Status status = check(options, uuid, options.format.uuid);
  if (block_size > media::kMaxBlockSize)
    status = fail(EINVAL, "--block-size " + std::to_string(block_size) +
                              " is none that plumbfs has; choose 1k, 2k, 4k, 16k or 64k");
  if (status) status = check_realtime(options, realtime_extent, extent->count() + inherit->count() > 0);
  if (!status) {
    complain(kProgram, status.error().detail);
    return kMkfsUsage;
  }
  options.format.realtime_extent_bytes = static_cast<std::uint32_t>(realtime_extent);
  return options;
}

}  // namespace plumb::tools

// mkfs.plumbfs: makes a file system on a device.
//
// Order, each step before anything the next one does: the file is created and allocated (--size), the device is
// claimed, what is on it is looked at, and only then is anything written.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <variant>

#include "fs/core/volume.h"
#include "fs/media/layout.h"
#include "fs/media/uuid_text.h"
#include "pmem/device.h"
#include "tools/common/claim.h"
#include "tools/common/command_line.h"
#include "tools/common/contents.h"
#include "tools/common/label_text.h"
#include "tools/common/signatures.h"
#include "tools/common/size.h"
#include "tools/common/superblocks.h"
#include "tools/mkfs/image_file.h"
#include "tools/mkfs/options.h"
#include "tools/mkfs/report.h"
#include "tools/mkfs/zero.h"

namespace plumb::tools {
namespace {

constexpr const char* kProgram = "mkfs.plumbfs";

Result<std::unique_ptr<pmem::Device>> open_for_format(const MkfsOptions& options) {
  pmem::OpenOptions how;
  how.assert_persistent = options.assume_persistent;
  auto device = claim_device(options.device, how);
  if (!device && device.error().code == ENOENT) return refuse(options.device + " is not there; --size creates a file");
  if (!device) return device;
  const std::uint64_t size = (*device)->size_bytes();
  if (size < media::kMinDeviceBytes)
    return refuse(options.device + " is too small: it has " + size_text(size) + ", a plumbfs needs at least " +
                  size_text(media::kMinDeviceBytes));
  // A block would span several mappings of the device; whoever maps files directly counts on one.
  const std::uint64_t align = (*device)->info().align_bytes;
  if ((*device)->info().type == "devdax" && options.format.block_size_bytes > align)
    return refuse(options.device + " is mapped in units of " + size_text(align) + " (its align): blocks of " +
                  size_text(options.format.block_size_bytes) + " are larger; choose at most " + size_text(align) +
                  ", or make the namespace with another align");
  return device;
}

// Null without --rtdev.
Result<std::unique_ptr<pmem::Device>> open_realtime(const MkfsOptions& options, const pmem::Device& main) {
  if (options.realtime_device.empty()) return std::unique_ptr<pmem::Device>();
  // The path is kept in the superblock, as the place to look first.
  const std::string path = std::filesystem::absolute(options.realtime_device).lexically_normal().string();
  std::error_code unknown;
  if (std::filesystem::equivalent(path, main.info().path, unknown))
    return refuse(options.realtime_device + " is the main device; a realtime device is another one");
  pmem::OpenOptions how;
  how.assert_persistent = options.assume_persistent;
  auto device = claim_device(path, how);
  if (!device && device.error().code == ENOENT)
    return refuse(options.realtime_device + " is not there; a file can be made by 'fallocate -l SIZE FILE'");
  return device;
}

Status refuse_if_not_empty(const pmem::Device& device) {
  const std::string& path = device.info().path;
  const auto contents = contents_of(device);
  if (!contents)
    return fail(contents.error().code, path + ": cannot find out what is on it: " + contents.error().detail +
                                           "; -f makes the file system anyway");
  if (contents->empty()) return {};
  return refuse(path + " holds " + *contents + "; -f overwrites it, and all of it is lost");
}

// Makes room on a device that was there before. True if it reads as zeros now.
Result<bool> clear(const MkfsOptions& options, pmem::Device& device) {
  if (options.force) {
    PLUMB_ASSIGN(const auto wiped, wipe_signatures(device));
    for (const Signature& signature : wiped)
      if (!options.quiet && !options.json)
        std::printf("%s: wiped %s\n", device.info().path.c_str(), printable(signature.what).c_str());
  }
  return zero_contents(device);
}

Status make(const MkfsOptions& options) {
  std::optional<ImageFile> image;
  if (options.create_bytes != 0) {
    PLUMB_ASSIGN(auto made, ImageFile::make(options.device, options.create_bytes, options.force));
    image.emplace(std::move(made));
  }
  const bool fresh = image && image->created();

  PLUMB_ASSIGN(const auto device, open_for_format(options));
  PLUMB_ASSIGN(const auto realtime, open_realtime(options, *device));
  FormatOptions format = options.format;
  format.contents_are_zero = fresh;
  // Both are looked at before either is touched.
  if (!options.force) {
    if (!fresh) PLUMB_TRY(refuse_if_not_empty(*device));
    if (realtime) PLUMB_TRY(refuse_if_not_empty(*realtime));
  }
  if (!fresh) {
    PLUMB_ASSIGN(format.contents_are_zero, clear(options, *device));
  }
  if (realtime) {
    PLUMB_ASSIGN(format.realtime_is_zero, clear(options, *realtime));
  }
  PLUMB_TRY(Volume::format({*device, realtime.get()}, format));

  const SuperblockCopies superblocks = read_superblocks(*device);
  for (const SuperblockCopy& copy : superblocks.copies)
    if (!copy.status)
      return fail(copy.status.error().code,
                  options.device + ": what was written does not read back: " + copy.status.error().detail);
  if (image) image->keep();
  const MkfsReport report{*device, realtime.get(), superblocks.current()->superblock,
                          is_sparse(*device) || (realtime && is_sparse(*realtime))};
  if (options.json)
    std::fputs(report_json(report).c_str(), stdout);
  else if (!options.quiet)
    std::fputs(report_text(report).c_str(), stdout);
  return {};
}

int run(int argc, char** argv) {
  const auto parsed = parse_mkfs_options(argc, argv);
  if (const int* status = std::get_if<int>(&parsed)) return *status;
  const auto& options = std::get<MkfsOptions>(parsed);
  if (const Status made = make(options); !made) {
    complain(kProgram, describe(made.error(), options.device));
    return kMkfsError;
  }
  return kMkfsOk;
}

}  // namespace
}  // namespace plumb::tools

int main(int argc, char** argv) {
  namespace tools = plumb::tools;
  return tools::guarded(tools::kProgram, tools::kMkfsError, tools::run, argc, argv);
}

#include "fs/fuse/options.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <initializer_list>
#include <string>
#include <vector>

namespace plumb::fuse {
namespace {

tl::expected<Options, EarlyExit> parse(std::initializer_list<const char*> arguments, bool as_root = true) {
  const std::vector<const char*> argv(arguments);
  return parse_options(static_cast<int>(argv.size()), argv.data(), as_root);
}

Options options_of(const char* list, bool as_root = true) {
  const auto result = parse({"plumbfs", "/dev/dax0.0", "/mnt", "-o", list}, as_root);
  if (!result) FAIL(result.error().text);
  return *result;
}

std::string complaint(const char* list) {
  const auto result = parse({"plumbfs", "/dev/dax0.0", "/mnt", "-o", list});
  if (result) return "";
  CHECK(result.error().status == kExitUsage);
  CHECK(result.error().text.back() == '\n');
  return result.error().text;
}

bool has(const Options& options, const std::string& word) {
  return std::find(options.kernel.begin(), options.kernel.end(), word) != options.kernel.end();
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("options: device and mount point, defaults", "[options]") {
  const auto result = parse({"plumbfs", "/dev/dax0.0", "/mnt"});
  REQUIRE(result.has_value());
  CHECK(result->device == "/dev/dax0.0");
  CHECK(result->mountpoint == "/mnt");
  CHECK_FALSE(result->foreground);
  CHECK_FALSE(result->fake);
  CHECK_FALSE(result->volume.read_only);
  CHECK(result->volume.writeback == Writeback::kImmediate);
  CHECK(result->volume.atime == AtimeMode::kRelatime);
  CHECK(result->dax == DaxMode::kAlways);
  CHECK(result->io_uring == Choice::kAuto);
  CHECK(result->warnings.empty());
  CHECK(has(*result, "rw"));
  CHECK(has(*result, "default_permissions"));
}

TEST_CASE("options: root mounts for everybody, with devices and set-id programs", "[options]") {
  const Options root = options_of("rw", true);
  CHECK(root.allow_other);
  CHECK(has(root, "allow_other"));
  CHECK(has(root, "suid"));
  CHECK(has(root, "dev"));

  const Options restricted = options_of("noallow_other,nosuid,nodev,noexec", true);
  CHECK_FALSE(restricted.allow_other);
  CHECK_FALSE(has(restricted, "allow_other"));
  CHECK(has(restricted, "nosuid"));
  CHECK(has(restricted, "nodev"));
  CHECK(has(restricted, "noexec"));
  CHECK_FALSE(has(restricted, "suid"));

  const Options user = options_of("rw", false);
  CHECK_FALSE(user.allow_other);
  CHECK_FALSE(has(user, "suid"));
  CHECK_FALSE(has(user, "dev"));
  CHECK(has(user, "default_permissions"));
}

TEST_CASE("options: -o may come first, last, often, and joined", "[options]") {
  const auto first = parse({"plumbfs", "-o", "ro", "/dev/dax0.0", "/mnt"});
  REQUIRE(first.has_value());
  CHECK(first->volume.read_only);
  CHECK(first->mountpoint == "/mnt");
  const auto often = parse({"plumbfs", "/dev/dax0.0", "-o", "ro", "/mnt", "-onoatime", "-o", "dax=never"});
  REQUIRE(often.has_value());
  CHECK(often->volume.read_only);
  CHECK(often->volume.atime == AtimeMode::kNoatime);
  CHECK(often->dax == DaxMode::kNever);
  CHECK(has(*often, "noatime"));
}

TEST_CASE("options: values", "[options]") {
  const Options o = options_of(
      "dax=inode,writeback=deferred,interval=0,commit=30,sync,dirsync,strictatime,assume=pmem,threads=3,"
      "max_idle_threads=0,no_io_uring,log=/tmp/l,uuid=01234567-89ab-cdef-0123-456789ABCDEF,debug");
  CHECK(o.dax == DaxMode::kInode);
  CHECK(o.volume.writeback == Writeback::kDeferred);
  CHECK(o.volume.interval_seconds == 0);
  CHECK(o.volume.commit_seconds == 30);
  CHECK(o.volume.sync);
  CHECK(o.volume.dirsync);
  CHECK(o.volume.atime == AtimeMode::kStrictatime);
  CHECK(o.assume == Assume::kPmem);
  CHECK(o.threads == 3);
  CHECK(o.max_idle_threads == 0U);
  CHECK(o.io_uring == Choice::kNo);
  CHECK(o.log_file == "/tmp/l");
  REQUIRE(o.uuid.has_value());
  CHECK(o.uuid->front() == 0x01);
  CHECK(o.uuid->back() == 0xef);
  CHECK(o.debug);
  CHECK(o.foreground);
}

TEST_CASE("options: the last of contradicting options counts", "[options]") {
  CHECK_FALSE(options_of("ro,rw").volume.read_only);
  CHECK(options_of("rw,ro").volume.read_only);
  CHECK(has(options_of("nosuid,suid"), "suid"));
  CHECK(options_of("noatime,relatime").volume.atime == AtimeMode::kRelatime);
}

TEST_CASE("options: unknown and malformed ones are named", "[options]") {
  CHECK(contains(complaint("frobnicate"), "unknown option 'frobnicate'"));
  CHECK(contains(complaint("frobnicate=3"), "unknown option 'frobnicate=3'"));
  CHECK(contains(complaint("dax=maybe"), "always, inode, never"));
  CHECK(contains(complaint("dax"), "needs a value"));
  CHECK(contains(complaint("ro=1"), "takes no value"));
  CHECK(contains(complaint("commit=soon"), "'soon'"));
  CHECK(contains(complaint("commit=-1"), "'-1'"));
  CHECK(contains(complaint("commit=99999999999999"), "commit takes a number"));
  CHECK(contains(complaint("threads=0"), "from 1"));
  CHECK(contains(complaint("uuid=0123"), "uuid takes"));
  CHECK(contains(complaint("uuid=g1234567-89ab-cdef-0123-456789abcdef"), "uuid takes"));
  CHECK(contains(complaint("remount,ro"), "remount"));
  CHECK(contains(complaint("nodefault_permissions"), "always on"));
  CHECK(contains(complaint("allow_root"), "unknown option"));
}

TEST_CASE("options: what belongs to mount(8) and fstab is accepted", "[options]") {
  const Options o = options_of("defaults,noauto,nofail,user,users,_netdev,x-systemd.automount,X-mount.mkdir,comment=a");
  CHECK(o.warnings.empty());
  CHECK(options_of("nodiratime").warnings.size() == 1);
}

TEST_CASE("options: as the helper of mount(8)", "[options]") {
  const auto result =
      parse({"/sbin/mount.fuse.plumbfs", "/dev/dax0.0", "/mnt", "-sfnv", "-t", "fuse.plumbfs", "-o", "rw,unheard_of"});
  if (!result) FAIL(result.error().text);
  CHECK(result->fake);
  CHECK_FALSE(result->foreground);
  CHECK(result->warnings.size() == 1);

  const auto daemon = parse({"/usr/bin/plumbfs", "/dev/dax0.0", "/mnt", "-f"});
  REQUIRE(daemon.has_value());
  CHECK(daemon->foreground);
  CHECK_FALSE(daemon->fake);
}

TEST_CASE("options: usage errors, help and version", "[options]") {
  CHECK(parse({"plumbfs"}).error().status == kExitUsage);
  CHECK(parse({"plumbfs", "/dev/dax0.0"}).error().status == kExitUsage);
  CHECK(parse({"plumbfs", "/dev/dax0.0", "/mnt", "extra"}).error().status == kExitUsage);
  CHECK(parse({"plumbfs", "--frob", "/dev/dax0.0", "/mnt"}).error().status == kExitUsage);
  const auto help = parse({"plumbfs", "--help"});
  CHECK(help.error().status == kExitOk);
  CHECK(contains(help.error().text, "dax=always"));
  CHECK(contains(parse({"plumbfs", "--version"}).error().text, "plumbfs "));
}

TEST_CASE("options: splitting at commas", "[options]") {
  CHECK(split_options("a,b,,c,") == std::vector<std::string>{"a", "b", "c"});
  CHECK(split_options("log=a\\,b,c") == std::vector<std::string>{"log=a,b", "c"});
  CHECK(split_options("context=\"s0:c1,c2\",ro") == std::vector<std::string>{"context=\"s0:c1,c2\"", "ro"});
  CHECK(split_options("").empty());
  const Options o = options_of("context=\"system_u:object_r:tmp_t:s0:c1,c2\"");
  CHECK(has(o, "context=\"system_u:object_r:tmp_t:s0:c1,c2\""));
}

TEST_CASE("options: fuseblk is for root", "[options]") {
  CHECK_FALSE(options_of("rw").fuseblk);
  CHECK(options_of("fuseblk").fuseblk);
  const auto refused = parse({"plumbfs", "/dev/loop0", "/mnt", "-o", "fuseblk"}, false);
  REQUIRE_FALSE(refused.has_value());
  CHECK(contains(refused.error().text, "only root"));
}

TEST_CASE("options of raw: those of a mount, but for those of a file system", "[options][raw]") {
  const auto options = parse_raw_options({"writeback=deferred,interval=0", "ro,threads=3"}, true);
  REQUIRE(options.has_value());
  CHECK(options->volume.writeback == Writeback::kDeferred);
  CHECK(options->volume.interval_seconds == 0);
  CHECK(options->volume.read_only);
  CHECK(options->threads == 3);
  CHECK(options->allow_other);
  CHECK(has(*options, "default_permissions"));
  CHECK(has(*options, "ro"));
  for (const char* list : {"commit=5", "uuid=1", "dirsync", "dax=inode", "fuseblk", "rtdev=/dev/dax1.0"}) {
    const auto refused = parse_raw_options({list}, true);
    REQUIRE_FALSE(refused.has_value());
    CHECK(contains(refused.error(), list));
  }
  CHECK(contains(parse_raw_options({"frobnicate"}, true).error(), "frobnicate"));
}

}  // namespace plumb::fuse

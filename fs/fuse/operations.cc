#include <spdlog/spdlog.h>

#include <string>
#include <utility>
#include <vector>

#include "fs/fuse/capabilities.h"
#include "fs/fuse/handlers.h"

namespace plumb::fuse {
namespace {

// FUSE_INIT, the one request that libfuse replies to by itself.
void init(void* userdata, fuse_conn_info* connection) {
  auto& server = *static_cast<Server*>(userdata);
  std::vector<std::string> missing;
  server.features = negotiate(*connection, server.options, Contents::kVolume, server.ask_for_io_uring, missing);
  for (const std::string& clause : missing) spdlog::warn("this kernel or libfuse is too old: {}", clause);
  if (server.on_init) std::exchange(server.on_init, nullptr)();
}

}  // namespace

fuse_lowlevel_ops operations() {
  fuse_lowlevel_ops ops{};
  ops.init = init;
  ops.lookup = Callback<handlers::lookup>::call;
  ops.forget = Callback<handlers::forget>::call;
  ops.forget_multi = Callback<handlers::forget_multi>::call;
  ops.mknod = Callback<handlers::mknod>::call;
  ops.mkdir = Callback<handlers::mkdir>::call;
  ops.symlink = Callback<handlers::symlink>::call;
  ops.link = Callback<handlers::link>::call;
  ops.unlink = Callback<handlers::unlink>::call;
  ops.rmdir = Callback<handlers::rmdir>::call;
  ops.rename = Callback<handlers::rename>::call;
  ops.readlink = Callback<handlers::readlink>::call;
  ops.readdir = Callback<handlers::readdir>::call;
  ops.readdirplus = Callback<handlers::readdirplus>::call;
  ops.fsyncdir = Callback<handlers::fsyncdir>::call;
  ops.open = Callback<handlers::open>::call;
  ops.create = Callback<handlers::create>::call;
  ops.release = Callback<handlers::release>::call;
  ops.read = Callback<handlers::read>::call;
  ops.write = Callback<handlers::write>::call;
  ops.fsync = Callback<handlers::fsync>::call;
  ops.fallocate = Callback<handlers::fallocate>::call;
  ops.lseek = Callback<handlers::lseek>::call;
  ops.copy_file_range = Callback<handlers::copy_file_range>::call;
  ops.getattr = Callback<handlers::getattr>::call;
  ops.setattr = Callback<handlers::setattr>::call;
  ops.statfs = Callback<handlers::statfs>::call;
  ops.setxattr = Callback<handlers::setxattr>::call;
  ops.getxattr = Callback<handlers::getxattr>::call;
  ops.listxattr = Callback<handlers::listxattr>::call;
  ops.removexattr = Callback<handlers::removexattr>::call;
  ops.ioctl = Callback<handlers::ioctl>::call;
#if PLUMB_FUSE_HAS_TMPFILE
  ops.tmpfile = Callback<handlers::tmpfile>::call;
#endif
#if PLUMB_FUSE_HAS_STATX
  ops.statx = Callback<handlers::statx>::call;
#endif
  return ops;
}

}  // namespace plumb::fuse

// File handles as an NFS server uses them: name_to_handle_at(2), open_by_handle_at(2).
#include <linux/fs.h>

#include <cstddef>

#include "test/posix/support.h"

using namespace posix;

namespace {

class Handle {
 public:
  explicit Handle(const char* path) {
    bytes_.resize(sizeof(struct file_handle) + MAX_HANDLE_SZ);
    get()->handle_bytes = MAX_HANDLE_SZ;
    int mount_id = 0;
    const Code result = code(::name_to_handle_at(AT_FDCWD, path, get(), &mount_id, 0));
    if (result == EOPNOTSUPP) lacking("file handles");
    REQUIRE(result == kOk);
  }
  [[nodiscard]] struct file_handle* get() { return reinterpret_cast<struct file_handle*>(bytes_.data()); }
  [[nodiscard]] int open(int flags = O_RDONLY) {
    const Fd mount = open_file(".", O_RDONLY | O_DIRECTORY);
    return ::open_by_handle_at(mount.get(), get(), flags | O_CLOEXEC);
  }

 private:
  std::vector<std::byte> bytes_;
};

/// Makes the kernel forget names and inodes that nobody uses, so that a handle must be looked up anew.
void forget() {
  const Fd fd(::open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC));
  if (fd) CHECK(::write(fd.get(), "2", 1) == 1);
}

}  // namespace

TEST_CASE("handle: opens the file under whatever name", "[handle]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("d/file", "content");
  Handle handle("d/file");
  REQUIRE(::rename("d/file", "elsewhere") == 0);
  const Fd fd(handle.open(O_RDWR));
  REQUIRE(fd);
  CHECK(status(fd.get()).st_ino == status("elsewhere").st_ino);
  CHECK(read_at(fd.get(), 100, 0).size() == 7);
  write_at(fd.get(), "C", 0);
  CHECK(read_file("elsewhere") == "Content");
}

TEST_CASE("handle: works after the kernel has forgotten the inode", "[handle]") {
  const TestDirectory dir;
  make_directory("d");
  make_directory("d/e");
  make_file("d/e/file", "content");
  Handle file("d/e/file");
  Handle directory("d/e");
  forget();
  const Fd fd(file.open());
  REQUIRE(fd);
  CHECK(read_at(fd.get(), 100, 0).size() == 7);
  forget();
  const Fd opened(directory.open(O_RDONLY | O_DIRECTORY));
  REQUIRE(opened);
  const Fd below(::openat(opened.get(), "file", O_RDONLY));
  CHECK(below);
  // The way up from a directory that was reached by handle alone.
  const Fd up(::openat(opened.get(), "..", O_RDONLY | O_DIRECTORY));
  REQUIRE(up);
  CHECK(status(up.get()).st_ino == status("d").st_ino);
}

TEST_CASE("handle: of a deleted file is stale", "[handle]") {
  const TestDirectory dir;
  make_file("file", "x");
  make_directory("d");
  Handle file("file");
  Handle directory("d");
  REQUIRE(::unlink("file") == 0);
  REQUIRE(::rmdir("d") == 0);
  forget();
  CHECK(code(file.open()) == ESTALE);
  CHECK(code(directory.open(O_RDONLY | O_DIRECTORY)) == ESTALE);
}

TEST_CASE("handle: stays stale when the inode number is used again", "[handle][generation]") {
  const TestDirectory dir;
  make_file("file", "old");
  const ino_t number = status("file").st_ino;
  Handle handle("file");
  REQUIRE(::unlink("file") == 0);
  forget();
  bool used_again = false;
  for (int i = 0; i < 2000 && !used_again; ++i) {
    const std::string name = "new." + std::to_string(i);
    make_file(name, "new");
    used_again = status(name).st_ino == number;
  }
  CHECK(code(handle.open()) == ESTALE);
  if (!used_again) SKIP("the inode number was not used again within 2000 files");
}

TEST_CASE("handle: two names of one file have one handle", "[handle]") {
  const TestDirectory dir;
  make_file("a");
  REQUIRE(::link("a", "b") == 0);
  make_file("c");
  Handle a("a");
  Handle b("b");
  Handle c("c");
  REQUIRE(a.get()->handle_bytes == b.get()->handle_bytes);
  CHECK(std::memcmp(a.get()->f_handle, b.get()->f_handle, a.get()->handle_bytes) == 0);
  CHECK((a.get()->handle_bytes != c.get()->handle_bytes ||
         std::memcmp(a.get()->f_handle, c.get()->f_handle, a.get()->handle_bytes) != 0));
}

// plumb_map_sync FILE BYTES: makes the file BYTES long, maps all of it with MAP_SHARED_VALIDATE | MAP_SYNC, and fills
// it with 'Z' by stores. Exit status 0, or 1 with what mmap(2) said.

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: plumb_map_sync FILE BYTES\n");
    return 2;
  }
  const std::size_t bytes = std::strtoull(argv[2], nullptr, 10);
  const int fd = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0 || posix_fallocate(fd, 0, static_cast<off_t>(bytes)) != 0) {
    std::fprintf(stderr, "plumb_map_sync: %s cannot be made %zu bytes long\n", argv[1], bytes);
    return 1;
  }
  void* const map = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED_VALIDATE | MAP_SYNC, fd, 0);
  if (map == MAP_FAILED) {
    std::fprintf(stderr, "plumb_map_sync: MAP_SYNC: %s\n", std::strerror(errno));
    return 1;
  }
  std::memset(map, 'Z', bytes);
  return munmap(map, bytes) == 0 && close(fd) == 0 ? 0 : 1;
}

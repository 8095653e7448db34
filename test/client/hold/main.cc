// A program that has a file open and mapped through libplumbfs, and does what it is told: for scripts that kill the
// daemon, or this program.
//
//     plumb_client_hold FILE
//
// Maps all of the file and prints "ready", or "error ..." and ends with 1. Then it answers each line of its input:
//
//     fill C         all bytes of the map become C, durably
//     check C        "ok" if all bytes of the map are C, else "differs at N"
//     read C         the same by plumbfs_read
//     write C        all bytes by plumbfs_write
//     append         one byte at the end
//     open PATH      opens another file, direct access only, and closes it
//     reopen         closes the file and opens it again; the map stays
//     spin           writes the bytes a to z over all of the file, over and over; prints "ok" first
//
// with "ok" or "error ERRNO-NAME: text". It ends with its input.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <string>
#include <vector>

#include "fs/client/plumbfs.h"

namespace {

struct Held {
  std::string path;
  plumbfs_file* file = nullptr;
  plumbfs_mapping* map = nullptr;
  std::uint64_t bytes = 0;
};

void answer(const std::string& text) {
  std::cout << text << std::endl;
}

void answer_result(bool is_good) {
  answer(is_good ? "ok" : std::string("error ") + strerrorname_np(errno) + ": " + plumbfs_error());
}

void answer_compared(const char* bytes, std::uint64_t count, char wanted) {
  for (std::uint64_t i = 0; i < count; ++i) {
    if (bytes[i] != wanted) return answer("differs at " + std::to_string(i));
  }
  answer("ok");
}

bool write_all(const Held& held, char byte) {
  const std::vector<char> data(held.bytes, byte);
  return plumbfs_write(held.file, data.data(), data.size(), 0) == static_cast<ssize_t>(data.size());
}

[[noreturn]] void spin(const Held& held) {
  answer("ok");
  for (;;) {
    for (char byte = 'a'; byte <= 'z'; ++byte) write_all(held, byte);
  }
}

void obey(Held& held, const std::string& command, const std::string& argument) {
  auto* mapped = static_cast<char*>(plumbfs_map_address(held.map));
  const char byte = argument.empty() ? '\0' : argument[0];
  if (command == "fill") {
    std::memset(mapped, byte, held.bytes);
    answer_result(plumbfs_persist(held.map, mapped, held.bytes) == 0);
  } else if (command == "check") {
    answer_compared(mapped, held.bytes, byte);
  } else if (command == "read") {
    std::vector<char> data(held.bytes);
    const ssize_t got = plumbfs_read(held.file, data.data(), data.size(), 0);
    if (got < 0) return answer_result(false);
    answer_compared(data.data(), static_cast<std::uint64_t>(got), byte);
  } else if (command == "write") {
    answer_result(write_all(held, byte));
  } else if (command == "append") {
    answer_result(plumbfs_append(held.file, "x", 1, nullptr) == 1);
  } else if (command == "open") {
    plumbfs_file* other = plumbfs_open(argument.c_str(), O_RDWR, 0, PLUMBFS_DIRECT_ONLY);
    answer_result(other != nullptr && plumbfs_is_direct(other) == 1);
    if (other != nullptr) plumbfs_close(other);
  } else if (command == "reopen") {
    plumbfs_close(held.file);
    held.file = plumbfs_open(held.path.c_str(), O_RDWR, 0, PLUMBFS_DIRECT_ONLY);
    answer_result(held.file != nullptr && plumbfs_is_direct(held.file) == 1);
    if (held.file == nullptr) _exit(1);
  } else if (command == "spin") {
    spin(held);
  } else {
    answer("error: unknown command " + command);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: plumb_client_hold FILE\n";
    return 2;
  }
  Held held;
  held.path = argv[1];
  held.file = plumbfs_open(argv[1], O_RDWR, 0, PLUMBFS_DIRECT_ONLY);
  if (held.file != nullptr && plumbfs_size(held.file, &held.bytes) == 0) {
    held.map = plumbfs_map(held.file, 0, held.bytes, PLUMBFS_MAP_WRITE);
  }
  if (held.map == nullptr) {
    answer_result(false);
    return 1;
  }
  answer("ready");
  std::string line;
  while (std::getline(std::cin, line)) {
    const std::size_t blank = line.find(' ');
    obey(held, line.substr(0, blank), blank == std::string::npos ? "" : line.substr(blank + 1));
  }
  return 0;
}

// Several processes at once in one directory or one file.
#include <linux/fs.h>
#include <stdio.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <random>

#include "test/posix/support.h"

using namespace posix;

namespace {
constexpr unsigned kProcesses = 4;
std::string numbered(const char* prefix, unsigned i) {
  return prefix + std::to_string(i);
}
}  // namespace

TEST_CASE("concurrent: O_EXCL has one winner for each name", "[concurrent]") {
  const TestDirectory dir;
  constexpr unsigned kNames = 300;
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    for (unsigned i = 0; i < kNames; ++i) {
      const int fd = ::open(numbered("f", i).c_str(), O_CREAT | O_EXCL | O_WRONLY, 0644);
      if (fd < 0) {
        if (errno == EEXIST) continue;
        return errno;
      }
      ::close(fd);
      make_file(numbered("winner.", i) + "." + std::to_string(number));
    }
    return 0;
  }));
  const std::set<std::string> names = list(".");
  CHECK(names.size() == 2 * kNames);
  for (unsigned i = 0; i < kNames; ++i) {
    const std::string prefix = numbered("winner.", i) + ".";
    CHECK(std::count_if(names.begin(), names.end(), [&](const std::string& n) { return n.starts_with(prefix); }) == 1);
  }
}

TEST_CASE("concurrent: processes create, rename, link and delete in one directory", "[concurrent]") {
  const TestDirectory dir;
  make_directory("d");
  constexpr unsigned kFiles = 60;
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    const auto own = [&](const char* kind, unsigned i) {
      return std::string("d/") + kind + "." + std::to_string(number) + "." + std::to_string(i);
    };
    for (unsigned round = 0; round < 5; ++round) {
      for (unsigned i = 0; i < kFiles; ++i) {
        make_file(own("a", i), own("a", i));
        if (::rename(own("a", i).c_str(), own("b", i).c_str()) != 0) return errno;
        if (::link(own("b", i).c_str(), own("c", i).c_str()) != 0) return errno;
        if (::mkdir(own("e", i).c_str(), 0755) != 0) return errno;
      }
      for (unsigned i = 0; i < kFiles; ++i) {
        if (read_file(own("c", i)) != own("a", i)) return 250;
        if (::unlink(own("b", i).c_str()) != 0) return errno;
        if (::rmdir(own("e", i).c_str()) != 0) return errno;
        if (round + 1 < 5 && ::unlink(own("c", i).c_str()) != 0) return errno;
      }
    }
    return 0;
  }));
  CHECK(list("d").size() == kProcesses * kFiles);
  CHECK(status("d").st_nlink == 2);
}

TEST_CASE("concurrent: a file renamed back and forth is always there once", "[concurrent][rename]") {
  const TestDirectory dir;
  make_directory("one");
  make_directory("two");
  make_file("one/file", "content");
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    const char* names[] = {"one/file", "two/file"};
    for (int i = 0; i < 400; ++i) {
      const char* from = names[(static_cast<unsigned>(i) + number) % 2];
      const char* to = names[(static_cast<unsigned>(i) + number + 1) % 2];
      if (::rename(from, to) != 0 && errno != ENOENT) return errno;
    }
    return 0;
  }));
  CHECK(list("one").size() + list("two").size() == 1);
  CHECK(read_file(list("one").empty() ? "two/file" : "one/file") == "content");
}

TEST_CASE("concurrent: a reader never misses a file that is replaced by rename", "[concurrent][rename]") {
  const TestDirectory dir;
  make_file("file", std::string(5000, '0'));
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    for (int i = 0; i < 300; ++i) {
      if (number == 0) {
        make_file("new", std::string(5000, static_cast<char>('0' + i % 10)));
        if (::rename("new", "file") != 0) return errno;
        continue;
      }
      const int fd = ::open("file", O_RDONLY);
      if (fd < 0) return errno;
      std::array<char, 6000> buffer{};
      const ssize_t got = ::read(fd, buffer.data(), buffer.size());
      ::close(fd);
      if (got != 5000) return 250;
      if (std::count(buffer.begin(), buffer.begin() + 5000, buffer[0]) != 5000) return 251;
    }
    return 0;
  }));
}

TEST_CASE("concurrent: directories moved into each other never make a loop or a deadlock", "[concurrent][rename]") {
  const TestDirectory dir;
  make_directory("a");
  make_directory("b");
  make_directory("a/x");
  make_directory("b/y");
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    for (int i = 0; i < 250; ++i) {
      const bool way = (static_cast<unsigned>(i) + number) % 2 == 0;
      const Code result = code(way ? ::rename("a", "b/y/a") : ::rename("b", "a/x/b"));
      if (!(result == kOk || result == ENOENT || result == EINVAL || result == ENOTEMPTY)) return result.value;
      const Code back = code(way ? ::rename("b/y/a", "a") : ::rename("a/x/b", "b"));
      if (!(back == kOk || back == ENOENT || back == EEXIST || back == ENOTEMPTY)) return back.value;
    }
    return 0;
  }));
  // Whatever the last state is: every directory is there exactly once, below one another or side by side.
  std::set<ino_t> inodes;
  const std::function<void(const std::string&)> walk = [&](const std::string& path) {
    for (const std::string& name : list(path)) {
      const std::string below = path + "/" + name;
      CHECK(inodes.insert(status(below).st_ino).second);
      CHECK(status(below + "/..").st_ino == status(path).st_ino);
      walk(below);
    }
  };
  walk(".");
  CHECK(inodes.size() == 4);
}

TEST_CASE("concurrent: EXCHANGE keeps both files whole", "[concurrent][rename]") {
  const TestDirectory dir;
  make_directory("d");
  make_file("one", "1");
  make_file("d/two", "2");
  REQUIRE(all_succeed(kProcesses, [](unsigned) {
    for (int i = 0; i < 200; ++i) {
      if (::renameat2(AT_FDCWD, "one", AT_FDCWD, "d/two", RENAME_EXCHANGE) != 0) return errno;
    }
    return 0;
  }));
  const std::set<std::string> contents = {read_file("one"), read_file("d/two")};
  CHECK(contents == std::set<std::string>{"1", "2"});
}

TEST_CASE("concurrent: mkdir and rmdir of one name", "[concurrent]") {
  const TestDirectory dir;
  const nlink_t before = status(".").st_nlink;
  REQUIRE(all_succeed(kProcesses, [](unsigned) {
    for (int i = 0; i < 300; ++i) {
      if (::mkdir("d", 0755) != 0 && errno != EEXIST) return errno;
      const int fd = ::open("d/f", O_CREAT | O_WRONLY, 0644);
      if (fd < 0 && errno != ENOENT) return errno;
      if (fd >= 0) ::close(fd);
      if (::unlink("d/f") != 0 && errno != ENOENT) return errno;
      if (::rmdir("d") != 0 && errno != ENOENT && errno != ENOTEMPTY) return errno;
    }
    return 0;
  }));
  if (exists("d")) CHECK(code(::rmdir("d")) == kOk);
  CHECK(list(".").empty());
  CHECK(status(".").st_nlink == before);
}

TEST_CASE("concurrent: links of one file are counted right", "[concurrent][link]") {
  const TestDirectory dir;
  make_file("file", "x");
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    for (unsigned i = 0; i < 200; ++i) {
      const std::string name = "l." + std::to_string(number) + "." + std::to_string(i);
      if (::link("file", name.c_str()) != 0) return errno;
      if (i % 2 == 0 && ::unlink(name.c_str()) != 0) return errno;
    }
    return 0;
  }));
  CHECK(status("file").st_nlink == kProcesses * 100 + 1);
}

TEST_CASE("concurrent: writers of different ranges of one file lose nothing", "[concurrent][io]") {
  const TestDirectory dir;
  make_file("file");
  constexpr std::size_t kPiece = 1500;  // pieces of different writers share blocks
  constexpr unsigned kPieces = 400;
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    const int fd = ::open("file", O_RDWR);
    for (unsigned i = number; i < kPieces; i += kProcesses) {
      const Bytes data = pattern(kPiece, i);
      if (::pwrite(fd, data.data(), data.size(), static_cast<off_t>(i * kPiece)) != static_cast<ssize_t>(kPiece))
        return 1;
    }
    return 0;
  }));
  const Fd fd = open_file("file", O_RDONLY);
  for (unsigned i = 0; i < kPieces; ++i) REQUIRE(read_at(fd.get(), kPiece, i * kPiece) == pattern(kPiece, i));
  CHECK(status("file").st_size == static_cast<off_t>(kPiece * kPieces));
}

TEST_CASE("concurrent: readers see zeros or data while a file is written, cut and punched", "[concurrent][io][stale]") {
  const TestDirectory dir;
  make_file("old", std::string(2'000'000, 'O'));  // its blocks are free, and must not be seen, from here on
  REQUIRE(::unlink("old") == 0);
  make_file("file");
  REQUIRE(all_succeed(kProcesses, [](unsigned number) {
    const int fd = ::open("file", O_RDWR);
    std::mt19937 random(number);
    std::string buffer(200'000, 'D');
    for (int i = 0; i < 150; ++i) {
      const off_t offset = static_cast<off_t>(random() % 1'000'000);
      if (number == 0) {
        if (::pwrite(fd, buffer.data(), buffer.size(), offset) != static_cast<ssize_t>(buffer.size())) return 1;
      } else if (number == 1) {
        const Code result = i % 2 == 0
                                ? code(::ftruncate(fd, offset))
                                : code(::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, 70'000));
        if (!(result == kOk)) return result.value;
      } else {
        std::string seen(200'000, 'D');
        const ssize_t got = ::pread(fd, seen.data(), seen.size(), offset);
        if (got < 0) return errno;
        const auto good = [](char c) { return c == 'D' || c == '\0'; };
        if (!std::all_of(seen.begin(), seen.begin() + got, good)) return 250;
      }
    }
    return 0;
  }));
}

TEST_CASE("concurrent: many descriptors of one file in many processes", "[concurrent]") {
  const TestDirectory dir;
  make_file("file", "content");
  REQUIRE(all_succeed(8, [](unsigned) {
    std::vector<Fd> all;
    for (int i = 0; i < 100; ++i) {
      all.emplace_back(::open("file", i % 2 == 0 ? O_RDONLY : O_RDWR));
      if (!all.back()) return errno;
    }
    for (const Fd& fd : all) {
      std::array<char, 16> buffer{};
      if (::pread(fd.get(), buffer.data(), buffer.size(), 0) != 7) return 250;
    }
    return 0;
  }));
}

// Comparing a file with its model, and saying what differs.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "test/fsx/file.h"
#include "test/fsx/tester.h"

namespace fsx {
namespace {

constexpr std::size_t kLogTail = 60;

std::string hex(ConstBytes bytes) {
  std::string text;
  std::array<char, 4> two{};
  for (const std::uint8_t byte : bytes) {
    std::snprintf(two.data(), two.size(), "%02x ", byte);
    text += two.data();
  }
  return text;
}

}  // namespace

void Tester::check_size(File& file, bool force) {
  struct statx status {};
  const int flags = AT_EMPTY_PATH | (force ? AT_STATX_FORCE_SYNC : 0);
  if (::statx(file.plain, "", flags, STATX_SIZE, &status) != 0) fail_errno(file, "statx");
  if (status.stx_size != file.model.size_bytes()) {
    fail(file, "the size is " + std::to_string(status.stx_size) + ", expected " +
                   std::to_string(file.model.size_bytes()) + (force ? " (asked from the file system)" : ""));
  }
}

void Tester::check_all(File& file, const char* when) {
  const Bytes buffer = buffer_.first(buffer_.size);
  std::size_t have = 0;
  while (have < buffer.size()) {
    const ssize_t got = ::pread(file.plain, buffer.data() + have, buffer.size() - have, static_cast<off_t>(have));
    if (got < 0) fail_errno(file, "read");
    if (got == 0) break;
    have += static_cast<std::size_t>(got);
  }
  if (have != file.model.size_bytes()) {
    fail(file, std::string(when) + ": " + std::to_string(have) + " bytes could be read, expected " +
                   std::to_string(file.model.size_bytes()));
  }
  compare(file, 0, buffer.first(have), when);
  check_size(file, true);
}

void Tester::compare(const File& file, std::size_t offset, ConstBytes got, const char* how) {
  const ConstBytes expected = file.model.range(offset, got.size());
  if (std::memcmp(expected.data(), got.data(), got.size()) == 0) return;
  std::size_t first = 0;
  while (expected[first] == got[first]) ++first;
  std::size_t last = got.size() - 1;
  while (expected[last] == got[last]) --last;
  fail(file, std::string(how) + " differs from byte " + std::to_string(offset + first) + " to " +
                 std::to_string(offset + last) + "\n" +
                 explain(file, offset + first, got.subspan(first, last - first + 1)));
}

// Where the expected bytes come from, and whether the ones found are those of another operation.
std::string Tester::explain(const File& file, std::size_t offset, ConstBytes got) const {
  const std::size_t shown = std::min<std::size_t>(got.size(), 32);
  std::string text = "  expected " + hex(file.model.range(offset, shown)) + " (operation " +
                     std::to_string(file.model.writer(offset)) + ")\n  got      " + hex(got.first(shown)) + "\n";
  const std::size_t probe = std::min<std::size_t>(got.size(), 8);
  bool zero = true;
  for (std::size_t i = 0; i < probe; ++i) zero = zero && got[i] == 0;
  if (zero) return text + "  what was read is zeros\n";
  std::array<std::uint8_t, 8> data{};
  for (const Operation& operation : log_.tail(static_cast<std::size_t>(-1))) {
    if (!operation.stores_pattern() || !operation.covers(offset)) continue;
    fill_pattern(Bytes(data).first(probe), operation.number, offset);
    if (std::memcmp(data.data(), got.data(), probe) == 0) {
      text += "  what was read is of operation " + std::to_string(operation.number) + ": " + operation.text() + "\n";
    }
  }
  return text;
}

std::string Tester::dump() const {
  const char* temporary = std::getenv("TMPDIR");
  std::string directory = std::string(temporary != nullptr ? temporary : "/tmp") + "/plumb_fsx.XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) return "no dump: mkdtemp failed";
  for (const auto& file : files_) {
    if (!file) continue;
    const std::string name = directory + file->path.substr(file->path.rfind('/'));
    const auto save = [](const std::string& path, ConstBytes bytes) {
      if (FILE* out = std::fopen(path.c_str(), "wb"); out != nullptr) {
        std::fwrite(bytes.data(), 1, bytes.size(), out);
        std::fclose(out);
      }
    };
    save(name + ".expected", file->model.content());
    if (FILE* in = std::fopen(file->path.c_str(), "rb"); in != nullptr) {
      std::vector<std::uint8_t> bytes(options_.file_size_bytes * 2);
      bytes.resize(std::fread(bytes.data(), 1, bytes.size(), in));
      std::fclose(in);
      save(name + ".got", bytes);
    }
  }
  return directory;
}

void Tester::fail(const File& file, const std::string& what) {
  std::string text = "job " + std::to_string(job_) + ", operation " + std::to_string(number_) + ", file " +
                     static_cast<char>('a' + file.index) + ": " + what + "\nThe last operations:\n";
  for (const Operation& operation : log_.tail(kLogTail)) text += "  " + operation.text() + "\n";
  text += "Contents: " + dump() + "\n";
  throw Difference(text);
}

void Tester::fail_errno(const File& file, const char* call) {
  const int error = errno;
  fail(file, std::string(call) + ": " + std::strerror(error));
}

}  // namespace fsx

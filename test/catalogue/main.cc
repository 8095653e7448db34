// plumb_fsck_catalogue: breaks sound file systems in one way at a time, and has fsck.plumbfs find and repair it.
//
// The catalogue is test/image/NNN-what-is-broken: break.json says what is done to a sound file system, expect.json what
// fsck.plumbfs says about it and what the repaired file system has (entry.h). For each entry and image:
//   -n   reports it: exit status 4, the object, whether a checksum or a structure is wrong, where; changes no byte
//   -y   repairs it: exit status 1; -n --zeros finds nothing more; what is there is compared with the sound file system
//        through the volume, name by name and byte by byte; then it is used, and checked once more
//   -p   repairs it if nothing is lost by that, else says so (exit status 4) and leaves it to -y
// Sound images come first: none of the three may change them.
//
// PLUMBFS_MEMORY_DIR: where the images are made (default /dev/shm). On a disk it takes much longer.
//
// Exit status: 0 all as expected, 1 not, 2 wrong usage.
#include <stdlib.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "pmem/mutex.h"
#include "test/catalogue/entry.h"
#include "test/catalogue/sound.h"
#include "test/catalogue/trial.h"

namespace plumb::catalogue {
namespace {

struct Options {
  std::string catalogue = PLUMBFS_TEST_DIR "/image";
  std::string fsck;
  std::string keep;  // directory for the images of failed trials; empty: none are kept
  std::vector<unsigned> numbers;
  unsigned jobs = 2;
  bool no_repair = false;
  bool list = false;
  bool verbose = false;
};

struct Job {
  std::string name;
  std::function<std::vector<std::string>(const TrialOptions&)> run;
};

// Everything below it goes with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    const char* parent = ::getenv("PLUMBFS_MEMORY_DIR");
    path_ = std::string(parent == nullptr ? "/dev/shm" : parent) + "/plumb-catalogue.XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot make a directory " + path_);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Run {
 public:
  Run(const Options& options, std::vector<Job> jobs) : options_(options), jobs_(std::move(jobs)) {}

  // The number of failed jobs.
  std::size_t all() {
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < options_.jobs; ++i) threads.emplace_back([this] { work(); });
    for (std::thread& thread : threads) thread.join();
    return failed_;
  }

 private:
  void work() {
    for (std::size_t i = next_++; i < jobs_.size(); i = next_++) {
      const Job& job = jobs_[i];
      const std::string directory = temporary_.path() + "/" + job.name;
      std::filesystem::create_directories(directory);
      std::vector<std::string> wrong;
      try {
        wrong = job.run({options_.fsck, directory, !options_.no_repair});
      } catch (const std::exception& error) {
        wrong.push_back(error.what());
      }
      tell(job, wrong, directory);
      std::filesystem::remove_all(directory);
    }
  }

  void tell(const Job& job, const std::vector<std::string>& wrong, const std::string& directory) {
    const MutexLock lock(mutex_);
    if (wrong.empty()) {
      if (options_.verbose) std::printf("ok      %s\n", job.name.c_str());
      return;
    }
    ++failed_;
    std::printf("FAILED  %s\n", job.name.c_str());
    for (const std::string& line : wrong) std::printf("        %s\n", line.c_str());
    if (options_.keep.empty()) return;
    const std::string kept = options_.keep + "/" + job.name;
    std::filesystem::create_directories(kept);
    std::filesystem::copy(directory, kept,
                          std::filesystem::copy_options::recursive | std::filesystem::copy_options::overwrite_existing);
    std::printf("        kept in %s\n", kept.c_str());
  }

  const Options& options_;
  const std::vector<Job> jobs_;
  const TemporaryDirectory temporary_;
  std::atomic<std::size_t> next_{0};
  Mutex mutex_;
  std::size_t failed_ ABSL_GUARDED_BY(mutex_) = 0;
};

bool is_wanted(const Options& options, const Entry& entry) {
  if (options.numbers.empty()) return true;
  const auto number = static_cast<unsigned>(std::strtoul(entry.name.c_str(), nullptr, 10));
  return std::find(options.numbers.begin(), options.numbers.end(), number) != options.numbers.end();
}

int run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<Entry> entries = load_catalogue(options.catalogue);
  if (options.list) {
    for (const Entry& entry : entries) std::printf("%s: %s\n", entry.name.c_str(), entry.title.c_str());
    return 0;
  }
  std::vector<Job> jobs;
  if (options.numbers.empty())
    for (const std::string& image : image_names())
      jobs.push_back({"sound-" + image, [image](const TrialOptions& how) { return try_sound(image, how); }});
  std::size_t corruptions = 0;
  for (const Entry& entry : entries) {
    if (!is_wanted(options, entry)) continue;
    ++corruptions;
    for (const std::string& image : entry.images)
      jobs.push_back({entry.name + "-" + image,
                      [&entry, image](const TrialOptions& how) { return try_broken(entry, image, how); }});
  }
  if (jobs.empty()) throw std::runtime_error("no entry of the catalogue has such a number; see --list");
  const std::size_t trials = jobs.size();
  const std::size_t failed = Run(options, std::move(jobs)).all();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  std::printf("%zu corruptions, %zu images: %zu not as expected%s, %.1f s\n", corruptions, trials, failed,
              options.no_repair ? " (found only, not repaired)" : "", seconds.count());
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace plumb::catalogue

int main(int argc, char** argv) {
  plumb::catalogue::Options options;
  options.fsck = std::filesystem::read_symlink("/proc/self/exe").replace_filename("fsck.plumbfs").string();
  CLI::App app("Breaks sound file systems in one way at a time, and has fsck.plumbfs find and repair it.");
  app.add_option("NUMBER", options.numbers, "Only these entries of the catalogue");
  app.add_flag("--list", options.list, "List the entries");
  app.add_flag("--no-repair", options.no_repair, "Run fsck.plumbfs -n only");
  app.add_option("--keep", options.keep, "Keep what failed trials leave, below this directory")->type_name("DIR");
  app.add_option("--fsck", options.fsck, "The program (default: beside this one)")->type_name("PATH");
  app.add_option("--jobs", options.jobs, "Trials at a time")->check(CLI::Range(1, 64))->capture_default_str();
  app.add_flag("--verbose", options.verbose, "Tell of what is as expected, too");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return plumb::catalogue::run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plumb_fsck_catalogue: %s\n", error.what());
    return 2;
  }
}

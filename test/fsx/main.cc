// plumb_fsx: random operations on files, compared with a model in memory.
//
// Exit status: 0 no difference, 1 a difference or an error, 2 wrong usage.
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "test/fsx/tester.h"

namespace {

int run_job(const fsx::Options& options, unsigned job) {
  const auto start = std::chrono::steady_clock::now();
  try {
    fsx::Tester tester(options, job);
    tester.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("job %u: %llu operations without a difference, %.1f s\n", job,
                static_cast<unsigned long long>(options.operations), seconds.count());
    if (job == 0) {
      std::string line;
      for (std::size_t i = 0; i < fsx::kKinds; ++i) {
        if (tester.counts()[i] == 0) continue;
        line += (line.empty() ? "" : ", ") + std::string(fsx::kKindNames[i]) + " " + std::to_string(tester.counts()[i]);
      }
      std::printf("job 0: %s\n", line.c_str());
      if (!tester.left_out().empty()) std::printf("job 0: not on this file system: %s\n", tester.left_out().c_str());
    }
    return 0;
  } catch (const fsx::Difference& difference) {
    std::fprintf(stderr, "FAILED: %s", difference.what());
    return 1;
  }
}

std::string replay_command(const fsx::Options& options, unsigned jobs) {
  std::string text = "plumb_fsx --seed " + std::to_string(options.seed) + " --ops " +
                     std::to_string(options.operations) + " --file-size " + std::to_string(options.file_size_bytes) +
                     " --jobs " + std::to_string(jobs) + " --direct-align " +
                     std::to_string(options.direct_alignment_bytes);
  if (!options.use_mmap) text += " --no-mmap";
  if (!options.use_direct) text += " --no-direct";
  if (options.pollute_eof) text += " --pollute-eof";
  return text + " " + options.directory;
}

}  // namespace

int main(int argc, char** argv) {
  fsx::Options options;
  options.seed = std::random_device{}();
  unsigned jobs = 1;
  bool no_mmap = false;
  bool no_direct = false;

  CLI::App app("Random operations on files, compared with a model in memory");
  app.add_option("directory", options.directory, "Where the files are made")->required()->check(CLI::ExistingDirectory);
  app.add_option("--ops", options.operations, "Operations of each job")->capture_default_str();
  app.add_option("--seed", options.seed, "Seed; job N uses seed + N (default: random, printed)");
  app.add_option("--file-size", options.file_size_bytes, "Largest size of a file")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  app.add_option("--jobs", jobs, "Processes, each with files of its own")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  app.add_option("--direct-align", options.direct_alignment_bytes, "Alignment of O_DIRECT requests")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--save", options.save_directory,
                 "Leave the files, and write what they must contain to this directory")
      ->check(CLI::ExistingDirectory);
  app.add_flag("--no-mmap", no_mmap, "Without mappings");
  app.add_flag("--no-direct", no_direct, "Without O_DIRECT");
  app.add_flag("--pollute-eof", options.pollute_eof, "Store to mappings beyond the end of the file");
  app.add_flag("--verbose", options.verbose, "Print every operation before it is done");
  CLI11_PARSE(app, argc, argv);
  options.use_mmap = !no_mmap;
  options.use_direct = !no_direct;
  constexpr std::size_t kPage = 4096;
  options.file_size_bytes = (options.file_size_bytes + kPage - 1) / kPage * kPage;
  if (options.file_size_bytes < 4 * kPage) options.file_size_bytes = 4 * kPage;

  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::printf("%s\n", replay_command(options, jobs).c_str());
  std::vector<pid_t> children;
  for (unsigned job = 0; job < jobs; ++job) {
    const pid_t child = ::fork();
    if (child == 0) {
      const int status = run_job(options, job);
      std::fflush(nullptr);
      ::_exit(status);
    }
    if (child < 0) {
      std::perror("fork");
      break;
    }
    children.push_back(child);
  }
  bool failed = children.size() != jobs;
  for (const pid_t child : children) {
    int status = 0;
    if (::waitpid(child, &status, 0) != child || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      if (WIFSIGNALED(status)) std::fprintf(stderr, "FAILED: a job died of signal %d\n", WTERMSIG(status));
      failed = true;
    }
  }
  return failed ? 1 : 0;
}

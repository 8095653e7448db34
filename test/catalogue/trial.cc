#include "test/catalogue/trial.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <regex>
#include <stdexcept>

#include "test/catalogue/compare.h"
#include "test/catalogue/damage.h"
#include "test/catalogue/medium.h"
#include "test/catalogue/places.h"
#include "test/catalogue/sound.h"

namespace plumb::catalogue {
namespace {

using nlohmann::json;

constexpr int kClean = 0;  // exit statuses of fsck(8)
constexpr int kCorrected = 1;
constexpr int kErrorsLeft = 4;
constexpr int kOperational = 8;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

bool is_checksum(const json& problem) {
  return problem.contains("kind") ? problem.at("kind") == "checksum" : problem.at("checksum").get<bool>();
}

struct Outcome {
  int status = 0;
  std::string output, errors;
};

Outcome run(const std::vector<std::string>& command, const std::string& directory) {
  const std::string output = directory + "/stdout";
  const std::string errors = directory + "/stderr";
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&actions, 1, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  ::posix_spawn_file_actions_addopen(&actions, 2, errors.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  std::vector<char*> arguments;
  for (const std::string& word : command) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  pid_t pid = 0;
  const int error = ::posix_spawn(&pid, arguments[0], &actions, nullptr, arguments.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " + command[0] + ": " + std::strerror(error));
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) throw std::runtime_error("waitpid failed");
  Outcome outcome{WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), text_of(output), text_of(errors)};
  return outcome;
}

class Trial {
 public:
  Trial(const std::string& image, const TrialOptions& options, std::vector<std::string> fsck_options)
      : sound_(sound_image(image)),
        options_(options),
        fsck_options_(std::move(fsck_options)),
        files_(options.directory, !sound_.medium.realtime.empty()) {}

  void broken(const Entry& entry) {
    const Places places(sound_.medium);
    Medium broken = sound_.medium;
    apply_changes(entry.changes, places, broken);
    if (broken == sound_.medium) throw std::runtime_error("the changes change nothing");
    files_.store(broken);
    if (entry.refused) {
      refused("-n", *entry.refused, broken);
      if (options_.repair) refused("-y", *entry.refused, broken);
      return;
    }
    check_findings(places, entry, checked("-n", entry.found.empty() ? kClean : kErrorsLeft));
    expect_bytes("-n", broken);
    if (!options_.repair) return;
    if (entry.found.empty()) {
      checked("-y", kClean);
      check_repaired("-y", entry.after);
      return;
    }
    repair("-y");
    check_repaired("-y", entry.after);
    files_.store(broken);
    const int preened = fsck("-p").status;
    if (preened != kCorrected && preened != kErrorsLeft) complain("-p", "exit status " + std::to_string(preened));
    if (entry.preen && *entry.preen != (preened == kCorrected))
      complain("-p", *entry.preen ? "it leaves to -y what loses nothing" : "it repairs what loses something");
    if (preened == kErrorsLeft) repair("-y");
    check_repaired(preened == kErrorsLeft ? "-y after -p" : "-p", entry.after);
  }

  void sound() {
    files_.store(sound_.medium);
    recover(files_);
    const Medium recovered = sound_.clean ? sound_.medium : files_.load();
    for (const char* mode : {"-n", "-y", "-p"}) {
      files_.store(sound_.medium);
      checked(mode, kClean);
      expect_bytes(mode, std::string_view(mode) == "-n" ? sound_.medium : recovered);
    }
  }

  [[nodiscard]] const std::vector<std::string>& wrong() const { return wrong_; }

 private:
  void complain(const std::string& mode, const std::string& what) { wrong_.push_back("fsck " + mode + ": " + what); }

  Outcome fsck(const std::string& mode) {
    std::vector<std::string> command{options_.fsck, mode, "--json"};
    command.insert(command.end(), fsck_options_.begin(), fsck_options_.end());
    if (!files_.realtime.empty()) command.insert(command.end(), {"--rtdev", files_.realtime});
    command.push_back(files_.main);
    return run(command, options_.directory);
  }

  // Runs it and returns what it printed; null, after a complaint, if that or the exit status is not right.
  json checked(const std::string& mode, int status) {
    const Outcome outcome = fsck(mode);
    if (outcome.status != status) {
      complain(mode, "exit status " + std::to_string(outcome.status) + " where " + std::to_string(status) +
                         " is right\n" + outcome.errors + outcome.output.substr(0, 2000));
      return nullptr;
    }
    json report = json::parse(outcome.output, nullptr, false);
    if (report.is_discarded() || !report.contains("problems")) {
      complain(mode, "what it printed is no report:\n" + outcome.output.substr(0, 2000));
      return nullptr;
    }
    return report;
  }

  void refused(const std::string& mode, const std::string& message, const Medium& broken) {
    const Outcome outcome = fsck(mode);
    if (outcome.status != kOperational || !std::regex_search(outcome.errors, std::regex(message)))
      complain(mode, "exit status " + std::to_string(outcome.status) + " and \"" + outcome.errors + "\" where " +
                         std::to_string(kOperational) + " and \"" + message + "\" are right");
    expect_bytes(mode, broken);
  }

  void expect_bytes(const std::string& mode, const Medium& expected) {
    const std::string difference = files_.first_difference(expected);
    if (difference.empty()) return;
    complain(mode, "it changed what it should not: " + difference);
    const std::string directory = options_.directory + "/expected" + mode;
    std::filesystem::create_directory(directory);
    MediumFiles(directory, !expected.realtime.empty()).store(expected);
  }

  void check_findings(const Places& places, const Entry& entry, const json& report) {
    if (report.is_null()) return;
    for (const Finding& finding : entry.found) {
      const std::string object = places.expand(finding.object);
      const std::string what = places.expand(finding.what);
      const json& problems = report.at("problems");
      const auto it = std::find_if(problems.begin(), problems.end(), [&](const json& problem) {
        return std::regex_match(problem.at("object").get<std::string>(), std::regex(object)) &&
               std::regex_search(problem.at("what").get<std::string>(), std::regex(what));
      });
      if (it == problems.end()) {
        complain("-n",
                 "it does not report \"" + object + "\": \"" + what + "\", but\n" + problems.dump(2).substr(0, 2000));
        continue;
      }
      const std::string name = "\"" + object + "\": \"" + it->at("what").get<std::string>() + "\"";
      if (is_checksum(*it) != finding.checksum)
        complain("-n", name + " is called a problem of the " + (finding.checksum ? "structure" : "checksum"));
      if (!finding.at.empty()) check_offset(places.place(finding.at), *it, name);
    }
  }

  void check_offset(const Place& at, const json& problem, const std::string& name) {
    if (!problem.contains("offset_bytes")) return complain("-n", name + " is reported without an offset");
    const auto offset = problem.at("offset_bytes").get<std::uint64_t>();
    const std::uint64_t start =
        std::min(at.offset_bytes, at.seal.length_bytes == 0 ? at.offset_bytes : at.seal.offset_bytes);
    const std::uint64_t end = std::max(at.offset_bytes + at.length_bytes, at.seal.offset_bytes + at.seal.length_bytes);
    if (offset < start || offset >= end)
      complain("-n", name + " is reported at byte " + std::to_string(offset) + ", it is at " +
                         std::to_string(at.offset_bytes));
  }

  void repair(const std::string& mode) {
    const json report = checked(mode, kCorrected);
    if (report.is_null()) return;
    for (const json& problem : report.at("problems"))
      if (!problem.value("fixed", false)) complain(mode, "repaired, it says, but not: " + problem.dump());
  }

  // After a repair by `mode`.
  void check_repaired(const std::string& mode, const Difference& allowed) {
    fsck_options_.emplace_back("--zeros");
    if (checked("-n", kClean).is_null()) complain(mode, "what is above is what it left");
    try {
      for (const std::string& difference : forbidden_differences(sound_.contents, contents_of(files_), allowed))
        complain(mode, difference);
      use(files_);
    } catch (const std::exception& error) {
      complain(mode, std::string("what it left cannot be used: ") + error.what());
    }
    checked("-n", kClean);
    fsck_options_.pop_back();
  }

  const SoundImage& sound_;
  const TrialOptions& options_;
  std::vector<std::string> fsck_options_;
  MediumFiles files_;
  std::vector<std::string> wrong_;
};

}  // namespace

std::vector<std::string> try_broken(const Entry& entry, const std::string& image, const TrialOptions& options) {
  Trial trial(image, options, entry.options);
  trial.broken(entry);
  return trial.wrong();
}

std::vector<std::string> try_sound(const std::string& image, const TrialOptions& options) {
  Trial trial(image, options, {"--zeros"});
  trial.sound();
  return trial.wrong();
}

}  // namespace plumb::catalogue

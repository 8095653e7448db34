// plumb_crash_explore: crash states by the million. Goes through sequences of operations on all settings (schedule.h),
// crashes each everywhere (harness.h), in several processes, until a number of distinct states was seen, a time is
// over, a violation turns up, or nothing is left.
//
// Distinct: different in a byte that recovery reads or that it leaves (recovery_view.h), or of another setting. Each is
// counted once, over all processes.
//
// Exit status: 0 no violation, 1 a violation (printed with the line that replays it), 2 wrong usage.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <thread>

#include "test/crash/explore/shared.h"
#include "test/crash/schedule.h"

namespace plumb::test {
namespace {

using std::chrono::steady_clock;

struct Options {
  std::uint64_t states = 0;  // 0: until the end
  double seconds = 0;        // 0: no limit
  std::uint64_t seed = 0;
  unsigned jobs = 1;
  std::vector<std::string> settings;   // parts of names
  std::vector<std::string> sequences;  // the same
  bool is_listed = false;
};

double seconds_since(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

std::vector<std::size_t> wanted_settings(const Options& options) {
  const std::vector<Setting>& all = explored_settings();
  std::vector<std::size_t> wanted;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const auto is_part = [&](const std::string& part) { return std::strstr(all[i].name, part.c_str()) != nullptr; };
    if (options.settings.empty() || std::any_of(options.settings.begin(), options.settings.end(), is_part))
      wanted.push_back(i);
  }
  return wanted;
}

bool is_wanted(const Unit& unit, const Options& options) {
  const auto is_part = [&](const std::string& part) { return unit.workload.find(part) != std::string::npos; };
  return options.sequences.empty() || std::any_of(options.sequences.begin(), options.sequences.end(), is_part);
}

// The devices that sequences begin on, made when they are first needed.
class Bases {
 public:
  const MachineImage& of(const Unit& unit) {
    std::unique_ptr<MachineImage>& base = bases_[{unit.setting, unit.kind}];
    if (!base)
      base = std::make_unique<MachineImage>(prepared_image(explored_settings()[unit.setting], tree_of(unit.kind)));
    return *base;
  }

 private:
  std::map<std::pair<std::size_t, SequenceKind>, std::unique_ptr<MachineImage>> bases_;
};

// Empty, or the violation.
std::string explore(const Unit& unit, Bases& bases) {
  const Setting& setting = explored_settings()[unit.setting];
  const Workload workload = sequence(unit.workload);
  std::string problem = crash_everywhere(bases.of(unit), setting, workload, effort_for(unit.kind, setting));
  if (problem.empty()) return {};
  problem += "\n    steps:";
  for (const Step& s : workload.steps) problem += " " + s.name + ";";
  return problem;
}

// In one call, so that those of two processes do not mix.
void print_line(const std::string& line) {
  const std::string text = line + "\n";
  if (write(STDOUT_FILENO, text.data(), text.size()) < 0) std::perror("write");
}

void add(const Totals& more, Totals& sum) {
  sum.points += more.points;
  sum.images += more.images;
  sum.distinct += more.distinct;
  sum.repeated += more.repeated;
  sum.pruned += more.pruned;
  sum.worked_on += more.worked_on;
  sum.nested += more.nested;
  sum.with_clients += more.with_clients;
  sum.violations += more.violations;
}

// One process. Returns its exit status.
int work(const std::vector<Unit>& units, Shared& shared, std::size_t process) {
  Progress& progress = shared.progress(process);
  state_register() = [&shared](std::uint64_t state) { return shared.insert_state(state); };
  Bases bases;
  while (!shared.is_stopped()) {
    const std::size_t number = shared.take_unit();
    if (number >= units.size()) break;
    progress.unit = number;
    totals() = {};
    const std::string problem = explore(units[number], bases);
    add(totals(), progress.totals[units[number].setting]);
    shared.finish_unit(number);
    if (problem.empty()) continue;
    shared.stop();
    print_line("VIOLATION: " + problem);
    return 1;
  }
  return 0;
}

class Run {
 public:
  Run(const Options& options, const std::vector<Unit>& units)
      : options_(options),
        units_(units),
        shared_(std::max<std::uint64_t>(2 * options.states, 4'000'000), units.size()) {}

  int run() {
    std::fflush(nullptr);
    for (unsigned i = 0; i < options_.jobs; ++i) {
      const pid_t pid = fork();
      if (pid < 0) throw std::runtime_error(std::string("fork: ") + std::strerror(errno));
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        std::_Exit(run_work(i));
      }
      processes_[pid] = i;
    }
    supervise();
    report();
    return status_;
  }

 private:
  int run_work(std::size_t process) {
    try {
      return work(units_, shared_, process);
    } catch (const std::exception& error) {
      shared_.stop();
      print_line(std::string("FAILED: ") + error.what() + "\n    " + replay_of(process));
      return 1;
    }
  }

  [[nodiscard]] std::string replay_of(std::size_t process) {
    const Unit& unit = units_[shared_.progress(process).unit];
    return "replay: " + replay_line(std::string(explored_settings()[unit.setting].name) + "|" + unit.workload);
  }

  void supervise() {
    double next_report = 60;
    while (!processes_.empty()) {
      int status = 0;
      const pid_t pid = waitpid(-1, &status, WNOHANG);
      if (pid > 0) {
        end_of(pid, status);
        continue;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      const double now = seconds_since(start_);
      if ((options_.seconds != 0 && now >= options_.seconds) ||
          (options_.states != 0 && shared_.distinct() >= options_.states))
        shared_.stop();
      if (now < next_report) continue;
      next_report += 60;
      std::fprintf(stderr, "%.0f s: %llu distinct states, unit %zu of %zu\n", now,
                   static_cast<unsigned long long>(shared_.distinct()), units_done(), units_.size());
    }
  }

  void end_of(pid_t pid, int status) {
    const std::size_t process = processes_.at(pid);
    processes_.erase(pid);
    if (WIFEXITED(status)) {
      status_ = std::max(status_, WEXITSTATUS(status));
      return;
    }
    shared_.stop();
    status_ = 1;
    print_line(std::string("VIOLATION: died of ") + strsignal(WTERMSIG(status)) + "\n    " + replay_of(process));
  }

  [[nodiscard]] std::size_t units_done() const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < units_.size(); ++i) count += shared_.is_done(i) ? 1 : 0;
    return count;
  }

  void report_units() const {
    static constexpr const char* kNames[] = {"one operation", "two", "three", "random", "leases", "wrapping log"};
    for (std::size_t kind = 0; kind < std::size(kNames); ++kind) {
      std::size_t done = 0, all = 0;
      for (std::size_t i = 0; i < units_.size(); ++i) {
        if (static_cast<std::size_t>(units_[i].kind) != kind) continue;
        ++all;
        done += shared_.is_done(i) ? 1 : 0;
      }
      std::printf("%s%s %zu of %zu", kind == 0 ? "sequences: " : ", ", kNames[kind], done, all);
    }
    std::printf("\n");
  }

  void report() {
    const double seconds = seconds_since(start_);
    std::printf("%-62s %9s %9s %9s %9s %9s\n", "setting", "distinct", "images", "repeated", "pruned", "recovery");
    const auto print = [](const char* name, const Totals& t) {
      std::printf("%-62s %9llu %9llu %9llu %9llu %9llu\n", name, static_cast<unsigned long long>(t.distinct),
                  static_cast<unsigned long long>(t.images), static_cast<unsigned long long>(t.repeated),
                  static_cast<unsigned long long>(t.pruned), static_cast<unsigned long long>(t.nested));
    };
    Totals all;
    for (std::size_t setting = 0; setting < explored_settings().size(); ++setting) {
      Totals sum;
      for (unsigned i = 0; i < options_.jobs; ++i) add(shared_.progress(i).totals[setting], sum);
      if (sum.points != 0) print(explored_settings()[setting].name, sum);
      add(sum, all);
    }
    print("all", all);
    report_units();
    std::printf(
        "%llu distinct crash states, %llu of them after stores of clients, and %llu of crashes in recovery, %llu "
        "worked on at length, in %.0f s: %.0f a second by %u processes; violations: %llu; seed %llu\n",
        static_cast<unsigned long long>(all.distinct), static_cast<unsigned long long>(all.with_clients),
        static_cast<unsigned long long>(all.nested), static_cast<unsigned long long>(all.worked_on), seconds,
        static_cast<double>(all.images + all.nested) / seconds, options_.jobs,
        static_cast<unsigned long long>(all.violations), static_cast<unsigned long long>(options_.seed));
  }

  const Options& options_;
  const std::vector<Unit>& units_;
  Shared shared_;
  const steady_clock::time_point start_ = steady_clock::now();
  std::map<pid_t, std::size_t> processes_;
  int status_ = 0;
};

// PLUMB_CRASH_REPLAY: "SETTING|WORKLOAD|...".
int replay(const std::string& place) {
  const std::size_t bar = place.find('|');
  const std::string setting = place.substr(0, bar);
  const std::string workload = bar == place.npos ? "" : place.substr(bar + 1, place.find('|', bar + 1) - bar - 1);
  const std::vector<Setting>& all = explored_settings();
  const auto it = std::find_if(all.begin(), all.end(), [&](const Setting& s) { return setting == s.name; });
  if (it == all.end()) {
    std::fprintf(stderr, "plumb_crash_explore: PLUMB_CRASH_REPLAY names no setting: %s\n", place.c_str());
    return 2;
  }
  Bases bases;
  const Unit unit{static_cast<std::size_t>(it - all.begin()), kind_of(workload), workload};
  const std::string problem = explore(unit, bases);
  print_line(problem.empty() ? "replayed " + std::to_string(totals().images) + " images, no violation"
                             : "VIOLATION: " + problem);
  return problem.empty() ? 0 : 1;
}

int run(int argc, char** argv) {
  Options options;
  CLI::App app("Makes crash states of sequences of operations, recovers each and compares it with a model.");
  app.add_option("--states", options.states, "End when so many distinct states were seen")->type_name("N");
  app.add_option("--seconds", options.seconds, "End after so long; takes the sequences in a random order then")
      ->type_name("S");
  app.add_option("--seed", options.seed, "Of everything that is random (default: a new one, printed)")->type_name("X");
  app.add_option("--setting", options.settings, "Only settings with this in their name; may be given more than once")
      ->type_name("TEXT");
  app.add_option("--sequence", options.sequences,
                 "Only sequences with this in their name (\"leases \", \"truncate f\"); may be given more than once")
      ->type_name("TEXT");
  app.add_option("--jobs", options.jobs, "Processes (default: one for each processor)")
      ->type_name("N")
      ->check(CLI::Range(1u, static_cast<unsigned>(kMostProcesses)));
  app.add_flag("--list", options.is_listed, "Print the settings and the number of sequences, and end");
  app.footer(
      "Without --states and --seconds everything is gone through once, which takes hours.\n"
      "Environment: PLUMB_CRASH_KEEP=DIR writes the devices of a violating image to files there;\n"
      "PLUMB_CRASH_REPLAY and PLUMB_CRASH_SEED as in the line that is printed with a violation.");
  options.jobs = std::clamp(std::thread::hardware_concurrency(), 1u, static_cast<unsigned>(kMostProcesses));
  options.seed = std::random_device{}();
  if (const char* seed = std::getenv("PLUMB_CRASH_SEED")) options.seed = std::strtoull(seed, nullptr, 10);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  setenv("PLUMB_CRASH_SEED", std::to_string(options.seed).c_str(), 1);
  replay_command() = "test/crash/run";
  if (const char* place = std::getenv("PLUMB_CRASH_REPLAY")) return replay(place);
  const std::vector<std::size_t> settings = wanted_settings(options);
  if (settings.empty()) {
    std::fprintf(stderr, "plumb_crash_explore: no setting has that in its name; see --list\n");
    return 2;
  }
  std::vector<Unit> units = schedule(settings, options.seed, options.seconds != 0);
  std::erase_if(units, [&](const Unit& unit) { return !is_wanted(unit, options); });
  if (units.empty()) {
    std::fprintf(stderr, "plumb_crash_explore: no sequence has that in its name; see test/crash/sequence.cc\n");
    return 2;
  }
  if (options.is_listed) {
    for (const std::size_t setting : settings) std::printf("%s\n", explored_settings()[setting].name);
    std::printf("%zu sequences, of %zu operations\n", units.size(), operations().size());
    return 0;
  }
  return Run(options, units).run();
}

}  // namespace
}  // namespace plumb::test

int main(int argc, char** argv) {
  try {
    return plumb::test::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "plumb_crash_explore: %s\n", error.what());
    return 1;
  }
}

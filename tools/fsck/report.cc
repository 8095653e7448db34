#include "tools/fsck/report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "pmem/result.h"
#include "tools/common/label_text.h"

namespace plumb::tools {
namespace {

std::string counted(std::uint64_t number, const std::string& noun) {
  return std::to_string(number) + " " + noun + (number == 1 ? "" : "s");
}

std::string usage(const CheckReport& report) {
  return counted(report.inodes, "inode") + ", " + std::to_string(report.blocks_used) + "/" +
         std::to_string(report.blocks_total) + " blocks" +
         (report.realtime_extents_total == 0 ? std::string()
                                             : ", " + std::to_string(report.realtime_extents_used) + "/" +
                                                   std::to_string(report.realtime_extents_total) + " realtime extents");
}

nlohmann::ordered_json problem_json(const Problem& problem) {
  nlohmann::ordered_json entry;
  entry["object"] = problem.object;
  entry["what"] = problem.what;
  entry["checksum"] = problem.checksum;
  if (problem.offset_bytes != Error::kNoOffset) entry["offset_bytes"] = problem.offset_bytes;
  return entry;
}

}  // namespace

std::string closing_line(const FsckOutcome& outcome) {
  const CheckReport& report = outcome.now();
  const std::string found = outcome.device + ": " + counted(outcome.report.problems_total, "problem") + " found, ";
  if (outcome.attempted && outcome.repair.needs_more)
    return found + "nothing was repaired: some of it takes decisions; fsck.plumbfs -y " + outcome.device +
           " makes them";
  if (outcome.attempted)
    return found +
           (report.problems_total == 0 ? "all repaired, " : counted(report.problems_total, "problem") + " left, ") +
           usage(report);
  if (report.problems_total > 0) return found + "nothing was repaired (fsck.plumbfs -y repairs), " + usage(report);
  std::string text = outcome.device + ": clean, " + usage(report);
  if (outcome.replayed) text += " (journal replayed)";
  if (!outcome.replayed && !report.was_clean)
    text += " (not unmounted: " + counted(report.journal_records, "journal record") +
            " to replay, by the next mount or fsck.plumbfs -y)";
  return text;
}

std::string problem_line(const std::string& device, const Problem& problem) {
  std::string text = device + ": " + problem.object + ": " + problem.what;
  if (problem.checksum) text += " (checksum)";
  if (problem.offset_bytes != Error::kNoOffset) text += " (at byte " + std::to_string(problem.offset_bytes) + ")";
  return printable(text);
}

std::string repair_line(const std::string& device, const Repair& repair) {
  return printable(device + ": " + repair.object + ": repair: " + repair.what);
}

std::string verbose_text(const FsckOutcome& outcome) {
  const CheckReport& report = outcome.now();
  std::string text;
  const auto line = [&](std::uint64_t number, const char* what) {
    const std::string digits = std::to_string(number);
    text += std::string(digits.size() < 12 ? 12 - digits.size() : 0, ' ') + digits + " " + what + "\n";
  };
  line(report.inodes, "inodes in use");
  line(report.directories, "directories");
  line(report.files, "regular files");
  line(report.blocks_used, "blocks in use");
  line(report.blocks_total, "blocks");
  if (report.realtime_extents_total != 0) {
    line(report.realtime_extents_used, "realtime extents in use");
    line(report.realtime_extents_total, "realtime extents");
  }
  line(report.journal_records, "live journal records found");
  return text;
}

std::string outcome_json(const FsckOutcome& outcome, int exit_status) {
  const CheckReport& report = outcome.now();
  nlohmann::ordered_json json;
  json["device"] = outcome.device;
  json["exit_status"] = exit_status;
  json["was_clean"] = report.was_clean;
  json["journal_records"] = report.journal_records;
  json["replayed"] = outcome.replayed;
  json["inodes"] = report.inodes;
  json["directories"] = report.directories;
  json["files"] = report.files;
  json["blocks_used"] = report.blocks_used;
  json["blocks_total"] = report.blocks_total;
  if (report.realtime_extents_total != 0) {
    json["realtime_extents_used"] = report.realtime_extents_used;
    json["realtime_extents_total"] = report.realtime_extents_total;
  }
  json["problems_total"] = outcome.report.problems_total;
  json["problems_left"] = report.problems_total;
  const auto is_left = [&](const Problem& problem) {
    return std::any_of(report.problems.begin(), report.problems.end(),
                       [&](const Problem& left) { return left.object == problem.object && left.what == problem.what; });
  };
  json["problems"] = nlohmann::ordered_json::array();
  for (const Problem& problem : outcome.report.problems) {
    nlohmann::ordered_json entry = problem_json(problem);
    entry["fixed"] = !is_left(problem);
    json["problems"].push_back(std::move(entry));
  }
  if (outcome.attempted) {
    json["repairs_total"] = outcome.repair.needs_more ? 0 : outcome.repair.repairs_total;
    json["repairs"] = nlohmann::ordered_json::array();
    for (const Repair& repair : outcome.repair.repairs)
      json["repairs"].push_back({{"object", repair.object},
                                 {"what", repair.what},
                                 {"harmless", repair.harmless},
                                 {"done", !outcome.repair.needs_more}});
    json["left"] = nlohmann::ordered_json::array();
    for (const Problem& problem : report.problems) json["left"].push_back(problem_json(problem));
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace plumb::tools

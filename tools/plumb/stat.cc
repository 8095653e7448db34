// plumb stat PATH: the counters of a mounted file system, as a table or as the daemon's JSON.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "fs/client/protocol.h"
#include "tools/common/command_line.h"
#include "tools/common/label_text.h"
#include "tools/common/size.h"
#include "tools/plumb/commands.h"
#include "tools/plumb/mounted.h"

namespace plumb::tools {
namespace {

using Json = nlohmann::ordered_json;

Result<std::string> statistics_of(const std::string& path) {
  PLUMB_ASSIGN(const auto mounted, MountedPath::open(path));
  const auto answer = std::make_unique<protocol::Statistics>();
  PLUMB_TRY(mounted.ioctl(protocol::kIocStatistics, answer.get()));
  if (answer->version != protocol::kVersion || answer->length_bytes > sizeof answer->text)
    return refuse(path + ": its daemon answers in version " + std::to_string(answer->version) +
                  ", this program knows " + std::to_string(protocol::kVersion) +
                  "; use the plumb of the same release as the daemon");
  return std::string(answer->text, answer->length_bytes);
}

// "writeback_bytes" -> "writeback bytes"
std::string heading(std::string key) {
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

std::string value_text(const std::string& key, const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (value.is_string()) {
    const std::string text = printable(value.get<std::string>());
    return text.empty() ? "(none)" : text;
  }
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (value.is_number_unsigned() && key.ends_with("bytes") && value.get<std::uint64_t>() >= 1024)
    text += " (" + size_text(value.get<std::uint64_t>()) + ")";
  return text;
}

// Rows of cells; every column as wide as its widest cell.
class Table {
 public:
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  void print() const {
    std::vector<std::size_t> widths;
    for (const auto& row : rows_) {
      widths.resize(std::max(widths.size(), row.size()));
      for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    for (const auto& row : rows_) {
      std::string line;
      for (std::size_t i = 0; i < row.size(); ++i) {
        line += row[i];
        if (i + 1 < row.size()) line.append(widths[i] - row[i].size() + 2, ' ');
      }
      std::puts(line.c_str());
    }
  }

 private:
  std::vector<std::vector<std::string>> rows_;
};

// Counters of the volume first, then one column a device. Keys this program does not know are printed all the same.
void print_table(const Json& statistics) {
  Table volume;
  for (const auto& [key, value] : statistics.items())
    if (!value.is_structured()) volume.add({heading(key), value_text(key, value)});
  volume.print();

  const auto devices = statistics.find("devices");
  if (devices == statistics.end() || !devices->is_array() || devices->empty()) return;
  std::puts("");
  Table table;
  for (const auto& [key, unused] : devices->front().items()) {
    std::vector<std::string> row{heading(key)};
    for (const Json& device : *devices) row.push_back(device.contains(key) ? value_text(key, device.at(key)) : "-");
    table.add(std::move(row));
  }
  table.print();
}

Status stat_path(const std::string& path, bool json) {
  PLUMB_ASSIGN(const std::string text, statistics_of(path));
  const Json statistics = Json::parse(text, nullptr, false);
  if (!statistics.is_object()) return refuse(path + ": the answer of its daemon is not JSON; is it a plumbfs?");
  if (json)
    std::puts(text.c_str());
  else
    print_table(statistics);
  return {};
}

}  // namespace

void add_stat_command(CLI::App& app, int& status) {
  struct Arguments {
    std::string path;
    bool json = false;
  };
  auto* const command = app.add_subcommand("stat", "Show the counters of a mounted file system");
  const auto arguments = std::make_shared<Arguments>();
  command->add_flag("--json", arguments->json, "As one JSON object");
  command->add_option("PATH", arguments->path, "The mount point, or any file or directory below it")->required();
  command->callback([arguments, &status] {
    if (const Status done = stat_path(arguments->path, arguments->json); !done) {
      complain(kPlumbProgram, describe(done.error(), arguments->path));
      status = kPlumbError;
    }
  });
}

}  // namespace plumb::tools

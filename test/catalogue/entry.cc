#include "test/catalogue/entry.h"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string_view>

namespace plumb::catalogue {
namespace {

using nlohmann::json;

json load(const std::filesystem::path& path, const std::set<std::string>& members) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  json object = json::parse(file);
  for (const auto& [name, value] : object.items())
    if (!members.contains(name)) throw std::runtime_error("unknown member \"" + name + "\"");
  return object;
}

Finding finding(const json& object) {
  Finding f;
  f.object = object.at("object").get<std::string>();
  f.what = object.at("what").get<std::string>();
  const auto kind = object.at("kind").get<std::string>();
  if (kind != "checksum" && kind != "structure") throw std::runtime_error("unknown kind \"" + kind + "\"");
  f.checksum = kind == "checksum";
  f.at = object.value("at", std::string());
  return f;
}

Difference difference(const json& object) {
  for (const auto& [name, value] : object.items())
    if (!std::set<std::string>{"moved", "lost", "lost_at_most", "added", "holes", "changed"}.contains(name))
      throw std::runtime_error("unknown member \"" + name + "\" of \"after\"");
  Difference d;
  d.moved = object.value("moved", d.moved);
  d.lost = object.value("lost", d.lost);
  d.lost_at_most = object.value("lost_at_most", d.lost_at_most);
  d.added = object.value("added", d.added);
  d.holes = object.value("holes", d.holes);
  d.changed = object.value("changed", d.changed);
  return d;
}

Entry load_entry(const std::filesystem::path& directory) {
  Entry entry;
  entry.name = directory.filename().string();
  std::filesystem::path path = directory / "break.json";
  try {
    const json broken = load(path, {"title", "images", "changes"});
    entry.title = broken.at("title").get<std::string>();
    entry.images = broken.value("images", std::vector<std::string>{"1k", "4k"});
    entry.changes = broken.at("changes");
    path = directory / "expect.json";
    const json expected = load(path, {"found", "options", "preen", "refused", "after"});
    if (expected.contains("refused")) {
      entry.refused = expected.at("refused").get<std::string>();
      return entry;
    }
    for (const json& object : expected.at("found")) entry.found.push_back(finding(object));
    entry.options = expected.value("options", entry.options);
    if (expected.contains("preen")) entry.preen = expected.at("preen").get<bool>();
    if (expected.contains("after")) entry.after = difference(expected.at("after"));
    return entry;
  } catch (const std::exception& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
}

}  // namespace

std::vector<Entry> load_catalogue(const std::string& directory) {
  std::vector<std::filesystem::path> paths;
  for (const auto& file : std::filesystem::directory_iterator(directory))
    if (file.is_directory() && std::isdigit(static_cast<unsigned char>(file.path().filename().string()[0])) != 0)
      paths.push_back(file.path());
  std::sort(paths.begin(), paths.end());
  std::vector<Entry> entries;
  for (const auto& path : paths) entries.push_back(load_entry(path));
  if (entries.empty()) throw std::runtime_error(directory + ": no catalogue here");
  return entries;
}

}  // namespace plumb::catalogue

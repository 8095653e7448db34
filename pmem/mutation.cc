#include "pmem/mutation.h"

#include <cstdio>
#include <cstdlib>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "pmem/mutex.h"

namespace plumb::pmem::mutation {
namespace {

std::string text_from(const char* variable) {
  const char* text = std::getenv(variable);
  return text == nullptr ? std::string() : std::string(text);
}

struct Plan {
  std::string dropped = text_from("PLUMBFS_MUTATION_DROP");
  std::string late = text_from("PLUMBFS_MUTATION_LATE");
  std::string list = text_from("PLUMBFS_MUTATION_LIST");
};

const Plan& plan() {
  static const Plan the_plan;
  return the_plan;
}

std::string name_of(Call call, const std::source_location& where) {
  // ccache makes paths relative to the build directory.
  std::string_view file = where.file_name();
  while (file.starts_with("../")) file.remove_prefix(3);
  std::string name = call == Call::kFlush ? "flush " : "drain ";
  name.append(file).append(":").append(std::to_string(where.line()));
  return name.append(":").append(std::to_string(where.column()));
}

void list(const std::string& site, const char* function) {
  static Mutex mutex;
  static std::set<std::string> listed;
  MutexLock lock(mutex);
  if (!listed.insert(site).second) return;
  std::FILE* file = std::fopen(plan().list.c_str(), "ae");
  if (file == nullptr) {
    std::perror(plan().list.c_str());
    std::abort();
  }
  std::fprintf(file, "%s %s\n", site.c_str(), function);
  std::fclose(file);
}

std::vector<std::function<Status()>>& put_off() {
  thread_local std::vector<std::function<Status()>> calls;
  return calls;
}

}  // namespace

Status perform(Call call, const std::source_location& where, std::function<Status()> function) {
  const Plan& p = plan();
  if (!p.dropped.empty() || !p.late.empty() || !p.list.empty()) {
    const std::string site = name_of(call, where);
    if (!p.list.empty()) list(site, where.function_name());
    if (site == p.dropped) return {};
    if (site == p.late) {
      put_off().push_back(std::move(function));
      return {};
    }
  }
  return function();
}

Status after_store(Status status) {
  for (const auto& function : std::exchange(put_off(), {})) {
    const Status late = function();
    if (status && !late) status = late;
  }
  return status;
}

}  // namespace plumb::pmem::mutation

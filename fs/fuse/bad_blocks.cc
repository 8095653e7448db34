#include "fs/fuse/bad_blocks.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace plumb::fuse {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kEntriesPerReply = 64;

std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Json to_json(const BadBlockReport& report) {
  Json json = {{"device", report.role == DeviceRole::kMain ? "main" : "realtime"},
               {"offset_bytes", report.offset_bytes},
               {"length_bytes", report.length_bytes},
               {"use", name_of(report.use)}};
  if (report.use == BadBlockUse::kFile) {
    json["inode"] = report.inode.value;
    json["file_offset_bytes"] = report.file_offset;
    json["path"] = report.path.empty() ? Json(nullptr) : Json(report.path);
  }
  return json;
}

Result<std::unique_ptr<protocol::BadBlocks>> bad_blocks_reply(Volume& volume, std::uint64_t cursor) {
  PLUMB_ASSIGN(const auto part, volume.report_bad_blocks(cursor, kEntriesPerReply));
  auto reply = std::make_unique<protocol::BadBlocks>();  // zeros
  reply->version = protocol::kVersion;
  reply->cursor = part.next.value_or(protocol::kBadBlocksEnd);
  Json all = Json::array();
  std::size_t length = 2;
  for (const BadBlockReport& report : part.reports) {
    Json json = to_json(report);
    std::size_t more = text_of(json).size() + 1;
    if (more + 2 > sizeof reply->text) {
      // A path of thousands of characters that need escapes.
      json["path"] = nullptr;
      more = text_of(json).size() + 1;
    }
    if (length + more > sizeof reply->text) {
      reply->cursor = report.cursor;
      break;
    }
    length += more;
    all.push_back(std::move(json));
  }
  const std::string text = text_of(all);
  reply->length_bytes = static_cast<std::uint32_t>(text.size());
  std::memcpy(reply->text, text.data(), text.size());
  return reply;
}

}  // namespace plumb::fuse

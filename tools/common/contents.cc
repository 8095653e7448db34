#include "tools/common/contents.h"

#include "fs/core/superblock.h"
#include "fs/media/uuid_text.h"
#include "tools/common/label_text.h"
#include "tools/common/signatures.h"
#include "tools/common/superblocks.h"

namespace plumb::tools {
namespace {

std::string name_of(const std::string& label, const std::string& uuid) {
  std::string text;
  if (!label.empty()) text += " with label \"" + printable(label) + "\"";
  if (!uuid.empty()) text += (text.empty() ? " with uuid " : ", uuid ") + uuid;
  return text;
}

}  // namespace

Result<std::string> contents_of(const pmem::Device& device) {
  const SuperblockCopies superblocks = read_superblocks(device);
  if (const SuperblockCopy* copy = superblocks.current())
    return "a plumbfs file system" + name_of(label_of(copy->superblock.label), media::uuid_text(copy->superblock.uuid));
  if (superblocks.any_magic()) {
    const Error& error = superblocks.most_telling().status.error();
    return "a plumbfs file system that this program cannot read (" + error.detail + ")";
  }
  if (const auto label = Superblock::read_label(device))
    return "the realtime device of a plumbfs" +
           name_of(label_of(label->label), media::uuid_text(label->filesystem_uuid));
  PLUMB_ASSIGN(const auto signatures, find_signatures(device));
  std::string text;
  for (const Signature& signature : signatures)
    text += (text.empty() ? "" : " and ") + signature.what + name_of(signature.label, signature.uuid);
  return text;
}

}  // namespace plumb::tools

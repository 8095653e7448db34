#include "fs/core/value_chain.h"

#include <algorithm>
#include <cstring>

namespace plumb {
namespace {
constexpr std::uint32_t kMaxChain = 128;  // blocks; 64 KiB in blocks of 1 KiB need 68
}

Result<media::TreeRoot> write_chain(Transaction& t, std::uint64_t owner, std::string_view value) {
  media::TreeRoot root;
  media::ValueHeader* previous = nullptr;
  const std::uint64_t room = chain_capacity(t.block_size());
  for (std::size_t at = 0; at < value.size(); at += room) {
    PLUMB_ASSIGN(const BufferRef buffer, t.allocate(BufferType::kValue, owner));
    std::byte* bytes = t.modify(buffer);
    auto* header = reinterpret_cast<media::ValueHeader*>(bytes);
    const std::size_t count = std::min<std::size_t>(room, value.size() - at);
    header->bytes = static_cast<std::uint32_t>(count);
    header->index = root.nodes.get();
    std::memcpy(bytes + sizeof *header, value.data() + at, count);
    if (previous != nullptr)
      previous->next = buffer->block.value;
    else
      root.block = buffer->block.value;
    previous = header;  // stays valid: the transaction holds the buffer
    root.nodes = root.nodes + 1;
  }
  return root;
}

Result<std::string> read_chain(Store& store, std::uint64_t first_block, std::uint64_t length_bytes) {
  std::string value;
  std::uint64_t block = first_block;
  for (std::uint32_t i = 0; value.size() < length_bytes; ++i) {
    if (block == 0 || i > kMaxChain) return fail(EUCLEAN, "value chain: shorter than its length");
    PLUMB_ASSIGN(const BufferRef buffer, store.buffers().get(BlockNumber(block), BufferType::kValue));
    const auto* header = reinterpret_cast<const media::ValueHeader*>(buffer->bytes.get());
    if (header->index != i || header->bytes == 0) return fail(EUCLEAN, "value chain: index or bytes");
    value.append(reinterpret_cast<const char*>(buffer->bytes.get()) + sizeof *header, header->bytes);
    block = header->next;
  }
  if (value.size() != length_bytes || block != 0) return fail(EUCLEAN, "value chain: longer than its length");
  return value;
}

Result<std::uint32_t> free_chain(Transaction& t, std::uint64_t first_block) {
  std::uint32_t freed = 0;
  for (std::uint64_t block = first_block; block != 0; ++freed) {
    if (freed > kMaxChain) return fail(EUCLEAN, "value chain: loop");
    PLUMB_ASSIGN(const BufferRef buffer, t.get(BlockNumber(block), BufferType::kValue));
    const std::uint64_t next = reinterpret_cast<const media::ValueHeader*>(buffer->bytes.get())->next;
    t.free_metadata(BlockNumber(block));
    block = next;
  }
  return freed;
}

}  // namespace plumb

// What a client believes of a daemon's answers: nothing that would make it touch memory outside the file's extents.
//
// Thread safety: no state.
#pragma once

#include <cstdint>

#include "fs/client/protocol.h"

namespace plumb::client {

/// Versions, counts, sizes and the place of the slots are possible.
[[nodiscard]] bool is_sound(const protocol::Devices& devices) noexcept;

/// `answer` to the question for [offset, offset + length) of a file: of this mount; extents sorted, in whole blocks, on
/// the device, behind the slots and within what the answer is about.
[[nodiscard]] bool is_sound(const protocol::Lease& answer, std::uint64_t offset, std::uint64_t length,
                            const protocol::Devices& devices) noexcept;

}  // namespace plumb::client

// What break.json says is done to a sound file system. Checksums are right afterwards, unless it says otherwise.
//
// Each change is an object, with one of these as its first member. Places and values are text as in places.h; all of
// them are looked up in the sound file system, whatever the changes before did.
//   {"set": "FIELD of PLACE", "to": VALUE}             "keep_checksum": true leaves the checksum as it was
//   {"flip": "FIELD of PLACE"}                         one bit of its first byte; the checksum stays as it was
//   {"zero": "PLACE"}                                  all of its bytes; the checksum likewise
//   {"mark": VALUE, "as": "free" | "used"}             bits of the bitmap; "count": how many units, 1 by default;
//                                                      "device": 1 for units of the realtime device
//   {"enter": NAME, "in": PATH, "inode": VALUE, "type": N}   a directory entry, counted in size_bytes; "sequence": N is
//                                                      added to its key
//   {"remove": NAME, "from": PATH}                     a directory entry, counted likewise
//   {"duplicate": "PLACE of a record", "key": VALUE}   the record once more in its node
//   {"queue": VALUE, "length": N}                      an entry of the reclaim tree; "kind": N and "device": N
// VALUE may be a number or text.
//
// Thread safety: none needed.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "test/catalogue/medium.h"
#include "test/catalogue/places.h"

namespace plumb::catalogue {

/// Makes the changes. Throws std::runtime_error if one cannot be made as it is written.
void apply_changes(const nlohmann::json& changes, const Places& sound, Medium& medium);

}  // namespace plumb::catalogue

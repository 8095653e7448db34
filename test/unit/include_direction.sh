#!/usr/bin/env bash
# Checks that includes point one way: pmem <- fs/media <- fs/core <- fs/fuse.
#
#   pmem        sees pmem
#   fs/media    sees pmem, fs/media
#   fs/core     sees pmem, fs/media, fs/core, fs/client/protocol.h
#   fs/fuse     sees pmem, fs/media, fs/core, fs/fuse, fs/client/protocol.h
#   fs/client   sees fs/client (of which protocol.h is the contract with the daemon)
#   tools       see  pmem, fs/media, fs/core, tools, fs/client/protocol.h, and of fs/fuse what serves `plumb raw`
#               and the JSON of `plumb badblocks`
#
# and that libfuse's headers are included below fs/fuse only. Prints every offending line.
#
# usage: include_direction.sh [REPOSITORY]
set -euo pipefail

root=${1:-$(cd "$(dirname "$0")/../.." && pwd)}
cd "$root"

offences=0
checked=0
offend() {
    echo "$1"
    offences=$((offences + 1))
}

# check LAYER ALLOWED...: project includes of LAYER must start with one of ALLOWED.
check() {
    local layer=$1 file line include allowed ok
    shift
    [[ -d $layer ]] || return 0
    while IFS= read -r -d '' file; do
        checked=$((checked + 1))
        while IFS=: read -r line include; do
            [[ $include =~ [\<\"]([^\>\"]+) ]] || continue
            include=${BASH_REMATCH[1]}
            case $include in
                pmem/* | fs/* | tools/* | test/* | examples/*)
                    ok=no
                    for allowed in "$@"; do
                        if [[ $include == "$allowed"* ]]; then ok=yes; fi
                    done
                    [[ $ok == yes ]] || offend "$file:$line: $layer must not include $include"
                    ;;
                fuse.h | fuse_*.h | fuse3/*)
                    [[ $layer == fs/fuse ]] || offend "$file:$line: only fs/fuse knows libfuse ($include)"
                    ;;
                ../* | ./*)
                    offend "$file:$line: includes are relative to the repository: $include"
                    ;;
            esac
        done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]' "$file" || true)
    done < <(find "$layer" -type f \( -name '*.cc' -o -name '*.h' -o -name '*.c' \) -print0)
}

check pmem pmem/
check fs/media pmem/ fs/media/
check fs/core pmem/ fs/media/ fs/core/ fs/client/protocol.h
check fs/fuse pmem/ fs/media/ fs/core/ fs/fuse/ fs/client/protocol.h
check fs/client fs/client/
check tools pmem/ fs/media/ fs/core/ tools/ fs/client/protocol.h fs/fuse/raw_session.h fs/fuse/bad_blocks.h

if ((checked == 0)); then
    echo "include direction: found no sources below $root"
    exit 1
fi
echo "include direction: $checked files, $offences offences"
((offences == 0))

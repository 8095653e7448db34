# shellcheck shell=bash
# The step "direct" of test/vm/guest: programs that map files of a mount get the device itself, MAP_SYNC and PMDK included.

# Uses $device, $mnt, expect and the rest of it.
# shellcheck disable=SC2154

# direct_run COMMAND...: under plumb run; in $PLUMB_SCRATCH/stats what it counted.
direct_run() {
    rm -f "$PLUMB_SCRATCH/stats"
    PLUMBFS_PRELOAD_STATS=$PLUMB_SCRATCH/stats "$PLUMB" run -- "$@"
}
direct_maps() { sed -n 's/^  maps  *\(direct.*\)/\1/p' "$PLUMB_SCRATCH/stats"; }

# The pool is made, used, left in the middle of a transaction, and recovered.
direct_pool() {
    local pool=$1 status=0
    expect "a pool" direct_run "$OBJECT_POOL" "$pool" --transfers 20
    say "pool: maps $(direct_maps)"
    expect "no map of the kernel's" grep -q ', kernel 0$' <(direct_maps)
    direct_run "$OBJECT_POOL" "$pool" --transfers 20 --crash >"$PLUMB_SCRATCH/out" 2>&1 || status=$?
    if ((status != 137)); then complain "a crash in a transaction: status $status: $(<"$PLUMB_SCRATCH/out")"; fi
    expect "recovery" direct_run "$OBJECT_POOL" "$pool" --transfers 1
    expect "41 transfers, by the kernel" grep -q '^41 transfers, 41 receipts' <("$OBJECT_POOL" "$pool" --transfers 0)
}

# Maps of parts of device pages: with an align of 2 MiB they have to be the device's.
direct_device_pages() {
    local large=()
    if [[ $PLUMBFS_VM_MODE == devdax && $PLUMBFS_VM_ALIGN == 2M ]]; then large=(PLUMBFS_TEST_LARGE_PAGES=1); fi
    expect "maps of a part of a device page" \
        direct_run env PLUMBFS_TEST_DIR="$mnt" "${large[@]}" "$PRELOAD_TESTS" --colour-mode none '[pages]'
    say "device pages: $(tail -n 1 < <(grep passed "$PLUMB_SCRATCH/out")), maps $(direct_maps)"
    # Where every page can be mapped, all is the device's: private maps too, which devdax refuses to make.
    if ((${#large[@]} == 0)); then expect "no map of the kernel's" test -z "$(direct_maps | grep -v ', kernel 0$')"; fi
}

# A container with a node of its own: the locks of a program that opens that are not where the next mount looks.
direct_other_node() {
    local node=$PLUMB_SCRATCH/node type=c
    if [[ -b $device ]]; then type=b; fi
    mknod "$node" "$type" $((0x$(stat -c %t "$device"))) $((0x$(stat -c %T "$device")))
    echo text >"$mnt/text"
    # shellcheck disable=SC2016  # for the other shell
    refused "another node of the device" 1 'Permission denied' \
        unshare -m sh -c 'mount --bind "$1" "$2" && shift 2 && exec "$@"' sh "$node" "$device" \
        "$PLUMB" run --require-direct -- cat "$mnt/text"
    expect "the reason" grep -q "another node than the daemon's" "$PLUMB_SCRATCH/err"
    expect "the same node" "$PLUMB" run --require-direct -- cat "$mnt/text"
    rm -f "$node"
}

step_direct() {
    local size=$((4 << 20)) sync=0 status=0 said
    if ! kernel_is 6.6; then
        say "direct: SKIPPED: no direct path before Linux 6.6, this is $(uname -r)"
        return
    fi
    plumb_find MAP_SYNC plumb_map_sync || die "plumb_map_sync is not built in $PLUMB_BUILD"
    plumb_find PRELOAD_TESTS plumb_preload_tests || die "plumb_preload_tests is not built in $PLUMB_BUILD"
    plumb_find MAP_FILE example_pmdk_map_file || die "example_pmdk_map_file is not built in $PLUMB_BUILD"
    case $PLUMBFS_VM_MODE in devdax | fsdax) sync=1 ;; esac
    plumb_mkfs "$device"
    plumb_mount mnt "$device"

    direct_run "$MAP_SYNC" "$mnt/sync" "$size" >"$PLUMB_SCRATCH/out" 2>&1 || status=$?
    if ((status != 1 - sync)); then complain "MAP_SYNC: status $status instead of $((1 - sync)): $(<"$PLUMB_SCRATCH/out")"; fi
    say "MAP_SYNC of $size bytes: $(if ((status)); then sed 's/.*MAP_SYNC: //' "$PLUMB_SCRATCH/out"; else echo "maps $(direct_maps)"; fi)"
    if ((sync)); then
        expect "the stores, by the daemon" test "$(tr -d Z <"$mnt/sync" | wc -c)" = 0
        expect "a direct map" grep -q '^direct [1-9]' <(direct_maps)
    fi

    # The same blocks: at an align of 2 MiB not every file has such that can be mapped.
    dd if=/dev/zero of="$mnt/sync" bs=1M count=4 conv=notrunc status=none
    mv "$mnt/sync" "$mnt/note"
    said=$(direct_run "$MAP_FILE" "$mnt/note" 'left by libpmem' 2>&1) || complain "pmem_map_file: $said"
    say "pmem_map_file: $said, maps $(direct_maps)"
    expect "is_pmem is $sync" grep -q "^is_pmem $sync, pmem_is_pmem $sync," <<<"$said"
    expect "the note, by the daemon" grep -qa 'left by libpmem' "$mnt/note"

    if ! plumb_find OBJECT_POOL example_pmdk_object_pool; then
        say "pool: SKIPPED: not built"
    else
        direct_pool "$mnt/pool"
    fi
    direct_device_pages
    case $PLUMBFS_VM_MODE in devdax | pmem) direct_other_node ;; esac
    plumb_unmount "$mnt"
    plumb_fsck "$device" --zeros || true
    # After a mount they are what they were.
    plumb_mount mnt "$device"
    expect "the note, after a mount" grep -q '^note: left by libpmem' <(direct_run "$MAP_FILE" "$mnt/note")
    plumb_unmount "$mnt"
}

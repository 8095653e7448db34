# shellcheck shell=bash
# shellcheck disable=SC2154  # of test/vm/guest
# Step "poison" of test/vm/guest: the kernel is told that the memory under a file's data has failed (hwpoison-inject).
#
# The kernel takes the page out of every mapping, and tells the processes that had it (SIGBUS, BUS_MCEERR_AO). That
# must not end the daemon. An emulated NVDIMM still answers afterwards, so the load that a real one answers with a machine
# check (BUS_MCEERR_AR, the request gets EIO) is not to be had: the read may give EIO or the data, and nothing else. What
# BUS_MCEERR_AR does is in test/unit/pmem_sigbus_guard_test.cc.
step_poison() {
    local file=$PLUMB_SCRATCH/poison.data offset resource pfn pid status=0 corrupt=/sys/kernel/debug/hwpoison/corrupt-pfn
    if [[ $PLUMBFS_VM_MODE != devdax ]]; then
        say "poison: SKIPPED: only of devdax are the physical addresses known"
        return
    fi
    modprobe hwpoison_inject 2>/dev/null || modprobe hwpoison-inject 2>/dev/null || true
    mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
    if [[ ! -e $corrupt ]]; then
        say "poison: SKIPPED: this kernel has no hwpoison-inject"
        return
    fi
    # Where the data is: a file with a word in it that is nowhere else, looked for on the raw device.
    plumb_mkfs "$device"
    plumb_mount mnt "$device"
    { printf 'PLUMBFS-POISON-%s' "$$.$RANDOM.$RANDOM" | tee "$PLUMB_SCRATCH/word"; head -c 65000 /dev/urandom; } >"$file"
    cp "$file" "$mnt/poisoned"
    cp /bin/busybox "$mnt/other"
    plumb_unmount "$mnt"
    plumb_serve mnt new "$PLUMB" raw --force "$device" @MOUNTPOINT@ -f -o ro
    offset=$(grep -aboF -m 1 "$(<"$PLUMB_SCRATCH/word")" "$mnt/$(basename "$device")" | head -n 1 | cut -d: -f1)
    plumb_unmount "$mnt"
    [[ $offset =~ ^[0-9]+$ ]] || die "poison: the file's data was not found on the device"
    resource=$(<"/sys/bus/dax/devices/$(basename "$device")/resource")

    plumb_mount mnt "$device" dax=always
    pid=${PLUMB_PID[$mnt]}
    expect "before the poison" cmp "$file" "$mnt/poisoned"
    pfn=$(((resource + offset) / 4096))
    if ! printf '0x%x' "$pfn" >"$corrupt" 2>"$PLUMB_SCRATCH/err"; then
        say "poison: the kernel's answer to the injection: $(<"$PLUMB_SCRATCH/err")"
    fi
    dmesg | grep -iE 'memory failure|hwpoison' | tail -n 4 | sed 's/^/    /' || true
    dmesg | grep -q 'Memory failure' || complain "poison: the kernel knows of no memory failure"
    sleep 1
    expect "the daemon lives" kill -0 "$pid"
    cat "$mnt/poisoned" >"$PLUMB_SCRATCH/read" 2>"$PLUMB_SCRATCH/err" || status=$?
    if ((status == 0)); then
        expect "the data, as the emulated memory still has it" cmp "$file" "$PLUMB_SCRATCH/read"
    else
        expect "EIO and nothing else" grep -q 'Input/output error' "$PLUMB_SCRATCH/err"
    fi
    say "poison: read of the poisoned page: $( ((status == 0)) && echo "answered by the emulated memory" || echo EIO)"
    expect "another file" cmp /bin/busybox "$mnt/other"
    expect "a new file" cp /bin/busybox "$mnt/new"
    expect "the poisoned one goes" rm "$mnt/poisoned"
    expect "the daemon lives" kill -0 "$pid"
    plumb_unmount "$mnt"
    plumb_fsck "$device" || true
    printf '0x%x' "$pfn" >/sys/kernel/debug/hwpoison/unpoison-pfn 2>/dev/null || true
    rm -f "$file"
}

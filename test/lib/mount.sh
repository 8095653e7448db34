# shellcheck shell=bash
# Functions for scripts that test a mounted plumbfs. Source it, then:
#
#     plumb_begin NAME                          checks the machine, installs the clean-up trap
#     plumb_image image memory 256M             makes an empty image file; its path in $image
#     plumb_loop loop "$image"                  a block device of it, if the machine has loop devices
#     plumb_mkfs "$image" -b 1024
#     plumb_mount mnt "$image" [mount options]  mounts in the foreground of a child; directory in $mnt
#     plumb_raw mnt "$image" [mount options]    the same with plumb raw: the file is $mnt/image
#     plumb_unmount "$mnt"                      unmounts; the daemon must end with status 0
#     plumb_fsck "$image" [--zeros]             reads only; 0 only if the file system is clean
#     plumb_end                                 prints the closing line and exits
#
# Kinds of device: "memory" is a file on tmpfs, which the daemon stores to and flushes as memory;
# "cached" is a file on a disk, which it maps through the page cache. "rt-MAIN-REALTIME", as in
# rt-memory-cached, is a file system with a realtime device, whose new files are all realtime. "huge" is a file on hugetlbfs:
# memory that the kernel maps in pages of 2 MiB, as a devdax device with align 2M. "device" and "device2" are
# real devices, whose contents are lost: PLUMBFS_TEST_DEVICE, PLUMBFS_TEST_DEVICE2 (test/vm).
#
# Whatever happens, the trap unmounts what this script mounted, ends the daemons it started (by
# process id, nothing else), and deletes its images. Exit status: 0 passed, 1 failed, 77 skipped.
#
# Environment: PLUMBFS_BUILD, the build directory (default build/release of this repository);
# PLUMBFS_MEMORY_DIR and PLUMBFS_CACHED_DIR, where images are made (default /dev/shm, /var/tmp);
# PLUMBFS_KEEP=1 keeps logs and images; PLUMBFS_RT_EXTENT, the realtime extent size (default 64k).

PLUMB_REPOSITORY=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PLUMB_BUILD=${PLUMBFS_BUILD:-$PLUMB_REPOSITORY/build/release}
[[ $PLUMB_BUILD == /* ]] || PLUMB_BUILD=$PWD/$PLUMB_BUILD

PLUMB_NAME=plumbfs-test
PLUMB_STARTED=$SECONDS
PLUMB_SCRATCH=            # small files: logs, mount points
PLUMB_DELETE=()           # directories to delete at the end
PLUMB_LOOPS=()            # loop devices to detach at the end
declare -A PLUMB_PID=()   # mount point -> process id of its daemon
declare -A PLUMB_LOG=()   # mount point -> log of its daemon
declare -A PLUMB_RT=()    # image -> its realtime device
PLUMB_HUGE=               # where hugetlbfs is mounted
PLUMB_HUGE_PAGES=0        # that the machine has on our account
PLUMB_SERIAL=0
PLUMB_FAILED=0

say() { printf '%s\n' "$*"; }
die() { printf '%s: FAILED: %s\n' "$PLUMB_NAME" "$*" >&2; exit 1; }
skip() { printf '%s: skipped: %s\n' "$PLUMB_NAME" "$*"; exit 77; }
# Counts a failure and goes on.
complain() { printf '%s: FAILED: %s\n' "$PLUMB_NAME" "$*" >&2; PLUMB_FAILED=$((PLUMB_FAILED + 1)); }

# plumb_find VARIABLE NAME: the path of a program of the build.
plumb_find() {
    local directory
    for directory in "$PLUMB_BUILD/bin" "$PLUMB_BUILD" "$PLUMB_BUILD/sbin"; do
        if [[ -x $directory/$2 && ! -d $directory/$2 ]]; then
            printf -v "$1" '%s' "$directory/$2"
            return 0
        fi
    done
    return 1
}

# plumb_begin NAME [PROGRAM...]: the programs the test needs besides those of the file system.
plumb_begin() {
    PLUMB_NAME=$1
    shift
    local program
    [[ $(id -u) == 0 ]] || skip "needs root"
    [[ -c /dev/fuse ]] || skip "there is no /dev/fuse"
    command -v fusermount3 >/dev/null || skip "fusermount3 is not installed"
    plumb_find PLUMBFS plumbfs || die "plumbfs is not built in $PLUMB_BUILD"
    plumb_find MKFS mkfs.plumbfs || die "mkfs.plumbfs is not built in $PLUMB_BUILD"
    plumb_find FSCK fsck.plumbfs || die "fsck.plumbfs is not built in $PLUMB_BUILD"
    for program in "$@"; do
        command -v "$program" >/dev/null || skip "$program is not installed"
    done
    trap plumb_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    PLUMB_SCRATCH=$(mktemp -d "${TMPDIR:-/tmp}/plumbfs-test.XXXXXX")
    PLUMB_DELETE+=("$PLUMB_SCRATCH")
    chmod 755 "$PLUMB_SCRATCH"
}

# By the kernel's list: a dead mount answers no question about itself.
plumb_mounted() {
    local path
    path=$(realpath -m -- "$(dirname "$1")")/$(basename "$1")
    awk -v path="$path" '$5 == path { found = 1 } END { exit !found }' /proc/self/mountinfo
}

plumb_cleanup() {
    local status=$? mount pid path layer
    trap - EXIT
    set +e
    cd /
    for mount in "${!PLUMB_PID[@]}"; do
        pid=${PLUMB_PID[$mount]}
        # More than one layer if a daemon was started over a dead mount and did not take that away.
        for ((layer = 0; layer < 16; layer++)); do
            plumb_mounted "$mount" || break
            fusermount3 -u -- "$mount" 2>/dev/null || fusermount3 -uz -- "$mount" 2>/dev/null ||
                umount -l -- "$mount" || break
        done
        if [[ -n $pid ]]; then plumb_wait_gone "$pid" 10 || kill -KILL "$pid" 2>/dev/null; fi
        if ((status != 0 && status != 77)) && [[ -s ${PLUMB_LOG[$mount]:-} ]]; then
            printf '%s: last lines of the daemon on %s:\n' "$PLUMB_NAME" "$mount" >&2
            tail -n 20 "${PLUMB_LOG[$mount]}" | sed 's/^/    /' >&2
        fi
    done
    for path in "${PLUMB_LOOPS[@]}"; do losetup -d "$path"; done
    if [[ -n $PLUMB_HUGE ]]; then
        rm -rf -- "${PLUMB_HUGE:?}"/*
        umount -- "$PLUMB_HUGE"
        plumb_add_huge_pages $((-PLUMB_HUGE_PAGES))
    fi
    for path in "${PLUMB_DELETE[@]}"; do
        if [[ ${PLUMBFS_KEEP:-0} == 1 ]]; then
            printf '%s: kept %s\n' "$PLUMB_NAME" "$path" >&2
        elif [[ -n $path ]]; then
            rm -rf --one-file-system -- "$path"
        fi
    done
    exit "$status"
}

# plumb_wait_gone PID SECONDS: true when the process has ended (a zombie has).
plumb_wait_gone() {
    local deadline=$((SECONDS + $2)) state
    while true; do
        state=$(ps -o stat= -p "$1" 2>/dev/null) || return 0
        [[ $state == Z* ]] && return 0
        ((SECONDS < deadline)) || return 1
        sleep 0.05
    done
}

# plumb_real_device KIND: its path; nothing for the kinds that are made.
plumb_real_device() {
    case $1 in
        device) printf '%s\n' "${PLUMBFS_TEST_DEVICE:-}" ;;
        device2) printf '%s\n' "${PLUMBFS_TEST_DEVICE2:-}" ;;
    esac
}

# plumb_add_huge_pages COUNT: more or fewer of the machine's; false if it could not be all.
plumb_add_huge_pages() {
    local file=/proc/sys/vm/nr_hugepages before after
    before=$(<"$file")
    echo $((before + $1)) >"$file"
    after=$(<"$file")
    PLUMB_HUGE_PAGES=$((PLUMB_HUGE_PAGES + after - before))
    ((after - before == $1))
}
# With room for an image of 512M.
plumb_mount_huge() {
    local free_kib
    grep -qw hugetlbfs /proc/filesystems || return 1
    free_kib=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
    ((free_kib > 2 << 20)) && [[ -w /proc/sys/vm/nr_hugepages ]] || return 1
    mkdir -p "$PLUMB_SCRATCH/huge"
    # The memory may be there, and in pieces.
    if ! plumb_add_huge_pages 256 || ! mount -t hugetlbfs -o pagesize=2M none "$PLUMB_SCRATCH/huge" 2>/dev/null; then
        plumb_add_huge_pages $((-PLUMB_HUGE_PAGES))
        return 1
    fi
    PLUMB_HUGE=$PLUMB_SCRATCH/huge
}

# plumb_usable memory|cached: true if such a device can be made here; else the reason is printed.
plumb_usable() {
    local parent type kind=cached
    case $1 in
        rt-*-*)
            plumb_usable "${1##*-}" && plumb_usable "$(cut -d- -f2 <<<"$1")"
            return
            ;;
        device | device2)
            parent=$(plumb_real_device "$1")
            [[ -e $parent ]] && return 0
            say "$PLUMB_NAME: no $1 here: PLUMBFS_TEST_DEVICE${1#device} is not set"
            return 1
            ;;
        huge)
            if [[ -z $PLUMB_HUGE ]] && ! plumb_mount_huge; then
                say "$PLUMB_NAME: no huge device here: it takes hugetlbfs, the right to set nr_hugepages, and 2 GiB of memory"
                return 1
            fi
            PLUMB_IMAGE_PARENT=$PLUMB_HUGE
            return
            ;;
        memory) parent=${PLUMBFS_MEMORY_DIR:-/dev/shm} ;;
        cached) parent=${PLUMBFS_CACHED_DIR:-/var/tmp} ;;
        *) die "unknown kind of device '$1': memory or cached" ;;
    esac
    if [[ ! -d $parent || ! -w $parent ]]; then
        say "$PLUMB_NAME: no $1 device here: $parent is not there or read-only"
        return 1
    fi
    type=$(stat -f -c %T "$parent")
    if [[ $type == tmpfs ]]; then kind=memory; fi
    if [[ $1 != "$kind" ]]; then
        say "$PLUMB_NAME: no $1 device here: $parent is $type"
        return 1
    fi
    PLUMB_IMAGE_PARENT=$parent
}

# plumb_image VARIABLE KIND SIZE: an empty file, allocated fully; of a kind with a realtime device two of this size.
plumb_image() {
    local directory second='' real main=$2
    if [[ $2 == rt-* ]]; then
        plumb_image second "${2##*-}" "$3"
        main=$(cut -d- -f2 <<<"$2")
    fi
    plumb_usable "$2" || skip "there is no $2 device"
    real=$(plumb_real_device "$main")
    if [[ -n $real ]]; then
        if [[ -n $second ]]; then PLUMB_RT[$real]=$second; fi
        printf -v "$1" '%s' "$real"
        return
    fi
    directory=$(mktemp -d "$PLUMB_IMAGE_PARENT/plumbfs-test.XXXXXX")
    PLUMB_DELETE+=("$directory")
    if ! fallocate -l "$3" "$directory/image" 2>"$PLUMB_SCRATCH/fallocate"; then
        skip "no room for an image of $3 in $PLUMB_IMAGE_PARENT: $(<"$PLUMB_SCRATCH/fallocate")"
    fi
    if [[ -n $second ]]; then PLUMB_RT[$directory/image]=$second; fi
    printf -v "$1" '%s' "$directory/image"
}

# plumb_loop VARIABLE IMAGE: false, with the reason printed, where there are no loop devices.
plumb_loop() {
    local node PATH=$PATH:/usr/sbin:/sbin
    if ! node=$(losetup -f --show -- "$2" 2>"$PLUMB_SCRATCH/losetup"); then
        say "$PLUMB_NAME: SKIPPED: no loop device here: $(<"$PLUMB_SCRATCH/losetup")"
        return 1
    fi
    PLUMB_LOOPS+=("$node")
    printf -v "$1" '%s' "$node"
}
# plumb_delete_loop LOOP
plumb_delete_loop() {
    local node kept=()
    losetup -d "$1"
    for node in "${PLUMB_LOOPS[@]}"; do if [[ $node != "$1" ]]; then kept+=("$node"); fi; done
    PLUMB_LOOPS=("${kept[@]}")
}

# Of a real device nothing is deleted.
plumb_delete_image() {
    local path
    for path in "${PLUMB_RT[$1]:-}" "$1"; do
        if [[ $path == */plumbfs-test.*/image ]]; then rm -rf -- "$(dirname "$path")"; fi
    done
    unset "PLUMB_RT[$1]"
}

plumb_mkfs() {
    local image=$1 extent=${PLUMBFS_RT_EXTENT:-64k}
    shift
    if [[ -n ${PLUMB_RT[$image]:-} ]]; then set -- -r "${PLUMB_RT[$image]}" -e "$extent" --rt-inherit "$@"; fi
    "$MKFS" -f "$@" "$image" >"$PLUMB_SCRATCH/mkfs" 2>&1 ||
        die "mkfs.plumbfs $* failed: $(<"$PLUMB_SCRATCH/mkfs")"
}

# plumb_mount_point VARIABLE: a directory for a program that mounts by itself; the trap looks after it.
plumb_mount_point() {
    local directory
    directory=$(mktemp -d "$PLUMB_SCRATCH/mount.XXXXXX")
    PLUMB_PID[$directory]=
    printf -v "$1" '%s' "$directory"
}

# plumb_serve VARIABLE MOUNTPOINT COMMAND...: starts a daemon that stays in the foreground, and waits for its mount. A mount
# point "new" is a directory that is made.
plumb_serve() {
    local variable=$1 mount=$2 pid log waited=0
    shift 2
    PLUMB_SERIAL=$((PLUMB_SERIAL + 1))
    if [[ $mount == new ]]; then
        mount=$PLUMB_SCRATCH/mount.$PLUMB_SERIAL
        mkdir "$mount"
    fi
    log=$PLUMB_SCRATCH/daemon.$PLUMB_SERIAL.log
    "${@//@MOUNTPOINT@/$mount}" >"$log" 2>&1 </dev/null &
    pid=$!
    PLUMB_PID[$mount]=$pid
    PLUMB_LOG[$mount]=$log
    until plumb_mounted "$mount" && [[ $(stat -f -c %T -- "$mount" 2>/dev/null) == fuseblk ]]; do
        kill -0 "$pid" 2>/dev/null || die "the daemon ended instead of mounting: $(tail -n 5 "$log")"
        ((waited < 1200)) || die "the daemon has not mounted within 60 s: $(tail -n 5 "$log")"
        waited=$((waited + 1))
        sleep 0.05
    done
    printf -v "$variable" '%s' "$mount"
}

# plumb_mount VARIABLE IMAGE [OPTIONS] [MOUNTPOINT]: OPTIONS as after -o, may be empty.
plumb_mount() {
    plumb_serve "$1" "${4:-new}" "$PLUMBFS" "$2" @MOUNTPOINT@ -f -o "allow_other,default_permissions${3:+,$3}"
}

# plumb_raw VARIABLE IMAGE [OPTIONS] [MOUNTPOINT]
plumb_raw() {
    local plumb
    plumb_find plumb plumb || die "plumb is not built in $PLUMB_BUILD"
    plumb_serve "$1" "${4:-new}" "$plumb" raw "$2" @MOUNTPOINT@ -f ${3:+-o "$3"}
}

# The daemon must end by itself and with status 0: its last words are a clean file system.
plumb_unmount() {
    local pid=${PLUMB_PID[$1]} tries=0 status=0
    # Somebody's background scan of the new mount may hold it for a moment.
    until fusermount3 -u -- "$1" 2>"$PLUMB_SCRATCH/unmount"; do
        tries=$((tries + 1))
        ((tries < 50)) || die "fusermount3 -u: $(<"$PLUMB_SCRATCH/unmount")"
        sleep 0.1
    done
    plumb_wait_gone "$pid" 120 || die "the daemon $pid still runs 120 s after the unmount"
    wait "$pid" || status=$?
    unset "PLUMB_PID[$1]"
    if ((status != 0)); then
        tail -n 20 "${PLUMB_LOG[$1]}" >&2
        die "the daemon ended with status $status after the unmount"
    fi
}

# A kernel that does not map files with direct I/O has no direct path.
plumb_kernel_maps_direct() {
    local release major minor
    release=$(uname -r)
    IFS=.- read -r major minor _ <<<"$release"
    ((major > 6 || (major == 6 && minor >= 6)))
}

# plumb_kill MOUNTPOINT: SIGKILL; the dead mount stays.
plumb_kill() {
    local pid=${PLUMB_PID[$1]}
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
}

plumb_fsck() {
    local image=$1 status=0
    shift
    "$FSCK" -n "$@" "$image" >"$PLUMB_SCRATCH/fsck" 2>&1 || status=$?
    if ((status != 0)); then
        sed 's/^/    /' "$PLUMB_SCRATCH/fsck" >&2
        complain "fsck.plumbfs -n $* says $status on $image"
        return 1
    fi
}

# The closing line, and the end of the script.
plumb_end() {
    if ((PLUMB_FAILED > 0)); then
        say "$PLUMB_NAME: FAILED: $PLUMB_FAILED failure(s), $((SECONDS - PLUMB_STARTED)) s"
        exit 1
    fi
    say "$PLUMB_NAME: passed, $((SECONDS - PLUMB_STARTED)) s${1:+: $1}"
    exit 0
}

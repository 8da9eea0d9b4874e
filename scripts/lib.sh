# shellcheck shell=bash
# What the scripts beside this file share: messages, the cache's place, a lock. Sourced, never run.

# Shared by every checkout of this user.
cache="${XDG_CACHE_HOME:-$HOME/.cache}/senet"

# Messages go to stderr: stdout belongs to results.
say() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT]
die() {
    say "error: $1"
    if [ $# -gt 1 ]; then say "hint: $2"; fi
    exit 1
}

# usage SCRIPT: the comment at the top of a script is also its help.
usage() { sed -n '2,/^$/s/^# \{0,1\}//p' "$1"; }

# Takes the cache's lock called $1 until this script, and whatever it started, has ended. A download that outlives a
# killed script thus keeps the next run waiting rather than writing beside it. Without flock (macOS) runs are not kept
# apart: two at the very first set-up may get into each other's way, and a third puts that right.
lock() {
    if ! mkdir -p "$cache" 2>/dev/null || [ ! -w "$cache" ]; then
        die "cannot write to $cache" "set XDG_CACHE_HOME to a folder that you can write to"
    fi
    command -v flock >/dev/null || return 0
    exec 9>"$cache/.$1.lock"
    flock -n 9 && return 0
    say "waiting for another ${0##*/}, which holds $cache/.$1.lock"
    flock 9
}

# need_mb FOLDER MB WHAT: stops when the disk under FOLDER has less than MB free.
need_mb() {
    local free
    free=$(df -Pk "$1" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$2" ] ||
        die "$3 needs $2 MB free at $1; there are $free MB" "free some space, or set XDG_CACHE_HOME to a folder on a larger disk"
}

# Sizes in bytes of the files named, one a line, links followed: GNU's stat, else BSD's.
sizes() { stat -L -c %s "$@" 2>/dev/null || stat -L -f %z "$@" 2>/dev/null; }

#!/usr/bin/env bash
# Trainings that are killed, run out of disk or find their files damaged: none may end wrong without saying so.
#
#   scripts/chaos.sh [--seed N] [--kills N] [--disks N] [--damages N] [--work DIR]
#                    default: 1, 200, 40, 500, and a temporary folder
#
#   kills    SIGKILL at a random moment, in every other case while a checkpoint is being written; a quarter of the cases with
#            two processes (both, one, or the launcher are killed). Resumed, the run must end byte-identical to one that
#            was never killed: weights, moving average, optimizer, progress, best checkpoint, history.
#   disks    a disk that is too small, or full from a random moment on: an error that says so, nothing half-written is
#            left, and with space again the run must end byte-identical. Needs root or user namespaces.
#   damages  a byte, some bytes or the end of a file of a checkpoint, a configuration or a data index is damaged: refused
#            with an error, or said, or the end is byte-identical.
#
# The recipes are tiny networks with mixup, moving average, class-aware sampling and gradient accumulation. $SENET names
# another program than target/release/senet. Exits with 1 if anything was wrong, and keeps what shows it.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/lib.sh
source "$here/lib.sh"

seed=1 kills=200 disks=40 damages=500 work=
arguments=("$@")
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) usage "$0" && exit ;;
    --seed) seed=$2 ;;
    --kills) kills=$2 ;;
    --disks) disks=$2 ;;
    --damages) damages=$2 ;;
    --work) work=$2 ;;
    *) die "unknown argument $1" "scripts/chaos.sh --help" ;;
    esac
    shift 2 || die "$1 needs a value"
done
senet=${SENET:-$here/../target/release/senet}
[ -x "$senet" ] || die "no $senet" "make build"
if [ "$disks" -gt 0 ] && [ "$(id -u)" != 0 ]; then
    unshare --user --map-root-user --mount true 2>/dev/null ||
        die "full disks need root or user namespaces" "--disks 0 leaves them out"
    exec unshare --user --map-root-user --mount "$0" "${arguments[@]}"
fi
[ -n "$work" ] || work=$(mktemp -d)
mkdir -p "$work"
[ -z "$(ls -A "$work")" ] || die "$work is not empty" "--work names a folder that is removed at the end"
senet=$(realpath "$senet")
cd "$work"
work=$PWD
export CUDA_VISIBLE_DEVICES='' XDG_CACHE_HOME=$work/cache
RANDOM=$seed

# What trainings have in common, and what tells the recipes apart.
common=(--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1
    --set data.synthetic.train=67 --set data.synthetic.eval=23 --set train.batch_size=8 --epochs 3 --threads 1
    --set checkpoint.every_steps=1)
recipes=(plain mixup sampling all)
plain=()
mixup=(--set 'train.mix={"mixup":0.4}' --set 'train.ema={"decay":0.9}' --set optim.kind=adamw --lr 0.002)
sampling=(--set data.sampling.kind=class-aware --set train.accumulate=2)
all=("${mixup[@]}" "${sampling[@]}" --set checkpoint.keep=3)

faults=0
fault() {
    faults=$((faults + 1))
    say "FAULT: $*"
}

# random N: a number below N, in $r. (Not printed: in a subshell, RANDOM would not advance.)
random() { r=$((((RANDOM << 15) | RANDOM) % $1)); }

# start RECIPE PROCESSES RUN: begins or resumes a training in the background, with a session of its own.
start() {
    local -n recipe=$1
    local processes=()
    [ "$2" = 1 ] || processes=(--nproc "$2")
    setsid "$senet" train "${common[@]}" "${recipe[@]}" "${processes[@]}" --out "$3" --resume auto \
        >"$3.out" 2>>"$3.err" </dev/null &
    pid=$!
}

# ended PID: waits for it, whatever signals come meanwhile; its exit code.
ended() {
    local code
    while :; do
        code=0
        wait "$1" 2>/dev/null || code=$?
        kill -0 "$1" 2>/dev/null || return "$code"
    done
}

# finish RECIPE PROCESSES RUN: the same to its end; its exit code.
finish() {
    start "$@"
    ended "$pid"
}

# The history, each step once, without clocks; starts and warnings tell of the processes, not of the training.
history() {
    grep -v '"event":"\(started\|warning\)"' "$1/events.jsonl" |
        sed -E 's/"time":"[^"]*",//; s/,"(images_per_second|waiting|seconds|crc32c)":[^,}]*//g'
}

# What a checkpoint's state says, without clocks and the run's own id.
state() { sed -E '/"(run|sha256|train_seconds|epoch_seconds)":/d' "$1/state.json"; }

# same RUN OTHER: whether two runs came to the same, to the last byte; else what differs.
same() {
    local checkpoint file
    for checkpoint in last best; do
        for file in model optim ema; do
            [ -e "$2/checkpoints/$checkpoint/$file.safetensors" ] || continue
            cmp -s "$1/checkpoints/$checkpoint/$file.safetensors" "$2/checkpoints/$checkpoint/$file.safetensors" ||
                { say "$1: $checkpoint/$file.safetensors differs"; return 1; }
        done
        [ "$(state "$1/checkpoints/$checkpoint")" = "$(state "$2/checkpoints/$checkpoint")" ] ||
            { say "$1: $checkpoint/state.json differs"; return 1; }
    done
    [ -n "${3-}" ] || [ "$(history "$1")" = "$(history "$2")" ] || { say "$1: events.jsonl differs"; return 1; }
}

# calm FILE: whether the messages in it are those of a program that has itself in hand.
calm() { ! grep -qE 'panicked|this is a bug|std::terminate|core dumped' "$1"; }

# Waits until all processes of a session are gone.
gone() {
    local tries
    for ((tries = 0; tries < 600; tries++)); do
        pgrep -s "$1" >/dev/null || return 0
        sleep 0.1
    done
    return 1
}

now() { date +%s%N; }

# milliseconds FROM TO
pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

# The uninterrupted runs, and how long they take.
declare -A lasts
references() {
    local recipe processes started
    for recipe in "${recipes[@]}"; do
        for processes in 1 2; do
            started=$(now)
            finish "$recipe" "$processes" "reference-$recipe-$processes" ||
                die "the reference failed: $(cat "reference-$recipe-$processes.err")"
            lasts[$recipe-$processes]=$((($(now) - started) / 1000000))
        done
    done
}

# pick NUMBER: recipe and processes of a case; every fourth has two processes.
pick() {
    random ${#recipes[@]}
    recipe=${recipes[$r]} processes=1
    if [ $(($1 % 4)) = 0 ]; then processes=2; fi
    reference=reference-$recipe-$processes
}

killed=0 in_write=0 missed=0
kill_once() {
    local run=kill-$1 recipe processes reference victims waits in_time=
    pick "$1"
    start "$recipe" "$processes" "$run"
    random "${lasts[$recipe-$processes]}"
    waits=$r
    pause "$waits"
    random 2
    if [ "$r" = 1 ]; then
        # From here on, the moment is when a checkpoint is on its way.
        while kill -0 "$pid" 2>/dev/null; do
            if compgen -G "$run/checkpoints/*partial*" >/dev/null; then in_time=1 && break; fi
        done
    fi
    random 3
    victims=$(pgrep -s "$pid" || true)
    case "$processes$r" in
    20) victims=$pid ;;
    21) victims=$(tail -n 1 <<<"$victims") ;;
    esac
    # shellcheck disable=SC2086
    if [ -z "$victims" ] || ! kill -KILL $victims 2>/dev/null; then
        missed=$((missed + 1))
    else
        killed=$((killed + 1))
        if [ -n "$in_time" ]; then in_write=$((in_write + 1)); fi
    fi
    ended "$pid" || true
    gone "$pid" || fault "$run: processes are left a minute after the kill"
    if ! finish "$recipe" "$processes" "$run"; then
        fault "$run ($recipe, $processes processes, after $waits ms) cannot be resumed: $(tail -n 5 "$run.err")"
    elif ! same "$run" "$reference"; then
        fault "$run ($recipe, $processes processes, after $waits ms) ends otherwise than $reference"
    elif ! calm "$run.err"; then
        fault "$run: $(cat "$run.err")"
    else
        rm -rf "${run:?}" "$run.err" "$run.out"
    fi
}

full=0 roomy=0
disk_once() {
    local disk=$PWD/disk run recipe processes reference peak code=0 way
    run=$disk/run
    pick "$1"
    peak=$(du -sk "$reference" | cut -f 1)
    random 2
    way=$r
    mkdir -p "$disk"
    # Logs must not lie on it.
    rm -f "$disk".err
    if [ "$way" = 0 ]; then random $((peak * 3 / 2)); else r=65536; fi
    mount -t tmpfs -o size=$((r + 4))k none "$disk"
    ln -sf ../disk.err "$disk/run.err" && ln -sf ../disk.out "$disk/run.out"
    start "$recipe" "$processes" "$run"
    if [ "$way" = 1 ]; then
        random "${lasts[$recipe-$processes]}"
        pause "$r"
        cat /dev/zero >"$disk/filler" 2>/dev/null || true
    fi
    ended "$pid" || code=$?
    gone "$pid" || fault "disk $1: processes are left"
    if [ "$code" = 0 ]; then
        roomy=$((roomy + 1))
    else
        full=$((full + 1))
        grep -qi 'no space left\|disk is full' disk.err || fault "disk $1: $code, but not that the disk is full: $(cat disk.err)"
    fi
    if find "$disk" -name '*partial*' | grep -q .; then
        fault "disk $1: left behind: $(find "$disk" -name '*partial*')"
    fi
    rm -f "$disk/filler"
    mount -o remount,size=65536k "$disk"
    if ! finish "$recipe" "$processes" "$run"; then
        fault "disk $1 ($recipe, $processes processes) cannot be resumed: $(tail -n 5 disk.err)"
    elif ! same "$run" "$reference"; then
        fault "disk $1 ($recipe, $processes processes) ends otherwise than $reference"
        cp -r "$run" "disk-$1"
    elif ! calm disk.err; then
        fault "disk $1: $(cat disk.err)"
    fi
    umount "$disk"
}

# damage FILE: changes a bit, some bytes or the length of it, at a random place.
damage() {
    local size place count bytes old
    size=$(stat -c %s "$1")
    random 8
    case $r in
    0)
        random "$size"
        truncate -s "$r" "$1"
        damaged="cut after $r of $size bytes"
        return
        ;;
    1 | 2) random 64 && count=$((r + 2)) ;;
    *) count=1 ;;
    esac
    random "$size"
    place=$r
    # In text, a changed byte is mostly another digit or letter: one bit of it.
    old=$(od -An -tu1 -j "$place" -N 1 "$1" | tr -d ' ')
    random 8
    bytes=$(printf '\\x%02x' $((old ^ (1 << r))))
    for (( ; count > 1; count--)); do
        random 256
        bytes+=$(printf '\\x%02x' "$r")
    done
    # shellcheck disable=SC2059
    printf "$bytes" | head -c $((size - place)) | dd of="$1" bs=1 seek="$place" conv=notrunc status=none
    damaged="byte $place of $size"
}

refused=0 said=0 identical=0

# judge CASE CODE SAME ERRORS: an error that says something, a warning with the same end, or the same end.
judge() {
    if ! calm "$4"; then
        fault "$1: $(cat "$4")"
    elif [ "$2" -gt 2 ]; then
        fault "$1: exit code $2: $(cat "$4")"
    elif [ "$2" != 0 ]; then
        grep -q '^error: ' "$4" || fault "$1: code $2 without an error: $(cat "$4")"
        refused=$((refused + 1))
    elif [ "$3" = 0 ]; then
        if grep -q 'warning: ' "$4"; then said=$((said + 1)); else identical=$((identical + 1)); fi
    elif grep -q 'warning: .*was edited since' "$4"; then
        said=$((said + 1))
    else
        fault "$1: silently wrong"
        cp -r victim "damage-$number" 2>/dev/null || true
    fi
}

# A run in the middle, with earlier checkpoints; and data with an index of each kind.
prepare_damages() {
    local last=middle/checkpoints/last
    cp -r reference-all-1 middle
    rm -r middle/result.json "$last"
    mv "$last.previous" "$last" && mv "$last.previous-2" "$last.previous"
    "$senet" eval middle --checkpoint best --json >best.json 2>/dev/null

    local split class image byte pixels
    for split in train val; do
        for class in 0 1; do
            mkdir -p "folder/$split/class-$class"
            for image in 0 1 2 3 4 5 6 7; do
                pixels=
                for ((byte = 0; byte < 192; byte++)); do
                    random 128
                    pixels+=$(printf '\\x%02x' $((r + class * 128)))
                done
                # shellcheck disable=SC2059
                { printf 'P6 8 8 255\n' && printf "$pixels"; } >"folder/$split/class-$class/$image.ppm"
            done
        done
    done
    "$senet" data pack folder shards >/dev/null 2>pack.err || die "data pack failed: $(cat pack.err)"
    mkdir -p indexes cache
    for data in folder shards; do
        train_on "$data" "on-$data" || die "training on $data failed: $(cat "on-$data.err")"
        find "$data" cache -name '*index*' -type f | while read -r index; do
            mkdir -p "indexes/${index%/*}" && cp "$index" "indexes/$index"
        done
    done
    mapfile -t indexes < <(cd indexes && find . -type f)
    [ ${#indexes[@]} -gt 0 ] || die "no data index was made"
}

train_on() {
    "$senet" train --data "$1" --set data.size=8 --batch-size 8 --epochs 1 --threads 1 --out "$2" >"$2.out" 2>"$2.err"
}

damage_once() {
    local number=$1 files file index code=0 equal=0 damaged
    rm -rf victim victim.err victim.out
    if [ $((number % 4)) = 0 ]; then
        random ${#indexes[@]}
        index=${indexes[$r]}
        damage "$index"
        for data in folder shards; do
            code=0 equal=0
            rm -rf victim
            train_on "$data" victim || code=$?
            if [ "$code" = 0 ]; then
                cmp -s victim/checkpoints/last/model.safetensors "on-$data/checkpoints/last/model.safetensors" || equal=1
            fi
            # The case counts once: for the data that the index is of.
            case "$index" in *"/$data/"* | ./cache/*) judge "$index, $damaged, seed $seed" "$code" "$equal" victim.err ;; esac
        done
        cp "indexes/$index" "$index"
        return
    fi
    cp -r middle victim
    mapfile -t files < <(find victim/checkpoints victim/config.json victim/run.json -type f ! -path '*previous-*' ! -path '*best.previous*' | sort)
    # The small files as often as the large ones.
    random ${#files[@]}
    file=${files[$r]}
    damage "$file"
    case "$file" in
    */best/*)
        "$senet" eval victim --checkpoint best --json >victim.out 2>victim.err || code=$?
        if [ "$code" = 0 ] && ! cmp -s best.json victim.out; then
            # An earlier one gives other numbers, and that is said.
            grep -q 'warning: .*using an earlier one' victim.err || equal=1
        fi
        ;;
    *)
        "$senet" train --resume victim >victim.out 2>victim.err || code=$?
        if [ "$code" = 0 ]; then same victim reference-all-1 ends || equal=1; fi
        ;;
    esac
    judge "$file, $damaged, seed $seed" "$code" "$equal" victim.err
}

# The first signal ends the test after the case that is running, with what was found so far.
stopped=
trap 'stopped=1' INT TERM

# several WHAT NUMBER: calls WHAT with 1 to NUMBER; how many came to their end is in $done_cases.
several() {
    local number
    done_cases=0
    for ((number = 1; number <= $2; number++)); do
        [ -z "$stopped" ] || return 0
        "$1" "$number"
        done_cases=$number
    done
}

references
several kill_once "$kills"
kills=$done_cases
several disk_once "$disks"
disks=$done_cases
if [ "$damages" -gt 0 ] && [ -z "$stopped" ]; then prepare_damages; fi
several damage_once "$damages"
damages=$done_cases

printf '%s\n' "seed $seed, $("$senet" --version)" \
    "kills:   $kills endings, $killed killed ($in_write while a checkpoint was written), $missed had ended before" \
    "disks:   $disks, of which $full ran full and $roomy did not" \
    "damages: $damages: $refused refused, $said said, $identical without effect" \
    "faults:  $faults"
if [ "$faults" != 0 ]; then die "$faults faults; what shows them is in $work"; fi
cd / && rm -rf "${work:?}"

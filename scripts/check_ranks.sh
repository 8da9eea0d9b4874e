#!/usr/bin/env bash
# Training by several processes as the tests cannot have it: under PyTorch's own torchrun, and over a network.
#
#   scripts/check_ranks.sh [TORCHRUN]   default: that of the golden numbers' environment (scripts/golden.sh makes it)
#
#   1. two processes under torchrun come to what one does, every image counted once;
#   2. a process is killed, torchrun starts both anew, and the run goes on from its checkpoint;
#      the same with two torchruns, as on two machines, each of which counts restarts for itself;
#   3. two network namespaces, each a machine of its own to the other (as root, where the kernel allows them).

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/lib.sh
source scripts/lib.sh

torchrun=${1-$cache/golden-venv/bin/torchrun}
case "$torchrun" in
-h | --help) usage "$0" && exit ;;
esac
[ -x "$torchrun" ] || die "no torchrun at $torchrun" "scripts/golden.sh makes one, or name yours"
senet=$PWD/target/release/senet
[ -x "$senet" ] || die "no $senet" "make build"

work=$(mktemp -d)
finish() {
    local name
    for name in senet-a senet-b; do ip netns delete "$name" 2>/dev/null || true; done
    rm -rf "$work"
}
trap finish EXIT
export CUDA_VISIBLE_DEVICES=
common=(--set data.source=synthetic --set data.synthetic.size=8 --set data.synthetic.channels=1
    --set data.synthetic.train=66 --set data.synthetic.eval=23 --set train.batch_size=16
    --set train.sync_bn=true --lr 0.002 --seed 2 --threads 1)

# What an evaluation counted: `"seen": 23, "correct": 9, …` without what is divided.
counts() { tr -d ' \n' <"$1/result.json" | grep -o '"eval":{[^}]*}[^}]*}' | grep -o '"\(seen\|correct\)":[0-9]*' | tr '\n' ' '; }

same_counts() {
    local one other
    one=$(counts "$work/one") other=$(counts "$work/$1")
    [ "$one" = "$other" ] || die "one process counted $one, $1: $other"
    case "$one" in '"seen":23 '*) ;; *) die "not every image was counted: $one" ;; esac
    say "ok: $1: $other"
}

# The step of a run's last checkpoint.
step() { grep -o '"step": [0-9]*' "$work/$1/checkpoints/last/state.json" 2>/dev/null | head -n 1 | grep -o '[0-9]*' || echo 0; }

"$senet" train "${common[@]}" --epochs 2 --out "$work/one" --quiet >/dev/null
"$torchrun" --no-python --standalone --nproc-per-node 2 \
    "$senet" train "${common[@]}" --epochs 2 --out "$work/torchrun" >/dev/null 2>"$work/torchrun.log" ||
    die "under torchrun: $(cat "$work/torchrun.log")"
grep -q 'rank 0 of 2, local rank 0, from torchrun' "$work/torchrun.log" || die "torchrun was not recognised"
same_counts torchrun

# One torchrun of a job that is started anew when it loses a process: NAME, and how torchrun is to be started.
restarting() {
    local name=$1
    shift
    "$torchrun" --no-python "$@" --max-restarts 2 \
        "$senet" train "${common[@]}" --epochs 400 --set checkpoint.every_steps=20 --rank-timeout 20 \
        --out "$work/$name" --resume auto >/dev/null 2>>"$work/$name.log"
}

# Kills rank 1 of the job NAME, and sees its torchruns, whose pids are given, to their end.
lose_one() {
    local name=$1 victim starts job
    shift
    until [ "$(step "$name")" -ge 100 ]; do
        kill -0 "$1" 2>/dev/null || die "it ended too early: $(cat "$work/$name.log")"
        sleep 0.05
    done
    # The last of them: torchrun itself is older.
    victim=$(pgrep -f -- "--out $work/$name" | while read -r pid; do
        grep -zqx 'RANK=1' "/proc/$pid/environ" 2>/dev/null && echo "$pid"
    done | tail -n 1)
    kill -KILL "$victim"
    for job in "$@"; do
        wait "$job" || die "torchrun did not bring the job to its end: $(tail -n 20 "$work/$name.log")"
    done
    starts=$(wc -l <"$work/$name/provenance.jsonl")
    [ "$starts" -eq 2 ] || die "the run was started $starts times, not twice"
    grep -q '"steps": 2000' "$work/$name/result.json" || die "the run did not come to its end"
    grep -q 'going on after step' "$work/$name.log" || die "it did not go on from its checkpoint"
    say "ok: a killed process, $name: $(grep -o 'going on after step.*' "$work/$name.log"), 2 starts"
}

restarting one-torchrun --standalone --nproc-per-node 2 &
lose_one one-torchrun $!

two=(two-torchruns --nnodes 2 --nproc-per-node 1 --rdzv-backend c10d --rdzv-endpoint 127.0.0.1:29512 --rdzv-id two)
restarting "${two[@]}" &
first=$!
restarting "${two[@]}" &
lose_one two-torchruns $first $!

if ! ip netns add senet-a 2>/dev/null; then
    say "left out: two machines (network namespaces need root, and a kernel that has them)"
    exit
fi
ip netns add senet-b
ip link add senet-veth-a netns senet-a type veth peer name senet-veth-b netns senet-b
host=1
for name in a b; do
    ip -n senet-$name address add 10.97.31.$host/24 dev senet-veth-$name
    ip -n senet-$name link set senet-veth-$name up
    ip -n senet-$name link set lo up
    host=$((host + 1))
done
on() { # HOST RANK
    RANK=$2 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=10.97.31.1 MASTER_PORT=29511 ip netns exec "senet-$1" \
        "$senet" train "${common[@]}" --epochs 2 --rank-timeout 60 --out "$work/hosts" >/dev/null 2>"$work/hosts-$2.log"
}
on b 1 &
other=$!
on a 0 || die "rank 0: $(cat "$work/hosts-0.log")"
wait $other || die "rank 1: $(cat "$work/hosts-1.log")"
same_counts hosts

#!/usr/bin/env bash
# Runs the fuzz targets one after another, each for RUNS inputs (a million by default) or SECONDS_EACH seconds (no limit by
# default), and prints a table of them.
#
#     scripts/fuzz.sh [TARGET…]        RUNS=10000 scripts/fuzz.sh jpeg
#
# Needs cargo-fuzz (`cargo install cargo-fuzz`); the toolchain of the project will do: without a sanitizer, nothing
# depends on nightly. New inputs are kept in target/fuzz/corpus, failing ones in fuzz/artifacts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

runs=${RUNS:-1000000} seconds=${SECONDS_EACH:-0}
read -ra targets <<<"${*:-$(basename -s .rs fuzz/fuzz_targets/*.rs | tr '\n' ' ')}"
# Seconds for an input, and MiB for all of the process, libtorch included, and for one allocation.
limits=(-timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=1024)

if ! cargo fuzz --version >/dev/null 2>&1; then
    printf 'error: cargo-fuzz is missing\nhint: cargo install cargo-fuzz\n' >&2
    exit 1
fi
# With one codegen unit, as is the default, the build takes much longer.
cargo fuzz build --sanitizer none --codegen-units 16 --target-dir target/fuzz

log=$(mktemp)
trap 'rm -f "$log"' EXIT
failed=0
printf '| target | inputs | seconds | peak RSS, MiB | slowest input, s | findings |\n|---|---|---|---|---|---|\n'
for target in "${targets[@]}"; do
    corpus=target/fuzz/corpus/$target
    mkdir -p "$corpus" "fuzz/artifacts/$target"
    seeds=("fuzz/corpus/$target")
    [ ! -d "fuzz/regressions/$target" ] || seeds+=("fuzz/regressions/$target")
    started=$SECONDS finding=none
    program=$(find target/fuzz/*/release -maxdepth 1 -name "$target" -type f | head -1)
    "$program" "$corpus" "${seeds[@]}" -runs="$runs" -max_total_time="$seconds" "${limits[@]}" -seed=1 -print_final_stats=1 -print_funcs=0 \
        -artifact_prefix="fuzz/artifacts/$target/" >"$log" 2>&1 || { failed=1; finding="see below"; }
    stat() { awk -v name="stat::$1:" '$1 == name { print $2 }' "$log"; }
    printf '| %s | %s | %s | %s | %s | %s |\n' "$target" "$(stat number_of_executed_units)" $((SECONDS - started)) \
        "$(stat peak_rss_mb)" "$(stat slowest_unit_time_sec)" "$finding"
    [ "$finding" = none ] || tail -40 "$log" >&2
done
exit "$failed"

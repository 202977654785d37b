#!/usr/bin/env bash
# Runs each fuzz target of a build for some seconds, from its seed corpus. usage: tests/fuzz/run.sh BUILD SECONDS
set -euo pipefail
build=$1 seconds=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in "$build"/bin/fuzz_*; do
    name=$(basename "$target")
    mkdir -p "$work/$name"
    seeds=tests/fuzz/corpus/${name#fuzz_}
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086
    if ! "$target" -max_total_time="$seconds" -timeout=60 -rss_limit_mb=2048 -artifact_prefix="$work/" -print_final_stats=1 \
        "$work/$name" $seeds >"$work/log" 2>&1; then
        tail -n 40 "$work/log" >&2
        mkdir -p "$build/crashes" && cp "$work"/{crash,timeout,oom,leak}-* "$build/crashes/" 2>/dev/null || true
        echo "FAILED: $name (input kept in $build/crashes)" >&2
        exit 1
    fi
    awk -v n="$name" '/stat::number_of_executed_units/ { print n ": " $2 " inputs, no crash" }' "$work/log"
done

#!/usr/bin/env bash
# Runs under qemu-x86_64 what depends on the processor: as Haswell (AVX2 and no more) the units of kernels and of what they
# stand on; as Nehalem (before AVX2) the programs, which must refuse it in words.  usage: tests/emulated.sh [BUILD]
# Left to the processor itself: what waits for clocks or needs sockets (programs that end by a signal crash under qemu 7.2,
# which starts handlers on a stack that is off by 8 bytes), and two tests of attention that compute for a minute each.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
haswell=(base_cpu compute_dequant compute_kv compute_level compute_pack compute_rows compute_avxvnni_trap compute_amx_trap
    compute_matmul compute_attention)
declare -A filter=([compute_attention]='attention/!(chunks_and_threads_change_nothing|is_close_to_double_precision)')
nehalem=(base_cpu compute_level)
preload=$PWD/$build/tests/libemulated_children.so
command -v qemu-x86_64 >/dev/null || { echo "error: there is no qemu-x86_64: deploy/install-deps.sh --all installs it" >&2; exit 1; }
[ -f "$preload" ] || { echo "error: $preload is not there: build $build first" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
bad=0
fail() { echo "FAILED: $*"; bad=1; }

# <processor> <program> <arguments>...: its output is in $work/out, without what qemu says of the processor's features.
emulate() {
    local emulator="$(command -v qemu-x86_64) -cpu $1 -E LD_PRELOAD=$preload" rc=0
    # shellcheck disable=SC2086
    TEST_EMULATED_CPU=$1 TEST_EMULATOR=$emulator timeout 120 $emulator "${@:2}" >"$work/all" 2>&1 </dev/null || rc=$?
    grep -v '^qemu-x86_64: warning: TCG' "$work/all" >"$work/out" || true
    return $rc
}

units() { # <processor> <unit>...
    local cpu=$1 unit start
    for unit in "${@:2}"; do
        start=$SECONDS
        if emulate "$cpu" "$build/bin/test_$unit" --verbose=1 --filter "${filter[$unit]:-*}" && grep -q '^\[PASS\]' "$work/out"; then
            echo "$cpu: $unit passed: $(grep -c '^\[PASS\]' "$work/out") tests in $((SECONDS - start)) s"
            sed -n '/^\[SKIP\]/s/Test is disabled/it computes for a minute when emulated/p' "$work/out"
            grep '^\[SKIP\]' "$work/out" | grep -v 'Test is disabled' || true
        else
            fail "$unit as $cpu"
            cat "$work/out"
        fi
    done
}

# A program that computes says what the processor lacks and exits 1; SIGILL would be 132.
refused() { # <program> <arguments>...
    local rc=0
    emulate Nehalem "$build/bin/$1" "${@:2}" || rc=$?
    if [ $rc = 1 ] && [ "$(grep -c 'this processor has no AVX2' "$work/out")" = 1 ]; then
        echo "Nehalem: $1 ${2:-} is refused: $(grep -o 'this processor has no AVX2[^;"]*' "$work/out")"
    else
        fail "$1 ${2:-} as Nehalem: exit $rc, expected 1 and one line that says what is missing"
        cat "$work/out"
    fi
}
runs() { # <text> <program> <arguments>...
    if emulate Nehalem "$build/bin/$2" "${@:3}" && grep -q "$1" "$work/out"; then
        echo "Nehalem: $2 $3 runs"
    else
        fail "$2 $3 as Nehalem"
        cat "$work/out"
    fi
}

units Haswell "${haswell[@]}"
units Nehalem "${nehalem[@]}"
model=models/SmolLM2-135M-Instruct.Q4_1.gguf
refused baton-prefill --model $model --name p0 --coordinator tcp://127.0.0.1:1
refused baton-decode --model $model --name d0 --coordinator tcp://127.0.0.1:1
refused baton-bench engine -m $model
refused baton serve -m $model --port 0
runs fine baton-coordinator --check-config --config deploy/config/local.yaml
runs llama baton inspect $model
runs '[0-9]' baton tokenize -m $model hello
exit $bad

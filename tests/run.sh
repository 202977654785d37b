#!/usr/bin/env bash
# Installs what tests need, builds, and runs every test. --full adds the whole cluster suite under the sanitizers.
# Stages can be chosen by name: tests/run.sh lint release asan tsan fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
full=false
stages=()
for arg in "$@"; do
    case $arg in
    --full) full=true ;;
    lint | release | asan | tsan | fuzz) stages+=("$arg") ;;
    *) echo "usage: tests/run.sh [--full] [lint|release|asan|tsan|fuzz ...]" >&2; exit 2 ;;
    esac
done
[ ${#stages[@]} -gt 0 ] || stages=(lint release asan tsan fuzz)

step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }
build() { cmake --preset "$1" >/dev/null && ninja -C "$2" --quiet; }
units() { "${fixed[@]}" ctest --test-dir "$1" --output-on-failure --no-tests=error -j"$(nproc)" "${@:2}"; }
cluster() { # <build folder> <pytest options>...
    BATON_BUILD=$1 "${fixed[@]}" .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 300 tests/integration "${@:2}"
}

# The sanitizers of gcc 12 and clang 14 do not start where the kernel spreads addresses over too many bits.
fixed=()
fix_addresses() { if setarch -R true 2>/dev/null; then fixed=(setarch -R); fi; }

stage_lint() {
    step "lint"
    tests/lint/run.sh
}

stage_release() {
    step "build: release"
    build release build
    step "unit tests: release"
    units build -LE stress
    step "cluster tests: release"
    cluster build
}

stage_asan() {
    step "build: AddressSanitizer and UBSan"
    build asan build-asan
    step "unit tests: ASan, UBSan"
    units build-asan -LE stress
    step "cluster tests: ASan, UBSan"
    if $full; then cluster build-asan --timeout 1200; else cluster build-asan --timeout 1200 -m smoke; fi
}

stage_tsan() {
    step "build: ThreadSanitizer"
    build tsan build-tsan
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 second_deadlock_stack=1"
    step "stress programs: TSan"
    units build-tsan -L stress
    step "cluster tests: TSan"
    if $full; then cluster build-tsan --timeout 1200 -m "not slow"; else cluster build-tsan --timeout 1200 -m smoke; fi
    unset TSAN_OPTIONS
}

stage_fuzz() {
    step "build: fuzz targets"
    build fuzz build-fuzz
    local seconds=4
    if $full; then seconds=20; fi
    step "fuzz targets, $seconds s each"
    "${fixed[@]}" tests/fuzz/run.sh build-fuzz "$seconds"
}

deploy/install-deps.sh --tests
deploy/fetch-model.sh
for stage in "${stages[@]}"; do
    fixed=()
    case $stage in asan | tsan | fuzz) fix_addresses ;; esac
    "stage_$stage"
done
step "all passed: ${stages[*]}"

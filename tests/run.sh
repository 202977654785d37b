#!/usr/bin/env bash
# Installs what tests need, builds, and runs every test. --full adds the whole cluster suite under the sanitizers.
# Stages can be chosen by name: tests/run.sh lint release asan tsan fuzz
set -euo pipefail
cd "$(dirname "$0")/.."
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
pytest() { .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 300 tests/integration "$@"; }
build() { cmake --preset "$1" >/dev/null && ninja -C "$2" --quiet; }

stage_lint() {
    step "lint"
    tests/lint/run.sh
}

stage_release() {
    step "build: release"
    build release build
    step "unit tests: release"
    ctest --test-dir build --output-on-failure -j2 -LE stress
    step "cluster tests: release"
    BATON_BUILD=build pytest
}

stage_asan() {
    step "build: AddressSanitizer and UBSan"
    build asan build-asan
    step "unit tests: ASan, UBSan"
    ctest --test-dir build-asan --output-on-failure -j2 -LE stress
    step "cluster tests: ASan, UBSan"
    if $full; then BATON_BUILD=build-asan pytest; else BATON_BUILD=build-asan pytest -m smoke; fi
}

stage_tsan() {
    step "build: ThreadSanitizer"
    build tsan build-tsan
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 second_deadlock_stack=1"
    step "stress programs: TSan"
    ctest --test-dir build-tsan --output-on-failure -L stress
    step "cluster tests: TSan"
    if $full; then BATON_BUILD=build-tsan pytest -m "not slow"; else BATON_BUILD=build-tsan pytest -m smoke; fi
    unset TSAN_OPTIONS
}

stage_fuzz() {
    step "build: fuzz targets"
    build fuzz build-fuzz
    local seconds=4
    if $full; then seconds=20; fi
    tests/fuzz/run.sh build-fuzz "$seconds"
}

deploy/install-deps.sh --tests
deploy/fetch-model.sh
for stage in "${stages[@]}"; do "stage_$stage"; done
step "all passed: ${stages[*]}"

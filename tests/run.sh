#!/usr/bin/env bash
# Installs what tests need, builds, and runs every test. --full has the stages release and emulated run on a fresh Debian 12 (tests/fresh.sh),
# builds and answers on a fresh Debian 13, and runs more of the cluster suite under the sanitizers.
# Stages can be chosen by name: tests/run.sh lint release cuda templates emulated asan tsan fuzz, and fresh trixie trixie-all asan-all tsan-all.
set -euo pipefail
cd "$(dirname "$0")/.."
exec </dev/null
full=false
stages=()
for arg in "$@"; do
    case $arg in
    --full) full=true ;;
    lint | release | cuda | templates | emulated | asan | tsan | fuzz | fresh | trixie | trixie-all | asan-all | tsan-all) stages+=("$arg") ;;
    *) echo "usage: tests/run.sh [--full] [lint|release|cuda|templates|emulated|asan|tsan|fuzz|fresh|trixie|trixie-all|asan-all|tsan-all ...]" >&2; exit 2 ;;
    esac
done
if [ ${#stages[@]} = 0 ]; then
    if $full; then stages=(lint fresh trixie cuda templates asan tsan fuzz); else stages=(lint release asan tsan fuzz); fi
fi

step() { printf '\n== %s (%d s)\n' "$1" $SECONDS; }
build() { cmake --preset "$1" "${@:3}" >/dev/null && ninja -C "$2" --quiet; }
units() { # <build folder> <ctest options>...
    "${fixed[@]}" ctest --test-dir "$1" --output-on-failure --no-tests=error -j"$(nproc)" "${@:2}"
    grep -h '^\[SKIP\]' "$1/Testing/Temporary/LastTest.log" || true
}
cluster() { # <build folder> <pytest options>...; the tests wait more than they compute, so two files at a time
    BATON_BUILD=$1 "${fixed[@]}" .venv/bin/python -m pytest -q -p no:cacheprovider --timeout 300 --durations 8 -n 2 --dist loadfile tests/integration "${@:2}"
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
    tests/lint/packages.sh build
    step "unit tests: release"
    units build -LE stress
    step "cluster tests: release"
    cluster build
}

stage_templates() {
    step "chat templates of PyPI's packages, beside jinja2"
    cmake --preset release >/dev/null
    tests/templates.sh build
}

# Machine code for every kind of GPU in the list, as a release would have it.  Nothing here runs it: tests/gpu.sh does.
stage_cuda() {
    if ! command -v nvcc >/dev/null; then
        echo "skipped: there is no nvcc here, so the CUDA backend was not compiled"
        return
    fi
    step "build: CUDA, for all GPUs"
    build cuda build-cuda
}

stage_emulated() {
    step "build: release"
    build release build
    step "units and programs as on older processors"
    tests/emulated.sh build
}

stage_fresh() { tests/fresh.sh --suite bookworm; }
stage_trixie() { tests/fresh.sh --suite trixie --only quickstart; }
stage_trixie-all() { tests/fresh.sh --suite trixie; }

# What each sanitizer runs of the cluster suite beyond the main path takes too long for every change: stages of their own.
asan() { # <kernels watched too: ON or OFF> <labels of units that stay out> <cluster tests' options>...
    step "build: AddressSanitizer and UBSan"
    build asan build-asan -DBATON_SANITIZE_KERNELS="$1"
    step "unit tests: ASan, UBSan"
    units build-asan -LE "$2"
    step "cluster tests: ASan, UBSan"
    cluster build-asan --timeout 1200 "${@:3}"
}
stage_asan() { if $full; then asan OFF "stress|long" -m "not slow"; else asan OFF "stress|long" -m smoke; fi; }
stage_asan-all() { asan ON stress; }

tsan() { # <cluster tests' options>...
    step "build: ThreadSanitizer"
    build tsan build-tsan
    export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp halt_on_error=1 second_deadlock_stack=1"
    step "stress programs: TSan"
    units build-tsan -L stress
    step "cluster tests: TSan"
    cluster build-tsan --timeout 1200 "$@"
    unset TSAN_OPTIONS
}
stage_tsan() { if $full; then tsan -m "smoke or threads"; else tsan -m smoke; fi; }
stage_tsan-all() { tsan -m "not slow"; }

stage_fuzz() {
    step "build: fuzz targets"
    build fuzz build-fuzz
    local seconds=4
    if $full; then seconds=20; fi
    step "fuzz targets, $seconds s each"
    "${fixed[@]}" tests/fuzz/run.sh build-fuzz "$seconds"
}

case " ${stages[*]} " in
*" fuzz "* | *" fresh "* | *" trixie"*) deploy/install-deps.sh --all ;;
*) deploy/install-deps.sh --tests ;;
esac
deploy/fetch-model.sh
took=()
for stage in "${stages[@]}"; do
    begun=$SECONDS
    fixed=()
    case $stage in asan* | tsan* | fuzz) fix_addresses ;; esac
    "stage_$stage"
    took+=("$stage $((SECONDS - begun)) s")
done
step "all passed: $(IFS=, && echo "${took[*]}" | sed 's/,/, /g')"

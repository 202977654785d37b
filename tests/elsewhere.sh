#!/usr/bin/env bash
# Packs the unit programs of a build with every library they need, glibc too, so that they run on another x86-64 Linux:
#   tests/elsewhere.sh [--build DIR] [--out DIR]      makes DIR (build/elsewhere) and DIR.tar.gz
#   there:  tar xzf elsewhere.tar.gz && cd elsewhere && ./run.sh [PROGRAM ...]
# run.sh ends with the number of programs that passed, names every test that was skipped with its reason, and exits 1 if
# one failed. A folder models/ with SmolLM2-135M-Instruct.Q4_1.gguf in it adds the tests that read the model.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build
out=
usage() { echo "usage: tests/elsewhere.sh [--build DIR] [--out DIR]" >&2; exit 2; }
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
    --build) build=$2 ;;
    --out) out=$2 ;;
    *) usage ;;
    esac
    shift 2
done
out=${out:-$build/elsewhere}
programs=("$build"/bin/test_*)
[ -x "${programs[0]}" ] || { echo "error: there are no unit programs in $build/bin: build them first" >&2; exit 1; }

# The loader is named by a path that is relative to the folder run.sh goes to; Linux takes it from there. Criterion starts
# its children from the same folder. It must not be longer than the name it replaces.
loader=/lib64/ld-linux-x86-64.so.2
theirs=lib/ld-linux-x86-64.so.2
pad=$(printf '\\x00%.0s' $(seq $((${#loader} - ${#theirs} + 1))))

rm -rf "$out" "$out.tar.gz"
mkdir -p "$out/bin" "$out/lib" "$out/deploy/config" "$out/tests"
for program in "${programs[@]}"; do
    strip -o "$out/bin/${program##*/}" "$program"
    sed -i "s#${loader//./\\.}\x00#$theirs$pad#" "$out/bin/${program##*/}"
    grep -qaF "$theirs" "$out/bin/${program##*/}" || { echo "error: ${program##*/} does not name $loader as its loader" >&2; exit 1; }
done
cp -L "$loader" "$out/lib/"
ldd "${programs[@]}" | awk '$2 == "=>" { print $3 }' | sort -u | xargs cp -L -t "$out/lib"
cp -r tests/golden "$out/tests/"
cp deploy/config/local.yaml "$out/deploy/config/"
git describe --always --dirty >"$out/commit" 2>/dev/null || echo unknown >"$out/commit"

cat >"$out/run.sh" <<'RUN'
#!/bin/sh
# Runs the unit programs, or those named (test_compute_matmul), with the libraries beside them.
cd "$(dirname "$0")" || exit 1
programs=$*
[ -n "$programs" ] || programs=$(cd bin && echo test_*)
echo "commit: $(cat commit)"
echo "host:   $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(nproc) cores, Linux $(uname -r)"
echo "knows:  $(grep -m1 '^flags' /proc/cpuinfo | tr ' ' '\n' | grep -E '^(avx2|fma|f16c|avx512(f|bw|dq|vl|_vnni|_bf16)|avx_vnni|amx_.*)$' | tr '\n' ' ')"
log=$(mktemp)
trap 'rm -f "$log" "$log.one"' EXIT
passed=0 failed=
for p in $programs; do
    LD_LIBRARY_PATH=lib BATON_TEST_MODELS=models "bin/$p" --verbose=1 </dev/null >"$log.one" 2>&1
    rc=$?
    cat "$log.one" >>"$log"
    if [ $rc -eq 0 ]; then
        passed=$((passed + 1))
        echo "PASS $p: $(grep -c '\[PASS\]' "$log.one") tests"
    else
        failed="$failed $p"
        echo "FAIL $p (exit $rc)"
        grep -vE '\[(RUN |PASS|SKIP|----)\]' "$log.one"
    fi
done
grep '\[SKIP\]' "$log"
echo "$passed programs passed, $(grep -c '\[PASS\]' "$log") tests; $(grep -c '\[SKIP\]' "$log") tests skipped (above, with their reasons)"
[ -z "$failed" ] || { echo "FAILED:$failed"; exit 1; }
RUN
chmod +x "$out/run.sh"
tar -C "$(dirname "$out")" -czf "$out.tar.gz" "$(basename "$out")"
echo "$out: ${#programs[@]} programs, $(du -sm "$out" | cut -f1) MiB; $out.tar.gz: $(du -m "$out.tar.gz" | cut -f1) MiB"

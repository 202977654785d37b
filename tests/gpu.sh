#!/usr/bin/env bash
# What only a machine with a GPU can show, from prebuilt programs alone (cmake -DBATON_GPU_TESTS=ON -DBATON_PORTABLE=ON):
#   tests/gpu.sh [--bin DIR] [--model FILE.gguf] [--sanitize] [--units-only]
# The unit programs of the CUDA backend, then clusters of nodes on the CPU and on the GPU in every pairing: with
# `numerics: exact` they answer with the same tokens and logprobs. Without --model a model is made with random weights.
# --sanitize: the unit programs under compute-sanitizer (memcheck, racecheck, initcheck), which takes minutes.
# Libraries are taken from lib/ beside the programs' folder, where there is one. Exits 1 if something failed.
set -euo pipefail
cd "$(dirname "$0")"
[ -d bin ] || cd ..
bin=bin
model=
sanitize=
units_only=
while [ $# -gt 0 ]; do
    case $1 in
    --bin) bin=$2; shift ;;
    --model) model=$2; shift ;;
    --sanitize) sanitize=1 ;;
    --units-only) units_only=1 ;;
    *) echo "usage: tests/gpu.sh [--bin DIR] [--model FILE.gguf] [--sanitize] [--units-only]" >&2; exit 2 ;;
    esac
    shift
done
[ -d "$bin/../lib" ] && export LD_LIBRARY_PATH="$bin/../lib:${LD_LIBRARY_PATH:-}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=

run() { # <name> <command...>: its last line, or all of it where it failed
    local name=$1 start=$SECONDS
    shift
    if timeout 600 "$@" >"$work/log" 2>&1 </dev/null; then
        echo "ok      $name ($((SECONDS - start)) s)"
    else
        echo "FAILED  $name ($((SECONDS - start)) s)"
        grep -vE 'level=info|\[PASS\]|\[RUN' "$work/log" | tail -n 25
        failed="$failed $name"
    fi
}

if [ -x "$bin/baton" ]; then
    "$bin/baton" doctor
    "$bin/baton" doctor | grep -q 'auto would choose cuda' || { echo "error: nodes would not choose the GPU here" >&2; exit 1; }
fi
for test in "$bin"/test_cuda_*; do
    run "${test##*/}" "$test" --verbose=1
    [ -n "$sanitize" ] || continue
    for tool in memcheck racecheck initcheck; do
        # One test after another in one process: the sanitizer follows no children.
        run "${test##*/} $tool" compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 "$test" --jobs 1
    done
done

if [ -z "$units_only" ] && [ -x "$bin/baton" ]; then
    if [ -z "$model" ]; then
        model=$work/synth.gguf
        "$bin/baton-bench" synth --shape smollm2-135m --type Q4_K_M --layers 6 -o "$model" >/dev/null
    fi
    python3 - "$bin" "$model" "$work" <<'PYTHON' || failed="$failed clusters"
import http.client, json, os, signal, socket, subprocess, sys, time

BIN, MODEL, WORK = sys.argv[1:4]
PAIRS = [("cpu", "cpu"), ("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda"), (None, "cuda")]
WORDS = "the cluster reads prompts on one machine and writes answers on another one while keys and values travel".split()
PROMPTS = [" ".join(WORDS[i * k % len(WORDS)] for i in range(n)) for k, n in ((1, 5), (3, 60), (5, 300), (7, 700))]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, prompt):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    c.request("POST", "/v1/completions", json.dumps({
        "prompt": prompt, "max_tokens": 40, "temperature": 0, "logprobs": 0, "ignore_eos": True,
        "return_tokens_as_token_ids": True}), {"content-type": "application/json"})
    r = c.getresponse()
    body = json.loads(r.read())
    if r.status != 200:
        raise SystemExit(f"FAILED  status {r.status}: {body}")
    lp = body["choices"][0]["logprobs"]
    return list(zip(lp["tokens"], lp["token_logprobs"]))


def ready(port):
    try:
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        c.request("GET", "/ready")
        return c.getresponse().status == 200
    except OSError:
        return False


def answers(prefill, decode, numerics):
    port = free_port()
    node = {"threads": 4, "max_seqs": 16, "kv_memory": "256MiB", "numerics": numerics, "gpu_memory": "8GiB"}
    cfg = {"models": [{"name": "m", "path": MODEL}], "coordinator": {"http": f"127.0.0.1:{port}", "control": "tcp://127.0.0.1:%d" % free_port()},
           "decode": [{"name": "d0", "backend": decode, **node, **({"local_prefill": "never"} if prefill else {})}]}
    if prefill:
        cfg["prefill"] = [{"name": "p0", "backend": prefill, **node}]
    path = f"{WORK}/cluster.json"
    open(path, "w").write(json.dumps(cfg))
    log = open(f"{WORK}/cluster.log", "w")
    p = subprocess.Popen([f"{BIN}/baton", "up", path], stdout=log, stderr=log)
    try:
        end = time.time() + 120
        while not ready(port):
            if p.poll() is not None or time.time() > end:
                raise SystemExit(f"FAILED  the cluster does not start:\n" + open(log.name).read()[-3000:])
            time.sleep(0.1)
        start = time.time()
        got = [ask(port, text) for text in PROMPTS]
        took = time.time() - start
    finally:
        p.send_signal(signal.SIGTERM)
        rc = p.wait(60)
    if rc != 0:
        raise SystemExit(f"FAILED  baton up ended with {rc}:\n" + open(log.name).read()[-3000:])
    return got, took


bad, want = False, None
for numerics in "exact", "fast":
    for prefill, decode in PAIRS:
        if numerics == "fast" and "cuda" not in (prefill, decode):
            continue
        got, took = answers(prefill, decode, numerics)
        want = want or got
        name = f"{numerics}: {prefill or 'no'} prefill -> {decode} decode"
        same = sum(g == w for g, w in zip(got, want))
        tokens = sum(a[0] == b[0] for g, w in zip(got, want) for a, b in zip(g, w))
        all_tokens = sum(map(len, want))
        fine = numerics == "fast" or same == len(want)
        bad |= not fine
        print(f"{'ok     ' if fine else 'FAILED '} {name}: {same} of {len(want)} answers and {tokens} of {all_tokens} "
              f"tokens as on the CPU, logprobs too ({took:.1f} s)", flush=True)
sys.exit(bad)
PYTHON
fi
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
echo "all of it is fine"

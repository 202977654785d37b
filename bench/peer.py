#!/usr/bin/env python3
"""llama.cpp (PyPI llama-cpp-python) beside `baton-bench engine` on the same file, interleaved A/B/A, medians and spread.

usage: bench/peer.py -m FILE.gguf [-p 512] [-n 128] [-t 2] [-r 5] [--bench build/bin/baton-bench] [--json OUT]

The peer runs with flash attention on, one batch of p tokens for prefill, then n single-token steps from an empty context. Needs
`pip install llama-cpp-python` in the Python that runs this; Baton itself does not.
"""
import argparse
import json
import statistics
import subprocess
import sys
import time


def peer_run(a):
    """One measurement in this process: prefill and decode tok/s of llama.cpp."""
    import llama_cpp as lc
    quiet = lc.llama_log_callback(lambda *_: None)  # the library keeps the pointer, not the object
    lc.llama_log_set(quiet, None)
    lc.llama_backend_init()
    model = lc.llama_model_load_from_file(a.model.encode(), lc.llama_model_default_params())
    params = lc.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = a.prompt + a.tokens + 64, max(512, a.prompt), 512
    params.n_threads = params.n_threads_batch = a.threads
    if hasattr(params, "flash_attn_type"):
        params.flash_attn_type = 1
    ctx = lc.llama_init_from_model(model, params)

    def decode(tokens):
        array = (lc.llama_token * len(tokens))(*tokens)
        if lc.llama_decode(ctx, lc.llama_batch_get_one(array, len(tokens))) != 0:
            sys.exit("llama_decode failed")
        lc.llama_synchronize(ctx)

    def clear():
        lc.llama_memory_clear(lc.llama_get_memory(ctx), True)

    prompt = [(i * 7919) % 30000 + 100 for i in range(a.prompt)]
    decode(prompt)  # warm-up
    clear()
    start = time.perf_counter()
    decode(prompt)
    prefill = a.prompt / (time.perf_counter() - start)
    clear()
    decode(prompt[:1])
    start = time.perf_counter()
    for i in range(a.tokens):
        decode([prompt[i % a.prompt]])
    print(json.dumps({"prefill_tok_s": prefill, "decode_tok_s": a.tokens / (time.perf_counter() - start)}))


def run_peer(a):
    out = subprocess.run([sys.executable, __file__, "--child", *sys.argv[1:]], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def run_baton(a):
    out = subprocess.run([a.bench, "engine", "-m", a.model, "-p", str(a.prompt), "-n", str(a.tokens), "-t", str(a.threads),
                          "-r", "1", "--json"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout.splitlines()[-1])


def show(name, values):
    print(f"  {name:28s} median {statistics.median(values):9.1f}   min {min(values):9.1f}   max {max(values):9.1f}")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("-p", "--prompt", type=int, default=512)
    ap.add_argument("-n", "--tokens", type=int, default=128)
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("-r", "--rounds", type=int, default=5)
    ap.add_argument("--bench", default="build/bin/baton-bench")
    ap.add_argument("--json")
    ap.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.child:
        return peer_run(a)
    rows = []
    for _ in range(a.rounds):  # A/B/A: the peer before and after each of ours
        before, ours, after = run_peer(a), run_baton(a), run_peer(a)
        rows.append({"peer": [before, after], "baton": ours})
    result = {"model": a.model, "prompt": a.prompt, "tokens": a.tokens, "threads": a.threads, "rounds": rows}
    for what in ("prefill_tok_s", "decode_tok_s"):
        peer = [p[what] for r in rows for p in r["peer"]]
        ours = [r["baton"][what] for r in rows]
        ratio = [r["baton"][what] / statistics.mean(p[what] for p in r["peer"]) for r in rows]
        print(what)
        show("llama.cpp", peer)
        show("baton", ours)
        show("baton / llama.cpp", ratio)
        result[what + "_ratio"] = statistics.median(ratio)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(result, f, indent=1)


main()

#!/usr/bin/env python3
"""What the split costs a client: TTFT beside the engine's bare prefill, the second token's gap beside the usual gap.

usage: bench/handoff_cost.py -m FILE.gguf [-p 512] [-r 7] [--bin build/bin]

Starts `baton serve` with one prefill and one decode node of one thread each; each round measures `baton-bench engine -t 1` on
the same prompt length, then one streamed request. Standard library only.
"""
import argparse
import json
import statistics
import subprocess
import time
import urllib.request


def engine_prefill_ms(a):
    out = subprocess.run([f"{a.bin}/baton-bench", "engine", "-m", a.model, "-p", str(a.prompt), "-n", "1", "-t", "1", "-r", "1",
                          "--json"], check=True, capture_output=True, text=True)
    return 1e3 * a.prompt / json.loads(out.stdout.splitlines()[-1])["prefill_tok_s"]


def request_gaps_ms(url, a, seed):
    """TTFT and the gaps between the tokens that follow, in ms."""
    prompt = [(i * 7919 + seed * 31) % 30000 + 100 for i in range(a.prompt)]
    body = {"prompt": prompt, "max_tokens": 40, "temperature": 0, "ignore_eos": True, "stream": True, "logprobs": 0,
            "return_tokens_as_token_ids": True}
    req = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    start = last = time.perf_counter()
    gaps = []
    with urllib.request.urlopen(req) as r:
        for line in r:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            if choices and choices[0].get("logprobs"):
                now = time.perf_counter()
                gaps += [1e3 * (now - last) / len(choices[0]["logprobs"]["tokens"])]
                last = now
    return gaps


def show(name, values):
    print(f"  {name:38s} median {statistics.median(values):8.1f}   min {min(values):8.1f}   max {max(values):8.1f}  ms")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("-p", "--prompt", type=int, default=512)
    ap.add_argument("-r", "--rounds", type=int, default=7)
    ap.add_argument("--bin", default="build/bin")
    a = ap.parse_args()
    serve = subprocess.Popen([f"{a.bin}/baton", "serve", "-m", a.model, "--port", "0", "--threads", "2", "--local-prefill", "never"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = next(line.split()[1] for line in serve.stdout if line.startswith("ready "))
        request_gaps_ms(url, a, 0)  # warm-up: connects the KV lanes
        engine, ttft, extra, second, usual = [], [], [], [], []
        for i in range(a.rounds):
            engine.append(engine_prefill_ms(a))
            gaps = request_gaps_ms(url, a, i + 1)
            ttft.append(gaps[0])
            extra.append(gaps[0] - engine[-1])
            second.append(gaps[1])
            usual.append(statistics.median(gaps[2:]))
    finally:
        serve.terminate()
        serve.wait()
    print(f"{a.prompt}-token prompt, one thread a node, {a.rounds} rounds")
    show("engine prefill", engine)
    show("TTFT through the cluster", ttft)
    show("TTFT - engine prefill", extra)
    show("first to second token", second)
    show("usual gap", usual)
    show("second gap - usual gap", [s - u for s, u in zip(second, usual)])


main()

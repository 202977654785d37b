#!/usr/bin/env python3
"""Many clients at once: `baton serve` (one prefill and one decode node) beside llama.cpp, interleaved A/B/A.

usage: bench/serve_peer.py -m FILE.gguf [--against batched,server] [-t 2] [-r 3] [--bin build/bin] [-o FILE.json]

16 clients each send 256 tokens and read 128; total tok/s counts the 16 x 128 that are written, from the first request to the last
token. Two peers, both through PyPI llama-cpp-python with flash attention on:
  batched  llama.cpp's own batched decode of all sequences in one context, called in process: no HTTP, no queue, greedy sampling
  server   `python -m llama_cpp.server` (needs llama-cpp-python[server]), which handles one request at a time
"""
import argparse
import concurrent.futures
import json
import os
import random
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

from peer import Peer, Stepper, end_on_sigterm, machine, spread, warn_if_busy, write

WORDS = "the of and to in is that it was for on are as with his they at be this from have or one had by but not what all were".split()


class BatchedPeer(Peer):
    """Reads every prompt, then writes a token of each sequence a step."""

    def __init__(self, a):
        super().__init__(a.model, {"prompt": 0, "decode": a.tokens, "depth": a.prompt, "streams": a.clients, "kv": "f16"}, a.threads)
        self.a, self.sampler = a, self.lc.llama_sampler_init_greedy()

    def measure(self):
        self.cut(0)
        a, b = self.a, self.batch
        start = time.perf_counter()
        rows = [(s, pos, pos == a.prompt - 1) for s in range(a.clients) for pos in range(a.prompt)]
        last = {}
        for at in range(0, len(rows), 512):
            piece = rows[at:at + 512]
            self.forward(piece)
            last.update({row[0]: self.lc.llama_sampler_sample(self.sampler, self.ctx, i) for i, row in enumerate(piece) if row[2]})
        for pos in range(a.prompt, a.prompt + a.tokens - 1):
            b.n_tokens = a.clients
            for s in range(a.clients):
                b.token[s], b.pos[s], b.n_seq_id[s], b.seq_id[s][0], b.logits[s] = last[s], pos, 1, s, True
            if self.lc.llama_decode(self.ctx, b) != 0:
                sys.exit("llama_decode failed")
            last = {s: self.lc.llama_sampler_sample(self.sampler, self.ctx, s) for s in range(a.clients)}
        return a.clients * a.tokens / (time.perf_counter() - start)


def child(a):
    peer = BatchedPeer(a)
    peer.warm_up()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"tok_s": peer.measure()}), flush=True)


def complete(url, body):
    req = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(req, timeout=600) as r:
        return json.load(r)["usage"]


def all_clients(url, bodies):
    """Tokens written per second, and prompt tokens of a request."""
    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        usages = list(pool.map(lambda body: complete(url, body), bodies))
    seconds = time.perf_counter() - start
    return {"tok_s": sum(u["completion_tokens"] for u in usages) / seconds,
            "prompt_tokens": statistics.mean(u["prompt_tokens"] for u in usages)}


class Baton:
    def __init__(self, a):
        self.a = a
        self.command = [f"{a.bin}/baton", "serve", "-m", a.model, "--port", "0", "--threads", str(a.threads), "--local-prefill", "never"]
        self.child = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = next((line.split()[1] for line in self.child.stdout if line.startswith("ready ")), None)
        if not self.url:
            sys.exit(f"failed: {' '.join(self.command)}")

    def sample(self):
        rng = random.Random(time.time_ns())  # never a prefix that was seen
        bodies = [{"prompt": [rng.randrange(100, 30000) for _ in range(self.a.prompt)], "max_tokens": self.a.tokens,
                   "temperature": 0, "ignore_eos": True} for _ in range(self.a.clients)]
        return all_clients(self.url, bodies)

    def stop(self):
        self.child.terminate()
        self.child.wait()


class Server(Baton):
    """llama_cpp.server; text prompts, as it takes no token ids."""

    def __init__(self, a):
        self.a, self.url = a, "http://127.0.0.1:18431"
        self.command = [sys.executable, "-m", "llama_cpp.server", "--model", a.model, "--port", "18431", "--n_ctx",
                        str(a.prompt + a.tokens + 128), "--n_threads", str(a.threads), "--n_threads_batch", str(a.threads),
                        "--flash_attn", "true"]
        self.child = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(self.url + "/v1/models", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError):
                if self.child.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    sys.exit(f"failed: {' '.join(self.command)}")
                time.sleep(0.2)

    def sample(self):
        rng = random.Random(time.time_ns())
        bodies = [{"prompt": " ".join(rng.choice(WORDS) for _ in range(self.a.prompt)), "max_tokens": self.a.tokens,
                   "temperature": 0, "logit_bias": {str(i): -100 for i in range(3)}} for _ in range(self.a.clients)]
        return all_clients(self.url, bodies)


def run_case(a, name):
    started = []
    try:
        baton = Baton(a)
        started.append(baton)
        child_args = ["-m", a.model, "-t", str(a.threads), "--clients", str(a.clients), "--prompt", str(a.prompt), "--tokens", str(a.tokens)]
        peer = Server(a) if name == "server" else Stepper([sys.executable, __file__, "--child", *child_args])
        started.append(peer)
        baton.sample()  # connects the KV lanes
        peers, ours, ratios = [], [], []
        for _ in range(a.rounds):
            before, own, after = peer.sample()["tok_s"], baton.sample()["tok_s"], peer.sample()["tok_s"]
            peers += [before, after]
            ours.append(own)
            ratios.append(own / statistics.mean((before, after)))
    finally:
        for program in started:
            program.stop()
    return {"case": f"serve-{name}", "model": os.path.basename(a.model), "threads": a.threads, "clients": a.clients, "prompt": a.prompt,
            "tokens": a.tokens, "command": " ".join(baton.command), "peer_command": " ".join(["python", *peer.command[1:]]),
            "peer_tok_s": spread(peers), "baton_tok_s": spread(ours), "ratio": spread(ratios)}


def show(r):
    b, p, x = r["baton_tok_s"], r["peer_tok_s"], r["ratio"]
    print(f"{r['case']:16s} {r['clients']} clients, {r['prompt']} in / {r['tokens']} out: Baton {b['median']:.1f}, llama.cpp "
          f"{p['median']:.1f} tok/s, {x['median']:.2f}x ({x['min']:.2f} to {x['max']:.2f})", flush=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("--against", default="batched,server")
    ap.add_argument("--clients", type=int, default=16)
    ap.add_argument("--prompt", type=int, default=256)
    ap.add_argument("--tokens", type=int, default=128)
    ap.add_argument("-t", "--threads", type=int, default=2, help="in all: the nodes share them")
    ap.add_argument("-r", "--rounds", type=int, default=3)
    ap.add_argument("--bin", default="build/bin")
    ap.add_argument("-o", "--out", help="JSON file")
    ap.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.child:
        return child(a)
    names = a.against.split(",")
    if set(names) - {"batched", "server"}:
        ap.error("--against takes batched and server")
    end_on_sigterm()
    warn_if_busy()
    result = {"machine": machine(), "command": " ".join(sys.argv), "results": []}
    for name in names:
        result["results"].append(run_case(a, name))
        show(result["results"][-1])
        if a.out:
            write(a.out, result)


if __name__ == "__main__":
    main()

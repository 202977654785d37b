#!/usr/bin/env python3
"""llama.cpp (PyPI llama-cpp-python) beside `baton-bench engine` on the same file: interleaved A/B/A, medians and spread.

usage: bench/peer.py -m FILE.gguf [-c CASE,...] [-t 2] [-r 5] [--cpu] [--bench build/bin/baton-bench] [-o bench/results/NAME.json]

Each case starts both programs, lets them load, warm up and read the context they decode from; then every round measures the peer,
Baton, and the peer again, while the other one waits. A round's ratio is Baton over the mean of the two. The peer runs with flash
attention on. --cpu counts processor time in place of time, with one thread each: what other programs take of a busy machine is not
counted then, and no thread of llama.cpp spins for another that has no processor. Needs `pip install llama-cpp-python` in the Python that runs this; Baton itself does not.
"""
import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import time

# prompt (tokens of a prefill) or decode (steps), depth (context before), streams, the peer's KV (Baton's is INT8), most rounds.
CASES = {
    "prefill512": {"prompt": 512},
    "prefill8k": {"prompt": 8192, "kv": "q8_0", "rounds": 2},
    "decode1": {"decode": 64},
    "decode8": {"decode": 16, "streams": 8},
    "prefill128": {"prompt": 128},
    "decode4k-f16": {"decode": 16, "depth": 4096},
    "decode4k-q8_0": {"decode": 16, "depth": 4096, "kv": "q8_0"},
}
STREAM_STEP = 5  # streams read other tokens, as `baton-bench engine` has it: of one token all would choose the same experts
DEFAULTS = {"prompt": 0, "decode": 0, "depth": 0, "streams": 1, "kv": "f16", "rounds": 100, "cpu": False}


class Peer:
    """llama.cpp through its C API."""

    def __init__(self, model, case, threads):
        import llama_cpp as lc
        self.lc, self.case = lc, case
        self.clock = time.process_time if case["cpu"] else time.perf_counter
        self.quiet = lc.llama_log_callback(lambda *_: None)  # the library keeps the pointer, not the object
        lc.llama_log_set(self.quiet, None)
        lc.llama_backend_init()
        self.model = lc.llama_model_load_from_file(model.encode(), lc.llama_model_default_params())
        if not self.model:
            sys.exit(f"llama.cpp cannot load {model}")
        params = lc.llama_context_default_params()
        longest = max(case["prompt"], case["depth"] + case["decode"])
        params.n_ctx = case["streams"] * ((longest + 255) // 256 * 256)
        params.n_seq_max = case["streams"]
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1
        if case["kv"] == "q8_0":
            params.type_k = params.type_v = lc.GGML_TYPE_Q8_0
        self.ctx = lc.llama_init_from_model(self.model, params)
        if not self.ctx:
            sys.exit("llama.cpp cannot make a context")
        self.batch = lc.llama_batch_init(512, 0, 1)
        n_vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))
        self.tokens = [(i * 2654435761 % 2**32 >> 8) % n_vocab for i in range(longest)]

    def forward(self, rows):
        """rows: (stream, position, whether logits are wanted)"""
        b = self.batch
        b.n_tokens = len(rows)
        for i, (stream, pos, logits) in enumerate(rows):
            token = self.tokens[(pos + stream * STREAM_STEP) % len(self.tokens)]
            b.token[i], b.pos[i], b.n_seq_id[i], b.seq_id[i][0], b.logits[i] = token, pos, 1, stream, logits
        if self.lc.llama_decode(self.ctx, b) != 0:
            sys.exit("llama_decode failed")
        self.lc.llama_synchronize(self.ctx)

    def cut(self, length):
        for stream in range(self.case["streams"]):
            self.lc.llama_memory_seq_rm(self.lc.llama_get_memory(self.ctx), stream, length, -1)

    def prefill(self, stream, n):
        for at in range(0, n, 512):
            end = min(at + 512, n)
            self.forward([(stream, pos, pos == n - 1) for pos in range(at, end)])

    def decode(self, steps):
        for pos in range(self.case["depth"], self.case["depth"] + steps):
            self.forward([(stream, pos, True) for stream in range(self.case["streams"])])

    def warm_up(self):
        if self.case["decode"]:
            for stream in range(self.case["streams"]):
                self.prefill(stream, self.case["depth"])
            self.decode(min(8, self.case["decode"]))
        else:
            self.prefill(0, min(512, self.case["prompt"]))

    def measure(self):
        """tok/s"""
        self.cut(self.case["depth"])
        start = self.clock()
        if self.case["decode"]:
            self.decode(self.case["decode"])
        else:
            self.prefill(0, self.case["prompt"])
        return (self.case["prompt"] or self.case["decode"] * self.case["streams"]) / (self.clock() - start)


def peer_child(a):
    """A sample for each line on stdin, as `baton-bench engine --step`."""
    peer = Peer(a.model, json.loads(a.child), a.threads)
    peer.warm_up()
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps({"tok_s": peer.measure()}), flush=True)


class Stepper:
    """A program that measures once for each line it is sent."""

    def __init__(self, command):
        self.command = command
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.child.stdout.readline().strip() != "ready":
            sys.exit(f"failed: {' '.join(command)}")

    def sample(self):
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        return json.loads(line) if line else sys.exit(f"ended: {' '.join(self.command)}")

    def stop(self):
        self.child.terminate()
        self.child.wait()


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "samples": values}


def run_case(name, model, threads, rounds, bench, extra=(), cpu=False):
    case = {**DEFAULTS, **CASES[name], "cpu": cpu}
    extra = [*extra, "--cpu"] if cpu else extra
    baton = Stepper([bench, "engine", "-m", model, "-t", str(threads), "-p", str(case["prompt"]), "-n", str(case["decode"]), "-d",
                     str(case["depth"]), "-s", str(case["streams"]), "--step", *extra])
    peer = Stepper([sys.executable, str(pathlib.Path(__file__).resolve()), "-m", model, "-t", str(threads), "--child", json.dumps(case)])
    key = "prefill" if case["prompt"] else "decode"
    peers, ours, ratios, samples = [], [], [], []
    try:
        for _ in range(min(rounds, case["rounds"])):
            before, own, after = peer.sample()["tok_s"], baton.sample(), peer.sample()["tok_s"]
            peers += [before, after]
            ours.append(own[key + "_tok_s"])
            ratios.append(own[key + "_tok_s"] / statistics.mean((before, after)))
            samples.append(own)
    finally:
        baton.stop()
        peer.stop()
    return {"case": name, **case, "model": os.path.basename(model), "threads": threads, "command": " ".join(baton.command),
            "peer_tok_s": spread(peers), "baton_tok_s": spread(ours), "ratio": spread(ratios),
            "share": spread([s[key + "_share"] for s in samples]), "share_of": "int8 peak" if case["prompt"] else "memory read",
            "isa": samples[0]["isa"], "int8_ops_s": spread([s["int8_ops_s"] for s in samples]),
            "read_bytes_s": spread([s["read_bytes_s"] for s in samples])}


def machine():
    """What a reader needs to judge the figures."""
    cpu = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    facts = {"cpu": cpu[0] if cpu else platform.processor(), "cpus": len(os.sched_getaffinity(0)), "load1": os.getloadavg()[0],
             "kernel": platform.release(), "commit": commit, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    try:
        import llama_cpp
        facts["llama_cpp_python"] = llama_cpp.__version__
    except ImportError:
        pass
    return facts


def end_on_sigterm():
    """So that `finally` ends what was started."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def warn_if_busy():
    """llama.cpp's threads wait for each other in a spin: on a busy machine it loses far more than Baton does."""
    load = os.getloadavg()[0]
    if load > 0.5:
        print(f"peer: the machine is busy (load {load:.1f}): do not keep these figures", file=sys.stderr)


def show(r):
    b, p, x, s = r["baton_tok_s"], r["peer_tok_s"], r["ratio"], r["share"]
    share = "" if r["cpu"] else f"   {100 * s['median']:5.1f} % of {r['share_of']}"
    print(f"{r['model']:34s} {r['case']:14s} {b['median']:9.1f} {p['median']:9.1f}   {x['median']:5.2f}x "
          f"({x['min']:.2f} to {x['max']:.2f}){share}", flush=True)


def write(path, result):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Commands as they are typed in the project's folder: where that lies is nobody's business.
    path.write_text(json.dumps(result, indent=1).replace(str(pathlib.Path(__file__).resolve().parents[1]) + "/", "") + "\n")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-m", "--model", required=True)
    ap.add_argument("-c", "--cases", default="prefill512,decode1,decode8", help=f"of {','.join(CASES)}, or all")
    ap.add_argument("-t", "--threads", type=int, default=2)
    ap.add_argument("-r", "--rounds", type=int, default=5)
    ap.add_argument("--cpu", action="store_true", help="processor time of one thread each, for a busy machine")
    ap.add_argument("--isa", default="auto", help="Baton's level of instructions")
    ap.add_argument("--bench", default="build/bin/baton-bench")
    ap.add_argument("-o", "--out", help="JSON file")
    ap.add_argument("--child", help=argparse.SUPPRESS)
    a = ap.parse_args()
    if a.child:
        return peer_child(a)
    names = list(CASES) if a.cases == "all" else a.cases.split(",")
    unknown = [n for n in names if n not in CASES]
    if unknown:
        ap.error(f"there is no case {unknown[0]}; there are {', '.join(CASES)}")
    if not os.path.exists(a.model):
        ap.error(f"there is no file {a.model}")
    end_on_sigterm()
    if a.cpu:
        a.threads = 1
    else:
        warn_if_busy()
    result = {"machine": machine(), "command": " ".join(sys.argv), "results": []}
    print(f"{'model':34s} {'case':14s} {'Baton':>9s} {'llama.cpp':>9s}   ratio (spread), tok/s")
    for name in names:
        result["results"].append(run_case(name, a.model, a.threads, a.rounds, a.bench, ["--isa", a.isa], a.cpu))
        show(result["results"][-1])
        if a.out:
            write(a.out, result)


if __name__ == "__main__":
    main()

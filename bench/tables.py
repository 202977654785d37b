#!/usr/bin/env python3
"""Measures every table of docs/measurements/performance.md, and writes bench/results/performance.json, its plot, and the tables.

usage: bench/tables.py [--only peer,kernels,serve,families] [--match WORD] [-r ROUNDS] [--models build/bench-models] [--build build]
       bench/tables.py --render        tables and plot from the JSON that is there

--match measures what has the word in its model's or case's name, and keeps the other figures. Models of real shapes are written by
`baton-bench synth` where they are not there yet. Needs llama-cpp-python[server] in the Python that runs this.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys

import peer
import plot

ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench/results/performance.json"
DOC = ROOT / "docs/measurements/performance.md"
SMOLLM2 = "models/SmolLM2-135M-Instruct.Q4_1.gguf"

# (file, arguments of synth or None for a real model, cases)
BASIC = ["prefill512", "decode1", "decode8"]
MODELS = [
    (SMOLLM2, None, [*BASIC, "prefill8k"]),
    ("llama-1b.Q4_0.gguf", ["--shape", "llama-1b", "--type", "Q4_0"], [*BASIC, "decode4k-f16", "decode4k-q8_0"]),
    ("llama-1b.Q4_K_M.gguf", ["--shape", "llama-1b", "--type", "Q4_K_M"], BASIC),
    ("llama-1b.Q8_0.gguf", ["--shape", "llama-1b", "--type", "Q8_0"], BASIC),
    ("llama-1b.Q6_K.gguf", ["--shape", "llama-1b", "--type", "Q6_K"], BASIC),
    ("llama-1b-2layers.Q4_0.gguf", ["--shape", "llama-1b", "--type", "Q4_0", "--layers", "2", "--vocab", "4096"], ["prefill8k"]),
]

# Shapes of other families, a few layers of each kind: whole ones are larger than a small machine's memory. A vocabulary of 8192
# keeps the head from being most of the work.
FEW = ["--vocab", "8192", "--layers"]
BATCHES = ["prefill512", "decode1", "decode8"]
FAMILIES = [
    ("qwen3-30b-a3b-4layers.Q4_K_M.gguf", ["--shape", "qwen3-30b-a3b", "--type", "Q4_K_M", *FEW, "4"], BATCHES),
    ("qwen3.6-35b-a3b-4layers.Q4_K_M.gguf", ["--shape", "qwen3.6-35b-a3b", "--type", "Q4_K_M", *FEW, "4"], BATCHES),
    ("gemma-3-27b-6layers.Q4_K_M.gguf", ["--shape", "gemma-3-27b", "--type", "Q4_K_M", *FEW, "6"], ["prefill128", "decode1"]),
    ("gpt-oss-20b-4layers.Q8_0-MXFP4.gguf", ["--shape", "gpt-oss-20b", "--type", "Q8_0", *FEW, "4"], BATCHES),
    ("deepseek-v2-lite-4layers.Q4_K_M.gguf", ["--shape", "deepseek-v2-lite", "--type", "Q4_K_M", *FEW, "4"], BATCHES),
]


def matches(a, *names):
    return any(a.match in name for name in names)


def measure_models(a, result, part, models, threads, cpu):
    for name, synth, cases in models:
        wanted = [c for c in cases if matches(a, name, c)]
        path = ROOT / name if synth is None else pathlib.Path(a.models) / name
        if wanted and not path.exists():
            if synth is None:
                sys.exit(f"there is no {path}: deploy/fetch-model.sh fetches it")
            path.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([a.bench, "synth", "-o", str(path), *synth], check=True)
        for case in wanted:
            row = {**peer.run_case(case, str(path), threads, a.rounds, a.bench, cpu=cpu), "machine": peer.machine()}
            peer.show(row)
            result[part] = [r for r in result.get(part, []) if (r["model"], r["case"]) != (row["model"], case)] + [row]
            peer.write(RESULTS, result)


def measure_peer(a, result):
    measure_models(a, result, "peer", MODELS, 2, False)


def measure_families(a, result):
    measure_models(a, result, "families", FAMILIES, 1, True)


def measure_kernels(a, result):
    out = subprocess.run([a.bench, "kernels", "--json"], check=True, capture_output=True, text=True)
    result["kernels"] = {**json.loads(out.stdout), "machine": peer.machine()}


def measure_serve(a, result):
    out = RESULTS.with_name("serve.json")
    subprocess.run([sys.executable, str(ROOT / "bench/serve_peer.py"), "-m", str(ROOT / SMOLLM2), "-r", str(min(a.rounds, 3)),
                    "--bin", f"{a.build}/bin", "-o", str(out)], check=True)
    result["serve"] = json.loads(out.read_text())
    out.unlink()


def spread(x, digits=2):
    return f"{x['median']:.{digits}f} ({x['min']:.{digits}f} to {x['max']:.{digits}f})"


def peer_table(rows):
    yield "| model | case | Baton tok/s | llama.cpp tok/s | ratio (spread) | of the ceiling |"
    yield "|---|---|---|---|---|---|"
    order = {(pathlib.Path(name).name, case): i for i, (name, case) in enumerate((n, c) for n, _, cs in MODELS for c in cs)}
    for r in sorted(rows, key=lambda r: order.get((r["model"], r["case"]), len(order))):
        ceiling = r["int8_ops_s"] if r["share_of"] == "int8 peak" else r["read_bytes_s"]
        unit = "GOP/s int8 peak" if r["share_of"] == "int8 peak" else "GB/s read"
        yield (f"| {r['model'].removesuffix('.gguf')} | {r['case']} | {r['baton_tok_s']['median']:.1f} | {r['peer_tok_s']['median']:.1f} "
               f"| {spread(r['ratio'])} | {100 * r['share']['median']:.0f} % of {ceiling['median'] / 1e9:.0f} {unit} |")


def family_table(rows):
    yield "| model | case | Baton tok/s | llama.cpp tok/s | ratio (spread) |"
    yield "|---|---|---|---|---|"
    order = {(name, case): i for i, (name, case) in enumerate((n, c) for n, _, cs in FAMILIES for c in cs)}
    for r in sorted(rows, key=lambda r: order.get((r["model"], r["case"]), len(order))):
        yield (f"| {r['model'].removesuffix('.gguf')} | {r['case']} | {r['baton_tok_s']['median']:.1f} | {r['peer_tok_s']['median']:.1f} "
               f"| {spread(r['ratio'])} |")


def kernel_table(k):
    packing = {r["type"]: f"{r['bytes_s'] / 1e9:.1f}" for r in k["kernels"] if r["op"] == "pack"}
    rows = [r for r in k["kernels"] if r["op"] != "pack"]
    levels = list(dict.fromkeys(r["isa"] for r in rows if r["isa"] != "ref"))
    yield "| type | packing, GB/s of the file | " + " | ".join(f"{level}: 1 row GB/s, 512 rows GOP/s" for level in levels) + " |"
    yield "|---|---|" + "---|" * len(levels)
    for op, kind in dict.fromkeys((r["op"], r["type"]) for r in rows):
        cells = [packing.get(kind, "-") if op == "matmul" else "-"]
        for level in levels:
            at = {r["rows"]: r for r in rows if (r["op"], r["type"], r["isa"]) == (op, kind, level)}
            one, many = at.get(1), at.get(512)
            cells.append(", ".join([f"{one['bytes_s'] / 1e9:.1f} ({100 * one['bytes_share']:.0f} %)" if one else "-",
                                    f"{many['ops_s'] / 1e9:.0f} ({100 * many['ops_share']:.0f} %)" if many else "-"]))
        yield f"| {op + ', ' if op != 'matmul' else ''}{kind} | " + " | ".join(cells) + " |"


def serve_table(s):
    yield "| against | Baton tok/s | llama.cpp tok/s | ratio (spread) |"
    yield "|---|---|---|---|"
    for r in s["results"]:
        yield f"| {r['case']} | {spread(r['baton_tok_s'], 0)} | {spread(r['peer_tok_s'], 0)} | {spread(r['ratio'])} |"


def machine_line(m):
    return (f"{m['cpu']}, {m['cpus']} CPUs, load {m['load1']:.1f} before the last case, {m['time']}, commit {m['commit']}, "
            f"llama-cpp-python {m.get('llama_cpp_python', '?')}")


def render(result):
    tables = {
        "peer": lambda d: [*peer_table(d), "", machine_line(d[-1]["machine"]), "", "![ratios](../../bench/results/performance.svg)"],
        "kernels": lambda d: [*kernel_table(d), "", machine_line(d["machine"])],
        "families": lambda d: [*family_table(d), "", machine_line(d[-1]["machine"])],
        "serve": lambda d: [*serve_table(d), "", machine_line(d["machine"])],
    }
    text = DOC.read_text()
    for name, table in tables.items():
        if result.get(name):
            body = "\n".join(["", *table(result[name]), ""])
            text = re.sub(f"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: m[1] + body + m[2], text, flags=re.S)
    DOC.write_text(text)
    if result.get("peer"):
        plot.write(RESULTS.with_suffix(".svg"), result)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--only", default="peer,kernels,serve")
    ap.add_argument("--match", default="")
    ap.add_argument("-r", "--rounds", type=int, default=5)
    ap.add_argument("--models", default=str(ROOT / "build/bench-models"))
    ap.add_argument("--build", default=str(ROOT / "build"))
    ap.add_argument("--render", action="store_true")
    a = ap.parse_args()
    a.bench = f"{a.build}/bin/baton-bench"
    measures = {"peer": measure_peer, "kernels": measure_kernels, "serve": measure_serve, "families": measure_families}
    if set(a.only.split(",")) - set(measures):
        ap.error(f"--only takes {', '.join(measures)}")
    peer.end_on_sigterm()
    result = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not a.render:
        if a.only != "families":
            peer.warn_if_busy()
        for name in a.only.split(","):
            measures[name](a, result)
            peer.write(RESULTS, result)
    render(result)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Makes this folder's models and what others say of them.

    pip install gguf numpy torch transformers llama-cpp-python==0.3.36
    python make.py [FAMILY ...]

Of each family two files, NAME.f16.gguf and NAME.q.gguf, and beside each a .json with the five best tokens of every
position.  The exit status is 1 unless the NumPy reference, transformers and llama.cpp agree, and unless each fact that
is switched off moves the answer by ten times what an engine may be off.  figures.md has the numbers.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from reference import Reference
from shapes import CONTEXT, FAMILIES, LONG, N_VOCAB, Tensors

HERE = pathlib.Path(__file__).parent
SEEDS = HERE.parents[1] / "fuzz" / "corpus" / "model"
N_TOKENS, N_BEST = 144, 5  # two blocks of KV and a part of one
FLOAT_LIMIT, LLAMA_CPP_LIMIT = 0.002, 0.01  # mean |delta logprob| that an engine may have
AGREE = {"transformers": 1e-4, "llama.cpp": 0.003}  # what the others may differ by from the reference
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


# --- the files


def byte_letters():
    """Byte-level BPE's letter of each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in plain]
    return {**{b: chr(b) for b in plain}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def vocabulary(w):
    letters = byte_letters()
    n_merges = N_VOCAB - 256 - len(SPECIALS)
    pairs = [(chr(ord("a") + i // 26), chr(ord("a") + i % 26)) for i in range(n_merges)]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("llama-bpe")
    w.add_token_list([letters[b] for b in range(256)] + [a + b for a, b in pairs] + SPECIALS)
    w.add_token_types([1] * (N_VOCAB - len(SPECIALS)) + [3] * len(SPECIALS))
    w.add_token_merges([f"{a} {b}" for a, b in pairs])
    w.add_bos_token_id(N_VOCAB - 3)
    w.add_eos_token_id(N_VOCAB - 2)
    w.add_eot_token_id(N_VOCAB - 1)


def add_key(w, name, value):
    if isinstance(value, bool):
        w.add_bool(name, value)
    elif isinstance(value, int):
        w.add_uint32(name, value)
    elif isinstance(value, float):
        w.add_float32(name, value)
    elif isinstance(value, str):
        w.add_string(name, value)
    else:
        w.add_array(name, value)


def type_of(f, name, tensor, tensors, quantized):
    if tensor.ndim == 1 or name in tensors.exact:
        return Type.F32
    if not quantized:
        return Type.F16
    for part, kind in f.quantized.items():
        if part in name:
            return Type[kind]
    return Type.Q4_0 if "ffn_" in name else Type.Q8_0


def start(path, f):
    w = gguf.GGUFWriter(path, f.arch)
    w.add_name("tiny")  # llama.cpp takes some names for models whose special tokens it knows
    for name, value in f.meta.items():
        add_key(w, f"{f.arch}.{name}", value)
    return w


def add_tensors(w, f, tensors, quantized):
    for name, tensor in tensors.all.items():
        kind = type_of(f, name, tensor, tensors, quantized)
        data = tensor.astype(np.float16) if kind == Type.F16 else gguf.quants.quantize(tensor, kind)
        w.add_tensor(name, data, raw_dtype=kind)
    w.write_header_to_file()
    w.write_kv_data_to_file()


def write_model(f, tensors, quantized):
    path = HERE / f"{f.name}.{'q' if quantized else 'f16'}.gguf"
    w = start(path, f)
    vocabulary(w)
    add_tensors(w, f, tensors, quantized)
    w.write_tensors_to_file()
    w.close()
    assert path.stat().st_size < 400_000, f"{path.name} has {path.stat().st_size} bytes"
    return path


def write_seed(f, tensors):
    """What fuzz_model starts from: the quantized file up to its data, without a vocabulary."""
    SEEDS.mkdir(exist_ok=True)
    w = start(SEEDS / f.name, f)
    add_tensors(w, f, tensors, True)
    w.write_ti_data_to_file()
    w.close()


# --- what others say


def llama_cpp(f, path, context, tokens):
    import llama_cpp as lib
    overrides = {f"{f.arch}.{k}": v for k, v in f.overrides.items()}
    llm = lib.Llama(str(path), n_ctx=context, n_batch=256, n_ubatch=256, n_threads=2, logits_all=True, verbose=False,
                    type_k=lib.GGML_TYPE_F32, type_v=lib.GGML_TYPE_F32, kv_overrides=overrides or None)
    llm.eval(tokens)
    logits = np.array(llm.scores[:len(tokens)], dtype=np.float64)
    llm.close()
    return logits


def transformers(f, path, context, tokens):
    from twins import TWINS
    run = TWINS.get(f.name) or TWINS.get(f.arch)
    return run and run(Reference(path, context), tokens)


def logprobs(logits):
    top = logits.max(axis=1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))


def best(lp):
    order = np.argsort(-lp, axis=1, kind="stable")[:, :N_BEST]
    return order, np.take_along_axis(lp, order, axis=1)


def distance(want, got):
    """Mean |delta logprob| over the best tokens of `want`: the engine's measure."""
    order, lp = best(want)
    return float(np.abs(np.take_along_axis(got, order, axis=1) - lp).mean())


def answer(by, lp):
    order, best_lp = best(lp)
    rows = [[[int(i), round(float(p), 5)] for i, p in zip(*row)] for row in zip(order, best_lp)]
    return {"by": by, "top5": rows}


def text(seed):
    """Tokens with repeats at many distances, so that attention has something to find."""
    rng = np.random.default_rng(seed + 1000)
    few = rng.choice(N_VOCAB - len(SPECIALS), 40, replace=False)
    return [int(t) for t in rng.choice(few, N_TOKENS)]


# --- a family


def examine(f, path, quantized, figures):
    tokens, runs = text(f.seed), []
    for context in f.contexts:
        ours = logprobs(Reference(path, context).logits(tokens))
        run = {"context": context}
        theirs = transformers(f, path, context, tokens)
        row = {"name": path.name, "context": context, "bytes": path.stat().st_size,
               "entropy": float(-(np.exp(ours) * ours).sum(axis=1).mean()),
               "best": float(np.exp(ours.max(axis=1)).mean())}
        if theirs is not None:
            row["transformers"] = distance(ours, logprobs(theirs))
        row["llama.cpp"] = distance(ours, cpp := logprobs(llama_cpp(f, path, context, tokens)))
        run["float32"] = answer("transformers" if theirs is not None else "reference.py",
                                ours if theirs is None else logprobs(theirs))
        if not quantized:
            run["llama.cpp"] = answer("llama.cpp", cpp)
        row["switches"] = {label: distance(ours, logprobs(Reference(path, context, **how).logits(tokens)))
                           for label, how in f.switches.items() if label != LONG or context == CONTEXT}
        runs.append(run)
        figures.append(row)
        print(row["name"], context, {k: round(v, 5) for k, v in [*row.items(), *row["switches"].items()] if isinstance(v, float)})
    # Activations stay as they are where weights are F16; with quantized weights llama.cpp quantizes them.
    bad = [f"{row['name']} {who}: {row[who]:.5f}" for row in figures[-len(runs):] for who, limit in AGREE.items()
           if who in row and row[who] > limit and not (quantized and who == "llama.cpp")]
    bad += [f"{row['name']} without {label}: {moved:.4f}" for row in figures[-len(runs):]
            for label, moved in row["switches"].items() if moved < 10 * FLOAT_LIMIT]
    for run, row in zip(runs, figures[-len(runs):]):
        run["figures"] = row
    body = json.dumps({"family": f.arch, "tokens": tokens, "runs": runs}, separators=(",", ":"))
    path.with_suffix(".json").write_text(body.replace("]],[[", "]],\n[[") + "\n")
    return bad


def write_table():
    """figures.md, of all files that are here."""
    lines = ["# What the figures of the tiny models are", "", "Written by `make.py`. Distances are the mean |delta logprob| of each position's five best tokens from `reference.py`,",
             "in nats. The last column has what switching off one fact moves; an engine in floats may be off by 0.002.", "",
             "| file | context | bytes | probability of the best token | transformers | llama.cpp | without |", "|---|---|---|---|---|---|---|"]
    for path in sorted(HERE.glob("*.json")):
        for row in (run["figures"] for run in json.loads(path.read_text())["runs"]):
            moved = ", ".join(f"{label} {value:.2f}" for label, value in row["switches"].items())
            twin = f"{row['transformers']:.6f}" if "transformers" in row else "-"
            lines.append(f"| {row['name']} | {row['context']} | {row['bytes']:,} | {row['best']:.2f} | {twin} | {row['llama.cpp']:.4f} | {moved} |")
    (HERE / "figures.md").write_text("\n".join(lines) + "\n")


def main(names):
    figures, bad = [], []
    for f in [FAMILIES[name] for name in names or FAMILIES]:
        tensors = Tensors(f.seed)
        f.build(tensors)
        write_seed(f, tensors)
        for quantized in (False, True):
            bad += examine(f, write_model(f, tensors, quantized), quantized, figures)
    write_table()
    for line in bad:
        print("NOT GOOD:", line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

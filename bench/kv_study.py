"""What would a finer KV cache be worth?  A float forward of a llama in torch, with each layer's K and V quantized and back in many ways.

usage: bench/kv_study.py MODEL.gguf TOKENS.json... [--window 3584]

A study, not a part of Baton: it takes F32, Q8_0 and Q4_1 tensors, needs torch, and a GPU to be quick.  TOKENS.json: an answer of POST
/tokenize.  The first window of each text finds what has to be found: mean keys, heads that need more bits.  The others are judged against f16
KV: mean KL, and what the text's own tokens lose.  Keys are rotated, as in the cache.  docs/measurements/kv-int8.md has the table.
"""
import argparse
import json
import math
import struct

import numpy as np
import torch

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 4

    def number(self, fmt):
        value = struct.unpack_from("<" + fmt, self.data, self.at)[0]
        self.at += struct.calcsize("<" + fmt)
        return value

    def string(self):
        n = self.number("Q")
        self.at += n
        return self.data[self.at - n : self.at].decode("utf8", "replace")

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, n = self.number("I"), self.number("Q")
            return [self.value(kind) for _ in range(n)]
        return self.number(SCALARS[kind])


def dequantize(data, at, n, kind):
    half = lambda b: b.copy().view(np.float16).astype(np.float32)
    if kind == 0:
        return np.frombuffer(data, np.float32, n, at)
    if kind == 3:
        b = np.frombuffer(data, np.uint8, n // 32 * 20, at).reshape(-1, 20)
        return np.concatenate([b[:, 4:] & 15, b[:, 4:] >> 4], 1) * half(b[:, :2]) + half(b[:, 2:4])
    if kind == 8:
        b = np.frombuffer(data, np.uint8, n // 32 * 34, at).reshape(-1, 34)
        return b[:, 2:].copy().view(np.int8) * half(b[:, :2])
    raise SystemExit(f"tensors of GGUF type {kind} are not taken")


def load(path):
    data = open(path, "rb").read()
    r = Reader(data)
    r.number("I")
    n_tensors, n_meta = r.number("Q"), r.number("Q")
    meta = {}
    for _ in range(n_meta):
        name = r.string()
        meta[name] = r.value(r.number("I"))
    infos = [(r.string(), [r.number("Q") for _ in range(r.number("I"))], r.number("I"), r.number("Q")) for _ in range(n_tensors)]
    base = (r.at + 31) // 32 * 32
    weights = {}
    for name, dims, kind, offset in infos:
        x = np.array(dequantize(data, base + offset, math.prod(dims), kind), np.float32)
        weights[name] = torch.from_numpy(x.reshape(dims[::-1])).to(DEVICE)
    return meta, weights


def hadamard(n):
    h = torch.ones(1, 1)
    while h.shape[0] < n:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)], 0)
    return (h / math.sqrt(n)).to(DEVICE)


def int8(x, group=None, top=127.0):
    """A scale for each `group` of values, and whole steps of it."""
    y = x.unflatten(-1, (-1, group or x.shape[-1]))
    scale = y.abs().amax(-1, keepdim=True) / top
    scale = torch.where(scale < 1.2e-38, torch.ones_like(scale), scale)
    return (torch.round(y / scale) * scale).flatten(-2)


def f16(x):
    return x.half().float()


class Llama:
    def __init__(self, path):
        meta, self.w = load(path)
        m = lambda key: meta["llama." + key]
        self.n_layers, self.n_heads, self.n_kv = m("block_count"), m("attention.head_count"), m("attention.head_count_kv")
        self.dim = m("embedding_length") // self.n_heads
        self.base, self.eps = m("rope.freq_base"), m("attention.layer_norm_rms_epsilon")
        self.h = hadamard(self.dim)
        self.head = self.w.get("output.weight", self.w["token_embd.weight"])

    def turns(self, n):
        freq = self.base ** (-2 * torch.arange(self.dim // 2, dtype=torch.float64) / self.dim)
        angle = torch.arange(n, dtype=torch.float64)[:, None] * freq
        return angle.cos().float().to(DEVICE), angle.sin().float().to(DEVICE)

    def turn(self, x, cos, sin):
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)

    def norm(self, x, w):
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps) * w

    def logprobs(self, tokens, cache, see=lambda layer, k: None):
        """`cache(layer, k, v)` gives K and V as attention reads them; k is turned and rotated, [kv heads][tokens][dim]."""
        n, share = len(tokens), self.n_heads // self.n_kv
        x, turns = self.w["token_embd.weight"][tokens], self.turns(n)
        for layer in range(self.n_layers):
            w = lambda name: self.w[f"blk.{layer}.{name}.weight"]
            y = self.norm(x, w("attn_norm"))
            q, k, v = ((y @ w(name).T).unflatten(-1, (-1, self.dim)).transpose(0, 1) for name in ("attn_q", "attn_k", "attn_v"))
            q, k = self.turn(q, *turns) @ self.h, self.turn(k, *turns) @ self.h
            see(layer, k)
            k, v = cache(layer, k, v)
            mixed = [torch.nn.functional.scaled_dot_product_attention(q[i], k[i // share], v[i // share], is_causal=True) for i in range(self.n_heads)]
            x = x + torch.cat(mixed, -1) @ w("attn_output").T
            y = self.norm(x, w("ffn_norm"))
            x = x + (torch.nn.functional.silu(y @ w("ffn_gate").T) * (y @ w("ffn_up").T)) @ w("ffn_down").T
        return torch.log_softmax(self.norm(x, self.w["output_norm.weight"]) @ self.head.T, -1)


def cached(keys, values=lambda v: int8(v)):
    return lambda layer, k, v: (keys(layer, k), values(v))


F16 = cached(lambda layer, k: f16(k), f16)


def judge(model, windows, refs, cache):
    kl, lost = 0.0, []
    for window, ref in zip(windows, refs):
        ref, got, following = ref.to(DEVICE), model.logprobs(window[:-1], cache), window[1:, None]
        kl += (ref.exp() * (ref - got)).sum(-1).sum().item()
        lost.append((got.gather(1, following) - ref.gather(1, following)).squeeze(1).abs())
    lost = torch.cat(lost)
    return kl / len(lost), lost


def mean_keys(model, tokens, seen_at=None):
    """Of each layer and head: as they are, or, with seen_at, those of a few tokens before their turn, as seen over so many positions."""
    means = {}

    def see(layer, k):
        if seen_at is None:
            means[layer] = k.mean(1, keepdim=True)
            return
        cos, sin = model.turns(len(tokens))
        still = model.turn(k @ model.h.T, cos, -sin).mean(1, keepdim=True)
        cos, sin = (t.mean(0) for t in model.turns(seen_at))
        means[layer] = model.turn(still, cos, sin) @ model.h

    model.logprobs(tokens, F16, see)
    return means


def needy_heads(model, windows, refs):
    """Heads by what quantizing their keys alone costs."""
    cost = {}
    for layer in range(model.n_layers):
        for head in range(model.n_kv):

            def keys(at, k):
                out = f16(k)
                if at == layer:
                    out[head] = int8(k[head])
                return out

            cost[layer, head] = judge(model, windows, refs, cached(keys, f16))[0]
    return sorted(cost, key=cost.get, reverse=True), cost


def variants(model, finders, refs):
    heads, cost = needy_heads(model, finders, refs)
    print("keys of one head alone, KL: " + ", ".join(f"{h}: {cost[h]:.6f}" for h in heads[:6]), f"of {sum(cost.values()):.6f} over all")
    random = torch.arange(64, device=DEVICE) * 769 % len(model.w["token_embd.weight"])
    far, near, long = mean_keys(model, random, 8192), mean_keys(model, random, 2048), mean_keys(model, finders[0][:2048])
    plain = lambda layer, k: int8(k)
    less = lambda means, q=int8: lambda layer, k: q(k - means[layer]) + means[layer]
    own = lambda layer, k: int8(k - k[:, :64].mean(1, keepdim=True)) + k[:, :64].mean(1, keepdim=True)
    turned = lambda v: int8(v @ model.h) @ model.h.T

    def first(n):
        return lambda layer, k: torch.cat([f16(k[:, :n]), int8(k[:, n:])], 1)

    def fine(n, keys=plain):
        chosen = set(heads[:n])

        def finer(layer, k):
            out = keys(layer, k)
            for head in range(model.n_kv):
                if (layer, head) in chosen:
                    out[head] = f16(k[head])
            return out

        return finer

    row, all_heads = 2 * (model.dim + 4), model.n_layers * model.n_kv
    share = lambda extra: 100 * extra / row
    return [
        ("as it is", 0, cached(plain)),
        ("keys not rotated", 0, cached(lambda layer, k: int8(k @ model.h.T) @ model.h)),
        ("keys alone", None, cached(plain, f16)),
        ("values alone", None, cached(lambda layer, k: f16(k))),
        ("values rotated", 0, cached(plain, turned)),
        ("first key in 16 bits", 0, cached(first(1))),
        ("first 64 keys in 16 bits", 0, cached(first(64))),
        ("less the mean of the first 64 keys", 0, cached(own)),
        ("less the mean key of 2,048 other tokens", 0, cached(less(long))),
        ("less the mean key of 64 random tokens, seen over 2,048 positions", 0, cached(less(near))),
        ("the same over 8,192 positions", 0, cached(less(far))),
        ("keys in groups of 32", share(4), cached(lambda layer, k: int8(k, 32))),
        ("keys in groups of 16, values of 32", share(16), cached(lambda layer, k: int8(k, 16), lambda v: int8(v, 32))),
        ("16 bits for the keys of the head that needs it most", share(model.dim / all_heads), cached(fine(1))),
        ("of three heads", share(3 * model.dim / all_heads), cached(fine(3))),
        ("of three heads, less the mean key over 2,048", share(3 * model.dim / all_heads), cached(fine(3, less(near)))),
        ("the same, values rotated", share(3 * model.dim / all_heads), cached(fine(3, less(near)), turned)),
        ("keys in 9 bits", share(model.dim / 8), cached(lambda layer, k: int8(k, top=255.0))),
        ("keys in 9 bits, less the mean key over 2,048", share(model.dim / 8), cached(less(near, lambda x: int8(x, top=255.0)))),
        ("keys in 10 bits", share(model.dim / 4), cached(lambda layer, k: int8(k, top=511.0))),
    ]


def main():
    ap = argparse.ArgumentParser(usage=__doc__.split("usage: ")[1].split("\n")[0])
    ap.add_argument("model")
    ap.add_argument("tokens", nargs="+")
    ap.add_argument("--window", type=int, default=3584)
    a = ap.parse_args()
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    model, finders, windows = Llama(a.model), [], []
    for path in a.tokens:
        ids = torch.tensor(json.load(open(path))["tokens"], device=DEVICE)
        cut = [ids[i : i + a.window + 1] for i in range(0, len(ids) - a.window, a.window)]
        finders.append(cut[0])
        windows += cut[1:]
    refs = [[model.logprobs(w[:-1], F16).cpu() for w in side] for side in (finders, windows)]
    print(f"{sum(len(w) - 1 for w in windows)} positions in windows of {a.window}")
    print("| K and V | bytes | mean KL | mean loss | 99.9 % | largest | > 0.3 | > 0.2 | > 0.1 |\n|---|---|---|---|---|---|---|---|---|")
    for name, extra, cache in variants(model, finders, refs[0]):
        kl, lost = judge(model, windows, refs[1], cache)
        past = [int((lost > x).sum()) for x in (0.3, 0.2, 0.1)]
        size = "" if extra is None else f"+{extra:.1f} %" if extra else "="
        print(f"| {name} | {size} | {kl:.6f} | {lost.mean():.4f} | {lost.sort().values[int(len(lost) * 0.999)]:.3f} | {lost.max():.2f} "
              f"| {past[0]} | {past[1]} | {past[2]} |", flush=True)


if __name__ == "__main__":
    main()

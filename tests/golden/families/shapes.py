"""The tiny models: for each family its metadata, its tensors, and the facts that its logits must depend on."""
import math
from dataclasses import dataclass, field

import numpy as np

N_VOCAB, CONTEXT = 320, 512
EPS = 1e-6
LONG = "long, not short"  # a switch for runs whose context is longer than the original one


class Tensors:
    """Random tensors under GGUF's names.  Matrices are [rows][columns] and are stored in the file's type; what is
    `exact` (norms, biases, routers, convolutions) stays F32."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.all, self.exact = {}, set()
        self.layer = None

    def _put(self, name, value, exact):
        name = name if self.layer is None else f"blk.{self.layer}.{name}"
        self.all[name] = value.astype(np.float32)
        if exact:
            self.exact.add(name)

    def matrix(self, name, *shape, gain=1.0, exact=False):
        """Outputs have about `gain` times the inputs' size."""
        self._put(name + ".weight", self.rng.standard_normal(shape) * gain / math.sqrt(shape[-1]), exact)

    def vector(self, name, *shape, mean=0.0, spread=0.3):
        self._put(name, mean + self.rng.standard_normal(shape) * spread, True)

    def norm(self, name, n, mean=1.0, spread=0.25):
        self.vector(name + ".weight", n, mean=mean, spread=spread)


@dataclass
class Family:
    name: str
    arch: str
    meta: dict
    build: object
    # Facts that are switched off one at a time: label -> what Reference takes.
    switches: dict
    contexts: tuple = (CONTEXT,)
    overrides: dict = field(default_factory=dict)  # keys that only llama.cpp needs
    quantized: dict = field(default_factory=dict)  # part of a name -> type in the quantized file
    seed: int = 1


FAMILIES = {}


def family(f):
    assert f.name not in FAMILIES
    FAMILIES[f.name] = f


def off(without=(), **facts):
    return {"without": tuple(without), "facts": facts}


# --- parts


def ends(t, d, tied, logits=2.0, embed=1.0):
    """Embedding, last norm and head; `logits` is about their standard deviation."""
    t.matrix("token_embd", N_VOCAB, d, gain=(logits if tied else embed * math.sqrt(d)))
    t.norm("output_norm", d)
    if not tied:
        t.matrix("output", N_VOCAB, d, gain=logits)


def qkv(t, d, heads, kv, dim, bias=0.0, sharp=1.0, qk_norm=None, gated=False):
    t.norm("attn_norm", d)
    t.matrix("attn_q", heads * dim * (2 if gated else 1), d, gain=sharp)
    t.matrix("attn_k", kv * dim, d, gain=sharp)
    t.matrix("attn_v", kv * dim, d)
    if bias:
        for which, rows in (("q", heads), ("k", kv), ("v", kv)):
            t.vector(f"attn_{which}.bias", rows * dim, spread=bias)
    if qk_norm:
        t.norm("attn_q_norm", dim, mean=qk_norm)
        t.norm("attn_k_norm", dim, mean=qk_norm)
    t.matrix("attn_output", d, heads * dim, gain=0.8)


def glu(t, d, ff, norm="ffn_norm"):
    t.norm(norm, d)
    t.matrix("ffn_gate", ff, d)
    t.matrix("ffn_up", ff, d)
    t.matrix("ffn_down", d, ff, gain=0.8)


def experts(t, d, ff, n, router=2.0, norm="ffn_norm", shared=0, shared_gate=False, bias=0.0):
    t.norm(norm, d)
    t.matrix("ffn_gate_inp", n, d, gain=router, exact=True)
    t.matrix("ffn_gate_exps", n, ff, d, gain=1.4)
    t.matrix("ffn_up_exps", n, ff, d)
    t.matrix("ffn_down_exps", n, d, ff, gain=1.4)
    if bias:
        t.vector("ffn_gate_inp.bias", n, spread=1.0)
        for which, rows in (("gate", ff), ("up", ff), ("down", d)):
            t.vector(f"ffn_{which}_exps.bias", n, rows, spread=bias)
    if shared:
        t.matrix("ffn_gate_shexp", shared, d, gain=1.4)
        t.matrix("ffn_up_shexp", shared, d)
        t.matrix("ffn_down_shexp", d, shared, gain=1.2)
    if shared_gate:
        t.matrix("ffn_gate_inp_shexp", 1, d, gain=1.5, exact=True)
        t.all[f"blk.{t.layer}.ffn_gate_inp_shexp.weight"].shape = (d,)


def layers(t, n):
    for t.layer in range(n):
        yield t.layer
    t.layer = None


def sizes(n_layers, d, ff, heads=0, kv=0, dim=0, eps=EPS, **more):
    meta = {"block_count": n_layers, "context_length": CONTEXT, "embedding_length": d, "feed_forward_length": ff,
            "attention.layer_norm_rms_epsilon": eps, "vocab_size": N_VOCAB}
    if heads:
        meta |= {"attention.head_count": heads, "attention.head_count_kv": kv, "attention.key_length": dim,
                 "attention.value_length": dim, "rope.dimension_count": dim}
    return meta | {k.replace("__", "."): v for k, v in more.items()}


# --- llama: three ways of RoPE


def llama(rope_factors=()):
    def build(t):
        ends(t, 64, tied=False)
        for name, low, high in rope_factors:
            t._put(name, np.linspace(low, high, 16) ** 2, True)
        for _ in layers(t, 4):
            qkv(t, 64, 3, 1, 32)
            glu(t, 64, 96)
    return build


LLAMA_SIZES = dict(n_layers=4, d=64, ff=96, heads=3, kv=1, dim=32)
family(Family("llama", "llama", sizes(**LLAMA_SIZES, rope__freq_base=500.0),
              llama([("rope_freqs.weight", 1.0, 2.8)]),
              {"rope_freqs": off(["rope_freqs"]), "pairs": off(neox=True), "norm weights": off(["attn_norm", "ffn_norm"])}))
family(Family("llama-yarn", "llama",
              sizes(**LLAMA_SIZES, rope__freq_base=1000.0) |
              {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64},
              llama(),
              {"YaRN": off(rope_type="none"), "interpolation only": off(rope_type="linear"),
               "attention factor": off(rope_attn_factor=1 / (1 + 0.1 * math.log(8)))}))
family(Family("llama-longrope", "llama",
              sizes(**LLAMA_SIZES, rope__freq_base=500.0) |
              {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 256,
               "rope.scaling.attn_factor": 1.19},
              llama([("rope_factors_long.weight", 1.0, 3.0), ("rope_factors_short.weight", 1.0, 1.3)]),
              {"factors": off(["rope_factors"]), LONG: off(orig_context=1 << 20),
               "attention factor": off(rope_attn_factor=1.0)},
              contexts=(512, 256)))


def qwen2(t):
    ends(t, 96, tied=True)
    for _ in layers(t, 4):
        qkv(t, 96, 6, 3, 16, bias=0.6)
        glu(t, 96, 32)


family(Family("qwen2", "qwen2", sizes(4, 96, 32, 6, 3, 16, rope__freq_base=1000.0), qwen2,
              {"biases": off([".bias"]), "pairs": off(neox=False)}))


def qwen3(t):
    ends(t, 64, tied=True)
    for _ in layers(t, 3):
        qkv(t, 64, 3, 1, 64, qk_norm=1.2)
        glu(t, 64, 64)


family(Family("qwen3", "qwen3", sizes(3, 64, 64, 3, 1, 64, rope__freq_base=1000.0), qwen3,
              {"q norm": off(["attn_q_norm"]), "k norm": off(["attn_k_norm"]), "pairs": off(neox=False)}))


def gemma(n_layers, ff, qk_norm=None):
    def build(t):
        ends(t, 64, tied=True)
        for _ in layers(t, n_layers):
            qkv(t, 64, 3, 1, 32, qk_norm=qk_norm, sharp=1.3)
            t.norm("post_attention_norm", 64)
            glu(t, 64, ff)
            t.norm("post_ffw_norm", 64)
    return build


family(Family("gemma2", "gemma2",
              sizes(4, 64, 64, 3, 1, 32, rope__freq_base=1000.0) |
              {"attention.sliding_window": 24, "attn_logit_softcapping": 3.0, "final_logit_softcapping": 6.0},
              gemma(4, 64),
              {"window": off(window=0), "soft-cap of scores": off(attn_cap=0), "soft-cap of logits": off(final_cap=0),
               "sandwich norms": off(["post_attention_norm", "post_ffw_norm"]), "embedding scale": off(embed_scale=1.0),
               "GELU": off(glu="silu")}))
family(Family("gemma3", "gemma3",
              sizes(6, 64, 32, 3, 1, 32, rope__freq_base=20000.0) |
              {"attention.sliding_window": 24, "attention.sliding_window_pattern": 3, "rope.freq_base_swa": 500.0,
               "rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
              gemma(6, 32, qk_norm=1.2),
              {"window": off(window=0), "q and k norms": off(["attn_q_norm", "attn_k_norm"]),
               "sliding layers' RoPE base": off(rope_base_sliding=20000.0), "full layers' RoPE factor": off(rope_factor=1.0),
               "sandwich norms": off(["post_attention_norm", "post_ffw_norm"]), "embedding scale": off(embed_scale=1.0),
               "GELU": off(glu="silu"), "pattern": off(sliding=[True] * 6)}))


def phi3(t):
    ends(t, 96, tied=False)
    t._put("rope_factors_long.weight", np.linspace(1.0, 3.0, 12) ** 2, True)
    t._put("rope_factors_short.weight", np.linspace(1.0, 1.3, 12) ** 2, True)
    for _ in layers(t, 3):
        t.norm("attn_norm", 96)
        t.matrix("attn_qkv", (3 + 2) * 32, 96)
        t.matrix("attn_output", 96, 96, gain=0.8)
        t.norm("ffn_norm", 96)
        t.matrix("ffn_up", 2 * 32, 96)
        t.matrix("ffn_down", 96, 32, gain=0.8)


family(Family("phi3", "phi3",
              sizes(3, 96, 32, 3, 1, 32, rope__freq_base=500.0) |
              {"rope.dimension_count": 24, "rope.scaling.original_context_length": 256, "rope.scaling.attn_factor": 1.19},
              phi3,
              {"factors": off(["rope_factors"]), LONG: off(orig_context=1 << 20),
               "attention factor": off(rope_attn_factor=1.0), "pairs": off(neox=False)},
              contexts=(512, 256)))

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


def glu(t, d, ff, norm="ffn_norm", down=0.8):
    t.norm(norm, d)
    t.matrix("ffn_gate", ff, d)
    t.matrix("ffn_up", ff, d)
    t.matrix("ffn_down", d, ff, gain=down)


def experts(t, d, ff, n, router=3.0, norm="ffn_norm", up=1.0, down=0.8, shared=0, shared_down=0.8, shared_gate=False,
            fused=False):
    """The router is sharp: an expert that is barely chosen has little weight, so rounding that chooses another one
    changes little."""
    t.norm(norm, d)
    t.matrix("ffn_gate_inp", n, d, gain=router, exact=True)
    if fused:
        t.matrix("ffn_gate_up_exps", n, 2 * ff, d, gain=up)
    else:
        t.matrix("ffn_gate_exps", n, ff, d, gain=up)
        t.matrix("ffn_up_exps", n, ff, d, gain=up)
    t.matrix("ffn_down_exps", n, d, ff, gain=down)
    if shared:
        t.matrix("ffn_gate_shexp", shared, d)
        t.matrix("ffn_up_shexp", shared, d)
        t.matrix("ffn_down_shexp", d, shared, gain=shared_down)
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


# --- mixtures of experts

MOE = {"expert_count": 5, "expert_used_count": 2}


def mixtral(t):
    ends(t, 64, tied=True)
    for _ in layers(t, 3):
        qkv(t, 64, 3, 1, 32)
        experts(t, 64, 32, 5, down=0.4)


family(Family("mixtral", "llama", sizes(3, 64, 32, 3, 1, 32, rope__freq_base=1000.0) | MOE, mixtral,
              {"weights add up to 1": off(route_norm=False), "two experts": off(n_used=1), "pairs": off(neox=True)}))


def qwen3moe(t):
    ends(t, 64, tied=True)
    for _ in layers(t, 3):
        qkv(t, 64, 3, 1, 32, qk_norm=1.2)
        experts(t, 64, 32, 6, down=0.5)


family(Family("qwen3moe", "qwen3moe",
              sizes(3, 64, 64, 3, 1, 32, rope__freq_base=1000.0) |
              {"expert_count": 6, "expert_used_count": 3, "expert_feed_forward_length": 32}, qwen3moe,
              {"weights add up to 1": off(route_norm=False), "three experts": off(n_used=2),
               "q and k norms": off(["attn_q_norm", "attn_k_norm"])}))


def gpt_oss(t):
    ends(t, 32, tied=False)
    for _ in layers(t, 4):
        qkv(t, 32, 3, 1, 32, bias=0.4, sharp=1.2)
        t.vector("attn_output.bias", 32, spread=0.3)
        t.vector("attn_sinks.weight", 3, mean=1.5, spread=1.0)
        experts(t, 32, 32, 7, norm="post_attention_norm", up=3.0, down=0.05)
        t.vector("ffn_gate_inp.bias", 7, spread=1.0)
        for which, spread in (("gate", 1.5), ("up", 1.5), ("down", 0.25)):
            t.vector(f"ffn_{which}_exps.bias", 7, 32, spread=spread)


family(Family("gpt-oss", "gpt-oss",
              sizes(4, 32, 32, 3, 1, 32, rope__freq_base=1000.0) |
              {"expert_count": 7, "expert_used_count": 3, "expert_feed_forward_length": 32,
               "attention.sliding_window": 24, "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
               "rope.scaling.original_context_length": 64}, gpt_oss,
              {"window": off(window=0), "sinks": off(["attn_sinks"]), "clamp": off(glu="oai unclamped"),
               "gate": off(glu="silu"), "YaRN": off(rope_type="none"), "attention biases": off(["attn_q.bias", "attn_k.bias",
               "attn_v.bias", "attn_output.bias"]), "router's bias": off(["ffn_gate_inp.bias"]),
               "experts' biases": off(["exps.bias"]), "softmax of the chosen": off(gating=1), "pattern": off(sliding=[False] * 4)},
              quantized={"_exps": "MXFP4"}))


def deepseek2(rank, q_rank, bias, n_experts, **moe):
    """Heads of 32 + 16 dimensions and values of 32; with q_rank in the form of new files, else of old ones."""
    def build(t):
        ends(t, 32, tied=False)
        for il in layers(t, 4):
            t.norm("attn_norm", 32)
            if q_rank:
                t.matrix("attn_q_a", q_rank, 32)
                t.norm("attn_q_a_norm", q_rank)
                t.matrix("attn_q_b", 3 * 48, q_rank)
            else:
                t.matrix("attn_q", 3 * 48, 32)
            t.matrix("attn_kv_a_mqa", rank + 16, 32)
            t.norm("attn_kv_a_norm", rank)
            if q_rank:
                t.matrix("attn_k_b", 3, rank, 32, gain=math.sqrt(32 / rank))
                t.matrix("attn_v_b", 3, 32, rank)
            else:
                t.matrix("attn_kv_b", 3 * (32 + 32), rank)
            t.matrix("attn_output", 32, 3 * 32, gain=0.8)
            if il < 2:
                glu(t, 32, 64)
                continue
            experts(t, 32, 32, n_experts, shared=32 if q_rank else 64, **moe)
            if bias:
                t.vector("exp_probs_b.bias", n_experts, mean=0.5, spread=bias)
    return build


DEEPSEEK2 = {"leading_dense_block_count": 2, "expert_feed_forward_length": 32, "rope.dimension_count": 16,
             "rope.scaling.type": "yarn", "rope.scaling.factor": 8.0, "rope.scaling.original_context_length": 64}
MLA_SWITCHES = {"latent's norm": off(["attn_kv_a_norm"]), "YaRN": off(rope_type="none"), "pairs": off(neox=True),
                "YaRN's scale": off(scale=1 / math.sqrt(48)), "shared expert": off(["_shexp"])}
family(Family("deepseek2-lite", "deepseek2",
              sizes(4, 32, 64, 3, 3, 48, rope__freq_base=1000.0) | DEEPSEEK2 |
              {"attention.kv_lora_rank": 32, "attention.value_length": 32, "expert_count": 6, "expert_used_count": 3,
               "expert_shared_count": 2, "expert_weights_scale": 1.0, "rope.scaling.yarn_log_multiplier": 0.0707},
              deepseek2(32, 0, 0, 6, router=1.5), MLA_SWITCHES | {"weights do not add up to 1": off(route_norm=True)},
              overrides={"attention.q_lora_rank": 0}))  # it takes a file for one of the Lite by its number of layers
family(Family("deepseek2", "deepseek2",
              sizes(4, 32, 64, 3, 1, 48, rope__freq_base=1000.0) | DEEPSEEK2 |
              {"attention.q_lora_rank": 32, "attention.kv_lora_rank": 64, "attention.key_length": 64 + 16,
               "attention.value_length": 64, "attention.key_length_mla": 48, "attention.value_length_mla": 32,
               "expert_count": 9, "expert_used_count": 3, "expert_shared_count": 1, "expert_group_count": 3,
               "expert_group_used_count": 2, "expert_gating_func": 2, "expert_weights_norm": True,
               "expert_weights_scale": 2.5, "rope.scaling.yarn_log_multiplier": 0.1},
              deepseek2(64, 32, 0.15, 9, down=0.12, shared_down=0.6),
              MLA_SWITCHES | {"query's norm": off(["attn_q_a_norm"]), "sigmoid": off(gating=1), "groups": off(n_groups=1),
                              "bias of the choice": off(["exp_probs_b"]), "factor of the experts": off(route_scale=1.0),
                              "weights add up to 1": off(route_norm=False)}))


# --- recurrent


def decays(t, heads, *shape):
    """-exp(A_log) and the step's bias: heads that forget in a few tokens and in a hundred."""
    t._put("ssm_a", -np.exp(np.linspace(-4, 0.5, heads)).reshape(shape), True)
    t.vector("ssm_dt.bias", heads, mean=-0.5, spread=0.3)


def conv(t, channels, bias):
    t.matrix("ssm_conv1d", channels, 4, gain=1.6, exact=True)
    if bias:
        t.vector("ssm_conv1d.bias", channels, spread=0.3)


def delta_net(t, d, dim, n_k, n_v, one_ba):
    t.norm("attn_norm", d)
    t.matrix("attn_qkv", (2 * n_k + n_v) * dim, d)
    t.matrix("attn_gate", n_v * dim, d)
    conv(t, (2 * n_k + n_v) * dim, bias=False)
    decays(t, n_v, n_v)
    if one_ba:
        t.matrix("ssm_ba", 2 * n_v, d)
    else:
        t.matrix("ssm_beta", n_v, d)
        t.matrix("ssm_alpha", n_v, d)
    t.norm("ssm_norm", dim)
    t.matrix("ssm_out", d, n_v * dim, gain=0.15)


def hybrid(dim, n_k, n_v, n_experts, tied, one_ba=False, guesses=False, fused=False):
    """Six layers, every third with attention; `guesses`: and one that guesses the token after the next, which is not of
    the forward."""
    def build(t):
        ends(t, 32, tied=tied)
        for il in layers(t, 7 if guesses else 6):
            if il == 6:
                t.matrix("nextn.eh_proj", 32, 64)
                t.norm("nextn.enorm", 32)
                t.norm("nextn.hnorm", 32)
            if il % 3 == 2 or il == 6:
                qkv(t, 32, 3, 1, 32, qk_norm=1.2, gated=True)
            else:
                delta_net(t, 32, dim, n_k, n_v, one_ba)
            if n_experts:
                experts(t, 32, 32, n_experts, norm="post_attention_norm", down=0.12, shared=32, shared_down=0.25,
                        shared_gate=True, fused=fused)
            else:
                glu(t, 32, 64, norm="post_attention_norm", down=0.4)
    return build


def hybrid_meta(dim, n_k, n_v, **more):
    return sizes(6, 32, 64, 3, 1, 32, rope__freq_base=1000.0) | {
        "rope.dimension_count": 8, "full_attention_interval": 3, "ssm.conv_kernel": 4, "ssm.state_size": dim,
        "ssm.group_count": n_k, "ssm.time_step_rank": n_v, "ssm.inner_size": n_v * dim} | more


HYBRID_SWITCHES = {"convolution": off(conv=False), "decay": off(decay=False), "delta": off(delta=False),
                   "L2 norm": off(l2_norm=False), "gate of attention": off(attn_gate=False), "partial RoPE": off(n_rot=32),
                   "q and k norms": off(["attn_q_norm", "attn_k_norm"]), "norm of the output": off(["ssm_norm"])}
MOE_SWITCHES = {"weights add up to 1": off(route_norm=False), "shared expert's gate": off(shared_gate=False)}
HYBRID_MOE = {"expert_count": 4, "expert_used_count": 2, "expert_feed_forward_length": 32,
              "expert_shared_feed_forward_length": 32}
SECTIONS = {"rope.dimension_sections": [2, 1, 1, 0]}
family(Family("qwen3next", "qwen3next", hybrid_meta(16, 3, 6, **HYBRID_MOE),
              hybrid(16, 3, 6, 4, tied=True, one_ba=True),
              HYBRID_SWITCHES | MOE_SWITCHES | {"grouped heads": off(tiled=True)}))
family(Family("qwen35", "qwen35", hybrid_meta(32, 2, 6, **SECTIONS) | {"block_count": 7, "nextn_predict_layers": 1},
              hybrid(32, 2, 6, 0, tied=True, guesses=True),
              HYBRID_SWITCHES | {"tiled heads": off(tiled=False), "a layer that guesses": off(n_layers=7)}))
family(Family("qwen35moe", "qwen35moe", hybrid_meta(16, 3, 6, **SECTIONS, **HYBRID_MOE),
              hybrid(16, 3, 6, 4, tied=True, fused=True),
              HYBRID_SWITCHES | MOE_SWITCHES | {"tiled heads": off(tiled=False)}))


def mamba2(t):
    ends(t, 64, tied=True)
    for _ in layers(t, 4):
        t.norm("attn_norm", 64)
        t.matrix("ssm_in", 96 + 96 + 2 * 3 * 16 + 6, 64)
        conv(t, 96 + 2 * 3 * 16, bias=True)
        decays(t, 6, 6, 1)
        t.vector("ssm_d", 6, 1, mean=1.0)
        t.vector("ssm_norm.weight", 3, 32, mean=1.0)
        t.matrix("ssm_out", 64, 96, gain=0.2)


family(Family("mamba2", "mamba2",
              {k: v for k, v in sizes(4, 64, 0).items()} |
              {"attention.head_count": 0, "ssm.conv_kernel": 4, "ssm.inner_size": 96, "ssm.state_size": 16,
               "ssm.time_step_rank": 6, "ssm.group_count": 3}, mamba2,
              {"convolution": off(conv=False), "its bias": off(["ssm_conv1d.bias"]), "decay": off(decay=False),
               "D": off(["ssm_d$"]), "groups of the norm": off(norm_groups=1)}))

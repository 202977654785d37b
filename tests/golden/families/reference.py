"""The forward of every family in plain NumPy: what a GGUF file says, computed in the most obvious way.

    logits = Reference("qwen3.f16.gguf").logits(tokens)

Weights are dequantized; all arithmetic is in double.  Nothing is cached or fused, and a sequence is always read from
its first token.  A fact can be overridden (`facts`) or its tensors left out (`without`): that is how make.py shows
that a file's logits depend on it.
"""
import math

import gguf
import numpy as np


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def softplus(x):
    return np.logaddexp(0, x)


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def gate_oai(gate, up, limit=7.0, alpha=1.702):
    g, u = np.minimum(gate, limit), np.clip(up, -limit, limit)
    return g * sigmoid(alpha * g) * (u + 1)


GLU = {"silu": lambda g, u: silu(g) * u, "gelu": lambda g, u: gelu_tanh(g) * u, "oai": gate_oai,
       "oai unclamped": lambda g, u: gate_oai(g, u, math.inf)}

# What the file does not say: it goes by the family.
NEOX = {"qwen2", "qwen3", "qwen3moe", "gemma2", "gemma3", "phi3", "gpt-oss", "qwen3next", "qwen35", "qwen35moe"}
GEMMA = {"gemma2", "gemma3"}
FFN_NORM = {"gpt-oss": "post_attention_norm", "qwen3next": "post_attention_norm", "qwen35": "post_attention_norm",
            "qwen35moe": "post_attention_norm"}
SLIDING_PATTERN = {"gemma2": 2, "gemma3": 6, "gpt-oss": 2}  # every n-th layer is full
SOFTMAX, SIGMOID, SOFTMAX_OF_CHOSEN = 1, 2, 3
NORMALIZED_ROUTERS = {"llama", "qwen3moe", "qwen3next", "qwen35moe"}


class Reference:
    def __init__(self, path, context=512, facts=None, without=()):
        reader = gguf.GGUFReader(path)
        self.meta = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
        self.family = self.meta["general.architecture"]
        self.tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
                        for t in reader.tensors if not any(part in t.name + "$" for part in without)}
        self.context = context
        self.read_facts()
        for name, value in (facts or {}).items():
            assert hasattr(self, name), name
            setattr(self, name, value)

    # --- what the file says

    def key(self, name, default=None):
        return self.meta.get(f"{self.family}.{name}", default)

    def tensor(self, name, layer=None):
        return self.tensors.get(name if layer is None else f"blk.{layer}.{name}")

    def read_facts(self):
        family, key = self.family, self.key
        n_blocks, self.d = key("block_count"), key("embedding_length")
        self.n_layers = n_blocks - key("nextn_predict_layers", 0)  # the last ones guess tokens further on
        self.eps = key("attention.layer_norm_rms_epsilon")
        self.neox = family in NEOX
        self.glu = "gelu" if family in GEMMA else "oai" if family == "gpt-oss" else "silu"
        self.embed_scale = math.sqrt(self.d) if family in GEMMA else 1.0
        self.attn_cap, self.final_cap = key("attn_logit_softcapping", 0), key("final_logit_softcapping", 0)
        self.window = 0 if family == "phi3" else key("attention.sliding_window", 0)
        pattern = key("attention.sliding_window_pattern", SLIDING_PATTERN.get(family, 1))
        self.sliding = [pattern[i] if isinstance(pattern, list) else i % pattern < pattern - 1 for i in
                        range(n_blocks)]
        every = key("full_attention_interval", 4)
        self.recurrent = [family in ("qwen3next", "qwen35", "qwen35moe") and (i + 1) % every != 0 and
                          i < self.n_layers for i in range(n_blocks)]
        if family != "mamba2":
            self.read_attention_facts()
        self.read_router_facts()
        self.conv = self.decay = self.delta = self.l2_norm = self.attn_gate = True
        self.norm_groups = key("ssm.group_count", 1)
        self.tiled = family in ("qwen35", "qwen35moe")  # value head h reads key head h mod Hk, else h / (Hv / Hk)

    def read_attention_facts(self):
        key = self.key
        self.n_heads = key("attention.head_count")
        self.n_kv = key("attention.head_count_kv", self.n_heads)
        self.head_dim = key("attention.key_length_mla") or key("attention.key_length", self.d // self.n_heads)
        self.value_dim = key("attention.value_length_mla") or key("attention.value_length", self.head_dim)
        self.n_rot = key("rope.dimension_count", self.head_dim)
        self.scale = 1 / math.sqrt(self.head_dim)
        self.rope_base = key("rope.freq_base", 10000.0)
        self.rope_base_sliding = key("rope.freq_base_swa", 10000.0 if self.family == "gemma3" else self.rope_base)
        self.rope_type = key("rope.scaling.type", "linear")
        self.rope_factor = key("rope.scaling.factor", 1.0)
        self.rope_attn_factor = key("rope.scaling.attn_factor", 1.0)
        self.orig_context = key("rope.scaling.original_context_length", key("context_length"))
        self.yarn_log = key("rope.scaling.yarn_log_multiplier", 0) / 0.1
        if self.yarn_log:  # of deepseek2: cos and sin stay as they are, the scores grow
            self.scale *= (1 + 0.1 * self.yarn_log * math.log(self.rope_factor)) ** 2

    def read_router_facts(self):
        key, family = self.key, self.family
        self.n_experts, self.n_used = key("expert_count", 0), key("expert_used_count", 0)
        self.gating = SOFTMAX_OF_CHOSEN if family == "gpt-oss" else key("expert_gating_func", SOFTMAX)
        self.route_norm = family in NORMALIZED_ROUTERS or key("expert_weights_norm", False)
        self.route_scale = key("expert_weights_scale", 0) or 1.0
        self.n_groups, self.n_groups_used = key("expert_group_count", 1), key("expert_group_used_count", 1)
        self.shared_gate = True

    # --- blocks

    def norm(self, x, weight):
        y = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
        return y if weight is None else y * weight

    def linear(self, x, name, layer=None):
        y = x @ self.tensor(name + ".weight", layer).T
        bias = self.tensor(name + ".bias", layer)
        return y if bias is None else y + bias

    def rope_frequencies(self, sliding):
        """Radians per position of each pair, and what cos and sin are multiplied by."""
        base = self.rope_base_sliding if sliding else self.rope_base
        i = np.arange(self.n_rot // 2)
        freq = base ** (-2.0 * i / self.n_rot)
        factors = self.tensor("rope_freqs.weight")
        if factors is None:
            factors = self.tensor(f"rope_factors_{'long' if self.context > self.orig_context else 'short'}.weight")
        if factors is not None:
            freq = freq / factors
        if self.rope_type == "yarn":
            return self.yarn(freq, base, i)
        linear = self.rope_type == "linear" and not (sliding and self.family == "gemma3")
        return freq / (self.rope_factor if linear else 1.0), self.rope_attn_factor

    def yarn(self, freq, base, i):
        def turns_at(beta):  # the pair that makes `beta` turns within the original context
            return self.n_rot * math.log(self.orig_context / (beta * 2 * math.pi)) / (2 * math.log(base))
        low = max(0, math.floor(turns_at(self.key("rope.scaling.yarn_beta_fast", 32.0))))
        high = min(self.n_rot - 1, math.ceil(turns_at(self.key("rope.scaling.yarn_beta_slow", 1.0))))
        keep = 1 - np.clip((i - low) / max(0.001, high - low), 0, 1)
        magnitude = 1.0 if self.yarn_log else 1 + 0.1 * math.log(self.rope_factor)
        return freq * keep + freq / self.rope_factor * (1 - keep), magnitude * self.rope_attn_factor

    def rope(self, x, sliding=False):
        """x [token][head][dim]; turns the first n_rot dimensions."""
        if self.n_rot == 0:
            return x
        freq, magnitude = self.rope_frequencies(sliding)
        angle = np.arange(len(x))[:, None, None] * freq
        cos, sin = np.cos(angle) * magnitude, np.sin(angle) * magnitude
        half, y = self.n_rot // 2, x.copy()
        a, b = (np.arange(half), np.arange(half) + half) if self.neox else (np.arange(half) * 2, np.arange(half) * 2 + 1)
        y[..., a] = x[..., a] * cos - x[..., b] * sin
        y[..., b] = x[..., b] * cos + x[..., a] * sin
        return y

    def attend(self, q, k, v, window=0, sinks=None):
        """q [token][head][dim], k and v [token][kv head][dim] -> [token][head * value dim]."""
        n, n_heads = q.shape[:2]
        share = n_heads // k.shape[1]
        k, v = np.repeat(k, share, axis=1), np.repeat(v, share, axis=1)
        scores = np.einsum("qhd,khd->hqk", q, k) * self.scale
        if self.attn_cap:
            scores = self.attn_cap * np.tanh(scores / self.attn_cap)
        back = np.arange(n)[:, None] - np.arange(n)[None, :]  # how far back a key is
        seen = (back >= 0) & ((back < window) if window else True)
        scores = np.where(seen, scores, -np.inf)
        if sinks is not None:  # a score that takes its share and gives nothing
            scores = np.concatenate([scores, np.broadcast_to(sinks[:, None, None], (n_heads, n, 1))], axis=-1)
        p = softmax(scores)[:, :, :n]
        return np.einsum("hqk,khd->qhd", p, v).reshape(n, -1)

    # --- mixers

    def attention(self, x, il):
        n, dim = len(x), self.head_dim
        q_size, kv_size = self.n_heads * dim, self.n_kv * dim
        gate = None
        if self.tensor("attn_qkv.weight", il) is not None:
            q, k, v = np.split(self.linear(x, "attn_qkv", il), [q_size, q_size + kv_size], axis=1)
        else:
            q, k, v = (self.linear(x, "attn_" + which, il) for which in "qkv")
        if q.shape[1] == 2 * q_size:  # each head's query, then its gate
            q, gate = np.split(q.reshape(n, self.n_heads, 2 * dim), 2, axis=2)
        q, k, v = q.reshape(n, self.n_heads, dim), k.reshape(n, self.n_kv, dim), v.reshape(n, self.n_kv, dim)
        if (w := self.tensor("attn_q_norm.weight", il)) is not None:
            q = self.norm(q, w)
        if (w := self.tensor("attn_k_norm.weight", il)) is not None:
            k = self.norm(k, w)
        sliding = self.sliding[il]
        y = self.attend(self.rope(q, sliding), self.rope(k, sliding), v, self.window if sliding else 0,
                        self.tensor("attn_sinks.weight", il))
        if gate is not None and self.attn_gate:
            y = y * sigmoid(gate.reshape(n, -1))
        return self.linear(y, "attn_output", il)

    def latent_attention(self, x, il):
        """MLA, never absorbed: each head's key and value are unfolded from the latent vector."""
        n, heads, rot = len(x), self.n_heads, self.n_rot
        nope, rank = self.head_dim - rot, self.key("attention.kv_lora_rank")
        if self.tensor("attn_q.weight", il) is not None:
            q = self.linear(x, "attn_q", il)
        else:
            q = self.linear(self.norm(self.linear(x, "attn_q_a", il), self.tensor("attn_q_a_norm.weight", il)), "attn_q_b", il)
        q = q.reshape(n, heads, self.head_dim)
        c, k_rot = np.split(self.linear(x, "attn_kv_a_mqa", il), [rank], axis=1)
        c = self.norm(c, self.tensor("attn_kv_a_norm.weight", il))
        if self.tensor("attn_kv_b.weight", il) is not None:
            k, v = np.split(self.linear(c, "attn_kv_b", il).reshape(n, heads, nope + self.value_dim), [nope], axis=2)
        else:
            k = np.einsum("tc,hcd->thd", c, self.tensor("attn_k_b.weight", il))
            v = np.einsum("tc,hdc->thd", c, self.tensor("attn_v_b.weight", il))
        q = np.concatenate([q[..., :nope], self.rope(q[..., nope:])], axis=2)
        k_rot = self.rope(k_rot[:, None, :])
        k = np.concatenate([k, np.repeat(k_rot, heads, axis=1)], axis=2)
        return self.linear(self.attend(q, k, v), "attn_output", il)

    def causal_conv(self, x, il):
        """Each channel by itself over the last positions, then SiLU."""
        if not self.conv:
            return silu(x)
        w, bias = self.tensor("ssm_conv1d.weight", il), self.tensor("ssm_conv1d.bias", il)
        reach = w.shape[1]
        padded = np.concatenate([np.zeros((reach - 1, x.shape[1])), x])
        y = sum(padded[j:j + len(x)] * w[:, j] for j in range(reach))
        return silu(y if bias is None else y + bias)

    def delta_net(self, x, il):
        n, dim = len(x), self.key("ssm.state_size")
        n_k, n_v = self.key("ssm.group_count"), self.key("ssm.time_step_rank")
        qkv = self.causal_conv(self.linear(x, "attn_qkv", il), il)
        q, k, v = np.split(qkv, [n_k * dim, 2 * n_k * dim], axis=1)
        q, k, v = q.reshape(n, n_k, dim), k.reshape(n, n_k, dim), v.reshape(n, n_v, dim)
        if self.l2_norm:
            q, k = (a / np.sqrt((a * a).sum(axis=-1, keepdims=True) + self.eps) for a in (q, k))
        if self.tensor("ssm_ba.weight", il) is not None:  # of each key head: beta of its value heads, then alpha
            b, a = np.split(self.linear(x, "ssm_ba", il).reshape(n, n_k, 2 * n_v // n_k), 2, axis=2)
            b, a = b.reshape(n, n_v), a.reshape(n, n_v)
        else:
            b, a = self.linear(x, "ssm_beta", il), self.linear(x, "ssm_alpha", il)
        b = sigmoid(b)
        g = np.exp(softplus(a + self.tensor("ssm_dt.bias", il)) * self.tensor("ssm_a", il))
        if not self.decay:
            g = np.ones_like(g)
        key_head = [h % n_k if self.tiled else h // (n_v // n_k) for h in range(n_v)]
        state, out = np.zeros((n_v, dim, dim)), np.zeros((n, n_v, dim))  # state [head][value][key]
        for t in range(n):
            kt, qt = k[t, key_head], q[t, key_head] / math.sqrt(dim)
            state = state * g[t, :, None, None]
            told = np.einsum("hvk,hk->hv", state, kt) if self.delta else 0
            state = state + np.einsum("hv,hk->hvk", b[t, :, None] * (v[t] - told), kt)
            out[t] = np.einsum("hvk,hk->hv", state, qt)
        z = self.linear(x, "attn_gate", il).reshape(n, n_v, dim)
        y = self.norm(out, self.tensor("ssm_norm.weight", il)) * silu(z)
        return self.linear(y.reshape(n, -1), "ssm_out", il)

    def mamba2(self, x, il):
        n, inner, size = len(x), self.key("ssm.inner_size"), self.key("ssm.state_size")
        heads, groups = self.key("ssm.time_step_rank"), self.key("ssm.group_count")
        z, xbc, dt = np.split(self.linear(x, "ssm_in", il), [inner, 2 * inner + 2 * groups * size], axis=1)
        u, b, c = np.split(self.causal_conv(xbc, il), [inner, inner + groups * size], axis=1)
        u = u.reshape(n, heads, inner // heads)
        b, c = (np.repeat(a.reshape(n, groups, size), heads // groups, axis=1) for a in (b, c))
        dt = softplus(dt + self.tensor("ssm_dt.bias", il))
        a, skip = self.tensor("ssm_a", il).reshape(heads), self.tensor("ssm_d", il)
        state, y = np.zeros((heads, inner // heads, size)), np.zeros_like(u)
        for t in range(n):
            keep = np.exp(dt[t] * a) if self.decay else np.ones(heads)
            state = state * keep[:, None, None] + np.einsum("hp,hn->hpn", dt[t, :, None] * u[t], b[t])
            y[t] = np.einsum("hpn,hn->hp", state, c[t])
        if skip is not None:
            y = y + u * skip.reshape(heads, 1)
        y = (y.reshape(n, inner) * silu(z)).reshape(n, self.norm_groups, -1)
        y = self.norm(y, self.tensor("ssm_norm.weight", il).reshape(self.norm_groups, -1))
        return self.linear(y.reshape(n, -1), "ssm_out", il)

    # --- channels

    def feed_forward(self, x, il):
        up = self.linear(x, "ffn_up", il)
        if self.tensor("ffn_gate.weight", il) is None:
            gate, up = np.split(up, 2, axis=1)
        else:
            gate = self.linear(x, "ffn_gate", il)
        return self.linear(GLU[self.glu](gate, up), "ffn_down", il)

    def route(self, x, il):
        """Of each token: its experts and their weights."""
        logits = self.linear(x, "ffn_gate_inp", il)
        p = softmax(logits) if self.gating == SOFTMAX else sigmoid(logits) if self.gating == SIGMOID else logits
        score, bias = p, self.tensor("exp_probs_b.bias", il)
        if bias is not None:
            score = score + bias
        if self.n_groups > 1:
            by_group = score.reshape(len(x), self.n_groups, -1)
            best_two = np.sort(by_group, axis=2)[:, :, -2:].sum(axis=2)
            dropped = np.argsort(-best_two, axis=1, kind="stable")[:, self.n_groups_used:]
            np.put_along_axis(by_group := by_group.copy(), dropped[:, :, None], -np.inf, axis=1)
            score = by_group.reshape(len(x), -1)
        chosen = np.argsort(-score, axis=1, kind="stable")[:, :self.n_used]
        w = np.take_along_axis(p, chosen, axis=1)
        if self.gating == SOFTMAX_OF_CHOSEN:
            w = softmax(w)
        if self.route_norm:
            w = w / np.maximum(w.sum(axis=1, keepdims=True), 6.103515625e-5)
        return chosen, w * self.route_scale

    def experts(self, x, il):
        chosen, weights = self.route(x, il)
        out = np.zeros_like(x)
        stacks = {name: (self.tensor(f"ffn_{name}_exps.weight", il), self.tensor(f"ffn_{name}_exps.bias", il))
                  for name in ("gate", "up", "down")}
        if (both := self.tensor("ffn_gate_up_exps.weight", il)) is not None:
            stacks |= {name: (half, None) for name, half in zip(("gate", "up"), np.split(both, 2, axis=1))}

        def apply(name, e, h):
            w, b = stacks[name]
            return w[e] @ h + (0 if b is None else b[e])

        for t, h in enumerate(x):
            for e, w in zip(chosen[t], weights[t]):
                out[t] += w * apply("down", e, GLU[self.glu](apply("gate", e, h), apply("up", e, h)))
        if self.tensor("ffn_up_shexp.weight", il) is not None:
            out = out + self.shared_expert(x, il)
        return out

    def shared_expert(self, x, il):
        y = self.linear(silu(self.linear(x, "ffn_gate_shexp", il)) * self.linear(x, "ffn_up_shexp", il), "ffn_down_shexp", il)
        gate = self.tensor("ffn_gate_inp_shexp.weight", il)
        return y if gate is None or not self.shared_gate else y * sigmoid(x @ gate.reshape(-1, 1))

    # --- the whole

    def mixer(self, x, il):
        if self.family == "mamba2":
            return self.mamba2(x, il)
        if self.recurrent[il]:
            return self.delta_net(x, il)
        return self.latent_attention(x, il) if self.family == "deepseek2" else self.attention(x, il)

    def channel(self, x, il):
        return self.experts(x, il) if self.tensor("ffn_gate_inp.weight", il) is not None else self.feed_forward(x, il)

    def after(self, y, name, il):
        """The norm of a branch's output, of Gemma."""
        w = self.tensor(name + ".weight", il)
        return y if w is None or self.family not in GEMMA else self.norm(y, w)

    def layer(self, x, il):
        x = x + self.after(self.mixer(self.norm(x, self.tensor("attn_norm.weight", il)), il), "post_attention_norm", il)
        if self.family == "mamba2":
            return x
        w = self.tensor(FFN_NORM.get(self.family, "ffn_norm") + ".weight", il)
        return x + self.after(self.channel(self.norm(x, w), il), "post_ffw_norm", il)

    def hidden(self, tokens):
        """The hidden states before each layer, and after the last: what to compare an engine with, layer by layer."""
        states = [self.tensor("token_embd.weight")[tokens] * self.embed_scale]
        for il in range(self.n_layers):
            states.append(self.layer(states[-1], il))
        return states

    def logits(self, tokens):
        x = self.norm(self.hidden(tokens)[-1], self.tensor("output_norm.weight"))
        head = self.tensor("output.weight")
        y = x @ (self.tensor("token_embd.weight") if head is None else head).T
        return self.final_cap * np.tanh(y / self.final_cap) if self.final_cap else y

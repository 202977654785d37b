"""The same models as Hugging Face's `transformers` has them, in float32: who knows the families from another source.

A twin is a configuration of the family's class and the file's weights under that class's names, turned back from
GGUF's order of rows where a converter turns them.
"""
import numpy as np
import torch
import transformers as hf


def half_split(w, heads):
    """Rows of q and k in GGUF's `llama` are pairs (2i, 2i + 1); transformers has (i, i + half)."""
    return w.reshape(heads, -1, 2, w.shape[-1]).swapaxes(1, 2).reshape(w.shape)


class Twin:
    """Takes tensors away from a file's, one by one; nothing may be left."""

    def __init__(self, ref):
        self.ref, self.meta = ref, ref.key
        self.left = {k: v.astype(np.float32) for k, v in ref.tensors.items()}
        self.state = {}

    def take(self, name, layer=None):
        return self.left.pop(name if layer is None else f"blk.{layer}.{name}", None)

    def put(self, name, value):
        if value is not None:
            self.state[name] = torch.from_numpy(np.ascontiguousarray(value))

    def ends(self, minus=0.0):
        self.put("model.embed_tokens.weight", self.take("token_embd.weight"))
        self.put("model.norm.weight", self.take("output_norm.weight") - np.float32(minus))
        head = self.take("output.weight")
        self.put("lm_head.weight", self.state["model.embed_tokens.weight"].numpy() if head is None else head)

    def layer(self, il, names, minus=()):
        """names: part of transformers' -> GGUF's; `minus`: norms that are stored as w - 1 there."""
        for theirs, ours in names.items():
            for kind in ("weight", "bias"):
                w = self.take(f"{ours}.{kind}", il)
                if w is not None and ours in minus:
                    w = w - np.float32(1)
                self.put(f"model.layers.{il}.{theirs}.{kind}", w)

    def common(self):
        ref, key = self.ref, self.meta
        return dict(vocab_size=key("vocab_size"), hidden_size=ref.d, intermediate_size=key("feed_forward_length"),
                    num_hidden_layers=ref.n_layers, num_attention_heads=1, num_key_value_heads=ref.n_kv,
                    head_dim=ref.head_dim, rms_norm_eps=ref.eps, max_position_embeddings=key("context_length"),
                    tie_word_embeddings="output.weight" not in self.left, attn_implementation="eager",
                    bos_token_id=0, eos_token_id=1, pad_token_id=None)

    def logits(self, cls, config, tokens):
        assert not self.left, f"not in the twin: {sorted(self.left)}"
        config.num_attention_heads = self.ref.n_heads  # not before: the check that they divide the width is not needed
        with torch.no_grad():
            model = cls(config).eval().float()
            missing, unexpected = model.load_state_dict(self.state, strict=False)
            assert not unexpected and all("inv_freq" in m for m in missing), (missing, unexpected)
            return model(torch.tensor([tokens]), use_cache=False).logits[0].numpy().astype(np.float64)


ATTENTION = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output"}
QK_NORMS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
MLP = {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}


def rope(t):
    """rope_parameters of one table."""
    ref = t.ref
    p = {"rope_theta": ref.rope_base, "rope_type": "default"}
    long, short = t.take("rope_factors_long.weight"), t.take("rope_factors_short.weight")
    freqs = t.take("rope_freqs.weight")
    if freqs is not None:  # Llama 3's: in transformers a rule, in GGUF its outcome; any table is LongRoPE with factor 1
        p |= {"rope_type": "longrope", "long_factor": freqs.tolist(), "short_factor": freqs.tolist(),
              "attention_factor": 1.0, "factor": 1.0, "original_max_position_embeddings": ref.orig_context}
    if long is not None:  # transformers chooses by the length of the text, GGUF's users by the context
        chosen = (long if ref.context > ref.orig_context else short).tolist()
        p |= {"rope_type": "longrope", "long_factor": chosen, "short_factor": chosen, "factor": 1.0,
              "attention_factor": ref.rope_attn_factor, "original_max_position_embeddings": ref.orig_context}
    if ref.rope_type == "yarn":
        p |= {"rope_type": "yarn", "factor": ref.rope_factor, "original_max_position_embeddings": ref.orig_context}
    return p


def llama(ref, tokens):
    t = Twin(ref)
    config = hf.LlamaConfig(**t.common(), rope_parameters=rope(t))
    for il in range(ref.n_layers):
        t.layer(il, ATTENTION | MLP | NORMS)
        for which, heads in (("q", ref.n_heads), ("k", ref.n_kv)):
            name = f"model.layers.{il}.self_attn.{which}_proj.weight"
            t.put(name, half_split(t.state[name].numpy(), heads))
    t.ends()
    return t.logits(hf.LlamaForCausalLM, config, tokens)


def qwen(config_cls, cls):
    def run(ref, tokens):
        t = Twin(ref)
        config = config_cls(**t.common(), rope_parameters=rope(t))
        for il in range(ref.n_layers):
            t.layer(il, ATTENTION | QK_NORMS | MLP | NORMS)
        t.ends()
        return t.logits(cls, config, tokens)
    return run


GEMMA_NORMS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
               "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}


def gemma(config_cls, cls):
    def run(ref, tokens):
        t = Twin(ref)
        kinds = ["sliding_attention" if s else "full_attention" for s in ref.sliding]
        tables = rope(t)
        if ref.family == "gemma3":
            tables = {"sliding_attention": {"rope_type": "default", "rope_theta": ref.rope_base_sliding},
                      "full_attention": {"rope_type": "linear", "factor": ref.rope_factor, "rope_theta": ref.rope_base}}
        config = config_cls(**t.common(), rope_parameters=tables, layer_types=kinds, sliding_window=ref.window,
                            query_pre_attn_scalar=ref.head_dim, attn_logit_softcapping=ref.attn_cap or None,
                            final_logit_softcapping=ref.final_cap or None)
        norms = GEMMA_NORMS | (QK_NORMS if ref.family == "gemma3" else {})
        for il in range(ref.n_layers):
            t.layer(il, ATTENTION | MLP | norms, minus=norms.values())
        t.ends(minus=1)
        return t.logits(cls, config, tokens)
    return run


def phi3(ref, tokens):
    t = Twin(ref)
    tables = rope(t) | {"partial_rotary_factor": ref.n_rot / ref.head_dim}
    common = {k: v for k, v in t.common().items() if k != "head_dim"} | {"num_attention_heads": ref.n_heads}
    config = hf.Phi3Config(**common, rope_parameters=tables,
                           original_max_position_embeddings=ref.orig_context)
    for il in range(ref.n_layers):
        t.layer(il, NORMS | {"self_attn.qkv_proj": "attn_qkv", "self_attn.o_proj": "attn_output",
                             "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down"})
    t.ends()
    return t.logits(hf.Phi3ForCausalLM, config, tokens)


TWINS = {"llama": llama, "qwen2": qwen(hf.Qwen2Config, hf.Qwen2ForCausalLM),
         "qwen3": qwen(hf.Qwen3Config, hf.Qwen3ForCausalLM),
         "gemma2": gemma(hf.Gemma2Config, hf.Gemma2ForCausalLM),
         "gemma3": gemma(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM), "phi3": phi3}

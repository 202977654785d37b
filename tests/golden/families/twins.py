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
        guesses = tuple(f"blk.{i}." for i in range(ref.n_layers, self.meta("block_count")))
        self.left = {k: v.astype(np.float32) for k, v in ref.tensors.items() if not k.startswith(guesses)}
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

    def to_halves(self, il):
        for which, heads in (("q", self.ref.n_heads), ("k", self.ref.n_kv)):
            name = f"model.layers.{il}.self_attn.{which}_proj.weight"
            self.put(name, half_split(self.state[name].numpy(), heads))

    def common(self):
        ref, key = self.ref, self.meta
        return dict(vocab_size=key("vocab_size"), hidden_size=ref.d, intermediate_size=key("feed_forward_length"),
                    num_hidden_layers=ref.n_layers, num_attention_heads=1, num_key_value_heads=ref.n_kv,
                    head_dim=ref.head_dim, rms_norm_eps=ref.eps, max_position_embeddings=key("context_length"),
                    tie_word_embeddings="output.weight" not in self.left, attn_implementation="eager",
                    bos_token_id=0, eos_token_id=1, pad_token_id=None)

    def logits(self, cls, config, tokens):
        assert not self.left, f"not in the twin: {sorted(self.left)}"
        if self.ref.family != "mamba2":
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
        t.to_halves(il)
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


def moe(t, il, router="mlp.gate"):
    """The experts' stacks: gate over up in one."""
    both, gate = t.take("ffn_gate_up_exps.weight", il), t.take("ffn_gate_exps.weight", il)
    if both is None and gate is None:
        return t.layer(il, MLP)
    if both is None:
        both = np.concatenate([gate, t.take("ffn_up_exps.weight", il)], axis=1)
    t.put(f"model.layers.{il}.mlp.experts.gate_up_proj", both)
    t.put(f"model.layers.{il}.mlp.experts.down_proj", t.take("ffn_down_exps.weight", il))
    t.layer(il, {router: "ffn_gate_inp"})


def mixtral(ref, tokens):
    t = Twin(ref)
    config = hf.MixtralConfig(**t.common(), rope_parameters=rope(t), num_local_experts=ref.n_experts,
                              num_experts_per_tok=ref.n_used, sliding_window=None)
    for il in range(ref.n_layers):
        t.layer(il, ATTENTION | NORMS)
        t.to_halves(il)
        moe(t, il)
    t.ends()
    return t.logits(hf.MixtralForCausalLM, config, tokens)


def qwen3moe(ref, tokens):
    t = Twin(ref)
    config = hf.Qwen3MoeConfig(**t.common(), rope_parameters=rope(t), num_experts=ref.n_experts,
                               num_experts_per_tok=ref.n_used, norm_topk_prob=True,
                               moe_intermediate_size=t.meta("expert_feed_forward_length"))
    for il in range(ref.n_layers):
        t.layer(il, ATTENTION | QK_NORMS | NORMS)
        moe(t, il)
    t.ends()
    return t.logits(hf.Qwen3MoeForCausalLM, config, tokens)


def gpt_oss(ref, tokens):
    t = Twin(ref)
    kinds = ["sliding_attention" if s else "full_attention" for s in ref.sliding]
    config = hf.GptOssConfig(**t.common(), rope_parameters=rope(t) | {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True},
                             layer_types=kinds, sliding_window=ref.window, num_local_experts=ref.n_experts,
                             num_experts_per_tok=ref.n_used)
    for il in range(ref.n_layers):
        t.layer(il, ATTENTION | {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm",
                                 "mlp.router": "ffn_gate_inp"})
        t.put(f"model.layers.{il}.self_attn.sinks", t.take("attn_sinks.weight", il))
        at = f"model.layers.{il}.mlp.experts."
        for kind, theirs in (("weight", ""), ("bias", "_bias")):  # gate and up alternate
            pair = np.stack([t.take(f"ffn_gate_exps.{kind}", il), t.take(f"ffn_up_exps.{kind}", il)], axis=2)
            pair = pair.reshape(pair.shape[0], -1, *pair.shape[3:])
            down = t.take(f"ffn_down_exps.{kind}", il)
            t.put(at + "gate_up_proj" + theirs, pair if kind == "bias" else pair.swapaxes(1, 2))
            t.put(at + "down_proj" + theirs, down if kind == "bias" else down.swapaxes(1, 2))
    t.ends()
    return t.logits(hf.GptOssForCausalLM, config, tokens)


MLA = {"self_attn.q_proj": "attn_q", "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm",
       "self_attn.q_b_proj": "attn_q_b", "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
       "self_attn.kv_a_layernorm": "attn_kv_a_norm", "self_attn.kv_b_proj": "attn_kv_b", "self_attn.o_proj": "attn_output"}
SHARED = {"mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp",
          "mlp.shared_experts.down_proj": "ffn_down_shexp"}


def deepseek2(ref, tokens):
    t = Twin(ref)
    v3 = ref.n_groups > 1
    config_cls, cls = (hf.DeepseekV3Config, hf.DeepseekV3ForCausalLM) if v3 else (hf.DeepseekV2Config, hf.DeepseekV2ForCausalLM)
    tables = rope(t) | {"mscale": ref.yarn_log, "mscale_all_dim": ref.yarn_log}
    common = {k: v for k, v in t.common().items() if k not in ("head_dim", "num_key_value_heads")}
    more = {"n_group": ref.n_groups, "topk_group": ref.n_groups_used, "norm_topk_prob": ref.route_norm} if v3 else {}
    config = config_cls(**common, **more, rope_parameters=tables, num_key_value_heads=ref.n_heads,
                        q_lora_rank=t.meta("attention.q_lora_rank"), kv_lora_rank=t.meta("attention.kv_lora_rank"),
                        qk_rope_head_dim=ref.n_rot, qk_nope_head_dim=ref.head_dim - ref.n_rot, v_head_dim=ref.value_dim,
                        n_routed_experts=ref.n_experts, num_experts_per_tok=ref.n_used, routed_scaling_factor=ref.route_scale,
                        n_shared_experts=t.meta("expert_shared_count"), moe_intermediate_size=t.meta("expert_feed_forward_length"),
                        first_k_dense_replace=t.meta("leading_dense_block_count"))
    for il in range(ref.n_layers):
        t.layer(il, MLA | NORMS | SHARED)
        if (k_b := t.take("attn_k_b.weight", il)) is not None:
            kv_b = np.concatenate([k_b.swapaxes(1, 2), t.take("attn_v_b.weight", il)], axis=1)
            t.put(f"model.layers.{il}.self_attn.kv_b_proj.weight", kv_b.reshape(-1, kv_b.shape[2]))
        t.put(f"model.layers.{il}.mlp.gate.e_score_correction_bias", t.take("exp_probs_b.bias", il))
        moe(t, il)
    t.ends()
    return t.logits(cls, config, tokens)


def hybrid(config_cls, cls):
    """Gated DeltaNet with attention every few layers."""
    def run(ref, tokens):
        t, key = Twin(ref), ref.key
        n_k, n_v, dim = key("ssm.group_count"), key("ssm.time_step_rank"), key("ssm.state_size")

        def by_key_head(w, each=1):
            """GGUF's value heads in the order of their key heads, `each` rows a head."""
            return w.reshape(n_v // n_k, n_k, each, -1).swapaxes(0, 1).reshape(w.shape) if ref.tiled else w

        config = config_cls(
            **t.common(), rope_parameters=rope(t) | {"partial_rotary_factor": ref.n_rot / ref.head_dim},
            layer_types=["linear_attention" if r else "full_attention" for r in ref.recurrent[:ref.n_layers]],
            linear_num_key_heads=n_k, linear_num_value_heads=n_v, linear_key_head_dim=dim, linear_value_head_dim=dim,
            linear_conv_kernel_dim=key("ssm.conv_kernel"), num_experts=ref.n_experts, num_experts_per_tok=ref.n_used,
            norm_topk_prob=True, moe_intermediate_size=key("expert_feed_forward_length"),
            shared_expert_intermediate_size=key("expert_shared_feed_forward_length"))
        for il in range(ref.n_layers):
            norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm"} | QK_NORMS
            t.layer(il, ATTENTION | norms, minus=norms.values())
            moe(t, il)
            t.layer(il, {k.replace("shared_experts", "shared_expert"): v for k, v in SHARED.items()})
            gate = t.take("ffn_gate_inp_shexp.weight", il)
            t.put(f"model.layers.{il}.mlp.shared_expert_gate.weight", None if gate is None else gate[None, :])
            if ref.recurrent[il]:
                delta_net(t, il, by_key_head, n_k, n_v, dim)
        t.ends(minus=1)
        return t.logits(cls, config, tokens)
    return run


def delta_net(t, il, by_key_head, n_k, n_v, dim):
    at, split = f"model.layers.{il}.linear_attn.", [n_k * dim, 2 * n_k * dim]
    q, k, v = np.split(t.take("attn_qkv.weight", il), split)
    v, z = by_key_head(v, dim), by_key_head(t.take("attn_gate.weight", il), dim)
    if (ba := t.take("ssm_ba.weight", il)) is not None:
        def heads(w):
            return w.reshape(n_k, -1, w.shape[1])
        qkvz = np.concatenate([heads(q), heads(k), heads(v), heads(z)], axis=1)
        t.put(at + "in_proj_qkvz.weight", qkvz.reshape(-1, qkvz.shape[2]))
        t.put(at + "in_proj_ba.weight", ba)
    else:
        t.put(at + "in_proj_qkv.weight", np.concatenate([q, k, v]))
        t.put(at + "in_proj_z.weight", z)
        t.put(at + "in_proj_b.weight", by_key_head(t.take("ssm_beta.weight", il)))
        t.put(at + "in_proj_a.weight", by_key_head(t.take("ssm_alpha.weight", il)))
    cq, ck, cv = np.split(t.take("ssm_conv1d.weight", il), split)
    t.put(at + "conv1d.weight", np.concatenate([cq, ck, by_key_head(cv, dim)])[:, None, :])
    t.put(at + "A_log", by_key_head(np.log(-t.take("ssm_a", il))))
    t.put(at + "dt_bias", by_key_head(t.take("ssm_dt.bias", il)))
    t.put(at + "norm.weight", t.take("ssm_norm.weight", il))
    t.put(at + "out_proj.weight", by_key_head(t.take("ssm_out.weight", il).T, dim).T)


def mamba2(ref, tokens):
    t, key = Twin(ref), ref.key
    heads = key("ssm.time_step_rank")
    config = hf.Mamba2Config(vocab_size=key("vocab_size"), hidden_size=ref.d, num_hidden_layers=ref.n_layers,
                             num_heads=2 * ref.d // 16, head_dim=16, state_size=key("ssm.state_size"),
                             n_groups=key("ssm.group_count"), conv_kernel=key("ssm.conv_kernel"),
                             layer_norm_epsilon=ref.eps, tie_word_embeddings=True, pad_token_id=None)
    config.num_heads, config.head_dim = heads, key("ssm.inner_size") // heads
    config.__dict__["expand"] = key("ssm.inner_size") / ref.d  # its type is int, without need
    for il in range(ref.n_layers):
        at = f"backbone.layers.{il}."
        t.put(at + "norm.weight", t.take("attn_norm.weight", il))
        for theirs, ours in (("in_proj.weight", "ssm_in.weight"), ("out_proj.weight", "ssm_out.weight"),
                             ("conv1d.bias", "ssm_conv1d.bias"), ("dt_bias", "ssm_dt.bias")):
            t.put(at + "mixer." + theirs, t.take(ours, il))
        t.put(at + "mixer.conv1d.weight", t.take("ssm_conv1d.weight", il)[:, None, :])
        t.put(at + "mixer.A_log", np.log(-t.take("ssm_a", il)).reshape(heads))
        t.put(at + "mixer.D", t.take("ssm_d", il).reshape(heads))
        t.put(at + "mixer.norm.weight", t.take("ssm_norm.weight", il).reshape(-1))
    embedding = t.take("token_embd.weight")
    t.put("backbone.embeddings.weight", embedding)
    t.put("lm_head.weight", embedding)
    t.put("backbone.norm_f.weight", t.take("output_norm.weight"))
    return t.logits(hf.Mamba2ForCausalLM, config, tokens)


TWINS = {"llama": llama, "mixtral": mixtral, "qwen3moe": qwen3moe, "gpt-oss": gpt_oss, "deepseek2": deepseek2,
         "qwen3next": hybrid(hf.Qwen3NextConfig, hf.Qwen3NextForCausalLM),
         "qwen35": hybrid(hf.Qwen3_5TextConfig, hf.Qwen3_5ForCausalLM),
         "qwen35moe": hybrid(hf.Qwen3_5MoeTextConfig, hf.Qwen3_5MoeForCausalLM), "mamba2": mamba2, "qwen2": qwen(hf.Qwen2Config, hf.Qwen2ForCausalLM),
         "qwen3": qwen(hf.Qwen3Config, hf.Qwen3ForCausalLM),
         "gemma2": gemma(hf.Gemma2Config, hf.Gemma2ForCausalLM),
         "gemma3": gemma(hf.Gemma3TextConfig, hf.Gemma3ForCausalLM), "phi3": phi3}

/* cuda_backend.cu - the CUDA backend's life, and the table of all ops. */
#include "compute/cuda/cuda_backend.h"
#include "compute/cuda/cuda_internal.h"

static void cuda_close(struct backend *backend)
{
    struct cuda_backend *b = cuda_of(backend);
    cuda_enter(backend);
    cudaDeviceSynchronize();
    cuda_pick_fini(b);
    cuda_graphs_drop(b);
    cuda_step_fini(b);
    cuda_rope_fini(b);
    cuda_attention_fini(b);
    cuda_stream_fini(backend, &b->main);
    cuda_weights_fini(b);
    mem_free(b);
}

static const char *cuda_describe(const struct backend *b)
{
    return ((const struct cuda_backend *)b)->name;
}

static struct backend_ops ops_table(void)
{
    struct backend_ops o = {};
    o.name = "cuda";
    o.close = cuda_close;
    o.describe = cuda_describe;
    o.alloc = cuda_alloc;
    o.release = cuda_release;
    o.upload = cuda_upload;
    o.download = cuda_download;
    o.copy = cuda_copy;
    o.memory = cuda_memory;
    o.stream_open = cuda_stream_open;
    o.stream_close = cuda_stream_close;
    o.failed = cuda_failed;
    o.sync = cuda_sync;
    o.mark_record = cuda_mark_record;
    o.mark_wait = cuda_mark_wait;
    o.mark_done = cuda_mark_done;

    o.weight_bytes = cuda_weight_bytes;
    o.weight_pack = cuda_weight_pack;
    o.matmul = cuda_matmul;
    o.expert_matmul = cuda_expert_matmul;

    o.host_alloc = cuda_host_alloc;
    o.host_free = cuda_host_free;
    o.replay = cuda_replay;
    o.recorded = cuda_recorded;
    o.step_begin = cuda_step_begin;
    o.embed = cuda_embed;
    o.gather_rows = cuda_gather_rows;
    o.act_bytes = cuda_act_bytes;
    o.quantize = cuda_quantize;
    o.rmsnorm = cuda_rmsnorm;
    o.glu = cuda_glu;
    o.gate_act = cuda_gate_act;
    o.add_bias = cuda_add_bias;
    o.head_norm = cuda_head_norm;
    o.norm_add = cuda_norm_add;
    o.scale = cuda_scale;
    o.softcap = cuda_softcap;

    o.route = cuda_route;
    o.expert_bias = cuda_expert_bias;
    o.expert_sum = cuda_expert_sum;

    o.state_slot_bytes = cuda_state_slot_bytes;
    o.state_copy = cuda_state_copy;
    o.state_pack = cuda_state_pack;
    o.state_unpack = cuda_state_unpack;
    o.conv_step = cuda_conv_step;
    o.delta_rule = cuda_delta_rule;
    o.mamba2_scan = cuda_mamba2_scan;
    o.norm_gate = cuda_norm_gate;

    o.pick = cuda_pick;
    o.weigh = cuda_weigh;

    o.rope = cuda_rope;
    o.kv_write = cuda_kv_write;
    o.rope_kv_write = cuda_rope_kv_write;
    o.kv_slice_bytes = cuda_kv_slice_bytes;
    o.kv_pack = cuda_kv_pack;
    o.kv_unpack = cuda_kv_unpack;
    o.attention = cuda_attention;

    o.latent_write = cuda_latent_write;
    o.attention_latent = cuda_attention_latent;
    return o;
}

enum status cuda_backend_open(struct backend **out, const struct backend_options *opt, struct error *err)
{
    static const struct backend_ops ops = ops_table();
    struct cuda_backend *b = (struct cuda_backend *)mem_zalloc(sizeof(*b));
    b->base.ops = &ops;
    b->base.caps = backend_caps{ false, opt->numerics == NUMERICS_EXACT, 16, 16, cuda_embed_types() };
    b->limits = opt->limits;
    enum status st = cuda_device_open(b, opt, err);
    if (st != OK) {
        mem_free(b);
        return st;
    }
    if ((st = cuda_stream_init(&b->base, &b->main)) != OK || (st = cuda_step_init(b)) != OK ||
        (st = cuda_pick_init(b)) != OK) {
        error_set(err, st, "cuda backend: GPU %d (%s) has no memory for a step's tables", b->device, b->name);
        cuda_close(&b->base);
        return st;
    }
    if ((st = cuda_weights_init(b)) != OK) {
        error_set(err, st, "cuda backend: GPU %d (%s) has no memory for the tables of weights", b->device, b->name);
        cuda_close(&b->base);
        return st;
    }
    *out = &b->base;
    return OK;
}

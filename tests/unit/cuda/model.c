/* model: the whole forward on the CUDA backend gives the CPU's bits, logits and cache, for every family. */
#include "model/model.h"
#include "helpers/cuda_check.h"
#include "store/kv_store.h"

#include <stdio.h>

#define FOLDER   TEST_DATA "/golden/families/"
#define ROWS     128
#define N_TOKENS 81 /* a block and a ragged rest */
#define N_BLOCKS 4

static const char *const FAMILIES[] = { "llama",     "llama-yarn", "llama-longrope", "qwen2",     "qwen3",
                                        "gemma2",    "gemma3",     "phi3",           "mixtral",   "qwen3moe",
                                        "gpt-oss",   "deepseek2",  "deepseek2-lite", "qwen3next", "qwen35",
                                        "qwen35moe", "mamba2" };
#define N_FAMILIES (sizeof(FAMILIES) / sizeof(FAMILIES[0]))

struct rig {
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    uint32_t n_vocab;
};

static struct rig rig_of(const char *backend, const char *path, enum kv_format format, enum weights_mode weights)
{
    struct rig r = { 0 };
    struct model_info info;
    struct error err = { 0 };
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    const struct backend_options opt = { .n_threads = 1, .limits = model_limits(&info, ROWS, 256) };
    cr_assert_eq(backend_open(&r.backend, backend, &opt, &err), OK, "%s", err.text);
    const struct model_options mo = { .path = path,
                                      .backend = r.backend,
                                      .kv_format = format,
                                      .rotate = "auto",
                                      .max_batch_tokens = ROWS,
                                      .max_context = 256,
                                      .weights = weights,
                                      .weights_fd = -1 };
    cr_assert_eq(model_open(&r.model, &mo, &err), OK, "%s: %s", path, err.text);
    cr_assert_eq(model_kv_create(&r.kv, r.model, N_BLOCKS, &err), OK, "%s", err.text);
    if (model_state_bytes(r.model)) cr_assert_eq(model_states_create(r.kv, r.model, 2, &err), OK, "%s", err.text);
    r.n_vocab = model_info(r.model)->n_vocab;
    return r;
}

static void rig_free(struct rig *r)
{
    kv_store_destroy(r->kv);
    model_close(r->model);
    backend_close(r->backend);
}

/* Logits of all positions into `out`: `first` tokens, then `chunk` at a time; beside each chunk a row of another
 * sequence. */
static void read_all(struct rig *r, uint32_t first, uint32_t chunk, float *out)
{
    static const uint32_t blocks[2][2] = { { 3, 1 }, { 0, 2 } };
    int32_t tokens[ROWS];
    uint32_t beside = 0, n;
    for (uint32_t pos = 0; pos < N_TOKENS; pos += n, beside++) {
        n = pos == 0 ? first : chunk;
        if (n > N_TOKENS - pos) n = N_TOKENS - pos;
        for (uint32_t i = 0; i < n; i++) tokens[i] = (int32_t)(((pos + i) * 37 + 5) % r->n_vocab);
        tokens[n] = (int32_t)((beside * 11 + 3) % r->n_vocab);
        const struct batch_seq seqs[2] = {
            { .n_rows = n, .pos0 = pos, .blocks = blocks[0], .n_blocks = 2, .n_logits = n, .state = 1 },
            { .row0 = n, .n_rows = 1, .pos0 = beside, .blocks = blocks[1], .n_blocks = 2 },
        };
        const struct batch b = { n + 1, tokens, seqs, 2 };
        cr_assert_eq(model_forward(r->model, &b, r->kv, NULL, NULL), OK);
        for (uint32_t at = 0; at < n; at += MODEL_MAX_LOGIT_ROWS) {
            const uint32_t k = n - at < MODEL_MAX_LOGIT_ROWS ? n - at : MODEL_MAX_LOGIT_ROWS;
            float *logits;
            cr_assert_eq(model_logits(r->model, at, k, &logits), OK);
            memcpy(out + (size_t)(pos + at) * r->n_vocab, logits, (size_t)k * r->n_vocab * sizeof(float));
        }
    }
}

/* A head's K or V of block `block`, in the wire's order; returns its bytes. */
static size_t pack(const struct rig *r, uint32_t layer, uint32_t head, bool is_v, uint32_t block, uint8_t *wire)
{
    const struct kv_geometry *g = &r->kv->layers[layer].geom;
    const uint32_t t1 = block == 3 ? KV_BLOCK_TOKENS : N_TOKENS - KV_BLOCK_TOKENS;
    const struct kv_piece p = {
        .layer = layer, .head = head, .block = block, .t1 = t1, .scales = t1 * kv_value_bytes(g, is_v), .is_v = is_v
    };
    cr_assert_eq(r->backend->ops->kv_pack(r->backend, NULL, r->kv->layers, &p, 1, wire), OK);
    return t1 * (kv_value_bytes(g, is_v) + (size_t)kv_scale_bytes(g, is_v));
}

/* The first sequence's cache, both blocks of it, all layers and heads. */
static void check_cache(const struct rig *cpu, const struct rig *gpu, const char *what)
{
    static uint8_t want[1 << 16], got[1 << 16];
    for (uint32_t l = 0; l < cpu->kv->n_layers; l++)
        for (uint32_t h = 0; h < cpu->kv->layers[l].geom.n_kv_heads; h++)
            for (uint32_t k = 0; k < 4; k++) {
                const uint32_t block = k < 2 ? 3 : 1;
                const size_t n = pack(cpu, l, h, k % 2, block, want);
                cr_assert_leq(n, sizeof(want));
                cr_assert_eq(pack(gpu, l, h, k % 2, block, got), n);
                cr_assert_arr_eq(got, want, n, "%s: cache of layer %u head %u %s", what, l, h, k % 2 ? "V" : "K");
            }
}

static void check_states(const struct rig *cpu, const struct rig *gpu, const char *what)
{
    static uint8_t want[1 << 18], got[1 << 18];
    for (uint32_t l = 0; cpu->kv->states && l < cpu->kv->n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const struct state_slices *a = &cpu->kv->states->layers[l].parts[p],
                                      *b = &gpu->kv->states->layers[l].parts[p];
            const uint32_t heads = a->geom.n_heads;
            const size_t n = heads * state_wire_bytes(&a->geom);
            if (heads == 0) continue;
            cr_assert_leq(n, sizeof(want));
            cr_assert_eq(cpu->backend->ops->state_pack(cpu->backend, NULL, a, 1, 0, heads, want), OK);
            cr_assert_eq(gpu->backend->ops->state_pack(gpu->backend, NULL, b, 1, 0, heads, got), OK);
            cr_assert_arr_eq(got, want, n, "%s: state %d of layer %u", what, p, l);
        }
}

/* Prompt at once, in chunks, and with tokens one by one behind it: the same logits, which are the CPU's. */
static void check_file(const char *path, enum kv_format format, enum weights_mode weights)
{
    static const struct {
        uint32_t first, chunk;
    } WAYS[] = { { N_TOKENS, N_TOKENS }, { 33, 33 }, { N_TOKENS - 9, 1 } };
    struct rig cpu = rig_of("cpu", path, format, WEIGHTS_RESIDENT);
    const size_t n = (size_t)N_TOKENS * cpu.n_vocab;
    float *want = mem_array(n, sizeof(float)), *got = mem_array(n, sizeof(float));
    read_all(&cpu, 33, 33, want);
    for (size_t i = 0; i < sizeof(WAYS) / sizeof(WAYS[0]); i++) {
        struct rig gpu = rig_of("cuda", path, format, weights);
        char what[300];
        snprintf(what, sizeof(what), "%s %s by %u", path, format == KV_F16 ? "f16" : "int8", WAYS[i].chunk);
        read_all(&gpu, WAYS[i].first, WAYS[i].chunk, got);
        check_same_floats(want, got, n, what);
        check_cache(&cpu, &gpu, what);
        check_states(&cpu, &gpu, what);
        rig_free(&gpu);
    }
    rig_free(&cpu);
    mem_free(want);
    mem_free(got);
}

static void check_families(size_t from, size_t to, const char *kind, enum kv_format format)
{
    for (size_t i = from; i < to && i < N_FAMILIES; i++) {
        char path[256];
        snprintf(path, sizeof(path), FOLDER "%s.%s.gguf", FAMILIES[i], kind);
        check_file(path, format, WEIGHTS_RESIDENT);
    }
}

Test(model, dense_families_have_the_cpus_bits)
{
    check_families(0, 8, "q", KV_INT8);
}

Test(model, families_with_experts_latents_and_states_have_the_cpus_bits)
{
    check_families(8, N_FAMILIES, "q", KV_INT8);
}

Test(model, float_weights_and_f16_caches_have_the_cpus_bits)
{
    check_families(0, 1, "f16", KV_F16);
    check_families(4, 5, "f16", KV_INT8);
    check_families(11, 12, "f16", KV_F16);
}

Test(model, streamed_weights_have_the_cpus_bits)
{
    check_file(FOLDER "llama.q.gguf", KV_INT8, WEIGHTS_STREAM);
    check_file(FOLDER "qwen3moe.q.gguf", KV_INT8, WEIGHTS_STREAM);
}

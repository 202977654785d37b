/* bits: the logits of today, bit by bit.  A change that is not meant to change numbers changes none of them.
 *
 * tests/golden/bits.json holds, for each case, the tokens of a greedy continuation and a hash of every row of logits on
 * the way there.  After a change that means to change them, BATON_WRITE_BITS=1 writes the file anew; its commit says
 * why. */
#include "base/mem.h"
#include "compute/dtype.h"
#include "helpers/tiny_model.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <xxhash.h>

#define GOLDEN   TEST_DATA "/golden/bits.json"
#define CHUNK    96
#define N_PROMPT 150 /* two blocks and a part of one, cut elsewhere by the chunks */
#define N_NEW    10
#define BLOCKS   4
#define CONTEXT  256

struct one {
    const char *name;
    enum kv_format kv;
    uint32_t type, v_type;
    const char *arch;
    bool tied, bias, rope_freqs;
};

static const struct one CASES[] = {
    { "f32", KV_INT8, DTYPE_F32, DTYPE_F32, "llama", false, false, false },
    { "f32 over f16 KV", KV_F16, DTYPE_F32, DTYPE_F32, "llama", false, false, false },
    { "f16, tied", KV_INT8, DTYPE_F16, DTYPE_F16, "llama", true, false, false },
    { "bf16, rope_freqs", KV_INT8, DTYPE_BF16, DTYPE_BF16, "llama", false, false, true },
    { "q8_0, qwen2", KV_INT8, DTYPE_Q8_0, DTYPE_Q8_0, "qwen2", false, true, false },
    { "q4_0", KV_INT8, DTYPE_Q4_0, DTYPE_Q4_0, "llama", false, false, false },
    { "q4_1 over f16 KV", KV_F16, DTYPE_Q4_1, DTYPE_Q4_1, "llama", false, false, false },
    { "q5_0", KV_INT8, DTYPE_Q5_0, DTYPE_Q5_0, "llama", false, false, false },
    { "q5_1", KV_INT8, DTYPE_Q5_1, DTYPE_Q5_1, "llama", false, false, false },
    { "q2_k", KV_INT8, DTYPE_Q2_K, DTYPE_Q3_K, "llama", false, false, false },
    { "q4_k with q6_k, qwen2", KV_INT8, DTYPE_Q4_K, DTYPE_Q6_K, "qwen2", true, true, false },
    { "q5_k", KV_INT8, DTYPE_Q5_K, DTYPE_Q5_K, "llama", false, false, false },
    { "iq4_nl", KV_INT8, DTYPE_IQ4_NL, DTYPE_IQ4_NL, "llama", false, false, false },
    { "iq4_xs", KV_INT8, DTYPE_IQ4_XS, DTYPE_IQ4_XS, "llama", false, false, false },
    { "iq3_s", KV_INT8, DTYPE_IQ3_S, DTYPE_IQ2_XXS, "llama", false, false, false },
    { "mxfp4", KV_INT8, DTYPE_MXFP4, DTYPE_MXFP4, "llama", false, false, false },
};

struct got {
    int32_t tokens[N_NEW];
    char logits[17];
};

static uint32_t best_of(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* The rows' logits into the hash; the last row's best token. */
static int32_t step(struct model *m, const struct kv_store *kv, const int32_t *tokens, uint32_t pos, uint32_t rows,
                    XXH3_state_t *hash)
{
    static const uint32_t blocks[BLOCKS] = { 2, 0, 3, 1 };
    struct batch_seq seq = { 0, rows, pos, blocks, BLOCKS, .n_logits = rows };
    struct batch b = { rows, tokens + pos, &seq, 1 };
    uint32_t n_vocab = model_info(m)->n_vocab, best = 0;
    cr_assert_eq(model_forward(m, &b, kv, NULL, NULL), OK);
    for (uint32_t r = 0; r < rows; r++) {
        float *logits;
        cr_assert_eq(model_logits(m, r, 1, &logits), OK);
        XXH3_64bits_update(hash, logits, n_vocab * sizeof(*logits));
        best = best_of(logits, n_vocab);
    }
    return (int32_t)best;
}

static struct got run(const char *path, enum kv_format format)
{
    int32_t tokens[N_PROMPT + N_NEW];
    struct model_info info;
    struct backend *be;
    struct model *m;
    struct kv_store *kv;
    struct error err;
    struct got g;
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    struct backend_limits lim = model_limits(&info, CHUNK, CONTEXT);
    cr_assert_eq(backend_open(&be, "cpu", &(struct backend_options){ .n_threads = 2, .limits = lim }, &err), OK, "%s",
                 err.text);
    struct model_options opt = { .path = path,
                                 .backend = be,
                                 .kv_format = format,
                                 .rotate = "auto",
                                 .max_batch_tokens = CHUNK,
                                 .max_context = CONTEXT,
                                 .weights_fd = -1 };
    cr_assert_eq(model_open(&m, &opt, &err), OK, "%s", err.text);
    cr_assert_eq(model_kv_create(&kv, m, BLOCKS, &err), OK, "%s", err.text);
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    for (uint32_t i = 0; i < N_PROMPT; i++)
        tokens[i] = (int32_t)((i * 37 + i * i * 11 + 5) % (info.n_vocab < 30000 ? info.n_vocab : 30000));
    step(m, kv, tokens, 0, CHUNK, hash);
    int32_t next = step(m, kv, tokens, CHUNK, N_PROMPT - CHUNK, hash);
    for (uint32_t i = 0; i < N_NEW; i++) {
        g.tokens[i] = tokens[N_PROMPT + i] = next;
        next = step(m, kv, tokens, N_PROMPT + i, 1, hash);
    }
    snprintf(g.logits, sizeof(g.logits), "%016" PRIx64, (uint64_t)XXH3_64bits_digest(hash));
    XXH3_freeState(hash);
    kv_store_destroy(kv);
    model_close(m);
    backend_close(be);
    return g;
}

static struct got run_case(const struct one *c)
{
    struct tiny_options o = tiny_defaults();
    o.arch = c->arch;
    o.d_model = 256;
    o.d_ff = 512;
    o.type = c->type;
    o.v_type = c->v_type;
    o.tied = c->tied;
    o.bias = c->bias;
    o.rope_freqs = c->rope_freqs;
    char *path = tiny_write(&o);
    struct got g = run(path, c->kv);
    tiny_remove(path);
    return g;
}

/* Compares with what the file says, or (BATON_WRITE_BITS) says it to the file. */
static void check(json_t *golden, const char *name, const struct got *g)
{
    json_t *tokens = json_array();
    for (uint32_t i = 0; i < N_NEW; i++) json_array_append_new(tokens, json_integer(g->tokens[i]));
    json_t *now = json_pack("{s:o, s:s}", "tokens", tokens, "logits", g->logits), *want = json_object_get(golden, name);
    if (getenv("BATON_WRITE_BITS")) {
        json_object_set_new(golden, name, now);
        return;
    }
    cr_expect(want && json_equal(want, now), "%s: logits %s, today's are %s", name, g->logits,
              want ? json_string_value(json_object_get(want, "logits")) : "not there");
    json_decref(now);
}

static json_t *load(void)
{
    json_t *golden = json_load_file(GOLDEN, 0, NULL);
    if (!golden && getenv("BATON_WRITE_BITS")) golden = json_object();
    cr_assert_not_null(golden, "%s is not there", GOLDEN);
    return golden;
}

static void end(json_t *golden)
{
    if (getenv("BATON_WRITE_BITS")) cr_assert_eq(json_dump_file(golden, GOLDEN, JSON_INDENT(1)), 0);
    json_decref(golden);
}

Test(bits, of_tiny_models)
{
    json_t *golden = load();
    for (size_t i = 0; i < sizeof(CASES) / sizeof(*CASES); i++) {
        struct got g = run_case(&CASES[i]);
        check(golden, CASES[i].name, &g);
    }
    end(golden);
}

Test(bits, of_a_real_model)
{
    const char *dir = getenv("BATON_TEST_MODELS");
    char path[512];
    snprintf(path, sizeof(path), "%s/SmolLM2-135M-Instruct.Q4_1.gguf", dir ? dir : TEST_DATA "/../models");
    if (access(path, R_OK) != 0) cr_skip_test("%s is not there", path);
    json_t *golden = load();
    struct got g = run(path, KV_INT8);
    check(golden, "SmolLM2", &g);
    g = run(path, KV_F16);
    check(golden, "SmolLM2 over f16 KV", &g);
    end(golden);
}

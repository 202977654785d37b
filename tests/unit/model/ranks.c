/* ranks: a model on several ranks gives the bits of one, caches what one caches, and fails as a whole. */
#include "parallel/ranks.h"

#include "base/mem.h"
#include "compute/dtype.h"
#include "helpers/cache_hash.h"
#include "helpers/deferred_backend.h"
#include "helpers/tiny_model.h"
#include "helpers/tiny_recurrent.h"
#include "model/model.h"
#include "parallel/mesh.h"
#include "store/kv_map.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#define CHUNK    48
#define N_PROMPT 75 /* a block and a part of one */
#define N_NEW    4
#define N_TOKENS (N_PROMPT + N_NEW)
#define BLOCKS   3
#define CONTEXT  192
#define SLOT     1 /* of recurrent states */

struct rig {
    struct ranks *ranks;
    struct backend *own[12]; /* joined ones */
    struct model *model;
    struct kv_store *kv;
    struct kv_map *map;
    uint32_t n_ranks;
    bool never_waits; /* between forwards */
};

static const kv_block_id block_ids[BLOCKS] = { 2, 0, 1 };

static struct model_options options_of(const struct rig *r, const char *path, enum kv_format format)
{
    return (struct model_options){ .path = path,
                                   .ranks = r->ranks,
                                   .kv_format = format,
                                   .rotate = "auto",
                                   .max_batch_tokens = CHUNK,
                                   .max_context = CONTEXT,
                                   .weights_fd = -1 };
}

static struct backend_options backend_options_of(const char *path, uint32_t n_threads)
{
    struct model_info info;
    struct error err;
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    return (struct backend_options){ .n_threads = n_threads, .limits = model_limits(&info, CHUNK, CONTEXT) };
}

static void open_kv(struct rig *r)
{
    struct kv_store *stores[64];
    struct error err;
    cr_assert_eq(model_kv_create(&r->kv, r->model, BLOCKS, &err), OK, "%s", err.text);
    if (model_state_bytes(r->model) > 0)
        cr_assert_eq(model_states_create(r->kv, r->model, SLOT + 1, &err), OK, "%s", err.text);
    uint32_t n = 0;
    for (struct kv_store *s = r->kv; s; s = s->next) stores[n++] = s;
    cr_assert_eq(n, r->n_ranks);
    cr_assert_eq(kv_map_create(&r->map, model_mesh(r->model), stores, &err), OK, "%s", err.text);
}

static struct rig rig_open(const char *path, uint32_t tp, uint32_t pp, enum kv_format format, enum weights_mode mode)
{
    const struct backend_options bo = backend_options_of(path, tp);
    struct rig r = { .n_ranks = tp * pp };
    struct error err;
    cr_assert_eq(ranks_open(&r.ranks, tp, pp, "cpu", &bo, &err), OK, "%s", err.text);
    struct model_options opt = options_of(&r, path, format);
    opt.weights = mode;
    cr_assert_eq(model_open(&r.model, &opt, &err), OK, "%s", err.text);
    open_kv(&r);
    return r;
}

static void rig_close(struct rig *r)
{
    kv_map_destroy(r->map);
    kv_store_destroy(r->kv);
    model_close(r->model);
    ranks_close(r->ranks);
    for (uint32_t i = 0; i < r->n_ranks && r->own[0]; i++) backend_close(r->own[i]);
}

/* --- a prompt in two chunks and a few tokens --- */

static int32_t token_at(uint32_t i)
{
    return (int32_t)((i * 37 + i * i * 11 + 5) % 160);
}

static enum status try_step(struct rig *r, uint32_t pos, uint32_t n, model_layer_fn on_layer, void *ctx)
{
    int32_t tokens[CHUNK];
    for (uint32_t i = 0; i < n; i++) tokens[i] = token_at(pos + i);
    const struct batch_seq seq = { 0, n, pos, block_ids, BLOCKS, .n_logits = n, .state = SLOT };
    const struct batch b = { n, tokens, &seq, 1 };
    enum status st = model_forward(r->model, &b, r->kv, on_layer, ctx);
    const enum status done = r->never_waits ? OK : model_wait(r->model);
    return st == OK ? done : st;
}

static void hash_logits(struct rig *r, uint32_t n, XXH3_state_t *hash)
{
    const uint32_t n_vocab = model_info(r->model)->n_vocab;
    for (uint32_t i = 0; i < n; i += 7) { /* slices of another size than one */
        float *logits;
        const uint32_t rows = n - i < 7 ? n - i : 7;
        cr_assert_eq(model_logits(r->model, i, rows, &logits), OK);
        XXH3_64bits_update(hash, logits, (size_t)rows * n_vocab * sizeof(float));
    }
}

struct got {
    uint64_t logits, cache;
};

static struct got run(struct rig *r)
{
    XXH3_state_t *hash = XXH3_createState();
    XXH3_64bits_reset(hash);
    for (uint32_t pos = 0; pos < N_TOKENS;) {
        const uint32_t left = pos < N_PROMPT ? N_PROMPT - pos : 1, n = left < CHUNK ? left : CHUNK;
        cr_assert_eq(try_step(r, pos, n, NULL, NULL), OK);
        if (pos > 0) hash_logits(r, n, hash);
        pos += n;
    }
    const struct got g = { XXH3_64bits_digest(hash), cache_hash(r->map, block_ids, N_TOKENS, SLOT) };
    XXH3_freeState(hash);
    return g;
}

static const struct one {
    const char *name;
    enum kv_format kv;
    const char *arch;
    uint32_t n_layers, d_model, n_heads, n_kv_heads, d_ff, type, v_type;
    bool tied, bias;
    uint32_t odd_kv_heads;
} CASES[] = {
    { "nine heads over three", KV_INT8, "llama", 4, 288, 9, 3, 224, DTYPE_Q4_0, DTYPE_Q8_0, false, false },
    { "f16 cache, biases", KV_F16, "qwen2", 3, 128, 8, 2, 96, DTYPE_BF16, DTYPE_F16, true, true },
    { "fewer rows than ranks", KV_INT8, "llama", 3, 48, 3, 1, 32, DTYPE_F32, DTYPE_F32, false, false },
    { "super-blocks", KV_INT8, "qwen2", 3, 256, 8, 8, 256, DTYPE_Q4_K, DTYPE_Q6_K, true, true },
    { "one kv head", KV_INT8, "llama", 3, 160, 10, 1, 160, DTYPE_Q8_0, DTYPE_Q5_1, false, false },
    { "layers of two and of eight kv heads", KV_INT8, "llama", 4, 128, 8, 2, 96, DTYPE_Q8_0, DTYPE_Q8_0, true, false,
      8 },
};

static char *write_case(const struct one *c)
{
    struct tiny_options o = tiny_defaults();
    o.arch = c->arch;
    o.n_layers = c->n_layers;
    o.d_model = c->d_model;
    o.n_heads = c->n_heads;
    o.n_kv_heads = c->n_kv_heads;
    o.odd_kv_heads = c->odd_kv_heads;
    o.d_ff = c->d_ff;
    o.type = c->type;
    o.v_type = c->v_type;
    o.tied = c->tied;
    o.bias = o.out_bias = c->bias;
    return tiny_write(&o);
}

static void expect_any_shape(const char *name, const char *path, enum kv_format kv, uint32_t most)
{
    static const uint32_t tps[] = { 1, 2, 3, 4, 8 };
    struct got want = { 0 };
    for (size_t t = 0; t < sizeof(tps) / sizeof(tps[0]) && tps[t] <= most; t++)
        for (uint32_t pp = 1; pp <= 3; pp++) {
            struct rig r = rig_open(path, tps[t], pp, kv, WEIGHTS_RESIDENT);
            const struct got g = run(&r);
            if (r.n_ranks == 1) want = g;
            cr_expect_eq(g.logits, want.logits, "%s: logits of tp %u pp %u", name, tps[t], pp);
            cr_expect_eq(g.cache, want.cache, "%s: cache of tp %u pp %u", name, tps[t], pp);
            rig_close(&r);
        }
}

Test(ranks, any_shape_gives_the_bits_and_the_cache_of_one)
{
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        char *path = write_case(&CASES[i]);
        expect_any_shape(CASES[i].name, path, CASES[i].kv, CASES[i].n_heads);
        tiny_remove(path);
    }
}

static const struct {
    const char *name;
    struct tiny_recurrent model;
} RECURRENT[] = {
    { "v heads side by side", { "qwen3next", 16, 9, 18, 0, 9, 3, DTYPE_Q8_0 } },
    { "tiled v heads", { "qwen35", 32, 8, 24, 0, 8, 2, DTYPE_Q4_0 } },
    { "a v head per key head", { "qwen35", 16, 10, 10, 0, 8, 8, DTYPE_F32 } },
    { "one group of all heads", { "mamba2", 48, 1, 12, 32, .type = DTYPE_Q8_0 } },
    { "groups cut apart", { "mamba2", 32, 3, 9, 48, .type = DTYPE_Q5_1 } },
    { "groups of one head", { "mamba2", 48, 8, 8, 16, .type = DTYPE_BF16 } },
};

Test(ranks, any_shape_gives_the_bits_and_the_states_of_one)
{
    for (size_t i = 0; i < sizeof(RECURRENT) / sizeof(RECURRENT[0]); i++) {
        char *path = tiny_recurrent_write(&RECURRENT[i].model);
        expect_any_shape(RECURRENT[i].name, path, KV_INT8, 8);
        tiny_remove(path);
    }
}

static void expect_streamed(const char *path)
{
    struct rig one = rig_open(path, 1, 1, KV_INT8, WEIGHTS_RESIDENT), r = rig_open(path, 2, 2, KV_INT8, WEIGHTS_STREAM);
    const struct got want = run(&one), g = run(&r);
    cr_assert(model_is_streamed(r.model));
    cr_assert(g.logits == want.logits && g.cache == want.cache);
    rig_close(&one);
    rig_close(&r);
}

/* Backends that do nothing until they are waited for. */
static void expect_put_off(const char *path)
{
    const struct backend_options bo = backend_options_of(path, 1);
    struct rig one = rig_open(path, 1, 1, KV_INT8, WEIGHTS_RESIDENT), r = { .n_ranks = 6, .never_waits = true };
    struct error err;
    for (uint32_t i = 0; i < r.n_ranks; i++) {
        cr_assert_eq(backend_open(&r.own[i], "cpu", &bo, &err), OK, "%s", err.text);
        r.own[i] = deferred_backend_create(r.own[i]);
    }
    cr_assert_eq(ranks_join(&r.ranks, 3, 2, r.own, &err), OK, "%s", err.text);
    const struct model_options opt = options_of(&r, path, KV_INT8);
    cr_assert_eq(model_open(&r.model, &opt, &err), OK, "%s", err.text);
    open_kv(&r);
    const struct got want = run(&one), g = run(&r);
    cr_assert(g.logits == want.logits && g.cache == want.cache);
    rig_close(&one);
    rig_close(&r);
}

/* One of attention, one of each recurrence. */
static void with_each_mixer(void (*expect)(const char *path))
{
    char *paths[] = { write_case(&CASES[0]), tiny_recurrent_write(&RECURRENT[1].model),
                      tiny_recurrent_write(&RECURRENT[4].model) };
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        expect(paths[i]);
        tiny_remove(paths[i]);
    }
}

Test(ranks, streamed_weights_are_streamed_by_each)
{
    with_each_mixer(expect_streamed);
}

Test(ranks, what_is_put_off_is_done_before_others_read_it)
{
    with_each_mixer(expect_put_off);
}

/* --- what is told of layers --- */

struct told {
    struct rig *rig;
    uint32_t next;
    _Atomic uint32_t inside;
    uint64_t hashes[MODEL_MAX_LAYERS];
};

static uint64_t hash_layer(const struct rig *r, uint32_t layer)
{
    const struct kv_range range = { layer, layer + 1, 0, kv_map_geometry(r->map, layer).n_kv_heads, 0, CHUNK, NULL };
    uint8_t wire[2 * 9 * CHUNK * (32 + 4)];
    cr_assert_eq(kv_map_pack(r->map, &range, block_ids, wire), OK);
    return XXH3_64bits(wire, 2 * 3 * CHUNK * (32 + 4));
}

static void on_layer(void *ctx, uint32_t layer, const struct mark *written)
{
    struct told *t = ctx;
    cr_assert_eq(atomic_fetch_add(&t->inside, 1), 0, "one at a time");
    cr_assert_eq(layer, t->next);
    cr_assert_eq(mark_wait(written), OK);
    t->hashes[t->next++] = hash_layer(t->rig, layer);
    atomic_fetch_sub(&t->inside, 1);
}

Test(ranks, a_layer_that_is_told_of_is_written_on_all_ranks)
{
    static const uint32_t shapes[][2] = { { 1, 1 }, { 4, 1 }, { 1, 3 }, { 3, 2 } };
    char *path = write_case(&CASES[0]);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct rig r = rig_open(path, shapes[i][0], shapes[i][1], KV_INT8, WEIGHTS_RESIDENT);
        struct told t = { .rig = &r };
        cr_assert_eq(try_step(&r, 0, CHUNK, on_layer, &t), OK);
        cr_assert_eq(t.next, CASES[0].n_layers);
        for (uint32_t l = 0; l < t.next; l++)
            cr_assert_eq(t.hashes[l], hash_layer(&r, l), "layer %u of tp %u pp %u", l, shapes[i][0], shapes[i][1]);
        rig_close(&r);
    }
    tiny_remove(path);
}

/* --- a rank that fails --- */

static uint32_t n_good; /* products of the rank below that still work */
static enum status (*true_matmul)(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                                  const struct act *x, bool accumulate);

static enum status failing_matmul(struct backend *b, struct stream *s, float *y, size_t ld, const struct weight *w,
                                  const struct act *x, bool accumulate)
{
    if (n_good == 0) return ERR_NO_MEMORY;
    n_good--;
    return true_matmul(b, s, y, ld, w, x, accumulate);
}

Test(ranks, one_that_fails_ends_the_step_on_all)
{
    char *path = write_case(&CASES[0]);
    struct rig r = rig_open(path, 3, 2, KV_INT8, WEIGHTS_RESIDENT);
    const struct got want = run(&r);
    for (uint32_t bad = 0; bad < r.n_ranks; bad++) {
        struct backend *b = ranks_backend(r.ranks, bad);
        const struct backend_ops *good = b->ops;
        struct backend_ops broken = *good;
        true_matmul = good->matmul;
        broken.matmul = failing_matmul;
        for (uint32_t n = 0; n < 10; n += 3) {
            n_good = n;
            b->ops = &broken;
            cr_assert_eq(try_step(&r, 0, CHUNK, NULL, NULL), ERR_NO_MEMORY, "rank %u, product %u", bad, n);
            b->ops = good;
        }
        const struct got again = run(&r);
        cr_assert(again.logits == want.logits && again.cache == want.cache, "after rank %u", bad);
    }
    rig_close(&r);
    tiny_remove(path);
}

/* --- what does not go --- */

static void expect_refused(const char *path, uint32_t tp, uint32_t pp, int weights_fd, enum status want,
                           const char *says)
{
    const struct backend_options bo = backend_options_of(path, 1);
    struct rig r = { .n_ranks = tp * pp };
    struct error err;
    cr_assert_eq(ranks_open(&r.ranks, tp, pp, "cpu", &bo, &err), OK, "%s", err.text);
    struct model_options opt = options_of(&r, path, KV_INT8);
    opt.weights_fd = weights_fd;
    cr_assert_eq(model_open(&r.model, &opt, &err), want);
    cr_assert(strstr(err.text, says), "\"%s\" is not in: %s", says, err.text);
    ranks_close(r.ranks);
}

Test(ranks, refuses_shapes_that_do_not_fit)
{
    struct tiny_options o = tiny_defaults();
    struct ranks *r = NULL;
    struct error err = { 0 };
    char *path = tiny_write(&o);
    expect_refused(path, 5, 1, -1, ERR_INVALID, "tp is 5, but a layer has only 4 heads");
    expect_refused(path, 1, 3, -1, ERR_INVALID, "pp is 3, but the model has only 2 layers");
    expect_refused(path, 2, 1, 0, ERR_UNSUPPORTED, "packed for one rank, this model has 2");
    const struct backend_options bo = backend_options_of(path, 1);
    cr_assert_eq(ranks_open(&r, 0, 1, "cpu", &bo, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "tp is 0"), "%s", err.text);
    cr_assert_eq(ranks_open(&r, 1, RANKS_MAX_PP + 1, "cpu", &bo, &err), ERR_INVALID);
    cr_assert_eq(ranks_open(&r, 2, 1, "abacus", &bo, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "rank ") && strstr(err.text, "abacus"), "%s", err.text);
    tiny_remove(path);
}

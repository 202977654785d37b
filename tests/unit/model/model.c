/* model: opens good files, refuses bad ones by name, and computes the same however a prompt is cut. */
#include "model/model.h"

#include "base/mem.h"
#include "helpers/memfd.h"
#include "helpers/tiny_model.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS 256

struct rig {
    char *path;
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    struct error err;
};

static struct backend *backend_for(const char *path, uint32_t threads)
{
    struct model_info info;
    struct error err = { 0 };
    struct backend *be = NULL;
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    struct backend_limits lim = model_limits(&info, ROWS, info.context_length);
    cr_assert_eq(backend_open(&be, "cpu", &(struct backend_options){ .n_threads = threads, .limits = lim }, &err), OK,
                 "%s", err.text);
    return be;
}

static struct model_options options_for(const struct rig *r)
{
    return (struct model_options){ .path = r->path,
                                   .backend = r->backend,
                                   .kv_format = KV_INT8,
                                   .rotate = "auto",
                                   .max_batch_tokens = ROWS,
                                   .weights_fd = -1 };
}

static struct rig rig_of(const struct tiny_options *o)
{
    struct rig r = { .path = tiny_write(o) };
    r.backend = backend_for(r.path, 2);
    struct model_options opt = options_for(&r);
    cr_assert_eq(model_open(&r.model, &opt, &r.err), OK, "%s", r.err.text);
    cr_assert_eq(model_kv_create(&r.kv, r.model, 32, &r.err), OK, "%s", r.err.text);
    return r;
}

static void rig_free(struct rig *r)
{
    kv_store_destroy(r->kv);
    model_close(r->model);
    backend_close(r->backend);
    tiny_remove(r->path);
}

static void token_run(int32_t *tokens, uint32_t n, uint32_t n_vocab)
{
    for (uint32_t i = 0; i < n; i++) tokens[i] = (int32_t)((i * 37u + i * i * 11u + 5u) % n_vocab);
}

/* The last row's logits after feeding tokens in pieces of `step`. */
static float *logits_after(struct rig *r, const int32_t *tokens, uint32_t n, uint32_t step, uint32_t first_block)
{
    uint32_t blocks[16], n_vocab = model_info(r->model)->n_vocab;
    float *out, *copy = mem_array(n_vocab, sizeof(float));
    for (uint32_t i = 0; i < 16; i++) blocks[i] = (first_block + 5 * i) % 32;
    for (uint32_t pos = 0; pos < n;) {
        uint32_t rows = n - pos < step ? n - pos : step;
        struct batch_seq seq = { 0, rows, pos, blocks, 16, .n_logits = 1 };
        struct batch b = { rows, tokens + pos, &seq, 1 };
        cr_assert_eq(model_forward(r->model, &b, r->kv, NULL, NULL), OK);
        pos += rows;
        if (pos < n) continue;
        cr_assert_eq(model_logits(r->model, 0, 1, &out), OK);
        memcpy(copy, out, n_vocab * sizeof(float));
    }
    return copy;
}

Test(model, gives_the_same_logits_however_a_prompt_is_cut)
{
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    struct rig r = rig_of(&o);
    int32_t tokens[200];
    size_t bytes = o.n_vocab * sizeof(float);
    token_run(tokens, 200, o.n_vocab);
    float *whole = logits_after(&r, tokens, 200, 200, 0);
    const uint32_t steps[] = { 1, 64, 128, 7 };
    for (int i = 0; i < 4; i++) {
        float *cut = logits_after(&r, tokens, 200, steps[i], 3);
        cr_assert_eq(memcmp(whole, cut, bytes), 0, "pieces of %u tokens", steps[i]);
        mem_free(cut);
    }
    for (uint32_t i = 0; i < o.n_vocab; i++) cr_assert(isfinite(whole[i]));
    mem_free(whole);
    rig_free(&r);
}

Test(model, sequences_in_one_batch_do_not_touch_each_other)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    int32_t tokens[100], both[170];
    token_run(tokens, 100, o.n_vocab);
    float *a = logits_after(&r, tokens, 100, 100, 0), *b = logits_after(&r, tokens, 70, 70, 1);
    uint32_t blocks_a[2] = { 20, 21 }, blocks_b[2] = { 9, 8 };
    memcpy(both, tokens, 70 * sizeof(*both));
    memcpy(both + 70, tokens, 100 * sizeof(*both));
    struct batch_seq seqs[2] = { { 0, 70, 0, blocks_b, 2, .n_logits = 1 }, { 70, 100, 0, blocks_a, 2, .n_logits = 1 } };
    struct batch batch = { 170, both, seqs, 2 };
    float *out;
    cr_assert_eq(model_forward(r.model, &batch, r.kv, NULL, NULL), OK);
    cr_assert_eq(model_logits(r.model, 0, 2, &out), OK);
    cr_assert_eq(memcmp(out, b, o.n_vocab * sizeof(float)), 0);
    cr_assert_eq(memcmp(out + o.n_vocab, a, o.n_vocab * sizeof(float)), 0);
    mem_free(a);
    mem_free(b);
    rig_free(&r);
}

static void count_layer(void *ctx, uint32_t layer, const struct mark *written)
{
    uint32_t *next = ctx;
    cr_assert_eq(layer, *next);
    cr_assert(mark_done(written), "the CPU computes at once");
    (*next)++;
}

Test(model, tells_of_each_layer_in_order)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    int32_t token = 3;
    uint32_t block = 0, next = 0;
    struct batch_seq seq = { 0, 1, 0, &block, 1, .n_logits = 1 };
    struct batch b = { 1, &token, &seq, 1 };
    cr_assert_eq(model_forward(r.model, &b, r.kv, count_layer, &next), OK);
    cr_assert_eq(next, o.n_layers);
    rig_free(&r);
}

Test(model, opens_every_variant_of_the_family)
{
    struct tiny_options v[6];
    for (int i = 0; i < 6; i++) v[i] = tiny_defaults();
    v[1].tied = true;
    v[2].bias = true;
    v[3].arch = "qwen2";
    v[3].bias = true;
    v[4].rope_freqs = true;
    v[5].type = DTYPE_Q8_0; /* attn_v stays F32: K and V are two products, not one */
    int32_t tokens[70];
    token_run(tokens, 70, 160);
    float *seen[6];
    for (int i = 0; i < 6; i++) {
        struct rig r = rig_of(&v[i]);
        seen[i] = logits_after(&r, tokens, 70, 70, 0);
        cr_assert(isfinite(seen[i][0]));
        for (int k = 0; k < i; k++)
            cr_assert_neq(memcmp(seen[i], seen[k], 160 * sizeof(float)), 0, "%d equals %d", i, k);
        rig_free(&r);
    }
    for (int i = 0; i < 6; i++) mem_free(seen[i]);
}

static float *logits_of_file(const struct tiny_options *o, uint32_t n)
{
    struct rig r = rig_of(o);
    int32_t tokens[64];
    token_run(tokens, n, o->n_vocab);
    float *logits = logits_after(&r, tokens, n, n, 0);
    rig_free(&r);
    return logits;
}

/* A file of type T and one of F32 with the same values differ by what activations in 8 bits lose, and not at all
 * where the matrices are floats. */
Test(model, computes_with_every_type_as_with_its_values_in_f32)
{
    struct tiny_options o = tiny_defaults();
    o.d_model = o.d_ff = 256;
    for (uint32_t type = 0; type < DTYPE_LIMIT; type++) {
        const struct dtype_info *info = dtype_info(type);
        if (!info->supported || type == DTYPE_I32 || type == DTYPE_I64) continue; /* random ones overflow a norm */
        o.type = o.v_type = type;
        o.as_f32 = false;
        float *got = logits_of_file(&o, 40);
        o.as_f32 = true;
        float *want = logits_of_file(&o, 40);
        float most = 0, off = 0;
        for (uint32_t i = 0; i < o.n_vocab; i++) {
            most = fmaxf(most, fabsf(want[i]));
            off = fmaxf(off, fabsf(got[i] - want[i]));
        }
        cr_assert(isfinite(most) && off <= (info->block_elems > 1 ? 0.05f * most : 0), "%s: off by %g of %g",
                  info->name, (double)off, (double)most);
        mem_free(got);
        mem_free(want);
    }
}

Test(model, reads_norms_of_another_type_as_floats)
{
    struct tiny_options o = tiny_defaults();
    float *want = logits_of_file(&o, 20);
    o.norm_type = DTYPE_F64;
    float *got = logits_of_file(&o, 20);
    cr_assert_eq(memcmp(want, got, o.n_vocab * sizeof(float)), 0);
    mem_free(want);
    mem_free(got);
}

Test(model, shares_packed_weights_through_a_sealed_descriptor)
{
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    struct rig r = rig_of(&o);
    struct model_options opt = options_for(&r);
    int32_t tokens[70];
    int fd = -1;
    needs_memfd();
    token_run(tokens, 70, o.n_vocab);
    float *own = logits_after(&r, tokens, 70, 70, 0);
    cr_assert_eq(model_pack_shared(&fd, &opt, &r.err), OK, "%s", r.err.text);
    model_close(r.model);
    opt.weights_fd = fd;
    cr_assert_eq(model_open(&r.model, &opt, &r.err), OK, "%s", r.err.text);
    float *shared = logits_after(&r, tokens, 70, 70, 0);
    cr_assert_eq(memcmp(own, shared, o.n_vocab * sizeof(float)), 0);
    cr_assert_lt(pwrite(fd, "x", 1, 0), 0, "sealed");

    /* Another model's weights are refused. */
    struct model *other = NULL;
    o.seed = 2;
    char *path = tiny_write(&o);
    opt.path = path;
    cr_assert_eq(model_open(&other, &opt, &r.err), ERR_MISMATCH);
    cr_assert(strstr(r.err.text, "shared weights are of model"), "%s", r.err.text);
    tiny_remove(path);
    close(fd);
    mem_free(own);
    mem_free(shared);
    rig_free(&r);
}

Test(model, refuses_a_descriptor_that_is_not_sealed_weights)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    struct model_options opt = options_for(&r);
    struct model *m = NULL;
    opt.weights_fd = fileno(tmpfile());
    cr_assert_eq(model_open(&m, &opt, &r.err), ERR_INVALID);
    cr_assert(strstr(r.err.text, "not a sealed memfd"), "%s", r.err.text);
    rig_free(&r);
}

static void expect_refused(const struct tiny_options *o, const char *what, const char *also)
{
    struct tiny_options good = tiny_defaults();
    good.n_layers = o->n_layers;
    char *sound = tiny_write(&good);
    struct rig r = { .path = tiny_write(o), .backend = backend_for(sound, 1) };
    struct model_options opt = options_for(&r);
    struct model_info info;
    r.err.text[0] = '\0';
    enum status st = model_open(&r.model, &opt, &r.err);
    cr_assert_neq(st, OK, "%s %s is accepted", what, also);
    cr_assert_null(r.model);
    cr_assert(strstr(r.err.text, what), "\"%s\" is not in: %s", what, r.err.text);
    cr_assert(strstr(r.err.text, also), "\"%s\" is not in: %s", also, r.err.text);
    cr_assert(strstr(r.err.text, r.path), "the path is not in: %s", r.err.text);
    cr_assert_eq(model_read_info(&info, r.path, &r.err), st);
    tiny_remove(sound);
    rig_free(&r);
}

Test(model, names_each_tensor_that_is_missing_misshapen_or_of_a_wrong_type)
{
    static const char *const WORDS[] = {
        [TINY_MISSING] = "missing", [TINY_WRONG_SHAPE] = "expected", [TINY_WRONG_TYPE] = "of type Q1_0 (41)"
    };
    struct tiny_options o = tiny_defaults();
    char name[64];
    o.n_layers = 1;
    o.rope_freqs = true;
    o.arch = "qwen2";
    o.bias = true;
    for (uint32_t i = 0; tiny_tensor_name(&o, i, name); i++)
        for (int how = TINY_MISSING; how <= TINY_WRONG_TYPE; how++) {
            bool optional = strcmp(name, "output.weight") == 0 || strcmp(name, "rope_freqs.weight") == 0;
            if (how == TINY_MISSING && optional) continue;
            o.broken = name;
            o.how = (enum tiny_break)how;
            expect_refused(&o, name, WORDS[how]);
        }
}

Test(model, refuses_bad_hyperparameters_with_key_and_value)
{
    static const struct {
        const char *key;
        uint32_t value;
        const char *also;
    } bad[] = {
        { "llama.block_count", 0, "0" },
        { "llama.block_count", 100000, "100000" },
        { "llama.context_length", 0, "0" },
        { "llama.embedding_length", 0, "0" },
        { "llama.feed_forward_length", 0, "0" },
        { "llama.feed_forward_length", UINT32_MAX, "4294967295" },
        { "llama.attention.head_count", 0, "0" },
        { "llama.rope.dimension_count", 17, "17" },
        { "llama.rope.dimension_count", 15, "15" },
        { "llama.attention.value_length", 8, "" },
        { "llama.expert_count", 8, "expert_used_count is missing" },
        { "llama.vocab_size", 7, "" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tiny_options o = tiny_defaults();
        o.u32_key = bad[i].key;
        o.u32_value = bad[i].value;
        expect_refused(&o, bad[i].also, "");
    }
}

Test(model, refuses_heads_that_do_not_divide)
{
    struct tiny_options o = tiny_defaults();
    o.u32_key = "llama.attention.head_count_kv";
    o.u32_value = 3;
    expect_refused(&o, "4 query heads", "3 kv heads");
    o.u32_key = "llama.attention.head_count";
    o.u32_value = 7;
    expect_refused(&o, "7", "");
}

Test(model, names_what_it_does_not_support)
{
    struct tiny_options o = tiny_defaults();
    o.arch = "mamba";
    expect_refused(&o, "\"mamba\"", "llama, qwen2");
    o = tiny_defaults();
    o.str_key = "llama.rope.scaling.type";
    o.str_value = "dynamic";
    expect_refused(&o, "\"dynamic\"", "linear");
    o = tiny_defaults();
    o.extra_tensor = "blk.0.attn_q_norm.weight";
    expect_refused(&o, "blk.0.attn_q_norm.weight", "llama");
}

Test(model, refuses_missing_metadata_by_key)
{
    static const char *const KEYS[] = { "general.architecture",      "llama.block_count",
                                        "llama.context_length",      "llama.embedding_length",
                                        "llama.feed_forward_length", "llama.attention.head_count" };
    for (size_t i = 0; i < sizeof(KEYS) / sizeof(KEYS[0]); i++) {
        struct tiny_options o = tiny_defaults();
        o.drop_key = KEYS[i];
        expect_refused(&o, KEYS[i], "missing");
    }
}

static void expect_option_refused(struct rig *r, const struct model_options *opt, enum status want, const char *text)
{
    struct model *m = NULL;
    cr_assert_eq(model_open(&m, opt, &r->err), want, "%s", r->err.text);
    cr_assert(strstr(r->err.text, text), "\"%s\" is not in: %s", text, r->err.text);
}

Test(model, refuses_options_that_do_not_fit)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    struct model_options opt = options_for(&r);
    opt.max_context = 5000;
    expect_option_refused(&r, &opt, ERR_INVALID, "5000");
    opt = options_for(&r);
    opt.rotate = "maybe";
    expect_option_refused(&r, &opt, ERR_INVALID, "maybe");
    opt = options_for(&r);
    opt.max_batch_tokens = 0;
    expect_option_refused(&r, &opt, ERR_INVALID, "max_batch_tokens");
    opt = options_for(&r);
    opt.path = "/nowhere/model.gguf";
    expect_option_refused(&r, &opt, ERR_NOT_FOUND, "/nowhere/model.gguf");
    rig_free(&r);
}

Test(model, refuses_kv_memory_that_does_not_fit_with_numbers)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    struct kv_store *kv = NULL;
    cr_assert_eq(model_kv_create(&kv, r.model, UINT32_MAX, &r.err), ERR_NO_MEMORY);
    cr_assert(strstr(r.err.text, "available"), "%s", r.err.text);
    cr_assert_eq(model_kv_create(&kv, r.model, 0, &r.err), ERR_INVALID);
    rig_free(&r);
}

/* Rows of the embedding are read from the file in each step, wherever the other weights are. */
Test(model, a_file_that_is_written_to_gives_no_tokens)
{
    struct tiny_options o = tiny_defaults();
    struct rig r = rig_of(&o);
    uint32_t block = 0;
    int32_t token = 1;
    struct batch_seq seq = { 0, 1, 0, &block, 1, .n_logits = 1 };
    struct batch b = { 1, &token, &seq, 1 };
    struct stat was;
    float *logits;
    cr_assert_eq(stat(r.path, &was), 0);
    const struct timespec now[2] = { was.st_atim, was.st_mtim }, other[2] = { was.st_atim, { 1, 0 } };
    cr_assert_eq(model_forward(r.model, &b, r.kv, NULL, NULL), OK);
    cr_assert_eq(utimensat(AT_FDCWD, r.path, other, 0), 0);
    cr_assert_eq(model_logits(r.model, 0, 1, &logits), ERR_CORRUPT);
    cr_assert_eq(model_forward(r.model, &b, r.kv, NULL, NULL), ERR_CORRUPT);
    cr_assert_eq(utimensat(AT_FDCWD, r.path, now, 0), 0);
    cr_assert_eq(model_forward(r.model, &b, r.kv, NULL, NULL), OK);
    cr_assert_eq(model_logits(r.model, 0, 1, &logits), OK);
    rig_free(&r);
}

/* Opens and runs a file whatever it says; whether it is refused is its own affair. */
static bool try_file(const char *path)
{
    struct rig r = { 0 };
    struct model_info info;
    bool ran = false;
    if (model_read_info(&info, path, &r.err) != OK) return false;
    uint32_t context = info.context_length < 128 ? info.context_length : 128;
    struct backend_limits lim = model_limits(&info, 64, context);
    if (backend_open(&r.backend, "cpu", &(struct backend_options){ .n_threads = 1, .limits = lim }, &r.err) != OK)
        return false;
    struct model_options opt = {
        .path = path, .backend = r.backend, .max_batch_tokens = 64, .max_context = context, .weights_fd = -1
    };
    if (model_open(&r.model, &opt, &r.err) == OK && model_kv_create(&r.kv, r.model, 2, &r.err) == OK) {
        int32_t tokens[3] = { 0, 1, 2 };
        uint32_t blocks[2] = { 0, 1 };
        struct batch_seq seq = { 0, 3, 0, blocks, 2, .n_logits = 1 };
        struct batch b = { 3, tokens, &seq, 1 };
        float *logits;
        ran = info.n_vocab > 2 && model_forward(r.model, &b, r.kv, NULL, NULL) == OK &&
              model_logits(r.model, 0, 1, &logits) == OK;
    }
    kv_store_destroy(r.kv);
    model_close(r.model);
    backend_close(r.backend);
    return ran;
}

Test(model, survives_files_with_random_damage)
{
    struct tiny_options o = tiny_defaults();
    uint64_t state = 12345;
    uint32_t n_ran = 0;
    uint8_t head[2600];
    o.n_layers = 1;
    char *path = tiny_write(&o);
    int fd = open(path, O_RDWR);
    cr_assert_eq(pread(fd, head, sizeof(head), 0), (ssize_t)sizeof(head));
    for (int i = 0; i < 1500; i++) {
        uint32_t n = 1 + i % 3;
        for (uint32_t k = 0; k < n; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            uint8_t byte = (uint8_t)(state >> 56);
            off_t at = (off_t)((state >> 20) % sizeof(head));
            if (i % 2) byte = head[at] ^ (uint8_t)(1u << (byte & 7));
            cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
        }
        n_ran += try_file(path);
        cr_assert_eq(pwrite(fd, head, sizeof(head), 0), (ssize_t)sizeof(head));
    }
    close(fd);
    cr_assert_gt(n_ran, 10, "damage to names of no meaning changes nothing");
    cr_assert_lt(n_ran, 1400);
    cr_assert(try_file(path));
    tiny_remove(path);
}

Test(model, survives_a_file_cut_short_anywhere)
{
    struct tiny_options o = tiny_defaults();
    o.n_layers = 1;
    char *path = tiny_write(&o);
    struct stat sb;
    cr_assert_eq(stat(path, &sb), 0);
    for (off_t n = sb.st_size - 1; n > 0; n -= n > 4000 ? 3001 : 17) {
        struct error err = { 0 };
        struct model_info info;
        cr_assert_eq(truncate(path, n), 0);
        cr_assert_neq(model_read_info(&info, path, &err), OK, "%ld bytes", (long)n);
        cr_assert_neq(err.text[0], '\0');
    }
    tiny_remove(path);
}

Test(model, reads_the_facts_of_a_file)
{
    struct tiny_options o = tiny_defaults();
    struct model_info info;
    o.u32_key = "llama.attention.sliding_window";
    o.u32_value = 100;
    char *path = tiny_write(&o);
    cr_assert_eq(model_read_info(&info, path, NULL), OK);
    cr_assert_eq(info.context_length, 100, "within its window the model has no window");
    cr_assert_float_eq(info.rope.scale, 1.0f, 0.0f);
    cr_assert_eq(info.head_dim, 16);
    cr_assert_float_eq(info.attn_scale, 0.25f, 1e-7f);
    cr_assert_eq(info.n_params, 2u * (64 * 64 * 2 + 64 * 32 * 2 + 64 * 96 * 3 + 128) + 160 * 64 * 2 + 64);
    tiny_remove(path);
}

/* A sealed copy of a descriptor's bytes, one of which is another, and so many are missing. */
static int sealed_copy(int fd, off_t wrong, off_t missing, unsigned seals)
{
    struct stat sb;
    cr_assert_eq(fstat(fd, &sb), 0);
    const size_t n = (size_t)(sb.st_size - missing);
    uint8_t *bytes = mem_alloc((size_t)sb.st_size);
    cr_assert_eq(pread(fd, bytes, (size_t)sb.st_size, 0), sb.st_size);
    if (wrong >= 0) bytes[wrong] ^= 1;
    int copy = memfd_create("copy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    cr_assert_eq(write(copy, bytes, n), (ssize_t)n);
    cr_assert_eq(fcntl(copy, F_ADD_SEALS, seals), 0);
    mem_free(bytes);
    return copy;
}

Test(model, refuses_sealed_memory_that_holds_something_else)
{
    const unsigned all = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    static const struct {
        off_t wrong, missing; /* -1: every byte is right; -2: all but four bytes are missing */
        unsigned unsealed;
        const char *says; /* NULL: fine */
    } rows[] = {
        { -1, 0, 0, NULL },
        { -1, 0, F_SEAL_WRITE, "is not a sealed memfd" },
        { -1, 0, F_SEAL_GROW, "is not a sealed memfd" },
        { -1, 0, F_SEAL_SHRINK, "is not a sealed memfd" },
        { -1, -2, 0, "cannot read descriptor" },
        { 0, 0, 0, "not written by this version" },
        { 7, 0, 0, "not written by this version" },
        { 8, 0, 0, "not written by this version" },
        { 12, 0, 0, "bytes of layout" },
        { 16, 0, 0, "shared weights are of model" },
        { 24, 0, 0, "bytes of layout" },
        { 32, 0, 0, "bytes of layout" },
        { 40, 0, 0, "bytes of layout" },
        { -1, 1, 0, "bytes of layout" },
    };
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    struct rig r = rig_of(&o);
    struct model_options opt = options_for(&r);
    int fd = -1;
    needs_memfd();
    cr_assert_eq(model_pack_shared(&fd, &opt, &r.err), OK, "%s", r.err.text);
    struct stat sb;
    cr_assert_eq(fstat(fd, &sb), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct model *m = NULL;
        const off_t missing = rows[i].missing == -2 ? sb.st_size - 4 : rows[i].missing;
        opt.weights_fd = sealed_copy(fd, rows[i].wrong, missing, all & ~rows[i].unsealed);
        cr_assert_eq(model_open(&m, &opt, &r.err) == OK, !rows[i].says, "row %zu: %s", i, r.err.text);
        if (rows[i].says) cr_assert(strstr(r.err.text, rows[i].says), "row %zu: %s", i, r.err.text);
        model_close(m);
        close(opt.weights_fd);
    }
    opt = options_for(&r);
    opt.as_f32 = true; /* the same file, laid out otherwise */
    opt.weights_fd = fd;
    struct model *m = NULL;
    cr_assert_eq(model_open(&m, &opt, &r.err), ERR_MISMATCH);
    cr_assert(strstr(r.err.text, "bytes of layout"), "%s", r.err.text);
    close(fd);
    rig_free(&r);
}

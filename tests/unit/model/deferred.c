/* The forward on a backend that does nothing until somebody waits: it only enqueues, and the bits are the CPU's. */
#include "base/mem.h"
#include "helpers/deferred_backend.h"
#include "helpers/tiny_model.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define ROWS     256
#define N_BLOCKS 8

struct rig {
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
};

static struct rig rig_reading(const char *path, bool deferred, enum kv_format format, enum weights_mode weights,
                              enum io_kind io)
{
    struct rig r = { 0 };
    struct model_info info;
    struct error err = { 0 };
    cr_assert_eq(model_read_info(&info, path, &err), OK, "%s", err.text);
    struct backend_options opt = { .n_threads = 2, .limits = model_limits(&info, ROWS, info.context_length) };
    cr_assert_eq(backend_open(&r.backend, "cpu", &opt, &err), OK, "%s", err.text);
    if (deferred) r.backend = deferred_backend_create(r.backend);
    struct model_options mo = { .path = path,
                                .backend = r.backend,
                                .kv_format = format,
                                .rotate = "auto",
                                .max_batch_tokens = ROWS,
                                .weights_fd = -1,
                                .weights = weights,
                                .io = io };
    enum status st = model_open(&r.model, &mo, &err);
    if (st == ERR_UNSUPPORTED && io == IO_URING) { /* not to be had here */
        mo.io = IO_PREAD;
        st = model_open(&r.model, &mo, &err);
    }
    cr_assert_eq(st, OK, "%s", err.text);
    cr_assert_eq(model_kv_create(&r.kv, r.model, N_BLOCKS, &err), OK, "%s", err.text);
    if (model_state_bytes(r.model)) cr_assert_eq(model_states_create(r.kv, r.model, 2, &err), OK, "%s", err.text);
    return r;
}

static struct rig rig_of(const char *path, bool deferred, enum kv_format format, enum weights_mode weights)
{
    return rig_reading(path, deferred, format, weights, IO_AUTO);
}

static void rig_free(struct rig *r)
{
    kv_store_destroy(r->kv);
    model_close(r->model);
    backend_close(r->backend);
}

/* Two sequences: a prompt in two chunks with logits of several rows, and one that decodes beside its second chunk. */
#define STEPS 3
struct feed {
    int32_t tokens[ROWS];
    uint32_t blocks[2][4];
    struct batch_seq seqs[2];
    struct batch batch;
};

static void feed_of(struct feed *f, int step, uint32_t n_vocab)
{
    static const struct {
        uint32_t n_rows, pos0, n_logits;
    } plan[STEPS][2] = { { { 70, 0, 3 }, { 9, 0, 1 } },
                         { { 40, 70, 1 }, { 1, 9, 1 } },
                         { { 1, 110, 1 }, { 1, 10, 1 } } };
    memset(f, 0, sizeof(*f));
    f->batch = (struct batch){ .tokens = f->tokens, .seqs = f->seqs, .n_seqs = 2 };
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < 4; k++) f->blocks[i][k] = (2 * k + i) % N_BLOCKS;
        f->seqs[i] = (struct batch_seq){ .row0 = f->batch.n_rows,
                                         .n_rows = plan[step][i].n_rows,
                                         .pos0 = plan[step][i].pos0,
                                         .blocks = f->blocks[i],
                                         .n_blocks = 4,
                                         .n_logits = plan[step][i].n_logits,
                                         .state = 1 - i };
        for (uint32_t k = 0; k < f->seqs[i].n_rows; k++)
            f->tokens[f->batch.n_rows++] = (int32_t)(((f->seqs[i].pos0 + k) * 37 + i * 11 + 5) % n_vocab);
    }
}

static uint32_t n_logits_of(const struct feed *f)
{
    return f->seqs[0].n_logits + f->seqs[1].n_logits;
}

/* Logits of all steps of the CPU itself. */
static float *expected(const char *path, enum kv_format format, uint32_t *n)
{
    struct rig r = rig_of(path, false, format, WEIGHTS_RESIDENT);
    const uint32_t n_vocab = model_info(r.model)->n_vocab;
    float *all = mem_array(16 * (size_t)n_vocab, sizeof(float)), *logits;
    *n = 0;
    for (int step = 0; step < STEPS; step++) {
        struct feed f;
        feed_of(&f, step, n_vocab);
        cr_assert_eq(model_forward(r.model, &f.batch, r.kv, NULL, NULL), OK);
        cr_assert_eq(model_logits(r.model, 0, n_logits_of(&f), &logits), OK);
        memcpy(all + (size_t)*n * n_vocab, logits, n_logits_of(&f) * (size_t)n_vocab * sizeof(float));
        *n += n_logits_of(&f);
    }
    rig_free(&r);
    return all;
}

static void expect_same_bits_of_file(const char *path, enum kv_format format, enum weights_mode weights,
                                     enum io_kind io)
{
    uint32_t n, at = 0;
    float *want = expected(path, format, &n), *logits;
    struct rig r = rig_reading(path, true, format, weights, io);
    const uint32_t n_vocab = model_info(r.model)->n_vocab;
    for (int step = 0; step < STEPS; step++) {
        struct feed f;
        feed_of(&f, step, n_vocab);
        const uint32_t rows = n_logits_of(&f), waits = deferred_backend_waits(r.backend);
        cr_assert_eq(model_forward(r.model, &f.batch, r.kv, NULL, NULL), OK);
        if (weights == WEIGHTS_RESIDENT) {
            cr_assert_eq(deferred_backend_waits(r.backend), waits, "the forward waited");
            cr_assert_gt(deferred_backend_pending(r.backend), 10, "the forward is not in the queue");
        }
        memset(&f, 0xff, sizeof(f)); /* the batch is the caller's again */
        cr_assert_eq(model_logits(r.model, 0, rows, &logits), OK);
        cr_assert_eq(deferred_backend_pending(r.backend), 0);
        for (uint32_t i = 0; i < rows; i++, at++)
            cr_assert_arr_eq(logits + (size_t)i * n_vocab, want + (size_t)at * n_vocab, n_vocab * sizeof(float),
                             "step %d logit row %u", step, i);
        if (rows > 1) { /* any run of them by itself */
            cr_assert_eq(model_logits(r.model, rows - 1, 1, &logits), OK);
            cr_assert_arr_eq(logits, want + (size_t)(at - 1) * n_vocab, n_vocab * sizeof(float));
        }
    }
    cr_assert_eq(at, n);
    rig_free(&r);
    mem_free(want);
}

static void expect_same_bits_reading(const struct tiny_options *o, enum kv_format format, enum weights_mode weights,
                                     enum io_kind io)
{
    char *path = tiny_write(o);
    expect_same_bits_of_file(path, format, weights, io);
    tiny_remove(path);
}

static void expect_same_bits(const struct tiny_options *o, enum kv_format format, enum weights_mode weights)
{
    expect_same_bits_reading(o, format, weights, IO_AUTO);
}

Test(deferred, a_forward_only_enqueues_and_has_the_cpus_bits)
{
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    expect_same_bits(&o, KV_INT8, WEIGHTS_RESIDENT);
    expect_same_bits(&o, KV_F16, WEIGHTS_RESIDENT);
    o.tied = o.bias = o.rope_freqs = true;
    o.type = DTYPE_Q4_0;
    expect_same_bits(&o, KV_INT8, WEIGHTS_RESIDENT);
    o = tiny_defaults();
    o.type = DTYPE_F16;
    o.n_vocab = 171; /* no multiple of the rows that pack together */
    expect_same_bits(&o, KV_INT8, WEIGHTS_RESIDENT);
}

/* Experts, latents and states: whatever an op is handed by pointer, it has read when it returns. */
Test(deferred, families_only_enqueue_and_have_the_cpus_bits)
{
    static const char *const names[] = { "qwen3moe", "gpt-oss", "deepseek2", "qwen3next", "mamba2" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[256];
        snprintf(path, sizeof(path), "%s/golden/families/%s.q.gguf", TEST_DATA, names[i]);
        expect_same_bits_of_file(path, KV_INT8, WEIGHTS_RESIDENT, IO_AUTO);
    }
}

/* Streamed weights wait for each piece, and the embedding's rows come from the file. */
Test(deferred, streamed_weights_have_the_same_bits)
{
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    expect_same_bits(&o, KV_INT8, WEIGHTS_STREAM);
}

/* Weights are packed late, out of slots that are read into again: no slot before its pieces are packed. */
Test(deferred, loading_reads_into_no_slot_that_is_still_needed)
{
    const enum io_kind kinds[] = { IO_URING, IO_PREAD, IO_MMAP };
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    o.n_layers = 8; /* more pieces than there are slots */
    for (int i = 0; i < 3; i++) expect_same_bits_reading(&o, KV_INT8, WEIGHTS_RESIDENT, kinds[i]);
}

struct marks {
    struct mark of[8];
    uint32_t n;
};

static void keep(void *ctx, uint32_t layer, const struct mark *written)
{
    struct marks *m = ctx;
    cr_assert_eq(layer, m->n);
    m->of[m->n++] = *written;
}

/* K and V of all heads of a layer, tokens [0, 64). */
static void read_layer(const struct rig *r, uint32_t layer, uint32_t block, uint8_t *out)
{
    const struct kv_geometry *g = &r->kv->layers[layer].geom;
    struct kv_piece pieces[16];
    uint32_t n = 0;
    for (uint32_t h = 0; h < g->n_kv_heads; h++)
        for (int v = 0; v < 2; v++, n++)
            pieces[n] = (struct kv_piece){ .layer = layer,
                                           .head = h,
                                           .is_v = v,
                                           .block = block,
                                           .t0 = 0,
                                           .t1 = 64,
                                           .values = n * 64 * (g->head_dim + 4),
                                           .scales = n * 64 * (g->head_dim + 4) + 64 * g->head_dim };
    cr_assert_eq(r->backend->ops->kv_pack(r->backend, NULL, r->kv->layers, pieces, n, out), OK);
}

Test(deferred, a_layers_mark_passes_when_its_kv_is_there)
{
    struct tiny_options o = tiny_defaults();
    o.type = DTYPE_Q8_0;
    char *path = tiny_write(&o);
    struct rig cpu = rig_of(path, false, KV_INT8, WEIGHTS_RESIDENT), r = rig_of(path, true, KV_INT8, WEIGHTS_RESIDENT);
    struct marks marks = { 0 };
    struct feed f;
    static uint8_t want[4 * 64 * 40], got[4 * 64 * 40];
    feed_of(&f, 0, o.n_vocab);
    cr_assert_eq(model_forward(cpu.model, &f.batch, cpu.kv, NULL, NULL), OK);
    const uint32_t waits = deferred_backend_waits(r.backend);
    cr_assert_eq(model_forward(r.model, &f.batch, r.kv, keep, &marks), OK);
    cr_assert_eq(marks.n, o.n_layers);
    cr_assert_eq(deferred_backend_waits(r.backend), waits);
    for (uint32_t l = 0; l < o.n_layers; l++) {
        cr_assert_not(mark_done(&marks.of[l]), "layer %u", l);
        read_layer(&cpu, l, f.blocks[0][0], want);
        read_layer(&r, l, f.blocks[0][0], got);
        cr_assert_neq(memcmp(got, want, sizeof(want)), 0, "layer %u is there before its mark", l);
        cr_assert_eq(mark_wait(&marks.of[l]), OK);
        cr_assert(mark_done(&marks.of[l]));
        cr_assert_gt(deferred_backend_pending(r.backend), 0, "more was waited for than the mark");
        read_layer(&r, l, f.blocks[0][0], got);
        cr_assert_arr_eq(got, want, sizeof(want), "layer %u", l);
    }
    cr_assert_eq(model_wait(r.model), OK);
    cr_assert_eq(deferred_backend_pending(r.backend), 0);
    cr_assert(mark_done(&(struct mark){ 0 }) && mark_wait(&(struct mark){ 0 }) == OK);
    rig_free(&cpu);
    rig_free(&r);
    tiny_remove(path);
}

/* With weights and embedding on the device, no step looks at the file: what becomes of it changes nothing. */
Test(deferred, a_resident_step_needs_no_file)
{
    struct tiny_options o = tiny_defaults();
    const enum weights_mode modes[] = { WEIGHTS_RESIDENT, WEIGHTS_STREAM };
    for (int i = 0; i < 2; i++) {
        char *path = tiny_write(&o);
        struct rig r = rig_of(path, true, KV_INT8, modes[i]);
        struct feed f;
        struct stat was;
        feed_of(&f, 0, o.n_vocab);
        cr_assert_eq(model_forward(r.model, &f.batch, r.kv, NULL, NULL), OK);
        cr_assert_eq(stat(path, &was), 0);
        cr_assert_eq(utimensat(AT_FDCWD, path, (struct timespec[2]){ was.st_atim, { 1, 0 } }, 0), 0);
        cr_assert_eq(model_forward(r.model, &f.batch, r.kv, NULL, NULL),
                     modes[i] == WEIGHTS_RESIDENT ? OK : ERR_CORRUPT);
        cr_assert_eq(model_wait(r.model), OK);
        rig_free(&r);
        tiny_remove(path);
    }
}

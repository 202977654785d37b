/* bench_states.c - speed of recurrent layers and of attention over latents, for `baton-bench kernels`. */
#include "base/mem.h"
#include "bench/kernels.h"

#include <math.h>
#include <string.h>

/* One layer of Qwen3-Next, one of Mamba-2 with 8,192 columns. */
#define DELTA_KEY_HEADS 16u
#define MAMBA2_GROUPS   8u
static const struct state_geometry delta_shape = { 32, 128, 128 }, mamba2_shape = { 128, 128, 64 };

#define STATE_HEADS 128u
#define STATE_WIDTH 12288u /* floats of a row of inputs, at most */

/* Inputs are the job's own: the rule brings q and k to their length in place. */
struct state_job {
    struct job job; /* first */
    struct state_geometry geom;
    float *in, *gates, *a;
};

static enum status run_state(struct job *j, uint32_t turn)
{
    const struct state_job *s = (const struct state_job *)j;
    struct backend *b = j->k->backend;
    const struct batch_seq seq = { .n_rows = j->n, .pos0 = 1, .state = turn };
    const struct batch batch = { .n_rows = j->n, .seqs = &seq, .n_seqs = 1 };
    const struct state_slices state = { j->copies, j->copy_bytes, s->geom };
    struct step step;
    enum status st = b->ops->step_begin(b, NULL, &batch, &step);
    if (st != OK) return st;
    if (s->geom.n_heads == delta_shape.n_heads) {
        const struct delta_inputs in = { s->in,           STATE_WIDTH,    s->gates, s->gates + STATE_HEADS,
                                         2 * STATE_HEADS, 2 * STATE_HEADS };
        const struct delta_facts f = { DELTA_KEY_HEADS, s->geom.n_heads, 1e-6f, s->gates, s->a, false };
        return b->ops->delta_rule(b, NULL, j->k->y, ROWS, &in, &f, &state, &step);
    }
    const struct mamba2_inputs in = { s->in, STATE_WIDTH, s->gates, 2 * STATE_HEADS };
    const struct mamba2_facts f = { s->geom.n_heads, MAMBA2_GROUPS, s->gates, s->a, s->gates };
    return b->ops->mamba2_scan(b, NULL, j->k->y, ROWS, &in, &f, &state, &step);
}

/* Operations of a row and value of S: decay, k S, its update and q S, or all of it but k S.  Bytes are those of S, read
 * and written once a call. */
static enum status bench_state(struct kernels *k, const char *op, const struct state_geometry *geom, double ops)
{
    static const uint32_t N[] = { 1, MANY };
    struct state_job s = { .job = { .k = k, .run = run_state }, .geom = *geom };
    const size_t bytes = k->backend->ops->state_slot_bytes(k->backend, geom);
    enum status st = kernels_make_copies(&s.job, bytes);
    if (st != OK) return st;
    s.in = mem_array((size_t)MANY * STATE_WIDTH, sizeof(float));
    s.gates = mem_array((size_t)MANY * 2 * STATE_HEADS, sizeof(float));
    s.a = mem_array(STATE_HEADS, sizeof(float));
    for (size_t i = 0; i < (size_t)MANY * STATE_WIDTH; i++) s.in[i] = k->x[i % ((size_t)MANY * LD)];
    memcpy(s.gates, k->x, (size_t)MANY * 2 * STATE_HEADS * sizeof(float));
    for (uint32_t h = 0; h < STATE_HEADS; h++) s.a[h] = -0.05f;
    memset(s.job.copies, 0, s.job.copy_bytes * s.job.n_copies);
    kernels_measure_ceilings(k);
    for (size_t i = 0; i < sizeof(N) / sizeof(N[0]) && st == OK; i++) {
        double seconds = 0.0;
        if ((st = kernels_time_rows(&s.job, N[i], &seconds)) != OK) break;
        kernels_report(k, op, "F32", s.job.n, ops * geom->n_heads * geom->rows * geom->cols * s.job.n / seconds,
                       2.0 * (double)bytes / seconds);
    }
    mem_free(s.in);
    mem_free(s.gates);
    mem_free(s.a);
    mem_unmap(s.job.copies, s.job.copy_bytes * s.job.n_copies);
    return st;
}

enum status bench_states(struct kernels *k)
{
    enum status st = bench_state(k, "delta_rule", &delta_shape, 7.0);
    return st == OK ? bench_state(k, "mamba2", &mamba2_shape, 5.0) : st;
}

/* --- latents --- */
static enum status latent_step(const struct job *j, uint32_t at, struct batch_seq *seq, struct batch *batch,
                               struct step *step)
{
    struct backend *b = j->k->backend;
    *seq = (struct batch_seq){ 0, j->n, at, j->blocks, CONTEXT / KV_BLOCK_TOKENS };
    *batch = (struct batch){ j->n, NULL, seq, 1 };
    return b->ops->step_begin(b, NULL, batch, step);
}

static struct kv_slices latent_slices(const struct job *j, uint32_t turn)
{
    return (struct kv_slices){ j->copies + turn * j->copy_bytes, j->copy_bytes / (CONTEXT / KV_BLOCK_TOKENS), j->geom };
}

static enum status run_latent(struct job *j, uint32_t turn)
{
    struct backend *b = j->k->backend;
    const struct kv_slices kv = latent_slices(j, turn);
    struct act out = { j->out, j->act.q, j->n * LATENT_HEADS, LATENT, COARSE };
    struct batch_seq seq;
    struct batch batch;
    struct step step;
    enum status st = latent_step(j, CONTEXT - j->n, &seq, &batch, &step);
    if (st != OK) return st;
    return b->ops->attention_latent(b, NULL, &out, j->wide, LATENT, j->k->x, LD, LATENT_ROPE, LATENT_HEADS, &kv,
                                    1.0f / sqrtf(LATENT + LATENT_ROPE), &step);
}

static enum status write_latents(struct job *j)
{
    struct backend *b = j->k->backend;
    const struct kv_slices kv = latent_slices(j, 0);
    enum status st = OK;
    j->n = MANY;
    for (uint32_t at = 0; at < CONTEXT && st == OK; at += MANY) {
        struct batch_seq seq;
        struct batch batch;
        struct step step;
        if ((st = latent_step(j, at, &seq, &batch, &step)) != OK) break;
        st = b->ops->latent_write(b, NULL, j->k->x, LD, j->k->x + LATENT, LD, &kv, &step);
    }
    return st;
}

enum status bench_latent(struct kernels *k)
{
    static const uint32_t N[] = { 1, MANY };
    const struct backend_ops *ops = k->backend->ops;
    struct job j = { .k = k, .run = run_latent, .geom = { 1, LATENT, KV_INT8, false, KV_LATENT, LATENT_ROPE } };
    const size_t bytes = ops->kv_slice_bytes(k->backend, &j.geom) * (CONTEXT / KV_BLOCK_TOKENS);
    const size_t queries = (size_t)MANY * LATENT_HEADS;
    enum status st = kernels_make_copies(&j, bytes);
    if (st != OK) return st;
    j.blocks = mem_array(CONTEXT / KV_BLOCK_TOKENS, sizeof(*j.blocks));
    for (uint32_t i = 0; i < CONTEXT / KV_BLOCK_TOKENS; i++) j.blocks[i] = i;
    j.act.q = mem_zalloc(ops->act_bytes(k->backend, (uint32_t)queries, LATENT, COARSE));
    j.out = mem_array(queries * LATENT, sizeof(float));
    j.wide = mem_array(queries * LATENT, sizeof(float));
    for (size_t i = 0; i < queries * LATENT; i++) j.wide[i] = k->x[i % ((size_t)MANY * LD)];
    st = write_latents(&j);
    kernels_copy_out(&j);
    kernels_measure_ceilings(k);
    for (size_t i = 0; i < sizeof(N) / sizeof(N[0]) && st == OK; i++) {
        double s = 0.0;
        if ((st = kernels_time_rows(&j, N[i], &s)) != OK) break;
        const double ops_of_key = 2.0 * (2 * LATENT + LATENT_ROPE) * LATENT_HEADS, mean = CONTEXT - (j.n - 1) / 2.0;
        kernels_report(k, "latent", "INT8 KV", j.n, ops_of_key * j.n * mean / s, (double)bytes / s);
    }
    mem_free(j.blocks);
    mem_free(j.act.q);
    mem_free(j.out);
    mem_free(j.wide);
    mem_unmap(j.copies, j.copy_bytes * j.n_copies);
    return st;
}

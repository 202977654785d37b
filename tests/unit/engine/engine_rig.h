/* engine_rig.h - an engine over a tiny model, and what its callback has heard per sequence; for engine.c's tests. */
#ifndef UNIT_ENGINE_ENGINE_RIG_H
#define UNIT_ENGINE_ENGINE_RIG_H
#include "base/mailbox.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "helpers/deferred_backend.h"
#include "helpers/recurrent_backend.h"
#include "helpers/tiny_model.h"
#include "model/model.h"
#include "parallel/ranks.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#define MAX_SEQS   256
#define MAX_OUT    256
#define MAX_BLOCKS 64
#define WAIT_S     300

/* What the callback has heard about one key (key.lo is the index). */
struct heard {
    int32_t out[MAX_OUT];
    uint32_t n_out, next_idx, n_reserved, n_kv, n_done, n_gone, kv_t1, progress, longest_chunk;
    uint32_t n_prompt_lp, last_lp_pos;
    double prompt_lp_sum;
    uint32_t hidden_end;
    float *hidden; /* [prompt][d_model], the test's own; NULL: not kept */
    float first_lp, lp[MAX_OUT];
    uint32_t n_hits, cached; /* of RESERVED; of PROGRESS */
    uint32_t kv_layers_end;
    enum finish_reason token_finish, finish;
    enum status status, gone_status;
    kv_block_id blocks[MAX_BLOCKS], window_blocks[MAX_BLOCKS];
    state_slot_id slot, last_state; /* of RESERVED, of the last KV */
    uint32_t n_blocks, epoch;
};

struct rig {
    char *path;
    bool is_tiny;
    struct backend *backend;
    struct ranks *ranks; /* in place of the backend, or NULL */
    const struct model *model;
    struct engine *engine;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct heard heard[MAX_SEQS];
    uint32_t n_layers, d_model;
    struct mailbox *marks; /* of KV events, or NULL */
};

static void hear_token(struct heard *h, const struct engine_event *ev)
{
    if (h->n_out == 0) h->next_idx = ev->output_idx;
    cr_assert_eq(ev->output_idx, h->next_idx, "no gap, no repeat");
    h->next_idx++;
    if (ev->logprobs) h->first_lp = h->lp[h->n_out % MAX_OUT] = ev->logprobs->logprob;
    h->token_finish = ev->finish;
    h->out[h->n_out++ % MAX_OUT] = ev->token;
}

static void hear_kv(const struct rig *r, struct heard *h, const struct engine_event *ev)
{
    cr_assert_eq(ev->t0 % 64, 0);
    if (ev->layer0 == 0) {
        cr_assert_eq(ev->t0, h->kv_t1, "chunks follow each other");
    } else {
        cr_assert_eq(ev->layer0, h->kv_layers_end);
    }
    h->kv_layers_end = ev->layer1;
    if (r->marks) { /* somebody else waits for them */
        struct mark *m = mem_alloc(sizeof(*m));
        *m = ev->written;
        cr_assert_eq(mailbox_post(r->marks, m), OK);
    }
    if (ev->layer1 == r->n_layers) h->kv_t1 = ev->t1;
    h->last_state = ev->state;
    if (ev->window_blocks) memcpy(h->window_blocks, ev->window_blocks, ev->n_blocks * sizeof(*h->blocks));
    memcpy(h->blocks, ev->blocks, ev->n_blocks * sizeof(*h->blocks));
    h->n_kv++;
}

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct rig *r = ctx;
    pthread_mutex_lock(&r->lock);
    struct heard *h = &r->heard[ev->key.lo];
    h->epoch = ev->key.epoch;
    switch (ev->kind) {
    case ENGINE_RESERVED:
        h->n_reserved++;
        h->n_hits = ev->cached_tokens;
        h->n_blocks = ev->n_blocks;
        h->slot = ev->state;
        if (ev->window_blocks) memcpy(h->window_blocks, ev->window_blocks, ev->n_blocks * sizeof(*h->blocks));
        memcpy(h->blocks, ev->blocks, ev->n_blocks * sizeof(*h->blocks));
        break;
    case ENGINE_KV: hear_kv(r, h, ev); break;
    case ENGINE_PROMPT_LOGPROBS:
        h->n_prompt_lp++;
        h->last_lp_pos = ev->output_idx;
        h->prompt_lp_sum += (double)ev->logprobs->logprob;
        break;
    case ENGINE_HIDDEN:
        cr_assert_eq(ev->t0, h->hidden_end, "states follow each other");
        if (h->hidden)
            memcpy(h->hidden + (size_t)ev->t0 * r->d_model, ev->hidden,
                   (size_t)(ev->t1 - ev->t0) * r->d_model * sizeof(float));
        h->hidden_end = ev->t1;
        break;
    case ENGINE_TOKEN: hear_token(h, ev); break;
    case ENGINE_PROGRESS:
        if (ev->t1 - h->progress > h->longest_chunk) h->longest_chunk = ev->t1 - h->progress;
        h->progress = ev->t1;
        h->cached = ev->cached_tokens;
        break;
    case ENGINE_DONE:
        h->n_done++;
        h->finish = ev->finish;
        h->status = ev->status;
        break;
    case ENGINE_GONE:
        h->n_gone++;
        h->gone_status = ev->status;
        break;
    }
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

struct rig_options {
    uint32_t n_blocks, max_seqs, batch, chunk, kv_layers, threads, max_gap_us, swap_blocks;
    uint32_t tier_blocks, tier_disk_blocks; /* with the prefix cache alone */
    const struct kv_tier_io *tier_io;
    int32_t end_id;
    const char *isa;
    const char *path; /* NULL: a tiny model */
    bool prefix_cache;
    engine_draft_fn draft;
    uint32_t tp, pp;        /* ranks; 0: one, without a thread of its own */
    bool deferred;          /* on a backend that computes when somebody waits */
    const char *backend;    /* NULL: the CPU's */
    uint32_t window_blocks; /* of layers with a window; 0: they share the others' */
    bool shared;            /* one memory of n_blocks for all that the model keeps */
    uint32_t context;
    bool recurrent;     /* with states, in max_seqs slots and */
    uint32_t snapshots; /* so many more */
};

static struct rig_options rig_defaults(void)
{
    return (struct rig_options){ .n_blocks = 256,
                                 .max_seqs = 32,
                                 .batch = 256,
                                 .chunk = 128,
                                 .kv_layers = 1,
                                 .threads = 2,
                                 .end_id = -1,
                                 .context = 1024 };
}

static struct rig *rig_of(struct rig_options o)
{
    struct rig *r = mem_zalloc(sizeof(*r));
    struct tiny_options tiny = tiny_defaults();
    struct model_info info;
    struct error err = { 0 };
    tiny.type = DTYPE_Q8_0;
    r->is_tiny = o.path == NULL;
    r->path = o.path ? mem_strdup(o.path) : tiny_write(&tiny);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    cr_assert_eq(model_read_info(&info, r->path, &err), OK, "%s", err.text);
    struct backend_limits lim = model_limits(&info, o.batch, o.context);
    const struct backend_options bo = { .n_threads = o.threads, .isa = o.isa, .limits = lim };
    if (o.tp)
        cr_assert_eq(ranks_open(&r->ranks, o.tp, o.pp, "cpu", &bo, &err), OK, "%s", err.text);
    else
        cr_assert_eq(backend_open(&r->backend, o.backend ? o.backend : "cpu", &bo, &err), OK, "%s", err.text);
    if (o.recurrent) recurrent_backend_install(r->backend);
    if (o.deferred) r->backend = deferred_backend_create(r->backend);
    struct model_options mo = { .path = r->path,
                                .backend = r->backend,
                                .ranks = r->ranks,
                                .rotate = "auto",
                                .max_batch_tokens = o.batch,
                                .max_context = o.context,
                                .weights_fd = -1 };
    struct engine_options eo = { .end_ids = &o.end_id,
                                 .n_end_ids = 1,
                                 .max_seqs = o.max_seqs,
                                 .max_batch_tokens = o.batch,
                                 .chunk_tokens = o.chunk,
                                 .max_context = o.context,
                                 .kv_event_layers = o.kv_layers,
                                 .kv_event_min_tokens = 100,
                                 .max_commands = 128,
                                 .prefix_cache = o.prefix_cache,
                                 .max_gap_us = o.max_gap_us,
                                 .draft = o.draft,
                                 .on_event = on_event,
                                 .ctx = r };
    cr_assert_eq(model_open(&eo.model, &mo, &err), OK, "%s", err.text);
    eo.swap_bytes = (uint64_t)o.swap_blocks * model_kv_block_bytes(eo.model);
    if (o.prefix_cache) {
        eo.tier_bytes = (uint64_t)o.tier_blocks * model_kv_block_bytes(eo.model);
        eo.tier_disk_bytes = (uint64_t)o.tier_disk_blocks * model_kv_block_bytes(eo.model);
        eo.tier_io = o.tier_io;
        eo.tier_path = o.tier_disk_blocks > 0 ? "/tmp" : "";
    }
    eo.max_snapshots = o.snapshots;
    if (o.shared)
        cr_assert_eq(model_kv_create_shared(&eo.kv, eo.model, o.n_blocks, &err), OK, "%s", err.text);
    else
        cr_assert_eq(model_kv_create_windowed(&eo.kv, eo.model, o.n_blocks, o.window_blocks, &err), OK, "%s", err.text);
    if (model_state_bytes(eo.model) > 0 && !o.shared)
        cr_assert_eq(model_states_create(eo.kv, eo.model, o.max_seqs + o.snapshots, &err), OK, "%s", err.text);
    if (o.recurrent) recurrent_backend_states(eo.kv, o.max_seqs + o.snapshots);
    r->model = eo.model;
    cr_assert_eq(engine_create(&r->engine, &eo, &err), OK, "%s", err.text);
    r->n_layers = info.n_layers;
    r->d_model = info.d_model;
    return r;
}

static bool is_idle(struct rig *r)
{
    struct engine_load load;
    engine_load(r->engine, &load);
    return load.blocks[KV_FREE] + load.blocks[KV_CACHED] == engine_kv(r->engine)->n_blocks && load.states.n_live == 0 &&
           load.n_running + load.n_waiting + load.n_reserved == 0;
}

/* Every block is back and nothing runs; the counts follow the last event by a moment. */
static void expect_idle(struct rig *r)
{
    for (int i = 0; i < 1000 * WAIT_S && !is_idle(r); i++) usleep(1000);
    cr_assert(is_idle(r));
}

static void rig_free(struct rig *r)
{
    engine_destroy(r->engine);
    if (r->backend) backend_close(r->backend);
    ranks_close(r->ranks);
    if (r->is_tiny)
        tiny_remove(r->path);
    else
        mem_free(r->path);
    mem_free(r);
}

#define WAIT(r, condition)                                                                                             \
    do {                                                                                                               \
        struct timespec until;                                                                                         \
        clock_gettime(CLOCK_REALTIME, &until);                                                                         \
        until.tv_sec += WAIT_S;                                                                                        \
        pthread_mutex_lock(&(r)->lock);                                                                                \
        int late = 0;                                                                                                  \
        while (!(condition) && !late) late = pthread_cond_timedwait(&(r)->changed, &(r)->lock, &until);                \
        pthread_mutex_unlock(&(r)->lock);                                                                              \
        cr_assert_not(late, "waited for: " #condition);                                                                \
    } while (0)

static struct sampling_params params(uint32_t max_tokens)
{
    return (struct sampling_params){ .top_p = 1.0f,
                                     .repetition_penalty = 1.0f,
                                     .seed = 7,
                                     .max_tokens = max_tokens,
                                     .n_logprobs = -1,
                                     .n_prompt_logprobs = -1 };
}
#endif

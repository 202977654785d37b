/* engine.c - the engine's thread, and the commands that other threads post to it. */
#include "engine/engine.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/token_id.h"
#include "engine/engine_internal.h"
#include "engine/seq_prefix.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <time.h>

enum command_kind {
    CMD_SUBMIT,
    CMD_RECEIVING,
    CMD_START_DECODE,
    CMD_START_PREFILL,
    CMD_REBIND,
    CMD_WITHDRAW,
    CMD_RELEASE,
    CMD_CANCEL,
    CMD_WAKE,
    CMD_STOP,
    CMD_COUNT
};

struct command {
    enum command_kind kind;
    struct seq_key key;
    struct seq *seq;     /* SUBMIT */
    int32_t first_token; /* START_DECODE */
    uint32_t new_epoch;  /* REBIND */
};

/* Answers a command that has nobody to act on: the key is unknown, or past the state the command is for. */
static void gone(struct engine *e, const struct seq_key *key, enum status st)
{
    struct engine_event ev = { .kind = ENGINE_GONE, .key = *key, .status = st };
    engine_emit(e, &ev);
}

static void do_submit(struct engine *e, struct seq *s, const struct command *c)
{
    enum status st = seq_set_add(&e->seqs, c->seq);
    if (st == OK) return;
    /* The key lives: a second submit of it changes nothing. */
    log_warn("submit_again", "req=%016llx-%llu epoch=%u", (unsigned long long)c->key.hi, (unsigned long long)c->key.lo,
             c->key.epoch);
    seq_destroy(c->seq);
    atomic_fetch_sub_explicit(&e->n_live, 1, memory_order_relaxed);
}

static void do_receiving(struct engine *e, struct seq *s, const struct command *c)
{
    if (s->state == SEQ_RESERVED) block_table_set_state(&s->table, e->pool, KV_RECEIVING);
}

static void do_start_decode(struct engine *e, struct seq *s, const struct command *c)
{
    if (s->state != SEQ_RESERVED) return; /* started already: a repeated start changes nothing */
    s->n_computed = s->n_tokens;
    seq_publish(s);
    s->n_prompt_logprobs_sent = s->n_prompt; /* whoever computed the prompt has sent them */
    enum finish_reason finish = engine_append(e, s, c->first_token);
    if (finish != FINISH_NONE)
        engine_finish(e, s, finish, OK, NULL);
    else
        seq_set_state(s, e->pool, SEQ_DECODE);
}

static void do_start_prefill(struct engine *e, struct seq *s, const struct command *c)
{
    if (s->state == SEQ_RESERVED) engine_begin_prefill(e, s);
}

static void do_rebind(struct engine *e, struct seq *s, const struct command *c)
{
    enum status st = s->state <= SEQ_RESERVED ? seq_set_rekey(&e->seqs, s, c->new_epoch) : ERR_STALE;
    if (st != OK) {
        gone(e, &c->key, st);
        return;
    }
    if (s->state != SEQ_RESERVED) return; /* RESERVED follows, under the new key */
    block_table_set_state(&s->table, e->pool, KV_RESERVED);
    engine_emit_reserved(e, s);
}

static void do_withdraw(struct engine *e, struct seq *s, const struct command *c)
{
    s = seq_set_find(&e->seqs, &c->key); /* one that is gone is no news: who asked will hear of its end */
    if (s && s->mode == ENGINE_RESERVE && s->state == SEQ_WAITING && !s->started)
        engine_finish(e, s, FINISH_FAILED, ERR_NO_BLOCKS, "the node had no room for it in time");
}

static void do_release(struct engine *e, struct seq *s, const struct command *c)
{
    if (s->state == SEQ_HELD)
        engine_finish(e, s, FINISH_STOP, OK, NULL);
    else
        gone(e, &c->key, ERR_STALE);
}

static void do_cancel(struct engine *e, struct seq *s, const struct command *c)
{
    engine_finish(e, s, FINISH_CANCELLED, ERR_CANCELLED, NULL);
}

/* The tier has read a block, or a pause has ended: the round that follows looks for it. */
static void do_wake(struct engine *e, struct seq *s, const struct command *c) {}

static void do_stop(struct engine *e, struct seq *s, const struct command *c)
{
    e->stopping = true;
}

static const struct {
    bool needs_seq;
    void (*run)(struct engine *e, struct seq *s, const struct command *c);
} COMMANDS[CMD_COUNT] = {
    [CMD_SUBMIT] = { false, do_submit },
    [CMD_RECEIVING] = { true, do_receiving },
    [CMD_START_DECODE] = { true, do_start_decode },
    [CMD_START_PREFILL] = { true, do_start_prefill },
    [CMD_REBIND] = { true, do_rebind },
    [CMD_WITHDRAW] = { false, do_withdraw },
    [CMD_RELEASE] = { true, do_release },
    [CMD_CANCEL] = { true, do_cancel },
    [CMD_WAKE] = { false, do_wake },
    [CMD_STOP] = { false, do_stop },
};

static void run_command(struct engine *e, struct command *c)
{
    struct seq *s = COMMANDS[c->kind].needs_seq ? seq_set_find(&e->seqs, &c->key) : NULL;
    if (COMMANDS[c->kind].needs_seq && !s)
        gone(e, &c->key, ERR_NOT_FOUND);
    else
        COMMANDS[c->kind].run(e, s, c);
    mem_free(c);
}

static void count_tokens(const struct engine *e, struct engine_tokens *t, uint32_t n)
{
    t->all += n;
    if (e->windows) t->in_windows += n < e->windows->tokens ? n : e->windows->tokens;
}

static void publish_tokens(struct engine *e)
{
    struct engine_tokens known = { 0 }, computed = { 0 };
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        const struct seq *s = e->seqs.order[i];
        if (s->state == SEQ_WAITING) continue;
        count_tokens(e, &known, s->n_tokens);
        count_tokens(e, &computed, s->n_computed);
    }
    atomic_store_explicit(&e->n_known, known.all, memory_order_relaxed);
    atomic_store_explicit(&e->n_known_in_windows, known.in_windows, memory_order_relaxed);
    atomic_store_explicit(&e->n_computed, computed.all, memory_order_relaxed);
    atomic_store_explicit(&e->n_computed_in_windows, computed.in_windows, memory_order_relaxed);
}

/* The numbers for engine_load(), after commands and steps have changed them. */
static void publish(struct engine *e)
{
    uint32_t running = 0, waiting = 0, reserved = 0;
    publish_tokens(e);
    for (uint32_t i = 0; i < e->seqs.n; i++) {
        const struct seq *s = e->seqs.order[i];
        running += seq_is_running(s);
        waiting += s->state == SEQ_WAITING || s->state == SEQ_FETCHING;
        reserved += s->state == SEQ_RESERVED;
    }
    atomic_store_explicit(&e->n_running, running, memory_order_relaxed);
    atomic_store_explicit(&e->n_waiting, waiting, memory_order_relaxed);
    atomic_store_explicit(&e->n_reserved, reserved, memory_order_relaxed);
    atomic_store_explicit(&e->swapped_blocks, swap_n_used(e->swap), memory_order_relaxed);
}

/* Stages of a round, in this order: commands, admission, a step. */
static void *engine_main(void *arg)
{
    struct engine *e = arg;
    bool can_step = false;
    while (!e->stopping) {
        struct command *c = can_step ? mailbox_try_take(e->box) : mailbox_take(e->box, -1);
        for (; c; c = mailbox_try_take(e->box)) run_command(e, c);
        if (e->stopping) break;
        can_step = engine_admit(e);
        publish(e);
        if (!can_step) continue;
        engine_step(e);
    }
    for (struct command *c; (c = mailbox_try_take(e->box));) run_command(e, c);
    while (e->seqs.n > 0)
        engine_finish(e, e->seqs.order[e->seqs.n - 1], FINISH_CANCELLED, ERR_CANCELLED, "the engine stops");
    publish(e);
    return NULL;
}

static enum status check_options(const struct engine_options *opt, struct error *err)
{
    if (opt->max_seqs == 0 || opt->max_commands == 0)
        return error_set(err, ERR_INVALID, "max_seqs is %u and max_commands %u, both must be positive", opt->max_seqs,
                         opt->max_commands);
    if (opt->max_batch_tokens < opt->max_seqs + KV_BLOCK_TOKENS)
        return error_set(err, ERR_INVALID,
                         "max_batch_tokens is %u, at least max_seqs + %u = %u are needed so that "
                         "prompts go on beside a full batch of decoding sequences",
                         opt->max_batch_tokens, KV_BLOCK_TOKENS, opt->max_seqs + KV_BLOCK_TOKENS);
    if (opt->chunk_tokens < KV_BLOCK_TOKENS)
        return error_set(err, ERR_INVALID, "chunk_tokens is %u, at least a block of %u is needed", opt->chunk_tokens,
                         KV_BLOCK_TOKENS);
    if (opt->max_context == 0 || opt->max_context > model_info(opt->model)->context_length)
        return error_set(err, ERR_INVALID, "max_context is %u, allowed is 1 to %u", opt->max_context,
                         model_info(opt->model)->context_length);
    return OK;
}

/* What a position costs a row in attention, in parts of what the row costs in all matrices but the head. */
static double attention_share(const struct model_info *i)
{
    return i->position_macs / i->row_macs;
}

static void put_in_tier(void *ctx, const struct prefix_hash *hash, kv_block_id id)
{
    kv_tier_put(ctx, hash, id);
}

static void put_window_in_tier(void *ctx, const struct prefix_hash *hash, kv_block_id id)
{
    kv_tier_put_thing(ctx, KV_TIER_WINDOW_BLOCK, hash, id);
}

static void put_state_in_tier(void *ctx, const struct prefix_hash *hash, kv_block_id slot)
{
    kv_tier_put_thing(ctx, KV_TIER_STATE, hash, slot);
}

static enum status post(struct engine *e, const struct command *c)
{
    struct command *msg = mem_alloc(sizeof(*msg));
    *msg = *c;
    enum status st = mailbox_post(e->box, msg);
    if (st != OK) mem_free(msg);
    return st;
}

/* From any thread.  A full mailbox wakes the engine as well. */
static void wake(void *ctx)
{
    (void)post(ctx, &(struct command){ .kind = CMD_WAKE });
}

static enum status start_tier(struct engine *e, const struct engine_options *opt, struct error *err)
{
    const struct kv_tier_options tier = { .ram_bytes = opt->tier_bytes,
                                          .path = opt->tier_path,
                                          .disk_bytes = opt->tier_disk_bytes,
                                          .other_bytes = opt->swap_bytes,
                                          .io = opt->tier_io,
                                          .on_read = wake,
                                          .ctx = e };
    const bool has_path = opt->tier_path && opt->tier_path[0];
    if (opt->tier_bytes == 0 && opt->tier_disk_bytes == 0 && !has_path) return OK;
    if (!e->prefix)
        return error_set(err, ERR_INVALID,
                         "kv.tier_bytes: a tier keeps what the prefix cache knows, and "
                         "kv.prefix_cache is off");
    if (kv_store_block_bytes(opt->kv) == 0)
        return error_set(err, ERR_INVALID, "kv.tier_bytes: a tier keeps KV, and the model has recurrent states alone");
    enum status st = kv_tier_create(&e->tier, opt->kv, &tier, err);
    if (st != OK) return st;
    prefix_cache_on_evict(e->prefix, put_in_tier, e->tier);
    if (e->windows) prefix_cache_on_evict(e->windows->cache, put_window_in_tier, e->tier);
    if (e->states) state_pool_on_evict(e->states, put_state_in_tier, e->tier);
    return OK;
}

/* Everything but the thread. */
static enum status prepare(struct engine *e, const struct engine_options *opt, struct error *err)
{
    enum status st;
    uint32_t cap = opt->max_seqs + opt->max_commands;
    e->opt = *opt;
    e->opt.end_ids = NULL; /* borrowed; the sampler has a copy */
    e->opt.cache_secret = e->opt.tier_path = NULL;
    e->prefix_of_model =
        prefix_hash_cluster(model_info(opt->model)->fingerprint, opt->cache_secret ? opt->cache_secret : "");
    e->n_vocab = model_info(opt->model)->n_vocab;
    e->sampler = sampler_create(e->n_vocab, opt->end_ids, opt->n_end_ids);
    seq_set_init(&e->seqs, cap);
    step_batch_init(&e->batch, opt->max_batch_tokens, opt->max_seqs);
    e->asks = mem_array(MODEL_MAX_LOGIT_ROWS, sizeof(*e->asks));
    e->picked = mem_array(MODEL_MAX_LOGIT_ROWS, sizeof(*e->picked));
    e->hidden = mem_array((size_t)MODEL_MAX_LOGIT_ROWS * model_info(opt->model)->d_model, sizeof(*e->hidden));
    e->running = mem_array(cap, sizeof(struct seq *));
    e->plan_in = mem_array(cap, sizeof(*e->plan_in));
    e->victims = mem_array(cap, sizeof(*e->victims));
    e->plan_rows = mem_array(cap, sizeof(*e->plan_rows));
    if ((st = kv_pool_create(&e->pool, opt->kv->n_blocks)) != OK)
        return error_set(err, st, "cannot make a pool of %u KV blocks", opt->kv->n_blocks);
    if (opt->prefix_cache && (st = prefix_cache_create(&e->prefix, e->pool)) != OK)
        return error_set(err, st, "cannot make a prefix cache of %u KV blocks", opt->kv->n_blocks);
    if ((st = engine_open_states(e, err)) != OK || (st = engine_open_windows(e, err)) != OK) return st;
    if ((st = mailbox_create(&e->box, opt->max_commands + 1)) != OK) /* + 1: stop always fits in the end */
        return error_set(err, st, "cannot make a mailbox of %u commands", opt->max_commands);
    e->cost.position = attention_share(model_info(opt->model));
    if ((st = swap_create(&e->swap, opt->kv, opt->swap_bytes, err)) != OK) return st;
    return start_tier(e, opt, err);
}

static void free_engine(struct engine *e)
{
    kv_tier_destroy(e->tier); /* posts no more */
    for (void *c; e->box && (c = mailbox_try_take(e->box));) mem_free(c);
    mailbox_destroy(e->box);
    prefix_cache_destroy(e->prefix);
    swap_destroy(e->swap);
    state_pool_destroy(e->states);
    windows_destroy(e->windows);
    kv_pool_destroy(e->pool);
    sampler_destroy(e->sampler);
    step_batch_fini(&e->batch);
    seq_set_fini(&e->seqs);
    mem_free(e->asks);
    mem_free(e->picked);
    mem_free(e->hidden);
    mem_free(e->running);
    mem_free(e->plan_in);
    mem_free(e->victims);
    mem_free(e->plan_rows);
    kv_store_destroy(e->kv);
    model_close(e->model);
    mem_free(e);
}

enum status engine_create(struct engine **out, const struct engine_options *opt, struct error *err)
{
    enum status st = check_options(opt, err);
    if (st != OK) return st;
    struct engine *e = mem_zalloc(sizeof(*e));
    if ((st = prepare(e, opt, err)) != OK) goto fail;
    e->model = opt->model;
    e->kv = opt->kv;
    if (pthread_create(&e->thread, NULL, engine_main, e) != 0) {
        st = error_set(err, ERR_NO_MEMORY, "cannot start the engine's thread");
        e->model = NULL; /* stay with the caller */
        e->kv = NULL;
        goto fail;
    }
    pthread_setname_np(e->thread, "engine");
    *out = e;
    return OK;
fail:
    free_engine(e);
    return st;
}

void engine_destroy(struct engine *e)
{
    if (!e) return;
    struct command *stop = mem_zalloc(sizeof(*stop));
    stop->kind = CMD_STOP;
    if (mailbox_post_wait(e->box, stop) != OK) mem_free(stop); /* nobody closes it */
    pthread_join(e->thread, NULL);
    free_engine(e);
}

/* What fits an empty pool can always go on in the end; what does not never could. */
static enum status check_room(const struct engine *e, uint32_t n_blocks)
{
    const struct kv_runs runs = e->kv->runs;
    const uint32_t n_windows = e->windows ? engine_windows_of(e, n_blocks, false) : 0;
    if (n_windows > 0 && n_windows > kv_pool_n_blocks(e->windows->pool)) return ERR_NO_BLOCKS;
    uint64_t all = n_blocks + (uint64_t)n_windows * runs.window + runs.slot;
    if (runs.window > 0 && runs.slot > 0) all += 2 * (uint64_t)runs.window; /* runs of both lie apart */
    return all > e->kv->n_blocks ? ERR_NO_BLOCKS : OK;
}

static enum status check_request(const struct engine *e, const struct seq_request *r)
{
    if (r->mode != ENGINE_PREFILL_ONLY && r->mode != ENGINE_RESERVE && r->mode != ENGINE_GENERATE) return ERR_INVALID;
    if (r->n_prompt == 0 || r->n_tokens < r->n_prompt) return ERR_INVALID;
    if (r->adapter != 0) return ERR_UNSUPPORTED;
    enum status st = sampling_check(&r->sampling, NULL);
    if (st != OK) return st;
    if ((uint64_t)r->n_prompt + r->sampling.max_tokens > e->opt.max_context) return ERR_CONTEXT_LENGTH;
    if (r->n_tokens - r->n_prompt >= r->sampling.max_tokens) return ERR_INVALID; /* nothing is left */
    for (uint32_t i = 0; i < r->n_tokens; i++)
        if (!token_id_ok(r->tokens[i], e->n_vocab)) return ERR_INVALID;
    for (uint32_t i = 0; i < r->sampling.n_bias; i++)
        if (!token_id_ok(r->sampling.bias_ids[i], e->n_vocab)) return ERR_INVALID;
    return check_room(e, seq_blocks_max(r));
}

enum status engine_submit(struct engine *e, const struct seq_request *r)
{
    enum status st = check_request(e, r);
    if (st != OK) return st;
    if (atomic_fetch_add_explicit(&e->n_live, 1, memory_order_relaxed) >= e->seqs.cap) {
        st = ERR_FULL;
        goto refuse;
    }
    struct command c = { .kind = CMD_SUBMIT, .key = r->key };
    if ((st = seq_create(&c.seq, r)) != OK) goto refuse;
    c.seq->prefix.cache = e->prefix;
    c.seq->states = e->states;
    c.seq->windows = e->windows;
    c.seq->prefix.root = seq_prefix_root(&e->prefix_of_model, r->adapter, r->cache_salt);
    if ((st = post(e, &c)) == OK) return OK;
    seq_destroy(c.seq);
refuse:
    atomic_fetch_sub_explicit(&e->n_live, 1, memory_order_relaxed);
    return st;
}

enum status engine_receiving(struct engine *e, const struct seq_key *key)
{
    return post(e, &(struct command){ .kind = CMD_RECEIVING, .key = *key });
}

enum status engine_start_decode(struct engine *e, const struct seq_key *key, int32_t first_token)
{
    if (!token_id_ok(first_token, e->n_vocab)) return ERR_INVALID;
    return post(e, &(struct command){ .kind = CMD_START_DECODE, .key = *key, .first_token = first_token });
}

enum status engine_start_prefill(struct engine *e, const struct seq_key *key)
{
    return post(e, &(struct command){ .kind = CMD_START_PREFILL, .key = *key });
}

enum status engine_rebind(struct engine *e, const struct seq_key *key, uint32_t new_epoch)
{
    return post(e, &(struct command){ .kind = CMD_REBIND, .key = *key, .new_epoch = new_epoch });
}

enum status engine_withdraw(struct engine *e, const struct seq_key *key)
{
    return post(e, &(struct command){ .kind = CMD_WITHDRAW, .key = *key });
}

enum status engine_release(struct engine *e, const struct seq_key *key)
{
    return post(e, &(struct command){ .kind = CMD_RELEASE, .key = *key });
}

enum status engine_cancel(struct engine *e, const struct seq_key *key)
{
    return post(e, &(struct command){ .kind = CMD_CANCEL, .key = *key });
}

/* Index, or -1. */
static int find_paused(const struct engine *e, uint64_t hi)
{
    for (int i = 0; i < ENGINE_MAX_PAUSED; i++)
        if (atomic_load_explicit(&e->paused[i], memory_order_relaxed) == hi) return i;
    return -1;
}

bool engine_is_paused(const struct engine *e, uint64_t hi)
{
    return hi && find_paused(e, hi) >= 0;
}

void engine_pause(struct engine *e, uint64_t hi, bool pause)
{
    int at = find_paused(e, hi);
    if (!hi || (at >= 0) == pause) return;
    if (pause) at = find_paused(e, 0);
    if (at < 0) return;
    atomic_store_explicit(&e->paused[at], pause ? hi : 0, memory_order_relaxed);
    if (!pause) wake(e);
}

void engine_load(struct engine *e, struct engine_load *out)
{
    *out = (struct engine_load){
        .n_running = atomic_load_explicit(&e->n_running, memory_order_relaxed),
        .n_waiting = atomic_load_explicit(&e->n_waiting, memory_order_relaxed),
        .n_reserved = atomic_load_explicit(&e->n_reserved, memory_order_relaxed),
        .known = { atomic_load_explicit(&e->n_known, memory_order_relaxed),
                   atomic_load_explicit(&e->n_known_in_windows, memory_order_relaxed) },
        .computed = { atomic_load_explicit(&e->n_computed, memory_order_relaxed),
                      atomic_load_explicit(&e->n_computed_in_windows, memory_order_relaxed) },
        .prefill_tokens = atomic_load_explicit(&e->prefill_tokens, memory_order_relaxed),
        .decode_tokens = atomic_load_explicit(&e->decode_tokens, memory_order_relaxed),
        .prefix_queries = atomic_load_explicit(&e->prefix_queries, memory_order_relaxed),
        .prefix_hits = atomic_load_explicit(&e->prefix_hits, memory_order_relaxed),
        .swapped_blocks = atomic_load_explicit(&e->swapped_blocks, memory_order_relaxed),
        .steps = atomic_load_explicit(&e->steps, memory_order_relaxed),
        .prefill_tok_s = atomic_load_explicit(&e->prefill_tok_s, memory_order_relaxed),
        .decode_tok_s = atomic_load_explicit(&e->decode_tok_s, memory_order_relaxed),
        .step_us_max = atomic_exchange_explicit(&e->step_us_max, 0, memory_order_relaxed),
    };
    for (int k = 0; k < PREEMPT_KIND_COUNT; k++)
        out->preemptions[k] = atomic_load_explicit(&e->preemptions[k], memory_order_relaxed);
    if (e->tier) kv_tier_stats(e->tier, &out->tier);
    kv_pool_counts(e->pool, out->blocks);
    if (e->states) out->states = state_pool_counts(e->states);
}

struct kv_store *engine_kv(struct engine *e)
{
    return e->kv;
}

const struct model *engine_model(const struct engine *e)
{
    return e->model;
}

/* prefill.c - the role of a prefill node.
 *
 * A job:  Prefill -> JOB_RUNNING (engine computes, kv_send streams) -> token 0 is out and all is stored:
 * PrefillDone -> JOB_ENDING -> the engine has let go: removed.  Cancel, failure and a lost coordinator go
 * to JOB_ENDING at once.  The sender lets go first, then the engine: nobody reads blocks that are free. */
#include "prefill_node/prefill.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#define PROGRESS_TIMEOUT_MS 5000

struct prefill {
    struct node *node;
    struct jobs *jobs;
    struct kv_send *send;
};

static enum status prefill_open(struct node *n, void **state, struct error *err)
{
    const struct loaded_model *m = node_model(n);
    struct prefill *p = mem_zalloc(sizeof(*p));
    const struct kv_send_options opt = {
        .node = node_config(n)->self->name,
        .incarnation = node_incarnation(n),
        .geometry = &m->geometry,
        .map = m->kv_map,
        .frame_bytes = node_config(n)->cfg.kv.frame_bytes,
        .progress_timeout_ms = PROGRESS_TIMEOUT_MS,
        .metrics = node_metrics(n),
        .on_event = node_post_kv_send,
        .ctx = n,
    };
    enum status st;

    p->node = n;
    p->jobs = node_jobs(n);
    if ((st = kv_send_open(&p->send, &opt, err)) != OK) {
        mem_free(p);
        return st;
    }
    *state = p;
    return OK;
}

static void prefill_stop(void *state)
{
    kv_send_stop(((struct prefill *)state)->send);
}

static void prefill_close(void *state)
{
    struct prefill *p = state;
    kv_send_destroy(p->send);
    mem_free(p);
}

static void prefill_describe(void *state, Baton__Control__Register *hello)
{
    (void)state, (void)hello;
}

static struct kv_metrics *prefill_kv_metrics(void *state)
{
    return kv_send_metrics(((struct prefill *)state)->send);
}

/* KV goes straight to the sender's thread, and so does token 0, which follows the last KV. */
static bool on_engine_thread(void *state, const struct engine_event *ev)
{
    struct prefill *p = state;

    if (ev->kind == ENGINE_KV) {
        kv_send_piece(p->send, &ev->key, ev->layer0, ev->layer1, ev->t0, ev->t1, ev->blocks + ev->t0 / KV_BLOCK_TOKENS,
                      &ev->written);
        if (ev->window_blocks)
            kv_send_window(p->send, &ev->key, ev->layer0, ev->layer1, ev->t0, ev->t1,
                           ev->window_blocks + ev->t0 / KV_BLOCK_TOKENS, &ev->written);
        if (ev->state != STATE_SLOT_NONE)
            kv_send_states(p->send, &ev->key, ev->layer0, ev->layer1, ev->t1, ev->state, &ev->written);
        return true;
    }
    if (ev->kind == ENGINE_TOKEN && ev->finish == FINISH_NONE) kv_send_commit(p->send, &ev->key, ev->token);
    return false;
}

static void remove_if_over(struct prefill *p, struct job *j)
{
    if (!j->in_engine && !j->in_sender) jobs_remove(p->jobs, j);
}

/* To JOB_ENDING: the sender first. */
static void end(void *ctx, struct job *j)
{
    struct prefill *p = ctx;

    if (j->state == JOB_ENDING) return;
    j->state = JOB_ENDING;
    j->silent = true;
    if (j->in_sender)
        kv_send_end(p->send, &j->key, !j->ended);
    else
        job_command(j, node_engine(p->node), JOB_WANT_CANCEL);
    remove_if_over(p, j);
}

static void fail(struct prefill *p, struct job *j, enum status st, const char *message)
{
    if (j->state == JOB_RUNNING) job_send_failed(p->jobs, j, st, message, false);
    end(p, j);
}

static void begin_transfer(struct prefill *p, struct job *j, const Baton__Control__Prefill *m)
{
    const struct kv_send_job job = {
        .key = j->key,
        .reservation = m->reservation,
        .decode_node = m->decode_node,
        .endpoints = (const char *const *)m->kv_endpoints,
        .n_endpoints = (uint32_t)m->n_kv_endpoints,
        .credit_bytes = m->credit_bytes,
        .n_tokens = j->n_tokens,
        .hit_tokens = m->hit_tokens,
    };
    kv_send_begin(p->send, &job);
    j->in_sender = true;
}

static enum status check_prefill(const struct prefill *p, const Baton__Control__Prefill *m, const struct seq_request *r,
                                 struct error *err)
{
    const uint32_t n = jobs_active(p->jobs), max = node_config(p->node)->self->max_seqs;
    if (node_is_draining(p->node)) return error_set(err, ERR_UNAVAILABLE, "the node is draining");
    if (m->n_kv_endpoints == 0 || m->n_kv_endpoints > 64)
        return error_set(err, ERR_INVALID, "%zu KV endpoints", m->n_kv_endpoints);
    if (m->hit_tokens % KV_BLOCK_TOKENS || m->hit_tokens >= r->n_tokens)
        return error_set(err, ERR_INVALID, "a prefix hit of %u of %u tokens", m->hit_tokens, r->n_tokens);
    if (n >= max) return error_set(err, ERR_FULL, "%u of %u sequences are here", n, max);
    return OK;
}

static void on_prefill(struct prefill *p, struct link *l, const Baton__Control__Prefill *m)
{
    struct seq_request r;
    struct error err;
    struct job *j;
    enum status st;

    if (!m || !m->job || !m->job->request) return;
    st = job_request_of(&r, m->job, ENGINE_PREFILL_ONLY, link_incarnation(l), &err);
    if (st == OK && jobs_find(p->jobs, &r.key)) return; /* said twice */
    if (st == OK) st = check_prefill(p, m, &r, &err);
    if (st == OK && !(j = jobs_add(p->jobs, l, &r))) st = error_set(&err, ERR_FULL, "%d jobs are here", JOBS_MAX);
    if (st != OK) {
        link_send_failed(l, m->job->request->counter, m->job->epoch, st, err.text);
        return;
    }
    j->state = JOB_RUNNING;
    begin_transfer(p, j, m);
    st = engine_submit(node_engine(p->node), &r);
    j->in_engine = st == OK;
    if (st != OK) fail(p, j, st, "the engine does not take the prompt");
}

/* Lanes are opened now, so that no request waits for them. */
static void on_peers(struct prefill *p, struct link *l, const Baton__Control__Peers *m)
{
    size_t n = m ? m->n_peers : 0;
    struct kv_links_peer *peers = mem_array(n, sizeof(*peers));

    for (size_t i = 0; i < n; i++)
        peers[i] = (struct kv_links_peer){ m->peers[i]->node, (const char *const *)m->peers[i]->kv_endpoints,
                                           (uint32_t)m->peers[i]->n_kv_endpoints };
    kv_send_peers(p->send, link_incarnation(l), peers, (uint32_t)n);
    mem_free(peers);
}

static void on_message(void *state, struct link *l, const Baton__Control__ControlMessage *m)
{
    struct prefill *p = state;

    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL)
        on_prefill(p, l, m->prefill);
    else if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL)
        jobs_cancel(p->jobs, l, m->cancel, end, p);
    else if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_PEERS)
        on_peers(p, l, m->peers);
    else
        log_debug("message_ignored", "kind=%d", (int)m->body_case);
}

/* Token 0 and STORED come from two threads, in any order; PrefillDone is said after both. */
static void complete(struct prefill *p, struct job *j)
{
    if (j->state != JOB_RUNNING || !j->token_us || !j->is_sent) return;
    job_send_prefill_done(p->jobs, j, j->token_us - j->start_us, FINISH_NONE);
    j->state = JOB_ENDING;
    j->silent = true;
    job_command(j, node_engine(p->node), JOB_WANT_RELEASE);
}

static void on_token(struct prefill *p, struct job *j, const struct engine_event *ev)
{
    if (j->state != JOB_RUNNING) return;
    j->token_us = clock_now_us();
    if (ev->prefill_us) j->start_us = j->token_us - ev->prefill_us;
    job_add_token(p->jobs, j, ev);
    if (ev->finish == FINISH_NONE) {
        complete(p, j);
        return;
    }
    j->ended = ev->finish;
    job_send_prefill_done(p->jobs, j, j->token_us - j->start_us, ev->finish);
    end(p, j);
}

static void on_done(struct prefill *p, struct job *j, const struct engine_event *ev)
{
    j->in_engine = false;
    if (j->state == JOB_RUNNING)
        fail(p, j, ev->status ? ev->status : ERR_INTERNAL, ev->message);
    else
        remove_if_over(p, j);
}

static void on_engine(struct prefill *p, const struct engine_event *ev)
{
    struct job *j = jobs_find(p->jobs, &ev->key);

    if (!j) return;
    switch (ev->kind) {
    case ENGINE_TOKEN: on_token(p, j, ev); break;
    case ENGINE_PROGRESS: job_send_computed(j, ev); break;
    case ENGINE_PROMPT_LOGPROBS: job_add_prompt_logprobs(p->jobs, j, ev); break;
    case ENGINE_DONE: on_done(p, j, ev); break;
    case ENGINE_GONE:
        if (ev->status == ERR_STALE)
            job_command(j, node_engine(p->node), JOB_WANT_CANCEL);
        else
            on_done(p, j, ev);
        break;
    default: break;
    }
}

static void on_kv_send(struct prefill *p, const struct kv_send_event *ev)
{
    struct job *j = jobs_find(p->jobs, &ev->key);

    if (!j || !j->in_sender) return;
    j->in_sender = false;
    if (j->state == JOB_ENDING) {
        job_command(j, node_engine(p->node), JOB_WANT_CANCEL);
        remove_if_over(p, j);
    } else if (ev->kind == KV_SEND_DONE) {
        j->is_sent = true;
        j->kv_bytes = ev->bytes;
        j->handoff_us = ev->handoff_us;
        complete(p, j);
    } else {
        log_warn_limited("handoff_failed", "req=%016llx-%llu epoch=%u status=%s reason=%s",
                         (unsigned long long)ev->key.hi, (unsigned long long)ev->key.lo, ev->key.epoch,
                         status_text(ev->status), log_quote(ev->message ? ev->message : ""));
        fail(p, j, status_from_peer(ev->status), ev->message);
    }
}

static void on_event(void *state, const struct node_event *ev)
{
    if (ev->kind == NODE_ENGINE) on_engine(state, &ev->engine);
    if (ev->kind == NODE_KV_SEND) on_kv_send(state, &ev->send);
}

struct lost {
    struct prefill *p;
    uint64_t incarnation;
};

static void end_if_lost(void *ctx, struct job *j)
{
    struct lost *lost = ctx;
    if (j->key.hi != lost->incarnation) return;
    j->silent = true;
    end(lost->p, j);
}

static void on_coordinator_lost(void *state, uint64_t incarnation)
{
    struct lost lost = { state, incarnation };
    jobs_each(lost.p->jobs, end_if_lost, &lost);
    kv_send_peers(lost.p->send, lost.incarnation, NULL, 0);
}

const struct node_role prefill_role = {
    .config = CONFIG_PREFILL,
    .role = BATON__CONTROL__ROLE__PREFILL,
    .program = "baton-prefill",
    .open = prefill_open,
    .stop = prefill_stop,
    .close = prefill_close,
    .describe = prefill_describe,
    .on_message = on_message,
    .on_event = on_event,
    .on_engine_thread = on_engine_thread,
    .on_coordinator_lost = on_coordinator_lost,
    .kv_metrics = prefill_kv_metrics,
};

/* decode.c - the role of a decode node.
 *
 * A job:  Reserve -> JOB_ASKED -> the engine has blocks: Reserved -> JOB_WAITING (for KV) -> all is stored: JOB_RUNNING
 * -> the engine is done: Finished, removed.  With local prefill JOB_ASKED -> JOB_RUNNING.  A failed hand-off leaves
 * JOB_WAITING with its blocks; Rebind takes it back to JOB_ASKED under a new epoch.  Receive threads are fenced
 * (kv_inbox_close) before the engine is told anything that could free blocks. */
#include "decode_node/decode.h"

#include "base/host_port.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/random.h"

#include <assert.h>
#include <string.h>

#define MIN_CREDIT KV_WIRE_FRAME_MAX /* any frame fits an empty window */

struct decode {
    struct node *node;
    struct jobs *jobs;
    struct kv_recv *recv;
    struct kv_inbox *inbox;
    char **endpoints; /* what senders are told, one per lane */
};

/* kv_advertise names lane 0's endpoint as senders see it.  Port 0: the one that is bound.  The configuration has been
 * checked for both. */
static char *advertised(const char *endpoint, uint32_t lane, const char *bound)
{
    struct host_port own;
    char buf[512];
    const bool fine = host_port_split(bound, &own) && host_port_lane(buf, sizeof(buf), endpoint, lane, own.lo);

    assert(fine);
    return mem_strdup(buf);
}

static enum status decode_open(struct node *n, void **state, struct error *err)
{
    const struct loaded_model *m = node_model(n);
    const struct config_node *self = node_config(n)->self;
    struct decode *d = mem_zalloc(sizeof(*d));
    const struct kv_recv_options opt = {
        .endpoint = self->kv,
        .n_lanes = node_config(n)->cfg.kv.lanes,
        .node = self->name,
        .incarnation = node_incarnation(n),
        .geometry = &m->geometry,
        .map = m->kv_map,
        .metrics = node_metrics(n),
        .on_event = node_post_kv_recv,
        .ctx = n,
    };
    enum status st = kv_recv_open(&d->recv, &opt, err);

    if (st != OK) {
        mem_free(d);
        return st;
    }
    d->node = n;
    d->jobs = node_jobs(n);
    d->inbox = kv_recv_inbox(d->recv);
    d->endpoints = mem_array(opt.n_lanes, sizeof(char *));
    for (uint32_t i = 0; i < opt.n_lanes; i++) {
        const char *bound = kv_recv_endpoint(d->recv, i);
        d->endpoints[i] = self->kv_advertise[0] ? advertised(self->kv_advertise, i, bound) : mem_strdup(bound);
    }
    *state = d;
    return OK;
}

static void decode_stop(void *state)
{
    kv_recv_stop(((struct decode *)state)->recv);
}

static void decode_close(void *state)
{
    struct decode *d = state;
    for (uint32_t i = 0; i < kv_recv_n_lanes(d->recv); i++) mem_free(d->endpoints[i]);
    mem_free(d->endpoints);
    kv_recv_close(d->recv);
    mem_free(d);
}

static void decode_describe(void *state, Baton__Control__Register *hello)
{
    struct decode *d = state;
    hello->n_kv_endpoints = kv_recv_n_lanes(d->recv);
    hello->kv_endpoints = d->endpoints;
    hello->local_prefill = node_config(d->node)->self->local_prefill;
}

static struct kv_metrics *decode_kv_metrics(void *state)
{
    return kv_recv_metrics(((struct decode *)state)->recv);
}

static bool on_engine_thread(void *state, const struct engine_event *ev)
{
    (void)state;
    return ev->kind == ENGINE_KV; /* a local prefill's KV is where it belongs */
}

/* To JOB_ENDING: the receive threads first. */
static void end(void *ctx, struct job *j)
{
    struct decode *d = ctx;

    if (j->state == JOB_ENDING) return;
    j->state = JOB_ENDING;
    j->silent = true;
    kv_inbox_close(d->inbox, &j->key);
    job_command(j, node_engine(d->node), JOB_WANT_CANCEL);
    if (!j->in_engine) jobs_remove(d->jobs, j);
}

static void fail(struct decode *d, struct job *j, enum status st, const char *message)
{
    if (j->state != JOB_ENDING) job_send_failed(d->jobs, j, st, message, false);
    end(d, j);
}

static uint64_t first_credit(const struct decode *d, const struct job *j, uint32_t hit_tokens)
{
    uint64_t all = kv_cover_expected_bytes(&node_model(d->node)->geometry, j->n_tokens, hit_tokens);
    uint64_t credit = node_config(d->node)->cfg.kv.credit_bytes;

    if (credit < MIN_CREDIT) credit = MIN_CREDIT;
    return credit < all ? credit : all;
}

/* What cannot run now waits at the coordinator, which may find it another node. */
static enum status check_reserve(const struct decode *d, const Baton__Control__Reserve *m, struct error *err)
{
    const uint32_t n = jobs_active(d->jobs), max = node_config(d->node)->self->max_seqs;
    if (node_is_draining(d->node)) return error_set(err, ERR_UNAVAILABLE, "the node is draining");
    if (m->local_prefill && strcmp(node_config(d->node)->self->local_prefill, "never") == 0)
        return error_set(err, ERR_UNAVAILABLE, "local_prefill is never here");
    if (n >= max) return error_set(err, ERR_FULL, "%u of %u sequences are here", n, max);
    return OK;
}

static void on_reserve(struct decode *d, struct link *l, const Baton__Control__Reserve *m)
{
    struct seq_request r;
    struct error err;
    struct job *j;
    enum status st;

    if (!m || !m->job || !m->job->request) return;
    st = job_request_of(&r, m->job, ENGINE_RESERVE, link_incarnation(l), &err);
    if (st == OK && jobs_find(d->jobs, &r.key)) return; /* said twice */
    if (st == OK) st = check_reserve(d, m, &err);
    if (st == OK && !(j = jobs_add(d->jobs, l, &r))) st = error_set(&err, ERR_FULL, "%d jobs are here", JOBS_MAX);
    if (st == OK && (st = engine_submit(node_engine(d->node), &r)) != OK) {
        error_set(&err, st, "the engine does not take the request (%s)", status_text(st));
        jobs_remove(d->jobs, j);
    }
    if (st != OK) {
        link_send_failed(l, m->job->request->counter, m->job->epoch, st, err.text);
        return;
    }
    j->state = JOB_ASKED;
    j->in_engine = true;
    j->local = m->local_prefill;
}

static void on_rebind(struct decode *d, struct link *l, const Baton__Control__Rebind *m)
{
    struct seq_key old;
    struct job *j;
    enum status st;

    if (!m || !m->request || m->request->incarnation != link_incarnation(l)) return;
    old = (struct seq_key){ m->request->incarnation, m->request->counter, m->old_epoch };
    if (jobs_find(d->jobs, &(struct seq_key){ old.hi, old.lo, m->new_epoch })) return; /* said twice */
    j = jobs_find(d->jobs, &old);
    if (!j || m->new_epoch <= m->old_epoch || (j->state != JOB_WAITING && j->state != JOB_ASKED)) {
        link_send_failed(l, old.lo, m->new_epoch, j ? ERR_STALE : ERR_NOT_FOUND,
                         j ? "the reservation is in use or over" : "there is no such reservation");
        if (j) end(d, j);
        return;
    }
    kv_inbox_close(d->inbox, &old);
    st = engine_rebind(node_engine(d->node), &old, m->new_epoch);
    if (st != OK) {
        link_send_failed(l, old.lo, m->new_epoch, st, "the engine is busy");
        end(d, j);
        return;
    }
    jobs_set_epoch(d->jobs, j, m->new_epoch);
    j->rebound_from = m->old_epoch;
    j->state = JOB_ASKED;
    j->local = m->local_prefill;
}

static void on_peers(struct decode *d, struct link *l, const Baton__Control__Peers *m)
{
    size_t n = m ? m->n_peers : 0;
    uint64_t *incarnations = mem_array(n, sizeof(*incarnations));

    for (size_t i = 0; i < n; i++) incarnations[i] = m->peers[i]->incarnation;
    kv_recv_told(d->recv, link_incarnation(l), incarnations, (uint32_t)n);
    mem_free(incarnations);
}

static void on_message(void *state, struct link *l, const Baton__Control__ControlMessage *m)
{
    struct decode *d = state;

    switch (m->body_case) {
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVE: on_reserve(d, l, m->reserve); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_REBIND: on_rebind(d, l, m->rebind); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_CANCEL: jobs_cancel(d->jobs, l, m->cancel, end, d); break;
    case BATON__CONTROL__CONTROL_MESSAGE__BODY_PEERS: on_peers(d, l, m->peers); break;
    default: log_debug("message_ignored", "kind=%d", (int)m->body_case);
    }
}

static void on_reserved(struct decode *d, struct job *j, const struct engine_event *ev)
{
    enum status st;

    if (j->state != JOB_ASKED) return;
    j->rebound_from = 0;
    j->reservation = random_id();
    if (j->local) {
        job_send_reserved(j, 0, ev->cached_tokens);
        st = engine_start_prefill(node_engine(d->node), &j->key);
        j->state = JOB_RUNNING;
    } else {
        const struct kv_offer offer = { .key = j->key,
                                        .reservation = j->reservation,
                                        .blocks = ev->blocks,
                                        .n_blocks = ev->n_blocks,
                                        .n_tokens = j->n_tokens,
                                        .hit_tokens = ev->cached_tokens,
                                        .credit_bytes = first_credit(d, j, ev->cached_tokens),
                                        .window_blocks = ev->window_blocks,
                                        .slot = ev->state };
        st = kv_inbox_add(d->inbox, &offer);
        j->state = JOB_WAITING;
        if (st == OK) job_send_reserved(j, offer.credit_bytes, offer.hit_tokens);
    }
    if (st != OK) fail(d, j, st, "the reservation cannot be used");
}

static void on_token(struct decode *d, struct job *j, const struct engine_event *ev)
{
    if (j->state != JOB_RUNNING) return;
    j->n_output = ev->output_idx + 1;
    job_add_token(d->jobs, j, ev);
}

static void on_done(struct decode *d, struct job *j, const struct engine_event *ev)
{
    bool finished = ev->kind == ENGINE_DONE && finish_is_answer(ev->finish);

    j->in_engine = false;
    kv_inbox_close(d->inbox, &j->key);
    if (j->state != JOB_ENDING && finished)
        job_send_finished(d->jobs, j, ev);
    else if (j->state != JOB_ENDING)
        job_send_failed(d->jobs, j, ev->status ? ev->status : ERR_INTERNAL, ev->message, false);
    jobs_remove(d->jobs, j);
}

/* A Rebind met a sequence that was over, or past its reservation: the job already has its new epoch.  It takes the old
 * one back, under which the engine knows what may be left, and ends. */
static void on_gone_before_rebind(struct decode *d, const struct engine_event *ev)
{
    struct job *j = jobs_find_rebound(d->jobs, &ev->key);

    if (!j) return;
    job_send_failed(d->jobs, j, ERR_STALE, "the reservation is over", false);
    jobs_set_epoch(d->jobs, j, ev->key.epoch);
    j->in_engine = ev->status == ERR_STALE;
    end(d, j);
}

static void on_engine(struct decode *d, const struct engine_event *ev)
{
    struct job *j = jobs_find(d->jobs, &ev->key);

    if (!j) {
        if (ev->kind == ENGINE_GONE) on_gone_before_rebind(d, ev);
        return;
    }
    switch (ev->kind) {
    case ENGINE_RESERVED: on_reserved(d, j, ev); break;
    case ENGINE_TOKEN: on_token(d, j, ev); break;
    case ENGINE_PROGRESS: job_send_computed(j, ev); break;
    case ENGINE_PROMPT_LOGPROBS: job_add_prompt_logprobs(d->jobs, j, ev); break;
    case ENGINE_DONE: on_done(d, j, ev); break;
    case ENGINE_GONE:
        if (ev->status == ERR_STALE)
            job_command(j, node_engine(d->node), JOB_WANT_CANCEL);
        else
            on_done(d, j, ev);
        break;
    default: break;
    }
}

static void on_stored(struct decode *d, struct job *j, const struct kv_recv_event *ev)
{
    enum status st;

    kv_inbox_close(d->inbox, &j->key);
    st = engine_start_decode(node_engine(d->node), &j->key, ev->first_token);
    if (st != OK) {
        fail(d, j, st, "the engine does not take the first token");
        return;
    }
    j->state = JOB_RUNNING;
    j->n_output++; /* the prefill node has sent it */
    j->kv_bytes = ev->bytes;
    job_send_progress(j, BATON__CONTROL__STAGE__COMMITTED, ev->n_tokens, ev->bytes);
}

static void on_kv_recv(struct decode *d, const struct kv_recv_event *ev)
{
    struct job *j = jobs_find(d->jobs, &ev->key);

    if (!j || j->state != JOB_WAITING) return; /* of an epoch that is over */
    switch (ev->kind) {
    case KV_RECV_PROGRESS:
        if (engine_receiving(node_engine(d->node), &j->key) != OK) log_debug("state_not_shown", "status=full");
        job_send_progress(j, BATON__CONTROL__STAGE__STORED, 0, ev->bytes);
        break;
    case KV_RECV_STORED: on_stored(d, j, ev); break;
    case KV_RECV_FAILED:
        log_warn_limited("handoff_failed", "req=%016llx-%llu epoch=%u status=%s reason=%s",
                         (unsigned long long)ev->key.hi, (unsigned long long)ev->key.lo, ev->key.epoch,
                         status_text(ev->status), log_quote(ev->message ? ev->message : ""));
        kv_inbox_close(d->inbox, &j->key);
        job_send_failed(d->jobs, j, status_from_peer(ev->status), ev->message, true);
        break;
    }
}

static void on_event(void *state, const struct node_event *ev)
{
    if (ev->kind == NODE_ENGINE) on_engine(state, &ev->engine);
    if (ev->kind == NODE_KV_RECV) on_kv_recv(state, &ev->recv);
}

struct lost {
    struct decode *d;
    uint64_t incarnation;
};

static void end_if_lost(void *ctx, struct job *j)
{
    struct lost *lost = ctx;
    if (j->key.hi == lost->incarnation) end(lost->d, j);
}

static void on_coordinator_lost(void *state, uint64_t incarnation)
{
    struct lost lost = { state, incarnation };
    jobs_each(lost.d->jobs, end_if_lost, &lost);
    kv_recv_told(lost.d->recv, lost.incarnation, NULL, 0);
}

const struct node_role decode_role = {
    .config = CONFIG_DECODE,
    .role = BATON__CONTROL__ROLE__DECODE,
    .program = "baton-decode",
    .open = decode_open,
    .stop = decode_stop,
    .close = decode_close,
    .describe = decode_describe,
    .on_message = on_message,
    .on_event = on_event,
    .on_engine_thread = on_engine_thread,
    .on_coordinator_lost = on_coordinator_lost,
    .kv_metrics = decode_kv_metrics,
};

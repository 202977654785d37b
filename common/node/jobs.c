/* jobs.c - the table of requests a node works on, and Job messages as the engine wants them. */
#include "node/jobs.h"

#include "base/clock.h"
#include "base/mem.h"
#include "node/jobs_internal.h"
#include "wire/job.h"

#include <string.h>

struct jobs *jobs_create(void)
{
    return mem_zalloc(sizeof(struct jobs));
}

void jobs_destroy(struct jobs *js)
{
    struct job *j, *next;

    if (!js) return;
    HASH_ITER(hh, js->by_id, j, next)
    {
        HASH_DEL(js->by_id, j);
        while (j) {
            struct job *same = j->same;
            reports_free(j);
            mem_free(j);
            j = same;
        }
    }
    mem_free(js);
}

uint32_t jobs_count(const struct jobs *js)
{
    return js->n;
}

uint32_t jobs_active(const struct jobs *js)
{
    uint32_t n = 0;
    for (const struct job *j = js->by_id; j; j = j->hh.next)
        for (const struct job *k = j; k; k = k->same) n += k->state != JOB_ENDING;
    return n;
}

struct job *jobs_first(struct jobs *js, uint64_t hi, uint64_t lo)
{
    const uint64_t id[2] = { hi, lo };
    struct job *j;
    HASH_FIND(hh, js->by_id, id, sizeof(id), j);
    return j;
}

struct job *jobs_find(struct jobs *js, const struct seq_key *key)
{
    struct job *j = jobs_first(js, key->hi, key->lo);
    while (j && j->key.epoch != key->epoch) j = j->same;
    return j;
}

struct job *jobs_add(struct jobs *js, struct link *link, const struct seq_request *r)
{
    struct job *j, *first;

    if (js->n >= JOBS_MAX) return NULL;
    j = mem_zalloc(sizeof(*j));
    j->id.hi = r->key.hi;
    j->id.lo = r->key.lo;
    j->key = r->key;
    j->link = link;
    j->n_prompt = r->n_prompt;
    j->n_tokens = r->n_tokens;
    j->n_output = r->n_tokens - r->n_prompt;
    j->start_us = clock_now_us();
    first = jobs_first(js, r->key.hi, r->key.lo);
    if (first) {
        j->same = first->same;
        first->same = j;
    } else {
        HASH_ADD(hh, js->by_id, id, sizeof(j->id), j);
    }
    js->n++;
    return j;
}

void jobs_set_epoch(struct jobs *js, struct job *j, uint32_t epoch)
{
    jobs_flush(js); /* what was gathered belongs to the old epoch */
    j->key.epoch = epoch;
}

struct job *jobs_find_rebound(struct jobs *js, const struct seq_key *old)
{
    struct job *j = jobs_first(js, old->hi, old->lo);
    while (j && (j->state != JOB_ASKED || j->rebound_from != old->epoch)) j = j->same;
    return j;
}

static void unlink_job(struct jobs *js, struct job *j)
{
    struct job *first = jobs_first(js, j->id.hi, j->id.lo);

    js->n--;
    if (first != j) {
        while (first->same != j) first = first->same;
        first->same = j->same;
        return;
    }
    HASH_DEL(js->by_id, j);
    if (j->same) HASH_ADD(hh, js->by_id, id, sizeof(j->same->id), j->same);
}

static bool awaits_ack(struct jobs *js, uint64_t hi, uint64_t lo)
{
    for (const struct job *j = jobs_first(js, hi, lo); j; j = j->same)
        if (j->ack_due) return true;
    return false;
}

void jobs_remove(struct jobs *js, struct job *j)
{
    if (j->has_reports) jobs_flush(js);
    unlink_job(js, j);
    if (j->ack_due && link_incarnation(j->link) == j->key.hi && !awaits_ack(js, j->key.hi, j->key.lo))
        link_send_cancel_ack(j->link, j->key.lo, j->ack_epoch);
    reports_free(j);
    mem_free(j);
}

void jobs_each(struct jobs *js, void (*fn)(void *ctx, struct job *j), void *ctx)
{
    struct job *j, *next;

    HASH_ITER(hh, js->by_id, j, next)
    {
        struct job *k = j;
        while (k) {
            struct job *same = k->same;
            fn(ctx, k);
            k = same;
        }
    }
}

void job_command(struct job *j, struct engine *e, enum job_want want)
{
    enum status st = OK;

    if (!j->in_engine) return;
    if (want == JOB_WANT_CANCEL) st = engine_cancel(e, &j->key);
    if (want == JOB_WANT_RELEASE) st = engine_release(e, &j->key);
    j->want = st == OK ? JOB_WANT_NOTHING : want;
}

static void retry(void *ctx, struct job *j)
{
    if (j->want != JOB_WANT_NOTHING) job_command(j, ctx, j->want);
}

void jobs_retry(struct jobs *js, struct engine *e)
{
    jobs_each(js, retry, e);
}

static void withdraw_if_late(void *ctx, struct job *j)
{
    uint64_t asked_us = clock_now_us() - j->start_us;
    if (j->state != JOB_ASKED || asked_us <= JOBS_ASK_MAX_MS * 1000ull) return;
    if (engine_withdraw(ctx, &j->key) != OK) return; /* a full mailbox: again at the next tick */
}

void jobs_withdraw_late(struct jobs *js, struct engine *e)
{
    jobs_each(js, withdraw_if_late, e);
}

void jobs_cancel(struct jobs *js, struct link *l, const Baton__Control__Cancel *m,
                 void (*end)(void *ctx, struct job *j), void *ctx)
{
    bool found = false;

    if (!m || !m->request || m->request->incarnation != link_incarnation(l)) return;
    /* All are marked before the first one ends: its removal must not answer for the others. */
    for (int pass = 0; pass < 2; pass++)
        for (struct job *j = jobs_first(js, m->request->incarnation, m->request->counter), *next; j; j = next) {
            next = j->same;
            if (m->epoch && j->key.epoch > m->epoch) continue;
            found = true;
            j->ack_due = true;
            j->ack_epoch = m->epoch;
            if (pass) end(ctx, j); /* may remove it */
        }
    if (!found) link_send_cancel_ack(l, m->request->counter, m->epoch);
}

enum status job_request_of(struct seq_request *out, const Baton__Control__Job *m, enum engine_mode mode,
                           uint64_t incarnation, struct error *err)
{
    struct job_record j;
    enum status st = job_unpack(&j, m, err);
    if (st != OK) return st;
    if (j.incarnation != incarnation) return error_set(err, ERR_STALE, "a job of another coordinator");
    *out = (struct seq_request){
        .key = { j.incarnation, j.counter, j.epoch },
        .mode = mode,
        .tokens = j.tokens,
        .n_tokens = j.n_tokens,
        .n_prompt = j.n_prompt,
        .sampling = j.sampling,
        .cache_salt = j.cache_salt,
        .priority = j.priority,
    };
    return OK;
}

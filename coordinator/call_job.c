/* call_job.c - chunks and answers that would hold up the loop are written on a worker. */
#include "base/mem.h"
#include "coordinator/call.h"
#include "coordinator/services.h"
#include "coordinator/work.h"

#include <assert.h>

#define LOGPROB_BYTES 64 /* of one alternative in JSON, about */

struct call_job {
    struct work_item item;
    struct call *call; /* its constant members alone */
    bool whole;        /* the answer with all choices, which have ended; otherwise `part` */
    struct choice part;
    struct strbuf json;
};

/* About as many bytes as its JSON will have. */
static size_t size_of(const struct choice *ch)
{
    return ch->text.n + (size_t)ch->log.n * (1 + ch->log.n_top) * LOGPROB_BYTES;
}

/* Frees here what is large: that takes time, too. */
static void drop_texts(struct choice *ch)
{
    strbuf_fini(&ch->text);
    token_log_fini(&ch->log);
}

static void run(struct work_item *item)
{
    struct call_job *job = (struct call_job *)item;
    struct call *c = job->call;
    if (!job->whole) {
        c->format->text_chunk(&job->part, &job->json);
        drop_texts(&job->part);
        return;
    }
    answer_whole(c, &job->json);
    for (uint32_t i = 0; i < c->n_choices; i++) drop_texts(&c->choices[i]);
}

static void done(struct work_item *item)
{
    struct call_job *job = (struct call_job *)item;
    struct call *c = job->call;
    struct strbuf json = job->json;
    bool whole = job->whole;
    drop_texts(&job->part);
    mem_free(job);
    call_job_done(c, whole, &json);
}

static struct call_job *start(struct call *c, size_t bytes)
{
    struct call_job *job = mem_zalloc(sizeof(*job));
    job->item.run = run;
    job->item.done = done;
    job->item.bytes = bytes;
    job->item.owed = true;
    job->call = c;
    return job;
}

static struct call_job *submit(struct call_job *job)
{
    enum status st = work_submit(job->call->sv->work, &job->item);
    assert(st == OK); /* what is owed is always taken */
    return job;
}

struct call_job *call_job_chunk(struct choice *ch)
{
    size_t bytes = size_of(ch);
    if (bytes <= WORK_SMALL_BYTES) return NULL;
    struct call_job *job = start(ch->call, bytes);
    job->part = *ch;
    ch->text = (struct strbuf)STRBUF_INIT;
    ch->log = (struct token_log){ .n_top = ch->log.n_top };
    return submit(job);
}

struct call_job *call_job_whole(struct call *c)
{
    size_t bytes = 0;
    for (uint32_t i = 0; i < c->n_choices; i++) bytes += size_of(&c->choices[i]);
    if (bytes <= WORK_SMALL_BYTES) return NULL;
    struct call_job *job = start(c, bytes);
    job->whole = true;
    return submit(job);
}

void call_job_cancel(struct call_job *job)
{
    work_cancel(job->call->sv->work, &job->item);
}

/* jobs: what comes from a coordinator is checked; several epochs of one request live side by side. */
#include "node/jobs.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <string.h>

struct wire_job { /* a valid Job message to spoil */
    Baton__Control__Job job;
    Baton__Kv__RequestId id;
    Baton__Control__Sampling sampling;
    int32_t tokens[5];
    int32_t bias_ids[SAMPLING_MAX_BIAS + 1];
    float bias[SAMPLING_MAX_BIAS + 1];
};

static Baton__Control__Job *fill(struct wire_job *w)
{
    memset(w, 0, sizeof(*w));
    baton__control__job__init(&w->job);
    baton__kv__request_id__init(&w->id);
    baton__control__sampling__init(&w->sampling);
    w->sampling.repetition_penalty = 1;
    w->id.incarnation = 1;
    w->id.counter = 2;
    w->job.request = &w->id;
    w->job.epoch = 3;
    w->job.n_tokens = 5;
    w->job.tokens = w->tokens;
    w->job.n_prompt = 4;
    w->job.sampling = &w->sampling;
    w->job.priority = -4;
    w->sampling.max_tokens = 7;
    w->sampling.seed = 99;
    w->sampling.logprobs = -1;
    w->sampling.prompt_logprobs = -1;
    w->sampling.n_bias = w->sampling.n_bias_ids = 2;
    w->sampling.bias_ids = w->bias_ids;
    w->sampling.bias = w->bias;
    w->bias[1] = -3;
    return &w->job;
}

static enum status convert(const Baton__Control__Job *j)
{
    struct seq_request r;
    struct error err = { OK, "" };
    enum status st = job_request_of(&r, j, ENGINE_RESERVE, 1, &err);
    if (st != OK) cr_assert_neq(err.text[0], 0);
    return st;
}

Test(jobs, a_job_message_becomes_a_request)
{
    struct wire_job w;
    struct seq_request r;
    cr_assert_eq(job_request_of(&r, fill(&w), ENGINE_PREFILL_ONLY, 1, NULL), OK);
    cr_assert(r.key.hi == 1 && r.key.lo == 2 && r.key.epoch == 3);
    cr_assert(r.n_tokens == 5 && r.n_prompt == 4 && r.mode == ENGINE_PREFILL_ONLY);
    cr_assert_eq(r.priority, -4);
    cr_assert(r.sampling.seed == 99 && r.sampling.max_tokens == 7);
    cr_assert(r.sampling.n_logprobs == -1 && r.sampling.n_prompt_logprobs == -1);
    cr_assert(r.sampling.n_bias == 2 && r.sampling.bias[1] == -3);
}

Test(jobs, refuses_messages_that_lack_parts_or_lie_about_counts)
{
    struct wire_job w;
    cr_assert_eq(convert(NULL), ERR_PARSE);
    fill(&w)->request = NULL;
    cr_assert_eq(convert(&w.job), ERR_PARSE);
    fill(&w)->sampling = NULL;
    cr_assert_eq(convert(&w.job), ERR_PARSE);
    fill(&w)->n_prompt = 6;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
    fill(&w)->n_prompt = 0;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
    fill(&w)->n_tokens = 0;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
    fill(&w)->epoch = 0;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
    fill(&w);
    w.id.incarnation = 8;
    cr_assert_eq(convert(&w.job), ERR_STALE);
    fill(&w);
    w.sampling.n_bias = 1;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
    fill(&w);
    w.sampling.n_bias = w.sampling.n_bias_ids = SAMPLING_MAX_BIAS + 1;
    cr_assert_eq(convert(&w.job), ERR_INVALID);
}

static struct job *add(struct jobs *js, uint64_t lo, uint32_t epoch)
{
    struct seq_request r = { .key = { 1, lo, epoch }, .n_tokens = 5, .n_prompt = 4 };
    struct job *j = jobs_add(js, NULL, &r);
    cr_assert_not_null(j);
    j->silent = true;
    return j;
}

static void remove_it(void *ctx, struct job *j)
{
    jobs_remove(ctx, j);
}

Test(jobs, keeps_epochs_of_a_request_apart)
{
    struct jobs *js = jobs_create();
    struct job *a = add(js, 2, 1), *b = add(js, 2, 2), *c = add(js, 2, 5), *other = add(js, 3, 1);

    cr_assert_eq(jobs_count(js), 4);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 1 }), a);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 2 }), b);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 5 }), c);
    cr_assert_null(jobs_find(js, &(struct seq_key){ 1, 2, 3 }));
    jobs_remove(js, a);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 5 }), c);
    jobs_set_epoch(js, b, 3);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 3 }), b);
    jobs_remove(js, c);
    cr_assert_eq(jobs_find(js, &(struct seq_key){ 1, 2, 3 }), b);
    cr_assert_eq(jobs_find(js, &other->key), other);
    add(js, 2, 9);
    jobs_each(js, remove_it, js);
    cr_assert_eq(jobs_count(js), 0);
    jobs_destroy(js);
}

Test(jobs, are_bounded)
{
    struct jobs *js = jobs_create();
    struct seq_request r = { .key = { 1, JOBS_MAX, 1 } };
    for (uint32_t i = 0; i < JOBS_MAX; i++) add(js, i, 1);
    cr_assert_null(jobs_add(js, NULL, &r));
    jobs_destroy(js);
}

static struct job *add_job(struct jobs *js, uint64_t counter, uint32_t epoch)
{
    static const int32_t tokens[] = { 1, 2 };
    const struct seq_request r = { .key = { 1, counter, epoch }, .tokens = tokens, .n_tokens = 2, .n_prompt = 2 };
    return jobs_add(js, NULL, &r);
}

Test(jobs, counts_those_that_are_not_ending)
{
    struct jobs *js = jobs_create();
    add_job(js, 1, 1)->state = JOB_ENDING;
    add_job(js, 1, 2)->state = JOB_RUNNING;
    add_job(js, 2, 1)->state = JOB_ASKED;
    cr_assert(jobs_count(js) == 3 && jobs_active(js) == 2);
    jobs_destroy(js);
}

/* An older epoch's end says nothing of one that was asked for anew, only of one that was bound anew. */
Test(jobs, a_rebind_is_not_a_new_reservation)
{
    struct jobs *js = jobs_create();
    const struct seq_key old = { 1, 5, 1 };
    struct job *anew = add_job(js, 5, 2), *bound = add_job(js, 5, 1);
    anew->state = JOB_ASKED;
    cr_assert_null(jobs_find_rebound(js, &old));
    jobs_set_epoch(js, bound, 3);
    bound->state = JOB_ASKED;
    bound->rebound_from = 1;
    cr_assert_eq(jobs_find_rebound(js, &old), bound);
    cr_assert_null(jobs_find_rebound(js, &(struct seq_key){ 1, 5, 2 }));
    bound->rebound_from = 0; /* Reserved has come */
    cr_assert_null(jobs_find_rebound(js, &old));
    jobs_destroy(js);
}

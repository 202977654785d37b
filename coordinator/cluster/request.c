/* request.c - the request's state machine, its tokens and its deadlines. */
#include "coordinator/cluster/request.h"

#include "base/clock.h"
#include "base/mem.h"
#include "coordinator/cluster/registry.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define BIT(s) (1u << REQUEST_##s)
#define ENDS   (BIT(CANCELLED) | BIT(FAILED))

/* moves[from]: where it may go; the diagram stands in request.h. */
static const unsigned moves[REQUEST_STATE_COUNT] = {
    [REQUEST_QUEUED] = BIT(RESERVING) | ENDS,
    [REQUEST_RESERVING] = BIT(RESERVED) | BIT(RESERVING) | BIT(QUEUED) | ENDS,
    [REQUEST_RESERVED] = BIT(PREFILLING) | BIT(RESERVING) | BIT(QUEUED) | ENDS,
    [REQUEST_PREFILLING] = BIT(HANDOFF) | BIT(DECODING) | BIT(RESERVING) | BIT(QUEUED) | BIT(DONE) | ENDS,
    [REQUEST_HANDOFF] = BIT(DECODING) | BIT(RESERVING) | BIT(QUEUED) | BIT(DONE) | ENDS,
    [REQUEST_DECODING] = BIT(QUEUED) | BIT(DONE) | ENDS,
};

static const char *const names[REQUEST_STATE_COUNT] = {
    "queued", "reserving", "reserved", "prefilling", "handoff", "decoding", "done", "cancelled", "failed",
};

const char *request_state_name(enum request_state s)
{
    return (unsigned)s < REQUEST_STATE_COUNT ? names[s] : "unknown";
}

struct request *request_create(const struct request_spec *spec, uint32_t *state_counts)
{
    struct request *r = mem_zalloc(sizeof(*r));
    r->model = spec->model;
    r->tokens = spec->tokens;
    r->n_tokens = r->n_prompt = spec->n_prompt;
    r->priority = spec->priority;
    sampling_copy(&r->sampling, &spec->sampling);
    r->limit_from = spec->limit_from;
    r->hidden = spec->hidden;
    r->cache_salt = mem_strdup(spec->cache_salt);
    snprintf(r->tag, sizeof(r->tag), "%s", spec->tag);
    r->events = spec->events;
    r->owner = spec->owner;
    r->epoch = 1;
    r->state_counts = state_counts;
    r->state_counts[REQUEST_QUEUED]++;
    r->t.created = r->due_since = r->state_since = r->progress = clock_now_us();
    return r;
}

void request_destroy(struct request *r)
{
    if (!r) return;
    r->state_counts[r->state]--;
    request_drop_early(r);
    while (r->holds) request_close_hold(r, r->holds);
    sampling_fini(&r->sampling);
    mem_free(r->cache_salt);
    mem_free(r->tokens);
    mem_free(r);
}

void request_set_state(struct request *r, enum request_state to)
{
    assert(moves[r->state] & (1u << to));
    r->state_counts[r->state]--;
    r->state_counts[to]++;
    r->state = to;
    r->state_since = r->progress = clock_now_us();
    if (to == REQUEST_RESERVING && !r->t.dispatched) r->t.dispatched = r->state_since;
    if (request_is_over(r)) r->t.ended = r->state_since;
}

void request_advance(struct request *r, enum request_state to)
{
    static const enum request_state way[] = { REQUEST_RESERVED, REQUEST_PREFILLING, REQUEST_HANDOFF, REQUEST_DECODING };
    for (size_t i = 0; i < sizeof(way) / sizeof(way[0]) && r->state < to; i++) {
        bool skip = way[i] == REQUEST_HANDOFF && r->local;
        if (way[i] > r->state && way[i] <= to && !skip) request_set_state(r, way[i]);
    }
}

void request_touch(struct request *r)
{
    r->progress = clock_now_us();
}

void request_add_token(struct request *r, int32_t id)
{
    /* room in steps of 256: most answers end long before max_tokens */
    if (r->n_tokens == r->n_prompt || (r->n_tokens & 255) == 0)
        r->tokens = mem_resize(r->tokens, ((size_t)r->n_tokens | 255) + 1, sizeof(*r->tokens));
    r->tokens[r->n_tokens++] = id;
    r->t.last_token = r->progress = clock_now_us();
    if (!r->t.first_token) r->t.first_token = r->t.last_token;
    r->due_since = 0;
}

uint32_t request_count_failure(struct request *r, const char *node)
{
    struct request_failures *f = &r->failures;
    if (f->n && request_n_output(r) - f->n_output >= REQUEST_STREAK_TOKENS) *f = (struct request_failures){ 0 };
    f->n_output = request_n_output(r);
    size_t used = strlen(f->nodes);
    snprintf(f->nodes + used, sizeof(f->nodes) - used, "%s%s", used ? "," : "", node);
    return ++f->n;
}

struct request_tokens request_count(const struct request *r)
{
    struct request_tokens n = { 0 };
    if (!r->t.first_token) return n;
    if (r->sampling.choice == 0) {
        n.prompt = r->n_prompt;
        n.cached = r->t.cached_tokens;
    }
    if (!r->hidden) n.output = request_n_output(r);
    return n;
}

bool request_add_early(struct request *r, uint32_t output_idx, int32_t id, const struct logprob_row *row)
{
    struct early_token **at = &r->early;
    while (*at && (*at)->output_idx < output_idx) at = &(*at)->next;
    if (*at && (*at)->output_idx == output_idx) return false;
    struct early_token *e = mem_zalloc(sizeof(*e));
    e->output_idx = output_idx;
    e->id = id;
    if (row) {
        e->has_row = true;
        e->row.top_ids = e->top_ids;
        e->row.top = e->top;
        e->row.logprob = row->logprob;
        e->row.n_top = row->n_top < SAMPLING_MAX_LOGPROBS ? row->n_top : SAMPLING_MAX_LOGPROBS;
        for (uint32_t i = 0; i < e->row.n_top; i++) {
            e->top_ids[i] = row->top_ids[i];
            e->top[i] = row->top[i];
        }
    }
    e->next = *at;
    *at = e;
    return true;
}

struct early_token *request_take_early(struct request *r, uint32_t output_idx)
{
    struct early_token *e = r->early;
    if (!e || e->output_idx != output_idx) return NULL;
    r->early = e->next;
    return e;
}

void request_drop_early(struct request *r)
{
    while (r->early) {
        struct early_token *e = r->early;
        r->early = e->next;
        mem_free(e);
    }
}

struct hold *request_open_hold(struct request *r, struct node *n, uint32_t blocks, uint32_t queued_tokens)
{
    struct hold *h = mem_zalloc(sizeof(*h));
    *h = (struct hold){
        .next = r->holds, .node = n, .epoch = r->epoch, .blocks = blocks, .queued_tokens = queued_tokens
    };
    n->n_active++;
    n->n_blocks_used += blocks;
    n->queued_tokens += queued_tokens;
    r->holds = h;
    return h;
}

struct hold *request_find_hold(const struct request *r, const struct node *n, uint32_t epoch)
{
    for (struct hold *h = r->holds; h; h = h->next)
        if (h->node == n && h->epoch == epoch) return h;
    return NULL;
}

void hold_computed(struct hold *h)
{
    h->node->queued_tokens -= h->queued_tokens;
    h->queued_tokens = 0;
}

void request_close_hold(struct request *r, struct hold *h)
{
    struct hold **at = &r->holds;
    while (*at != h) at = &(*at)->next;
    *at = h->next;
    hold_computed(h);
    h->node->n_active--;
    h->node->n_blocks_used -= h->blocks;
    mem_free(h);
}

enum request_deadline request_check_deadline(const struct request *r, const struct request_limits *l, uint64_t now,
                                             uint64_t node_progress)
{
    uint64_t step = (uint64_t)l->progress_timeout_ms * 1000, moved = r->progress;
    if (request_is_over(r)) return REQUEST_IN_TIME;
    if (r->due_since && request_elapsed(now, r->due_since) > (uint64_t)l->request_timeout_ms * 1000)
        return REQUEST_TIMED_OUT;
    if (r->state == REQUEST_QUEUED) return REQUEST_IN_TIME;
    if (r->state == REQUEST_RESERVED && node_progress > moved) moved = node_progress;
    return request_elapsed(now, moved) > step ? REQUEST_STALLED : REQUEST_IN_TIME;
}

/* pairs.c - which prefill and decode nodes could not reach each other lately. */
#include "coordinator/cluster/pairs.h"

#include <stddef.h>

bool pairs_is_unreached(enum status st)
{
    return st == ERR_CLOSED || st == ERR_TIMEOUT || st == ERR_CORRUPT;
}

static struct pair *find(struct pairs *t, uint64_t prefill, uint64_t decode)
{
    for (uint32_t i = 0; i < t->n; i++)
        if (t->rows[i].prefill == prefill && t->rows[i].decode == decode) return &t->rows[i];
    return NULL;
}

static void drop(struct pairs *t, struct pair *p)
{
    *p = t->rows[--t->n];
}

static struct pair *add(struct pairs *t, uint64_t prefill, uint64_t decode)
{
    if (t->n == PAIRS_MAX) {
        struct pair *oldest = &t->rows[0];
        for (uint32_t i = 1; i < t->n; i++)
            if (t->rows[i].failed_at < oldest->failed_at) oldest = &t->rows[i];
        drop(t, oldest);
    }
    t->rows[t->n] = (struct pair){ .prefill = prefill, .decode = decode };
    return &t->rows[t->n++];
}

static uint64_t pause_of(const struct pair *p)
{
    uint64_t us = PAIRS_FIRST_US;
    for (uint32_t i = 1; i < p->n_failed && us < PAIRS_LONGEST_US; i++) us *= 2;
    return us < PAIRS_LONGEST_US ? us : PAIRS_LONGEST_US;
}

void pairs_failed(struct pairs *t, uint64_t prefill, uint64_t decode, uint64_t begun, uint64_t now)
{
    struct pair *p = find(t, prefill, decode);
    if (!p) p = add(t, prefill, decode);
    if (!p->n_failed || begun > p->failed_at) p->n_failed++;
    p->failed_at = now;
    p->until = now + pause_of(p);
}

void pairs_worked(struct pairs *t, uint64_t prefill, uint64_t decode)
{
    struct pair *p = find(t, prefill, decode);
    if (p) drop(t, p);
}

void pairs_tried(struct pairs *t, uint64_t prefill, uint64_t decode, uint64_t now)
{
    struct pair *p = find(t, prefill, decode);
    if (p && p->until < now + pause_of(p)) p->until = now + pause_of(p);
}

void pairs_forget(struct pairs *t, uint64_t node)
{
    for (uint32_t i = t->n; i-- > 0;)
        if (t->rows[i].prefill == node || t->rows[i].decode == node) drop(t, &t->rows[i]);
}

/* stress/ranks: steps of random calls over 2 to 6 ranks, some of which fail at a random call; the numbers are right or
 * the step has failed, everywhere, and the next one goes on. */
#include "parallel/coll_inproc.h"
#include "parallel/rank_team.h"
#include "parallel/shard.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#define STEPS     300
#define CALLS     40
#define COLS      64
#define MAX_RANKS 6

struct rig {
    struct coll_inproc *coll;
    uint32_t tp, pp, step;
    uint32_t bad, bad_call;         /* this rank fails before that call; no rank: none does */
    float x[MAX_RANKS][2][2][COLS]; /* by group: in each, every other meeting has the same buffer */
};

/* The same on all ranks. */
static uint32_t draw(uint32_t step, uint32_t call, uint32_t salt)
{
    uint32_t h = step * 2654435761u ^ call * 40503u ^ salt * 69069u;
    h ^= h >> 15;
    h *= 2246822519u;
    return h ^ h >> 13;
}

static float value_of(uint32_t step, uint32_t call, uint32_t col)
{
    return (float)(draw(step, call, col) % 4096);
}

static enum status gather(struct rig *g, const struct coll *c, float *x, uint32_t call)
{
    size_t begin[MAX_RANKS + 1];
    for (uint32_t r = 0; r < c->size; r++) begin[r] = shard_units(COLS, r, c->size).begin * sizeof(float);
    begin[c->size] = COLS * sizeof(float);
    for (size_t j = begin[c->rank] / sizeof(float); j < begin[c->rank + 1] / sizeof(float); j++)
        x[j] = value_of(g->step, call, (uint32_t)j);
    return c->ops->all_gather(c, NULL, x, (uint8_t *)x + begin[c->rank], COLS * sizeof(float),
                              &(struct coll_columns){ 1, COLS * sizeof(float), begin });
}

static enum status tell(struct rig *g, const struct coll *c, float *x, uint32_t call)
{
    const uint32_t root = draw(g->step, call, 7) % c->size;
    for (uint32_t j = 0; j < COLS && c->rank == root; j++) x[j] = value_of(g->step, call, j);
    return c->ops->broadcast(c, NULL, x, COLS * sizeof(float), root);
}

static enum status reduce(struct rig *g, const struct coll *c, float *x, uint32_t call)
{
    for (uint32_t j = 0; j < COLS; j++) x[j] = c->rank == 0 ? value_of(g->step, call, j) : 0.0f;
    return c->ops->all_reduce(c, NULL, x, COLS);
}

/* Round the ring, even ranks first; of an odd number the last one waits for its turn. */
static enum status pass_on(struct rig *g, const struct coll *c, float *x, uint32_t call)
{
    const uint32_t to = (c->rank + 1) % c->size, from = (c->rank + c->size - 1) % c->size;
    float out[COLS];
    enum status st = OK;
    for (uint32_t j = 0; j < COLS; j++) out[j] = value_of(g->step, call, j);
    if (c->rank == 0) st = c->ops->send(c, NULL, out, sizeof(out), to);
    if (st == OK) st = c->ops->recv(c, NULL, x, sizeof(out), from);
    if (st == OK && c->rank > 0) st = c->ops->send(c, NULL, out, sizeof(out), to);
    return st;
}

static enum status run_step(void *ctx, uint32_t rank)
{
    static enum status (*const calls[])(struct rig *, const struct coll *, float *, uint32_t) = { gather, tell, reduce,
                                                                                                  pass_on };
    struct rig *g = ctx;
    uint32_t n_meetings[2] = { 0 };
    for (uint32_t call = 0; call < CALLS; call++) {
        const uint32_t kind = draw(g->step, call, 1) % 4;
        const struct coll *all = coll_inproc_all(g->coll, rank), *stage = coll_inproc_stage(g->coll, rank);
        const struct coll *c = draw(g->step, call, 2) % 2 || stage->size == 1 ? all : stage;
        float *x = g->x[rank][c == all][n_meetings[c == all] % 2];
        float own[COLS];
        if (calls[kind] == pass_on)
            x = own;
        else
            n_meetings[c == all]++;
        if (rank == g->bad && call == g->bad_call) return ERR_IO;
        if (draw(g->step, call, 3 + rank) % 16 == 0) sched_yield();
        enum status st = calls[kind](g, c, x, call);
        if (st != OK) return st;
        for (uint32_t j = 0; j < COLS; j++)
            if (x[j] != value_of(g->step, call, j)) return ERR_CORRUPT;
    }
    return OK;
}

static int run_shape(uint32_t tp, uint32_t pp)
{
    struct rig g = { .coll = coll_inproc_create(tp, pp), .tp = tp, .pp = pp };
    const struct coll *all[MAX_RANKS];
    struct rank_team *team;
    struct error err;
    for (uint32_t r = 0; r < tp * pp; r++) all[r] = coll_inproc_all(g.coll, r);
    if (rank_team_create(&team, tp * pp, all, &err) != OK) return 1;
    for (g.step = 0; g.step < STEPS; g.step++) {
        const bool fails = g.step % 3 == 2;
        g.bad = fails ? draw(g.step, 0, 4) % (tp * pp) : UINT32_MAX;
        g.bad_call = draw(g.step, 0, 5) % CALLS;
        enum status st = rank_team_run(team, run_step, &g, NULL);
        if (st == (fails ? ERR_IO : OK)) continue;
        fprintf(stderr, "tp %u pp %u step %u: %s\n", tp, pp, g.step, status_text(st));
        return 1;
    }
    rank_team_destroy(team);
    coll_inproc_destroy(g.coll);
    return 0;
}

int main(void)
{
    return run_shape(2, 1) || run_shape(3, 1) || run_shape(2, 2) || run_shape(2, 3) || run_shape(1, 4);
}

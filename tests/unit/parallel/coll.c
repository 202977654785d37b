/* coll: every rank has what the others gave, waits asleep, and never waits for one that has given up. */
#include "parallel/coll_inproc.h"

#include "compute/backend.h"
#include "parallel/rank_team.h"
#include "parallel/shard.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RANKS 12
#define N_ROWS    5
#define N_COLS    37
#define ROUNDS    50

struct rig {
    struct coll_inproc *coll;
    struct rank_team *team;
    const struct coll *all[MAX_RANKS];
    uint32_t tp, pp;
    int which; /* the test's own */
    _Atomic uint32_t n_done;
    double waited_cpu_s;
};

static void rig_open(struct rig *g, uint32_t tp, uint32_t pp)
{
    struct error err;
    *g = (struct rig){ .coll = coll_inproc_create(tp, pp), .tp = tp, .pp = pp };
    for (uint32_t r = 0; r < tp * pp; r++) g->all[r] = coll_inproc_all(g->coll, r);
    cr_assert_eq(rank_team_create(&g->team, tp * pp, g->all, &err), OK, "%s", err.text);
}

static void rig_close(struct rig *g)
{
    rank_team_destroy(g->team);
    coll_inproc_destroy(g->coll);
}

static float value_of(uint32_t round, uint32_t row, uint32_t col)
{
    return (float)(round * 1000 + row * 100 + col);
}

/* Uneven columns, one buffer after the other; others read while the next one is filled.  Columns lie where they belong,
 * or packed elsewhere. */
static enum status gather(void *ctx, uint32_t rank)
{
    struct rig *g = ctx;
    const struct coll *c = coll_inproc_stage(g->coll, rank);
    static _Thread_local float x[2][N_ROWS][N_COLS], packed[2][N_ROWS * N_COLS];
    size_t begin[MAX_RANKS + 1];
    for (uint32_t r = 0; r < c->size; r++) begin[r] = shard_units(N_COLS, r, c->size).begin * sizeof(float);
    begin[c->size] = N_COLS * sizeof(float);
    const struct coll_columns columns = { N_ROWS, sizeof(x[0][0]), begin };
    const size_t j0 = begin[c->rank] / sizeof(float), j1 = begin[c->rank + 1] / sizeof(float);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        float(*all)[N_COLS] = x[round % 2];
        const bool in_place = (round / 2 + c->rank) % 2;
        float *mine = in_place ? &all[0][j0] : packed[round % 2];
        const size_t ld = in_place ? N_COLS : j1 - j0;
        memset(all, 0xff, sizeof(x[0]));
        for (uint32_t i = 0; i < N_ROWS; i++)
            for (size_t j = j0; j < j1; j++) mine[i * ld + j - j0] = value_of(round, i, (uint32_t)j);
        enum status st = c->ops->all_gather(c, NULL, all, mine, ld * sizeof(float), &columns);
        if (st != OK) return st;
        for (uint32_t i = 0; i < N_ROWS; i++)
            for (uint32_t j = 0; j < N_COLS; j++)
                if (all[i][j] != value_of(round, i, j)) return ERR_CORRUPT;
    }
    return OK;
}

/* In rank order: another order would round otherwise. */
static enum status reduce(void *ctx, uint32_t rank)
{
    static const float parts[] = { 1e8f, 1.0f, -1e8f, 0.25f, 3e-5f, -7.0f, 1e8f, 0.125f };
    struct rig *g = ctx;
    const struct coll *c = coll_inproc_stage(g->coll, rank);
    static _Thread_local float x[2][N_COLS];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        float *mine = x[round % 2];
        for (uint32_t i = 0; i < N_COLS; i++) mine[i] = parts[(c->rank + i + round) % 8];
        enum status st = c->ops->all_reduce(c, NULL, mine, N_COLS);
        if (st != OK) return st;
        for (uint32_t i = 0; i < N_COLS; i++) {
            float sum = parts[(i + round) % 8];
            for (uint32_t r = 1; r < c->size; r++) sum += parts[(r + i + round) % 8];
            if (memcmp(&sum, &mine[i], sizeof(sum)) != 0) return ERR_CORRUPT;
        }
    }
    return OK;
}

static enum status tell_all(void *ctx, uint32_t rank)
{
    struct rig *g = ctx;
    const struct coll *c = coll_inproc_all(g->coll, rank);
    static _Thread_local uint32_t word[2];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t root = round % c->size;
        word[round % 2] = rank == root ? 7 * round + 1 : 0;
        enum status st = c->ops->broadcast(c, NULL, &word[round % 2], sizeof(word[0]), root);
        if (st != OK) return st;
        if (word[round % 2] != 7 * round + 1) return ERR_CORRUPT;
    }
    return OK;
}

/* A word goes from stage to stage, each adds one; the last stage has it in the end. */
static enum status pass_on(void *ctx, uint32_t rank)
{
    struct rig *g = ctx;
    const struct coll *c = coll_inproc_all(g->coll, rank);
    const uint32_t stage = rank / g->tp;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t word = 100 * rank + round;
        enum status st = stage == 0 ? OK : c->ops->recv(c, NULL, &word, sizeof(word), rank - g->tp);
        if (st != OK) return st;
        if (word != 100 * (rank % g->tp) + round + stage && stage > 0) return ERR_CORRUPT;
        if (stage + 1 == g->pp) continue;
        word = 100 * (rank % g->tp) + round + stage + 1;
        if ((st = c->ops->send(c, NULL, &word, sizeof(word), rank + g->tp)) != OK) return st;
    }
    return OK;
}

Test(coll, ranks_have_what_the_others_gave)
{
    static const uint32_t shapes[][2] = {
        { 1, 1 }, { 2, 1 }, { 3, 1 }, { 4, 1 }, { 8, 1 }, { 1, 3 }, { 2, 3 }, { 4, 3 }
    };
    static const rank_fn fns[] = { gather, reduce, tell_all, pass_on };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (size_t j = 0; j < sizeof(fns) / sizeof(fns[0]); j++) {
            struct rig g;
            rig_open(&g, shapes[i][0], shapes[i][1]);
            cr_assert_eq(rank_team_run(g.team, fns[j], &g, NULL), OK, "tp %u pp %u, call %zu", g.tp, g.pp, j);
            cr_assert_eq(rank_team_run(g.team, fns[j], &g, NULL), OK, "again");
            rig_close(&g);
        }
}

/* One rank fails at some call, all others wait in one of all kinds. */
static enum status fail_or_wait(void *ctx, uint32_t rank)
{
    struct rig *g = ctx;
    const struct coll *all = coll_inproc_all(g->coll, rank), *stage = coll_inproc_stage(g->coll, rank);
    const uint32_t last = g->tp * g->pp - 1, bad = (uint32_t)g->which % (last + 1);
    static _Thread_local float x[4];
    const size_t begin[] = { 0, 4, 8, 12, 16 };
    enum status st = all->ops->broadcast(all, NULL, x, sizeof(x), 0);
    if (st != OK) return st;
    if (rank == bad) {
        nanosleep(&(struct timespec){ 0, (g->which % 3) * 100000 }, NULL);
        return ERR_IO;
    }
    switch ((uint32_t)g->which / (last + 1)) {
    case 0: return all->ops->broadcast(all, NULL, x, sizeof(x), 0);
    case 1: return all->ops->recv(all, NULL, x, sizeof(x), bad);
    case 2: return all->ops->send(all, NULL, x, sizeof(x), bad);
    case 3: return all->ops->all_reduce(all, NULL, x, 4);
    }
    /* Other stages get through: they hear of it in their next call. */
    while (st == OK)
        st = stage->ops->all_gather(stage, NULL, x, &x[stage->rank], sizeof(x),
                                    &(struct coll_columns){ 1, sizeof(x), begin });
    return st;
}

Test(coll, nobody_waits_for_a_rank_that_has_failed, .timeout = 60)
{
    struct rig g;
    rig_open(&g, 4, 2);
    for (g.which = 0; g.which < 5 * 8; g.which++) {
        uint32_t who = 99;
        cr_assert_eq(rank_team_run(g.team, fail_or_wait, &g, &who), ERR_IO, "case %d", g.which);
        cr_assert_eq(who, (uint32_t)g.which % 8);
        cr_assert_eq(rank_team_run(g.team, gather, &g, NULL), OK, "case %d: usable again", g.which);
        cr_assert_eq(rank_team_run(g.team, pass_on, &g, NULL), OK, "case %d: usable again", g.which);
    }
    rig_close(&g);
}

static double cpu_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static enum status wait_for_a_late_one(void *ctx, uint32_t rank)
{
    struct rig *g = ctx;
    const struct coll *c = coll_inproc_all(g->coll, rank);
    uint32_t word = 0;
    enum status st = OK;
    if (rank == 1) nanosleep(&(struct timespec){ 0, 200000000 }, NULL);
    const double before = cpu_s();
    if (g->which == 0) st = c->ops->broadcast(c, NULL, &word, sizeof(word), 0);
    if (g->which == 1)
        st = rank ? c->ops->send(c, NULL, &word, sizeof(word), 0) : c->ops->recv(c, NULL, &word, sizeof(word), 1);
    if (rank == 0) g->waited_cpu_s = cpu_s() - before;
    return st;
}

Test(coll, a_rank_that_waits_sleeps)
{
    struct rig g;
    rig_open(&g, 2, 1);
    for (g.which = 0; g.which < 3; g.which++) { /* the third: the caller of a run */
        const double before = cpu_s();
        cr_assert_eq(rank_team_run(g.team, wait_for_a_late_one, &g, NULL), OK);
        cr_assert_lt(g.waited_cpu_s, 0.05, "%g of 0.2 s", g.waited_cpu_s);
        cr_assert_lt(cpu_s() - before, 0.05);
    }
    rig_close(&g);
}

/* A backend whose stream says when it is waited for. */
struct slow_backend {
    struct backend base;
    enum status answer;
    uint32_t n_waits;
};

static enum status slow_sync(struct backend *b, struct stream *s)
{
    struct slow_backend *slow = (struct slow_backend *)b;
    slow->n_waits++;
    return slow->answer;
}

static enum status slow_copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    memcpy(dst, src, bytes);
    return OK;
}

Test(coll, what_is_enqueued_is_waited_for_and_its_failure_is_everybodys)
{
    static const struct backend_ops ops = { .sync = slow_sync, .copy = slow_copy };
    struct slow_backend backends[4];
    struct rig g;
    rig_open(&g, 2, 2);
    for (uint32_t r = 0; r < 4; r++) {
        backends[r] = (struct slow_backend){ .base = { &ops, .caps = { .host_memory = true } } };
        coll_inproc_set_backend(g.coll, r, &backends[r].base);
    }
    cr_assert_eq(rank_team_run(g.team, gather, &g, NULL), OK);
    for (uint32_t r = 0; r < 4; r++) cr_assert_eq(backends[r].n_waits, ROUNDS);
    backends[2].answer = ERR_NO_MEMORY;
    uint32_t who = 0;
    cr_assert_eq(rank_team_run(g.team, tell_all, &g, &who), ERR_NO_MEMORY);
    cr_assert_eq(who, 2);
    cr_assert_eq(rank_team_run(g.team, pass_on, &g, &who), ERR_NO_MEMORY);
    rig_close(&g);
}

Test(coll, a_group_of_one_has_its_results)
{
    const struct coll *c = coll_self();
    float x[2] = { 1.5f, -2.0f };
    cr_assert_eq(c->rank, 0);
    cr_assert_eq(c->size, 1);
    cr_assert_eq(c->ops->all_reduce(c, NULL, x, 2), OK);
    cr_assert_eq(c->ops->all_gather(c, NULL, x, x, 8, &(struct coll_columns){ 1, 8, (size_t[]){ 0, 8 } }), OK);
    cr_assert_eq(c->ops->broadcast(c, NULL, x, 8, 0), OK);
    cr_assert_eq(c->ops->send(c, NULL, x, 8, 0), ERR_INVALID);
    cr_assert_eq(c->ops->recv(c, NULL, x, 8, 0), ERR_INVALID);
    cr_assert(x[0] == 1.5f && x[1] == -2.0f);
}

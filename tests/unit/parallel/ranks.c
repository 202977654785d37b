/* ranks: each has a backend on its own thread, and the members of a stage share out its processors. */
#include "parallel/ranks.h"

#include "base/cpus.h"
#include "parallel/coll.h"
#include "parallel/rank_team.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MAX_RANKS 6

static const struct backend_limits LIMITS = {
    .max_rows = 8, .max_context = 64, .max_cols = 64, .max_heads = 2, .max_head_dim = 32
};

struct seen {
    struct cpu_list cpus[MAX_RANKS];
};

static enum status look(void *ctx, uint32_t rank)
{
    cpu_list_allowed(&((struct seen *)ctx)->cpus[rank]);
    return OK;
}

static struct ranks *open_on(uint32_t tp, uint32_t pp, uint32_t n_threads, const char *cpus)
{
    struct ranks *r = NULL;
    struct error err;
    const struct backend_options opt = { .n_threads = n_threads, .cpus = cpus, .limits = LIMITS };
    cr_assert_eq(ranks_open(&r, tp, pp, "cpu", &opt, &err), OK, "%s", err.text);
    return r;
}

Test(ranks, have_their_places_in_the_groups)
{
    struct ranks *r = open_on(3, 2, 1, NULL);
    cr_assert(ranks_tp(r) == 3 && ranks_pp(r) == 2 && rank_team_size(ranks_team(r)) == 6);
    for (uint32_t i = 0; i < 6; i++) {
        cr_assert(ranks_stage(r, i)->rank == i % 3 && ranks_stage(r, i)->size == 3);
        cr_assert(ranks_all(r, i)->rank == i && ranks_all(r, i)->size == 6);
        for (uint32_t k = 0; k < i; k++) cr_assert_neq(ranks_backend(r, i), ranks_backend(r, k));
    }
    ranks_close(r);
}

Test(ranks, members_share_out_processors_and_stages_use_the_same)
{
    struct cpu_list own;
    struct seen s;
    char list[32];
    cpu_list_allowed(&own);
    if (own.n < 2) cr_skip_test("one processor only");
    snprintf(list, sizeof(list), "%u,%u", own.ids[0], own.ids[1]);
    struct ranks *r = open_on(2, 2, 2, list);
    cr_assert_eq(rank_team_run(ranks_team(r), look, &s, NULL), OK);
    for (uint32_t i = 0; i < 4; i++)
        cr_assert(s.cpus[i].n == 1 && s.cpus[i].ids[0] == own.ids[i % 2], "rank %u is on %u", i, s.cpus[i].ids[0]);
    ranks_close(r);
}

Test(ranks, more_members_than_processors_take_turns)
{
    struct cpu_list own;
    struct seen s;
    char list[32];
    cpu_list_allowed(&own);
    snprintf(list, sizeof(list), "%u", own.ids[0]);
    struct ranks *r = open_on(3, 1, 1, list);
    cr_assert_eq(rank_team_run(ranks_team(r), look, &s, NULL), OK);
    for (uint32_t i = 0; i < 3; i++) cr_assert(s.cpus[i].n == 1 && s.cpus[i].ids[0] == own.ids[0]);
    ranks_close(r);
}

Test(ranks, refuses_what_no_rank_can_have)
{
    static const struct {
        uint32_t tp, pp, n_threads;
        const char *cpus, *says;
    } cases[] = {
        { 0, 1, 1, NULL, "tp is 0 and pp 1" }, { 1, 65, 1, NULL, "tp is 1 and pp 65" },
        { 2, 1, 0, NULL, "threads: 0" },       { 2, 1, 2, "0-", "expected a list like" },
        { 2, 1, 2, "1022,1023", "rank " },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct ranks *r = NULL;
        struct error err = { 0 };
        const struct backend_options opt = { .n_threads = cases[i].n_threads, .cpus = cases[i].cpus, .limits = LIMITS };
        cr_assert_eq(ranks_open(&r, cases[i].tp, cases[i].pp, "cpu", &opt, &err), ERR_INVALID, "case %zu", i);
        cr_assert(strstr(err.text, cases[i].says), "%s", err.text);
        cr_assert_null(r);
    }
    ranks_close(NULL);
}

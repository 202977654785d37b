/* rank_team: every rank runs once a run, rank 0 on the caller's thread, and the first failure is told. */
#include "parallel/rank_team.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

struct tally {
    atomic_uint runs[8];
    pthread_t threads[8];
    uint32_t bad, slow;
};

static enum status count_me(void *ctx, uint32_t rank)
{
    struct tally *t = ctx;
    atomic_fetch_add(&t->runs[rank], 1);
    if (t->runs[rank] == 1)
        t->threads[rank] = pthread_self();
    else if (!pthread_equal(t->threads[rank], pthread_self()))
        return ERR_INTERNAL;
    return OK;
}

static struct rank_team *team_of(uint32_t n)
{
    struct rank_team *t;
    struct error err;
    cr_assert_eq(rank_team_create(&t, n, NULL, &err), OK, "%s", err.text);
    cr_assert_eq(rank_team_size(t), n);
    return t;
}

Test(rank_team, every_rank_runs_once_on_a_thread_of_its_own)
{
    for (uint32_t n = 1; n <= 8; n++) {
        struct rank_team *t = team_of(n);
        struct tally c = { .bad = 99 };
        for (int i = 0; i < 500; i++) cr_assert_eq(rank_team_run(t, count_me, &c, NULL), OK);
        for (uint32_t r = 0; r < 8; r++) {
            cr_assert_eq(c.runs[r], r < n ? 500 : 0);
            for (uint32_t q = 0; q < r && r < n; q++) cr_assert_not(pthread_equal(c.threads[r], c.threads[q]));
        }
        cr_assert(pthread_equal(c.threads[0], pthread_self()));
        rank_team_destroy(t);
    }
}

static enum status fail_two(void *ctx, uint32_t rank)
{
    const struct tally *t = ctx;
    if (rank == t->slow) {
        nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
        return ERR_NO_MEMORY;
    }
    return rank == t->bad ? ERR_IO : OK;
}

Test(rank_team, tells_the_first_failure)
{
    struct rank_team *t = team_of(4);
    for (uint32_t bad = 0; bad < 4; bad++) {
        struct tally c = { .bad = bad, .slow = (bad + 1) % 4 };
        uint32_t who = 99;
        cr_assert_eq(rank_team_run(t, fail_two, &c, &who), ERR_IO);
        cr_assert_eq(who, bad);
        cr_assert_eq(rank_team_run(t, count_me, &c, &who), OK);
    }
    rank_team_destroy(t);
}

Test(rank_team, refuses_no_ranks)
{
    struct rank_team *t = NULL;
    struct error err = { 0 };
    cr_assert_eq(rank_team_create(&t, 0, NULL, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "0 ranks"), "%s", err.text);
    cr_assert_null(t);
    rank_team_destroy(NULL);
}

Test(rank_team, refuses_more_ranks_than_anybody_has)
{
    struct rank_team *t = NULL;
    struct error err = { 0 };
    cr_assert_eq(rank_team_create(&t, 4097, NULL, &err), ERR_INVALID);
    cr_assert_str_eq(err.text, "4097 ranks, allowed are 1 to 4096");
    cr_assert_null(t);
}

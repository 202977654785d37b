/* team.c - everybody runs exactly once, barriers hold, late members are not waited for. */
#include "base/team.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

static struct team *team_of(uint32_t n)
{
    struct team *t;
    struct error err;
    cr_assert_eq(team_create(&t, n, NULL, &err), OK, "%s", err.text);
    cr_assert_eq(team_size(t), n);
    return t;
}

struct tally {
    _Atomic uint32_t runs[8];
    _Atomic uint32_t next;
    uint32_t items;
    _Atomic uint64_t sum;
};

static void count_me(void *arg, uint32_t idx, uint32_t n)
{
    struct tally *c = arg;
    atomic_fetch_add(&c->runs[idx], n);
}

Test(team, every_member_runs_once_a_run)
{
    for (uint32_t n = 1; n <= 5; n++) {
        struct team *t = team_of(n);
        struct tally c = { 0 };
        for (int i = 0; i < 500; i++) team_run(t, count_me, &c);
        for (uint32_t i = 0; i < 8; i++) cr_assert_eq(c.runs[i], i < n ? 500 * n : 0);
        team_destroy(t);
    }
}

static void take_items(void *arg, uint32_t idx, uint32_t n)
{
    struct tally *c = arg;
    for (uint32_t i; (i = atomic_fetch_add(&c->next, 1)) < c->items;) atomic_fetch_add(&c->sum, i);
}

Test(team, shared_work_is_done_once_whoever_comes)
{
    for (uint32_t n = 1; n <= 5; n++) {
        struct team *t = team_of(n);
        for (int i = 0; i < 2000; i++) {
            struct tally c = { .items = (uint32_t)(i % 37) };
            team_share(t, take_items, &c);
            cr_assert_eq(c.sum, (uint64_t)c.items * (c.items ? c.items - 1 : 0) / 2);
        }
        team_destroy(t);
    }
}

/* Sleeping workers (longer pauses than they spin for) wake up for both kinds of run. */
Test(team, sleeping_members_wake)
{
    struct team *t = team_of(3);
    for (int i = 0; i < 20; i++) {
        struct tally c = { .items = 1000 };
        nanosleep(&(struct timespec){ 0, 2000000 }, NULL);
        if (i % 2)
            team_share(t, take_items, &c);
        else
            team_run(t, count_me, &c);
        cr_assert(i % 2 ? c.sum == 499500 : c.runs[2] == 3);
    }
    team_destroy(t);
}

Test(team, bad_lists_of_processors_are_refused)
{
    static const char *const lists[] = {
        "", "a", "0-", "1-0", "0,", ",0", "0 1", "-1", "9999", "0-9999", "99999999999999999999"
    };
    struct team *t = NULL;
    struct error err;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        cr_assert_eq(team_create(&t, 2, lists[i], &err), ERR_INVALID, "\"%s\"", lists[i]);
        cr_assert(strstr(err.text, "cpus"));
    }
    cr_assert_eq(team_create(&t, 0, NULL, &err), ERR_INVALID);
    cr_assert_eq(team_create(&t, 100000, NULL, &err), ERR_INVALID);
    cr_assert(t == NULL);
    team_destroy(NULL);
}

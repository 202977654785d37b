/* team.c - a team's runs under ThreadSanitizer: what fn wrote is there for the caller, sleepers wake. */
#include "base/team.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define RUNS 3000

struct work {
    _Atomic uint32_t next;
    uint32_t n;
    uint32_t out[64];
};

static void take(void *arg, uint32_t idx, uint32_t n)
{
    struct work *w = arg;
    for (uint32_t i; (i = atomic_fetch_add(&w->next, 1)) < w->n;) w->out[i] = i + 1;
}

static void count(void *arg, uint32_t idx, uint32_t n)
{
    ((uint32_t *)arg)[idx]++;
}

static bool run_team(uint32_t members)
{
    struct team *t;
    uint32_t runs[4] = { 0 };
    bool good = true;
    if (team_create(&t, members, NULL, NULL) != OK) return false;
    for (uint32_t i = 0; i < RUNS && good; i++) {
        struct work w = { .n = i % 64 };
        team_share(t, take, &w);
        for (uint32_t k = 0; k < w.n; k++) good &= w.out[k] == k + 1;
        team_run(t, count, runs);
        if (i % 500 == 0) nanosleep(&(struct timespec){ 0, 3000000 }, NULL);
    }
    for (uint32_t i = 0; i < members; i++) good &= runs[i] == RUNS;
    team_destroy(t);
    return good;
}

int main(void)
{
    for (uint32_t members = 1; members <= 4; members++)
        if (!run_team(members)) {
            fprintf(stderr, "team of %u: wrong result\n", members);
            return 1;
        }
    return 0;
}

/* rank_team.c - hands one function to a thread per rank and waits for all of them.
 *
 * A run is one generation, which the threads sleep on: the caller writes fn and ctx before it raises it.  `running`
 * counts those that are not through, and is what the caller sleeps on. */
#include "parallel/rank_team.h"

#include "base/futex.h"
#include "base/mem.h"
#include "parallel/coll.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define RANKS_MAX 4096

struct rank_thread {
    struct rank_team *team;
    uint32_t rank;
    pthread_t thread;
    bool started;
};

struct rank_team {
    uint32_t n;
    rank_fn fn;
    void *ctx;
    _Atomic uint32_t generation, running;
    _Atomic uint64_t first; /* status << 32 | rank of the first failure; 0: none */
    _Atomic bool stop;
    const struct coll **groups;  /* owned; [n], or NULL */
    struct rank_thread *threads; /* owned; [n], rank 0 is the caller */
};

static void run_rank(struct rank_team *t, uint32_t rank)
{
    const enum status st = t->fn(t->ctx, rank);
    uint64_t none = 0;
    if (st == OK) return;
    atomic_compare_exchange_strong(&t->first, &none, (uint64_t)st << 32 | rank);
    if (t->groups) t->groups[rank]->ops->abort(t->groups[rank], st);
}

static void *rank_main(void *arg)
{
    const struct rank_thread *self = arg;
    struct rank_team *t = self->team;
    for (uint32_t seen = 0, now;; seen = now) {
        while ((now = atomic_load(&t->generation)) == seen) futex_wait(&t->generation, seen);
        if (atomic_load(&t->stop)) return NULL;
        run_rank(t, self->rank);
        if (atomic_fetch_sub(&t->running, 1) == 1) futex_wake_all(&t->running);
    }
}

static enum status start_threads(struct rank_team *t, struct error *err)
{
    char name[16];
    for (uint32_t i = 1; i < t->n; i++) {
        struct rank_thread *r = &t->threads[i];
        *r = (struct rank_thread){ .team = t, .rank = i };
        int rc = pthread_create(&r->thread, NULL, rank_main, r);
        if (rc != 0)
            return error_set(err, ERR_NO_MEMORY, "cannot start the thread of rank %u of %u: %s", i, t->n, strerror(rc));
        r->started = true;
        snprintf(name, sizeof(name), "rank %u", i);
        pthread_setname_np(r->thread, name);
    }
    return OK;
}

enum status rank_team_create(struct rank_team **out, uint32_t n, const struct coll *const *groups, struct error *err)
{
    if (n == 0 || n > RANKS_MAX) return error_set(err, ERR_INVALID, "%u ranks, allowed are 1 to %d", n, RANKS_MAX);
    struct rank_team *t = mem_zalloc(sizeof(*t));
    t->n = n;
    t->threads = mem_array(n, sizeof(*t->threads));
    if (groups) {
        t->groups = mem_array(n, sizeof(*t->groups));
        memcpy(t->groups, groups, n * sizeof(*t->groups));
    }
    enum status st = start_threads(t, err);
    if (st != OK) {
        rank_team_destroy(t);
        return st;
    }
    *out = t;
    return OK;
}

void rank_team_destroy(struct rank_team *t)
{
    if (!t) return;
    atomic_store(&t->stop, true);
    atomic_fetch_add(&t->generation, 1);
    futex_wake_all(&t->generation);
    for (uint32_t i = 1; i < t->n; i++)
        if (t->threads[i].started) pthread_join(t->threads[i].thread, NULL);
    mem_free(t->groups);
    mem_free(t->threads);
    mem_free(t);
}

uint32_t rank_team_size(const struct rank_team *t)
{
    return t->n;
}

static void wait_for_all(struct rank_team *t)
{
    for (uint32_t left; (left = atomic_load(&t->running)) > 0;) futex_wait(&t->running, left);
}

enum status rank_team_run(struct rank_team *t, rank_fn fn, void *ctx, uint32_t *who)
{
    t->fn = fn;
    t->ctx = ctx;
    atomic_store(&t->first, 0);
    if (t->n > 1) {
        atomic_store(&t->running, t->n - 1);
        atomic_fetch_add(&t->generation, 1);
        futex_wake_all(&t->generation);
    }
    run_rank(t, 0);
    wait_for_all(t);
    const uint64_t first = atomic_load(&t->first);
    if (first == 0) return OK;
    if (who) *who = (uint32_t)first;
    if (t->groups) t->groups[0]->ops->revive(t->groups[0]);
    return (enum status)(first >> 32);
}

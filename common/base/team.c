/* team.c - fork-join workers that spin briefly and then sleep on a futex.
 *
 * A run is one generation.  The caller writes fn and arg, opens `door` for the generation (release) and raises
 * `generation`.  A worker that sees the new number enters through the door (acquire), runs fn and raises
 * `finished` (release); the caller waits for as many as have to come (acquire).  Who finds the door shut, or a
 * later generation behind it, was not needed.  `generation` and `finished` are futexes; the counters of
 * sleepers spare the system call when nobody sleeps: a sleeper announces itself before it looks at the word
 * again, the other side changes the word before it looks for sleepers, all sequentially consistent. */
#include "base/team.h"

#include "base/cpus.h"
#include "base/futex.h"
#include "base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TEAM_MAX     1024
#define SPINS        2000 /* pauses, 20 to 80 us: longer than the gap between two ops of a step */
#define DOOR_OPEN    0x80000000u
#define SPINS_SHARED 20 /* in a crowd */

struct member {
    struct team *team;
    uint32_t idx;
    pthread_t thread;
    bool started;
};

struct team {
    _Alignas(64) _Atomic uint32_t generation;
    _Atomic uint32_t sleepers;
    team_fn fn;
    void *arg;
    _Alignas(64) _Atomic uint64_t door; /* generation << 32 | DOOR_OPEN | how many entered */
    _Alignas(64) _Atomic uint32_t finished;
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) uint32_t n;
    uint32_t spins;
    _Atomic bool stop;
    struct cpu_list cpus;   /* processors to pin to, in turn; empty: no pinning */
    struct member *members; /* owned; [n], member 0 is the caller */
    void *allocation;
};

/* Waits until *word is no longer `seen` and returns what it is then. */
static uint32_t wait_change(_Atomic uint32_t *word, uint32_t seen, _Atomic uint32_t *sleepers, uint32_t spins)
{
    uint32_t now;
    for (uint32_t i = 0; i < spins; i++) {
        now = atomic_load_explicit(word, memory_order_acquire);
        if (now != seen) return now;
        __builtin_ia32_pause();
    }
    atomic_fetch_add(sleepers, 1);
    while ((now = atomic_load(word)) == seen) futex_wait(word, seen);
    atomic_fetch_sub(sleepers, 1);
    return now;
}

static void pin(const struct team *t, uint32_t idx)
{
    if (t->cpus.n == 0) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(t->cpus.ids[idx % t->cpus.n], &set);
    /* The list was checked when the team was created; a processor that has gone offline since
     * leaves the member unpinned, which costs speed only. */
    (void)pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
}

/* Whether the run of `generation` still takes a member; counts the caller of this in. */
static bool enter(struct team *t, uint32_t generation)
{
    uint64_t door = atomic_load_explicit(&t->door, memory_order_acquire);
    do {
        if (door >> 32 != generation || !(door & DOOR_OPEN)) return false;
    } while (
        !atomic_compare_exchange_weak_explicit(&t->door, &door, door + 1, memory_order_acq_rel, memory_order_acquire));
    return true;
}

static void *worker(void *arg)
{
    struct member *m = arg;
    struct team *t = m->team;
    uint32_t seen = 0;
    pin(t, m->idx);
    for (;;) {
        seen = wait_change(&t->generation, seen, &t->sleepers, t->spins);
        if (atomic_load_explicit(&t->stop, memory_order_relaxed)) return NULL;
        if (!enter(t, seen)) continue;
        t->fn(t->arg, m->idx, t->n);
        atomic_fetch_add(&t->finished, 1);
        if (atomic_load(&t->caller_sleeps)) futex_wake_all(&t->finished);
    }
}

static enum status parse_cpus(struct team *t, const char *text, struct error *err)
{
    struct cpu_list allowed;
    if (cpu_list_parse(&t->cpus, text) != OK)
        return error_set(err, ERR_INVALID, "cpus \"%s\": expected a list like \"0-3,6\"", text);
    cpu_list_allowed(&allowed);
    for (uint32_t i = 0; i < t->cpus.n; i++)
        if (!cpu_list_has(&allowed, t->cpus.ids[i]))
            return error_set(err, ERR_INVALID, "cpus \"%s\": processor %u is not available here", text, t->cpus.ids[i]);
    return OK;
}

/* More members than can run at once: spinning would only take time from the others. */
static bool is_crowded(const struct team *t)
{
    struct cpu_list allowed;
    cpu_list_allowed(&allowed);
    return t->n > cpus_usable("", &allowed);
}

static enum status start_workers(struct team *t, struct error *err)
{
    for (uint32_t i = 1; i < t->n; i++) {
        struct member *m = &t->members[i];
        m->team = t;
        m->idx = i;
        int rc = pthread_create(&m->thread, NULL, worker, m);
        if (rc != 0)
            return error_set(err, ERR_NO_MEMORY, "cannot start compute thread %u of %u: %s", i + 1, t->n, strerror(rc));
        m->started = true;
        pthread_setname_np(m->thread, "team");
    }
    return OK;
}

enum status team_create(struct team **out, uint32_t n, const char *cpus, struct error *err)
{
    if (n == 0 || n > TEAM_MAX) return error_set(err, ERR_INVALID, "threads: %u is not in 1..%d", n, TEAM_MAX);
    void *allocation = mem_zalloc(sizeof(struct team) + 63);
    struct team *t = (struct team *)(((uintptr_t)allocation + 63) & ~(uintptr_t)63);
    enum status st;
    t->allocation = allocation;
    t->n = n;
    t->spins = is_crowded(t) ? SPINS_SHARED : SPINS;
    t->members = mem_array(n, sizeof(*t->members));
    if (cpus && (st = parse_cpus(t, cpus, err)) != OK) goto fail;
    if ((st = start_workers(t, err)) != OK) goto fail;
    pin(t, 0);
    *out = t;
    return OK;
fail:
    team_destroy(t);
    return st;
}

void team_destroy(struct team *t)
{
    if (!t) return;
    atomic_store_explicit(&t->stop, true, memory_order_relaxed);
    atomic_fetch_add(&t->generation, 1);
    futex_wake_all(&t->generation);
    for (uint32_t i = 1; i < t->n; i++)
        if (t->members[i].started) pthread_join(t->members[i].thread, NULL);
    mem_free(t->members);
    mem_free(t->allocation);
}

uint32_t team_size(const struct team *t)
{
    return t->n;
}

/* Starts a run; the caller does its own part and then waits for `finished`. */
static void start(struct team *t, team_fn fn, void *arg)
{
    uint32_t generation = atomic_load_explicit(&t->generation, memory_order_relaxed) + 1;
    t->fn = fn;
    t->arg = arg;
    atomic_store_explicit(&t->finished, 0, memory_order_relaxed);
    atomic_store_explicit(&t->door, (uint64_t)generation << 32 | DOOR_OPEN, memory_order_release);
    atomic_store(&t->generation, generation);
    if (atomic_load(&t->sleepers)) futex_wake_all(&t->generation);
}

static void wait_finished(struct team *t, uint32_t n)
{
    uint32_t done = atomic_load_explicit(&t->finished, memory_order_acquire);
    while (done < n) done = wait_change(&t->finished, done, &t->caller_sleeps, t->spins);
}

void team_run(struct team *t, team_fn fn, void *arg)
{
    if (t->n > 1) start(t, fn, arg);
    fn(arg, 0, t->n);
    if (t->n > 1) wait_finished(t, t->n - 1);
}

void team_share(struct team *t, team_fn fn, void *arg)
{
    if (t->n > 1) start(t, fn, arg);
    fn(arg, 0, t->n);
    if (t->n == 1) return;
    uint64_t door = atomic_fetch_and(&t->door, ~(uint64_t)DOOR_OPEN);
    wait_finished(t, (uint32_t)(door & ~DOOR_OPEN));
}

/* huge_pages.c - threads that walk memory ahead of its writer and have the kernel give it huge pages. */
#include "base/huge_pages.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* Since Linux 5.14 and 6.1; older headers lack them, older kernels refuse them and small pages it is. */
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define N_THREADS 2 /* where the host backs memory only when it is touched, one is slower than a disk */

struct huge_ahead {
    uint8_t *p, *end;
    bool shared;
    bool *done; /* [n_runs] */
    size_t n_runs;
    size_t next, ready; /* the run to take; runs that are ready without a gap */
    bool stop;
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t threads[N_THREADS];
    uint32_t n_threads;
};

enum status huge_map_shared(void **out, int fd, size_t bytes, bool writable)
{
    if (bytes > PTRDIFF_MAX - HUGE_PAGE_BYTES) return ERR_NO_MEMORY;
    /* Room for an aligned place in it; what is left over is given back. */
    size_t room = bytes + HUGE_PAGE_BYTES;
    uint8_t *at = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return ERR_NO_MEMORY;
    size_t before = -(uintptr_t)at % HUGE_PAGE_BYTES, page = (size_t)sysconf(_SC_PAGESIZE);
    size_t kept = (bytes + page - 1) / page * page;
    int prot = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    if (mmap(at + before, bytes, prot, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        munmap(at, room);
        return ERR_NO_MEMORY;
    }
    if (before) munmap(at, before);
    if (before + kept < room) munmap(at + before + kept, room - before - kept);
    madvise(at + before, bytes, MADV_HUGEPAGE); /* only a hint */
    *out = at + before;
    return OK;
}

/* Runs end at multiples of a huge page; the first and the last one may be shorter than that. */
static uint8_t *run_start(const struct huge_ahead *h, size_t i)
{
    uint8_t *first = h->p - (uintptr_t)h->p % HUGE_PAGE_BYTES, *at = first + i * HUGE_PAGE_BYTES;
    return at < h->p ? h->p : at > h->end ? h->end : at;
}

/* All of these may fail: then a page is made when it is written. */
static void make_ready(const struct huge_ahead *h, size_t run)
{
    uint8_t *p = run_start(h, run);
    size_t n = (size_t)(run_start(h, run + 1) - p);
    /* A collapse needs a page to begin with. */
    if (h->shared && n == HUGE_PAGE_BYTES && madvise(p, 1, MADV_POPULATE_WRITE) == 0 &&
        madvise(p, n, MADV_COLLAPSE) == 0)
        return;
    madvise(p, n, MADV_POPULATE_WRITE);
}

static void *walk(void *arg)
{
    struct huge_ahead *h = arg;
    pthread_mutex_lock(&h->lock);
    while (!h->stop && h->next < h->n_runs) {
        size_t run = h->next++;
        pthread_mutex_unlock(&h->lock);
        make_ready(h, run);
        pthread_mutex_lock(&h->lock);
        h->done[run] = true;
        while (h->ready < h->n_runs && h->done[h->ready]) h->ready++;
        pthread_cond_broadcast(&h->more);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

struct huge_ahead *huge_ahead_start(void *p, size_t bytes, bool shared)
{
    struct huge_ahead *h = mem_zalloc(sizeof(*h));
    size_t page = (size_t)sysconf(_SC_PAGESIZE), off = (uintptr_t)p % page;
    h->p = (uint8_t *)p - off;
    h->end = (uint8_t *)p + bytes;
    h->shared = shared;
    h->n_runs = ((uintptr_t)h->end - 1) / HUGE_PAGE_BYTES - (uintptr_t)h->p / HUGE_PAGE_BYTES + 1;
    h->done = mem_array(h->n_runs, sizeof(*h->done));
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->more, NULL);
    while (h->n_threads < N_THREADS && pthread_create(&h->threads[h->n_threads], NULL, walk, h) == 0) h->n_threads++;
    if (h->n_threads) return h;
    huge_ahead_stop(h);
    return NULL;
}

void huge_ahead_wait(struct huge_ahead *h, const void *end)
{
    if (!h) return;
    pthread_mutex_lock(&h->lock);
    while (h->ready < h->n_runs && run_start(h, h->ready) < (const uint8_t *)end) pthread_cond_wait(&h->more, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

void huge_ahead_stop(struct huge_ahead *h)
{
    if (!h) return;
    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_mutex_unlock(&h->lock);
    for (uint32_t i = 0; i < h->n_threads; i++) pthread_join(h->threads[i], NULL);
    pthread_cond_destroy(&h->more);
    pthread_mutex_destroy(&h->lock);
    mem_free(h->done);
    mem_free(h);
}

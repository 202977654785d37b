/* io_read_pool.c - queued reads by a pool of threads with pread(). */
#include "base/io_read_internal.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#define N_THREADS 4

struct pool {
    pthread_mutex_t lock; /* of the queue, and of the slots that are busy */
    pthread_cond_t work, done;
    pthread_t threads[N_THREADS];
    uint32_t n_threads;
    uint32_t *queue; /* ring of slots to read, [n_slots] */
    uint32_t head, n;
    bool closing;
};

static void read_slot(struct io_reader *r, struct io_slot *s)
{
    for (;;) {
        ssize_t n = r->pread(s->fd, s->memory + s->got, s->length - s->got, (off_t)(s->offset + s->got));
        if (io_slot_take(s, n, n < 0 ? errno : 0)) return;
    }
}

static void *pool_thread(void *arg)
{
    struct io_reader *r = arg;
    struct pool *p = r->how;
    pthread_mutex_lock(&p->lock);
    while (!p->closing) {
        if (p->n == 0) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        uint32_t slot = p->queue[p->head];
        p->head = (p->head + 1) % r->n_slots;
        p->n--;
        pthread_mutex_unlock(&p->lock);
        read_slot(r, &r->slots[slot]);
        pthread_mutex_lock(&p->lock);
        r->slots[slot].busy = false;
        pthread_cond_broadcast(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pool_start(struct io_reader *r, uint32_t slot)
{
    struct pool *p = r->how;
    pthread_mutex_lock(&p->lock);
    p->queue[(p->head + p->n++) % r->n_slots] = slot;
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static void pool_wait(struct io_reader *r, uint32_t slot)
{
    struct pool *p = r->how;
    pthread_mutex_lock(&p->lock);
    while (r->slots[slot].busy) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

static void pool_close(struct io_reader *r)
{
    struct pool *p = r->how;
    pthread_mutex_lock(&p->lock);
    p->closing = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->queue);
    mem_free(p);
}

static const struct io_ops pool_ops = { "pread", pool_start, pool_wait, pool_close };

enum status io_pool_open(struct io_reader *r, struct error *err)
{
    struct pool *p = mem_zalloc(sizeof(*p));
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    p->queue = mem_array(r->n_slots, sizeof(*p->queue));
    r->how = p;
    r->ops = &pool_ops;
    for (; p->n_threads < N_THREADS; p->n_threads++) {
        int e = pthread_create(&p->threads[p->n_threads], NULL, pool_thread, r);
        if (e != 0 && p->n_threads == 0)
            return error_set(err, ERR_NO_MEMORY, "cannot start a thread for reading: %s", strerror(e));
        if (e != 0) break;
    }
    return OK;
}

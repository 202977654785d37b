/* work.c - two lanes of items under one lock, their threads, and the way back to the loop. */
#include "coordinator/work.h"

#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_THREADS 64
#define LARGE_NICE  10 /* a tenth of a core where others want it, all of it where not */

enum lane_kind { LANE_SMALL, LANE_LARGE, LANE_COUNT };

struct list { /* first in, first out */
    struct work_item *head, **tail;
};

struct worker {
    struct work *work;
    pthread_t thread;
    enum lane_kind lane;
    struct work_item *running; /* under the lock */
};

struct work {
    struct work_limits limits;
    uv_async_t wake;
    pthread_mutex_t lock;
    pthread_cond_t more[LANE_COUNT];
    struct list waiting[LANE_COUNT], finished; /* under the lock */
    bool closing;                              /* under the lock */
    struct worker workers[MAX_THREADS];
    uint32_t n_workers;
    uint32_t n_items; /* the loop's own */
    uint64_t n_bytes;
};

static void list_init(struct list *l)
{
    l->head = NULL;
    l->tail = &l->head;
}

static void list_add(struct list *l, struct work_item *item)
{
    item->next = NULL;
    *l->tail = item;
    l->tail = &item->next;
}

static void list_add_first(struct list *l, struct work_item *item)
{
    item->next = l->head;
    if (!l->head) l->tail = &item->next;
    l->head = item;
}

static struct work_item *list_take(struct list *l)
{
    struct work_item *item = l->head;
    if (item) l->head = item->next;
    if (!l->head) l->tail = &l->head;
    return item;
}

/* False if it is not there. */
static bool list_remove(struct list *l, struct work_item *item)
{
    struct work_item **at = &l->head;
    while (*at && *at != item) at = &(*at)->next;
    if (!*at) return false;
    *at = item->next;
    if (l->tail == &item->next) l->tail = at;
    return true;
}

static enum lane_kind lane_of(const struct work_item *item)
{
    return item->bytes <= WORK_SMALL_BYTES ? LANE_SMALL : LANE_LARGE;
}

/* Of this thread alone.  A refusal costs nothing but politeness. */
static void be_polite(void)
{
    struct sched_param none = { 0 };
    pid_t self = (pid_t)syscall(SYS_gettid);
    (void)sched_setscheduler(self, SCHED_BATCH, &none);
    (void)setpriority(PRIO_PROCESS, (id_t)self, LARGE_NICE);
}

static void *serve(void *arg)
{
    struct worker *me = arg;
    struct work *w = me->work;
    if (me->lane == LANE_LARGE) be_polite();
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->closing && !w->waiting[me->lane].head) pthread_cond_wait(&w->more[me->lane], &w->lock);
        struct work_item *item = me->running = list_take(&w->waiting[me->lane]);
        if (!item) break;
        pthread_mutex_unlock(&w->lock);
        if (!atomic_load(&item->stop)) item->run(item);
        pthread_mutex_lock(&w->lock);
        me->running = NULL;
        list_add(&w->finished, item);
        uv_async_send(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void finish_all(struct work *w)
{
    struct list finished;
    list_init(&finished);
    pthread_mutex_lock(&w->lock);
    if (w->finished.head) {
        finished.head = w->finished.head;
        list_init(&w->finished);
    }
    pthread_mutex_unlock(&w->lock);
    for (struct work_item *item = finished.head, *next; item; item = next) {
        next = item->next;
        w->n_items--;
        w->n_bytes -= item->bytes;
        item->done(item);
    }
}

static void on_wake(uv_async_t *wake)
{
    finish_all(wake->data);
}

static enum status start_worker(struct work *w, enum lane_kind lane, struct error *err)
{
    struct worker *worker = &w->workers[w->n_workers];
    worker->work = w;
    worker->lane = lane;
    int e = pthread_create(&worker->thread, NULL, serve, worker);
    if (e != 0) return error_set(err, ERR_NO_MEMORY, "cannot start a worker thread: %s", strerror(e));
    pthread_setname_np(worker->thread, "work");
    w->n_workers++;
    return OK;
}

enum status work_create(struct work **out, uv_loop_t *loop, const struct work_limits *limits, struct error *err)
{
    struct work *w = mem_zalloc(sizeof(*w));
    w->limits = *limits;
    pthread_mutex_init(&w->lock, NULL);
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        pthread_cond_init(&w->more[lane], NULL);
        list_init(&w->waiting[lane]);
    }
    list_init(&w->finished);
    int e = uv_async_init(loop, &w->wake, on_wake);
    if (e != 0) {
        mem_free(w);
        return error_set(err, ERR_IO, "workers: %s", uv_strerror(e));
    }
    w->wake.data = w;
    enum status st = start_worker(w, LANE_SMALL, err);
    for (uint32_t i = 0; st == OK && i < limits->threads && w->n_workers < MAX_THREADS; i++)
        st = start_worker(w, LANE_LARGE, err);
    if (st != OK) {
        work_close(w);
        return st;
    }
    *out = w;
    return OK;
}

/* Nothing waits any more, and what runs is told to end. */
static void cancel_all(struct work *w)
{
    pthread_mutex_lock(&w->lock);
    w->closing = true;
    for (int lane = 0; lane < LANE_COUNT; lane++) {
        for (struct work_item *item; (item = list_take(&w->waiting[lane]));) {
            atomic_store(&item->stop, true);
            list_add(&w->finished, item);
        }
        pthread_cond_broadcast(&w->more[lane]);
    }
    for (uint32_t i = 0; i < w->n_workers; i++)
        if (w->workers[i].running) atomic_store(&w->workers[i].running->stop, true);
    pthread_mutex_unlock(&w->lock);
}

static void on_closed(uv_handle_t *handle)
{
    struct work *w = handle->data;
    for (int lane = 0; lane < LANE_COUNT; lane++) pthread_cond_destroy(&w->more[lane]);
    pthread_mutex_destroy(&w->lock);
    mem_free(w);
}

void work_close(struct work *w)
{
    if (!w) return;
    cancel_all(w);
    for (uint32_t i = 0; i < w->n_workers; i++) pthread_join(w->workers[i].thread, NULL);
    finish_all(w);
    assert(w->n_items == 0 && w->n_bytes == 0);
    uv_close((uv_handle_t *)&w->wake, on_closed);
}

bool work_has_room(const struct work *w, size_t bytes)
{
    return w->n_items < w->limits.max_items && bytes <= w->limits.max_bytes &&
           w->n_bytes <= w->limits.max_bytes - bytes;
}

enum status work_submit(struct work *w, struct work_item *item)
{
    if (!item->owed && !work_has_room(w, item->bytes)) return ERR_FULL;
    enum lane_kind lane = lane_of(item);
    w->n_items++;
    w->n_bytes += item->bytes;
    pthread_mutex_lock(&w->lock);
    if (item->owed)
        list_add_first(&w->waiting[lane], item);
    else
        list_add(&w->waiting[lane], item);
    pthread_cond_signal(&w->more[lane]);
    pthread_mutex_unlock(&w->lock);
    return OK;
}

void work_cancel(struct work *w, struct work_item *item)
{
    atomic_store(&item->stop, true);
    pthread_mutex_lock(&w->lock);
    if (list_remove(&w->waiting[lane_of(item)], item)) {
        list_add(&w->finished, item);
        uv_async_send(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
}

uint32_t work_items(const struct work *w)
{
    return w->n_items;
}

uint64_t work_bytes(const struct work *w)
{
    return w->n_bytes;
}

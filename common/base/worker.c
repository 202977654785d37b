/* worker.c - a thread that does one piece of work after the other, and sleeps where there is none. */
#include "base/worker.h"

void worker_init(struct worker *w)
{
    *w = (struct worker){ 0 };
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
}

static void *run(void *arg)
{
    struct worker *w = arg;
    worker_lock(w);
    while (!w->is_ending) {
        if (!w->work(w->ctx) && !w->is_ending) pthread_cond_wait(&w->more, &w->lock);
    }
    worker_unlock(w);
    return NULL;
}

enum status worker_start(struct worker *w, const char *name, worker_fn work, void *ctx)
{
    w->work = work;
    w->ctx = ctx;
    if (pthread_create(&w->thread, NULL, run, w) != 0) return ERR_NO_MEMORY;
    pthread_setname_np(w->thread, name);
    w->is_running = true;
    return OK;
}

void worker_fini(struct worker *w)
{
    worker_lock(w);
    w->is_ending = true;
    worker_wake(w);
    worker_unlock(w);
    if (w->is_running) pthread_join(w->thread, NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
}

void worker_lock(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
}

void worker_unlock(struct worker *w)
{
    pthread_mutex_unlock(&w->lock);
}

void worker_wake(struct worker *w)
{
    pthread_cond_signal(&w->more);
}

/* worker.h - a thread that does one piece of work after the other, and sleeps where there is none.
 *
 * Its owner and the thread share what the lock guards:
 *
 *     worker_init(&w);
 *     worker_start(&w, "kv-tier", work, ctx);
 *     worker_lock(&w); ... more to do ...; worker_wake(&w); worker_unlock(&w);
 *     worker_fini(&w);    // ends the thread after the piece that it does */
#ifndef BASE_WORKER_H
#define BASE_WORKER_H
#include "base/status.h"

#include <pthread.h>
#include <stdbool.h>

/* One piece of work, called under the lock, which it may give up meanwhile.  False: there is none. */
typedef bool (*worker_fn)(void *ctx);

struct worker {
    pthread_mutex_t lock;
    pthread_cond_t more;
    pthread_t thread;
    worker_fn work;
    void *ctx;
    bool is_running, is_ending; /* under the lock */
};

void worker_init(struct worker *w);
/* `name` has at most 15 characters.  ERR_NO_MEMORY: there is no thread to be had. */
enum status worker_start(struct worker *w, const char *name, worker_fn work, void *ctx) MUST_CHECK;
void worker_fini(struct worker *w); /* of an initialised one, started or not */

void worker_lock(struct worker *w);
void worker_unlock(struct worker *w);
void worker_wake(struct worker *w); /* under the lock */
#endif

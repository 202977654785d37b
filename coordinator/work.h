/* work.h - a small pool of threads for what grows with a body or an answer, so that the loop never does.
 *
 * An item's `run` is called on a worker, its `done` on the loop, exactly once, in any case.  Items up to
 * WORK_SMALL_BYTES have a thread of their own, so that they never wait behind large ones; the threads of large ones
 * have a low priority, so that they take no cores from nodes beside them.  Bounded in items and bytes. */
#ifndef COORDINATOR_WORK_H
#define COORDINATOR_WORK_H
#include "base/error.h"

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define WORK_SMALL_BYTES ((size_t)64 << 10)

struct work;

struct work_item { /* embedded in what the work is about; zero but for the first members */
    void (*run)(struct work_item *item);
    void (*done)(struct work_item *item); /* may free the item */
    size_t bytes;                         /* what it holds, for the bounds */
    bool owed;                            /* part of an answer under way: taken past the bounds */
    atomic_bool stop;                     /* `run` ends as soon as it can, or is not called at all */
    struct work_item *next;
};

struct work_limits {
    uint32_t threads; /* for large items */
    uint32_t max_items;
    uint64_t max_bytes;
};

enum status work_create(struct work **out, uv_loop_t *loop, const struct work_limits *limits,
                        struct error *err) MUST_CHECK;
/* Cancels and finishes every item (their `done` runs inside), ends the threads.  Memory goes when the loop has run the
 * close.  NULL is fine. */
void work_close(struct work *w);
/* Whether an item of so many bytes is within the bounds now; only this thread's submits change that. */
bool work_has_room(const struct work *w, size_t bytes);
/* ERR_FULL: over a bound; the item stays the caller's. */
enum status work_submit(struct work *w, struct work_item *item) MUST_CHECK;
/* The item's `done` comes soon; `run` is not called any more if it has not begun.  Loop only. */
void work_cancel(struct work *w, struct work_item *item);
/* Items submitted and not done, and their bytes. */
uint32_t work_items(const struct work *w);
uint64_t work_bytes(const struct work *w);
#endif

/* worker: all work is done, one piece at a time, and the thread ends when it is told to. */
#include "base/worker.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <unistd.h>

struct pile {
    struct worker w;
    int left, done; /* under the lock */
    bool unlocks;
};

static bool take_one(void *ctx)
{
    struct pile *p = ctx;
    if (p->left == 0) return false;
    if (p->unlocks) {
        worker_unlock(&p->w);
        sched_yield();
        worker_lock(&p->w);
    }
    p->left--;
    p->done++;
    return true;
}

static int done(struct pile *p)
{
    worker_lock(&p->w);
    int n = p->done;
    worker_unlock(&p->w);
    return n;
}

static void add(struct pile *p, int n)
{
    worker_lock(&p->w);
    p->left += n;
    worker_wake(&p->w);
    worker_unlock(&p->w);
}

Test(worker, does_what_is_there_and_what_comes_later, .timeout = 60)
{
    for (int unlocks = 0; unlocks <= 1; unlocks++) {
        struct pile p = { .left = 3, .unlocks = unlocks };
        worker_init(&p.w);
        cr_assert_eq(worker_start(&p.w, "test", take_one, &p), OK);
        while (done(&p) < 3) sched_yield();
        add(&p, 5);
        while (done(&p) < 8) sched_yield();
        worker_fini(&p.w);
        cr_assert(p.done == 8 && p.left == 0);
    }
}

/* What is left stays undone: the thread ends after the piece that it does. */
static bool never_ends(void *ctx)
{
    struct pile *p = ctx;
    p->done++;
    worker_unlock(&p->w); /* who holds a lock without a pause may keep others out for as long as it likes */
    sched_yield();
    worker_lock(&p->w);
    return true;
}

Test(worker, ends_with_work_left_and_without_a_start, .timeout = 60)
{
    struct pile p = { .left = 0 };
    worker_init(&p.w);
    worker_fini(&p.w);
    worker_init(&p.w);
    cr_assert_eq(worker_start(&p.w, "test", never_ends, &p), OK);
    worker_fini(&p.w);
    const int after = p.done;
    usleep(1000);
    cr_assert_eq(p.done, after);
}

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
    ++*(int *)ctx;
    return true;
}

Test(worker, ends_with_work_left_and_without_a_start, .timeout = 60)
{
    struct worker w;
    int n = 0;
    worker_init(&w);
    worker_fini(&w);
    worker_init(&w);
    cr_assert_eq(worker_start(&w, "test", never_ends, &n), OK);
    worker_fini(&w);
    const int after = n;
    usleep(1000);
    cr_assert_eq(n, after);
}

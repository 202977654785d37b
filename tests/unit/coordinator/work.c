/* work: every item comes back once, whatever becomes of it. */
#include "coordinator/work.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>

struct job {
    struct work_item item;
    atomic_int ran;
    int done;
    pthread_t ran_on;
};

static sem_t began, gate;

static void run(struct work_item *item)
{
    struct job *j = (struct job *)item;
    j->ran_on = pthread_self();
    atomic_fetch_add(&j->ran, 1);
}

/* Holds its thread until the test lets it go, or it is told to stop. */
static void run_held(struct work_item *item)
{
    run(item);
    sem_post(&began);
    while (!atomic_load(&item->stop) && sem_trywait(&gate) != 0) sched_yield();
}

static void done(struct work_item *item)
{
    ((struct job *)item)->done++;
}

static struct job make(size_t bytes, void (*fn)(struct work_item *))
{
    return (struct job){ .item = { .run = fn, .done = done, .bytes = bytes } };
}

static uv_loop_t loop;
static struct work *w;

static void open_work(uint32_t threads, uint32_t max_items, uint64_t max_bytes)
{
    struct work_limits limits = { threads, max_items, max_bytes };
    struct error err;
    sem_init(&began, 0, 0);
    sem_init(&gate, 0, 0);
    uv_loop_init(&loop);
    cr_assert_eq(work_create(&w, &loop, &limits, &err), OK);
}

static void close_work(void)
{
    work_close(w);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
}

static void wait_for(const struct job *j)
{
    while (!j->done) uv_run(&loop, UV_RUN_ONCE);
}

Test(work, runs_elsewhere_and_comes_back)
{
    open_work(2, 8, 1 << 20);
    struct job small = make(10, run), large = make(100000, run);
    cr_assert_eq(work_submit(w, &small.item), OK);
    cr_assert_eq(work_submit(w, &large.item), OK);
    cr_assert_eq(work_items(w), 2);
    cr_assert_eq(work_bytes(w), 100010);
    wait_for(&small);
    wait_for(&large);
    cr_assert(!pthread_equal(small.ran_on, pthread_self()) && !pthread_equal(large.ran_on, pthread_self()));
    cr_assert_eq(work_items(w) + work_bytes(w), 0);
    close_work();
    cr_assert_eq(small.done + large.done, 2);
}

Test(work, is_bounded_but_for_what_is_owed)
{
    open_work(1, 2, 200000);
    struct job a = make(100000, run_held), b = make(100001, run), c = make(10, run_held), d = make(10, run);
    cr_assert_eq(work_submit(w, &a.item), OK);
    cr_assert_eq(work_submit(w, &b.item), ERR_FULL, "too many bytes");
    cr_assert_eq(work_submit(w, &c.item), OK);
    cr_assert_eq(work_submit(w, &d.item), ERR_FULL, "too many items");
    d.item.owed = true;
    cr_assert_eq(work_submit(w, &d.item), OK);
    sem_post(&gate);
    sem_post(&gate);
    wait_for(&a);
    wait_for(&c);
    wait_for(&d);
    cr_assert_eq(work_submit(w, &b.item), OK, "there is room again");
    wait_for(&b);
    close_work();
}

Test(work, small_items_do_not_wait_behind_large_ones)
{
    open_work(1, 8, 1 << 20);
    struct job large = make(100000, run_held), small = make(10, run);
    cr_assert_eq(work_submit(w, &large.item), OK);
    sem_wait(&began);
    cr_assert_eq(work_submit(w, &small.item), OK);
    wait_for(&small);
    cr_assert_eq(large.done, 0);
    sem_post(&gate);
    wait_for(&large);
    close_work();
}

Test(work, a_cancelled_item_comes_back_without_having_run)
{
    open_work(1, 8, 1 << 20);
    struct job first = make(100000, run_held), second = make(100000, run);
    cr_assert_eq(work_submit(w, &first.item), OK);
    sem_wait(&began);
    cr_assert_eq(work_submit(w, &second.item), OK);
    work_cancel(w, &second.item);
    wait_for(&second);
    cr_assert_eq(atomic_load(&second.ran), 0);
    cr_assert_eq(first.done, 0);
    work_cancel(w, &first.item); /* what runs is told */
    wait_for(&first);
    close_work();
}

Test(work, closing_finishes_all)
{
    open_work(1, 8, 1 << 20);
    struct job jobs[3] = { make(100000, run_held), make(100000, run), make(100000, run) };
    for (int i = 0; i < 3; i++) cr_assert_eq(work_submit(w, &jobs[i].item), OK);
    sem_wait(&began);
    close_work();
    for (int i = 0; i < 3; i++) cr_assert_eq(jobs[i].done, 1);
    cr_assert_eq(atomic_load(&jobs[1].ran) + atomic_load(&jobs[2].ran), 0);
}

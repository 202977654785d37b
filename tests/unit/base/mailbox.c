/* mailbox: bounded, in order, and its fd is readable exactly while something is inside. */
#include "base/mailbox.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>

static bool is_readable(const struct mailbox *m)
{
    struct pollfd p = { .fd = mailbox_fd(m), .events = POLLIN };
    return poll(&p, 1, 0) == 1;
}

Test(mailbox, keeps_order_and_bound)
{
    struct mailbox *m;
    int v[5];
    cr_assert_eq(mailbox_create(&m, 3), OK);
    for (int round = 0; round < 4; round++) { /* goes around the ring's end */
        for (int i = 0; i < 3; i++) cr_assert_eq(mailbox_post(m, &v[i]), OK);
        cr_assert_eq(mailbox_post(m, &v[3]), ERR_FULL);
        cr_assert_eq(mailbox_try_take(m), &v[0]);
        cr_assert_eq(mailbox_post(m, &v[4]), OK);
        cr_assert_eq(mailbox_try_take(m), &v[1]);
        cr_assert_eq(mailbox_try_take(m), &v[2]);
        cr_assert_eq(mailbox_take(m, -1), &v[4]);
        cr_assert_null(mailbox_try_take(m));
    }
    mailbox_destroy(m);
    mailbox_destroy(NULL);
}

Test(mailbox, fd_says_whether_anything_is_inside)
{
    struct mailbox *m;
    int v;
    cr_assert_eq(mailbox_create(&m, 8), OK);
    cr_assert(!is_readable(m));
    cr_assert_eq(mailbox_post(m, &v), OK);
    cr_assert_eq(mailbox_post(m, &v), OK);
    cr_assert(is_readable(m));
    mailbox_try_take(m);
    cr_assert(is_readable(m));
    mailbox_try_take(m);
    cr_assert(!is_readable(m));
    mailbox_destroy(m);
}

Test(mailbox, take_gives_up_after_its_time)
{
    struct mailbox *m;
    cr_assert_eq(mailbox_create(&m, 1), OK);
    uint64_t from = clock_now_ms();
    cr_assert_null(mailbox_take(m, 20));
    cr_assert(clock_now_ms() - from >= 19);
    clock_set_for_test(5); /* a frozen clock must not freeze a wait */
    cr_assert_null(mailbox_take(m, 5));
    cr_assert_null(mailbox_take(m, 0));
    mailbox_destroy(m);
}

static void *post_later(void *arg)
{
    static int v;
    cr_assert_eq(mailbox_post(arg, &v), OK);
    return NULL;
}

Test(mailbox, take_wakes_up_for_a_message)
{
    struct mailbox *m;
    pthread_t t;
    cr_assert_eq(mailbox_create(&m, 1), OK);
    pthread_create(&t, NULL, post_later, m);
    cr_assert_not_null(mailbox_take(m, -1));
    pthread_join(t, NULL);
    mailbox_destroy(m);
}

Test(mailbox, refuses_no_capacity_and_sizes_out_of_reach)
{
    struct mailbox *m = NULL;
    cr_assert_eq(mailbox_create(&m, 0), ERR_INVALID);
    cr_assert_null(m);
}

Test(mailbox, destroying_a_full_one_is_a_bug, .signal = SIGABRT)
{
    struct mailbox *m;
    int v;
    cr_assert_eq(mailbox_create(&m, 1), OK);
    cr_assert_eq(mailbox_post(m, &v), OK);
    mailbox_destroy(m);
}

#define POSTS 5000

static void *post_many(void *arg)
{
    static int values[POSTS];
    for (int i = 0; i < POSTS; i++) {
        values[i] = i;
        cr_assert_eq(mailbox_post_wait(arg, &values[i]), OK);
    }
    return NULL;
}

Test(mailbox, a_poster_waits_for_room_and_loses_nothing)
{
    struct mailbox *m;
    pthread_t t;
    cr_assert_eq(mailbox_create(&m, 3), OK);
    pthread_create(&t, NULL, post_many, m);
    for (int i = 0; i < POSTS; i++) cr_assert_eq(*(int *)mailbox_take(m, -1), i);
    pthread_join(t, NULL);
    cr_assert_null(mailbox_try_take(m));
    mailbox_destroy(m);
}

static void *post_until_closed(void *arg)
{
    static int v;
    while (mailbox_post_wait(arg, &v) == OK) {}
    return NULL;
}

Test(mailbox, closing_lets_those_go_who_wait)
{
    struct mailbox *m;
    pthread_t t;
    int v, n = 0;
    cr_assert_eq(mailbox_create(&m, 2), OK);
    pthread_create(&t, NULL, post_until_closed, m);
    while (mailbox_post(m, &v) == OK || n++ < 100) {} /* full, whoever filled it */
    mailbox_close(m);
    pthread_join(t, NULL);
    cr_assert_eq(mailbox_post_wait(m, &v), ERR_CLOSED);
    cr_assert_not_null(mailbox_try_take(m));
    cr_assert_not_null(mailbox_try_take(m));
    cr_assert_null(mailbox_try_take(m));
    mailbox_destroy(m);
}

/* queue: order by priority and arrival, and its two bounds. */
#include "coordinator/cluster/queue.h"

#include "coordinator/cluster/request.h"

#include <criterion/criterion.h>

static struct request waiting(int32_t priority)
{
    return (struct request){ .priority = priority };
}

static void expect_order(const struct queue *q, const struct request *const *want, size_t n)
{
    const struct request *r = q->head, *last = NULL;
    for (size_t i = 0; i < n; i++, last = r, r = r->q_next)
        cr_assert(r == want[i] && r->q_prev == last, "place %zu", i);
    cr_assert(r == NULL && q->tail == last && q->n == n);
}

#define ORDER(...)                                                                                                     \
    do {                                                                                                               \
        const struct request *const want_[] = { __VA_ARGS__ };                                                         \
        expect_order(&q, want_, sizeof(want_) / sizeof(want_[0]));                                                     \
    } while (0)

Test(queue, is_in_order_of_priority_and_arrival)
{
    struct queue q;
    struct request a = waiting(0), b = waiting(0), high = waiting(-1), low = waiting(5), again = waiting(0),
                   first = waiting(-1);
    queue_init(&q, 10, 1 << 20);
    queue_push(&q, &a);
    queue_push(&q, &b);
    ORDER(&a, &b);
    queue_push(&q, &low);
    queue_push(&q, &high);
    ORDER(&high, &a, &b, &low);
    queue_push_front(&q, &again); /* before those of its own priority alone */
    ORDER(&high, &again, &a, &b, &low);
    queue_push_front(&q, &first);
    ORDER(&first, &high, &again, &a, &b, &low);
    queue_remove(&q, &a);
    ORDER(&first, &high, &again, &b, &low);
    queue_remove(&q, &first);
    queue_remove(&q, &low);
    ORDER(&high, &again, &b);
    queue_push_front(&q, &low);
    ORDER(&high, &again, &b, &low);
    cr_assert(!a.queued && b.queued && a.q_next == NULL && a.q_prev == NULL);
    queue_remove(&q, &high), queue_remove(&q, &again), queue_remove(&q, &b), queue_remove(&q, &low);
    cr_assert(q.n == 0 && q.bytes == 0 && !q.head && !q.tail);
}

Test(queue, has_two_bounds)
{
    struct queue q;
    queue_init(&q, 3, 100);
    cr_assert(queue_check_room(&q, 3, 100) == OK && queue_check_room(&q, 4, 0) == ERR_FULL &&
              queue_check_room(&q, 1, 101) == ERR_FULL);
    q.n = 2;
    q.bytes = 60;
    cr_assert(queue_check_room(&q, 1, 40) == OK && queue_check_room(&q, 2, 0) == ERR_FULL &&
              queue_check_room(&q, 1, 41) == ERR_FULL);
    q.n = 3;
    cr_assert_eq(queue_check_room(&q, 0, 0), ERR_FULL, "nothing is taken where it is full");
    q.n = 4;
    cr_assert_eq(queue_check_room(&q, 1, 0), ERR_FULL);
    q.n = 1;
    q.bytes = 100;
    cr_assert_eq(queue_check_room(&q, 1, 0), OK);
    q.bytes = 101;
    cr_assert_eq(queue_check_room(&q, 1, 0), ERR_FULL);
}

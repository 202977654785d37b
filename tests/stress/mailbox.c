/* stress/mailbox: many posters, one taker: no message lost, none twice, each poster's in order. */
#include "base/mailbox.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#define POSTERS 4
#define EACH    20000

struct message {
    int poster, number;
};
static struct message messages[POSTERS][EACH];
static struct mailbox *box;

static void *post_all(void *arg)
{
    struct message *mine = arg;
    for (int i = 0; i < EACH; i++) {
        while (mailbox_post(box, &mine[i]) == ERR_FULL) sched_yield();
    }
    return NULL;
}

int main(void)
{
    pthread_t threads[POSTERS];
    int next[POSTERS] = { 0 };
    if (mailbox_create(&box, 64) != OK) return 1;
    for (int p = 0; p < POSTERS; p++) {
        for (int i = 0; i < EACH; i++) messages[p][i] = (struct message){ p, i };
        if (pthread_create(&threads[p], NULL, post_all, messages[p]) != 0) return 1;
    }
    for (int n = 0; n < POSTERS * EACH; n++) {
        struct message *m = n % 3 ? mailbox_take(box, -1) : mailbox_try_take(box);
        if (!m) {
            n--;
            continue;
        }
        if (m->number != next[m->poster]++) {
            fprintf(stderr, "poster %d: message %d out of order\n", m->poster, m->number);
            return 1;
        }
    }
    for (int p = 0; p < POSTERS; p++) pthread_join(threads[p], NULL);
    if (mailbox_try_take(box)) return 1;
    mailbox_destroy(box);
    printf("%d messages\n", POSTERS * EACH);
    return 0;
}

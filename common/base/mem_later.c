/* mem_later.c - large memory goes back to the system on a thread of its own. */
#include "base/mem_later.h"

#include "base/mailbox.h"
#include "base/mem.h"

#include <pthread.h>

#define MAX_BLOCKS 64 /* that wait; past it they are freed by those who bring them, which keeps memory bounded */

static struct mailbox *box; /* NULL: there is no thread */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void *serve(void *arg)
{
    for (;;) mem_free(mailbox_take(arg, -1));
    return NULL;
}

/* The thread lives as long as the process. */
static void start(void)
{
    struct mailbox *b;
    pthread_t thread;
    if (mailbox_create(&b, MAX_BLOCKS) != OK) return;
    if (pthread_create(&thread, NULL, serve, b) != 0) {
        mailbox_destroy(b);
        return;
    }
    pthread_setname_np(thread, "free");
    pthread_detach(thread);
    box = b;
}

void mem_free_later(void *p, size_t bytes)
{
    if (p && bytes >= MEM_LATER_BYTES) {
        pthread_once(&once, start);
        if (box && mailbox_post(box, p) == OK) return;
    }
    mem_free(p);
}

void strbuf_fini_later(struct strbuf *b)
{
    size_t n = b->n;
    if (n >= MEM_LATER_BYTES)
        mem_free_later(strbuf_take(b, &n), n);
    else
        strbuf_fini(b);
}

/* mailbox.h - a bounded queue of pointers into one thread: any thread posts, the owner takes.
 *
 * The fd is readable while the box is not empty, for poll loops; threads without a loop block in take. */
#ifndef BASE_MAILBOX_H
#define BASE_MAILBOX_H
#include "base/status.h"

#include <stdint.h>

struct mailbox;

enum status mailbox_create(struct mailbox **out, uint32_t capacity) MUST_CHECK;
void mailbox_destroy(struct mailbox *m); /* must be empty: messages belong to those who post and take */
/* Gives `msg` (not NULL) to the owner.  ERR_FULL: it stays with the caller. */
enum status mailbox_post(struct mailbox *m, void *msg) MUST_CHECK;
/* The same, waiting for room: the owner's pace holds the poster back.  ERR_CLOSED, also for those who wait: the owner
 * takes no more, the message stays with the caller.  Threads that wait on each other so must form no circle. */
enum status mailbox_post_wait(struct mailbox *m, void *msg) MUST_CHECK;
void mailbox_close(struct mailbox *m); /* what is inside can still be taken */
/* The oldest message, or NULL if the box is empty.  Owner only. */
void *mailbox_try_take(struct mailbox *m);
/* The same, waiting up to timeout_ms (-1: for ever). */
void *mailbox_take(struct mailbox *m, int timeout_ms);
int mailbox_fd(const struct mailbox *m);
#endif

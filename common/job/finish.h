/* finish.h - how a sequence ended: the engine's word, the wire's (proto/control.proto, Finish) and the coordinator's.
 */
#ifndef JOB_FINISH_H
#define JOB_FINISH_H
#include <stdbool.h>

enum finish_reason { /* numbers of the wire: never changed, never used again */
                     FINISH_NONE = 0,
                     FINISH_STOP = 1,      /* an end token, or the owner has what it wants */
                     FINISH_LENGTH = 2,    /* max_tokens, or the end of the context */
                     FINISH_CANCELLED = 3, /* somebody gave it up */
                     FINISH_FAILED = 4,
                     FINISH_REASON_COUNT
};

/* A whole answer; all others want the request to go on elsewhere, or are nobody's concern any more. */
static inline bool finish_is_answer(enum finish_reason f)
{
    return f == FINISH_STOP || f == FINISH_LENGTH;
}
#endif

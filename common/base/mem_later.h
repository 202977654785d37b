/* mem_later.h - large memory goes back to the system on a thread of its own.
 *
 * Unmapping 31 MiB that were written takes 2 to 3 ms, in which a loop with streams on it stands still. */
#ifndef BASE_MEM_LATER_H
#define BASE_MEM_LATER_H
#include "base/strbuf.h"

#include <stddef.h>

#define MEM_LATER_BYTES ((size_t)1 << 20) /* smaller ones are freed at once */

/* mem_free() of a block of so many bytes, soon.  NULL is fine. */
void mem_free_later(void *p, size_t bytes);
/* strbuf_fini() the same way. */
void strbuf_fini_later(struct strbuf *b);
#endif

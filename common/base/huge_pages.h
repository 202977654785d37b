/* huge_pages.h - large memory in pages of 2 MiB, made ready ahead of whoever fills it.
 *
 * Weights are read front to back in each step: with pages of 4 KiB the hardware's prefetch stops at each of them, and
 * filling them costs a fault each.  Nothing here fails for want of huge pages: small ones do the same, slower. */
#ifndef BASE_HUGE_PAGES_H
#define BASE_HUGE_PAGES_H
#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

#define HUGE_PAGE_BYTES ((size_t)2 << 20)

/* Maps the first `bytes` of a memfd, shared, at an address that huge pages can lie at.  ERR_NO_MEMORY with errno set;
 * the caller unmaps with munmap(). */
enum status huge_map_shared(void **out, int fd, size_t bytes, bool writable) MUST_CHECK;

/* Threads that make the pages of [p, p + bytes) ready, front to back: private anonymous memory (which has been advised
 * to have huge pages), or a shared mapping of a memfd (by MADV_COLLAPSE, Linux 6.1, whatever shmem_enabled says).
 * Never changes what is in there.  NULL if no thread could be had; then whoever writes makes the pages. */
struct huge_ahead;
struct huge_ahead *huge_ahead_start(void *p, size_t bytes, bool shared);
/* Waits until what lies before `end` is ready.  Nothing to wait for without h. */
void huge_ahead_wait(struct huge_ahead *h, const void *end);
/* Ends the threads, also before all is ready; NULL is nothing. */
void huge_ahead_stop(struct huge_ahead *h);
#endif

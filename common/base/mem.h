/* mem.h - allocation: small sizes abort when memory is out, sizes that a peer or a file names do not.
 *
 * The plain forms never return NULL.  The `try_` forms check the product for overflow and return
 * ERR_NO_MEMORY.  All memory from here is freed with mem_free(), mapped memory with mem_unmap(). */
#ifndef BASE_MEM_H
#define BASE_MEM_H
#include "base/status.h"

#include <stddef.h>

void *mem_alloc(size_t bytes);                          /* uninitialised */
void *mem_zalloc(size_t bytes);                         /* zeroed */
void *mem_array(size_t n, size_t elem_bytes);           /* zeroed; aborts on overflow */
void *mem_resize(void *p, size_t n, size_t elem_bytes); /* realloc; aborts on overflow */
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
void mem_free(void *p); /* NULL is fine */

/* Zeroed array of a size that comes from outside.  *out is untouched on failure. */
enum status mem_try_array(void **out, size_t n, size_t elem_bytes) MUST_CHECK;
/* Page-aligned zeroed memory for large arenas; asks the kernel for huge pages. */
enum status mem_try_map(void **out, size_t bytes) MUST_CHECK;
void mem_unmap(void *p, size_t bytes);
#endif

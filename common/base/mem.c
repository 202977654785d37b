/* mem.c - the allocator calls that the rest of the tree uses. */
#include "base/mem.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void *or_die(void *p, size_t bytes)
{
    if (!p) {
        fprintf(stderr, "out of memory: %zu bytes\n", bytes);
        abort();
    }
    return p;
}

void *mem_alloc(size_t bytes)
{
    return or_die(malloc(bytes ? bytes : 1), bytes);
}

void *mem_zalloc(size_t bytes)
{
    return or_die(calloc(1, bytes ? bytes : 1), bytes);
}

void *mem_array(size_t n, size_t elem_bytes)
{
    return or_die(calloc(n ? n : 1, elem_bytes ? elem_bytes : 1), n);
}

void *mem_resize(void *p, size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, elem_bytes, &bytes)) or_die(NULL, SIZE_MAX);
    return or_die(realloc(p, bytes ? bytes : 1), bytes);
}

char *mem_strdup(const char *s)
{
    return mem_strndup(s, strlen(s));
}

char *mem_strndup(const char *s, size_t n)
{
    char *copy = mem_alloc(n + 1);
    memcpy(copy, s, n);
    copy[n] = '\0';
    return copy;
}

void mem_free(void *p)
{
    free(p);
}

enum status mem_try_array(void **out, size_t n, size_t elem_bytes)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, elem_bytes, &bytes) || bytes > PTRDIFF_MAX) return ERR_NO_MEMORY;
    void *p = calloc(n ? n : 1, elem_bytes ? elem_bytes : 1);
    if (!p) return ERR_NO_MEMORY;
    *out = p;
    return OK;
}

enum status mem_try_map(void **out, size_t bytes)
{
    if (bytes == 0 || bytes > PTRDIFF_MAX) return ERR_NO_MEMORY;
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return ERR_NO_MEMORY;
    madvise(p, bytes, MADV_HUGEPAGE); /* only a hint: the answer does not matter */
    *out = p;
    return OK;
}

void mem_unmap(void *p, size_t bytes)
{
    if (p) munmap(p, bytes);
}

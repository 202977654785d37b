/* mem_later: large blocks go back, by another thread; small ones at once. */
#include "base/mem_later.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LARGE ((size_t)48 << 20) /* past what malloc ever takes from its heap */

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
static bool is_mapped(void *p) /* what is freed stays mapped for a while, and poisoned */
{
    return !__asan_address_is_poisoned(p);
}
#else
static bool is_mapped(void *p)
{
    unsigned char in_core;
    uintptr_t page = (uintptr_t)p & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1);
    return mincore((void *)page, 1, &in_core) == 0; /* ENOMEM: nothing is mapped there */
}
#endif

static void expect_gone(void *p)
{
    for (int i = 0; i < 30000 && is_mapped(p); i++) usleep(1000);
    cr_assert_not(is_mapped(p));
}

Test(mem_later, gives_large_blocks_back)
{
    for (int i = 0; i < 3; i++) {
        char *p = mem_alloc(LARGE);
        memset(p, 'x', LARGE);
        mem_free_later(p, LARGE);
        expect_gone(p);
    }
}

Test(mem_later, empties_a_buffer)
{
    struct strbuf b;
    strbuf_init(&b, 2 * LARGE);
    for (size_t i = 0; i < LARGE >> 20; i++) {
        char some[1 << 20];
        memset(some, 'a', sizeof(some));
        strbuf_add(&b, some, sizeof(some));
    }
    char *p = b.s;
    strbuf_fini_later(&b);
    cr_assert(b.n == 0 && b.s == NULL);
    expect_gone(p);
    strbuf_puts(&b, "again");
    strbuf_fini_later(&b);
    cr_assert_null(b.s);
}

Test(mem_later, takes_more_at_once_than_may_wait)
{
    void *blocks[200];
    for (int i = 0; i < 200; i++) blocks[i] = mem_alloc(MEM_LATER_BYTES);
    for (int i = 0; i < 200; i++) mem_free_later(blocks[i], MEM_LATER_BYTES);
    mem_free_later(NULL, 0);
    mem_free_later(mem_alloc(8), 8);
}

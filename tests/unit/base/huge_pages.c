/* huge_pages: places, what is ready after a wait, contents, and early ends. */
#include "base/huge_pages.h"

#include "helpers/memfd.h"

#include <criterion/criterion.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define BYTES (7 * HUGE_PAGE_BYTES + 12345)

/* Linux before 5.14 cannot make pages ready: the callers then work as without. */
static bool kernel_populates(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool can = madvise(p, 4096, MADV_POPULATE_WRITE) == 0;
    munmap(p, 4096);
    return can;
}

/* At the end of a test that has not compared what is resident. */
static void say_what_was_not_tested(void)
{
    if (!kernel_populates())
        cr_skip_test("this kernel makes no pages ready (Linux 5.14): contents alone were compared");
}

static size_t resident_pages(void *p, size_t pages)
{
    static unsigned char in[BYTES / 4096 + 1];
    size_t n = 0;
    cr_assert_eq(mincore(p, pages * 4096, in), 0);
    for (size_t i = 0; i < pages; i++) n += in[i] & 1;
    return n;
}

Test(huge_pages, maps_a_memfd_at_an_aligned_place)
{
    int fd = memfd_of(BYTES);
    void *w, *r;
    cr_assert_eq(huge_map_shared(&w, fd, BYTES, true), OK);
    cr_assert_eq(huge_map_shared(&r, fd, BYTES, false), OK);
    cr_assert_eq((uintptr_t)w % HUGE_PAGE_BYTES, 0);
    cr_assert_eq((uintptr_t)r % HUGE_PAGE_BYTES, 0);
    memset(w, 0x5a, BYTES);
    for (size_t i = 0; i < BYTES; i++) cr_assert_eq(((uint8_t *)r)[i], 0x5a);
    cr_assert_eq(huge_map_shared(&w, -1, BYTES, true), ERR_NO_MEMORY);
    cr_assert_eq(huge_map_shared(&w, fd, SIZE_MAX - 100, true), ERR_NO_MEMORY);
}

Test(huge_pages, shared_memory_is_ready_after_a_wait_and_unchanged)
{
    int fd = memfd_of(BYTES);
    void *p;
    cr_assert_eq(huge_map_shared(&p, fd, BYTES, true), OK);
    uint8_t *bytes = p;
    for (size_t at = 5; at < BYTES; at += 100000) bytes[at] = (uint8_t)(at / 100000 + 1);
    struct huge_ahead *h = huge_ahead_start(p, BYTES, true);
    size_t some = 3 * HUGE_PAGE_BYTES + 1;
    huge_ahead_wait(h, bytes + some);
    if (kernel_populates()) cr_assert_eq(resident_pages(p, some / 4096 + 1), some / 4096 + 1);
    memset(bytes, 1, some);
    huge_ahead_wait(h, bytes + BYTES);
    if (kernel_populates()) cr_assert_eq(resident_pages(p, BYTES / 4096 + 1), BYTES / 4096 + 1);
    huge_ahead_stop(h);
    for (size_t i = 0; i < some; i++) cr_assert_eq(bytes[i], 1);
    for (size_t i = some; i < BYTES; i++) cr_assert_eq(bytes[i], i % 100000 == 5 ? (uint8_t)(i / 100000 + 1) : 0);
    say_what_was_not_tested();
}

Test(huge_pages, private_memory_at_any_address_is_made_ready)
{
    uint8_t *all = mmap(NULL, BYTES + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(all, MAP_FAILED);
    static const size_t sizes[] = { 1, 4096, HUGE_PAGE_BYTES, BYTES };
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct huge_ahead *h = huge_ahead_start(all + 4096 + 64, sizes[i], false);
        huge_ahead_wait(h, all + 4096 + 64 + sizes[i]);
        size_t pages = (64 + sizes[i] + 4095) / 4096;
        if (kernel_populates()) cr_assert_eq(resident_pages(all + 4096, pages), pages);
        huge_ahead_stop(h);
    }
    cr_assert_eq(resident_pages(all, 1), 0, "a page before the memory was made");
    say_what_was_not_tested();
}

Test(huge_pages, ends_early_and_works_without_threads)
{
    int fd = memfd_of((size_t)64 << 20);
    void *p;
    cr_assert_eq(huge_map_shared(&p, fd, (size_t)64 << 20, true), OK);
    for (int i = 0; i < 20; i++) huge_ahead_stop(huge_ahead_start(p, (size_t)64 << 20, true));
    huge_ahead_wait(NULL, p);
    huge_ahead_stop(NULL);
}

/* memfd.h - a memory file for tests that need one; where the kernel or a filter gives none, the test is skipped. */
#ifndef HELPERS_MEMFD_H
#define HELPERS_MEMFD_H
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static inline int memfd_of(size_t bytes)
{
    const int fd = memfd_create("test", 0);
    if (fd < 0) cr_skip_test("memfd_create: %s", strerror(errno));
    cr_assert_eq(ftruncate(fd, (off_t)bytes), 0);
    return fd;
}

/* For what makes one by itself. */
static inline void needs_memfd(void)
{
    close(memfd_of(1));
}
#endif

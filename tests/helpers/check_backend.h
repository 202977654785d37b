/* check_backend.h - the CPU backend of an instruction set, for tests of its ops. */
#ifndef TESTS_HELPERS_CHECK_BACKEND_H
#define TESTS_HELPERS_CHECK_BACKEND_H
#include "compute/backend.h"

#include <criterion/criterion.h>

/* The test fails where it does not open.  Caller owns. */
static inline struct backend *check_backend(const char *isa, uint32_t threads, struct backend_limits limits)
{
    const struct backend_options opt = { .n_threads = threads, .isa = isa, .limits = limits };
    struct backend *b;
    struct error err;
    cr_assert_eq(backend_open(&b, "cpu", &opt, &err), OK, "%s", err.text);
    return b;
}
#endif

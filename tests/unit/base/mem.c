/* mem: try_ forms refuse what cannot be had, and leave the result alone. */
#include "base/mem.h"

#include <criterion/criterion.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

Test(mem, arrays_are_zeroed)
{
    unsigned char *p = mem_array(100, 3), *q = mem_zalloc(9);
    for (int i = 0; i < 300; i++) cr_assert_eq(p[i], 0);
    for (int i = 0; i < 9; i++) cr_assert_eq(q[i], 0);
    p = mem_resize(p, 1000, 3);
    p[2999] = 1;
    mem_free(p);
    mem_free(q);
    mem_free(NULL);
}

Test(mem, try_refuses_overflow_and_leaves_out_alone)
{
    void *out = &out;
    cr_assert_eq(mem_try_array(&out, SIZE_MAX / 2, 4), ERR_NO_MEMORY);
    cr_assert_eq(mem_try_array(&out, SIZE_MAX, 1), ERR_NO_MEMORY);
    cr_assert_eq(mem_try_map(&out, 0), ERR_NO_MEMORY);
    cr_assert_eq(mem_try_map(&out, SIZE_MAX), ERR_NO_MEMORY);
    cr_assert_eq(out, &out);
    cr_assert_eq(mem_try_array(&out, 0, 8), OK);
    mem_free(out);
}

Test(mem, maps_are_zeroed_pages)
{
    void *out;
    cr_assert_eq(mem_try_map(&out, 10000), OK);
    cr_assert_eq((uintptr_t)out % 4096, 0);
    cr_assert_eq(((char *)out)[9999], 0);
    mem_unmap(out, 10000);
    mem_unmap(NULL, 10);
}

Test(mem, copies_end_with_nul)
{
    char *a = mem_strdup("abc"), *b = mem_strndup("abcdef", 2);
    cr_assert_str_eq(a, "abc");
    cr_assert_str_eq(b, "ab");
    mem_free(a);
    mem_free(b);
}

Test(mem, plain_forms_abort_on_overflow, .signal = SIGABRT)
{
    mem_resize(NULL, SIZE_MAX / 2, 4);
}

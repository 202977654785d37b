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

Test(mem, sizes_of_nothing_are_something)
{
    void *a = mem_alloc(0), *b = mem_zalloc(0), *c = mem_array(0, 0), *d = mem_resize(NULL, 0, 8), *out = NULL;
    cr_assert(a && b && c && d);
    cr_assert_eq(mem_try_array(&out, 0, 8), OK);
    cr_assert_not_null(out);
    mem_free(a);
    mem_free(b);
    mem_free(c);
    mem_free(d);
    mem_free(out);
}

Test(mem, try_forms_refuse_what_cannot_be)
{
    static const size_t rows[][2] = {
        { SIZE_MAX, 2 }, { 2, SIZE_MAX }, { SIZE_MAX / 2 + 1, 1 }, { (size_t)1 << 62, 3 }
    };
    void *out = &out;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(mem_try_array(&out, rows[i][0], rows[i][1]), ERR_NO_MEMORY, "row %zu", i);
    cr_assert_eq(mem_try_map(&out, 0), ERR_NO_MEMORY);
    cr_assert_eq(mem_try_map(&out, SIZE_MAX), ERR_NO_MEMORY);
    cr_assert_eq(mem_try_map(&out, PTRDIFF_MAX), ERR_NO_MEMORY);
    cr_assert_eq(out, (void *)&out, "a refused call leaves the result alone");
}

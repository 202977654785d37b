/* strbuf: grows up to its bound, then says so and keeps what it has. */
#include "base/strbuf.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <string.h>

Test(strbuf, gathers_text)
{
    struct strbuf sb = STRBUF_INIT;
    cr_assert_str_eq(strbuf_cstr(&sb), "");
    strbuf_puts(&sb, "ab");
    strbuf_putc(&sb, '-');
    strbuf_addf(&sb, "%d/%s", 42, "x");
    strbuf_add(&sb, "\0y", 2);
    cr_assert_eq(sb.n, 9);
    cr_assert(memcmp(sb.s, "ab-42/x\0y", 10) == 0);
    strbuf_drop(&sb, 3);
    cr_assert_str_eq(sb.s, "42/x");
    strbuf_fini(&sb);
    cr_assert_eq(sb.n, 0);
}

Test(strbuf, stops_at_its_bound)
{
    struct strbuf sb;
    strbuf_init(&sb, 5);
    strbuf_puts(&sb, "abc");
    strbuf_puts(&sb, "def");
    cr_assert(sb.overflowed);
    cr_assert_str_eq(sb.s, "abc");
    strbuf_putc(&sb, 'd');
    cr_assert_str_eq(sb.s, "abc", "once over, nothing more goes in");
    strbuf_reset(&sb);
    strbuf_addf(&sb, "%s", "12345");
    cr_assert(!sb.overflowed);
    cr_assert_str_eq(sb.s, "12345");
    strbuf_fini(&sb);
}

Test(strbuf, take_hands_the_memory_over)
{
    struct strbuf sb = STRBUF_INIT;
    size_t n;
    for (int i = 0; i < 10000; i++) strbuf_addf(&sb, "%d,", i);
    char *s = strbuf_take(&sb, &n);
    cr_assert_eq(strlen(s), n);
    cr_assert_eq(sb.n, 0);
    mem_free(s);
    s = strbuf_take(&sb, NULL);
    cr_assert_str_eq(s, "");
    mem_free(s);
}

Test(strbuf, its_bound_is_the_last_byte_that_fits)
{
    struct strbuf sb;
    for (size_t max = 1; max < 200; max++) {
        strbuf_init(&sb, max);
        for (size_t i = 0; i < max; i++) strbuf_putc(&sb, 'a');
        cr_assert(!sb.overflowed && sb.n == max && strlen(sb.s) == max);
        strbuf_addf(&sb, "%s", "");
        strbuf_add(&sb, NULL, 0);
        cr_assert(!sb.overflowed, "nothing still fits");
        strbuf_putc(&sb, 'a');
        cr_assert(sb.overflowed && sb.n == max);
        strbuf_reset(&sb);
        strbuf_addf(&sb, "%*s", (int)max + 1, "");
        cr_assert(sb.overflowed && sb.n == 0);
        mem_free(strbuf_take(&sb, NULL));
        strbuf_putc(&sb, 'b');
        cr_assert(!sb.overflowed && strcmp(sb.s, "b") == 0, "what was taken leaves it new");
        strbuf_fini(&sb);
        cr_assert_eq(sb.max, max);
    }
}

Test(strbuf, drops_from_its_front)
{
    struct strbuf sb = STRBUF_INIT;
    strbuf_drop(&sb, 0);
    cr_assert_str_eq(strbuf_cstr(&sb), "");
    strbuf_puts(&sb, "abcdef");
    strbuf_drop(&sb, 0);
    cr_assert_str_eq(sb.s, "abcdef");
    strbuf_drop(&sb, 5);
    cr_assert(sb.n == 1 && strcmp(sb.s, "f") == 0);
    strbuf_drop(&sb, 1);
    cr_assert(sb.n == 0 && strcmp(sb.s, "") == 0);
    strbuf_fini(&sb);
}

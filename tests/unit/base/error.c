/* error: sentences are bounded, prefixed on their way up, and never end inside a UTF-8 sequence. */
#include "base/error.h"

#include <criterion/criterion.h>
#include <string.h>

Test(error, set_returns_its_status)
{
    struct error err;
    cr_assert_eq(error_set(&err, ERR_PARSE, "line %d", 7), ERR_PARSE);
    cr_assert_eq(err.status, ERR_PARSE);
    cr_assert_str_eq(err.text, "line 7");
    cr_assert_eq(error_set(NULL, ERR_IO, "nobody reads this"), ERR_IO);
}

Test(error, prefix_says_where)
{
    struct error err;
    error_set(&err, ERR_INVALID, "too small");
    cr_assert_eq(error_prefix(&err, "tensor %s", "a.b"), ERR_INVALID);
    cr_assert_str_eq(err.text, "tensor a.b: too small");
}

Test(error, long_text_is_cut_between_characters)
{
    char text[2 * ERROR_TEXT_MAX];
    struct error err;
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', sizeof(text));
        for (size_t i = shift; i + 3 < sizeof(text); i += 3) memcpy(text + i, "\xE2\x82\xAC", 3);
        text[sizeof(text) - 1] = '\0';
        error_set(&err, ERR_INVALID, "%s", text);
        size_t n = strlen(err.text);
        cr_assert_eq(n, shift + (ERROR_TEXT_MAX - 1 - shift) / 3 * 3, "whole characters stay, parts of one do not");
    }
}

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
    static const char *const characters[] = { "x", "\xC2\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80" };
    char text[2 * ERROR_TEXT_MAX];
    struct error err;
    for (size_t len = 1; len <= 4; len++)
        for (size_t shift = 0; shift < 5; shift++) {
            memset(text, 'x', sizeof(text));
            for (size_t i = shift; i + len < sizeof(text); i += len) memcpy(text + i, characters[len - 1], len);
            text[sizeof(text) - 1] = '\0';
            error_set(&err, ERR_INVALID, "%s", text);
            size_t n = strlen(err.text);
            cr_assert_eq(n, shift + (ERROR_TEXT_MAX - 1 - shift) / len * len,
                         "whole characters stay, parts of one do not");
        }
}

Test(error, text_that_just_fits_is_not_touched)
{
    char text[ERROR_TEXT_MAX];
    struct error err;
    memset(text, 'x', sizeof(text));
    memcpy(text + ERROR_TEXT_MAX - 3, "\xE2\x82", 3); /* no whole character, but nobody cut it */
    error_set(&err, ERR_INVALID, "%s", text);
    cr_assert_str_eq(err.text, text);
    memset(text, 0x80, sizeof(text) - 1); /* no character at all */
    error_set(&err, ERR_INVALID, "%s%s", text, text);
    cr_assert_lt(strlen(err.text), ERROR_TEXT_MAX);
    cr_assert_eq(error_prefix(NULL, "x"), ERR_INTERNAL);
}

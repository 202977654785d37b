/* json_write: what it writes, jansson reads back as the same. */
#include "base/json_write.h"

#include <criterion/criterion.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

static void expect_str(const char *in, size_t n, const char *want)
{
    struct strbuf sb = STRBUF_INIT;
    json_str(&sb, in, n);
    cr_assert_str_eq(strbuf_cstr(&sb), want);
    json_t *j = json_loads(sb.s, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    cr_assert(json_is_string(j), "jansson refuses %s", sb.s);
    json_decref(j);
    strbuf_fini(&sb);
}
#define STR(in, want) expect_str(in, sizeof(in) - 1, want)

Test(json_write, strings_are_escaped_and_repaired)
{
    STR("", "\"\"");
    STR("plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\"plain \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\"");
    STR("a\"b\\c/\n\r\t\b\f\x01\x1f\x7f\0z", "\"a\\\"b\\\\c/\\n\\r\\t\\b\\f\\u0001\\u001f\\u007f\\u0000z\"");
    STR("\xFF", "\"\xEF\xBF\xBD\"");
    STR("a\xE2\x82", "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");               /* cut off */
    STR("\xC0\xAF", "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");                 /* overlong */
    STR("\xED\xA0\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""); /* surrogate */
    STR("\xF4\x90\x80\x80", "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"");
    STR("\x80"
        "b",
        "\"\xEF\xBF\xBD"
        "b\"");
}

Test(json_write, any_bytes_give_valid_json)
{
    uint32_t x = 12345;
    for (int round = 0; round < 2000; round++) {
        char raw[24];
        struct strbuf sb = STRBUF_INIT;
        for (size_t i = 0; i < sizeof(raw); i++) {
            x = x * 1664525 + 1013904223;
            raw[i] = (char)(x >> 24);
        }
        json_str(&sb, raw, sizeof(raw));
        json_t *j = json_loads(sb.s, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
        cr_assert(j, "round %d: %s", round, sb.s);
        json_decref(j);
        strbuf_fini(&sb);
    }
}

Test(json_write, numbers_read_back_as_the_same)
{
    static const double v[] = { 0, -0.0, 1, -1, 0.1, 1.0 / 3, 1e300, 5e-324, DBL_MAX, 123456789012345678.0, -2.5e-7 };
    struct strbuf sb = STRBUF_INIT;
    for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
        strbuf_reset(&sb);
        json_num(&sb, v[i]);
        cr_assert_eq(strtod(sb.s, NULL), v[i]);
        json_t *j = json_loads(sb.s, JSON_DECODE_ANY, NULL);
        cr_assert(j, "%s", sb.s);
        json_decref(j);
    }
    strbuf_reset(&sb);
    json_num(&sb, 0.1);
    strbuf_putc(&sb, ' ');
    json_num(&sb, NAN);
    json_num(&sb, -INFINITY);
    strbuf_putc(&sb, ' ');
    json_cstr(&sb, NULL);
    json_cstr(&sb, "x");
    cr_assert_str_eq(sb.s, "0.1 nullnull null\"x\"");
    strbuf_fini(&sb);
}

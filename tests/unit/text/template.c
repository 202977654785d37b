/* template: chat templates give what Python's jinja2 gives, or a clear refusal. */
#include "text/template.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static json_t *load_cases(void)
{
    json_error_t why;
    json_t *all = json_load_file(TEST_DATA "/golden/templates/cases.json", 0, &why);
    cr_assert(all, "cases.json: %s at line %d", why.text, why.line);
    setenv("TZ", "UTC", 1);
    tzset();
    return all;
}

static enum status render(const char *source, size_t n, const json_t *context, int64_t now, struct strbuf *out,
                          struct error *err)
{
    struct template *t = NULL;
    enum status st = template_compile(&t, source, n, err);
    struct template_input in = { .literal = context, .now = now };
    if (st == OK) st = template_render(t, &in, out, NULL, err);
    template_destroy(t);
    return st;
}

static const char *text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* The status that a kind of error in cases.json stands for. */
static enum status status_of(const char *kind)
{
    if (strcmp(kind, "parse") == 0) return ERR_PARSE;
    if (strcmp(kind, "unsupported") == 0) return ERR_UNSUPPORTED;
    if (strcmp(kind, "raise") == 0) return ERR_INVALID;
    return strcmp(kind, "bound") == 0 ? ERR_TOO_LARGE : ERR_INTERNAL;
}

static bool case_passes(const json_t *all, const json_t *c)
{
    const json_t *source =
        json_array_get(json_object_get(all, "templates"), (size_t)json_integer_value(json_object_get(c, "template")));
    const json_t *context =
        json_array_get(json_object_get(all, "contexts"), (size_t)json_integer_value(json_object_get(c, "context")));
    const json_t *expect = json_object_get(c, "expect");
    struct strbuf out = STRBUF_INIT;
    struct error err = { OK, "" };
    enum status st = render(json_string_value(source), json_string_length(source), context,
                            json_integer_value(json_object_get(c, "now")), &out, &err);
    bool ok;
    if (expect) {
        ok = st == OK && out.n == json_string_length(expect) &&
             (out.n == 0 || memcmp(out.s, json_string_value(expect), out.n) == 0);
    } else {
        const char *kind = text_of(c, "error"), *text = text_of(c, "text");
        ok = st == status_of(kind) && out.n == 0 &&
             (strcmp(kind, "raise") == 0 ? strcmp(err.text, text) == 0 : strstr(err.text, text) != NULL);
    }
    if (!ok)
        fprintf(stderr, "%s\n  wanted %s%s\n  got    %s %s%s\n", text_of(c, "name"),
                expect ? json_string_value(expect) : text_of(c, "error"), expect ? "" : text_of(c, "text"),
                status_text(st), strbuf_cstr(&out), err.text);
    strbuf_fini(&out);
    return ok;
}

Test(template, agrees_with_jinja2)
{
    json_t *all = load_cases(), *c;
    size_t i, failed = 0, n = json_array_size(json_object_get(all, "cases"));
    json_array_foreach(json_object_get(all, "cases"), i, c) failed += !case_passes(all, c);
    json_decref(all);
    cr_assert(n > 800, "only %zu cases", n);
    cr_assert_eq(failed, 0, "%zu of %zu cases differ", failed, n);
}

static void expect_refusal(const char *source, size_t n, enum status want, const char *part)
{
    struct strbuf out = STRBUF_INIT;
    struct error err = { OK, "" };
    json_t *context = json_object();
    enum status st = render(source, n, context, 0, &out, &err);
    cr_assert_eq(st, want, "%s: %s", status_text(st), err.text);
    cr_assert_eq(err.status, want);
    cr_assert(strstr(err.text, part), "'%s' is not in '%s'", part, err.text);
    json_decref(context);
    strbuf_fini(&out);
}

Test(template, refuses_sources_that_are_no_text)
{
    static const char broken[] = "abc\xff{{ 1 }}", cut[] = "abc\xe2\x82";
    expect_refusal(broken, sizeof(broken) - 1, ERR_PARSE, "byte 3");
    expect_refusal(cut, sizeof(cut) - 1, ERR_PARSE, "byte 3");
    char *large = mem_zalloc(1 << 20);
    expect_refusal(large, 1 << 20, ERR_TOO_LARGE, "at most");
    mem_free(large);
}

Test(template, keeps_nul_bytes)
{
    static const char source[] = "a\0b{{ 'c\\0d' | length }}";
    struct strbuf out = STRBUF_INIT;
    json_t *context = json_object();
    cr_assert_eq(render(source, sizeof(source) - 1, context, 0, &out, NULL), OK);
    cr_assert_eq(out.n, 4);
    cr_assert_eq(memcmp(out.s, "a\0b3", 4), 0);
    json_decref(context);
    strbuf_fini(&out);
}

/* Whether a template may run into the bound of steps, which takes too long for hundreds of variants. */
static bool is_long_running(const char *source)
{
    return strstr(source, "range(") || strstr(source, "append(") || strstr(source, "* 1000");
}

Test(template, every_prefix_and_every_missing_byte_ends)
{
    json_t *all = load_cases(), *source;
    size_t i;
    json_array_foreach(json_object_get(all, "templates"), i, source)
    {
        size_t n = json_string_length(source);
        if (n > 200 || is_long_running(json_string_value(source))) continue;
        for (size_t cut = 0; cut < n; cut++) {
            char *copy = mem_strndup(json_string_value(source), n);
            struct strbuf out = STRBUF_INIT;
            json_t *context = json_object();
            if (render(copy, cut, context, 0, &out, NULL) != OK) strbuf_reset(&out);
            memmove(copy + cut, copy + cut + 1, n - cut - 1);
            if (n < 100 && render(copy, n - 1, context, 0, &out, NULL) != OK) strbuf_reset(&out);
            json_decref(context);
            strbuf_fini(&out);
            mem_free(copy);
        }
    }
    json_decref(all);
}

Test(template, bounds_data_of_any_depth)
{
    json_t *deep = json_array();
    for (int i = 0; i < 1000; i++) deep = json_pack("[o]", deep);
    json_t *context = json_pack("{s:o}", "x", deep);
    struct strbuf out = STRBUF_INIT;
    cr_assert_eq(render("{{ x }}", 7, context, 0, &out, NULL), ERR_TOO_LARGE);
    json_decref(context);
    strbuf_fini(&out);
}

Test(template, output_must_fit_the_buffer_of_the_caller)
{
    struct strbuf out;
    struct error err;
    json_t *context = json_object();
    strbuf_init(&out, 10);
    cr_assert_eq(render("{{ 'x' * 11 }}", 14, context, 0, &out, &err), ERR_TOO_LARGE);
    json_decref(context);
    strbuf_fini(&out);
}

Test(template, one_template_renders_many_times)
{
    struct template *t = NULL;
    json_t *context = json_pack("{s:[i]}", "l", 1);
    struct strbuf out = STRBUF_INIT;
    static const char source[] = "{% set _ = l.append(2) %}{{ l }}";
    cr_assert_eq(template_compile(&t, source, sizeof(source) - 1, NULL), OK);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(template_render(t, &(struct template_input){ .literal = context }, &out, NULL, NULL), OK);
    cr_assert_str_eq(out.s, "[1, 2][1, 2][1, 2]");
    template_destroy(t);
    json_decref(context);
    strbuf_fini(&out);
}

Test(template, rendering_ends_when_it_is_stopped)
{
    static const char source[] = "{% for i in range(100000) %}{{ i }}{% endfor %}";
    struct template *t;
    struct strbuf out = STRBUF_INIT;
    struct error err;
    atomic_bool stop = false;
    cr_assert_eq(template_compile(&t, source, strlen(source), &err), OK);
    const struct template_input in = { .stop = &stop };
    cr_assert_eq(template_render(t, &in, &out, NULL, &err), OK, "%s", err.text);
    stop = true;
    cr_assert_eq(template_render(t, &in, &out, NULL, &err), ERR_CANCELLED);
    strbuf_fini(&out);
    template_destroy(t);
}

/* template_grids: every combination of small operands, bounds and options gives what jinja2 gives, or is refused as
 * there. */
#include "text/template.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static enum status render(const char *source, struct strbuf *out, struct error *err)
{
    struct template *t = NULL;
    enum status st = template_compile(&t, source, strlen(source), err);
    if (st == OK) st = template_render(t, &(struct template_input){ 0 }, out, NULL, err);
    template_destroy(t);
    return st;
}

static bool row_passes(const char *source, const json_t *expect)
{
    struct strbuf out = STRBUF_INIT;
    struct error err = { OK, "" };
    enum status st = render(source, &out, &err);
    bool ok = json_is_null(expect) ? st != OK && err.status == st && strstr(err.text, "line") != NULL && out.n == 0
                                   : st == OK && out.n == json_string_length(expect) &&
                                         memcmp(strbuf_cstr(&out), json_string_value(expect), out.n) == 0;
    if (!ok)
        fprintf(stderr, "%s\n  wanted %s\n  got    %s %s%s\n", source,
                json_is_null(expect) ? "a refusal" : json_string_value(expect), status_text(st), strbuf_cstr(&out),
                err.text);
    strbuf_fini(&out);
    return ok;
}

Test(template_grids, agree_with_jinja2)
{
    json_error_t why;
    json_t *all = json_load_file(TEST_DATA "/golden/templates/grids.json", JSON_ALLOW_NUL, &why), *row;
    size_t i, failed = 0;
    cr_assert(all, "grids.json: %s at line %d", why.text, why.line);
    json_array_foreach(all, i, row) failed +=
        !row_passes(json_string_value(json_array_get(row, 0)), json_array_get(row, 1));
    cr_assert_gt(json_array_size(all), 9000);
    cr_assert_eq(failed, 0, "%zu of %zu rows differ", failed, json_array_size(all));
    json_decref(all);
}

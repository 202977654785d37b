/* template.c - compiles and renders chat templates: the front of the engine. */
#include "text/template.h"

#include "base/mem.h"
#include "text/spans.h"
#include "text/template_internal.h"

#include <string.h>

enum status template_compile(struct template **out, const char *source, size_t n, struct error *err)
{
    struct template *t = mem_zalloc(sizeof(*t));
    struct parser p = { .arena = &t->arena, .err = err };
    enum status st;
    if (n > TEMPLATE_SOURCE_MAX)
        st = error_set(err, ERR_TOO_LARGE, "template of %zu bytes: at most %d are allowed", n, TEMPLATE_SOURCE_MAX);
    else
        st = template_lex(&p.tokens, &t->arena, (struct str){ source, n, STR_OWN }, err);
    if (st == OK) st = template_parse(&p, &t->body);
    mem_free(p.tokens.v);
    if (st == OK)
        *out = t;
    else
        template_destroy(t);
    return st;
}

void template_destroy(struct template *t)
{
    if (!t) return;
    template_arena_fini(&t->arena);
    mem_free(t);
}

static void set_variables(struct render *r, const json_t *variables, bool own)
{
    const char *name;
    json_t *v;
    r->reads_own = own;
    json_object_foreach((json_t *)variables, name, v)
        scope_set(r, r->scope, (struct str){ name, strlen(name), STR_OWN }, value_json(r, v, 0));
    r->reads_own = false; /* what the template itself parses later has come from somewhere */
}

/* The bytes of s, which begins at `base` of a text, that are not the template's own. */
static void list_literal(struct str s, size_t base, struct spans *out)
{
    if (s.own == STR_OWN) return;
    if (!s.own) {
        spans_add(out, base, base + s.n);
        return;
    }
    for (size_t from = 0, to; from < s.n; from = to) {
        to = from + 1;
        while (to < s.n && s.own[to] == s.own[from]) to++;
        if (!s.own[from]) spans_add(out, base + from, base + to);
    }
}

enum status template_render(const struct template *t, const struct template_input *in, struct strbuf *out,
                            struct spans *literal, struct error *err)
{
    struct text_out text = TEXT_OUT_INIT;
    struct render r = { .out = &text, .in = in, .err = err };
    size_t base = out->n;
    r.scope = scope_new(&r, NULL);
    set_variables(&r, in->literal, false);
    set_variables(&r, in->own, true);
    /* What a template sets stands above the context, which costs the context no search. */
    r.scope = scope_new(&r, r.scope);
    exec_body(&r, &t->body);
    if (r.status == OK) strbuf_add(out, strbuf_cstr(&text.text), text.text.n);
    if (r.status == OK && out->overflowed) r.status = error_set(err, ERR_TOO_LARGE, "the rendered prompt does not fit");
    if (r.status == OK && literal) list_literal(out_view(&text), base, literal);
    out_fini(&text);
    json_decref(r.parsed);
    template_arena_fini(&r.arena);
    return r.status;
}

/* template.c - compiles and renders chat templates: the front of the engine. */
#include "text/template.h"

#include "base/mem.h"
#include "text/template_internal.h"

enum status template_compile(struct template **out, const char *source, size_t n, struct error *err)
{
    struct template *t = mem_zalloc(sizeof(*t));
    struct parser p = { .arena = &t->arena, .err = err };
    enum status st;
    if (n > TEMPLATE_SOURCE_MAX)
        st = error_set(err, ERR_TOO_LARGE, "template of %zu bytes: at most %d are allowed", n, TEMPLATE_SOURCE_MAX);
    else
        st = template_lex(&p.tokens, &t->arena, (struct str){ source, n }, err);
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

enum status template_render(const struct template *t, const json_t *context, int64_t now, struct strbuf *out,
                            struct error *err)
{
    struct strbuf text = { .max = TEMPLATE_OUTPUT_MAX };
    struct render r = { .out = &text, .now = now, .err = err, .line = 1 };
    const char *key;
    json_t *member;
    r.scope = scope_new(&r, NULL);
    json_object_foreach((json_t *)context, key, member)
        scope_set(&r, r.scope, value_cstr(key).s, value_json(&r, member, 0));
    /* What a template sets stands above the context, which costs the context no search. */
    r.scope = scope_new(&r, r.scope);
    exec_body(&r, &t->body);
    if (r.status == OK) strbuf_add(out, strbuf_cstr(&text), text.n);
    if (r.status == OK && out->overflowed) r.status = error_set(err, ERR_TOO_LARGE, "the rendered prompt does not fit");
    strbuf_fini(&text);
    json_decref(r.parsed);
    template_arena_fini(&r.arena);
    return r.status;
}

/* template.h - the subset of Jinja2 that chat templates use: compile once, render many times.
 *
 * Values are jansson's json_t.  Whitespace control, filters, tests, methods and undefined follow
 * Jinja2 3 with trim_blocks and lstrip_blocks on, as Hugging Face renders chat templates.  A construct
 * outside the subset is refused at compile time by its name and line (ERR_UNSUPPORTED).
 * Rendering is bounded in steps, nesting and output bytes. */
#ifndef TEXT_TEMPLATE_H
#define TEXT_TEMPLATE_H
#include "base/error.h"
#include "base/strbuf.h"

#include <jansson.h>
#include <stdatomic.h>

struct spans;
struct template;

enum status template_compile(struct template **out, const char *source, size_t n, struct error *err) MUST_CHECK;
void template_destroy(struct template *t);
/* What a template finds defined: the members of two objects, borrowed.  Texts of `own` count as the template's own
 * words, those of `literal` came from a client, wherever the template puts them and whatever it does to them. */
struct template_input {
    const json_t *own, *literal;  /* NULL: empty */
    const char *own_name;         /* under this name in `literal`, texts that are one of own_words ... */
    const char *const *own_words; /* ... (ends with NULL) are the template's own; NULL: none */
    int64_t now;                  /* unix seconds, for strftime_now */
    const atomic_bool *stop;      /* once true, rendering ends with ERR_CANCELLED; NULL: never */
};

/* Appends the text to `out`, and to `literal` (NULL: not wanted) which bytes of `out` came from a client.
 * ERR_INVALID: the template itself refuses its input, by raise_exception(...); the error is its message.
 * ERR_INTERNAL: it fails, with line and tag.  ERR_UNSUPPORTED: it comes to what is left out. */
enum status template_render(const struct template *t, const struct template_input *in, struct strbuf *out,
                            struct spans *literal, struct error *err) MUST_CHECK;
#endif

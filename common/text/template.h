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

struct template;

enum status template_compile(struct template **out, const char *source, size_t n, struct error *err) MUST_CHECK;
void template_destroy(struct template *t);
/* Renders with the members of the object `context` as global variables (borrowed); `now` is the unix
 * time for strftime_now.  raise_exception(...) in the template becomes ERR_INVALID with its message. */
enum status template_render(const struct template *t, const json_t *context, int64_t now, struct strbuf *out,
                            struct error *err) MUST_CHECK;
#endif

/* chat.h - chat messages to the prompt text of a model, through the model's own template. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H
#include "base/error.h"
#include "base/strbuf.h"
#include "text/spans.h"

#include <jansson.h>
#include <stdatomic.h>

struct vocab;
struct chat;

struct chat_options {
    bool add_generation_prompt;
    bool content_specials;   /* what messages say may become control tokens, as if the template had said it */
    int64_t now;             /* unix seconds */
    const atomic_bool *stop; /* as in struct template_input */
};

struct chat_prompt { /* zero is the empty one */
    struct strbuf text;
    struct spans literal; /* the bytes that messages said: no control tokens (encode_options.literal) */
};
void chat_prompt_fini(struct chat_prompt *p);

/* Compiles v->chat_template, and tries in which of a few ways it takes a plain question; a model without one gets
 * ERR_UNSUPPORTED from chat_render (not from here). */
enum status chat_create(struct chat **out, const struct vocab *v, struct error *err) MUST_CHECK;
void chat_destroy(struct chat *c);
/* What is wrong with the template though it can be compiled, as a sentence; NULL: nothing. */
const char *chat_note(const struct chat *c);
/* `messages` is a validated array of {role, content: string}.  The context holds messages, add_generation_prompt,
 * bos_token, eos_token, tools = none; templates that need it find tools undefined, or content as a list of one text
 * part.  ERR_UNSUPPORTED: no template, or it uses what is left out.  ERR_INVALID: the template refuses these messages,
 * in its own words.  ERR_INTERNAL: the template fails, with line and tag. ERR_TOO_LARGE: the prompt or the work for it
 * is beyond the bounds.  May run on any number of threads at once. */
enum status chat_render(const struct chat *c, const json_t *messages, const struct chat_options *opt,
                        struct chat_prompt *out, struct error *err) MUST_CHECK;
#endif

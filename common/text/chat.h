/* chat.h - chat messages to the prompt text of a model, through the model's own template. */
#ifndef TEXT_CHAT_H
#define TEXT_CHAT_H
#include "base/error.h"
#include "base/strbuf.h"

#include <jansson.h>

struct vocab;
struct chat;

/* Compiles v->chat_template; a model without one gets ERR_UNSUPPORTED from chat_render (not from here). */
enum status chat_create(struct chat **out, const struct vocab *v, struct error *err) MUST_CHECK;
void chat_destroy(struct chat *c);
/* `messages` is a validated array of {role, content: string}; `now` unix seconds.  The context holds messages,
 * add_generation_prompt, bos_token, eos_token, tools = none. */
enum status chat_render(const struct chat *c, const json_t *messages, bool add_generation_prompt, int64_t now,
                        struct strbuf *out, struct error *err) MUST_CHECK;
#endif

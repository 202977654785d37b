/* chat.c - chat messages to the prompt text of a model, through the model's own template. */
#include "text/chat.h"

#include "base/mem.h"
#include "text/template.h"
#include "text/vocab.h"

#include <string.h>

struct chat {
    struct template *template; /* NULL: the model has none */
    char *bos, *eos;           /* texts of the tokens, "" where the model has none */
};

/* The text of a special token, for a template to write into a prompt. */
static char *special_text(const struct vocab *v, int32_t id)
{
    if (id < 0 || (uint32_t)id >= v->n_tokens) return mem_strdup("");
    return mem_strndup(v->tokens[id].text, v->tokens[id].n);
}

enum status chat_create(struct chat **out, const struct vocab *v, struct error *err)
{
    struct chat *c = mem_zalloc(sizeof(*c));
    c->bos = special_text(v, v->bos_id);
    c->eos = special_text(v, v->eos_id);
    if (v->chat_template) {
        enum status st = template_compile(&c->template, v->chat_template, strlen(v->chat_template), err);
        if (st != OK) {
            error_prefix(err, "the model's chat template cannot be used");
            chat_destroy(c);
            return st;
        }
    }
    *out = c;
    return OK;
}

void chat_destroy(struct chat *c)
{
    if (!c) return;
    template_destroy(c->template);
    mem_free(c->bos);
    mem_free(c->eos);
    mem_free(c);
}

enum status chat_render(const struct chat *c, const json_t *messages, bool add_generation_prompt, int64_t now,
                        struct strbuf *out, struct error *err)
{
    if (!c->template)
        return error_set(err, ERR_UNSUPPORTED,
                         "the model has no chat template: use /v1/completions with a prompt that is "
                         "already formatted");
    json_t *context = json_pack("{s:O, s:b, s:s, s:s, s:n}", "messages", (json_t *)messages, "add_generation_prompt",
                                (int)add_generation_prompt, "bos_token", c->bos, "eos_token", c->eos, "tools");
    if (!context) return error_set(err, ERR_INVALID, "bos or eos token of the model is not valid UTF-8");
    enum status st = template_render(c->template, context, now, out, err);
    json_decref(context);
    return st;
}

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

/* Roles are words of the API that templates build tokens from ("<|" ~ role ~ "|>"). */
static const char *const roles[] = { "system", "user", "assistant", "tool", "developer", "function", NULL };

void chat_prompt_fini(struct chat_prompt *p)
{
    strbuf_fini(&p->text);
    spans_fini(&p->literal);
}

enum status chat_render(const struct chat *c, const json_t *messages, const struct chat_options *opt,
                        struct chat_prompt *out, struct error *err)
{
    if (!c->template)
        return error_set(err, ERR_UNSUPPORTED,
                         "the model has no chat template: use /v1/completions with a prompt that is "
                         "already formatted");
    json_t *own = json_pack("{s:b, s:s, s:s, s:n}", "add_generation_prompt", (int)opt->add_generation_prompt,
                            "bos_token", c->bos, "eos_token", c->eos, "tools");
    json_t *literal = json_pack("{s:O}", "messages", (json_t *)messages);
    struct template_input in = {
        .own = own, .literal = literal, .own_name = "role", .own_words = roles, .now = opt->now
    };
    enum status st = own && literal
                         ? template_render(c->template, &in, &out->text, &out->literal, err)
                         : error_set(err, ERR_UNSUPPORTED, "bos or eos token of the model is not valid UTF-8");
    if (opt->content_specials) spans_cut(&out->literal, 0);
    json_decref(own);
    json_decref(literal);
    return st;
}

/* chat.c - chat messages to the prompt text of a model, through the model's own template. */
#include "text/chat.h"

#include "base/mem.h"
#include "text/template.h"
#include "text/vocab.h"

#include <string.h>

/* What templates differ in: most are written for what Hugging Face gives them, the first row. */
struct way {
    bool no_tools; /* tools is undefined instead of none */
    bool parts;    /* content is [{"type": "text", "text": ...}], as for a model that also sees */
};
static const struct way ways[] = {
    { false, false },
    { .no_tools = true },
    { .parts = true },
    { .no_tools = true, .parts = true },
};

struct chat {
    struct template *template; /* NULL: the model has none */
    char *bos, *eos;           /* texts of the tokens, "" where the model has none */
    struct way way;
    char *note; /* NULL: nothing is wrong */
};

/* The text of a special token, for a template to write into a prompt. */
static char *special_text(const struct vocab *v, int32_t id)
{
    if (!vocab_has_text(v, id)) return mem_strdup("");
    return mem_strndup(v->tokens[id].text, v->tokens[id].n);
}

/* The messages with each content as a list of one part. */
static json_t *in_parts(const json_t *messages)
{
    json_t *out = json_array(), *message;
    size_t i;
    json_array_foreach((json_t *)messages, i, message)
    {
        json_t *copy = json_copy(message);
        json_t *parts = json_pack("[{s:s, s:O}]", "type", "text", "text", json_object_get(message, "content"));
        if (!parts || json_object_set_new(copy, "content", parts) != 0 || json_array_append_new(out, copy) != 0) {
            json_decref(out);
            return NULL;
        }
    }
    return out;
}

/* Roles are words of the API that templates build tokens from ("<|" ~ role ~ "|>"). */
static const char *const roles[] = { "system", "user", "assistant", "tool", "developer", "function", NULL };

static enum status render(const struct chat *c, const json_t *messages, const struct chat_options *opt,
                          struct chat_prompt *out, struct error *err)
{
    json_t *own = json_pack("{s:b, s:s, s:s}", "add_generation_prompt", (int)opt->add_generation_prompt, "bos_token",
                            c->bos, "eos_token", c->eos);
    json_t *said = c->way.parts ? in_parts(messages) : json_incref((json_t *)messages);
    json_t *literal = json_pack("{s:o}", "messages", said);
    struct template_input in = {
        .own = own, .literal = literal, .own_name = "role", .own_words = roles, .now = opt->now, .stop = opt->stop
    };
    enum status st;
    if (!own)
        st = error_set(err, ERR_UNSUPPORTED, "bos or eos token of the model is not valid UTF-8");
    else if (!literal || (!c->way.no_tools && json_object_set_new(own, "tools", json_null()) != 0))
        st = error_set(err, ERR_NO_MEMORY, "no memory for a copy of the messages");
    else
        st = template_render(c->template, &in, &out->text, &out->literal, err);
    json_decref(own);
    json_decref(literal);
    return st;
}

/* The first way in which the template shows what is asked: one that fails on tools, or that overlooks a content which
 * is a text, does so at each chat. */
static void choose_way(struct chat *c)
{
    static const char question[] = "Is it raining?";
    struct chat tried = *c;
    struct error first = { OK, "" };
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", question);
    bool shown = false;
    for (size_t i = 0; i < sizeof(ways) / sizeof(*ways) && !shown; i++) {
        struct chat_prompt prompt = { 0 };
        tried.way = ways[i];
        enum status st = render(&tried, messages, &(struct chat_options){ .add_generation_prompt = true }, &prompt,
                                i ? NULL : &first);
        shown = st == OK && strstr(strbuf_cstr(&prompt.text), question);
        chat_prompt_fini(&prompt);
    }
    json_decref(messages);
    if (shown) c->way = tried.way;
    /* What it refuses in its own words it may take in another conversation. */
    if (shown || first.status == ERR_INVALID) return;
    struct strbuf note = STRBUF_INIT;
    if (first.status == OK)
        strbuf_puts(&note, "the chat template shows nothing of a plain question: what messages say is lost");
    else
        strbuf_addf(&note, "the chat template fails on a plain question: %s", first.text);
    c->note = strbuf_take(&note, NULL);
}

const char *chat_note(const struct chat *c)
{
    return c->note;
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
        choose_way(c);
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
    mem_free(c->note);
    mem_free(c);
}

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
    enum status st = render(c, messages, opt, out, err);
    if (opt->content_specials) spans_cut(&out->literal, 0);
    return st;
}

/* admit.c - prompts to tokens, lengths against the context, open fields filled in. */
#include "coordinator/admit.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/token_id.h"
#include "coordinator/api_error.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"
#include "text/chat.h"
#include "text/chat_open.h"
#include "text/tokenizer.h"

#include <stdio.h>
#include <sys/random.h>

#define DEFAULT_COMPLETION_TOKENS 16 /* what OpenAI documents */

struct seat { /* one prompt on its way in */
    const struct api_request *r;
    const struct served_model *model;
    const atomic_bool *stop;
    bool content_specials;
    uint32_t n_ctx;
    uint32_t default_tokens; /* of an answer whose request names no limit; 0: to the end of the context */
    uint32_t i;
    struct api_error *e;
};

static enum status take_ids(const struct seat *s, const struct api_prompt *p, struct token_list *out)
{
    for (size_t k = 0; k < p->n_ids; k++) {
        if (!token_id_ok(p->ids[k], s->model->n_vocab))
            return api_error_set(s->e, ERR_INVALID, NULL, "prompt",
                                 "token %zu of prompt %u is %d; the vocabulary has %u tokens", k, s->i, p->ids[k],
                                 s->model->n_vocab);
        token_list_add(out, p->ids[k]);
    }
    return OK;
}

static enum status refuse_length(const struct seat *s, const char *param, const char *least, size_t n)
{
    api_error_set(s->e, ERR_CONTEXT_LENGTH, NULL, param,
                  "the prompt has %s%zu tokens; the context of %u tokens leaves no room for an answer", least, n,
                  s->n_ctx);
    s->e->n_prompt_tokens = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
    s->e->n_ctx = s->n_ctx;
    return ERR_CONTEXT_LENGTH;
}

/* What cannot fit, however well it packs into tokens, is not tokenized. */
static enum status encode(const struct seat *s, const char *text, size_t n, const struct encode_options *opt,
                          const char *param, struct token_list *out, uint32_t *n_hidden)
{
    struct error err;
    bool bos;
    size_t least = tokenizer_at_least(s->model->tokenizer, text, n);
    if (least >= s->n_ctx) return refuse_length(s, param, "at least ", least);
    enum status st = served_model_encode(s->model, text, n, *opt, out, &bos, &err);
    if (st != OK) return api_error_from(s->e, &err, param);
    *n_hidden = bos;
    return OK;
}

/* What the template raised is its word to the client; what it cannot do, or does wrong, is the model file's fault. */
static void template_error(struct api_error *e, enum status st, const struct error *err)
{
    api_error_from(e, err, "messages");
    if (st == ERR_UNSUPPORTED) api_error_http(e, 501, NULL, "%s", err->text);
    if (st == ERR_INTERNAL) api_error_http(e, 500, "template_failed", "the model's chat template fails: %s", err->text);
    if (st == ERR_INTERNAL) e->retry = false;
}

/* The last message stays open: the prompt ends where its content does. */
static enum status cut_open(struct chat_prompt *prompt, struct error *err)
{
    size_t n;
    if (!chat_open_find(strbuf_cstr(&prompt->text), prompt->text.n, &n))
        return error_set(err, ERR_INVALID,
                         "the model's chat template does not show the last message as it is given, so it "
                         "cannot be continued");
    prompt->text.n = n;
    spans_cut(&prompt->literal, n);
    return OK;
}

static enum status render(const struct seat *s, struct token_list *out, uint32_t *n_hidden)
{
    struct chat_prompt prompt = { 0 };
    struct chat_options how = { .add_generation_prompt = s->r->add_generation_prompt,
                                .content_specials = s->content_specials,
                                .now = clock_unix_s(),
                                .stop = s->stop };
    struct error err;
    json_t *open = s->r->continue_final ? chat_open_mark(s->r->messages) : NULL;
    enum status st = served_model_render(s->model, open ? open : s->r->messages, &how, &prompt, &err);
    json_decref(open);
    if (st == OK && s->r->continue_final) st = cut_open(&prompt, &err);
    if (st != OK) {
        template_error(s->e, st, &err);
    } else {
        struct encode_options opt = { .parse_special = true, .literal = &prompt.literal, .stop = s->stop };
        st = encode(s, strbuf_cstr(&prompt.text), prompt.text.n, &opt, "messages", out, n_hidden);
    }
    chat_prompt_fini(&prompt);
    return st;
}

static enum status check_length(const struct seat *s, size_t n)
{
    const char *param = s->r->endpoint == API_CHAT ? "messages" : "prompt";
    if (n == 0)
        return api_error_set(s->e, ERR_INVALID, NULL, param, "'%s' is empty: it gives no token to begin with", param);
    if (n < s->n_ctx) return OK;
    return refuse_length(s, param, "", n);
}

static enum status fill_sampling(const struct seat *s, uint32_t n_prompt, struct admitted_prompt *out)
{
    const struct api_request *r = s->r;
    const struct token_limit limit = token_limit_of(r->max_tokens, s->default_tokens, s->n_ctx - n_prompt);
    struct sampling_params *p = &out->sampling;
    *p = r->sampling;
    p->max_tokens = limit.n;
    out->limit_from = limit.from;
    if (p->min_tokens > p->max_tokens) p->min_tokens = p->max_tokens;
    if (r->echo) p->n_prompt_logprobs = p->n_logprobs;
    for (uint32_t i = 0; i < p->n_bias; i++) {
        if (!token_id_ok(p->bias_ids[i], s->model->n_vocab))
            return api_error_set(s->e, ERR_INVALID, NULL, "logit_bias",
                                 "'logit_bias' names token %d; the vocabulary has %u tokens", p->bias_ids[i],
                                 s->model->n_vocab);
    }
    if (!r->has_seed && getrandom(&p->seed, sizeof(p->seed), 0) != (ssize_t)sizeof(p->seed))
        return api_error_set(s->e, ERR_INTERNAL, NULL, NULL, "no random seed to be had");
    return OK;
}

static enum status admit_one(const struct seat *s, struct admitted_prompt *out)
{
    struct token_list ids = { 0 };
    const struct encode_options as_asked = { .parse_special = s->r->parse_special, .stop = s->stop };
    const struct api_prompt *p = s->r->endpoint == API_CHAT ? NULL : &s->r->prompts[s->i];
    enum status st;
    if (!p)
        st = render(s, &ids, &out->n_hidden);
    else if (p->n_ids)
        st = take_ids(s, p, &ids);
    else
        st = encode(s, p->text, p->n_text, &as_asked, "prompt", &ids, &out->n_hidden);
    if (st == OK) st = check_length(s, ids.n);
    if (st == OK) st = fill_sampling(s, (uint32_t)ids.n, out);
    if (st != OK) {
        token_list_fini(&ids);
        return st;
    }
    out->ids = mem_resize(ids.ids, ids.n, sizeof(*ids.ids));
    out->n = (uint32_t)ids.n;
    return OK;
}

uint64_t admitted_bytes(const struct admitted *a, uint32_t n)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < a->n_prompts; i++)
        bytes += sizeof(struct request) + (uint64_t)a->prompts[i].n * sizeof(int32_t) +
                 (uint64_t)a->prompts[i].sampling.n_bias * (sizeof(int32_t) + sizeof(float));
    return bytes * n;
}

enum status admit(const struct admit_view *view, const struct api_request *r, struct admitted *out, struct api_error *e)
{
    *out = (struct admitted){ .hide_output = r->echo && r->max_tokens == 0 };
    struct seat s = {
        .r = r, .e = e, .stop = view->stop, .content_specials = view->sv->cfg->coordinator.content_specials
    };
    enum status st = services_find_model(view->sv, r->model, &out->model, e);
    if (st != OK) return st;
    uint32_t n = r->endpoint == API_CHAT ? 1 : r->n_prompts;
    s.model = out->model;
    s.default_tokens =
        r->endpoint == API_CHAT ? view->sv->cfg->coordinator.default_max_tokens : DEFAULT_COMPLETION_TOKENS;
    s.n_ctx = view->n_ctx[out->model->idx];
    out->n_prompts = n;
    out->prompts = mem_array(n, sizeof(*out->prompts));
    for (s.i = 0; s.i < n; s.i++)
        if ((st = admit_one(&s, &out->prompts[s.i])) != OK) return st;
    return OK;
}

void admitted_fini(struct admitted *a)
{
    for (uint32_t i = 0; a->prompts && i < a->n_prompts; i++) mem_free(a->prompts[i].ids);
    mem_free(a->prompts);
    *a = (struct admitted){ 0 };
}

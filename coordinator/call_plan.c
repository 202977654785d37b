/* call_plan.c - a body to the plan of a call: parsed, rendered, tokenized and echoed on a worker. */
#include "base/mem.h"
#include "coordinator/ask.h"
#include "coordinator/call.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"

struct call_ask {
    struct ask ask;
    enum api_endpoint endpoint;
    struct call_plan plan;
};

/* The prompt as the beginning of the answer: its text, and an entry for each token. */
static void echo(struct choice *ch, const struct call_plan *plan, const struct admitted_prompt *p)
{
    const struct api_request *req = plan->req;
    const struct api_prompt *given = &req->prompts[ch->idx / req->n];
    struct strbuf text = STRBUF_INIT;
    struct detok detok;
    uint32_t chars = 0;
    detok_init(&detok, plan->admitted.model->vocab, true);
    for (uint32_t i = 0; i < p->n; i++) {
        size_t before = text.n;
        if (req->sampling.n_logprobs >= 0) token_log_add(&ch->log, p->ids[i], chars, NULL);
        if (i < p->n_hidden) continue;
        detok_add(&detok, p->ids[i], &text);
        chars += stream_count_chars(strbuf_cstr(&text) + before, text.n - before);
    }
    detok_flush(&detok, &text);
    if (given->text)
        strbuf_add(&ch->text, given->text, given->n_text);
    else
        strbuf_add(&ch->text, text.s, text.n);
    ch->echo_chars = stream_count_chars(strbuf_cstr(&ch->text), ch->text.n);
    strbuf_fini(&text);
}

static void make_choices(struct call_plan *plan)
{
    const struct api_request *req = plan->req;
    plan->n_choices = plan->admitted.n_prompts * (uint32_t)req->n;
    plan->choices = mem_array(plan->n_choices, sizeof(*plan->choices));
    for (uint32_t i = 0; i < plan->n_choices; i++) {
        struct choice *ch = &plan->choices[i];
        const struct admitted_prompt *p = &plan->admitted.prompts[i / (uint32_t)req->n];
        *ch = (struct choice){ .idx = i };
        stream_init(&ch->stream, plan->admitted.model->vocab, req->stops, req->n_stops, p->sampling.min_tokens);
        ch->log.n_top = req->sampling.n_logprobs > 0 ? (uint32_t)req->sampling.n_logprobs : 0;
        if (req->echo) echo(ch, plan, p);
    }
}

void choices_free(struct choice *choices, uint32_t n)
{
    for (uint32_t i = 0; choices && i < n; i++) {
        stream_fini(&choices[i].stream);
        strbuf_fini(&choices[i].text);
        token_log_fini(&choices[i].log);
    }
    mem_free(choices);
}

static enum status prepare(struct ask *ask)
{
    struct call_ask *ca = (struct call_ask *)ask;
    struct call_plan *plan = &ca->plan;
    const struct config *cfg = ask->http.sv->cfg;
    struct openai_limits limits = { cfg->coordinator.max_prompt_logprobs, cfg->coordinator.strict_params,
                                    cfg->coordinator.prefill_assistant, &ask->item.stop };
    struct admit_view view = { ask->http.sv, ask->n_ctx, &ask->item.stop };
    enum status st = openai_parse(&plan->req, ca->endpoint, ask_body(ask), &limits, &ask->e);
    if (st != OK) return st;
    st = admit(&view, plan->req, &plan->admitted, &ask->e);
    if (plan->admitted.model) ask->model = plan->admitted.model->name;
    if (st == OK) make_choices(plan);
    api_request_drop_texts(plan->req);
    return st;
}

static void answer(struct ask *ask)
{
    struct call_plan *plan = &((struct call_ask *)ask)->plan;
    struct api_error e;
    enum status st = dispatch_check_room(ask->http.sv->dispatch, plan->n_choices,
                                         admitted_bytes(&plan->admitted, (uint32_t)plan->req->n), &e);
    if (st == OK)
        call_create(&ask->http, plan);
    else
        api_reply_error(&ask->http, ask->model, &e);
}

static void fini(struct ask *ask)
{
    struct call_plan *plan = &((struct call_ask *)ask)->plan;
    choices_free(plan->choices, plan->n_choices);
    api_request_destroy(plan->req);
    admitted_fini(&plan->admitted);
}

static const struct ask_kind kind = { sizeof(struct call_ask), prepare, answer, fini };

struct start {
    enum api_endpoint endpoint;
    const struct answer_format *format;
};

static void init(struct ask *ask, const void *arg)
{
    const struct start *s = arg;
    struct call_ask *ca = (struct call_ask *)ask;
    ca->endpoint = s->endpoint;
    ca->plan.format = s->format;
}

void call_start(const struct api_ask *http, enum api_endpoint endpoint, const struct answer_format *format)
{
    struct start s = { endpoint, format };
    ask_start(http, &kind, init, &s);
}

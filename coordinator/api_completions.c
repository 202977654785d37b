/* api_completions.c - POST /v1/completions: its JSON shapes. */
#include "base/json_write.h"
#include "coordinator/call.h"

static void put_choice(const struct choice *c, const char *finish_reason, struct strbuf *out)
{
    struct logprob_style style = { c->call->model, c->call->req->tokens_as_ids };
    strbuf_addf(out, "{\"index\":%u,\"text\":", c->idx);
    json_str(out, strbuf_cstr(&c->text), c->text.n);
    strbuf_puts(out, ",\"logprobs\":");
    if (c->call->req->sampling.n_logprobs < 0 || c->log.n == 0)
        strbuf_puts(out, "null");
    else
        logprobs_text_json(&c->log, &style, out);
    strbuf_puts(out, ",\"finish_reason\":");
    json_cstr(out, finish_reason);
    strbuf_putc(out, '}');
}

static void text_chunk(const struct choice *c, struct strbuf *out)
{
    answer_head(c->call, c->call->format->chunk_object, out);
    put_choice(c, NULL, out);
    answer_chunk_tail(c->call, out);
}

static void end_chunk(const struct choice *c, struct strbuf *out)
{
    answer_head(c->call, c->call->format->chunk_object, out);
    put_choice(c, c->finish_reason, out);
    answer_last_tail(c, out);
}

static void whole_choice(const struct choice *c, struct strbuf *out)
{
    put_choice(c, c->finish_reason, out);
}

static const struct answer_format format = {
    .object = "text_completion",
    .chunk_object = "text_completion",
    .id_prefix = "cmpl-",
    .text_chunk = text_chunk,
    .end_chunk = end_chunk,
    .choice = whole_choice,
};

void api_completions(const struct api_ask *ask)
{
    call_start(ask, API_COMPLETIONS, &format);
}

/* api_chat.c - POST /v1/chat/completions: its JSON shapes. */
#include "base/json_write.h"
#include "coordinator/call.h"

static void put_logprobs(const struct choice *c, struct strbuf *out)
{
    struct logprob_style style = { c->call->model, c->call->req->tokens_as_ids };
    if (c->call->req->sampling.n_logprobs < 0 || c->log.n == 0)
        strbuf_puts(out, "null");
    else
        logprobs_chat_json(&c->log, &style, out);
}

static void begin_chunk(const struct choice *c, struct strbuf *out)
{
    answer_head(c->call, c->call->format->chunk_object, out);
    strbuf_addf(out,
                "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":null},\"logprobs\":null,"
                "\"finish_reason\":null}",
                c->idx);
    answer_chunk_tail(c->call, out);
}

static void text_chunk(const struct choice *c, struct strbuf *out)
{
    answer_head(c->call, c->call->format->chunk_object, out);
    strbuf_addf(out, "{\"index\":%u,\"delta\":{\"content\":", c->idx);
    json_str(out, strbuf_cstr(&c->text), c->text.n);
    strbuf_puts(out, "},\"logprobs\":");
    put_logprobs(c, out);
    strbuf_puts(out, ",\"finish_reason\":null}");
    answer_chunk_tail(c->call, out);
}

static void end_chunk(const struct choice *c, struct strbuf *out)
{
    answer_head(c->call, c->call->format->chunk_object, out);
    strbuf_addf(out, "{\"index\":%u,\"delta\":{},\"logprobs\":", c->idx);
    put_logprobs(c, out);
    strbuf_addf(out, ",\"finish_reason\":\"%s\"}", c->finish_reason);
    answer_last_tail(c, out);
}

static void whole_choice(const struct choice *c, struct strbuf *out)
{
    strbuf_addf(out, "{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", c->idx);
    json_str(out, strbuf_cstr(&c->text), c->text.n);
    strbuf_puts(out, ",\"refusal\":null},\"logprobs\":");
    put_logprobs(c, out);
    strbuf_addf(out, ",\"finish_reason\":\"%s\"}", c->finish_reason);
}

static const struct answer_format format = {
    .object = "chat.completion",
    .chunk_object = "chat.completion.chunk",
    .id_prefix = "chatcmpl-",
    .begin_chunk = begin_chunk,
    .text_chunk = text_chunk,
    .end_chunk = end_chunk,
    .choice = whole_choice,
};

void api_chat_completions(const struct api_ask *ask)
{
    call_start(ask, API_CHAT, &format);
}

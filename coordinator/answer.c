/* answer.c - the parts of an answer that chat and text completions have in common. */
#include "base/json_write.h"
#include "coordinator/call.h"
#include "coordinator/served_model.h"

void answer_head(const struct call *c, const char *object, struct strbuf *out)
{
    strbuf_addf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", c->id, object,
                (long long)c->created);
    json_cstr(out, c->model->name);
    strbuf_addf(out, ",\"system_fingerprint\":\"baton-%016llx\",\"choices\":[",
                (unsigned long long)c->model->fingerprint);
}

static void answer_usage(const struct call *c, struct strbuf *out)
{
    uint64_t prompt = 0, output = 0, cached = 0;
    for (uint32_t i = 0; i < c->n_choices; i++) {
        prompt += c->choices[i].tokens.prompt;
        cached += c->choices[i].tokens.cached;
        output += c->choices[i].tokens.output;
    }
    strbuf_addf(out,
                "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                "\"prompt_tokens_details\":{\"cached_tokens\":%llu},"
                "\"completion_tokens_details\":{\"reasoning_tokens\":0}}",
                (unsigned long long)prompt, (unsigned long long)output, (unsigned long long)(prompt + output),
                (unsigned long long)cached);
}

static double ms_between(uint64_t from, uint64_t to)
{
    return from && to > from ? (double)(to - from) / 1000 : 0;
}

static void put_num(struct strbuf *out, const char *key, double v)
{
    strbuf_addf(out, "\"%s\":", key);
    json_num(out, v);
    strbuf_putc(out, ',');
}

static void answer_timings(const struct choice *c, struct strbuf *out)
{
    /* as its node measured it; where the word of it has not come, as it was seen from here */
    double prompt_ms = c->t.prefill_us ? c->t.prefill_us / 1000.0 : ms_between(c->t.dispatched, c->t.first_token);
    double predicted_ms = ms_between(c->t.first_token, c->t.last_token);
    uint32_t prompt_n = c->n_prompt - (c->t.cached_tokens < c->n_prompt ? c->t.cached_tokens : 0);
    strbuf_addf(out, "\"timings\":{\"cache_n\":%u,\"prompt_n\":%u,\"predicted_n\":%u,", c->t.cached_tokens, prompt_n,
                c->tokens.output);
    put_num(out, "queue_ms", ms_between(c->t.created, c->t.dispatched));
    put_num(out, "ttft_ms", ms_between(c->t.created, c->t.first_token));
    put_num(out, "prompt_ms", prompt_ms);
    put_num(out, "prompt_per_second", prompt_ms > 0 ? prompt_n * 1000.0 / prompt_ms : 0);
    put_num(out, "predicted_ms", predicted_ms);
    /* the first token belongs to the prompt's time: n - 1 gaps */
    put_num(out, "predicted_per_second",
            predicted_ms > 0 && c->tokens.output > 1 ? (c->tokens.output - 1) * 1000.0 / predicted_ms : 0);
    put_num(out, "kv_transfer_ms", c->t.handoff_us / 1000.0);
    strbuf_addf(out, "\"kv_bytes\":%llu,\"kv_bytes_16bit\":%llu,\"prefill_node\":", (unsigned long long)c->t.kv_bytes,
                (unsigned long long)c->t.kv_bytes_16bit);
    json_cstr(out, c->prefill_name[0] ? c->prefill_name : c->decode_name);
    strbuf_puts(out, ",\"decode_node\":");
    json_cstr(out, c->decode_name);
    strbuf_putc(out, '}');
}

void answer_chunk_tail(const struct call *c, struct strbuf *out)
{
    strbuf_puts(out, c->req->include_usage ? "],\"usage\":null}" : "]}");
}

void answer_last_tail(const struct choice *c, struct strbuf *out)
{
    strbuf_puts(out, c->call->req->include_usage ? "],\"usage\":null," : "],");
    answer_timings(c, out);
    strbuf_putc(out, '}');
}

void answer_usage_chunk(const struct call *c, struct strbuf *out)
{
    answer_head(c, c->format->chunk_object, out);
    strbuf_puts(out, "],");
    answer_usage(c, out);
    strbuf_putc(out, '}');
}

void answer_whole(const struct call *c, struct strbuf *out)
{
    answer_head(c, c->format->object, out);
    for (uint32_t i = 0; i < c->n_choices; i++) {
        if (i) strbuf_putc(out, ',');
        c->format->choice(&c->choices[i], out);
    }
    strbuf_puts(out, "],");
    answer_usage(c, out);
    strbuf_putc(out, ',');
    answer_timings(&c->choices[0], out);
    strbuf_putc(out, '}');
}

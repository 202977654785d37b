/* api_ops.c - what operators and probes ask: health, readiness, metrics, nodes. */
#include "base/clock.h"
#include "base/json_write.h"
#include "coordinator/api.h"
#include "coordinator/api_error.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/gauges.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"
#include "coordinator/work.h"
#include "kv/kv_pool.h"

#include <string.h>

static void reply_text(const struct api_ask *ask, int status, const char *json)
{
    api_reply(ask, status, "application/json", json, strlen(json));
}

void api_live(const struct api_ask *ask)
{
    reply_text(ask, 200, "{\"status\":\"ok\"}");
}

/* Not ready: says why, in llama-server's words where it has any. */
static void reply_unready(const struct api_ask *ask)
{
    struct api_error e;
    if (ask->sv->draining)
        api_error_set(&e, ERR_UNAVAILABLE, "draining", NULL, "the coordinator is shutting down");
    else
        api_error_set(&e, ERR_UNAVAILABLE, "no_decode_node", NULL, "Loading model: no decode node has joined yet");
    meters_request(ask->sv->meters, "", ask->endpoint, e.http); /* a probe is answered, not rejected */
    api_error_reply(&e, ask->x);
}

void api_health(const struct api_ask *ask)
{
    if (services_is_ready(ask->sv))
        reply_text(ask, 200, "{\"status\":\"ok\"}");
    else
        reply_unready(ask);
}

void api_ready(const struct api_ask *ask)
{
    if (services_is_ready(ask->sv))
        reply_text(ask, 200, "{\"status\":\"ready\"}");
    else
        reply_unready(ask);
}

void api_metrics(const struct api_ask *ask)
{
    struct strbuf body = STRBUF_INIT;
    struct services *sv = ask->sv;
    gauges_render(sv->meters, dispatch_state_counts(sv->dispatch), work_items(sv->work),
                  dispatch_registry(sv->dispatch), clock_now_us(), &body);
    api_reply(ask, 200, "text/plain; version=0.0.4; charset=utf-8", strbuf_cstr(&body), body.n);
    strbuf_fini(&body);
}

static void put_str(struct strbuf *out, const char *key, const char *value)
{
    json_cstr(out, key);
    strbuf_putc(out, ':');
    json_cstr(out, value);
    strbuf_putc(out, ',');
}

static const char *state_of(const struct node *n)
{
    return !n->alive ? "dead" : n->draining ? "draining" : "up";
}

static void put_blocks(const struct node *n, struct strbuf *out)
{
    strbuf_addf(out, "\"blocks_total\":%u,\"blocks_free\":%u,\"kv_blocks\":{\"total\":%u", n->load.blocks_total,
                n->load.blocks_free, n->load.blocks_total);
    for (int s = 0; s < KV_STATE_COUNT && s < NODE_MAX_STATES; s++)
        strbuf_addf(out, ",\"%s\":%u", kv_block_state_name((enum kv_block_state)s), n->load.by_state[s]);
    strbuf_puts(out, "},");
}

static void put_node(const struct node *n, uint64_t now, struct strbuf *out)
{
    static const char *const local[] = { "auto", "never", "always" };
    strbuf_putc(out, '{');
    put_str(out, "name", n->name);
    put_str(out, "role", n->decode ? "decode" : "prefill");
    put_str(out, "state", state_of(n));
    put_str(out, "model", n->model->name);
    put_str(out, "version", n->version);
    put_str(out, "admin", n->admin);
    if (n->decode) put_str(out, "local_prefill", local[n->local_prefill]);
    strbuf_addf(out, "\"incarnation\":\"%016llx\",\"heartbeat_age_ms\":%llu,\"max_seqs\":%u,\"max_context\":%u,",
                (unsigned long long)n->incarnation, (unsigned long long)(request_elapsed(now, n->last_seen) / 1000),
                n->max_seqs, node_max_tokens(n));
    strbuf_addf(out, "\"assigned\":%u,\"running\":%u,\"waiting\":%u,\"reserved\":%u,\"transfers\":%u,", n->n_active,
                n->load.running, n->load.waiting, n->load.reserved, n->load.transfers);
    put_blocks(n, out);
    strbuf_puts(out, "\"prefill_tok_s\":");
    json_num(out, n->load.prefill_tok_s);
    strbuf_puts(out, ",\"decode_tok_s\":");
    json_num(out, n->load.decode_tok_s);
    strbuf_addf(out, ",\"prefix_cache\":{\"queries\":%llu,\"hit_tokens\":%llu}",
                (unsigned long long)n->load.prefix_queries, (unsigned long long)n->load.prefix_hits);
    strbuf_addf(out, ",\"kv_bytes_sent\":%llu,\"kv_bytes_received\":%llu,\"rss_bytes\":%llu}",
                (unsigned long long)n->load.kv_bytes_sent, (unsigned long long)n->load.kv_bytes_received,
                (unsigned long long)n->load.rss_bytes);
}

void api_nodes(const struct api_ask *ask)
{
    struct strbuf body = STRBUF_INIT;
    struct services *sv = ask->sv;
    const uint32_t *counts = dispatch_state_counts(sv->dispatch);
    uint32_t running = 0;
    for (int s = REQUEST_RESERVED; s < REQUEST_DONE; s++) running += counts[s];
    strbuf_addf(&body,
                "{\"ready\":%s,\"draining\":%s,\"uptime_s\":%llu,\"requests_running\":%u,\"requests_waiting\":%u,"
                "\"requests\":{",
                services_is_ready(sv) ? "true" : "false", sv->draining ? "true" : "false",
                (unsigned long long)((clock_now_us() - sv->started) / 1000000), running,
                counts[REQUEST_QUEUED] + counts[REQUEST_RESERVING]);
    for (int s = 0; s < REQUEST_DONE; s++)
        strbuf_addf(&body, "%s\"%s\":%u", s ? "," : "", request_state_name((enum request_state)s), counts[s]);
    strbuf_puts(&body, "},\"nodes\":[");
    for (const struct node *n = dispatch_registry(sv->dispatch)->nodes; n; n = n->next) {
        put_node(n, clock_now_us(), &body);
        if (n->next) strbuf_putc(&body, ',');
    }
    strbuf_puts(&body, "]}");
    api_reply_json(ask, 200, "", &body);
    strbuf_fini(&body);
}

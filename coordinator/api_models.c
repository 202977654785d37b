/* api_models.c - GET /v1/models and /v1/models/{id}. */
#include "base/json_write.h"
#include "coordinator/api.h"
#include "coordinator/api_error.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/served_model.h"
#include "coordinator/services.h"

static void put_model(const struct services *sv, const struct served_model *m, struct strbuf *out)
{
    const struct registry *nodes = dispatch_registry(sv->dispatch);
    strbuf_puts(out, "{\"id\":");
    json_cstr(out, m->name);
    strbuf_addf(out,
                ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"baton\",\"max_model_len\":%u,\"meta\":{"
                "\"n_vocab\":%u,\"n_ctx_train\":%u,\"n_embd\":%u,\"n_params\":%llu,\"size\":%llu,"
                "\"fingerprint\":\"%016llx\",\"ready\":%s}}",
                (long long)m->created, registry_context(nodes, m), m->n_vocab, m->context_length, m->d_model,
                (unsigned long long)m->n_params, (unsigned long long)m->file_bytes, (unsigned long long)m->fingerprint,
                registry_can_serve(nodes, m) ? "true" : "false");
}

void api_models_list(const struct api_ask *ask)
{
    struct strbuf body = STRBUF_INIT;
    strbuf_puts(&body, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < ask->sv->n_models; i++) {
        if (i) strbuf_putc(&body, ',');
        put_model(ask->sv, ask->sv->models[i], &body);
    }
    strbuf_puts(&body, "]}");
    api_reply_json(ask, 200, "", &body);
    strbuf_fini(&body);
}

void api_models_get(const struct api_ask *ask)
{
    struct api_error e;
    struct served_model *m;
    struct strbuf body = STRBUF_INIT;
    if (services_find_model(ask->sv, ask->tail, &m, &e) != OK) { /* as a request with this name would */
        api_reply_error(ask, "", &e);
        return;
    }
    put_model(ask->sv, m, &body);
    api_reply_json(ask, 200, m->name, &body);
    strbuf_fini(&body);
}

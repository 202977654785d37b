/* services.c - which model a client means, and whether anything can be served. */
#include "coordinator/services.h"

#include "coordinator/api_error.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/served_model.h"

#include <string.h>

enum status services_find_model(const struct services *sv, const char *name, struct served_model **out,
                                struct api_error *e)
{
    for (uint32_t i = 0; i < sv->n_models; i++) {
        if (name[0] && strcmp(sv->models[i]->name, name) != 0) continue;
        *out = sv->models[i];
        return OK;
    }
    if (sv->cfg->coordinator.any_model) {
        *out = sv->models[0];
        return OK;
    }
    return api_error_set(e, ERR_NOT_FOUND, "model_not_found", "model",
                         "model \"%.80s\" is not served here; see /v1/models", name);
}

bool services_is_ready(const struct services *sv)
{
    return !sv->draining && registry_can_serve(dispatch_registry(sv->dispatch), NULL);
}

/* node_backend.c - what a node computes with: the CPU, or a GPU. */
#include "node/node_backend.h"

#include "base/cpus.h"
#include "base/log.h"
#include "model/model.h"
#include "parallel/ranks.h"

#include <string.h>

uint32_t node_threads(const struct config_node *self)
{
    struct cpu_list cpus;
    if (self->threads) return self->threads;
    if (cpu_list_parse(&cpus, self->cpus) != OK) cpu_list_allowed(&cpus);
    return cpus_default_threads("", &cpus);
}

/* The configuration has been checked: a list of one number. */
static uint32_t device_of(const struct config_node *self)
{
    struct cpu_list devices;
    return cpu_list_parse(&devices, self->devices) == OK ? devices.ids[0] : 0;
}

/* Ranks add up in host memory, so they stay on the CPU. */
static const char *choose(const struct config_node *self, struct error *why)
{
    if (self->tp * self->pp == 1 || strcmp(self->backend, "auto") != 0)
        return backend_choose(self->backend, device_of(self), why);
    error_set(why, ERR_UNSUPPORTED, "ranks (tp %u, pp %u) compute on the CPU", self->tp, self->pp);
    return "cpu";
}

enum status node_backend_open(struct ranks **out, const struct config_node *self, const struct model_info *info,
                              uint32_t max_context, struct error *err)
{
    struct error why = { 0 };
    const struct backend_options all = {
        .n_threads = node_threads(self),
        .cpus = self->cpus[0] ? self->cpus : NULL,
        .isa = self->isa,
        .device = device_of(self),
        .memory = self->gpu_memory,
        .numerics = strcmp(self->numerics, "exact") == 0 ? NUMERICS_EXACT : NUMERICS_FAST,
        .limits = model_limits(info, self->max_batch_tokens, max_context),
    };
    const char *name = choose(self, &why);
    if (strcmp(name, "cpu") == 0 && all.n_threads < self->tp)
        log_warn("ranks_share_cpus", "tp=%u threads=%u", self->tp, all.n_threads);
    enum status st = ranks_open(out, self->tp, self->pp, name, &all, err);
    if (st == OK)
        log_info("backend", "backend=%s asked=%s computes_with=%s reason=%s", name, self->backend,
                 log_quote(backend_describe(ranks_backend(*out, 0))), why.status == OK ? "-" : log_quote(why.text));
    return st;
}

/* backend_open.c - the backends that there are, by name. */
#include "compute/backend.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/cuda/cuda_backend.h"

#include <stdio.h>
#include <string.h>

/* A program that is not linked with the CUDA sources has no such function: one that needs no GPU stays small. */
#pragma weak cuda_backend_open

static const struct {
    const char *name;
    enum status (*open)(struct backend **out, const struct backend_options *opt, struct error *err);
} BACKENDS[] = {
    { "cpu", cpu_backend_open },
    { "cuda", cuda_backend_open },
};

enum status backend_open(struct backend **out, const char *name, const struct backend_options *opt, struct error *err)
{
    char names[128] = "";
    for (size_t i = 0; i < sizeof(BACKENDS) / sizeof(BACKENDS[0]); i++) {
        if (!BACKENDS[i].open) continue;
        if (strcmp(BACKENDS[i].name, name) == 0) return BACKENDS[i].open(out, opt, err);
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "", BACKENDS[i].name);
    }
    return error_set(err, ERR_INVALID, "backend is \"%s\", there is: %s", name, names);
}

void backend_close(struct backend *b)
{
    if (b) b->ops->close(b);
}

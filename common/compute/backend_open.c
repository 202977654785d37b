/* backend_open.c - the backends that there are, by name. */
#include "compute/backend.h"
#include "compute/cpu/cpu_backend.h"
#include "compute/cuda/cuda_backend.h"

#include <stdio.h>
#include <string.h>

/* A program that is not linked with the CUDA sources has no such functions: one that needs no GPU stays small. */
#pragma weak cuda_backend_open
#pragma weak cuda_device_check
#pragma weak cuda_device_bytes

static const struct {
    const char *name;
    enum status (*open)(struct backend **out, const struct backend_options *opt, struct error *err);
} BACKENDS[] = {
    { "cpu", cpu_backend_open },
    { "cuda", cuda_backend_open },
};

static enum status not_built(struct error *err)
{
    return error_set(err, ERR_UNSUPPORTED,
                     "backend cuda: this program was built without it; build where nvcc is (BATON_CUDA=ON)");
}

enum status backend_open(struct backend **out, const char *name, const struct backend_options *opt, struct error *err)
{
    char names[128] = "";
    for (size_t i = 0; i < sizeof(BACKENDS) / sizeof(BACKENDS[0]); i++) {
        if (strcmp(BACKENDS[i].name, name) == 0)
            return BACKENDS[i].open ? BACKENDS[i].open(out, opt, err) : not_built(err);
        size_t n = strlen(names);
        snprintf(names + n, sizeof(names) - n, "%s%s", i ? ", " : "", BACKENDS[i].name);
    }
    return error_set(err, ERR_INVALID, "backend is \"%s\", there is: %s", name, names);
}

const char *backend_choose(const char *wanted, uint32_t device, struct error *why)
{
    for (size_t i = 0; i < sizeof(BACKENDS) / sizeof(BACKENDS[0]); i++)
        if (strcmp(BACKENDS[i].name, wanted) == 0) return BACKENDS[i].name;
    const enum status st = cuda_device_check ? cuda_device_check(device, why) : not_built(why);
    return st == OK ? "cuda" : "cpu";
}

uint64_t backend_device_bytes(const char *name, uint32_t device)
{
    return strcmp(name, "cuda") == 0 && cuda_device_bytes ? cuda_device_bytes(device) : 0;
}

void backend_close(struct backend *b)
{
    if (b) b->ops->close(b);
}

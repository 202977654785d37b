/* cpu_backend.h - the CPU backend's row in the table of backends. */
#ifndef COMPUTE_CPU_CPU_BACKEND_H
#define COMPUTE_CPU_CPU_BACKEND_H
#include "compute/backend.h"

/* A team of opt->n_threads workers, the caller being one of them. */
enum status cpu_backend_open(struct backend **out, const struct backend_options *opt, struct error *err) MUST_CHECK;
#endif

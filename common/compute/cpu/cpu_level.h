/* cpu_level.h - which level of kernels a backend uses. */
#ifndef COMPUTE_CPU_CPU_LEVEL_H
#define COMPUTE_CPU_CPU_LEVEL_H
#include "base/error.h"
#include "compute/cpu/cpu_kernels.h"

/* The level named `isa`; NULL or "auto": the fastest that `flags` allow, which must be AVX2 at least: "ref" is taken
 * only by its name.  A level that fails its check is refused if it was named, else a warning is logged and the level
 * that checks it is taken. */
enum status cpu_level_choose(const struct cpu_kernels **out, const char *isa, uint32_t flags,
                             struct error *err) MUST_CHECK;

/* That check: *level stays, or becomes *level->checked_by, or, if it was `named`, ERR_UNSUPPORTED. */
enum status cpu_level_check(const struct cpu_kernels **level, bool named, struct error *err) MUST_CHECK;
#endif

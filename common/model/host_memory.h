/* host_memory.h - how much memory this process may still take. */
#ifndef MODEL_HOST_MEMORY_H
#define MODEL_HOST_MEMORY_H
#include "base/error.h"
#include "compute/backend.h"

/* What the machine can give without swapping, bounded by the control group's and the process's limits. */
uint64_t host_memory_available(void);
/* ERR_NO_MEMORY, with both numbers, if `bytes` for `what` would not fit; backends with memory of their own say so
 * themselves when they allocate. */
enum status host_memory_check(const struct backend *backend, uint64_t bytes, const char *what,
                              struct error *err) MUST_CHECK;
/* Whether the backend's device pointers are plain host memory. */
bool host_memory_is_of(const struct backend *backend);
#endif

/* host_memory.h - how much memory this process may still take. */
#ifndef BASE_HOST_MEMORY_H
#define BASE_HOST_MEMORY_H
#include "base/error.h"

#include <stdint.h>

struct host_memory {
    uint64_t bytes;
    char from[160]; /* which limit that is: "MemAvailable", "memory.max of control group /a" */
};

/* What the machine can give without swapping, bounded by the control groups' and the process's limits. */
void host_memory_left(struct host_memory *out);
uint64_t host_memory_available(void); /* its bytes alone */
/* The same with other folders in place of /proc and /sys/fs/cgroup. */
void host_memory_read(struct host_memory *out, const char *proc, const char *cgroup);
/* ERR_NO_MEMORY, with all numbers and the limit's name, if `bytes` for `what` do not fit beside `other_bytes` that are
 * promised but not taken yet (`others`; NULL: none are). */
enum status host_memory_fit(const struct host_memory *left, const char *what, uint64_t bytes, const char *others,
                            uint64_t other_bytes, struct error *err) MUST_CHECK;
/* The same of what is left now, with nothing beside. */
enum status host_memory_check(uint64_t bytes, const char *what, struct error *err) MUST_CHECK;
#endif

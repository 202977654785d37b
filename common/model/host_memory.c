/* host_memory.c - asks the kernel for the memory that is left, before a large part of it is taken. */
#include "model/host_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define MIB (1024.0 * 1024.0)

/* The number after `label` at the start of a line of a small /proc or /sys file; false if it is not there. */
static bool read_number(const char *path, const char *label, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    char line[256];
    bool found = false;
    if (!f) return false;
    while (!found && fgets(line, sizeof(line), f)) {
        size_t n = strlen(label);
        if (strncmp(line, label, n) != 0) continue;
        char *end;
        *out = strtoull(line + n, &end, 10);
        found = end != line + n;
    }
    fclose(f);
    return found;
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t left_of(uint64_t limit, uint64_t used)
{
    return limit > used ? limit - used : 0;
}

/* Bytes of this process's address space, for RLIMIT_AS. */
static uint64_t address_space_left(void)
{
    struct rlimit lim;
    uint64_t kib = 0;
    if (getrlimit(RLIMIT_AS, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    if (!read_number("/proc/self/status", "VmSize:", &kib)) return UINT64_MAX;
    return left_of(lim.rlim_cur, kib * 1024);
}

/* The group's page cache counts as used but can be dropped, so it is added back. */
static uint64_t control_group_left(void)
{
    uint64_t max, used, cache = 0;
    if (!read_number("/sys/fs/cgroup/memory.max", "", &max)) return UINT64_MAX; /* "max" */
    if (!read_number("/sys/fs/cgroup/memory.current", "", &used)) return UINT64_MAX;
    if (read_number("/sys/fs/cgroup/memory.stat", "inactive_file ", &cache)) used = left_of(used, cache);
    return left_of(max, used);
}

uint64_t host_memory_available(void)
{
    uint64_t kib, bytes = UINT64_MAX;
    if (read_number("/proc/meminfo", "MemAvailable:", &kib)) bytes = kib * 1024;
    return min_u64(bytes, min_u64(address_space_left(), control_group_left()));
}

bool host_memory_is_of(const struct backend *backend)
{
    return strcmp(backend->ops->name, "cpu") == 0;
}

enum status host_memory_check(const struct backend *backend, uint64_t bytes, const char *what, struct error *err)
{
    if (!host_memory_is_of(backend)) return OK;
    uint64_t left = host_memory_available();
    if (bytes <= left) return OK;
    return error_set(err, ERR_NO_MEMORY, "%s need %.1f MiB of memory, %.1f MiB are available", what,
                     (double)bytes / MIB, (double)left / MIB);
}

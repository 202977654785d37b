/* host_memory.c - asks the kernel for the memory that is left, before a large part of it is taken. */
#include "base/host_memory.h"

#include <stdbool.h>
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

static void bound(struct host_memory *m, uint64_t bytes, const char *fmt, const char *what)
{
    if (bytes >= m->bytes) return;
    m->bytes = bytes;
    snprintf(m->from, sizeof(m->from), fmt, what);
}

struct group_files {
    const char *root, *limit, *used, *cache; /* cache: a label in memory.stat */
    const char *name;
};

/* What one control group has left.  Its page cache counts as used but can be dropped, so it is added back. */
static void bound_by_group(struct host_memory *m, const char *cgroup, const struct group_files *f, const char *group)
{
    char path[512];
    uint64_t max, used, cache = 0;
    snprintf(path, sizeof(path), "%s%s%s/%s", cgroup, f->root, group, f->limit);
    if (!read_number(path, "", &max) || max >= UINT64_MAX / 4) return; /* "max", or v1's largest number */
    snprintf(path, sizeof(path), "%s%s%s/%s", cgroup, f->root, group, f->used);
    if (!read_number(path, "", &used)) return;
    snprintf(path, sizeof(path), "%s%s%s/memory.stat", cgroup, f->root, group);
    if (read_number(path, f->cache, &cache)) used = left_of(used, cache);
    bound(m, left_of(max, used), f->name, group[0] ? group : "/");
}

/* The group and all above it; inside a container the path may be the host's, and the root is the own group. */
static void bound_by_groups(struct host_memory *m, const char *cgroup, const struct group_files *f, char *group)
{
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && slash[1] == '\0') *slash = '\0';
        bound_by_group(m, cgroup, f, group);
        if (!(slash = strrchr(group, '/'))) return;
        *slash = '\0';
    }
}

static const struct group_files VERSION_1 = { "/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                                              "total_inactive_file ", "memory.limit_in_bytes of control group %s" };
static const struct group_files VERSION_2 = { "", "memory.max", "memory.current", "inactive_file ",
                                              "memory.max of control group %s" };

/* Lines "0::/path" (version 2) and "9:memory:/path" (version 1). */
static void bound_by_control_groups(struct host_memory *m, const char *proc, const char *cgroup)
{
    char path[256], line[512];
    snprintf(path, sizeof(path), "%s/self/cgroup", proc);
    FILE *f = fopen(path, "re");
    if (!f) return;
    while (fgets(line, sizeof(line), f)) {
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = '\0';
        group[strcspn(group, "\n")] = '\0';
        names++;
        if (names[0] == '\0')
            bound_by_groups(m, cgroup, &VERSION_2, group);
        else if (strcmp(names, "memory") == 0)
            bound_by_groups(m, cgroup, &VERSION_1, group);
    }
    fclose(f);
}

void host_memory_read(struct host_memory *out, const char *proc, const char *cgroup)
{
    struct host_memory m = { UINT64_MAX, "no limit" };
    char path[256];
    uint64_t kib;
    snprintf(path, sizeof(path), "%s/meminfo", proc);
    if (read_number(path, "MemAvailable:", &kib)) bound(&m, kib * 1024, "%s", "MemAvailable");
    bound(&m, address_space_left(), "%s", "RLIMIT_AS");
    bound_by_control_groups(&m, proc, cgroup);
    *out = m;
}

void host_memory_left(struct host_memory *out)
{
    host_memory_read(out, "/proc", "/sys/fs/cgroup");
}

uint64_t host_memory_available(void)
{
    struct host_memory left;
    host_memory_left(&left);
    return left.bytes;
}

enum status host_memory_fit(const struct host_memory *left, const char *what, uint64_t bytes, const char *others,
                            uint64_t other_bytes, struct error *err)
{
    char beside[160] = "";
    if (other_bytes <= left->bytes && bytes <= left->bytes - other_bytes) return OK;
    if (others) snprintf(beside, sizeof(beside), " beside %.1f MiB (%s)", (double)other_bytes / MIB, others);
    return error_set(err, ERR_NO_MEMORY, "%s: %.1f MiB of memory are needed%s, %.1f MiB are available (%s)", what,
                     (double)bytes / MIB, beside, (double)left->bytes / MIB, left->from);
}

enum status host_memory_check(uint64_t bytes, const char *what, struct error *err)
{
    struct host_memory left;
    host_memory_left(&left);
    return host_memory_fit(&left, what, bytes, NULL, 0, err);
}

/* cpus.c - processor lists, cores from /sys, and limits of control groups. */
#include "base/cpus.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_CAP 4352
#define LINE_CAP 4224

_Static_assert(CPUS_MAX == CPU_SETSIZE, "a list holds what a set holds");

bool cpu_list_has(const struct cpu_list *list, uint32_t id)
{
    for (uint32_t i = 0; i < list->n; i++)
        if (list->ids[i] == id) return true;
    return false;
}

/* Reads one number of a list; *s moves behind it. */
static bool read_id(const char **s, uint32_t *out)
{
    char *end;
    if (**s < '0' || **s > '9') return false;
    errno = 0;
    unsigned long v = strtoul(*s, &end, 10);
    if (errno || v >= CPUS_MAX) return false;
    *out = (uint32_t)v;
    *s = end;
    return true;
}

enum status cpu_list_parse(struct cpu_list *out, const char *text)
{
    struct cpu_list list = { 0 };
    for (const char *s = text;; s++) {
        uint32_t a, b;
        if (!read_id(&s, &a)) return ERR_PARSE;
        b = a;
        if (*s == '-' && (s++, !read_id(&s, &b))) return ERR_PARSE;
        if (b < a) return ERR_PARSE;
        for (; a <= b; a++) {
            if (cpu_list_has(&list, a)) return ERR_PARSE;
            list.ids[list.n++] = (uint16_t)a;
        }
        if (*s == '\0' || (*s == '\n' && s[1] == '\0')) break;
        if (*s != ',') return ERR_PARSE;
    }
    *out = list;
    return OK;
}

void cpu_list_allowed(struct cpu_list *out)
{
    cpu_set_t set;
    out->n = 0;
    if (sched_getaffinity(0, sizeof(set), &set) == 0)
        for (uint32_t i = 0; i < CPUS_MAX; i++)
            if (CPU_ISSET(i, &set)) out->ids[out->n++] = (uint16_t)i;
    if (out->n == 0) out->ids[out->n++] = 0; /* it runs somewhere */
}

enum status cpu_list_confine(const struct cpu_list *list)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (uint32_t i = 0; i < list->n; i++) CPU_SET(list->ids[i], &set);
    return sched_setaffinity(0, sizeof(set), &set) == 0 ? OK : ERR_INVALID;
}

/* The first line of a small file; false if there is none. */
static bool read_line(const char *path, char line[LINE_CAP])
{
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool found = fgets(line, LINE_CAP, f) != NULL;
    fclose(f);
    return found;
}

struct place { /* where a processor stands */
    uint16_t id;
    uint32_t package, core; /* core: the first of its siblings */
};

static struct place place_of(const char *root, uint16_t id)
{
    struct place p = { id, 0, id };
    struct cpu_list siblings;
    char path[PATH_CAP], line[LINE_CAP];
    snprintf(path, sizeof(path), "%s/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", root, id);
    if (read_line(path, line) && cpu_list_parse(&siblings, line) == OK && cpu_list_has(&siblings, id))
        p.core = siblings.ids[0];
    snprintf(path, sizeof(path), "%s/sys/devices/system/cpu/cpu%u/topology/physical_package_id", root, id);
    if (read_line(path, line) && line[0] >= '0' && line[0] <= '9') p.package = (uint32_t)strtoul(line, NULL, 10);
    return p;
}

static int by_place(const void *pa, const void *pb)
{
    const struct place *a = pa, *b = pb;
    if (a->package != b->package) return a->package < b->package ? -1 : 1;
    if (a->core != b->core) return a->core < b->core ? -1 : 1;
    return a->id < b->id ? -1 : a->id > b->id;
}

uint32_t cpus_order_by_core(const char *root, struct cpu_list *list, uint16_t core_of[CPUS_MAX])
{
    static const struct place nowhere = { 0, UINT32_MAX, UINT32_MAX };
    struct place places[CPUS_MAX], last = nowhere;
    uint32_t n = 0;
    for (uint32_t i = 0; i < list->n; i++) places[i] = place_of(root, list->ids[i]);
    qsort(places, list->n, sizeof(*places), by_place);
    for (uint32_t i = 0; i < list->n; i++) {
        n += places[i].core != last.core || places[i].package != last.package;
        last = places[i];
        list->ids[i] = places[i].id;
        core_of[i] = (uint16_t)(n - 1);
    }
    return n;
}

/* Processors' worth in the files of one group: "quota period" in one file (v2), or in two (v1); 0: no limit. */
static double group_quota(const char *dir, bool is_v2)
{
    char path[PATH_CAP + 32], quota[LINE_CAP], period[LINE_CAP];
    long long q = -1, p = 0;
    snprintf(path, sizeof(path), "%s/%s", dir, is_v2 ? "cpu.max" : "cpu.cfs_quota_us");
    if (!read_line(path, quota)) return 0.0;
    if (is_v2) {
        if (sscanf(quota, "%lld %lld", &q, &p) != 2) return 0.0; /* "max 100000" */
    } else {
        snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", dir);
        if (!read_line(path, period) || sscanf(quota, "%lld", &q) != 1 || sscanf(period, "%lld", &p) != 1) return 0.0;
    }
    return q > 0 && p > 0 ? (double)q / (double)p : 0.0;
}

/* The tightest limit of the group at `path` under `mount` and of all groups above it.  Inside a container the path may
 * be the host's and lead nowhere: the walk then ends at the container's own group, the mount itself. */
static double walk_quota(const char *mount, const char *path, bool is_v2, double tightest)
{
    char dir[PATH_CAP];
    size_t top = (size_t)snprintf(dir, sizeof(dir), "%s", mount), n;
    n = top + (size_t)snprintf(dir + top, sizeof(dir) - top, "%s", strcmp(path, "/") ? path : "");
    if (n >= sizeof(dir)) return tightest;
    for (;;) {
        double q = group_quota(dir, is_v2);
        if (q > 0.0 && (tightest == 0.0 || q < tightest)) tightest = q;
        if (n <= top) return tightest;
        while (n > top && dir[n - 1] != '/') n--;
        dir[n > top ? n - 1 : top] = '\0';
        n = strlen(dir);
    }
}

/* Whether a comma-separated list of controllers has `cpu`. */
static bool has_cpu(const char *controllers, size_t n)
{
    while (n > 0) {
        const char *comma = memchr(controllers, ',', n);
        size_t word = comma ? (size_t)(comma - controllers) : n;
        if (word == 3 && memcmp(controllers, "cpu", 3) == 0) return true;
        controllers += comma ? word + 1 : word;
        n -= comma ? word + 1 : word;
    }
    return false;
}

double cpus_quota(const char *root)
{
    static const struct {
        const char *mount;
        bool is_v2;
    } MOUNTS[] = { { "/sys/fs/cgroup", true },
                   { "/sys/fs/cgroup/unified", true },
                   { "/sys/fs/cgroup/cpu", false },
                   { "/sys/fs/cgroup/cpu,cpuacct", false } };
    char path[PATH_CAP], line[LINE_CAP], mount[PATH_CAP];
    double quota = 0.0;
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    if (!f) return 0.0;
    while (fgets(line, sizeof(line), f)) { /* hierarchy:controllers:path; v2 is "0::path" */
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        if (!second) continue;
        bool is_v2 = second == first + 1;
        if (!is_v2 && !has_cpu(first + 1, (size_t)(second - first - 1))) continue;
        second[1 + strcspn(second + 1, "\n")] = '\0';
        for (size_t i = 0; i < sizeof(MOUNTS) / sizeof(MOUNTS[0]); i++) {
            if (MOUNTS[i].is_v2 != is_v2) continue;
            snprintf(mount, sizeof(mount), "%s%s", root, MOUNTS[i].mount);
            quota = walk_quota(mount, second + 1, is_v2, quota);
        }
    }
    fclose(f);
    return quota;
}

static uint32_t bounded(uint32_t n, double quota)
{
    if (quota > 0.0 && n > quota) n = (uint32_t)quota;
    return n > 0 ? n : 1;
}

uint32_t cpus_usable(const char *root, const struct cpu_list *list)
{
    return bounded(list->n, cpus_quota(root));
}

uint32_t cpus_default_threads(const char *root, const struct cpu_list *list)
{
    struct cpu_list ordered = *list;
    uint16_t core_of[CPUS_MAX];
    return bounded(cpus_order_by_core(root, &ordered, core_of), cpus_quota(root));
}

bool cpus_share(const struct cpu_list *list, const uint16_t core_of[CPUS_MAX], const uint32_t *weights, uint32_t n,
                struct cpu_list *parts)
{
    uint64_t all = 0, before = 0, n_cores = list->n ? core_of[list->n - 1] + 1u : 0;
    uint32_t at = 0;
    for (uint32_t i = 0; i < n; i++) all += weights[i];
    for (uint32_t i = 0; i < n; i++) {
        before += weights[i];
        parts[i].n = 0;
        for (; at < list->n && core_of[at] < n_cores * before / all; at++) parts[i].ids[parts[i].n++] = list->ids[at];
        if (parts[i].n < weights[i]) return false;
    }
    return true;
}
